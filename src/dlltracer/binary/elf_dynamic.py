"""Reads the dynamic section of an ELF image: its place, its entries, symbol versions. Source: elf(5), the gABI."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Mapping
from struct import Struct

from ..errors import BinaryFormatError
from ..model.elf import VersionNeed
from ..model.light import dataclass
from .reading import Cursor

Segment = tuple[int, int, int, int, int, int, int]
"""A program header: the fields of `model.elf.ElfSegment`."""

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3

DT_NEEDED, DT_PLTRELSZ, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ = 1, 2, 4, 5, 6, 7, 8
DT_STRSZ, DT_SONAME, DT_RPATH, DT_REL, DT_RELSZ, DT_PLTREL, DT_JMPREL = 10, 14, 15, 17, 18, 20, 23
DT_RUNPATH, DT_FLAGS = 29, 30
DT_GNU_HASH, DT_VERSYM, DT_RELACOUNT, DT_RELCOUNT = 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFF9, 0x6FFFFFFA
DT_FLAGS_1, DT_VERDEF, DT_VERNEED = 0x6FFFFFFB, 0x6FFFFFFC, 0x6FFFFFFE


@dataclass(frozen=True)
class ElfLayout:
    """The structures of one size of word and byte order.

    Attributes:
        header: Elf_Ehdr after e_ident. segment: Elf_Phdr without p_paddr. dynamic: Elf_Dyn.
        symbol: Elf_Sym, of symbol_size bytes. symbol_order: the places among its fields of st_name, st_info, st_other,
            st_shndx and st_value.
        need, need_version: Elf_Verneed, Elf_Vernaux. definition, definition_name: Elf_Verdef, Elf_Verdaux.
        word: one Elf_Word, which has 4 bytes in both sizes.
    """

    bits: int
    little_endian: bool
    header: Struct
    segment: Struct
    dynamic: Struct
    symbol: Struct
    symbol_size: int
    symbol_order: tuple[int, int, int, int, int]
    need: Struct
    need_version: Struct
    definition: Struct
    definition_name: Struct
    word: Struct


def _layout(bits: int, order: str) -> ElfLayout:
    address = "Q" if bits == 64 else "I"
    return ElfLayout(
        bits=bits,
        little_endian=order == "<",
        header=Struct(f"{order}HHI{address * 3}IHHHHHH"),
        segment=Struct(f"{order}IIQQ8xQQQ" if bits == 64 else f"{order}III4xIIII"),
        dynamic=Struct(f"{order}{address}{address}"),
        symbol=Struct(f"{order}IBBHQ8x" if bits == 64 else f"{order}II4xBBH"),
        symbol_size=24 if bits == 64 else 16,
        symbol_order=(0, 1, 2, 3, 4) if bits == 64 else (0, 2, 3, 4, 1),
        need=Struct(f"{order}HHIII"),
        need_version=Struct(f"{order}IHHII"),
        definition=Struct(f"{order}HHHHIII"),
        definition_name=Struct(f"{order}II"),
        word=Struct(f"{order}I"),
    )


_LAYOUTS = (_layout(32, "<"), _layout(32, ">"), _layout(64, "<"), _layout(64, ">"))


def layout_of(elf_class: int, data_encoding: int) -> ElfLayout:
    """The layout for EI_CLASS and EI_DATA, each 1 or 2."""
    return _LAYOUTS[2 * (elf_class - 1) + data_encoding - 1]


def integers(code: str, block: bytes, little_endian: bool) -> array[int]:
    """Return the unsigned numbers in a block of bytes, whose length is a multiple of theirs.

    Arguments: `code`, a type of `array`: "B", "H", "I" or "Q" for numbers of 1, 2, 4 or 8 bytes.
    """
    numbers: array[int] = array(code, block)
    if little_endian != (sys.byteorder == "little"):
        numbers.byteswap()
    return numbers


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


_MAX_ENTRIES = 0x4000
_BLOCK = 512
"""Bytes of the dynamic section read at once; a multiple of both sizes of an entry."""
_SHORT = 0x8000
"""Bytes up to which a string table is read at once."""

PATH_LIMIT = 4096
"""PATH_MAX of <linux/limits.h>: nothing with a longer name can be opened."""


class DynamicPlaces:
    """Maps addresses of loaded segments to offsets in the file (PT_LOAD, elf(5))."""

    def __init__(self, segments: list[Segment]) -> None:
        self._loads = [
            (address, address + file_size, offset)
            for kind, _, offset, address, file_size, _, _ in segments
            if kind == PT_LOAD and file_size
        ]

    def find(self, address: int, what: str) -> tuple[int, int]:
        """Return the file offset of `address`, and the offset at which the file's part of its segment ends.

        Raises `BinaryFormatError` for an address in no segment, which names `what` lies there.
        """
        for start, end, offset in self._loads:
            if start <= address < end:
                return offset + address - start, offset + end - start
        raise BinaryFormatError(0, f"{what} is at address {address:#x}, which no part of the file is loaded to")


@dataclass(frozen=True)
class Dynamic:
    """The dynamic section.

    All methods raise `BinaryFormatError` for what is not in the file; `what` names the thing there, for its message.

    Attributes:
        values: of each tag its last value, which is the one that counts (elf/get-dynamic-info.h of glibc).
        needed: the values of DT_NEEDED, in order.
        strings: offset of the string table and of its end; both 0 if there is none.
        short_strings: the bytes of the string table, if there are few.
    """

    cursor: Cursor
    layout: ElfLayout
    places: DynamicPlaces
    values: Mapping[int, int]
    needed: tuple[int, ...]
    strings: tuple[int, int]
    short_strings: bytes | None

    def locate(self, tag: int, what: str) -> tuple[int, int] | None:
        """File offset and end of its segment for the address under `tag`; `None` if there is no such tag."""
        address = self.values.get(tag)
        return None if address is None else self.places.find(address, what)

    def locate_table(self, tag: int, size: int, what: str) -> int | None:
        """File offset of `size` bytes at the address under `tag`; `None` if there is no such tag, or nothing in it."""
        place = self.locate(tag, what) if size else None
        if place is None:
            return None
        offset, end = place
        if offset + size > end:
            raise self.cursor.cut_short(offset, size, what, end)
        return offset

    def text(self, position: int, what: str, limit: int = PATH_LIMIT) -> str:
        """The string at `position` of the string table."""
        if self.short_strings is not None:
            stop = self.short_strings.find(b"\0", position, position + limit)
            if stop >= 0:
                return self.short_strings[position:stop].decode("utf-8", "surrogateescape")
        start, end = self.strings
        return self.cursor.text(start + position, what, limit=limit, end=end).decode("utf-8", "surrogateescape")

    def texts(self, positions: Iterable[int], what: str) -> tuple[str, ...]:
        """The strings at many positions of the string table."""
        return tuple([self.text(position, what) for position in positions])

    def text_of(self, tag: int, what: str, limit: int = PATH_LIMIT) -> str | None:
        """The string that `tag` points to; `None` if there is no such tag."""
        position = self.values.get(tag)
        return None if position is None else self.text(position, what, limit)


def parse_dynamic(cursor: Cursor, layout: ElfLayout, segments: list[Segment]) -> Dynamic | None:
    """The dynamic section; `None` for a file without one. Raises `BinaryFormatError`."""
    # One without content is passed over: files with debug information alone have it (elf/dl-load.c of glibc).
    found = [address for kind, _, _, address, file_size, _, _ in segments if kind == PT_DYNAMIC and file_size]
    if not found:
        return None
    places = DynamicPlaces(segments)
    values, needed = _parse_entries(cursor, layout, *places.find(found[-1], "the dynamic section"))
    strings, block = (0, 0), None
    if DT_STRTAB in values:
        start, end = places.find(values[DT_STRTAB], "the string table")
        size = values.get(DT_STRSZ, end - start)
        if start + size > end:
            raise cursor.cut_short(start, size, "the string table", end)
        strings = (start, start + size)
        if size <= _SHORT:
            block = cursor.take(start, size, "the string table")
    return Dynamic(cursor, layout, places, values, tuple(needed), strings, block)


def _parse_entries(cursor: Cursor, layout: ElfLayout, start: int, end: int) -> tuple[dict[int, int], list[int]]:
    """Read up to DT_NULL, as the loader does, whatever size the program header gives."""
    values: dict[int, int] = {}
    needed: list[int] = []
    size = layout.dynamic.size
    stop = min(end, start + _MAX_ENTRIES * size)
    for offset in range(start, stop, _BLOCK):
        room = min(_BLOCK, stop - offset)
        for tag, value in layout.dynamic.iter_unpack(cursor.take(offset, room - room % size, "the dynamic section")):
            if tag == 0:
                return values, needed
            if tag == DT_NEEDED:
                needed.append(value)
            values[tag] = value
    raise BinaryFormatError(start, "cut short or damaged: the dynamic section has no end")
