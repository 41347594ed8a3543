"""Give the events of a trace to its outputs (a list, a file, audit events) while the traced code runs.

One thread of ours reads what the mechanism has. No other thread calls the outputs, so their order is that of the events
(docs/adr/0008). It wakes every half second, and when a thread of the program comes back from the loader. That thread
waits until its loads are delivered: an `os._exit` or a crash may be the next thing it does. It does not wait for an
output that is slow.

Imports next to nothing: it runs before and beside the traced code (docs/adr/0003).
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from _thread import RLock, allocate_lock, get_ident, get_native_id, start_new_thread

from .capture.requests import Watch, is_own_load
from .model.events import DebugEvent, Event, LoadFailedEvent, UnloadEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from .capture.backend import Session
    from .capture.requests import RawRequest
    from .model.recording import Recording

    class TextSink(Protocol):
        """An object that `print(file=...)` accepts."""

        def write(self, text: str, /) -> object: ...


WAKE_SECONDS = 0.5
_LATEST_SECONDS, _MOST_BACKLOG = 5.0, 1 << 19
"""How long a list may wait for its events while the program loads more, and how much of `Session.progress` (bytes of a
log). To import numpy, pandas, scipy, scikit-learn and pyarrow makes half of that."""
_SLOW_SECONDS = 0.05
"""A call of an output that takes longer is slow: no thread of the program waits for this trace's outputs any more."""
_SLOW_SHARE = 0.05
"""So is an output that takes this share of the time since the start, and `_SLOW_SECONDS` more."""
_MOST_WAIT = 1.0
"""Seconds that a thread waits when the machine is busy, though no output is slow."""
_VAIN_SECONDS, _VAIN_SHARE = 0.1, 0.02
"""Time that threads may wait where nothing comes: so many seconds, and this share of the time since the start."""
PATIENCE = 10.0
"""Seconds that the end of a trace waits for an output that takes nothing."""


class Outputs:
    """The outputs of a trace: `collected`, the list that gets the events; `out`, the file that gets lines; `audit`,
    whether to raise audit events; `unloads`, whether benign unloads are wanted."""

    def __init__(self, collected: list[Event] | None, out: TextSink | None, audit: bool, unloads: bool) -> None:
        self.collected = collected
        self.out = out
        self.audit = audit
        self._unloads = unloads
        self._escape: Callable[[str], str] | None = None
        if out is not None:
            from .model.screen import escape, is_terminal

            # A terminal would obey escape sequences in names of files. Programs get the names as they are.
            self._escape = escape if is_terminal(out) else None
        self._failed_writes = _Failures()
        self._failed_hooks = _Failures()
        self._busy_since: float | None = None
        self._spent = 0.0
        self.given = 0

    @property
    def is_called(self) -> bool:
        """True if there is an output that runs code of the program, or of the system."""
        return self.out is not None or self.audit

    def choose(self, events: Sequence[Event]) -> list[Event]:
        """The events that the outputs get: neither those of our own imports nor, unless wanted, benign unloads."""
        return [
            event
            for event in events
            if not is_own_load(event) and (self._unloads or not isinstance(event, UnloadEvent))
        ]

    def give(self, event: Event) -> None:
        """Give one event to all outputs. What an output raises costs the others nothing."""
        if self.collected is not None:
            self.collected.append(event)
        if not self.is_called:
            self.given += 1
            return
        since = self._busy_since = time.perf_counter()
        try:
            if self.out is not None:
                with self._failed_writes:
                    self._write(event)
            if self.audit:
                with self._failed_hooks:
                    sys.audit(*audit_arguments(event))
        finally:
            self._busy_since = None
            self._spent += time.perf_counter() - since
            self.given += 1

    def time_spent(self) -> float:
        """Seconds that the outputs have taken until now."""
        since = self._busy_since
        return self._spent + (0.0 if since is None else time.perf_counter() - since)

    def recollect(self, events: Sequence[Event]) -> None:
        """Put all events into the list, of which it has not got some."""
        if self.collected is not None:
            self.collected[:] = self.choose(events)

    def begin_anew(self) -> None:
        """Forget what the outputs got: this is a child made by fork."""
        if self.collected is not None:
            self.collected.clear()
        self._failed_writes, self._failed_hooks = _Failures(), _Failures()
        self._busy_since = None

    def _write(self, event: Event) -> None:
        line = str(event)
        if self._escape is not None and not isinstance(event, DebugEvent):
            line = self._escape(line)
        # The line and its end in one piece: the program may print at the same time. print(file=...) takes objects that
        # have `write` alone.
        assert self.out is not None
        self.out.write(f"{line}\n")
        flush = getattr(self.out, "flush", None)
        if flush is not None:
            flush()

    def end(self) -> tuple[str, ...]:
        """Report on stderr what the outputs raised. Returns it as notes; raises a KeyboardInterrupt of a hook."""
        notes = []
        if self._failed_writes.count:
            notes.append(self._failed_writes.report("lines could not be written to out"))
        if self._failed_hooks.count:
            notes.append(self._failed_hooks.report("audit events made a hook raise"))
        return tuple(notes)

    @property
    def interrupt(self) -> KeyboardInterrupt | None:
        """The KeyboardInterrupt that an output raised, if one did."""
        return self._failed_writes.interrupt or self._failed_hooks.interrupt


