"""Turns the debug events and exceptions of one process into events and a crash. Pure.

Some exceptions carry pointers in EXCEPTION_RECORD.ExceptionInformation: to the name of a DLL that is loaded
late, or to a type of C++. A debugger follows them in the memory of the program, which may be anything.
Sources: DelayLoadInfo of delayimp.h (Visual C++; mingw's helper fills the same); _ThrowInfo, CatchableType and
TypeDescriptor of ehdata.h, whose addresses are offsets from the base of an image in 64-bit code; __cxa_exception of the
Itanium C++ ABI and unwind-seh.c of libgcc, which throws with one parameter, the address of its _Unwind_Exception.

Loads and unloads are kept as the image records that the kernel would write, so that one rule judges both mechanisms
(see `image_events`). The exception that ended a process is

(a) the exception that was not handled: the debugger is asked a second time ("Debugger Exception Handling", MS Learn);
(b) without one, the last fault of the processor whose code is the status of the process: then a handler of the
    program's own ended it so. A fault that was handled, and the process ended otherwise, is no crash.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ....model.events import ImageChange, LoadEvent, Phase
from ....model.failure import (
    ACCESS_VIOLATION,
    DELAY_LOAD,
    FAULTS,
    GNU_CPP,
    IN_PAGE_ERROR,
    VISUAL_CPP,
    Crash,
    exception_name,
)
from ....model.request import Request
from ...requests import Watch
from ..image_events import ImageDecoder, LiveImages, RecordContext, decode_records
from ..image_records import HEADER_SIZE, IMAGE_PROVIDER, Opcode, RawRecord, display_path
from ..system import query_dos_devices, with_final_path
from .bindings import EXCEPTION_RECORD
from .loop import DEBUG_STRING, LOAD, NOTE, UNLOAD, decode_lines

Reader = Callable[[int, int], bytes]
"""Returns up to so many bytes at an address of the process; fewer where memory ends."""


_LONGEST_TEXT = 512
_MOST_TYPES = 32
_THROW_MAGIC = range(0x19930520, 0x19930530)
_PACKED = {8: struct.Struct("<Q"), 4: struct.Struct("<I")}
_DELAY_SIZES = {72: 8, 36: 4}
"""sizeof(DelayLoadInfo), its first field, to the size of its pointers."""
_STANDARD = ("St13runtime_error", "St11logic_error", "St16invalid_argument", "St12domain_error", "St12length_error",
             "St12out_of_range", "St11range_error", "St14overflow_error", "St15underflow_error")  # fmt: skip
"""Names of libstdc++'s types that have their text right behind the pointer to their functions."""


@dataclass(frozen=True)
class ExceptionFacts:
    """Facts about an exception besides its code. A field is `None` where it could not be read.

    Attributes:
        wanted, wanted_symbol: the DLL, and the function ("ordinal 7" without a name), that a delayed load asked for.
        requester: an address in the image whose delayed load that was.
        reason: the error of Windows with which that failed.
        thrown: the type of a C++ exception as its compiler spells it.
        message: the text of a C++ exception.
    """

    wanted: str | None = None
    wanted_symbol: str | None = None
    requester: int | None = None
    reason: int | None = None
    thrown: str | None = None
    message: str | None = None


def read_exception_facts(record: EXCEPTION_RECORD, read: Reader) -> ExceptionFacts:
    """Return the facts that a record leads to; no facts for an exception of another kind."""
    count = min(record.NumberParameters, len(record.ExceptionInformation))
    parameters = tuple(record.ExceptionInformation[:count])
    if record.ExceptionCode in DELAY_LOAD and parameters:
        return _read_delay_load(parameters[0], read)
    if record.ExceptionCode == VISUAL_CPP and len(parameters) >= 3 and parameters[0] in _THROW_MAGIC:
        return _read_visual_cpp(parameters, read)
    if record.ExceptionCode == GNU_CPP and parameters:
        return _read_gnu_cpp(parameters[0], read)
    return ExceptionFacts()


def _read_delay_load(at: int, read: Reader) -> ExceptionFacts:
    width = _DELAY_SIZES.get(_number(read, at, 4) or 0)
    if width is None:
        return ExceptionFacts()
    library = _text(read, _number(read, at + 3 * width, width))
    # DelayLoadProc: whether it is by name, then the name or the ordinal; both in a pointer's room.
    is_name, procedure = _number(read, at + 4 * width, 4), _number(read, at + 5 * width, width)
    symbol = _text(read, procedure) if is_name else f"ordinal {procedure & 0xFFFF}" if procedure else None
    reason = _number(read, at + 8 * width, 4)
    # The description of the delayed import, its second field, lies in the image that has the import.
    return ExceptionFacts(library, symbol, _number(read, at + width, width), reason or None)


