"""The search for the import order that breaks, as text."""

from __future__ import annotations

from ..model.order import OrderOutcome, OrderSearch, Trial
from .drawing import BOLD, DIM, FAILED, PLAIN, Line, Styled, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator





def render_order(search: OrderSearch) -> Styled:
    """The trials and what they show, as styled text."""
    return Styled(_lines(search))


def _lines(search: OrderSearch) -> Iterator[Line]:
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


def _trial(trial: Trial) -> Iterator[Line]:
    if trial.failed_at is None:
        yield (("works  ", DIM), (_names(trial.modules), PLAIN))
    else:
        failed = trial.modules[trial.failed_at]
        yield (("FAILS  ", FAILED), (_names(trial.modules), PLAIN), (f"  at {failed}: {trial.how}", DIM))


def _names(modules: tuple[str, ...]) -> str:
    return ", ".join(modules)
