"""Trees of text with styles, and what keeps names of files harmless in them."""

from __future__ import annotations

import ntpath
import posixpath
import re
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.text import Text

Line = tuple[tuple[str, str], ...]
"""Pieces of text, each with a style of rich."""

PLAIN, DIM, BOLD = "", "dim", "bold"
FAILED, DROPPED, WARNING = "bold red", "red", "bold magenta"
"""Of a terminal's own colours: yellow cannot be read on white, and red on black only where it is a word or two."""

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
    """Lines with styles, as text that takes rich only where there are colours to be written: it takes long to import.

    Attributes: `lines`.
    """

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = tuple(lines)

    @property
    def plain(self) -> str:
        """The text without styles."""
        return to_plain_text(self.lines)

    def __rich__(self) -> Text:
        """What a console of rich prints instead."""
        return to_text(self.lines)


def to_text(lines: Iterable[Line]) -> Text:
    """The lines as styled text; `.plain` is it without styles. Every line is whole: nothing is wrapped or cut.

    Characters that are not printable are escaped.
    """
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ignore")
    for line in lines:
        for piece, style in line:
            text.append(escape(piece), style)
        text.append("\n")
    return text


def to_plain_text(lines: Iterable[Line]) -> str:
    """The same without styles, and without rich: for the processes of others."""
    return "".join("".join(escape(piece) for piece, _ in line) + "\n" for line in lines)


def escape(text: str) -> str:
    """The text with every character that does not print (controls, lone surrogates, direction marks) as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def file_name(path: str) -> str:
    """Return the last part of a path of either system."""
    return (ntpath if is_windows_path(path) else posixpath).basename(path) or path


def is_windows_path(path: str) -> bool:
    """Whether a path has the look of Windows: it begins with a drive or a backslash."""
    return _WINDOWS_PATH.match(path) is not None


def number(count: int, noun: str) -> str:
    """The number with its noun: "1 image", "2 images"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
