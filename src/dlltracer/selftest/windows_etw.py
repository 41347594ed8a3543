"""Questions about Event Tracing for Windows: how sessions start, what they deliver and in which order."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

if sys.platform != "win32":
    raise ImportError("only for Windows")

from ..capture.windows.etw import bindings
from ..capture.windows.etw.session import (
    SYSTEM_TRACE_CONTROL_GUID,
    RunningSession,
    Stopped,
    make_properties,
    session_names,
)
from ..capture.windows.image_records import HEADER_SIZE, IMAGE_PROVIDER
from ..trace import Trace
from .step import Answer, CannotAsk, Question, Room
from .windows_api import (
    WindowsApi,
    ask_dependency,
    ask_failed,
    ask_good,
    ask_import,
    ask_refused,
    ask_unload,
    note_recording,
)

NAME = "etw"
_STUB = "its ETW is a stub"
_REAL_TIME, _SYSTEM_LOGGER = bindings.EVENT_TRACE_REAL_TIME_MODE, bindings.EVENT_TRACE_SYSTEM_LOGGER_MODE
_IMAGES, _NO_SYSCONFIG = bindings.EVENT_TRACE_FLAG_IMAGE_LOAD, bindings.EVENT_TRACE_FLAG_NO_SYSCONFIG
_PAYLOAD_HEAD = {8: 56, 4: 44}
"""Bytes of an image payload before the file name, by the size of a pointer (Image_Load, wmicore.mof)."""
_LOADS = 1000
_TRIES, _PAUSE = 30, 0.1
_SECONDS = 5.0
_OPCODES = {10: "loads", 2: "unloads", 3: "rundown at the start", 4: "rundown at the end"}

_LEAVE = (
    "import os, sys; sys.path.insert(0, sys.argv[1]); import dlltracer; "
    "dlltracer.Trace(backend='etw').start(); os._exit(9)"
)


def questions() -> tuple[Question, ...]:
    """Return the questions of the group "etw"."""
    asked: tuple[tuple[str, str, Callable[[Room], Answer]], ...] = (
        ("without Administrator", "StartTrace gives error 5", _ask_unelevated),
        ("sessions of this machine", "they can be listed", _ask_sessions),
        ("a private system logger", "StartTrace gives 0", _ask_private),
        ("without system configuration", "StartTrace takes NO_SYSCONFIG (0)", _ask_no_sysconfig),
        ("an offset without a log file", "to be learned: 0, 87 or 161", _ask_offset),
        ("another's GUID", "StartTrace gives 87", _ask_wrong_guid),
        ("kernel flags without the mode", "StartTrace refuses an ordinary session with them", _ask_without_mode),
        ("the same name twice", "error 183, and after the stop the name is free again", _ask_twice),
        ("delivery", "a load arrives, between the two times around it", _ask_delivery),
        ("rundown", "to be learned: images reported at the start and at the end", _ask_rundown),
        ("order", f"{_LOADS} loads on two processors are in order when sorted by time", _ask_order),
        ("records", "header and payload of image events are as documented", _ask_records),
        ("a good load", "an event with its path", lambda room: _traced(ask_good, room)),
        ("a load with a need", "an event for each", lambda room: _traced(ask_dependency, room)),
        ("FreeLibrary", "an unload, no failure", lambda room: _traced(ask_unload, room)),
        ("a missing need", "the DLL is mapped, then dropped: Failed", lambda room: _traced(ask_failed, room)),
        ("a failing import", "Failed, with the import that asked", lambda room: _traced(ask_import, room)),
        ("a DllMain that refuses", "Failed", lambda room: _traced(ask_refused, room)),
        ("the loader's own events", "to be learned: whether ntdll writes any", _ask_loader_events),
        ("a killed trace", "its session is stopped by the next one", _ask_killed),
    )
    return tuple(Question(NAME, name, expected, ask, on_wine=_STUB) for name, expected, ask in asked)


def _need_rights() -> bindings.Etw:
    """Return the functions. Raises `CannotAsk` without the rights of an Administrator."""
    if not bindings.is_administrator():
        raise CannotAsk("it needs Administrator: run the self-test from an elevated prompt as well")
    return bindings.Etw()


def _traced(ask: Callable[[Room, str], Answer], room: Room) -> Answer:
    _need_rights()
    return ask(room, NAME)


class _Try:
    """An attempt to start a session: `code`, what StartTrace returned. `stop` ends a session that was started."""

    def __init__(
        self, etw: bindings.Etw, name: str, guid: bytes, mode: int, flags: int, *, offset: int | None = None
    ) -> None:
        self._etw, self._name = etw, name
        self._handle = ctypes.c_uint64()
        room = make_properties(guid, mode | _REAL_TIME, flags)
        if offset is not None:
            room.Properties.LogFileNameOffset = offset
        self.code = int(etw.StartTraceW(ctypes.byref(self._handle), name, ctypes.byref(room.Properties)))

    def stop(self) -> int:
        """Stop it, if it started; what ControlTrace returned."""
        if self.code:
            return 0
        room = make_properties(None, 0, 0)
        properties = ctypes.byref(room.Properties)
        return int(
            self._etw.ControlTraceW(self._handle, None, properties, bindings.EVENT_TRACE_CONTROL_STOP)
        )


def _session_name(room: Room, word: str = "") -> str:
    # Not of the form that `owner_of` reads: another dlltracer must not stop it.
    return f"dlltracer-selftest-{os.getpid()}-{room.letter}{word}"


def _try(room: Room, mode: int, flags: int, guid: bytes | None = None, *, offset: int | None = None) -> int:
    etw = _need_rights()
    attempt = _Try(etw, _session_name(room), guid or os.urandom(16), mode, flags, offset=offset)
    room.note("StartTrace", attempt.code)
    room.note("stop", attempt.stop())
    return attempt.code


def _ask_unelevated(room: Room) -> Answer:
    if bindings.is_administrator():
        raise CannotAsk("this process is elevated: run the self-test as an ordinary user as well")
    etw = bindings.Etw()
    codes = {}
    for name, mode, flags in (("system logger", _SYSTEM_LOGGER, _IMAGES), ("ordinary", 0, 0)):
        attempt = _Try(etw, _session_name(room, name[0]), os.urandom(16), mode, flags)
        codes[name] = attempt.code
        attempt.stop()
        room.note(name, attempt.code)
    try:
        Trace(backend=NAME).start()
    except PermissionError as error:
        room.note("Trace", error)
        room.note("winerror", error.winerror)
        return codes["system logger"] == 5 and error.winerror == 5, f"StartTrace {codes}, Trace PermissionError"
    return False, f"StartTrace {codes}; Trace did not refuse"


def _ask_sessions(room: Room) -> Answer:
    etw = bindings.Etw()
    names = session_names(etw)
    room.note("sessions that this user may see", len(names))
    room.note("NT Kernel Logger runs", bindings.KERNEL_LOGGER_NAMEW in names)
    room.note("of dlltracer", sum(name.startswith("dlltracer-") for name in names))
    if not bindings.is_administrator():
        raise CannotAsk("without Administrator only one's own are listed")
    return bool(names), f"{len(names)} sessions"


def _ask_private(room: Room) -> Answer:
    code = _try(room, _SYSTEM_LOGGER, _IMAGES)
    return code == 0, f"StartTrace {code}"


def _ask_no_sysconfig(room: Room) -> Answer:
    code = _try(room, _SYSTEM_LOGGER, _IMAGES | _NO_SYSCONFIG)
    return code == 0, f"StartTrace {code}"


def _ask_offset(room: Room) -> Answer:
    code = _try(room, _SYSTEM_LOGGER, _IMAGES, offset=bindings.PROPERTIES_WITH_NAMES.LogFileName.offset)
    return code in (0, 87, 161), f"StartTrace {code}"


def _ask_wrong_guid(room: Room) -> Answer:
    code = _try(room, _SYSTEM_LOGGER, _IMAGES, SYSTEM_TRACE_CONTROL_GUID)
    return code == 87, f"StartTrace {code}"


def _ask_without_mode(room: Room) -> Answer:
    code = _try(room, 0, _IMAGES)
    return code != 0, f"StartTrace {code}"


def _ask_twice(room: Room) -> Answer:
    etw, name, guid = _need_rights(), _session_name(room), os.urandom(16)
    first = _Try(etw, name, guid, _SYSTEM_LOGGER, _IMAGES)
    try:
        second = _Try(etw, name, guid, _SYSTEM_LOGGER, _IMAGES)
        second.stop()
        other = _Try(etw, f"{name}x", guid, _SYSTEM_LOGGER, _IMAGES)
        other.stop()
    finally:
        first.stop()
    begun, tries = time.perf_counter(), 1
    again = _Try(etw, name, guid, _SYSTEM_LOGGER, _IMAGES)
    while again.code == bindings.ERROR_ALREADY_EXISTS and tries < _TRIES:
        time.sleep(_PAUSE)
        again, tries = _Try(etw, name, guid, _SYSTEM_LOGGER, _IMAGES), tries + 1
    room.note("ms until the name was free", round(1000 * (time.perf_counter() - begun), 1))
    again.stop()
    room.note("first", first.code)
    room.note("the same name", second.code)
    room.note("another name, the same GUID", other.code)
    room.note("tries after the stop", tries)
    right = (first.code, second.code, again.code) == (0, 183, 0)
    return right, f"first {first.code}, second {second.code}, other name {other.code}, free after {tries} tries"


class _Listener:
    """A session of image events that keeps what the callback of a trace would see, for this process; counts the rest.

    Attributes: `records`, (arrival by the counter, header, payload) in order of arrival; `counts` of opcodes in all;
    `first`, when the first record arrived.
    """

    def __init__(self, room: Room) -> None:
        etw, self._api = _need_rights(), WindowsApi()
        self.records: list[tuple[int, bytes, bytes]] = []
        self.counts: Counter[int] = Counter()
        self.first = 0
        self.begun = self._api.counter()
        self._pid = os.getpid()
        self._session = RunningSession(
            etw, _session_name(room), os.urandom(16), _SYSTEM_LOGGER, _IMAGES | _NO_SYSCONFIG, self._take
        )
        self.started = self._api.counter()
        for note in self._session.notes:
            room.note("note at the start", note)
        room.note("ms to start", self.milliseconds(self.begun, self.started))
        room.note("ms to the first record", self.milliseconds(self.begun, self.first) if self.first else None)

    def _take(self, record: int) -> None:
        now = self._api.counter()
        self.first = self.first or now
        header = ctypes.string_at(record, HEADER_SIZE)
        self.counts[header[45]] += 1
        length = struct.unpack_from("<H", header, 86)[0]
        at = ctypes.c_void_p.from_address(record + bindings.EVENT_RECORD.UserData.offset).value
        data = ctypes.string_at(at, length) if at and length else b""
        pid_at = 8 if struct.unpack_from("<H", header, 4)[0] & 0x20 else 16
        if header[24:40] == IMAGE_PROVIDER and data[pid_at : pid_at + 4] == self._pid.to_bytes(4, "little"):
            self.records.append((now, header, data))

    def milliseconds(self, first: int, second: int) -> float:
        """The time between two readings of the counter."""
        return round(1000 * (second - first) / bindings.counter_frequency(), 2)

    def of_file(self, path: str, opcode: int) -> list[tuple[int, bytes, bytes]]:
        """The records of a file with one opcode."""
        name = os.path.basename(path).lower()
        return [
            one for one in self.records
            if one[1][45] == opcode and one[2].decode("utf-16-le", "replace").rstrip("\0").lower().endswith(name)
        ]  # fmt: skip

    def stop(self, room: Room) -> Stopped:
        """Stop, and note what was lost."""
        begun = self._api.counter()
        ended = self._session.stop()
        room.note("ms to stop", self.milliseconds(begun, self._api.counter()))
        room.note("events lost", ended.events_lost)
        room.note("buffers lost", ended.buffers_lost)
        for opcode, count in sorted(self.counts.items()):
            room.note(f"records, {_OPCODES.get(opcode, f'opcode {opcode}')}", count)
        for note in ended.notes:
            room.note("note at the end", note)
        return ended


def _ask_delivery(room: Room) -> Answer:
    api, path = WindowsApi(), room.place("good", f"dt_good_{room.letter}.dll")
    listener = _Listener(room)
    before = api.counter()
    _, code = api.load(path)
    after = api.counter()
    until = time.monotonic() + _SECONDS
    while not listener.of_file(path, 10) and time.monotonic() < until:
        time.sleep(0.01)
    arrived = listener.of_file(path, 10)
    room.note("ms from the load to its record, without a flush", listener.milliseconds(after, arrived[0][0])
              if arrived else f"more than {1000 * _SECONDS:g}")  # fmt: skip
    ended = listener.stop(room)
    found = listener.of_file(path, 10)
    if not found:
        return False, f"no record of the load, which gave error {code}"
    ticks = struct.unpack_from("<q", found[0][1], 16)[0]
    room.note("ticks before, of the record, after", f"{before} {ticks} {after}")
    right = before <= ticks <= after and not ended.events_lost and not ended.buffers_lost
    return right, f"{'between' if before <= ticks <= after else 'not between'} the two times"


def _ask_rundown(room: Room) -> Answer:
    listener = _Listener(room)
    before = dict(listener.counts)
    ended = listener.stop(room)
    own = Counter(header[45] for _, header, _ in listener.records)
    room.note("of this process, at the start", own[3])
    room.note("of this process, at the end", own[4])
    room.note("when the start returned", before)
    pids = {header[12:16] for _, header, _ in listener.records if header[45] in (3, 4)}
    room.note("process ids in headers of the rundown", ", ".join(str(int.from_bytes(pid, "little")) for pid in pids))
    counts = listener.counts
    return not ended.notes, f"{counts[3]} at the start, {counts[4]} at the end; of this process {own[3]} and {own[4]}"


def _ask_order(room: Room) -> Answer:
    """Load and unload one DLL on alternating processors. Each has buffers of its own, flushed at times of its own."""
    api, path = WindowsApi(), room.place("good", f"dt_order_{room.letter}.dll")
    kernel32 = api.kernel32
    kernel32.GetCurrentThread.restype = ctypes.c_void_p
    kernel32.SetThreadAffinityMask.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    kernel32.SetThreadAffinityMask.restype = ctypes.c_size_t
    processors = min(os.cpu_count() or 1, struct.calcsize("P") * 8)
    listener = _Listener(room)
    former = 0
    for number in range(_LOADS):
        if processors > 1:
            mask = kernel32.SetThreadAffinityMask(kernel32.GetCurrentThread(), 1 << number % processors)
            former = former or mask
        handle, _ = api.load(path)
        if handle:
            api.free(handle)
    if former:
        kernel32.SetThreadAffinityMask(kernel32.GetCurrentThread(), former)
    ended = listener.stop(room)
    name = os.path.basename(path).lower()
    found = [
        (struct.unpack_from("<q", header, 16)[0], header[45]) for _, header, data in listener.records
        if header[45] in (10, 2) and data.decode("utf-16-le", "replace").rstrip("\0").lower().endswith(name)
    ]  # fmt: skip
    inversions = sum(one[0] > other[0] for one, other in pairwise(found))
    opcodes = [opcode for _, opcode in sorted(found, key=lambda one: one[0])]
    room.note("processors", processors)
    room.note("records", len(found))
    room.note("out of order on arrival", inversions)
    lost = ended.events_lost + ended.buffers_lost
    return opcodes == [10, 2] * _LOADS and not lost, f"{len(found)} of {2 * _LOADS}, {inversions} arrived out of order"


def _ask_records(room: Room) -> Answer:
    """Headers and payloads of five loads and unloads as they came, but for the file names."""
    api = WindowsApi()
    paths = [room.place("good", f"dt_record_{room.letter}{number}.dll") for number in range(5)]
    listener = _Listener(room)
    bases = []
    for path in paths:
        handle, _ = api.load(path)
        bases.append(handle)
        if handle:
            api.free(handle)
    listener.stop(room)
    wrong = []
    for path, base in zip(paths, bases, strict=True):
        for opcode in (10, 2):
            found = listener.of_file(path, opcode)
            if len(found) != 1:
                wrong.append(f"{len(found)} records of opcode {opcode}")
                continue
            _, header, data = found[0]
            flags = struct.unpack_from("<H", header, 4)[0]
            size = 4 if flags & 0x20 else 8
            room.note(f"header, opcode {opcode}", header[:88].hex())
            room.note(f"payload, opcode {opcode}", f"{data[: _PAYLOAD_HEAD[size]].hex()} and {len(data)} bytes in all")
            reported = int.from_bytes(data[:size], "little")
            if reported != base or header[42] not in (2, 3):
                wrong.append(f"base {reported:#x}, not {base:#x}; version {header[42]}")
    return not wrong, "; ".join(wrong[:3]) or "ten records, versions and bases are right"


def _ask_loader_events(room: Room) -> Answer:
    """PEB.TracingFlags bit 2 (LibLoaderTracingEnabled), set by this process itself: a guess that it is read later."""
    _need_rights()
    offset = 0x378 if struct.calcsize("P") == 8 else 0x240
    flags = ctypes.c_uint32.from_address(WindowsApi().peb() + offset)
    former = flags.value
    room.note("TracingFlags", hex(former))
    counts: list[str] = []
    for word in ("as it is", "with the flag"):
        path = room.place("needs-missing", f"dt_needs_{room.letter}{len(counts)}.dll")
        if counts:
            flags.value |= 4
        trace = Trace(backend="etw+loader", unloads=True)
        try:
            with trace:
                WindowsApi().load(path)
        finally:
            flags.value = former
        assert trace.recording is not None
        note_recording(room, trace.recording)
        named = [event for event in trace.recording.failures if event.need and "dt_gone" in event.need.lower()]
        counts.append(f"{word} {len(named)}")
    return True, f"failed needs named: {', '.join(counts)}"


def _ask_killed(room: Room) -> Answer:
    _need_rights()
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    ended = subprocess.run(
        [sys.executable, "-c", _LEAVE, root], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )
    room.note("status of the killed one", ended.returncode)
    trace = Trace(backend=NAME)
    with trace:
        pass
    assert trace.recording is not None
    notes = [note for note in trace.recording.notes if "left behind" in note]
    for note in trace.recording.notes:
        room.note("note", note)
    return ended.returncode == 9 and any("stopped the session" in note for note in notes), "; ".join(notes) or "no note"
