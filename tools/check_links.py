"""Every relative link and every `docs/...` path named in the Markdown files and in the code leads to a file.

Prints those that lead nowhere, one a line, and then ends with status 1.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
NAMED = re.compile(r"(?<![/\w])docs/[\w./-]*\w")


def files_here(root: Path) -> list[Path]:
    """The project's files, without folders that tools make for themselves."""
    tops = [top for top in root.iterdir() if top.is_dir() and not top.name.startswith(".")]
    return sorted([*root.glob("*.*"), *(file for top in tops for file in top.rglob("*.*"))])


def anchors(text: str) -> set[str]:
    """The anchors that the headings make, as hosting sites derive them."""
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in HEADING.findall(text)}


def broken_links(page: Path) -> list[str]:
    """The links of one Markdown file that lead nowhere."""
    found = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        goal = page.parent / name if name else page
        if not goal.exists() or (anchor and anchor not in anchors(goal.read_text(encoding="utf-8"))):
            found.append(target)
    return found


def broken_names(file: Path, root: Path) -> list[str]:
    """The pages that a source file names and that do not exist; an ADR may be named by its number."""
    return [
        name
        for name in NAMED.findall(file.read_text(encoding="utf-8"))
        if not (root / name).exists() and not any(root.glob(f"{name}-*"))
    ]


def main() -> int:
    root = Path(__file__).resolve().parents[1]
    problems = []
    for file in files_here(root):
        if file.suffix == ".md":
            problems += [f"{file.relative_to(root)}: {target}" for target in broken_links(file)]
        elif file.suffix == ".py":
            problems += [f"{file.relative_to(root)}: {name}" for name in broken_names(file, root)]
    print("\n".join(problems) or "all links lead somewhere")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