class Delivery:
    """The events of a running trace on their way to its outputs, from `start` to `finish`."""

    def __init__(self, outputs: Outputs, session: Session) -> None:
        self._outputs = outputs
        self._session: Session | None = session
        self._watch = Watch(self._note_request, self._note_return)
        self._began = time.perf_counter()
        self._waited_in_vain = 0.0
        self._reset()

    def _reset(self) -> None:
        # Held by whoever drains and delivers. Reentrant: a signal handler may end the trace in the midst of it.
        self._turn = RLock()
        self._is_draining = False
        self._wake = allocate_lock()
        self._wake.acquire()
        self._waiters: list[_Waiter] = []
        self._asked: dict[int, int] = {}
        self._thread: int | None = None
        self._native_thread = 0
        self._has_thread = False
        self._is_ending = False
        self._is_abandoned = False
        self._late = 0
        self._has_ended = allocate_lock()
        self._progress = self._drained_to = 0
        self._drained_at = time.perf_counter()

    def start(self) -> None:
        """Begin to deliver."""
        self._start_thread()
        # Only an output outside of this process can survive it: nobody waits for a list.
        if self._outputs.is_called or not self._has_thread:
            self._watch.start()
        _FORKS.add(self)
        atexit.register(self._flush)

    def finish(self, recording: Callable[[], Recording]) -> tuple[str, ...]:
        """Deliver the rest, when the session has stopped. Returns notes. `recording` makes the whole recording."""
        atexit.unregister(self._flush)
        _FORKS.remove(self)
        self._watch.end()
        recorded = recording()
        notes: list[str] = []
        if self._has_thread:
            self._end_thread()
        else:
            notes.append("no thread could be started: events were delivered by the threads that loaded")
        if not self._is_abandoned:
            self._drain()
        session, self._session = self._session, None
        assert session is not None
        late = self._late + len(self._outputs.choose(session.drain())) if self._is_abandoned else 0
        if late:
            notes.append(f"an output took nothing for {PATIENCE:.0f} seconds: {late} events did not get to it")
        if session.missed:
            notes.append(f"{session.missed} events came faster than the outputs took them, and did not get to them")
        if late or session.missed or session.is_completed_later:
            self._outputs.recollect(recorded.events)
        if late or session.missed:
            for note in notes:
                report(note)
        return tuple(notes)

    def _start_thread(self) -> None:
        self._is_ending = False
        self._has_ended = allocate_lock()
        self._has_ended.acquire()
        try:
            start_new_thread(self._run, (self._has_ended,))
            self._has_thread = True
        except RuntimeError:  # a limit on threads, or the interpreter is at its end
            self._has_thread = False

    def _run(self, has_ended: LockType) -> None:
        self._native_thread = get_native_id()
        try:
            while self._has_ended is has_ended:  # another one takes its place after a fork that did not wait for it
                self._thread = get_ident()
                if not self._is_ending:
                    self._wake.acquire(timeout=WAKE_SECONDS)
                is_last = self._is_ending
                if not self._may_come_later(is_last=is_last):
                    waiters, self._waiters = self._waiters, []
                    self._drain(waiters)
                    for waiter in waiters:
                        waiter.lock.release()
                if is_last:
                    self._thread = None
                    if self._is_ending:  # else the fork that it was to end for is over
                        return
        finally:
            if self._has_ended is has_ended:
                self._thread = None
            has_ended.release()

    def _may_come_later(self, *, is_last: bool) -> bool:
        """Return whether what there is may be delivered later: there is only a list for it, and the program loads more.

        To decode beside the program takes the GIL from it every 5 ms, and each turn costs two wake-ups. `is_last`: the
        thread is to end, and who ends it delivers the rest to a list.
        """
        session, now = self._session, time.perf_counter()
        if self._outputs.is_called or session is None:
            return False
        if is_last:
            return True
        before, self._progress = self._progress, session.progress()
        is_loading = session.can_wait and self._progress != before
        is_late = now - self._drained_at >= _LATEST_SECONDS or self._progress - self._drained_to >= _MOST_BACKLOG
        if is_loading and not is_late:
            return True
        self._drained_at, self._drained_to = now, self._progress
        return False

    def _end_thread(self) -> None:
        """Let the thread deliver what there is, and wait until it has ended, or is stuck in an output."""
        self._is_ending = True
        self._wake_up()
        given, since = self._outputs.given, time.perf_counter()
        while not self._has_ended.acquire(timeout=WAKE_SECONDS):
            if self._outputs.given != given:
                given, since = self._outputs.given, time.perf_counter()
            elif time.perf_counter() - since >= PATIENCE:
                self._is_abandoned = True
                return

    def _wake_up(self) -> None:
        try:
            self._wake.release()
        except RuntimeError:
            return  # it is awake

    def _drain(self, waiters: Sequence[_Waiter] = (), *, is_end: bool = False) -> None:
        """Deliver what has come since the last time."""
        if not self._turn.acquire(self._has_thread):  # without a thread, another one that loads does it
            return
        try:
            session = self._session
            if self._is_draining or session is None:
                return  # an output of ours loads something itself
            self._is_draining = True
            try:
                returned = [(one.tid, one.clock) for one in waiters if one.is_waiting]
                while not self._is_abandoned and (events := session.drain(returned, is_end=is_end)):
                    returned = []
                    wanted = self._outputs.choose(events)
                    self._late += len(wanted)
                    for event in wanted:
                        if self._is_abandoned:
                            return
                        self._outputs.give(event)
                        self._late -= 1
            finally:
                self._is_draining = False
        finally:
            self._turn.release()

    def _note_request(self, raw: RawRequest) -> None:
        if self._session is not None:
            self._asked[raw[3]] = raw[5]
            self._progress = self._session.progress()

    def _note_return(self, has_failed: bool) -> None:
        """A thread of the program has come back from the loader, or is about to call it: deliver what is new."""
        session = self._session
        if session is None or get_ident() == self._thread:
            return
        progress = session.progress()
        is_unknown = progress == self._progress
        if is_unknown and not (has_failed and session.hides_failures and self._may_wait_in_vain()):
            return
        self._progress = progress
        waiter = _Waiter(get_native_id(), self._asked.get(get_native_id(), 0))
        given, since = self._outputs.given, time.perf_counter()
        if not self._has_thread:
            self._drain([waiter])
        elif self._is_slow():
            self._wake_up()
        else:
            self._wait_for_thread(waiter)
        if is_unknown and self._outputs.given == given:
            self._waited_in_vain += time.perf_counter() - since

    def _may_wait_in_vain(self) -> bool:
        """Return whether a thread may wait for a failure that may not be there: nothing may have been loaded at all."""
        return self._waited_in_vain < _VAIN_SECONDS + _VAIN_SHARE * (time.perf_counter() - self._began)

    def _is_slow(self) -> bool:
        elapsed = time.perf_counter() - self._began
        return self._outputs.time_spent() > _SLOW_SECONDS + _SLOW_SHARE * elapsed

    def _wait_for_thread(self, waiter: _Waiter) -> None:
        self._waiters.append(waiter)
        self._wake_up()
        since = time.perf_counter()
        while not waiter.lock.acquire(timeout=_SLOW_SECONDS):
            if self._is_slow() or time.perf_counter() - since >= _MOST_WAIT:
                waiter.is_waiting = False
                return

    def _flush(self) -> None:
        """The interpreter ends with the trace still running: deliver what there is."""
        if self._has_thread:
            self._end_thread()
            self._has_thread = False
        self._drain(is_end=True)

    def before_fork(self) -> None:
        """End the thread: Python 3.12 and later warn at the fork of a process with threads."""
        if not self._has_thread or get_ident() == self._thread:
            return
        self._is_ending = True
        self._wake_up()
        if self._has_ended.acquire(timeout=_SLOW_SECONDS):
            _await_end(self._native_thread)
            self._has_ended.release()

    def after_fork_in_parent(self) -> None:
        """Let the thread go on if the fork did not wait for its end, as its output is slow; else start it again."""
        if self._has_thread and self._is_ending:
            self._is_ending = False
            if self._thread is None:
                self._start_thread()

    def after_fork_in_child(self) -> None:
        """Begin anew: the trace of the child has its loads since the fork."""
        had_thread = self._has_thread
        self._reset()
        self._outputs.begin_anew()
        if had_thread:
            self._start_thread()


