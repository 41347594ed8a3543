"""Lines of styled text, and trees of them. Nothing here knows a terminal: `cli.output` makes colours of the styles."""

from __future__ import annotations

import ntpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..model.printable import escape

T = TypeVar("T")

Line = tuple[tuple[str, str], ...]
"""Pieces of text, each with one of the styles below."""

PLAIN, DIM, BOLD = "", "dim", "bold"
FAILED, DROPPED, WARNING = "bold red", "red", "bold magenta"
"""Words for colours of the terminal's own: yellow cannot be read on white, and red on black only where it is a word or
two."""

_WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\")


@dataclass(frozen=True)
class Guides:
    """The characters that draw the tree."""

    branch: str
    last: str
    through: str
    more: str

    @property
    def blank(self) -> str:
        return " " * len(self.last)


UNICODE = Guides("\u251c\u2500 ", "\u2514\u2500 ", "\u2502  ", "…")
ASCII = Guides("|- ", "`- ", "|  ", "...")


DEEPEST = 40
"""Levels that are drawn by indentation. A library that strangers made may need 5,000 others in a chain: with an
indentation for each level, the text of such a tree grows with the square of its depth."""


@dataclass(frozen=True)
class Node:
    """A line and the lines below it."""

    label: Line
    below: Sequence[Node] = ()


def grow(tops: Iterable[T], describe: Callable[[T], tuple[Line, Iterable[T]]]) -> list[Node]:
    """Return the nodes of things that have others below them.

    Works at any depth: a loop, because 1,000 levels are more than Python's stack takes.

    Arguments: `describe` gives the line of a thing, and the things below it.
    """
    roots: list[Node] = []
    waiting = [(top, roots) for top in tops][::-1]
    while waiting:
        thing, siblings = waiting.pop()
        label, below = describe(thing)
        inner: list[Node] = []
        siblings.append(Node(label, inner))
        waiting += [(one, inner) for one in below][::-1]
    return roots


def draw(nodes: Sequence[Node], guides: Guides) -> Iterator[Line]:
    """Yield the lines of the nodes, each with what connects it to its siblings.

    Below `DEEPEST` levels the indentation stays, and the number of the level stands before the name.
    """
    waiting = [(node, 1, "", number == len(nodes)) for number, node in enumerate(nodes, 1)][::-1]
    while waiting:
        node, level, indent, last = waiting.pop()
        branch = guides.last if last else guides.branch
        yield ((f"{indent}{branch}{f'[{level}] ' if level > DEEPEST else ''}", DIM), *node.label)
        if level < DEEPEST:
            indent += guides.blank if last else guides.through
        waiting += [
            (below, level + 1, indent, number == len(node.below)) for number, below in enumerate(node.below, 1)
        ][::-1]


class Styled:
    """Lines of styled text: what every renderer for people returns.

    Attributes: `lines`.
    """

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = tuple(lines)

    def __add__(self, other: Styled) -> Styled:
        """Return both, an empty line between them."""
        return Styled((*self.lines, (), *other.lines))

    @property
    def plain(self) -> str:
        """The text without styles, with escapes for what does not print. Lines are not wrapped and not cut."""
        return "".join("".join(escape(piece) for piece, _ in line) + "\n" for line in self.lines)


def file_name(path: str) -> str:
    """Return the last part of a path of either system."""
    if is_windows_path(path):
        return ntpath.basename(path) or path
    return path.rpartition("/")[2] or path


def is_windows_path(path: str) -> bool:
    """Whether a path has the look of Windows: it begins with a drive or a backslash."""
    return _WINDOWS_PATH.match(path) is not None


def number(count: int, noun: str) -> str:
    """The number with its noun: "1 image", "2 images"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
