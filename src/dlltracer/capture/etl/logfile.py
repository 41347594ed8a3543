"""What an .etl file says about itself: its first event, and how to know such a file by it.

Source: TRACE_LOGFILE_HEADER, evntrace.h and MS Learn. Two pointers in it make its fields lie 8 bytes further in a trace
of 64-bit Windows; `capture.windows.structs` has the layout of the reader's own system only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .buffers import HEADER_SIZE, LARGEST

HEAD_SIZE = HEADER_SIZE + 8
"""Bytes that `is_etl` needs."""

FILETIME_EPOCH = 116_444_736_000_000_000
"""1970 in units of 100 ns since 1601 (FILETIME, MS Learn)."""

_LATEST = 253_402_300_799  # the end of the year 9999, as far as datetime goes
_QPC, _SYSTEM_TIME, _CYCLES = 1, 2, 3
_FIXED = struct.Struct("<IIIIqIIIIIIII")
_TIMES = struct.Struct("<qqqII")


def is_etl(head: bytes) -> bool:
    """Whether a file that begins with `head`, its first `HEAD_SIZE` bytes or more, is a recorded ETW session.

    By the header of the first buffer, and that of the first event in it, which describes the file: a system event
    (0xC001, 0xC002) of group and type 0.
    """
    if len(head) < HEAD_SIZE:
        return False
    (stored,) = struct.unpack_from("<I", head)
    kind, size, hook = struct.unpack_from("<2xHHH", head, HEADER_SIZE)
    return HEADER_SIZE < stored <= LARGEST and kind in (0xC001, 0xC002) and size > 32 and hook == 0


@dataclass(frozen=True)
class LogfileHeader:
    """The first event of a file.

    Attributes:
        major, minor, build: version of Windows.
        processors: how many there were.
        pointer_size: 4 or 8, of the kernel.
        started, ended: FILETIME; `ended` is 0 when the session was not stopped.
        frequency: ticks of the events' clock in a second.
        clock: 1 performance counter, 2 system time, 3 processor cycles.
        first_tick: what that clock showed at `started`.
        events_lost, buffers_lost: what Windows could not record.
    """

    major: int
    minor: int
    build: int
    processors: int
    pointer_size: int
    started: int
    ended: int
    frequency: int
    clock: int
    first_tick: int
    events_lost: int
    buffers_lost: int

    def epoch(self, ticks: int) -> float | None:
        """The time of an event, in seconds since the epoch; `None` for one before 1970 or after the year 9999."""
        if self.clock == _SYSTEM_TIME:
            return filetime_to_epoch(ticks)
        seconds = (self.started - FILETIME_EPOCH) / 1e7 + (ticks - self.first_tick) / self.frequency
        return seconds if 0 < seconds < _LATEST else None


def filetime_to_epoch(filetime: int) -> float | None:
    """Seconds since the epoch; `None` for a time before 1970 or after the year 9999, and so for 0, "not known"."""
    seconds = (filetime - FILETIME_EPOCH) / 1e7
    return seconds if 0 < seconds < _LATEST else None


def decode_logfile_header(data: bytes, pointer_size: int, ticks: int) -> LogfileHeader | None:
    """The payload of the first event, which has the time stamp `ticks`; `None` when it is cut short."""
    times_at = 232 + 2 * pointer_size
    if len(data) < times_at + _TIMES.size:
        return None
    _, version, build, processors, ended, _, _, _, _, _, pointers, events_lost, megahertz = _FIXED.unpack_from(data)
    _, frequency, started, clock, buffers_lost = _TIMES.unpack_from(data, times_at)
    if clock == _CYCLES:
        frequency = megahertz * 1_000_000
    return LogfileHeader(
        version & 0xFF, version >> 8 & 0xFF, build, processors, 4 if pointers == 4 else 8, started, ended,
        max(frequency, 1), clock or _QPC, ticks, events_lost, buffers_lost,
    )  # fmt: skip
