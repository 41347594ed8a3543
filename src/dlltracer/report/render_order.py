"""The search for the import order that breaks, as text and as JSON."""

from __future__ import annotations

import json

from ..model.order import OrderOutcome, OrderSearch, Trial
from ..model.plain import to_plain
from .drawing import BOLD, DIM, FAILED, PLAIN, Line, Styled, number
from .verdict_json import verdict_to_plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model.finding import Diagnosis

VERSION = 1
"""Counted up when a reader of the former version would misread the new one."""


def render_order_json(search: OrderSearch, verdict: Diagnosis | None) -> str:
    """All of it, ASCII only."""
    plain = to_plain(search)
    assert isinstance(plain, dict)
    if verdict is not None:
        plain["verdict"] = verdict_to_plain(verdict)
    return json.dumps({"type": "order", "version": VERSION, **plain}, indent=1) + "\n"


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
