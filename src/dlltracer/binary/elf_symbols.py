"""Reads the symbol table of an ELF image, and the hash tables that find a name in it."""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Set
from itertools import compress

from ..errors import BinaryFormatError
from ..model.elf import EM_ALPHA, EM_MIPS, EM_S390, ElfNeeds, ElfSymbols
from .elf_dynamic import (
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
    Dynamic,
    Versions,
    integers,
)


def hashed_range(dynamic: Dynamic, machine: int, room: int) -> tuple[int, int]:
    """Return the indexes of the symbols that a lookup can find: first, and one past the last.

    Arguments: `machine`, e_machine; `room`, how many symbols fit between the table and the end of its segment.
    Raises `BinaryFormatError`.
    """
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
    cursor = dynamic.cursor
    buckets, first, at = _gnu_buckets(dynamic, start)
    if at + 4 * buckets > end:
        raise cursor.cut_short(at, 4 * buckets, what, end)
    last = max(integers("I", cursor.take(at, 4 * buckets, what), dynamic.layout.little_endian), default=0)
    if last < first or not last:
        return 0, 0
    # The chain of the highest bucket ends the table; its end has the lowest bit set.
    chains = at + 4 * buckets - 4 * first
    while last < room:
        offset = chains + 4 * last
        size = min(1024, end - offset) & ~3
        if size <= 0:
            break
        for hashed in integers("I", cursor.take(offset, size, what), dynamic.layout.little_endian):
            last += 1
            if hashed & 1:
                return first, last
    raise BinaryFormatError(start, "cut short or damaged: the hash table has no end")


def _gnu_buckets(dynamic: Dynamic, start: int) -> tuple[int, int, int]:
    """The number of buckets of a DT_GNU_HASH table, the first hashed symbol, and the file offset of the buckets."""
    cursor, word = dynamic.cursor, dynamic.layout.word
    buckets, first, bloom = (cursor.unpack(word, start + at, "the hash table")[0] for at in (0, 4, 8))
    return buckets, first, start + 16 + bloom * dynamic.layout.bits // 8


def hash_names(names: Iterable[str]) -> frozenset[int]:
    """Return the hashes of names as a DT_GNU_HASH table may have them (dl_new_hash in elf/dl-hash.h of glibc).

    The lowest bit of a hash marks the end of a chain in the table, so each is returned with it and without it.
    """
    hashes = set()
    for name in names:
        value = 5381
        for byte in name.encode("utf-8", "surrogateescape"):
            value = value * 33 + byte & 0xFFFFFFFF
        hashes.add(value & ~1)
    return frozenset(hashes | {value | 1 for value in hashes})


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
_NAMES_AT_ONCE, _CHARACTERS_AT_ONCE = 1024, 1 << 26
"""How many names are cut, and how many characters they may have, before it is asked whether they overlap."""
_FEW = 8
"""Wanted names that are looked for in the string table as a whole before any name is cut out of it."""
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


def parse_needs(dynamic: Dynamic, machine: int, versions: Versions) -> ElfSymbols:
    """The undefined symbols alone, those that no relocation uses included. Raises `BinaryFormatError`.

    A tenth of the work of `parse_symbols`: the table of a usual file begins with them (DT_GNU_HASH, first hashed
    symbol), and relocations are not read.
    """
    place = dynamic.locate(DT_SYMTAB, "the symbol table")
    if place is None:
        return ElfSymbols((), {})
    hashes = dynamic.locate(DT_GNU_HASH, "the hash table")
    table = _SymbolTable(dynamic, versions, *place)
    if hashes is None or machine == EM_MIPS:
        return table.parse(machine)
    first, _ = hashed_range(dynamic, machine, table.room)
    return table.parse_first(first) if first > 1 else table.parse(machine)


def parse_provides(
    dynamic: Dynamic, machine: int, versions: Versions, wanted: Set[str] | None, hashes: Set[int] | None = None
) -> ElfSymbols:  # fmt: skip
    """The definitions of the wanted names, or with `None` of all. Raises `BinaryFormatError`.

    Arguments: `hashes`, of the wanted names (`hash_names`): names with other hashes are then not even cut out.
    """
    place = dynamic.locate(DT_SYMTAB, "the symbol table")
    if place is None:
        return ElfSymbols((), {})
    return _SymbolTable(dynamic, versions, *place).parse_found(machine, wanted, hashes)


