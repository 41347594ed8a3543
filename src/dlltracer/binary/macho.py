"""Reads Mach-O files (macOS), thin and universal: their needs, their search paths, the system they were built for.

Sources: <mach-o/loader.h> and <mach-o/fat.h> of Apple's cctools; for what dyld refuses, the open source of dyld.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import BinaryFormatError
from ..model.macho import (
    CPU_ARM64,
    MachoFile,
    MachoImage,
    MachoImports,
    MachoNeed,
    MachoSymbols,
    MachoTarget,
    NeedKind,
    SymbolPlace,
)
from .reading import HEAD_SIZE, Cursor, Data, OpenedFile, describe_not_image, is_macho

_FAT, _FAT_64 = 0xCAFEBABE, 0xCAFEBABF
_MAGICS = {
    b"\xce\xfa\xed\xfe": (32, "<"), b"\xcf\xfa\xed\xfe": (64, "<"), b"\xfe\xed\xfa\xce": (32, ">"),
    b"\xfe\xed\xfa\xcf": (64, ">"),
}  # fmt: skip
_FAT_HEAD = struct.Struct(">2I")
_FAT_ENTRIES = {_FAT: struct.Struct(">5I"), _FAT_64: struct.Struct(">2I2Q2I")}
_CAPABILITIES = 0xFF000000
"""Bits of a subtype that are no part of it: CPU_SUBTYPE_MASK."""
_MUST_KNOW = 0x80000000
"""LC_REQ_DYLD: dyld refuses a file that has such a load command, if it does not know it."""

_SEGMENT, _SYMTAB, _DYSYMTAB, _ID_DYLIB, _SEGMENT_64, _UUID, _SIGNATURE = 0x1, 0x2, 0xB, 0xD, 0x19, 0x1B, 0x1D
_DYLD_INFO, _BUILD_VERSION, _RPATH = 0x22, 0x32, 0x1C | _MUST_KNOW
_DYLD_INFO_ONLY, _EXPORTS_TRIE, _CHAINED_FIXUPS = 0x22 | _MUST_KNOW, 0x33 | _MUST_KNOW, 0x34 | _MUST_KNOW
_LINK_EDIT = {_SYMTAB, _DYSYMTAB, _DYLD_INFO, _DYLD_INFO_ONLY, _EXPORTS_TRIE, _CHAINED_FIXUPS}
_NEEDS = {
    0xC: NeedKind.LOAD, 0x18 | _MUST_KNOW: NeedKind.WEAK, 0x1F | _MUST_KNOW: NeedKind.REEXPORT,
    0x23 | _MUST_KNOW: NeedKind.UPWARD, 0x20: NeedKind.LAZY,
}  # fmt: skip
_MINIMUM_VERSIONS = {0x24: 1, 0x25: 2, 0x2F: 3, 0x30: 4}
"""LC_VERSION_MIN_MACOSX and its siblings, to the platform numbers of LC_BUILD_VERSION."""
_KNOWN = {_RPATH, _DYLD_INFO_ONLY, _EXPORTS_TRIE, _CHAINED_FIXUPS, 0x28 | _MUST_KNOW, 0x35 | _MUST_KNOW, *_NEEDS}
"""Those with LC_REQ_DYLD that dyld of macOS 14 knows; 0x28 is LC_MAIN, 0x35 LC_FILESET_ENTRY."""

_LONGEST_NAME = 4096


_SIGNATURE_BLOB, _CODE_DIRECTORY = 0xFADE0CC0, 0xFADE0C02
_BLOB_HEAD, _DIRECTORY = struct.Struct(">3I"), struct.Struct(">9I4B")
_PAGE_BITS = range(12, 17)
_SUMS = {1: "sha1", 2: "sha256", 3: "sha256", 4: "sha384"}
"""CS_HASHTYPE_... of <kern/cs_blobs.h>, whose structures these are; all are big-endian."""


def read_macho(path: str, *, symbols: bool = False, sums: bool = False) -> MachoFile:
    """Read the Mach-O file at `path`, and no more of it than is asked for.

    Args:
        path: the file.
        symbols: also the symbols that it imports and exports.
        sums: compare the pages of images for arm64 with the sums in their code signatures.

    Raises:
        BinaryFormatError: it is no Mach-O file, or a damaged one.
        OSError: it cannot be opened.
    """
    with OpenedFile(path) as data:
        return parse_macho(data, symbols=symbols, sums=sums)


def parse_macho(data: Data, *, symbols: bool = False, sums: bool = False) -> MachoFile:
    """Read a Mach-O file from all its bytes; arguments and errors are those of `read_macho`."""
    cursor = Cursor(data)
    magic = bytes(data[:4])
    if magic in _MAGICS:
        return MachoFile((_Slice(cursor, 0, cursor.size).parse(symbols, sums),), False)
    head = bytes(data[:HEAD_SIZE])
    if is_macho(head) and len(head) >= _FAT_HEAD.size:
        number, count = _FAT_HEAD.unpack_from(head)
        slices = _find_slices(cursor, _FAT_ENTRIES[number], count)
        return MachoFile(tuple(_Slice(cursor, at, size).parse(symbols, sums) for at, size in slices), True)
    what = describe_not_image(head)
    raise BinaryFormatError(0, f"not a Mach-O file: it is {what}" if what else "not a Mach-O file")


def _find_slices(cursor: Cursor, entry: struct.Struct, count: int) -> Iterator[tuple[int, int]]:
    """Yield offset and size of each image of a universal file."""
    if not count:
        raise BinaryFormatError(4, "damaged: a universal file without an image")
    for number in range(count):
        at = _FAT_HEAD.size + number * entry.size
        _, _, offset, size, *_ = cursor.unpack(entry, at, "the table of a universal file")
        if offset + size > cursor.size:
            raise cursor.cut_short(offset, size, f"image {number + 1} of a universal file")
        yield offset, size


class _Slice:
    """The image in one part of a file: its header and its load commands, as they are read."""

    def __init__(self, cursor: Cursor, offset: int, size: int) -> None:
        self._cursor = cursor
        self._offset = offset
        self._size = size
        self._needs: list[MachoNeed] = []
        self._rpaths: list[str] = []
        self._targets: list[MachoTarget] = []
        self._unknown: list[int] = []
        self._install_name: str | None = None
        self._uuid: str | None = None
        self._signature = (0, 0)
        self._link_edit = LinkEdit()

    def parse(self, symbols: bool, sums: bool) -> MachoImage:
        """Return the image."""
        magic = self._cursor.take(self._offset, 4, "the header of an image")
        if magic not in _MAGICS:
            raise BinaryFormatError(self._offset, "damaged: an image of the universal file is not a Mach-O image")
        bits, order = _MAGICS[magic]
        self._order = order
        header = struct.Struct(f"{order}{7 if bits == 64 else 6}I")
        cpu, subtype, kind, count, commands_size, flags, *_ = self._cursor.unpack(
            header, self._offset + 4, "the header"
        )
        self._read_commands(4 + header.size, count, commands_size)
        part = self._cursor.part(self._offset, self._size)
        return MachoImage(
            offset=self._offset,
            size=self._size,
            bits=bits,
            cpu=cpu,
            subtype=subtype & ~_CAPABILITIES,
            kind=kind,
            flags=flags,
            install_name=self._install_name,
            needs=tuple(self._needs),
            rpaths=tuple(self._rpaths),
            targets=tuple(self._targets),
            uuid=self._uuid,
            is_signed=self._signature[1] > 0,
            is_chained=self._link_edit.fixups is not None,
            unknown_commands=tuple(self._unknown),
            symbols=parse_symbols(part, self._link_edit, bits, order) if symbols else None,
            changed_page=self._find_changed_page(part) if sums and cpu == CPU_ARM64 else None,
        )

    def _find_changed_page(self, image: Cursor) -> int | None:
        """Return the first page whose sum is another one than in the code signature; `None` if it cannot be told.

        The first code directory counts: those that may follow have sums of the same pages by other functions.
        """
        try:
            signature = image.part(*self._signature)
            magic, _, count = signature.unpack(_BLOB_HEAD, 0, "the code signature")
            kind, at = signature.unpack(struct.Struct(">2I"), _BLOB_HEAD.size, "the code signature")
            if magic != _SIGNATURE_BLOB or not count or kind != 0:
                return None
            (magic, _, _, _, sums_at, _, _, count, limit, length, method, _, bits) = signature.unpack(
                _DIRECTORY, at, "the code directory"
            )
            pages = -(-limit >> bits) if bits in _PAGE_BITS else 0
            if magic != _CODE_DIRECTORY or method not in _SUMS or not length or pages > count or limit > image.size:
                return None
            sums = signature.take(at + sums_at, pages * length, "the sums of pages")
        except BinaryFormatError:
            return None
        for page in range(pages):
            start = page << bits
            content = image.data[start : min(start + (1 << bits), limit)]
            if hashlib.new(_SUMS[method], content).digest()[:length] != sums[page * length : (page + 1) * length]:
                return page
        return None

    def _read_commands(self, start: int, count: int, size: int) -> None:
        if start + size > self._size:
            raise self._cursor.cut_short(self._offset + start, size, "the load commands")
        commands = self._cursor.take(self._offset + start, size, "the load commands")
        head, at = struct.Struct(f"{self._order}2I"), 0
        for number in range(count):
            if at + head.size > size:
                raise BinaryFormatError(self._offset + start + at, f"damaged: there is no load command {number + 1}")
            command, length = head.unpack_from(commands, at)
            if length < head.size or at + length > size:
                problem = f"damaged: load command {number + 1} has {length} bytes"
                raise BinaryFormatError(self._offset + start + at, problem)
            try:
                self._read_command(command, Cursor(commands[at : at + length]))
            except BinaryFormatError as error:
                raise BinaryFormatError(self._offset + start + at + error.offset, error.problem) from None
            at += length

    def _read_command(self, command: int, body: Cursor) -> None:
        if command in _NEEDS or command == _ID_DYLIB:
            self._read_library(command, body)
        elif command == _RPATH:
            self._rpaths.append(self._text(body, "an LC_RPATH"))
        elif command in (_SEGMENT, _SEGMENT_64):
            self._check_segment(command, body)
        elif command in _MINIMUM_VERSIONS or command == _BUILD_VERSION:
            self._read_target(command, body)
        elif command == _UUID:
            self._uuid = body.take(8, 16, "the UUID").hex()
        elif command == _SIGNATURE:
            offset, size = self._numbers(body, 8, 2, "the place of the code signature")
            self._signature = (offset, size)
        elif command in _LINK_EDIT:
            self._place_tables(command, body)
        elif command & _MUST_KNOW and command not in _KNOWN:
            self._unknown.append(command)

    def _place_tables(self, command: int, body: Cursor) -> None:
        """Note where the tables of symbols are."""
        places = self._link_edit
        if command == _SYMTAB:
            symbols, count, texts, size = self._numbers(body, 8, 4, "the place of the symbol table")
            places.symbols, places.texts = (symbols, count), (texts, size)
        elif command == _DYSYMTAB:
            _, _, _, _, first, count = self._numbers(body, 8, 6, "the parts of the symbol table")
            places.undefined = (first, count)
        elif command == _CHAINED_FIXUPS:
            offset, size = self._numbers(body, 8, 2, "the place of the fixups")
            places.fixups = (offset, size)
        else:
            offset, size = self._numbers(body, 8 if command == _EXPORTS_TRIE else 40, 2, "the place of the exports")
            if size:
                places.exports = (offset, size)

    def _read_library(self, command: int, body: Cursor) -> None:
        _, _, current, compatible = self._numbers(body, 8, 4, "a library")
        name = self._text(body, "the name of a library")
        if command == _ID_DYLIB:
            self._install_name = name
            return
        self._needs.append(
            MachoNeed(
                name=name, kind=_NEEDS[command], current_version=_version(current),
                compatibility_version=_version(compatible),
            )
        )  # fmt: skip

    def _read_target(self, command: int, body: Cursor) -> None:
        if command == _BUILD_VERSION:
            platform, lowest, sdk = self._numbers(body, 8, 3, "the system that it was built for")
        else:
            lowest, sdk = self._numbers(body, 8, 2, "the lowest system that it is for")
            platform = _MINIMUM_VERSIONS[command]
        self._targets.append(MachoTarget(platform, _version(lowest), _version(sdk)))

    def _check_segment(self, command: int, body: Cursor) -> None:
        """Raise for a segment whose content is not all there: dyld refuses such a file."""
        layout = f"{self._order}{'4Q' if command == _SEGMENT_64 else '4I'}"
        _, _, offset, size = body.unpack(struct.Struct(layout), 24, "a segment")
        if size and offset + size > self._size:
            name = body.take(8, 16, "a segment").split(b"\0")[0].decode("utf-8", "replace")
            raise self._cursor.cut_short(self._offset + offset, size, f"segment {name}", self._offset + self._size)

    def _numbers(self, body: Cursor, at: int, count: int, what: str) -> tuple[int, ...]:
        return body.unpack(struct.Struct(f"{self._order}{count}I"), at, what)

    def _text(self, body: Cursor, what: str) -> str:
        """Return the text whose offset in the load command follows the command's head."""
        (at,) = self._numbers(body, 8, 1, what)
        # Its end need not be marked: the command ends there too, and dyld takes it so.
        end = body.data.find(b"\0", at, body.size)
        size = (end if end >= 0 else body.size) - at
        if at < 12 or not 0 <= size <= _LONGEST_NAME:
            raise BinaryFormatError(at, f"damaged: {what} is not in its load command")
        return body.take(at, size, what).decode("utf-8", "surrogateescape")


