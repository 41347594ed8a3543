"""Renders a recording and a verdict as pieces of HTML for a notebook: no scripts, nothing from elsewhere, every name
escaped.

The verdict is the card of the HTML report (`templates/card.html.j2`). Both follow the theme of the notebook
(`html.styles.notebook_theme_css`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape as escape_html

from ..model.finding import Diagnosis
from ..model.recording import Recording
from ..model.screen import escape
from .drawing import BOLD, DEEPEST, DIM, DROPPED, FAILED, FIXED, PLAIN, UNICODE, WARNING, Line, TreeNode
from .html import as_markup, environment, join_templates, notebook_theme_css
from .html.summary import card_of_diagnosis
from .render_text import closing_lines, tree_nodes

_SMALL = 60
"""A tree of so many lines is shown open; of a larger one, what leads to a failure."""

_CLASSES = {
    PLAIN: "", DIM: "dim", BOLD: "bold", FAILED: "failed", DROPPED: "dropped", WARNING: "warning", FIXED: "fixed",
}  # fmt: skip

_STYLE = """\
.dlltracer-tree { line-height: 1.5; overflow-x: auto;
  font-family: var(--jp-code-font-family, var(--mono)); font-size: var(--jp-code-font-size, 13px); }
.dlltracer-tree ul, .dlltracer-tree li { list-style: none !important; margin: 0 !important; padding: 0; }
.dlltracer-tree ul { margin-left: .35em !important; padding-left: 1.2em;
  border-left: 1px solid rgba(128, 128, 128, .4); }
.dlltracer-tree p { margin: .5em 0 0 !important; padding: 0; font: inherit; color: inherit; background: none; }
.dlltracer-tree summary { cursor: pointer; }
.dlltracer-tree summary, .dlltracer-tree li, .dlltracer-tree p { white-space: pre; }
.dlltracer-tree .dim { opacity: .7; }
.dlltracer-tree .bold { font-weight: 600; }
.dlltracer-tree .failed { color: var(--fail); font-weight: 600; }
.dlltracer-tree .dropped { color: var(--fail); }
.dlltracer-tree .fixed { color: var(--ok); }
.dlltracer-tree .warning { color: var(--warn); font-weight: 600; }
"""

_CARD_STYLE = """\
.dlltracer-card { font: 14px/20px var(--sans); color: var(--text); background: var(--surface);
  max-width: 1200px; border-radius: 12px; }
.dlltracer-card .dlt-card { border: 1px solid var(--line); border-top: 4px solid var(--tone); border-radius: 12px; }
.dlltracer-card .dlt-title { font-size: 20px; line-height: 26px; }
.dlltracer-card .dlt-label, .dlltracer-card .dlt-title { font-family: inherit; }
"""


def render_tree_html(recording: Recording, failed_only: bool = False) -> str:
    """Return the loads and failures as lists that open and close."""
    nodes = tree_nodes(recording, failed_only=failed_only, guides=UNICODE)
    is_small = sum(1 for _ in _walk(nodes)) <= _SMALL
    trees = "".join(_list(nodes, is_open=is_small)).removesuffix("\n")
    lines = closing_lines(recording, failed_only=failed_only)
    return _frame(f"{trees}\n" + "".join(f"<p>{_spans(line)}</p>\n" for line in lines))


def render_verdict_html(diagnosis: Diagnosis) -> str:
    """The verdict, as the card that the HTML report begins with."""
    style = notebook_theme_css() + join_templates(("card.css",)) + _CARD_STYLE
    return environment().get_template("notebook.html.j2").render(
        style=as_markup(style), verdict=card_of_diagnosis(diagnosis), notes=diagnosis.notes
    )  # fmt: skip


def _frame(body: str) -> str:
    return f'<style>\n{notebook_theme_css()}{_STYLE}</style>\n<div class="dlltracer dlltracer-tree">\n{body}</div>\n'


def _list(tops: Sequence[TreeNode], *, is_open: bool) -> Iterator[str]:
    """The nodes as <details> inside each other. Browsers nest about 500 elements: below `DEEPEST` a level adds none."""
    failing = _leading_to_failures(tops)
    waiting: list[tuple[TreeNode, int] | str] = []
    waiting += [(top, 1) for top in tops][::-1]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
            continue
        node, level = item
        label = _spans(((f"[{level}] ", DIM), *node.label) if level > DEEPEST else node.label)
        start, end = ("<li>", "</li>") if level > 1 else ("", "\n")
        if not node.below or level >= DEEPEST:
            yield f"{start}{label}{end}"
        else:
            opened = " open" if is_open or any(id(below) in failing for below in node.below) else ""
            yield f"{start}<details{opened}><summary>{label}</summary><ul>"
            waiting.append(f"</ul></details>{end}")
        waiting += [(below, level + 1) for below in node.below][::-1]


def _spans(line: Line) -> str:
    parts = []
    for text, style in line:
        safe = escape_html(escape(text))
        parts.append(f'<span class="{_CLASSES[style]}">{safe}</span>' if _CLASSES[style] else safe)
    return "".join(parts)


def _leading_to_failures(tops: Sequence[TreeNode]) -> set[int]:
    """The ids of the nodes that failed, or have one below them that did."""
    nodes = list(_walk(tops))
    found: set[int] = set()
    for node in reversed(nodes):  # what is below a node comes behind it
        if any(style == FAILED for _, style in node.label) or any(id(below) in found for below in node.below):
            found.add(id(node))
    return found


def _walk(tops: Sequence[TreeNode]) -> Iterator[TreeNode]:
    waiting = list(tops)[::-1]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.below[::-1]
