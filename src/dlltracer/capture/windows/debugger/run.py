"""Runs a program as its debugger: every load and unload, every exception, and how it ended. Needs no privilege.

The thread that starts a process with DEBUG_ONLY_THIS_PROCESS is its debugger; with DEBUG_PROCESS also of all that the
process starts. Only that thread gets the debug events ("WaitForDebugEvent", MS Learn).

The program must run as it would alone: every exception goes back unhandled (see `loop`), and the slow heap that Windows
gives to processes with a debugger is turned off.
"""

from __future__ import annotations

import functools
import heapq
import ntpath
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ....errors import BackendUnavailable, TraceStartError
from ....model.events import Event
from ....model.failure import Crash
from ....model.recording import TracedProcess
from ....model.request import Request
from ..image_records import RawRecord, display_path, split_command_line
from ..system import query_dos_devices, with_final_path
from .bindings import (
    DEBUG_ONLY_THIS_PROCESS,
    DEBUG_PROCESS,
    ERROR_ELEVATION_REQUIRED,
    ERROR_NOT_SUPPORTED,
    EXCEPTION_RECORD,
    Debugging,
)
from .launchers import find_behind_redirector, is_launcher, is_python_library
from .loop import DebugLoop
from .process_log import EventOrigin, ProcessLog, decode_image_header, decode_record_now, read_exception_facts


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

    Arguments: `devices` as in `image_records.display_path`; `wall` (seconds since the epoch) and `clock`
    (`time.perf_counter_ns()`) of one moment; `on_event`, as in `run.run_debugged`; `behind_launcher`: the first process
    is a launcher, and only the first process that runs Python is shown, as soon as it is known.

    Events of a process whose start was not seen are passed over: this thread debugged it before.

    Attribute: `subject`, the process that runs Python behind a launcher; `None` while it is not known.
    """

    def __init__(
        self, api: Debugging, devices: Mapping[str, str], wall: float, clock: int,
        on_event: Callable[[Event | TracedProcess], None] | None = None, *, behind_launcher: bool = False,
    ) -> None:  # fmt: skip
        self._api = api
        self._devices = devices
        self._wall = wall
        self._clock = clock
        self._on_event = on_event
        self._all: list[_DebuggedProcess] = []
        self._running: dict[int, _DebuggedProcess] = {}
        self._behind_launcher = behind_launcher
        self._held: dict[int, list[Event | TracedProcess]] = {}
        self.subject: int | None = None

    def note_start(self, pid: int, clock: int, process: int) -> None:
        log = ProcessLog(self._devices, functools.partial(self._emit_change, pid))
        one = _DebuggedProcess(pid, process, log, clock)
        one.parent, one.command = self._api.read_origin(process)
        self._all.append(one)
        self._running[pid] = one
        if self._api.is_too_wide(process):
            log.note(_TOO_WIDE)

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
            if self._behind_launcher and self.subject is None and is_python_library(path):
                self.choose(pid)
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

    def choose(self, pid: int) -> None:
        """Take a process for the one to show: what it did so far is handed on, what others did is dropped."""
        self.subject = pid
        if pid != self._all[0].pid:
            name = ntpath.basename(self._shown(self._all[0].program) or "the launcher")
            self._running[pid].log.note(f"{name} starts Python as another process, and that one is shown")
        held, self._held = self._held.pop(pid, []), {}
        for event in held:
            self._hand_on(event)

    def choose_program(self, pid: int) -> None:
        """Show the program itself where it was taken for a launcher, and no Python came."""
        if self._behind_launcher and self.subject is None:
            self.choose(pid)

    def forget(self, pid: int) -> None:
        """A process is not debugged any more."""
        self._running.pop(pid, None)

    def has_ended(self, pid: int) -> bool:
        """Return whether a process was debugged and is so no more, because it has ended."""
        return pid not in self._running and any(one.pid == pid for one in self._all)

    def crash(self, status: int) -> Crash | None:
        """Return where the first process shown crashed; `None` if it did not. `status`: of the first process."""
        if self.subject is not None:
            return self._shown_processes()[0].crash
        return self._all[0].log.crash(status) if self._all else None

    def events(self, requests: Sequence[Request], since: int | None = None) -> tuple[Event, ...]:
        """Return the loads and unloads of all processes in the order of time.

        Arguments: `requests`, of the first process; `since`, the moment before which the first process is left out
        (`time.perf_counter_ns()`).
        """
        wall, clock = self._wall, self._clock
        logs = [
            one.log.events(requests if number == 0 else (), one.pid, wall, clock, None if number else since)
            for number, one in enumerate(self._shown_processes())
        ]
        return tuple(heapq.merge(*logs, key=lambda event: event.timestamp or 0.0))

    def processes(self) -> tuple[TracedProcess, ...]:
        """Return the facts about each process, in the order of their starts."""
        return tuple(self._describe(one) for one in self._shown_processes())

    def notes(self) -> tuple[str, ...]:
        """Return the notes of all processes. Notes of another than the first name their process."""
        return tuple(
            note if number == 0 else f"process {one.pid}: {note}"
            for number, one in enumerate(self._shown_processes())
            for note in one.log.notes()
        )

    def _shown_processes(self) -> list[_DebuggedProcess]:
        """Return the processes that are shown: all, or the one behind the launcher."""
        return [one for one in self._all if not self._behind_launcher or one.pid == self.subject]

    def _describe(self, one: _DebuggedProcess) -> TracedProcess:
        return TracedProcess(
            one.pid, one.parent, split_command_line(one.command) or None, self._shown(one.program),
            self._epoch(one.started), self._epoch(one.ended), one.status, one.crash,
        )  # fmt: skip

    def _epoch(self, at: int | None) -> float | None:
        return None if at is None else self._wall + (at - self._clock) / 1e9

    def _emit_process(self, one: _DebuggedProcess) -> None:
        if self._on_event is not None:
            self._emit(one.pid, self._describe(one))

    def _emit_change(self, pid: int, record: RawRecord) -> None:
        if self._on_event is not None:
            for event in decode_record_now(record, pid, self._devices, self._wall, self._clock):
                self._emit(pid, event)

    def _emit(self, pid: int, event: Event | TracedProcess) -> None:
        if not self._behind_launcher or pid == self.subject:
            self._hand_on(event)
        elif self.subject is None:
            self._held.setdefault(pid, []).append(event)

    def _hand_on(self, event: Event | TracedProcess) -> None:
        if self._on_event is not None:
            self._on_event(event)

    def _shown(self, path: str | None) -> str | None:
        return None if path is None else display_path(path, self._devices, None) or path


NAME = "debugger"

_TOO_WIDE = "it has 64 bits: a Python of 32 bits cannot see what it loads. Use a 64-bit Python for dlltracer"
_REMOVED = "the debugger was removed from the program: later events are not known"
_POLL_MS = 100  # how long Ctrl-C may go unnoticed here
_LAST_SECONDS = 2.0  # for the ends of processes that end together with the program


@dataclass(frozen=True)
class DebuggedRun:
    """The events and the end of a program that ran under its debugger.

    Attributes:
        status: the exit status, 32 bits without a sign.
        events: loads and unloads in order, the program itself first.
        crash: the exception that ended it; `None` if it ended by itself or was terminated.
        notes: its OutputDebugString texts, and what else a reader must know.
        pid: of the program; behind a launcher, of the Python that it started.
        processes: the program, and when they were followed those that it started, in the order of their starts.
    """

    status: int
    events: tuple[Event, ...]
    crash: Crash | None
    notes: tuple[str, ...]
    pid: int
    processes: tuple[TracedProcess, ...] = ()


def run_debugged(  # noqa: PLR0913 - one call, whose arguments all have defaults but the first
    command: list[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    output: int | tuple[int, int] | None = None,
    requests: Callable[[], Sequence[Request]] | None = None,
    begun: Callable[[], int | None] | None = None,
    follow: bool = False,
    on_event: Callable[[Event | TracedProcess], None] | None = None,
    on_start: Callable[[subprocess.Popen[bytes]], None] | None = None,
) -> DebuggedRun:
    """Run a program to its end, with our standard streams and inheritable handles, and return what it loaded.

    When we are interrupted (Ctrl-C), or our process is ended, it runs on without a debugger.

    Args:
        command: the program and its arguments.
        env: its environment; ours if `None`. `_NO_DEBUG_HEAP` is added.
        cwd: its current folder; ours if `None`.
        output: a descriptor that gets what it writes to its standard streams, or one each for stdout and stderr; they
            are ours if `None`.
        requests: asked once when the program has ended: what it requested of the loader (`Watch.stop()` in it). They
            give the loads their imports and tell failed loads from unloads; without, every unload is an `UnloadEvent`.
        begun: asked once, too: when it began, as `time.perf_counter_ns()`. What it loaded before is left out.
        follow: debug what it starts, too, and what they start, until the program ends. Otherwise they are not seen,
            unless the program is a launcher: then the Python that it starts is shown instead of it.
        on_event: called at once with each process, before its first event and when it has ended, and with each load
            and unload. What `begun` and `requests` tell later is not in them. The program waits meanwhile. It must
            not raise.
        on_start: called with the process before its first event is read. Whoever gets it may terminate it at any time:
            the debugger then sees it end.

    Raises:
        TraceStartError: the program could not be started, or not as a debuggee.
        BackendUnavailable: this is not Windows.
    """
    if sys.platform != "win32":
        raise BackendUnavailable(NAME, "processes are debugged by it on Windows only")
    api = Debugging()
    behind_launcher = not follow and find_behind_redirector(command[0]) is None and is_launcher(command[0])
    processes = DebuggedProcesses(
        api, query_dos_devices(), time.time(), time.perf_counter_ns(), on_event, behind_launcher=behind_launcher
    )
    loop = DebugLoop(api, processes)
    streams = output if isinstance(output, tuple) else (output, output)
    flags = DEBUG_PROCESS if follow or behind_launcher else DEBUG_ONLY_THIS_PROCESS
    child = _start(command, env, cwd, streams, flags)
    status = _debug_to_the_end(api, loop, processes, child, on_start)
    asked = [with_final_path(request, cwd) for request in requests()] if requests is not None else []
    since = begun() if begun is not None else None
    return DebuggedRun(
        status, processes.events(asked, since), processes.crash(status), processes.notes(),
        processes.subject or child.pid, processes.processes(),
    )  # fmt: skip


def _debug_to_the_end(
    api: Debugging, loop: DebugLoop, processes: DebuggedProcesses, child: subprocess.Popen[bytes],
    on_start: Callable[[subprocess.Popen[bytes]], None] | None,
) -> int:  # fmt: skip
    """Debug the program until it ends, and return its status. Then no process is debugged, also after an error."""
    try:
        api.keep_alive_without_us()
        if on_start is not None:
            on_start(child)
        _follow(loop, processes, child)
    except BaseException:
        for pid in {child.pid, *loop.running}:
            api.detach(pid)
        raise
    processes.choose_program(child.pid)
    _let_others_go(api, loop, processes, child.pid)
    return child.wait()


def _let_others_go(api: Debugging, loop: DebugLoop, processes: DebuggedProcesses, first: int) -> None:
    """Debug no more what the program has left behind; it runs on. `first`: the program, if it got rid of its
    debugger."""
    for pid in loop.running:
        if pid != first:
            processes.note(pid, "it was there when the program ended, and went on unseen")
            api.detach(pid)


def _follow(loop: DebugLoop, processes: DebuggedProcesses, child: subprocess.Popen[bytes]) -> None:
    """Answer debug events until the program has ended, and the Python behind a launcher."""
    while not processes.has_ended(child.pid):
        if loop.step(_POLL_MS) or child.poll() is None:
            if processes.subject is not None:
                _let_go_of_others(loop, processes, child.pid)
            continue
        # The wait may time out just before the last events arrive. The end of a process is an event and a signal at
        # once (seen under Wine on a busy machine). Events that are there when it has ended are read first.
        while not processes.has_ended(child.pid) and loop.step(0):
            pass
        if not processes.has_ended(child.pid):
            # The program, or another one, can remove its debugger: NtRemoveProcessDebug.
            processes.note(child.pid, _REMOVED)
            break
    # A launcher for windows does not wait for its Python.
    while processes.subject is not None and processes.subject in loop.running:
        try:
            loop.step(_POLL_MS)
        except TraceStartError:  # no process is debugged any more
            processes.note(processes.subject, _REMOVED)
            break
    until = time.monotonic() + _LAST_SECONDS
    while loop.running and child.pid not in loop.running and time.monotonic() < until and loop.step(0):
        pass


def _let_go_of_others(loop: DebugLoop, processes: DebuggedProcesses, first: int) -> None:
    """Stop debugging what a launcher and its Python have started, which the trace is not about."""
    for pid in loop.running:
        if pid not in (first, processes.subject):
            loop.let_go(pid)
            processes.forget(pid)


def _start(
    command: list[str], env: Mapping[str, str] | None, cwd: str | None, streams: tuple[int | None, int | None],
    flags: int,
) -> subprocess.Popen[bytes]:
    # "Behavior of Spawned Processes", Debugging Tools for Windows: without it, the heap is slow and checks itself.
    given = {"_NO_DEBUG_HEAP": "1", **(os.environ if env is None else env)}
    behind = find_behind_redirector(command[0])
    if behind is not None:
        command, given["__PYVENV_LAUNCHER__"] = [behind, *command[1:]], os.path.abspath(command[0])
    try:
        # close_fds off: what was handed to us (a pipe of the shell, a socket) is for the program.
        return subprocess.Popen(
            command, env=given, cwd=cwd, stdout=streams[0], stderr=streams[1], close_fds=False, creationflags=flags
        )
    except OSError as error:
        code = getattr(error, "winerror", None) or 0
        remedy = {
            ERROR_NOT_SUPPORTED: "a 32-bit Python cannot debug a 64-bit program: use a 64-bit one",
            ERROR_ELEVATION_REQUIRED: "the program wants to run as Administrator: start this as Administrator",
        }.get(code, f"{command[0]} could not be started: {error.strerror}")
        raise TraceStartError("CreateProcess", code, remedy) from error
