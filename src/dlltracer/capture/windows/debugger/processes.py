"""The processes that a debugger started or followed: a log of each, and facts about it."""

from __future__ import annotations

import functools
import heapq
from dataclasses import dataclass

from ....model.recording import TracedProcess
from ..command_line import split_command_line
from ..devicepath import display_path
from .exceptions import read_exception_facts
from .process_log import EventOrigin, ProcessLog, decode_image_header, decode_record_now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ....model.crash import Crash
    from ....model.events import Event
    from ....model.failure import Request
    from ..image_records import RawRecord
    from .bindings import EXCEPTION_RECORD, Debugging


@dataclass
class _DebuggedProcess:
    """One process and its state now. `started` and `ended` are `time.perf_counter_ns()`."""

    pid: int
    handle: int
    log: ProcessLog
    started: int
    parent: int | None = None
    command: str = ""
    program: str | None = None
    ended: int | None = None
    status: int | None = None

    @property
    def crash(self) -> Crash | None:
        return None if self.status is None else self.log.crash(self.status)


class DebuggedProcesses:
    """The listener of a `DebugLoop`: sorts debug events by process.

    Arguments: `devices` as in `devicepath.display_path`; `wall` (seconds since the epoch) and `clock`
    (`time.perf_counter_ns()`) of one moment; `on_event`, as in `run.run_debugged`.

    Events of a process whose start was not seen are passed over: this thread debugged it before.
    """

    def __init__(
        self, api: Debugging, devices: Mapping[str, str], wall: float, clock: int,
        on_event: Callable[[Event | TracedProcess], None] | None = None,
    ) -> None:  # fmt: skip
        self._api = api
        self._devices = devices
        self._wall = wall
        self._clock = clock
        self._on_event = on_event
        self._all: list[_DebuggedProcess] = []
        self._running: dict[int, _DebuggedProcess] = {}

    def note_start(self, pid: int, clock: int, process: int) -> None:
        log = ProcessLog(self._devices, functools.partial(self._emit_change, pid))
        one = _DebuggedProcess(pid, process, log, clock)
        one.parent, one.command = self._api.read_origin(process)
        self._all.append(one)
        self._running[pid] = one

    def note_ready(self, pid: int, clock: int) -> None:
        one = self._running.get(pid)
        if one is not None:
            one.log.note_ready(clock)
        if one is not None and not one.command:
            _, one.command = self._api.read_origin(one.handle)

    def note_load(self, pid: int, tid: int, clock: int, base: int, path: str, head: bytes) -> None:
        one = self._running.get(pid)
        if one is not None:
            if one.program is None:
                one.program = path  # the first image is the program
                self._emit_process(one)
            one.log.note_load(EventOrigin(pid, tid, clock), base, path, decode_image_header(head))

    def note_unload(self, pid: int, tid: int, clock: int, base: int) -> None:
        if pid in self._running:
            self._running[pid].log.note_unload(EventOrigin(pid, tid, clock), base)

    def note_exception(self, pid: int, tid: int, record: EXCEPTION_RECORD, is_first_chance: bool) -> None:
        one = self._running.get(pid)
        if one is None:
            return
        facts = None
        if not is_first_chance:
            # The process stands still, so its memory is as it was when the exception was raised.
            facts = read_exception_facts(record, functools.partial(self._api.read_memory, one.handle))
        one.log.note_exception(tid, record, is_first_chance, facts)

    def note_debug_string(self, pid: int, data: bytes, is_unicode: bool) -> None:
        if pid in self._running:
            self._running[pid].log.note_debug_string(data, is_unicode)

    def note(self, pid: int, text: str) -> None:
        if pid in self._running:
            self._running[pid].log.note(text)

    def note_end(self, pid: int, clock: int, status: int) -> None:
        one = self._running.pop(pid, None)
        if one is not None:
            one.log.note_end(clock)
            one.ended, one.status = clock, status
            self._emit_process(one)

    def has_ended(self, pid: int) -> bool:
        """Whether a process was debugged and has ended."""
        return pid not in self._running and any(one.pid == pid for one in self._all)

    def crash(self, status: int) -> Crash | None:
        """Return where the first process, which ended with `status`, crashed; `None` if it did not."""
        return self._all[0].log.crash(status) if self._all else None

    def events(self, requests: Sequence[Request], since: int | None = None) -> tuple[Event, ...]:
        """Return the loads and unloads of all processes in the order of time.

        Arguments: `requests`, of the first process; `since`, the moment before which the first process is left out
        (`time.perf_counter_ns()`).
        """
        wall, clock = self._wall, self._clock
        logs = [
            one.log.events(requests if number == 0 else (), one.pid, wall, clock, None if number else since)
            for number, one in enumerate(self._all)
        ]
        return tuple(heapq.merge(*logs, key=lambda event: event.timestamp or 0.0))

    def processes(self) -> tuple[TracedProcess, ...]:
        """Return the facts about each process, in the order of their starts."""
        return tuple(self._describe(one) for one in self._all)

    def notes(self) -> tuple[str, ...]:
        """Return the notes of all processes. Notes of another than the first name their process."""
        return tuple(
            note if one is self._all[0] else f"process {one.pid}: {note}"
            for one in self._all
            for note in one.log.notes()
        )

    def _describe(self, one: _DebuggedProcess) -> TracedProcess:
        return TracedProcess(
            one.pid, one.parent, split_command_line(one.command) or None, self._shown(one.program),
            self._epoch(one.started), self._epoch(one.ended), one.status, one.crash,
        )  # fmt: skip

    def _epoch(self, at: int | None) -> float | None:
        return None if at is None else self._wall + (at - self._clock) / 1e9

    def _emit_process(self, one: _DebuggedProcess) -> None:
        if self._on_event is not None:
            self._on_event(self._describe(one))

    def _emit_change(self, pid: int, record: RawRecord) -> None:
        if self._on_event is not None:
            for event in decode_record_now(record, pid, self._devices, self._wall, self._clock):
                self._on_event(event)

    def _shown(self, path: str | None) -> str | None:
        return None if path is None else display_path(path, self._devices, None) or path
