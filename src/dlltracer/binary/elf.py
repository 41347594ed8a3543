"""Reads ELF files: their needs, their definitions, their search paths.

Sources: elf(5) and the generic ABI, chapters 4 and 5. What the loader does not read (section headers above all) is not
read here: a file that lost nothing else is whole.
"""

from __future__ import annotations

import struct
from collections.abc import Set

from ..errors import BinaryFormatError
from ..model.elf import ElfImage, ElfSegments, ElfSymbols
from .elf_dynamic import (
    DT_FLAGS,
    DT_FLAGS_1,
    DT_RPATH,
    DT_RUNPATH,
    DT_SONAME,
    PATH_LIMIT,
    PT_INTERP,
    PT_LOAD,
    Dynamic,
    ElfLayout,
    Segment,
    Versions,
    layout_of,
    parse_dynamic,
    parse_versions,
)
from .elf_symbols import parse_needs, parse_provides, parse_symbols
from .reading import HEAD_SIZE, Cursor, Data, OpenedFile, describe_not_image

_IDENT_SIZE = 16
_SEARCH_PATH_LIMIT = 0x100000


def read_elf(path: str, *, symbols: bool = False, needs: bool = False, versions: bool = True) -> ElfImage:
    """Read the ELF file at `path`, and no more of it than is asked for.

    Args:
        path: the file.
        symbols: read the dynamic symbols too.
        needs: of these only the undefined ones, those that no relocation uses included (`elf_symbols.parse_needs`).
        versions: read which versions of symbols it needs and defines.

    Raises:
        BinaryFormatError: it is not an ELF file, or a damaged one.
        OSError: it cannot be opened.
    """
    with OpenedFile(path) as data:
        return parse_elf(data, symbols=symbols, needs=needs, versions=versions)


def read_provided(path: str, wanted: Set[str] | None, hashes: Set[int] | None = None) -> ElfSymbols:
    """Read which of the wanted names an ELF file defines, of all with `None`; needs are left out. Raises as `read_elf`.

    Arguments: `hashes`, of the wanted names (`elf_symbols.hash_names`), for one who asks many files for many names.
    """
    with OpenedFile(path) as data:
        cursor = Cursor(data)
        layout = _check_ident(bytes(data[:_IDENT_SIZE]), cursor)
        _, machine, _, _, segments_at, _, _, _, entry_size, count, *_ = cursor.unpack(
            layout.header, _IDENT_SIZE, "the header"
        )
        dynamic = parse_dynamic(cursor, layout, _parse_segments(cursor, layout, segments_at, entry_size, count))
        if dynamic is None:
            return ElfSymbols((), {})
        return parse_provides(dynamic, machine, parse_versions(dynamic), wanted, hashes)


def parse_elf(data: Data, *, symbols: bool = False, needs: bool = False, versions: bool = True) -> ElfImage:
    """Read an ELF file from all its bytes; arguments and errors are those of `read_elf`."""
    cursor = Cursor(data)
    ident = bytes(data[:_IDENT_SIZE])
    layout = _check_ident(ident, cursor)
    kind, machine, _, _, segments_at, _, flags, _, entry_size, count, *_ = cursor.unpack(
        layout.header, _IDENT_SIZE, "the header"
    )
    segments = _parse_segments(cursor, layout, segments_at, entry_size, count)
    dynamic = parse_dynamic(cursor, layout, segments)
    found = parse_versions(dynamic) if dynamic is not None and versions else Versions((), None, {})
    return ElfImage(
        bits=layout.bits,
        little_endian=layout.little_endian,
        machine=machine,
        kind=kind,
        abi=ident[7],
        flags=flags,
        interpreter=_parse_interpreter(cursor, segments),
        soname=_text_of(dynamic, DT_SONAME, "the name of the library"),
        needed=() if dynamic is None else dynamic.texts(dynamic.needed, "the name of a need"),
        rpath=_text_of(dynamic, DT_RPATH, "the RPATH", _SEARCH_PATH_LIMIT),
        runpath=_text_of(dynamic, DT_RUNPATH, "the RUNPATH", _SEARCH_PATH_LIMIT),
        dynamic_flags=0 if dynamic is None else dynamic.values.get(DT_FLAGS, 0),
        dynamic_flags_1=0 if dynamic is None else dynamic.values.get(DT_FLAGS_1, 0),
        segments=ElfSegments(*zip(*segments, strict=True)) if segments else (),
        version_needs=found.needs,
        version_defs=found.defined or (),
        symbols=_parse_symbols(dynamic, machine, found, needs) if symbols or needs else None,
        is_dynamic=dynamic is not None,
        is_versioned=found.defined is not None,
    )


