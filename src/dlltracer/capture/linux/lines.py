"""One line of glibc's own log of its loader (LD_DEBUG=libs,files), as a value.

Source of the wording: elf/dl-load.c, dl-open.c, dl-close.c, dl-init.c, dl-fini.c and dl-catch.c of glibc 2.31 to 2.43;
ld.so(8) names the categories.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from ...model.events import Phase


class LineKind(enum.Enum):
    """What a line reports. `IGNORED`: known, and of no use here. `UNKNOWN`: not understood, and counted."""

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


_FILE = re.compile(r"file=(.*?) \[\d+\];  (dynamically loaded by|needed by|(?:generat|destroy)ing link map)(.*)")
_REQUESTER = re.compile(r" (.*) \[\d+\]")
_OPENING = re.compile(r"opening file=(.*) \[\d+\]; direct_opencount=\d+")
_CLOSING = re.compile(r"closing file=(.*?)(?: \[\d+\])?; direct_opencount=\d+")
_FIND = re.compile(r"find library=(.*) \[\d+\]; searching")
_SEARCH = re.compile(r" search path=(.*)\t\t\((.*)\)")
_MISS = re.compile(r"    \((.+)\)")
_PLACE = re.compile(r"  dynamic: 0x[0-9a-f]+  base: 0x([0-9a-f]+)   size: 0x([0-9a-f]+)")
_FINI = re.compile(r"calling fini: (.*?)(?: \[\d+\])?")
_ERROR = ": error: "
_ORIGIN = re.compile(r"(RPATH|RUNPATH|LD_LIBRARY_PATH)(?: from file (.*))?")

_FILE_KINDS = {
    "dynamically loaded by": LineKind.OPEN,
    "needed by": LineKind.NEED,
    "generating link map": LineKind.MAP,
    "destroying link map": LineKind.DESTROY,
}
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
    """Parse what follows `PID:<tab>` on a line. Never raises: what it does not know is `UNKNOWN`."""
    if text.startswith("    entry: "):
        return _IGNORED
    if text.startswith("  trying file="):
        return Line(LineKind.TRY, text[14:])
    if text.startswith("file="):
        return _parse_file(text)
    if text.startswith("transferring control: "):
        return Line(LineKind.START, text[22:])
    return _parse_search(text) or _parse_state(text) or _parse_rest(text)


def _parse_rest(text: str) -> Line:
    if match := _MISS.fullmatch(text):  # glibc 2.43: "no such file", "incompatible ELF class"
        return Line(LineKind.MISS, by=match[1])
    if text.endswith(" (continued)") and _ERROR in text:
        return Line(LineKind.IGNORED)
    if text.endswith(" (fatal)") and _ERROR in text:
        # No regular expression: the text of a loader error may be a megabyte, and this line must not cost its square.
        image, _, words = text.removesuffix(" (fatal)").partition(_ERROR)
        return Line(LineKind.ERROR, image, by=words)
    if not text or text.startswith(_OF_NO_USE) or text.lstrip(" ").startswith(_STATISTICS):
        return Line(LineKind.IGNORED, text)
    return Line(LineKind.UNKNOWN, text)


def _parse_file(text: str) -> Line:
    match = _FILE.fullmatch(text)
    if match is None:
        return Line(LineKind.UNKNOWN, text)
    if match[3].endswith(" (relocation dependency)"):
        return Line(LineKind.IGNORED)  # keeps the provider of a symbol from being unloaded; nobody looked for a file
    kind = _FILE_KINDS[match[2]]
    requester = _REQUESTER.fullmatch(match[3])
    if kind in (LineKind.OPEN, LineKind.NEED) and requester is None:
        return Line(LineKind.UNKNOWN, text)
    return Line(kind, match[1], by=requester[1] if requester else None)


def _parse_search(text: str) -> Line | None:
    if match := _FIND.fullmatch(text):
        return Line(LineKind.FIND, match[1])
    if text.startswith(" search cache="):
        return Line(LineKind.SEARCH, by=text[14:], phase=Phase.CACHE)
    if match := _SEARCH.fullmatch(text):
        if match[2] == "system search path":
            return Line(LineKind.SEARCH, phase=Phase.SYSTEM)
        origin = _ORIGIN.fullmatch(match[2])
        if origin is None:
            return Line(LineKind.SEARCH, by=match[2], phase=Phase.OTHER)
        return Line(LineKind.SEARCH, by=origin[2], phase=_PHASES[origin[1]])
    return None


def _parse_state(text: str) -> Line | None:
    if match := _PLACE.fullmatch(text):
        return Line(LineKind.PLACE, base=int(match[1], 16), size=int(match[2], 16))
    if text.startswith("calling init: "):
        return Line(LineKind.INIT, text[14:])
    if match := _FINI.fullmatch(text):
        return Line(LineKind.FINI, match[1])
    if match := _OPENING.fullmatch(text):
        return Line(LineKind.OPENED, match[1])
    if match := _CLOSING.fullmatch(text):
        return Line(LineKind.CLOSE, match[1])
    return None
