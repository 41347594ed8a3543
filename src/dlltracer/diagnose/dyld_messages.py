"""What dyld says when it cannot load an image, as values.

Sources: the format strings of apple-oss-distributions/dyld, tags 551 (macOS 10.13) to 1378 (macOS 26), and messages in
public issue threads. Up to macOS 11 dyld wrote other words than from 12 on; both are read. dyld names the immediate
requester only, and stops at the first failure.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .loader_errors import ends_of

_MOST_PLACES = 200
_CRYPTEX = "/System/Volumes/Preboot/Cryptexes/OS"
"""Where macOS 13 and later look once more. dyld forms such a path for every name, so it says nothing."""


class DyldProblem(enum.Enum):
    """The kinds of errors of dyld."""

    MISSING = "missing"
    MISSING_SYMBOL = "missing symbol"
    ARCHITECTURE = "architecture"
    TOO_NEW = "too new"
    """It has a load command that this macOS does not know."""
    OLD_VERSION = "old version"
    """Its compatibility version is below the one that the requester was linked with; checked up to macOS 11."""
    VALIDATION = "validation"
    """The hardened runtime of the program takes only libraries of the program's own signer."""
    POLICY = "policy"
    """Gatekeeper refused it: it is in quarantine."""
    SIGNATURE = "signature"
    SANDBOX = "sandbox"
    RELATIVE = "relative"
    """A hardened program takes no relative path, or no @ path."""
    DUPLICATE = "duplicate"
    """It has a load command twice, which macOS 15.4 and later refuse."""
    TRUNCATED = "truncated"
    NOT_AN_IMAGE = "not an image"
    PLATFORM = "platform"
    NOT_A_LIBRARY = "not a library"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    UNDECIDED = "undecided"


_REASONS = tuple(
    (re.compile(words), problem)
    for words, problem in (
        (r"load command\D{0,30}\S{1,40} is unknown|unknown required load command", DyldProblem.TOO_NEW),
        (r"Incompatible library version", DyldProblem.OLD_VERSION),
        (r"library load disallowed by system policy", DyldProblem.POLICY),
        (r"unsigned library|code signature invalid|code signing blocked|does not cover entire file",
         DyldProblem.SIGNATURE),
        (r"not valid for use in process|Library Validation", DyldProblem.VALIDATION),
        (r"blocked by sandbox|sandbox blocked", DyldProblem.SANDBOX),
        (r"relative paths? not allowed in hardened|restricted binary|does not allow @ path", DyldProblem.RELATIVE),
        (r"wrong architecture|incompatible architecture|missing compatible architecture|no matching architecture",
         DyldProblem.ARCHITECTURE),
        (r"duplicate (?:LC_RPATH|linked dylib)|missing LC_UUID|overlaps segment", DyldProblem.DUPLICATE),
        (r"file too short|extends? beyond end of file|truncated|cut short", DyldProblem.TRUNCATED),
        (r"unknown file type|not a mach-o file|not valid mach-o|not a file", DyldProblem.NOT_AN_IMAGE),
        (r"built for simulator|incompatible platform", DyldProblem.PLATFORM),
        (r"cannot link against|not a dylib|main executable|wrong filetype|unloadable mach-o|no dynamic access",
         DyldProblem.NOT_A_LIBRARY),
        (r"malformed", DyldProblem.DAMAGED),
        (r"no such file|image not found|no LC_RPATH's|not in dyld cache|no dyld cache", DyldProblem.MISSING),
        (r"errno=|permission denied|Permission denied|open\(\) failed|stat\(\) failed", DyldProblem.UNREADABLE),
    )
)  # fmt: skip
"""Words of a reason, the more specific ones first."""


