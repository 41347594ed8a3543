"""Finds the failed load that an exception names, in whatever words: drivers and wrappers pass on the name only.

ODBC says "Can't open lib '/x/libdriver.so' : file not found" for a file that is there and whose dependency is not, and
a wrapper of ctypes says "PortAudio library not found". The trace knows what became of that load.
"""

from __future__ import annotations

import enum
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ..model.events import FailureKind, LoadEvent, LoadFailedEvent
from ..model.failure import PythonError
from ..model.recording import Recording
from .loader_errors import DlError, DlProblem, classify_dlerror, ends_of

_MOST_FAILURES = 1000
_SHORTEST_STEM = 4
_STEM = re.compile(r"[A-Za-z][A-Za-z0-9_+]*")
_ENGLISH = frozenset((
    "base", "common", "core", "data", "error", "file", "image", "library", "load", "main", "module", "native", "open",
    "python", "runtime", "shared", "system", "test", "util", "utils", "version",
))  # fmt: skip
"""Names of libraries that are words of any message as well."""
_WORD = re.compile(r"[\w.+-]")
_LIBRARY = re.compile(r"(?<![\w/.+-])([\w/.+-]{1,500}\.so(?:\.\d{1,6}){0,4})(?![\w-]|\.\d)")
_DENIALS = re.compile(
    r"\b(?:not|no|unable|cannot|can't|can\u2019t|couldn't|could not|missing|fail\w*|without)\b", re.IGNORECASE
)


_LOADING = re.compile(
    r"librar|\bshared\b|\bdlls?\b|\bload|\bfind\b|\bfound\b|\binstall|dlopen|\bbackends?\b|\bdrivers?\b|\bbindings?\b",
    re.IGNORECASE,
)


class NameMatch(enum.IntEnum):
    """The part of a library's name that a message has; the surest last."""

    FOLDER = 0
    """None of it: the file lies in the package whose code raised the exception, and the program hid the failure."""
    STEM = 1
    """The middle of the name: "portaudio" of libportaudio.so.2."""
    NAME = 2
    """The whole file name or soname."""
    PATH = 3


@dataclass(frozen=True)
class NamedFailure:
    """A load that failed, and how the exception names it.

    Attributes:
        event: what the trace saw.
        error: the exception whose message names it.
        name: the words of the message that are the name.
        match: how much of the name that is.
    """

    event: LoadFailedEvent
    error: PythonError
    name: str
    match: NameMatch


def find_named_failure(errors: Iterable[PythonError], recording: Recording | None) -> NamedFailure | None:
    """Return the load that failed and that an exception names; `None` if none does.

    Arguments:
        errors: outermost first; the first one that names a load by its whole name counts.
        recording: what the trace saw. A name that was loaded after its failure is none of those.
    """
    failures = final_failures(recording)
    best: NamedFailure | None = None
    for error in errors:
        text = ends_of(error.message)
        # The middle of a name is a word of its own, too: "no fast path" is not about libfast.so.
        words = text.lower() if _LOADING.search(text) else ""
        for event in failures:
            found = _match(event, text, words)
            if found is not None and (best is None or _rank(found[1], event) > _rank(best.match, best.event)):
                best = NamedFailure(event, error, *found)
        if best is not None and best.match is not NameMatch.STEM:
            return best
    return best


def find_hidden_failure(errors: Iterable[PythonError], recording: Recording | None) -> NamedFailure | None:
    """Return the load of a package's own file that failed before code of that package raised; `None` if there is none.

    A package that catches the OSError of its own library goes on, and fails for want of it later: "operator
    torchvision::nms does not exist". A file that is there and could not be loaded counts; a probe for one that is not
    there is often for something optional.
    """
    dropped = [event for event in final_failures(recording) if event.kind is FailureKind.DROPPED]
    paths = {event.path for event in dropped}
    tops = [event for event in dropped if event.requested_by not in paths]
    for error in errors:
        if not {"ImportError", "OSError", "RuntimeError"} & set(error.bases):
            continue  # any mistake in the code raises the others
        folders = {posixpath.dirname(frame.file) for frame in error.frames[-1:] if frame.file.startswith("/")}
        for event in reversed(tops):
            if any(event.path.startswith(f"{folder}/") for folder in folders):
                return NamedFailure(event, error, posixpath.basename(event.path), NameMatch.FOLDER)
    return None


def describe_failure(named: NamedFailure, recording: Recording) -> DlError:
    """Return the loader's error behind a failure, as the trace has it: about the leaf, if it shows one."""
    event = named.event
    together = [one for one in recording.failures if _is_of_one_load(one, event)]
    for one in _below(event, together):
        if one.kind in (FailureKind.NOT_FOUND, FailureKind.REFUSED):
            return DlError(DlProblem.MISSING, one.need or one.path, required_by=one.requested_by)
        if one.reason:
            found = classify_dlerror(f"{one.path}: {one.reason.removeprefix('symbol lookup error: ')}")
            if found.problem is not DlProblem.UNDECIDED:
                return replace(found, library=found.library or one.path)
    return DlError(DlProblem.UNDECIDED, event.path)


_CHECKS = re.compile(
    r"compil|built|build|link|version|header|mismatch|incompatib|expect|require|support|too old|too new|at least",
    re.IGNORECASE,
)


