"""Parses messages of dlerror() and ImportError on Linux into values, and words them for verdicts.

Sources: glibc's elf/dl-load.c, dl-lookup.c, dl-version.c, dl-reloc.c, dl-tls.c, dl-map-segments.h (2.31 to 2.43);
musl's ldso/dynlink.c (1.2). A message is OBJECT: WORDS[: WORDS OF THE ERRNO] in glibc, whatever its language.
"""

from __future__ import annotations

import enum
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from ..knowledge import read_table
from ..model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase
from ..model.failure import PythonError
from ..model.recording import Recording
from ..model.tree import Binding
from ..model.words import RULES

LONGEST_END = 8192
"""Characters that are read of each end of a message: a wrapper may put a build log before the words, or after them."""


class DlProblem(enum.Enum):
    """The kinds of errors of a loader of Linux."""

    MISSING = "missing"
    """A library was not found. glibc says the same if the only copy is for another machine."""
    MISSING_SYMBOL = "missing symbol"
    NOT_IN_LIBRARY = "not in library"
    """dlsym did not find a symbol in a library that is loaded: the caller wants it, not an image. Same words."""
    MISSING_VERSION = "missing version"
    """The library was found and lacks a symbol version (GLIBC_2.34, GLIBCXX_3.4.30)."""
    WRONG_CLASS = "wrong class"
    """32 and 64 bits, or two byte orders, are mixed."""
    WRONG_ABI = "wrong abi"
    NOT_AN_IMAGE = "not an image"
    NOT_A_LIBRARY = "not a library"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    ALIGNMENT = "alignment"
    """Its segments do not fit the page size: spoilt by a tool, or made for smaller pages."""
    STATIC_TLS = "static tls"
    EXECUTABLE_STACK = "executable stack"
    NOT_MAPPED = "not mapped"
    """The kernel refused memory for it: a memory limit, a file system without execution, a security policy."""
    NO_PERMISSION = "no permission"
    UNREADABLE = "unreadable"
    CPU_TOO_OLD = "cpu too old"
    OUT_OF_MEMORY = "out of memory"
    TOO_MANY_FILES = "too many files"
    PATH_TOO_LONG = "path too long"
    UNDECIDED = "undecided"
    """Words that this version does not know: another language, another loader."""


@dataclass(frozen=True)
class DlError:
    """A loader's message, taken apart; what it does not say is `None`.

    Attributes:
        problem: the kind of error.
        library: the file or name it is about. For MISSING_SYMBOL, who needs it; for MISSING_VERSION, who lacks it.
        symbol: the symbol's name, as it is mangled.
        version: the symbol version.
        required_by: who needs the library or the version.
        provider: the file that should have had the symbol, where the message names it.
        system_error: the words of the errno.
        loader: "glibc" or "musl".
    """

    problem: DlProblem
    library: str | None = None
    symbol: str | None = None
    version: str | None = None
    required_by: str | None = None
    provider: str | None = None
    system_error: str | None = None
    loader: str | None = None


_VERSION = re.compile(
    r": (?:weak )?version [`'\u2018]([^`'\u2019\n]{1,200})['\u2019] not found \(required by ([^\n)]*)\)"
)
_LINK_TIME = re.compile(
    r": symbol ([^\s,]{1,4000}),? version (\S{1,200}) not defined in file (\S{1,500}) with link time reference"
)
_SYMBOL = re.compile(r"undefined symbol: ([^\s,]{1,8000})(?:, version (\S{1,200}))?")
_MUSL_LOAD = re.compile(r"Error loading shared library (.{1,2000}?): (.{1,200}?)(?: \(needed by (.{1,2000})\)|$)")
_MUSL_RELOCATE = re.compile(
    r"Error relocating (.{1,2000}?): (\S{1,8000}): (symbol not found|initial-exec TLS resolves)"
)
_MUSL_REFUSE = re.compile(
    r"Error relocating (.{1,2000}?): (unsupported relocation type|RELRO protection failed: (.{1,200}))"
)
"""Of a damaged file, or one for another processor, whose kinds of relocations are not known here; of mprotect."""
_MUSL_SYMBOL = re.compile(r"Symbol not found: (\S{1,8000})")
_OPENING = re.compile(r"['\"`(\[{<=\u2018\u201c\u00ab]")
_LAST_NAME = re.compile(r"[^\s/]\S*\.so[\w.]*$")
_LOOKS_UP = frozenset(("AttributeError", "ValueError", "KeyError"))
"""What ctypes, in_dll and cffi raise with the words of dlsym."""
_LEADING_NAME = re.compile(r"(?:^|: )([^\s:]{1,500}\.so(?:\.[\w.]{1,40})?): \S")


