"""The dynamic symbols: which of them the loader would have to find elsewhere, and which it would find here.

What the loader looks up are the symbols of relocations, and what it finds are the entries of the hash table; so the
size of the symbol table, which the dynamic section does not give, need not be known. Sources: the generic ABI, chapter
5; elf/dl-lookup.c of glibc; for DT_GNU_HASH bfd/elflink.c of binutils.
"""

from __future__ import annotations

import sys
from array import array

from ..errors import BinaryFormatError
from ..model.elf import ElfNeed, ElfSymbols
from .elf_layout import (
    DT_GNU_HASH,
    DT_HASH,
    DT_JMPREL,
    DT_PLTREL,
    DT_PLTRELSZ,
    DT_REL,
    DT_RELA,
    DT_RELACOUNT,
    DT_RELASZ,
    DT_RELCOUNT,
    DT_RELSZ,
    DT_SYMTAB,
    DT_VERSYM,
    EM_ALPHA,
    EM_MIPS,
    EM_S390,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .elf_dynamic import Dynamic
    from .elf_versions import Versions

_GLOBAL, _WEAK, _UNIQUE = 1, 2, 10
"""STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE."""
_FOUND = frozenset(binding << 4 | kind for binding in (_GLOBAL, _WEAK, _UNIQUE) for kind in (0, 1, 2, 5, 6, 10))
"""st_info of what a lookup takes: do_lookup_x and check_match in dl-lookup.c."""
_TLS = 6
_SHN_ABS = 0xFFF1
_HIDDEN_FROM_OTHERS = (1, 2)
"""STV_INTERNAL, STV_HIDDEN."""
_LOWEST_GLOBAL = _GLOBAL << 4
_ENTRIES_AT_ONCE = 8192
_HIDDEN = 0x8000
"""Of the number of a version."""
_NO_VERSION = (None, None)
_FIRST_NAMED_VERSION = 3
"""A reference without a version takes the numbers below it as they are, of the others one not hidden: check_match."""


def parse_symbols(dynamic: Dynamic, machine: int, versions: Versions) -> ElfSymbols:
    """The dynamic symbols. Raises `BinaryFormatError`."""
    place = dynamic.locate(DT_SYMTAB, "the symbol table")
    if place is None:
        return ElfSymbols((), {})
    return _SymbolTable(dynamic, versions, *place).parse(machine)


class _SymbolTable:
    """The symbol table, as far as hash table and relocations say that it goes."""

    def __init__(self, dynamic: Dynamic, versions: Versions, start: int, end: int) -> None:
        self.dynamic = dynamic
        self.versions = versions
        self.start = start
        self.room = (end - start) // dynamic.layout.symbol.size

    def parse(self, machine: int) -> ElfSymbols:
        first, count = _hashed_range(self.dynamic, machine, self.room)
        # References on MIPS sit in the global offset table, without relocations: take them all.
        used = set(range(count)) if machine == EM_MIPS else _relocated(self.dynamic)
        used.discard(0)
        size = max(count, max(used, default=0) + 1)
        if size > self.room:
            problem = f"cut short or damaged: the symbol table has no room for {size} entries"
            raise BinaryFormatError(self.start, problem)
        by_number = self.versions.by_number
        provided = _Provided(by_number)
        ordinary, names = provided.ordinary, provided.names
        needs: list[ElfNeed] = []
        text, find, allowance = self._names()
        rows = zip(range(size), self._version_numbers(size), self._fields(size), strict=True)
        for index, number, (at, info, other, section, value) in rows:
            if section:
                if not (first <= index < count and info in _FOUND and (value or _may_be_zero(info, section))):
                    continue
            elif index not in used or info < _LOWEST_GLOBAL:
                continue
            if other and other & 3 in _HIDDEN_FROM_OTHERS:
                continue
            end = find("\0", at)
            allowance -= end - at
            if end < 0 or allowance < 0:
                raise BinaryFormatError(self.dynamic.strings[0] + at, "damaged: the name of a symbol has no end")
            name = text[at:end]
            if not name.isascii():
                name = name.encode("latin-1").decode("utf-8", "surrogateescape")
            if not section:
                version, library = by_number.get(number & 0x7FFF, _NO_VERSION)
                needs.append(ElfNeed(name, version, library, info >> 4 == _WEAK))
                continue
            # Nearly all are so; a call for each of them would take longer than all the rest.
            versions = ordinary.get(number)
            if versions is None or names.setdefault(name, versions) is not versions:
                provided.add_unusual(name, number)
        return ElfSymbols(tuple(needs), names, provided.close())

    def _fields(self, size: int) -> Iterator[tuple[int, int, int, int, int]]:
        """Of `size` symbols: position of the name, st_info, st_other, st_shndx, st_value."""
        layout = self.dynamic.layout
        table = self.dynamic.cursor.take(self.start, size * layout.symbol.size, "the symbol table")
        fields = layout.symbol.iter_unpack(table)
        if layout.bits == 64:
            return fields
        return ((name, info, other, section, value) for name, value, info, other, section in fields)

    def _names(self) -> tuple[str, Callable[[str, int], int], int]:
        """The string table, its `find`, and how many characters of names may be read from it.

        Names may overlap without end in a damaged file; in a sound one few do.
        """
        start, end = self.dynamic.strings
        block = self.dynamic.cursor.take(start, end - start, "the string table")
        # Positions count bytes, so a character has to stay one byte.
        text = block.decode("latin-1")
        return text, text.find, 16 * len(text) + 0x100000

    def _version_numbers(self, size: int) -> array[int]:
        place = self.dynamic.locate_table(DT_VERSYM, 2 * size, "the table of symbol versions")
        if place is None:
            return array("H", bytes(2 * size))
        block = self.dynamic.cursor.take(place, 2 * size, "the table of symbol versions")
        return _integers("H", block, self.dynamic.layout.little_endian)


def _may_be_zero(info: int, section: int) -> bool:
    """Whether a lookup takes a symbol of value 0: check_match."""
    return section == _SHN_ABS or info & 15 == _TLS


class _Provided:
    """Collects the definitions, by name.

    Attributes:
        names: name to versions, complete after `close`.
        ordinary: the versions of a name, by the number of the only one, if it is not hidden.
    """

    def __init__(self, by_number: Mapping[int, tuple[str, str | None]]) -> None:
        self.names: dict[str, tuple[str | None, ...]] = {}
        self.ordinary: dict[int, tuple[str | None]] = {0: (None,), 1: (None,)}
        self.ordinary.update((number, (version,)) for number, (version, _) in by_number.items())
        self._unusual: dict[str, set[int]] = {}

    def add_unusual(self, name: str, number: int) -> None:
        """A definition that is hidden, of an unknown version, or not the first of its name."""
        self._unusual.setdefault(name, set()).add(number)

    def close(self) -> frozenset[str]:
        """Complete the names; the ones that only a reference with a version finds: check_match in dl-lookup.c."""
        number_of: dict[tuple[str | None, ...], int] = {
            versions: number for number, versions in sorted(self.ordinary.items(), reverse=True)
        }
        versioned_only = []
        for name, numbers in self._unusual.items():
            if name in self.names:
                numbers.add(number_of[self.names[name]])
            order = sorted(numbers, key=_plain_number)
            found = (self.ordinary.get(_plain_number(number), (None,))[0] for number in order)
            self.names[name] = tuple(dict.fromkeys(found))
            defaults = sum(number < _HIDDEN for number in numbers)
            if _plain_number(order[0]) >= _FIRST_NAMED_VERSION and defaults != 1:
                versioned_only.append(name)
        return frozenset(versioned_only)


def _plain_number(number: int) -> int:
    return number & ~_HIDDEN


def _hashed_range(dynamic: Dynamic, machine: int, room: int) -> tuple[int, int]:
    """The indexes of the symbols that a lookup can find: first, and one past the last."""
    what = "the hash table"
    place = dynamic.locate(DT_GNU_HASH, what)
    if place is not None:
        return _gnu_hashed_range(dynamic, *place, room)
    place = dynamic.locate(DT_HASH, what)
    if place is None:
        return 0, 0
    # The two that have 8 bytes for a number here: binutils, include/elf/external.h and bfd/elf64-s390.c.
    wide = dynamic.layout.bits == 64 and machine in (EM_S390, EM_ALPHA)
    block = dynamic.cursor.take(place[0], 16 if wide else 8, what)
    return 1, int.from_bytes(block[len(block) // 2 :], "little" if dynamic.layout.little_endian else "big")


def _gnu_hashed_range(dynamic: Dynamic, start: int, end: int, room: int) -> tuple[int, int]:
    what = "the hash table"
    cursor, word = dynamic.cursor, dynamic.layout.word
    buckets, first, bloom = (cursor.unpack(word, start + at, what)[0] for at in (0, 4, 8))
    at = start + 16 + bloom * dynamic.layout.bits // 8
    if at + 4 * buckets > end:
        raise cursor.cut_short(at, 4 * buckets, what, end)
    last = max(_integers("I", cursor.take(at, 4 * buckets, what), dynamic.layout.little_endian), default=0)
    if last < first or not last:
        return 0, 0
    # The chain of the highest bucket ends the table; its end has the lowest bit set.
    chains = at + 4 * buckets - 4 * first
    while last < room:
        offset = chains + 4 * last
        size = min(1024, end - offset) & ~3
        if size <= 0:
            break
        for hashed in _integers("I", cursor.take(offset, size, what), dynamic.layout.little_endian):
            last += 1
            if hashed & 1:
                return first, last
    raise BinaryFormatError(start, "cut short or damaged: the hash table has no end")


def _relocated(dynamic: Dynamic) -> set[int]:
    """The numbers of the symbols that relocations use."""
    values, word = dynamic.values, dynamic.layout.bits // 8
    addend = {DT_RELA: 3 * word, DT_REL: 2 * word}
    tables = (
        # The first so many are relative, without a symbol: elf/dynamic-link.h of glibc skips them likewise.
        (DT_RELA, DT_RELASZ, DT_RELA, values.get(DT_RELACOUNT, 0)),
        (DT_REL, DT_RELSZ, DT_REL, values.get(DT_RELCOUNT, 0)),
        (DT_JMPREL, DT_PLTRELSZ, values.get(DT_PLTREL, DT_RELA), 0),
    )
    used: set[int] = set()
    for tag, size_tag, kind, skip in tables:
        size = values.get(size_tag, 0)
        place = dynamic.locate_table(tag, size, "a table of relocations")
        if place is None:
            continue
        if kind not in addend:
            raise BinaryFormatError(place, f"damaged: relocations are of a kind {kind} that does not exist")
        entry = addend[kind]
        for block in _blocks(dynamic, place + skip * entry, place + size - size % entry, entry):
            used.update(_symbol_numbers(block, entry, dynamic))
    return used


def _blocks(dynamic: Dynamic, start: int, end: int, entry: int) -> Iterator[bytes]:
    step = entry * _ENTRIES_AT_ONCE
    for offset in range(start, end, step):
        yield dynamic.cursor.take(offset, min(step, end - offset), "a table of relocations")


def _symbol_numbers(block: bytes, entry: int, dynamic: Dynamic) -> set[int]:
    """The symbol of every relocation, from the field r_info: its upper 32 bits, or its upper 24 in 32-bit files."""
    little = dynamic.layout.little_endian
    words = _integers("I", block, little)
    if dynamic.layout.bits == 32:
        return {info >> 8 for info in set(words[1 :: entry // 4])}
    return set(words[3 if little else 2 :: entry // 4])


def _integers(code: str, block: bytes, little_endian: bool) -> array[int]:
    numbers: array[int] = array(code, block)
    if little_endian != (sys.byteorder == "little"):
        numbers.byteswap()
    return numbers
