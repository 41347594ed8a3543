"""Proposes experiments with an import (changes to try again with, orders of imports) and reads their results. Pure.

A fix that needs no installation is tried: the import runs again in a child with the change in force (`cli.try_import`).
A fix that works proves its cause. Of a fix that does not work, only the result is kept.
"""

from __future__ import annotations

import ntpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from ..model.elf import ElfImage
from ..model.finding import (
    Confidence,
    Diagnosis,
    Evidence,
    Finding,
    OrderOutcome,
    OrderSearch,
    OrderTrial,
    Outcome,
    Remedy,
    Source,
)
from .case import Case, Change, Copy, compared_name
from .loader_errors import DlProblem, classify_dlerror, folder_of
from .remedies import with_variable, without_variable

MOST_TRIALS = 3
"""Imports that are tried again for one verdict: each takes as long as the import itself."""

_BY_OTHER_COPY = ("missing-symbol", "missing-version", "wrong-copy", "first-wins")
"""Codes of findings about a copy that lacks something."""
_BY_COPY = ("missing-image", "missing-at-runtime", "library-not-found", "no-such-file", *_BY_OTHER_COPY)
"""Codes of findings that another copy of a library, elsewhere on the machine, may put right."""
_BY_SETTING = (
    *_BY_OTHER_COPY, "library-path-wins", "preload-wins", "wrong-machine", "crash-in-import", "crash-in-initialiser",
    "crash", "abort", "illegal-instruction",
)  # fmt: skip
"""Codes of findings that a variable of the loader can be behind."""
_TRIED_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD", "LD_BIND_NOW", "GLIBC_TUNABLES")
_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_SURE = (Confidence.CERTAIN, Confidence.LIKELY, Confidence.POSSIBLE)
_ONE_STEP_LESS = {
    Confidence.CERTAIN: Confidence.LIKELY,
    Confidence.LIKELY: Confidence.POSSIBLE,
    Confidence.POSSIBLE: Confidence.POSSIBLE,
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One change under which the import is tried again.

    Attributes:
        code, subject: of the finding whose fix it tries.
        how: the change in words, after "the import works" or "the import fails" ("without LD_PRELOAD").
        remedy: the fix that it stands for.
        variables: of the environment, with their values; `None` takes a variable away.
        prelude: Python statements that run before the import.
    """

    code: str
    subject: str
    how: str
    remedy: Remedy
    variables: tuple[tuple[str, str | None], ...] = ()
    prelude: str = ""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """The result of a trial.

    Attributes:
        trial: the change.
        worked: whether the import reached its end; `None` when that is not known: it took too long, or the child
            could not be started.
        message: how it ended otherwise, in words; empty if it worked.
    """

    trial: Trial
    worked: bool | None
    message: str = ""


def propose_trials(case: Case, diagnosis: Diagnosis) -> tuple[Trial, ...]:
    """Return the changes worth trying, the most telling first, at most `MOST_TRIALS`."""
    chosen: dict[tuple[object, ...], Trial] = {}
    for finding in diagnosis.findings:
        for trial in _trials_of(finding, case):
            chosen.setdefault((trial.variables, trial.prelude), trial)
    return tuple(chosen.values())[:MOST_TRIALS]


def _trials_of(finding: Finding, case: Case) -> Iterator[Trial]:
    for remedy in finding.remedies:
        yield from _of_remedy(finding, remedy)
    if finding.code in _BY_SETTING:
        yield from _without_settings(finding, case)
    if finding.code == "first-wins":
        yield from _in_another_order(finding, case)
    if finding.code in _BY_COPY:
        yield from _with_copy(finding, case)
    if finding.code == "chosen-by-variable":
        yield from _without_choice(finding, case)
    if finding.code == "missing-symbol":
        yield from _in_global_scope(finding, case)


def _of_remedy(finding: Finding, remedy: Remedy) -> Iterator[Trial]:
    """A remedy that only changes variables of the loader, or adds a line of Python, can be tried as it is."""
    variables = _variables_of(remedy.command)
    if variables:
        yield _trial(finding, _describe_variables(variables), remedy, variables=variables)
    elif remedy.code:
        yield _trial(finding, f"after {remedy.code}", remedy, prelude=remedy.code)


def _variables_of(command: tuple[str, ...]) -> tuple[tuple[str, str | None], ...]:
    """The variables that a command of env(1) sets and unsets; () if it does more than that, or other variables."""
    if command[:1] != ("env",):
        return ()
    found: list[tuple[str, str | None]] = []
    words = iter(command[1:])
    for word in words:
        name, is_set, value = word.partition("=")
        if word == "-u":
            found.append((next(words, ""), None))
        elif is_set:
            found.append((name, value))
        else:
            break
    return tuple(found) if all(name in _TRIED_VARIABLES for name, _ in found) else ()


def _describe_variables(variables: tuple[tuple[str, str | None], ...]) -> str:
    return " and ".join(f"without {name}" if value is None else f"with {name}={value}" for name, value in variables)


def _trial(
    finding: Finding, how: str, remedy: Remedy, *, variables: tuple[tuple[str, str | None], ...] = (), prelude: str = ""
) -> Trial:
    return Trial(
        code=finding.code, subject=finding.subject, how=how, remedy=remedy, variables=variables, prelude=prelude
    )


def _without_settings(finding: Finding, case: Case) -> Iterator[Trial]:
    """Without the variables by which glibc takes another copy: ld.so(8)."""
    if case.run.process is None:
        return
    for name in ("LD_PRELOAD", "LD_LIBRARY_PATH"):
        if case.run.process.variable(name):
            what = f"start the program without {name}, or without that entry of it"
            remedy = Remedy(what, without_variable(case, name))
            yield _trial(finding, f"without {name}", remedy, variables=((name, None),))


def _without_choice(finding: Finding, case: Case) -> Iterator[Trial]:
    """Without the variable by which the program chose a module: its own default is left."""
    for remedy in finding.remedies:
        if case.choice is not None and remedy.command[:3] == ("env", "-u", case.choice.name):
            yield _trial(finding, f"without {case.choice.name}", remedy, variables=((case.choice.name, None),))


def _in_another_order(finding: Finding, case: Case) -> Iterator[Trial]:
    """With the module that failed imported first: a process has one image of a soname, and the first one wins."""
    if not any(copy.change is Change.NOTHING_LOADED for copy in case.shadowed):
        return
    events = [event for event in case.failed_events if event.imports]
    module = (events[-1].imports or ("",))[-1] if events else case.error.name if case.error is not None else None
    if module and _MODULE.fullmatch(module):
        line = f"import {module}"
        remedy = Remedy("import it before anything else: then its own copy is the first one", code=line)
        yield _trial(finding, f"after {line}", remedy, prelude=line)


def _with_copy(finding: Finding, case: Case) -> Iterator[Trial]:
    """With the folders of copies that the loader did not come by."""
    name = compared_name(finding.subject, case.system)
    copies = [copy for copy in case.copies.get(name, ()) if copy.unfit is None]
    if finding.code in _BY_OTHER_COPY:
        every = (copy for group in case.copies.values() for copy in group)
        copies = [copy for copy in every if copy.unfit is None and copy.has_what_lacks]
    for copy in copies[:MOST_TRIALS]:
        yield _with_folder(finding, case, copy)


def _with_folder(finding: Finding, case: Case, copy: Copy) -> Trial:
    if case.is_windows:
        line = f"os.add_dll_directory({ntpath.dirname(copy.path)!r})"
        remedy = Remedy("let the loader look there, before the import", code=line)
        return _trial(finding, f"after {line}", remedy, prelude=line)
    folder = folder_of(copy.path)
    before = case.run.process.variable("LD_LIBRARY_PATH") if case.run.process is not None else ""
    value = f"{folder}:{before}" if before else folder
    remedy = Remedy(f"let the loader look in {folder}", with_variable(case, "LD_LIBRARY_PATH", value))
    return _trial(finding, f"with LD_LIBRARY_PATH={value}", remedy, variables=(("LD_LIBRARY_PATH", value),))


def _in_global_scope(finding: Finding, case: Case) -> Iterator[Trial]:
    """With RTLD_GLOBAL, where an image of the process has the symbol and keeps it to itself: dlopen(3), RTLD_LOCAL."""
    if case.is_windows or case.run.process is None or not case.symbols:
        return
    wanted = case.symbols[0].name
    for path in case.run.process.loaded:
        image = case.images.get(path)
        if isinstance(image, ElfImage) and image.symbols is not None and wanted in image.symbols.provides:
            line = "sys.setdlopenflags(sys.getdlopenflags() | os.RTLD_GLOBAL)"
            what = f"have {path} loaded with its symbols for all, before the import that loads it"
            remedy = Remedy(what, code=line)
            yield _trial(finding, "with RTLD_GLOBAL for every import", remedy, prelude=line)
            return


def weigh_results(diagnosis: Diagnosis, results: Iterable[TrialResult]) -> Diagnosis:
    """Return the verdict with what the trials have shown: fixes that work come first, others are gone."""
    findings = list(diagnosis.findings)
    # What works comes last: it is proof, whatever other changes did not help.
    for result in sorted(results, key=lambda result: result.worked is True):
        findings = [_weigh(finding, result, diagnosis) for finding in findings]
    # Of two that are certain, the one whose fix makes the import work comes first.
    findings.sort(
        key=lambda one: (_SURE.index(one.confidence), not any(remedy.tried for remedy in one.remedies))
    )
    decided = bool(findings) and findings[0].confidence is not Confidence.POSSIBLE
    return replace(
        diagnosis,
        findings=tuple(findings),
        outcome=Outcome.EXPLAINED if decided else diagnosis.outcome,
        undecided=() if decided else diagnosis.undecided,
    )


def _weigh(finding: Finding, result: TrialResult, diagnosis: Diagnosis) -> Finding:
    trial = result.trial
    if (trial.code, trial.subject) != (finding.code, finding.subject):
        return finding
    others = tuple(remedy for remedy in finding.remedies if not _is_same(remedy, trial.remedy))
    if result.worked:
        # The change is the only difference between both runs, so the cause is what it takes away.
        return replace(
            finding,
            confidence=Confidence.CERTAIN,
            remedies=(replace(trial.remedy, tried=True), *others),
            evidence=(*finding.evidence, Evidence(Source.TRIAL, f"the import works {trial.how}")),
        )
    if result.worked is None:
        evidence = Evidence(Source.TRIAL, f"whether the import works {trial.how} is not known: {result.message}")
        return replace(finding, evidence=(*finding.evidence, evidence))
    if _gets_further(result, diagnosis):
        # The load is mended, and another trouble comes after it: the fix is right, and not all that is needed.
        evidence = Evidence(Source.TRIAL, f"{trial.how} that load works, and the import then fails: {result.message}")
        return replace(finding, evidence=(*finding.evidence, evidence))
    confidence = finding.confidence
    if _takes_away(trial) and diagnosis.error is not None and diagnosis.error.message in result.message:
        confidence = _ONE_STEP_LESS[confidence]  # the same failure without the supposed cause
    evidence = Evidence(Source.TRIAL, f"the import fails {trial.how}, too: {result.message}")
    return replace(finding, confidence=confidence, remedies=others, evidence=(*finding.evidence, evidence))


_MAY_BE_OF_A_LOADER = ("ImportError", "OSError", "FileNotFoundError", "PermissionError")


def _gets_further(result: TrialResult, diagnosis: Diagnosis) -> bool:
    """Return whether the trial adds a folder to the search, and ended with an exception that no loader has a part
    in."""
    kind, is_exception, message = result.message.partition(": ")
    if not is_exception or kind in _MAY_BE_OF_A_LOADER or not kind.isidentifier() or _takes_away(result.trial):
        return False
    before = diagnosis.error
    if before is None or before.type == kind or before.message in message:
        return False
    return "DLL load failed" not in message and classify_dlerror(message).problem is DlProblem.UNDECIDED


def _takes_away(trial: Trial) -> bool:
    """Return whether the trial takes the suspected cause away, rather than adding what is missing."""
    return any(value is None for _, value in trial.variables) or trial.code == "first-wins"


def _is_same(remedy: Remedy, tried: Remedy) -> bool:
    """Return whether both do one thing, in other words: they set or unset the same variables, or run the same line."""
    if tried.code:
        return remedy.code == tried.code
    found = _variables_of(remedy.command)
    return remedy == tried or (bool(found) and found == _variables_of(tried.command))


_FEW = 4
"""So many modules are tried in every order, in search of one that works."""


def find_breaking_order(modules: Sequence[str], attempt: Callable[[tuple[str, ...]], OrderTrial]) -> OrderSearch:
    """Search with few trials.

    Each module alone comes first: one that fails alone has another trouble than the order. Then the order as given, and
    its reverse: the two have every pair in both orders. Of one that fails, what stands before the module that fails is
    halved again and again (delta debugging) until no module can be left out.

    Arguments:
        modules: the names, each once.
        attempt: imports them in that order in a process of its own.
    """
    trials: list[OrderTrial] = []

    def try_order(order: Sequence[str]) -> OrderTrial:
        known = next((trial for trial in trials if trial.modules == tuple(order)), None)
        if known is None:
            known = attempt(tuple(order))
            trials.append(known)
        return known

    for module in modules:
        alone = try_order((module,))
        if not alone.works:
            return OrderSearch(OrderOutcome.FAILS_ALONE, alone, None, tuple(trials))
    for order in (tuple(modules), tuple(reversed(modules))):
        trial = try_order(order)
        if not trial.works:
            breaking = _shrink(trial, try_order)
            works = _find_working(breaking.modules, try_order)
            return OrderSearch(OrderOutcome.BREAKS, breaking, works, tuple(trials))
    return OrderSearch(OrderOutcome.NO_ORDER_BREAKS, trials=tuple(trials))


def _shrink(trial: OrderTrial, try_order: Callable[[Sequence[str]], OrderTrial]) -> OrderTrial:
    """The fewest of the modules before the one that fails, with which it still fails (Zeller's ddmin)."""
    assert trial.failed_at is not None
    victim = trial.modules[trial.failed_at]
    before = list(trial.modules[: trial.failed_at])
    best = try_order((*before, victim))
    if best.works:
        return trial  # it does not fail every time: what was seen stands
    parts = 2
    while len(before) > 1:
        size = -(-len(before) // parts)
        chunks = [before[at : at + size] for at in range(0, len(before), size)]
        rests = [[module for module in before if module not in chunk] for chunk in chunks]
        candidates = chunks if parts == 2 else [*chunks, *rests]
        smaller = None
        for candidate in candidates:
            found = try_order((*candidate, victim))
            if found.failed_at == len(candidate):
                smaller, best = candidate, found
                break
        if smaller is not None:
            parts = 2 if len(smaller) <= size else max(parts - 1, 2)
            before = smaller
        elif parts >= len(before):
            break
        else:
            parts = min(parts * 2, len(before))
    return best


def _find_working(modules: tuple[str, ...], try_order: Callable[[Sequence[str]], OrderTrial]) -> OrderTrial | None:
    """An order of the same modules that works: the victim first, else any, if they are few."""
    victim_first = try_order((modules[-1], *modules[:-1]))
    if victim_first.works:
        return victim_first
    if len(modules) > _FEW:
        return None
    return next((trial for order in permutations(modules) if (trial := try_order(order)).works), None)
