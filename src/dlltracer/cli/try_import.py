"""Try an import in a child, traced as well as it can be here, and say why it fails."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from types import TracebackType

from ..errors import TraceStartError
from ..model.finding import Diagnosis, Outcome
from ..model.light import replace
from ..model.run import ProgramOutput, RunResult
from .output import say_error
from .process import ENOUGH, CannotRun, DescriptorLimit, RunOptions, import_all
from .program import Program, ProgramKind
from .runner import UNTRACED
from .spawn import run_child
from .stopper import Stopper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..api.explain import Explained
    from ..diagnose.case import Case
    from ..diagnose.trials import Trial, TrialResult

_LIMIT = 64 * 1024
"""Bytes of a stream that are kept: its last ones."""

_GRACE = 0.5
"""Seconds for what is still on its way when the program has ended: a process it left behind may hold the pipe open."""


class OutputTail:
    """Two pipes and a thread for each that reads it, as long as the program runs.

    `stdout` and `stderr` are the descriptors to hand to a child process; after the end of the block `result` is what
    came. A process that the program leaves behind finds its pipe closed then. Where no thread can be started, the
    output goes to the null device and `note` says so.
    """

    def __init__(self) -> None:
        self.result = ProgramOutput()
        self.note: str | None = None
        self._streams: list[_Stream] = []

    def __enter__(self) -> OutputTail:
        try:
            self._streams = [_Stream(), _Stream()]
            self.stdout, self.stderr = (stream.write_end for stream in self._streams)
        except (OSError, RuntimeError) as error:  # no descriptors, no threads
            self.note = f"what the program wrote could not be kept: {error}"
            for stream in self._streams:
                stream.finish()
            self.stdout = self.stderr = os.open(os.devnull, os.O_WRONLY)
            self._streams = []
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._streams:
            os.close(self.stdout)
            return
        stdout, stderr = (stream.finish() for stream in self._streams)
        omitted = sum(stream.omitted for stream in self._streams)
        self.result = ProgramOutput(stdout=stdout, stderr=stderr, omitted=omitted)


class _Stream:
    """One pipe. Raises `OSError`, `RuntimeError` (no thread)."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self.omitted = 0
        self._thread = threading.Thread(target=self._read, name="dlltracer-output", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            os.close(self._read_end)
            os.close(self.write_end)
            raise

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._read_end, _LIMIT)
            except OSError:
                return
            if not chunk:
                return
            self._chunks.append(chunk)
            self._size += len(chunk)
            while self._size - len(self._chunks[0]) >= _LIMIT:
                self._size -= len(self._chunks[0])
                self.omitted += len(self._chunks.popleft())

    def finish(self) -> str:
        """Close the pipe; the text that is left."""
        os.close(self.write_end)
        self._thread.join(_GRACE)
        data = b"".join(tuple(self._chunks))
        if not self._thread.is_alive():
            os.close(self._read_end)  # else a process that was left behind has it: closed when ours ends
        if len(data) > _LIMIT:
            self.omitted += len(data) - _LIMIT
            data = data[-_LIMIT:]
        if self.omitted:
            data = data.partition(b"\n")[2]
        return data.decode("utf-8", "replace").replace("\r\n", "\n")


_SHORTEST = 1.0
"""Seconds that a first import counts for at least: an interpreter of a loaded machine takes as long to start."""
_NEEDED = "import ctypes, os, sys\n"
"""Modules that the lines of remedies use."""


def try_fixes(case: Case, diagnosis: Diagnosis, program: Program, python: str | None, seconds: float) -> Diagnosis:
    """Return the verdict with what trials have shown.

    Arguments:
        case, diagnosis: the failure, and the verdict on it so far.
        program: what was run. Into a script no line of Python can be put: there only variables are tried.
        python: the interpreter; `None` for this one.
        seconds: how long it ran. All trials together take at most three times as long.
    """
    from ..diagnose.trials import TrialResult, propose_trials, weigh_results

    deadline = time.monotonic() + 3 * max(seconds, _SHORTEST)
    results = []
    for trial in propose_trials(case, diagnosis):
        if trial.prelude and program.kind is not ProgramKind.CODE:
            continue
        left = deadline - time.monotonic()
        if left <= 0:
            results.append(TrialResult(trial=trial, worked=None, message="there was no time left"))
        else:
            results.append(_try(trial, program, python, left))
    return weigh_results(diagnosis, results)


def _try(trial: Trial, program: Program, python: str | None, seconds: float) -> TrialResult:
    from ..diagnose.trials import TrialResult

    foreign = _foreign_module_of(trial)
    if foreign is not None:
        return TrialResult(trial=trial, worked=None, message=f"it was not tried, since {foreign}")
    changed = replace(program, name=f"{_NEEDED}{trial.prelude}\n{program.name}") if trial.prelude else program
    try:
        with OutputTail() as tail:
            options = RunOptions(
                python=python, output=(tail.stdout, tail.stderr), stopper=Stopper(seconds), variables=trial.variables
            )  # fmt: skip
            run = run_child(changed, UNTRACED, options)
    except CannotRun as error:
        return TrialResult(trial=trial, worked=None, message=str(error))
    if run.stopped is not None:
        return TrialResult(trial=trial, worked=None, message=f"it was ended after {seconds:.1f} s")
    if run.completed and run.status == 0:
        return TrialResult(trial=trial, worked=True)
    return TrialResult(trial=trial, worked=False, message=_how_it_ended(run))


