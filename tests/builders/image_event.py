"""Build image events of the NT kernel, in the layouts of wmicore.mof."""

from __future__ import annotations

import struct

from dlltracer.capture.windows.image_records import IMAGE_PROVIDER, RawRecord

PID = 4711
FREQUENCY = 10_000_000


def payload(
    path: str, *, base: int = 0x10000, size: int = 0x2000, pid: int = PID, version: int = 3, pointer_size: int = 8,
    checksum: int = 0xC0FFEE, link_time: int = 1_600_000_000,
) -> bytes:  # fmt: skip
    """The payload of an image event of `version`."""
    pointer = "Q" if pointer_size == 8 else "I"
    name = path.encode("utf-16-le", "surrogatepass") + b"\0\0"
    if version == 0:
        return struct.pack(f"<{pointer}I", base, size) + name
    if version == 1:
        return struct.pack(f"<{pointer}{pointer}I", base, size, pid) + name
    fields = struct.pack(f"<{pointer}{pointer}IIIBBH", base, size, pid, checksum, link_time, 12, 1, 0)
    return fields + struct.pack(f"<{pointer}IIII", base, 0, 0, 0, 0) + name


def record(
    opcode: int, data: bytes, *, tid: int = 1, ticks: int = 0, version: int = 3, pointer_size: int = 8, pid: int = PID,
    provider: bytes = IMAGE_PROVIDER,
) -> RawRecord:  # fmt: skip
    """An EVENT_RECORD (its first 88 bytes matter) with this payload."""
    flags = 0x20 if pointer_size == 4 else 0x40
    header = struct.pack("<HHHHIIq", 112, 0, flags, 0, tid, pid, ticks) + provider
    header += struct.pack("<HBBBBHQ", 0, version, 0, 0, opcode, 0, 0)
    return RawRecord(header.ljust(86, b"\0") + struct.pack("<H", len(data)).ljust(26, b"\0"), data)
