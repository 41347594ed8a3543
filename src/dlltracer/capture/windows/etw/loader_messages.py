"""Decodes the messages of the Windows loader (ntdll), and merges them with the image events of the kernel. Pure."""

from __future__ import annotations

import ntpath
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ....model.events import Event, FailureKind, LoadEvent, LoadFailedEvent, Phase, Probe, ProbeOutcome, UnloadEvent
from ....model.request import Request
from ..image_events import RecordContext, imports_during
from ..image_records import IMAGE_PROVIDER, RawRecord, text_at

USER_LOADER = bytes.fromhex("3fb859b046d9134b87ca4292839dc2f2")
"""{b059b83f-d946-4b13-87ca-4292839dc2f2}, Microsoft-Windows-User-Loader, as it lies in memory."""

IMAGE_OPCODES = frozenset({164, 171, 176, 177, 192, 193, 211, 212, 213, 215})
"""Types under the GUID of images that `decode_image_loader` knows."""
USER_LOADER_IDS = frozenset({3, 6, 7, 8, 9, 10, 11, 12})
"""Events of Microsoft-Windows-User-Loader that `decode_user_loader` knows."""

DLL_NOT_FOUND = 0xC0000135
_NOT_FOUND = frozenset({DLL_NOT_FOUND, 0xC0000034, 0xC000003A, 126})
"""STATUS_DLL_NOT_FOUND, _OBJECT_NAME_NOT_FOUND, _OBJECT_PATH_NOT_FOUND (ntstatus.h); ERROR_MOD_NOT_FOUND."""

_SNAP = re.compile(
    r'Unable to load DLL: "(?P<name>[^"]+)", Parent Module: "(?P<parent>[^"]*)", '
    r"Status: 0x(?P<status>[0-9a-fA-F]{1,8})\b"
)
_NO_PARENT = "(null)"


@dataclass(frozen=True)
class FailedLoad:
    """An image could not be loaded. `parent`: path of the one that needed it; `status`, an NTSTATUS; `source`, the kind
    of event that reports it."""

    name: str
    parent: str | None
    status: int
    source: str

    @property
    def kind(self) -> FailureKind:
        """NOT_FOUND if the status says that no file was there, else REFUSED."""
        return FailureKind.NOT_FOUND if self.status in _NOT_FOUND else FailureKind.REFUSED

    @property
    def reason(self) -> str:
        """The status as text, in hexadecimal."""
        return f"the loader of Windows: status {self.status:#010x}"


@dataclass(frozen=True)
class NewImage:
    """An image was loaded because of another one, whose base is `parent_base`."""

    base: int
    parent_base: int
    reason: int
    path: str


@dataclass(frozen=True)
class SearchPlacesMessage:
    """The places of a search: `text` is folders with semicolons between them, a folder, or a file."""

    description: str
    text: str


@dataclass(frozen=True)
class SearchHit:
    """A search ended at this file."""

    path: str


@dataclass(frozen=True)
class SearchFolders:
    """The folders of a search by their kinds; empty where it had none."""

    current: str
    application: str
    dll: str
    loading: str


@dataclass(frozen=True)
class LoaderRemark:
    """Text about an error in which no missing image can be recognized."""

    text: str


LoaderMessage = FailedLoad | NewImage | SearchPlacesMessage | SearchHit | SearchFolders | LoaderRemark

_SEARCHES: dict[int, Callable[..., LoaderMessage]] = {
    192: SearchPlacesMessage, 193: SearchPlacesMessage, 212: SearchHit, 213: SearchFolders,
}  # fmt: skip


def decode_image_loader(opcode: int, data: bytes, pointer_size: int) -> LoaderMessage | None:
    """Decode the payload of an event of `IMAGE_OPCODES`; `None` when it is cut short. `pointer_size`: 4 or 8."""
    if opcode in (176, 177):
        layout = struct.Struct("<QQI" if pointer_size == 8 else "<III")
        texts = _texts(data, layout.size, 1)
        return None if texts is None else NewImage(*layout.unpack_from(data), *texts)
    if opcode == 215:
        return _snap(data)
    texts = _texts(data, *{212: (16, 1), 213: (4, 4), 192: (10, 2), 193: (10, 2)}.get(opcode, (10, 1)))
    if texts is None:
        return None
    if opcode in _SEARCHES:
        return _SEARCHES[opcode](*texts)
    status = int.from_bytes(data[:8], "little") & 0xFFFF_FFFF
    if texts[0] and status in _NOT_FOUND:
        return FailedLoad(texts[0], None, status, f"loader {opcode}")
    return LoaderRemark(f"status {status:#010x} {texts[0]}".rstrip())


