"""Under which headings the page puts an image: where it comes from, and why it is not there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..drawing import file_name
from .images import ImageView, State, roots

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
    """Where an image comes from: a key of `KINDS`, and the name of its package or else of its folder."""

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
    """Why an image is not there.

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
    """How many images failed by themselves for one cause: `title` and `detail` as in `FailureCause`."""

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
