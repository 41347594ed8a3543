"""Watch the system calls of a program by ptrace(2), where the kernel gives no listener (`seccomp_notify`).

There are two ways. Where filters work (gVisor, Linux before 5.5), the filter stops the calls of interest only. Where a
listener watches the process already, its answer would win over ours (seccomp(2): of several filters the strictest
decides, and SECCOMP_RET_USER_NOTIF is stricter than SECCOMP_RET_TRACE): then there is no filter, and every system call
stops.

With the filter, a call that no tracer answers fails with ENOSYS. So processes cannot be let go: the kernel ends them if
we die (PTRACE_O_EXITKILL), and we stay until the last has ended. Without it they are let go when the first has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable

from .crashwatch import CRASH_SIGNALS, CrashWatcher, Watched, WatchedChild
from .processes import read_status_field
from .ptrace import EVENT_STOP, Ptrace, why_refused
from .seccomp_filter import AARCH64, I386, RISCV64, X86_64, does_stop
from .seccomp_watch import LoaderWatch

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
        self, child: WatchedChild, watch: LoaderWatch, on_seized: Callable[[], None],
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
