"""Collects what /proc shows of the processes of a followed run while they live, and how they ended.

The status of a process goes to its parent, which takes it away. Linux 6.15 and later keep a copy for a process
that holds a descriptor of it (pidfd_open(2), PIDFD_GET_INFO). Before that the status can be read while the process is a
zombie: that is a race with its parent.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator

from ...binary.reading import read_kernel_file
from ...model.events import LoadEvent, Phase
from ...model.light import dataclass, replace
from ...model.recording import TracedProcess


def read_status_field(pid: int, name: str) -> str:
    """A field of /proc/PID/status, by its name there."""
    for line in read_kernel_file(f"/proc/{pid}/status").split("\n"):
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return ""


def read_program_name(pid: int) -> dict[str, str]:
    """Return the path of the program of a process, by its argv[0]; empty where it cannot be read."""
    program, command = read_link(f"/proc/{pid}/exe"), read_command(pid)
    return {command[0]: program} if program and command else {}


def read_threads(pid: int) -> set[int]:
    """The native ids of the threads of a process."""
    try:
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")}
    except OSError:
        return set()


def locate(address: int, maps: str, *, runs: bool = False) -> tuple[str, int] | None:
    """The file that an address lies in, and the offset from where the loader put its beginning.

    Arguments:
        address: in the process.
        maps: text of its /proc/PID/maps (proc(5)).
        runs: only where code may run.
    `None` outside of every mapped file. A file deleted or replaced since has the name that it had.
    """
    base = None
    file: list[str] = []
    for line in maps.split("\n"):
        # Start-end, rights, offset in the file, device, inode, path.
        fields = line.split(None, 5)
        if len(fields) < 6 or not fields[5].startswith("/"):
            continue
        low, high = (int(part, 16) for part in fields[0].split("-"))
        # The file may be mapped twice: each time it begins anew.
        if fields[3:] != file or not int(fields[2], 16):
            base, file = low, fields[3:]
        if low <= address < high and base is not None:
            if runs and "x" not in fields[1]:
                return None
            return fields[5].removesuffix(" (deleted)").replace("\\012", "\n"), address - base
    return None


_BELOW = 64 << 10
"""Bytes below the stack pointer that a function may touch before it moves it: calls, red zones, small frames."""
_LARGEST_FRAME = 64 << 20


def is_stack_overflow(stack: int, fault: int | None, maps: str) -> bool:
    """Return whether a fault is the end of a stack: what was touched lies below the thread's memory, near its pointer.

    Below a stack nothing may be written: there is the guard page of a thread (pthread_attr_setguardsize(3)), or the gap
    that the kernel keeps below the stack of the main thread.

    Arguments: `stack`, the stack pointer; `fault`, the address that could not be used; `maps`, text of /proc/PID/maps.
    """
    if fault is None or fault < _BELOW or not stack - _BELOW <= fault < stack + _LARGEST_FRAME:
        return False
    ranges = []
    for line in maps.split("\n"):
        fields = line.split(None, 2)
        if len(fields) == 3 and fields[1].startswith("rw"):
            low, high = (int(part, 16) for part in fields[0].split("-"))
            ranges.append((low, high))
    if any(low <= fault < high for low, high in ranges):
        return False
    above = min((span for span in ranges if span[0] > fault), default=None)
    return above is not None and above[0] - fault < _LARGEST_FRAME and stack < above[1]


@dataclass(frozen=True)
class Stat:
    """Fields of /proc/PID/stat: `parent`, `ticks` (start, in clock ticks since the boot), `is_zombie`, `exit_code` (as
    of waitpid(2), known of a zombie only)."""

    parent: int
    ticks: int
    is_zombie: bool
    exit_code: int


def read_stat(pid: int) -> Stat | None:
    """`None` when there is no such process."""
    # The name stands in brackets, and may hold anything.
    fields = read_kernel_file(f"/proc/{pid}/stat").rpartition(")")[2].split()
    try:
        return Stat(int(fields[1]), int(fields[19]), fields[0] in "ZX", int(fields[49]))
    except (IndexError, ValueError):
        return None


def read_command(pid: int) -> tuple[str, ...] | None:
    """The command line; `None` for a zombie, and where there is none."""
    text = read_kernel_file(f"/proc/{pid}/cmdline")
    return tuple(text.removesuffix("\0").split("\0")) if text else None


def read_link(path: str) -> str | None:
    """The target of a link of the kernel; `None` where it may not be read."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def mapped_span(path: str, maps: str) -> tuple[int, int] | None:
    """First address and length in bytes of a file in the text of /proc/PID/maps."""
    lines = [line.split(None, 5) for line in maps.split("\n")]
    spans = [fields[0].split("-") for fields in lines if len(fields) == 6 and fields[5] == path]
    if not spans:
        return None
    low, high = int(spans[0][0], 16), int(spans[-1][1], 16)
    return low, high - low


