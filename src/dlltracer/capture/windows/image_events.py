"""Turns image records and the requests of Python into events. Pure: runs on any system.

The rule that judges an unload (docs/reference/failed-or-unloaded.md). The kernel reports unloads only; process exit,
FreeLibrary and a file mapped to be read look the same as a load that failed. An unload is *Failed* when

(a) the image is an extension module that Python asked for in this trace, no image of its name stays, and its import is
    not known to have succeeded: CPython never unloads one, so its load failed;
(b) the image is a library that ctypes asked for, and the call is known to have failed: no handle was given out, or,
    where that is not known, the image was gone before the thread ran Python again;
(c) the image was mapped and unmapped inside the call that failed by (a) or (b), in the same thread.

Every other unload is an `UnloadEvent`. Loads and unloads are matched by base address, never by path: Windows 8 spells
the path of one image in two ways.
"""

from __future__ import annotations

import ntpath
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from typing import Any, Protocol

from ...model.events import DebugEvent, FailureKind, ImageChange, LoadEvent, LoadFailedEvent, UnloadEvent
from ...model.request import Request, RequestKind
from .image_records import (
    IMAGE_PROVIDER,
    ImagePayload,
    Opcode,
    RawRecord,
    decode_image_payload,
    display_path,
    is_same_name,
    is_same_path,
)


@dataclass(frozen=True)
class RecordContext:
    """Facts about the process and the machine that decoding needs besides the records.

    Attributes: `pid`; `devices` and `system_root` as in `image_records.display_path`; `frequency`, ticks of the events'
    clock a second; `wall` (seconds since the epoch) and `clock` (`time.perf_counter_ns()`) of one moment; `since`, the
    moment at which the trace was ready (`time.perf_counter_ns()`): earlier loads and unloads make no events.
    """

    pid: int
    devices: Mapping[str, str]
    system_root: str | None
    frequency: int
    wall: float
    clock: int
    since: int = 0

    def nanoseconds(self, ticks: int) -> int:
        """Ticks on the scale of `time.perf_counter_ns()`, which is the same counter."""
        return ticks * 1_000_000_000 // self.frequency

    def epoch(self, nanoseconds: int) -> float:
        """Return a time of `time.perf_counter_ns()` as seconds since the epoch."""
        return self.wall + (nanoseconds - self.clock) / 1e9


@dataclass(frozen=True)
class _Change:
    """A load or unload of this process, with the request it belongs to."""

    opcode: int
    image: ImagePayload
    tid: int
    clock: int
    shown: str | None
    request: Request | None


@dataclass(frozen=True)
class DecodedImages:
    """Events in order, and how many records could not be decoded."""

    events: tuple[ImageChange, ...]
    undecodable: int


def decode_records(records: Iterable[RawRecord], requests: Sequence[Request], context: RecordContext) -> DecodedImages:
    """Decode the image records of one process. Records of other processes are passed over."""
    decoder = ImageDecoder(context)
    return DecodedImages(tuple(decoder.decode(records, requests)), decoder.undecodable)


class ImageDecoder:
    """Decodes the image records of one process, stretch by stretch: no request may be in progress between two of them.

    Attributes: `undecodable`, how many records could not be decoded.
    """

    def __init__(self, context: RecordContext) -> None:
        self._context = context
        self._there: dict[int, str] = {}
        self._loads: dict[int, LoadEvent] = {}
        self._tops: dict[int, Request] = {}
        self._threads: set[int] = set()
        self.undecodable = 0

    def copy(self) -> ImageDecoder:
        """A decoder in the same state."""
        other = ImageDecoder(self._context)
        other._there, other._loads, other._tops = dict(self._there), dict(self._loads), dict(self._tops)
        other._threads, other.undecodable = set(self._threads), self.undecodable
        return other

    def decode(self, records: Iterable[RawRecord], requests: Sequence[Request]) -> list[ImageChange]:
        """Decode the next stretch; `requests`, those that were made in it."""
        self._threads.update(request.tid for request in requests)
        there = self._there
        changes = _attribute(self._read(records), requests, self._threads)
        failed = _failed_unloads(changes, there, self._tops)
        events: list[ImageChange] = []
        for index, change in enumerate(changes):
            _note_before(there, change.opcode, change.image)
            if change.opcode == Opcode.LOAD:
                loaded = LoadEvent(**_known(change, self._context))
                self._loads[change.image.base] = loaded
                events.append(loaded)
                continue
            known = _unload_fields(change, self._loads.pop(change.image.base, None), self._context)
            if index in failed:
                events.append(LoadFailedEvent(**known, kind=FailureKind.DROPPED))
            else:
                events.append(UnloadEvent(**known))
        return events

    def _read(self, records: Iterable[RawRecord]) -> list[_Change]:
        """The loads and unloads since the trace was ready; those before go into what is mapped."""
        context = self._context
        changes: list[_Change] = []
        # Buffers of several processors arrive out of order, even those of one thread ("About Event Tracing", MS Learn).
        for record in sorted(records, key=lambda one: one.ticks):
            if record.provider != IMAGE_PROVIDER or record.opcode not in _READ_OPCODES:
                continue
            image = decode_image_payload(record.data, record.version, record.pointer_size)
            if image is None:
                self.undecodable += 1
            elif image.pid not in (context.pid, None):
                continue
            elif record.opcode == Opcode.RUNDOWN_START:
                self._there[image.base] = ntpath.basename(image.path).lower()
            elif (clock := context.nanoseconds(record.ticks)) < context.since:
                _note_before(self._there, record.opcode, image)
            else:
                shown = display_path(image.path, context.devices, context.system_root)
                changes.append(_Change(record.opcode, image, record.tid, clock, shown, None))
        return changes


