"""Build small Mach-O files: `build_macho(needs=["/usr/lib/libSystem.B.dylib"], imports=[("_puts", 1)])` is a bundle.

Header and load commands come first; a segment __LINKEDIT behind them holds the tables, in the order in which they are
named in `_Tables`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

X86_64, ARM64, I386, ARM64_32 = 0x01000007, 0x0100000C, 7, 0x0200000C
EXECUTE, DYLIB, BUNDLE = 2, 6, 8
LOAD, WEAK, REEXPORT, UPWARD, LAZY = 0xC, 0x80000018, 0x8000001F, 0x80000023, 0x20
MUST_KNOW = 0x80000000
MACOS, SIMULATOR = 1, 7

Import = tuple[str, int] | tuple[str, int, bool]
"""Name, ordinal, and whether it is weak. Ordinals that are no library are negative, as in chained fixups."""


def version(first: int, second: int = 0, third: int = 0) -> int:
    """Pack a version as load commands do."""
    return first << 16 | second << 8 | third


def build_macho(
    needs: Sequence[str | tuple[str, int]] = (),
    imports: Sequence[Import] = (),
    exports: Mapping[str, tuple[int, str] | None] | None = None,
    *,
    cpu: int = ARM64,
    subtype: int = 0,
    kind: int = BUNDLE,
    order: str = "<",
    install_name: str | None = None,
    rpaths: Sequence[str] = (),
    targets: Sequence[tuple[int, int, int]] = ((MACOS, version(11), version(13, 3)),),
    minimum: tuple[int, int, int] | None = None,
    uuid: bytes | None = b"U" * 16,
    signature: int = 0,
    chained: int = 0,
    in_table: bool = True,
    with_trie: bool = True,
    more: Sequence[tuple[int, bytes]] = (),
) -> bytes:
    """Build a thin file.

    Args:
        needs: install names; with another load command than LC_LOAD_DYLIB, name and command.
        imports: undefined symbols.
        exports: name to what another library has it as (ordinal and name there), or `None`.
        minimum: an old LC_VERSION_MIN_...: command, version, SDK; comes instead of `targets`.
        signature: bytes of a code signature.
        chained: format of the imports in chained fixups (1 to 3); 0 for no such fixups.
        in_table: whether undefined symbols are in the symbol table, too.
        with_trie: whether there is an export trie; without, exports are in the symbol table.
        more: further load commands and their bodies.
    """
    wide = bool(cpu & 0x01000000)
    table = _Tables(order, wide)
    commands = [_library(order, 0xD, install_name)] if install_name is not None else []
    for need in needs:
        name, command = (need, LOAD) if isinstance(need, str) else need
        commands.append(_library(order, command, name))
    commands += [_command(order, 0x1C | MUST_KNOW, struct.pack(order + "I", 12) + _padded(path)) for path in rpaths]
    if minimum is not None:
        commands.append(_command(order, minimum[0], struct.pack(order + "2I", *minimum[1:])))
    else:
        commands += [_command(order, 0x32, struct.pack(order + "4I", *target, 0)) for target in targets]
    if uuid is not None:
        commands.append(_command(order, 0x1B, uuid))
    commands += [_command(order, number, body) for number, body in more]
    exported = {} if exports is None or with_trie else exports
    places = [
        table.add("symbols", *table.symbols(list(exported), imports if in_table else ())),
        table.add("trie", _trie(exports or {}) if with_trie and exports else b""),
        table.add("fixups", _chained(order, chained, imports) if chained else b""),
        table.add("signature", b"\0" * signature),
    ]
    sizes = sum(map(len, commands)) + (72 if wide else 56) + 24 + 80 + (16 if chained else 0) + 16 * bool(signature)
    sizes += 16 if with_trie and exports else 0
    start = (32 if wide else 28) + sizes
    data = table.data
    segment = struct.pack(order + ("4Q" if wide else "4I"), start, len(data), start, len(data))
    segment = b"__LINKEDIT".ljust(16, b"\0") + segment + struct.pack(order + "4I", 1, 1, 0, 0)
    commands.append(_command(order, 0x19 if wide else 0x1, segment))
    symbols, trie, fixups, signed = ((start + at, size) for at, size in places)
    count, names_at = table.count, table.names_at
    commands.append(
        _command(order, 0x2, struct.pack(order + "4I", symbols[0], count, symbols[0] + names_at, symbols[1] - names_at))
    )
    defined = len(exported)
    commands.append(
        _command(order, 0xB, struct.pack(order + "18I", 0, 0, 0, defined, defined, count - defined, *[0] * 12))
    )
    for number, place in ((0x33 | MUST_KNOW, trie), (0x34 | MUST_KNOW, fixups), (0x1D, signed)):
        if place[1]:
            commands.append(_command(order, number, struct.pack(order + "2I", *place)))
    body = b"".join(commands)
    assert len(body) == sizes, (len(body), sizes)
    magic = 0xFEEDFACF if wide else 0xFEEDFACE
    header = struct.pack(order + "7I", magic, cpu, subtype, kind, len(commands), len(body), 0x85)
    return header + (b"\0" * 4 if wide else b"") + body + data


def sign(image: bytes, size: int = 4096, *, method: int = 2, page_bits: int = 12) -> bytes:
    """Put an ad hoc signature into a thin image that was built with `signature=size`: the sums of its pages."""
    limit = len(image) - size
    pages = [image[at : min(at + (1 << page_bits), limit)] for at in range(0, limit, 1 << page_bits)]
    sums = b"".join(hashlib.new({1: "sha1", 2: "sha256"}[method], page).digest() for page in pages)
    length = len(sums) // len(pages)
    fields = (0xFADE0C02, 44 + len(sums), 0x20400, 2, 44, 44, 0, len(pages), limit, length, method, 0, page_bits)
    directory = struct.pack(">9I4B", *fields).ljust(44, b"\0") + sums
    blob = struct.pack(">5I", 0xFADE0CC0, 20 + len(directory), 1, 0, 20) + directory
    assert len(blob) <= size
    return image[:limit] + blob.ljust(size, b"\0")


def build_fat(images: Sequence[bytes], *, wide: bool = False) -> bytes:
    """Build a universal file of thin little-endian ones; `wide` for the table with 64-bit offsets."""
    at = 8 + len(images) * (32 if wide else 20)
    head = struct.pack(">2I", 0xCAFEBABF if wide else 0xCAFEBABE, len(images))
    body = b""
    for image in images:
        cpu, subtype = struct.unpack_from("<2I", image, 4)
        place = struct.pack(">2I2Q2I" if wide else ">5I", cpu, subtype, at, len(image), 4, *([0] if wide else []))
        head += place
        body += image
        at += len(image)
    return head + body


class _Tables:
    """The bytes of __LINKEDIT as they grow."""

    def __init__(self, order: str, wide: bool) -> None:
        self._order = order
        self._entry = order + ("I2BHQ" if wide else "I2BHI")
        self.data = b""
        self.count = self.names_at = 0

    def add(self, name: str, content: bytes) -> tuple[int, int]:
        del name  # for the reader of a call
        at = len(self.data)
        self.data += content + b"\0" * (-len(content) % 8)
        return at, len(content)

    def symbols(self, exports: Sequence[str], imports: Sequence[Import]) -> tuple[bytes]:
        names, entries = b"\0", b""
        for name in exports:
            entries += struct.pack(self._entry, len(names), 0x0F, 1, 0, 0x4000)
            names += name.encode() + b"\0"
        for name, ordinal, *weak in imports:
            special = {-1: 0xFF, -2: 0xFE, -3: 0xFE}.get(ordinal, ordinal)
            entries += struct.pack(self._entry, len(names), 0x01, 0, special << 8 | (0x40 if any(weak) else 0), 0)
            names += name.encode() + b"\0"
        self.count, self.names_at = len(exports) + len(imports), len(entries)
        return (entries + names,)


def _command(order: str, number: int, body: bytes) -> bytes:
    body += b"\0" * (-len(body) % 8)
    return struct.pack(order + "2I", number, 8 + len(body)) + body


def _library(order: str, number: int, name: str) -> bytes:
    return _command(order, number, struct.pack(order + "4I", 24, 2, version(1, 2, 3), version(1)) + _padded(name))


def _padded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape") + b"\0"


def _chained(order: str, layout: int, imports: Sequence[Import]) -> bytes:
    names, entries = b"\0", b""
    for name, ordinal, *weak in imports:
        bits, at = (16, 32) if layout == 3 else (8, 9)
        packed = ordinal & (1 << bits) - 1 | any(weak) << bits | len(names) << at
        entries += struct.pack(order + {1: "I", 2: "Ii", 3: "QQ"}[layout], packed, *([] if layout == 1 else [0]))
        names += name.encode() + b"\0"
    return struct.pack(order + "7I", 0, 28, 28, 28 + len(entries), len(imports), layout, 0) + entries + names


def _trie(exports: Mapping[str, tuple[int, str] | None]) -> bytes:
    """Build an export trie: a root with one edge for each name, the ends behind it."""
    ends = []
    for value in exports.values():
        end = _uleb(0) + _uleb(0x1000) if value is None else _uleb(8) + _uleb(value[0]) + value[1].encode() + b"\0"
        ends.append(_uleb(len(end)) + end + b"\0")
    sizes = [len(name.encode()) + 1 + 4 for name in exports]
    at = 2 + sum(sizes)
    root = bytes((0, len(exports)))
    for name, end in zip(exports, ends, strict=True):
        root += name.encode() + b"\0" + _uleb(at, 4)
        at += len(end)
    return root + b"".join(ends)


def _uleb(value: int, width: int = 1) -> bytes:
    parts = []
    while value or len(parts) < width:
        parts.append(value & 0x7F)
        value >>= 7
    return bytes(part | 0x80 for part in parts[:-1]) + bytes(parts[-1:])
