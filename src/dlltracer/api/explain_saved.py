"""Why the program of a recording failed: by the case that was saved with it, on any machine; else by what is left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..diagnose.case import Case, Image
from ..diagnose.codes import find_code
from ..diagnose.engine import diagnose
from ..diagnose.loader_errors import DlProblem
from ..errors import DlltracerError
from ..model.decode import DamagedRecording, NewerRecording, decode
from ..model.elf import ElfImage, ElfSymbols
from ..model.encode import encode
from ..model.events import FailureKind
from ..model.failure import ProcessFacts, PythonError, System
from ..model.finding import Confidence, Diagnosis, Evidence, Finding, Outcome, Source
from ..model.pe import PeImport
from ..model.recording import Recording
from ..model.run import SavedTrace
from ..model.words import describe_end
from .explain import is_loader_failure
from .linux_failure import read_linux_failure, with_dl_error
from .windows_failure import nearest_error

VERSION = 1
"""Counted up when rules of the former version would misread a case of the new one."""

_MOST_SYMBOLS = 5000
_MOST_NAMED = 3
_SHORTEST_START, _LONGEST_START = 6, 12
"""Symbols that begin like one of the first that are missing are kept: among them is the same function for another
std::string."""
_ENTRIES = ("PyInit_", "init")
_RUNTIMES = re.compile(r"(?:msvcp|vcruntime|concrt)\d", re.IGNORECASE)


def encode_case(case: Case) -> dict[str, Any]:
    """Return the case as plain values, without its recording, which is saved beside it."""
    return {"version": VERSION, "traced": case.run.recording is not None, **encode(_without_bulk(case))}


def decode_case(plain: object, recording: Recording) -> Case:
    """Return the case in `plain`, of that recording. Raises `DamagedRecording`, `NewerRecording`."""
    if not isinstance(plain, Mapping):
        raise DamagedRecording("case", f"an object is wanted, not {type(plain).__name__}")
    version = plain.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DamagedRecording("case.version", "it is no version")
    if version > VERSION:
        raise NewerRecording(version, VERSION)
    found: Case = decode(Case, plain, "case")
    return replace(found, run=replace(found.run, recording=recording if plain.get("traced") is True else None))


def _without_bulk(case: Case) -> Case:
    starts = (*_ENTRIES, *(_start_of(symbol.name) for symbol in case.symbols[:_MOST_NAMED] if symbol.name))
    tree = case.tree
    if tree is not None:
        tree = replace(tree, images={path: _slim(image, starts) for path, image in tree.images.items()})
    images = {path: _slim(image, starts) for path, image in case.images.items()}
    return replace(case, run=replace(case.run, recording=None, requests=()), tree=tree, images=images)


def _start_of(symbol: str) -> str:
    return symbol[: max(_SHORTEST_START, len(symbol) // 4)][:_LONGEST_START]


def _slim(image: Image, starts: tuple[str, ...]) -> Image:
    if isinstance(image, ElfImage):
        if image.symbols is None:
            return image
        kept = {name: versions for name, versions in image.symbols.provides.items() if name.startswith(starts)}
        first = dict(list(kept.items())[:_MOST_SYMBOLS])
        return replace(image, symbols=ElfSymbols((), first, image.symbols.versioned_only & first.keys()))
    return replace(image, exports=None, imports=tuple(map(_slim_import, image.imports)))


def _slim_import(imported: PeImport) -> PeImport:
    return imported if _RUNTIMES.match(imported.library) else replace(imported, symbols=None)


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
    if trace.run.status == 0 and not trace.run.errors:
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
    run = replace(trace.run, recording=trace.recording)
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
