"""Finds where a child process crashed: the image and the offset in it, without root, a debugger or a core file.

The child is seized by ptrace(2) after its start, as an unprivileged process may do with its children. It runs at full
speed and stops at signals and new threads only; a signal is passed on as it came, so handlers of the program
(faulthandler) still run. Where a signal that means a crash arrives, the registers are read; if the process then dies
by it, that was the crash.

What begins between the start of the child and the seizing is not seen: that is its first milliseconds, and loses no
more than the place of a crash there. While the child is watched, no other debugger can attach to it, and a setuid
program that it turns into by execve(2) gets no rights. Other processes that it starts are neither watched nor slowed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading

from ...binary.reading import read_kernel_file
from ...model.light import Protocol, dataclass

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from ...model.failure import STACK_OVERFLOW, Crash
from .processes import is_stack_overflow, locate, read_status_field, read_threads
from .ptrace import ENDED, EVENT_STOP, Ptrace, availability, why_refused

__all__ = ["CRASH_SIGNALS", "CrashWatcher", "Watched", "availability", "watch"]

CRASH_SIGNALS = frozenset(
    (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGSYS, signal.SIGTRAP)
)
_STOP_SIGNALS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

# linux/wait.h: threads too, whatever their exit signal; and no child that another thread of ours has started.
_WALL = 0x40000000
_WNOTHREAD = 0x20000000

_UNKNOWN = "the place of a crash is not known: "


@dataclass(frozen=True)
class Watched:
    """The end of a watched child: its status and, for a crash, the place.

    Attributes:
        status: as of `subprocess.Popen.returncode`: negative for a signal.
        crash: where it crashed; `None` if it did not, or that is not known.
        note: what else a reader must know: why there is no place, or what is doubtful about it.
    """

    status: int
    crash: Crash | None = None
    note: str | None = None


@dataclass(frozen=True)
class Arrival:
    """A crash signal on its way to a thread.

    Attributes: `sender`, the process that sent it, `None` for the kernel (a fault); `caller`, what the top of the stack
    points to if the thread went where no code is.
    """

    crash: Crash
    sender: int | None
    caller: tuple[str, int] | None = None


class WatchedChild(Protocol):
    """A `subprocess.Popen`, or what is one here. In `_waitpid_lock` it has the lock that keeps two threads from waiting
    for it at once."""

    pid: int
    returncode: int | None

    def wait(self) -> int: ...


def watch(child: WatchedChild) -> Watched:
    """Wait for the end of a child, as `child.wait()` does, and say where it crashed if it did.

    Best called right after the child was started. Its pipes are not read. Meanwhile `child.poll()` returns `None`,
    `child.wait()` waits, signals can be sent; when this returns, `child.returncode` is set. If an exception of a signal
    handler ends this call, the watching goes on until the child ends. No other thread may wait for any child at once
    (os.wait, os.waitpid with -1): it would take what is meant for the watching.

    A child that cannot be watched is waited for, and the note of the result has the reason.
    """
    watcher = CrashWatcher(child)
    try:
        watcher.start()
    except RuntimeError as error:  # a limit on processes (`ulimit -u`, a pids cgroup) counts threads
        return Watched(child.wait(), note=f"{_UNKNOWN}no thread could be started to watch the program ({error})")
    watcher.join()
    return watcher.result()


class CrashWatcher(threading.Thread):
    """Watches a child for a crash, in a thread of its own.

    A tracer must wait for any thread of its child. In the main thread that would take the end of other children of the
    process from those who wait for them.
    """

    def __init__(self, child: WatchedChild) -> None:
        super().__init__(name="dlltracer-crashwatch", daemon=True)
        self._child = child
        self._pid = child.pid
        self._arrivals: dict[int, Arrival] = {}
        self._blind: str | None = None
        self._found: Watched | None = None
        self._error: BaseException | None = None

    def result(self) -> Watched:
        """Return the end of the child, once the thread has ended; raises what stopped the watching."""
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the main thread
        try:
            self._found = self._watch()
        except BaseException as error:  # noqa: BLE001 - raised again by `result`, in the thread that asked
            self._error = error

    def _watch(self) -> Watched:
        # The lock with which Popen keeps two threads from waiting at once. Its poll(), which send_signal() calls,
        # would otherwise take a stop of the child for its end.
        with vars(self._child)["_waitpid_lock"]:
            reason = ENDED if self._child.returncode is not None else self._seize()
            if reason is None:
                return self._follow()
        return Watched(self._child.wait(), note=_UNKNOWN + reason)

    def _seize(self) -> str | None:
        """Attach to every thread of the child; why not, if that cannot be."""
        self._ptrace = Ptrace()
        try:
            self._ptrace.seize(self._pid)
        except OSError as error:
            return why_refused(self._pid, error)
        done = {self._pid}
        while new := read_threads(self._pid) - done:
            for tid in new:
                # Else it has ended, or is ours already: the thread that made it was seized before.
                with contextlib.suppress(OSError):
                    self._ptrace.seize(tid)
            done |= new
        return None

    def _follow(self) -> Watched:
        """Answer every stop until the child has ended."""
        while True:
            try:
                tid, status = os.waitpid(-1, _WALL | _WNOTHREAD)
            except ChildProcessError:
                # Somebody else took the status; as Popen does.
                self._child.returncode = 0
                return Watched(0, note="how the child ended is not known: its status was taken by somebody else")
            if os.WIFSTOPPED(status):
                with contextlib.suppress(ProcessLookupError):  # killed meanwhile
                    self._answer(tid, os.WSTOPSIG(status), status >> 16)
            elif tid == self._pid:
                self._child.returncode = os.waitstatus_to_exitcode(status)
                return self._conclude(self._child.returncode)

    def _answer(self, tid: int, number: int, event: int) -> None:
        if event == EVENT_STOP and number in _STOP_SIGNALS:
            self._ptrace.listen(tid)
        elif event == EVENT_STOP and read_status_field(tid, "Tgid") not in ("", str(self._pid)):
            self._ptrace.detach(tid)  # a process that clone(2) made: not ours
        elif event:
            self._ptrace.resume(tid)
        else:
            try:
                if number in CRASH_SIGNALS:
                    self._note(tid, number)
            finally:
                self._ptrace.resume(tid, number)

    def _note(self, tid: int, number: int) -> None:
        """Keep where this signal arrives, unless it is an echo of one before."""
        info = self._ptrace.signal_info(tid)
        place = self._place(tid)
        if place is None:
            self._blind = f"the registers of this machine ({os.uname().machine}) cannot be read"
            return
        counter, stack = place
        maps = read_kernel_file(f"/proc/{self._pid}/maps")
        image, offset = locate(counter, maps) or (None, None)
        # The instruction itself could not be fetched.
        lost = number == signal.SIGSEGV and info.fault_address == counter
        caller = self._caller(stack, maps) if lost else None
        name = signal.Signals(number).name
        if number == signal.SIGSEGV and is_stack_overflow(stack, info.fault_address, maps):
            name = f"{name}, {STACK_OVERFLOW}"
        crash = Crash(number, name, counter, image, offset, tid, info.fault_address)
        before, new = self._arrivals.get(number), Arrival(crash, info.sender, caller)
        if before is None or not is_echo(before, new, self._pid):
            self._arrivals.pop(number, None)  # so that the latest is the last
            self._arrivals[number] = new

    def _place(self, tid: int) -> tuple[int, int] | None:
        """Program counter and stack pointer of a stopped thread."""
        from .ptrace import decode_registers, parse_syscall

        try:
            known = decode_registers(self._ptrace.registers(tid), os.uname().machine)
        except ProcessLookupError:
            raise
        except OSError:
            known = None
        return known or parse_syscall(read_kernel_file(f"/proc/{self._pid}/task/{tid}/syscall"))

    def _caller(self, stack: int, maps: str) -> tuple[str, int] | None:
        """Return the code address on top of the stack, if any: on x86 a call to a bad address has left its origin
        there."""
        if os.uname().machine != "x86_64":
            return None
        try:
            with open(f"/proc/{self._pid}/mem", "rb", buffering=0) as memory:
                word = os.pread(memory.fileno(), 8, stack)
        except (OSError, OverflowError):
            return None
        return locate(int.from_bytes(word, "little"), maps, runs=True)

    def _conclude(self, status: int) -> Watched:
        number = -status
        if number not in CRASH_SIGNALS:
            return Watched(status)
        name = signal.Signals(number).name
        last = self._arrivals.pop(number, None)
        if last is None:
            blind = self._blind or (
                f"{name} was not seen coming (a seccomp filter that kills, or it came before the watching began)"
            )
            return Watched(status, note=_UNKNOWN + blind)
        if last.sender not in (None, self._pid):
            who = f"process {last.sender}" if last.sender else "a process outside of this PID namespace"
            return Watched(status, note=f"{name} was sent by {who}: no code of this process caused it")
        return Watched(status, last.crash, self._doubt(last))

    def _doubt(self, last: Arrival) -> str | None:
        if last.caller is not None:
            image, offset = last.caller
            return f"no code is at that address; the top of the stack says that it was called from {image}+{offset:#x}"
        if last.sender is None:
            return None
        faults = [one.crash for one in self._arrivals.values() if one.sender is None]
        if faults:
            return f"{faults[-1].name} came earlier at {_spelled(faults[-1])}, and a handler of the program took it"
        if last.crash.code != signal.SIGABRT:
            return f"the program sent {last.crash.name} to itself, by raise() or kill()"
        return None


def is_echo(before: Arrival, new: Arrival, pid: int) -> bool:
    """Return whether a signal only repeats the fault before it: which the handler or the kernel has sent.

    A handler that has reported the fault sends it (faulthandler does); the kernel, where the handler had no stack.
    """
    if before.sender is not None:
        return False
    again = new.crash.fault_address is None and new.crash.thread == before.crash.thread
    return new.sender == pid or (new.sender is None and again and new.crash.address == before.crash.address)


def _spelled(crash: Crash) -> str:
    return f"{crash.address:#x}" if crash.offset is None else f"{crash.image}+{crash.offset:#x}"
