"""A trace, or what a file needs, as one HTML page that works offline: docs/reference/html-report.md.

The page is made from templates: it needs no other file, requests nothing, and runs only its own script. Verdict, fix
and failures are plain HTML; the script draws the explorer of all images from data.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from markupsafe import escape as escape_markup

from ...model.printable import escape
from ...model.run import SavedTrace
from ...model.tree import LoadTree
from ...model.words import shorten
from ..render_deps import render_flat
from ..render_markdown import code_block, render_markdown
from ..render_selftest import row_of, summarize
from .about import about_trace
from .build_images import images_of_trace, images_of_tree
from .data import page_data
from .images import PageImages, limit
from .styles import SCRIPTS, STYLES, join_templates, theme_css
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
