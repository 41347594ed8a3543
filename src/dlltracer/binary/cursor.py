"""Bounded reads: nothing outside of the data is ever read, and asking for it is a `BinaryFormatError`."""

from __future__ import annotations

from ..errors import BinaryFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mmap import mmap
    from struct import Struct
    from typing import Any

    Data = bytes | bytearray | mmap


class Cursor:
    """Reads from `data` at offsets that nobody has checked yet.

    `what` in every method is what the caller looks for, for the message of the error.
    """

    __slots__ = ("data", "size")

    def __init__(self, data: Data | memoryview) -> None:
        self.data: Data = bytes(data) if isinstance(data, memoryview) else data  # it has no `find`
        self.size = len(data)

    def unpack(self, layout: Struct, offset: int, what: str) -> tuple[Any, ...]:
        """The fields of `layout` at `offset`."""
        if offset < 0 or offset + layout.size > self.size:
            raise self.cut_short(offset, layout.size, what)
        return layout.unpack_from(self.data, offset)

    def take(self, offset: int, size: int, what: str) -> bytes:
        """A copy of `size` bytes at `offset`."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise self.cut_short(offset, size, what)
        return bytes(self.data[offset : offset + size])

    def text(self, offset: int, what: str, *, limit: int = 4096, end: int | None = None) -> bytes:
        """The bytes from `offset` to the next NUL, which has to come within `limit` bytes and before `end`."""
        end = self.size if end is None else min(end, self.size)
        if offset < 0 or offset >= end:
            raise self.cut_short(offset, 1, what, end)
        stop = self.data.find(b"\0", offset, min(offset + limit, end))
        if stop < 0:
            raise BinaryFormatError(offset, f"{what} has no end")
        return bytes(self.data[offset:stop])

    def cut_short(self, offset: int, size: int, what: str, end: int | None = None) -> BinaryFormatError:
        """The error for `size` bytes at `offset` that are not all there."""
        end = self.size if end is None else end
        return BinaryFormatError(
            offset, f"cut short or damaged: {what} ends at {offset + size:#x}, what is there ends at {end:#x}"
        )
