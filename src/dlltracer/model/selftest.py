"""What `dlltracer selftest` found: one value a step. A report is a recording that holds these."""

from __future__ import annotations

import enum

from .light import dataclass


class StepState(enum.Enum):
    """What came of a step."""

    OK = "ok"
    """What was seen is what was expected."""
    FAILED = "failed"
    """Something else was seen, or the step ended in an error."""
    NOT_ASKED = "could not be asked"
    """This machine does not allow the question: no right, another system, a simulation of it. Not a failure."""


@dataclass(frozen=True, kw_only=True)
class SelfTestStep:
    """A step of a self-test.

    Attributes:
        group: the part that it belongs to ("rtld", "etw").
        name: what is asked, in a few words.
        expected: what is right, as a sentence without a full stop.
        state: what came of it.
        seen: what was seen; empty where nothing was.
        reason: why it failed or could not be asked; `None` for a step that is ok.
        seconds: how long it took.
        facts: everything noted on the way, as (name, value) pairs, in order. Private names are left out of them.
    """

    group: str
    name: str
    expected: str
    state: StepState
    seen: str = ""
    reason: str | None = None
    seconds: float = 0.0
    facts: tuple[tuple[str, str], ...] = ()


def count_states(steps: tuple[SelfTestStep, ...]) -> dict[StepState, int]:
    """Return how many steps are in each state; every state is a key."""
    return {state: sum(step.state is state for step in steps) for state in StepState}
