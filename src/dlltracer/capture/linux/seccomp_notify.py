"""Watch the system calls of a program: each that a filter stops is looked at, and goes on.

By the listener of the filter (`NotifyLoop`, seccomp_unotify(2)). Where the kernel gives none, by ptrace(2)
(`PtraceLoop`), in one of two ways. Where filters work (gVisor, Linux before 5.5), the filter stops the calls of
interest only. Where a listener watches the process already, its answer would win over ours (seccomp(2): of several
filters the strictest decides, and SECCOMP_RET_USER_NOTIF is stricter than SECCOMP_RET_TRACE): then there is no filter,
and every system call stops.

With the filter, a call that no tracer answers fails with ENOSYS. So processes cannot be let go: the kernel ends them if
we die (PTRACE_O_EXITKILL), and we stay until the last has ended. Without it they are let go when the first has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from ...errors import BackendUnavailable
from ..backend import Availability
from .crashwatch import CRASH_SIGNALS, CrashWatcher, Watched
from .processes import open_process, read_status_field
from .ptrace import EVENT_STOP, Ptrace, why_refused
from .seccomp_filter import AARCH64, I386, RISCV64, X86_64, architectures_of, does_stop
from .seccomp_launch import ANSWER, CONTINUE, NOTIFICATION, RECEIVE, SEND, refusal_of_filters
from .seccomp_watch import LoaderWatch

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")



_ACTIONS = "/proc/sys/kernel/seccomp/actions_avail"


class SeccompBackend:
    """The mechanism, as far as it is one of this process: it cannot be. A filter cannot be taken off again."""

    name = "seccomp"

    def availability(self) -> Availability:
        """Return whether a program can be watched, as far as that is known without starting one."""
        if not os.path.isdir("/proc/self/fd"):
            return Availability(False, "there is no /proc, by which a process is looked at", "Mount /proc")
        machine = os.uname().machine
        if not architectures_of(machine, struct.calcsize("P") * 8):
            return Availability(False, f"the system calls of this processor ({machine}) are not known")
        try:
            code = refusal_of_filters()
        except ImportError:  # no _ctypes: only the attempt shows it
            code = 0
        if code:
            reason = f"this system takes no filter of system calls (seccomp: {os.strerror(code)})"
            return Availability(False, reason, "qemu-user and some sandboxes have none: run it on the machine itself")
        try:
            with open(_ACTIONS, encoding="ascii") as file:
                actions = file.read().split()
        except OSError:
            return Availability(True)  # it may be there all the same (gVisor): only the attempt shows that
        if not {"user_notif", "trace"} & set(actions):
            return Availability(False, f"this kernel's seccomp cannot tell another process (only {' '.join(actions)})")
        return Availability(True)

    def start(self, *, raw: bool = False, live: bool = False) -> NoReturn:
        """Raise `BackendUnavailable`."""
        raise BackendUnavailable(
            self.name, "it watches a program from outside, by a filter that cannot be taken off again",
            "Use it as dlltracer run --backend seccomp, or dlltracer why --backend seccomp",
        )  # fmt: skip


_FIELDS = struct.Struct("=QIIiIQ6Q")
"""struct seccomp_notif: id, thread, flags; and struct seccomp_data: number, architecture, address, six arguments."""

_SET_FLAGS = (1 << 30) | (8 << 16) | (0x21 << 8) | 4
_SYNC_WAKE_UP = 1
"""SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (Linux 6.6): whoever waits for the other runs at
once on the same processor."""

_NOTHING = bytes(NOTIFICATION)

_MOST_WATCHED, _RESERVED = 4096, 96
"""Processes whose ends are waited for, each with a descriptor; and descriptors that are left for all else."""

_PAUSE = 0.001
"""Seconds without a call after which the last ones are thought about."""

_LONGEST_WAIT = 0.02
"""Seconds after which one of them is in any case."""


class NotifyLoop:
    """Answers a listener in a thread of its own, from `start` to `stop`.

    Arguments: `listener` and `keeper`, the descriptors of the listener and of the socket to the keeper, which belong to
    the loop from then on; `watch`, which makes events of the calls. Attributes: `error`, what ended the loop early.
    However it ends, the keeper then lets all calls pass.
    """

    def __init__(self, listener: int, keeper: int, watch: LoaderWatch) -> None:
        self._listener = listener
        self._keeper = keeper
        self._watch = watch
        watch.reader.on_process = self._expect_end
        self._poller = select.epoll()
        self._poller.register(listener, select.EPOLLIN)
        self._stop_read, self._stop_write = os.pipe()
        self._poller.register(self._stop_read, select.EPOLLIN)
        self._room = bytearray(NOTIFICATION)
        self._processes: dict[int, int] = {}
        self._first = 0
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = _MOST_WATCHED if limit == resource.RLIM_INFINITY else min(_MOST_WATCHED, limit - _RESERVED)
        self._worked = 0.0
        self._is_idle = False
        self._thread = threading.Thread(target=self._run, name="dlltracer-seccomp", daemon=True)
        self._ended = threading.Event()
        self.error: BaseException | None = None
        with contextlib.suppress(OSError):  # an older kernel
            fcntl.ioctl(listener, _SET_FLAGS, _SYNC_WAKE_UP)

    def start(self, first: int) -> None:
        """Begin; `first`, the first process, whose end its parent reports. Raises `RuntimeError` without a thread."""
        self._first = first
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until no process has the filter any more, no longer than so; whether that has come."""
        return self._ended.wait(seconds)

    def stop(self) -> None:
        """End. What still waits, and all that comes, is the keeper's."""
        os.write(self._stop_write, b"\0")
        self._thread.join()
        self._poller.close()
        for descriptor in (self._stop_read, self._stop_write, self._listener, *self._processes):
            os.close(descriptor)
        self._processes.clear()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:  # noqa: BLE001 - the program goes on: the keeper answers
            self.error = error
        finally:
            os.close(self._keeper)  # which wakes it
            self._ended.set()

    def _turn(self) -> bool:
        """Answer what has come, or else work out what it means; whether anything can come after it.

        A signal can interrupt a call that nobody has taken up yet. The call then fails with EINTR, if the handler is
        one without SA_RESTART. So the next call is taken up before the last one is thought about.
        """
        watch = self._watch
        has_work = watch.has_work
        # After a pause has passed without a call there is time for all that waits: one look for a call between two.
        ready = self._poller.poll(-1 if not has_work else 0 if self._is_idle else _PAUSE)
        self._is_idle = not ready
        if has_work and (not ready or time.monotonic() - self._worked >= _LONGEST_WAIT):
            watch.work()
            self._worked = time.monotonic()
        if len(ready) == 1 and ready[0] == (self._listener, select.EPOLLIN):  # nearly always
            self._answer()
            return True
        descriptors = [descriptor for descriptor, _ in ready]
        if self._stop_read in descriptors:
            return False
        for descriptor in descriptors:  # ends first: the number of a process may be another one's by now
            if descriptor in self._processes:
                self._end(descriptor)
        for descriptor, event in ready:
            if descriptor == self._listener:
                if event & select.EPOLLIN:
                    self._answer()
                elif event & (select.EPOLLHUP | select.EPOLLERR):
                    return False
        return True

    def _answer(self) -> None:
        room = self._room
        room[:] = _NOTHING  # or the kernel refuses it
        try:
            fcntl.ioctl(self._listener, RECEIVE, room)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return  # its process was killed meanwhile
            raise
        fields = _FIELDS.unpack(room)
        number, tid, _, call, audit, address = fields[:6]
        try:
            stop = self._watch.reader.read(tid, audit, call, address, fields[6:])
        finally:
            # Also when we are at fault: the program is not.
            is_valid = self._let_pass(number)
        if stop is not None and is_valid:
            self._watch.add(stop)

    def _let_pass(self, number: int) -> bool:
        """Let a call go on; whether it was still waiting, so that what was read is about it."""
        try:
            fcntl.ioctl(self._listener, SEND, ANSWER.pack(number, 0, 0, CONTINUE))
            return True
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINPROGRESS):
                return False
            raise

    def _expect_end(self, pid: int) -> None:
        """A process has called for the first time: learn of its end."""
        if pid == self._first or len(self._processes) >= self._most:
            return
        descriptor = open_process(pid)
        if descriptor is not None:
            self._processes[descriptor] = pid
            self._poller.register(descriptor, select.EPOLLIN)

    def _end(self, descriptor: int) -> None:
        pid = self._processes.pop(descriptor)
        self._poller.unregister(descriptor)
        os.close(descriptor)
        self._watch.note_end(pid)


