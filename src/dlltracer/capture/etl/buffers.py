"""Reads the buffers of an .etl file one after the other. Any file is read, and losses are counted.

Source: WMI_BUFFER_HEADER (72 bytes, the same on x86 and x64) as Geoff Chappell describes it in "ETW Trace Logs" and
"WMI_BUFFER_HEADER". It was checked against files of Windows 7 to 11:

     0  u32  BufferSize, with the header; as stored, so smaller when the buffer is compressed
     4  u32  SavedOffset: bytes that are valid, with the header; as they were before compression
    48  u32  Offset: the same, and the only one that Windows 7 writes into the first buffer
    52  u16  BufferFlag: 0x02 events lost, 0x04 buffers lost, 0x40 compressed
    54  u16  BufferType: 4 for the first, which describes the file
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

HEADER_SIZE = 72
LARGEST = 1 << 24
"""Bytes of a buffer: sixteen times what "EVENT_TRACE_PROPERTIES", MS Learn, allows."""

_LARGEST_RATIO = 64
"""To which a buffer may grow when it is decompressed; files of Windows stay below 14."""
RATIO_IN_ALL = 16
"""To which a whole file may grow, beyond the first `LARGEST` bytes: a file of 5 MB then costs seconds, not minutes."""
_COMPRESSED = 0x40
_HEADER = struct.Struct("<II40xIH18x")
_MOST_PROBLEMS = 20


@dataclass
class Damage:
    """Problems of a file, collected while it is read.

    Attributes: `count` of buffers and events; `problems`, sentences on the first of them.
    """

    count: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, problem: str, count: int = 1) -> None:
        """Count so many buffers or events; `problem`, a sentence, is kept while few are."""
        self.count += count
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)


def read_buffers(file: BinaryIO, size: int, damage: Damage) -> Iterator[tuple[int, bytes | bytearray]]:
    """The offset in the file of each buffer, and its content, filled up with zeros to a multiple of 8 bytes.

    Arguments: `file`, open at its start, of `size` bytes. After a damaged header the next buffer is looked for where
    it lies in a file whose buffers all have the size of the first; `damage` gets what is passed over.
    """
    at = step = 0
    left = LARGEST + RATIO_IN_ALL * size
    while at < size:
        if left <= 0:
            damage.add(f"it holds more than {RATIO_IN_ALL} times its size: nothing from offset {at:#x} on is read")
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


HEAD_SIZE = HEADER_SIZE + 8
"""Bytes that `is_etl` needs."""

FILETIME_EPOCH = 116_444_736_000_000_000
"""1970 in units of 100 ns since 1601 (FILETIME, MS Learn)."""

_LATEST = 253_402_300_799  # the end of the year 9999, as far as datetime goes
_QPC, _SYSTEM_TIME, _CYCLES = 1, 2, 3
_FIXED = struct.Struct("<IIIIqIIIIIIII")
_TIMES = struct.Struct("<qqqII")


def is_etl(head: bytes) -> bool:
    """Return whether a file that begins with `head`, its first `HEAD_SIZE` bytes or more, is a recorded ETW session.

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
        """Return the time of an event, in seconds since the epoch; `None` for one before 1970 or after the year 9999.

        Arguments: `ticks`, of the clock of the file, as in the header of the event.
        """
        if self.clock == _SYSTEM_TIME:
            return filetime_to_epoch(ticks)
        seconds = (self.started - FILETIME_EPOCH) / 1e7 + (ticks - self.first_tick) / self.frequency
        return seconds if 0 < seconds < _LATEST else None


def filetime_to_epoch(filetime: int) -> float | None:
    """Return a FILETIME (units of 100 ns since 1601) as seconds since the epoch.

    `None` for a time before 1970 or after the year 9999, and so for 0, "not known".
    """
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


LONGEST = 1 << 24
"""Bytes that one piece of data may be decompressed to: ETW's buffers are far smaller."""

_Runs = tuple[tuple[int, ...], int]


class DamagedData(ValueError):
    """Compressed data that ends too early, or refers to what was never there.

    Attributes: `so_far`, what was decompressed before.
    """

    def __init__(self, problem: str, so_far: bytearray) -> None:
        super().__init__(problem)
        self.so_far = so_far


def decompress(data: bytes, size: int) -> bytearray:
    """The `size` bytes that `data` was made of.

    Raises `DamagedData`. What follows the `size` bytes is ignored: the last word of flags may announce more.
    """
    if size > LONGEST:
        raise DamagedData(f"decompressed it would be {size} bytes long", bytearray())
    out = bytearray()
    # The end of the data is met in the middle of the last word of flags, as a rule.
    with suppress(IndexError):
        _expand(data, size, out)
    if len(out) < size:
        raise DamagedData(f"{len(out)} of {size} bytes are there", out)
    del out[size:]
    return out


def _expand(data: bytes, size: int, out: bytearray) -> None:
    """Append to `out` until it has `size` bytes; `IndexError` where `data` ends.

    This loop is what reading a compressed file costs. It takes 16 flags at a time, as the literals before each match.
    """
    at = done = 0
    shared = 0  # where the byte lies whose upper half the next long match takes; no match comes before offset 4
    known = _RUNS
    while done < size:
        words = (data[at + 2] | data[at + 3] << 8, data[at] | data[at + 1] << 8)
        at += 4
        for word in words:
            runs, tail = known[word] or _learn(word)
            for run in runs:
                if run:
                    out += data[at : at + run]
                    at += run
                    done += run
                low = data[at]
                start = done - (low >> 3 | data[at + 1] << 5) - 1
                if start < 0:
                    raise DamagedData(f"a match begins {-start} bytes before the data", out)
                at += 2
                length = (low & 7) + 3
                if length == 10:
                    if shared:
                        length += data[shared] >> 4
                        shared = 0
                    else:
                        shared = at
                        length += data[at] & 15
                        at += 1
                    if length == 25:
                        length, at = _longer(data, at, size, out)
                end = start + length
                if end <= done:
                    out += out[start:end]
                else:
                    repeated = out[start:]
                    out += (repeated * (length // (done - start) + 1))[:length]
                done += length
            if tail:
                out += data[at : at + tail]
                at += tail
                done += tail


def _longer(data: bytes, at: int, size: int, out: bytearray) -> tuple[int, int]:
    """A length that takes 8, 16 or 32 bits more, and where the data goes on."""
    length = data[at]
    at += 1
    if length < 255:
        return length + 25, at
    length = data[at] | data[at + 1] << 8
    at += 2
    if not length:
        length = int.from_bytes(data[at : at + 4], "little")
        at += 4
    if length + 3 > size - len(out):
        raise DamagedData(f"a match of {length + 3} bytes where {size - len(out)} are missing", out)
    return length + 3, at


def _learn(word: int) -> _Runs:
    """Decode 16 flags: the number of literals before each match, and after the last."""
    runs: list[int] = []
    run = 0
    for bit in range(15, -1, -1):
        if word >> bit & 1:
            runs.append(run)
            run = 0
        else:
            run += 1
    _RUNS[word] = found = (tuple(runs), run)
    return found


_RUNS: list[_Runs | None] = [None] * 65536
"""By 16 flags; filled as they are met, as a file has few of them."""
