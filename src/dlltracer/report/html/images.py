"""Values of a page: its images, their states and reasons, their origins, and who needs whom."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from ...model.events import Phase, Probe, ProbeOutcome
from ...model.run import ImageFacts
from ...model.words import rule_title
from ..drawing import file_name


class State(enum.Enum):
    """The state of an image; the values are the words that people read."""

    LOADED = "loaded"
    UNLOADED = "unloaded"
    """Loaded, and let go later, for no failure."""
    FOUND = "found"
    """For a file that was not loaded: a loader would take it."""
    SYSTEM = "of the system"
    OPTIONAL = "not required"
    """A program looked for it, did not find it and went on; or the need says that the load goes on without it."""
    LATE = "missing at the first call"
    """Not found, and looked for only when it is first called: no load fails of it."""
    DROPPED = "dropped"
    """Fine by itself; it left because another load failed."""
    NOT_FOUND = "not found"
    REFUSED = "refused"
    FAILED = "failed"

    @property
    def key(self) -> str:
        """A word for style sheets and scripts."""
        return self.name.lower().replace("_", "-")

    @property
    def is_bad(self) -> bool:
        """True if the state is a failure by itself."""
        return self in (State.NOT_FOUND, State.REFUSED, State.FAILED)

    @property
    def group(self) -> str:
        """The filter of the page that shows it: "bad", "dropped", "optional" or "loaded"."""
        if self.is_bad:
            return "bad"
        if self is State.DROPPED:
            return "dropped"
        return "optional" if self in (State.OPTIONAL, State.LATE) else "loaded"


@dataclass(frozen=True)
class ImageView:
    """An image, or a need that became none. A field is `None` where it is not known; texts are as they came.

    Attributes:
        name: the name asked for, or that of the file.
        path: for people.
        state, reason: what became of it, and the loader's words on it.
        rule: what found it, in words.
        requested_by: path of the image that asked.
        imports: the Python imports in progress.
        pid: the process.
        base, size, time: address, bytes as mapped, seconds since the epoch.
        probes: the places tried.
        facts: of the file.
        concluded: the image is not from an event but was worked out: the text says of what.
        parent: number of the image that asked for it first.
    """

    name: str
    path: str
    state: State
    reason: str | None = None
    rule: str | None = None
    requested_by: str | None = None
    imports: tuple[str, ...] | None = None
    pid: int | None = None
    base: int | None = None
    size: int | None = None
    time: float | None = None
    probes: tuple[Probe, ...] = ()
    facts: ImageFacts | None = None
    concluded: str | None = None
    parent: int | None = None


class NeedSource(enum.Enum):
    """The source of the knowledge that an image needs another; the values are the words that people read."""

    ASKED = "the loader says so"
    LISTED = "its file lists it"
    VERDICT = "the verdict says so"


@dataclass(frozen=True)
class ImageNeed:
    """The image of number `start` needs that of number `end`."""

    start: int
    end: int
    source: NeedSource


@dataclass(frozen=True)
class PageImages:
    """The images by number, in the order of their loads.

    Attributes:
        images: the number of an image is its place here.
        needs: who needs whom.
        elsewhere: number to the names needed that are no image of the page.
        processes: process id and title of each process, where there are several.
        focus: number of the image to look at first.
        left_out: sentences that count what was left out where there is too much for a page.
    """

    images: tuple[ImageView, ...]
    needs: tuple[ImageNeed, ...] = ()
    elsewhere: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    processes: tuple[tuple[int | None, str], ...] = ()
    focus: int | None = None
    left_out: tuple[str, ...] = ()

    def count(self, group: str) -> int:
        """Return the number of images of a group of `State.group`."""
        return sum(image.state.group == group for image in self.images)

    @property
    def numbers_by_name(self) -> dict[str, int]:
        """Paths and names to the first image that has them."""
        found: dict[str, int] = {}
        for number, image in enumerate(self.images):
            found.setdefault(image.path, number)
            found.setdefault(image.name, number)
        return found


def found_by(phase: Phase | None, probes: Sequence[Probe]) -> str | None:
    """Return the rule that found an image, in words that follow "found by"."""
    if phase is None:
        return None
    origin = next((probe.origin for probe in probes if probe.outcome is ProbeOutcome.LOADED), None)
    return "its full path" if phase is Phase.DIRECT else rule_title(phase, origin)


def roots(images: Sequence[ImageView]) -> Iterator[tuple[int, ImageView]]:
    """Yield for each image the number and the value of the first one in its chain of requesters.

    The chain of a request made by an image that stayed begins anew: dlopen of a loaded image is another request.
    """
    tops: list[int] = []
    for number, image in enumerate(images):  # each behind its parent
        parent = image.parent
        goes_on = parent is not None and parent < number and images[parent].state.group in ("bad", "dropped")
        tops.append(tops[parent] if goes_on and parent is not None else number)
        yield tops[-1], images[tops[-1]]


def first_of_interest(images: Sequence[ImageView]) -> int | None:
    """Return the number of the first image that failed by itself; else of the first that was dropped."""
    for group in ("bad", "dropped"):
        for number, image in enumerate(images):
            if image.state.group == group:
                return number
    return None


def limit(found: PageImages, most_images: int, most_needs: int) -> PageImages:
    """Return at most so many images and needs: failures first, then the first ones of each.

    A file of 5 MB can describe 100,000 images, and a page of those takes a browser seconds.
    """
    kept = set(range(len(found.images)))
    if len(found.images) > most_images:
        failed = [number for number, image in enumerate(found.images) if image.state.is_bad]
        kept = {*failed[: most_images // 2], *([] if found.focus is None else [found.focus])}
        rest = (number for number in range(len(found.images)) if number not in kept)
        kept |= set(islice(rest, most_images - len(kept)))
    places = {number: place for place, number in enumerate(sorted(kept))}
    images = tuple(
        replace(found.images[number], parent=places.get(-1 if parent is None else parent))
        for number in places
        for parent in (found.images[number].parent,)
    )
    ends = (need for need in found.needs if need.start in places and need.end in places)
    needs = [replace(need, start=places[need.start], end=places[need.end]) for need in islice(ends, most_needs)]
    left_out = []
    if len(images) < len(found.images):
        left_out.append(f"{len(found.images) - len(images)} more images are not on this page")
    elif len(needs) < len(found.needs):
        left_out.append(f"{len(found.needs) - len(needs)} more needs are not on this page")
    elsewhere = {places[number]: names for number, names in found.elsewhere.items() if number in places}
    focus = None if found.focus is None else places[found.focus]
    return replace(
        found, images=images, needs=tuple(needs), elsewhere=elsewhere, focus=focus, left_out=tuple(left_out)
    )  # fmt: skip


KINDS = {
    "package": "Python package", "stdlib": "Python itself", "system": "system", "other": "other folder",
    "none": "not found",
}  # fmt: skip
"""Where images come from: a word for style sheets and scripts, and the words that people read."""

_PACKAGE = re.compile(r"/(?:site|dist)-packages/([^/]+)")
_STDLIB = re.compile(
    r"/lib-dynload/|/dlls/[^/]+\.pyd$|/(?:libpython|python)3[^/]*\.(?:so|dll|dylib)[^/]*$", re.IGNORECASE
)
_SYSTEM = re.compile(
    r"(?:/usr)?/lib(?:32|64|x32)?/|/usr/libexec/|/system/library/|/nix/store/"
    r"|(?:[a-z]:|/device/[^/]+|/systemroot|/\?\?/[a-z]:)?/windows/",
    re.IGNORECASE,
)
"""Folders of the system: hier(7) for Linux; on Windows its own folder, also by the kernel's name of the disk."""


