"""A recording and a verdict as pieces of HTML for a notebook: no scripts, nothing from elsewhere, every name escaped.

The colours follow the theme of the notebook: JupyterLab, nbconvert and Notebook 7 mark it at a `data-jp-theme-light`,
VS Code at the class `vscode-dark`, Colab at `theme="dark"`.
"""

from __future__ import annotations

from html import escape as escape_html

from ..model.printable import escape
from .drawing import BOLD, DIM, DROPPED, FAILED, PLAIN, UNICODE, WARNING, Node
from .render_text import closing_lines, tree_nodes
from .render_verdict import verdict_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model.finding import Diagnosis
    from ..model.recording import Recording
    from .drawing import Line

_SMALL = 60
"""A tree of so many lines is shown open; of a larger one, what leads to a failure."""

_CLASSES = {PLAIN: "", DIM: "dim", BOLD: "bold", FAILED: "failed", DROPPED: "dropped", WARNING: "warning"}

_STYLE = """\
<style>
.dlltracer { --dlltracer-bad: #b3261e; --dlltracer-warn: #805300; line-height: 1.5; overflow-x: auto;
  font-family: var(--jp-code-font-family, ui-monospace, monospace); font-size: var(--jp-code-font-size, 13px); }
[data-jp-theme-light="false"] .dlltracer, .vscode-dark .dlltracer, html[theme="dark"] .dlltracer {
  --dlltracer-bad: #ff8a80; --dlltracer-warn: #e8b34b; }
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
.dlltracer .warning { color: var(--dlltracer-warn); font-weight: 600; }
</style>"""


def render_tree_html(recording: Recording, failed_only: bool = False) -> str:
    """What loaded and what did not, as lists that open and close."""
    nodes = tree_nodes(recording, failed_only=failed_only, guides=UNICODE)
    small = sum(map(_size, nodes)) <= _SMALL
    trees = "\n".join("".join(_tree(node, small)) for node in nodes)
    lines = closing_lines(recording, failed_only=failed_only)
    return _frame(f"{trees}\n" + "".join(f"<p>{_spans(line)}</p>\n" for line in lines))


def render_verdict_html(diagnosis: Diagnosis) -> str:
    """The verdict. As <pre>: nbconvert takes spaces that stand alone out of everything else."""
    lines = "\n".join(map(_spans, verdict_lines(diagnosis, UNICODE.more)))
    return _frame(f"<pre>{lines}</pre>\n")


def _frame(body: str) -> str:
    return f'{_STYLE}\n<div class="dlltracer">\n{body}</div>\n'


def _tree(top: Node, small: bool) -> Iterator[str]:
    """A node with all below it. Works at any depth."""
    stack: list[Node | str] = [top]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            yield node
        elif not node.below:
            yield _spans(node.label)
        else:
            is_open = " open" if small or any(map(_has_failure, node.below)) else ""
            yield f"<details{is_open}><summary>{_spans(node.label)}</summary><ul>"
            stack.append("</ul></details>")
            for below in reversed(node.below):
                stack += ["</li>", below, "<li>"]


def _spans(line: Line) -> str:
    parts = []
    for text, style in line:
        safe = escape_html(escape(text))
        parts.append(f'<span class="{_CLASSES[style]}">{safe}</span>' if _CLASSES[style] else safe)
    return "".join(parts)


def _walk(top: Node) -> Iterator[Node]:
    stack = [top]
    while stack:
        node = stack.pop()
        yield node
        stack += node.below


def _size(top: Node) -> int:
    return sum(1 for _ in _walk(top))


def _has_failure(top: Node) -> bool:
    return any(style == FAILED for node in _walk(top) for _, style in node.label)
