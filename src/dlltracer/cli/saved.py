"""One run as one value, for the reports that are made of a saved trace."""

from __future__ import annotations

from .. import __version__
from ..host.failure import this_process
from ..host.machine import describe_host
from ..model.recording import Recording
from ..model.saved import SavedTrace
from .child import UNTRACED
from .output import Format

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.finding import Diagnosis
    from ..report.graph import Graph
    from .child import Ending

_NOT_TRACED = Recording(UNTRACED, notes=("there was no trace",))

def saved_trace_of(
    what: str, ending: Ending, diagnosis: Diagnosis | None = None, *, foreign: bool = False
) -> SavedTrace:
    """What a run left, with this machine and its interpreter.

    Arguments:
        what: what was run, in words.
        ending: how it ended.
        diagnosis: the verdict, if there is one.
        foreign: the program ran in another Python than this one: only what it said itself is known of it.
    """
    process = ending.failure.process if ending.failure is not None else None if foreign else this_process()
    return SavedTrace(
        ending.recording or _NOT_TRACED, what, __version__, host=describe_host(), process=process,
        failure=ending.failure, crash=ending.crash, status=ending.status, diagnosis=diagnosis,
    )  # fmt: skip


def render_saved(saved: SavedTrace, form: Format) -> str:
    """The trace in one of the formats of `Format.needs_saved`."""
    if form is Format.GITHUB:
        from ..report.render_markdown import render_markdown

        return render_markdown(saved)
    if form is Format.PERFETTO:
        from ..report.render_perfetto import render_perfetto

        return render_perfetto(saved)
    from ..report.graph import graph_of_trace

    return render_graph(graph_of_trace(saved), form)


def render_graph(graph: Graph, form: Format) -> str:
    """The graph, as DOT or as Mermaid."""
    if form is Format.DOT:
        from ..report.render_dot import render_dot

        return render_dot(graph)
    from ..report.render_mermaid import render_mermaid

    return render_mermaid(graph)