def _how_it_ended(run: RunResult) -> str:
    if run.errors:
        return f"{run.errors[0].type}: {run.errors[0].message}"
    status = run.status or 0
    return f"it was killed by signal {-status}" if status < 0 else f"it ended with status {status}"


def _foreign_module_of(trial: Trial) -> str | None:
    """Return why the trial would run code of somebody else: loading a library runs its initialisers; `None` if it does
    not.

    A folder counts whose owner is neither root nor we, or that anybody may write to.
    """
    if sys.platform == "win32":
        return None
    import re

    values = [value for _, value in trial.variables if value] + ([trial.prelude] if trial.prelude else [])
    named = re.compile(r"(?:^|:|')((?:/|[A-Za-z]:\\)[^:']+)")
    for folder in (match for value in values for match in named.findall(value)):
        try:
            status = os.stat(folder)
        except OSError:
            continue
        if status.st_uid not in (0, os.geteuid()):
            return f"{folder} belongs to another user"
        if status.st_mode & 0o002:
            return f"anybody may write to {folder}"
    return None


def explain_code(what: str, code: str, python: str | None) -> Diagnosis:
    """Run code in a process of its own, traced as well as it can be here, and say why it fails."""
    return try_and_explain(what, Program(ProgramKind.CODE, code), python, "auto")[1].diagnosis


def try_and_explain(
    what: str, program: Program, python: str | None, backend: str, timeout: float | None = None
) -> tuple[RunResult, Explained]:
    """Run the program, and say why it fails. After `timeout` seconds it is ended, and so it is by an interrupt.

    Arguments: `what` is tried, in words ("import x"); `python`, the interpreter, `None` for ours; `backend`, "auto" or
    the name of a mechanism. Raises `SystemExit` when it could not be traced by the mechanism asked for, or could not
    begin.
    """
    from ..api.explain import explain_interpreter, explain_program, explain_with_case

    if program.kind is ProgramKind.COMMAND:
        return RunResult(), explain_program(program.name)
    with DescriptorLimit() as limit, contextlib.ExitStack() as stack:
        if not limit.allows(ENOUGH):
            import_all()
        tail = stack.enter_context(OutputTail())
        options = RunOptions(
            python=python, output=(tail.stdout, tail.stderr), watch_crash=True, stopper=Stopper(timeout), limit=limit
        )  # fmt: skip
        run = _try_once(program, backend, options)
    run = replace(run, output=tail.result)
    if run.refusal is not None:
        say_error(run.refusal)
        raise SystemExit(Outcome.NOT_TRACED.exit_status)
    if not run.begun:
        lines = run.output.text.splitlines()
        raise SystemExit(say_error(lines[-1] if lines else f"{what} could not begin"))
    if run.status != 0 and run.process is None and python is not None:
        if _was_ended_by_loader(run):
            import shutil

            return run, explain_interpreter(what, run, os.path.abspath(shutil.which(python) or python))
        run = _with_interpreter(run, python)
    hidden = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    notes = () if tail.note is None else (tail.note,)
    return run, explain_with_case(what, run, hidden=hidden, must_return=program.must_return, notes=notes)


def _was_ended_by_loader(run: RunResult) -> bool:
    from ..api.failed_load import LOADER_STATUS

    return run.status == LOADER_STATUS and sys.platform == "linux"


def _with_interpreter(run: RunResult, python: str) -> RunResult:
    """The run of a program that crashed or left at once, with what its interpreter says of itself in another run."""
    with open(os.devnull, "wb") as null:
        options = RunOptions(python=python, output=(null.fileno(), null.fileno()))
        process = run_child(Program(ProgramKind.CODE, "pass"), UNTRACED, options).process
    return replace(run, process=None if process is None else replace(process, added_folders=run.added_folders))


def _try_once(program: Program, backend: str, options: RunOptions) -> RunResult:
    if sys.platform == "win32" and backend in ("auto", "debugger"):
        return _try_debugged(program, backend, options)
    run = run_child(program, backend, options)
    if run.refusal is None or backend != "auto":
        return run
    # No mechanism works here. What the exception and the files say is worth having all the same; it is noted.
    return run_child(program, UNTRACED, options)


def _try_debugged(program: Program, backend: str, options: RunOptions) -> RunResult:
    """On Windows: as its debugger, which needs no privilege and sees crashes; without any trace if that cannot be."""
    from .run_debugged import run_debugged_child

    try:
        return run_debugged_child(program, options)
    except TraceStartError as error:
        if backend != "auto":
            return RunResult(refusal=str(error))
        return run_child(program, UNTRACED, options)
