"""Classifies failures of the Windows loader: the meaning of its codes, and the kind of failure that a case shows.

Sources: winerror.h and ntstatus.h of the Windows SDK (names and numbers), delayimp.h (VcppException), "System Error
Codes" of MS Learn; causes from failures seen in the wild.
"""

from __future__ import annotations

import enum
import ntpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..knowledge import read_table
from ..model.events import ImageEvent, Phase
from ..model.failure import System
from ..model.finding import Confidence, Evidence, Remedy, Source
from ..model.pe import PeImage
from ..model.tree import Binding
from ..model.words import RULES
from .case import Case, compared_name
from .providers import NO_DLL_SITES, find_providers, install_remedies

HRESULT_FROM_WIN32 = 0x80070000


class LoadError(enum.Enum):
    """The kind of failure that a code stands for."""

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
    ELEVATION = "elevation"
    """It has to be run as administrator."""
    NOT_FETCHED = "not fetched"
    """A placeholder of a cloud folder, whose content is elsewhere."""
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
    """The meaning of a code.

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
    """Return the meaning of a code: of GetLastError, an NTSTATUS, an exit code or an HRESULT, with or without sign."""
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
"""Characters of a text that are looked through for a code."""


class MessageSource(enum.Enum):
    """The way in which a code was found."""

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
    """Return the Windows error code that a message of an exception stands for.

    Arguments:
        text: `str(exception)`, or a report that quotes it.
        system_texts: code to text, as the system that wrote it words them (`host.failure.read_system_texts`).

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
    """Return (code, language) to the words that Windows uses. Only to read reports of other machines."""
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
    """Normalise a message for comparison: Windows puts a file name for %1 or leaves it out, and changed its quotes over
    the years."""
    words = text.replace("%1", " ").replace("\u2019", "'").replace("\u00a0", " ")
    return " ".join(words.casefold().split()).rstrip(" .\u3002")


WINE_STUB = 0x80000100
"""EXCEPTION_WINE_STUB (Wine's include/winternl.h): Wine binds a symbol that is missing, and raises at its call."""


def load_error(case: Case) -> LoadError | None:
    """Return the kind of failure that Windows reported; `None` if it was no failure of its loader.

    `LoadError.UNKNOWN`: a load failed, and the code behind the words is not known.
    """
    if case.code is not None:
        return classify_code(case.code).error
    if case.run.crash is not None and case.run.crash.code == WINE_STUB:
        return LoadError.SYMBOL_NOT_FOUND
    if case.is_program or (case.error is not None and case.error.message.startswith("DLL load failed")):
        return LoadError.UNKNOWN
    return None


def firmness(case: Case) -> Confidence:
    """Return the confidence in a cause that the files show and the code fits, by how the code came to be known."""
    return Confidence.CERTAIN if case.code is not None and not case.code_is_guess else Confidence.LIKELY


def code_evidence(case: Case) -> tuple[Evidence, ...]:
    """Return the evidence of the code, with its meaning; () if there is no code."""
    if case.code is None:
        return ()
    meaning = classify_code(case.code)
    guess = ", as concluded from the words of the exception" if case.code_is_guess else ""
    number = str(case.code) if case.code < 1 << 16 else f"{case.code:#010x}"
    return (Evidence(Source.SYSTEM, f"Windows' error {number} {meaning.name}: {meaning.meaning}{guess}"),)


def why_taken(phase: Phase | None) -> str:
    """Return the rule that chose a copy, as a clause."""
    return (RULES[phase].reason if phase is not None else "") or "the loader's rules led to it"


def base_name(path: str) -> str:
    """Return the last part of a path, as Windows compares names: in lower case."""
    return compared_name(path, System.WINDOWS)


def name_of(path: str) -> str:
    """The last part of a path, for people."""
    return ntpath.basename(path)


def is_in(path: str, folder: str) -> bool:
    """Return whether the file lies in that folder or below."""
    top = ntpath.normcase(ntpath.normpath(folder)).rstrip("\\") + "\\" if folder else ""
    return bool(top) and ntpath.normcase(ntpath.normpath(path)).startswith(top)


def is_of_windows(path: str) -> bool:
    """Return whether a file lies in the system folder."""
    return base_name(ntpath.dirname(path)) in ("system32", "syswow64")


def first_importer(case: Case, path: str) -> str:
    """Return who brought an image into the process, as a clause: "import pyarrow" ...; empty if that was not seen."""
    loads = case.run.recording.loads if case.run.recording is not None else ()
    wanted = ntpath.normcase(path)
    for event in loads:
        if ntpath.normcase(event.shown_path) == wanted:
            return " > ".join(f"import {name}" for name in event.imports[-2:]) if event.imports else ""
    return ""


def was_loaded(case: Case, name: str) -> bool:
    """Return whether an image of that base name was seen to come into the process, if only for a moment.

    Then it was found, by a rule that is not known here: SetDllDirectory or AddDllDirectory called by native code.
    """
    events = case.run.recording.events if case.run.recording is not None else ()
    wanted = base_name(name)
    return any(isinstance(event, ImageEvent) and base_name(event.shown_path) == wanted for event in events)


def version_of(case: Case, path: str) -> str:
    """The file version of an image, "14.28.29334.0"; empty if it has none, or was not read."""
    image = case.images.get(path)
    version = image.resources.file_version if isinstance(image, PeImage) and image.resources is not None else None
    return ".".join(map(str, version)) if version else ""


def described(case: Case, path: str) -> str:
    """Return an image with its version and the package that shipped it, for a sentence."""
    version = version_of(case, path)
    return f"{path}{f' {version}' if version else ''}{case.owner_of(path)}"


def provider_remedies(name: str) -> Iterator[Remedy]:
    """Yield safe sources of a DLL, and the warning of unsafe ones."""
    yield from install_remedies(find_providers(name, System.WINDOWS))
    yield Remedy(NO_DLL_SITES)


def binding_of(case: Case, requested_by: str, library: str) -> Binding | None:
    """Return what became of an image's need of a library, by its name in any case; `None` if that is not known.

    Needs that are bound at their first call (delay-loaded) are passed over.
    """
    wanted = library.lower()
    for binding in case.tree.bindings if case.tree is not None else ():
        if binding.requested_by == requested_by and binding.need.lower() == wanted and not binding.delayed:
            return binding
    return None