@dataclass(frozen=True)
class Origin:
    """The origin of an image: a key of `KINDS`, and the name of its package or else of its folder."""

    kind: str
    label: str


def origin_of(image: ImageView) -> Origin:
    """Return where the image comes from, by its package and its path."""
    if image.state in (State.NOT_FOUND, State.OPTIONAL, State.LATE):
        return Origin("none", "not found")
    path = image.path.replace("\\", "/")
    package = image.facts.package if image.facts is not None else None
    label = package or image.path[: len(path.rpartition("/")[0])] or "of no folder"
    if image.state is State.SYSTEM:
        return Origin("system", "of the system")
    if found := _PACKAGE.search(path):
        return Origin("package", package or found[1].removesuffix(".libs"))
    if _STDLIB.search(path):
        return Origin("stdlib", package or "Python")
    if _SYSTEM.match(path):
        return Origin("system", label)
    # A package manager of the system owns files of the system, so any other owner is one of Python.
    return Origin("other" if package is None else "package", label)


@dataclass(frozen=True)
class FailureCause:
    """The reason why an image is not there.

    Attributes:
        number: of the image that failed by itself; -1 where it is not known.
        title, detail: the kind of failure, and the name, package or reason that tells it from others of that kind.
    """

    number: int
    title: str
    detail: str

