"""How the structures of an ELF file lie in its bytes, for both sizes of word and both byte orders.

Sources: elf(5); the generic ABI, chapters 4 and 5; for versions "Linux Standard Base Core Specification", chapter
"Symbol Versioning".
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass
from struct import Struct

Segment = tuple[int, int, int, int, int, int, int]
"""A program header: the fields of `model.elf.ElfSegment`."""

EM_MIPS, EM_S390, EM_ALPHA = 8, 22, 0x9026

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3

DT_NEEDED, DT_PLTRELSZ, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ = 1, 2, 4, 5, 6, 7, 8
DT_STRSZ, DT_SONAME, DT_RPATH, DT_REL, DT_RELSZ, DT_PLTREL, DT_JMPREL = 10, 14, 15, 17, 18, 20, 23
DT_RUNPATH, DT_FLAGS = 29, 30
DT_GNU_HASH, DT_VERSYM, DT_RELACOUNT, DT_RELCOUNT = 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFF9, 0x6FFFFFFA
DT_FLAGS_1, DT_VERDEF, DT_VERNEED = 0x6FFFFFFB, 0x6FFFFFFC, 0x6FFFFFFE


@dataclass(frozen=True)
class Layout:
    """The structures of one size of word and byte order.

    Attributes:
        header: Elf_Ehdr after e_ident. segment: Elf_Phdr without p_paddr. dynamic: Elf_Dyn.
        symbol_size: bytes of an Elf_Sym.
        need, need_version: Elf_Verneed, Elf_Vernaux. definition, definition_name: Elf_Verdef, Elf_Verdaux.
        word: one Elf_Word, which has 4 bytes in both sizes.
    """

    bits: int
    little_endian: bool
    header: Struct
    segment: Struct
    dynamic: Struct
    symbol_size: int
    need: Struct
    need_version: Struct
    definition: Struct
    definition_name: Struct
    word: Struct


def _layout(bits: int, order: str) -> Layout:
    address = "Q" if bits == 64 else "I"
    return Layout(
        bits=bits,
        little_endian=order == "<",
        header=Struct(f"{order}HHI{address * 3}IHHHHHH"),
        segment=Struct(f"{order}IIQQ8xQQQ" if bits == 64 else f"{order}III4xIIII"),
        dynamic=Struct(f"{order}{address}{address}"),
        symbol_size=24 if bits == 64 else 16,
        need=Struct(f"{order}HHIII"),
        need_version=Struct(f"{order}IHHII"),
        definition=Struct(f"{order}HHHHIII"),
        definition_name=Struct(f"{order}II"),
        word=Struct(f"{order}I"),
    )


_LAYOUTS = (_layout(32, "<"), _layout(32, ">"), _layout(64, "<"), _layout(64, ">"))


def layout_of(elf_class: int, data_encoding: int) -> Layout:
    """The layout for EI_CLASS and EI_DATA, each 1 or 2."""
    return _LAYOUTS[2 * (elf_class - 1) + data_encoding - 1]


def integers(code: str, block: bytes, little_endian: bool) -> array[int]:
    """The numbers in a block of bytes; `code` is a type of `array` with as many bytes."""
    numbers: array[int] = array(code, block)
    if little_endian != (sys.byteorder == "little"):
        numbers.byteswap()
    return numbers