if sys.platform != "linux":
    raise ImportError("this module is only for Linux")


# linux/pidfd.h: struct pidfd_info in its first version, PIDFD_INFO_EXIT and _IOWR(0xFF, 11, struct pidfd_info).
_INFO = struct.Struct("=QQ11Ii")
_WANTS_EXIT = 8
_GET_INFO = (3 << 30) | (_INFO.size << 16) | (0xFF << 8) | 11


class Known:
    """A process.

    Attributes:
        process: for the reader of the recording.
        descriptor: as of `open_process`, while it lives.
        given: how many programs of it `process` describes already: those that dlltracer started itself.
        program: the file that it runs, by which its images are judged.
        folder: its current folder.
        same_files: it sees the files that we see: neither its root nor its mounts are of its own.
        log: its log was seen.
        alive: it has not ended, as far as is known.
    """

    def __init__(
        self, process: TracedProcess, descriptor: int | None = None, given: int = 0, program: str | None = None,
        *, same_files: bool = True, alive: bool = True,
    ) -> None:  # fmt: skip
        self.process = process
        self.descriptor = descriptor
        self.given = given
        self.program = program
        self.folder = ""
        self.same_files = same_files
        self.log = False
        self.alive = alive


class Processes:
    """Keeps the facts. `on_process` gets each process when it appears, and again when more is known."""

    def __init__(self, on_process: Callable[[TracedProcess], None]) -> None:
        self._on_process = on_process
        self._known: dict[int, Known] = {}
        self._oldest = 0
        self._first: tuple[str, ...] | None = None
        self._shown: tuple[str, ...] | None = None
        self._file: str | None = None
        self._namespace = read_link("/proc/self/ns/mnt")

    def __iter__(self) -> Iterator[Known]:
        return iter(tuple(self._known.values()))

    def __contains__(self, pid: int) -> bool:
        return pid in self._known

    def get(self, pid: int) -> Known:
        return self._known[pid]

    def is_running(self, pid: int) -> bool:
        """Return whether a process of this number lives, and can be one of the run."""
        stat = read_stat(pid)
        return stat is not None and not stat.is_zombie and stat.ticks >= self._oldest

    def begin(self, pid: int, command: tuple[str, ...], *, given: int, file: str | None = None) -> None:
        """The first process, right after its start.

        Arguments: `command`, as it is to be shown; `given` as of `Known`; `file`, what was started.
        """
        stat = read_stat(pid)
        self._oldest = stat.ticks if stat is not None else 0
        started = started_at(stat) if stat is not None else time.time()
        self._first, self._shown, self._file = read_command(pid), command, file
        first = TracedProcess(pid, os.getpid(), command, started=started)
        self._add(Known(first, open_process(pid), given, file))

    def add(self, pid: int, *, last: float | None = None, like: int | None = None) -> Known:
        """Add a process of the run, if it is not known yet, and return what is known of it.

        Arguments: `last`, when its log was last written, in seconds since the epoch; `like`, a process that forked it:
        it runs the same program.
        """
        if pid in self._known:
            return self._known[pid]
        descriptor, stat = open_process(pid), read_stat(pid)
        if stat is not None and not stat.is_zombie and stat.ticks >= self._oldest:
            found = TracedProcess(pid, stat.parent, self._command(pid), started=started_at(stat))
            return self._add(Known(found, descriptor))
        # Gone or a zombie; or a number of another PID namespace: the process that has it here is older than the run.
        is_other = stat is not None and stat.ticks < self._oldest
        found = TracedProcess(pid, ended=time.time() if last is None else last)
        if not is_other:
            found = replace(found, status=exit_status(descriptor, pid))
            if stat is not None:
                found = replace(found, parent=stat.parent, started=started_at(stat))
        if descriptor is not None:
            os.close(descriptor)
        known = Known(found, alive=False)
        if like in self._known and like is not None and not is_other:
            same = self._known[like]
            known.program, known.folder, known.same_files = same.program, same.folder, same.same_files
            known.process = replace(found, command=same.process.command)
        return self._add(known)

    def _command(self, pid: int) -> tuple[str, ...] | None:
        """Its command line; of a process that the first one forked, what is shown for that one."""
        command = read_command(pid)
        return self._shown if command is not None and command == self._first else command

    def _add(self, known: Known) -> Known:
        self._known[known.process.pid] = known
        self.look(known)
        known.process = replace(known.process, program=known.program)
        self._on_process(known.process)
        return known

    def look(self, known: Known) -> None:
        """Read again what changes in the life of a process, if it lives."""
        if not known.alive:
            return
        place = f"/proc/{known.process.pid}"
        program, folder = read_link(f"{place}/exe"), read_link(f"{place}/cwd")
        known.program, known.folder = program or known.program, folder or known.folder
        root, namespace = read_link(f"{place}/root"), read_link(f"{place}/ns/mnt")
        if root is not None:
            known.same_files = root == "/" and namespace == self._namespace

    def refresh(self, known: Known) -> None:
        """Read again which program runs in a process without a log."""
        self.look(known)
        command = self._command(known.process.pid)
        if command is not None and (known.program, command) != (known.process.program, known.process.command):
            known.process = replace(known.process, command=command, program=known.program)
            self._on_process(known.process)

    def start(self, pid: int, name: str) -> LoadEvent | None:
        """The loader starts a program in a process, the first one or another in its place: the load of it.

        `name` is what the loader calls it, its argv[0]. `None` if its file is not known.
        """
        known = self.add(pid)
        command = read_command(pid) if known.alive else None
        # What runs by now may be another program yet, which has taken the place of this one.
        is_current = command is not None and command[0] == name
        self.look(known)
        program = known.program if is_current else None
        if known.given:
            known.given, command = known.given - 1, known.process.command
            if not is_current and command and command[0] == name:
                program = self._file
        elif not is_current:
            command = None
        known.process = replace(known.process, command=command, program=program or name)
        self._on_process(known.process)
        path = program or name
        if "/" not in path:
            return None
        span = mapped_span(path, read_kernel_file(f"/proc/{pid}/maps")) if program is not None else None
        base, size = span or (None, None)
        return LoadEvent(path, base=base, size=size, pid=pid, phase=Phase.DIRECT)

    def end(self, known: Known, status: int | None) -> None:
        """Note the end of a process. `status` as of `subprocess.Popen`; `None` where the kernel is to be asked."""
        pid = known.process.pid
        if status is None:
            status = exit_status(known.descriptor, pid)
        if known.descriptor is not None:
            os.close(known.descriptor)
        known.descriptor, known.alive = None, False
        known.process = replace(known.process, ended=time.time(), status=status)
        self._on_process(known.process)

    def close(self) -> None:
        """Let go of the processes that still run."""
        for known in self:
            if known.descriptor is not None:
                os.close(known.descriptor)
                known.descriptor = None