if sys.platform != "linux":
    raise ImportError("this module is only for Linux")



Stopped = tuple[int, int, int, tuple[int, ...]]
"""Of a system call that stopped: architecture, number, address of the instruction, arguments."""

# linux/ptrace.h
_CONT, _SYSCALL, _DETACH, _INTERRUPT, _GET_SYSCALL_INFO = 7, 24, 17, 0x4207, 0x420E
_FORK, _VFORK, _CLONE, _EXEC, _SECCOMP = 2, 4, 8, 0x10, 0x80
_SYSGOOD, _EXITKILL = 1, 0x100000
_EVENT_SECCOMP = 7
_INFO = struct.Struct("=B3xIQQQ6QI4x")
"""struct ptrace_syscall_info, as it is at a stop by seccomp; at the entry of a call the last word is not there."""
_ENTRY, _AT_SECCOMP = 1, 3

_STOP_SIGNALS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_WALL, _WNOTHREAD = 0x40000000, 0x20000000
_COMPAT_SEGMENT = 0x23
"""The code segment of a 32-bit process (arch/x86/include/asm/segment.h)."""


class PtraceLoop(CrashWatcher):
    """Watches a child and all that it starts, in a thread of its own; sees where the child crashes, too.

    Arguments:
        child: stopped by itself until `on_seized` was called.
        watch: makes events of the calls.
        has_filter: the child puts a filter on that stops the calls of interest.
        on_seized: called when the child can go on.
        on_waiting: called with a number of processes that we have to wait for, when the child itself has ended.
    """

    def __init__(
        self, child: subprocess.Popen[bytes], watch: LoaderWatch, on_seized: Callable[[], None],
        on_waiting: Callable[[int], None], *, has_filter: bool,
    ) -> None:  # fmt: skip
        super().__init__(child)
        self._watch_of = watch
        self._has_filter = has_filter
        self._on_seized = on_seized
        self._on_waiting = on_waiting
        self._tids: set[int] = set()
        self._is_leaving = False
        self._ended: Watched | None = None
        self.refusal: str | None = None
        self.left: tuple[int, ...] = ()
        self.first_ended = threading.Event()

    def _seize(self) -> str | None:
        self._ptrace = Ptrace()
        options = _FORK | _VFORK | _CLONE | _EXEC | _SYSGOOD
        options |= _SECCOMP | _EXITKILL if self._has_filter else 0
        try:
            self._ptrace.seize(self._pid, options)
            if not self._has_filter:
                self._ptrace.ask(_INTERRUPT, self._pid)
        except OSError as error:
            self.refusal = why_refused(self._pid, error)
            self.first_ended.set()
            return self.refusal
        self._tids.add(self._pid)
        self._on_seized()
        return None

    def _follow(self) -> Watched:
        """Answer every stop until all have ended, or have been let go."""
        try:
            while True:
                flags = _WALL | _WNOTHREAD | (os.WNOHANG if self._watch_of.has_work else 0)
                try:
                    tid, status = os.waitpid(-1, flags)
                except ChildProcessError:
                    break
                if not tid:
                    self._watch_of.work()
                elif os.WIFSTOPPED(status):
                    self._tids.add(tid)
                    with contextlib.suppress(ProcessLookupError):  # killed meanwhile
                        self._stopped(tid, os.WSTOPSIG(status), status >> 16)
                else:
                    self._end(tid, os.waitstatus_to_exitcode(status))
        finally:
            self.first_ended.set()
        if self._ended is None:
            self._child.returncode = 0
            return Watched(0, note="how the child ended is not known: its status was taken by somebody else")
        return self._ended

    def _end(self, tid: int, status: int) -> None:
        self._tids.discard(tid)
        if tid != self._pid:
            self._watch_of.note_end(tid, status)
            return
        self._child.returncode = status
        self._ended = self._conclude(status)
        if self._tids and not self._has_filter:
            self._leave()
        elif self._tids:
            self._on_waiting(len(self._tids))

    def _leave(self) -> None:
        """Let every process go that still runs: each has to stop for that."""
        self._is_leaving = True
        self.left = tuple(sorted(self._tids))
        for tid in self.left:
            with contextlib.suppress(OSError):
                self._ptrace.ask(_INTERRUPT, tid)

    def _stopped(self, tid: int, number: int, event: int) -> None:
        is_call = number == signal.SIGTRAP | 0x80 and not event
        is_signal = not event and not is_call
        if self._is_leaving and not event & ~EVENT_STOP:
            self._tids.discard(tid)
            self._ptrace.ask(_DETACH, tid, 0, number if is_signal else 0)
            return
        if event == EVENT_STOP and number in _STOP_SIGNALS:
            self._ptrace.listen(tid)
            return
        stop = None
        if event == _EVENT_SECCOMP or is_call:
            called = self._called(tid)
            if called is not None:
                audit, call, address, arguments = called
                if self._has_filter or does_stop(audit, call, arguments):
                    stop = self._watch_of.reader.read(tid, audit, call, address, arguments)
        elif is_signal and number in CRASH_SIGNALS and read_status_field(tid, "Tgid") == str(self._pid):
            self._note(tid, number)
        self._ptrace.ask(_CONT if self._has_filter else _SYSCALL, tid, 0, number if is_signal else 0)
        if stop is not None:
            self._watch_of.add(stop)

    def _called(self, tid: int) -> Stopped | None:
        """The call at which a thread stopped; `None` at the return from one, and where that cannot be read."""
        room = ctypes.create_string_buffer(_INFO.size)
        try:
            self._ptrace.ask(_GET_SYSCALL_INFO, tid, len(room), ctypes.addressof(room))
        except OSError as error:
            if error.errno == errno.ESRCH:
                raise
            if not self._has_filter:
                return None  # Linux before 5.3: the entry of a call looks like its return
            return read_call(self._ptrace.registers(tid), os.uname().machine)
        kind, audit, address, _, number, *arguments, _ = _INFO.unpack(room.raw)
        return (audit, number, address, tuple(arguments)) if kind in (_ENTRY, _AT_SECCOMP) else None


def read_call(registers: bytes, machine: str) -> Stopped | None:
    """The system call in the general registers (NT_PRSTATUS) of a thread that enters it.

    Arguments: `machine`, as of uname(2). `None` for a layout that is not known. Layouts: user_regs_struct (sys/user.h)
    of x86, and user_pt_regs and user_regs_struct (asm/ptrace.h) of arm64 and riscv.
    """
    words = struct.unpack(f"={len(registers) // 8}Q", registers[: len(registers) // 8 * 8])
    if machine == "x86_64" and len(words) == 27:
        if words[17] == _COMPAT_SEGMENT:
            return I386.audit, words[15], words[16], tuple(words[at] for at in (5, 11, 12, 13, 14, 4))
        return X86_64.audit, words[15], words[16], tuple(words[at] for at in (14, 13, 12, 7, 9, 8))
    if machine == "aarch64" and len(words) == 34:
        return AARCH64.audit, words[8], words[32], words[:6]
    if machine == "riscv64" and len(words) == 32:
        return RISCV64.audit, words[17], words[0], words[10:16]
    return None
