"""What differs between two traces, and what trying import orders has shown."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class DifferenceKind(enum.Enum):
    """What kind of difference; in the order in which they explain why one works and the other does not."""

    OUTCOME = "outcome"
    """One program ended well and the other did not."""
    MISSING = "missing"
    """Loaded in one trace; in the other asked for, and not found or not taken."""
    OTHER_COPY = "other copy"
    """Found in both, in places that do not correspond."""
    OTHER_VERSION = "other version"
    """Loaded in both from places that correspond, and the files are not the same."""
    OTHER_ORDER = "other order"
    """Loaded in both, before others in one and behind them in the other."""
    ONLY_ONE = "only one"
    """Loaded in one trace; in the other never asked for, or dropped because another load failed."""
    ENVIRONMENT = "environment"
    """The machine, the interpreter, the environment."""


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        kind: what kind.
        name: what differs: the base name of an image, the name of a variable.
        first, second: how it is in the first trace and in the second; `None` where there is nothing.
        detail: more about it, as a sentence or sentences; may be empty.
    """

    kind: DifferenceKind
    name: str
    first: str | None
    second: str | None
    detail: str = ""


@dataclass(frozen=True)
class Comparison:
    """Two traces compared.

    Attributes:
        first, second: what the traces are called.
        differences: the most telling first.
        same: number of images that are the same in both.
        notes: what could not be compared.
    """

    first: str
    second: str
    differences: tuple[Difference, ...]
    same: int
    notes: tuple[str, ...] = ()


class OrderOutcome(enum.Enum):
    """What came of it all."""

    NO_ORDER_BREAKS = "no order breaks"
    """The order as given and its reverse work: so every two of them were tried in both orders."""
    BREAKS = "an order breaks"
    """Some order fails, and each of its modules works alone."""
    FAILS_ALONE = "fails alone"
    """A module fails without any other: the order is not the cause."""


@dataclass(frozen=True)
class OrderTrial:
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
    breaking: OrderTrial | None = None
    works: OrderTrial | None = None
    trials: tuple[OrderTrial, ...] = ()
