"""Recorded ETW: reads the saved trace of .etl files, on any system."""

from __future__ import annotations

import ntpath
from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

from ...errors import NoSuchProcess
from ...model.events import Event, LoadEvent, UnloadEvent
from ...model.recording import Losses, Recording, TracedProcess
from ...model.run import HostFacts, RunResult, SavedTrace
from ..windows.etw.loader_messages import (
    USER_LOADER_IDS,
    TimedMessage,
    decode_image_loader,
    decode_user_loader,
    merge_messages,
)
from ..windows.image_records import (
    ImagePayload,
    Opcode,
    decode_image_payload,
    decode_manifest_image,
    display_path,
    split_command_line,
)
from .buffers import LogfileHeader, filetime_to_epoch, is_etl
from .event import EtlEvent, EtlProvider, ManifestId, ProcessLifetime, ProcessLifetimes, ticks_of
from .scan import Scan, scan_etl

__all__ = ["is_etl", "read_etl"]

_Change = TypeVar("_Change", LoadEvent, UnloadEvent)

_LOAD, _UNLOAD, _THERE = int(Opcode.LOAD), int(Opcode.UNLOAD), int(Opcode.RUNDOWN_START)
_MANIFEST = {int(ManifestId.IMAGE_LOAD): _LOAD, int(ManifestId.IMAGE_UNLOAD): _UNLOAD}


def decode_image(event: EtlEvent) -> ImagePayload | None:
    """Decode the payload of an image event of either provider; `None` when it is cut short."""
    if event.provider is EtlProvider.KERNEL_PROCESS:
        return decode_manifest_image(event.data, event.pointer_size)
    return decode_image_payload(event.data, event.version, event.pointer_size)


def image_pid(event: EtlEvent) -> int:
    """The process of an image event: by its payload, as the header of some has none; version 0 has it there only."""
    if event.provider is EtlProvider.IMAGE and event.version == 0:
        return event.pid
    at = 2 * event.pointer_size
    return int.from_bytes(event.data[at : at + 4], "little")


class Images:
    """The images of a scanned file.

    Making one completes `lives`: with the path of each program, and with the processes that no other event names.
    `undecodable` counts image events that could not be decoded, `twice` those that two providers reported.
    """

    def __init__(self, scan: Scan, lives: ProcessLifetimes) -> None:
        self.undecodable = 0
        self.twice = 0
        self._scan = scan
        self._lives = lives
        self._shown: dict[str, str | None] = {}
        self._by_pid: dict[int, list[EtlEvent]] = {}
        for event in scan.images:
            self._by_pid.setdefault(image_pid(event), []).append(event)
        for pid, events in self._by_pid.items():
            lives.at(pid, events[0].ticks)
        self._name_programs()

    def show(self, path: str) -> str | None:
        """The path with its drive letter, where the file says which volume that is."""
        if path not in self._shown:
            self._shown[path] = display_path(path, self._scan.devices, self._scan.system_root)
        return self._shown[path]

    def events(self, chosen: Collection[ProcessLifetime] | None) -> tuple[Event, ...]:
        """The events in order of time; first the images that were there at the start, if those were read.

        `chosen`: the processes to tell of; `None` for all.
        """
        if chosen is None:
            wanted = self._scan.images
        else:
            numbers = {id(life) for life in chosen}
            pids = dict.fromkeys(life.pid for life in chosen)
            wanted = [
                event for pid in pids for event in self._by_pid.get(pid, ())
                if id(self._lives.at(pid, event.ticks)) in numbers
            ]  # fmt: skip
        builder = _EventBuilder(self)
        for event in sorted(wanted, key=ticks_of):
            image = decode_image(event)
            if image is None:
                self.undecodable += 1
            else:
                builder.add(event, image)
        self.twice += builder.twice
        return (*builder.there, *builder.events)

    def messages(self, chosen: Collection[ProcessLifetime] | None) -> tuple[TimedMessage, ...]:
        """Return what the loaders of these processes wrote of their own work; of all for `None`."""
        numbers = None if chosen is None else {id(life) for life in chosen}
        found: list[TimedMessage] = []
        for event in sorted(self._scan.loader, key=ticks_of):
            if numbers is not None and id(self._lives.at(event.pid, event.ticks)) not in numbers:
                continue
            if event.provider is EtlProvider.USER_LOADER:
                if event.kind not in USER_LOADER_IDS:
                    continue
                message = decode_user_loader(event.kind, event.data)
            else:
                message = decode_image_loader(event.kind, event.data, event.pointer_size)
            if message is None:
                self.undecodable += 1
            else:
                found.append(TimedMessage(message, event.pid, event.tid, self.epoch(event.ticks)))
        return tuple(found)

    def epoch(self, ticks: int) -> float | None:
        """Return a time of the file's clock as seconds since the epoch; `None` where the file does not tell that."""
        return None if self._scan.header is None else self._scan.header.epoch(ticks)

    def _name_programs(self) -> None:
        """Give each process the path of its program: the first image called .exe, or that of the name it has."""
        for event in sorted(self._scan.programs, key=ticks_of):
            image = decode_image(event)
            if image is None:
                continue
            life = self._lives.at(image_pid(event), event.ticks)
            name = image.path.rsplit("\\", 1)[-1]
            if life.program is None and (life.name is None or life.is_called(name)):
                life.program = image.path


