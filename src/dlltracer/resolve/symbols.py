"""Finds the symbols and versions that glibc would miss in images loaded together, and names most like a missing one.

Sources: elf/dl-version.c (match_symbol) and elf/dl-lookup.c (check_match, do_lookup_x) of glibc. The answer depends on
what the scope holds, not on its order: any definition that fits will do.

The most similar names are a guess for readers. Names may have thousands of letters, and libraries ten thousand names.
So only the neighbours in alphabetical order are compared, of the names as they are and spelled backwards.
"""

from __future__ import annotations

import posixpath
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from ..model.elf import ElfImage, ElfNeed
from ..model.tree import MissingSymbol, MissingVersion

MAX_NEAREST = 200
"""Missing symbols that get a guess of what was meant; who lacks more has another library altogether."""

_NEIGHBOURS = 16
_ALIKE = 0.6


class Nearest:
    """Answers for one set of names."""

    def __init__(self, names: Iterable[str]) -> None:
        self._forwards = sorted(names)
        self._backwards = sorted([name[::-1] for name in self._forwards])

    def to(self, wanted: str) -> tuple[str, ...]:
        """Up to three names that begin or end alike, the most alike first."""
        near = set(_around(self._forwards, wanted))
        near |= {name[::-1] for name in _around(self._backwards, wanted[::-1])}
        alike = sorted((-_likeness(wanted, name), name) for name in near)
        return tuple(name for value, name in alike[:3] if -value >= _ALIKE)


def _around(names: list[str], wanted: str) -> list[str]:
    at = bisect_left(names, wanted)
    return names[max(at - _NEIGHBOURS, 0) : at + _NEIGHBOURS]


def _likeness(one: str, other: str) -> float:
    """Return how much of the longer name its common beginning and end with the shorter are: 0 to 1."""
    shorter, longer = sorted((one, other), key=len)
    front = _common(shorter, longer)
    back = min(_common(shorter[::-1], longer[::-1]), len(shorter) - front)
    return (front + back) / max(len(longer), 1)


def _common(one: str, other: str) -> int:
    """The length of the common beginning; halving, as mangled names have thousands of letters."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one.startswith(other[:middle]):
            low = middle
        else:
            high = middle - 1
    return low


def find_missing_versions(images: Mapping[str, ElfImage], order: Sequence[str]) -> tuple[MissingVersion, ...]:
    """The versions for which glibc refuses the load: "version `V' not found (required by ...)".

    Asked are only images that define versions: of one that defines none glibc takes any symbol, with a warning. Weak
    needs may go unmet.

    Args:
        images: path to image, as far as they are known.
        order: their paths in the order in which they load.
    """
    providers = _providers(images, order)
    missing = []
    for path in order:
        for need in images[path].version_needs:
            provider = providers.get(need.library)
            if provider is None or need.weak or not images[provider].is_versioned:
                continue
            has = images[provider].version_defs
            # The base version, which `version_defs` leaves out, has the library's own name.
            if need.version not in has and need.version != images[provider].soname:
                missing.append(MissingVersion(need.version, need.library, provider, path, has))
    return tuple(missing)


def find_missing_symbols(
    images: Mapping[str, ElfImage], order: Sequence[str], *, complete: bool = True
) -> tuple[MissingSymbol, ...]:
    """The symbols for which the load fails: "undefined symbol: NAME, version V".

    Weak references are left out, and those that fail already because `find_missing_versions` has their version.

    Args:
        images: path to image, read with symbols; one read without is taken for incomplete.
        order: their paths in the order in which they load, which is the order of the global scope.
        complete: all that will be in the scope is in `images`, the program itself and the C library included. If not,
            only a symbol with a version is judged, and only when the library it is of is there and defines versions.
    """
    known = {path: image for path in order if (image := images[path]).symbols is not None}
    complete = complete and len(known) == len(set(order))
    scope = _Scope(known.values())
    providers = _providers(images, order)
    refused = {(m.library, m.version) for m in find_missing_versions(images, order)}
    missing: list[MissingSymbol] = []
    names: Nearest | None = None
    for path, image in known.items():
        for need in image.symbols.needs if image.symbols else ():
            if need.weak or (need.library, need.version) in refused:
                continue
            provider = known.get(providers.get(need.library or "", ""))
            if not complete and (provider is None or not provider.is_versioned):
                continue
            if scope.provides(need):
                continue
            if names is None:
                names = Nearest({name for image in known.values() if image.symbols for name in image.symbols.provides})
            nearest = _nearest(need, known, names) if len(missing) < MAX_NEAREST else ()
            missing.append(MissingSymbol(need.name, need.version, path, need.library, nearest=nearest))
    return tuple(missing)


def _providers(images: Mapping[str, ElfImage], order: Sequence[str]) -> dict[str, str]:
    """The path of the image that has a name: its own (DT_SONAME), its file's or its path (_dl_name_match_p)."""
    providers: dict[str, str] = {}
    for path in order:
        for name in (images[path].soname, posixpath.basename(path), path):
            if name is not None:
                providers.setdefault(name, path)
    return providers


class _Scope:
    """All definitions of some images together, so that a need is compared once and not with each image."""

    def __init__(self, images: Iterable[ElfImage]) -> None:
        self._versions: dict[str, tuple[str | None, ...]] = {}
        self._unversioned: set[str] = set()
        for image in images:
            if image.symbols is None:
                continue
            for name, versions in image.symbols.provides.items():
                known = self._versions.setdefault(name, versions)
                if known is not versions and known != versions:
                    self._versions[name] = tuple(dict.fromkeys((*known, *versions)))
            self._unversioned.update(image.symbols.provides.keys() - image.symbols.versioned_only)

    def provides(self, need: ElfNeed) -> bool:
        """Return whether a lookup takes one of the definitions: check_match."""
        if need.version is None:
            return need.name in self._unversioned
        versions = self._versions.get(need.name, ())
        return need.version in versions or None in versions


def _nearest(need: ElfNeed, known: Mapping[str, ElfImage], names: Nearest) -> tuple[str, ...]:
    """The same name with other versions, else names that look alike."""
    versions = {
        f"{need.name}@{version}"
        for image in known.values()
        if image.symbols
        for version in image.symbols.provides.get(need.name, ())
        if version
    }
    return tuple(sorted(versions)[:3]) if versions else names.to(need.name)
