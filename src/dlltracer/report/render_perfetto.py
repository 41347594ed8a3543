"""Renders the timeline of a trace for ui.perfetto.dev and chrome://tracing.

Source: "Trace Event Format", docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. Times are whole
microseconds from the first thing known.

A mechanism may give many loads one time ("rtld": when Python asked), or none. Every event then gets the next free
microsecond of its process: the order is the loader's, the distance means nothing, and `args.time` says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..model.events import DebugEvent, Event, ImageEvent, LoadEvent, LoadFailedEvent, UnloadEvent
from ..model.recording import Recording, TracedProcess
from ..model.run import SavedTrace
from ..model.screen import escape
from ..model.words import describe_end
from .counts import is_consequence
from .drawing import file_name

Entry = dict[str, Any]


LOAD_TIME = 1
"""Microseconds that a load is drawn with: how long one took is not recorded, and nothing of no length can be seen."""

_LAST_TIME = 1 << 33
"""Seconds: the year 2242; in microseconds still exact in the floating point numbers of JavaScript."""

NO_TIME = "order only: the mechanism gave no time"
NO_LATER_TIME = "order only: the mechanism gave it no later time than the event before"
TIMES = "times of the mechanism; args.time of an event says where there was none of its own, and only the order counts"


def render_perfetto(saved: SavedTrace) -> str:
    """The trace as one JSON object, ASCII only: a track a thread, imports as slices with the loads inside.

    Every load is a slice of `LOAD_TIME`, every failure, unload and crash an instant.
    """
    entries = ",\n".join(map(json.dumps, _Timeline(saved).entries()))
    return f'{{"traceEvents": [\n{entries}\n], "displayTimeUnit": "ms", "otherData": {json.dumps(_about(saved))}}}\n'


def _about(saved: SavedTrace) -> dict[str, Any]:
    recording = saved.recording
    losses = {"events": recording.losses.events, "buffers": recording.losses.buffers}
    about: dict[str, Any] = {
        "what": escape(saved.what),
        "backend": recording.backend,
        "written_by": f"dlltracer {saved.written_by}".strip(),
        "times": TIMES,
        "losses": {**losses, "undecodable": recording.losses.undecodable},
        "notes": [escape(note) for note in (*recording.notes, *saved.problems)],
    }
    zero = _first_time(saved)
    return about if zero is None else {**about, "zero": zero}


def _first_time(saved: SavedTrace) -> float | None:
    """Seconds since the epoch that stand as 0; `None` when nothing has a time."""
    recording = saved.recording
    times = [saved.started, *(getattr(event, "timestamp", None) for event in recording.events)]
    times += [process.started for process in recording.processes]
    return min((time for time in times if time is not None and _is_time(time)), default=None)


def _is_time(timestamp: float) -> bool:
    """Return whether a number is seconds since 1970 of our age: a damaged file may say anything, and JSON has no word
    for NaN."""
    return 0 <= timestamp < _LAST_TIME


class _Clock:
    """Places of the events of one process on its time line: each later than the one before."""

    def __init__(self, zero: float | None) -> None:
        self._zero = zero
        self.now = -LOAD_TIME

    def place(self, timestamp: float | None) -> tuple[int, bool]:
        """Microseconds, and whether they are the event's own."""
        wanted = self.microseconds(timestamp)
        self.now += LOAD_TIME
        if wanted is not None and wanted >= self.now:
            self.now = wanted
            return wanted, True
        return self.now, False

    def microseconds(self, timestamp: float | None) -> int | None:
        if timestamp is None or self._zero is None or not _is_time(timestamp):
            return None
        return round((timestamp - self._zero) * 1_000_000)


class _Track:
    """The imports in progress in one thread: name, since when, and the entry that becomes its slice."""

    def __init__(self, pid: int, tid: int) -> None:
        self._ids: Entry = {"pid": pid, "tid": tid}
        self._open: list[tuple[str, Entry]] = []
        self.slices: list[Entry] = []

    def move_to(self, imports: tuple[str, ...], now: int) -> None:
        """End the imports that are over, begin those that are new."""
        same = 0
        while same < min(len(imports), len(self._open)) and self._open[same][0] == imports[same]:
            same += 1
        del self._open[same:]
        for name in imports[same:]:
            entry = {"ph": "X", "cat": "import", "name": f"import {escape(name)}", "ts": now, "dur": 0, **self._ids}
            self.slices.append(entry)
            self._open.append((name, entry))

    def reach(self, end: int) -> None:
        """Something of the imports in progress happened until `end`."""
        for _, entry in self._open:
            entry["dur"] = end - entry["ts"]