def _read_visual_cpp(parameters: tuple[int, ...], read: Reader) -> ExceptionFacts:
    """Read the type from _ThrowInfo. 64-bit code gives a fourth parameter, the base that its addresses count from."""
    thrown, info = parameters[1:3]
    base = parameters[3] if len(parameters) > 3 else 0
    width = 8 if len(parameters) > 3 else 4
    offset = _number(read, info + 12, 4)
    types = base + offset if offset else 0
    names: list[str] = []
    for index in range(min(_number(read, types, 4) or 0, _MOST_TYPES)):
        catchable = _number(read, types + 4 + 4 * index, 4)
        descriptor = _number(read, base + catchable + 4, 4) if catchable else None
        name = _text(read, base + descriptor + 2 * width) if descriptor else None
        if name:
            names.append(name)
    message = None
    if any(name.startswith(".?AVexception@std@@") for name in names):
        # std::exception of vcruntime_exception.h: the table of functions, then the pointer to what().
        message = _text(read, _number(read, thrown + width, width))
    return ExceptionFacts(thrown=names[0] if names else None, message=message)


def _read_gnu_cpp(unwind: int, read: Reader) -> ExceptionFacts:
    """Read the type from the __cxa_exception before the _Unwind_Exception: its first field, 10 words up (x86-64)."""
    # The exception class, a number: "GNUCC++" and 0, 1 for one that only refers to another (std::rethrow_exception).
    if read(unwind, 8) != b"GNUCC++\0"[::-1]:
        return ExceptionFacts()
    type_info = _number(read, unwind - 80, 8)
    name = _text(read, _number(read, type_info + 8, 8)) if type_info else None
    message = None
    if name in _STANDARD:
        # The object follows _Unwind_Exception: two words and six private ones (unwind.h, SEH).
        message = _text(read, _number(read, unwind + 64 + 8, 8))
    # A name that begins with * is compared by address, so its spelling may repeat (type_info::name in libstdc++).
    return ExceptionFacts(thrown=name.removeprefix("*") if name else None, message=message)


def _number(read: Reader, at: int | None, width: int) -> int | None:
    if at is None or at <= 0:
        return None
    data = read(at, width)
    return int(_PACKED[width].unpack(data)[0]) if len(data) == width else None


def _text(read: Reader, at: int | None) -> str | None:
    """Return a NUL-terminated text; `None` for none, an empty or an endless one, or one with control characters."""
    if not at:
        return None
    data = b""
    # In small pieces: the end of a text may lie close to the end of readable memory.
    while b"\0" not in data and len(data) < _LONGEST_TEXT:
        part = read(at + len(data), 64)
        if not part:
            return None
        data += part
    text, mark, _ = data.partition(b"\0")
    decoded = text.decode("utf-8", "replace")
    return decoded if mark and decoded and decoded.isprintable() else None


_MOST_NOTES = 100
_EVENT_HEADER = struct.Struct("<HHHHIIq16sHBBBBHQ")  # EVENT_HEADER up to its EventDescriptor
_PAYLOAD = struct.Struct("<QQIIIBBHQIIII")  # Image_Load, version 3
_VERSION, _FLAG_64_BIT = 3, 0x40


@dataclass(frozen=True)
class ImageHeader:
    """SizeOfImage (bytes), CheckSum and TimeDateStamp of the PE header. All 0 where it could not be read."""

    size: int = 0
    checksum: int = 0
    link_time: int = 0


@dataclass(frozen=True)
class EventOrigin:
    """The process and thread of a debug event, and its time: `clock` as `time.perf_counter_ns()`."""

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
    """Return the text of OutputDebugString, up to its NUL.

    Nothing tells the code page of the 8-bit kind: bytes that are not UTF-8 are escaped.
    """
    text = data.decode("utf-16-le", "replace") if is_unicode else data.decode("utf-8", "backslashreplace")
    return text.split("\0", 1)[0].rstrip()