def _version(packed: int) -> tuple[int, int, int]:
    """Return the three numbers that load commands pack into 32 bits: 16, 8 and 8 of them."""
    return packed >> 16, packed >> 8 & 0xFF, packed & 0xFF


_Place = tuple[int, int]
"""Offset in the image, and size in bytes (or number of entries)."""

_STAB, _PRIVATE, _TYPE, _EXTERNAL = 0xE0, 0x10, 0x0E, 0x01
_WEAK_REFERENCE = 0x40
_SPECIAL = {0: SymbolPlace.SELF, 0xFE: SymbolPlace.FLAT, 0xFF: SymbolPlace.MAIN}
"""SELF_LIBRARY_ORDINAL, DYNAMIC_LOOKUP_ORDINAL and EXECUTABLE_ORDINAL of <mach-o/nlist.h>."""

_FIXUPS_HEADER = "7I"
_REEXPORT = 0x08
_LONGEST_SYMBOL = 0x10000
_USUAL_TEXTS = 8 << 20
"""Bytes of a table of names that is read at once."""
_MOST_NODES = 1_000_000
"""Nodes of an export trie: some ten times those of the largest library in wheels."""
_MOST_TEXT = 100_000_000
"""Bytes of names in an image, ten times those of the largest library in wheels. Names in a damaged or hostile file may
overlap, so that a small file has many long ones."""


