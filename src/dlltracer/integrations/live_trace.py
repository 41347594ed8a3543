"""A trace that can be read while it runs: what the fixture `dlltrace` of pytest gives to a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import overload

from ..model.events import DebugEvent, Event, LoadEvent, LoadFailedEvent, UnloadEvent
from ..model.recording import Losses, Recording
from ..trace import Trace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


class LiveTrace(Sequence[Event]):
    """The events of a trace, in order, benign unloads left out: every look at it has all that was loaded until then.

    A look ends the trace that runs and begins another, so a load by another thread in that moment can be missed.
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._running: Trace | None = None
        self._seen = Recording(backend)

    def start(self) -> None:
        """Begin, or go on. Raises what `Trace.start` raises."""
        if self._running is None:
            trace = Trace(backend=self._backend)
            trace.start()
            self._running = trace

    def stop(self) -> None:
        """End; what was seen stays. Does nothing when it does not run."""
        trace, self._running = self._running, None
        if trace is not None:
            trace.close()
            if trace.recording is not None:
                self._seen = _join(self._seen, trace.recording)

    def __enter__(self) -> LiveTrace:
        """Forget, and trace the block alone."""
        self.stop()
        self._seen = Recording(self._backend)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def recording(self) -> Recording:
        """Everything recorded until now."""
        if self._running is not None:
            self.stop()
            self.start()
        return self._seen

    @property
    def events(self) -> tuple[LoadEvent | LoadFailedEvent, ...]:
        """The loads and the failures."""
        return tuple(event for event in self.recording.events if not isinstance(event, UnloadEvent | DebugEvent))

    @property
    def loads(self) -> tuple[LoadEvent, ...]:
        """What was mapped."""
        return self.recording.loads

    @property
    def failures(self) -> tuple[LoadFailedEvent, ...]:
        """What was not, or was dropped again."""
        return self.recording.failures

    def __len__(self) -> int:
        return len(self.events)

    @overload
    def __getitem__(self, at: int) -> Event: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Event]: ...

    def __getitem__(self, at: int | slice) -> Event | Sequence[Event]:
        return self.events[at]

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __repr__(self) -> str:
        return f"<dlltrace: {', '.join(map(str, self.events)) or 'no events'}>"


def _join(first: Recording, second: Recording) -> Recording:
    """One recording after the other."""
    losses = Losses(
        first.losses.events + second.losses.events,
        first.losses.buffers + second.losses.buffers,
        first.losses.undecodable + second.losses.undecodable,
    )
    notes = tuple(dict.fromkeys((*first.notes, *second.notes)))
    return replace(second, events=first.events + second.events, losses=losses, notes=notes)