NOT_FOUND = "Library not found"
_SYMBOL = re.compile(r"undefined symbol: (\S+)")
_VERSION = re.compile(r"version [`'\"]?([^\s'\"]+)['\"]? not found")


def causes_of(images: Sequence[ImageView]) -> list[FailureCause | None]:
    """Return for each image why it is not there; `None` for those that are.

    A dropped image left with the request that it was part of. Its cause is the failure below the same root: what the
    loader unloads when a request fails is everything that this request had mapped (dlopen(3)).
    """
    found: list[FailureCause | None] = [None] * len(images)
    tops = [number for number, _ in roots(images)]
    by_top: dict[object, int] = {}
    for number, image in enumerate(images):
        if image.state.is_bad:
            found[number] = FailureCause(number, *_describe(image))
            by_top.setdefault(tops[number], number)
            by_top.setdefault(_request_of(image), number)
    for number, image in enumerate(images):
        if image.state is State.DROPPED:
            cause = by_top.get(tops[number], by_top.get(_request_of(image), -1))
            below = found[cause] if cause >= 0 else None
            unknown = FailureCause(-1, "Dropped, cause not known", origin_of(image).label)
            found[number] = unknown if below is None else below
    return found


def _request_of(image: ImageView) -> object:
    """Return what images of one request have in common where the mechanism names no requester."""
    return image.pid, image.imports


def _describe(image: ImageView) -> tuple[str, str]:
    reason = image.reason or ""
    if image.state is State.NOT_FOUND:
        return NOT_FOUND, file_name(image.name)
    if _SYMBOL.search(reason):
        return "Undefined symbol", origin_of(image).label
    if version := _VERSION.search(reason):
        return "Version not found", version[1]
    last = reason.rpartition(": ")[2] or "the loader gave no reason"
    return ("Refused by the loader" if image.state is State.REFUSED else "Other failure"), last


@dataclass(frozen=True)
class CauseCount:
    """The number of images that failed by themselves for one cause: `title` and `detail` as in `FailureCause`."""

    title: str
    detail: str
    count: int

    @property
    def heading(self) -> str:
        """The cause in words."""
        if self.title == NOT_FOUND:
            return f"{self.detail} was not found" if self.detail else "Libraries not found"
        return f"{self.title}: {self.detail}"


def count_causes(causes: Sequence[FailureCause | None]) -> list[CauseCount]:
    """Return the causes, the most frequent first. Libraries that were not found are one, if there are several."""
    counts: dict[tuple[str, str], int] = {}
    for number, cause in enumerate(causes):
        if cause is not None and cause.number == number:
            key = (cause.title, "" if cause.title == NOT_FOUND else cause.detail)
            counts[key] = counts.get(key, 0) + 1
    single = {cause.detail for cause in causes if cause is not None and cause.title == NOT_FOUND}
    found = [
        CauseCount(title, next(iter(single)) if title == NOT_FOUND and len(single) == 1 else detail, count)
        for (title, detail), count in counts.items()
    ]
    return sorted(found, key=lambda one: -one.count)