class _EventBuilder:
    """Events of images, one after the other: an unload is reported with the path of its load, so that a reader sees one
    image and not two. Windows 7 and 8 spell the path of one image in two ways."""

    def __init__(self, images: Images) -> None:
        self.events: list[Event] = []
        self.there: list[LoadEvent] = []
        self.twice = 0
        self._images = images
        self._mapped: dict[tuple[int, int], ImagePayload] = {}
        self._last: dict[tuple[int, int], tuple[int, EtlProvider]] = {}

    def add(self, event: EtlEvent, image: ImagePayload) -> None:
        """The next event in order of time."""
        opcode = _MANIFEST[event.kind] if event.provider is EtlProvider.KERNEL_PROCESS else event.kind
        pid = event.pid if image.pid is None else image.pid
        place = pid, image.base
        if opcode == _THERE:
            if place not in self._mapped:
                self._mapped[place] = image
                # The rundown has neither thread nor time: somebody loaded it, some time before.
                self.there.append(self._make(LoadEvent, image, None, pid, None))
            return
        done, provider = self._last.get(place, (None, None))
        if done == opcode and provider is not event.provider:
            self.twice += 1
            return
        self._last[place] = opcode, event.provider
        time = self._images.epoch(event.ticks)
        if opcode == _LOAD:
            self._mapped[place] = image
            self.events.append(self._make(LoadEvent, image, time, pid, event.tid))
        else:
            image = self._mapped.pop(place, image)
            self.events.append(self._make(UnloadEvent, image, time, pid, event.tid))

    def _make(self, kind: type[_Change], image: ImagePayload, time: float | None, pid: int, tid: int | None) -> _Change:
        # The constructor of a frozen dataclass sets each of its 14 fields by a call: a third of the time of an event.
        # What is not set here has the default that the class has.
        event = kind.__new__(kind)
        event.__dict__.update(
            path=image.path, display_path=self._images.show(image.path), base=image.base, size=image.size,
            timestamp=time, pid=pid, tid=tid, checksum=image.checksum, link_time=image.link_time or None,
        )  # fmt: skip
        return event


BACKEND = "etl"
_UNLOADS = (
    "a recorded session does not tell a load that failed from an image that was freed: every unload is shown as such"
)


