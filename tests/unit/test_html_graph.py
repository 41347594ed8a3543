"""The graph of the HTML report: what hangs on what, from traces and trees made by hand."""

from __future__ import annotations

from dataclasses import replace

from builders.memory_filesystem import elf_image
from builders.report_traces import GONE, PID, SITE, load, many_images, missing, small_failure, windows_failure
from dlltracer.model.events import LoadEvent, Phase, Probe, ProbeOutcome, UnloadEvent
from dlltracer.model.recording import Recording
from dlltracer.model.run import ImageFacts, SavedTrace
from dlltracer.model.tree import Binding, BindingState, LoadTree
from dlltracer.report.html import outline_of
from dlltracer.report.html.build_graph import graph_of_trace, graph_of_tree
from dlltracer.report.html.graph import EdgeKind, PageGraph, State


def graph_of(*events: object, **more: object) -> PageGraph:
    return graph_of_trace(SavedTrace(Recording("rtld", events, PID), **more))  # type: ignore[arg-type]


def shape(graph: PageGraph) -> dict[str, str | None]:
    """Title of each node to that of its parent."""
    return {node.title: None if node.parent is None else graph.nodes[node.parent].title for node in graph.nodes}


def edges(graph: PageGraph) -> set[tuple[str, str, EdgeKind]]:
    return {(graph.nodes[e.start].title, graph.nodes[e.end].title, e.kind) for e in graph.edges}


def states(graph: PageGraph) -> dict[str, State]:
    return {image.name: image.state for _, image in graph.images}


def test_an_image_hangs_on_who_asked_and_else_on_the_import() -> None:
    graph = graph_of_trace(small_failure())
    extension = "core.cpython-311-x86_64-linux-gnu.so"
    assert shape(graph) == {
        "import pkg": None, "_json.so": "import pkg", extension: "import pkg", "libdep.so.2": extension,
        GONE: "libdep.so.2",
    }  # fmt: skip
    assert states(graph) == {
        "_json.so": State.LOADED, extension: State.DROPPED, "libdep.so.2": State.DROPPED, GONE: State.NOT_FOUND,
    }  # fmt: skip
    # What the loader said is not replaced by what the file lists.
    assert edges(graph) == {(extension, "libdep.so.2", EdgeKind.ASKED), ("libdep.so.2", GONE, EdgeKind.ASKED)}
    assert list(graph.elsewhere.values()) == [("libc.so.6",), ("libc.so.6",)]
    assert graph.focus is not None and graph.nodes[graph.focus].title == GONE


def test_a_package_inside_an_import_gets_a_node_when_it_brings_more_than_one_image() -> None:
    graph = graph_of(
        load("/x/a.so", imports=("app", "numpy", "numpy.core")), load("/x/b.so", imports=("app", "x", "numpy.random")),
        load("/x/liba.so", by="/x/a.so", imports=("app", "numpy", "numpy.core")),
        load("/x/_ssl.so", imports=("app", "ssl", "_ssl")), load("/x/own.so", imports=("app", "app.own")),
    )  # fmt: skip
    assert shape(graph) == {
        "import app": None, "import numpy": "import app", "a.so": "import numpy", "b.so": "import numpy",
        "liba.so": "a.so", "_ssl.so": "import app", "own.so": "import app",
    }  # fmt: skip


def test_outside_any_import_and_not_known() -> None:
    graph = graph_of(load("/x/a.so", imports=()), load("/x/b.so", imports=None))
    assert shape(graph) == {
        "(outside any import)": None, "a.so": "(outside any import)",
        "(which import asked is not known)": None, "b.so": "(which import asked is not known)",
    }  # fmt: skip


def test_an_asker_that_came_before_the_trace_is_no_node() -> None:
    graph = graph_of(load("/x/a.so", by="/lib/libpython3.so"))
    assert shape(graph) == {"import pkg": None, "a.so": "import pkg"}
    assert graph.images[0][1].requested_by == "/lib/libpython3.so"


def test_what_a_file_lists_is_an_edge_of_its_own_kind() -> None:
    graph = graph_of(
        load("/x/a.so"), load("/x/libb.so.1.2", by="/x/a.so", need="libb.so.1"), load("/x/c.so"),
        images=(ImageFacts("/x/c.so", needs=("libb.so.1", "c.so", "libz.so")), ImageFacts("/x/a.so")),
    )  # fmt: skip
    assert edges(graph) == {("a.so", "libb.so.1", EdgeKind.ASKED), ("c.so", "libb.so.1", EdgeKind.LISTED)}
    assert graph.elsewhere == {3: ("libz.so",)}


def test_on_windows_files_say_who_needs_whom_in_any_case_and_the_verdict_what_is_missing() -> None:
    graph = graph_of_trace(windows_failure())
    assert shape(graph) == {
        "import pkg": None, "Core.pyd": "import pkg", "Dep.dll": "Core.pyd", "msvcp140.dll": "Dep.dll",
    }  # fmt: skip
    assert edges(graph) == {
        ("Core.pyd", "Dep.dll", EdgeKind.LISTED), ("Dep.dll", "msvcp140.dll", EdgeKind.VERDICT),
    }  # fmt: skip
    gone = graph.images[-1][1]
    assert gone.state is State.NOT_FOUND and gone.concluded == "the verdict (missing-vc-runtime)"


