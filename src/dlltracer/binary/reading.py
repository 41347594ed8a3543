"""Reads bytes of unchecked files: opening never waits, and nothing outside of the data is read.

Files are read by pread(2), never mapped. A mapped file that another process shortens raises SIGBUS at the next access
(mmap(2)), which no Python code can catch; a read that finds less than it asked for is an ordinary error.

`describe_not_image` says what a file is that is no image. Sources: the specification of Git LFS pointers; "Linker
Scripts" of the GNU ld manual; MS Learn "PE Format"; <mach-o/loader.h> and <mach-o/fat.h>; ar(5); elf(5).
"""

from __future__ import annotations

import errno
import os
import stat

from ..errors import BinaryFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from struct import Struct
    from types import TracebackType
    from typing import Any

_SMALL = 0x8000
"""Bytes up to which a whole file is read at once."""
_BLOCK_BITS = 14
_BLOCK = 1 << _BLOCK_BITS
_PIECE = 0x40000
"""Bytes asked for at once. Python makes room for all that a read asks for: with a limit of 64 MB as the size, each read
of a small file took 34 ms on Windows (measured under Wine: half the time of `dlltracer why`)."""
_MOST_BLOCKS = 64
"""Blocks kept at once: 1 MB, whatever the size of the file."""
_RANDOM: int | None = getattr(os, "POSIX_FADV_RANDOM", None)
_FLAGS = (
    os.O_RDONLY
    # A FIFO without a writer must not make us wait, nor a terminal become ours: open(2).
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)  # Windows would translate line ends
)


