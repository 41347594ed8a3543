"""The events of a recording while it grows, up to a bound."""

from __future__ import annotations

from ..model.events import Event, LoadFailedEvent

MOST_EVENTS = 500_000
"""Events that one recording keeps in memory, some 0.5 kB each. Failures beyond it take the place of the latest others.
"""


class KeptEvents:
    """Collects events, and drops the ones above `most`: failures are kept first, then what came first.

    Attributes: `dropped`, how many were dropped.
    """

    def __init__(self, most: int = MOST_EVENTS) -> None:
        self._most = most
        self._number = 0
        self._failures: list[tuple[int, Event]] = []
        self._others: list[tuple[int, Event]] = []
        self.dropped = 0

    def add(self, event: Event) -> None:
        """Keep an event, or count it."""
        self._number += 1
        is_failure = isinstance(event, LoadFailedEvent)
        if len(self._failures) + len(self._others) >= self._most:
            self.dropped += 1
            if not is_failure or not self._others:
                return
            self._others.pop()
        (self._failures if is_failure else self._others).append((self._number, event))

    def take(self) -> tuple[Event, ...]:
        """The events kept, in order; none are held any more."""
        merged = sorted(self._failures + self._others, key=lambda numbered: numbered[0])
        self._failures, self._others = [], []
        return tuple(event for _, event in merged)

    def notes(self) -> tuple[str, ...]:
        """A note on the events dropped, if some were."""
        if not self.dropped:
            return ()
        return (
            f"{self.dropped} events are left out: more than {self._most:,} came, and no more are kept in memory "
            "(failures first, then the earliest)",
        )