def classify_dlerror(text: str, translations: Mapping[str, str] | None = None) -> DlError:
    """Return the parts of a message of dlerror(), of an ImportError or OSError, or of ld.so on standard error.

    Arguments:
        text: the message; a traceback around it does no harm. The first line with known words counts.
        translations: message in another language to the English one (`host.failure.read_loader_translations`).
    """
    text = ends_of(text)
    for translated, english in (translations or {}).items():
        text = text.replace(translated, english)
    lines = [line.strip() for line in text.split("\n")]  # a name may have what else `splitlines` takes for an end
    problems, errors = _problems("glibc"), _problems("errno")
    # Some wrappers break lines anywhere: then the whole is one line.
    for line in (*lines, *([" ".join(lines)] if len(lines) > 1 else [])):
        found = _musl(line) or _versions(line) or _words(line, problems)
        if found:
            return _by_errno(found, errors)
    names = [match[1] for line in lines if (match := _LEADING_NAME.search(line))]
    return DlError(DlProblem.UNDECIDED, library=names[0] if names else None)


@cache
def _problems(part: str) -> Mapping[str, DlProblem]:
    return {row["words"]: DlProblem(row["problem"]) for row in read_table("loader_words")[part]}


def classify_exception(error: PythonError, translations: Mapping[str, str] | None = None) -> DlError:
    """Return the parts of an exception's message, by its kind: an AttributeError of ctypes has the words of dlsym.

    glibc has the same words ("FILE: undefined symbol: NAME") for an image that needs a symbol and for dlsym. ctypes
    raises OSError for the first, and AttributeError or ValueError (`in_dll`) for the second (Modules/_ctypes).
    """
    path = error.path or ""
    if "\n" in path and error.message.startswith(f"{path}: "):  # else its last line would be taken for the file
        found = replace(classify_dlerror(f"/:{error.message[len(path) + 1 :]}", translations), library=path)
    else:
        found = classify_dlerror(error.message, translations)
    if found.problem is DlProblem.MISSING_SYMBOL and _LOOKS_UP & set(error.bases):
        return replace(found, problem=DlProblem.NOT_IN_LIBRARY)
    return found


def ends_of(text: str) -> str:
    """Return a text without the middle of a very long one."""
    if len(text) <= 2 * LONGEST_END:
        return text
    return f"{text[:LONGEST_END]}\n{text[-LONGEST_END:]}"


def loader_messages() -> tuple[str, ...]:
    """The words of glibc that are known here, for which its translations can be asked."""
    table = read_table("loader_words")
    return tuple(row["words"] for row in [*table["glibc"], *table["errno"]])


def _versions(line: str) -> DlError | None:
    if found := _VERSION.search(line):
        provider = _object(line[: found.start()])
        return DlError(DlProblem.MISSING_VERSION, provider, version=found[1], required_by=found[2], loader="glibc")
    if found := _LINK_TIME.search(line):
        library = _object(line[: found.start()])
        return DlError(DlProblem.MISSING_SYMBOL, library, found[1], found[2], provider=found[3], loader="glibc")
    if found := _SYMBOL.search(line):
        library = _object(line[: found.start()].removesuffix(": "))
        return DlError(DlProblem.MISSING_SYMBOL, library, found[1], found[2], loader="glibc")
    return None


def _words(line: str, problems: Mapping[str, DlProblem]) -> DlError | None:
    for words, problem in problems.items():
        before, found, after = line.partition(f": {words}")
        if found:
            error = after[2:] if after.startswith(": ") else None
            return DlError(problem, _object(before), system_error=error or None, loader="glibc")
    return None


def _musl(line: str) -> DlError | None:
    if found := _MUSL_LOAD.search(line):
        return DlError(DlProblem.MISSING, found[1], required_by=found[3], system_error=found[2], loader="musl")
    if found := _MUSL_RELOCATE.search(line):
        problem = DlProblem.MISSING_SYMBOL if found[3] == "symbol not found" else DlProblem.STATIC_TLS
        return DlError(problem, found[1], found[2], loader="musl")
    if found := _MUSL_REFUSE.search(line):
        problem = DlProblem.NOT_MAPPED if found[3] else DlProblem.DAMAGED
        return DlError(problem, found[1], system_error=found[3], loader="musl")
    if found := _MUSL_SYMBOL.search(line):
        return DlError(DlProblem.MISSING_SYMBOL, symbol=found[1], loader="musl")
    return None


def _by_errno(error: DlError, problems: Mapping[str, DlProblem]) -> DlError:
    """The words of the errno as the system has them; where the loader could not open a file, they are the problem."""
    text = error.system_error or ""
    words = next((known for known in problems if text.startswith(known)), None)
    problem = error.problem
    if problem is DlProblem.MISSING:
        problem = problems[words] if words else DlProblem.UNDECIDED
    return replace(error, problem=problem, system_error=words or error.system_error)