def decode_user_loader(number: int, data: bytes) -> LoaderMessage | None:
    """Decode the payload of an event of `USER_LOADER_IDS`, by its id; `None` when it is cut short."""
    if number in (6, 7, 9):
        texts = _texts(data, 0, 1)
        return None if texts is None else LoaderRemark(f"fatal error while loading {texts[0]}")
    if number in (11, 12):
        texts = _texts(data, 0, 3)
        return None if texts is None else LoaderRemark(f"{texts[1]} is in the current folder; loaded was {texts[2]}")
    texts = _texts(data, 4, 2)
    if texts is None:
        return None
    status = int.from_bytes(data[:4], "little")
    if texts[0] and status in _NOT_FOUND:
        return FailedLoad(texts[0], texts[1] if number == 8 and texts[1] else None, status, f"user loader {number}")
    return LoaderRemark(f"{texts[0]} could not be loaded (reason {status:#x})")


def _snap(data: bytes) -> LoaderMessage | None:
    """Decode a line of the loader's snaps: parts with NULs between them. Most lines are of no use here."""
    if len(data) < 12:
        return None
    even = data[10 : len(data) - len(data) % 2]
    text = even.decode("utf-16-le", "surrogatepass").replace("\0", " ").strip()
    found = _SNAP.search(text)
    if found is None:
        return LoaderRemark("") if " - ERROR" not in text else LoaderRemark(text)
    parent = None if found["parent"] in ("", _NO_PARENT) else plain_path(found["parent"])
    return FailedLoad(found["name"], parent, int(found["status"], 16), "snaps")


def plain_path(path: str) -> str:
    r"""A path without the prefix `\\?\` that the loader puts before some."""
    if path.startswith("\\\\?\\UNC\\"):
        return "\\\\" + path[8:]
    return path.removeprefix("\\\\?\\")


def _texts(data: bytes, start: int, count: int) -> list[str] | None:
    if len(data) < start:
        return None
    texts: list[str] = []
    for _ in range(count):
        found = text_at(data, start)
        if found is None:
            return None
        texts.append(found[0])
        start = found[1]
    return texts


_VOLUME = re.compile(r"\\device\\[^\\]+(?=\\)")
_MOST_FOLDERS = 64
_MOST_REMARKS = 5


