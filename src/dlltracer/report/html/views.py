"""What a page shows of its graph: the details of each image, the table of images, the timeline of imports."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...model.events import ProbeOutcome
from ...model.words import (
    imports_in_words,
    place_row,
    shorten,
    size_in_words,
    span_in_words,
    time_in_words,
    without_abi_tag,
)
from ..drawing import file_name
from .graph import EdgeKind, ImageView, PageGraph, PageNode, PageNodeKind, Picture, State

_PLACES = 200
"""Places tried that the details of an image have."""


def page_data(graph: PageGraph, picture: Picture, start: float | None) -> dict[str, object]:
    """All of it.

    Arguments: `start`, seconds since the epoch, is what times count from.

    Returns: `nodes`, each with its place in the picture; `edges` as [start, end, how that is known].
    """
    nodes = []
    for number, (node, box) in enumerate(zip(graph.nodes, picture.nodes, strict=True)):
        plain = _node(node, start)
        plain |= {"at": [box.x, box.y], "parent": node.parent}
        if number in graph.elsewhere:
            plain["elsewhere"] = shorten(graph.elsewhere[number], _PLACES, "more names")
        nodes.append(plain)
    edges = [[edge.start, edge.end, list(EdgeKind).index(edge.kind)] for edge in graph.edges]
    return {"nodes": nodes, "edges": edges, "focus": graph.focus, "size": [picture.width, picture.height]}


def _node(node: PageNode, start: float | None) -> dict[str, object]:
    plain: dict[str, object] = {"kind": node.kind.value, "title": node.title}
    if node.note:
        plain["note"] = node.note
    image = node.image
    if image is None:
        return plain
    plain |= {"state": image.state.key, "word": image.state.value, "facts": list(_facts(image, start))}
    if image.reason:
        plain["reason"] = image.reason
    # That the file was taken from where it was asked for is no news.
    taken = [probe.path for probe in image.probes if probe.outcome is ProbeOutcome.LOADED]
    if len(image.probes) > 1 or taken != [image.path]:
        places = [list(place_row(probe)) for probe in image.probes[:_PLACES]]
        if len(image.probes) > _PLACES:
            places.append(["", f"… {len(image.probes) - _PLACES} more places", "", ""])
        plain["places"] = places
    return plain


def _facts(image: ImageView, start: float | None) -> Iterator[tuple[str, str]]:
    """Labels and values, those that are known."""
    facts = image.facts
    # The path comes first: the page puts a button to copy it beside it.
    yield "Path", image.path
    elapsed = None if image.time is None or start is None else image.time - start
    pairs = (
        ("Worked out from", image.concluded),
        ("Found by", image.rule),
        ("Asked for by", image.requested_by),
        ("Python imports", None if not image.imports else imports_in_words(image.imports)),
        ("Package", facts and facts.package),
        ("Version", facts and facts.file_version),
        ("Soname", facts and facts.soname),
        ("Processor", facts and facts.machine),
        ("File size", size_in_words(facts.size) if facts else None),
        ("Modified", time_in_words(facts.modified) if facts else None),
        ("Digest", facts and facts.digest),
        ("Address", None if image.base is None else f"{image.base:#x}"),
        ("Mapped", None if image.size is None else f"{size_in_words(image.size)} ({image.size:#x} bytes)"),
        ("Time", None if elapsed is None else f"{span_in_words(elapsed)} after the start"),
        ("Process", None if image.pid is None else str(image.pid)),
    )
    for label, value in pairs:
        if value:
            yield label, value


@dataclass(frozen=True)
class Cell:
    """What it shows; `key` is what it is sorted by, `whole` what it stands for, where that is something else."""

    text: str
    key: str = ""
    whole: str = ""


@dataclass(frozen=True)
class TableRow:
    """An image: the number of its node, and the cells."""

    number: int
    name: str
    path: str
    state: State
    reason: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """`columns` are the titles of the cells, with a word for style sheets; the name and state have their own."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[TableRow, ...]
    states: tuple[State, ...]


_COLUMNS = (
    ("Found by", "rule"),
    ("Asked for by", "requester"),
    ("Python import", "import"),
    ("Package", "package"),
    ("Version", "version"),
    ("Size", "size"),
    ("Time", "time"),
    ("Process", "process"),
)


