"""What a debugger sees of a process, turned into events and a crash. Pure: runs on any system.

Loads and unloads are written down as the image records of the kernel, so that one rule judges both (see `decode`).
What ended a process is

(a) the exception that nobody handled: the debugger is asked a second time ("Debugger Exception Handling", MS Learn);
(b) without one, the last fault of the processor whose code is the status of the process: then a handler of the
    program's own ended it so. A fault that was handled, and the process ended otherwise, is no crash.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from ...model.crash import Crash
from ...model.events import LoadEvent
from ...model.ntstatus import ACCESS_VIOLATION, FAULTS, IN_PAGE_ERROR, exception_name
from ...model.probe import Phase
from .debug_lines import LOAD, NOTE, SAID, UNLOAD, decode_lines
from .decode import Machine, decode_records
from .devicepath import display_path
from .records import HEADER_SIZE, IMAGE_PROVIDER, Opcode, RawRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...model.request import Request
    from .debug_structs import EXCEPTION_RECORD
    from .decode import ImageChange

_MOST_NOTES = 100
_EVENT_HEADER = struct.Struct("<HHHHIIq16sHBBBBHQ")  # EVENT_HEADER up to its EventDescriptor
_PAYLOAD = struct.Struct("<QQIIIBBHQIIII")  # Image_Load, version 3
_VERSION, _FLAG_64_BIT = 3, 0x40


@dataclass(frozen=True)
class ImageHeader:
    """Of the PE header: SizeOfImage (bytes), CheckSum, TimeDateStamp. All 0 where it could not be read."""

    size: int = 0
    checksum: int = 0
    link_time: int = 0


@dataclass(frozen=True)
class Happening:
    """Whose debug event it is, and when: `clock` as `time.perf_counter_ns()`."""

    pid: int
    tid: int
    clock: int


def decode_image_header(data: bytes) -> ImageHeader:
    """Decode the first bytes of a mapped image ("PE Format", MS Learn): PE32 and PE32+ agree on these fields."""
    try:
        (start,) = struct.unpack_from("<I", data, 0x3C)
        signature, link_time = struct.unpack_from("<4s4xI", data, start)
        size, checksum = struct.unpack_from("<I4xI", data, start + 24 + 56)
    except struct.error:
        return ImageHeader()
    if data[:2] != b"MZ" or signature != b"PE\0\0":
        return ImageHeader()
    return ImageHeader(size, checksum, link_time)


def decode_debug_string(data: bytes, is_unicode: bool) -> str:
    """The text of OutputDebugString, up to its NUL. Of the 8-bit kind nothing tells the code page: what is not UTF-8
    is escaped."""
    text = data.decode("utf-16-le", "replace") if is_unicode else data.decode("utf-8", "backslashreplace")
    return text.split("\0", 1)[0].rstrip()


class Account:
    """The account of one process, written down as it happens.

    Arguments: `devices` as in `devicepath.display_path`; `tell` gets each record at once.
    """

    def __init__(self, devices: Mapping[str, str], tell: Callable[[RawRecord], None] | None = None) -> None:
        self._devices = devices
        self._tell = tell
        self._records: list[RawRecord] = []
        self._images: dict[int, tuple[str, ImageHeader]] = {}
        self._notes: list[str] = []
        self._notes_left_out = 0
        self._unhandled: Crash | None = None
        self._faults: dict[int, Crash] = {}
        self._ready: int | None = None

    @property
    def records(self) -> tuple[RawRecord, ...]:
        """The loads and unloads, as the kernel's image provider would have written them."""
        return tuple(self._records)

    def know(self, base: int, path: str, header: ImageHeader) -> None:
        """An image was mapped before this account begins: no event of its own, but its unload is one."""
        self._images[base] = (path, header)

    def forget(self, base: int) -> None:
        """It was unmapped before, too."""
        self._images.pop(base, None)

    def note_ready(self, clock: int) -> None:
        """The loader has brought what the program needs itself; its first instruction is next. Of several such
        words the last counts: a 32-bit program begins in two steps."""
        self._ready = clock

    def note_end(self, clock: int) -> None:
        """The process has ended; if it was never ready, that was at its start."""
        if self._ready is None:
            self._ready = clock

    def note_load(self, when: Happening, base: int, path: str, header: ImageHeader) -> None:
        """An image was mapped. `path` is the kernel's (`\\??\\C:\\...` is one)."""
        self._images[base] = (path, header)
        self._add(_image_record(Opcode.LOAD, when, base, path, header))

    def note_unload(self, when: Happening, base: int) -> None:
        """An image was unmapped."""
        path, header = self._images.pop(base, ("", ImageHeader()))
        if path:
            self._add(_image_record(Opcode.UNLOAD, when, base, path, header))
        else:
            self.note(f"something at {base:#x} was unloaded whose load was not seen")

    def note_exception(self, tid: int, record: EXCEPTION_RECORD, is_first_chance: bool) -> None:
        """An exception was raised (first chance), or was handled by nobody (second)."""
        code = record.ExceptionCode
        if is_first_chance and code in FAULTS:
            self._faults[code] = self._crash(tid, record)
        elif not is_first_chance:
            self._unhandled = self._crash(tid, record)

    def note_said(self, data: bytes, is_unicode: bool) -> None:
        """OutputDebugString."""
        self.note(f"the program said: {decode_debug_string(data, is_unicode)}")

    def note(self, text: str) -> None:
        """Something else worth telling; of very many only the first are kept."""
        if len(self._notes) < _MOST_NOTES:
            self._notes.append(text)
        else:
            self._notes_left_out += 1

    def notes(self) -> tuple[str, ...]:
        left_out = (f"{self._notes_left_out} more notes were left out",) if self._notes_left_out else ()
        return (*self._notes, *left_out)

    def crash(self, status: int) -> Crash | None:
        """The exception that ended the process, whose status is `status`; `None` if it ended by itself."""
        return self._unhandled or self._faults.get(status)

    def events(
        self, requests: Sequence[Request], pid: int, wall: float, clock: int, since: int | None = None
    ) -> tuple[ImageChange, ...]:
        """Loads and unloads in order; which unload is a failure, the requests tell.

        Arguments: `wall` (seconds since the epoch) and `clock` (`time.perf_counter_ns()`) of one moment; `since`, by
        the same clock: what came before is left out.
        """
        machine = Machine(pid, self._devices, None, 1_000_000_000, wall, clock)
        first = None if since is None else machine.epoch(since)
        ready = None if self._ready is None else machine.epoch(self._ready)
        events = decode_records(self._records, requests, machine).events
        return tuple(
            _at_start(_as_seen_here(event), is_program=number == 0)
            if ready is not None and (event.timestamp or 0.0) < ready
            else _as_seen_here(event)
            for number, event in enumerate(events)
            if first is None or (event.timestamp or 0.0) >= first
        )

    def _add(self, record: RawRecord) -> None:
        self._records.append(record)
        if self._tell is not None:
            self._tell(record)

    def _crash(self, tid: int, record: EXCEPTION_RECORD) -> Crash:
        code, address = record.ExceptionCode, record.ExceptionAddress
        at = next((b for b, (_, header) in self._images.items() if b <= address < b + header.size), None)
        path = None if at is None else self._images[at][0]
        # EXCEPTION_RECORD, MS Learn: the second parameter of these two is the address that was inaccessible.
        has_address = code in (ACCESS_VIOLATION, IN_PAGE_ERROR) and record.NumberParameters >= 2
        return Crash(
            code=code,
            name=exception_name(code),
            address=address,
            image=None if path is None else display_path(path, self._devices, None) or path,
            offset=None if at is None else address - at,
            thread=tid,
            fault_address=record.ExceptionInformation[1] if has_address else None,
        )


