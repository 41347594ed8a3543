"""Reads ELF files for the checks of many: headers, what they need, what they define; from the cache where it has them.

Entries of the cache are JSON: no content of one can run anything, and what does not fit is read from the file instead.
"""

from __future__ import annotations

import json
import os
from collections.abc import Set
from itertools import compress
from typing import Any

from ..binary.elf import read_elf, read_provided
from ..host.image_cache import ImageCache
from ..model.elf import ElfImage, ElfNeeds, ElfSegments, ElfSymbols, VersionNeed
from ..model.light import replace

_HEADERS, _DEFINED = "elf", "elf-defined"
_FIELDS = ("bits", "little_endian", "machine", "kind", "abi", "flags", "interpreter", "soname", "rpath", "runpath",
           "dynamic_flags", "dynamic_flags_1", "is_dynamic", "is_versioned")  # fmt: skip
_TYPES: dict[str, tuple[type, ...]] = {
    "little_endian": (bool,), "is_dynamic": (bool,), "is_versioned": (bool,), "interpreter": (str, type(None)),
    "soname": (str, type(None)), "rpath": (str, type(None)), "runpath": (str, type(None)),
}  # fmt: skip

Needs = tuple[tuple[str, ...], tuple[str | None, ...]]
"""The names that an image needs, and the version of each; without those that may be missing."""


class ElfStore:
    """Reads ELF files by their paths on this machine. Argument: `cache`, which may be an empty one."""

    def __init__(self, cache: ImageCache) -> None:
        self._cache = cache
        self._needs: dict[tuple[int, int], Needs] = {}
        self._names: dict[str, str] = {}

    def read(self, path: str) -> ElfImage:
        """Return the image without symbols; `take_needs` has what it needs. Raises `BinaryFormatError`, `OSError`."""
        status = os.stat(path)
        kept = _load(self._cache.get(status, _HEADERS), _decode_headers)
        if kept is None:
            image = read_elf(path, needs=True)
            needs = _strong_needs(image)
            image = replace(image, symbols=None)
            self._keep(status, _HEADERS, _encode_headers(image, needs))
        else:
            image, needs = kept
        names = tuple(self._names.setdefault(name, name) for name in needs[0])
        self._needs[status.st_dev, status.st_ino] = names, needs[1]
        return image

    def take_needs(self, identity: tuple[int, int] | None) -> Needs:
        """Return what an image that was read needs, once: the caller keeps it."""
        return self._needs.pop(identity, ((), ())) if identity is not None else ((), ())

    def read_provided(self, path: str, wanted: Set[str]) -> ElfSymbols:
        """Return which of the wanted names a file defines. Raises `BinaryFormatError`, `OSError`."""
        status = os.stat(path)
        kept = _load(self._cache.get(status, _DEFINED), _decode_defined)
        if kept is None:
            if not self._cache.is_open:
                return read_provided(path, wanted)
            kept = read_provided(path, None)
            self._keep(status, _DEFINED, _encode_defined(kept))
        # In this order: there are many more wanted names than any file defines.
        provides = {name: versions for name, versions in kept.provides.items() if name in wanted}
        return ElfSymbols((), provides, frozenset(name for name in kept.versioned_only if name in wanted))

    def _keep(self, status: os.stat_result, kind: str, value: Any) -> None:
        if self._cache.is_open and value is not None:
            self._cache.put(status, kind, json.dumps(value, separators=(",", ":")).encode("ascii"))


def _strong_needs(image: ElfImage) -> Needs:
    needs = image.symbols.needs if image.symbols is not None else ()
    if not isinstance(needs, ElfNeeds):  # there are none
        return (), ()
    strong = [not weak for weak in needs.weak]
    return tuple(compress(needs.names, strong)), tuple(compress(needs.versions, strong))


def _load(data: bytes | None, decode: Any) -> Any:
    """Return a decoded entry; `None` for none, and for what is none of ours."""
    if data is None:
        return None
    try:
        return decode(json.loads(data))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, AttributeError):
        return None


def _encode_headers(image: ElfImage, needs: Needs) -> dict[str, Any] | None:
    names = "\n".join(needs[0])
    if names.count("\n") != max(len(needs[0]) - 1, 0):
        return None  # no compiler makes a name with a line end
    versions = list(dict.fromkeys(needs[1]))
    numbers = {version: number for number, version in enumerate(versions)}
    return {
        "fields": [getattr(image, name) for name in _FIELDS],
        "needed": image.needed,
        "segments": [[s.type, s.flags, s.offset, s.address, s.file_size, s.memory_size, s.align]
                     for s in image.segments],
        "version_needs": [[need.library, need.version, need.weak] for need in image.version_needs],
        "version_defs": image.version_defs,
        "names": names, "count": len(needs[0]), "versions": versions,
        "numbers": [numbers[version] for version in needs[1]],
    }  # fmt: skip


def _decode_headers(plain: Any) -> tuple[ElfImage, Needs]:
    fields = dict(zip(_FIELDS, plain["fields"], strict=True))
    for name, value in fields.items():
        if type(value) not in _TYPES.get(name, (int,)):
            raise TypeError(name)
    segments = [tuple(map(int, row)) for row in plain["segments"]]
    image = ElfImage(
        **fields, needed=_texts(plain["needed"]),
        segments=ElfSegments(*zip(*segments, strict=True)) if segments else (),
        version_needs=tuple(
            VersionNeed(_text(library), _text(version), weak is True)
            for library, version, weak in plain["version_needs"]
        ),
        version_defs=_texts(plain["version_defs"]),
    )  # fmt: skip
    names = tuple(plain["names"].split("\n")) if plain["count"] else ()
    versions = [_text_or_none(version) for version in plain["versions"]]
    needs = names, tuple(versions[number] for number in plain["numbers"])
    if not len(names) == len(needs[1]) == plain["count"]:
        raise ValueError("names and versions do not fit")
    return image, needs


def _encode_defined(symbols: ElfSymbols) -> dict[str, Any] | None:
    names = "\n".join(symbols.provides)
    if names.count("\n") != max(len(symbols.provides) - 1, 0):
        return None
    versions = list(dict.fromkeys(symbols.provides.values()))
    numbers = {version: number for number, version in enumerate(versions)}
    return {
        "names": names, "count": len(symbols.provides), "versions": versions,
        "numbers": [numbers[version] for version in symbols.provides.values()],
        "versioned_only": sorted(symbols.versioned_only),
    }  # fmt: skip


def _decode_defined(plain: Any) -> ElfSymbols:
    names = plain["names"].split("\n") if plain["count"] else []
    versions = [tuple(map(_text_or_none, each)) for each in plain["versions"]]
    provides = dict(zip(names, [versions[number] for number in plain["numbers"]], strict=True))
    return ElfSymbols((), provides, frozenset(_texts(plain["versioned_only"])))


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(map(_text, values))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)
