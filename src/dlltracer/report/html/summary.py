"""Renders the verdict card of a page: what happened, the fix, who needed it, why, where it was looked for.

The notebook shows the same card (`report.render_notebook`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ...model.events import Probe, ProbeOutcome
from ...model.failure import Frame, PythonError, System
from ...model.finding import Confidence, Diagnosis, Finding, Outcome
from ...model.run import SavedTrace
from ...model.tree import LoadTree
from ...model.words import OUTCOMES, describe_crash, describe_end, shorten, size_in_words, span_in_words
from ..causes import CausePage, read_causes
from ..counts import is_killed
from ..drawing import Rule, file_name, fold_places, number
from ..render_verdict import remedy_line, remedy_words
from .images import CauseCount, PageImages, State, causes_of, count_causes, origin_of

CONFIDENCE = {
    Confidence.CERTAIN: "the evidence leaves no other cause",
    Confidence.LIKELY: "it fits, and nothing contradicts; rarer causes would look the same",
    Confidence.POSSIBLE: "it fits, as other causes would",
}

_EXPLAINED = 20
"""Causes whose explanation the page has."""

_PLACES, _RULES, _MISSING, _STEPS = 200, 200, 200, 40
"""Places of a rule, rules, missing names, and steps of a chain that the page has."""
_TITLE, _STEP = 240, 1000
"""Characters of a headline and of a step of a chain: a name may have thousands, which would hide everything below."""
_CAUSES = 4
"""Causes with a line of their own."""


@dataclass(frozen=True)
class Headline:
    """`tone` is "bad", "warn" or "good"; `over` stands above the title."""

    tone: str
    over: str
    title: str


@dataclass(frozen=True)
class PlaceList:
    """The places that a rule led to: rows of path, words for the outcome, whether a file is there; those folded away as
    well."""

    title: str
    shown: tuple[tuple[str, str, bool], ...]
    hidden: tuple[tuple[str, str, bool], ...]


@dataclass(frozen=True, kw_only=True)
class FindingCard:
    """A finding as the page shows it.

    Attributes:
        title, confidence, confidence_words, code: in words.
        fixes: what to do, and the line to type, which may be empty.
        chain: who needs it, the subject last.
        explanation: why.
        evidence: source and fact.
        places: where it was looked for; `place_count` of them, in `there` of which a file is.
    """

    title: str
    confidence: str
    confidence_words: str
    code: str
    fixes: tuple[tuple[str, str], ...] = ()
    chain: tuple[str, ...] = ()
    explanation: str = ""
    evidence: tuple[tuple[str, str], ...] = ()
    places: tuple[PlaceList, ...] = ()
    place_count: int = 0
    there: int = 0


@dataclass(frozen=True, kw_only=True)
class VerdictCard:
    """The top of a page.

    Attributes:
        headline: tone and titles; `counts` of the images, in words.
        main, others: the cause, if it is known, and the other findings.
        says: labelled texts of others: the exception, the program's own output, a crash.
        undecided: what would decide.
        causes: where loads failed in a run that worked, the causes; `more_causes` of `more_count` images stand for the
            rest.
        facts: labels and values of a run that worked.
        frames: of the traceback.
        incomplete: what is known to be lost.
    """

    headline: Headline
    counts: str = ""
    main: FindingCard | None = None
    others: tuple[FindingCard, ...] = ()
    says: tuple[tuple[str, str], ...] = ()
    undecided: tuple[str, ...] = ()
    causes: tuple[CauseCount, ...] = ()
    more_causes: int = 0
    more_count: int = 0
    facts: tuple[tuple[str, str], ...] = ()
    frames: tuple[Frame, ...] = ()
    incomplete: tuple[str, ...] = ()


def card_of_trace(saved: SavedTrace, found: PageImages, incomplete: tuple[str, ...] = ()) -> VerdictCard:
    """Return the card of a trace."""
    headline = headline_of_trace(saved, found)
    card = VerdictCard(headline=headline, counts=counts_of(found), incomplete=incomplete)
    if saved.diagnosis is not None:
        card = replace(card_of_diagnosis(saved.diagnosis), headline=headline, counts=card.counts, incomplete=incomplete)
    has_failed = headline.tone == "bad" or bool(card.undecided)
    if not card.says:
        error = saved.run.errors[0] if saved.run.errors and headline.tone != "good" else None
        crash = saved.run.crash
        says = _says(error, (), "" if crash is None else f"of {describe_crash(crash)}")
        card = replace(card, says=says, frames=() if error is None else error.frames)
    if has_failed:
        return card
    causes = count_causes(causes_of(found.images))
    rest = causes[_CAUSES:]
    return replace(
        card, causes=tuple(causes[:_CAUSES]), more_causes=len(rest), more_count=sum(one.count for one in rest),
        facts=tuple(_facts_of_trace(saved, found)),
    )  # fmt: skip


def card_of_diagnosis(diagnosis: Diagnosis) -> VerdictCard:
    """Return the card of a verdict alone."""
    main, others = None, diagnosis.findings
    if diagnosis.outcome is Outcome.EXPLAINED and others:
        main, others = others[0], others[1:]
    error, crash = diagnosis.error, diagnosis.crash
    died = "" if crash is None else f"of {describe_crash(crash)}"
    return VerdictCard(
        headline=_headline_of_diagnosis(diagnosis),
        main=None if main is None else _finding_card(main, diagnosis.system),
        others=tuple(_finding_card(finding, diagnosis.system) for finding in others),
        says=() if diagnosis.outcome is Outcome.IMPORTED else _says(error, diagnosis.output, died),
        undecided=diagnosis.undecided,
        frames=() if error is None else error.frames,
    )  # fmt: skip


def _headline_of_diagnosis(diagnosis: Diagnosis) -> Headline:
    if diagnosis.outcome is Outcome.IMPORTED:
        return Headline("good", _clip(diagnosis.what), "It works: nothing to explain")
    if diagnosis.outcome is Outcome.EXPLAINED and diagnosis.findings:
        return Headline("bad", _clip(f"{diagnosis.what} failed"), _clip(diagnosis.findings[0].title))
    if diagnosis.may_have_worked:
        return Headline("warn", _clip(diagnosis.what), "How it ended is not known")
    return Headline("bad", _clip(f"{diagnosis.what} failed"), "The evidence does not decide why")


def headline_of_trace(saved: SavedTrace, found: PageImages) -> Headline:
    """Return the verdict as a headline; where there is none, how the program ended."""
    diagnosis = saved.diagnosis
    if diagnosis is not None and diagnosis.outcome is not Outcome.IMPORTED:
        return _headline_of_diagnosis(diagnosis)
    what = saved.what or (diagnosis.what if diagnosis is not None else "the program")
    tone, title = _ending(saved, found)
    return Headline(tone, _clip(what), _clip(title))


def _ending(saved: SavedTrace, found: PageImages) -> tuple[str, str]:
    """Return tone and title for a program that no verdict says anything against.

    It is green only if no load failed that mattered, and no process that it started was killed.
    """
    run = saved.run
    if run.crash is not None:
        return "bad", f"It died of {describe_crash(run.crash)}"
    if run.errors and run.status != 0:
        return "bad", f"It ended with {run.errors[0].type}"
    if run.status:
        return "bad" if run.status < 0 else "warn", f"It {describe_end(run.status)}"
    is_known = saved.diagnosis is not None or run.status is not None
    if not is_known:
        return "warn", "How it ended is not known"
    return _ending_of_success(saved, found)


def _ending_of_success(saved: SavedTrace, found: PageImages) -> tuple[str, str]:
    bad, dropped = found.count("bad"), found.count("dropped")
    killed = sum(map(is_killed, saved.recording.processes[1:]))
    if killed:
        return "warn", f"It ran, and {killed} {'process' if killed == 1 else 'processes'} that it started died"
    if bad:
        return "warn", f"It ran, and {_number(bad, 'load')} failed on the way"
    if dropped:
        return "warn", f"It ran, and {_number(dropped, 'image')} left with loads that failed"
    return "good", "It works: nothing to explain"


def card_of_tree(tree: LoadTree, found: PageImages) -> VerdictCard:
    """Return the card of a file: whether something is missing that it cannot be loaded without."""
    lost = list(dict.fromkeys(binding.need for binding in tree.missing))
    symbols = [symbol for symbol in tree.symbols if not symbol.weak]
    optional = found.count("optional")
    tone, title = "good", "Nothing is missing"
    if lost:
        tone, title = "bad", f"{lost[0]} is missing" if len(lost) == 1 else f"{len(lost)} libraries are missing"
    elif symbols or tree.versions:
        names = [symbol.name for symbol in symbols] + [version.version for version in tree.versions]
        tone, title = "bad", f"nothing has {names[0]}" if len(names) == 1 else f"{len(names)} symbols are missing"
    elif tree.unresolved:
        tone, title = "warn", f"{number(tree.unresolved, 'need')} could not be looked for"
    elif optional:
        title = f"Nothing is missing that it must have; {optional} of its needs may be missing, and are"
    headline = Headline(tone, _clip(tree.top), _clip(title))
    says = [("Not provided by any image", _symbol_lines(tree))] if symbols or tree.versions else []
    return VerdictCard(headline=headline, counts=counts_of(found), says=tuple(says))


def _symbol_lines(tree: LoadTree) -> str:
    lines = [f"{version.version} of {version.library}, needed by {version.requested_by}" for version in tree.versions]
    lines += [f"{symbol.name}, needed by {symbol.requested_by}" for symbol in tree.symbols if not symbol.weak]
    return "\n".join(shorten(lines, 20, "more"))


@dataclass(frozen=True)
class MissingNeed:
    """A need that fails the load of a tree: the name, why, paths of all that need it, and where it was looked for."""

    need: str
    is_refused: bool
    reason: str
    requested_by: tuple[str, ...]
    places: tuple[PlaceList, ...]
    place_count: int


def missing_of_tree(tree: LoadTree) -> list[MissingNeed]:
    """Return what fails the load of a tree, each name once."""
    by_need = groupby(sorted(tree.missing, key=lambda binding: binding.need), key=lambda binding: binding.need)
    found = []
    for need, members in by_need:
        bindings = list(members)
        first = bindings[0]
        requested_by = shorten([binding.requested_by for binding in bindings], _PLACES, "more")
        found.append(MissingNeed(
            _clip(need, _STEP), first.state.value == "refused", first.reason or "", tuple(requested_by),
            places_of(first.probes), len(first.probes),
        ))  # fmt: skip
    if len(found) > _MISSING:
        rest = MissingNeed(f"… {len(found) - _MISSING} more names", False, "", (), (), 0)
        return [*found[:_MISSING], rest]
    return found


def counts_of(found: PageImages) -> str:
    """Return how many images of which kind: "13 images: 12 loaded, 1 not found, 3 imports"."""
    states = [image.state for image in found.images]
    parts = [f"{states.count(state):,} {state.value}" for state in State if state in states]
    if not states:
        return "no image was loaded"
    text = f"{_number(len(states), 'image')}: {', '.join(parts)}"
    if len(parts) < 2:
        text = f"{_number(len(states), 'image')} {states[0].value}"
    imports = len({image.imports[0] for image in found.images if image.imports})
    text += f", {_number(imports, 'import')}" if imports else ""
    text += f", {len(found.processes):,} processes" if found.processes else ""
    return "; ".join((text, *found.left_out))


def _number(count: int, noun: str) -> str:
    return number(count, noun).replace(str(count), f"{count:,}", 1)


def _facts_of_trace(saved: SavedTrace, found: PageImages) -> list[tuple[str, str]]:
    images = found.images
    mapped = sum(image.size or 0 for image in images if image.state.group == "loaded")
    times = [image.time for image in images if image.time is not None]
    packages = {origin.label for image in images if (origin := origin_of(image)).kind == "package"}
    imports = len({image.imports[0] for image in images if image.imports})
    process = saved.run.process
    loaded = found.count("loaded")
    optional = found.count("optional")
    pairs = (
        ("Loaded", _number(loaded, "image")),
        ("For", _number(imports, "import") if imports else ""),
        ("Memory mapped", size_in_words(mapped) if mapped else ""),
        ("First to last load", span_in_words(max(times) - min(times)) if len(times) > 1 else ""),
        ("From", _number(len(packages), "package") if packages else ""),
        ("Looked for in vain, not required", _number(optional, "name") if optional else ""),
        ("Processes", f"{len(found.processes):,}" if found.processes else ""),
        ("Python", ".".join(map(str, process.version)) if process is not None else ""),
        ("Traced by", saved.recording.backend),
    )
    return [(label, value) for label, value in pairs if value]


def explained_causes(card: VerdictCard) -> list[CausePage]:
    """Return the pages of the codes on a card. A recording of others may have codes that are none of ours."""
    codes = {finding.code for finding in (card.main, *card.others) if finding is not None}
    pages = read_causes() if codes else []
    return [page for page in pages if page.code in codes and page.page == "findings"][:_EXPLAINED]


def _finding_card(finding: Finding, system: System) -> FindingCard:
    chain = finding.chain
    if len(chain) > _STEPS:
        left_out = len(chain) - _STEPS
        chain = (*chain[: _STEPS // 2], f"… {left_out} more steps", *chain[-_STEPS // 2 :])
    vain = [probe for probe in finding.probes if probe.outcome is not ProbeOutcome.LOADED]
    return FindingCard(
        title=_clip(finding.title), confidence=finding.confidence.value, code=finding.code,
        confidence_words=CONFIDENCE[finding.confidence],
        fixes=tuple((remedy_words(one), remedy_line(one, system)) for one in finding.remedies),
        chain=tuple(_clip(step, _STEP) for step in chain),
        explanation=finding.explanation,
        evidence=tuple((evidence.source.value, evidence.says) for evidence in finding.evidence),
        places=places_of(vain), place_count=len(vain),
        there=sum(probe.outcome is ProbeOutcome.PRESENT for probe in vain),
    )  # fmt: skip


def _says(error: PythonError | None, output: Sequence[str], died: str) -> tuple[tuple[str, str], ...]:
    found = []
    if error is not None:
        found.append(("Python says", f"{error.type}: {error.message}"))
    if died:
        found.append(("It died", died))
    if output:
        found.append(("It said", "\n".join(output)))
    return tuple(found)


def places_of(probes: Sequence[Probe]) -> tuple[PlaceList, ...]:
    """Return the places tried in vain, by rule; what is not worth a line is kept apart."""
    vain = [probe for probe in probes if probe.outcome is not ProbeOutcome.LOADED]
    rules = fold_places(vain)[:_RULES]
    return tuple(PlaceList(rule.title, tuple(map(_place, rule.shown[:_PLACES])), _hidden(rule)) for rule in rules)


def _hidden(rule: Rule) -> tuple[tuple[str, str, bool], ...]:
    hidden = (*rule.shown[_PLACES:], *rule.hidden)
    left_out = len(hidden) - _PLACES
    rows = tuple(map(_place, hidden[:_PLACES]))
    return rows if left_out <= 0 else (*rows, (f"… {left_out} more", "", False))


def _place(probe: Probe) -> tuple[str, str, bool]:
    why = f": {probe.reason}" if probe.reason else ""
    return probe.path, f"{OUTCOMES[probe.outcome]}{why}", probe.outcome is ProbeOutcome.PRESENT


def _clip(text: str, most: int = _TITLE) -> str:
    """Return the text, or its two ends with the number of characters between them."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"


@dataclass(frozen=True)
class FailedRow:
    """A failure in the list that needs no script: name, state, why, and who asked for it."""

    name: str
    state: str
    why: str
    requested_by: str


_FAILED = 100
"""Rows of that list."""


def failed_rows(found: PageImages) -> list[FailedRow]:
    """Return the failed images, and at the end how many more there are."""
    bad = [image for image in found.images if image.state.is_bad]
    rows = [
        FailedRow(
            _clip(image.path), image.state.value, _clip(image.reason or "", 400),
            file_name(_clip(image.requested_by or "")),
        )
        for image in bad[:_FAILED]
    ]  # fmt: skip
    return rows if len(bad) <= _FAILED else [*rows, FailedRow(f"… {len(bad) - _FAILED:,} more", "", "", "")]