def decode_early(
    record: RawRecord, pid: int, devices: Mapping[str, str], wall: float, clock: int
) -> tuple[ImageChange, ...]:
    """The event in a record of an account, as far as it is known before the program has ended: an unload is an unload,
    and nothing is known of imports. `wall` and `clock` as of `Account.events`, and so is the time of the event."""
    machine = Machine(pid, devices, None, 1_000_000_000, wall, clock)
    return tuple(_as_seen_here(event) for event in decode_records([record], (), machine).events)


def replay(text: bytes, start: int, pid: int, account: Account) -> int:
    """Tell an account what the helper of process `pid` wrote (`debug_lines`): from `start` on it happened in the block,
    what stands before tells what was loaded then. Returns how many lines of the block are damaged."""
    for line in decode_lines(text[:start]):
        if line is not None and line[0] == LOAD:
            _, _, _, base, path, head = line
            account.know(base, path, decode_image_header(head))
        elif line is not None and line[0] == UNLOAD:
            account.forget(line[3])
    damaged = 0
    for line in decode_lines(text[start:]):
        if line is None:
            damaged += 1
        elif line[0] == LOAD:
            _, tid, clock, base, path, head = line
            account.note_load(Happening(pid, tid, clock), base, path, decode_image_header(head))
        elif line[0] == UNLOAD:
            account.note_unload(Happening(pid, line[1], line[2]), line[3])
        elif line[0] == SAID:
            account.note_said(line[2], bool(line[1]))
        elif line[0] == NOTE:
            account.note(line[1])
    return damaged


def _image_record(opcode: int, when: Happening, base: int, path: str, header: ImageHeader) -> RawRecord:
    """The record that the kernel's image provider would have written."""
    head = _EVENT_HEADER.pack(
        HEADER_SIZE, 0, _FLAG_64_BIT, 0, when.tid, when.pid, when.clock, IMAGE_PROVIDER,
        0, _VERSION, 0, 0, opcode, 0, 0,
    )  # fmt: skip
    fields = (base, header.size, when.pid, header.checksum, header.link_time, 0, 0, 0, base, 0, 0, 0, 0)
    name = path.encode("utf-16-le", "surrogatepass") + b"\0\0"
    return RawRecord(head.ljust(HEADER_SIZE, b"\0"), _PAYLOAD.pack(*fields) + name)


def _at_start(event: ImageChange, *, is_program: bool) -> ImageChange:
    """Of what came before the first instruction it is known that no import asked for it. The first is the program."""
    if is_program and isinstance(event, LoadEvent):
        event = replace(event, phase=Phase.DIRECT)
    return replace(event, imports=())


def _as_seen_here(event: ImageChange) -> ImageChange:
    """`\\??\\C:\\x` is how the records spell the path that the debugger was told: C:\\x."""
    if event.path.startswith("\\??\\"):
        event = replace(event, path=event.shown_path, display_path=None)
    return event if event.size else replace(event, size=None, checksum=None)
