"""Commands as people paste them: words joined for the shell of the system that they are for.

A command is a tuple of words everywhere else. Words come from file names, recordings and package metadata, which may be
anybody's: a folder may be named `$(touch x)`. So they are joined here only, and what cannot be quoted is not shown.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from ..model.failure import System
from ..model.finding import Remedy

_PLAIN_ON_WINDOWS = re.compile(r"--?[A-Za-z][A-Za-z0-9-]*|[A-Za-z0-9_:\\/][A-Za-z0-9_:\\/.+=~-]*")
"""Words that neither cmd.exe nor PowerShell reads anything into."""

_NEVER_ON_WINDOWS = re.compile('["%$`!\u2018-\u201f]')
"""Between double quotes cmd.exe still expands %NAME% (and !NAME! where that is turned on) and PowerShell $NAME, $(...)
and the backtick; PowerShell also takes curly quotes for quotes. No quoting keeps these from both shells.
Sources: `cmd /?`; about_Quoting_Rules and about_Special_Characters of PowerShell, MS Learn."""


def join_command(words: Sequence[str], system: System) -> str | None:
    """Return the command as one line to paste; `None` if some word cannot be written safely.

    For Windows the line means the same to cmd.exe and PowerShell, but for a program whose path needs quotes: before
    that PowerShell wants "& ", and without it reports an error and runs nothing. Elsewhere the line is for sh.
    """
    # What does not print would be escaped on the screen (model.printable): what is pasted would name another file.
    if not words or not all(map(str.isprintable, words)):
        return None
    if system is not System.WINDOWS:
        return shlex.join(words)
    if any(_NEVER_ON_WINDOWS.search(word) for word in words):
        return None
    return " ".join(word if _PLAIN_ON_WINDOWS.fullmatch(word) else _quoted(word) for word in words)


def _quoted(word: str) -> str:
    # A backslash before the closing quote would escape it: "Parsing C command-line arguments", MS Learn.
    trailing = len(word) - len(word.rstrip("\\"))
    return '"' + word + "\\" * trailing + '"'


def remedy_words(remedy: Remedy) -> str:
    """Return what a remedy does, as a sentence, and whether it was seen to work."""
    return f"{remedy.what} (tried: the import works)" if remedy.tried else remedy.what


def remedy_line(remedy: Remedy, system: System) -> str:
    """Return what to type for a remedy, a command or Python code; empty if there is nothing to type, or no safe way."""
    if remedy.code.isprintable() and remedy.code:
        return remedy.code
    return join_command(remedy.command, system) or ""
