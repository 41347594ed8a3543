"""Tries fixes that need no installation: runs a failed import again in a child, with one thing changed."""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import replace

from ..diagnose.trials import Trial, TrialResult, propose_trials, weigh_results
from ..model.finding import Diagnosis
from ..model.run import RunResult
from .output_tail import OutputTail
from .program import Program, ProgramKind
from .runner import UNTRACED
from .spawn import CannotRun, run_child
from .stopper import Stopper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..diagnose.case import Case

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
    stranger = _stranger_of(trial)
    if stranger is not None:
        return TrialResult(trial=trial, worked=None, message=f"it was not tried, since {stranger}")
    changed = replace(program, name=f"{_NEEDED}{trial.prelude}\n{program.name}") if trial.prelude else program
    try:
        with OutputTail() as tail:
            run = run_child(
                changed, UNTRACED, python=python, output=(tail.stdout, tail.stderr), stopper=Stopper(seconds),
                variables=trial.variables,
            )  # fmt: skip
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


_FOLDER = re.compile(r"(?:^|:|')((?:/|[A-Za-z]:\\)[^:']+)")


def _stranger_of(trial: Trial) -> str | None:
    """Why the trial would run code of somebody else: loading a library runs its initialisers; `None` if it does not.

    A folder counts whose owner is neither root nor we, or that anybody may write to.
    """
    if sys.platform == "win32":
        return None
    values = [value for _, value in trial.variables if value] + ([trial.prelude] if trial.prelude else [])
    for folder in (match for value in values for match in _FOLDER.findall(value)):
        try:
            status = os.stat(folder)
        except OSError:
            continue
        if status.st_uid not in (0, os.geteuid()):
            return f"{folder} belongs to another user"
        if status.st_mode & 0o002:
            return f"anybody may write to {folder}"
    return None
