"""A trace, or what a file needs, as one HTML page that works offline: docs/reference/html-report.md.

The page is made from templates: it needs no other file, requests nothing, and runs only its own script.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import groupby

from jinja2 import Environment
from markupsafe import Markup

from ...model.failure import System
from ...model.printable import escape
from ...model.run import SavedTrace
from ...model.tree import LoadTree
from ...model.words import describe_crash, label_of
from ..drawing import PLAIN, UNICODE, Styled, TreeNode, draw
from ..render_selftest import row_of, summarize
from ..render_verdict import remedy_line
from .build_graph import graph_of_trace, graph_of_tree
from .graph import NODE_HEIGHT, NODE_WIDTH, EdgeKind, PageGraph, PageNodeKind, Picture, State, lay_out, limit
from .summary import (
    CONFIDENCE,
    about_trace,
    headline_of_trace,
    headline_of_tree,
    main_and_other,
    missing_of_tree,
    places_of,
    summary_of_trace,
)
from .views import first_time, page_data, table_of, timeline_of


def render_html(saved: SavedTrace, *, title: str | None = None) -> str:
    """The page of a trace: verdict, graph, timeline, images, facts; UTF-8 can hold it.

    Arguments: `title`, of the page; `None` for what was run.
    """
    graph = graph_of_trace(saved)
    main, others = main_and_other(saved.diagnosis)
    system = saved.diagnosis.system if saved.diagnosis is not None else System.OTHER
    values = {
        "title": title or saved.what or "a trace",
        "headline": headline_of_trace(saved, graph),
        "summary": summary_of_trace(saved, graph),
        "saved": saved,
        "main": main,
        "others": others,
        "confidence": CONFIDENCE,
        "places_of": places_of,
        "about": about_trace(saved),
        "describe_crash": describe_crash,
        "line_of": lambda remedy: remedy_line(remedy, system),
    }
    return render_page("trace.html.j2", graph, values)


def render_html_tree(tree: LoadTree, *, title: str | None = None) -> str:
    """The page of a load tree: what is missing, the graph, the images; UTF-8 can hold it.

    Arguments: `title`, of the page; `None` for the path of the file.
    """
    graph = graph_of_tree(tree)
    values = {
        "title": title or tree.top,
        "headline": headline_of_tree(tree, graph),
        "tree": tree,
        "missing": missing_of_tree(tree),
        "places_of": places_of,
    }
    return render_page("tree.html.j2", graph, values)


def render_html_selftest(saved: SavedTrace) -> str:
    """The page of a self-test's report: its steps as a table, with all their facts; UTF-8 can hold it."""
    style = _joined(("base.css", "selftest.css"))
    groups = [(name, [row_of(step) for step in steps]) for name, steps in groupby(saved.steps, lambda one: one.group)]
    return _environment().get_template("selftest.html.j2").render(
        saved=saved,
        summary=summarize(saved.steps),
        notes=(*saved.problems, *saved.recording.notes),
        groups=groups,
        style=_as_it_is(style),
        style_hash=_hash(style),
    )


_STYLES = ("base.css", "verdict.css", "graph.css", "table.css")
_SCRIPTS = ("start.js", "details.js", "graph.js", "table.js")
MOST_NODES, MOST_EDGES = 4000, 20_000
"""Of a graph, on a page: about what a browser shows in a second."""

_LABEL_ROOM, _LABEL_ROOM_WITH_ICON = 27, 24


@dataclass(frozen=True)
class _Drawn:
    """A node as the picture has it."""

    number: int
    x: float
    y: float
    label: str
    classes: str
    icon: str


