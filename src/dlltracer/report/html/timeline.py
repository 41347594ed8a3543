"""When what was loaded: a row an import, its loads as marks along one axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .graph import NodeKind, State
from .words import span_in_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .graph import Graph, ImageView, Node


@dataclass(frozen=True)
class Mark:
    """A load: number of its node, its place along the axis in percent."""

    number: int
    at: float
    state: State


@dataclass(frozen=True)
class Row:
    """An import, or a process above its imports.

    Attributes:
        number: of its node.
        title, note: in words.
        depth: 0 for a row at the top.
        marks: the loads of the import itself, those of imports inside it left out.
        when: from when to when, in words; empty for a row without loads.
        start, end: the same in percent.
        bad: how many of the loads failed by themselves.
    """

    number: int
    title: str
    note: str
    depth: int
    marks: tuple[Mark, ...]
    when: str
    start: float
    end: float
    bad: int


@dataclass(frozen=True)
class Timeline:
    """The rows. `is_timed` says that the axis is time; else it is the order of the loads. `ticks`: percent, words."""

    rows: tuple[Row, ...]
    is_timed: bool
    ticks: tuple[tuple[float, str], ...]


def timeline_of(graph: Graph) -> Timeline:
    """The rows, in the order of the graph: an import stands before those inside it."""
    images = [(number, image) for number, image in graph.images if image.concluded is None]
    times = [image.time for _, image in images if image.time is not None]
    # A file may hold any number for a time, also none at all (nan).
    is_timed = bool(times) and len(times) == len(images) and 0 < max(times) - min(times) < math.inf
    start, length = (min(times), max(times) - min(times)) if is_timed else (0.0, float(max(len(images) - 1, 1)))
    homes, depths = _homes_and_depths(graph)
    marks: dict[int, list[tuple[float, Mark]]] = {}
    for place, (number, image) in enumerate(images):
        moment = (image.time or 0.0) - start if is_timed else float(place)
        home = homes[number]
        if home is not None:
            marks.setdefault(home, []).append((moment, Mark(number, _percent(moment, length), image.state)))
    rows = [
        _row(graph.nodes[number], number, depths[number], marks.get(number, []), length, is_timed)
        for number in _order(graph)
        if graph.nodes[number].kind is not NodeKind.IMAGE
    ]
    steps = (0.0, 0.25, 0.5, 0.75, 1.0) if is_timed else ()
    return Timeline(tuple(rows), is_timed, tuple((100 * step, span_in_words(length * step)) for step in steps))


def first_time(images: list[tuple[int, ImageView]]) -> float | None:
    """The time of the first load, seconds since the epoch."""
    return min((image.time for _, image in images if image.time is not None), default=None)


def _percent(moment: float, length: float) -> float:
    return round(100 * moment / length, 3)


def _order(graph: Graph) -> list[int]:
    """The numbers, each node before those that hang on it, these together."""
    children = graph.children()
    stack = [number for number, node in enumerate(graph.nodes) if node.parent is None][::-1]
    order = []
    while stack:
        number = stack.pop()
        order.append(number)
        stack += reversed(children[number])
    return order


def _homes_and_depths(graph: Graph) -> tuple[list[int | None], list[int]]:
    """For each node, the import or process that it hangs on in the end, and how many nodes are above it."""
    homes: list[int | None] = []
    depths: list[int] = []
    for number, node in enumerate(graph.nodes):  # each behind its parent
        above = None if node.parent is None else homes[node.parent]
        homes.append(above if node.kind is NodeKind.IMAGE else number)
        depths.append(0 if node.parent is None else depths[node.parent] + 1)
    return homes, depths


def _row(
    node: Node, number: int, depth: int, marks: list[tuple[float, Mark]], length: float, is_timed: bool
) -> Row:
    when, start, end = "", 0.0, 0.0
    if marks:
        first, last = min(moment for moment, _ in marks), max(moment for moment, _ in marks)
        start, end = _percent(first, length), _percent(last, length)
        when = span_in_words(first) if is_timed else f"load {first + 1:.0f}"
        if last > first:
            when += f" to {span_in_words(last)}" if is_timed else f" to {last + 1:.0f}"
    bad = sum(mark.state.is_bad for _, mark in marks)
    return Row(
        number, node.title, node.note, depth, tuple(mark for _, mark in marks), when, start, end, bad
    )
