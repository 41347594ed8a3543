"""The graph of a report: images, and the imports and processes that they hang on, as a tree with further edges."""

from __future__ import annotations

import enum
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
    """The loader said who asked."""
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
