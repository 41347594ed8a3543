"""Reads the page of a code: its meaning, how to check it, how to fix it, how a maintainer avoids it.

The texts are those of the documentation, which lie here as `pages/findings.md` (of `dlltracer why`) and
`pages/checks.md` (of `dlltracer check`): tools/site_pages.py makes reference/findings and reference/checks of the site
from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

from ..model.light import dataclass
from ..model.screen import Screen, cut, wrap
from .drawing import BOLD, DIM, PLAIN, Line, Styled

PAGES = {"findings": "dlltracer why", "checks": "dlltracer check"}
"""The pages, and the command whose codes they have."""

_ENTRY = re.compile(r"^## ([a-z0-9-]+)\n(.*?)(?=^##? |\Z)", re.MULTILINE | re.DOTALL)
_PART = re.compile(
    r"^- \*\*(How to check|How to fix|For the maintainer):\*\* (.*?)(?=^- \*\*|\Z)", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")
_PARAGRAPH_LINES = 40


@dataclass(frozen=True)
class CausePage:
    """The page of one code.

    Attributes:
        code: of a finding or a problem.
        page: the name of the page of the documentation: "findings" or "checks".
        meaning: what it means, and what it rests on; a paragraph each.
        check, fix: how to see that it is so, and what to do.
        avoid: what the maintainer of the package can do, so that it does not happen.
    """

    code: str
    page: str
    meaning: tuple[str, ...]
    check: str
    fix: str
    avoid: str


def read_causes(code: str | None = None) -> list[CausePage]:
    """Return the pages of a code: one for each command that has it; all pages if no code is given."""
    return [cause for page in PAGES for cause in _read_page(page) if code in (None, cause.code)]


def render_cause(causes: list[CausePage], screen: Screen) -> Styled:
    """Return the pages of one code as text."""
    return Styled(line for cause in causes for line in _lines(cause, screen))


def address_of(code: str, documentation: str) -> str:
    """Return the address of the page of a code; empty for an unknown code.

    Arguments: `documentation`, the address of the site, or of the folder with the pages of this package.
    """
    page = next((cause.page for cause in read_causes(code)), None)
    if page is None:
        return ""
    is_local = documentation.startswith("file:")
    return f"{documentation.rstrip('/')}/{f'{page}.md' if is_local else f'reference/{page}.html'}#{code}"


def _read_page(page: str) -> Iterator[CausePage]:
    text = (files("dlltracer.report") / "pages" / f"{page}.md").read_text(encoding="utf-8")
    for code, body in _ENTRY.findall(text):
        parts = {name: _plain(part) for name, part in _PART.findall(body)}
        meaning = body[: body.index("- **")] if "- **" in body else body
        paragraphs = tuple(map(_plain, filter(str.strip, re.split(r"\n\s*\n", meaning))))
        yield CausePage(
            code, page, paragraphs, parts.get("How to check", ""), parts.get("How to fix", ""),
            parts.get("For the maintainer", ""),
        )  # fmt: skip


def _plain(text: str) -> str:
    """The Markdown of a paragraph as text: addresses of the web stay, links within the pages become words."""

    def words(link: re.Match[str]) -> str:
        return f"{link[1]} ({link[2]})" if link[2].startswith("http") else link[1]

    return " ".join(_LINK.sub(words, text).split())


def _lines(cause: CausePage, screen: Screen) -> Iterator[Line]:
    width = min(screen.columns, 100)
    yield ((cause.code, BOLD), (cut(f"  ({PAGES[cause.page]})", width - len(cause.code), screen.more), DIM))
    for place, paragraph in enumerate(cause.meaning):
        yield ()
        if place == 0:
            yield (("What it means", BOLD),)
        yield from _paragraph(paragraph, width, screen)
    parts = (("How to check", cause.check), ("How to fix", cause.fix), ("For the maintainer", cause.avoid))
    for title, text in parts:
        yield ()
        yield ((title, BOLD),)
        yield from _paragraph(text, width, screen)
    yield ()


def _paragraph(text: str, width: int, screen: Screen) -> Iterator[Line]:
    for row in wrap(" ".join(text.split()), width - 2, _PARAGRAPH_LINES, screen.more):
        yield ((f"  {row}", PLAIN),)
