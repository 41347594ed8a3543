"""The buffers that an .etl file consists of, one after the other. Any file is read, and what is lost is said.

Source: WMI_BUFFER_HEADER (72 bytes, the same on x86 and x64) as Geoff Chappell describes it in "ETW Trace Logs" and
"WMI_BUFFER_HEADER", checked against files of Windows 7 to 11:

     0  u32  BufferSize, with the header; as stored, so smaller when the buffer is compressed
     4  u32  SavedOffset: bytes that are valid, with the header; as they were before compression
    48  u32  Offset: the same, and the only one that Windows 7 writes into the first buffer
    52  u16  BufferFlag: 0x02 events lost, 0x04 buffers lost, 0x40 compressed
    54  u16  BufferType: 4 for the first, which describes the file
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from .xpress import DamagedData, decompress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

HEADER_SIZE = 72
LARGEST = 1 << 24
"""Bytes of a buffer: sixteen times what "EVENT_TRACE_PROPERTIES", MS Learn, allows."""

_LARGEST_RATIO = 64
"""To which a buffer may grow when it is decompressed; files of Windows stay below 14."""
_RATIO_IN_ALL = 16
"""To which a whole file may grow, beyond the first `LARGEST` bytes: a file of 5 MB then costs seconds, not minutes."""
_COMPRESSED = 0x40
_HEADER = struct.Struct("<II40xIH18x")
_MOST_PROBLEMS = 20


@dataclass
class Damage:
    """What could not be read of a file, as it is found.

    Attributes: `count` of buffers and events; `problems`, sentences on the first of them.
    """

    count: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, problem: str, count: int = 1) -> None:
        self.count += count
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)


def read_buffers(file: BinaryIO, size: int, damage: Damage) -> Iterator[tuple[int, bytes | bytearray]]:
    """The offset in the file of each buffer, and its content, filled up with zeros to a multiple of 8 bytes.

    Arguments: `file`, open at its start, of `size` bytes. After a damaged header the next buffer is looked for where
    it lies in a file whose buffers all have the size of the first; what is passed over is told to `damage`.
    """
    at = step = 0
    left = LARGEST + _RATIO_IN_ALL * size
    while at < size:
        if left <= 0:
            damage.add(f"it holds more than {_RATIO_IN_ALL} times its size: nothing from offset {at:#x} on is read")
            return
        file.seek(at)
        head = file.read(HEADER_SIZE)
        if len(head) < HEADER_SIZE:
            damage.add(f"the file ends inside of a buffer's header (offset {at:#x})")
            return
        stored, saved, offset, flags = _HEADER.unpack(head)
        saved = saved or offset
        if not HEADER_SIZE <= stored <= LARGEST or not (saved <= stored or flags & _COMPRESSED):
            lost = step or size - at
            damage.add(f"no buffer begins at offset {at:#x}: {min(lost, size - at)} bytes are not read")
            at += lost
            continue
        step = step or stored
        content = file.read(stored - HEADER_SIZE)
        if len(content) < stored - HEADER_SIZE:
            damage.add(f"the buffer at offset {at:#x} has {len(content) + HEADER_SIZE} of its {stored} bytes")
        if flags & _COMPRESSED:
            # Compressed buffers have all sizes, so the place of the next one is known from this one only.
            step = 0
            inflated = _inflate(content, saved - HEADER_SIZE, at, damage)
            left -= len(inflated)
            yield at, inflated + bytes(-len(inflated) % 8)
        elif saved > HEADER_SIZE:
            content = content[: saved - HEADER_SIZE]
            yield at, content + bytes(-len(content) % 8)
        at += stored


def _inflate(content: bytes, size: int, at: int, damage: Damage) -> bytearray:
    try:
        if size > min(len(content) * _LARGEST_RATIO, LARGEST):
            raise DamagedData(f"{len(content)} bytes would become {size}", bytearray())
        return decompress(content, max(size, 0))
    except DamagedData as error:
        damage.add(f"the compressed buffer at offset {at:#x} is damaged: {error}")
        return error.so_far
