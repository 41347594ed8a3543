"""Reads recordings from files, however damaged, and writes them line by line."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import BinaryIO

from ..binary.reading import open_regular, read_regular
from ..model.run import SavedTrace
from ..model.tracereader import LONGEST_LINE, TraceReader, is_recording

LARGEST_FILE = 1 << 30
"""In bytes; what a file has beyond is not read."""
_HEAD = 64
"""Bytes that show whether a file begins as a recording does."""


def read_trace_file(path: str) -> SavedTrace:
    """Return the trace in a regular file. `problems` of it says what could not be read.

    Raises `NotARecording` when nothing of the file is a recording, `OSError` when it cannot be read, and
    `BinaryFormatError` for a device, FIFO or socket: one that nobody writes to would keep us waiting for ever.
    """
    with os.fdopen(open_regular(path), "rb") as stream:
        return read_trace_stream(stream)


def looks_like_recording(path: str) -> bool:
    """Return whether a regular file is there that begins as a recording does. Raises nothing."""
    try:
        return is_recording(read_regular(path, _HEAD))
    except (OSError, ValueError):  # BinaryFormatError among them
        return False


def read_trace_stream(stream: BinaryIO) -> SavedTrace:
    """Return the trace in a stream of bytes, as `read_trace_file`. Waits for its writer if it is a pipe."""
    reader = TraceReader()
    left = LARGEST_FILE
    at_start = True
    while left > 0 and not reader.is_done:
        piece = stream.readline(LONGEST_LINE)
        if not piece:
            return reader.finish()
        left -= len(piece)
        has_end = piece.endswith(b"\n")
        if at_start and (has_end or len(piece) < LONGEST_LINE):
            reader.add(piece)
        elif at_start:
            reader.skip(f"it is longer than {LONGEST_LINE >> 20} MB")
        at_start = has_end
    if left <= 0:
        reader.stop(f"it is larger than {LARGEST_FILE >> 30} GB: the rest was not read")
    return reader.finish()


class TraceFileWriter:
    """Appends whole lines, each with one write: whoever is killed leaves a file of whole lines.

    When the file cannot take a line (a full disk, a closed pipe), `trouble` is called once. Nothing is written any
    more; what is there stays.

    Attributes: `path`; `is_regular`, whether that is a file, not a pipe or a device.

    Arguments: `path`, of a file that the first line empties, nothing before it; `trouble`, called with words for an
    error. Raises `OSError` if the file cannot be opened.
    """

    def __init__(self, path: str, trouble: Callable[[str], None]) -> None:
        self.path = path
        self._trouble = trouble
        self._existed = os.path.lexists(path)
        # Neither the program nor what it starts shall have it: Python opens files so that they do not inherit it.
        self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        self.is_regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._size = 0
        self._begun = False

    @property
    def is_open(self) -> bool:
        """True if lines are still taken."""
        return self._fd is not None

    def write(self, line: str) -> None:
        """Append a line; it brings its own end. ASCII only."""
        if self._fd is None:
            return
        data = line.encode("ascii")
        try:
            if not self._begun and self.is_regular:
                os.ftruncate(self._fd, 0)
            self._begun = True
            done = 0
            while done < len(data):
                done += os.write(self._fd, data[done:])
            self._size += len(data)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file. An error of the disk that comes out only now goes to `trouble`."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            try:
                os.close(fd)
            except OSError as error:  # what was promised to be written was not (NFS)
                self._trouble(_words(error))

    def discard(self) -> None:
        """Close the file, and delete it unless it was there before: there is nothing to record after all."""
        self.close()
        if not self._existed and self.is_regular:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def _give_up(self, error: OSError) -> None:
        assert self._fd is not None
        fd, self._fd = self._fd, None
        with contextlib.suppress(OSError):  # the first error is the one to tell
            if self.is_regular:
                os.ftruncate(fd, self._size)  # half a line is of no use
            os.close(fd)
        self._trouble(_words(error))


def _words(error: OSError) -> str:
    return error.strerror or str(error)
