"""What the error codes of the Windows loader mean, and what can be behind them.

Sources: winerror.h and ntstatus.h of the Windows SDK (names and numbers), delayimp.h (VcppException), "System Error
Codes" of MS Learn; causes from failures seen in the wild.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from .knowledge import read_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


HRESULT_FROM_WIN32 = 0x80070000


class LoadError(enum.Enum):
    """What kind of failure a code stands for."""

    NOT_FOUND = "not found"
    """A file is not where the loader looked: this one, or one that it needs."""
    SYMBOL_NOT_FOUND = "symbol not found"
    BAD_IMAGE = "bad image"
    """Not a program, damaged, or for another processor."""
    INITIALISATION_FAILED = "initialisation failed"
    """Everything was found and bound; a DLL's own code failed."""
    PATH_TOO_LONG = "path too long"
    BAD_PATH = "bad path"
    ACCESS_DENIED = "access denied"
    BLOCKED = "blocked"
    """By a policy, a signature check or an antivirus program."""
    OUT_OF_MEMORY = "out of memory"
    INVALID_ACCESS = "invalid access"
    SIDE_BY_SIDE = "side by side"
    WINDOWS_TOO_OLD = "windows too old"
    CRASH = "crash"
    """The process died."""
    ENDED = "ended"
    """The process was ended on purpose."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class CodeMeaning:
    """What a code means.

    Attributes:
        code: as Windows counts it: an error code below 2**16, or an NTSTATUS of 32 bits without sign.
        name: its name in the SDK; empty if this version does not know it.
        error: what kind of failure it is.
        meaning: one sentence.
        causes: what can be behind it, the usual first; which one it is, the code does not tell.
    """

    code: int
    name: str
    error: LoadError
    meaning: str
    causes: tuple[str, ...] = ()


def classify_code(code: int) -> CodeMeaning:
    """The meaning of a code of GetLastError, of an NTSTATUS, an exit code or an HRESULT, with or without sign."""
    number = code & 0xFFFFFFFF
    if number & 0xFFFF0000 == HRESULT_FROM_WIN32:
        number &= 0xFFFF
    table = read_table("codes")
    win32 = {row["code"]: row for row in table["win32"]}
    if number in win32:
        return _meaning(number, win32[number], win32)
    for row in table["status"]:
        if int(row["code"], 16) == number:
            return _meaning(number, row, win32)
    return CodeMeaning(number, "", LoadError.UNKNOWN, "a code that is not in the table of this version")


def known_win32_codes() -> tuple[int, ...]:
    """The error codes that have a meaning here, for which a system can be asked its words."""
    return tuple(row["code"] for row in read_table("codes")["win32"])


def _meaning(number: int, row: dict[str, Any], win32: dict[int, dict[str, Any]]) -> CodeMeaning:
    facts = win32[row["same_as"]] if "same_as" in row else row
    return CodeMeaning(number, row["name"], LoadError(facts["error"]), facts["meaning"], tuple(facts["causes"]))


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
        system_texts: code to text, as the system that wrote it words them (`host.reload.read_system_texts`).

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
