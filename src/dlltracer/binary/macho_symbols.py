"""The symbols of a Mach-O image: what it imports from which library, and what it exports.

Imports come from the symbol table (<mach-o/nlist.h>), whose undefined entries carry the number of their library in both
kinds of files, and from the chained fixups (<mach-o/fixup-chains.h>) where a file has these: strip(1) can take the
former away. Exports come from the export trie, as dyld reads it (<mach-o/loader.h>, EXPORT_SYMBOL_FLAGS), or from the
symbol table of a file that has no trie.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..errors import BinaryFormatError
from ..model.macho import MachoImports, MachoSymbols, SymbolPlace
from .reading import Cursor

_Place = tuple[int, int]
"""Offset in the image, and size in bytes (or number of entries)."""

_STAB, _PRIVATE, _TYPE, _EXTERNAL = 0xE0, 0x10, 0x0E, 0x01
_WEAK_REFERENCE = 0x40
_SPECIAL = {0: SymbolPlace.SELF, 0xFE: SymbolPlace.FLAT, 0xFF: SymbolPlace.MAIN}
"""SELF_LIBRARY_ORDINAL, DYNAMIC_LOOKUP_ORDINAL and EXECUTABLE_ORDINAL of <mach-o/nlist.h>."""

_FIXUPS_HEADER = "7I"
_REEXPORT = 0x08
_LONGEST_SYMBOL = 0x10000
_MOST_NODES = 1_000_000
"""Nodes of an export trie: some ten times those of the largest library in wheels."""
_MOST_TEXT = 100_000_000
"""Bytes of names in an image, ten times those of the largest library in wheels. Names in a damaged or hostile file may
overlap, so that a small file has many long ones."""


@dataclass
class LinkEdit:
    """Where the tables of an image are, as its load commands say; `None` for one that is not there.

    `symbols` and `undefined` count entries: the table's offset and length, and the first and the number of those that
    are undefined. The others count bytes.
    """

    symbols: _Place | None = None
    texts: _Place | None = None
    undefined: _Place | None = None
    exports: _Place | None = None
    fixups: _Place | None = None


def parse_symbols(image: Cursor, link_edit: LinkEdit, bits: int, order: str) -> MachoSymbols:
    """Return what an image imports and exports.

    Args:
        image: the bytes of the image.
        link_edit: the places of its tables.
        bits: 32 or 64.
        order: the byte order, as `struct` writes it.

    Raises `BinaryFormatError` for damage.
    """
    table = _MachoTable(image, link_edit, bits, order)
    imports = table.imports()
    if link_edit.fixups is not None:
        for name, ordinal, weak in _chained_imports(image, link_edit.fixups, order):
            imports.setdefault((name, ordinal), weak)
    if link_edit.exports is not None and link_edit.exports[1]:
        exports = _parse_trie(image.take(*link_edit.exports, "the exports"))
    else:
        exports = dict.fromkeys(table.defined())
    names, ordinals = zip(*imports, strict=True) if imports else ((), ())
    return MachoSymbols(MachoImports(names, ordinals, tuple(imports.values())), exports)


class _MachoTable:
    """The symbol table of an image."""

    def __init__(self, image: Cursor, link_edit: LinkEdit, bits: int, order: str) -> None:
        self._image = image
        self._entry = struct.Struct(f"{order}I2BH{'Q' if bits == 64 else 'I'}")
        self._start, self._count = link_edit.symbols or (0, 0)
        self._texts, self._texts_size = link_edit.texts or (0, 0)
        self._undefined = link_edit.undefined
        self._room = _MOST_TEXT

    def imports(self) -> dict[tuple[str, int], bool]:
        """Return name and ordinal of each undefined symbol, and whether it is weak."""
        found: dict[tuple[str, int], bool] = {}
        first, count = self._undefined if self._undefined is not None else (0, self._count)
        for text, kind, description in self._entries(first, count):
            if kind & _STAB or kind & _TYPE or not kind & _EXTERNAL:
                continue
            ordinal = description >> 8
            found[self._name(text), int(_SPECIAL.get(ordinal, ordinal))] = bool(description & _WEAK_REFERENCE)
        return found

    def defined(self) -> list[str]:
        """Return the names that other images can see."""
        return [
            self._name(text) for text, kind, _ in self._entries(0, self._count)
            if not kind & (_STAB | _PRIVATE) and kind & _TYPE and kind & _EXTERNAL
        ]  # fmt: skip

    def _entries(self, first: int, count: int) -> list[tuple[int, int, int]]:
        """Return the place of the name, the type and the description of each entry from `first` on."""
        if first + count > self._count:
            problem = f"damaged: undefined symbols to {first + count} in a symbol table of {self._count}"
            raise BinaryFormatError(self._start, problem)
        size = self._entry.size
        table = self._image.take(self._start + first * size, count * size, "the symbol table")
        return [(text, kind, description) for text, kind, _, description, _ in self._entry.iter_unpack(table)]

    def _name(self, text: int) -> str:
        if text >= self._texts_size:
            raise BinaryFormatError(self._texts + text, "damaged: the name of a symbol is not in the table of names")
        end = self._texts + self._texts_size
        name = self._image.text(self._texts + text, "the name of a symbol", limit=_LONGEST_SYMBOL, end=end)
        self._room = _less(self._room, name, self._texts + text)
        return _decode(name)


def _less(room: int, name: bytes, at: int) -> int:
    """Return the room that is left for names after this one; raises `BinaryFormatError` when there is none."""
    if len(name) > room:
        raise BinaryFormatError(at, "damaged: the names of the symbols are longer than any real file's")
    return room - len(name)


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _chained_imports(image: Cursor, place: _Place, order: str) -> list[tuple[str, int, bool]]:
    """Return name, ordinal and weakness of each import of chained fixups."""
    part = image.part(place[0], place[1])
    header = struct.Struct(order + _FIXUPS_HEADER)
    _, _, imports, texts, count, layout, packing = part.unpack(header, 0, "the chained fixups")
    if layout not in (1, 2, 3) or packing:
        raise BinaryFormatError(place[0], f"unknown layout {layout} of chained imports, or packed names ({packing})")
    # Formats 1 and 2 pack ordinal, weakness and the place of the name in 32 bits, 3 in 64. 2 and 3 have an addend.
    entry = struct.Struct(order + {1: "I", 2: "I4x", 3: "Q8x"}[layout])
    if imports + count * entry.size > part.size:
        raise part.cut_short(imports, count * entry.size, "the chained imports")
    found = []
    room = _MOST_TEXT
    ordinal_bits, name_at = (16, 32) if layout == 3 else (8, 9)
    for (packed,) in entry.iter_unpack(part.take(imports, count * entry.size, "the chained imports")):
        ordinal = packed & (1 << ordinal_bits) - 1
        if ordinal > (1 << ordinal_bits) - 16:  # the last fifteen are negative numbers: places that are no library
            ordinal -= 1 << ordinal_bits
        name = part.text(texts + (packed >> name_at), "the name of an import", limit=_LONGEST_SYMBOL)
        room = _less(room, name, texts)
        found.append((_decode(name), ordinal, bool(packed >> ordinal_bits & 1)))
    return found


def _parse_trie(trie: bytes) -> dict[str, tuple[int, str] | None]:
    """Return the names of an export trie; of one that another library has, the number of that need and the name there.

    A node is visited once for each name that leads to it. In a sound trie that is once; a damaged one that has loops
    would be walked for ever, and one whose branches meet again would have more names than bytes.
    """
    found: dict[str, tuple[int, str] | None] = {}
    seen: set[int] = set()
    waiting, room = [(0, b"")], _MOST_TEXT
    while waiting:
        at, name = waiting.pop()
        if at in seen or len(seen) >= _MOST_NODES or len(name) > _LONGEST_SYMBOL:
            raise BinaryFormatError(at, "damaged: the exports lead in a circle, or are too many")
        seen.add(at)
        room = _less(room, name, at)
        size, at = _uleb(trie, at)
        children = at + size
        if size:
            found[_decode(name)] = _reexport_of(trie, at, name)
        if children >= len(trie):
            raise BinaryFormatError(children, "damaged: the exports end within an entry")
        at = children + 1
        for _ in range(trie[children]):
            end = trie.find(b"\0", at)
            if end < 0:
                raise BinaryFormatError(at, "damaged: the exports end within a name")
            child, after = _uleb(trie, end + 1)
            waiting.append((child, name + trie[at:end]))
            at = after
    return found


def _reexport_of(trie: bytes, at: int, name: bytes) -> tuple[int, str] | None:
    flags, at = _uleb(trie, at)
    if not flags & _REEXPORT:
        return None
    ordinal, at = _uleb(trie, at)
    end = trie.find(b"\0", at)
    if end < 0:
        raise BinaryFormatError(at, "damaged: the exports end within a name")
    return ordinal, _decode(trie[at:end] or name)


def _uleb(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of variable length, and where it ends."""
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise BinaryFormatError(at, "damaged: a number in the exports has no end")
