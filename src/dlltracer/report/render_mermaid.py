"""A graph as a Mermaid flowchart (mermaid.js.org/syntax/flowchart.html), which GitHub and GitLab draw in Markdown."""

from __future__ import annotations

from ..model.printable import escape
from .graph import Graph, GraphEdge, GraphNode, NodeKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CLASSES = {
    NodeKind.TOP: "stroke-width:3px",
    NodeKind.IMPORT: "fill:#e8f0fe,color:#000",
    NodeKind.SYSTEM: "fill:#eee,stroke:#999,color:#000",
    NodeKind.FAILED: "fill:#fde0dc,stroke:#b3261e,stroke-width:3px,color:#000",
    NodeKind.DROPPED: "fill:#fff4e5,stroke:#b3261e,stroke-dasharray:4,color:#000",
}

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-./: ()+=,")
_SAFE_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/")


def render_mermaid(graph: Graph) -> str:
    """The graph as the text of a flowchart. Names are text in it whatever they contain; no node is left out."""
    return "".join(f"{line}\n" for line in _lines(graph))


def _lines(graph: Graph) -> Iterator[str]:
    yield "flowchart LR"
    yield f"  %% {_comment(graph.title)}"
    for note in graph.notes:
        yield f"  %% note: {_comment(note)}"
    grouped = graph.members()
    for process, title in graph.processes:
        yield f"  subgraph p{process}[{_quote(title)}]"
        for place in grouped[process]:
            yield f"    {_node(place, graph.nodes[place])}"
        yield "  end"
    for place in grouped[None]:
        yield f"  {_node(place, graph.nodes[place])}"
    for edge in graph.edges:
        yield f"  {_edge(edge)}"
    for kind, style in _CLASSES.items():
        members = [f"n{place}" for place, node in enumerate(graph.nodes) if node.kind is kind]
        if members:
            yield f"  classDef {kind.value}Node {style}"
            yield f"  class {','.join(members)} {kind.value}Node"


def _node(place: int, node: GraphNode) -> str:
    label = "<br/>".join(_escape(row) for row in (node.name, *filter(None, node.detail.split("\n"))))
    opening, closing = ("([", "])") if node.kind is NodeKind.IMPORT else ("[", "]")
    return f'n{place}{opening}"{label}"{closing}'


def _edge(edge: GraphEdge) -> str:
    arrow = "-.->" if edge.weak else "-->"
    return f"n{edge.start} {arrow}{f'|{_quote(edge.label)}|' if edge.label else ''} n{edge.end}"


def _quote(text: str) -> str:
    return f'"{_escape(text)}"'


def _comment(text: str) -> str:
    """Text for behind %%. Braces there begin a directive: %%{init: ...}%%."""
    return escape(text).replace("{", "(").replace("}", ")")


def _escape(text: str) -> str:
    """Text for between quotes: whatever is not plain becomes an entity code of Mermaid's, as #35; for "#".

    Labels are read as Markdown and drawn as HTML; an entity code is neither. The first character counts twice ("1. a"
    and "- a" would be lists), and so does an underscore that is not within a word: __init__ would be bold.
    """
    shown = escape(text)
    return "".join(
        char if _is_plain(char, shown[place - 1 : place], shown[place + 1 : place + 2]) else f"#{ord(char)};"
        for place, char in enumerate(shown)
    )


def _is_plain(char: str, before: str, after: str) -> bool:
    if char == "_":
        return before.isalnum() and after.isalnum()
    if ord(char) > 127:
        return char.isalnum()
    return char in (_SAFE if before else _SAFE_FIRST)
