"""Files that dlltracer itself writes: temporary files and folders of one run, and recordings."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from ..binary.reading import open_regular, read_regular
from ..model.run import SavedTrace
from ..model.tracereader import LONGEST_LINE, TraceReader, is_recording

PREFIX = "dlltracer-run-"
_NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")
"""What tempfile.mkdtemp makes of it."""

_LOCK = "in-use"
"""The file that its owner holds a lock on, which ends with it, however it ends: flock(2)."""

_AGE = 60.0
"""Seconds that a folder is left alone: it is made before it can be locked."""


def temporary_folder() -> str:
    """Return a folder that takes our files. Raises `OSError` where there is none.

    A container with a read-only root often has nothing writable but /dev/shm (`docker run --read-only`), which
    `tempfile` does not try.
    """
    try:
        return tempfile.gettempdir()
    except OSError:
        for folder in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"):  # noqa: S108 - a folder of our own is made in it
            if folder and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
                return folder
        raise


class ScratchFolder:
    """A new folder, taken away at the end of the block. Raises `OSError`.

    Where a run was killed it stays, until the next run of the same user finds that nobody uses it: no owner, and no
    process that was started with its name, or has a file of it open. (On Linux; elsewhere it stays.)
    """

    def __init__(self) -> None:
        root = temporary_folder()
        self.path = tempfile.mkdtemp(prefix=PREFIX, dir=root)
        self._lock = _lock(os.path.join(self.path, _LOCK), os.O_CREAT)
        self._kept = False
        for folder in _left_behind(root):
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> ScratchFolder:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            # A program that gives up its rights may leave the folder in a state that we cannot clean.
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    def keep(self) -> None:
        """Leave it for processes that go on."""
        self._kept = True


class ScratchFile:
    """An empty file for a child process to write to, gone at the end of the block. Raises `OSError`.

    `path` is what the child opens. Where no folder takes files the file is in memory, and the path leads to our
    descriptor of it (proc(5), /proc/PID/fd): a process of the same user may open that.
    """

    def __init__(self, name: str) -> None:
        self._folder: ScratchFolder | None = None
        self._descriptor: int | None = None
        try:
            self._folder = ScratchFolder()
            self.path = os.path.join(self._folder.path, name)
        except OSError:
            if sys.platform != "linux":
                raise
            self._descriptor = _create_memory_file(f"dlltracer-{name}")
            self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def __enter__(self) -> ScratchFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.__exit__()
        if self._descriptor is not None:
            os.close(self._descriptor)


def _create_memory_file(name: str) -> int:
    """Return a descriptor of a new file in memory. Raises `OSError`.

    An interpreter that was built against glibc before 2.27 (manylinux, conda) lacks the function; the system has it.
    """
    create = getattr(os, "memfd_create", None)
    if create is not None:
        return int(create(name))
    import ctypes

    try:
        function = ctypes.CDLL(None, use_errno=True).memfd_create
    except AttributeError:
        raise OSError(38, "neither this Python nor the C library has memfd_create") from None
    descriptor = int(function(os.fsencode(name), ctypes.c_uint(1)))  # MFD_CLOEXEC
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def _lock(path: str, flags: int = 0) -> int | None:
    """A descriptor that holds the lock; `None` if somebody else does, or there are no locks."""
    if sys.platform != "linux":
        return None
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _left_behind(root: str) -> list[str]:
    """The folders of killed runs of this user that nobody uses any more."""
    if sys.platform != "linux":
        return []
    found = []
    for folder in _old_folders(root):
        descriptor = _lock(os.path.join(folder, _LOCK))
        if descriptor is not None:
            os.close(descriptor)
            found.append(folder)
    return [folder for folder in found if not _is_used(os.fsencode(folder))]


def _old_folders(root: str) -> Iterator[str]:
    if sys.platform != "linux":
        return
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_uid == os.geteuid() and time.time() - status.st_mtime > _AGE:
                        yield entry.path
    except OSError:
        return


def _is_used(folder: bytes) -> bool:
    """Whether a process has it in its command line or its environment, or has a file in it open (proc(5))."""
    try:
        numbers = [name for name in os.listdir(b"/proc") if name.isdigit()]
    except OSError:
        return True  # nobody can tell
    return not numbers or any(_names(b"/proc/" + number, folder) for number in numbers)


def _names(process: bytes, folder: bytes) -> bool:
    for name in (b"cmdline", b"environ"):
        try:
            with open(process + b"/" + name, "rb") as file:
                if folder in file.read():
                    return True
        except OSError:
            continue  # it has ended, or is another user's
    try:
        links = [process + b"/fd/" + name for name in os.listdir(process + b"/fd")]
    except OSError:
        return False
    return any(_target(link).startswith(folder + b"/") for link in links)


def _target(link: bytes) -> bytes:
    try:
        return os.readlink(link)
    except OSError:
        return b""


LARGEST_FILE = 1 << 30
"""In bytes; what a file has beyond is not read."""
_HEAD = 64


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

    When the file cannot take a line (the disk is full, the reader of a pipe went away), `trouble` is called once, in
    words, and nothing is written any more; what is there stays.

    Arguments: `path`; a file that is there is emptied by the first line, not before. Raises `OSError` if it cannot be
    opened.
    """

    def __init__(self, path: str, trouble: Callable[[str], None]) -> None:
        self.path = path
        self._trouble = trouble
        self._existed = os.path.lexists(path)
        # Neither the program nor what it starts shall have it: Python opens files so that they do not inherit it.
        self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        self._is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._size = 0
        self._begun = False

    @property
    def is_open(self) -> bool:
        """Whether lines are still taken."""
        return self._fd is not None

    def write(self, line: str) -> None:
        """Append a line; it brings its own end. ASCII only."""
        if self._fd is None:
            return
        data = line.encode("ascii")
        try:
            if not self._begun and self._is_file:
                os.ftruncate(self._fd, 0)
            self._begun = True
            done = 0
            while done < len(data):
                done += os.write(self._fd, data[done:])
            self._size += len(data)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """No more lines come."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            try:
                os.close(fd)
            except OSError as error:  # what was promised to be written was not (NFS)
                self._trouble(_words(error))

    def discard(self) -> None:
        """There is nothing to record after all: take the file away, unless one was there before."""
        self.close()
        if not self._existed and self._is_file:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def _give_up(self, error: OSError) -> None:
        assert self._fd is not None
        fd, self._fd = self._fd, None
        with contextlib.suppress(OSError):  # the first error is the one to tell
            if self._is_file:
                os.ftruncate(fd, self._size)  # half a line is of no use
            os.close(fd)
        self._trouble(_words(error))


def _words(error: OSError) -> str:
    return error.strerror or str(error)
