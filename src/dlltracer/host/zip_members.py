"""Reads the members of a zip archive with their sums: inflating and hashing take most of the time that a wheel takes.

Both let other threads run: zlib and hashlib of CPython release the GIL for all but the smallest pieces. So a second
thread does them while the first one makes something of what it gets.

Source: APPNOTE.TXT of PKWARE, 4.3.7 "Local file header", 4.4.4 "general purpose bit flag".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import sys
import threading
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from queue import SimpleQueue
from typing import NamedTuple

from ..binary.reading import open_regular, pread

LARGEST_WHOLE = 16 << 20
"""Bytes of a member that is held in memory, packed or not."""
_WORTH_A_THREAD = 1 << 20
"""Packed bytes of all members from which on a thread gains more than it costs."""
_MOST_WAITING = 4
"""Members that wait for the first thread: with `LARGEST_WHOLE`, that bounds the memory."""
_HEADER = struct.Struct("<4s2xHH16xHH")
_ROOM = 64
_ENCRYPTED, _UTF8 = 0x1, 0x800


class Member(NamedTuple):
    """A file of the archive: its entry, its content, and its sum by the method that was asked for.

    The content is `None` where `zipfile` has to read it: the file is large, packed in a rare way, or damaged; then the
    error of `zipfile` says how.
    """

    entry: zipfile.ZipInfo
    content: bytes | None
    digest: bytes = b""


def open_archive(path: str) -> tuple[zipfile.ZipFile, int]:
    """Open an archive; return it and the descriptor that it reads from, which the caller closes.

    Raises `OSError`, `zipfile.BadZipFile`, and `BinaryFormatError` for a FIFO or a device: `zipfile` would wait for it.
    """
    fd = open_regular(path)
    try:
        return zipfile.ZipFile(open(fd, "rb", closefd=False)), fd
    except BaseException:
        os.close(fd)
        raise


def read_members(fd: int, entries: Sequence[zipfile.ZipInfo], methods: Mapping[str, str]) -> Iterator[Member]:
    """Yield each entry with its content, in no order; those without content come last, in the order given.

    Arguments: `fd`, of the archive; `methods`, name of an entry to the hash of its sum, where that is not SHA-256.
    """
    reading = _Reading(fd, entries, methods)
    read = set()
    try:
        for member in reading.run():
            if member.content is not None:
                read.add(id(member.entry))
                yield member
    finally:
        reading.stop()
    yield from (Member(entry, None) for entry in entries if id(entry) not in read)


class _Reading:
    """The work of two threads: the second one takes the largest entries first, the calling one the smallest."""

    def __init__(self, fd: int, entries: Sequence[zipfile.ZipInfo], methods: Mapping[str, str]) -> None:
        self._fd = fd
        self._methods = methods
        self._left = deque(sorted(entries, key=lambda entry: entry.compress_size))
        self._done: SimpleQueue[Member | None] = SimpleQueue()
        self._room = threading.Semaphore(_MOST_WAITING)
        starts = sorted({entry.header_offset for entry in entries})
        self._ends = dict(pairwise(starts))
        self._thread: threading.Thread | None = None

    def run(self) -> Iterator[Member]:
        """Yield the members as they are read; of the second thread those that are there go first."""
        is_worth_it = sum(entry.compress_size for entry in self._left) >= _WORTH_A_THREAD
        # Without pread(2), on Windows, two threads would share the place in the file.
        if is_worth_it and hasattr(os, "pread") and _count_processors() > 1:
            thread = threading.Thread(target=self._work, daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads for this user: one does it, too
                thread.start()
                self._thread = thread
        is_working = self._thread is not None
        while is_working or self._left:
            try:
                entry = self._left.popleft() if self._done.empty() else None
            except IndexError:
                entry = None
            if entry is not None:
                yield self._read(entry)
                continue
            member = self._done.get()
            if member is None:
                is_working = False
                continue
            self._room.release()
            yield member

    def stop(self) -> None:
        """End the second thread, which reads from a descriptor that is about to be closed."""
        self._left.clear()
        self._room.release()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        try:
            while self._left:
                self._room.acquire()
                self._done.put(self._read(self._left.pop()))
        except IndexError:  # the other thread was faster
            pass
        finally:
            self._done.put(None)

    def _read(self, entry: zipfile.ZipInfo) -> Member:
        """Read an entry whole. Never raises: what is not as it should be is left to `zipfile`."""
        try:
            content = self._inflate(entry)
        except (zlib.error, OSError, struct.error, ValueError, OverflowError):
            content = None
        if content is None or len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
            return Member(entry, None)
        method = self._methods.get(entry.filename)
        digest = hashlib.sha256(content) if method is None else hashlib.new(method, content)
        return Member(entry, content, digest.digest())

    def _inflate(self, entry: zipfile.ZipInfo) -> bytes | None:
        packed, size = entry.compress_size, entry.file_size
        is_stored = entry.compress_type == zipfile.ZIP_STORED
        if max(packed, size) > LARGEST_WHOLE or not (is_stored or entry.compress_type == zipfile.ZIP_DEFLATED):
            return None
        # In one read, with room for the fields behind the name, which need not be those of the directory.
        size_of_all = _HEADER.size + len(entry.orig_filename) + _ROOM + packed
        data = memoryview(pread(self._fd, size_of_all, entry.header_offset))
        mark, flags, _, name_size, extra_size = _HEADER.unpack(data[: _HEADER.size])
        name = bytes(data[_HEADER.size : _HEADER.size + name_size])
        start = _HEADER.size + name_size + extra_size
        if mark != b"PK\x03\x04" or flags & _ENCRYPTED or _decode(name, flags) != entry.orig_filename:
            return None
        if entry.header_offset + start + packed > self._ends.get(entry.header_offset, sys.maxsize):
            return None  # it overlaps with the next one, as those of zip bombs do
        data = data[start : start + packed]
        if len(data) != packed:
            data = memoryview(pread(self._fd, packed, entry.header_offset + start))
        if len(data) != packed or is_stored:
            return bytes(data)
        # One more than there should be: what is longer is found so, and none is unpacked further.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)


def _decode(name: bytes, flags: int) -> str:
    # The decoder of cp437 is no part of the interpreter's core, and slow.
    return name.decode("ascii" if name.isascii() else "utf-8" if flags & _UTF8 else "cp437")


def _count_processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
