"""The Windows error code behind a text: ImportError carries the words of FormatMessage, in the language of the user.

CPython's `dynload_win.c` writes "DLL load failed while importing NAME: TEXT" (no "while importing NAME" before 3.8) and
drops the code; OSError writes "[WinError CODE] TEXT".
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from .knowledge.reader import read_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NUMBER = re.compile(r"\[WinError (-?\d{1,10})\]|DLL load failed with error code (-?\d{1,10})")
_CTYPES = re.compile(r"Could not find module '[^\n]{0,600}' \(or one of its dependencies\)")
ERROR_MOD_NOT_FOUND = 126
LONGEST_REPORT = 20_000


class MessageSource(enum.Enum):
    """How a code was found."""

    NUMBER = "number"
    """The text says it."""
    CPYTHON = "cpython"
    """ctypes says ERROR_MOD_NOT_FOUND in words of its own, which are English everywhere."""
    SYSTEM = "system"
    """The words are those of this system, in its language."""
    BUNDLED = "bundled"
    """The words were seen in reports from other machines. A guess: two codes may share words in some language."""


@dataclass(frozen=True)
class MessageCode:
    """A code found in a text.

    Attributes:
        code: the Windows error code.
        source: how it was found.
        language: of the words, for BUNDLED.
    """

    code: int
    source: MessageSource
    language: str | None = None


def find_code(text: str, system_texts: Mapping[int, str] | None = None) -> MessageCode | None:
    """The Windows error code that a message of an exception stands for.

    Arguments:
        text: `str(exception)`, or a report that quotes it.
        system_texts: code to text, as the system that wrote it words them (`host.messages`).

    Returns: `None` if it has no words that are known.
    """
    text = text[:LONGEST_REPORT]
    number = _NUMBER.search(text)
    if number:
        return MessageCode(int(number[1] or number[2]), MessageSource.NUMBER)
    if _CTYPES.search(text):
        return MessageCode(ERROR_MOD_NOT_FOUND, MessageSource.CPYTHON)
    plain = _plain(text)
    found = _longest(plain, {(code, ""): words for code, words in (system_texts or {}).items()})
    if found:
        return MessageCode(found[0], MessageSource.SYSTEM)
    found = _longest(plain, bundled_texts())
    return MessageCode(found[0], MessageSource.BUNDLED, found[1]) if found else None


def bundled_texts() -> dict[tuple[int, str], str]:
    """(code, language) to the words Windows uses. Only to read reports of other machines."""
    table: dict[str, dict[str, str]] = read_table("windows_messages")
    return {(int(code), language): words for code, row in table.items() for language, words in row.items()}


def _longest(plain: str, texts: Mapping[tuple[int, str], str]) -> tuple[int, str] | None:
    """The key of the longest words that the text has; `None` if there are none, or two codes have the same words."""
    hits = [(len(words), key) for key, text in texts.items() if (words := _plain(text)) and words in plain]
    if not hits:
        return None
    best = max(length for length, _ in hits)
    keys = sorted(key for length, key in hits if length == best)
    return keys[0] if len({code for code, _ in keys}) == 1 else None


def _plain(text: str) -> str:
    """What is compared: Windows puts a file name for %1 or leaves it out, and changed its quotes over the years."""
    words = text.replace("%1", " ").replace("\u2019", "'").replace("\u00a0", " ")
    return " ".join(words.casefold().split()).rstrip(" .\u3002")
