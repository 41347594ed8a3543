"""Makes graphs of who needs what: nodes and edges for programs that draw."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from ..model.events import Event, LoadFailedEvent, Phase, ProbeOutcome
from ..model.recording import Recording
from ..model.run import SavedTrace
from ..model.screen import escape
from ..model.tree import Binding, BindingState, LoadTree
from ..model.words import rule_title
from .counts import FinalEvent, count, final_events, is_consequence
from .drawing import file_name, number

MOST_EDGES = 50_000
"""Edges of a graph: more than any program draws. 600 images that need one another have 360,000."""


class NodeKind(enum.Enum):
    """The kind of thing that a node stands for."""

    TOP = "top"
    """The file that the question is about."""
    IMAGE = "image"
    IMPORT = "import"
    """A Python module whose import asked for what is below it."""
    SYSTEM = "system"
    """A library that the operating system provides."""
    FAILED = "failed"
    """Missing, refused, or failed by itself."""
    DROPPED = "dropped"
    """An image that left because another one failed."""


@dataclass(frozen=True)
class GraphNode:
    """A node.

    Attributes:
        kind: what it stands for.
        name: for people.
        detail: what stands below the name: the folder, what went wrong.
        path: the whole path of an image; empty for what is none.
        process: the process it belongs to; `None` where there is but one.
    """

    kind: NodeKind
    name: str
    detail: str = ""
    path: str = ""
    process: int | None = None


@dataclass(frozen=True)
class GraphEdge:
    """From what needs to what is needed, both as places in `Graph.nodes`; the rule in words; `weak` needs may miss."""

    start: int
    end: int
    label: str = ""
    weak: bool = False


@dataclass(frozen=True)
class Graph:
    """A graph with a title, and notes on what it does not show.

    Attributes: `processes`, the title of each process by its id, where there are several.
    """

    title: str
    nodes: tuple[GraphNode, ...]
    edges: tuple[GraphEdge, ...]
    notes: tuple[str, ...] = ()
    processes: tuple[tuple[int, str], ...] = ()

    def members(self) -> dict[int | None, list[int]]:
        """The places of the nodes of each process that has a title; under `None` those of no such process."""
        found: dict[int | None, list[int]] = {None: [], **{process: [] for process, _ in self.processes}}
        for place, node in enumerate(self.nodes):
            found.get(node.process, found[None]).append(place)
        return found


class _GraphBuilder:
    """Collects nodes, one for each key, and edges, one for each pair."""

    def __init__(self) -> None:
        self._places: dict[object, int] = {}
        self.nodes: list[GraphNode] = []
        self._edges: dict[tuple[int, int], GraphEdge] = {}
        self._left_out = 0

    def node(self, key: object, node: GraphNode) -> int:
        """The place of the node with that key; `node` is what it becomes if it is new."""
        if key not in self._places:
            self._places[key] = len(self.nodes)
            self.nodes.append(node)
        return self._places[key]

    def find(self, key: object) -> int | None:
        return self._places.get(key)

    def put(self, place: int, node: GraphNode) -> None:
        self.nodes[place] = node

    def edge(self, start: int, end: int, label: str = "", weak: bool = False) -> None:
        """Add an edge, unless the two are joined already; a need that must not miss wins over one that may."""
        known = self._edges.get((start, end))
        if known is None and len(self._edges) >= MOST_EDGES:
            self._left_out += 1
        elif known is None or (known.weak and not weak):
            self._edges[start, end] = GraphEdge(start, end, label, weak)

    def graph(self, title: str, notes: Iterable[str], processes: tuple[tuple[int, str], ...] = ()) -> Graph:
        """Return the graph of all that was added, with a note on edges that were too many."""
        edges = tuple(self._edges.values())
        more = (f"{self._left_out} more needs are left out",) if self._left_out else ()
        return Graph(title, tuple(self.nodes), edges, (*more, *notes), processes)


def graph_of_tree(tree: LoadTree) -> Graph:
    """Every image of the tree, every name that is missing or of the system, and who needs it."""
    builder = _GraphBuilder()
    for path in tree.images:
        kind = NodeKind.TOP if path == tree.top else NodeKind.IMAGE
        builder.node(("image", path), _image(path, kind))
    for binding in tree.bindings:
        start = builder.find(("image", binding.requested_by))
        if start is None:
            start = builder.node(("image", binding.requested_by), _image(binding.requested_by))
        builder.edge(start, _need_node(builder, binding), _binding_label(binding), binding.delayed)
    return builder.graph(f"what {tree.top} needs", tree.notes)


def _image(path: str, kind: NodeKind = NodeKind.IMAGE) -> GraphNode:
    name = file_name(path)
    return GraphNode(kind, name, path.removesuffix(name), path)


def _need_node(builder: _GraphBuilder, binding: Binding) -> int:
    if binding.state is BindingState.BOUND and binding.path is not None:
        known = builder.find(("image", binding.path))
        return known if known is not None else builder.node(("image", binding.path), _image(binding.path))
    if binding.state in (BindingState.MISSING, BindingState.REFUSED):
        what = "not found" if binding.state is BindingState.MISSING else "refused"
        words = ": ".join(filter(None, (what, binding.path, binding.reason)))
        return builder.node(("failed", binding.need, what), GraphNode(NodeKind.FAILED, binding.need, words))
    return builder.node(("system", binding.need), GraphNode(NodeKind.SYSTEM, binding.need, "of the system"))


def _binding_label(binding: Binding) -> str:
    late = "at the first call" if binding.delayed else ""
    rule = _rule(binding.phase, None) if binding.state is BindingState.BOUND else ""
    return ", ".join(filter(None, (rule, late)))


def _rule(phase: Phase | None, origin: str | None) -> str:
    """The rule in words; of an origin that is a whole path only the file's name, for edges are short."""
    if phase in (None, Phase.DIRECT, Phase.LOADED):
        return ""
    assert phase is not None
    return rule_title(phase, None if phase is not Phase.OTHER else origin)


