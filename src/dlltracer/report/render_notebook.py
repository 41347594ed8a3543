"""A recording and a verdict as pieces of HTML for a notebook: no scripts, nothing from elsewhere, every name escaped.

The colours follow the theme of the notebook: JupyterLab, nbconvert and Notebook 7 mark it at a `data-jp-theme-light`,
VS Code at the class `vscode-dark`, Colab at `theme="dark"`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape as escape_html

from ..model.finding import Diagnosis
from ..model.printable import escape
from ..model.recording import Recording
from ..model.screen import Screen
from .drawing import BOLD, DEEPEST, DIM, DROPPED, FAILED, FIXED, PLAIN, UNICODE, WARNING, Line, TreeNode
from .render_short import short_lines
from .render_text import closing_lines, tree_nodes

_PAGE = 100
"""Columns of a verdict: a cell of a notebook is about so wide."""

_SMALL = 60
"""A tree of so many lines is shown open; of a larger one, what leads to a failure."""

_CLASSES = {
    PLAIN: "", DIM: "dim", BOLD: "bold", FAILED: "failed", DROPPED: "dropped", WARNING: "warning", FIXED: "fixed",
}  # fmt: skip

_STYLE = """\
<style>
.dlltracer { --dlltracer-bad: #b3261e; --dlltracer-warn: #805300; --dlltracer-good: #1b6e2e;
  line-height: 1.5; overflow-x: auto;
  font-family: var(--jp-code-font-family, ui-monospace, monospace); font-size: var(--jp-code-font-size, 13px); }
[data-jp-theme-light="false"] .dlltracer, .vscode-dark .dlltracer, html[theme="dark"] .dlltracer {
  --dlltracer-bad: #ff8a80; --dlltracer-warn: #e8b34b; --dlltracer-good: #7ddf91; }
.dlltracer ul, .dlltracer li { list-style: none !important; margin: 0 !important; padding: 0; }
.dlltracer ul { margin-left: .35em !important; padding-left: 1.2em; border-left: 1px solid rgba(128, 128, 128, .4); }
.dlltracer p, .dlltracer pre { margin: .5em 0 0 !important; padding: 0; font: inherit; color: inherit;
  background: none; }
.dlltracer summary { cursor: pointer; }
.dlltracer summary, .dlltracer li, .dlltracer pre, .dlltracer p { white-space: pre; }
.dlltracer .dim { opacity: .7; }
.dlltracer .bold { font-weight: 600; }
.dlltracer .failed { color: var(--dlltracer-bad); font-weight: 600; }
.dlltracer .dropped { color: var(--dlltracer-bad); }
.dlltracer .fixed { color: var(--dlltracer-good); }
.dlltracer .warning { color: var(--dlltracer-warn); font-weight: 600; }
</style>"""


def render_tree_html(recording: Recording, failed_only: bool = False) -> str:
    """What loaded and what did not, as lists that open and close."""
    nodes = tree_nodes(recording, failed_only=failed_only, guides=UNICODE)
    is_small = sum(1 for _ in _walk(nodes)) <= _SMALL
    trees = "".join(_list(nodes, is_open=is_small)).removesuffix("\n")
    lines = closing_lines(recording, failed_only=failed_only)
    return _frame(f"{trees}\n" + "".join(f"<p>{_spans(line)}</p>\n" for line in lines))


def render_verdict_html(diagnosis: Diagnosis) -> str:
    """The verdict. As <pre>: nbconvert takes spaces that stand alone out of everything else."""
    lines = "\n".join(map(_spans, short_lines(diagnosis, Screen(width=_PAGE))))
    return _frame(f"<pre>{lines}</pre>\n")


def _frame(body: str) -> str:
    return f'{_STYLE}\n<div class="dlltracer">\n{body}</div>\n'


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
