"""A folder or a file of our own for one run, and the folders that killed runs have left behind."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator

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
