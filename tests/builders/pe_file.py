"""Build small PE files: `build_pe(imports={"a.dll": ["f", 3]}, exports=["g"])` is a DLL that Windows would map.

Headers take the first page, a section with one instruction the second; then comes a section for each kind of content.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

AMD64, I386, ARM64 = 0x8664, 0x14C, 0xAA64
PAGE, SECTOR = 0x1000, 0x200
BASE_32, BASE_64 = 0x10000000, 0x180000000

Symbols = Sequence["str | int"]
Exports = Sequence["str | Export"]


@dataclass(frozen=True)
class Export:
    """An export: by `name` or, without one, by `ordinal` only; `forwarder` is "LIB.symbol" or "LIB.#3"."""

    name: str | None = None
    ordinal: int | None = None
    forwarder: str | None = None


@dataclass
class _Sections:
    data: list[tuple[str, int, bytes]] = field(default_factory=list)
    next: int = PAGE

    def add(self, name: str, content: bytes) -> int:
        start = self.next
        self.data.append((name, start, content))
        self.next += -(-max(len(content), 1) // PAGE) * PAGE
        return start


def build_pe(
    imports: Mapping[str, Symbols] | None = None,
    exports: Exports | None = None,
    *,
    machine: int = AMD64,
    delayed: Mapping[str, Symbols] | None = None,
    delayed_by_va: bool = False,
    is_dll: bool = True,
    export_name: str = "built.dll",
    ordinal_base: int = 1,
    manifest: str | bytes | None = None,
    manifest_id: int | None = None,
    version: bytes | None = None,
    dependent_load_flags: int | None = None,
    is_hybrid: bool = False,
    is_managed: bool = False,
    link_time: int = 0x5F000000,
    linker_version: tuple[int, int] = (14, 29),
    code: bytes = b"\xc3",
    has_entry: bool = False,
) -> bytes:
    """Build a PE file.

    Args:
        imports, delayed: library to symbols, names and ordinals; no symbols at all make an unused import.
        exports: names, or `Export` for anything else; `None` for no export table.
        machine: decides between PE32 (I386) and PE32+.
        delayed_by_va: the delay-load table in its old form, with absolute addresses.
        manifest: of the resource RT_MANIFEST; `manifest_id` if not 2 for a DLL and 1 for a program.
        version: the resource RT_VERSION, from `build_version`.
        dependent_load_flags: adds a load configuration; so does `is_hybrid` (CHPE metadata).
        code: machine code, which every export leads to; with `has_entry` it is the entry point (DllMain) as well.
    """
    wide = machine in (AMD64, ARM64)
    sections = _Sections()
    sections.add(".text", code)
    directories: dict[int, tuple[int, int]] = {}

    def place(index: int, name: str, content: bytes) -> None:
        directories[index] = (sections.add(name, content), len(content))

    if exports is not None:
        place(0, ".edata", _export_table(exports, sections.next, export_name, ordinal_base))
    if imports is not None:
        place(1, ".idata", _import_table(imports, sections.next, wide))
    if delayed is not None:
        base = (BASE_64 if wide else BASE_32) if delayed_by_va else 0
        place(13, ".didat", _delay_table(delayed, sections.next, wide, base))
        directories[13] = directories[13][0], 32 * (len(delayed) + 1)
    resources = {}
    if version is not None:
        resources[16, 1] = version
    if manifest is not None:
        content = manifest.encode() if isinstance(manifest, str) else manifest
        resources[24, manifest_id or (2 if is_dll else 1)] = content
    if resources:
        place(2, ".rsrc", _resource_table(resources, sections.next))
    if dependent_load_flags is not None or is_hybrid:
        place(10, ".rdata", _load_config(dependent_load_flags or 0, is_hybrid, wide))
    if is_managed:
        place(14, ".clr", bytes(72))
    head = _headers(machine, wide, is_dll, directories, sections, link_time, linker_version, PAGE if has_entry else 0)
    return head.ljust(PAGE, b"\0") + b"".join(_pad(content, SECTOR) for _, _, content in sections.data)


def build_version(
    file_version: tuple[int, int, int, int] = (1, 2, 3, 4),
    product_version: tuple[int, int, int, int] = (5, 6, 7, 8),
    strings: Mapping[str, Mapping[str, str]] | None = None,
    translation: str = "040904b0",
    is_debug: bool = False,
) -> bytes:
    """VS_VERSIONINFO. `strings`: language and code page ("040904b0") to names and values."""
    fixed = struct.pack(
        "<13I",
        0xFEEF04BD,
        0x10000,
        file_version[0] << 16 | file_version[1],
        file_version[2] << 16 | file_version[3],
        product_version[0] << 16 | product_version[1],
        product_version[2] << 16 | product_version[3],
        0x3F,
        int(is_debug),
        0x40004,
        2,
        0,
        0,
        0,
    )
    tables = [
        _node(key, b"", True, [_node(name, _utf16(value), True, []) for name, value in table.items()])
        for key, table in (strings or {}).items()
    ]
    words = struct.pack("<HH", int(translation[:4], 16), int(translation[4:], 16))
    children = [_node("VarFileInfo", b"", True, [_node("Translation", words, False, [])])]
    if tables:
        children.insert(0, _node("StringFileInfo", b"", True, tables))
    return _node("VS_VERSION_INFO", fixed, False, children)


def build_manifest(*assemblies: str, version: str = "9.0.0.0", processor: str = "amd64") -> str:
    """A manifest that asks for these side-by-side assemblies."""
    asked = "".join(
        f'<dependency><dependentAssembly><assemblyIdentity type="win32" name="{name}" version="{version}" '
        f'processorArchitecture="{processor}" publicKeyToken="1fc8b3b9a1e18e3b"/></dependentAssembly></dependency>'
        for name in assemblies
    )
    return f'<assembly xmlns="urn:schemas-microsoft-com:asm.v1" manifestVersion="1.0">{asked}</assembly>'


def _headers(
    machine: int,
    wide: bool,
    is_dll: bool,
    directories: Mapping[int, tuple[int, int]],
    sections: _Sections,
    link_time: int,
    linker_version: tuple[int, int],
    entry: int,
) -> bytes:
    table, offset = b"", PAGE
    for name, start, content in sections.data:
        raw = len(_pad(content, SECTOR))
        table += struct.pack("<8sIIII12xI", name.encode(), len(content), start, raw, offset, 0xE0000060)
        offset += raw
    characteristics = 0x0022 | (0x2000 if is_dll else 0) | (0 if wide else 0x0100)
    optional_size = 240 if wide else 224
    file_header = struct.pack("<HHIIIHH", machine, len(sections.data), link_time, 0, 0, optional_size, characteristics)
    first = struct.pack("<HBB5I", 0x20B if wide else 0x10B, *linker_version, 0, 0, 0, entry, PAGE)
    base = struct.pack("<Q", BASE_64) if wide else struct.pack("<II", 0, BASE_32)
    middle = struct.pack("<II6HIIIIHH", PAGE, SECTOR, 6, 0, 0, 0, 6, 0, 0, sections.next, PAGE, 0, 3, 0x0160)
    stack = struct.pack("<4Q" if wide else "<4I", 0x100000, 0x1000, 0x100000, 0x1000)
    last = struct.pack("<II", 0, 16)
    last += b"".join(struct.pack("<II", *directories.get(index, (0, 0))) for index in range(16))
    optional = first + base + middle + stack + last
    assert len(optional) == optional_size
    return b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x80) + bytes(64) + b"PE\0\0" + file_header + optional + table


def _thunks(symbols: Symbols, start: int, wide: bool, base: int = 0) -> tuple[bytes, bytes]:
    """A name table, and the hints and names that lie behind it from address `start` on."""
    table, names = [], bytearray()
    for symbol in symbols:
        if isinstance(symbol, int):
            table.append(1 << (63 if wide else 31) | symbol)
        else:
            table.append(base + start + len(names))
            names += _pad(b"\0\0" + symbol.encode() + b"\0", 2)
    return struct.pack(f"<{len(table) + 1}{'Q' if wide else 'I'}", *table, 0), bytes(names)


def _import_table(imports: Mapping[str, Symbols], start: int, wide: bool) -> bytes:
    head, body = b"", b""
    at = start + 20 * (len(imports) + 1)
    for library, symbols in imports.items():
        size = (8 if wide else 4) * (len(symbols) + 1)
        table, names = _thunks(symbols, at + 2 * size, wide)
        text = _pad(library.encode() + b"\0", 8)
        head += struct.pack("<5I", at, 0, 0, at + 2 * size + len(_pad(names, 8)), at + size)
        part = table + table + _pad(names, 8) + text
        body, at = body + part, at + len(part)
    return head + bytes(20) + body


def _delay_table(delayed: Mapping[str, Symbols], start: int, wide: bool, base: int) -> bytes:
    head, body = b"", b""
    at = start + 32 * (len(delayed) + 1)
    for library, symbols in delayed.items():
        size = (8 if wide else 4) * (len(symbols) + 1)
        table, names = _thunks(symbols, at + 2 * size, wide, base)
        text = _pad(library.encode() + b"\0", 8)
        fields = (at + 2 * size + len(_pad(names, 8)), 0, at + size, at)
        absolute = [(value + base) & 0xFFFFFFFF if value else 0 for value in fields]
        head += struct.pack("<8I", 0 if base else 1, *absolute, 0, 0, 0)
        part = table + bytes(size) + _pad(names, 8) + text
        body, at = body + part, at + len(part)
    return head + bytes(32) + body


def _export_table(exports: Exports, start: int, file_name: str, base: int) -> bytes:
    entries = [Export(entry) if isinstance(entry, str) else entry for entry in exports]
    taken = {entry.ordinal for entry in entries if entry.ordinal is not None}
    free = iter(number for number in range(base, 0x10000) if number not in taken)
    numbered = {next(free) if entry.ordinal is None else entry.ordinal: entry for entry in entries}
    base = min([base, *numbered])
    count = max(numbered, default=base - 1) - base + 1
    named = sorted((entry.name.encode(), number - base) for number, entry in numbered.items() if entry.name)
    at = start + 40 + 4 * count + 6 * len(named)
    texts = bytearray(file_name.encode() + b"\0")
    names_at, functions = [], [0] * count
    for name, _ in named:
        names_at.append(at + len(texts))
        texts += name + b"\0"
    for number, entry in numbered.items():
        functions[number - base] = PAGE  # the code
        if entry.forwarder is not None:
            functions[number - base] = at + len(texts)
            texts += entry.forwarder.encode() + b"\0"
    tables = start + 40
    places = tables, tables + 4 * count, tables + 4 * (count + len(named))
    head = struct.pack("<12x7I", at, base, count, len(named), *places)
    head += struct.pack(f"<{count}I{len(named)}I{len(named)}H", *functions, *names_at, *(index for _, index in named))
    return head + bytes(texts)


def _resource_table(resources: Mapping[tuple[int, int], bytes], start: int) -> bytes:
    """One resource for each kind: three levels of one entry, after a root with all kinds."""
    root = struct.pack("<12xHH", 0, len(resources))
    at = len(root) + 8 * len(resources)
    body = b""
    data_at = at + len(resources) * (24 + 24 + 16)
    data = b""
    for (kind, number), content in sorted(resources.items()):
        root += struct.pack("<II", kind, 0x80000000 | at + len(body))
        here = at + len(body)
        body += struct.pack("<12xHHII", 0, 1, number, 0x80000000 | here + 24)
        body += struct.pack("<12xHHII", 0, 1, 0x409, here + 48)
        body += struct.pack("<IIII", start + data_at + len(data), len(content), 0, 0)
        data += _pad(content, 8)
    return root + body + data


def _load_config(flags: int, is_hybrid: bool, wide: bool) -> bytes:
    content = bytearray(320 if wide else 192)
    struct.pack_into("<I", content, 0, len(content))
    struct.pack_into("<H", content, 78 if wide else 54, flags)
    if is_hybrid:
        struct.pack_into("<Q" if wide else "<I", content, 200 if wide else 124, (BASE_64 if wide else BASE_32) + PAGE)
    return bytes(content)


def _node(key: str, value: bytes, is_text: bool, children: Sequence[bytes]) -> bytes:
    head = _pad(bytes(6) + _utf16(key), 4)
    content = head + value
    for child in children:
        content = _pad(content, 4) + child
    size = len(value) // 2 if is_text else len(value)
    return struct.pack("<HHH", len(content), size, is_text) + content[6:]


def _utf16(text: str) -> bytes:
    return (text + "\0").encode("utf-16-le")


def _pad(content: bytes, unit: int) -> bytes:
    return content + bytes(-len(content) % unit)