class _Timeline:
    """Puts the trace together."""

    def __init__(self, saved: SavedTrace) -> None:
        self._saved = saved
        self._recording: Recording = saved.recording
        self._zero = _first_time(saved)
        self._clocks: dict[int, _Clock] = {}
        self._tracks: dict[tuple[int, int], _Track] = {}
        self._entries: list[Entry] = []
        self._named: set[tuple[int, int]] = set()
        """The threads that an event named; others stand for what is not known."""

    def entries(self) -> list[Entry]:
        """Names of processes and threads first, then all by time; of those at one time the longer first."""
        for event in self._recording.events:
            self._add(event)
        self._add_crash()
        processes = self._processes()
        for process in processes:
            self._add_process(process)
        # Of slices that begin and end together the outer one comes first: the sort keeps the order of this list.
        timed = [*(entry for track in self._tracks.values() for entry in track.slices), *self._entries]
        timed.sort(key=lambda entry: (entry["ts"], entry["ph"] != "X", -entry.get("dur", 0)))
        return [*self._names(processes), *timed]

    def _processes(self) -> list[TracedProcess]:
        """The processes named by the recording, and those that only events name."""
        known = {process.pid: process for process in self._recording.processes}
        for pid, _ in self._tracks:
            known.setdefault(pid, TracedProcess(pid))
        return list(known.values())

    def _pid(self, pid: int | None) -> int:
        return pid if pid is not None else self._recording.pid or 1

    def _clock(self, pid: int) -> _Clock:
        return self._clocks.setdefault(pid, _Clock(self._zero))

    def _track(self, pid: int, tid: int) -> _Track:
        return self._tracks.setdefault((pid, tid), _Track(pid, tid))

    def _add(self, event: Event) -> None:
        if isinstance(event, DebugEvent):
            pid = self._pid(None)
            self._track(pid, pid)
            now, _ = self._clock(pid).place(None)
            arguments = {"provider": str(event.provider), "data": event.data.hex(), "time": NO_TIME}
            self._instant(f"raw event {event.opcode}", "raw", now, pid, pid, arguments)
            return
        pid = self._pid(event.pid)
        tid = event.tid if event.tid is not None else pid
        self._named |= {(pid, tid)} if event.tid is not None else set()
        now, own = self._clock(pid).place(event.timestamp)
        track = self._track(pid, tid)
        track.move_to(event.imports or (), now)
        arguments = _arguments(event)
        if not own:
            arguments["time"] = NO_TIME if event.timestamp is None else NO_LATER_TIME
        name = file_name(event.shown_path)
        if isinstance(event, LoadEvent):
            entry = {"ph": "X", "cat": "load", "name": escape(name), "ts": now, "dur": LOAD_TIME}
            self._entries.append({**entry, "pid": pid, "tid": tid, "args": arguments})
        elif isinstance(event, LoadFailedEvent):
            what = "dropped" if is_consequence(event) else (event.kind.value if event.kind is not None else "failed")
            self._instant(f"{file_name(event.need or name)} {what}", "failed", now, pid, tid, arguments)
        elif isinstance(event, UnloadEvent):
            self._instant(f"{name} unloaded", "unload", now, pid, tid, arguments)
        track.reach(now + LOAD_TIME)

    def _instant(
        self, name: str, category: str, now: int, pid: int, tid: int, arguments: dict[str, Any], scope: str = "t"
    ) -> None:
        entry = {"ph": "i", "s": scope, "cat": category, "name": escape(name), "ts": now, "pid": pid, "tid": tid}
        self._entries.append({**entry, "args": arguments})

    def _add_process(self, process: TracedProcess) -> None:
        """Its life, as far as its ends are known, and how it ended."""
        clock = self._clock(process.pid)
        start, end = clock.microseconds(process.started), clock.microseconds(process.ended)
        ids = {"pid": process.pid, "tid": process.pid}
        if start is not None and end is not None and end >= start:
            pair = {"cat": "process", "name": _process_name(process), "id": f"{process.pid:#x}", **ids}
            self._entries += [{"ph": "b", "ts": start, **pair}, {"ph": "e", "ts": end, **pair}]
        if process.status:
            now = end if end is not None else clock.place(None)[0]
            arguments = {"status": process.status}
            self._instant(describe_end(process.status), "process", now, process.pid, process.pid, arguments)

    def _add_crash(self) -> None:
        crash = self._saved.run.crash
        if crash is None:
            return
        pid = self._pid(None)
        now, _ = self._clock(pid).place(None)
        where = {"image": crash.image, "offset": None if crash.offset is None else f"{crash.offset:#x}"}
        arguments = {key: escape(value) for key, value in where.items() if value is not None}
        tid = crash.thread if crash.thread is not None else pid
        self._track(pid, tid)
        self._instant(f"crash: {crash.name}", "crash", now, pid, tid, {**arguments, "time": NO_TIME}, scope="g")

    def _names(self, processes: list[TracedProcess]) -> Iterator[Entry]:
        for place, process in enumerate(processes):
            ids = {"ph": "M", "ts": 0, "pid": process.pid, "tid": process.pid}
            name = _process_name(process)
            if process.command is None and process.pid == self._recording.pid and self._saved.what:
                name = escape(self._saved.what)
            yield {"name": "process_name", **ids, "args": {"name": name}}
            yield {"name": "process_sort_index", **ids, "args": {"sort_index": place}}
        for pid, tid in self._tracks:
            name = f"thread {tid}" if tid != pid else "main thread" if (pid, tid) in self._named else "thread not known"
            yield {"name": "thread_name", "ph": "M", "ts": 0, "pid": pid, "tid": tid, "args": {"name": name}}


def _process_name(process: TracedProcess) -> str:
    return escape(" ".join(process.command or (process.program or f"process {process.pid}",)))


def _arguments(event: ImageEvent) -> dict[str, Any]:
    """Return the known facts about the image, for the panel below the timeline."""
    found: dict[str, Any] = {"path": escape(event.path)}
    texts = {
        "display_path": event.display_path,
        "need": event.need,
        "requested_by": event.requested_by,
        "rule": event.phase.value if event.phase is not None else None,
        "base": f"{event.base:#x}" if event.base is not None else None,
        "reason": getattr(event, "reason", None),
    }
    found |= {key: escape(text) for key, text in texts.items() if text is not None}
    if event.size is not None:
        found["size"] = event.size
    if isinstance(event, LoadFailedEvent) and event.probes:
        found["places"] = [escape(f"{probe.path}: {probe.outcome.value}") for probe in event.probes]
    return found
