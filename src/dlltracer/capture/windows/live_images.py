"""The events of a trace of this process while it runs, from image records and the requests of Python. Pure.

Whether an unload is a failed load is known when the request that it belongs to has returned. So records are decoded in
stretches that end where no request is in progress (`image_events.ImageDecoder`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ...model.events import ImageChange, LoadEvent
from ...model.failure import Request, RequestKind
from .image_events import ImageDecoder
from .image_records import Opcode, RawRecord

_IMPORTED_BY = 1_000_000_000
"""Nanoseconds after an extension module was loaded in which the import system puts it into `sys.modules`."""


class RequestSource(Protocol):
    """What gives the requests: a `Watch`, which describes these."""

    def peek(self, until: int | None) -> Sequence[Request]: ...

    def forget(self, count: int) -> None: ...

    def open_since(self, moment: int) -> int: ...


class LiveImages:
    """The events, stretch by stretch.

    Arguments: `decoder`; `clock`, what gives the time of a record as `time.perf_counter_ns()`; `watch`, the requests;
    `adjust`, what makes a request ready for the decoder.

    Attributes: `events`, all until now.
    """

    def __init__(
        self, decoder: ImageDecoder, clock: Callable[[RawRecord], int], watch: RequestSource,
        adjust: Callable[[Request], Request],
    ) -> None:  # fmt: skip
        self._decoder = decoder
        self._clock = clock
        self._watch = watch
        self._adjust = adjust
        self._waiting: list[RawRecord] = []
        self._told: set[tuple[int | None, float | None]] = set()
        self.events: list[ImageChange] = []

    @property
    def undecodable(self) -> int:
        """How many records could not be decoded."""
        return self._decoder.undecodable

    def add(self, records: Iterable[RawRecord]) -> None:
        """Take in records, in any order."""
        self._waiting += records

    def take(self, now: int, *, is_end: bool = False) -> list[ImageChange]:
        """Return the new events of a moment by which all earlier records have come; at the end, all that are left."""
        until = now if is_end else self._watch.open_since(now)
        records = [one for one in self._waiting if is_end or self._clock(one) <= until]
        if not records:
            return []
        requests = self._watch.peek(None if is_end else until)
        decoder = self._decoder
        is_early = not is_end and _is_undecided(records, requests, now)
        if is_early:
            decoder = decoder.copy()
        events = decoder.decode(records, [self._adjust(one) for one in requests])
        if is_early:
            # A load is one whatever comes of it. What is behind the first unload waits for the next time.
            first = next((at for at, one in enumerate(events) if not isinstance(one, LoadEvent)), len(events))
            fresh = self._not_told(events[:first])
            self._told.update((one.base, one.timestamp) for one in fresh)
        else:
            fresh = self._not_told(events)
            self._told.clear()
            self._watch.forget(len(requests))
            left = set(map(id, records))
            self._waiting = [one for one in self._waiting if id(one) not in left]
        self.events += fresh
        return fresh

    def _not_told(self, events: Sequence[ImageChange]) -> list[ImageChange]:
        return [
            one for one in events if not isinstance(one, LoadEvent) or (one.base, one.timestamp) not in self._told
        ]


def _is_undecided(records: Sequence[RawRecord], requests: Sequence[Request], now: int) -> bool:
    """Whether it may turn out that an import was a success although an image of it was unmapped.

    That is so for a file with another name, whose module was there already: Windows maps it, and unmaps it again.
    """
    return any(one.opcode == Opcode.UNLOAD for one in records) and any(
        one.kind is RequestKind.EXTENSION
        and one.succeeded is None
        and (one.idle_clock is None or now - one.idle_clock < _IMPORTED_BY)
        for one in requests
    )