def test_a_finding_adds_nothing_that_a_node_says_already() -> None:
    saved = small_failure()
    without = replace(saved, diagnosis=None)
    assert shape(graph_of_trace(saved)) == shape(graph_of_trace(without))


def test_an_image_that_left_without_a_failure_is_unloaded() -> None:
    first = load("/x/a.so")
    graph = graph_of(first, UnloadEvent(**vars(first)), load("/x/a.so", at=1))
    assert [image.state for _, image in graph.images] == [State.UNLOADED, State.LOADED]


def test_processes_have_nodes_and_their_own_images() -> None:
    saved = many_images(100, processes=2)
    graph = graph_of_trace(saved)
    top = [node for node in graph.nodes if node.parent is None]
    assert [(node.title, node.note) for node in top] == [
        (f"process {PID}", "python -m app0"), (f"process {PID + 1}", "python -m app1"),
    ]  # fmt: skip
    for edge in graph.edges:
        start, end = graph.nodes[edge.start].image, graph.nodes[edge.end].image
        assert start is not None and end is not None and start.pid == end.pid


def test_a_process_that_loaded_nothing_is_there_too() -> None:
    saved = many_images(50, processes=3)
    alone = replace(saved, recording=replace(saved.recording, events=saved.recording.events[:5]))
    assert [node.title for node in graph_of_trace(alone).nodes if node.parent is None] == [
        f"process {PID}", f"process {PID + 1}", f"process {PID + 2}",
    ]  # fmt: skip


def test_parents_come_before_their_children() -> None:
    for saved in (small_failure(), many_images(200, processes=2), windows_failure()):
        for number, node in enumerate(graph_of_trace(saved).nodes):
            assert node.parent is None or node.parent < number


def test_a_very_deep_chain() -> None:
    paths = [f"/x/{number}.so" for number in range(3000)]
    chain = [load(path, by=by, phase=Phase.SYSTEM) for path, by in zip(paths[1:], paths, strict=False)]
    graph = graph_of(load(paths[0]), *chain)
    assert graph.nodes[-1].parent == len(graph.nodes) - 2
    assert len(outline_of(graph).splitlines()) == 3001


def test_a_trace_of_nothing() -> None:
    assert graph_of() == PageGraph((), (), {}, None)
    assert outline_of(graph_of()) == ""


def test_the_outline_is_a_tree_of_text() -> None:
    lines = outline_of(graph_of_trace(small_failure())).splitlines()
    assert lines[0] == "import pkg"
    assert lines[1] == "├─ _json.so  /usr/lib/python3.11/lib-dynload/_json.so  found by its full path"
    assert lines[3] == f"   └─ libdep.so.2  {SITE}/pkg.libs/libdep.so.2  DROPPED"
    assert lines[4] == f"      └─ {GONE}  NOT FOUND"


def test_the_time_of_a_load_and_its_rule_are_kept() -> None:
    event = load("/x/liba.so", phase=Phase.RUNPATH, origin="/x/m.so", at=2.5)
    (_, image), = graph_of(event).images  # fmt: skip
    assert image.rule == "RUNPATH of /x/m.so" and image.time == event.timestamp
    assert isinstance(event, LoadEvent) and image.size == event.size


def test_a_load_tree() -> None:
    top = "/x/mod.so"
    gone = (Probe("/x/libz.so", Phase.RUNPATH, top, ProbeOutcome.ABSENT),)
    found = (Probe("/x/liba.so", Phase.RUNPATH, top, ProbeOutcome.LOADED),)
    tree = LoadTree(
        top,
        {top: elf_image("liba.so"), "/x/liba.so": elf_image("libz.so")},
        (
            Binding("liba.so", top, BindingState.BOUND, "/x/liba.so", Phase.RUNPATH, found),
            Binding("libz.so", top, BindingState.MISSING, probes=gone),
            Binding("libz.so", "/x/liba.so", BindingState.MISSING, probes=gone),
            Binding("late.dll", top, BindingState.MISSING, delayed=True),
            Binding("kernel32.dll", top, BindingState.SYSTEM),
            Binding("bad.so", top, BindingState.REFUSED, "/x/bad.so", Phase.RUNPATH, reason="invalid ELF header"),
        ),
    )
    graph = graph_of_tree(tree)
    assert shape(graph) == {"mod.so": None} | dict.fromkeys(
        ("liba.so", "libz.so", "late.dll", "kernel32.dll", "bad.so"), "mod.so"
    )
    assert states(graph) == {
        "mod.so": State.FOUND, "liba.so": State.FOUND, "libz.so": State.NOT_FOUND, "late.dll": State.LATE,
        "kernel32.dll": State.SYSTEM, "bad.so": State.REFUSED,
    }  # fmt: skip
    assert ("liba.so", "libz.so", EdgeKind.LISTED) in edges(graph)
    assert graph.images[1][1].rule == f"RUNPATH of {top}"
    assert graph.focus == 2


def test_missing_places_are_kept_in_order() -> None:
    event = missing("libq.so", "/x/a.so")
    (_, image), = graph_of(event).images  # fmt: skip
    assert image.probes == event.probes