_READ_OPCODES = (Opcode.LOAD, Opcode.UNLOAD, Opcode.RUNDOWN_START)


def _note_before(there: dict[int, str], opcode: int, image: ImagePayload) -> None:
    """Follow what is mapped: base address to base name."""
    if opcode == Opcode.LOAD:
        there[image.base] = ntpath.basename(image.path).lower()
    else:
        there.pop(image.base, None)


def debug_events(records: Iterable[RawRecord]) -> tuple[DebugEvent, ...]:
    """The records as they came."""
    import uuid

    return tuple(
        DebugEvent(uuid.UUID(bytes_le=record.provider), record.opcode, record.descriptor, record.data)
        for record in records
    )


def _known(change: _Change, context: RecordContext) -> dict[str, Any]:
    image, request = change.image, change.request
    return {
        "path": image.path,
        "display_path": change.shown,
        "base": image.base,
        "size": image.size,
        "timestamp": context.epoch(change.clock),
        "pid": context.pid,
        "tid": change.tid,
        "imports": None if request is None else request.imports,
        "checksum": image.checksum,
        "link_time": image.link_time or None,
    }


def _unload_fields(change: _Change, loaded: LoadEvent | None, context: RecordContext) -> dict[str, Any]:
    """Report an unload with the path of its load, so that a reader sees one image and not two."""
    known = _known(change, context)
    if loaded is not None:
        was = {field.name: getattr(loaded, field.name) for field in fields(loaded)}
        known = {**was, "timestamp": known["timestamp"], "tid": known["tid"]}
    return known


def _attribute(changes: list[_Change], requests: Sequence[Request], threads: Set[int]) -> list[_Change]:
    """Give each change the request during which it happened.

    In the asking thread: from the request until the thread ran Python again. In a thread that asked for nothing, as
    those of ntdll's parallel loader: the one request whose own thread had a change before and after it. `threads`: all
    that have asked for something until now.
    """
    by_thread: dict[int, list[Request]] = {}
    for request in requests:
        by_thread.setdefault(request.tid, []).append(request)
    given = [_during(change.clock, by_thread.get(change.tid, ())) for change in changes]
    spans: dict[int, tuple[Request, int]] = {}
    for change, found in zip(changes, given, strict=True):
        if found is not None:
            spans[id(found)] = (found, change.clock)
    for index, change in enumerate(changes):
        if given[index] is None and change.tid not in threads:
            around = [request for request, last in spans.values() if request.clock <= change.clock <= last]
            given[index] = around[0] if len(around) == 1 else None
    return [
        _Change(c.opcode, c.image, c.tid, c.clock, c.shown, request) for c, request in zip(changes, given, strict=True)
    ]


def imports_during(tid: int, clock: int, requests: Sequence[Request]) -> tuple[str, ...] | None:
    """Return the imports in progress when a thread made the request during which something happened; `None` for none.

    Arguments: `tid`, the thread; `clock`, when it happened, of `time.perf_counter_ns()`.
    """
    found = _during(clock, [request for request in requests if request.tid == tid])
    return None if found is None else found.imports


def _during(clock: int, requests: Sequence[Request]) -> Request | None:
    """The latest of one thread's requests before `clock`, if the thread had not run Python in between."""
    for request in reversed(requests):
        if request.clock <= clock:
            return request if request.idle_clock is None or clock <= request.idle_clock else None
    return None


def _failed_unloads(
    changes: Sequence[_Change], there: Mapping[int, str], tops: dict[int, Request]
) -> set[int]:
    """Return the indexes of the unloads that are judged failed loads, by the rule of this module.

    Arguments: `there`, the images that were mapped before the first change, base address to base name; `tops`, which of
    them a request had named, and its request: kept up to date.
    """
    named = _named_loads(changes, there)
    names = dict(there)
    failed: set[int] = set()
    failed_calls: set[int] = set()
    for index, change in enumerate(changes):
        base, name = change.image.base, _base_name(change)
        if change.opcode == Opcode.LOAD:
            names[base] = name
            tops.pop(base, None)
            if index in named:
                assert change.request is not None
                tops[base] = change.request
            continue
        asked = tops.pop(base, None)
        names.pop(base, None)
        # A module that is there by another path (a link, a drive of SUBST) is mapped and dropped again: no failure.
        is_there = asked is not None and asked.kind is RequestKind.EXTENSION and name in names.values()
        if asked is not None and not is_there and _call_failed(change, asked):
            failed.add(index)
            failed_calls.add(id(asked))
    mapped_by: dict[int, Request | None] = {}
    for index, change in enumerate(changes):
        if change.opcode == Opcode.LOAD:
            mapped_by[change.image.base] = change.request
            continue
        call = mapped_by.pop(change.image.base, None)
        if call is not None and call is change.request and id(call) in failed_calls:
            failed.add(index)
    return failed