@dataclass(frozen=True)
class TimedMessage:
    """A message of the loader. `time`, seconds since the epoch; `imports`, as of `LoadEvent`."""

    message: LoaderMessage
    pid: int
    tid: int
    time: float | None
    imports: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Merged:
    """Events in order, and the loader's other remarks as notes."""

    events: tuple[Event, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class DecodedMessages:
    """The messages in records of the loader, and how many records could not be decoded."""

    messages: tuple[TimedMessage, ...]
    undecodable: int


def decode_messages(
    records: Iterable[RawRecord], requests: Sequence[Request], context: RecordContext
) -> DecodedMessages:
    """Decode the records of the loader of one process; those of other kinds are passed over."""
    messages: list[TimedMessage] = []
    undecodable = 0
    for record in records:
        if record.provider == USER_LOADER:
            number = int.from_bytes(record.descriptor[:2], "little")
            known, message = number in USER_LOADER_IDS, decode_user_loader(number, record.data)
        else:
            known = record.provider == IMAGE_PROVIDER and record.opcode in IMAGE_OPCODES
            message = decode_image_loader(record.opcode, record.data, record.pointer_size) if known else None
        if not known:
            continue
        if message is None:
            undecodable += 1
            continue
        clock = context.nanoseconds(record.ticks)
        imports = imports_during(record.tid, clock, requests)
        messages.append(TimedMessage(message, context.pid, record.tid, context.epoch(clock), imports))
    return DecodedMessages(tuple(messages), undecodable)


def merge_messages(events: Iterable[Event], messages: Iterable[TimedMessage]) -> Merged:
    """Join both by time. Events without a time stay where they are, before those that have one."""
    waiting = sorted(messages, key=lambda one: one.time or 0.0)
    if not waiting:
        return Merged(tuple(events), ())
    merger = _Merger()
    at = 0
    for event in events:
        time = getattr(event, "timestamp", None)
        while time is not None and at < len(waiting) and (waiting[at].time or 0.0) < time:
            merger.add_message(waiting[at])
            at += 1
        merger.add_event(event)
    for one in waiting[at:]:
        merger.add_message(one)
    return Merged(tuple(merger.out), merger.notes())


class _Merger:
    def __init__(self) -> None:
        self.out: list[Event] = []
        # Where each image's load stands in `out`, by address and by path.
        self._mapped: dict[tuple[int | None, int | None], int] = {}
        self._by_path: dict[tuple[int | None, str], int] = {}
        self._edges: dict[tuple[int | None, int | None], NewImage] = {}
        self._failures: dict[tuple[int, str], tuple[int, set[str]]] = {}
        self._searches: dict[tuple[int, int], list[SearchPlacesMessage | SearchFolders]] = {}
        self._found: dict[tuple[int | None, str], str] = {}
        self._remarks: dict[str, None] = {}

    def add_event(self, event: Event) -> None:
        """Take the next event of the kernel."""
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

    def add_message(self, one: TimedMessage) -> None:
        """Take the next message of the loader."""
        message, thread = one.message, (one.pid, one.tid)
        if isinstance(message, FailedLoad):
            self._add_failure(one, message)
        elif isinstance(message, NewImage):
            self._add_requester(one.pid, message)
        elif isinstance(message, SearchPlacesMessage | SearchFolders):
            self._searches.setdefault(thread, []).append(message)
            del self._searches[thread][:-8]
        elif isinstance(message, SearchHit):
            self._searches.pop(thread, None)
            for key in _keys(message.path):
                self._found[one.pid, key] = plain_path(message.path)
        elif message.text:
            self._remarks[message.text] = None

    def notes(self) -> tuple[str, ...]:
        """Return the loader's other remarks: the first few word for word, and how many more."""
        shown = [f"the loader: {text}" for text in list(self._remarks)[:_MOST_REMARKS]]
        more = len(self._remarks) - len(shown)
        return (*shown, *([f"the loader: {more} more remarks"] if more else []))

    def _add_requester(self, pid: int, edge: NewImage) -> None:
        place = pid, edge.base
        index = self._mapped.get(place)
        if index is None:
            self._edges[place] = edge
            return
        loaded = self.out[index]
        if isinstance(loaded, LoadEvent) and loaded.requested_by is None:
            self.out[index] = replace(loaded, requested_by=self._path_at(pid, edge.parent_base))

    def _add_failure(self, one: TimedMessage, failed: FailedLoad) -> None:
        """Add the failure of a name. A second kind of event about the same attempt completes the first."""
        key = one.pid, failed.name.lower()
        parent = None if failed.parent is None else self._path_of(one.pid, failed.parent)
        probes = self._probes(one, failed.name) if failed.kind is FailureKind.NOT_FOUND else ()
        known = self._failures.get(key)
        if known is not None and failed.source not in known[1]:
            index, sources = known
            failure = self.out[index]
            assert isinstance(failure, LoadFailedEvent)
            sources.add(failed.source)
            self.out[index] = replace(
                failure,
                requested_by=failure.requested_by or parent,
                probes=failure.probes or probes or None,
            )
        else:
            self._failures[key] = len(self.out), {failed.source}
            self.out.append(
                LoadFailedEvent(
                    failed.name, timestamp=one.time, pid=one.pid, tid=one.tid, need=failed.name, requested_by=parent,
                    probes=probes or None, imports=one.imports, kind=failed.kind, reason=failed.reason,
                )
            )  # fmt: skip
        self._searches.pop((one.pid, one.tid), None)

    def _probes(self, one: TimedMessage, name: str) -> tuple[Probe, ...]:
        """Return the places of this thread's searches, for this name."""
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

    def _path_of(self, pid: int, path: str) -> str:
        """Return the path of an image as its own event has it, so that readers find that; else `path`."""
        for key in _keys(path):
            index = self._by_path.get((pid, key))
            if index is not None:
                loaded = self.out[index]
                assert isinstance(loaded, LoadEvent)
                return loaded.path
        return path


def _places(search: SearchPlacesMessage | SearchFolders, name: str) -> list[tuple[str, Phase, str | None]]:
    if isinstance(search, SearchPlacesMessage):
        parts = [part for part in search.text.split(";") if "\\" in part][:_MOST_FOLDERS]
        return [(_file(part, name), Phase.OTHER, search.description or None) for part in parts]
    kinds = (
        (search.loading, Phase.IMAGE_FOLDER), (search.application, Phase.APPLICATION), (search.dll, Phase.ADDED),
        (search.current, Phase.CURRENT),
    )  # fmt: skip
    return [(_file(folder, name), phase, None) for folder, phase in kinds if folder]


def _file(place: str, name: str) -> str:
    """Return the file in a folder; `place` itself where that names the file already."""
    path = plain_path(place)
    return path if ntpath.basename(path).lower() == name.lower() else ntpath.join(path, name)


def _keys(path: str) -> tuple[str, str]:
    """Return the keys of a path of the loader: with its drive, and without, as the drive of a kernel path may be
    unknown."""
    whole = ntpath.normcase(plain_path(path))
    return whole, "*" + ntpath.splitdrive(whole)[1]


def _key_of(event: LoadEvent) -> str:
    if event.display_path is not None:
        return ntpath.normcase(event.display_path)
    path = ntpath.normcase(event.path)
    return "*" + _VOLUME.sub("", path) if path.startswith("\\") else path
