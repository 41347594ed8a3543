"""The verdict as text: what failed, who needs it, where it was looked for, why, what to do.

25 lines for the usual case.
"""

from __future__ import annotations

import textwrap

from ..model.events import Probe, ProbeOutcome
from ..model.failure import System
from ..model.finding import Confidence, Diagnosis, Finding, Outcome
from ..model.words import OUTCOMES, describe_crash
from .commands import remedy_line, remedy_words
from .drawing import BOLD, DIM, FAILED, PLAIN, WARNING, Line, Styled, fold_places, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LABEL = 12
_WIDTH = 110
_PLACES = 6
_STEPS = 7
_OTHERS = 3


def render_verdict(diagnosis: Diagnosis, *, ascii_only: bool = False) -> Styled:
    """The whole verdict, as styled text."""
    more = "..." if ascii_only else "…"
    return Styled(verdict_lines(diagnosis, more))


def verdict_lines(diagnosis: Diagnosis, more: str = "…") -> Iterator[Line]:
    """The lines of it; `more` stands where something was left out."""
    if diagnosis.outcome is Outcome.IMPORTED:
        yield ((f"{diagnosis.what} works: nothing to explain", BOLD),)
    elif diagnosis.findings and diagnosis.outcome is Outcome.EXPLAINED:
        first, *others = diagnosis.findings
        yield ((f"{diagnosis.what} failed: ", BOLD), (first.title, FAILED))
        yield from _said(diagnosis)
        yield from _finding(first, more, diagnosis.system)
        yield from _others(others, more, diagnosis.system)
    else:
        yield ((diagnosis.undecided_title, BOLD),)
        yield from _said(diagnosis)
        for text in diagnosis.undecided:
            yield from _block("would tell", text)
        yield from _others(diagnosis.findings, more, diagnosis.system)
    for note in diagnosis.notes:
        yield (("note: ", WARNING), (note, PLAIN))


def _said(diagnosis: Diagnosis) -> Iterator[Line]:
    if diagnosis.error is not None:
        yield from _block("Python says", f"{diagnosis.error.type}: {diagnosis.error.message}")
    crash = diagnosis.crash
    if crash is not None:
        yield from _block("it died", f"of {describe_crash(crash)}")
    for place, line in enumerate(diagnosis.output):
        yield from _block("it said" if place == 0 else "", line)


def _finding(finding: Finding, more: str, system: System) -> Iterator[Line]:
    yield from _steps(finding.chain, more)
    yield from _places(finding.probes, more)
    if finding.explanation:
        yield from _block("why", finding.explanation)
    for remedy in finding.remedies:
        line = remedy_line(remedy, system)
        yield from _block("fix", f"{remedy_words(remedy)}:" if line else remedy_words(remedy))
        if line:
            yield ((" " * (_LABEL + 2), PLAIN), (line, BOLD))
    says = "; ".join(dict.fromkeys(f"{evidence.source.value}: {evidence.says}" for evidence in finding.evidence))
    yield from _block(finding.confidence.value, f"{says} [{finding.code}]")


def _others(findings: Sequence[Finding], more: str, system: System) -> Iterator[Line]:
    for finding in findings[:_OTHERS]:
        label = "also" if finding.confidence is not Confidence.POSSIBLE else "perhaps"
        yield from _block(label, f"{finding.title} [{finding.code}]")
        for remedy in finding.remedies[:1]:
            line = remedy_line(remedy, system)
            yield from _block("", f"{remedy_words(remedy)}{f': {line}' if line else ''}")
    if len(findings) > _OTHERS:
        yield from _block("", f"{more} {len(findings) - _OTHERS} more (--json has all)", DIM)


def _steps(chain: Sequence[str], more: str) -> Iterator[Line]:
    shown = list(chain)
    if len(shown) > _STEPS:
        shown = [*shown[:2], f"{more} {len(shown) - _STEPS + 1} more", *shown[3 - _STEPS :]]
    for place, step in enumerate(shown):
        last = place == len(shown) - 1
        label = "needed by" if place == 0 else ""
        arrow = "" if place == 0 else "> "
        yield ((f"{label:>{_LABEL}}", DIM), (f"  {arrow}", DIM), (step, FAILED if last and place else PLAIN))


def _places(probes: Sequence[Probe], more: str) -> Iterator[Line]:
    """A line a place, with the rule that leads there; variants of the processor and long lists are counted."""
    label, hidden, room = "looked for", 0, _PLACES
    for rule in fold_places([probe for probe in probes if probe.outcome is not ProbeOutcome.LOADED]):
        if not rule.shown:
            yield ((f"{label:>{_LABEL}}  ", DIM), (rule.title, PLAIN))
            label = ""
        hidden += rule.more
        for probe in rule.shown:
            if room <= 0 and probe.outcome is not ProbeOutcome.PRESENT:
                hidden += 1
                continue
            room -= 1
            yield ((f"{label:>{_LABEL}}  ", DIM), (f"{rule.title}: {probe.path}", PLAIN), (f"  {_outcome(probe)}", DIM))
            label = ""
    if hidden:
        yield ((" " * (_LABEL + 2), PLAIN), (f"{more} {number(hidden, 'more place')}", DIM))


def _outcome(probe: Probe) -> str:
    return f"{OUTCOMES[probe.outcome]}{f': {probe.reason}' if probe.reason else ''}"


def _block(label: str, text: str, style: str = PLAIN) -> Iterator[Line]:
    """A label and text, wrapped: words are for reading, paths are not broken."""
    rows = textwrap.wrap(text, _WIDTH - _LABEL - 2, break_long_words=False, break_on_hyphens=False) or [""]
    for place, row in enumerate(rows):
        yield ((f"{label if place == 0 else '':>{_LABEL}}  ", DIM), (row, style))