def loaded_libraries_named(error: PythonError, recording: Recording | None) -> tuple[LoadEvent, ...]:
    """Return the libraries that were loaded and that an exception names where it speaks of versions or builds.

    The library that is named last comes first of those with the same name. A module of the same name as the library
    ("zlib") is no word for it: "lib" belongs to it, or the whole file name.
    """
    text = ends_of(error.message)
    if recording is None or not _CHECKS.search(text):
        return ()
    words = text.lower()
    found: dict[str, LoadEvent] = {}
    for event in recording.loads:
        base = posixpath.basename(event.need or event.path)
        stem = stem_of(base).lower()
        is_library = base.startswith("lib") and event.requested_by is not None and len(stem) > 1
        if is_library and stem != "c" and (_has_word(text, base) or _has_word(words, f"lib{stem}")):
            found[event.path] = event
    return tuple(found.values())


def library_that_is_denied(errors: Iterable[PythonError]) -> str | None:
    """Return the library that an exception names and says is missing, in words of no loader; `None` for none."""
    for error in errors:
        text = ends_of(error.message)
        for line in text.splitlines():
            found = _LIBRARY.search(line)
            if found is not None and _DENIALS.search(line):
                return found[1]
    return None


def is_about_something_missing(message: str) -> bool:
    """Return whether a message says that something that is loaded is not there: "No backend available"."""
    text = ends_of(message)
    return _DENIALS.search(text) is not None and _LOADING.search(text) is not None


def names_a_library(errors: Iterable[PythonError]) -> bool:
    """Return whether any message has the name of a library in it."""
    return any(_LIBRARY.search(ends_of(error.message)) for error in errors)


def stem_of(library: str) -> str:
    """Return the middle of a library's name: "portaudio" for libportaudio.so.2, "usb" for usb-1.0."""
    name = posixpath.basename(library).removeprefix("lib")
    found = _STEM.match(name.partition(".so")[0])
    return found[0] if found is not None else ""


def final_failures(recording: Recording | None) -> list[LoadFailedEvent]:
    """Return the failures whose name did not come in later, the first ones first; of very many the last."""
    if recording is None:
        return []
    later: set[str] = set()
    kept: list[LoadFailedEvent] = []
    for event in reversed(recording.events):
        names = {name for name in (getattr(event, "need", None), getattr(event, "path", None)) if name}
        if isinstance(event, LoadEvent):
            later |= names | {_search_key(name) for name in names}
        elif isinstance(event, LoadFailedEvent) and len(kept) < _MOST_FAILURES:
            asked = {_search_key(name) for name in names} if event.kind is FailureKind.NAME_NOT_FOUND else names
            if not asked & later:
                kept.append(event)
    return kept[::-1]


def _search_key(name: str) -> str:
    """Return a key of the name given to `ctypes.util.find_library` and of the file it may find: "lib?portaudio" for
    both."""
    return f"lib?{stem_of(name).lower()}"


def _rank(match: NameMatch, event: LoadFailedEvent) -> tuple[int, bool]:
    """A file that is there and could not be loaded comes before a probe for one that may be optional."""
    return match, event.kind is not FailureKind.NOT_FOUND


def _match(event: LoadFailedEvent, text: str, words: str) -> tuple[str, NameMatch] | None:
    names = [name for name in (event.need, event.path) if name]
    for name in names:
        if "/" in name and _has_word(text, name):
            return name, NameMatch.PATH
    for name in names:
        base = posixpath.basename(name)
        is_unlike_words = ".so" in base or (event.kind is FailureKind.NAME_NOT_FOUND and "-" in base)
        if is_unlike_words and _has_word(text, base):
            return base, NameMatch.NAME
    for name in names if words else ():
        stem = stem_of(name)
        if stem and _has_word(words, f"lib{stem.lower()}"):
            return f"lib{stem}", NameMatch.STEM
        is_telling = len(stem) >= _SHORTEST_STEM and stem.lower() not in _ENGLISH
        if is_telling and _has_word(words, stem.lower()):
            return stem, NameMatch.STEM
    return None


def _has_word(text: str, name: str) -> bool:
    """Return whether a text has a name that does not go on to either side; "libx.so" is not in "libx.so.1"."""
    at = text.find(name)
    while at >= 0:
        before, after = text[at - 1 : at], text[at + len(name) : at + len(name) + 2]
        if not _WORD.match(before) and not re.match(r"[\w+-]|\.\w", after):
            return True
        at = text.find(name, at + 1)
    return False


def _is_of_one_load(event: LoadFailedEvent, other: LoadFailedEvent) -> bool:
    return (event.timestamp, event.imports, event.tid) == (other.timestamp, other.imports, other.tid)


def _below(event: LoadFailedEvent, together: list[LoadFailedEvent]) -> Iterator[LoadFailedEvent]:
    """The failures that made one image fail: those of its needs first, and its own last."""
    seen, waiting = {event.path}, [event.path]
    while waiting:
        requester = waiting.pop()
        for one in together:
            if one.requested_by == requester and one.path not in seen:
                seen.add(one.path)
                if one.kind is FailureKind.DROPPED and not one.reason:
                    waiting.append(one.path)
                else:
                    yield one
    yield event
