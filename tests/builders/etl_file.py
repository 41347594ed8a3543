"""Build .etl files: buffers of events under every kind of header, plain or compressed."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

FREQUENCY = 10_000_000
STARTED = 132_273_542_277_445_790
"""FILETIME of the start; `FIRST_TICK` is what the events' clock showed then."""
FIRST_TICK = 1_000_000
START_EPOCH = (STARTED - 116_444_736_000_000_000) / 1e7

IMAGE = uuid.UUID("2cb15d1d-5fc1-11d2-abe1-00a0c911f518")
PROCESS = uuid.UUID("3d6fa8d0-fe05-11d0-9dda-00c04fd7ba7c")
KERNEL_PROCESS = uuid.UUID("22fb2cd6-0e7b-422b-a0c7-2fad1fd0e716")
CONFIG = uuid.UUID("9b79ee91-b5fd-41c0-a243-4248e266e9d0")
USER_LOADER = uuid.UUID("b059b83f-d946-4b13-87ca-4292839dc2f2")

LOAD, UNLOAD, THERE_AT_START, THERE_AT_END = 0x030A, 0x1402, 0x1403, 0x1404
PROCESS_START, PROCESS_END, PROCESS_THERE = 0x0301, 0x0302, 0x0303
SID = bytes.fromhex("0105000000000005150000001b81feae760c7c60564c8b56e9030000")
_SYSTEM = {4: 0x01, 8: 0x02}