def started_at(stat: Stat) -> float:
    """When a process started, in seconds since the epoch, to a hundredth of a second."""
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - uptime + stat.ticks / os.sysconf("SC_CLK_TCK")


def open_process(pid: int) -> int | None:
    """Return a descriptor that becomes readable when the process ends; `None` if it has ended, or there are none."""
    try:
        function = getattr(os, "pidfd_open", None)
        return _system_call(_PIDFD_OPEN, pid, 0) if function is None else int(function(pid))
    except OSError:
        return None


def signal_process(descriptor: int, number: int) -> None:
    """Send the signal `number` to the process of `open_process`, and to no other that has its id by now.

    Raises `OSError`.
    """
    function = getattr(signal, "pidfd_send_signal", None)
    if function is None:
        _system_call(_PIDFD_SEND_SIGNAL, descriptor, number, 0, 0)
    else:
        function(descriptor, number)


_PIDFD_SEND_SIGNAL, _PIDFD_OPEN = 424, 434
"""asm-generic/unistd.h; calls since Linux 5.0 have one number on all processors that CPython supports."""


def _system_call(number: int, *arguments: int) -> int:
    """Return what a call of the kernel returned. Raises `OSError`.

    Some interpreters were built against an older C library than they run on (manylinux, conda,
    python-build-standalone). They lack the functions for newer calls, although the kernel has them.
    """
    import ctypes

    function = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    result = int(function(ctypes.c_long(number), *map(ctypes.c_long, arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def exit_status(descriptor: int | None, pid: int) -> int | None:
    """Return the status of a process that has ended, as of `subprocess.Popen`; `None` if it is not known any more."""
    code = None if descriptor is None else _kept_code(descriptor)
    if code is None:
        stat = read_stat(pid)
        if stat is None or not stat.is_zombie:
            return None
        code = stat.exit_code
    try:
        return os.waitstatus_to_exitcode(code)
    except ValueError:
        return None


def _kept_code(descriptor: int) -> int | None:
    room = bytearray(_INFO.pack(_WANTS_EXIT, *([0] * 13)))
    try:
        fcntl.ioctl(descriptor, _GET_INFO, room)
    except OSError:
        return None
    mask, *_, code = _INFO.unpack(room)
    return int(code) if mask & _WANTS_EXIT else None