def table_of(graph: PageGraph, start: float | None) -> Table:
    """The images in the order of their loads. `start`: seconds since the epoch, what times count from."""
    images = graph.images
    cells = [_cells(image, start) for _, image in images]
    kept = [column for column in range(len(_COLUMNS)) if any(row[column].text for row in cells)]
    one_process = len({image.pid for _, image in images}) <= 1
    if one_process and len(_COLUMNS) - 1 in kept:
        kept.remove(len(_COLUMNS) - 1)
    rows = tuple(
        TableRow(number, image.name, image.path, image.state, image.reason or "", tuple(row[c] for c in kept))
        for (number, image), row in zip(images, cells, strict=True)
    )
    states = tuple(dict.fromkeys(image.state for _, image in images))
    return Table(tuple(_COLUMNS[column] for column in kept), rows, states)


def _cells(image: ImageView, start: float | None) -> Sequence[Cell]:
    facts = image.facts
    size = image.size if image.size is not None else facts.size if facts is not None else None
    elapsed = None if image.time is None or start is None else image.time - start
    return (
        Cell(_short_rule(image), whole=image.rule or ""),
        Cell(without_abi_tag(file_name(image.requested_by or "")), whole=image.requested_by or ""),
        Cell(_ends(image.imports or ()), whole=imports_in_words(image.imports or ())),
        Cell((facts and facts.package) or ""),
        Cell((facts and facts.file_version) or ""),
        Cell(size_in_words(size), "" if size is None else str(size)),
        Cell("" if elapsed is None else span_in_words(elapsed), "" if elapsed is None else str(elapsed)),
        Cell("" if image.pid is None else str(image.pid)),
    )


def _short_rule(image: ImageView) -> str:
    """The rule that found it, with the name of the image whose rule it is in the place of its path."""
    origin = next((probe.origin for probe in image.probes if probe.outcome is ProbeOutcome.LOADED), None)
    if image.rule is None or origin is None or not image.rule.endswith(f" of {origin}"):
        return image.rule or ""
    return f"{image.rule.removesuffix(origin)}{without_abi_tag(file_name(origin))}"


def _ends(imports: tuple[str, ...]) -> str:
    """The outermost import and the innermost one; the details of the image have all between them."""
    return " > ".join(imports if len(imports) <= 2 else (imports[0], "…", imports[-1]))


@dataclass(frozen=True)
class TimelineMark:
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
    marks: tuple[TimelineMark, ...]
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


def timeline_of(graph: PageGraph) -> Timeline:
    """The rows, in the order of the graph: an import stands before those inside it."""
    images = [(number, image) for number, image in graph.images if image.concluded is None]
    times = [image.time for _, image in images if image.time is not None]
    # A file may hold any number for a time, also none at all (nan).
    is_timed = bool(times) and len(times) == len(images) and 0 < max(times) - min(times) < math.inf
    start, length = (min(times), max(times) - min(times)) if is_timed else (0.0, float(max(len(images) - 1, 1)))
    homes, depths = _homes_and_depths(graph)
    marks: dict[int, list[tuple[float, TimelineMark]]] = {}
    for place, (number, image) in enumerate(images):
        moment = (image.time or 0.0) - start if is_timed else float(place)
        home = homes[number]
        if home is not None:
            marks.setdefault(home, []).append((moment, TimelineMark(number, _percent(moment, length), image.state)))
    rows = [
        _row(graph.nodes[number], number, depths[number], marks.get(number, []), length, is_timed)
        for number in _order(graph)
        if graph.nodes[number].kind is not PageNodeKind.IMAGE
    ]
    steps = (0.0, 0.25, 0.5, 0.75, 1.0) if is_timed else ()
    return Timeline(tuple(rows), is_timed, tuple((100 * step, span_in_words(length * step)) for step in steps))


def first_time(images: list[tuple[int, ImageView]]) -> float | None:
    """The time of the first load, seconds since the epoch."""
    return min((image.time for _, image in images if image.time is not None), default=None)


def _percent(moment: float, length: float) -> float:
    return round(100 * moment / length, 3)


def _order(graph: PageGraph) -> list[int]:
    """The numbers, each node before those that hang on it, these together."""
    children = graph.children()
    stack = [number for number, node in enumerate(graph.nodes) if node.parent is None][::-1]
    order = []
    while stack:
        number = stack.pop()
        order.append(number)
        stack += reversed(children[number])
    return order


def _homes_and_depths(graph: PageGraph) -> tuple[list[int | None], list[int]]:
    """For each node, the import or process that it hangs on in the end, and how many nodes are above it."""
    homes: list[int | None] = []
    depths: list[int] = []
    for number, node in enumerate(graph.nodes):  # each behind its parent
        above = None if node.parent is None else homes[node.parent]
        homes.append(above if node.kind is PageNodeKind.IMAGE else number)
        depths.append(0 if node.parent is None else depths[node.parent] + 1)
    return homes, depths


def _row(
    node: PageNode, number: int, depth: int, marks: list[tuple[float, TimelineMark]], length: float, is_timed: bool
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
