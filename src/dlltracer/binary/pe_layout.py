"""Reads the headers of a PE file, and maps addresses to offsets in the file.

Source: MS Learn "PE Format". Where that leaves open what Windows does, the rules are those by which it maps a file:

- Raw data begins at a multiple of 512 bytes, whatever FileAlignment says.
- No more of it is mapped than the section's virtual size in pages; the rest of the section is zeros.
- A file that ends before its raw data does is refused.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import BinaryFormatError
from .reading import HEAD_SIZE, Cursor, FileBytes, describe_not_image

PAGE = 0x1000
SECTOR = 0x200
MAX_NAME = 0x10000
"""Bytes of a name. Mangled C++ names reach some ten thousand."""

_CHUNK, _USUAL_NAME = 1024, 256
"""Names that are cut at once, and their usual length: where it is more, something else lies between them."""

_HALF, _WORD = struct.Struct("<H"), struct.Struct("<I")
_FILE_HEADER = struct.Struct("<HHI8xHH")
_OPTIONAL_64 = struct.Struct("<2xBB20xQI20xIIIHH36xI")
_OPTIONAL_32 = struct.Struct("<2xBB24xII20xIIIHH20xI")
_SECTION = struct.Struct("<8sIIII16x")
_DIRECTORIES = [struct.Struct(f"<{2 * count}I") for count in range(17)]


@dataclass(slots=True)
class Headers:
    """Values of the file header and the optional header; directories as pairs of address and size."""

    machine: int
    sections: int
    link_time: int
    characteristics: int
    bits: int
    linker_version: tuple[int, int]
    image_base: int
    section_alignment: int
    image_size: int
    headers_size: int
    checksum: int
    subsystem: int
    dll_characteristics: int
    directories: tuple[tuple[int, int], ...]
    section_table: int

    def directory(self, index: int) -> tuple[int, int]:
        """Address and size of a data directory; zeros if the file has none of that number."""
        return self.directories[index] if index < len(self.directories) else (0, 0)


def parse_headers(data: bytes | FileBytes) -> Headers:
    """Parse the headers at the beginning of a PE file. Raises `BinaryFormatError`."""
    cursor = Cursor(data)
    if data[:2] != b"MZ":
        what = describe_not_image(bytes(data[:HEAD_SIZE]))
        raise BinaryFormatError(0, f"not a PE file: this is {what}" if what else "not a PE file: no MZ at the start")
    (at,) = cursor.unpack(_WORD, 0x3C, "DOS header")
    if cursor.take(at, 4, "PE header") != b"PE\0\0":
        raise BinaryFormatError(at, "not a PE file: an MZ program without a PE header (DOS or 16-bit Windows)")
    file_header = cursor.unpack(_FILE_HEADER, at + 4, "file header")
    machine, sections, link_time, optional_size, characteristics = file_header
    at += 24
    (magic,) = cursor.unpack(_HALF, at, "optional header")
    if magic not in (0x10B, 0x20B):
        raise BinaryFormatError(at, f"the optional header is of an unknown kind, {magic:#x}")
    bits, layout = (64, _OPTIONAL_64) if magic == 0x20B else (32, _OPTIONAL_32)
    fields = cursor.unpack(layout, at, "optional header")
    major, minor, base, alignment, image_size, headers_size, checksum, subsystem, dll_characteristics, count = fields
    # The loader goes by the 16 entries that its own structure has and by this count, not by the header's size.
    count = min(count, 16)
    words = cursor.unpack(_DIRECTORIES[count], at + layout.size, "table of data directories")
    return Headers(
        machine=machine,
        sections=sections,
        link_time=link_time,
        characteristics=characteristics,
        bits=bits,
        linker_version=(major, minor),
        image_base=base,
        section_alignment=alignment,
        image_size=image_size,
        headers_size=headers_size,
        checksum=checksum,
        subsystem=subsystem,
        dll_characteristics=dll_characteristics,
        directories=tuple(zip(words[::2], words[1::2], strict=True)),
        section_table=at + optional_size,
    )


class PeLayout:
    """Reads a PE file by address (RVA), as it would lie in memory.

    Every method raises `BinaryFormatError` for an address that is not mapped. A section's tail without raw data is
    zeros. Arguments of all: `rva`, the address relative to the image base; `what`, the thing there, for the message.
    """

    def __init__(self, data: bytes | FileBytes) -> None:
        self.data = data
        self.headers = parse_headers(data)
        self._regions = _without_overlap(sorted(_regions(data, self.headers)))
        self._starts = [region[0] for region in self._regions]
        # Where the last read was, as the next one is mostly there, too.
        self._start, self._end, self._shift, self._limit = self._regions[0]
        # Names may overlap in a hostile file: all together they may take as much as the whole file does.
        self._names_left = len(data) + MAX_NAME

    def _enter(self, rva: int, what: str) -> None:
        """Go to the region that has the address."""
        index = bisect_right(self._starts, rva) - 1
        if index < 0 or rva >= self._regions[index][1]:
            raise BinaryFormatError(self.headers.section_table, f"{what} at address {rva:#x} lies in no section")
        self._start, self._end, self._shift, self._limit = self._regions[index]

    def room(self, rva: int, what: str) -> int:
        """Return the number of bytes from an address to the end of its section."""
        if not self._start <= rva < self._end:
            self._enter(rva, what)
        return self._end - rva

    def offset(self, rva: int, what: str) -> int:
        """Return the offset in the file of an address; for one among the zeros, the end of the section's part of the
        file."""
        if not self._start <= rva < self._end:
            self._enter(rva, what)
        return min(rva + self._shift, self._limit)

    def read(self, rva: int, size: int, what: str) -> bytes:
        """`size` bytes from an address on."""
        if not self._start <= rva < self._end:
            self._enter(rva, what)
        offset = rva + self._shift
        stop = offset + size
        if stop <= self._limit:
            return self.data[offset:stop]
        if rva + size > self._end:
            raise BinaryFormatError(min(offset, self._limit), f"{what} reaches beyond the end of its section")
        return self.data[offset : self._limit].ljust(size, b"\0")

    def unpack(self, layout: struct.Struct, rva: int, what: str) -> tuple[int, ...]:
        """The fields of a structure."""
        return layout.unpack(self.read(rva, layout.size, what))

    def name(self, rva: int, what: str) -> str:
        """The text from an address to the next NUL. What is not UTF-8 comes as surrogates (PEP 383)."""
        if not self._start <= rva < self._end:
            self._enter(rva, what)
        at = rva + self._shift
        stop = self.data.find(b"\0", at, at + MAX_NAME)
        if not at <= stop < self._limit:
            stop = self._end_in_memory(rva, what)
        self._charge(stop - at, at)
        return self.data[at:stop].decode("utf-8", "surrogateescape")

    def _end_in_memory(self, rva: int, what: str) -> int:
        """Return where the file's part of a section ends, if no name ends before: zeros may follow in memory."""
        at = rva + self._shift
        stop = max(self._limit, at)
        if stop - at >= MAX_NAME or rva + stop - at >= self._end:
            raise BinaryFormatError(min(at, len(self.data)), f"{what} has no end")
        return stop

    def text(self, low: int, high: int, count: int, what: str) -> str:
        """Return the bytes from an address to the end of the last of `count` names, a character for each byte.

        Arguments: `high`, where that name begins. Returns nothing if the names do not lie close together.
        """
        if not 0 <= high - low < min(self.room(low, what), _USUAL_NAME * count):
            return ""
        first, last = low + self._shift, high + self._shift
        stop = self.data.find(b"\0", last, min(last + MAX_NAME, self._limit))
        return "" if stop < 0 else self.data[first : stop + 1].decode("latin-1")

    def names(self, addresses: Sequence[int], what: str, skip: int = 0) -> list[str]:
        """The names at many addresses. Linkers lay them close together, so that they can be decoded in one.

        Arguments: `skip`, how many bytes there are at each address before its name.
        """
        if not addresses:
            return []
        low = min(addresses) + skip
        text = self.text(low, max(addresses) + skip, len(addresses), what)
        if not text:
            return [self.name(rva + skip, what) for rva in addresses]
        end, shift = text.index, low - skip
        found: list[str] = []
        for first in range(0, len(addresses), _CHUNK):
            starts = [rva - shift for rva in addresses[first : first + _CHUNK]]
            names = [text[at : end("\0", at)] for at in starts]
            found += self.take(names, "".join(names), low)
        return found

    def take(self, names: list[str], joined: str, rva: int) -> list[str]:
        """Decode names that were cut from a `text` that begins at an address, and count them: `joined` has all."""
        self._charge(len(joined), min(rva + self._shift, self._limit))
        if joined.isascii():
            return names
        return [n if n.isascii() else n.encode("latin-1").decode("utf-8", "surrogateescape") for n in names]

    def _charge(self, size: int, offset: int) -> None:
        """Count `size` bytes of names, read at `offset`."""
        self._names_left -= size
        if self._names_left < 0:
            raise BinaryFormatError(offset, "the names overlap: together they are longer than the file")


