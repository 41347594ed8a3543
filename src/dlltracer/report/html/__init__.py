"""Renders a trace, or the load of a file, as one HTML page that works offline: docs/reference/html-report.md.

The page is made from templates: it needs no other file, requests nothing, and runs only its own script. Verdict, fix
and failures are plain HTML; the script draws the explorer of all images from data.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from markupsafe import escape as escape_markup

from ...model.recording import Losses, TracedProcess
from ...model.run import SavedTrace
from ...model.screen import escape
from ...model.tree import LoadTree
from ...model.words import describe_crash, describe_status, shorten, time_in_words
from ..drawing import number
from ..render_deps import render_flat
from ..render_markdown import code_block, render_markdown
from ..render_selftest import row_of, summarize
from .build_images import images_of_trace, images_of_tree, page_data
from .images import PageImages, limit
from .summary import VerdictCard, card_of_trace, card_of_tree, explained_causes, failed_rows, missing_of_tree

MOST_IMAGES, MOST_NEEDS = 20_000, 60_000
"""Of a page: about what a browser reads in a second."""

_LONGEST = 3000
"""Characters of a text that is shown; its data has all of them."""
_BREAKS = 60
"""Separators of a path behind which it may break."""
_OUTLINE = 2000
"""Images in the list for a browser without scripts."""


def render_html(saved: SavedTrace, *, title: str | None = None) -> str:
    """The page of a trace: verdict, fix, failures, all images, facts; UTF-8 can hold it.

    Arguments: `title`, of the page; `None` for what was run.
    """
    found = limit(images_of_trace(saved), MOST_IMAGES, MOST_NEEDS)
    about = about_trace(saved)
    process = saved.run.process
    return render_page(
        "trace.html.j2", found, card_of_trace(saved, found, about.incomplete), {"about": about},
        title=title or saved.what or "a trace", markdown=render_markdown(saved),
        folders=() if process is None else process.path,
    )  # fmt: skip


def render_html_tree(tree: LoadTree, *, title: str | None = None) -> str:
    """The page of a load tree: what is missing, who needs it, all images; UTF-8 can hold it.

    Arguments: `title`, of the page; `None` for the path of the file.
    """
    found = limit(images_of_tree(tree), MOST_IMAGES, MOST_NEEDS)
    missing = missing_of_tree(tree)
    lines = [f"{need.need} is missing, needed by {', '.join(need.requested_by[:3])}" for need in missing]
    text = shorten([*lines, *render_flat(tree).plain.splitlines()], _MARKDOWN, "more lines")
    markdown = "".join(f"{line}\n" for line in ("### dlltracer: what a file needs", "", *code_block(text)))
    return render_page(
        "tree.html.j2", found, card_of_tree(tree, found), {"tree": tree, "missing": missing},
        title=title or tree.top, markdown=markdown, is_tree=True,
    )  # fmt: skip


def render_html_selftest(saved: SavedTrace) -> str:
    """The page of a self-test's report: its steps as a table, with all their facts; UTF-8 can hold it."""
    style = theme_css() + join_templates(("base.css", "selftest.css"))
    groups = [(name, [row_of(step) for step in steps]) for name, steps in groupby(saved.steps, lambda one: one.group)]
    return environment().get_template("selftest.html.j2").render(
        saved=saved,
        summary=summarize(saved.steps),
        notes=(*saved.problems, *saved.recording.notes),
        groups=groups,
        style=as_markup(style),
        style_hash=hash_for_policy(style),
    )


_MARKDOWN = 60
"""Lines of a load tree that are copied as Markdown."""


def render_page(
    template: str, found: PageImages, verdict: VerdictCard, values: Mapping[str, object], *, title: str, markdown: str,
    folders: Sequence[str] = (), is_tree: bool = False,
) -> str:  # fmt: skip
    """Fill a template, and join what every page has: verdict, failures, data, style and script.

    The text can be written as UTF-8: what does not print, lone surrogates too, is shown as escapes.
    """
    style, script = theme_css() + join_templates(STYLES), join_templates(SCRIPTS)
    data = page_data(found, verdict.causes, folders)
    data |= {"markdown": markdown.splitlines(), "isTree": is_tree}
    return environment().get_template(template).render(
        **values,
        title=title,
        verdict=verdict,
        explained={cause.code: cause for cause in explained_causes(verdict)},
        failures=failed_rows(found),
        outline=_lines_as_they_are(outline_of(found)),
        data=json_for_html(data),
        style=as_markup(style),
        script=as_markup(script),
        style_hash=hash_for_policy(style),
        script_hash=hash_for_policy(script),
    )


