"""Lists the formats of a saved trace, and chooses one by the name of a file."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping

from ..model.light import dataclass, replace
from .options import WRITTEN, BadUsage, Option
from .output import Target, lacks_drawing, screen_of, table_width, write_styled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model.recording import Recording
    from ..model.run import SavedTrace
    from ..report.drawing import Styled
    from ..report.graph import Graph

    Write = Callable[[Target, SavedTrace, bool], None]
    """Writes a trace to a target; the last argument asks for failures only. Raises `OSError`."""

STDIN = "-"
"""In the place of a file's name."""

RECORDING = "recording"
HTML, GITHUB = "html", "github"
GRAPHS = ("dot", "mermaid")

RECORDING_SUFFIX = ".dlltrace"
"""The ending of the names of recording files."""


@dataclass(frozen=True)
class Form:
    """A format: its name, what it is, who writes it, and the endings of file names that ask for it.

    `is_short`: it shows the recording and the verdict alone, so that of a run no more need be gathered.
    `can_select`: it can leave out what did not fail.
    `can_show_steps`: it can show the report of a self-test.
    `write_full`: writes all of it, where `write` leaves out what is obvious (-v).
    """

    name: str
    help: str
    write: Write
    endings: tuple[str, ...] = ()
    is_short: bool = False
    can_select: bool = False
    can_show_steps: bool = False
    write_full: Write | None = None

    def in_full(self, verbose: bool) -> Form:
        """Return the format, with all that it can show if so. Raises `BadUsage` if it has one size only."""
        if not verbose:
            return self
        if self.write_full is None:
            raise BadUsage(f"-v is for text: {self.name} leaves nothing out")
        return replace(self, write=self.write_full)

    def selecting(self, failed_only: bool) -> Form:
        """Return the format, for failures only if so. Raises `BadUsage` if it cannot leave out the rest."""
        if failed_only and not self.can_select:
            raise BadUsage(f"--failed-only is for text, jsonl and lines: {self.name} shows the whole trace")
        return self


def _write_text(target: Target, trace: SavedTrace, failed_only: bool, *, is_full: bool = False) -> None:
    """Write the recording as a tree, and behind it the verdict; the report of a self-test as a table."""
    if trace.steps:
        from ..report.render_selftest import render_selftest

        write_styled(target, lambda _: render_selftest(trace, width=table_width(target)))
        return
    from ..report.render_text import render_text

    recording, verdict = _with_origin(trace), trace.diagnosis

    def render(plain: bool) -> Styled:
        text = render_text(
            recording, failed_only=failed_only, ascii_only=plain, is_brief=not is_full, ended_well=ended_well(trace)
        )
        if verdict is None:
            return text
        if is_full:
            from ..report.render_verdict import render_verdict

            return text + render_verdict(verdict, ascii_only=plain)
        from ..report.render_short import render_short_verdict

        return text + render_short_verdict(verdict, screen_of(target, _folder_of(trace)))

    write_styled(target, render)


def _write_full_text(target: Target, trace: SavedTrace, failed_only: bool) -> None:
    _write_text(target, trace, failed_only, is_full=True)


def ended_well(trace: SavedTrace) -> bool:
    """Return whether the program came to a good end, so that it could do without what failed to load."""
    if trace.run.status != 0 or trace.diagnosis is None:
        return trace.run.status == 0
    from ..model.finding import Outcome

    return trace.diagnosis.outcome is Outcome.IMPORTED


def _folder_of(trace: SavedTrace) -> str:
    """The current folder of the program; empty where it is not known."""
    return trace.run.process.current_folder if trace.run.process is not None else ""


def _write_jsonl(target: Target, trace: SavedTrace, failed_only: bool) -> None:
    from ..report.render_json import render_jsonl

    target.write(render_jsonl(_with_origin(trace), failed_only=failed_only, verdict=trace.diagnosis))


def _write_lines(target: Target, trace: SavedTrace, failed_only: bool) -> None:
    """Write `LoadLibrary <path>` or `Failed <path>`, one line an event."""
    from ..report.render_text import render_lines

    target.write(render_lines(trace.recording, failed_only=failed_only, escaped=target.is_terminal))


def _with_origin(trace: SavedTrace) -> Recording:
    """Return the recording, with where it is from and what is wrong with its file among its notes."""
    from ..report.counts import describe_origin

    return replace(trace.recording, notes=(*describe_origin(trace), *trace.recording.notes, *trace.problems))


def _write_recording(target: Target, trace: SavedTrace, failed_only: bool) -> None:
    """Write the recording itself; failures alone would be another recording."""
    from ..model.tracefile import trace_to_lines

    target.write("".join(trace_to_lines(trace)))


def rendered(module: str, function: str) -> Write:
    """Return what writes by `function(trace) -> str` of a module of `dlltracer.report`, imported when it is needed."""

    def write(target: Target, trace: SavedTrace, failed_only: bool) -> None:
        render = getattr(importlib.import_module(f"..report.{module}", __package__), function)
        target.write(render(trace))

    return write


def _write_markdown(target: Target, trace: SavedTrace, failed_only: bool) -> None:
    if trace.steps:
        from ..report.render_selftest import render_selftest_markdown

        target.write(render_selftest_markdown(trace))
        return
    from ..host.screen import documentation_address
    from ..report.render_markdown import render_markdown

    text = render_markdown(trace, ascii_only=lacks_drawing(target), documentation=documentation_address())
    target.write(text)