class ProcessLog:
    """Collects the debug events of one process as they happen.

    Arguments: `devices` as in `image_records.display_path`; `on_record` gets each load and unload at once.
    """

    def __init__(self, devices: Mapping[str, str], on_record: Callable[[RawRecord], None] | None = None) -> None:
        self._devices = devices
        self._on_record = on_record
        self._records: list[RawRecord] = []
        self._before: dict[int, RawRecord] = {}
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

    @property
    def before(self) -> tuple[RawRecord, ...]:
        """The images that were mapped before this log begins."""
        return tuple(self._before.values())

    def note_loaded_before(self, pid: int, base: int, path: str, header: ImageHeader) -> None:
        """An image was mapped before this log begins: that makes no event, but its unload does."""
        self._images[base] = (path, header)
        self._before[base] = _image_record(Opcode.RUNDOWN_START, EventOrigin(pid, 0, 0), base, path, header)

    def note_unloaded_before(self, base: int) -> None:
        """An image of `note_loaded_before` was unmapped before this log begins."""
        self._images.pop(base, None)
        self._before.pop(base, None)

    def note_ready(self, clock: int) -> None:
        """The loader has mapped what the program needs; its first instruction is next.

        Called twice for a 32-bit program, whose 64-bit part is ready first: the last call counts.
        """
        self._ready = clock

    def note_end(self, clock: int) -> None:
        """The process has ended. A process that was never ready ended at its start."""
        if self._ready is None:
            self._ready = clock

    def note_load(self, when: EventOrigin, base: int, path: str, header: ImageHeader) -> None:
        """An image was mapped. `path` is the kernel's (`\\??\\C:\\...` is one)."""
        self._images[base] = (path, header)
        self._add(_image_record(Opcode.LOAD, when, base, path, header))

    def note_unload(self, when: EventOrigin, base: int) -> None:
        """An image was unmapped."""
        path, header = self._images.pop(base, ("", ImageHeader()))
        if path:
            self._add(_image_record(Opcode.UNLOAD, when, base, path, header))
        else:
            self.note(f"something at {base:#x} was unloaded whose load was not seen")

    def note_exception(
        self, tid: int, record: EXCEPTION_RECORD, is_first_chance: bool, facts: ExceptionFacts | None = None
    ) -> None:
        """An exception was raised (first chance), or was not handled (second). `facts`: what it leads to."""
        code = record.ExceptionCode
        if is_first_chance and code in FAULTS:
            self._faults[code] = self._crash(tid, record, facts)
        elif not is_first_chance:
            self._unhandled = self._crash(tid, record, facts)

    def note_debug_string(self, data: bytes, is_unicode: bool) -> None:
        """The program called OutputDebugString."""
        self.note(f"OutputDebugString: {decode_debug_string(data, is_unicode)}")

    def note(self, text: str) -> None:
        """Keep a note for the reader. Of very many only the first are kept; the rest is counted."""
        if len(self._notes) < _MOST_NOTES:
            self._notes.append(text)
        else:
            self._notes_left_out += 1

    def notes(self) -> tuple[str, ...]:
        """Return the notes, and how many were left out."""
        left_out = (f"{self._notes_left_out} more notes were left out",) if self._notes_left_out else ()
        return (*self._notes, *left_out)

    def crash(self, status: int) -> Crash | None:
        """Return the exception that ended the process with `status`; `None` if it ended by itself."""
        return self._unhandled or self._faults.get(status)

    def events(
        self, requests: Sequence[Request], pid: int, wall: float, clock: int, since: int | None = None
    ) -> tuple[ImageChange, ...]:
        """Return loads and unloads in order. The requests tell which unload is a failure.

        Arguments: `wall` (seconds since the epoch) and `clock` (`time.perf_counter_ns()`) of one moment; `since`, by
        the same clock: earlier events are left out.
        """
        context = RecordContext(pid, self._devices, None, 1_000_000_000, wall, clock)
        first = None if since is None else context.epoch(since)
        ready = None if self._ready is None else context.epoch(self._ready)
        events = decode_records([*self._before.values(), *self._records], requests, context).events
        return tuple(
            _at_start(as_seen_here(event), is_program=number == 0)
            if ready is not None and (event.timestamp or 0.0) < ready
            else as_seen_here(event)
            for number, event in enumerate(events)
            if first is None or (event.timestamp or 0.0) >= first
        )

    def _add(self, record: RawRecord) -> None:
        self._records.append(record)
        if self._on_record is not None:
            self._on_record(record)

    def _crash(self, tid: int, record: EXCEPTION_RECORD, facts: ExceptionFacts | None) -> Crash:
        facts = facts or ExceptionFacts()
        code, address = record.ExceptionCode, record.ExceptionAddress
        at = self._base_of(address)
        # EXCEPTION_RECORD, MS Learn: the second parameter of these two is the address that was inaccessible.
        has_address = code in (ACCESS_VIOLATION, IN_PAGE_ERROR) and record.NumberParameters >= 2
        return Crash(
            code=code,
            name=exception_name(code),
            address=address,
            image=self._path_at(at),
            offset=None if at is None else address - at,
            thread=tid,
            fault_address=record.ExceptionInformation[1] if has_address else None,
            wanted=facts.wanted,
            wanted_symbol=facts.wanted_symbol,
            wanted_by=None if facts.requester is None else self._path_at(self._base_of(facts.requester)),
            reason=facts.reason,
            thrown=facts.thrown,
            message=facts.message,
        )

    def _base_of(self, address: int) -> int | None:
        """Return the base of the image that an address lies in; `None` outside of every image known."""
        return next((b for b, (_, header) in self._images.items() if b <= address < b + header.size), None)

    def _path_at(self, base: int | None) -> str | None:
        if base is None:
            return None
        path = self._images[base][0]
        return display_path(path, self._devices, None) or path