def _named_loads(changes: Sequence[_Change], there: Mapping[int, str]) -> set[int]:
    """Return the indexes of the loads that requests named themselves, not those that were needed for them.

    The kernel names a file as it is after links, junctions and substituted drives, and a file with several names as it
    was opened first. So for an extension module the base name counts: the first load of that name in the request's
    thread and time. The whole path decides only between several.

    A hard link of another name, or a renamed file that is in the cache of files, has another base name, too. Windows
    maps the image that was asked for before those that it needs, so without that name the first load counts, unless an
    image of that name was there already: then nothing had to be mapped for the request itself. For a library that
    ctypes asked for, this holds when the call is known to have failed.
    """
    chosen: dict[int, int] = {}
    exact: set[int] = set()
    answered: set[int] = set()
    named: set[int] = set()
    firsts: dict[int, int] = {}
    names = dict(there)
    for index, change in enumerate(changes):
        request = change.request
        if change.opcode != Opcode.LOAD:
            names.pop(change.image.base, None)
            continue
        was_there = request is not None and ntpath.basename(request.target).lower() in names.values()
        names[change.image.base] = _base_name(change)
        if request is None:
            continue
        if request.kind is not RequestKind.EXTENSION:
            if is_same_name(change.image.path, request.target):
                named.add(index)
                answered.add(id(request))
            elif request.succeeded is False and change.tid == request.tid:
                firsts.setdefault(id(request), index)
        elif is_same_path(change.image.path, change.shown, request.target):
            if id(request) not in exact:
                exact.add(id(request))
                chosen[id(request)] = index
        elif _base_name(change) == ntpath.basename(request.target).lower():
            chosen.setdefault(id(request), index)
        elif change.tid == request.tid:
            firsts.setdefault(id(request), -1 if was_there else index)
    unnamed = {first for number, first in firsts.items() if number not in chosen.keys() | answered and first >= 0}
    return named | set(chosen.values()) | unnamed


def _base_name(change: _Change) -> str:
    return ntpath.basename(change.image.path).lower()


def _call_failed(unload: _Change, request: Request) -> bool:
    """Return whether the unload of the image that `request` named means that its load had failed."""
    if request.succeeded is not None:
        return not request.succeeded
    if request.kind is RequestKind.EXTENSION and _base_name(unload) == ntpath.basename(request.target).lower():
        return True
    return unload.request is request and request.idle_clock is not None


_IMPORTED_BY = 1_000_000_000
"""Nanoseconds after an extension module was loaded in which the import system puts it into `sys.modules`."""


class RequestSource(Protocol):
    """A source of requests, such as a `Watch`, which describes these."""

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
        self._given: set[tuple[int | None, float | None]] = set()
        self.events: list[ImageChange] = []

    @property
    def undecodable(self) -> int:
        """Number of records that could not be decoded."""
        return self._decoder.undecodable

    def add(self, records: Iterable[RawRecord]) -> None:
        """Take in records, in any order."""
        self._waiting += records

    def take(self, now: int, *, is_end: bool = False) -> list[ImageChange]:
        """Return the events that have come to light since the last call; at the end, all that are left.

        Arguments: `now`, a moment of `time.perf_counter_ns()` by which all earlier records have come; `is_end`, no more
        records come.
        """
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
            fresh = self._not_given(events[:first])
            self._given.update((one.base, one.timestamp) for one in fresh)
        else:
            fresh = self._not_given(events)
            self._given.clear()
            self._watch.forget(len(requests))
            left = set(map(id, records))
            self._waiting = [one for one in self._waiting if id(one) not in left]
        self.events += fresh
        return fresh

    def _not_given(self, events: Sequence[ImageChange]) -> list[ImageChange]:
        return [
            one for one in events if not isinstance(one, LoadEvent) or (one.base, one.timestamp) not in self._given
        ]


def _is_undecided(records: Sequence[RawRecord], requests: Sequence[Request], now: int) -> bool:
    """Return whether an import may still turn out a success although an image of it was unmapped.

    That is so for a file with another name, whose module was there already: Windows maps it, and unmaps it again.
    """
    return any(one.opcode == Opcode.UNLOAD for one in records) and any(
        one.kind is RequestKind.EXTENSION
        and one.succeeded is None
        and (one.idle_clock is None or now - one.idle_clock < _IMPORTED_BY)
        for one in requests
    )