@dataclass
class LinkEdit:
    """Places of an image's tables, as its load commands say; `None` for a table that is not there.

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
        self._names: bytes | None = None

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
        if self._names is None:  # in one read: an image needs thousands of them
            is_usual = self._texts_size <= _USUAL_TEXTS and self._texts + self._texts_size <= self._image.size
            self._names = self._image.take(self._texts, self._texts_size, "the names") if is_usual else b""
        stop = self._names.find(b"\0", text, text + _LONGEST_SYMBOL)
        if stop >= 0:
            name = self._names[text:stop]
        else:
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
    waiting, room, length = [(0, b"")], _MOST_TEXT, len(trie)
    while waiting:
        at, name = waiting.pop()
        if at in seen or len(seen) >= _MOST_NODES or len(name) > _LONGEST_SYMBOL:
            raise BinaryFormatError(at, "damaged: the exports lead in a circle, or are too many")
        seen.add(at)
        room = _less(room, name, at)
        # Nearly all numbers have one byte, places two: in a large library the calls would take half the time.
        size, at = (trie[at], at + 1) if at < length and trie[at] < 0x80 else _uleb(trie, at)
        children = at + size
        if size:
            found[_decode(name)] = _reexport_of(trie, at, name)
        if children >= length:
            raise BinaryFormatError(children, "damaged: the exports end within an entry")
        at = children + 1
        for _ in range(trie[children]):
            end = trie.find(b"\0", at)
            if end < 0:
                raise BinaryFormatError(at, "damaged: the exports end within a name")
            part = trie[at:end]
            at = end + 3
            if at <= length and trie[end + 1] >= 0x80 > trie[end + 2]:
                child = trie[end + 1] & 0x7F | trie[end + 2] << 7
            else:
                child, at = _uleb(trie, end + 1)
            waiting.append((child, name + part))
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