def _check_ident(ident: bytes, cursor: Cursor) -> ElfLayout:
    if not ident.startswith(b"\x7fELF"):
        what = describe_not_image(bytes(cursor.data[:HEAD_SIZE]))
        if what is None and cursor.size < _IDENT_SIZE:
            what = f"a file of {cursor.size} bytes, too short for any image"
        raise BinaryFormatError(0, f"not an ELF file: it is {what}" if what else "not an ELF file")
    if len(ident) < _IDENT_SIZE:
        raise cursor.cut_short(0, _IDENT_SIZE, "the header")
    for offset, name, known in ((4, "word size", (1, 2)), (5, "byte order", (1, 2)), (6, "format version", (1,))):
        if ident[offset] not in known:
            raise BinaryFormatError(offset, f"damaged: an ELF file of the unknown {name} {ident[offset]}")
    return layout_of(ident[4], ident[5])


def _parse_segments(cursor: Cursor, layout: ElfLayout, start: int, entry_size: int, count: int) -> list[Segment]:
    size = layout.segment.size
    if count and entry_size != size:
        raise BinaryFormatError(_IDENT_SIZE, f"damaged: program headers of {entry_size} bytes, where {size} are due")
    table = cursor.take(start, size * count, "the table of program headers") if count else b""
    segments = _unpack_segments(layout, table)
    for kind, _, offset, _, file_size, _, _ in segments:
        if kind == PT_LOAD and file_size and offset + file_size > cursor.size:
            raise cursor.cut_short(offset, file_size, "a segment that is to be loaded")
    return segments


def parse_segments(head: bytes) -> tuple[Segment, ...] | None:
    """Return the program headers in the first bytes of a file; () if they are not whole, `None` if it is no ELF file.

    For who needs no more of many files: it takes a tenth of the time of `parse_elf`. A kilobyte is mostly enough.
    """
    if not head.startswith(b"\x7fELF"):
        return None
    if len(head) < _IDENT_SIZE or head[4] not in (1, 2) or head[5] not in (1, 2):
        return ()
    layout = layout_of(head[4], head[5])
    if len(head) < _IDENT_SIZE + layout.header.size:
        return ()
    _, _, _, _, start, _, _, _, entry_size, count, *_ = layout.header.unpack_from(head, _IDENT_SIZE)
    table = head[start : start + entry_size * count]
    if entry_size != layout.segment.size or len(table) < entry_size * count:
        return ()
    return tuple(_unpack_segments(layout, table))


def _unpack_segments(layout: ElfLayout, table: bytes) -> list[Segment]:
    segments: list[Segment] = list(layout.segment.iter_unpack(table))
    if layout.bits == 32:
        # There the flags come last but one.
        segments = [(kind, flags, *sizes, align) for kind, *sizes, flags, align in segments]  # type: ignore[misc]
    return segments


def _parse_interpreter(cursor: Cursor, segments: list[Segment]) -> str | None:
    for kind, _, offset, _, file_size, _, _ in segments:
        if kind == PT_INTERP:
            name = cursor.text(offset, "the name of the loader", limit=PATH_LIMIT, end=offset + file_size)
            return name.decode("utf-8", "surrogateescape")
    return None


def _text_of(dynamic: Dynamic | None, tag: int, what: str, limit: int = PATH_LIMIT) -> str | None:
    return None if dynamic is None else dynamic.text_of(tag, what, limit)


def _parse_symbols(dynamic: Dynamic | None, machine: int, versions: Versions, needs: bool) -> ElfSymbols:
    if dynamic is None:
        return ElfSymbols((), {})
    return parse_needs(dynamic, machine, versions) if needs else parse_symbols(dynamic, machine, versions)


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
