"""The layout of the picture: whatever the tree, nothing covers anything, and it is the same every time."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from builders.report_traces import many_images
from dlltracer.report.html.build_graph import graph_of_trace
from dlltracer.report.html.graph import Box, PageGraph, PageNode, PageNodeKind, lay_out


@st.composite
def forests(draw: st.DrawFn) -> PageGraph:
    size = draw(st.integers(0, 60))
    parents = [draw(st.none() | st.integers(0, number - 1)) if number else None for number in range(size)]
    return PageGraph(tuple(PageNode(PageNodeKind.IMAGE, str(number), parent) for number, parent in enumerate(parents)))


def overlap(one: Box, other: Box) -> bool:
    return (
        one.x < other.x + other.width and other.x < one.x + one.width
        and one.y < other.y + other.height and other.y < one.y + one.height
    )  # fmt: skip


def holds(outer: Box, inner: Box) -> bool:
    return (
        outer.x <= inner.x and inner.x + inner.width <= outer.x + outer.width
        and outer.y <= inner.y and inner.y + inner.height <= outer.y + outer.height
    )  # fmt: skip


@settings(deadline=None)
@given(forests())
def test_no_node_covers_another_and_panels_hold_nodes_whole(graph: PageGraph) -> None:
    picture = lay_out(graph)
    assert len(picture.nodes) == len(graph.nodes)
    for number, box in enumerate(picture.nodes):
        assert not any(overlap(box, other) for other in picture.nodes[:number])
        assert holds(Box(0, 0, picture.width, picture.height), box)
        for panel in picture.panels:
            assert holds(panel, box) or not overlap(panel, box)


@settings(deadline=None)
@given(forests())
def test_a_node_stands_to_the_right_of_its_parent_and_not_above(graph: PageGraph) -> None:
    picture = lay_out(graph)
    for box, node in zip(picture.nodes, graph.nodes, strict=True):
        if node.parent is not None:
            parent = picture.nodes[node.parent]
            assert box.x >= parent.x + parent.width and box.y >= parent.y


@settings(deadline=None)
@given(forests())
def test_every_node_with_a_parent_is_reached_by_a_line(graph: PageGraph) -> None:
    picture = lay_out(graph)
    ends = {(x, y) for _, _, x, y in picture.lines}
    for box, node in zip(picture.nodes, graph.nodes, strict=True):
        in_panel = any(holds(panel, box) for panel in picture.panels)
        assert node.parent is None or in_panel or (box.x, box.y + box.height / 2) in ends


def test_the_same_graph_gives_the_same_picture() -> None:
    graph = graph_of_trace(many_images(300))
    assert lay_out(graph) == lay_out(graph)


def test_a_deep_chain_is_one_line() -> None:
    parents = (number - 1 if number else None for number in range(5000))
    chain = PageGraph(tuple(PageNode(PageNodeKind.IMAGE, "x", parent) for parent in parents))
    assert len({box.y for box in lay_out(chain).nodes}) == 1


def test_many_roots_fill_columns() -> None:
    roots = PageGraph(tuple(PageNode(PageNodeKind.IMAGE, "x") for _ in range(300)))
    picture = lay_out(roots)
    assert 0.5 < picture.width / picture.height < 4
