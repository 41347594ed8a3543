"""One event of a file, whose it is, and the processes of a trace: which program had which id, and when. Pure."""

from __future__ import annotations

import ntpath
import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from ..windows.etw.loader_messages import IMAGE_OPCODES
from ..windows.image_records import text_at

Words: TypeAlias = "array[int]"
"""Of the type code "Q", which is an unsigned 64-bit number everywhere."""


NO_ID = 0xFFFF_FFFF
"""Process and thread of an event whose header has none."""


class EtlProvider(IntEnum):
    """The providers of events that this reader knows."""

    LOGFILE = 0
    """The description of the file: group 0, type 0."""
    IMAGE = 1
    """{2cb15d1d-5fc1-11d2-abe1-00a0c911f518}: `kind` is a `image_records.Opcode`, or one of ntdll's loader."""
    PROCESS = 2
    """{3d6fa8d0-fe05-11d0-9dda-00c04fd7ba7c}: `kind` is the type, `ProcessType`."""
    KERNEL_PROCESS = 3
    """Microsoft-Windows-Kernel-Process: `kind` is the id."""
    CONFIG = 4
    """{9b79ee91-b5fd-41c0-a243-4248e266e9d0}, SysConfigEx, which merging adds: `kind` is the type."""
    USER_LOADER = 5
    """Microsoft-Windows-User-Loader: `kind` is the id."""


class EtlEvent(NamedTuple):
    """An event as it lies in the file.

    Attributes: `kind`, the type of a classic event, the id of another; `pointer_size`, 4 or 8, as the header says;
    `pid` and `tid` of the header, `NO_ID` where it has none; `ticks` of the session's clock; `data`, the payload.
    """

    provider: EtlProvider
    kind: int
    version: int
    pointer_size: int
    pid: int
    tid: int
    ticks: int
    data: bytes


_LOGFILE, _IMAGE, _PROCESS = EtlProvider.LOGFILE, EtlProvider.IMAGE, EtlProvider.PROCESS


def _word(text: str) -> int:
    """The first eight bytes of a GUID, as the number that `find_events` compares."""
    import uuid

    return int.from_bytes(uuid.UUID(text).bytes_le[:8], "little")


KERNEL_PROCESS = _word("22fb2cd6-0e7b-422b-a0c7-2fad1fd0e716")

PROVIDERS = {
    _word("2cb15d1d-5fc1-11d2-abe1-00a0c911f518"): EtlProvider.IMAGE,
    _word("3d6fa8d0-fe05-11d0-9dda-00c04fd7ba7c"): EtlProvider.PROCESS,
    KERNEL_PROCESS: EtlProvider.KERNEL_PROCESS,
    _word("9b79ee91-b5fd-41c0-a243-4248e266e9d0"): EtlProvider.CONFIG,
    _word("b059b83f-d946-4b13-87ca-4292839dc2f2"): EtlProvider.USER_LOADER,
}

LOADED, UNLOADED, THERE_AT_START, THERE_AT_END = 0x030A, 0x1402, 0x1403, 0x1404
"""Hooks, group * 256 + type, under which the kernel logs images: a load is in the group of processes."""

IMAGE_HOOKS = frozenset({LOADED, UNLOADED, THERE_AT_START, THERE_AT_END}) | {0x1400 + code for code in IMAGE_OPCODES}
HOOKS = frozenset({0x0000, 0x0301, 0x0302, 0x0303, 0x0304, 0x0327}) | IMAGE_HOOKS
"""What `find_events` is asked for: the description of the file, processes, images."""

KERNEL_PROCESS_IDS = frozenset({1, 2, 5, 6, 15})
"""Event ids of `EtlProvider.KERNEL_PROCESS` that mean anything here: most of its events are of threads."""

