"""Ends a program that takes too long, or that the user interrupts, in a way that makes it say where it was."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from ..model.run import StopReason
from .process import Child

if sys.platform == "linux":  # here: where descriptors are few, none may be free for an import later
    from ..capture.linux.processes import open_process, signal_process

_LAST_WORDS = 2.0
"""Seconds for the dump of the stack. Then the process is killed."""

_ANSWER = 0.5
"""Seconds for the program to answer the interrupt itself, which a terminal sends to both of us: Python raises
KeyboardInterrupt, and its traceback says where it was. Native code does not return to Python meanwhile."""


class Stopper:
    """Ends one child process. `reason` is `None` as long as nothing was done.

    On POSIX the child gets SIGABRT: it was started with Python's faulthandler, which then writes the Python lines it is
    at. Windows has no such signal: there the child's own watchdog (`faulthandler.dump_traceback_later`) writes them at
    `deadline`, and the child is terminated a moment later.

    Arguments: `limit`, seconds that the child may take; `None` for no limit.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
        self.reason: StopReason | None = None
        self.seconds: float | None = None
        self._child: Child | None = None
        self._descriptor: int | None = None
        self._started = 0.0
        self._timers: list[threading.Timer] = []
        self._alarm_before: object = None
        self._lock = threading.Lock()

    def connect(self, child: Child) -> None:
        """The child has started: the time runs from now on."""
        self._child = child
        self._started = time.monotonic()
        if sys.platform == "linux":
            # Bound to this process: its number may be another's once it has been waited for (pidfd_open(2)).
            self._descriptor = open_process(child.pid)
        if self.reason is StopReason.INTERRUPTED:
            self._later(_ANSWER, self._ask)
        elif self.limit is not None:
            self._later(self.limit, self._time_is_up)

    @property
    def deadline(self) -> float | None:
        """When the limit is over for a child that starts now, as `time.time()`; `None` without a limit."""
        return None if self.limit is None else time.time() + self.limit

    def interrupt(self) -> None:
        """The user wants it to end. The second time, at once."""
        if self.reason is not None:
            self._send(_KILL)
            return
        self._note(StopReason.INTERRUPTED)
        if self._child is not None:
            self._later(_ANSWER, self._ask)

    def close(self) -> None:
        """The child has ended, and was waited for."""
        with self._lock:
            self._child = None
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
        for timer in self._timers:
            timer.cancel()
        if self._alarm_before is not None and sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._alarm_before)  # type: ignore[arg-type]

    def _time_is_up(self) -> None:
        if self.reason is None:
            self._note(StopReason.TIMED_OUT)
            self._ask()

    def _note(self, reason: StopReason) -> None:
        self.reason = reason
        self.seconds = time.monotonic() - self._started if self._child is not None else 0.0

    def _ask(self) -> None:
        if sys.platform == "win32":
            self._later(_ANSWER, lambda: self._send(_KILL))
            return
        self._send(_ABORT)
        self._later(_LAST_WORDS, lambda: self._send(_KILL))

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, call)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:
            # No thread can be started (a limit on processes counts threads): a signal interrupts the wait instead.
            if sys.platform == "win32":
                raise
            before = signal.signal(signal.SIGALRM, lambda *_: call())
            if self._alarm_before is None:
                self._alarm_before = before
            signal.setitimer(signal.ITIMER_REAL, seconds)
        else:
            self._timers.append(timer)

    def _send(self, number: int) -> None:
        with self._lock:
            if self._child is None:
                return
            with contextlib.suppress(OSError):
                if sys.platform == "win32":
                    self._child.send_signal(signal.SIGTERM)  # which terminates it
                elif sys.platform == "linux" and self._descriptor is not None:
                    signal_process(self._descriptor, number)
                else:
                    os.kill(self._child.pid, number)


_ABORT = int(signal.SIGABRT)
_KILL = int(getattr(signal, "SIGKILL", signal.SIGTERM))