def open_regular(path: str) -> int:
    """Open a regular file for reading and return its descriptor.

    Raises `OSError`, and `BinaryFormatError` for a device, FIFO or socket. The kind is asked before opening as well:
    opening some devices has effects of its own (a watchdog starts, a tape rewinds).
    """
    _check_kind(os.stat(path), path)
    fd = os.open(path, _FLAGS)
    try:
        _check_kind(os.fstat(fd), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_kind(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise BinaryFormatError(0, "not a regular file (a device, a FIFO or a socket)")


def read_regular(path: str, limit: int) -> bytes:
    """Return the first `limit` bytes of a regular file, or all if it has fewer. Raises as `open_regular`."""
    fd = open_regular(path)
    try:
        return _read_at(fd, 0, limit)
    finally:
        os.close(fd)


def _read_at(fd: int, offset: int, size: int) -> bytes:
    """Return `size` bytes at `offset`; fewer only where the file ends."""
    parts: list[bytes] = []
    found = 0
    while found < size and (part := pread(fd, min(size - found, _PIECE), offset + found)):
        parts.append(part)
        found += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _pread_of_windows(fd: int, size: int, offset: int) -> bytes:
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, size)


pread = getattr(os, "pread", _pread_of_windows)
"""Reads bytes at an offset: pread(2). On Windows it moves the place in the file, so that no two threads may use it."""


class FileBytes:
    """The bytes of an open file, with the operations of `bytes` that readers use: length, slices and `find`.

    Small pieces come from blocks that are kept, up to 1 MB of them; larger pieces are read as they are asked for.
    The length is the one at the start. A file that becomes shorter afterwards is a `BinaryFormatError`.
    """

    __slots__ = ("_blocks", "_fd", "_size")

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        self._blocks: dict[int, bytes] = {}

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        number = start >> _BLOCK_BITS
        if stop <= (number + 1) << _BLOCK_BITS:
            if stop <= start:
                return b""
            at = start & (_BLOCK - 1)
            return (self._blocks.get(number) or self._read_block(number))[at : at + stop - start]
        return self._read(start, stop - start)

    def find(self, byte: bytes, start: int, end: int) -> int:
        """Return the first offset of a single byte between `start` and `end`; -1 if it is not there."""
        end = min(end, self._size)
        while start < end:
            number = start >> _BLOCK_BITS
            base = number << _BLOCK_BITS
            block = self._blocks.get(number) or self._read_block(number)
            at = block.find(byte, start - base, end - base)
            if at >= 0:
                return base + at
            start = base + _BLOCK
        return -1

    def _read_block(self, number: int) -> bytes:
        if len(self._blocks) >= _MOST_BLOCKS:
            self._blocks.clear()
        start = number << _BLOCK_BITS
        block = self._blocks[number] = self._read(start, min(_BLOCK, self._size - start))
        return block

    def _read(self, offset: int, size: int) -> bytes:
        found = _read_at(self._fd, offset, size)
        if len(found) < size:
            raise BinaryFormatError(offset + len(found), "the file became shorter while it was read")
        return found


class OpenedFile:
    """The bytes of a file, for a `with` block: `FileBytes`, or `bytes` when there are few.

    Raises `OSError`, and `BinaryFormatError` for a device, FIFO or socket.
    """

    def __init__(self, path: str) -> None:
        self._fd = open_regular(path)

    def __enter__(self) -> bytes | FileBytes:
        size = os.fstat(self._fd).st_size
        if size <= _SMALL:
            return _read_at(self._fd, 0, _SMALL)  # files of /proc have no size and can be read
        if _RANDOM is not None and hasattr(os, "posix_fadvise"):
            # Without it the kernel reads far ahead of the few pages that are wanted: posix_fadvise(2).
            os.posix_fadvise(self._fd, 0, 0, _RANDOM)
        return FileBytes(self._fd, size)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


class PartOfFile:
    """Some bytes of a file, as if they were a file of their own: an image of a universal Mach-O file."""

    __slots__ = ("_data", "_offset", "_size")

    def __init__(self, data: Data, offset: int, size: int) -> None:
        self._data = data
        self._offset = offset
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        return bytes(self._data[self._offset + start : self._offset + max(start, stop)])

    def find(self, byte: bytes, start: int, end: int) -> int:
        """Return the first offset of a single byte between `start` and `end`; -1 if it is not there."""
        found = self._data.find(byte, self._offset + start, self._offset + min(end, self._size))
        return found - self._offset if found >= 0 else -1


Data = bytes | bytearray | FileBytes | PartOfFile
"""What the readers read from."""


class Cursor:
    """Reads from `data` at offsets that nobody has checked yet: outside of the data is a `BinaryFormatError`.

    `what` in every method names the thing that the caller looks for, for the message of the error.
    """

    __slots__ = ("data", "size")

    def __init__(self, data: Data | memoryview) -> None:
        self.data: Data = bytes(data) if isinstance(data, memoryview) else data  # it has no `find`
        self.size = len(data)

    def unpack(self, layout: Struct, offset: int, what: str) -> tuple[Any, ...]:
        """Return the fields of `layout` at `offset`."""
        end = offset + layout.size
        if offset < 0 or end > self.size:
            raise self.cut_short(offset, layout.size, what)
        return layout.unpack(self.data[offset:end])

    def take(self, offset: int, size: int, what: str) -> bytes:
        """Return a copy of `size` bytes at `offset`."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise self.cut_short(offset, size, what)
        return bytes(self.data[offset : offset + size])

    def part(self, offset: int, size: int) -> Cursor:
        """Return a cursor over `size` bytes at `offset`, whose own offsets begin there; fewer if they are not there."""
        offset = min(offset, self.size)
        return Cursor(PartOfFile(self.data, offset, min(size, self.size - offset)))

    def text(self, offset: int, what: str, *, limit: int = 4096, end: int | None = None) -> bytes:
        """Return the bytes from `offset` to the next NUL, which has to come within `limit` bytes and before `end`."""
        end = self.size if end is None else min(end, self.size)
        if offset < 0 or offset >= end:
            raise self.cut_short(offset, 1, what, end)
        stop = self.data.find(b"\0", offset, min(offset + limit, end))
        if stop < 0:
            raise BinaryFormatError(offset, f"{what} has no end")
        return bytes(self.data[offset:stop])

    def cut_short(self, offset: int, size: int, what: str, end: int | None = None) -> BinaryFormatError:
        """Return the error for `size` bytes at `offset` that are not all there."""
        end = self.size if end is None else end
        return BinaryFormatError(
            offset, f"cut short or damaged: {what} ends at {offset + size:#x}, what is there ends at {end:#x}"
        )


def is_macho(head: bytes) -> bool:
    """Return whether a file that begins with these bytes, at least eight, is a Mach-O file, thin or universal."""
    # A Java class begins as a universal file does; there the next number is a version, 45 or higher.
    return head[:4] in _MACH_O or (head[:4] in _UNIVERSAL and int.from_bytes(head[4:8], "big") < 45)


HEAD_SIZE = 512
"""How many bytes from the start of a file `describe_not_image` wants, at most."""

_MACH_O = tuple(bytes.fromhex(magic) for magic in ("feedface", "feedfacf", "cefaedfe", "cffaedfe"))
_UNIVERSAL = (b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf")
_LFS = b"version https://git-lfs.github.com/spec/v1"
_SCRIPTS = (b"/* GNU ld script", b"INPUT(", b"INPUT (", b"GROUP(", b"GROUP (", b"OUTPUT_FORMAT")
_LINK = rb"[\w./+-]*\w\.so(?:\.\d+)*"
"""What git (core.symlinks=false), a zip archive or a Windows share makes of a link: a file with the target's name."""
_OTHERS = (
    (b"\x1f\x8b", "a compressed file (gzip)"),
    (b"BZh", "a compressed file (bzip2)"),
    (b"\xfd7zXZ\0", "a compressed file (xz)"),
    (b"\x28\xb5\x2f\xfd", "a compressed file (zstd)"),
    (b"\0GITCRYPT\0", "a file encrypted by git-crypt"),
    (b"BC\xc0\xde", "a file of LLVM bitcode, which only compilers read"),
    (b"\0asm", "a WebAssembly module"),
)
"""Beginnings: RFC 1952, RFC 8878, the formats of bzip2 and xz, git-crypt's README, LLVM's and WebAssembly's manuals."""
_HTML = (b"<!doctype html", b"<html", b"<head", b"<?xml")


def describe_not_image(head: bytes) -> str | None:
    """Name what a file is by its first bytes, as a noun phrase that can follow "this is".

    Args:
        head: the first `HEAD_SIZE` bytes, or all if there are fewer.

    Returns:
        The description, or `None` for anything unknown. "an ELF file" and "a PE file" are among the answers: a reader
        asks only about what is not its own.
    """
    if not head:
        return "an empty file"
    if head.startswith(_LFS):
        return "a Git LFS pointer, not the file itself (git lfs pull fetches it)"
    return _describe_binary(head) or _describe_text(head)


def _describe_binary(head: bytes) -> str | None:
    if head.startswith(b"\x7fELF"):
        return "an ELF file (Linux)"
    if head.startswith(b"MZ"):
        return "a PE file (Windows)"
    if is_macho(head):
        return "a Mach-O file (macOS)"
    if head.startswith((b"!<arch>\n", b"!<thin>\n")):
        return "an ar archive (a static or import library, for linkers only)"
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive"
    return next((what for start, what in _OTHERS if head.startswith(start)), None)


def _describe_text(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head.strip(b"\0"):
        return "nothing but zeros"
    if text.lower().startswith(_HTML):
        return "an HTML or XML page, perhaps the answer to a failed download"
    if text.startswith(_SCRIPTS):
        return "a script of the GNU linker, which only linkers read"
    if text.startswith(b"#!"):
        return "a script"
    if text[:1] == b"{" and text[1:].lstrip()[:1] == b'"':
        return "a JSON text, perhaps the answer to a failed download"
    return _describe_link(head)


def _describe_link(head: bytes) -> str | None:
    import re

    if re.fullmatch(_LINK, head):
        name = head.decode("utf-8")
        return f"a symbolic link that was stored as a text file: all it says is {name}"
    return None


def read_kernel_file(path: str) -> str:
    """Return the text of a file of the kernel (proc(5)); empty where there is none or it may not be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as stream:
            return stream.read()
    except OSError:
        return ""
