"""Makes a folder or a file of our own for one run, and removes those that killed runs have left behind.

A run makes its folder before the program starts, so this module imports next to nothing (docs/adr/0003): `tempfile`
and `shutil` bring `random`, `hashlib`, `bz2` and `lzma`, a third of the time of a bare interpreter.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "dlltracer-run-"

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789_"
_RANDOM = 8
"""Letters behind the prefix that make a name new, as `tempfile` has them."""

_TRIES = 100
"""Names that are tried before a folder is given up, each one of 37**8."""

_LOCK = "in-use"
"""The file that its owner holds a lock on, which ends with it, however it ends: flock(2)."""

_AGE = 60.0
"""Seconds that a folder is left alone: it is made before it can be locked."""


def temporary_folder() -> str:
    """Return a folder that takes our files. Raises `OSError` where there is none.

    A container with a read-only root often has nothing writable but /dev/shm (`docker run --read-only`), which
    `tempfile` does not try.
    """
    if sys.platform == "win32":
        import tempfile  # it knows the many places of Windows

        return tempfile.gettempdir()
    # The places of `tempfile` and their order (Python documentation, tempfile.tempdir), then those of a container.
    named = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    folders = (*named, "/tmp", "/var/tmp", "/usr/tmp", ".", os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm")  # noqa: S108
    for folder in folders:
        if folder and _takes_files(folder):
            return os.path.abspath(folder)
    raise FileNotFoundError(2, "no folder for temporary files takes any")


def _takes_files(folder: str) -> bool:
    """Return whether a file can be made in a folder. One is made: only that proves it (a full disk, one that is
    read-only)."""
    try:
        descriptor, path = create_file(folder, PREFIX)
        try:
            os.write(descriptor, b"x")
        finally:
            os.close(descriptor)
            os.unlink(path)
    except OSError:
        return False
    return True


def create_file(folder: str, prefix: str, suffix: str = "") -> tuple[int, str]:
    """Create a new file in a folder, for this user only; return its descriptor and its path. Raises `OSError`."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    for path in _new_paths(folder, prefix, suffix):
        try:
            return os.open(path, flags, 0o600), path
        except FileExistsError:
            continue
    raise FileExistsError(17, f"{folder} has a file of every name that was tried")


def _create_folder(root: str) -> str:
    for path in _new_paths(root, PREFIX):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue
        return path
    raise FileExistsError(17, f"{root} has a folder of every name that was tried")


def _new_paths(folder: str, prefix: str, suffix: str = "") -> Iterator[str]:
    for _ in range(_TRIES):
        name = "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(_RANDOM))
        yield os.path.join(os.path.abspath(folder), f"{prefix}{name}{suffix}")


def _remove(folder: str) -> None:
    """Remove a folder with all in it. Never raises: a program that gives up its rights may have left it in a state that
    we cannot clean."""
    try:
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except OSError:  # a folder in it, or what we may not remove
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


class ScratchFolder:
    """A new folder, taken away at the end of the block. Raises `OSError`.

    Where a run was killed it stays, until the next run of the same user finds that nobody uses it: no owner, and no
    process that was started with its name, or has a file of it open. (On Linux; elsewhere it stays.)
    """

    def __init__(self) -> None:
        root = temporary_folder()
        self.path = _create_folder(root)
        self._lock = _lock(os.path.join(self.path, _LOCK), os.O_CREAT)
        self._kept = False
        for folder in _left_behind(root):
            _remove(folder)

    def __enter__(self) -> ScratchFolder:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            _remove(self.path)
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
            try:
                os.write(self._descriptor, b"x")  # not where no file may grow: RLIMIT_FSIZE, setrlimit(2)
                os.ftruncate(self._descriptor, 0)
            except OSError:
                os.close(self._descriptor)
                raise
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


def _is_ours(name: str) -> bool:
    random = name.removeprefix(PREFIX)
    return len(random) == _RANDOM == len(name) - len(PREFIX) and set(random) <= set(_LETTERS)


def _old_folders(root: str) -> Iterator[str]:
    if sys.platform != "linux":
        return
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if _is_ours(entry.name) and entry.is_dir(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_uid == os.geteuid() and time.time() - status.st_mtime > _AGE:
                        yield entry.path
    except OSError:
        return


def _is_used(folder: bytes) -> bool:
    """Return whether a process has the folder in its command line or its environment, or has a file in it open
    (proc(5))."""
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
