"""Keeps the native files of an archive as read, with a file system of them for a loader's search: no file is made.

The paths are those from the top of the folder that the archive would be installed to. Most archives have files of one
format, so that each reader is imported when it is first needed.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from ..binary.reading import HEAD_SIZE, FileBytes
from ..errors import BinaryFormatError
from ..model.elf import ElfImage
from ..model.loader_context import FileKind
from ..model.macho import MachoFile
from ..model.pe import PeImage

ImageT = TypeVar("ImageT", ElfImage, MachoFile, PeImage)


def _is_elf(head: bytes) -> bool:
    return head.startswith(b"\x7fELF")


def _is_pe(head: bytes) -> bool:
    return head.startswith(b"MZ")


class StoredImage(NamedTuple):
    """A native file: its first bytes, and its image with all symbols, or what is wrong with it."""

    head: bytes
    image: ElfImage | PeImage | MachoFile | BinaryFormatError


def read_stored(data: bytes | FileBytes) -> StoredImage:
    """Return what is to be known of a file that begins as a native one. Never raises `BinaryFormatError`."""
    head = bytes(data[:HEAD_SIZE])
    try:
        if _is_elf(head):
            from ..binary.elf import parse_elf

            return StoredImage(head, parse_elf(data, symbols=True))
        if _is_pe(head):
            from ..binary.pe import parse_pe

            return StoredImage(head, parse_pe(data, symbols=True, resources=True))
        from ..binary.macho import parse_macho

        return StoredImage(head, parse_macho(data, symbols=True, sums=True))
    except BinaryFormatError as error:
        # Not the error itself: its traceback has the whole file.
        return StoredImage(head, BinaryFormatError(error.offset, error.problem))


class _StoredFiles:
    """The parts that the file systems of all loaders share. Argument: `images`, by their places, "/" between parts."""

    def __init__(self, images: Mapping[str, StoredImage]) -> None:
        self._images = images
        self._numbers = {place: number for number, place in enumerate(images, 1)}
        self._folders = list_folders(images)

    def kind(self, path: str) -> FileKind:
        place = self._find(path)
        if place in self._images:
            return FileKind.FILE
        return FileKind.FOLDER if place in self._folders else FileKind.ABSENT

    def identity(self, path: str) -> tuple[int, int] | None:
        place = self._find(path)
        if place in self._numbers:
            return 0, self._numbers[place]
        return (1, hash(place)) if place in self._folders else None

    def read_head(self, path: str, size: int) -> bytes:
        return self._stored(path).head[:size]

    def is_folder(self, path: str) -> bool:
        """Return whether there is a folder with native files below it."""
        return self.kind(path) is FileKind.FOLDER

    def _stored(self, path: str) -> StoredImage:
        place = self._find(path)
        if place is None or place not in self._images:
            raise FileNotFoundError(2, "no such file", path)
        return self._images[place]

    def _image(self, path: str, kind: type[ImageT], is_own: Callable[[bytes], bool]) -> ImageT | None:
        """Return the image at a path, raising what is wrong with it; `None` for a file of another format.

        Arguments: `kind` of the images; `is_own`, whether a file that begins like this is one for its reader.
        """
        stored = self._stored(path)
        if isinstance(stored.image, kind):
            return stored.image
        if isinstance(stored.image, BinaryFormatError) and is_own(stored.head):
            raise BinaryFormatError(stored.image.offset, stored.image.problem)
        return None

    def _find(self, path: str) -> str | None:
        raise NotImplementedError


class _PosixFiles(_StoredFiles):
    """Files by absolute paths from the top of the archive, as the loaders of Linux and macOS use them."""

    def real_path(self, path: str) -> str:
        place = self._find(path)
        return path if place is None else f"/{place}"

    def _find(self, path: str) -> str | None:
        """Return the place that a path leads to; `None` where it goes through what is no folder."""
        place = path[1:]
        if place in self._images:
            return place
        found: list[str] = []
        for part in path.split("/"):
            if part == "..":
                if found and "/".join(found) not in self._folders:
                    return None
                del found[-1:]
            elif part not in ("", "."):
                found.append(part)
        return "/".join(found)


class StoredElfFiles(_PosixFiles):
    """The ELF files of an archive."""

    def read_image(self, path: str) -> ElfImage:
        image = self._image(path, ElfImage, _is_elf)
        if image is not None:
            return image
        from ..binary.elf import parse_elf

        return parse_elf(self._stored(path).head)  # it says what the file is instead


class StoredMachoFiles(_PosixFiles):
    """The Mach-O files of an archive."""

    def read_image(self, path: str) -> MachoFile:
        image = self._image(path, MachoFile, lambda head: not (_is_elf(head) or _is_pe(head)))
        if image is not None:
            return image
        from ..binary.macho import parse_macho

        return parse_macho(self._stored(path).head)


class StoredPeFiles(_StoredFiles):
    """The PE files of an archive, as drive C: whose names are compared without regard to case."""

    def __init__(self, images: Mapping[str, StoredImage]) -> None:
        super().__init__({place.lower(): images[place] for place in sorted(images, reverse=True)})

    def real_path(self, path: str) -> str:
        return path

    def read_image(self, path: str) -> PeImage:
        image = self._image(path, PeImage, _is_pe)
        if image is not None:
            return image
        from ..binary.pe import parse_pe

        return parse_pe(self._stored(path).head)

    def _find(self, path: str) -> str | None:
        place = path.replace("\\", "/").lower()
        if "/." in place or "//" in place:
            place = posixpath.normpath(place)
        return place[2:].strip("/") if place.startswith("c:/") else None


def list_folders(places: Iterable[str]) -> set[str]:
    """Return all folders above some places, "" for the top."""
    folders = {""}
    for place in places:
        while (place := posixpath.dirname(place)) not in folders:
            folders.add(place)
    return folders
