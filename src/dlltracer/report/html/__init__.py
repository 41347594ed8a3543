"""A trace, or what a file needs, as one HTML page that works offline: docs/reference/html-report.md."""

from __future__ import annotations

from ...model.failure import System
from ...model.words import describe_crash
from ..render_verdict import remedy_line
from .build_graph import graph_of_trace, graph_of_tree
from .page import render_page
from .summary import (
    CONFIDENCE,
    about_trace,
    headline_of_trace,
    headline_of_tree,
    main_and_other,
    missing_of_tree,
    places_of,
    summary_of_trace,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...model.run import SavedTrace
    from ...model.tree import LoadTree


def render_html(saved: SavedTrace, *, title: str | None = None) -> str:
    """The page of a trace: verdict, graph, timeline, images, facts; UTF-8 can hold it.

    Arguments: `title`, of the page; `None` for what was run.
    """
    graph = graph_of_trace(saved)
    main, others = main_and_other(saved.diagnosis)
    system = saved.diagnosis.system if saved.diagnosis is not None else System.OTHER
    values = {
        "title": title or saved.what or "a trace",
        "headline": headline_of_trace(saved, graph),
        "summary": summary_of_trace(saved, graph),
        "saved": saved,
        "main": main,
        "others": others,
        "confidence": CONFIDENCE,
        "places_of": places_of,
        "about": about_trace(saved),
        "describe_crash": describe_crash,
        "line_of": lambda remedy: remedy_line(remedy, system),
    }
    return render_page("trace.html.j2", graph, values)


def render_html_tree(tree: LoadTree, *, title: str | None = None) -> str:
    """The page of a load tree: what is missing, the graph, the images; UTF-8 can hold it.

    Arguments: `title`, of the page; `None` for the path of the file.
    """
    graph = graph_of_tree(tree)
    values = {
        "title": title or tree.top,
        "headline": headline_of_tree(tree, graph),
        "tree": tree,
        "missing": missing_of_tree(tree),
        "places_of": places_of,
    }
    return render_page("tree.html.j2", graph, values)