def decode_record_now(
    record: RawRecord, pid: int, devices: Mapping[str, str], wall: float, clock: int
) -> tuple[ImageChange, ...]:
    """Decode one record while the program runs: an unload is no failure yet, and no import is known.

    Arguments: `wall` and `clock` as of `ProcessLog.events`.
    """
    context = RecordContext(pid, devices, None, 1_000_000_000, wall, clock)
    return tuple(as_seen_here(event) for event in decode_records([record], (), context).events)


def replay_lines(text: bytes, start: int, pid: int, log: ProcessLog) -> int:
    """Add to a log the lines that the helper of process `pid` wrote, and return how many of the block are damaged.

    The block begins at byte `start`. Lines before it tell what was loaded when it began.
    """
    for line in decode_lines(text[:start]):
        if line is not None and line[0] == LOAD:
            _, _, _, base, path, head = line
            log.note_loaded_before(pid, base, path, decode_image_header(head))
        elif line is not None and line[0] == UNLOAD:
            log.note_unloaded_before(line[3])
    damaged = 0
    for line in decode_lines(text[start:]):
        if line is None:
            damaged += 1
        elif line[0] == LOAD:
            _, tid, clock, base, path, head = line
            log.note_load(EventOrigin(pid, tid, clock), base, path, decode_image_header(head))
        elif line[0] == UNLOAD:
            log.note_unload(EventOrigin(pid, line[1], line[2]), line[3])
        elif line[0] == DEBUG_STRING:
            log.note_debug_string(line[2], bool(line[1]))
        elif line[0] == NOTE:
            log.note(line[1])
    return damaged


class LiveLog:
    """Decodes the lines that the helper of process `pid` writes, while the trace runs.

    `wall` and `clock` are those of `ProcessLog.events`.

    Attributes: `log`, with all records; `events`, all until now; `fresh`, those that nobody took yet; `undecodable`,
    how many lines and records could not be decoded.
    """

    def __init__(self, watch: Watch, pid: int, wall: float, clock: int) -> None:
        devices = query_dos_devices()
        self._pid = pid
        self._decoder = ImageDecoder(RecordContext(pid, devices, None, 1_000_000_000, wall, clock))
        self._images = LiveImages(self._decoder, lambda record: record.ticks, watch, with_final_path)
        self.log = ProcessLog(devices, on_record=self._note_record)
        self._has_begun = False
        self._damaged = 0
        self.events: list[ImageChange] = []
        self.fresh: list[ImageChange] = []

    @property
    def undecodable(self) -> int:
        return self._damaged + self._images.undecodable

    def feed(self, text: bytes, before: int) -> None:
        """Take in whole lines. The first `before` bytes of them tell what was loaded before the trace began."""
        self._damaged += replay_lines(text, before, self._pid, self.log)

    def decode(self, now: int, *, is_end: bool = False) -> None:
        """Decode what has come, as `LiveImages.take` does."""
        fresh = [as_seen_here(event) for event in self._images.take(now, is_end=is_end)]
        self.events += fresh
        self.fresh += fresh

    def _note_record(self, record: RawRecord) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._decoder.decode(self.log.before, ())
        self._images.add([record])


def _image_record(opcode: int, when: EventOrigin, base: int, path: str, header: ImageHeader) -> RawRecord:
    """Return the record that the kernel's image provider would have written."""
    head = _EVENT_HEADER.pack(
        HEADER_SIZE, 0, _FLAG_64_BIT, 0, when.tid, when.pid, when.clock, IMAGE_PROVIDER,
        0, _VERSION, 0, 0, opcode, 0, 0,
    )  # fmt: skip
    fields = (base, header.size, when.pid, header.checksum, header.link_time, 0, 0, 0, base, 0, 0, 0, 0)
    name = path.encode("utf-16-le", "surrogatepass") + b"\0\0"
    return RawRecord(head.ljust(HEADER_SIZE, b"\0"), _PAYLOAD.pack(*fields) + name)


def _at_start(event: ImageChange, *, is_program: bool) -> ImageChange:
    """Return an event from before the program's first instruction: no import asked for it. The first is the program."""
    if is_program and isinstance(event, LoadEvent):
        event = replace(event, phase=Phase.DIRECT)
    return replace(event, imports=())


def as_seen_here(event: ImageChange) -> ImageChange:
    """Return an event with the path that the debugger got: `C:\\x`, which the records spell `\\??\\C:\\x`."""
    if event.path.startswith("\\??\\"):
        event = replace(event, path=event.shown_path, display_path=None)
    return event if event.size else replace(event, size=None, checksum=None)
