"""Reads the import and export directories of a PE image. Source: "PE Format", MS Learn."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, chain, compress, islice, repeat
from typing import NamedTuple

from ..errors import BinaryFormatError
from ..model.pe import PeExports, PeImport, PeSymbols
from .pe_layout import PeLayout

_Descriptor = tuple[int, int, int, bool, int]


IMPORT_TABLE, DELAY_IMPORT_TABLE = 1, 13
MAX_LIBRARIES = 0x2000
MAX_SYMBOLS = 0x80000
"""Of all libraries together. Large programs import some ten thousand."""

_DESCRIPTORS_AT_ONCE = 32
_LAST_AT_ONCE, _MOST_AT_ONCE = 128, 0x8000
"""Entries of name tables that are read in one: of the last of them, of all."""
_NAME_TABLE = "import name table"

_DESCRIPTOR = struct.Struct("<I8xII")
_DELAY_DESCRIPTOR = struct.Struct("<II4xII12x")


def parse_imports(layout: PeLayout, symbols: bool) -> tuple[PeImport, ...]:
    """Parse both tables, the delayed imports last.

    Args:
        layout: of the file.
        symbols: whether to read the symbols, not only the names of the libraries.

    Raises:
        BinaryFormatError: an address leads nowhere, or there is no end to something.
    """
    descriptors = _plain(layout) + _delayed(layout)
    lists: Sequence[PeSymbols | None] = _symbols(layout, descriptors) if symbols else [None] * len(descriptors)
    width = layout.headers.bits // 8
    nothing = bytes(width)
    found = []
    for (address, name, _, delayed, _), listed in zip(descriptors, lists, strict=True):
        library = layout.name(name, "name of an imported library")
        # Without a first address to fill in, the loader passes over the library (for delayed imports nobody looks).
        unused = not delayed and layout.read(address, width, "import address table") == nothing
        found.append(PeImport(library, listed, delayed, unused))
    return tuple(found)


def _plain(layout: PeLayout) -> list[_Descriptor]:
    found: list[_Descriptor] = []
    # The loader does not look at the size of the table.
    for names, name, addresses in _entries(layout, IMPORT_TABLE, _DESCRIPTOR, "import table"):
        if not name or not addresses:
            break
        found.append((addresses, name, names or addresses, False, 0))
    return found


def _delayed(layout: PeLayout) -> list[_Descriptor]:
    found: list[_Descriptor] = []
    for attributes, *fields in _entries(layout, DELAY_IMPORT_TABLE, _DELAY_DESCRIPTOR, "delay-load table"):
        if not fields[0]:
            break
        # Attribute bit 0 (dlattrRva): addresses are relative to the image. Without it, all of them are absolute.
        base = 0 if attributes & 1 else layout.headers.image_base
        name, addresses, names = ((field - base) & 0xFFFFFFFF for field in fields)
        found.append((addresses, name, names, True, base))
    return found


def _entries(layout: PeLayout, directory: int, entry: struct.Struct, what: str) -> Iterator[tuple[int, ...]]:
    """The entries of a table that an empty one ends, which it is for the caller to see."""
    rva, _ = layout.headers.directory(directory)
    read = 0
    while rva:
        if read > MAX_LIBRARIES:
            raise BinaryFormatError(layout.offset(rva, what), f"more than {MAX_LIBRARIES} imported libraries")
        count = max(1, min(layout.room(rva, what) // entry.size, _DESCRIPTORS_AT_ONCE))
        yield from entry.iter_unpack(layout.read(rva, count * entry.size, what))
        read += count
        rva += count * entry.size


def _symbols(layout: PeLayout, descriptors: Sequence[_Descriptor]) -> list[PeSymbols]:
    """Return the symbols imported from each library."""
    tables = _thunks(layout, [names for _, _, names, _, _ in descriptors])
    flag = 1 << (layout.headers.bits - 1)
    for number, (_, _, _, _, base) in enumerate(descriptors):
        if base:
            tables[number] = tuple(thunk if thunk & flag else thunk - base for thunk in tables[number])
    thunks = list(chain.from_iterable(tables))
    what = "name of an imported symbol"
    # Two bytes of hint precede a name. The names of all libraries lie together.
    if not thunks or max(thunks) < flag:
        names = tuple(layout.names(thunks, what, 2))
        ends = accumulate(map(len, tables))
        return [PeSymbols(names[end - len(table) : end]) for table, end in zip(tables, ends, strict=True)]
    rest = iter(layout.names([thunk for thunk in thunks if thunk < flag], what, 2))
    return [_named_or_numbered(table, rest, flag) for table in tables]


def _named_or_numbered(table: tuple[int, ...], names: Iterator[str], flag: int) -> PeSymbols:
    """The symbols of a table, of which the highest bit says that there is an ordinal instead of the next name."""
    if not table or max(table) < flag:
        return PeSymbols(tuple(islice(names, len(table))))
    ordinals = tuple([None if thunk < flag else thunk & 0xFFFF for thunk in table])
    return PeSymbols(tuple([next(names) if number is None else None for number in ordinals]), ordinals)


def _thunks(layout: PeLayout, addresses: Sequence[int]) -> list[tuple[int, ...]]:
    """The entries of each of the name tables, up to the zero that ends it."""
    first, near = _close_thunks(layout, addresses)
    width = layout.headers.bits // 8
    left = MAX_SYMBOLS
    tables = []
    for rva in addresses:
        try:
            at = (rva - first) // width
            found = near[at : near.index(0, at)] if (rva - first) % width == 0 else None
        except ValueError:  # it lies elsewhere, or goes on behind what was read
            found = None
        if found is None:
            found = _far_thunks(layout, rva, left)
        left -= len(found)
        if left < 0:
            raise BinaryFormatError(layout.offset(rva, _NAME_TABLE), f"more than {MAX_SYMBOLS} imported symbols")
        tables.append(found)
    return tables


def _close_thunks(layout: PeLayout, addresses: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """The first address of all, and what is there: linkers lay the tables one behind the other."""
    if not addresses:
        return 0, ()
    low, width = min(addresses), layout.headers.bits // 8
    wanted = (max(addresses) - low) // width + _LAST_AT_ONCE
    count = min(wanted, layout.room(low, _NAME_TABLE) // width)
    if wanted > _MOST_AT_ONCE:
        return low, ()
    return low, _read_thunks(layout, low, count)


def _read_thunks(layout: PeLayout, rva: int, count: int) -> tuple[int, ...]:
    width = layout.headers.bits // 8
    return struct.unpack(f"<{count}{'Q' if width == 8 else 'I'}", layout.read(rva, count * width, _NAME_TABLE))


def _far_thunks(layout: PeLayout, rva: int, most: int) -> tuple[int, ...]:
    width = layout.headers.bits // 8
    found: list[int] = []
    count = 16
    while True:
        count = min(2 * count, layout.room(rva, _NAME_TABLE) // width)
        if not count:
            raise BinaryFormatError(layout.offset(rva, _NAME_TABLE), f"an {_NAME_TABLE} has no end")
        values = _read_thunks(layout, rva, count)
        if 0 in values:
            return (*found, *values[: values.index(0)])
        found += values
        if len(found) > most:
            raise BinaryFormatError(layout.offset(rva, _NAME_TABLE), f"more than {MAX_SYMBOLS} imported symbols")
        rva += count * width


EXPORT_TABLE = 0
MAX_EXPORTS = 0x10000
"""The tables are indexed with 16 bits. Names may be more than functions, hardly more than there are indexes."""

_ZERO, _ONE = bytes(4), bytes((1, 0, 0, 0))
_WORD = struct.Struct("<I")
_DIRECTORY = struct.Struct("<12xIIIIIII")


def parse_export_name(layout: PeLayout) -> str | None:
    """The name that the export table gives the file; `None` without a table, or if it has no readable name.

    Never raises: the loader does not look at that name.
    """
    rva, _ = layout.headers.directory(EXPORT_TABLE)
    if not rva:
        return None
    try:
        name = layout.unpack(_DIRECTORY, rva, "export table")[0]
        return layout.name(name, "name in the export table") if name else None
    except BinaryFormatError:
        return None


def parse_exports(layout: PeLayout) -> PeExports:
    """Parse the exports: those with a name in the order of the table, then those with an ordinal only.

    Raises:
        BinaryFormatError: a table or a name lies nowhere or has no end.
    """
    rva, size = layout.headers.directory(EXPORT_TABLE)
    if not rva:
        return PeExports((), ())
    _, base, count, named, functions_at, names_at, indexes_at = layout.unpack(_DIRECTORY, rva, "export table")
    if count > MAX_EXPORTS or named > MAX_EXPORTS:
        offset = layout.offset(rva, "export table")
        raise BinaryFormatError(offset, f"more than {MAX_EXPORTS} exports ({count} addresses, {named} names)")
    functions = _table(layout, functions_at, 4 * count)
    indexes = _table(layout, indexes_at, 2 * named)
    names = _names(layout, _table(layout, names_at, 4 * named))
    # The default layout of linkers; then there are no exports with an ordinal only.
    if count == named and indexes == _count_up(count) and not _may_forward(functions, rva, size):
        return PeExports(tuple(range(base, base + count)), tuple(names))
    return _with_care(layout, _Tables(base, _unpacked("I", functions), _unpacked("H", indexes), names), rva, rva + size)


class _Tables(NamedTuple):
    base: int
    functions: tuple[int, ...]
    indexes: tuple[int, ...]
    names: list[str]


def _with_care(layout: PeLayout, tables: _Tables, rva: int, end: int) -> PeExports:
    """The exports of tables that may say anything."""
    base, functions, indexes, names = tables
    count = len(functions)
    # An address inside the export table itself is not code: it is the text that says where the symbol is.
    inside = [index for index, address in enumerate(functions) if rva <= address < end]
    texts = layout.names([functions[index] for index in inside], "forwarder")
    # An index beyond the addresses, or an address of zero: GetProcAddress does not find such a name.
    kept = [index < count and functions[index] != 0 for index in indexes]
    unnamed = [index for index in sorted(set(range(count)).difference(indexes)) if functions[index]]
    found = (*compress(indexes, kept), *unnamed)
    return PeExports(
        tuple([base + index for index in found]),
        (*compress(names, kept), *repeat(None, len(unnamed))),
        tuple(map(dict(zip(inside, texts, strict=True)).get, found)) if inside else (),
    )


def _may_forward(functions: bytes, rva: int, size: int) -> bool:
    """Return whether one of the addresses may lie inside of the export table, or be zero; "no" is certain."""
    if _ZERO in functions or functions[3::4].strip(b"\0"):  # the latter: beyond the first 16 MB of an image
        return True
    # Which of its pieces of 64 kB the addresses lie in is soon seen: in few.
    return not set(functions[2::4]).isdisjoint(range(rva >> 16, (rva + size >> 16) + 1))


def _names(layout: PeLayout, table: bytes) -> list[str]:
    """The names that a table of addresses leads to."""
    what = "name of an export"
    count = len(table) // 4
    if not count:
        return []
    (low,), (high,) = _WORD.unpack_from(table), _WORD.unpack_from(table, 4 * count - 4)
    text = layout.text(low, high, count, what)
    names = text.split("\0", count)
    # Nearly always the names lie one behind the other, in the order of the table: then there is no need to look for
    # the end of each. Each address is the one before it, a length and a NUL: added up as long numbers, of which the
    # addresses are the digits. (No digit overflows: as long as they agree, they are addresses within the text.)
    if not names.pop() and len(names) == count:
        lengths = _as_one(_packed("I", map(len, names[:-1]))) + _as_one(_ONE * (count - 1))
        if _as_one(table[:-4]) + lengths == _as_one(table[4:]):
            return layout.take(names, text, low)
    return layout.names(_unpacked("I", table), what)


def _table(layout: PeLayout, rva: int, size: int) -> bytes:
    return layout.read(rva, size, "export table") if size else b""


def _unpacked(letter: str, table: bytes) -> tuple[int, ...]:
    numbers = array(letter, table)
    if sys.byteorder == "big":
        numbers.byteswap()
    return tuple(numbers)


def _packed(letter: str, values: Iterable[int]) -> bytes:
    numbers = array(letter, values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _count_up(count: int) -> bytes:
    """A table of 0, 1, 2 and so on."""
    return _rounded_up(min(1 << count.bit_length(), MAX_EXPORTS))[: 2 * count]


@lru_cache(32)
def _rounded_up(count: int) -> bytes:
    return struct.pack(f"<{count}H", *range(count))


def _as_one(table: bytes) -> int:
    """A table of addresses as one number, of which each address is a digit."""
    return int.from_bytes(table, "little")