def graph_of_trace(saved: SavedTrace) -> Graph:
    """The Python imports of a trace, the images loaded for each, what those needed, and what failed."""
    recording = saved.recording
    by_pid: dict[int | None, list[Event]] = {}
    for event in recording.events:
        by_pid.setdefault(getattr(event, "pid", None), []).append(event)
    several = len(by_pid) > 1
    builder = _GraphBuilder()
    for pid, own in by_pid.items():
        process = _process_id(recording, pid) if several else None
        _add_process(builder, replace(recording, events=tuple(own)), process)
    processes = tuple(_process_titles(recording, by_pid)) if several else ()
    notes = (*_trace_notes(recording), *recording.notes, *saved.problems)
    return builder.graph(saved.what or f"a trace by {recording.backend}", notes, processes)


def _process_id(recording: Recording, pid: int | None) -> int:
    """A number for the process: an event that does not tell belongs to the one traced."""
    return pid if pid is not None else recording.pid or 0


def _process_titles(recording: Recording, pids: Iterable[int | None]) -> Iterator[tuple[int, str]]:
    known = {process.pid: process for process in recording.processes}
    for pid in dict.fromkeys(_process_id(recording, pid) for pid in pids):
        process = known.get(pid)
        name = " ".join(process.command) if process is not None and process.command else ""
        yield pid, f"process {pid}: {name}" if name else f"process {pid}"


def _trace_notes(recording: Recording) -> Iterator[str]:
    counts = count(recording)
    if counts.raw:
        yield f"{number(counts.raw, 'raw event')} not shown"
    if recording.losses:
        yield "evidence was lost: the graph is not complete"


def _add_process(builder: _GraphBuilder, recording: Recording, process: int | None) -> None:
    for event in final_events(recording):
        place = _event_node(builder, event, process)
        requested_by = builder.find((process, "image", event.requested_by)) if event.requested_by else None
        start = requested_by if requested_by not in (None, place) else _import_node(builder, event.imports, process)
        if start is not None:
            origin = next((p.origin for p in event.probes or () if p.outcome is ProbeOutcome.LOADED), None)
            builder.edge(start, place, _rule(event.phase, origin))


