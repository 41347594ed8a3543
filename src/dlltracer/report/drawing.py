"""Lines of styled text, and trees of them. Nothing here knows a terminal: `cli.output` makes colours of the styles."""

from __future__ import annotations

import ntpath
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..model.printable import escape

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


@dataclass(frozen=True)
class Node:
    """A line and the lines below it."""

    label: Line
    below: tuple[Node, ...] = ()


def draw(nodes: tuple[Node, ...], guides: Guides) -> Iterator[Line]:
    """The lines of the nodes, each with what connects it to its siblings. Works at any depth."""
    stack = [(node, "", number == len(nodes)) for number, node in enumerate(nodes, 1)][::-1]
    while stack:
        node, indent, last = stack.pop()
        yield ((indent + (guides.last if last else guides.branch), DIM), *node.label)
        indent += guides.blank if last else guides.through
        stack += [(below, indent, number == len(node.below)) for number, below in enumerate(node.below, 1)][::-1]


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
    return (ntpath if is_windows_path(path) else posixpath).basename(path) or path


def is_windows_path(path: str) -> bool:
    """Whether a path has the look of Windows: it begins with a drive or a backslash."""
    return _WINDOWS_PATH.match(path) is not None


def number(count: int, noun: str) -> str:
    """The number with its noun: "1 image", "2 images"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