@dataclass(frozen=True)
class TriedPlace:
    """A place where dyld looked, and why it took nothing there, in its words."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class DyldError:
    """A message of dyld, taken apart; what it does not say is `None`.

    Attributes:
        problem: the kind of error.
        asked: the argument of dlopen.
        library: the need that was not found, or the file that was refused; of a missing symbol, the file in need of it.
        requested_by: who needs the library.
        symbol: the symbol's name, with the underscore that C names have in Mach-O.
        expected_in: the library that should have had the symbol; `None` for any (flat namespace).
        tried: the places, in the order of the search, each once.
        reason: dyld's words about the file that it refused, or the last line that matters.
        built_for: the macOS that the requester was built for, where dyld says that it is newer.
        has, wanted: the architectures of the file and of the process.
    """

    problem: DyldProblem
    asked: str | None = None
    library: str | None = None
    requested_by: str | None = None
    symbol: str | None = None
    expected_in: str | None = None
    tried: tuple[TriedPlace, ...] = ()
    reason: str = ""
    built_for: str | None = None
    has: str | None = None
    wanted: str | None = None


_HEAD = re.compile(r"dlopen\((?P<path>[^\n]{1,4000}), (?:0x[0-9A-Fa-f]{1,8}|\d{1,6})\): ")
_NOT_LOADED = re.compile(r"Library not loaded: (?P<name>[^\n]{1,4000})")
_FROM = re.compile(r"Referenced from: (?P<path>[^\n]{1,4200})")
_REASON = re.compile(r"Reason: (?P<why>.*)", re.DOTALL)
_SYMBOL = re.compile(r"Symbol not found: (?P<name>[^\n]{1,8000})")
_FLAT = re.compile(r"symbol not found in flat namespace ['(](?P<name>[^\n]{1,8000}?)[')]\s*(?:$|\n)")
_EXPECTED = re.compile(r"Expected in: +(?P<path>[^\n]{1,4200})")
_UUID = re.compile(r"^<(?:[0-9A-Fa-f-]{8,36}|no uuid)> ")
_BUILT = re.compile(r" \((?:which was )?built for (?:Mac OS X|macOS) (?P<version>[\d.]{1,20})[^)\n]{0,60}\)$")
_FOUND = re.compile(r"Did find:\s*\n(?P<places>.*)", re.DOTALL)
_FOUND_LINE = re.compile(r"^\s+(?P<path>/[^\n]{1,4000}?): (?P<reason>[^\n]{1,2000})$", re.MULTILINE)
_CANNOT = re.compile(r"cannot load '(?P<name>[^'\n]{1,2000})' (?P<why>[^\n]{1,400})")
_ARCHITECTURES = re.compile(r"have ['(](?P<has>[\w,]{1,100})['),]+ ?,? ?need (?P<wanted>[^\n)]{1,60}(?:\)|'))")
_START = re.compile(r"dyld(?:\[\d{1,10}\])?: ")
_SIGNED = re.compile(r"code signature[^\n]{0,80}? in (?:<[^>\n]{1,40}> )?['(](?P<path>/[^'\n]{1,4000}?)[')]")


def is_of_dyld(text: str) -> bool:
    """Return whether a text has a message of dyld in it."""
    text = ends_of(text)
    if _NOT_LOADED.search(text) or _FLAT.search(text) or (_SYMBOL.search(text) and _FROM.search(text)):
        return True
    return _HEAD.search(text) is not None


def classify_dyld(text: str) -> DyldError:
    """Return what a message of dlopen on macOS says: of an ImportError, an OSError, or of dyld on standard error."""
    text = ends_of(text)
    head = _HEAD.search(text)
    asked = head["path"] if head is not None else None
    start = head.end() if head is not None else 0
    if head is None and (match := _START.search(text)) is not None:
        start = match.end()
    body = text[start:]
    found = _read_missing(body) or _read_symbol(body) or _read_refused(body, asked)
    return replace(found, asked=asked)


def _read_missing(body: str) -> DyldError | None:
    """Read "Library not loaded", which names a need of an image."""
    need = _NOT_LOADED.search(body)
    if need is None:
        return None
    requester, built_for = _requester(body)
    reason = _REASON.search(body)
    why = reason["why"].strip() if reason is not None else ""
    found = _judge(why)
    name = _plain(need["name"])
    library = found.library if found.problem is not DyldProblem.MISSING and found.library else name
    return replace(found, library=library, requested_by=requester, built_for=built_for)


def _read_symbol(body: str) -> DyldError | None:
    """Read a missing symbol: of a certain library, or of any (flat namespace)."""
    flat = _FLAT.search(body)
    if flat is not None:
        return DyldError(problem=DyldProblem.MISSING_SYMBOL, symbol=flat["name"], reason=flat[0].strip())
    symbol = _SYMBOL.search(body)
    if symbol is None:
        return None
    requester, built_for = _requester(body)
    match = _EXPECTED.search(body)
    expected = _plain(match["path"]) if match is not None else None
    return DyldError(
        problem=DyldProblem.MISSING_SYMBOL, symbol=_plain(symbol["name"]), library=requester, requested_by=requester,
        expected_in=expected if expected not in ("flat namespace", "weak") else None, built_for=built_for,
        reason=symbol[0],
    )  # fmt: skip


def _read_refused(body: str, asked: str | None) -> DyldError:
    """Read a message about the very file that dlopen was asked for."""
    cannot = _CANNOT.search(body)
    if cannot is not None:
        name = cannot["name"]
        library = asked if asked is not None and asked.endswith(f"/{name}") else name
        return DyldError(problem=DyldProblem.TOO_NEW, library=library, reason=cannot["why"].strip("()"))
    found = _judge(body)
    if found.library is None:
        signed = _SIGNED.search(body)
        found = replace(found, library=signed["path"] if signed is not None else asked)
    return found


def _judge(why: str) -> DyldError:
    """Judge the reason of a failure: the first place where a file was found and not taken, else nothing was found."""
    tried = tuple(_places(why))
    for place in tried:
        problem = _problem_of(place.reason)
        if problem is not DyldProblem.MISSING:
            return replace(_about(place.reason, problem), library=place.path, tried=tried)
    if tried:
        return DyldError(problem=DyldProblem.MISSING, tried=tried, reason=why.partition("tried:")[0].strip(" ,\n"))
    problem = _problem_of(why)
    lines = [line.strip() for line in why.splitlines() if line.strip()]
    return _about(next((line for line in lines if _problem_of(line) is problem), lines[0] if lines else ""), problem)


def _about(reason: str, problem: DyldProblem) -> DyldError:
    match = _ARCHITECTURES.search(reason)
    if match is None:
        return DyldError(problem=problem, reason=reason)
    wanted = re.sub(r"[()']", "", match["wanted"]).strip()
    return DyldError(problem=problem, reason=reason, has=match["has"], wanted=wanted)


def _problem_of(reason: str) -> DyldProblem:
    return next((problem for words, problem in _REASONS if words.search(reason)), DyldProblem.UNDECIDED)


def _places(why: str) -> Iterator[TriedPlace]:
    """Yield the places of a list, each once: "tried: 'PATH' (REASON), ..." or lines behind "Did find:"."""
    seen: set[str] = set()
    found = _FOUND.search(why)
    listed = _tried(why) if found is None else iter(_FOUND_LINE.findall(found["places"]))
    for path, reason in listed:
        if path not in seen and not path.startswith(_CRYPTEX) and len(seen) < _MOST_PLACES:
            seen.add(path)
            yield TriedPlace(path, reason)


def _tried(why: str) -> Iterator[tuple[str, str]]:
    """Yield path and reason of the items behind "tried:". A reason has brackets and quotes of its own."""
    _, _, rest = why.partition("tried: ")
    at = 0
    while rest.startswith("'", at):
        behind = rest.find("' (", at + 1)
        if behind < 0:
            return
        path, depth, end = rest[at + 1 : behind], 0, behind + 2
        while end < len(rest):
            depth += {"(": 1, ")": -1}.get(rest[end], 0)
            end += 1
            if depth == 0:
                break
        reason = rest[behind + 3 : end - 1]
        following = rest.find(", '", end)
        # "'P' (blocked by sandbox), not in dyld cache": the tail is outside of the brackets.
        yield path, reason
        if following < 0:
            return
        at = following + 2


def _requester(body: str) -> tuple[str | None, str | None]:
    """Return who needs what failed, and the macOS that it was built for, where that is said."""
    match = _FROM.search(body)
    if match is None:
        return None, None
    text = match["path"].strip()
    built = _BUILT.search(text)
    return _plain(text[: built.start()] if built is not None else text), built["version"] if built is not None else None


def _plain(text: str) -> str:
    """Return a name without the UUID before it and the quotes or brackets around it, as some versions write them."""
    text = _UUID.sub("", text.strip())
    return text[1:-1] if len(text) > 2 and (text[0], text[-1]) in (("'", "'"), ("(", ")")) else text
