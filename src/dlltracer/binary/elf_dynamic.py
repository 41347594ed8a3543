"""The dynamic section, and the places that its addresses mean.

Everything goes through program headers, as in the loader: section headers may have been stripped.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BinaryFormatError
from .elf_layout import DT_NEEDED, DT_STRSZ, DT_STRTAB, PT_DYNAMIC, PT_LOAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .elf_layout import Layout, Segment
    from .reading import Cursor

_MAX_ENTRIES = 0x4000
_BLOCK = 512
"""Bytes of the dynamic section read at once; a multiple of both sizes of an entry."""
_SHORT = 0x8000
"""Bytes up to which a string table is read at once."""

PATH_LIMIT = 4096
"""PATH_MAX of <linux/limits.h>: nothing with a longer name can be opened."""


class Places:
    """Where in the file the loaded addresses lie."""

    def __init__(self, segments: list[Segment]) -> None:
        self._loads = [
            (address, address + file_size, offset)
            for kind, _, offset, address, file_size, _, _ in segments
            if kind == PT_LOAD and file_size
        ]

    def find(self, address: int, what: str) -> tuple[int, int]:
        """The file offset of `address`, and the offset at which the file's part of its segment ends."""
        for start, end, offset in self._loads:
            if start <= address < end:
                return offset + address - start, offset + end - start
        raise BinaryFormatError(0, f"{what} is at address {address:#x}, which no part of the file is loaded to")


@dataclass(frozen=True)
class Dynamic:
    """The dynamic section.

    Attributes:
        values: of each tag its last value, which is the one that counts (elf/get-dynamic-info.h of glibc).
        needed: the values of DT_NEEDED, in order.
        strings: offset of the string table and of its end; both 0 if there is none.
        short_strings: the bytes of the string table, if there are few.
    """

    cursor: Cursor
    layout: Layout
    places: Places
    values: Mapping[int, int]
    needed: tuple[int, ...]
    strings: tuple[int, int]
    short_strings: bytes | None

    def locate(self, tag: int, what: str) -> tuple[int, int] | None:
        """File offset and end of its segment for the address under `tag`; `None` if there is no such tag."""
        address = self.values.get(tag)
        return None if address is None else self.places.find(address, what)

    def locate_table(self, tag: int, size: int, what: str) -> int | None:
        """File offset of `size` bytes at the address under `tag`; `None` if there is no such tag, or nothing in it."""
        place = self.locate(tag, what) if size else None
        if place is None:
            return None
        offset, end = place
        if offset + size > end:
            raise self.cursor.cut_short(offset, size, what, end)
        return offset

    def text(self, position: int, what: str, limit: int = PATH_LIMIT) -> str:
        """The string at `position` of the string table."""
        if self.short_strings is not None:
            stop = self.short_strings.find(b"\0", position, position + limit)
            if stop >= 0:
                return self.short_strings[position:stop].decode("utf-8", "surrogateescape")
        start, end = self.strings
        return self.cursor.text(start + position, what, limit=limit, end=end).decode("utf-8", "surrogateescape")

    def texts(self, positions: Iterable[int], what: str) -> tuple[str, ...]:
        """The strings at many positions of the string table."""
        return tuple([self.text(position, what) for position in positions])

    def text_of(self, tag: int, what: str, limit: int = PATH_LIMIT) -> str | None:
        """The string that `tag` points to; `None` if there is no such tag."""
        position = self.values.get(tag)
        return None if position is None else self.text(position, what, limit)


def parse_dynamic(cursor: Cursor, layout: Layout, segments: list[Segment]) -> Dynamic | None:
    """The dynamic section; `None` for a file without one. Raises `BinaryFormatError`."""
    # One without content is passed over: files with debug information alone have it (elf/dl-load.c of glibc).
    found = [address for kind, _, _, address, file_size, _, _ in segments if kind == PT_DYNAMIC and file_size]
    if not found:
        return None
    places = Places(segments)
    values, needed = _parse_entries(cursor, layout, *places.find(found[-1], "the dynamic section"))
    strings, block = (0, 0), None
    if DT_STRTAB in values:
        start, end = places.find(values[DT_STRTAB], "the string table")
        size = values.get(DT_STRSZ, end - start)
        if start + size > end:
            raise cursor.cut_short(start, size, "the string table", end)
        strings = (start, start + size)
        if size <= _SHORT:
            block = cursor.take(start, size, "the string table")
    return Dynamic(cursor, layout, places, values, tuple(needed), strings, block)


def _parse_entries(cursor: Cursor, layout: Layout, start: int, end: int) -> tuple[dict[int, int], list[int]]:
    """Read up to DT_NULL, as the loader does, whatever size the program header gives."""
    values: dict[int, int] = {}
    needed: list[int] = []
    size = layout.dynamic.size
    stop = min(end, start + _MAX_ENTRIES * size)
    for offset in range(start, stop, _BLOCK):
        room = min(_BLOCK, stop - offset)
        for tag, value in layout.dynamic.iter_unpack(cursor.take(offset, room - room % size, "the dynamic section")):
            if tag == 0:
                return values, needed
            if tag == DT_NEEDED:
                needed.append(value)
            values[tag] = value
    raise BinaryFormatError(start, "cut short or damaged: the dynamic section has no end")
