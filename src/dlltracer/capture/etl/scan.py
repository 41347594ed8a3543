"""Makes one pass over an .etl file, and picks out the events of images and processes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ...binary.reading import open_regular
from ...errors import NotATraceFile
from ..windows.etw.loader_messages import IMAGE_OPCODES
from ..windows.image_records import Opcode, text_at
from .buffers import HEAD_SIZE, Damage, LogfileHeader, decode_logfile_header, is_etl, read_buffers
from .event import (
    HOOKED,
    HOOKS,
    IMAGE_HOOKS,
    KERNEL_PROCESS,
    KERNEL_PROCESS_IDS,
    LAYOUTS,
    LOADED,
    MANIFEST,
    PROVIDERS,
    THERE_AT_END,
    THERE_AT_START,
    UNLOADED,
    EtlEvent,
    EtlProvider,
    ManifestId,
    as_words,
    find_events,
    read_event,
)  # fmt: skip

MOST_EVENTS = 100_000
BYTES_AN_EVENT = 32
"""Events of images and processes that are kept: so many, or one for so many bytes of the file. Real files stay far
below; a small file of many tiny events, compressed, would cost gigabytes."""

_EXE = ".exe\0".encode("utf-16-le")
_LETTER_E = b"eE"
_WITH_PID = frozenset({LOADED, UNLOADED, THERE_AT_START})
_VOLUME, _SYSTEM_PATHS = 35, 33
_SYSTEM_ROOT = "\\systemroot"
_MANIFEST_OPCODES = {int(ManifestId.IMAGE_LOAD): int(Opcode.LOAD), int(ManifestId.IMAGE_UNLOAD): int(Opcode.UNLOAD)}
_RUNDOWN_START = int(Opcode.RUNDOWN_START)
_KEPT = frozenset({int(Opcode.LOAD), int(Opcode.UNLOAD)})
_PRESENT = _KEPT | {_RUNDOWN_START}


@dataclass(frozen=True)
class EtlCounts:
    """Counts of the image events in a file, of all processes and the kernel.

    Events of both providers count: the kernel's image events, and those of Microsoft-Windows-Kernel-Process.

    Attributes: `loads` and `unloads` while it was recorded; `there_at_start` and `there_at_end`, the images that were
    loaded when it began and when it ended (DCStart and DCEnd).
    """

    loads: int = 0
    unloads: int = 0
    there_at_start: int = 0
    there_at_end: int = 0


@dataclass
class Scan:
    """The events that a pass over a file collected, in the order of the file (that of time on one processor).

    Attributes:
        header: what the file says about itself; `None` when that is damaged.
        images: events of loads and unloads, and of images that were there at the start if those were asked for.
        programs: the image events of files called .exe which tell what program a process runs.
        processes: events of processes starting and ending.
        loader: those of ntdll's loader.
        opcodes: image events by opcode.
        devices: drives by device, as `image_records.display_path` takes them.
        system_root: the folder of Windows.
        strange: events whose headers have no meaning here: messages, instances.
        damage: what could not be read.
        size: bytes of events, decompressed.
    """

    header: LogfileHeader | None = None
    images: list[EtlEvent] = field(default_factory=list)
    programs: list[EtlEvent] = field(default_factory=list)
    processes: list[EtlEvent] = field(default_factory=list)
    loader: list[EtlEvent] = field(default_factory=list)
    opcodes: Counter[int] = field(default_factory=Counter)
    devices: dict[str, str] = field(default_factory=dict)
    system_root: str | None = None
    strange: int = 0
    damage: Damage = field(default_factory=Damage)
    size: int = 0

    @property
    def counts(self) -> EtlCounts:
        of = self.opcodes
        return EtlCounts(of[Opcode.LOAD], of[Opcode.UNLOAD], of[Opcode.RUNDOWN_START], of[Opcode.RUNDOWN_END])


def scan_etl(path: str | Path, *, pid: int | None = None, startup: bool = False) -> Scan:
    """Read a file.

    Arguments: `pid`, keep the image events of this process only; `startup`, keep images that were there at the start.
    The result describes damage. Raises `NotATraceFile`, `OSError` for a file that cannot be opened
    or read, `BinaryFormatError` for a device or FIFO.
    """
    with os.fdopen(open_regular(str(path)), "rb") as file:
        most = max(MOST_EVENTS, file.seek(0, 2) // BYTES_AN_EVENT)
        one = _Pass(pid, startup, most)
        for at, content in _open_buffers(file, str(path), one.scan.damage):
            one.take_buffer(at, content)
            if one.left < 0:
                one.scan.damage.add(f"it has more than {most} events of images and processes: the rest is not read")
                break
        return one.scan


def _open_buffers(file: BinaryIO, name: str, damage: Damage) -> Iterator[tuple[int, bytes | bytearray]]:
    size = file.seek(0, 2)
    file.seek(0)
    if not is_etl(file.read(HEAD_SIZE)):
        raise NotATraceFile(name, "it does not begin as a recorded ETW session (.etl) does")
    return read_buffers(file, size, damage)


def _broken(at: int) -> str:
    return f"the buffer at offset {at:#x} is damaged or cut off: its last events are not read"


def _cut(at: int) -> str:
    return f"an event in the buffer at offset {at:#x} is shorter than its header"


def _is_foreign(content: bytes | bytearray, start: int, word: int, pid: int) -> bool:
    """Return whether an image event of the kernel belongs to another process than this one.

    The payload of version 0, which only Windows 2000 wrote, does not say it.
    """
    header, pointer_size = LAYOUTS[word >> 16 & 0xFFFF]
    pid_at = start + header + 2 * pointer_size
    return word & 0xFF > 0 and int.from_bytes(content[pid_at : pid_at + 4], "little") != pid


class _Pass:
    """Puts the events of one buffer after the other into `scan`.

    Attributes: `scan`; `left`, how many more events are kept, negative when one was not.
    """

    def __init__(self, pid: int | None, startup: bool, most: int) -> None:
        self.scan = Scan()
        self.left = most
        self._pid = pid
        self._startup = startup
        self._takers = {
            EtlProvider.LOGFILE: self._take_header,
            EtlProvider.IMAGE: self._take_image,
            EtlProvider.PROCESS: self.scan.processes.append,
            EtlProvider.KERNEL_PROCESS: self._take_manifest,
            EtlProvider.CONFIG: self._take_config,
            EtlProvider.USER_LOADER: self.scan.loader.append,
        }

    def take_buffer(self, at: int, content: bytes | bytearray) -> None:
        """The events of the buffer at this offset of the file.

        Most events of a kernel's trace are turned down here, from a few bytes of them: images of other processes, those
        of all processes at the start and the end, threads.
        """
        scan = self.scan
        scan.size += len(content)
        words = as_words(content)
        found = find_events(words, HOOKS, PROVIDERS.keys())
        scan.strange += found.strange
        if found.damaged:
            scan.damage.add(_broken(at))
        opcodes, keep_all, pid = scan.opcodes, self._startup, self._pid
        for index, word in found.events:
            kind = word >> 16 & 0xFFFF
            if kind in HOOKED:
                hook = word >> 48
                if hook in IMAGE_HOOKS:
                    opcodes[hook & 0xFF] += 1
                    if hook == THERE_AT_END:
                        continue
                    if hook == THERE_AT_START and not keep_all:
                        # Of these the programs are kept: a name that ends with an E.
                        if content[index * 8 + (word >> 32 & 0xFFFF) - 4] not in _LETTER_E:
                            continue
                    elif pid is not None and hook in _WITH_PID and _is_foreign(content, index * 8, word, pid):
                        continue
            elif (
                words[index + 3] == KERNEL_PROCESS
                and kind in MANIFEST
                and index + 5 < len(words)
                and words[index + 5] & 0xFFFF not in KERNEL_PROCESS_IDS
            ):
                continue
            event = read_event(content, words, index, word)
            if event is None:
                scan.damage.add(_cut(at))
                continue
            if kind not in HOOKED and event.provider == EtlProvider.IMAGE:
                opcodes[event.kind] += 1
            self.left -= 1
            if self.left < 0:
                return
            self._takers[event.provider](event)

    def _take_header(self, event: EtlEvent) -> None:
        if self.scan.header is None:
            self.scan.header = decode_logfile_header(event.data, event.pointer_size, event.ticks)

    def _take_image(self, event: EtlEvent) -> None:
        kind = event.kind
        if kind in IMAGE_OPCODES:
            self.scan.loader.append(event)
        elif kind in _KEPT or (kind == _RUNDOWN_START and self._startup):
            self.scan.images.append(event)
        if kind in _PRESENT and event.data[-len(_EXE) :].lower() == _EXE:
            self.scan.programs.append(event)

    def _take_manifest(self, event: EtlEvent) -> None:
        scan, kind = self.scan, event.kind
        if kind not in _MANIFEST_OPCODES:
            scan.processes.append(event)
            return
        scan.opcodes[_MANIFEST_OPCODES[kind]] += 1
        at = 2 * event.pointer_size
        if self._pid is None or int.from_bytes(event.data[at : at + 4], "little") == self._pid:
            scan.images.append(event)
            if event.data[-len(_EXE) :].lower() == _EXE:
                scan.programs.append(event)

    def _take_config(self, event: EtlEvent) -> None:
        """Volumes and the folder of Windows. VolumeMapping: the kernel's path and ours ("\\Device\\HarddiskVolume2\\",
        "C:\\"); SystemPaths: the system folder and that of Windows."""
        if event.kind not in (_VOLUME, _SYSTEM_PATHS):
            return
        first = text_at(event.data, 0)
        second = text_at(event.data, first[1]) if first else None
        if first is None or second is None:
            self.scan.damage.add("the name of a volume is cut off")
            return
        kernels, ours = first[0].rstrip("\\"), second[0].rstrip("\\")
        if event.kind == _SYSTEM_PATHS or kernels.lower() == _SYSTEM_ROOT:
            self.scan.system_root = ours or self.scan.system_root
        elif kernels.lower().startswith("\\device\\") and ours:
            self.scan.devices.setdefault(kernels, ours)
