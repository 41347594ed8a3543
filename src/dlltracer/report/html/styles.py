"""Style and script of the pages, joined from the files in `templates`, and the colours for a given place."""

from __future__ import annotations

import functools
from importlib import resources

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
