"""Why the program of a recording failed: by the case that was saved with it, on any machine; else by what is left."""

from __future__ import annotations

from dataclasses import replace

from ..diagnose.case import Case
from ..diagnose.engine import diagnose
from ..diagnose.loader_errors import DlProblem
from ..diagnose.messages import find_code
from ..errors import DlltracerError
from ..model.events import FailureKind
from ..model.failure import ProcessFacts, PythonError, System
from ..model.finding import Confidence, Diagnosis, Evidence, Finding, Outcome, Source
from ..model.recording import Recording
from ..model.run import RunResult
from ..model.saved import SavedTrace
from ..model.words import describe_end
from .explain import is_loader_failure
from .linux_failure import read_linux_failure, with_dl_error
from .saved_case import decode_case
from .windows_failure import nearest_error

_NAMES = 3
"""Names and processes that notes have."""

_NO_CASE = (
    "the recording does not have the case: no file was looked at, this rests on the events and the exception alone"
)
_SAID = (
    "this verdict was given where it was recorded, and is passed on as the recording has it: "
    "the facts behind it are not there to be judged, and what it advises is left out"
)


def explain_saved(trace: SavedTrace) -> Diagnosis:
    """Return the verdict on a recording. Nothing of this machine is looked at.

    The rules of this dlltracer judge the case of the recording, and make the commands of the remedies from its facts.
    Without a case, the verdict that the recording brings along is passed on as such; without that, the events and the
    exception are judged, less sure.
    """
    notes = _about_others(trace.recording)
    trace = replace(trace, recording=trace.recording.first_process)
    if trace.case is not None:
        try:
            found = diagnose(decode_case(trace.case, trace.recording))
            return replace(found, notes=(*found.notes, *notes))
        except (DlltracerError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
            # Not only what cannot be read: a file from elsewhere may have numbers, names and depths that no loader has.
            notes += (f"the case in the recording could not be read: {e}",)
    if trace.diagnosis is not None:
        return _as_said(trace.diagnosis, notes)
    if trace.status == 0 and trace.failure is None:
        return Diagnosis(trace.what or "the program", Outcome.IMPORTED, notes=notes)
    return _without_case(trace, notes)


def _as_said(diagnosis: Diagnosis, notes: tuple[str, ...]) -> Diagnosis:
    """Return the verdict that a recording brings along, marked as the recording's and without its remedies.

    Whoever made the file wrote it. A command in it would look like one of ours, and people paste those.
    """
    findings = tuple(
        replace(finding, title=f"said by the recording: {finding.title}", remedies=()) for finding in diagnosis.findings
    )
    return replace(diagnosis, findings=findings, notes=(*diagnosis.notes, *notes, _SAID))


def _about_others(recording: Recording) -> tuple[str, ...]:
    """Return notes on other processes that were followed and did not end well after loads had failed."""
    failures: dict[int | None, list[str]] = {}
    for event in recording.failures:
        if event.kind is not FailureKind.DROPPED:
            failures.setdefault(event.pid, []).append(event.need or event.shown_path)
    found = []
    for process in recording.processes:
        failed = failures.get(process.pid, [])
        if process.pid != recording.pid and process.status != 0 and failed:
            ended = "" if process.status is None else f", which {describe_end(process.status)},"
            names = ", ".join(dict.fromkeys(failed[-_NAMES:]))
            found.append(f"process {process.pid}{ended} could not load {names}; this is about the first process")
    more = (f"{len(found) - _NAMES} more processes could not load something",) if len(found) > _NAMES else ()
    return (*found[:_NAMES], *more)


def _without_case(trace: SavedTrace, notes: tuple[str, ...]) -> Diagnosis:
    case = _poor_case(trace, (*notes, _NO_CASE))
    if case.run.errors and not is_loader_failure(case.run):
        case = replace(case, failures=())
    found = diagnose(case)
    findings = tuple(_less_sure(finding, case) for finding in found.findings)
    if any(finding.confidence is not Confidence.POSSIBLE for finding in findings):
        return replace(found, findings=findings)
    undecided = (*found.undecided, _what_would_decide(trace))
    return replace(found, outcome=Outcome.UNDECIDED, findings=findings, undecided=undecided)


def _poor_case(trace: SavedTrace, notes: tuple[str, ...]) -> Case:
    """Return a case of the events, the exception and the facts of the interpreter alone."""
    run = _run_of(trace)
    system = _system_of(trace, run.process)
    case = Case(what=trace.what or "the program", system=system, run=run, notes=notes)
    if system is System.WINDOWS:
        suffixes = run.process.suffixes if run.process is not None else (".pyd",)
        return _with_windows_error(case, nearest_error(run.errors, suffixes))
    failed = read_linux_failure(run)
    symbols, versions = with_dl_error((), (), failed.dl_error) if failed.dl_error is not None else ((), ())
    return replace(
        case, error=failed.error, dl_error=failed.dl_error, named=failed.named, failures=failed.failures,
        subject=failed.subject, symbols=symbols, versions=versions,
    )  # fmt: skip


def _run_of(trace: SavedTrace) -> RunResult:
    failure = trace.failure
    return RunResult(
        status=trace.status, recording=trace.recording, crash=trace.crash,
        errors=failure.errors if failure is not None else (),
        process=failure.process if failure is not None else trace.process,
    )  # fmt: skip


def _with_windows_error(case: Case, error: PythonError | None) -> Case:
    if error is None:
        return case
    found = find_code(error.message, {}) if "ImportError" in error.bases else None
    code = found.code if found is not None else error.code
    return replace(case, error=error, subject=error.path, code=code, code_is_guess=found is not None)


def _system_of(trace: SavedTrace, process: ProcessFacts | None) -> System:
    if process is not None:
        return process.system
    named = trace.host.system if trace.host is not None else ""
    if named in {system.value for system in System}:
        return System(named)
    paths = [getattr(event, "path", "") for event in trace.recording.events[:100]]
    return System.WINDOWS if any("\\" in path for path in paths) else System.LINUX


def _less_sure(finding: Finding, case: Case) -> Finding:
    """Without the files nothing is certain, and what the loader's own words do not name is possible at most."""
    is_named = case.dl_error is not None and case.dl_error.problem is not DlProblem.UNREADABLE
    most = Confidence.LIKELY if is_named else Confidence.POSSIBLE
    if finding.confidence in (most, Confidence.POSSIBLE):
        return finding
    doubt = Evidence(Source.FILES, "they are not in the recording, and were not looked at")
    return replace(finding, confidence=most, evidence=(*finding.evidence, doubt))


def _what_would_decide(trace: SavedTrace) -> str:
    failed = [event.need or event.shown_path for event in trace.recording.failures]
    names = f"; the last loads that failed in this one: {', '.join(dict.fromkeys(failed[-5:]))}" if failed else ""
    return f"a whole recording, by dlltracer why -o FILE.dlltrace on the machine where it fails{names}"