def _object(before: str) -> str | None:
    """The file that a message begins with, without what others put before it.

    "python3: symbol lookup error: FILE", "DPI-1047: cannot locate: "FILE", "failed to load (FILE", "OSError('FILE".
    """
    name = before.rpartition(": ")[2].strip()
    if not name.startswith("/"):
        opened = list(_OPENING.finditer(name))
        if opened:
            name = name[opened[-1].end() :].strip()
        last = _LAST_NAME.search(name)
        if last is not None and not name.startswith("/"):  # "could not load libx.so.1"; a path may have blanks
            at = name.find(" /")
            name = name[at + 1 :] if at >= 0 else last[0]
    return name or None


def describe_rule(phase: Phase | None) -> str:
    """Return how a copy was chosen, for a sentence: "by RUNPATH"; empty where that is not known."""
    return RULES[phase].found if phase is not None else ""


def describe_choice(binding: Binding) -> str:
    """Return which file a need led to, and why: "libx.so.1 is /a/libx.so.1, found by RUNPATH of /b/y.so"."""
    probe = next((probe for probe in binding.probes if probe.path == binding.path), None)
    rule = describe_rule(binding.phase)
    own = binding.phase in (Phase.RPATH, Phase.RUNPATH)
    whose = f" of {probe.origin}" if own and probe is not None and probe.origin else ""
    how = f"taken {rule}" if binding.phase is Phase.LOADED else f"found {rule}{whose}" if rule else ""
    return f"{binding.need} is {binding.path}{f', {how}' if how else ''}"


def folder_of(path: str) -> str:
    """The folder of a file of Linux; "/" for one at the top."""
    return path.rpartition("/")[0] or "/"


def failures_behind(
    recording: Recording | None, error: PythonError | None, dl_error: DlError | None
) -> tuple[LoadFailedEvent, ...]:
    """The failures of the load that the exception is about, in order.

    Arguments:
        error: the exception; `None` for a process that died.
        dl_error: the loader's message in it, if it is one.
    Without a loader's message: the failures that nothing came after, which may or may not be the cause.
    """
    events = [
        event for event in (recording.events if recording else ()) if isinstance(event, LoadEvent | LoadFailedEvent)
    ]
    failures = [event for event in events if isinstance(event, LoadFailedEvent)]
    if not failures:
        return ()
    if error is None or dl_error is None or dl_error.problem is DlProblem.UNDECIDED:
        return _block(events, failures[-1]) if _nothing_follows(events, failures) else ()
    names = {name for name in (dl_error.library, dl_error.required_by, error.path) if name}
    anchor = next((event for event in reversed(failures) if _is_about(event, names)), None)
    if anchor is None:
        return ()
    if anchor.timestamp is None:
        return _block(events, anchor)
    if anchor.imports is None:
        return _linked(_block(events, anchor), anchor)
    same = (anchor.timestamp, anchor.imports)
    return tuple(event for event in failures if (event.timestamp, event.imports) == same)


def top_of(failures: tuple[LoadFailedEvent, ...]) -> str | None:
    """The image with which a failed load began: mapped and dropped, and not for another one; else the last failure."""
    dropped = [event for event in failures if event.kind in (FailureKind.DROPPED, None)]
    paths = {event.path for event in dropped}
    tops = [event.path for event in dropped if event.requested_by not in paths]
    if tops:
        return tops[-1]
    return failures[-1].path if failures else None


def _linked(block: tuple[LoadFailedEvent, ...], anchor: LoadFailedEvent) -> tuple[LoadFailedEvent, ...]:
    """The failures of one load where no request of Python joins them: each has the time at which it was mapped."""
    paths = {anchor.path}
    while True:
        requesters = {event.requested_by for event in block if event.path in paths}
        new = {
            event.path for event in block if event.path in requesters or event.requested_by in paths
        } - paths  # fmt: skip
        if not new:
            return tuple(event for event in block if event.path in paths)
        paths |= new


def _is_about(event: LoadFailedEvent, names: set[str]) -> bool:
    about = {event.path, event.need, event.requested_by}
    return bool(about & names) or any(posixpath.basename(path) in names for path in about if path)


def _nothing_follows(events: list[LoadEvent | LoadFailedEvent], failures: list[LoadFailedEvent]) -> bool:
    """Return whether the trace ends with failures: no image came in for good after them."""
    dropped = {event.path for event in failures}
    for event in reversed(events):
        if isinstance(event, LoadFailedEvent):
            return True
        if event.path not in dropped:
            return False
    return False


def _block(events: list[LoadEvent | LoadFailedEvent], anchor: LoadFailedEvent) -> tuple[LoadFailedEvent, ...]:
    """The failures around one, up to the next image that came in for good."""
    dropped = {event.path for event in events if isinstance(event, LoadFailedEvent)}
    at = len(events) - 1 - events[::-1].index(anchor)
    first = last = at
    while first and (isinstance(events[first - 1], LoadFailedEvent) or events[first - 1].path in dropped):
        first -= 1
    while last + 1 < len(events) and (
        isinstance(events[last + 1], LoadFailedEvent) or events[last + 1].path in dropped
    ):
        last += 1
    return tuple(event for event in events[first : last + 1] if isinstance(event, LoadFailedEvent))
