"""Files that are only in memory: images as values, links, folders."""

from __future__ import annotations

import posixpath

from dlltracer.errors import BinaryFormatError
from dlltracer.model.elf import ElfImage, ElfSegment
from dlltracer.model.loader_context import FileKind
from dlltracer.model.pe import PeImage


def elf_image(
    *needed: str, soname: str | None = None, rpath: str | None = None, runpath: str | None = None, bits: int = 64,
    machine: int = 62, kind: int = 3, flags_1: int = 0, interpreter: str | None = None, is_dynamic: bool = True,
    flags: int = 0, little_endian: bool = True, abi: int = 0,
) -> ElfImage:  # fmt: skip
    """An image of a library, for x86-64 unless other values say otherwise."""
    return ElfImage(
        bits=bits, little_endian=little_endian, machine=machine, kind=kind, abi=abi, flags=flags,
        interpreter=interpreter, soname=soname, needed=needed, rpath=rpath, runpath=runpath, dynamic_flags=0,
        dynamic_flags_1=flags_1,
        segments=(ElfSegment(1, 5, 0, 0, 0x1000, 0x1000, 0x1000),), version_needs=(), version_defs=(),
        is_dynamic=is_dynamic,
    )  # fmt: skip


def elf_head(image: ElfImage) -> bytes:
    """The first bytes of such an image."""
    order = "little" if image.little_endian else "big"
    ident = b"\x7fELF" + bytes((image.bits // 32, 1 if image.little_endian else 2, 1, image.abi)) + bytes(8)
    start = b"".join(number.to_bytes(size, order) for number, size in ((image.kind, 2), (image.machine, 2), (1, 4)))
    at, size = (54, 56) if image.bits == 64 else (42, 32)
    flags = image.flags.to_bytes(4, order) + bytes(2)
    return ((ident + start).ljust(at - 6, b"\0") + flags + size.to_bytes(2, order)).ljust(512, b"\0")


class MemoryFilesystem:
    """Implements `resolve.lookup.Filesystem`.

    Arguments: `entries`, absolute path to an image, to bytes, to a kind (`FileKind.DENIED`), or to a path in text,
    which makes it a symbolic link. Folders exist when something is in them.
    """

    def __init__(self, entries: dict[str, ElfImage | PeImage | bytes | FileKind | str]) -> None:
        self._entries = entries
        self._numbers = {path: number for number, path in enumerate(entries, 1)}
        self._folders = {"/"}
        for path in entries:
            folder = posixpath.dirname(path)
            while folder not in self._folders:
                self._folders.add(folder)
                folder = posixpath.dirname(folder)

    def real_path(self, path: str) -> str:
        assert path.startswith("/"), "a resolver asks for whole paths"
        done = "/"
        parts = path.split("/")[::-1]
        links = 0
        while parts:
            part = parts.pop()
            done = posixpath.normpath(posixpath.join(done, part))
            target = self._entries.get(done)
            if isinstance(target, str):
                links += 1
                if links > 40:
                    break
                parts += target.split("/")[::-1]
                done = "/" if target.startswith("/") else posixpath.dirname(done)
        return done

    def kind(self, path: str) -> FileKind:
        real = self.real_path(path)
        entry = self._entries.get(real)
        if isinstance(entry, str):
            return FileKind.SYMLINK_LOOP
        if isinstance(entry, FileKind):
            return entry
        if entry is None:
            return FileKind.FOLDER if real in self._folders else FileKind.ABSENT
        return FileKind.FILE

    def identity(self, path: str) -> tuple[int, int] | None:
        number = self._numbers.get(self.real_path(path))
        return None if number is None else (1, number)

    def read_head(self, path: str, size: int) -> bytes:
        entry = self._file(path)
        data = elf_head(entry) if isinstance(entry, ElfImage) else b"MZ" if isinstance(entry, PeImage) else entry
        return data[:size]

    def read_image(self, path: str) -> ElfImage | PeImage:
        entry = self._file(path)
        if isinstance(entry, bytes):
            raise BinaryFormatError(0, "bytes that are no image")
        return entry

    def _file(self, path: str) -> ElfImage | PeImage | bytes:
        entry = self._entries.get(self.real_path(path))
        if entry is None or isinstance(entry, (str, FileKind)):
            raise FileNotFoundError(2, "No such file or directory", path)
        return entry
