"""A hook of mkdocs: pages of the project outside of docs/ become pages of the site, and links to them lead there.

On a hosting site `docs/index.md` links to `../ARCHITECTURE.md`; mkdocs knows its own folder only. The pages of
`dlltracer explain` lie in the package, which shows them where no network is.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CHANGELOG.md": "project/changelog.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "src/dlltracer/report/pages/findings.md": "reference/findings.md",
    "src/dlltracer/report/pages/checks.md": "reference/checks.md",
}
"""A file of the project to its page in the site."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, with their links turned."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        text = turn_links((ROOT / source).read_text(encoding="utf-8"), source, page)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn the links that lead out of the folder."""
    uri = page.file.src_uri
    return markdown if uri in PAGES.values() else turn_links(markdown, f"docs/{uri}", uri)


def turn_links(text: str, source: str, page: str) -> str:
    """The text of `source` (a path in the project) with its links as they must be in `page` (a path in the site).

    A link to a file that the site does not have (a source file, a folder) becomes its words.
    """

    def turned(match: re.Match[str]) -> str:
        mark, words, target, anchor = match.groups(default="")
        if mark or re.match(r"[a-z]+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        goal = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else "")
        if not goal:
            return words
        return f"[{words}]({posixpath.relpath(goal, posixpath.dirname(page) or '.')}{anchor})"

    return _LINK.sub(turned, text)
