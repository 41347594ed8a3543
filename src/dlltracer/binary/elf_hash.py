"""Which symbols a lookup can find: the ones in the hash table of the file.

Sources: the generic ABI, chapter 5; for DT_GNU_HASH bfd/elflink.c of binutils.
"""

from __future__ import annotations

from ..errors import BinaryFormatError
from .elf_layout import DT_GNU_HASH, DT_HASH, EM_ALPHA, EM_S390, integers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .elf_dynamic import Dynamic


def hashed_range(dynamic: Dynamic, machine: int, room: int) -> tuple[int, int]:
    """The indexes of the symbols that a lookup can find: first, and one past the last."""
    what = "the hash table"
    place = dynamic.locate(DT_GNU_HASH, what)
    if place is not None:
        return _gnu_hashed_range(dynamic, *place, room)
    place = dynamic.locate(DT_HASH, what)
    if place is None:
        return 0, 0
    # The two that have 8 bytes for a number here: binutils, include/elf/external.h and bfd/elf64-s390.c.
    wide = dynamic.layout.bits == 64 and machine in (EM_S390, EM_ALPHA)
    block = dynamic.cursor.take(place[0], 16 if wide else 8, what)
    return 1, int.from_bytes(block[len(block) // 2 :], "little" if dynamic.layout.little_endian else "big")


def _gnu_hashed_range(dynamic: Dynamic, start: int, end: int, room: int) -> tuple[int, int]:
    what = "the hash table"
    cursor, word = dynamic.cursor, dynamic.layout.word
    buckets, first, bloom = (cursor.unpack(word, start + at, what)[0] for at in (0, 4, 8))
    at = start + 16 + bloom * dynamic.layout.bits // 8
    if at + 4 * buckets > end:
        raise cursor.cut_short(at, 4 * buckets, what, end)
    last = max(integers("I", cursor.take(at, 4 * buckets, what), dynamic.layout.little_endian), default=0)
    if last < first or not last:
        return 0, 0
    # The chain of the highest bucket ends the table; its end has the lowest bit set.
    chains = at + 4 * buckets - 4 * first
    while last < room:
        offset = chains + 4 * last
        size = min(1024, end - offset) & ~3
        if size <= 0:
            break
        for hashed in integers("I", cursor.take(offset, size, what), dynamic.layout.little_endian):
            last += 1
            if hashed & 1:
                return first, last
    raise BinaryFormatError(start, "cut short or damaged: the hash table has no end")
