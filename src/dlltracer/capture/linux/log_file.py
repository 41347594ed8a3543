"""Makes the files that take the loader log: one in memory for a process that reads its own, one at a path for another
reader.

ld.so opens `$LD_DEBUG_OUTPUT.PID`, to append to it, as it starts with LD_DEBUG set (elf/rtld.c of glibc): one file an
image started by execve, inherited by the processes that it forks. A program that we run ourselves opens the same file.
Both sides use this module; in the program, it runs before the program does (docs/adr/0003).

Every descriptor of a log has O_APPEND. A log has two writers, the loader and our audit hook, which write at one shared
position, read and moved without a lock: in 200,000 loads by 8 threads some hundred lines were overwritten. With
O_APPEND the kernel takes the end of the file for each write, under the lock of its inode.
"""

from __future__ import annotations

import os
import stat
import sys

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CATEGORIES = "libs,files"
MASK, OUTPUT = "LD_DEBUG", "LD_DEBUG_OUTPUT"
_SAVED = "DLLTRACER_SAVED_"
"""Before the name of a variable: the user's own value of it, while the interpreter starts with ours."""

_OUT_OF_THE_WAY = range(200, 232)
"""Descriptors for the log: the first file that a program opens is often descriptor 3, and some count on it."""

_CLOEXEC = 1

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
"""linux/falloc.h"""


