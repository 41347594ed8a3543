"""Parses one line of glibc's loader log (LD_DEBUG=libs,files) into a value.

Source of the wording: elf/dl-load.c, dl-open.c, dl-close.c, dl-init.c, dl-fini.c and dl-catch.c of glibc 2.31 to 2.43;
ld.so(8) names the categories.
"""

from __future__ import annotations

import enum

from ...model.events import Phase
from ...model.light import dataclass


class LineKind(enum.Enum):
    """The statement that a line makes. `IGNORED`: known, of no use here. `UNKNOWN`: not understood, and counted."""

    OPEN = "dynamically loaded by"
    NEED = "needed by"
    FIND = "find library"
    SEARCH = "search path or cache"
    TRY = "trying file"
    MISS = "why not the file just tried"
    MAP = "generating link map"
    PLACE = "base and size"
    START = "transferring control"
    INIT = "calling init"
    FINI = "calling fini"
    OPENED = "opening file"
    CLOSE = "closing file"
    DESTROY = "destroying link map"
    ERROR = "error"
    IGNORED = "ignored"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Line:
    """A line: its `kind`, and where the kind has them: `name` (file or library), `by` (requester, origin or error
    text), `phase`, `base`, `size` (bytes)."""

    kind: LineKind
    name: str = ""
    by: str | None = None
    phase: Phase | None = None
    base: int | None = None
    size: int | None = None


_ERROR = ": error: "

_FILE_KINDS = {
    "dynamically loaded by": LineKind.OPEN,
    "needed by": LineKind.NEED,
    "generating link map": LineKind.MAP,
    "destroying link map": LineKind.DESTROY,
}
_FILE_WORDS = tuple(_FILE_KINDS)
_LONGEST_NUMBER = 24
_HEXADECIMAL = "0123456789abcdef"
_PHASES = {"RPATH": Phase.RPATH, "RUNPATH": Phase.RUNPATH, "LD_LIBRARY_PATH": Phase.ENVIRONMENT}

_OF_NO_USE = (
    "    entry: ", "activating NODELETE", "marking ", "initialize program: ",
    "calling preinit: ", "unload ", "add ",
    # The other categories of LD_DEBUG, when the user had asked for them too.
    "symbol=", "binding file ", "relocation processing: ", "checking for version ", "object=", " scope ", " no scope",
    "Scopes", "Initial object scopes", "conflict processing", "runtime linker statistics", "\t", "WARNING: ", "TLS ",
)  # fmt: skip
_STATISTICS = ("number of ", "final number of ", "time needed ", "total startup time")
"""Of the category "statistics": their lines are indented."""


_IGNORED = Line(LineKind.IGNORED)


def parse_line(text: str) -> Line:
    """Parse what follows `PID:<tab>` on a line. Never raises: what it does not know is `UNKNOWN`.

    By methods of strings: compiling regular expressions takes longer than parsing what a large program loads.
    """
    if text.startswith("file="):
        return _parse_file(text)
    if text.startswith("  trying file="):
        return Line(LineKind.TRY, text[14:])
    if text.startswith("transferring control: "):
        return Line(LineKind.START, text[22:])
    if text.startswith("    entry: "):
        return _IGNORED
    return _parse_state(text) or _parse_search(text) or _parse_rest(text)


def _parse_rest(text: str) -> Line:
    if text.startswith("    (") and text.endswith(")") and len(text) > 6:
        return Line(LineKind.MISS, by=text[5:-1])  # glibc 2.43: "no such file", "incompatible ELF class"
    if text.endswith(" (continued)") and _ERROR in text:
        return Line(LineKind.IGNORED)
    if text.endswith(" (fatal)") and _ERROR in text:
        image, _, words = text.removesuffix(" (fatal)").partition(_ERROR)
        return Line(LineKind.ERROR, image, by=words)
    if not text or text.startswith(_OF_NO_USE) or text.lstrip(" ").startswith(_STATISTICS):
        return Line(LineKind.IGNORED, text)
    return Line(LineKind.UNKNOWN, text)


def _without_namespace(text: str) -> str | None:
    """The name in `NAME [N]`, where N is the number of a namespace of dlmopen; `None` without it."""
    name, bracket, number = text.rpartition(" [")
    return name if bracket and number.endswith("]") and number[:-1].isdecimal() else None


def _parse_file(text: str) -> Line:
    # The first place that fits. A name may hold any of this, and be a megabyte long: only short pieces are copied.
    end = text.find("];  ")
    while end >= 0:
        start = text.rfind(" [", max(5, end - _LONGEST_NUMBER), end)
        if start >= 0 and text[start + 2 : end].isdecimal() and text.startswith(_FILE_WORDS, end + 4):
            break
        end = text.find("];  ", end + 1)
    else:
        return Line(LineKind.UNKNOWN, text)
    name, after = text[5:start], text[end + 4 :]
    if after.endswith(" (relocation dependency)"):
        return Line(LineKind.IGNORED)  # keeps the provider of a symbol from being unloaded; nobody looked for a file
    words = next(words for words in _FILE_WORDS if after.startswith(words))
    kind, rest = _FILE_KINDS[words], after[len(words) :]
    requester = _without_namespace(rest[1:]) if rest.startswith(" ") else None
    if kind in (LineKind.OPEN, LineKind.NEED) and requester is None:
        return Line(LineKind.UNKNOWN, text)
    return Line(kind, name, by=requester)


def _parse_search(text: str) -> Line | None:
    if text.startswith(" search path=") and text.endswith(")"):
        _, between, rule = text[:-1].rpartition("\t\t(")
        return _parse_rule(rule) if between else None
    if text.startswith("find library=") and text.endswith("; searching"):
        name = _without_namespace(text[13:-11])
        return None if name is None else Line(LineKind.FIND, name)
    if text.startswith(" search cache="):
        return Line(LineKind.SEARCH, by=text[14:], phase=Phase.CACHE)
    return None


def _parse_rule(rule: str) -> Line:
    """The rule of a search path: its words in brackets."""
    if rule == "system search path":
        return Line(LineKind.SEARCH, phase=Phase.SYSTEM)
    word, between, origin = rule.partition(" from file ")
    if word not in _PHASES:
        return Line(LineKind.SEARCH, by=rule, phase=Phase.OTHER)
    return Line(LineKind.SEARCH, by=origin if between else None, phase=_PHASES[word])


def _parse_place(text: str) -> Line | None:
    dynamic, _, rest = text[13:].partition("  base: 0x")
    base, _, size = rest.partition("   size: 0x")
    if not (dynamic and base and size) or (dynamic + base + size).strip(_HEXADECIMAL):
        return None
    return Line(LineKind.PLACE, base=int(base, 16), size=int(size, 16))


def _parse_state(text: str) -> Line | None:
    if text.startswith("  dynamic: 0x"):
        return _parse_place(text)
    if text.startswith("calling init: "):
        return Line(LineKind.INIT, text[14:])
    if text.startswith("calling fini: "):
        name = _without_namespace(text[14:])
        return Line(LineKind.FINI, text[14:] if name is None else name)
    is_opening = text.startswith("opening file=")
    if is_opening or text.startswith("closing file="):
        file, _, count = text[13:].rpartition("; direct_opencount=")
        name = _without_namespace(file)
        if count.isdecimal() and (name is not None or (file and not is_opening)):
            return Line(LineKind.OPENED if is_opening else LineKind.CLOSE, file if name is None else name)
    return None