def render_page(template: str, graph: PageGraph, values: Mapping[str, object]) -> str:
    """Fill a template, and join what every page has: graph, timeline, table, data, style and script.

    The text can be written as UTF-8: what does not print, lone surrogates too, is shown as escapes.
    """
    environment = _environment()
    graph = limit(graph, MOST_NODES, MOST_EDGES)
    picture = lay_out(graph)
    start = first_time(graph.images)
    table = table_of(graph, start)
    style, script = _joined(_STYLES), _joined(_SCRIPTS)
    return environment.get_template(template).render(
        **values,
        graph=graph,
        picture=picture,
        drawn=_draw(graph, picture),
        lines=_path(picture),
        outline=_lines_as_they_are(outline_of(graph)),
        states=table.states,
        has_asked=any(edge.kind is EdgeKind.ASKED for edge in graph.edges),
        has_listed=any(edge.kind is not EdgeKind.ASKED for edge in graph.edges),
        timeline=timeline_of(graph),
        table=table,
        numbers=graph.numbers_by_name(),
        node_size=(NODE_WIDTH, NODE_HEIGHT),
        data=json_for_html(page_data(graph, picture, start)),
        style=_as_it_is(style),
        script=_as_it_is(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def json_for_html(value: object) -> Markup:
    """JSON that may stand in a script element: ASCII, and without a character that HTML could take for its own.

    Texts in it are ready to be shown: characters that do not print are escapes.
    """
    text = json.dumps(_shown(value), separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return _as_it_is(text)


def _shown(value: object) -> object:
    """The same value with every text escaped as `escape` does it."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    return value


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: object) -> object:
        # Every text that a template puts out comes by here; markup has been made by us.
        return escape(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader("dlltracer.report", "templates"), autoescape=True, undefined=StrictUndefined,
        finalize=finalize, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["as_lines"] = _lines_as_they_are
    environment.filters["plain"] = escape
    return environment


def _lines_as_they_are(text: str) -> Markup:
    """A text of several lines, for an element that keeps them."""
    from markupsafe import Markup
    from markupsafe import escape as escape_markup

    return Markup("\n").join(escape_markup(escape(line)) for line in text.splitlines())


def _as_it_is(text: str) -> Markup:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - style, script and escaped JSON


@functools.cache
def _joined(names: tuple[str, ...]) -> str:
    folder = resources.files("dlltracer.report") / "templates"
    return "".join((folder / name).read_text(encoding="utf-8") for name in names)


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _draw(graph: PageGraph, picture: Picture) -> list[_Drawn]:
    drawn = []
    for number, (node, box) in enumerate(zip(graph.nodes, picture.nodes, strict=True)):
        key = node.kind.value if node.state is None else node.state.key
        icon = "" if node.state is None else "bad" if node.state.is_bad else key
        has_icon = icon in ("bad", "dropped", "late", "unloaded", "system")
        room = _LABEL_ROOM_WITH_ICON if has_icon else _LABEL_ROOM
        kind = "image" if node.kind is PageNodeKind.IMAGE else "group"
        classes = f"node {kind} {key}{' bad' if icon == 'bad' else ''}"
        label = label_of(escape(node.title), room)
        drawn.append(_Drawn(number, box.x, box.y, label, classes, icon if has_icon else ""))
    return drawn


def _path(picture: Picture) -> str:
    """All lines as one SVG path: out of the parent, down in the middle of the gap, into the child."""
    parts = []
    for x1, y1, x2, y2 in picture.lines:
        if y1 == y2:
            parts.append(f"M{x1:.0f} {y1:.0f}H{x2:.0f}")
            continue
        middle = x1 + 16
        parts.append(f"M{x1:.0f} {y1:.0f}H{middle - 6:.0f}q6 0 6 6V{y2 - 6:.0f}q0 6 6 6H{x2:.0f}")
    return "".join(parts)


_NO_NEWS = (State.LOADED, State.FOUND)


def outline_of(graph: PageGraph) -> str:
    """A tree of lines, characters that do not print escaped; empty for a graph without nodes."""
    below: list[list[TreeNode]] = [[] for _ in graph.nodes]
    roots: list[TreeNode] = []
    # Children come behind their parents, so from the end each node finds its own finished.
    for number in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[number]
        done = TreeNode(((_line(graph, number), PLAIN),), tuple(reversed(below[number])))
        (roots if node.parent is None else below[node.parent]).append(done)
    # The roots stand at the left, without a branch of their own.
    return "".join(
        Styled((root.label, *draw(root.below, UNICODE))).plain for root in reversed(roots)
    )  # fmt: skip


def _line(graph: PageGraph, number: int) -> str:
    node = graph.nodes[number]
    image = node.image
    if image is None:
        return f"{node.title}  {node.note}" if node.note else node.title
    parts = [node.title]
    if image.path != node.title:
        parts.append(image.path)
    if image.state not in _NO_NEWS:
        parts.append(f"{image.state.value.upper()}{f': {image.reason}' if image.reason else ''}")
    elif image.rule:
        parts.append(f"found by {image.rule}")
    return "  ".join(parts)
