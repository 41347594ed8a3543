"""Recordings and files of strangers: no depth, no circle and no number of things stops a report.

What a file of 5 MB can hold is rendered in 5 seconds of this processor, into less than 12 MB.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import pytest

from builders.failed_case import bound, image
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent
from dlltracer.model.recording import Recording, TracedProcess
from dlltracer.model.run import ImageFacts, SavedTrace
from dlltracer.model.tree import LoadTree
from dlltracer.report.drawing import DEEPEST
from dlltracer.report.graph import graph_of_trace, graph_of_tree, render_dot, render_mermaid
from dlltracer.report.html import render_html, render_html_tree
from dlltracer.report.render_deps import render_deps, render_flat, render_why
from dlltracer.report.render_markdown import render_markdown
from dlltracer.report.render_notebook import render_tree_html
from dlltracer.report.render_perfetto import render_perfetto
from dlltracer.report.render_text import render_text

SECONDS = 5
CHARACTERS = 12_000_000


@functools.cache
def chain_of_images() -> SavedTrace:
    """5,000 images, each needed by the one before it; the last one needs what is not there."""
    events = [
        LoadEvent(f"/l/{n}.so", need=f"{n}.so", requested_by=f"/l/{n - 1}.so" if n else None, imports=("top",), pid=1)
        for n in range(5000)
    ]
    gone = LoadFailedEvent("gone.so", need="gone.so", requested_by="/l/4999.so", imports=("top",), pid=1)
    return SavedTrace(Recording("rtld", (*events, gone), pid=1))


@functools.cache
def chain_of_imports() -> SavedTrace:
    """1,000 imports inside each other, each with an image."""
    names = tuple(f"m{n}" for n in range(1000))
    return SavedTrace(Recording("rtld", tuple(LoadEvent(f"/l/{n}.so", imports=names[: n + 1]) for n in range(1000))))


@functools.cache
def circle_of_processes() -> SavedTrace:
    """20,000 processes, each the parent of the next, the last one that of the first."""
    processes = tuple(
        TracedProcess(n + 1, parent=n or 20_000, command=(f"/bin/p{n}",), program=f"/bin/p{n}", status=0)
        for n in range(20_000)
    )
    events = tuple(LoadEvent(f"/l/{n % 50}.so", pid=n + 1) for n in range(20_000))
    return SavedTrace(Recording("ld_debug", events, pid=1, processes=processes))


@functools.cache
def all_need_all() -> SavedTrace:
    """600 images that need one another."""
    names = tuple(f"{n}.so" for n in range(600))
    events = tuple(LoadEvent(f"/l/{name}", need=name, requested_by="/l/0.so", imports=("top",)) for name in names)
    facts = tuple(ImageFacts(f"/l/{name}", needs=names, soname=name) for name in names)
    return SavedTrace(Recording("rtld", events), images=facts)


@functools.cache
def many_failures() -> SavedTrace:
    """20,000 images for one import, all of them missing."""
    return SavedTrace(
        Recording(
            "rtld",
            tuple(
                LoadFailedEvent(f"lib{n}.so", need=f"lib{n}.so", imports=("top",), kind=FailureKind.NOT_FOUND)
                for n in range(20_000)
            ),
        )
    )


TRACES = [chain_of_images, chain_of_imports, circle_of_processes, all_need_all, many_failures]
OF_TRACES: dict[str, Callable[[SavedTrace], str]] = {
    "text": lambda trace: render_text(trace.recording).plain,
    "failed only": lambda trace: render_text(trace.recording, failed_only=True).plain,
    "html": render_html,
    "markdown": render_markdown,
    "notebook": lambda trace: render_tree_html(trace.recording),
    "dot": lambda trace: render_dot(graph_of_trace(trace)),
    "mermaid": lambda trace: render_mermaid(graph_of_trace(trace)),
}


@pytest.mark.parametrize("form", OF_TRACES)
@pytest.mark.parametrize("make", TRACES)
def test_a_trace(make: Callable[[], SavedTrace], form: str) -> None:
    trace = make()
    started = time.process_time()
    text = OF_TRACES[form](trace)
    assert time.process_time() - started < SECONDS
    assert 0 < len(text) < CHARACTERS


@pytest.mark.parametrize("make", [chain_of_images, chain_of_imports, all_need_all])
def test_a_timeline(make: Callable[[], SavedTrace]) -> None:
    started = time.process_time()
    assert 0 < len(render_perfetto(make())) < CHARACTERS
    assert time.process_time() - started < SECONDS


@functools.cache
def chain_of_needs() -> LoadTree:
    needs = tuple(bound(f"{n + 1}.so", f"/l/{n + 1}.so", f"/l/{n}.so") for n in range(4999))
    return LoadTree("/l/0.so", {f"/l/{n}.so": image() for n in range(5000)}, needs)


@functools.cache
def mutual_needs() -> LoadTree:
    needs = tuple(bound(f"{end}.so", f"/l/{end}.so", f"/l/{start}.so") for start in range(600) for end in range(600))
    return LoadTree("/l/0.so", {f"/l/{n}.so": image() for n in range(600)}, needs)


OF_TREES: dict[str, Callable[[LoadTree], str]] = {
    "text": lambda tree: render_deps(tree).plain,
    "missing": lambda tree: render_deps(tree, missing_only=True).plain,
    "flat": lambda tree: render_flat(tree).plain,
    "why": lambda tree: render_why(tree, "599.so").plain,
    "html": render_html_tree,
    "dot": lambda tree: render_dot(graph_of_tree(tree)),
    "mermaid": lambda tree: render_mermaid(graph_of_tree(tree)),
}


@pytest.mark.parametrize("form", OF_TREES)
@pytest.mark.parametrize("make", [chain_of_needs, mutual_needs])
def test_needs_of_a_file(make: Callable[[], LoadTree], form: str) -> None:
    tree = make()
    started = time.process_time()
    text = OF_TREES[form](tree)
    assert time.process_time() - started < SECONDS
    assert 0 < len(text) < CHARACTERS


def test_deep_levels_have_numbers_and_no_deeper_indentation() -> None:
    lines = render_text(chain_of_images().recording).plain.splitlines()
    assert sum(f"  /l/{n}.so" in line for n in range(0, 5000, 500) for line in lines) == 10
    deep = next(line for line in lines if line.endswith("  /l/4000.so"))
    assert f"[{4001}] 4000.so" in deep and len(deep) < 4 * DEEPEST
    assert any("gone.so  FAILED" in line or "gone.so  NOT FOUND" in line for line in lines)


def test_left_out_is_counted() -> None:
    text = render_text(circle_of_processes().recording, ascii_only=True).plain
    assert "... 19000 more processes (--format jsonl has all)" in text and "in 20000 processes" in text
    page = render_html(many_failures())
    assert "20,000 images not found" in page and "19,900 more" in page
    assert "310000 more needs are left out" in render_dot(graph_of_tree(mutual_needs()))
    assert "… 4987 more > " in render_why(chain_of_needs(), "4999.so").plain


def test_failures_come_first_where_not_all_fit_on_a_page() -> None:
    good = tuple(LoadEvent(f"/l/{n}.so", imports=("top",)) for n in range(20_010))
    page = render_html(
        SavedTrace(Recording("rtld", (*good, LoadFailedEvent("gone.so", need="gone.so", imports=("top",)))))
    )
    assert '"gone.so"' in page and '"0.so"' in page and '"20005.so"' not in page
    assert "11 more images are not on this page" in page


def test_few_things_are_all_there() -> None:
    assert "more images are not" not in render_html(all_need_all())
    assert "more needs are not on this page" in render_html(all_need_all())
