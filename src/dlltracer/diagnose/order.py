"""Finds the import order that breaks. Pure: a trial is whatever the caller makes of it."""

from __future__ import annotations

from itertools import permutations

from ..model.comparison import OrderOutcome, OrderSearch, OrderTrial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
