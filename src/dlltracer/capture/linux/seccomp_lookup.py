"""Looks at files as another process would find them: from its root, its current folder, its descriptors."""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from ...binary.elf import read_elf
from ...errors import BinaryFormatError
from .seccomp_filter import AT_FDCWD, O_PATH, PAGE

LONGEST_PATH = 4096
"""PATH_MAX, the NUL at its end included."""

_OPENAT2 = 437
_RESOLVE_IN_ROOT = 0x10

_MOST_KNOWN = 4096


class FileLookup:
    """Looks at files as a process would find them. Attribute: `has_moved`, a process may have got another root."""

    def __init__(self) -> None:
        self._namespace = read_link("/proc/self/ns/mnt")
        self._root = read_link("/proc/self/root")
        self._ours: dict[int, bool] = {}
        self.has_moved = False

    def has_our_files(self, pid: int, *, anew: bool = False) -> bool:
        """Return whether root and mounts of a process are ours; of one that hides them since, whether they were.

        What was seen counts until any process makes a call that changes it: processes may share a root (clone(2)).
        gVisor shows neither of any process, not even of our own: there they count as ours.

        Arguments: `anew`, look again in any case: the number may be another process's by now.
        """
        if pid in self._ours and not (anew or self.has_moved):
            return self._ours[pid]
        seen = read_link(f"/proc/{pid}/root"), read_link(f"/proc/{pid}/ns/mnt")
        own = self._root, self._namespace
        if any(one is None and ours is not None for one, ours in zip(seen, own, strict=True)):
            return self._ours.get(pid, False)
        if len(self._ours) >= _MOST_KNOWN:
            self._ours.clear()
        self._ours[pid] = seen == own
        return self._ours[pid]

    def forget(self, pid: int) -> None:
        """Forget a process that has ended."""
        self._ours.pop(pid, None)

    def look(self, pid: int, tid: int, dirfd: int, path: bytes) -> os.stat_result | int:
        """The status of the file that an open would come to, or the errno of looking for it."""
        try:
            return self._stat(pid, tid, dirfd, path)
        except OSError as error:
            return error.errno or errno.EIO

    def why_privileged(self, pid: int, tid: int, dirfd: int, path: bytes) -> str | None:
        """Return why a program gets other rights than its caller has (execve(2)); `None` if it does not get any."""
        try:
            status = self._stat(pid, tid, dirfd, path)
        except OSError:
            return None
        if status.st_mode & stat.S_ISUID:
            return "setuid"
        if status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IXGRP:
            return "setgid"
        if not self.has_our_files(pid):
            return None
        try:
            os.getxattr(self.whole(pid, tid, dirfd, path), "security.capability")
        except OSError:
            return None
        return "file capabilities"

    def whole(self, pid: int, tid: int, dirfd: int, path: bytes) -> bytes:
        """A path of a process that has our files, as a path for us."""
        if path.startswith(b"/"):
            return path
        place = "cwd" if dirfd == AT_FDCWD else f"fd/{dirfd}"
        return f"/proc/{pid}/task/{tid}/{place}/".encode("ascii") + path

    def _stat(self, pid: int, tid: int, dirfd: int, path: bytes) -> os.stat_result:
        if len(path) >= LONGEST_PATH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if path.startswith((b"/proc/self/", b"/proc/thread-self/")):
            path = f"/proc/{pid}/task/{tid}".encode("ascii") + path[path.index(b"self") + 4 :]
        if (not path.startswith(b"/") and dirfd != AT_FDCWD) or self.has_our_files(pid):
            return os.stat(self.whole(pid, tid, dirfd, path))
        if not path.startswith(b"/"):
            # Links on the way that begin at the root would begin at ours: the way from the root of the process.
            folder, root = read_link(f"/proc/{pid}/task/{tid}/cwd"), read_link(f"/proc/{pid}/root") or "/"
            if folder is None:
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            inside = folder.removeprefix(root.rstrip("/"))
            path = os.fsencode(inside) + b"/" + path
        return self._stat_in_root(f"/proc/{pid}/root", path)

    def _stat_in_root(self, root: str, path: bytes) -> os.stat_result:
        """stat(2) with links resolved inside of a root that is not ours: openat2(2), Linux 5.6."""
        folder = os.open(root, O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            how = struct.pack("=QQQ", O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT)
            import ctypes

            found = ctypes.CDLL(None, use_errno=True).syscall(
                ctypes.c_long(_OPENAT2), ctypes.c_long(folder), ctypes.c_char_p(path), ctypes.c_char_p(how),
                ctypes.c_long(len(how)),
            )  # fmt: skip
            if found < 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            try:
                return os.fstat(found)
            finally:
                os.close(found)
        finally:
            os.close(folder)


_ENTER_KERNEL = {"x86_64": b"\x0f\x05", "aarch64": b"\x01\x00\x00\xd4"}
"""Of a machine with 64 bits, as of uname(2), the instruction of a system call: syscall; svc 0."""
_NEAR = 256
"""Bytes of a function of libc that opens a file; what follows it is libc's as well."""


def find_entries(code: bytes, address: int = 0) -> frozenset[int]:
    """Return where code may enter the kernel: addresses modulo `PAGE`, each behind the instruction.

    Arguments: `address`, where the code lies. Data that look like the instruction count too. Empty for a machine whose
    instruction is not known.
    """
    instruction = _ENTER_KERNEL.get(os.uname().machine)
    found = set()
    at = code.find(instruction) if instruction is not None else -1
    while instruction is not None and at >= 0:
        found.add((address + at + len(instruction)) % PAGE)
        at = code.find(instruction, at + 1)
    return frozenset(found)


def find_passed_entries() -> frozenset[int]:
    """Return where libc's open and openat enter the kernel, without the places where this system's loader does.

    On glibc, an open that comes from there is none of the loader's, which has functions of its own. Empty where that is
    not known: on musl, where loader and libc are one file, and where a library took the place of these functions.
    """
    try:
        interpreter = read_elf("/proc/self/exe").interpreter
        if interpreter is None or "ld-musl-" in interpreter or struct.calcsize("P") != 8:
            return frozenset()
        import ctypes

        library = ctypes.CDLL(None)
        found: set[int] = set()
        memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for name in ("open64", "openat64"):
                address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
                found |= find_entries(os.pread(memory, _NEAR, address), address)
        finally:
            os.close(memory)
        return frozenset(found - find_entries(read_bytes(interpreter, 1 << 24)))
    except (OSError, BinaryFormatError, AttributeError, ImportError, OverflowError):
        return frozenset()


def read_link(path: str) -> str | None:
    """The target of a link of the kernel; `None` where it may not be read."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def read_bytes(path: str, most: int) -> bytes:
    """The beginning of a file; empty where it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(descriptor, most)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