def _write_html(target: Target, trace: SavedTrace, failed_only: bool) -> None:
    rendered("html", "render_html_selftest" if trace.steps else "render_html")(target, trace, failed_only)


def _graph(form: str) -> Write:
    """Return what writes the graph of a trace, in one of `GRAPHS`."""

    def write(target: Target, trace: SavedTrace, failed_only: bool) -> None:
        from ..report.graph import graph_of_trace

        target.write(render_graph(graph_of_trace(trace), form))

    return write


def render_graph(graph: Graph, form: str) -> str:
    """Return the graph as text, in one of `GRAPHS`."""
    if form == "dot":
        from ..report.graph import render_dot

        return render_dot(graph)
    from ..report.graph import render_mermaid

    return render_mermaid(graph)


FORMS: Mapping[str, Form] = {
    form.name: form
    for form in (
        Form(
            "text", "a tree to read", _write_text, is_short=True, can_select=True, can_show_steps=True,
            write_full=_write_full_text,
        ),
        Form(
            "jsonl", "JSON, one line an event", _write_jsonl, (".jsonl",), is_short=True, can_select=True
        ),
        Form("lines", "LoadLibrary or Failed, path", _write_lines, is_short=True, can_select=True),
        Form(
            RECORDING, "all that is known, for `dlltracer show` and `dlltracer why`", _write_recording,
            (RECORDING_SUFFIX,), can_show_steps=True,
        ),
        Form(HTML, "a page to look at in a browser", _write_html, (".html", ".htm"), can_show_steps=True),
        Form(GITHUB, "Markdown for an issue", _write_markdown, (".md",), can_show_steps=True),
        Form("dot", "a graph for Graphviz", _graph("dot"), (".dot", ".gv")),
        Form("mermaid", "a graph for Markdown", _graph("mermaid"), (".mmd",)),
        Form("perfetto", "a timeline", rendered("render_perfetto", "render_perfetto"), (".perfetto-trace.json",)),
    )
}
"""Every format, by its name."""


def form_of_name(file: str | None) -> Form | None:
    """Return the format that the ending of a file's name asks for."""
    name = (file or "").lower()
    return next((form for form in FORMS.values() if form.endings and name.endswith(form.endings)), None)


def is_name_of_recording(file: str | None) -> bool:
    """Return whether a file of that name would be a recording."""
    named = form_of_name(file)
    return named is not None and named.name == RECORDING


def choose_form(
    given: str | None, github: bool, output: str | None, failed_only: bool, settings: frozenset[str] = frozenset()
) -> Form:
    """Return the format asked for by name, else by the ending of the file's name, else text.

    A name of a file on the command line wins over `settings`, the parameters whose value is of a settings file. Raises
    `BadUsage` for what contradicts itself.
    """
    if github and given not in (None, GITHUB):
        raise BadUsage(f"choose one of --github and --format {given}")
    asked = GITHUB if github else given
    named = form_of_name(output)
    if named is not None and ("github" if github else "form") in settings and "output" not in settings:
        asked = None
    if asked is None and named is None:
        refuse_other_format(output, *(ending for form in FORMS.values() for ending in form.endings))
    form = FORMS[asked] if asked is not None else named or FORMS["text"]
    refuse_as_recording(output, form.name)
    return form.selecting(failed_only and (form.can_select or "failed_only" not in settings))


def refuse_as_recording(file: str | None, form: str) -> None:
    """Raise `BadUsage` where something else would get the name of a recording."""
    if form != RECORDING and is_name_of_recording(file):
        raise BadUsage(f"{file} is the name of a recording, and this would be {form}: name another file")


_ENDINGS = (*{ending for form in FORMS.values() for ending in form.endings}, ".json", ".sarif", ".xml")


def refuse_other_format(file: str | None, *written: str) -> None:
    """Raise `BadUsage` for a name that asks for a format of ours which this command does not write.

    Arguments: `written`, the endings of names that ask for what it writes.
    """
    name = (file or "").lower()
    if file is not None and name.endswith(_ENDINGS) and not name.endswith(written):
        raise BadUsage(f"{file}: this command writes text, or by the name of the file {', '.join(written)}")


def is_json_asked(as_json: bool, output: str | None) -> bool:
    """Return whether --json or the name of the output asks for JSON, of a command that writes text and JSON only."""
    if not as_json:
        refuse_other_format(output, ".json")
    return as_json or (output or "").lower().endswith(".json")


def refuse_same_file(output: str | None, page: str | None) -> None:
    """Raise `BadUsage` when the report and the page would overwrite each other. "-" is stdout."""
    refuse_as_recording(page, HTML)
    if page is None or output is None:
        return
    is_same = output == page if "-" in (output, page) else os.path.realpath(output) == os.path.realpath(page)
    if is_same and (output == "-" or os.path.isfile(output) or not os.path.exists(output)):
        raise BadUsage(f"the report and the page would both be {'stdout' if output == '-' else output}")


def formats_help() -> str:
    """Return all formats, for the help of an option."""
    return " ".join(f"{form.name}: {form.help}." for form in FORMS.values())


def write_form(name: str, target: Target, trace: SavedTrace) -> None:
    """Write the trace in the format of that name. Raises `OSError`."""
    FORMS[name].write(target, trace, False)


HTML_OPTION = Option("html", "--html", metavar=WRITTEN, help="Write an HTML page to FILE as well.", completes="file")
"""The option of the commands that write a page beside their report."""