def _await_end(native_thread: int) -> None:
    """Wait until the system has taken away a thread that has run its last line of Python."""
    since = time.perf_counter()
    try:
        while time.perf_counter() - since < _SLOW_SECONDS:
            os.stat(f"/proc/self/task/{native_thread}")
            time.sleep(0)
    except OSError:
        return


class _Waiter:
    """A thread of the program that waits: its native id, the clock of its last request, a lock that it waits for."""

    __slots__ = ("clock", "is_waiting", "lock", "tid")

    def __init__(self, tid: int, clock: int) -> None:
        self.tid = tid
        self.clock = clock
        self.is_waiting = True
        self.lock = allocate_lock()
        self.lock.acquire()


class _Forks:
    """Tells the deliveries of this process of a fork. A function registered for that cannot be taken back."""

    def __init__(self) -> None:
        self._deliveries: tuple[Delivery, ...] = ()
        self._is_registered = False

    def add(self, delivery: Delivery) -> None:
        self._deliveries += (delivery,)
        if not self._is_registered and hasattr(os, "register_at_fork"):
            self._is_registered = True
            os.register_at_fork(before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child)

    def remove(self, delivery: Delivery) -> None:
        self._deliveries = tuple(other for other in self._deliveries if other is not delivery)

    def _before(self) -> None:
        for delivery in self._deliveries:
            delivery.before_fork()

    def _in_parent(self) -> None:
        for delivery in self._deliveries:
            delivery.after_fork_in_parent()

    def _in_child(self) -> None:
        for delivery in self._deliveries:
            delivery.after_fork_in_child()


