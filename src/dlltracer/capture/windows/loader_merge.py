"""What the loader said of its work, joined with the images that the kernel told of. Pure: runs on any system.

A message about a name that could not be loaded becomes a `LoadFailedEvent`, once, however many events said it. Who
asked for an image becomes its `requested_by`; where the loader looked become `probes`.

That the image which needed it was unloaded later is no proof that its own load had failed: it may have asked for the
missing one long after it was loaded (delay load), and have gone with the process.
"""

from __future__ import annotations

import ntpath
import re
from dataclasses import dataclass, replace

from ...model.events import FailureKind, LoadEvent, LoadFailedEvent, UnloadEvent
from ...model.probe import Phase, Probe, ProbeOutcome
from .decode import imports_during
from .loader_events import (
    IMAGE_OPCODES,
    USER_LOADER,
    USER_LOADER_IDS,
    Folders,
    Found,
    LoaderMessage,
    NewImage,
    SearchPath,
    Unloadable,
    decode_image_loader,
    decode_user_loader,
    plain_path,
)
from .records import IMAGE_PROVIDER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...model.events import Event
    from ...model.request import Request
    from .decode import Machine
    from .records import RawRecord

_VOLUME = re.compile(r"\\device\\[^\\]+(?=\\)")
_MOST_FOLDERS = 64
_MOST_REMARKS = 5


