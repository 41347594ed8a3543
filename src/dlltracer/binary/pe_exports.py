"""What a PE file exports.

Source: MS Learn "PE Format", section "The .edata Section (Image Only)".
"""

from __future__ import annotations

import struct

from ..errors import BinaryFormatError
from ..model.pe import PeExport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .pe_layout import Layout

EXPORT_TABLE = 0
MAX_EXPORTS = 0x10000
"""The tables are indexed with 16 bits. Names may be more than functions, hardly more than there are indexes."""

_DIRECTORY = struct.Struct("<12xIIIIIII")


def parse_export_name(layout: Layout) -> str | None:
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


def parse_exports(layout: Layout) -> tuple[PeExport, ...]:
    """Parse the exports: those with a name in the order of the table, then those with an ordinal only.

    Raises:
        BinaryFormatError: a table or a name lies nowhere or has no end.
    """
    rva, size = layout.headers.directory(EXPORT_TABLE)
    if not rva:
        return ()
    _, base, count, named, functions_at, names_at, indexes_at = layout.unpack(_DIRECTORY, rva, "export table")
    if count > MAX_EXPORTS or named > MAX_EXPORTS:
        offset = layout.offset(rva, "export table")
        raise BinaryFormatError(offset, f"more than {MAX_EXPORTS} exports ({count} addresses, {named} names)")
    functions = _table(layout, "I", functions_at, count)
    indexes = _table(layout, "H", indexes_at, named)
    names = layout.names(_table(layout, "I", names_at, named), "name of an export")
    end = rva + size
    # An address inside the export table itself is not code: it is the text that says where the symbol is.
    inside = [index for index, address in enumerate(functions) if rva <= address < end]
    texts = layout.names([functions[index] for index in inside], "forwarder")
    forwarder = dict(zip(inside, texts, strict=True)).get
    # An index beyond the addresses, or an address of zero: GetProcAddress does not find such a name.
    found = [
        PeExport(base + index, name, forwarder(index))
        for index, name in zip(indexes, names, strict=True)
        if index < count and functions[index]
    ]
    unnamed = set(range(count)).difference(indexes)
    found += [PeExport(base + index, None, forwarder(index)) for index in sorted(unnamed) if functions[index]]
    return tuple(found)


def _table(layout: Layout, letter: str, rva: int, count: int) -> tuple[int, ...]:
    if not count:
        return ()
    table = struct.Struct(f"<{count}{letter}")
    return layout.unpack(table, rva, "export table")