def create_memory_file(name: str) -> int:
    """Create a file in memory, open to append, not inheritable. Raises `OSError`.

    Writing to it never blocks, so the loader is never held up, and another process can read it. Where the system
    refuses memfd_create(2) (a sandbox, Linux before 3.17) it is a file without a name in a temporary folder.
    """
    try:
        plain = _memfd_create(name)
    except OSError as error:
        return _unlinked_file(error)
    try:
        # memfd_create(2) has no flag for O_APPEND, and fcntl, an extension module, may not be imported here. Opening
        # it again by /proc makes a second open file description, with its own flags and position (open(2)). dup would
        # share those of the first, which has no O_APPEND.
        return os.open(f"/proc/self/fd/{plain}", os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    finally:
        os.close(plain)


def _memfd_create(name: str) -> int:
    """By the C library where the interpreter lacks the function: one built against an older glibc than it runs on
    (conda's, manylinux) does, although the system has it."""
    create = getattr(os, "memfd_create", None)
    if create is not None:
        descriptor: int = create(name)
        return descriptor
    import ctypes

    # By the handle that ctypes has: a new one takes a dlopen, which a forked child would write into its parent's log.
    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, use_errno=True)
    try:
        function = prototype(("memfd_create", ctypes.pythonapi))
    except AttributeError:
        raise OSError(38, "neither this Python nor the C library has memfd_create") from None
    descriptor = function(os.fsencode(name), _CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def _unlinked_file(refusal: OSError) -> int:
    """Return a file that no path leads to, in the first folder that takes one. Raises `refusal` if none does."""
    for folder in (os.environ.get("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm", "."):  # noqa: S108 - it has no name there
        if folder:
            try:
                return _unlinked_file_in(folder)
            except OSError:
                continue
    raise refusal


def _unlinked_file_in(folder: str) -> int:
    """Return a new file of this folder that no path leads to. Raises `OSError`."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(folder, getattr(os, "O_TMPFILE", 0) | flags, 0o600)  # PyPy lacks it: EISDIR
    except OSError:
        # Not every file system has O_TMPFILE (open(2)): a file under a name that nobody can guess, which goes at once.
        path = f"{folder}/.dlltracer-{os.getpid()}-{os.urandom(8).hex()}"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | flags, 0o600)
        os.unlink(path)
        return descriptor


def variables(prefix: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that make a program write a log; the user's own LD_DEBUG is kept in them.

    Arguments: `prefix`, the path of the logs without ".PID"; `environment`, the one of the program without us.
    """
    theirs = environment.get(MASK)
    return {MASK: f"{theirs},{CATEGORIES}" if theirs else CATEGORIES, OUTPUT: prefix}


def variables_for_one(prefix: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what `variables` does, for a program that joins the log itself and restores the user's values in it."""
    saved = {_SAVED + name: environment[name] for name in (MASK, OUTPUT) if name in environment}
    return {**variables(prefix, environment), **saved}


def set_variables_for_children(prefix: str, children: bool) -> None:
    """Make programs that this process starts write logs, or not, whatever its own start was given for that."""
    was_on = os.environ.get(OUTPUT) == prefix
    saved = {name: os.environ.pop(_SAVED + name, None) for name in (MASK, OUTPUT)}
    if children:
        if not was_on:
            os.environ.update(variables(prefix, os.environ))
    elif was_on:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def log_path(prefix: str, pid: int) -> str:
    """The path of the log of a process."""
    return f"{prefix}.{pid}"


def open_log(prefix: str) -> int:
    """Open this process's own log as ld.so would, and refuse one that somebody else put there. Raises `OSError`."""
    return open_for_appending(log_path(prefix, os.getpid()))


def open_for_appending(path: str) -> int:
    """Open a log to append to it, made if it is not there; the same refusals. Raises `OSError`."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return _checked(os.open(path, flags, 0o666))


def open_for_reading(path: str) -> int:
    """Open the log of another process; the same refusals. Raises `OSError`."""
    return _checked(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK))


def _checked(descriptor: int) -> int:
    """The descriptor if it is a regular file with one name, of this user or of root; else closes it and raises.

    A FIFO, which O_NONBLOCK has kept from making us wait, and a link to another file are what somebody could plant.
    """
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1 and status.st_uid in (os.geteuid(), 0):
        return descriptor
    os.close(descriptor)
    raise PermissionError(1, "the file of the log is not one that this run made")


class LeftLog:
    """A stretch of a loader log that is left in its file for another process to decode (`decoding.read_left_log`).

    Attributes:
        start, end: positions in the file, in bytes.
        notes: for the recording.
        is_whole: whether nothing is missing at the end.
        program: the file that the process runs.
        folder: what relative paths in the log start from.
        called: the program's argv[0], which is its name in the log.
    """

    __slots__ = ("called", "end", "folder", "is_whole", "notes", "program", "start")

    def __init__(
        self, start: int, end: int, *, notes: tuple[str, ...], is_whole: bool, program: str, folder: str, called: str
    ) -> None:
        self.start = start
        self.end = end
        self.notes = notes
        self.is_whole = is_whole
        self.program = program
        self.folder = folder
        self.called = called

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that make the same value in another process."""
        return {name: getattr(self, name) for name in self.__slots__}


def view_of_files() -> str | None:
    """Return what decides which file an absolute path leads to for this process, and whether it may be read.

    These are the root folder, the mounts (namespaces(7)) and the user, as one word: two processes with the same word
    find the same files. `None` if that is not known.
    """
    try:
        root = os.stat("/")
        mounts = os.readlink("/proc/self/ns/mnt")
    except OSError:
        return None
    return f"{root.st_dev}.{root.st_ino}.{mounts}.{os.geteuid()}.{os.getegid()}"


def punch_hole(file: int | str, end: int) -> None:
    """Give the room of the first `end` bytes of a file back; they read as zeros then, and its size stays.

    fallocate(2). A file system that cannot do it keeps them.
    """
    import ctypes

    try:
        fallocate = ctypes.CDLL(None).fallocate
        descriptor = file if isinstance(file, int) else os.open(file, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (AttributeError, OSError):
        return
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, 0, end)
    if descriptor != file:
        os.close(descriptor)


def out_of_the_way(low: int) -> int:
    """Return a descriptor of the same file that is out of the way of programs. `low` is closed, unless none is free."""
    for number in _OUT_OF_THE_WAY:
        try:
            os.fstat(number)
        except OSError:
            break
    else:
        return low
    try:
        os.dup2(low, number, inheritable=False)
    except OSError:  # beyond the limit of this process
        return low
    os.close(low)
    return number
