"""The processes of a trace: which program had which process id, and when. Pure.

Process ids are used again, so an id names a process only together with a time. Two providers may tell of the same start
(the kernel's process events, and Microsoft-Windows-Kernel-Process): what the second one knows completes the first.
"""

from __future__ import annotations

import ntpath
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from ..windows.image_records import text_at
from .event import EtlEvent, EtlProvider


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
        """Whether its program has that file name; case does not matter, and ".exe" may be left out."""
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
        """The process that had this id then; the first of the id for a time before all. Made when there is none."""
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
