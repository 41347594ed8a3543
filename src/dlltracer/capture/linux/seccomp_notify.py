"""Watch the system calls of a program by the listener of its filter: each that the filter stops is looked at, and goes
on (seccomp_unotify(2)). Where the kernel gives no listener there is `seccomp_ptrace`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import select
import struct
import sys
import threading
import time

from ...errors import BackendUnavailable
from ..backend import Availability
from .processes import open_process
from .seccomp_decode import MarkStop
from .seccomp_filter import architectures_of
from .seccomp_launch import ANSWER, CONTINUE, NOTIFICATION, RECEIVE, SEND, refusal_of_filters
from .seccomp_watch import LoaderWatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap
    from typing import NoReturn

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

_PAUSE = 0.02
"""Seconds without a call after which those before it are thought about: many at once, with warm caches."""

_LONGEST_WAIT = 0.2
"""Seconds after which they are in any case."""

_AT_ONCE = 8
"""How many of them between two looks for a call, while none comes: less than a millisecond."""


class NotifyLoop:
    """Answers a listener in a thread of its own, from `start` to `stop`.

    Arguments: `listener` and `keeper`, the descriptors of the listener and of the socket to the keeper, which belong to
    the loop from then on; `room`, of the launch; `watch`, which makes events of the calls. Attributes: `error`, what
    ended the loop early. However it ends, the keeper then lets all calls pass.
    """

    def __init__(self, listener: int, keeper: int, room: mmap, watch: LoaderWatch) -> None:
        self._listener = listener
        self._keeper = keeper
        self._watch = watch
        watch.reader.on_process, watch.reader.takes_memory = self._expect_end, True
        self._poller = select.epoll()
        self._poller.register(listener, select.EPOLLIN)
        self._stop_read, self._stop_write = os.pipe()
        self._poller.register(self._stop_read, select.EPOLLIN)
        self._room = room
        self._processes: dict[int, int] = {}
        self._first = 0
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = _MOST_WATCHED if limit == resource.RLIM_INFINITY else min(_MOST_WATCHED, limit - _RESERVED)
        self._is_thinking = False
        self._began_waiting = 0.0
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
        # Once it has begun it goes on with all that waits, and looks for a call in between.
        ready = self._poller.poll(-1 if not has_work else 0 if self._is_thinking else _PAUSE)
        if not has_work:
            self._is_thinking, self._began_waiting = False, time.monotonic()
        elif not self._is_thinking:
            self._is_thinking = not ready or time.monotonic() - self._began_waiting >= _LONGEST_WAIT
        is_call = len(ready) == 1 and ready[0] == (self._listener, select.EPOLLIN)  # nearly always
        if is_call:
            self._answer()
        if self._is_thinking:
            watch.work(1 if is_call else _AT_ONCE)
        if is_call:
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
        room[:NOTIFICATION] = _NOTHING  # or the kernel refuses it
        try:
            fcntl.ioctl(self._listener, RECEIVE, room)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return  # its process was killed meanwhile
            raise
        fields = _FIELDS.unpack_from(room)
        number, tid, _, call, audit, address = fields[:6]
        stop = None
        try:
            stop = self._watch.reader.read(tid, audit, call, address, fields[6:])
        finally:
            # Also when we are at fault: the program is not.
            is_taken = type(stop) is MarkStop and stop.is_taken
            is_valid = self._let_pass(number, 0 if is_taken else CONTINUE)
        if stop is not None and is_valid and not is_taken:
            self._watch.add(stop)

    def _let_pass(self, number: int, flags: int) -> bool:
        """Let a call go on, or return 0 without `CONTINUE`; whether it was still waiting: what was read is about it."""
        try:
            fcntl.ioctl(self._listener, SEND, ANSWER.pack(number, 0, 0, flags))
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
