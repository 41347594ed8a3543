"""The graph of a report, as a tree with further edges; and where its nodes stand in the picture.

Columns from left to right are steps of the tree. What hangs on a node begins on its own line, so a chain is one line.
Many images that nothing hangs on share a panel, a grid behind one edge. The trees of a forest fill columns, so that
the picture comes out about as wide as a screen is.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from ...model.events import Phase, Probe, ProbeOutcome
from ...model.run import ImageFacts
from ...model.words import rule_title


class State(enum.Enum):
    """What became of an image; the values are the words that people read."""

    LOADED = "loaded"
    UNLOADED = "unloaded"
    """Loaded, and let go later, for no failure."""
    FOUND = "found"
    """For a file that was not loaded: a loader would take it."""
    SYSTEM = "of the system"
    LATE = "missing at the first call"
    """Not found, and looked for only when it is first called: no load fails of it."""
    DROPPED = "dropped"
    """Fine by itself; it left because another load failed."""
    NOT_FOUND = "not found"
    REFUSED = "refused"
    FAILED = "failed"

    @property
    def key(self) -> str:
        """A word for style sheets and scripts."""
        return self.name.lower().replace("_", "-")

    @property
    def is_bad(self) -> bool:
        """Whether it is a failure by itself."""
        return self in (State.NOT_FOUND, State.REFUSED, State.FAILED)


class PageNodeKind(enum.Enum):
    """What a node stands for."""

    PROCESS = "process"
    IMPORT = "import"
    IMAGE = "image"


@dataclass(frozen=True)
class ImageView:
    """An image, or a need that became none. A field is `None` where it is not known; texts are as they came.

    Attributes:
        name: the name asked for, or that of the file.
        path: for people.
        state, reason: what became of it, and the loader's words on it.
        rule: what found it, in words.
        requested_by: path of the image that asked.
        imports: the Python imports in progress.
        pid: the process.
        base, size, time: address, bytes as mapped, seconds since the epoch.
        probes: the places tried.
        facts: of the file.
        concluded: it is not from an event but was worked out: the text says of what.
    """

    name: str
    path: str
    state: State
    reason: str | None = None
    rule: str | None = None
    requested_by: str | None = None
    imports: tuple[str, ...] | None = None
    pid: int | None = None
    base: int | None = None
    size: int | None = None
    time: float | None = None
    probes: tuple[Probe, ...] = ()
    facts: ImageFacts | None = None
    concluded: str | None = None


@dataclass(frozen=True)
class PageNode:
    """A node. `parent` is the number of the one it hangs on: an image that asked for it, an import, a process."""

    kind: PageNodeKind
    title: str
    parent: int | None = None
    note: str = ""
    image: ImageView | None = None

    @property
    def state(self) -> State | None:
        return None if self.image is None else self.image.state


class EdgeKind(enum.Enum):
    """How it is known that an image needs another."""

    ASKED = "asked"
    """The loader named the requester."""
    LISTED = "listed"
    """The file lists the name."""
    VERDICT = "verdict"
    """The verdict says so."""


@dataclass(frozen=True)
class Edge:
    """The image at `start` needs the one at `end`."""

    start: int
    end: int
    kind: EdgeKind


@dataclass(frozen=True)
class PageGraph:
    """Nodes by number, each behind its parent.

    Attributes:
        nodes: the number of a node is its place here.
        edges: who needs whom; those between a node and its parent are among them where they are needs.
        elsewhere: number to the names needed that are no image of the graph.
        focus: number of the node to look at first.
        left_out: sentences that count what was left out of a graph that is too large for a page.
    """

    nodes: tuple[PageNode, ...]
    edges: tuple[Edge, ...] = ()
    elsewhere: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    focus: int | None = None
    left_out: tuple[str, ...] = ()

    @property
    def images(self) -> list[tuple[int, ImageView]]:
        """The images with the numbers of their nodes."""
        return [(number, node.image) for number, node in enumerate(self.nodes) if node.image is not None]

    def children(self) -> list[list[int]]:
        """For each node the numbers of those that hang on it, in order."""
        below: list[list[int]] = [[] for _ in self.nodes]
        for number, node in enumerate(self.nodes):
            if node.parent is not None:
                below[node.parent].append(number)
        return below

    def numbers_by_name(self) -> dict[str, int]:
        """Paths and names to the first image that has them."""
        found: dict[str, int] = {}
        for number, image in self.images:
            for name in (image.path, image.name):
                found.setdefault(name, number)
        return found


def limit(graph: PageGraph, most_nodes: int, most_edges: int) -> PageGraph:
    """Return the graph with at most so many nodes and edges: failures first, then the first ones of each.

    A browser takes seconds for 5,000 nodes, and a file of 5 MB can describe 100,000.
    """
    kept = set(range(len(graph.nodes)))
    if len(graph.nodes) > most_nodes:
        failed = [number for number, node in enumerate(graph.nodes) if node.state is not None and node.state.is_bad]
        kept = {*failed[: most_nodes // 2], *([] if graph.focus is None else [graph.focus])}
        rest = (number for number in range(len(graph.nodes)) if number not in kept)
        kept |= set(islice(rest, most_nodes - len(kept)))
    places = {number: place for place, number in enumerate(sorted(kept))}
    # A node whose parent is left out hangs on the nearest one above that is kept.
    above: list[int | None] = []
    nodes: list[PageNode] = []
    for number, node in enumerate(graph.nodes):
        parent = None if node.parent is None else above[node.parent]
        above.append(places.get(number, parent))
        if number in places:
            nodes.append(replace(node, parent=parent))
    ends = (edge for edge in graph.edges if edge.start in places and edge.end in places)
    edges = [replace(edge, start=places[edge.start], end=places[edge.end]) for edge in islice(ends, most_edges)]
    left_out = []
    if len(nodes) < len(graph.nodes):
        left_out.append(f"{len(graph.nodes) - len(nodes)} more images, imports and processes are not on this page")
    if len(nodes) == len(graph.nodes) and len(edges) < len(graph.edges):
        left_out.append(f"{len(graph.edges) - len(edges)} more needs are not on this page")
    elsewhere = {places[number]: names for number, names in graph.elsewhere.items() if number in places}
    focus = None if graph.focus is None else places[graph.focus]
    return PageGraph(tuple(nodes), tuple(edges), elsewhere, focus, tuple(left_out))


def found_by(phase: Phase | None, probes: Sequence[Probe]) -> str | None:
    """The rule that found an image, in words that follow "found by"."""
    if phase is None:
        return None
    origin = next((probe.origin for probe in probes if probe.outcome is ProbeOutcome.LOADED), None)
    return "its full path" if phase is Phase.DIRECT else rule_title(phase, origin)


def first_of_interest(nodes: Sequence[PageNode]) -> int | None:
    """The first image that failed by itself; else the first that was dropped."""
    for wanted in (lambda state: state.is_bad, lambda state: state is State.DROPPED):
        for number, node in enumerate(nodes):
            if node.state is not None and wanted(node.state):
                return number
    return None


NODE_WIDTH, NODE_HEIGHT = 208, 26
ROW, GAP = 34, 44
"""From one line to the next; from one column to the next, between the nodes."""
PANEL_FROM = 5
"""So many images that nothing hangs on get a panel."""
PANEL_PAD, PANEL_GAP, PANEL_ROW = 8, 8, 32
TREE_GAP = 22
WIDE = 1.7
"""Width of the picture by its height, as far as that can be chosen."""


@dataclass(frozen=True)
class Box:
    """A rectangle, in pixels at normal size."""

    x: float
    y: float
    width: float
    height: float

    def moved(self, dx: float, dy: float) -> Box:
        return replace(self, x=self.x + dx, y=self.y + dy)


@dataclass(frozen=True)
class Picture:
    """The layout.

    Attributes:
        nodes: the place of each node, by number.
        panels: the panels.
        lines: from a parent's right edge to a child's or panel's left edge: x, y, x, y.
        width, height: of it all.
    """

    nodes: tuple[Box, ...]
    panels: tuple[Box, ...]
    lines: tuple[tuple[float, float, float, float], ...]
    width: float
    height: float


def lay_out(graph: PageGraph) -> Picture:
    """Place every node."""
    children = graph.children()
    layout = _Layout(children)
    roots = [number for number, node in enumerate(graph.nodes) if node.parent is None]
    trees = [layout.tree(root) for root in roots]
    width, height = layout.pack(trees)
    return Picture(
        tuple(layout.boxes[number] for number in range(len(children))), tuple(layout.panels), tuple(layout.lines),
        width, height,
    )  # fmt: skip


@dataclass(frozen=True)
class _Tree:
    """A tree laid out at the origin: its size, and which nodes, panels and lines are its own."""

    width: float
    height: float
    nodes: tuple[int, ...]
    panels: slice
    lines: slice


class _Layout:
    def __init__(self, children: Sequence[Sequence[int]]) -> None:
        self._children = children
        self.boxes: dict[int, Box] = {}
        self.panels: list[Box] = []
        self.lines: list[tuple[float, float, float, float]] = []

    def tree(self, root: int) -> _Tree:
        """Lay out one tree at the origin."""
        panels, lines = len(self.panels), len(self.lines)
        placed: list[int] = []
        right = bottom = 0.0
        # Depth first and by hand: trees of libraries can be deeper than Python's stack. A step is a node with its
        # column and its parent; it takes the next free line, the first child that of its parent.
        stack: list[tuple[int, int, int | None]] = [(root, 0, None)]
        line = 0.0
        open_lines: dict[int, float] = {}
        while stack:
            node, column, parent = stack.pop()
            x = column * (NODE_WIDTH + GAP)
            y = open_lines.pop(parent, line) if parent is not None else line
            box = self._place(node, x, y)
            placed.append(node)
            if parent is not None:
                self._connect(self.boxes[parent], box.x, box.y + NODE_HEIGHT / 2)
            line = max(line, y + ROW)
            right, bottom = max(right, box.x + NODE_WIDTH), max(bottom, box.y + NODE_HEIGHT)
            leaves = [child for child in self._children[node] if not self._children[child]]
            branches = [child for child in self._children[node] if self._children[child]]
            free = y
            if len(leaves) >= PANEL_FROM:
                panel = self._panel(leaves, x + NODE_WIDTH + GAP, y)
                placed += leaves
                self._connect(box, panel.x, box.y + NODE_HEIGHT / 2)
                right, bottom = max(right, panel.x + panel.width), max(bottom, panel.y + panel.height)
                free = line = max(line, panel.y + panel.height + PANEL_PAD + 4)
                rest = branches
            else:
                rest = list(self._children[node])
            if rest:
                open_lines[node] = free
                stack += [(child, column + 1, node) for child in reversed(rest)]
        return _Tree(right, bottom, tuple(placed), slice(panels, len(self.panels)), slice(lines, len(self.lines)))

    def pack(self, trees: Sequence[_Tree]) -> tuple[float, float]:
        """Put the trees below each other, in as many columns as make the whole look well; its width and height."""
        if not trees:
            return 0.0, 0.0
        area = sum((tree.width + GAP) * (tree.height + TREE_GAP) for tree in trees)
        limit = max(math.sqrt(area / WIDE), *(tree.height for tree in trees), NODE_HEIGHT)
        margin = PANEL_PAD
        x, y, widest, tallest = 0.0, 0.0, 0.0, 0.0
        for tree in trees:
            if y > 0 and y + tree.height > limit:
                x, y, widest = x + widest + GAP, 0.0, 0.0
            self._move(tree, x + margin, y + margin)
            widest = max(widest, tree.width)
            y += tree.height + TREE_GAP
            tallest = max(tallest, y - TREE_GAP)
        return x + widest + 2 * margin, tallest + 2 * margin

    def _place(self, node: int, x: float, y: float) -> Box:
        self.boxes[node] = Box(x, y, NODE_WIDTH, NODE_HEIGHT)
        return self.boxes[node]

    def _panel(self, leaves: Sequence[int], x: float, y: float) -> Box:
        columns = max(1, round(math.sqrt(len(leaves) * PANEL_ROW / (NODE_WIDTH + PANEL_GAP) * WIDE)))
        rows = math.ceil(len(leaves) / columns)
        columns = math.ceil(len(leaves) / rows)
        for place, leaf in enumerate(leaves):
            column, row = divmod(place, rows)
            across = x + PANEL_PAD + column * (NODE_WIDTH + PANEL_GAP)
            self._place(leaf, across, y + PANEL_PAD + row * PANEL_ROW)
        width = columns * (NODE_WIDTH + PANEL_GAP) - PANEL_GAP + 2 * PANEL_PAD
        height = (rows - 1) * PANEL_ROW + NODE_HEIGHT + 2 * PANEL_PAD
        panel = Box(x, y, width, height)
        self.panels.append(panel)
        return panel

    def _connect(self, start: Box, x: float, y: float) -> None:
        self.lines.append((start.x + NODE_WIDTH, start.y + NODE_HEIGHT / 2, x, y))

    def _move(self, tree: _Tree, dx: float, dy: float) -> None:
        for node in tree.nodes:
            self.boxes[node] = self.boxes[node].moved(dx, dy)
        self.panels[tree.panels] = [panel.moved(dx, dy) for panel in self.panels[tree.panels]]
        self.lines[tree.lines] = [
            (x1 + dx, y1 + dy, x2 + dx, y2 + dy) for x1, y1, x2, y2 in self.lines[tree.lines]
        ]  # fmt: skip
