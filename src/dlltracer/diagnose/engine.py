"""Runs the rules over a case and orders what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from ..model.events import FailureKind
from ..model.failure import System
from ..model.finding import UNKNOWN_END, Confidence, Diagnosis, Evidence, Finding, Outcome, Source
from ..model.words import describe_end
from .case import Case
from .feasible import keep_feasible
from .named_failure import NameMatch
from .remedies import for_interpreter
from .rules import (
    crash,
    ended,
    integrity,
    limits,
    lookups,
    macos,
    missing_image,
    missing_module,
    own_words,
    python_module,
    search_rules,
    symbols,
    win_image,
    win_lookups,
    win_missing,
    win_symbols,
    wrong_file,
)

Rule = Callable[[Case], Iterator[Finding]]

LINUX_RULES: tuple[Rule, ...] = (
    integrity.check,
    wrong_file.check_machine,
    python_module.check_abi,
    python_module.check_foreign_files,
    missing_module.check,
    lookups.check,
    search_rules.check_first_wins,
    search_rules.check_search,
    symbols.check,
    wrong_file.check,
    limits.check,
    missing_image.check,
    python_module.check_versions,
    own_words.check,
    ended.check_children,
    ended.check_end,
    crash.check_signal,
    integrity.check_ownership,
)
"""The rules about glibc and musl, the more specific ones first."""

WINDOWS_RULES: tuple[Rule, ...] = (
    python_module.check_foreign_files,
    missing_module.check,
    win_lookups.check,
    win_symbols.check_runtime,
    win_image.check_python,
    win_symbols.check_symbols,
    win_missing.check,
    win_image.check_image,
    win_image.check,
    own_words.check,
    ended.check_end,
    crash.check_exception,
    integrity.check_ownership,
)
"""The rules about Windows, the more specific ones first."""

MACOS_RULES: tuple[Rule, ...] = (
    python_module.check_foreign_files,
    missing_module.check,
    macos.check,
    own_words.check,
    ended.check_end,
    crash.check_signal,
    integrity.check_ownership,
)
"""The rules about macOS, where nothing is traced: dyld's words, the exception, the files."""

MOST_OF_A_RULE = 50
"""Findings of one rule. A recording may have 40,000 loads that failed, and a page on each helps nobody."""
_MOST_NAMED = 5
_SURE = (Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE)


@dataclass(frozen=True)
class Causes:
    """The causes that the rules found, the surest first, before it is known which remedies can work; and notes."""

    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()


def diagnose(case: Case) -> Diagnosis:
    """Return the verdict on a case that failed, by the rules of its system."""
    return conclude(case, find_causes(case))


def find_causes(case: Case) -> Causes:
    """Return the causes that the rules of the system find."""
    found: dict[tuple[str, str], Finding] = {}
    notes: tuple[str, ...] = ()
    for rule in {System.WINDOWS: WINDOWS_RULES, System.OTHER: MACOS_RULES}.get(case.system, LINUX_RULES):
        causes = iter(rule(case))
        for finding in islice(causes, MOST_OF_A_RULE):
            known = integrity.with_requirements(_tempered(_with_name(finding, case), case), case)
            found.setdefault((finding.code, finding.subject), for_interpreter(known, case.run.process))
        if next(causes, None) is not None:
            notes += (f"there are more than {MOST_OF_A_RULE} causes of one kind: the others are left out",)
    return Causes(tuple(sorted(found.values(), key=lambda finding: _SURE.index(finding.confidence))), notes)


def conclude(case: Case, causes: Causes) -> Diagnosis:
    """Return the verdict: the causes, with the remedies that can work on the machine of the case.

    `Outcome.UNDECIDED`, with what would decide, when no cause is at least likely.
    """
    findings = tuple(keep_feasible(finding, case) for finding in causes.findings)
    decided = bool(findings) and findings[0].confidence is not Confidence.POSSIBLE
    return Diagnosis(
        case.what,
        Outcome.EXPLAINED if decided else Outcome.UNDECIDED,
        case.error,
        case.run.crash,
        findings,
        () if decided else tuple(_what_would_decide(case)),
        (*case.notes, *causes.notes),
        case.system,
        case.output_lines,
    )


