"""Graphs of trees and traces, and the languages they are written in: names stay names, whatever they contain."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.memory_filesystem import elf_image
from builders.saved_case import APP, HOSTILE, hostile_trace, saved_trace, trace_of
from dlltracer.model.events import DebugEvent, LoadEvent, Phase
from dlltracer.model.recording import Recording, TracedProcess
from dlltracer.model.tree import Binding, BindingState, LoadTree
from dlltracer.report.graph import (
    Graph,
    GraphEdge,
    GraphNode,
    NodeKind,
    graph_of_trace,
    graph_of_tree,
    render_dot,
    render_mermaid,
)

TOP = "/x/mod.so"
TREE = LoadTree(
    TOP,
    {TOP: elf_image(), "/x/liba.so": elf_image()},
    (
        Binding("liba.so", TOP, BindingState.BOUND, "/x/liba.so", Phase.RUNPATH),
        Binding("libz.so", TOP, BindingState.MISSING, delayed=True),
        Binding("liba.so", "/x/liba.so", BindingState.BOUND, "/x/liba.so", Phase.LOADED),
        Binding("libz.so", "/x/liba.so", BindingState.MISSING),
        Binding("libr.so", "/x/liba.so", BindingState.REFUSED, "/x/libr.so", reason="wrong machine"),
        Binding("k.dll", "/x/liba.so", BindingState.SYSTEM),
    ),
    ("a note",),
)


def edges(graph: Graph) -> list[tuple[str, str, str, bool]]:
    names = [node.name for node in graph.nodes]
    return [(names[edge.start], names[edge.end], edge.label, edge.weak) for edge in graph.edges]


def test_a_tree_as_a_graph() -> None:
    graph = graph_of_tree(TREE)
    assert [(node.kind, node.name, node.detail) for node in graph.nodes] == [
        (NodeKind.TOP, "mod.so", "/x/"),
        (NodeKind.IMAGE, "liba.so", "/x/"),
        (NodeKind.FAILED, "libz.so", "not found"),
        (NodeKind.FAILED, "libr.so", "refused: /x/libr.so: wrong machine"),
        (NodeKind.SYSTEM, "k.dll", "of the system"),
    ]
    assert edges(graph) == [
        ("mod.so", "liba.so", "RUNPATH", False),
        ("mod.so", "libz.so", "at the first call", True),
        ("liba.so", "liba.so", "", False),
        ("liba.so", "libz.so", "", False),
        ("liba.so", "libr.so", "", False),
        ("liba.so", "k.dll", "", False),
    ]
    assert graph.notes == ("a note",)


def test_a_trace_as_a_graph() -> None:
    graph = graph_of_trace(saved_trace())
    assert [(node.kind, node.name) for node in graph.nodes] == [
        (NodeKind.DROPPED, "mod.so"),
        (NodeKind.IMPORT, "m"),
        (NodeKind.IMAGE, "liba.so"),
        (NodeKind.FAILED, "libgone.so"),
        (NodeKind.IMAGE, "in.so"),
        (NodeKind.IMPORT, "n"),
        (NodeKind.IMPORT, "n.i"),
    ]
    assert edges(graph) == [
        ("m", "mod.so", "", False),
        ("mod.so", "liba.so", "cache", False),
        ("mod.so", "libgone.so", "", False),
        ("n", "n.i", "", False),
        ("n.i", "in.so", "", False),
    ]
    assert graph.processes == () and graph.notes == ("a note",)


def test_processes_stand_apart() -> None:
    events = (LoadEvent(APP, pid=7), LoadEvent(APP, pid=8), LoadEvent("/b.so", pid=8, requested_by=APP))
    processes = (TracedProcess(7, command=("python", "x.py")), TracedProcess(8))
    graph = graph_of_trace(saved_trace(recording=Recording("rtld", events, pid=7, processes=processes)))
    assert [(node.name, node.process) for node in graph.nodes] == [("mod.so", 7), ("mod.so", 8), ("b.so", 8)]
    assert [(edge.start, edge.end) for edge in graph.edges] == [(1, 2)]
    assert graph.processes == ((7, "process 7: python x.py"), (8, "process 8"))
    assert "subgraph cluster_8 {" in render_dot(graph) and 'subgraph p8["process 8"]' in render_mermaid(graph)


def test_raw_events_are_counted() -> None:
    import uuid

    graph = graph_of_trace(trace_of(DebugEvent(uuid.UUID(int=1), 2, b"", b"")))
    assert graph.nodes == () and graph.notes == ("1 raw event not shown",)


def test_dot() -> None:
    text = render_dot(graph_of_tree(TREE))
    assert text.startswith("digraph dlltracer {\n") and text.endswith("}\n")
    assert '  n1 [label="liba.so\\n/x/" tooltip="/x/liba.so"]\n' in text
    assert '  n0 -> n1 [label="RUNPATH"]\n' in text
    assert '  n0 -> n2 [label="at the first call" style=dashed]\n' in text
    assert "  // note: a note\n" in text


def test_mermaid() -> None:
    text = render_mermaid(graph_of_tree(TREE))
    assert text.splitlines()[:3] == ["flowchart LR", "  %% what /x/mod.so needs", "  %% note: a note"]
    assert '  n1["liba.so<br/>/x/"]\n' in text
    assert '  n0 -->|"RUNPATH"| n1\n' in text and '  n0 -.->|"at the first call"| n2\n' in text
    assert "  class n2,n3 failedNode\n" in text


LINE_OF_DOT = re.compile(
    r"""\s*(?:digraph\ dlltracer\ \{ | subgraph\ cluster_\d+\ \{ | \} | //\ note:\ .*
    | (?:graph|node|edge|n\d+(?:\ ->\ n\d+)?)?\ ?(?:\[)?(?:\w+=(?:"(?:[^"\\]|\\.)*"|\w+)\ ?)*\]? )""",
    re.VERBOSE,
)
LINE_OF_MERMAID = re.compile(
    r"""flowchart\ LR | \s*(?:%%\ [^{}]* | end | subgraph\ p\d+\["[^"]*"\] | classDef\ \w+\ \S+ | class\ [\w,]+\ \w+
    | n\d+(?:\["[^"]*"\]|\(\["[^"]*"\]\)) | n\d+\ (?:-->|-\.->)(?:\|"[^"]*"\|)?\ n\d+ )""",
    re.VERBOSE,
)


def check_lines(graph: Graph) -> None:
    dot, mermaid = render_dot(graph), render_mermaid(graph)
    for line in dot.splitlines():
        assert LINE_OF_DOT.fullmatch(line), line
    for line in mermaid.splitlines():
        assert LINE_OF_MERMAID.fullmatch(line), line
    for text in (dot, mermaid):
        assert all(char.isprintable() or char == "\n" for char in text)
    drawn = "\n".join(line for line in mermaid.splitlines() if not line.lstrip().startswith("%%"))
    for label in re.findall(r'"([^"]*)"', drawn):
        assert not set("`<>&*[]{}|\\") & set(label.replace("<br/>", "")), label


def test_hostile_names() -> None:
    graph = graph_of_trace(hostile_trace())
    check_lines(graph)
    names = [*(node.name for node in graph.nodes), *(node.detail for node in graph.nodes)]
    assert any("`ticks```" in name for name in names)
    tree = LoadTree(
        HOSTILE[0],
        {name: elf_image() for name in HOSTILE},
        tuple(Binding(name, HOSTILE[0], BindingState.REFUSED, name, reason=name) for name in HOSTILE),
        HOSTILE,
    )
    check_lines(graph_of_tree(tree))


@given(st.text(st.characters(codec=None), max_size=30))
def test_any_name(name: str) -> None:
    nodes = (GraphNode(NodeKind.IMAGE, name, name, name, 1), GraphNode(NodeKind.IMPORT, name))
    check_lines(Graph(name, nodes, (GraphEdge(0, 1, name),), (name,), ((1, name),)))


def decode(label: str) -> str:
    return re.sub(r"#(\d+);", lambda found: chr(int(found[1])), label)


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=30))
def test_mermaid_shows_the_name(name: str) -> None:
    from dlltracer.report.drawing import escape

    text = render_mermaid(Graph("t", (GraphNode(NodeKind.IMAGE, name),), ()))
    label = re.search(r'n0\["([^"]*)"\]', text)
    assert label is not None and decode(label[1]) == escape(name)


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs dot (apt graphviz)")
def test_graphviz_reads_it_and_shows_the_names() -> None:
    from dlltracer.report.drawing import escape

    for graph in (graph_of_tree(TREE), graph_of_trace(hostile_trace())):
        ran = subprocess.run(
            ["dot", "-Tjson"], input=render_dot(graph).encode(), capture_output=True, timeout=120, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, b"")
        output = json.loads(ran.stdout)
        shown = {one["name"]: one for one in output["objects"] if one["name"].startswith("n")}
        assert len(shown) == len(graph.nodes) and len(output.get("edges", [])) == len(graph.edges)
        for place, node in enumerate(graph.nodes):
            drawn = [op["text"] for op in shown[f"n{place}"]["_ldraw_"] if op["op"] == "T"]
            assert drawn == [escape(row) for row in (node.name, *filter(None, node.detail.split("\n")))]
