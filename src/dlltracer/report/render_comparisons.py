"""Renders differences between two traces, and an import order that breaks, as text."""

from __future__ import annotations

from collections.abc import Iterator

from ..model.finding import Comparison, Difference, DifferenceKind, OrderOutcome, OrderSearch, OrderTrial
from .drawing import BOLD, DIM, FAILED, PLAIN, WARNING, Line, Styled, number

_HEADINGS = {
    DifferenceKind.OUTCOME: "How they ended",
    DifferenceKind.MISSING: "Missing from one of them",
    DifferenceKind.OTHER_COPY: "Another copy",
    DifferenceKind.OTHER_VERSION: "Another version",
    DifferenceKind.OTHER_ORDER: "Another order",
    DifferenceKind.ONLY_ONE: "Loaded by one of them only",
    DifferenceKind.ENVIRONMENT: "Environment",
}
_MOST = {DifferenceKind.ONLY_ONE: 20, DifferenceKind.OTHER_ORDER: 10}
"""Of what is mostly harmless, so many are shown; JSON has all."""


def render_diff(comparison: Comparison, *, ascii_only: bool = False) -> Styled:
    """All of it as styled text, the most telling differences first."""
    return Styled(_lines(comparison, "..." if ascii_only else "…"))


def _lines(comparison: Comparison, more: str) -> Iterator[Line]:
    yield (("A  ", BOLD), (comparison.first, PLAIN))
    yield (("B  ", BOLD), (comparison.second, PLAIN))
    for kind, heading in _HEADINGS.items():
        found = [difference for difference in comparison.differences if difference.kind is kind]
        if not found:
            continue
        yield ()
        yield ((f"{heading}: {len(found)}" if kind is not DifferenceKind.OUTCOME else heading, BOLD),)
        most = _MOST.get(kind, len(found))
        for difference in found[:most]:
            yield from _difference(difference)
        if len(found) > most:
            yield ((f"  {more} {len(found) - most} more (--json has all)", DIM),)
    yield ()
    differ = len(comparison.differences)
    if not differ:
        yield ((f"no difference: {number(comparison.same, 'image')} the same", BOLD),)
    else:
        yield ((f"{number(differ, 'difference')}; {number(comparison.same, 'image')} the same", BOLD),)
    for note in comparison.notes:
        yield (("note: ", WARNING), (note, PLAIN))


def _difference(difference: Difference) -> Iterator[Line]:
    style = FAILED if difference.kind in (DifferenceKind.OUTCOME, DifferenceKind.MISSING) else PLAIN
    yield (("  ", PLAIN), (difference.name, style))
    for letter, how in (("A", difference.first), ("B", difference.second)):
        yield ((f"    {letter}  ", DIM), (how, PLAIN) if how is not None else ("-", DIM))
    if difference.detail:
        yield (("       ", PLAIN), (difference.detail, DIM))


def render_order(search: OrderSearch) -> Styled:
    """The trials and what they show, as styled text."""
    return Styled(_render_order_lines(search))


def _render_order_lines(search: OrderSearch) -> Iterator[Line]:
    for trial in search.trials:
        yield from _trial(trial)
    count = number(len(search.trials), "process")
    count = count if len(search.trials) == 1 else f"{len(search.trials)} processes"
    yield ()
    if search.outcome is OrderOutcome.NO_ORDER_BREAKS:
        yield (("no order breaks: ", BOLD), ("every two of them were tried in both orders", PLAIN), (f"; {count}", DIM))
        return
    assert search.breaking is not None
    victim = search.breaking.modules[-1]
    if search.outcome is OrderOutcome.FAILS_ALONE:
        yield ((f"import {victim} fails alone: ", FAILED), ("the order is not the cause", PLAIN), (f"; {count}", DIM))
        return
    yield ((f"import {victim} fails after {_names(search.breaking.modules[:-1])}", FAILED), (f"; {count}", DIM))
    if search.works is not None:
        yield (("this order works: ", BOLD), (_names(search.works.modules), PLAIN))
    else:
        yield (("no order of them was found that works", BOLD),)


def _trial(trial: OrderTrial) -> Iterator[Line]:
    if trial.failed_at is None:
        yield (("works  ", DIM), (_names(trial.modules), PLAIN))
    else:
        failed = trial.modules[trial.failed_at]
        yield (("FAILS  ", FAILED), (_names(trial.modules), PLAIN), (f"  at {failed}: {trial.how}", DIM))


def _names(modules: tuple[str, ...]) -> str:
    return ", ".join(modules)
