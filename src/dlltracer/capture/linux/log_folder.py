"""Manages the folder for the logs of a followed run: private, watched for new logs, removed at the end.

Who may do what. The folder belongs to the user who runs dlltracer, and nobody else can make, rename or remove a file in
it: ld.so opens its log by path (O_APPEND and O_NOFOLLOW, elf/rtld.c), and would take a hard link or wait for a FIFO.

When root runs a program, that program may start others as other users (su, a daemon with workers). Their ld.so must
be able to open a log: otherwise it writes its lines to the *standard output* of the program. (Seen on glibc 2.36 with a
symbolic link in the place of the log.) So the folder then lets others pass, but neither list nor write (0711). The logs
of the next processes are made beforehand, to be written by anybody (0622) and read by root alone. The name
of the folder is in the environment of the processes of the run, and in no command line.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import tempfile

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from collections.abc import Mapping

from .loader_log import HELD, without_marks
from .log_file import MASK, OUTPUT, log_path, open_for_appending, open_for_reading, punch_hole

_NAME = "log"
_CHUNK = 1 << 20

_AHEAD = 512
"""Logs that are made beforehand: so many processes and threads may start, on the whole machine, between two looks."""

_CREATE, _MODIFY = 0x100, 2
_HEAD = struct.Struct("=iIII")
"""inotify(7): the events, and struct inotify_event before the name: watch, mask, cookie, length of the name."""


class LogFolder:
    """A new folder for logs.

    Arguments:
        folder: an empty one of ours, to make it in.
        admit_others: processes of other users are to write logs: root's own decision, for what root starts.
    Attributes: `prefix`, for the logs in it. Raises `OSError`.
    """

    def __init__(self, folder: str, *, admit_others: bool = False) -> None:
        self._folder = tempfile.mkdtemp(prefix="logs-", dir=folder)
        self.prefix = os.path.join(self._folder, _NAME)
        self._admit_others = admit_others
        self._made: dict[int, None] = {}
        if admit_others:
            os.chmod(folder, 0o711)  # noqa: S103 - see above
            os.chmod(self._folder, 0o711)  # noqa: S103
            self.reserve()

    def reserve(self) -> None:
        """Make the logs of the next processes, if processes of other users may be among them.

        Process ids are given in turn (kernel/pid.c); /proc/loadavg ends with the last one given.
        """
        if not self._admit_others:
            return
        try:
            with open("/proc/loadavg", "rb") as file:
                last = int(file.read().split()[-1])
            with open("/proc/sys/kernel/pid_max", "rb") as file:
                most = int(file.read())
        except (OSError, ValueError):
            return
        for number in range(last + 1, last + 1 + _AHEAD):
            pid = number if number < most else number - most + 300  # as the kernel, which keeps low ids for daemons
            if pid in self._made:
                continue
            with contextlib.suppress(OSError):
                descriptor = os.open(log_path(self.prefix, pid), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
                os.fchmod(descriptor, 0o622)
                os.close(descriptor)
            self._made[pid] = None
            if len(self._made) > 4 * _AHEAD:
                self._made.pop(next(iter(self._made)))

    def written(self) -> list[str]:
        """The names of the logs that have something in them."""
        try:
            with os.scandir(self._folder) as entries:
                return sorted(entry.name for entry in entries if entry.stat(follow_symlinks=False).st_size)
        except OSError:
            return []  # somebody has taken the folder away, with what was in it

    def watch(self) -> NewLogs:
        """Watch for logs."""
        return NewLogs(self._folder, _MODIFY if self._admit_others else _CREATE)

    def give_back(self, environment: Mapping[str, str]) -> None:
        """Write the logs where the user's own LD_DEBUG would have put them; does nothing without it.

        A file that another user put there, a link or a FIFO is left alone.
        """
        if not environment.get(MASK):
            return
        output = environment.get(OUTPUT)
        for name in self.written():
            try:
                descriptor = open_for_appending(output + name.removeprefix(_NAME)) if output else 2
                with open(descriptor, "ab", closefd=bool(output)) as theirs:
                    rest = b""
                    for text in iter(LogReader(os.path.join(self._folder, name)).read, b""):
                        # No mark has a line's end in it: none is cut in two.
                        whole, end, rest = (rest + text).rpartition(b"\n")
                        theirs.write(without_marks(whole + end))
                    theirs.write(without_marks(rest))
            except OSError:  # ld.so would not say more
                continue


class LogReader:
    """One log, and how far it was read. `release`: the disk may have back what was read long ago."""

    def __init__(self, path: str, *, release: bool = False) -> None:
        self.path = path
        self.refused = False
        self._release = release
        self._released = 0
        self._position = 0

    def read(self) -> bytes:
        """Return the bytes that were written since the last call, or a part of them."""
        try:
            descriptor = open_for_reading(self.path)
        except PermissionError:
            self.refused = True
            return b""
        except OSError:
            return b""
        try:
            data = os.pread(descriptor, _CHUNK, self._position)
        except OSError:
            return b""
        finally:
            os.close(descriptor)
        self._position += len(data)
        if self._release and self._position - self._released > 2 * HELD:
            self._released = self._position - HELD
            punch_hole(self.path, self._released)
        return data

    def status(self) -> tuple[os.stat_result, os.statvfs_result] | None:
        """The file and its disk; `None` if it is gone."""
        try:
            descriptor = open_for_reading(self.path)
        except OSError:
            return None
        try:
            return os.fstat(descriptor), os.fstatvfs(descriptor)
        finally:
            os.close(descriptor)


class NewLogs:
    """The names of files that appear in a folder, at once: inotify(7).

    Arguments: `events`, the IN_ bits to watch for.
    Attributes: `descriptor`, readable when there are names. It is `None` if this system cannot tell, or no more watches
    are to be had: then the folder must be listed.
    """

    def __init__(self, folder: str, events: int = _CREATE) -> None:
        self.descriptor = _watch(folder, events)

    def drain(self) -> list[str] | None:
        """The names since the last call; `None` if some may be missing."""
        if self.descriptor is None:
            return None
        names: dict[str, None] = {}
        while True:
            try:
                data = os.read(self.descriptor, 1 << 16)
            except BlockingIOError:
                return list(names)
            except OSError:
                return None
            at = 0
            while at + _HEAD.size <= len(data):
                watch, _, _, length = _HEAD.unpack_from(data, at)
                at += _HEAD.size
                if watch < 0:  # IN_Q_OVERFLOW
                    return None
                names[os.fsdecode(data[at : at + length].rstrip(b"\0"))] = None
                at += length

    def close(self) -> None:
        """Stop watching the folder."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def _watch(folder: str, events: int) -> int | None:
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        descriptor: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    except (ImportError, OSError, AttributeError):
        return None
    if descriptor < 0:
        return None
    if libc.inotify_add_watch(descriptor, os.fsencode(folder), events) < 0:
        os.close(descriptor)
        return None
    return descriptor
