"""The processes of a trace: which program had which process id, and when. Pure.

Process ids are used again, so an id names a process only together with a time. Two providers may tell of the same start
(the kernel's process events, and Microsoft-Windows-Kernel-Process): what the second one knows completes the first.
"""

from __future__ import annotations

import ntpath
from bisect import bisect_right
from dataclasses import dataclass

from .event import EtlEvent, EtlProvider
from .processevents import ManifestId, ProcessPayload, ProcessType, decode_manifest_process, decode_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
