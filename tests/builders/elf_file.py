"""Build small ELF files by hand: both sizes of word, both byte orders, and just what a test asks for.

One segment takes the whole file to an address of its own, so that any cut is a cut of what gets loaded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

WRITABLE = 0x10000
"""The address of the second, writable copy of a loadable file: a page of 64 kB behind the first."""
BASE = 0x40000
"""The address of the file's first byte: never equal to the offset."""

GLOBAL, WEAK, UNIQUE = 1, 2, 10
FUNC, TLS = 2, 6


@dataclass(frozen=True)
class Symbol:
    """A dynamic symbol; a need of `library` if that is given or `defined` is false."""

    name: str
    version: str | None = None
    library: str | None = None
    defined: bool = True
    binding: int = GLOBAL
    kind: int = FUNC
    visibility: int = 0
    hidden: bool = False
    relocated: bool = True
    value: int = 0x1000


def need(name: str, version: str | None = None, library: str | None = None, **more: object) -> Symbol:
    """An undefined symbol."""
    return Symbol(name, version, library, defined=False, value=0, **more)  # type: ignore[arg-type]


@dataclass
class ElfFile:
    """What the file is to say; `build` gives its bytes."""

    bits: int = 64
    little: bool = True
    machine: int = 62
    flags: int = 0
    kind: int = 3
    needed: tuple[str, ...] = ()
    soname: str | None = None
    rpath: str | None = None
    runpath: str | None = None
    interpreter: str | None = None
    tags: tuple[tuple[int, int], ...] = ()
    symbols: tuple[Symbol, ...] = ()
    version_defs: tuple[str, ...] = ()
    version_needs: tuple[tuple[str, str, bool], ...] = ()
    """Library, version, weak: beyond those of the symbols."""
    hash: str = "gnu"
    """"gnu", "sysv" or "none"."""
    with_addend: bool = True
    relative: int = 0
    """So many relative relocations come first, counted by DT_RELACOUNT."""
    dynamic: bool = True
    loadable: bool = False
    """As loaders want them: the file once to run from address 0 on, and once to write to behind that, both aligned for
    every size of a page; and without an executable stack, which newer glibc refuses."""
    relocation: int = 6
    """The type of the relocations of symbols: R_X86_64_GLOB_DAT and R_386_GLOB_DAT have the same number."""
    strings: bytearray = field(default_factory=lambda: bytearray(b"\0"))

    @property
    def _base(self) -> int:
        return WRITABLE if self.loadable else BASE

    def build(self) -> bytes:
        """The bytes of the file."""
        self.strings = bytearray(b"\0")
        entries = [(1, self._string(name)) for name in self.needed]
        for tag, text in ((14, self.soname), (15, self.rpath), (29, self.runpath)):
            if text is not None:
                entries.append((tag, self._string(text)))
        entries += self.tags
        order = [s for s in self.symbols if not s.defined] + [s for s in self.symbols if s.defined]
        numbers, definitions, needs = self._versions()
        parts: list[tuple[int | None, bytes]] = [
            (6, self._symbol_table(order)),
            (0x6FFFFFF0, self._pack(f"{len(order) + 1}H", 0, *(self._versym(s, numbers) for s in order))),
        ]
        if self.hash != "none":
            parts.append((0x6FFFFEF5, self._gnu_hash(order)) if self.hash == "gnu" else (4, self._sysv_hash(order)))
        if definitions:
            parts.append((0x6FFFFFFC, definitions))
            entries.append((0x6FFFFFFD, 1 + len(self.version_defs)))
        if needs:
            parts.append((0x6FFFFFFE, needs))
            entries.append((0x6FFFFFFF, len({library for library, _, _ in self._all_needs()})))
        relocations = self._relocations(order)
        parts.append((7 if self.with_addend else 17, relocations))
        row = (3 if self.with_addend else 2) * self.bits // 8
        entries += [(8 if self.with_addend else 18, len(relocations)), (9 if self.with_addend else 19, row)]
        if self.relative:
            entries.append((0x6FFFFFF9 if self.with_addend else 0x6FFFFFFA, self.relative))
        parts.append((5, bytes(self.strings)))
        entries += [(10, len(self.strings)), (11, 24 if self.bits == 64 else 16)]
        return self._assemble(entries, parts)

    def _assemble(self, entries: list[tuple[int, int]], parts: list[tuple[int | None, bytes]]) -> bytes:
        wide = self.bits == 64
        count = 1 + self.dynamic + 2 * self.loadable + (self.interpreter is not None)
        header, step = (64, 56) if wide else (52, 32)
        body = bytearray(bytes(header + count * step))
        segments: list[tuple[int, int, int]] = [(0x6474E551, 0, 0)] if self.loadable else []
        if self.interpreter is not None:
            name = self.interpreter.encode() + b"\0"
            segments.append((3, len(body), len(name)))
            body += name
        if self.dynamic:
            for tag, block in parts:
                body += bytes(-len(body) % 8)
                if tag is not None:
                    entries.append((tag, self._base + len(body)))
                body += block
            body += bytes(-len(body) % 8)
            dynamic = b"".join(self._pack(self._words(2), *entry) for entry in [*entries, (0, 0)])
            segments.append((2, len(body), len(dynamic)))
            body += dynamic
        table = self._segment(1, 0, len(body), 5, 0) if self.loadable else b""
        table += b"".join(self._segment(*segment) for segment in [(1, 0, len(body)), *segments])
        ident = b"\x7fELF" + bytes([self.bits // 32, 1 if self.little else 2, 1]) + bytes(9)
        fields = (self.kind, self.machine, 1, 0, header, 0, self.flags, header, step, count, 0, 0, 0)
        body[: header + count * step] = ident + self._pack("HHI" + self._words(3) + "IHHHHHH", *fields) + table
        return bytes(body)

    def _segment(self, kind: int, offset: int, size: int, rights: int = 6, base: int | None = None) -> bytes:
        align = WRITABLE if self.loadable and kind == 1 else 8
        at = (self._base if base is None else base) + offset
        if self.bits == 64:
            return self._pack("IIQQQQQQ", kind, rights, offset, at, at, size, size, align)
        return self._pack("IIIIIIII", kind, offset, at, at, size, size, rights, align)

    def _symbol_table(self, order: list[Symbol]) -> bytes:
        table = bytes(24 if self.bits == 64 else 16)
        for symbol in order:
            name, info = self._string(symbol.name), symbol.binding << 4 | symbol.kind
            section = 7 if symbol.defined else 0
            if self.bits == 64:
                table += self._pack("IBBHQQ", name, info, symbol.visibility, section, symbol.value, 8)
            else:
                table += self._pack("IIIBBH", name, symbol.value, 8, info, symbol.visibility, section)
        return table

    def _relocations(self, order: list[Symbol]) -> bytes:
        rows = [(8, 0)] * self.relative
        rows += [(self.relocation, number) for number, s in enumerate(order, 1) if s.relocated and not s.defined]
        table = b""
        for kind, number in rows:
            info = number << 32 | kind if self.bits == 64 else number << 8 | kind
            words = (self._base, info, 0) if self.with_addend else (self._base, info)
            table += self._pack(self._words(len(words)), *words)
        return table

    def _all_needs(self) -> list[tuple[str, str, bool]]:
        asked = [(s.library, s.version, False) for s in self.symbols if s.library and s.version]
        return list(dict.fromkeys([*asked, *self.version_needs]))

    def _versions(self) -> tuple[dict[tuple[str | None, str], int], bytes, bytes]:
        """Numbers by library (none for definitions) and version, DT_VERDEF, DT_VERNEED."""
        numbers: dict[tuple[str | None, str], int] = {}
        rows = []
        if self.version_defs:
            rows = [(1, 1, self.soname or "base")]
            for number, version in enumerate(self.version_defs, 2):
                rows.append((0, number, version))
                numbers[None, version] = number
        definitions = b""
        for row, (flags, number, name) in enumerate(rows, 1):
            step = 28 if row < len(rows) else 0
            definitions += self._pack("HHHHIII", 1, flags, number, 1, sysv_hash(name.encode()), 20, step)
            definitions += self._pack("II", self._string(name), 0)
        return numbers, definitions, self._need_table(numbers, 2 + len(self.version_defs))

    def _need_table(self, numbers: dict[tuple[str | None, str], int], first: int) -> bytes:
        libraries: dict[str, list[tuple[str, bool]]] = {}
        for library, version, weak in self._all_needs():
            libraries.setdefault(library, []).append((version, weak))
        table = b""
        number = first
        for row, (library, asked) in enumerate(libraries.items(), 1):
            step = 16 + 16 * len(asked) if row < len(libraries) else 0
            table += self._pack("HHIII", 1, len(asked), self._string(library), 16, step)
            for at, (version, weak) in enumerate(asked, 1):
                more = 16 if at < len(asked) else 0
                name = self._string(version)
                table += self._pack("IHHII", sysv_hash(version.encode()), 2 * weak, number, name, more)
                numbers[library, version] = number
                number += 1
        return table

    def _versym(self, symbol: Symbol, numbers: dict[tuple[str | None, str], int]) -> int:
        if symbol.version is None:
            return 1 if symbol.defined else 0
        return numbers[symbol.library, symbol.version] | (0x8000 if symbol.hidden else 0)

    def _gnu_hash(self, order: list[Symbol]) -> bytes:
        first = 1 + sum(not s.defined for s in order)
        hashes = [gnu_hash(s.name.encode("utf-8", "surrogateescape")) & ~1 for s in order if s.defined]
        if hashes:
            hashes[-1] |= 1
        bloom = 2**self.bits - 1
        head = self._pack("IIII" + self._words(1), 1, first, 1, 6, bloom)
        return head + self._pack(f"{1 + len(hashes)}I", first if hashes else 0, *hashes)

    def _sysv_hash(self, order: list[Symbol]) -> bytes:
        count = 1 + len(order)
        chain = [*range(2, count), 0] if order else []
        # 8 bytes for a number on 64-bit S/390 and Alpha: include/elf/external.h of binutils.
        word = "Q" if self.bits == 64 and self.machine in (22, 0x9026) else "I"
        return self._pack(f"{4 + len(chain)}{word}", 1, count, 1 if order else 0, 0, *chain)

    def _string(self, text: str) -> int:
        at = len(self.strings)
        self.strings += text.encode("utf-8", "surrogateescape") + b"\0"
        return at

    def _words(self, count: int) -> str:
        return count * ("Q" if self.bits == 64 else "I")

    def _pack(self, layout: str, *values: int) -> bytes:
        return struct.pack(("<" if self.little else ">") + layout, *values)


def gnu_hash(name: bytes) -> int:
    """dl_new_hash of glibc's elf/dl-lookup.c."""
    value = 5381
    for byte in name:
        value = value * 33 + byte & 0xFFFFFFFF
    return value


def sysv_hash(name: bytes) -> int:
    """The hash of the generic ABI, chapter 5."""
    value = 0
    for byte in name:
        value = (value << 4) + byte
        value = (value ^ (value & 0xF0000000) >> 24) & 0x0FFFFFFF
    return value