def _event_node(builder: _GraphBuilder, event: FinalEvent, process: int | None) -> int:
    path = event.shown_path
    node = replace(_image(path), process=process)
    if isinstance(event, LoadFailedEvent):
        if is_consequence(event):
            node = replace(node, kind=NodeKind.DROPPED, detail=f"{node.detail}\ndropped because of the failure")
        else:
            what = event.kind.value if event.kind is not None else "failed"
            detail = ": ".join(filter(None, (what, event.reason)))
            node = replace(node, kind=NodeKind.FAILED, name=file_name(event.need or path), detail=detail)
    known = builder.find((process, "image", event.path))
    if known is None:
        return builder.node((process, "image", event.path), node)
    if builder.nodes[known].kind is not NodeKind.FAILED:
        builder.put(known, node)  # of an image with several events the last one counts; a failure stays
    return known


def _import_node(builder: _GraphBuilder, imports: tuple[str, ...] | None, process: int | None) -> int | None:
    """The node of the innermost import, with those around it and the edges between them; `None` outside of imports."""
    place: int | None = None
    for name in imports or ():
        inner = builder.node((process, "import", name), GraphNode(NodeKind.IMPORT, name, process=process))
        if place is not None and place != inner:
            builder.edge(place, inner)
        place = inner
    return place


class _Notation(Protocol):
    """A language for graphs: how it writes each part of one."""

    @property
    def end_of_group(self) -> str: ...
    def begin(self, title: str) -> Iterator[str]: ...
    def note(self, text: str) -> str: ...
    def group(self, process: int, title: str) -> Iterator[str]: ...
    def node(self, place: int, node: GraphNode) -> str: ...
    def edge(self, edge: GraphEdge) -> str: ...
    def end(self, graph: Graph) -> Iterator[str]: ...


def render_dot(graph: Graph) -> str:
    """Return the graph for `dot` of Graphviz. Names are text in it whatever they contain; no node is left out."""
    return "".join(f"{line}\n" for line in _render(graph, _Dot()))


def render_mermaid(graph: Graph) -> str:
    """Return the graph as a flowchart of Mermaid. Names are text in it whatever they contain; no node is left out."""
    return "".join(f"{line}\n" for line in _render(graph, _Mermaid()))


def _render(graph: Graph, notation: _Notation) -> Iterator[str]:
    yield from notation.begin(graph.title)
    for note in graph.notes:
        yield f"  {notation.note(note)}"
    grouped = graph.members()
    for process, title in graph.processes:
        yield from notation.group(process, title)
        for place in grouped[process]:
            yield f"    {notation.node(place, graph.nodes[place])}"
        yield f"  {notation.end_of_group}"
    for place in grouped[None]:
        yield f"  {notation.node(place, graph.nodes[place])}"
    for edge in graph.edges:
        yield f"  {notation.edge(edge)}"
    yield from notation.end(graph)


def _label_rows(node: GraphNode, escape_row: Callable[[str], str]) -> list[str]:
    return [escape_row(row) for row in (node.name, *filter(None, node.detail.split("\n")))]


