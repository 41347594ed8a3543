"""Symbol versions: which are needed, which defined, and the numbers under which symbols refer to them.

Source: "Linux Standard Base Core Specification", chapter "Symbol Versioning". Like the loader (elf/dl-version.c of
glibc) this follows the links between entries and ignores the counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BinaryFormatError
from ..model.elf import VersionNeed
from .elf_layout import DT_VERDEF, DT_VERNEED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .elf_dynamic import Dynamic

_MAX_VERSIONS = 0x8000
"""A symbol has 15 bits for the number of its version."""
_NAME_LIMIT = 1024
_FLAG_BASE, _FLAG_WEAK = 1, 2


@dataclass(frozen=True)
class Versions:
    """The versions of a file.

    Attributes:
        needs: the versions needed, in order.
        defined: names of the versions defined, without the base version; `None` without a table of them.
        by_number: of each number its version name and, if the version is needed, the library that it is of.
    """

    needs: tuple[VersionNeed, ...]
    defined: tuple[str, ...] | None
    by_number: Mapping[int, tuple[str, str | None]]


def parse_versions(dynamic: Dynamic) -> Versions:
    """The versions of a file. Raises `BinaryFormatError`."""
    by_number: dict[int, tuple[str, str | None]] = {}
    needs = _parse_needs(dynamic, by_number)
    return Versions(needs, _parse_definitions(dynamic, by_number), by_number)


def _parse_needs(dynamic: Dynamic, by_number: dict[int, tuple[str, str | None]]) -> tuple[VersionNeed, ...]:
    what = "the table of needed versions"
    place = dynamic.locate(DT_VERNEED, what)
    if place is None:
        return ()
    offset = place[0]
    cursor, layout = dynamic.cursor, dynamic.layout
    needs: list[VersionNeed] = []
    for _ in range(_MAX_VERSIONS):
        revision, _, file, aux, step = cursor.unpack(layout.need, offset, what)
        if revision != 1:
            raise BinaryFormatError(offset, f"{what} has revision {revision}, not 1")
        library = dynamic.text(file, "the name of a library in " + what)
        at = offset + aux
        aux_step = 1
        while aux_step:
            _, flags, number, name, aux_step = cursor.unpack(layout.need_version, at, what)
            version = dynamic.text(name, "the name of a version", _NAME_LIMIT)
            needs.append(VersionNeed(library, version, flags & _FLAG_WEAK != 0))
            by_number[number & 0x7FFF] = (version, library)
            if len(needs) > _MAX_VERSIONS:
                raise BinaryFormatError(at, f"{what} has no end")
            at += aux_step
        if not step:
            return tuple(needs)
        offset += step
    raise BinaryFormatError(place[0], f"{what} has no end")


def _parse_definitions(dynamic: Dynamic, by_number: dict[int, tuple[str, str | None]]) -> tuple[str, ...] | None:
    what = "the table of defined versions"
    place = dynamic.locate(DT_VERDEF, what)
    if place is None:
        return None
    offset = place[0]
    unpack, layout = dynamic.cursor.unpack, dynamic.layout
    names: list[str] = []
    for _ in range(_MAX_VERSIONS):
        revision, flags, number, _, _, aux, step = unpack(layout.definition, offset, what)
        if revision != 1:
            raise BinaryFormatError(offset, f"{what} has revision {revision}, not 1")
        # Of the names behind it only the first is the version's own; the others are those it inherits from.
        name, _ = unpack(layout.definition_name, offset + aux, what)
        if not flags & _FLAG_BASE:
            names.append(dynamic.text(name, "the name of a version", _NAME_LIMIT))
            by_number[number & 0x7FFF] = (names[-1], None)
        if not step:
            return tuple(names)
        offset += step
    raise BinaryFormatError(place[0], f"{what} has no end")
