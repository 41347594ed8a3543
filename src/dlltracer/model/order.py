"""What trying imports in several orders has shown."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class OrderOutcome(enum.Enum):
    """What came of it all."""

    NO_ORDER_BREAKS = "no order breaks"
    """The order as given and its reverse work: so every two of them were tried in both orders."""
    BREAKS = "an order breaks"
    """Some order fails, and each of its modules works alone."""
    FAILS_ALONE = "fails alone"
    """A module fails without any other: the order is not the cause."""


@dataclass(frozen=True)
class Trial:
    """Modules imported one after the other in a process of its own.

    Attributes:
        modules: in their order.
        failed_at: place in it of the module whose import failed; `None` if all worked.
        how: what happened ("ImportError: ...", "was killed by SIGSEGV"); empty if all worked.
    """

    modules: tuple[str, ...]
    failed_at: int | None = None
    how: str = ""

    @property
    def works(self) -> bool:
        return self.failed_at is None


@dataclass(frozen=True)
class OrderSearch:
    """The result of a search for the order that breaks.

    Attributes:
        outcome: what came of it.
        breaking: the fewest modules, in an order that fails; the last one is the one that fails.
        works: the same modules in an order that works; `None` if none was found.
        trials: all that was tried, in order.
    """

    outcome: OrderOutcome
    breaking: Trial | None = None
    works: Trial | None = None
    trials: tuple[Trial, ...] = ()