_FORKS = _Forks()
"""The deliveries that run (docs/adr/0002)."""


def audit_arguments(event: Event) -> tuple[Any, ...]:
    """The arguments of `sys.audit` for an event: its name, then what the hook gets."""
    if isinstance(event, DebugEvent):
        return ("dlltracer.debug", event.provider, event.opcode, event.header, event.data)
    if isinstance(event, LoadFailedEvent):
        return ("dlltracer.failed", event.path)
    return ("dlltracer.unload" if isinstance(event, UnloadEvent) else "dlltracer.load", event.path)


def report(text: str) -> None:
    """Write a line to stderr. Never raises; does nothing where there is no stderr."""
    if sys.stderr is None:
        return
    from .model.screen import escape_for

    try:
        print(escape_for(sys.stderr, f"dlltracer: {text}"), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return


def report_error(what: str, error: BaseException) -> None:
    """Write an error to stderr, with its traceback. Never raises; does nothing where there is no stderr."""
    import traceback

    lines = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    report(f"{what}:\n{lines}".rstrip("\n"))


class _Failures:
    """Swallows what one output raises, so that the others get their events; keeps the first error and the count.

    KeyboardInterrupt is the user's, not the output's: it is kept in `interrupt`, to be raised when all is delivered.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: BaseException | None = None
        self.interrupt: KeyboardInterrupt | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> bool:
        if isinstance(error, KeyboardInterrupt):
            self.interrupt = error
        elif error is not None:
            self.count += 1
            self.first = self.first or error
        return error is not None

    def report(self, what: str) -> str:
        """Say it once on stderr, and return it as a note."""
        assert self.first is not None
        note = f"{self.count} {what}; the first error was {self.first!r}"
        report_error(note, self.first)
        return note