@dataclass(frozen=True)
class TimedMessage:
    """Something that the loader said. `time`, seconds since the epoch; `imports`, as of `LoadEvent`."""

    heard: LoaderMessage
    pid: int
    tid: int
    time: float | None
    imports: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Merged:
    """Events in order, and notes on what else the loader said."""

    events: tuple[Event, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class DecodedMessages:
    """What records of the loader say, and how many of them could not be decoded."""

    heard: tuple[TimedMessage, ...]
    undecodable: int


def decode_messages(records: Iterable[RawRecord], requests: Sequence[Request], machine: Machine) -> DecodedMessages:
    """Decode the records of the loader of one process; those of other kinds are passed over."""
    heard: list[TimedMessage] = []
    undecodable = 0
    for record in records:
        if record.provider == USER_LOADER:
            number = int.from_bytes(record.descriptor[:2], "little")
            known, said = number in USER_LOADER_IDS, decode_user_loader(number, record.data)
        else:
            known = record.provider == IMAGE_PROVIDER and record.opcode in IMAGE_OPCODES
            said = decode_image_loader(record.opcode, record.data, record.pointer_size) if known else None
        if not known:
            continue
        if said is None:
            undecodable += 1
            continue
        clock = machine.nanoseconds(record.ticks)
        imports = imports_during(record.tid, clock, requests)
        heard.append(TimedMessage(said, machine.pid, record.tid, machine.epoch(clock), imports))
    return DecodedMessages(tuple(heard), undecodable)


def merge_messages(events: Iterable[Event], heard: Iterable[TimedMessage]) -> Merged:
    """Join both by time. Events without a time stay where they are, before those that have one."""
    said = sorted(heard, key=lambda one: one.time or 0.0)
    if not said:
        return Merged(tuple(events), ())
    merger = _Merger()
    at = 0
    for event in events:
        time = getattr(event, "timestamp", None)
        while time is not None and at < len(said) and (said[at].time or 0.0) < time:
            merger.hear(said[at])
            at += 1
        merger.see(event)
    for one in said[at:]:
        merger.hear(one)
    return Merged(tuple(merger.out), merger.notes())


class _Merger:
    def __init__(self) -> None:
        self.out: list[Event] = []
        # Where each image's load stands in `out`, by address and by path.
        self._mapped: dict[tuple[int | None, int | None], int] = {}
        self._by_path: dict[tuple[int | None, str], int] = {}
        self._edges: dict[tuple[int | None, int | None], NewImage] = {}
        self._failures: dict[tuple[int, str], tuple[int, set[str]]] = {}
        self._searches: dict[tuple[int, int], list[SearchPath | Folders]] = {}
        self._found: dict[tuple[int | None, str], str] = {}
        self._remarks: dict[str, None] = {}

    def see(self, event: Event) -> None:
        """The next event of the kernel."""
        if isinstance(event, LoadEvent):
            place = event.pid, event.base
            edge = self._edges.pop(place, None)
            if edge is not None:
                event = replace(event, requested_by=self._path_at(event.pid, edge.parent_base))
            found = self._found.pop((event.pid, _key_of(event)), None)
            if found is not None and event.probes is None:
                event = replace(event, probes=(Probe(found, Phase.OTHER, None, ProbeOutcome.LOADED),))
            self._mapped[place] = self._by_path[event.pid, _key_of(event)] = len(self.out)
        elif isinstance(event, UnloadEvent):
            self._mapped.pop((event.pid, event.base), None)
        self.out.append(event)

    def hear(self, one: TimedMessage) -> None:
        """The next thing that the loader said."""
        said, thread = one.heard, (one.pid, one.tid)
        if isinstance(said, Unloadable):
            self._fail(one, said)
        elif isinstance(said, NewImage):
            self._join(one.pid, said)
        elif isinstance(said, SearchPath | Folders):
            self._searches.setdefault(thread, []).append(said)
            del self._searches[thread][:-8]
        elif isinstance(said, Found):
            self._searches.pop(thread, None)
            for key in _keys(said.path):
                self._found[one.pid, key] = plain_path(said.path)
        elif said.text:
            self._remarks[said.text] = None

    def notes(self) -> tuple[str, ...]:
        """What else it said, the first of it word for word."""
        shown = [f"the loader said: {text}" for text in list(self._remarks)[:_MOST_REMARKS]]
        more = len(self._remarks) - len(shown)
        return (*shown, *([f"and {more} things more"] if more else []))

    def _join(self, pid: int, edge: NewImage) -> None:
        place = pid, edge.base
        index = self._mapped.get(place)
        if index is None:
            self._edges[place] = edge
            return
        loaded = self.out[index]
        if isinstance(loaded, LoadEvent) and loaded.requested_by is None:
            self.out[index] = replace(loaded, requested_by=self._path_at(pid, edge.parent_base))

    def _fail(self, one: TimedMessage, said: Unloadable) -> None:
        """A name that could not be loaded: a second kind of event about the same attempt completes the first."""
        key = one.pid, said.name.lower()
        parent = None if said.parent is None else self._path_of(one.pid, said.parent)
        probes = self._probes(one, said.name) if said.kind is FailureKind.NOT_FOUND else ()
        known = self._failures.get(key)
        if known is not None and said.source not in known[1]:
            index, sources = known
            failure = self.out[index]
            assert isinstance(failure, LoadFailedEvent)
            sources.add(said.source)
            self.out[index] = replace(
                failure,
                requested_by=failure.requested_by or parent,
                probes=failure.probes or probes or None,
            )
        else:
            self._failures[key] = len(self.out), {said.source}
            self.out.append(
                LoadFailedEvent(
                    said.name, timestamp=one.time, pid=one.pid, tid=one.tid, need=said.name, requested_by=parent,
                    probes=probes or None, imports=one.imports, kind=said.kind, reason=said.reason,
                )
            )  # fmt: skip
        self._searches.pop((one.pid, one.tid), None)

    def _probes(self, one: TimedMessage, name: str) -> tuple[Probe, ...]:
        """The places of the searches that this thread was in, for this name."""
        found: dict[str, Probe] = {}
        for search in self._searches.get((one.pid, one.tid), ()):
            for path, phase, origin in _places(search, name):
                found.setdefault(path.lower(), Probe(path, phase, origin))
        return tuple(found.values())[:_MOST_FOLDERS]

    def _path_at(self, pid: int | None, base: int) -> str | None:
        index = self._mapped.get((pid, base))
        if index is None:
            return None
        loaded = self.out[index]
        return loaded.path if isinstance(loaded, LoadEvent) else None

    def _path_of(self, pid: int, said: str) -> str:
        """The path of an image as its own event has it, so that readers find it; else as the loader said it."""
        for key in _keys(said):
            index = self._by_path.get((pid, key))
            if index is not None:
                loaded = self.out[index]
                assert isinstance(loaded, LoadEvent)
                return loaded.path
        return said


def _places(search: SearchPath | Folders, name: str) -> list[tuple[str, Phase, str | None]]:
    if isinstance(search, SearchPath):
        parts = [part for part in search.text.split(";") if "\\" in part][:_MOST_FOLDERS]
        return [(_file(part, name), Phase.OTHER, search.description or None) for part in parts]
    kinds = (
        (search.loading, Phase.IMAGE_FOLDER), (search.application, Phase.APPLICATION), (search.dll, Phase.ADDED),
        (search.current, Phase.CURRENT),
    )  # fmt: skip
    return [(_file(folder, name), phase, None) for folder, phase in kinds if folder]


def _file(place: str, name: str) -> str:
    """The file in a folder, or the file itself when that is what was said."""
    path = plain_path(place)
    return path if ntpath.basename(path).lower() == name.lower() else ntpath.join(path, name)


def _keys(path: str) -> tuple[str, str]:
    """What to look an image up by that the loader names so: with its drive, and without, for where the drives of the
    kernel's paths are not known."""
    whole = ntpath.normcase(plain_path(path))
    return whole, "*" + ntpath.splitdrive(whole)[1]


def _key_of(event: LoadEvent) -> str:
    if event.display_path is not None:
        return ntpath.normcase(event.display_path)
    path = ntpath.normcase(event.path)
    return "*" + _VOLUME.sub("", path) if path.startswith("\\") else path
