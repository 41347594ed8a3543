"""Parses one line of glibc's loader log (LD_DEBUG=libs,files) into a value.

Source of the wording: elf/dl-load.c, dl-open.c, dl-close.c, dl-init.c, dl-fini.c and dl-catch.c of glibc 2.31 to 2.43;
ld.so(8) names the categories.
"""

from __future__ import annotations

from ...model.events import Phase


class LineKind:
    """The statement that a line makes. `IGNORED`: known, of no use here. `UNKNOWN`: not understood, and counted.

    Plain text, no enum: CPython 3.10 and 3.11 run a function at each look at a member, a third of the cost of decoding.
    """

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


class Line:
    """A line: its `kind` (of `LineKind`), and where the kind has them: `name` (file or library), `by` (requester,
    origin or error text), `phase`, `base`, `size` (bytes)."""

    __slots__ = ("base", "by", "kind", "name", "phase", "size")

    def __init__(
        self, kind: str, name: str = "", by: str | None = None, phase: Phase | None = None, base: int | None = None,
        size: int | None = None,
    ) -> None:  # fmt: skip
        self.kind = kind
        self.name = name
        self.by = by
        self.phase = phase
        self.base = base
        self.size = size


_ERROR = ": error: "

_FILE_WORDS = (LineKind.OPEN, LineKind.NEED, LineKind.MAP, LineKind.DESTROY)
_LONGEST_NUMBER = 24
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


_DEPENDENCY = " (relocation dependency)"
"""The end of a line on an image that keeps the provider of a symbol from being unloaded: nobody looked for a file."""
_IGNORED = Line(LineKind.IGNORED)


def parse_line(text: str) -> Line:
    """Parse what follows `PID:<tab>` on a line. Never raises: what it does not know is `UNKNOWN`.

    By methods of strings: compiling regular expressions takes longer than parsing what a large program loads.
    """
    parse = _PARSERS.get(text[:_BEGINNING])
    return (parse and parse(text)) or _parse_rest(text)


def _parse_rest(text: str) -> Line:
    if text.startswith("    (") and text.endswith(")") and len(text) > 6:
        return Line(LineKind.MISS, by=text[5:-1])  # glibc 2.43: "no such file", "incompatible ELF class"
    if text.endswith(" (continued)") and _ERROR in text:
        return _IGNORED
    if text.endswith(" (fatal)") and _ERROR in text:
        image, _, words = text.removesuffix(" (fatal)").partition(_ERROR)
        return Line(LineKind.ERROR, image, by=words)
    if not text or text.startswith(_OF_NO_USE) or text.lstrip(" ").startswith(_STATISTICS):
        return _IGNORED
    return Line(LineKind.UNKNOWN, text)


def _without_namespace(text: str) -> str | None:
    """The name in `NAME [N]`, where N is the number of a namespace of dlmopen; `None` without it."""
    name, bracket, number = text.rpartition(" [")
    return name if bracket and number.endswith("]") and number[:-1].isdecimal() else None


def _parse_file(text: str) -> Line:
    name, _, after = text[5:].partition(" [0];  ")
    if "]" not in name:  # as nearly all are
        if after in (LineKind.MAP, LineKind.DESTROY):
            return Line(after, name)
        if after.startswith("needed by "):
            if after.endswith(" [0]"):
                return Line(LineKind.NEED, name, after[10:-4])
            if after.endswith(_DEPENDENCY):
                return _IGNORED
    return _parse_unusual_file(text)


def _parse_unusual_file(text: str) -> Line:
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
    if after.endswith(_DEPENDENCY):
        return _IGNORED
    kind = next(words for words in _FILE_WORDS if after.startswith(words))
    rest = after[len(kind) :]
    requester = _without_namespace(rest[1:]) if rest.startswith(" ") else None
    if kind in (LineKind.OPEN, LineKind.NEED) and requester is None:
        return Line(LineKind.UNKNOWN, text)
    return Line(kind, name, by=requester)


def _parse_path(text: str) -> Line | None:
    if text.startswith(" search path=") and text.endswith(")"):
        _, between, rule = text[:-1].rpartition("\t\t(")
        return _parse_rule(rule) if between else None
    return Line(LineKind.SEARCH, by=text[14:], phase=Phase.CACHE) if text.startswith(" search cache=") else None


def _parse_rule(rule: str) -> Line:
    """The rule of a search path: its words in brackets."""
    if rule == "system search path":
        return Line(LineKind.SEARCH, phase=Phase.SYSTEM)
    word, between, origin = rule.partition(" from file ")
    if word not in _PHASES:
        return Line(LineKind.SEARCH, by=rule, phase=Phase.OTHER)
    return Line(LineKind.SEARCH, by=origin if between else None, phase=_PHASES[word])


def _parse_find(text: str) -> Line | None:
    if not (text.startswith("find library=") and text.endswith("; searching")):
        return None
    name = _without_namespace(text[13:-11])
    return None if name is None else Line(LineKind.FIND, name)


def _parse_trying(text: str) -> Line | None:
    return Line(LineKind.TRY, text[14:]) if text.startswith("  trying file=") else None


def parse_place(text: str) -> Line | None:
    """Return the line that tells where an image was mapped; `None` if the text is none."""
    dynamic, is_base, rest = text.partition("  base: 0x")
    base, is_size, size = rest.partition("   size: 0x")
    if not (dynamic.startswith("  dynamic: 0x") and is_base and is_size and base.isalnum() and size.isalnum()):
        return None
    try:
        return Line(LineKind.PLACE, base=int(base, 16), size=int(size, 16))
    except ValueError:
        return None


def _parse_start(text: str) -> Line | None:
    return Line(LineKind.START, text[22:]) if text.startswith("transferring control: ") else None


def _parse_call(text: str) -> Line | None:
    if text.startswith("calling init: "):
        return Line(LineKind.INIT, text[14:])
    if not text.startswith("calling fini: "):
        return None
    name = _without_namespace(text[14:])
    return Line(LineKind.FINI, text[14:] if name is None else name)


def _parse_count(text: str) -> Line | None:
    is_opening = text.startswith("opening file=")
    file, _, count = text[13:].rpartition("; direct_opencount=")
    if not (is_opening or text.startswith("closing file=")) or not count.isdecimal():
        return None
    name = _without_namespace(file)
    if name is None and (is_opening or not file):
        return None
    return Line(LineKind.OPENED if is_opening else LineKind.CLOSE, file if name is None else name)


_BEGINNING = 5
_PARSERS = {
    "file=": _parse_file, " sear": _parse_path, "find ": _parse_find, "  try": _parse_trying, "  dyn": parse_place,
    "trans": _parse_start, "calli": _parse_call, "openi": _parse_count, "closi": _parse_count,
}  # fmt: skip
"""By the first characters of a line."""