LAYOUTS = {
    0xC001: (32, 4), 0xC002: (32, 8), 0xC003: (24, 4), 0xC004: (24, 8), 0xC010: (16, 4), 0xC011: (16, 8),
    0xC00A: (48, 4), 0xC014: (48, 8), 0xC012: (80, 4), 0xC013: (80, 8),
}  # fmt: skip
"""By the kind of header: its bytes, and the size of a pointer."""


def read_event(content: bytes | bytearray, words: Words, at: int, word: int) -> EtlEvent | None:
    """Return the event that `find_events` found; `None` when it is shorter than its header.

    Arguments: `content`, the buffer; `words`, the same in units of 8 bytes; `at`, the index of its first word; `word`,
    that word.
    """
    kind, start = word >> 16 & 0xFFFF, at * 8
    header, pointer_size = LAYOUTS[kind]
    if kind in HOOKED:
        size, hook = word >> 32 & 0xFFFF, word >> 48
        if size < header:
            return None
        if header == 16:
            pid = tid = NO_ID
            ticks = words[at + 1]
        else:
            ids = words[at + 1]
            pid, tid, ticks = ids >> 32, ids & NO_ID, words[at + 2]
        provider = _IMAGE if hook in IMAGE_HOOKS else _PROCESS if hook else _LOGFILE
        data = bytes(content[start + header : start + size])
        return EtlEvent(provider, hook & 0xFF, word & 0xFF, pointer_size, pid, tid, ticks, data)
    data_at, end = start + header, start + (word & 0xFFFF)
    if data_at > end:
        return None
    pid, tid, ticks = words[at + 1] >> 32, words[at + 1] & NO_ID, words[at + 2]
    provider = PROVIDERS[words[at + 3]]
    if kind in CLASSIC:
        return EtlEvent(
            provider, word >> 32 & 0xFF, word >> 48, pointer_size, pid, tid, ticks, bytes(content[data_at:end])
        )
    flags, descriptor = word >> 32 & 0xFFFF, words[at + 5]
    if flags & 0x60:
        pointer_size = 4 if flags & 0x20 else 8
    if flags & 1:
        data_at = _after_items(content, data_at, end)
    # A classic event that was written with the newer header has its type as the opcode.
    number = descriptor >> 40 & 0xFF if provider is _IMAGE else descriptor & 0xFFFF
    return EtlEvent(
        provider, number, descriptor >> 16 & 0xFF, pointer_size, pid, tid, ticks, bytes(content[data_at:end])
    )


def _after_items(content: bytes | bytearray, at: int, end: int) -> int:
    """Return where the payload begins behind the extended items: u16 size, u16 type, u16 whether another follows, u16
    length of the data; padded to 8 bytes."""
    while at + 8 <= end:
        size, more = int.from_bytes(content[at : at + 2], "little"), content[at + 4] & 1
        at += max(size, 8) + 7 & ~7
        if not more:
            break
    return min(at, end)


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
    """The facts that one event has about a process. `None` where its version does not have the field.

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
    """Decode the payload of a classic process event; `None` when it is cut short.

    Arguments: `version` of the event, `pointer_size` (4 or 8) of the kernel. Source: Process_TypeGroup1, MS Learn.
    """
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
    """Decode the payload of a process event of the manifest; `None` when it is cut short.

    Arguments: `kind`, `ManifestId.START`, `STOP` or `RUNDOWN`; `version` of the event.

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
    """Return where a SID ends that has `before` bytes in front of it; of a TOKEN_USER only four zeros may be there."""
    if before and not any(data[at : at + 4]):
        return at + 4
    return at + before + 8 + 4 * data[at + before + 1]