def read_etl(
    path: str | Path, *, process: str | None = None, pid: int | None = None, startup: bool = False
) -> SavedTrace:
    """Read a recorded ETW session (.etl) of any Windows, on any system.

    Arguments: `process` and `pid`, of which processes to tell: the file's name of a program ("python.exe"; case does
    not matter), a process id, or both; of all when neither is given. `startup`: tell also of the images that were there
    when the session began, as loads without a time.

    A damaged file is read as far as possible: `recording.losses` counts what is lost, `problems` says what it was.
    Raises `NotATraceFile`; `NoSuchProcess` when the file has nothing of what was asked for; `OSError`.
    """
    scan = scan_etl(path, pid=pid, startup=startup)
    lives = ProcessLifetimes(scan.processes)
    images = Images(scan, lives)
    name = None if process is None else ntpath.basename(process)
    chosen = [life for life in lives if pid in (None, life.pid) and (name is None or life.is_called(name))]
    first: ProcessLifetime | None = None
    wanted = None if name is None and pid is None else chosen
    merged = merge_messages(images.events(wanted), images.messages(wanted))
    if name is not None or pid is not None:
        if not chosen:
            raise NoSuchProcess(_in_words(name, pid), _names(lives))
        first = chosen[0]
    undecodable = scan.damage.count + lives.undecodable + images.undecodable
    header = scan.header
    recording = Recording(
        BACKEND,
        merged.events,
        first.pid if first else None,
        Losses(header.events_lost if header else 0, header.buffers_lost if header else 0, undecodable),
        (*_notes(scan, images, startup), *merged.notes),
        tuple(_traced(life, images) for life in chosen),
    )
    return SavedTrace(
        recording,
        what=(first.command_line or first.shown_name) if first else ntpath.basename(str(path)),
        started=filetime_to_epoch(header.started) if header else None,
        host=_host(header),
        run=RunResult(status=first.status if first and first.ended is not None else None),
        problems=tuple(scan.damage.problems),
    )


def _in_words(name: str | None, pid: int | None) -> str:
    if pid is None:
        return f"process of {name!r}"
    return f"process {pid}" if name is None else f"process {pid} of {name!r}"


def _names(lives: ProcessLifetimes) -> tuple[str, ...]:
    return tuple(dict.fromkeys(life.shown_name for life in lives if life.shown_name))


def _traced(life: ProcessLifetime, images: Images) -> TracedProcess:
    program = life.program
    started = images.epoch(life.begun) if life.begun is not None else None
    if started is None and life.created is not None:
        started = filetime_to_epoch(life.created)
    return TracedProcess(
        life.pid,
        life.parent,
        split_command_line(life.command_line) if life.command_line else None,
        (images.show(program) or program) if program else life.name,
        started,
        images.epoch(life.ended) if life.ended is not None else None,
        life.status if life.ended is not None else None,
    )


def _host(header: LogfileHeader | None) -> HostFacts:
    if header is None:
        return HostFacts("windows")
    return HostFacts("windows", f"Windows NT {header.major}.{header.minor} build {header.build}")


def _notes(scan: Scan, images: Images, startup: bool) -> tuple[str, ...]:
    counts, header = scan.counts, scan.header
    notes = [
        f"the file has {counts.loads} loads and {counts.unloads} unloads of images, of all processes; "
        f"{counts.there_at_start} images were there when it began, {counts.there_at_end} when it ended"
    ]
    if counts.there_at_start and not startup:
        notes.append("images that were there when the session began are counted, and not shown")
    if counts.unloads:
        notes.append(_UNLOADS)
    if images.twice:
        notes.append(f"{images.twice} image events were reported by two providers: shown once")
    if not scan.devices and counts != type(counts)():
        notes.append("the file does not say which volume has which drive letter: paths are the kernel's")
    if header is None:
        notes.append("the file's description of itself is damaged: there are no times")
    elif not header.ended:
        notes.append("the session was not stopped: what its last buffers had is not in the file")
    if scan.strange:
        notes.append(f"{scan.strange} events of other kinds (messages, instances) were passed over")
    return tuple(notes)