def outline_of(found: PageImages) -> str:
    """Return the images as lines of text: state, path, rule."""
    lines = [
        "  ".join(filter(None, (image.state.value, image.path, image.rule and f"found by {image.rule}")))
        for image in found.images[:_OUTLINE]
    ]
    if len(found.images) > _OUTLINE:
        lines.append(f"… {len(found.images) - _OUTLINE} more images")
    return "\n".join(map(escape, lines))


def json_for_html(value: object) -> Markup:
    """JSON that may stand in a script element: ASCII, and without a character that HTML could take for its own.

    Texts in it are ready to be shown: characters that do not print are escapes.
    """
    text = json.dumps(_shown(value), separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return as_markup(text)


def _shown(value: object) -> object:
    """The same value with every text escaped as `escape` does it."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        # Most lists are columns of thousands of numbers, which need no look at each.
        return value if all(type(item) in (int, float) for item in value) else [_shown(item) for item in value]
    return value


@functools.cache
def environment() -> Environment:
    """Return the environment of all templates: every text that they put out is escaped for the eye and for HTML."""

    def finalize(value: object) -> object:
        # Every text that a template puts out comes by here; markup has been made by us.
        return _clipped(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    made = Environment(
        loader=PackageLoader("dlltracer.report", "templates"), autoescape=True, undefined=StrictUndefined,
        finalize=finalize, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {"as_lines": _lines_as_they_are, "breakable": _breakable, "whole": _whole, "sentence": _sentence}
    return made


def _lines_as_they_are(text: str) -> Markup:
    """A text of several lines, for an element that keeps them."""
    return Markup("\n").join(escape_markup(_clipped(line)) for line in text.splitlines())


def _whole(text: str) -> Markup:
    """A command: what is copied is all of it, however long."""
    return escape_markup(escape(text))


def _clipped(text: str) -> str:
    """The text with escapes; of one that is longer than any path, the two ends.

    A browser needs seconds to lay out a name of 30,000 characters whose direction changes 10,000 times.
    """
    text = escape(text)
    if len(text) <= _LONGEST:
        return text
    half = _LONGEST // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"


def _breakable(text: str) -> Markup:
    """A path that may break behind each separator; with hundreds of them, as hostile names have, it breaks anywhere."""
    parts = re.findall(r"[^/\\]*[/\\]+|[^/\\]+", _clipped(text))
    between = Markup("<wbr>") if len(parts) <= _BREAKS else Markup()
    return between.join(map(escape_markup, parts))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def as_markup(text: str) -> Markup:
    """Return a text that is put out as it is: style, script and escaped JSON."""
    return Markup(text)  # noqa: S704


def hash_for_policy(text: str) -> str:
    """Return the hash by which a Content-Security-Policy allows that style or script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


STYLES = ("base.css", "card.css", "explorer.css", "print.css")
SCRIPTS = ("start.js", "model.js", "table.js", "map.js", "timeline.js", "details.js", "main.js")

_FONTS = """\
--mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
--sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
"""


@functools.cache
def theme_css() -> str:
    """Return the colours of a page as variables: light and dark, by the system's choice or `data-theme` of the root."""
    light, dark = read_template("theme-light.css"), read_template("theme-dark.css")
    system = ":root:not([data-theme=light])"
    return (
        f":root {{\n{_FONTS}{light}}}\n:root[data-theme=dark] {{\n{dark}}}\n"
        f"@media (prefers-color-scheme: dark) {{ {system} {{\n{dark}}} }}\n"
    )


NOTEBOOK_DARK = '[data-jp-theme-light="false"] .dlltracer, .vscode-dark .dlltracer, html[theme="dark"] .dlltracer'
"""Where notebooks mark a dark theme: JupyterLab, nbconvert and Notebook 7; VS Code; Colab."""


@functools.cache
def notebook_theme_css() -> str:
    """Return the same colours for the pieces in a notebook, which follow its theme and leave the rest of it alone."""
    light, dark = read_template("theme-light.css"), read_template("theme-dark.css")
    return f".dlltracer {{\n{_FONTS}{light}}}\n{NOTEBOOK_DARK} {{\n{dark}}}\n"


@functools.cache
def join_templates(names: tuple[str, ...]) -> str:
    """Return the text of several files of `templates`, one behind the other."""
    return "".join(map(read_template, names))


@functools.cache
def read_template(name: str) -> str:
    """Return the text of a file of `templates`."""
    return (resources.files("dlltracer.report") / "templates" / name).read_text(encoding="utf-8")


_PROCESSES, _LINES = 500, 1000
"""Rows of the table of processes, and lines of a list, that the page has."""


@dataclass(frozen=True)
class About:
    """Pairs of label and value; `folded` are the long ones, label and lines. `incomplete`: what is known to be lost."""

    facts: tuple[tuple[str, str], ...]
    folded: tuple[tuple[str, tuple[str, ...]], ...]
    processes: tuple[tuple[str, ...], ...]
    incomplete: tuple[str, ...]
    notes: tuple[str, ...]


def about_trace(saved: SavedTrace) -> About:
    """All of it."""
    diagnosis_notes = saved.diagnosis.notes if saved.diagnosis is not None else ()
    notes = tuple(dict.fromkeys((*saved.recording.notes, *diagnosis_notes)))
    raw = len(saved.recording.raw)
    if raw:
        notes += (f"{number(raw, 'raw event')} of the mechanism are in the trace and not on this page",)
    return About(
        tuple((label, value) for label, value in _facts(saved) if value),
        tuple((label, tuple(shorten(lines, _LINES, "more lines"))) for label, lines in _folded(saved) if lines),
        tuple(_processes(saved.recording.processes)),
        (*_losses(saved.recording.losses), *saved.problems),
        notes,
    )


def _facts(saved: SavedTrace) -> Iterator[tuple[str, str]]:
    host, process = saved.host, saved.run.process
    yield "What ran", saved.what
    yield "Command line", " ".join(saved.command)
    yield "Started", time_in_words(saved.started)
    yield "Ended with", "" if saved.run.status is None else describe_status(saved.run.status)
    yield "Traced by", saved.recording.backend
    yield "dlltracer", saved.written_by
    if host is not None:
        yield "System", host.description or host.system
        yield "Processor", host.machine
        yield "C library", host.c_library or ""
        yield "Machine", host.name or ""
    if process is not None:
        kind = f"{' debug' if process.is_debug else ''}{' free-threaded' if process.is_free_threaded else ''}"
        yield "Python", f"{'.'.join(map(str, process.version))}{kind}, {process.bits} bits"
        yield "Interpreter", process.executable
        yield "Prefix", process.prefix
        yield "Current folder", process.current_folder


def _folded(saved: SavedTrace) -> Iterator[tuple[str, tuple[str, ...]]]:
    process = saved.run.process
    if process is not None:
        yield "Environment of the loader", tuple(f"{name}={value}" for name, value in process.environment)
        yield "Folders of os.add_dll_directory", process.added_folders
        yield "sys.path", process.path
    places = saved.places
    if places is not None:
        yield "Where the loader looks", tuple(f"{rule}: {folder}" for rule, folder in places.folders)
        yield "Of ld.so.cache", tuple(f"{name}: {path}" for name, path in places.cache)
        yield "LD_PRELOAD", places.preload


def _processes(processes: Sequence[TracedProcess]) -> Iterator[tuple[str, ...]]:
    yield from map(_process, processes[:_PROCESSES])
    if len(processes) > _PROCESSES:
        yield ("…", "", f"{len(processes) - _PROCESSES} more processes", "", "", "")


def _process(process: TracedProcess) -> tuple[str, ...]:
    """Cells: process id, parent, what it ran, when it started and ended, how."""
    crash = process.crash
    how = describe_status(process.status)
    if crash is not None:
        how += f": {describe_crash(crash)}"
    return (
        str(process.pid),
        "" if process.parent is None else str(process.parent),
        " ".join(process.command or ()) or process.program or "",
        time_in_words(process.started),
        time_in_words(process.ended),
        how,
    )


def _losses(losses: Losses) -> Iterator[str]:
    if losses.events:
        yield f"{number(losses.events, 'event')} could not be recorded by the system"
    if losses.buffers:
        yield f"{number(losses.buffers, 'buffer')} of events were not delivered by the system"
    if losses.undecodable:
        nouns = "event or line" if losses.undecodable == 1 else "events or lines"
        yield f"{losses.undecodable} {nouns} could not be decoded"
