"""Renders the report of a self-test as a table: for people, and as Markdown for an issue."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ..model.run import SavedTrace, SelfTestStep, StepState, count_states
from ..model.screen import escape
from .drawing import BOLD, DIM, FAILED, PLAIN, WARNING, Line, Styled, number
from .render_markdown import code

_STATES = {
    StepState.OK: ("ok", PLAIN), StepState.FAILED: ("FAILED", FAILED), StepState.NOT_ASKED: ("not asked", WARNING),
}  # fmt: skip
_WIDEST = 130
_NARROWEST = 72
_STATE_WIDTH, _TIME_WIDTH, _GAP = 9, 8, 2
_WIDEST_CELL = 300
_MOST_ROWS = 46
"""Of Markdown: with what stands around them, 60 lines."""


def render_selftest(trace: SavedTrace, *, width: int = 110) -> Styled:
    """Return the table of all steps, the facts of those that are not ok, and a line that sums up.

    Argument: `width`, in characters; texts are wrapped in their columns.
    """
    return Styled(_lines(trace, max(_NARROWEST, min(width, _WIDEST))))


def _lines(trace: SavedTrace, width: int) -> Iterator[Line]:
    host = trace.host
    if host is not None:
        about = ", ".join(filter(None, (host.description, host.machine, host.c_library)))
        yield ((f"dlltracer {trace.written_by}", BOLD), (f"  {about}", PLAIN))
    for problem in trace.problems:
        yield (("note: ", WARNING), (problem, PLAIN))
    widths = _column_widths(width)
    group = None
    for step in trace.steps:
        if step.group != group:
            group = step.group
            yield ()
            yield ((group, BOLD),)
        yield from _row(step, widths)
    yield ()
    for note in trace.recording.notes:
        yield (("note: ", WARNING), (note, PLAIN))
    yield ((summarize(trace.steps), BOLD),)


def summarize(steps: Sequence[SelfTestStep]) -> str:
    """Return one line: how many steps were right, wrong, and could not be asked."""
    counts = count_states(tuple(steps))
    parts = [f"{counts[StepState.OK]} ok", f"{counts[StepState.FAILED]} failed"]
    parts.append(f"{counts[StepState.NOT_ASKED]} could not be asked")
    return f"{number(len(steps), 'step')}: {', '.join(parts)}"


def _column_widths(width: int) -> tuple[int, int, int]:
    """Return the widths of three columns: the name, the expected answer, the seen answer."""
    rest = width - _STATE_WIDTH - _TIME_WIDTH - 4 * _GAP
    name, expected = rest * 22 // 100, rest * 34 // 100
    return name, expected, rest - name - expected


def _row(step: SelfTestStep, widths: tuple[int, int, int]) -> Iterator[Line]:
    word, style = _STATES[step.state]
    texts = (step.name, step.expected, _seen(step))
    columns = [textwrap.wrap(escape(text), width) or [""] for text, width in zip(texts, widths, strict=True)]
    for index, (name, expected, seen) in enumerate(zip_longest(*columns, fillvalue="")):
        yield (
            (_pad(word if not index else "", _STATE_WIDTH), style),
            (_pad(name, widths[0]), PLAIN),
            (_pad(expected, widths[1]), DIM),
            (_pad(seen, widths[2]), style if step.state is StepState.FAILED else PLAIN),
            (_format_time(step.seconds).rjust(_TIME_WIDTH) if not index else "", DIM),
        )
    if step.state is StepState.FAILED:
        for name, value in step.facts:
            yield ((" " * (_STATE_WIDTH + _GAP), PLAIN), (f"{name}: ", DIM), (" ".join(value.split()), PLAIN))


def _pad(text: str, width: int) -> str:
    return text.ljust(width + _GAP)


@dataclass(frozen=True)
class StepRow:
    """A step in words. `key` names its state for a style sheet."""

    step: SelfTestStep
    key: str
    word: str
    seen: str
    time: str


def row_of(step: SelfTestStep) -> StepRow:
    """Return a step as a row of a table."""
    word = _STATES[step.state][0]
    return StepRow(step, word.lower().replace(" ", "-"), word, _seen(step), _format_time(step.seconds))


def _seen(step: SelfTestStep) -> str:
    """Return the seen answer, and the reason why it is not right."""
    if step.reason is None:
        return step.seen
    return f"{step.seen} ({step.reason})" if step.seen else step.reason


def _format_time(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


def render_selftest_markdown(trace: SavedTrace) -> str:
    """Return the table as Markdown of at most 60 lines: what is not ok first, then as many others as fit."""
    host = trace.host
    about = "" if host is None else ", ".join(filter(None, (host.description, host.machine, host.c_library)))
    lines = [f"### dlltracer {trace.written_by} selftest: {summarize(trace.steps)}", "", code(about), ""]
    lines += ["| | Step | Expected | Seen | Time |", "| --- | --- | --- | --- | ---: |"]
    ordered = sorted(trace.steps, key=lambda step: step.state is StepState.OK)
    for step in ordered[:_MOST_ROWS]:
        word = _STATES[step.state][0]
        texts = (f"{step.group}: {step.name}", step.expected, _seen(step))
        cells = [code(text[:_WIDEST_CELL], table=True) for text in texts]
        lines.append(f"| {word} | {' | '.join(cells)} | {_format_time(step.seconds)} |")
    left = len(ordered) - _MOST_ROWS
    if left > 0:
        lines += ["", f"{number(left, 'more step')} that are ok: `dlltracer show` has all."]
    lines += [f"- {code(note)}" for note in (*trace.problems, *trace.recording.notes)[:5]]
    return "\n".join(lines) + "\n"
