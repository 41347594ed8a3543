"""From one event to the next inside of a buffer, as fast as Python can: what nobody asked for is passed over unseen.

Source: the headers of ntwmi.h as Geoff Chappell describes them ("SYSTEM_TRACE_HEADER", "PERFINFO_TRACE_HEADER",
"hookid"), EVENT_TRACE_HEADER and EVENT_HEADER of evntrace.h and evntcons.h, checked against files of Windows 7 to 11.
Events begin at multiples of 8 bytes. The fourth byte is 0xC0, the third the kind of header (the odd and even numbers
are 32 and 64 bit); or the fourth is 0x90, for a message.

    kind                 bytes  first 8 bytes                                           then
    0x01 0x02  SYSTEM    32     u16 version, kind, 0xC0, u16 size, u8 type, u8 group    u32 tid, u32 pid, u64 time, ...
    0x03 0x04  COMPACT   24     the same                                                u32 tid, u32 pid, u64 time
    0x10 0x11  PERFINFO  16     the same                                                u64 time
    0x0A 0x14  FULL      48     u16 size, kind, 0xC0, u8 type, u8 level, u16 version    tid, pid, time, GUID, ...
    0x12 0x13  EVENT     80     u16 size, kind, 0xC0, u16 flags, u16                    tid, pid, time, GUID, descriptor
    others                      u16 size, ...
"""

from __future__ import annotations

import sys
from array import array

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set

    Words = array[int]
    """Of the type code "Q", which is an unsigned 64-bit number everywhere."""

CLASSIC = frozenset({0xC00A, 0xC014})
MANIFEST = frozenset({0xC012, 0xC013})
HOOKED = frozenset({0xC001, 0xC002, 0xC003, 0xC004, 0xC010, 0xC011})
"""SYSTEM, COMPACT, PERFINFO: kinds whose first word ends with the hook: group * 256 + type."""
_GUIDED = CLASSIC | MANIFEST
_END = frozenset({0, 0xFFFF_FFFF})
_SMALLEST = 8


class FoundEvents:
    """The events of one buffer that were asked for.

    Attributes: `events`, as (index of the first word, that word); `strange`, how many have a header that has no
    meaning here (messages, instances); `damaged`, whether the walk met what is no event, or one that is cut off.
    """

    __slots__ = ("damaged", "events", "strange")

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []
        self.strange = 0
        self.damaged = False


def as_words(content: bytes | bytearray) -> Words:
    """The content of a buffer, a multiple of 8 bytes, as 64-bit numbers."""
    words = array("Q")
    words.frombytes(content)
    if sys.byteorder == "big":
        words.byteswap()
    return words


def find_events(words: Words, hooks: Set[int], providers: Set[int]) -> FoundEvents:
    """Walk over the events of one buffer. Those that are found lie in it whole.

    Arguments: `hooks`, group * 256 + type of the kernel's events that are wanted; `providers`, the first eight bytes of
    the GUIDs of others.
    """
    found = FoundEvents()
    add = found.events.append
    hooked, guided = HOOKED, _GUIDED
    at = size = 0
    end = len(words)
    while at < end:
        word = words[at]
        kind = word >> 16 & 0xFFFF
        if kind in hooked:
            size = word >> 32 & 0xFFFF
            if word >> 48 in hooks:
                add((at, word))
        elif kind in guided:
            size = word & 0xFFFF
            if at + 3 < end and words[at + 3] in providers:
                add((at, word))
        elif word & 0xFFFF_FFFF in _END:
            return found
        elif kind >> 8 in (0xC0, 0x90):
            size = word & 0xFFFF
            found.strange += 1
        else:
            size = 0
        if size < _SMALLEST:
            found.damaged = True
            return found
        at += size + 7 >> 3
    if at > end:
        found.damaged = True
        if found.events and found.events[-1][0] >= at - (size + 7 >> 3):
            found.events.pop()
    return found
