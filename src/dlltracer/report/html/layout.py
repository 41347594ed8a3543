"""Where the nodes of a graph stand in the picture. The same graph always gives the same picture.

Columns from left to right are steps of the tree. What hangs on a node begins on its own line, so a chain is one line.
Many images that nothing hangs on share a panel, a grid behind one edge. The trees of a forest fill columns, so that
the picture comes out about as wide as a screen is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .graph import PageGraph

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
