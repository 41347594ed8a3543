"""glibc's account of its loader, decoded into events. Pure: bytes in, values out, on any system.

A load is a *transaction* of dlopen: opened, searched, mapped, then either initialised and opened, or torn down. glibc
never says "not found"; that is read from what follows a search that led to no image (`_Reader._settle`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace

from ...model.events import FailureKind, LoadEvent, LoadFailedEvent, UnloadEvent
from ...model.probe import Phase, Probe, ProbeOutcome
from ...model.request import Request
from .lines import Line, LineKind, parse_line
from .marks import split_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    ImageEventT = TypeVar("ImageEventT", LoadEvent, LoadFailedEvent)

ImageChange = LoadEvent | LoadFailedEvent | UnloadEvent

_PREFIX = re.compile(rb" *(\d+):\t")


@dataclass(frozen=True)
class DecodedText:
    """Arguments of `Recording` that the text decides.

    Attributes: `events` in order; `undecodable` lines; `foreign` lines, written by other processes (a child made by
    fork in C code); `initialising`, the image whose initialiser was running when the text ended, if any; `doubts`:
    index of a failure in `events` -> the image opened next. The text does not tell whether that dlopen failed and
    another one followed, or whether it found the same file under another name: whoever can look at files decides.
    """

    events: tuple[ImageChange, ...]
    doubts: dict[int, str]
    undecodable: int
    foreign: int
    initialising: str | None


def decode_loader_text(text: bytes, *, pid: int | None = None, ended: bool = True) -> DecodedText:
    """Decode the loader's text.

    Arguments:
        text: bytes as written by ld.so, with the marks of `requests.encode_request` between.
        pid: only lines of this process; `None` for the process of the first line.
        ended: the text is whole. `False` for a process that died: a search without a result is then no failure.
    Never raises for any input: what it cannot read is counted.
    """
    reader = _Reader(pid)
    for item in split_text(text):
        reader.read(item)
    return reader.finish(ended)


@dataclass
class _Want:
    """A name the loader is looking for."""

    name: str
    by: str | None
    probes: list[Probe] = field(default_factory=list)
    phase: Phase | None = None
    origin: str | None = None


@dataclass
class _Opening:
    """A dlopen in progress: its top name, the images it mapped, and whether they can no longer be dropped."""

    name: str
    request: Request | None
    mapped: list[str] = field(default_factory=list)
    committed: bool = False
    failed: bool = False
    error: tuple[str, str] | None = None

    def is_about(self, path: str) -> bool:
        """Whether `path` is what this dlopen asked for."""
        return path == self.name or (bool(self.mapped) and self.mapped[0] == path)


class _Reader:
    """The state of the loader, as far as its account tells."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._events: list[ImageChange] = []
        self._undecodable = 0
        self._foreign = 0
        self._requests: list[Request] = []
        self._openings: list[_Opening] = []
        self._want: _Want | None = None
        self._loaded: dict[str, LoadEvent] = {}
        self._mapping: LoadEvent | None = None
        self._initialising: str | None = None
        self._doubts: dict[int, str] = {}

    def read(self, item: Request | bytes | None) -> None:
        if isinstance(item, Request):
            self._requests.append(item)
            return
        if item is None:
            self._undecodable += 1
            return
        if not item or item.endswith(b":\t"):
            return  # nearly half of all lines are empty
        prefix = _PREFIX.match(item)
        if prefix is None:
            self._undecodable += 1
            return
        pid = int(prefix[1])
        if self._pid is None:
            self._pid = pid
        if pid != self._pid:
            self._foreign += 1
            return
        # The file system's encoding for every Python this runs on (PEP 383): undecodable bytes survive.
        self._handle(parse_line(item[prefix.end() :].decode("utf-8", "surrogateescape")))

    def finish(self, ended: bool) -> DecodedText:
        self._flush_mapping()
        if ended:
            self._settle(failed=True)
        return DecodedText(tuple(self._events), self._doubts, self._undecodable, self._foreign, self._initialising)

    def _handle(self, line: Line) -> None:
        if line.kind in (LineKind.IGNORED, LineKind.UNKNOWN):
            self._undecodable += line.kind is LineKind.UNKNOWN
            return
        if line.kind is LineKind.PLACE:
            if self._mapping is not None:
                self._mapping = replace(self._mapping, base=line.base, size=line.size)
            self._flush_mapping()
            return
        self._flush_mapping()
        if line.kind is not LineKind.DESTROY:
            while self._openings and self._openings[-1].failed:
                self._openings.pop()
        if line.kind in (LineKind.FIND, LineKind.SEARCH, LineKind.TRY, LineKind.MISS):
            self._search(line)
        elif line.kind in (LineKind.OPEN, LineKind.NEED, LineKind.MAP):
            self._start(line)
        else:
            self._end(line)

    def _search(self, line: Line) -> None:
        if line.kind is LineKind.FIND:
            if self._want is None or self._want.name != line.name:
                self._settle(failed=False)
                self._want = _Want(line.name, None)
        elif self._want is None or (line.kind is LineKind.MISS and not self._want.probes):
            self._undecodable += 1
        elif line.kind is LineKind.MISS:
            absent = line.by == "no such file"
            outcome, reason = (ProbeOutcome.ABSENT, None) if absent else (ProbeOutcome.PRESENT, line.by)
            self._want.probes[-1] = replace(self._want.probes[-1], outcome=outcome, reason=reason)
        elif line.kind is LineKind.SEARCH:
            self._want.phase, self._want.origin = line.phase, line.by
            if line.phase is Phase.CACHE and line.by:
                self._want.probes.append(Probe(line.by, Phase.CACHE, None, ProbeOutcome.NO_ENTRY))
        else:
            probes = self._want.probes
            if self._want.phase is Phase.CACHE and probes and probes[-1].outcome is ProbeOutcome.NO_ENTRY:
                probes.pop()  # it had one: the place that is tried now
            probes.append(Probe(line.name, self._want.phase or Phase.OTHER, self._want.origin))

    def _start(self, line: Line) -> None:
        if line.kind is LineKind.OPEN:
            # A new dlopen while a search is open: that search's own dlopen has ended, or it would have said so.
            self._settle(failed=True)
            while self._openings and self._openings[-1].failed:
                self._openings.pop()
            self._openings.append(_Opening(line.name, self._take_request(line.name)))
            self._want = _Want(line.name, line.by)
        elif line.kind is LineKind.NEED:
            self._settle(failed=False)
            self._want = _Want(line.name, line.by)
        else:
            self._map(line.name)

    def _map(self, name: str) -> None:
        want = self._want if self._want is not None and self._want.name == name else _Want(name, None)
        self._want = None
        if want.probes:
            found = want.probes[-1]
            probes = (*want.probes[:-1], replace(found, outcome=ProbeOutcome.LOADED))
        else:
            probes = (Probe(name, Phase.DIRECT, outcome=ProbeOutcome.LOADED),)
            found = probes[0]
        request = self._openings[-1].request if self._openings else None
        event = LoadEvent(found.path, pid=self._pid, need=name, requested_by=want.by, phase=found.phase, probes=probes)
        self._mapping = _attributed(event, request)

    def _flush_mapping(self) -> None:
        if self._mapping is not None:
            event, self._mapping = self._mapping, None
            self._events.append(event)
            self._loaded[event.path] = event
            if self._openings:
                self._openings[-1].mapped.append(event.path)

    def _end(self, line: Line) -> None:
        if line.kind is LineKind.ERROR:
            self._settle(failed=False)
            if self._openings:
                self._openings[-1].failed = True
                self._openings[-1].error = (line.name, line.by or "")
        elif line.kind is LineKind.DESTROY:
            self._settle(failed=True)
            self._destroy(line.name)
        elif line.kind is LineKind.INIT:
            owner = next((o for o in reversed(self._openings) if line.name in o.mapped), None)
            self._settle(failed=owner is not None and owner is not self._openings[-1])
            if owner is not None:
                owner.committed = True
            self._initialising = line.name
        elif line.kind is LineKind.OPENED:
            self._opened(line.name)
        else:  # FINI and CLOSE belong to dlclose, so any dlopen that was searching has ended
            self._settle(failed=True)

    def _opened(self, path: str) -> None:
        self._initialising = None
        top = self._openings[-1] if self._openings else None
        if self._want is not None and (top is None or not top.is_about(path)):
            if not any(outer.is_about(path) for outer in self._openings[:-1]):
                self._doubts[len(self._events)] = path
            self._settle(failed=True)
            while self._openings and self._openings[-1].failed:
                self._openings.pop()
            top = self._openings[-1] if self._openings else None
        self._want = None
        # glibc also says "opening" for an image that it had already, without having begun a transaction.
        if top is not None and top.is_about(path):
            self._openings.pop()

    def _settle(self, *, failed: bool) -> None:
        """Decide the search in progress, if there is one.

        It led to no image, which has two meanings: the loader went on, so the name was an image it had already (found
        by inode or soname); or it gave up, so the name was not found. What came next tells which.
        """
        want, self._want = self._want, None
        if want is None or not failed:
            return
        probes = tuple(want.probes) or (Probe(want.name, Phase.DIRECT),)
        opening = self._openings[-1] if self._openings else None
        if opening is not None:
            opening.failed = True
        event = LoadFailedEvent(
            want.name, pid=self._pid, need=want.name, requested_by=want.by, probes=probes, kind=FailureKind.NOT_FOUND
        )
        self._events.append(_attributed(event, opening.request if opening else None))

    def _destroy(self, path: str) -> None:
        loaded = self._loaded.pop(path, None) or LoadEvent(path, pid=self._pid)
        owner = next((o for o in reversed(self._openings) if path in o.mapped and not o.committed), None)
        known: dict[str, Any] = {item.name: getattr(loaded, item.name) for item in fields(loaded)}
        if owner is None:
            self._events.append(UnloadEvent(**known))
            return
        owner.failed = True
        reason = owner.error[1] if owner.error is not None and owner.error[0] == path else None
        self._events.append(LoadFailedEvent(**known, kind=FailureKind.DROPPED, reason=reason))

    def _take_request(self, name: str) -> Request | None:
        """The oldest request for exactly this name; else that of the dlopen around this one."""
        for number, request in enumerate(self._requests):
            if name in (request.target, f"./{request.target}"):
                return self._requests.pop(number)
        return self._openings[-1].request if self._openings else None


def _attributed(event: ImageEventT, request: Request | None) -> ImageEventT:
    """The event with what its request knows."""
    if request is None:
        return event
    return replace(event, imports=request.imports, tid=request.tid, timestamp=request.wall)
