"""What a PE file exports.

Source: MS Learn "PE Format", section "The .edata Section (Image Only)".
"""

from __future__ import annotations

import struct
import sys
from array import array
from functools import lru_cache
from itertools import compress, repeat
from typing import NamedTuple

from ..errors import BinaryFormatError
from ..model.pe import PeExports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .pe_layout import Layout

EXPORT_TABLE = 0
MAX_EXPORTS = 0x10000
"""The tables are indexed with 16 bits. Names may be more than functions, hardly more than there are indexes."""

_ZERO, _ONE = bytes(4), bytes((1, 0, 0, 0))
_WORD = struct.Struct("<I")
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


def parse_exports(layout: Layout) -> PeExports:
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
    # As linkers lay them out that are not told otherwise; then there are no exports with an ordinal only.
    if count == named and indexes == _count_up(count) and not _may_forward(functions, rva, size):
        return PeExports(tuple(range(base, base + count)), tuple(names))
    return _with_care(layout, _Tables(base, _unpacked("I", functions), _unpacked("H", indexes), names), rva, rva + size)


class _Tables(NamedTuple):
    base: int
    functions: tuple[int, ...]
    indexes: tuple[int, ...]
    names: list[str]


def _with_care(layout: Layout, tables: _Tables, rva: int, end: int) -> PeExports:
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
    """Whether one of the addresses may lie inside of the export table, or be zero; "no" is certain."""
    if _ZERO in functions or functions[3::4].strip(b"\0"):  # the latter: beyond the first 16 MB of an image
        return True
    # Which of its pieces of 64 kB the addresses lie in is soon seen: in few.
    return not set(functions[2::4]).isdisjoint(range(rva >> 16, (rva + size >> 16) + 1))


def _names(layout: Layout, table: bytes) -> list[str]:
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


def _table(layout: Layout, rva: int, size: int) -> bytes:
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