def _file_name(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


_SHORT_NAME = (14, 15)
"""Bytes to which older versions of Windows cut the name of a program."""


@dataclass
class ProcessLifetime:
    """One process, from its start to its end, as far as the trace has it.

    Attributes: `begun` and `ended`, ticks; `None` where it was there before, or still after. `created`, a FILETIME.
    Others as of `ProcessPayload`.
    """

    pid: int
    parent: int | None = None
    name: str | None = None
    command_line: str | None = None
    program: str | None = None
    created: int | None = None
    begun: int | None = None
    ended: int | None = None
    status: int | None = None
    provider: EtlProvider | None = None

    @property
    def shown_name(self) -> str:
        """The file's name of its program; whole, where it is known."""
        return ntpath.basename(self.program) if self.program else self.name or ""

    def is_called(self, name: str) -> bool:
        """Return whether its program has that file name; case does not matter, and ".exe" may be left out."""
        wanted = name.lower()
        names = {known.lower() for known in (self.shown_name, self.name) if known}
        if names & {wanted, wanted + ".exe"}:
            return True
        return any(len(known) in _SHORT_NAME and (wanted + ".exe").startswith(known) for known in names)

    def complete(self, facts: ProcessPayload) -> None:
        """Add what was not known."""
        for field in ("parent", "name", "command_line", "program", "created"):
            if getattr(self, field) is None:
                setattr(self, field, getattr(facts, field))


class ProcessLifetimes:
    """All processes of a trace. `undecodable`: how many of the events could not be decoded."""

    def __init__(self, events: Iterable[EtlEvent]) -> None:
        self.undecodable = 0
        # For each id its processes in the order of their starts, and these; 0 for one that was there before.
        self._by_pid: dict[int, tuple[list[ProcessLifetime], list[int]]] = {}
        for event in sorted(events, key=ticks_of):
            self._take(event)

    def __iter__(self) -> Iterator[ProcessLifetime]:
        """In the order of their starts; those that were there before come first."""
        every = [life for lives, _ in self._by_pid.values() for life in lives]
        return iter(sorted(every, key=lambda life: -1 if life.begun is None else life.begun))

    def at(self, pid: int, ticks: int) -> ProcessLifetime:
        """Return the process that had this id then; the first of the id for a time before all. Made when there is none.

        Arguments: `ticks`, of the clock of the file.
        """
        if pid not in self._by_pid:
            self._by_pid[pid] = ([ProcessLifetime(pid)], [0])
        lives, begun = self._by_pid[pid]
        return lives[max(bisect_right(begun, ticks) - 1, 0)]

    def _take(self, event: EtlEvent) -> None:
        if event.provider is EtlProvider.PROCESS:
            facts = decode_process(event.data, event.version, event.pointer_size)
        else:
            facts = decode_manifest_process(event.data, event.kind, event.version)
        if facts is None:
            self.undecodable += 1
        elif (event.provider, event.kind) in _STARTS:
            self._start(facts, event)
        elif (event.provider, event.kind) in _ENDS:
            self._end(facts, event)
        else:
            life = self.at(facts.pid, event.ticks)
            life.complete(facts)
            if event.kind == ProcessType.DEFUNCT and life.status is None:
                life.status = facts.status

    def _start(self, facts: ProcessPayload, event: EtlEvent) -> None:
        lives, begun = self._by_pid.setdefault(facts.pid, ([], []))
        last = lives[-1] if lives else None
        if last is None or last.ended is not None or last.provider is event.provider or last.begun is None:
            last = ProcessLifetime(facts.pid, begun=event.ticks, provider=event.provider)
            lives.append(last)
            begun.append(event.ticks)
        last.complete(facts)

    def _end(self, facts: ProcessPayload, event: EtlEvent) -> None:
        life = self.at(facts.pid, event.ticks)
        life.complete(facts)
        life.status = facts.status if life.status is None else life.status
        life.ended = life.ended or event.ticks


def ticks_of(event: EtlEvent) -> int:
    """For sorting."""
    return event.ticks


_STARTS = {(EtlProvider.PROCESS, ProcessType.START), (EtlProvider.KERNEL_PROCESS, ManifestId.START)}
_ENDS = {(EtlProvider.PROCESS, ProcessType.END), (EtlProvider.KERNEL_PROCESS, ManifestId.STOP)}