def _without_overlap(regions: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Sorted regions, each cut off where the next one begins: Windows refuses a file in which they overlap."""
    for number, (start, end, shift, limit) in enumerate(regions[:-1]):
        following = regions[number + 1][0]
        if following < end:
            regions[number] = start, following, shift, min(limit, following + shift)
    return regions


def _regions(data: bytes | FileBytes, headers: Headers) -> list[tuple[int, int, int, int]]:
    """The parts of the image: start and end in memory, what leads from an address to its offset, end in the file."""
    size = len(data)
    table = Cursor(data).take(headers.section_table, headers.sections * _SECTION.size, "section table")
    regions = [(0, headers.headers_size + PAGE - 1 & -PAGE, 0, min(headers.headers_size, size))]
    for name, virtual_size, start, raw_size, pointer in _SECTION.iter_unpack(table):
        extent = (virtual_size or raw_size) + PAGE - 1 & -PAGE
        at = pointer & -SECTOR
        limit = min(at, size)
        if raw_size and pointer:  # raw data without a place in the file is none at all
            end = pointer + raw_size
            if end > size:
                shown = name.rstrip(b"\0").decode("ascii", "backslashreplace")
                end_of = f"its section {shown} ends at {end:#x}, the file at {size:#x}"
                raise BinaryFormatError(size, f"the file is cut short: {end_of}")
            limit = min(end + SECTOR - 1 & -SECTOR, at + extent, size)
        regions.append((start, start + extent, at - start, limit))
    if headers.section_alignment < PAGE:  # then the file is mapped as it is, and addresses are offsets
        return [(0, max(size, headers.image_size), 0, size)]
    return regions
