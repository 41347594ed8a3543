"""What a PE file imports, from the import table and from the delay-load table.

Source: MS Learn "PE Format", sections "The .idata Section" and "Delay-Load Import Tables"; for the old form of the
latter delayimp.h of Visual C++ 6.
"""

from __future__ import annotations

import struct

from ..errors import BinaryFormatError
from ..model.pe import PeImport, PeSymbol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .pe_layout import Layout

    # Addresses of the address table, the name and the name table; delayed or not; what thunks are relative to.
    _Descriptor = tuple[int, int, int, bool, int]

IMPORT_TABLE, DELAY_IMPORT_TABLE = 1, 13
MAX_LIBRARIES = 0x2000
MAX_SYMBOLS = 0x80000
"""Of all libraries together. Large programs import some ten thousand."""

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
    found: list[PeImport] = []
    left = MAX_SYMBOLS
    for address, name, thunks, delayed, base in (*_plain(layout), *_delayed(layout)):
        library = layout.name(name, "name of an imported library")
        listed = None
        if symbols:
            listed = _symbols(layout, thunks, left, base)
            left -= len(listed)
        # Without a first address to fill in, the loader passes over the library (for delayed imports nobody looks).
        unused = not delayed and not _first_thunk(layout, address)
        found.append(PeImport(library, listed, delayed, unused))
    return tuple(found)


def _plain(layout: Layout) -> list[_Descriptor]:
    rva, _ = layout.headers.directory(IMPORT_TABLE)  # the loader does not look at the size of the table
    found: list[_Descriptor] = []
    while rva:
        names, name, addresses = layout.unpack(_DESCRIPTOR, rva, "import table")
        if not name or not addresses:
            break
        found.append((addresses, name, names or addresses, False, 0))
        _limit(layout, rva, found)
        rva += 20
    return found


def _delayed(layout: Layout) -> list[_Descriptor]:
    rva, _ = layout.headers.directory(DELAY_IMPORT_TABLE)
    found: list[_Descriptor] = []
    while rva:
        attributes, name, addresses, names = layout.unpack(_DELAY_DESCRIPTOR, rva, "delay-load table")
        if not name:
            break
        # Attribute bit 0 (dlattrRva): addresses are relative to the image. Without it, all of them are absolute.
        base = 0 if attributes & 1 else layout.headers.image_base
        addresses, name, names = ((field - base) & 0xFFFFFFFF for field in (addresses, name, names))
        found.append((addresses, name, names, True, base))
        _limit(layout, rva, found)
        rva += 32
    return found


def _limit(layout: Layout, rva: int, found: list[_Descriptor]) -> None:
    if len(found) > MAX_LIBRARIES:
        raise BinaryFormatError(layout.offset(rva, "import table"), f"more than {MAX_LIBRARIES} imported libraries")


def _first_thunk(layout: Layout, rva: int) -> int:
    return int.from_bytes(layout.read(rva, layout.headers.bits // 8, "import address table"), "little")


def _symbols(layout: Layout, rva: int, most: int, base: int) -> tuple[PeSymbol, ...]:
    thunks = _thunks(layout, rva, most)
    flag = 1 << (layout.headers.bits - 1)
    # Two bytes of hint precede a name.
    names = layout.names([thunk + 2 - base for thunk in thunks if thunk < flag], "name of an imported symbol")
    if len(names) == len(thunks):
        return tuple(map(PeSymbol, names))
    rest = iter(names)
    return tuple(PeSymbol(next(rest)) if thunk < flag else PeSymbol(None, thunk & 0xFFFF) for thunk in thunks)


def _thunks(layout: Layout, rva: int, most: int) -> list[int]:
    """The entries of a name table, up to the zero that ends it."""
    what = "import name table"
    width = layout.headers.bits // 8
    letter = "Q" if width == 8 else "I"
    found: list[int] = []
    count = 16
    while True:
        end = layout.region(rva, what)[1]
        count = min(2 * count, (end - rva) // width)
        if not count:
            raise BinaryFormatError(layout.offset(rva, what), f"an {what} has no end")
        values = struct.unpack(f"<{count}{letter}", layout.read(rva, count * width, what))
        if 0 in values:
            return found + list(values[: values.index(0)])
        found += values
        if len(found) > most:
            raise BinaryFormatError(layout.offset(rva, what), f"more than {MAX_SYMBOLS} imported symbols")
        rva += count * width
