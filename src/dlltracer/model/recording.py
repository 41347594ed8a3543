"""A recording: the events, losses and notes of one trace, as one value."""

from __future__ import annotations

from .events import DebugEvent, Event, LoadEvent, LoadFailedEvent, UnloadEvent
from .light import dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .failure import Crash


@dataclass(frozen=True)
class TracedProcess:
    """One process of a trace. A field is `None` where the mechanism cannot know it.

    Attributes:
        pid: its process id; events of it carry the same.
        parent: process id of the one that started it.
        command: its command line, a word each.
        program: path of the file that it runs.
        started, ended: seconds since the epoch.
        status: how it ended, as of `subprocess.Popen`: negative for a signal; on Windows 32 bits without a sign.
        crash: where it crashed, if it did and somebody watched.
    """

    pid: int
    parent: int | None = None
    command: tuple[str, ...] | None = None
    program: str | None = None
    started: float | None = None
    ended: float | None = None
    status: int | None = None
    crash: Crash | None = None


UNKNOWN = "unknown"
"""In the place of a mechanism's name, in what is left of a recording that was cut off."""


@dataclass(frozen=True)
class Losses:
    """Evidence that was lost on the way. All zero for a complete trace.

    Attributes:
        events: events the system could not record (ETW EventsLost), or that were more than a recording keeps; a note
            tells the latter.
        buffers: whole buffers it recorded and did not deliver (ETW RealTimeBuffersLost and LogBuffersLost).
        undecodable: events or lines that arrived and could not be decoded.
    """

    events: int = 0
    buffers: int = 0
    undecodable: int = 0

    def __bool__(self) -> bool:
        return bool(self.events or self.buffers or self.undecodable)


@dataclass(frozen=True)
class Recording:
    """The recording of one trace.

    Attributes:
        backend: the mechanism that spoke.
        events: in order; `DebugEvent` only, when raw events were asked for.
        pid: the process traced.
        losses: what is known to be missing.
        notes: what the mechanism cannot see, why a better one was not used, what else a reader must know.
        processes: those that were followed, in the order of their starts, `pid` first; empty for a trace of one.
    """

    backend: str
    events: tuple[Event, ...] = ()
    pid: int | None = None
    losses: Losses = Losses()
    notes: tuple[str, ...] = ()
    processes: tuple[TracedProcess, ...] = ()

    @property
    def first_process(self) -> Recording:
        """The events of the first process: an exception that ended the run is its exception."""
        if len(self.processes) < 2:
            return self
        own = (event for event in self.events if getattr(event, "pid", None) in (None, self.pid))
        return replace(self, events=tuple(own))

    @property
    def loads(self) -> tuple[LoadEvent, ...]:
        """The loads among the events, in order."""
        return tuple(event for event in self.events if isinstance(event, LoadEvent))

    @property
    def failures(self) -> tuple[LoadFailedEvent, ...]:
        """The failed loads among the events, in order."""
        return tuple(event for event in self.events if isinstance(event, LoadFailedEvent))

    @property
    def unloads(self) -> tuple[UnloadEvent, ...]:
        """The unloads among the events, in order."""
        return tuple(event for event in self.events if isinstance(event, UnloadEvent))

    @property
    def raw(self) -> tuple[DebugEvent, ...]:
        """The raw records among the events, in order."""
        return tuple(event for event in self.events if isinstance(event, DebugEvent))


MOST_EVENTS = 500_000
"""Events that one recording keeps in memory, some 0.5 kB each. Failures beyond it take the place of the latest others.
"""


class KeptEvents:
    """Collects events, and drops the ones above `most`: failures are kept first, then what came first.

    Attributes: `dropped`, how many were dropped.
    """

    def __init__(self, most: int = MOST_EVENTS) -> None:
        self._room = self._most = most
        self._events: list[Event | None] = []
        self._others_end = -1
        self.dropped = 0

    def add(self, event: Event) -> None:
        """Keep an event, or count it."""
        if self._room:
            self._room -= 1
            self._events.append(event)
            return
        self.dropped += 1
        if isinstance(event, LoadFailedEvent) and self._drop_latest_other():
            self._events.append(event)

    def _drop_latest_other(self) -> bool:
        """Drop the latest event that is no failure, if there is one: none has come since there is no more room."""
        if self._others_end < 0:
            self._others_end = len(self._events)
        while self._others_end:
            self._others_end -= 1
            if not isinstance(self._events[self._others_end], LoadFailedEvent):
                self._events[self._others_end] = None
                return True
        return False

    def take(self) -> tuple[Event, ...]:
        """The events kept, in order; none are held any more."""
        events, self._events, self._room, self._others_end = self._events, [], self._most, -1
        return tuple([event for event in events if event is not None])

    def notes(self) -> tuple[str, ...]:
        """A note on the events dropped, if some were."""
        if not self.dropped:
            return ()
        return (
            f"{self.dropped} events are left out: more than {self._most:,} came, and no more are kept in memory "
            "(failures first, then the earliest)",
        )
