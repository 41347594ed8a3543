"""Texts for a screen: made harmless for it, and made to fit its width and its characters.

Names of files may hold anything but "/" and NUL. A terminal obeys escape sequences (ECMA-48: ESC, and the single
characters U+009B and U+009D for CSI and OSC), and shows text backwards after U+202E (Unicode Standard Annex 9).
Whatever the command writes goes through here, also before the program starts (docs/adr/0003).
"""

from __future__ import annotations

from collections.abc import Iterator

from .light import dataclass


def escape(text: str) -> str:
    """Return the text with an escape for every character that does not print.

    These are controls, lone surrogates, direction marks, and ends of lines: a name stays on its line.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def escape_lines(text: str) -> str:
    """Return the text with the same escapes, but with its line ends ("\\n") and tabs as they are."""
    if text.isprintable():
        return text
    return "\n".join("\t".join(map(escape, line.split("\t"))) for line in text.split("\n"))


def escape_for(stream: object, text: str) -> str:
    """Return the text as the stream may have it: with escapes for a terminal, as it is for a file or a pipe."""
    return escape_lines(text) if is_terminal(stream) else text


def is_terminal(stream: object) -> bool:
    """Return whether the stream is a terminal. A stream that is closed or has no `isatty` is none."""
    isatty = getattr(stream, "isatty", None)
    try:
        return isatty is not None and bool(isatty())
    except ValueError:  # closed
        return False


NARROWEST, USUAL = 40, 80
"""Columns: of the narrowest screen that texts are laid out for, and where the width is not known."""


@dataclass(frozen=True)
class Screen:
    """A terminal, a page, or whatever else shows a text.

    Attributes:
        width: columns of a line.
        is_ascii: it has ASCII characters only.
        has_marks: a mark (✓, ✗) may stand in the place of words ("works", "failed").
        documentation: the address of the documentation, for hyperlinks (OSC 8); empty where it shows none.
        folders: folders that the reader knows, which paths may be relative to: the current one.
        programs: pairs of a path and the name by which a shell of the reader finds the program.
    """

    width: int = USUAL
    is_ascii: bool = False
    has_marks: bool = False
    documentation: str = ""
    folders: tuple[str, ...] = ()
    programs: tuple[tuple[str, str], ...] = ()

    @property
    def columns(self) -> int:
        """The width to lay out for."""
        return max(self.width, NARROWEST)

    @property
    def more(self) -> str:
        """The text that stands where something was left out."""
        return "..." if self.is_ascii else "…"


def columns_of(text: str) -> int:
    """Return the columns that a text takes on a terminal (Unicode Standard Annex 11: wide characters take two)."""
    if text.isascii():
        return len(text)
    import unicodedata  # an extension module, which the usual text does without

    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(1 for char in text if unicodedata.combining(char))


def fit(text: str, room: int, more: str = "…", head: float = 1 / 3) -> str:
    """Return the text in at most `room` columns: its middle is left out, and its end, which tells most, kept.

    Arguments: `more`, what stands for the middle; `head`, the part of the room that the beginning gets (0 to 1).
    """
    if columns_of(text) <= room:
        return text
    room = max(room - len(more), 0)
    begin = _take(text, int(room * head))
    end = _take(text[::-1], room - columns_of(begin))[::-1]
    return f"{begin}{more}{end}"


def cut(text: str, room: int, more: str = "…") -> str:
    """Return the text in at most `room` columns: its end is left out, and `more` stands for it."""
    return text if columns_of(text) <= room else f"{_take(text, max(room - len(more), 0)).rstrip()}{more}"


def _take(text: str, room: int) -> str:
    """The characters at the start that fit."""
    text = text[:room]
    while columns_of(text) > room:
        text = text[:-1]
    return text


def wrap(text: str, width: int, most: int, more: str = "…") -> list[str]:
    """Return the text in at most `most` rows of `width` columns, with escapes; `more` ends the last where it was cut.

    Rows end between words. A word that is wider than a row loses its middle. Line ends and tabs may be in the name of
    a file, so they are shown as escapes: a text whose lines mean nothing is joined by the caller.
    """
    rows: list[str] = []
    for row in _rows(escape(text), width, more):
        if len(rows) == most:
            rows[-1] = cut(f"{rows[-1]} {more}", width, more) if columns_of(rows[-1]) + 1 + len(more) > width else (
                f"{rows[-1]} {more}"
            )
            return rows
        rows.append(row)
    return rows


def _rows(text: str, width: int, more: str) -> Iterator[str]:
    row = ""
    for word in filter(None, text.split(" ")):
        shown = fit(word, width, more)
        joined = f"{row} {shown}" if row else shown
        if columns_of(joined) <= width:
            row = joined
        else:
            yield row
            row = shown
    if row:
        yield row
