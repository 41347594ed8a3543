"""What the kernel says about processes, decoded. Pure.

Source: Process_TypeGroup1 and its older versions, wmicore.mof of the Windows Driver Kit and MS Learn; the manifest of
Microsoft-Windows-Kernel-Process. P is the pointer size of the event; nothing is padded.

    V0          ProcessId P, ParentId P, UserSID, ImageFileName
    V1, V2      P (PageDirectoryBase, UniqueProcessKey), ProcessId u32, ParentId u32, SessionId u32, ExitStatus i32,
                UserSID, ImageFileName; V2 then CommandLine
    V3          as V2, with DirectoryTableBase P before UserSID
    V4, V5      as V3, with Flags u32 before UserSID; after CommandLine what is of no use here

UserSID is four zero bytes, or a TOKEN_USER of two pointers and the SID, which is 8 bytes and 4 for each of the
subauthorities that its second byte counts. ImageFileName is of bytes, CommandLine of UTF-16, each up to a NUL.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from ..windows.image_records import text_at


class ProcessType(IntEnum):
    """EVENT_TRACE_TYPE_ values of the classic provider."""

    START = 1
    END = 2
    RUNDOWN_START = 3
    RUNDOWN_END = 4
    DEFUNCT = 39
    """It has ended, and something holds its object still."""


class ManifestId(IntEnum):
    """Event ids of Microsoft-Windows-Kernel-Process."""

    START = 1
    STOP = 2
    IMAGE_LOAD = 5
    IMAGE_UNLOAD = 6
    RUNDOWN = 15


@dataclass(frozen=True)
class ProcessPayload:
    """What one event says about a process. `None` where its version does not say it.

    Attributes: `status`, its exit status, without a sign; `name`, the file's name, possibly cut to 14 bytes; `program`,
    the file's path; `created`, a FILETIME.
    """

    pid: int
    parent: int | None = None
    status: int | None = None
    name: str | None = None
    command_line: str | None = None
    program: str | None = None
    created: int | None = None


def decode_process(data: bytes, version: int, pointer_size: int) -> ProcessPayload | None:
    """The payload of a classic process event; `None` when it is cut short."""
    pointer = "Q" if pointer_size == 8 else "I"
    status: int | None = None
    try:
        if version == 0:
            pid, parent = struct.unpack_from(f"<{pointer}{pointer}", data)
            at = 2 * pointer_size
        else:
            pid, parent, status = struct.unpack_from("<II4xI", data, pointer_size)
            at = pointer_size + 16 + (pointer_size if version >= 3 else 0) + (4 if version >= 4 else 0)
        at = _after_sid(data, at, 2 * pointer_size)
    except (struct.error, IndexError):
        return None
    end = data.find(b"\0", at)
    if end < 0:
        return None
    command = None if version <= 1 else text_at(data, end + 1)
    return ProcessPayload(
        pid & 0xFFFF_FFFF, parent & 0xFFFF_FFFF, status, _file_name(data[at:end]), command[0] if command else None
    )


def decode_manifest_process(data: bytes, kind: int, version: int) -> ProcessPayload | None:
    """The payload of `ManifestId.START`, `STOP` or `RUNDOWN`; `None` when it is cut short.

    Later versions have sequence numbers among the fields, and the label of the process's token before its name.
    """
    stop = kind == ManifestId.STOP
    newer = version >= {ManifestId.START: 3, ManifestId.STOP: 2}.get(ManifestId(kind), 1)
    try:
        if stop:
            pid, created, status = struct.unpack_from("<I8xQ8xI" if newer else "<IQ8xI", data)
            return ProcessPayload(pid, status=status, created=created)
        if newer:
            pid, created, parent = struct.unpack_from("<I8xQI", data)
            at = _after_sid(data, 48, 0)
        else:
            pid, created, parent = struct.unpack_from("<IQI", data)
            at = 20 if version == 0 and kind == ManifestId.START else 24
    except (struct.error, IndexError):
        return None
    path = text_at(data, at)
    if path is None:
        return None
    return ProcessPayload(pid, parent, program=path[0], name=path[0].rsplit("\\", 1)[-1], created=created)


def _after_sid(data: bytes, at: int, before: int) -> int:
    """Where a SID ends that has `before` bytes in front of it; of a TOKEN_USER only four zeros may be there."""
    if before and not any(data[at : at + 4]):
        return at + 4
    return at + before + 8 + 4 * data[at + before + 1]


def _file_name(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
