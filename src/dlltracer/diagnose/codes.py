"""What the error codes of the Windows loader mean, and what can be behind them.

Sources: winerror.h and ntstatus.h of the Windows SDK (names and numbers), delayimp.h (VcppException), "System Error
Codes" of MS Learn; causes from failures seen in the wild.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .knowledge.reader import read_table

TYPE_CHECKING = False
if TYPE_CHECKING:
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