class _Part:
    """Some of the rows of a table: those from `start` on and before `end`; of these, if given, the ones `taken`."""

    def __init__(self, start: int, end: int, taken: Sequence[object] | None = None) -> None:
        self.start = start
        self.end = end
        self.taken = taken

    def of(self, column: Sequence[int]) -> list[int]:
        """Their values in a column."""
        values = column[self.start : self.end]
        return list(values if self.taken is None else compress(values, self.taken))


class _SymbolTable:
    """The symbol table, as far as hash table and relocations say that it goes.

    It is read by columns: what is the same for thousands of symbols is judged once.
    """

    def __init__(self, dynamic: Dynamic, versions: Versions, start: int, end: int) -> None:
        self.dynamic = dynamic
        self.versions = versions
        self.start = start
        self.room = (end - start) // dynamic.layout.symbol_size
        self.positions = self.values = array("I")
        self.kinds: list[int] = []

    def parse(self, machine: int) -> ElfSymbols:
        first, count = hashed_range(self.dynamic, machine, self.room)
        # References on MIPS sit in the global offset table, without relocations: take them all.
        used = set(range(count)) if machine == EM_MIPS else _relocated(self.dynamic)
        used.discard(0)
        size = max(count, max(used, default=0) + 1)
        if size > self.room:
            problem = f"cut short or damaged: the symbol table has no room for {size} entries"
            raise BinaryFormatError(self.start, problem)
        self._read(size)
        kinds = {kind: self._kind(kind) for kind in set(self.kinds)}
        needs = self._needed(first, used, kinds)
        found = self._found(first, count, kinds)
        numbers = self._version_numbers(size)
        names = self._names_of_symbols(needs.of(self.positions) + found.of(self.positions))
        asked = needs.of(numbers)
        provides, versioned_only = _provide(names[len(asked) :], found.of(numbers), self.versions.by_number)
        return ElfSymbols(self._list_needs(needs, names[: len(asked)], asked, kinds), provides, versioned_only)

    def parse_first(self, end: int) -> ElfSymbols:
        """Return the undefined symbols before number `end`."""
        if end > self.room:
            raise BinaryFormatError(self.start, f"cut short or damaged: the symbol table has no room for {end} entries")
        self._read(end)
        kinds = {kind: self._kind(kind) for kind in set(self.kinds)}
        wanted = {kind for kind, (info, section) in kinds.items() if not section and info >= _LOWEST_GLOBAL}
        needs = _Part(0, end, [kind in wanted for kind in self.kinds])
        asked = needs.of(self._version_numbers(end))
        return ElfSymbols(self._list_needs(needs, self._names_of_symbols(needs.of(self.positions)), asked, kinds), {})

    def parse_found(self, machine: int, wanted: Set[str] | None, hashes: Set[int] | None) -> ElfSymbols:
        """Return the definitions of the wanted names, or with `None` of all; `hashes` as for `parse_provides`."""
        first, count = hashed_range(self.dynamic, machine, self.room)
        if count > self.room:
            raise BinaryFormatError(
                self.start, f"cut short or damaged: the symbol table has no room for {count} entries"
            )
        known = self._hashes(first, count) if wanted is not None and hashes is not None else None
        if known is not None and wanted is not None and hashes is not None:
            return self._pick(compress(range(first, count), map(hashes.__contains__, known)), count, wanted)
        if wanted is not None and len(wanted) <= _FEW and not self._has_any(wanted):
            return ElfSymbols((), {})
        self._read(count)
        found = self._found(first, count, {kind: self._kind(kind) for kind in set(self.kinds)})
        names = self._names(found.of(self.positions))
        numbers = found.of(self._version_numbers(count))
        if wanted is not None:
            taken = [name in wanted for name in names]
            names, numbers = list(compress(names, taken)), list(compress(numbers, taken))
        provides, versioned_only = _provide(names, numbers, self.versions.by_number)
        return ElfSymbols((), provides, versioned_only)

    def _hashes(self, first: int, count: int) -> array[int] | None:
        """Return the hashes of the symbols from `first` on and before `count`; `None` without a DT_GNU_HASH table."""
        what = "the hash table"
        place = self.dynamic.locate(DT_GNU_HASH, what)
        if place is None:
            return None
        buckets, _, at = _gnu_buckets(self.dynamic, place[0])
        block = self.dynamic.cursor.take(at + 4 * buckets, 4 * (count - first), what)
        return integers("I", block, self.dynamic.layout.little_endian)

    def _pick(self, rows: Iterable[int], count: int, wanted: Set[str]) -> ElfSymbols:
        """Return the definitions of the wanted names in a few rows of the `count` that a lookup can find."""
        layout = self.dynamic.layout
        table = self.dynamic.cursor.take(self.start, count * layout.symbol_size, "the symbol table")
        every = self._version_numbers(count)
        positions, numbers = [], []
        for row in rows:
            fields = layout.symbol.unpack_from(table, row * layout.symbol_size)
            position, info, other, section, value = (fields[at] for at in layout.symbol_order)
            if other & 3 in _HIDDEN_FROM_OTHERS or not section or info not in _FOUND:
                continue
            if value or _may_be_zero(info, section):
                positions.append(position)
                numbers.append(every[row])
        names = self._names(positions)
        taken = [name in wanted for name in names]
        provides, versioned_only = _provide(
            list(compress(names, taken)), list(compress(numbers, taken)), self.versions.by_number
        )
        return ElfSymbols((), provides, versioned_only)

    def _has_any(self, names: Set[str]) -> bool:
        """Return whether the string table has one of the names at all."""
        start, end = self.dynamic.strings
        block = self.dynamic.cursor.take(start, end - start, "the string table")
        return any(name.encode("utf-8", "surrogateescape") + b"\0" in block for name in names)

    def _list_needs(
        self, needs: _Part, names: list[str], asked: list[int], kinds: Mapping[int, tuple[int, int]]
    ) -> ElfNeeds:  # fmt: skip
        """Return the needs; `asked` has the number of the version that each asks for."""
        bound = {number: self.versions.by_number.get(number & 0x7FFF, _NO_VERSION) for number in set(asked)}
        version = {number: name for number, (name, _) in bound.items()}
        library = {number: name for number, (_, name) in bound.items()}
        weak = {kind: info >> 4 == _WEAK for kind, (info, _) in kinds.items()}
        return ElfNeeds(
            tuple(names),
            tuple(map(version.__getitem__, asked)),
            tuple(map(library.__getitem__, asked)),
            tuple(map(weak.__getitem__, needs.of(self.kinds))),
        )

    def _needed(self, first: int, used: Container[int], kinds: Mapping[int, tuple[int, int]]) -> _Part:
        """Return the undefined symbols among those that are used; `first` is the first that a lookup can find."""
        wanted = {kind for kind, (info, section) in kinds.items() if not section and info >= _LOWEST_GLOBAL}
        # In a table that is sorted for DT_GNU_HASH they come first.
        end = first if wanted.isdisjoint(self.kinds[first:]) else len(self.kinds)
        return _Part(0, end, [kind in wanted and index in used for index, kind in enumerate(self.kinds[:end])])

    def _found(self, first: int, count: int, kinds: Mapping[int, tuple[int, int]]) -> _Part:
        """Return the symbols from `first` on and before `count` that a lookup takes."""
        wanted = {kind for kind, (info, section) in kinds.items() if section and info in _FOUND}
        near, values = self.kinds[first:count], self.values[first:count]
        taken: Sequence[object] | None = None
        if not wanted.issuperset(near):
            taken = [kind in wanted for kind in near]
        if bytes(values.itemsize) in values.tobytes() and 0 in values:
            free = {kind for kind in wanted if _may_be_zero(*kinds[kind])}
            taken = [kind in free or (value and kind in wanted) for kind, value in zip(near, values, strict=True)]
        return _Part(first, count, taken)

    def _read(self, size: int) -> None:
        """Read the columns of `size` symbols: st_name; st_info, st_other and st_shndx as one number; st_value."""
        layout = self.dynamic.layout
        table = self.dynamic.cursor.take(self.start, size * layout.symbol_size, "the symbol table")
        words = integers("I", table, layout.little_endian)
        if layout.bits == 64:
            self.positions, self.kinds = words[::6], words[1::6].tolist()
            self.values = integers("Q", table, layout.little_endian)[1::3]
        else:
            self.positions, self.values, self.kinds = words[::4], words[1::4], words[3::4].tolist()
        if size > 1 and not any(self.kinds) and not any(self.positions):  # the first symbol has zeros in every file
            raise BinaryFormatError(self.start, "damaged: the symbol table is all zeros")

    def _kind(self, kind: int) -> tuple[int, int]:
        """st_info and st_shndx; both 0 for a symbol that others do not see."""
        if self.dynamic.layout.little_endian:
            info, other, section = kind & 0xFF, kind >> 8, kind >> 16
        else:
            info, other, section = kind >> 24, kind >> 16, kind & 0xFFFF
        return (0, 0) if other & 3 in _HIDDEN_FROM_OTHERS else (info, section)

    def _names_of_symbols(self, positions: Sequence[int]) -> list[str]:
        """The names of symbols that others see, or that are needed: each has one, unless the string table was lost."""
        names = self._names(positions)
        if names and not any(names):
            raise BinaryFormatError(self.dynamic.strings[0], "damaged: the symbols have no names")
        return names

    def _names(self, positions: Sequence[int]) -> list[str]:
        """The strings at many positions of the string table.

        Names may overlap without end in a damaged file; in a sound one few do.
        """
        start, end = self.dynamic.strings
        block = self.dynamic.cursor.take(start, end - start, "the string table")
        # Positions count bytes, so a character has to stay one byte.
        text = block.decode("latin-1")
        stop = text.index
        allowance = 16 * len(text) + 0x100000
        step = max(1, min(_NAMES_AT_ONCE, _CHARACTERS_AT_ONCE // (len(text) + 1)))
        names: list[str] = []
        for number in range(0, len(positions), step):
            near = positions[number : number + step]
            try:
                found = [text[at : stop("\0", at)] for at in near]
            except ValueError:
                allowance = -1
            else:
                allowance -= len("".join(found))
            if allowance < 0:
                raise BinaryFormatError(start + near[0], "damaged: the name of a symbol has no end")
            names += found
        if block.isascii():
            return names
        return [n if n.isascii() else n.encode("latin-1").decode("utf-8", "surrogateescape") for n in names]

    def _version_numbers(self, size: int) -> array[int]:
        place = self.dynamic.locate_table(DT_VERSYM, 2 * size, "the table of symbol versions")
        if place is None:
            return array("H", bytes(2 * size))
        block = self.dynamic.cursor.take(place, 2 * size, "the table of symbol versions")
        return integers("H", block, self.dynamic.layout.little_endian)


def _may_be_zero(info: int, section: int) -> bool:
    """Return whether a lookup takes a symbol of value 0: check_match."""
    return section == _SHN_ABS or info & 15 == _TLS


def _provide(
    names: Sequence[str], numbers: Sequence[int], by_number: Mapping[int, tuple[str, str | None]]
) -> tuple[dict[str, tuple[str | None, ...]], frozenset[str]]:
    """Name to versions of the definitions; and the names that only a reference with a version finds."""
    # The versions of a name, by the number of the only one, if it is not hidden.
    ordinary: dict[int, tuple[str | None, ...]] = {0: (None,), 1: (None,)}
    ordinary.update((number, (version,)) for number, (version, _) in by_number.items())
    provides: dict[str, tuple[str | None, ...]]
    used = set(numbers)
    if ordinary.keys() >= used:
        if len(used) == 1:
            provides = dict.fromkeys(names, ordinary[numbers[0]])
        else:
            provides = dict(zip(names, map(ordinary.__getitem__, numbers), strict=True))
        if len(provides) == len(names):  # nearly always
            return provides, frozenset()
    provides = {}
    unusual: dict[str, set[int]] = {}
    for name, number in zip(names, numbers, strict=True):
        versions = ordinary.get(number)
        # One that is hidden, of an unknown version, or not the first of its name.
        if versions is None or provides.setdefault(name, versions) is not versions:
            unusual.setdefault(name, set()).add(number)
    return provides, _add_unusual(provides, unusual, ordinary)


def _add_unusual(
    provides: dict[str, tuple[str | None, ...]],
    unusual: Mapping[str, set[int]],
    ordinary: Mapping[int, tuple[str | None, ...]],
) -> frozenset[str]:
    """Complete the names; those that only a reference with a version finds: check_match in dl-lookup.c."""
    number_of = {versions: number for number, versions in sorted(ordinary.items(), reverse=True)}
    versioned_only = []
    for name, numbers in unusual.items():
        if name in provides:
            numbers.add(number_of[provides[name]])
        order = sorted(numbers, key=_plain_number)
        found = (ordinary.get(_plain_number(number), (None,))[0] for number in order)
        provides[name] = tuple(dict.fromkeys(found))
        defaults = sum(number < _HIDDEN for number in numbers)
        if _plain_number(order[0]) >= _FIRST_NAMED_VERSION and defaults != 1:
            versioned_only.append(name)
    return frozenset(versioned_only)


def _plain_number(number: int) -> int:
    return number & ~_HIDDEN


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
    words = integers("I", block, little)
    if dynamic.layout.bits == 32:
        return {info >> 8 for info in set(words[1 :: entry // 4])}
    return set(words[3 if little else 2 :: entry // 4])
