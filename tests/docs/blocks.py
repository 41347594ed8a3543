"""The code blocks of a Markdown page, and whether an output is the one that the page shows. Pure.

A comment just above a block says what the test must know: `<!-- exit 1 -->` (status of the last command), `<!-- only:
glibc -->` (needs that), `<!-- not run: why -->`, `<!-- run by: tests/x.py -->` (that test runs it). Readers do not
see it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

OUTPUT_ONLY = frozenset({"text", "mermaid"})
"""Languages of blocks that hold no code: synopses and outputs."""

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$", re.M | re.S)
_DIRECTIVE = re.compile(r"<!-- *(?P<what>[^>]*?) *-->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A code block: its page, the line of its fence, its language, its text, what the comment above it says."""

    page: Path
    line: int
    language: str
    code: str
    directive: str = ""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def status(self) -> int:
        """The exit status that its last command must have."""
        match = re.search(r"exit (\d+)", self.directive)
        return int(match[1]) if match else 0

    @property
    def other_test(self) -> str | None:
        """The test that runs it, if that is another one than that of the pages."""
        match = re.search(r"run by: (\S+)", self.directive)
        return match[1] if match else None

    @property
    def reason_not_to_run(self) -> str | None:
        """Why a reader is shown something that no test can run."""
        match = re.search(r"not run: (.+)", self.directive)
        return match[1] if match else None


@dataclass(frozen=True)
class Step:
    """A command of a console block, and the output that the page shows for it; `None` if it shows none."""

    command: str
    output: str | None


def parse_blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in _FENCE.finditer(text):
        before = _DIRECTIVE.search(text, 0, match.start())
        indent = len(match["indent"])
        code = "".join(line[indent:] if line.strip() else line for line in match["code"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start()) + 1
        blocks.append(Block(page, line, match["language"], code, before["what"] if before else ""))
    return blocks


def parse_steps(code: str, prompt: str) -> list[Step]:
    """The commands of a console block, which begin with `prompt`; a line that begins with "> " continues one."""
    steps: list[tuple[str, list[str]]] = []
    for line in code.splitlines():
        if line.startswith(prompt):
            steps.append((line[len(prompt) :], []))
        elif not steps:
            raise ValueError(f"the block does not begin with {prompt!r}: {line!r}")
        elif line.startswith("> ") and not steps[-1][1]:
            steps[-1] = (f"{steps[-1][0]}\n{line[2:]}", [])
        else:
            steps[-1][1].append(line)
    return [Step(command, "\n".join(lines) if lines else None) for command, lines in steps]


def is_shown_output(shown: str, actual: str) -> bool:
    """Whether the page shows this output. Where lines are broken does not matter; "…" stands for anything in a word,
    and alone for any number of words, also none."""
    pattern = ""
    for word in shown.split():
        pattern += r"(?: \S+)*?" if word == "…" else " " + ".*?".join(map(re.escape, word.split("…")))
    return re.fullmatch(pattern, "".join(f" {word}" for word in actual.split())) is not None
