"""Text made harmless for the screen that it is shown on.

Names of files may hold anything but "/" and NUL. A terminal obeys escape sequences (ECMA-48: ESC, and the single
characters U+009B and U+009D for CSI and OSC), and shows text backwards after U+202E (Unicode Standard Annex 9).

Imports nothing: whatever the command writes goes through here, also before the program starts (docs/adr/0003).
"""

from __future__ import annotations


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
