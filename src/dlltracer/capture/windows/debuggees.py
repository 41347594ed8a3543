"""The processes that a debugger has started or followed: an account each, and what is known of the process."""

from __future__ import annotations

import functools
import heapq
from dataclasses import dataclass

from ...model.process import TracedProcess
from .command_line import split_command_line
from .debug_decode import Account, Happening, decode_early, decode_image_header
from .devicepath import display_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...model.crash import Crash
    from ...model.events import Event
    from ...model.request import Request
    from .debug_bindings import Debugging
    from .debug_structs import EXCEPTION_RECORD
    from .records import RawRecord


@dataclass
class _Debuggee:
    """One process, as far as it has got. `started` and `ended` are `time.perf_counter_ns()`."""

    pid: int
    handle: int
    account: Account
    started: int
    parent: int | None = None
    command: str = ""
    program: str | None = None
    ended: int | None = None
    status: int | None = None

    @property
    def crash(self) -> Crash | None:
        return None if self.status is None else self.account.crash(self.status)


class Debuggees:
    """Gets what a `DebugLoop` tells.

    Arguments: `devices` as in `devicepath.display_path`; `wall` (seconds since the epoch) and `clock`
    (`time.perf_counter_ns()`) of one moment; `tell`, as in `debugger.run_debugged`.

    What is told of a process whose start was not is passed over: this thread debugged it before.
    """

    def __init__(
        self, api: Debugging, devices: Mapping[str, str], wall: float, clock: int,
        tell: Callable[[Event | TracedProcess], None] | None = None,
    ) -> None:  # fmt: skip
        self._api = api
        self._devices = devices
        self._wall = wall
        self._clock = clock
        self._tell = tell
        self._all: list[_Debuggee] = []
        self._running: dict[int, _Debuggee] = {}

    def note_start(self, pid: int, clock: int, process: int) -> None:
        account = Account(self._devices, functools.partial(self._tell_change, pid))
        one = _Debuggee(pid, process, account, clock)
        one.parent, one.command = self._api.read_origin(process)
        self._all.append(one)
        self._running[pid] = one

    def note_ready(self, pid: int, clock: int) -> None:
        one = self._running.get(pid)
        if one is not None:
            one.account.note_ready(clock)
        if one is not None and not one.command:
            _, one.command = self._api.read_origin(one.handle)

    def note_load(self, pid: int, tid: int, clock: int, base: int, path: str, head: bytes) -> None:
        one = self._running.get(pid)
        if one is not None:
            if one.program is None:
                one.program = path  # the first image is the program
                self._tell_process(one)
            one.account.note_load(Happening(pid, tid, clock), base, path, decode_image_header(head))

    def note_unload(self, pid: int, tid: int, clock: int, base: int) -> None:
        if pid in self._running:
            self._running[pid].account.note_unload(Happening(pid, tid, clock), base)

    def note_exception(self, pid: int, tid: int, record: EXCEPTION_RECORD, is_first_chance: bool) -> None:
        if pid in self._running:
            self._running[pid].account.note_exception(tid, record, is_first_chance)

    def note_said(self, pid: int, data: bytes, is_unicode: bool) -> None:
        if pid in self._running:
            self._running[pid].account.note_said(data, is_unicode)

    def note(self, pid: int, text: str) -> None:
        if pid in self._running:
            self._running[pid].account.note(text)

    def note_end(self, pid: int, clock: int, status: int) -> None:
        one = self._running.pop(pid, None)
        if one is not None:
            one.account.note_end(clock)
            one.ended, one.status = clock, status
            self._tell_process(one)

    def has_ended(self, pid: int) -> bool:
        """Whether a process was here and is no more."""
        return pid not in self._running and any(one.pid == pid for one in self._all)

    def crash(self, status: int) -> Crash | None:
        """Where the first process crashed, whose status is `status`; `None` if it did not."""
        return self._all[0].account.crash(status) if self._all else None

    def events(self, requests: Sequence[Request], since: int | None = None) -> tuple[Event, ...]:
        """Loads and unloads of all, in the order of time.

        Arguments: `requests`, of the first process; `since`, the moment before which the first process is left out
        (`time.perf_counter_ns()`).
        """
        wall, clock = self._wall, self._clock
        told = [
            one.account.events(requests if number == 0 else (), one.pid, wall, clock, None if number else since)
            for number, one in enumerate(self._all)
        ]
        return tuple(heapq.merge(*told, key=lambda event: event.timestamp or 0.0))

    def processes(self) -> tuple[TracedProcess, ...]:
        """What is known of each, in the order of their starts."""
        return tuple(self._describe(one) for one in self._all)

    def notes(self) -> tuple[str, ...]:
        """The notes of all; those of another than the first say whose they are."""
        return tuple(
            note if one is self._all[0] else f"process {one.pid}: {note}"
            for one in self._all
            for note in one.account.notes()
        )

    def _describe(self, one: _Debuggee) -> TracedProcess:
        return TracedProcess(
            one.pid, one.parent, split_command_line(one.command) or None, self._shown(one.program),
            self._epoch(one.started), self._epoch(one.ended), one.status, one.crash,
        )  # fmt: skip

    def _epoch(self, at: int | None) -> float | None:
        return None if at is None else self._wall + (at - self._clock) / 1e9

    def _tell_process(self, one: _Debuggee) -> None:
        if self._tell is not None:
            self._tell(self._describe(one))

    def _tell_change(self, pid: int, record: RawRecord) -> None:
        if self._tell is not None:
            for event in decode_early(record, pid, self._devices, self._wall, self._clock):
                self._tell(event)

    def _shown(self, path: str | None) -> str | None:
        return None if path is None else display_path(path, self._devices, None) or path