class _Dot:
    """The language of Graphviz."""

    _STYLES: ClassVar = {
        NodeKind.TOP: 'penwidth="2"',
        NodeKind.IMAGE: "",
        NodeKind.IMPORT: 'shape="oval" fillcolor="#e8f0fe"',
        NodeKind.SYSTEM: 'fillcolor="#eeeeee" color="#999999"',
        NodeKind.FAILED: 'fillcolor="#fde0dc" color="#b3261e" penwidth="2"',
        NodeKind.DROPPED: 'fillcolor="#fff4e5" color="#b3261e" style="filled,dashed"',
    }
    end_of_group = "}"

    def begin(self, title: str) -> Iterator[str]:
        yield "digraph dlltracer {"
        yield f"  graph [label={self._quote(title)} labelloc=t rankdir=LR]"
        yield '  node [shape=box style=filled fillcolor="#ffffff" fontname="sans-serif" fontsize=10]'
        yield '  edge [fontname="sans-serif" fontsize=8 color="#555555"]'

    def note(self, text: str) -> str:
        return f"// note: {escape(text)}"

    def group(self, process: int, title: str) -> Iterator[str]:
        yield f"  subgraph cluster_{process} {{"
        yield f"    label={self._quote(title)} labelloc=t"

    def node(self, place: int, node: GraphNode) -> str:
        label = "\\n".join(_label_rows(node, self._escape))
        more = (f"tooltip={self._quote(node.path)}" if node.path else "", self._STYLES[node.kind])
        return " ".join(filter(None, (f'n{place} [label="{label}"', *more))) + "]"

    def edge(self, edge: GraphEdge) -> str:
        label = (f"label={self._quote(edge.label)}",) if edge.label else ()
        attributes = " ".join((*label, *(("style=dashed",) if edge.weak else ())))
        return f"n{edge.start} -> n{edge.end}{f' [{attributes}]' if attributes else ''}"

    def end(self, graph: Graph) -> Iterator[str]:
        yield "}"

    def _quote(self, text: str) -> str:
        return f'"{self._escape(text)}"'

    def _escape(self, text: str) -> str:
        """Return text for a label. In one, a backslash begins an escape, and `&name;` is a character."""
        return escape(text).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')


_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-./: ()+=,")
_SAFE_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/")


class _Mermaid:
    """The language of Mermaid's flowcharts."""

    _CLASSES: ClassVar = {
        NodeKind.TOP: "stroke-width:3px",
        NodeKind.IMPORT: "fill:#e8f0fe,color:#000",
        NodeKind.SYSTEM: "fill:#eee,stroke:#999,color:#000",
        NodeKind.FAILED: "fill:#fde0dc,stroke:#b3261e,stroke-width:3px,color:#000",
        NodeKind.DROPPED: "fill:#fff4e5,stroke:#b3261e,stroke-dasharray:4,color:#000",
    }
    end_of_group = "end"

    def begin(self, title: str) -> Iterator[str]:
        yield "flowchart LR"
        yield f"  %% {self._comment(title)}"

    def note(self, text: str) -> str:
        return f"%% note: {self._comment(text)}"

    def group(self, process: int, title: str) -> Iterator[str]:
        yield f"  subgraph p{process}[{self._quote(title)}]"

    def node(self, place: int, node: GraphNode) -> str:
        label = "<br/>".join(_label_rows(node, self._escape))
        opening, closing = ("([", "])") if node.kind is NodeKind.IMPORT else ("[", "]")
        return f'n{place}{opening}"{label}"{closing}'

    def edge(self, edge: GraphEdge) -> str:
        arrow = "-.->" if edge.weak else "-->"
        return f"n{edge.start} {arrow}{f'|{self._quote(edge.label)}|' if edge.label else ''} n{edge.end}"

    def end(self, graph: Graph) -> Iterator[str]:
        for kind, style in self._CLASSES.items():
            members = [f"n{place}" for place, node in enumerate(graph.nodes) if node.kind is kind]
            if members:
                yield f"  classDef {kind.value}Node {style}"
                yield f"  class {','.join(members)} {kind.value}Node"

    def _quote(self, text: str) -> str:
        return f'"{self._escape(text)}"'

    def _comment(self, text: str) -> str:
        """Return text for behind %%. Braces there begin a directive: %%{init: ...}%%."""
        return escape(text).replace("{", "(").replace("}", ")")

    def _escape(self, text: str) -> str:
        """Return text for between quotes. Each character that is not plain becomes an entity code, as #35; for "#".

        Mermaid reads labels as Markdown and draws them as HTML; an entity code is neither. The first character is
        special ("1. a" and "- a" would be lists). So is an underscore at the edge of a word: __init__ would be bold.
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
