"""The graph as text: for readers of screens, for paper, and for a browser without scripts."""

from __future__ import annotations

from ..drawing import PLAIN, UNICODE, Node, Styled, draw
from .graph import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .graph import Graph

_NO_NEWS = (State.LOADED, State.FOUND)


def outline_of(graph: Graph) -> str:
    """A tree of lines, characters that do not print escaped; empty for a graph without nodes."""
    below: list[list[Node]] = [[] for _ in graph.nodes]
    roots: list[Node] = []
    # Children come behind their parents, so from the end each node finds its own finished.
    for number in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[number]
        done = Node(((_line(graph, number), PLAIN),), tuple(reversed(below[number])))
        (roots if node.parent is None else below[node.parent]).append(done)
    # The roots stand at the left, without a branch of their own.
    return "".join(
        Styled((root.label, *draw(root.below, UNICODE))).plain for root in reversed(roots)
    )  # fmt: skip


def _line(graph: Graph, number: int) -> str:
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