def wide(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass") + b"\0\0"


def _padded(record: bytes) -> bytes:
    return record + bytes(-len(record) % 8)


def system(
    hook: int, data: bytes, *, pid: int = 1, tid: int = 2, ticks: int = FIRST_TICK, version: int = 3,
    pointer_size: int = 8,
) -> bytes:  # fmt: skip
    """An event of the kernel, with the SYSTEM header."""
    head = struct.pack("<HBBHHIIQII", version, _SYSTEM[pointer_size], 0xC0, 32 + len(data), hook, tid, pid, ticks, 0, 0)
    return _padded(head + data)


def compact(
    hook: int, data: bytes, *, pid: int = 1, tid: int = 2, ticks: int = FIRST_TICK, version: int = 3,
    pointer_size: int = 8,
) -> bytes:  # fmt: skip
    kind = _SYSTEM[pointer_size] + 2
    return _padded(struct.pack("<HBBHHIIQ", version, kind, 0xC0, 24 + len(data), hook, tid, pid, ticks) + data)


def perfinfo(hook: int, data: bytes, *, ticks: int = FIRST_TICK, version: int = 3, pointer_size: int = 8) -> bytes:
    kind = 0x11 if pointer_size == 8 else 0x10
    return _padded(struct.pack("<HBBHHQ", version, kind, 0xC0, 16 + len(data), hook, ticks) + data)


def classic(
    provider: uuid.UUID, kind: int, data: bytes, *, pid: int = 1, tid: int = 2, ticks: int = FIRST_TICK,
    version: int = 3, pointer_size: int = 8,
) -> bytes:  # fmt: skip
    """An event with EVENT_TRACE_HEADER, as programs and mergers write."""
    header = 0x14 if pointer_size == 8 else 0x0A
    head = struct.pack("<HBBBBHIIQ", 48 + len(data), header, 0xC0, kind, 0, version, tid, pid, ticks)
    return _padded(head + provider.bytes_le + bytes(8) + data)


def manifest(
    provider: uuid.UUID, number: int, data: bytes, *, pid: int = 1, tid: int = 2, ticks: int = FIRST_TICK,
    version: int = 0, pointer_size: int = 8, opcode: int = 0, items: Sequence[bytes] = (),
) -> bytes:  # fmt: skip
    """An event with EVENT_HEADER; `items` are the contents of its extended items."""
    extended = b"".join(
        _padded(struct.pack("<HHHH", 8 + len(item), 6, index + 1 < len(items), len(item)) + item)
        for index, item in enumerate(items)
    )  # the size of an item is what its padding makes it
    fixed = bytearray(extended)
    at = 0
    while at < len(fixed):
        (size,) = struct.unpack_from("<H", fixed, at)
        struct.pack_into("<H", fixed, at, size + (-size % 8))
        at += size + (-size % 8)
    header = 0x13 if pointer_size == 8 else 0x12
    flags = (0x40 if pointer_size == 8 else 0x20) | (1 if items else 0)
    size = 80 + len(fixed) + len(data)
    head = struct.pack("<HBBHHIIQ", size, header, 0xC0, flags, 0, tid, pid, ticks) + provider.bytes_le
    head += struct.pack("<HBBBBHQ", number, version, 16, 4, opcode, 0, 0) + bytes(24)
    return _padded(head + bytes(fixed) + data)


def manifest_image(path: str, *, base: int = 0x10000, size: int = 0x2000, pid: int = 1, pointer_size: int = 8) -> bytes:
    """The payload of events 5 and 6 of Microsoft-Windows-Kernel-Process."""
    p = "Q" if pointer_size == 8 else "I"
    return struct.pack(f"<{p}{p}III{p}", base, size, pid, 0xC0FFEE, 1_600_000_000, base) + wide(path)


def process_payload(
    pid: int, name: str, command: str = "", *, parent: int = 7, status: int = 0x103, version: int = 4,
    pointer_size: int = 8, sid: bytes | None = SID,
) -> bytes:  # fmt: skip
    """The payload of a classic process event; `sid` is `None` for a process without user."""
    p = "Q" if pointer_size == 8 else "I"
    user = bytes(4) if sid is None else struct.pack(f"<{p}{p}", 0xFFFFA000_0BADF00D & 256**pointer_size - 1, 0) + sid
    tail = user + name.encode() + b"\0"
    if version == 0:
        return struct.pack(f"<{p}{p}", pid, parent) + tail
    head = struct.pack(f"<{p}IIII", 0xF00D, pid, parent, 1, status)
    if version >= 3:
        head += struct.pack(f"<{p}", 0x1000)
    if version >= 4:
        head += struct.pack("<I", 0)
    return head + tail + (wide(command) if version >= 2 else b"") + (wide("") * 2 if version >= 4 else b"")


def volume(device: str, drive: str, **more: int) -> bytes:
    """What merging adds: the drive of a device, both with their backslash."""
    return classic(CONFIG, 35, wide(device + "\\") + wide(drive + "\\"), version=0, **more)


def logfile_header(
    *, pointer_size: int = 8, events_lost: int = 0, buffers_lost: int = 0, ended: int = STARTED + 10_000_000,
    clock: int = 1, frequency: int = FREQUENCY, buffer_size: int = 4096,
) -> bytes:  # fmt: skip
    """The first event of a file."""
    p = "Q" if pointer_size == 8 else "I"
    data = struct.pack("<IIIIqIIII", buffer_size, 0x0501000A, 19041, 4, ended, 156250, 0, 1, 3)
    data += struct.pack("<IIII", 1, pointer_size, events_lost, 3000)
    data += struct.pack(f"<{p}{p}", 0, 0) + bytes(172)
    data += bytes(-len(data) % 8)
    data += struct.pack("<qqqII", STARTED - 1, frequency, STARTED, clock, buffers_lost)
    return system(0x0000, data + wide("session") + wide("C:\\x.etl"), version=2, pointer_size=pointer_size)


def buffer(
    events: bytes, *, size: int | None = None, compressed: bool = False, kind: int = 0, flags: int = 0,
    literal: bool = False,
) -> bytes:  # fmt: skip
    """One buffer, filled up to `size` bytes; compressed ones have the size that they have."""
    saved = 72 + len(events)
    body = compress(events, literal=literal) if compressed else events + b"\xff" * max((size or saved) - saved, 0)
    head = struct.pack("<IIIiqqQHHI", 72 + len(body), saved, saved, 0, 0, 0, 0, 0, 1, 0)
    return head + struct.pack("<IHH", saved, flags | (0x40 if compressed else 0), kind) + bytes(16) + body


def etl_file(
    events: Sequence[bytes], *, per_buffer: int = 8, compressed: bool = False, size: int = 4096, **header: int
) -> bytes:
    """A whole file: the buffer that describes it, and the events, `per_buffer` in each of the others."""
    parts = [buffer(logfile_header(**header), size=None if compressed else size, kind=4, flags=1)]
    for start in range(0, len(events), per_buffer):
        content = b"".join(events[start : start + per_buffer])
        parts.append(buffer(content, size=None if compressed else size, compressed=compressed))
    return b"".join(parts)


@dataclass
class _Flags:
    at: int
    bits: int = 0
    count: int = 0


def compress(data: bytes, *, literal: bool = False) -> bytes:
    """XPRESS, plain LZ77 (MS-XCA 2.3): the last place of each three bytes is tried; with `literal`, none is."""
    out = bytearray(4)
    flags = _Flags(0)
    seen: dict[bytes, int] = {}
    half: list[int] = []
    at = 0
    while at < len(data):
        key = data[at : at + 3]
        start = seen.get(key) if not literal and len(key) == 3 else None
        length = 0
        if start is not None and at - start <= 8192:
            while at + length < len(data) and data[start + length] == data[at + length]:
                length += 1
        if length >= 3:
            assert start is not None
            _match(out, half, at - start, length)
        else:
            length = 1
            out.append(data[at])
        for position in range(at, at + length):
            seen[data[position : position + 3]] = position
        at += length
        flags.bits = flags.bits << 1 | (length > 1)
        flags.count += 1
        if flags.count == 32:
            struct.pack_into("<I", out, flags.at, flags.bits)
            flags = _Flags(len(out))
            out += bytes(4)
    struct.pack_into("<I", out, flags.at, (flags.bits << (32 - flags.count)) | ((1 << (32 - flags.count)) - 1))
    return bytes(out)


def _match(out: bytearray, half: list[int], distance: int, length: int) -> None:
    rest = length - 3
    out += struct.pack("<H", (distance - 1) << 3 | min(rest, 7))
    if rest < 7:
        return
    nibble = min(rest - 7, 15)
    if half:
        out[half.pop()] |= nibble << 4
    else:
        half.append(len(out))
        out.append(nibble)
    if nibble < 15:
        return
    if rest - 22 < 255:
        out.append(rest - 22)
    elif rest <= 0xFFFF:
        out += b"\xff" + struct.pack("<H", rest)
    else:
        out += b"\xff" + struct.pack("<HI", 0, rest)
