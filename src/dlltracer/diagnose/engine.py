"""Runs the rules over a case and orders what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ..model.finding import UNKNOWN_END, Confidence, Diagnosis, Evidence, Finding, Outcome, Source
from .case import Case
from .remedies import for_interpreter
from .rules import (
    children,
    crash,
    ended,
    first_wins,
    integrity,
    limits,
    missing_image,
    python_abi,
    python_module,
    symbols,
    vc_runtime,
    win_codes,
    win_crash,
    win_image,
    win_missing,
    win_python,
    win_symbols,
    wrong_file,
)

Rule = Callable[[Case], Iterator[Finding]]

LINUX_RULES: tuple[Rule, ...] = (
    integrity.check,
    python_abi.check,
    python_module.check,
    first_wins.check,
    symbols.check,
    wrong_file.check,
    limits.check,
    missing_image.check,
    children.check,
    ended.check,
    crash.check,
)
"""The rules about glibc, musl and any other system than Windows, the more specific ones first."""

WINDOWS_RULES: tuple[Rule, ...] = (
    python_module.check,
    vc_runtime.check,
    win_python.check,
    win_symbols.check,
    win_missing.check,
    win_image.check,
    win_codes.check,
    ended.check,
    win_crash.check,
)
"""The rules about Windows, the more specific ones first."""

_SURE = (Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE)


def diagnose(case: Case, rules: Iterable[Rule] | None = None) -> Diagnosis:
    """Return the verdict on a case that failed, by the rules of its system unless others are given.

    `Outcome.UNDECIDED`, with what would decide, when no cause is at least likely.
    """
    found: dict[tuple[str, str], Finding] = {}
    own = WINDOWS_RULES if case.is_windows else LINUX_RULES
    for rule in own if rules is None else rules:
        for finding in rule(case):
            known = for_interpreter(_tempered(finding, case), case.run.process)
            found.setdefault((finding.code, finding.subject), known)
    findings = tuple(sorted(found.values(), key=lambda finding: _SURE.index(finding.confidence)))
    decided = bool(findings) and findings[0].confidence is not Confidence.POSSIBLE
    return Diagnosis(
        case.what,
        Outcome.EXPLAINED if decided else Outcome.UNDECIDED,
        case.error,
        case.run.crash,
        findings,
        () if decided else tuple(_what_would_decide(case)),
        case.notes,
        case.said,
    )


def _tempered(finding: Finding, case: Case) -> Finding:
    """Less sure, where the exception is not as near to the loader as it seems."""
    doubt = _doubt(case) if finding.confidence is Confidence.CERTAIN else None
    if doubt is None:
        return finding
    evidence = (*finding.evidence, Evidence(Source.PYTHON, doubt))
    return replace(finding, confidence=Confidence.LIKELY, evidence=evidence)


def _doubt(case: Case) -> str | None:
    """What speaks against the exception being the loader's own word on what ended the program."""
    last = case.run.errors[0] if case.run.errors else None
    if last is None or case.error is None or case.dl_error is None:
        return None
    if case.is_of_another_process:
        return "it has a loader's words, and no load failed in this process: perhaps in one that it started"
    if last is case.error or {"ImportError", "OSError", "SystemExit", "RuntimeError"} & set(last.bases):
        return None
    if case.error.message in last.message:
        return None
    return f"the program ended with a {last.type} that came while this failure was handled"


def _what_would_decide(case: Case) -> Iterator[str]:
    if _is_no_loaders_failure(case):
        assert case.error is not None
        yield f"the exception itself: no loader had a part in it, {case.error.type} came from Python code"
        return
    if case.run.recording is None:
        yield "a trace of the import: what the loader does is not known, only what the files say"
    if case.error is None and case.run.crash is None:
        yield from _about_an_end(case)
    elif case.tree is None and case.subject is not None:
        yield f"the file {case.subject}: it could not be read as an image"
    elif case.subject is None and case.run.crash is None:
        yield "the name of the file that failed to load: the exception has none"
    if case.is_windows and case.tree is not None and not case.tree.missing:
        yield "the code of the Windows error, and Windows' own log (Event Viewer, CodeIntegrity and Application)"
    if not case.is_windows and case.tree is not None:
        yield "the loader's full log: LD_DEBUG=all, in the environment of the program"


def _is_no_loaders_failure(case: Case) -> bool:
    """Whether the exception is of Python alone: nothing of a loader is in it, and the trace ends with no failure."""
    error = case.error
    if error is None or case.dl_error is not None or case.code is not None or case.failed_events:
        return False
    return not (error.path or "").endswith(case.run.process.suffixes if case.run.process is not None else ())


def _about_an_end(case: Case) -> Iterator[str]:
    status = case.run.status
    if status is None:
        yield UNKNOWN_END
    elif status == -9:
        yield "the log of the kernel (dmesg): the process was killed from outside, as for want of memory"
    elif status < 0:
        yield f"a core file or a debugger: the process was killed by signal {-status}, and where is not known"
    else:
        yield f"what the program says itself: it ended with status {status} and no exception"
