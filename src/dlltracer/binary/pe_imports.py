"""What a PE file imports, from the import table and from the delay-load table.

Source: MS Learn "PE Format", sections "The .idata Section" and "Delay-Load Import Tables"; for the old form of the
latter delayimp.h of Visual C++ 6.
"""

from __future__ import annotations

import struct
from itertools import accumulate, chain, islice

from ..errors import BinaryFormatError
from ..model.pe import PeImport, PeSymbols

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .pe_layout import Layout

    # Addresses of the address table, the name and the name table; delayed or not; what thunks are relative to.
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


def parse_imports(layout: Layout, symbols: bool) -> tuple[PeImport, ...]:
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


def _plain(layout: Layout) -> list[_Descriptor]:
    found: list[_Descriptor] = []
    # The loader does not look at the size of the table.
    for names, name, addresses in _entries(layout, IMPORT_TABLE, _DESCRIPTOR, "import table"):
        if not name or not addresses:
            break
        found.append((addresses, name, names or addresses, False, 0))
    return found


def _delayed(layout: Layout) -> list[_Descriptor]:
    found: list[_Descriptor] = []
    for attributes, *fields in _entries(layout, DELAY_IMPORT_TABLE, _DELAY_DESCRIPTOR, "delay-load table"):
        if not fields[0]:
            break
        # Attribute bit 0 (dlattrRva): addresses are relative to the image. Without it, all of them are absolute.
        base = 0 if attributes & 1 else layout.headers.image_base
        name, addresses, names = ((field - base) & 0xFFFFFFFF for field in fields)
        found.append((addresses, name, names, True, base))
    return found


def _entries(layout: Layout, directory: int, entry: struct.Struct, what: str) -> Iterator[tuple[int, ...]]:
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


def _symbols(layout: Layout, descriptors: Sequence[_Descriptor]) -> list[PeSymbols]:
    """What is imported from each library."""
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


def _thunks(layout: Layout, addresses: Sequence[int]) -> list[tuple[int, ...]]:
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


def _close_thunks(layout: Layout, addresses: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """The first address of all, and what is there: linkers lay the tables one behind the other."""
    if not addresses:
        return 0, ()
    low, width = min(addresses), layout.headers.bits // 8
    wanted = (max(addresses) - low) // width + _LAST_AT_ONCE
    count = min(wanted, layout.room(low, _NAME_TABLE) // width)
    if wanted > _MOST_AT_ONCE:
        return low, ()
    return low, _read_thunks(layout, low, count)


def _read_thunks(layout: Layout, rva: int, count: int) -> tuple[int, ...]:
    width = layout.headers.bits // 8
    return struct.unpack(f"<{count}{'Q' if width == 8 else 'I'}", layout.read(rva, count * width, _NAME_TABLE))


def _far_thunks(layout: Layout, rva: int, most: int) -> tuple[int, ...]:
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
