"""Images of the process before and after, compared: what the mechanisms by snapshots share.

They see images that are there at the end and were not at the start. The recording's notes list what they cannot see.
"""

from __future__ import annotations

import os
from _thread import RLock

from ..errors import BackendUnavailable
from .backend import Availability

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..model.events import LoadEvent, UnloadEvent
    from ..model.recording import Recording

NAME = "snapshot"

CANNOT_SEE = "a snapshot before and after: failed loads, requesters, the places tried and the order are not seen"


class Snapshot:
    """The images of the process: `images` maps (base, path) to the size in bytes, in link map order; `adds` and
    `subs` count all loads and unloads since the process began, -1 where the C library does not count."""

    __slots__ = ("adds", "images", "subs")

    def __init__(self, images: dict[tuple[int, str], int], adds: int, subs: int) -> None:
        self.images = images
        self.adds = adds
        self.subs = subs


class SnapshotBackend:
    """The mechanism. Arguments: `make_reader`, which returns what takes snapshots; notes for its recordings."""

    name = NAME

    def __init__(self, make_reader: Callable[[], Callable[[bool], Snapshot]], *more_notes: str) -> None:
        self._make_reader = make_reader
        self._more_notes = more_notes

    def availability(self) -> Availability:
        try:
            self._make_reader()(False)
        except BackendUnavailable as error:
            return Availability(False, error.reason, error.remedy)
        return Availability(True)

    def start(self, *, raw: bool = False, live: bool = False) -> SnapshotSession:
        """Take the first snapshot. Raises `BackendUnavailable`, also for `raw`: there are no raw events."""
        if raw:
            raise BackendUnavailable(NAME, "it has no raw events to show", "Leave debug off, or use backend='rtld'")
        return SnapshotSession(self._make_reader(), live, self._more_notes)


class SnapshotSession:
    """A running capture: the last snapshot, and what has changed until then."""

    missed = 0
    is_completed_later = hides_failures = False

    def __init__(self, read: Callable[[bool], Snapshot], live: bool, more_notes: tuple[str, ...] = ()) -> None:
        self._more_notes = more_notes
        self._read = read
        self._lock = RLock()
        self._before = self._last = read(False)
        self._live = live
        self._events: list[LoadEvent | UnloadEvent] = []
        self._drained = 0
        self._snapshots: list[Snapshot] = []
        if live:  # while nothing is traced: this may load images
            from ..model import events  # noqa: F401

    def progress(self) -> int:
        """How many images came or went since the process began; -1 if the C library does not count them."""
        with self._lock:
            now = self._read(True)
        return now.adds + now.subs

    def drain(
        self, returned: Sequence[tuple[int, int]] = (), *, is_end: bool = False
    ) -> Sequence[LoadEvent | UnloadEvent]:
        """The events since the last call."""
        with self._lock:
            if self._live:
                self._snapshots.append(self._read(False))
                self._compare()
            fresh, self._drained = self._events[self._drained :], len(self._events)
            return fresh

    def stop(self) -> Callable[[], Recording]:
        """Take the last snapshot. Returns what compares them."""
        pid = os.getpid()
        with self._lock:
            self._live = False
            self._snapshots.append(self._read(False))  # before our own imports, which may load images
        return lambda: self._record(pid)

    def _compare(self) -> None:
        """Add what has changed from snapshot to snapshot."""
        from ..model.events import LoadEvent, UnloadEvent

        pid = os.getpid()
        while self._snapshots:
            before, self._last = self._last, self._snapshots.pop(0)
            self._events += [
                UnloadEvent(path, base=base, size=size, pid=pid)
                for (base, path), size in before.images.items()
                if (base, path) not in self._last.images
            ]
            self._events += [
                LoadEvent(path, base=base, size=size, pid=pid)
                for (base, path), size in self._last.images.items()
                if (base, path) not in before.images
            ]

    def _record(self, pid: int) -> Recording:
        from ..model.events import LoadEvent
        from ..model.recording import Recording

        with self._lock:
            self._compare()
        before, after, events = self._before, self._last, self._events
        gone = len(events) - sum(isinstance(event, LoadEvent) for event in events)
        notes = [CANNOT_SEE, *self._more_notes]
        if before.adds >= 0:
            passing = after.adds - before.adds - (len(events) - gone)
            if passing > 0:
                notes.append(f"{passing} more images were loaded and unloaded again: their names are not known")
        else:
            notes.append("this C library does not count loads: images loaded and unloaded again leave no trace")
        return Recording(NAME, tuple(events), pid, notes=tuple(notes))
