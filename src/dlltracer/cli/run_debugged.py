"""Runs the program on Windows as its debugger: needs no privilege, and sees the cause of a crash.

The program's own requests of the loader come home in a file, written as they happen: a crash takes nothing with it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace

from ..capture.linux.decode import split_text
from ..capture.requests import is_own_load
from ..capture.windows.debugger.run import DebuggedRun, run_debugged
from ..errors import BackendUnavailable
from ..host.failure import read_fault_frames, this_process
from ..host.scratch import ScratchFolder
from ..model.events import DebugEvent, Event, LoadEvent
from ..model.failure import Frame
from ..model.recording import Recording, TracedProcess
from ..model.request import Request
from ..model.run import FolderChange, RunResult
from ..model.words import describe_crash, describe_status
from .process import Relay, RunOptions, interpreter_of, runner_command, with_facts
from .program import Program
from .runner import DEBUGGED, LogSharing, RunnerOutcome, RunnerReport
from .spawn import run_child
from .stopper import Stopper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .spawn import Sink

NAME = "debugger"


def run_on_windows(
    program: Program, backend: str, *, follow: bool = False, startup: bool = False, sink: Sink | None = None
) -> RunResult:
    """Run a Python program to its end for `dlltracer run`, by the best mechanism of Windows, or the one asked for.

    That is ETW where the user may use it, and the debugger otherwise, and for what ETW cannot do.

    Args:
        program: what to run.
        backend: the mechanism, or "auto".
        follow: trace what the program starts, too.
        startup: tell what it loads before its first line, too.
        sink: gets, while it runs, what the debugger sees (`early`), and the processes if they are followed; nothing
            from ETW. It must not raise.

    Raises:
        BackendUnavailable: that mechanism cannot follow a program, or see its start.
        TraceStartError: it cannot be debugged.
        CannotRun: the process could not be made.
    """
    if backend not in ("auto", NAME):
        if follow or startup:
            raise BackendUnavailable(backend, "it sees one process, from its first line on", f"Use --backend {NAME}")
        return run_child(program, backend, RunOptions())
    refusals: tuple[str, ...] = ()
    if backend == "auto" and (follow or startup):
        refusals = ("etw was not used: it sees one process, from its first line on",)
    elif backend == "auto":
        run = run_child(program, "etw", RunOptions())
        if run.refusal is None:
            return run
        refusals = (f"etw was not used: {run.refusal}",)
    with Relay():
        run = _run_program(program, [], follow=follow, startup=startup, sink=sink)
    if run.recording is None:
        return run
    return replace(run, recording=replace(run.recording, notes=refusals + run.recording.notes))


def run_debugged_command(command: list[str], *, follow: bool = False, sink: Sink | None = None) -> RunResult:
    """Run any program to its end under our debugger, and tell what it loads, from its first instruction on.

    Args:
        command: the program and its arguments; it is looked for as a shell does (PATH, PATHEXT).
        follow: debug what it starts, too.
        sink: as of `run_on_windows`.

    Raises `TraceStartError` when it cannot be started, `BackendUnavailable` where there are no debuggers of this kind.
    """
    with Relay():
        words = [shutil.which(command[0]) or command[0], *command[1:]]
        run = run_debugged(words, follow=follow, on_event=None if sink is None else EarlyEvents(sink, follow))
    return RunResult(status=run.status, recording=_recording(run, follow), crash=run.crash)


def run_debugged_child(program: Program, options: RunOptions) -> RunResult:
    """Run a Python program to its end under our debugger, for `why`.

    The result has all events, and where the program was in its code when it crashed, or when the `stopper` ended it.

    Raises `TraceStartError` when it cannot be debugged, `BackendUnavailable` where there are no debuggers of this kind.
    """
    stopper = options.stopper or Stopper()
    relay = Relay(stopper)
    with relay:
        run = _run_program(
            program, ["-X", "faulthandler"], python=options.python, output=options.output, follow=options.follow,
            startup=True, relay=relay,
        )  # fmt: skip
    if stopper.reason is None:
        return run
    # The end was ours: its status says nothing.
    return replace(run, stopped=stopper.reason, seconds=stopper.seconds, crash=None)


def _run_program(
    program: Program, options: list[str], *, follow: bool, startup: bool, python: str | None = None,
    output: tuple[int, int] | None = None, sink: Sink | None = None, relay: Relay | None = None,
) -> RunResult:  # fmt: skip
    stopper = relay.stopper if relay is not None else None
    with ScratchFolder() as folder:
        result = os.path.join(folder.path, "result")
        start = [*interpreter_of(program, python), *options]
        command = runner_command(start, result, _sharing(stopper), DEBUGGED, program)
        shown = (*start, *program.words)
        early = None if sink is None else EarlyEvents(sink, follow, shown, None if startup else f"{result}.begun")
        asked: list[Request] = []

        def requests() -> list[Request]:
            asked.extend(_read_requests(result))
            return asked

        run = run_debugged(
            command, output=output, requests=requests, follow=follow,
            begun=(lambda: None) if startup else (lambda: _read_begun(result)), on_event=early,
            on_start=None if relay is None else relay.connect,
        )  # fmt: skip
        report = RunnerReport.read(result)
        if report is not None and report.outcome == RunnerOutcome.NOT_BEGUN:
            return RunResult(status=run.status, begun=False)
        # Hide our runner from the reported command line.
        first = replace(run.processes[0], command=shown) if run.processes else None
        run = replace(run, processes=(first, *run.processes[1:]) if first is not None else ())
        changes = _read_folder_changes(result)
        found = RunResult(
            status=run.status, recording=_recording(run, follow), crash=run.crash, requests=tuple(asked),
            added_folders=tuple(change.folder for change in changes if change.is_added), folder_changes=changes,
            frames=_read_stack(result) if stopper is not None and stopper.reason is not None else (),
        )  # fmt: skip
        found = with_facts(found, report)
        # It crashed, or left at once: its interpreter is the same as ours, unless another one was named.
        if found.process is None and python is None and program.python is None:
            return replace(found, process=replace(this_process(), added_folders=found.added_folders))
        return found


def _sharing(stopper: Stopper | None) -> LogSharing:
    return LogSharing(deadline=stopper.deadline if stopper is not None else None)


def _read_stack(result: str) -> tuple[Frame, ...]:
    """The Python lines that the program's main thread was at when its time was over; () if that did not come."""
    try:
        with open(f"{result}.stack", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return ()
    return read_fault_frames(text, hidden=os.path.dirname(os.path.dirname(os.path.abspath(__file__))), main=True)


class EarlyEvents:
    """Hands on to a sink what a debugger tells while the program runs.

    Arguments:
        sink: gets it.
        follow: hand on the processes, too.
        command: of the first process, in words; `None` for the reported one. This hides our runner.
        begun: a file that is there once the program's own first line is next: what the first process loaded before is
            left out. `None`: nothing is.
    """

    def __init__(
        self, sink: Sink, follow: bool, command: tuple[str, ...] | None = None, begun: str | None = None
    ) -> None:
        self._sink = sink
        self._follow = follow
        self._command = command
        self._begun = begun
        self._first: int | None = None
        self._waiting: list[TracedProcess] = []

    def __call__(self, event: Event | TracedProcess) -> None:
        if isinstance(event, TracedProcess):
            self._first = event.pid if self._first is None else self._first
            if self._follow:
                is_ours = event.pid == self._first and self._command is not None
                self._waiting.append(replace(event, command=self._command) if is_ours else event)
        if isinstance(event, DebugEvent) or (event.pid == self._first and not self._has_begun()):
            return
        for process in self._waiting:
            self._sink.process(process)
        self._waiting.clear()
        if not isinstance(event, TracedProcess):
            self._sink.early(event)

    def _has_begun(self) -> bool:
        # The program stands still while its debugger has an event: what is there now was there when it loaded.
        if self._begun is not None and os.path.exists(self._begun):
            self._begun = None
        return self._begun is None


def _recording(run: DebuggedRun, follow: bool) -> Recording:
    notes = run.notes
    if run.crash is not None:
        notes += (f"the program crashed: {describe_crash(replace(run.crash, name=run.crash.name_and_code))}",)
    elif run.status >> 31:
        notes += (f"the program ended with {describe_status(run.status)}",)
        notes += tuple(_why_not_started(run))
    events = tuple(event for event in run.events if not is_own_load(event))
    return Recording(NAME, events, run.pid, notes=notes, processes=run.processes if follow else ())


def _why_not_started(run: DebuggedRun) -> Iterator[str]:
    """Yield what the files of a program tell that Windows' loader ended before its first instruction."""
    from ..api.explain import explain_program
    from ..api.windows_case import NOT_STARTED

    # The first event of a debugger is the program itself.
    program = next((event for event in run.events if isinstance(event, LoadEvent)), None)
    if run.status not in NOT_STARTED or program is None:
        return
    for finding in explain_program(program.shown_path, run.status).diagnosis.findings:
        chain = f" ({' > '.join(finding.chain[1:])})" if len(finding.chain) > 2 else ""
        yield f"it could not start: {finding.title}{chain}"


def _read_begun(result: str) -> int | None:
    """When the program's own first line ran, as `time.perf_counter_ns()`; `None` if it never came to that."""
    try:
        with open(f"{result}.begun", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _read_folder_changes(result: str) -> tuple[FolderChange, ...]:
    """Return the program's changes to the folders of os.add_dll_directory; half a line, of a process that died, is left
    out."""
    try:
        with open(f"{result}.folders", encoding="utf-8", errors="surrogatepass") as file:
            lines = [_FOLDER_CHANGE.fullmatch(line) for line in file.read().split("\n")[:-1]]
    except (OSError, UnicodeDecodeError):
        return ()
    return tuple(FolderChange(line[3], int(line[2]), line[1] == "+") for line in lines if line is not None)


_FOLDER_CHANGE = re.compile(r"([+-])(\d{1,20}) (.+)")
"""A line of `child._watch_added_folders`."""


def _read_requests(result: str) -> list[Request]:
    """Return the program's requests to the loader; for one that ended by itself, with the known ends of the calls."""
    try:
        with open(f"{result}.requests", "rb") as file:
            data = file.read()
    except OSError:
        return []
    requests = [item for item in split_text(data.decode("ascii", "replace")) if isinstance(item, Request)]
    report = RunnerReport.read(result)
    if report is None or len(report.ends) != len(requests):
        return requests
    return [
        replace(request, succeeded=succeeded, idle_clock=idle)
        for request, (succeeded, idle) in zip(requests, report.ends, strict=True)
    ]
