"""The search for the order that breaks, on modules that are made up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dlltracer.diagnose.trials import find_breaking_order
from dlltracer.model.finding import OrderOutcome, OrderTrial

NAMES = [f"m{number}" for number in range(12)]


class World:
    """Modules of which some do not go together: `victim` fails when all of `culprits` came before it."""

    def __init__(self, culprits: frozenset[str], victim: str) -> None:
        self.culprits, self.victim = culprits, victim
        self.count = 0

    def attempt(self, modules: tuple[str, ...]) -> OrderTrial:
        self.count += 1
        if self.victim in modules:
            place = modules.index(self.victim)
            if self.culprits <= set(modules[:place]):
                return OrderTrial(modules, place, "it fails")
        return OrderTrial(modules)


@given(st.permutations(NAMES), st.data())
def test_the_fewest_modules_are_found(order: list[str], data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(NAMES))
    others = [name for name in NAMES if name != victim]
    culprits = frozenset(data.draw(st.lists(st.sampled_from(others), min_size=1, max_size=3, unique=True)))
    world = World(culprits, victim)
    found = find_breaking_order(order, world.attempt)
    places = {order.index(name) < order.index(victim) for name in culprits}
    if len(places) == 2:  # some stand before it and some behind: neither the order nor its reverse shows it
        assert found.outcome is OrderOutcome.NO_ORDER_BREAKS
        return
    assert found.outcome is OrderOutcome.BREAKS
    assert found.breaking is not None and found.works is not None
    assert (frozenset(found.breaking.modules[:-1]), found.breaking.modules[-1]) == (culprits, victim)
    assert found.works.modules[0] == victim
    assert len({trial.modules for trial in found.trials}) == len(found.trials) == world.count, "nothing tried twice"


def test_one_that_fails_alone_ends_the_search() -> None:
    world = World(frozenset(), "m1")
    found = find_breaking_order(NAMES, world.attempt)
    assert found.outcome is OrderOutcome.FAILS_ALONE
    assert found.breaking == OrderTrial(("m1",), 0, "it fails")
    assert world.count == 2


def test_a_failure_that_does_not_come_again_is_kept_as_it_was_seen() -> None:
    seen = []

    def attempt(modules: tuple[str, ...]) -> OrderTrial:
        seen.append(modules)
        fails = modules == ("a", "b", "c", "d")
        return OrderTrial(modules, 2, "once") if fails else OrderTrial(modules)

    found = find_breaking_order(["a", "b", "c", "d"], attempt)
    assert found.breaking == OrderTrial(("a", "b", "c", "d"), 2, "once")
