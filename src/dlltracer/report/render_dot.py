"""A graph in the language of Graphviz (graphviz.org/doc/info/lang.html)."""

from __future__ import annotations

from ..model.printable import escape
from .graph import Graph, GraphEdge, GraphNode, NodeKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_STYLES = {
    NodeKind.TOP: 'penwidth="2"',
    NodeKind.IMAGE: "",
    NodeKind.IMPORT: 'shape="oval" fillcolor="#e8f0fe"',
    NodeKind.SYSTEM: 'fillcolor="#eeeeee" color="#999999"',
    NodeKind.FAILED: 'fillcolor="#fde0dc" color="#b3261e" penwidth="2"',
    NodeKind.DROPPED: 'fillcolor="#fff4e5" color="#b3261e" style="filled,dashed"',
}


def render_dot(graph: Graph) -> str:
    """The graph, ready for `dot`. Names are text in it whatever they contain; no node is left out."""
    return "".join(f"{line}\n" for line in _lines(graph))


def _lines(graph: Graph) -> Iterator[str]:
    yield "digraph dlltracer {"
    yield f"  graph [label={_quote(graph.title)} labelloc=t rankdir=LR]"
    yield '  node [shape=box style=filled fillcolor="#ffffff" fontname="sans-serif" fontsize=10]'
    yield '  edge [fontname="sans-serif" fontsize=8 color="#555555"]'
    for note in graph.notes:
        yield f"  // note: {escape(note)}"
    grouped = graph.members()
    for process, title in graph.processes:
        yield f"  subgraph cluster_{process} {{"
        yield f"    label={_quote(title)} labelloc=t"
        for place in grouped[process]:
            yield f"    {_node(place, graph.nodes[place])}"
        yield "  }"
    for place in grouped[None]:
        yield f"  {_node(place, graph.nodes[place])}"
    for edge in graph.edges:
        yield f"  {_edge(edge)}"
    yield "}"


def _node(place: int, node: GraphNode) -> str:
    label = "\\n".join(_escape(row) for row in (node.name, *filter(None, node.detail.split("\n"))))
    more = (f"tooltip={_quote(node.path)}" if node.path else "", _STYLES[node.kind])
    return " ".join(filter(None, (f'n{place} [label="{label}"', *more))) + "]"


def _edge(edge: GraphEdge) -> str:
    attributes = " ".join(
        (*((f"label={_quote(edge.label)}",) if edge.label else ()), *(("style=dashed",) if edge.weak else ()))
    )
    return f"n{edge.start} -> n{edge.end}{f' [{attributes}]' if attributes else ''}"


def _quote(text: str) -> str:
    return f'"{_escape(text)}"'


def _escape(text: str) -> str:
    """Text for between the quotes of a label. In one, a backslash begins an escape, and `&name;` is a character."""
    return escape(text).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
