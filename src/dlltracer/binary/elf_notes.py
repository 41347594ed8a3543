"""The identification of a build that linkers write into ELF files.

Source: elf(5), "Notes (Nhdr)", and ld(1), --build-id.
"""

from __future__ import annotations

import struct

from ..errors import BinaryFormatError
from ..model.elf import ElfImage
from .reading import Cursor, Data, OpenedFile

_PT_NOTE = 4
_NT_GNU_BUILD_ID = 3
_LARGEST = 0x10000
_MOST_BYTES = 64


def read_build_id(path: str, image: ElfImage) -> str | None:
    """The identification in the file that `image` was read from, in hexadecimal; `None` if it has none.

    Raises `BinaryFormatError`, `OSError`.
    """
    with OpenedFile(path) as data:
        return parse_build_id(data, image)


def parse_build_id(data: Data, image: ElfImage) -> str | None:
    """The same, from all bytes of the file; what is damaged has none."""
    cursor = Cursor(data)
    for segment in image.segments:
        if segment.type == _PT_NOTE and segment.file_size <= _LARGEST:
            try:
                notes = cursor.take(segment.offset, segment.file_size, "the notes")
            except BinaryFormatError:
                continue
            found = _find(notes, image.little_endian, 8 if segment.align == 8 else 4)
            if found:
                return found
    return None


def _find(notes: bytes, little_endian: bool, align: int) -> str | None:
    head = struct.Struct("<III" if little_endian else ">III")
    at = 0
    while at + head.size <= len(notes):
        name_size, size, kind = head.unpack_from(notes, at)
        name_at = at + head.size
        start = _up(name_at + name_size, align)
        if start + size > len(notes):
            return None
        if kind == _NT_GNU_BUILD_ID and notes[name_at : name_at + name_size] == b"GNU\0" and size <= _MOST_BYTES:
            return notes[start : start + size].hex() or None
        at = _up(start + size, align)
    return None


def _up(offset: int, align: int) -> int:
    return (offset + align - 1) // align * align