def _with_name(finding: Finding, case: Case) -> Finding:
    """The finding, with the exception's own name for the load, where that is all it says."""
    if case.named is None or case.named.event.kind is FailureKind.NAME_NOT_FOUND:
        return finding  # a search is no load, and its own rule says what names it
    if case.named.match is NameMatch.FOLDER:
        says = f"{case.named.error.type} came from the package of {case.named.event.path}, whose load had failed before"
        return replace(finding, evidence=(*finding.evidence, Evidence(Source.LOADER, says)))
    says = f"{case.named.error.type} names {case.named.name}, and the trace saw that load fail"
    return replace(finding, evidence=(*finding.evidence, Evidence(Source.PYTHON, says)))


def _tempered(finding: Finding, case: Case) -> Finding:
    """Less sure, where the exception is not as near to the loader as it seems."""
    doubt = _doubt(case) if finding.confidence is Confidence.CERTAIN else None
    if doubt is None:
        return finding
    evidence = (*finding.evidence, Evidence(Source.PYTHON, doubt))
    return replace(finding, confidence=Confidence.LIKELY, evidence=evidence)


_VAGUE = {
    NameMatch.FOLDER: "it does not name {}: the program caught the failure of that load, and went on",
    NameMatch.STEM: "it has no words of a loader, and says only {}",
}


def _doubt(case: Case) -> str | None:
    """Return what speaks against the exception being the loader's own message about the end of the program."""
    last = case.run.errors[0] if case.run.errors else None
    if last is None or case.error is None or case.dl_error is None:
        return None
    is_search = case.named is not None and case.named.event.kind is FailureKind.NAME_NOT_FOUND
    if case.named is not None and case.named.match in _VAGUE and not is_search:
        return _VAGUE[case.named.match].format(case.named.name)
    if case.is_of_another_process:
        return "it has a loader's words, and no load failed in this process: perhaps in one that it started"
    if last is case.error or {"ImportError", "OSError", "SystemExit", "RuntimeError"} & set(last.bases):
        return None
    if case.error.message in last.message:
        return None
    return f"the program ended with a {last.type} that came while this failure was handled"


def _what_would_decide(case: Case) -> Iterator[str]:
    if case.is_proven_free_of_loaders:
        assert case.error is not None
        yield f"the exception itself: no loader had a part in it, {case.error.type} came from Python code"
        return
    yield from _loads_that_failed(case)
    if case.run.recording is None:
        yield "a trace of the import: what the loader does is not known, only what the files say"
    if case.error is None and case.run.crash is None:
        yield from _about_an_end(case)
    elif case.tree is None and case.subject is not None:
        yield f"the file {case.subject}: it could not be read as an image"
    elif case.subject is None and case.run.crash is None and case.error is not None and not case.failed_events:
        yield f"what {case.error.type} is about: its message names no file that failed to load"
    if case.is_windows and case.tree is not None and not case.tree.missing:
        yield "the code of the Windows error, and Windows' own log (Event Viewer, CodeIntegrity and Application)"
    if case.system is System.LINUX and case.tree is not None:
        yield "the loader's full log: LD_DEBUG=all, in the environment of the program"


def _loads_that_failed(case: Case) -> Iterator[str]:
    """The loads of the whole trace that failed, which the failure may come from or not."""
    events = case.run.recording.failures if case.run.recording is not None else ()
    names = dict.fromkeys(event.need or event.path for event in events)
    if names:
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        yield (
            f"whether the program could do without what the loader did not find or take: "
            f"{', '.join(list(names)[:_MOST_NAMED])}{more}"
        )


def _about_an_end(case: Case) -> Iterator[str]:
    status = case.run.status
    if status is None:
        yield UNKNOWN_END
    elif status == -9:
        yield "the log of the kernel (dmesg): the process was killed from outside, as for want of memory"
    elif status < 0:
        yield f"a core file or a debugger: the process {describe_end(status)}, and where is not known"
    else:
        yield f"what the program says itself: it ended with status {status} and no exception"
