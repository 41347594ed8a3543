"""Loads, unloads and exceptions that a debugger wrote down, decoded into events and a crash."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.capture.windows.debugger.bindings import EXCEPTION_RECORD
from dlltracer.capture.windows.debugger.process_log import (
    EventOrigin,
    ImageHeader,
    ProcessLog,
    decode_debug_string,
    decode_image_header,
    decode_record_now,
)
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase, UnloadEvent
from dlltracer.model.failure import Crash, exception_name, status_name
from dlltracer.model.request import Request, RequestKind

PID, TID = 4711, 7
PYD, DLL = r"C:\Py\broken.pyd", r"C:\Py\dependency.dll"
HEADER = ImageHeader(0x3000, 0xC0FFEE, 1_600_000_000)
VIOLATION, BREAKPOINT, CXX = 0xC0000005, 0x80000003, 0xE06D7363


def at(microseconds: int, tid: int = TID) -> EventOrigin:
    return EventOrigin(PID, tid, microseconds * 1000)


def exception(code: int, address: int, *parameters: int) -> EXCEPTION_RECORD:
    record = EXCEPTION_RECORD(code, 0, 0, address, len(parameters))
    for index, value in enumerate(parameters):
        record.ExceptionInformation[index] = value
    return record


def headers(size: int, checksum: int, link_time: int, *, at: int = 0x80, wide: bool = True) -> bytes:
    """The start of a PE file, as far as it matters here."""
    optional = struct.pack("<H54xIII", 0x20B if wide else 0x10B, size, 0x400, checksum)
    coff = struct.pack("<HHIIIHH", 0x8664, 0, link_time, 0, 0, 240, 0x2022)
    return b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", at).ljust(at - 0x3C, b"\0") + b"PE\0\0" + coff + optional


@pytest.fixture
def log() -> ProcessLog:
    return ProcessLog({r"\Device\HarddiskVolume3": "C:"})


def failed_import(log: ProcessLog) -> None:
    """The extension module and its dependency come and go within 10 to 13 microseconds."""
    log.note_load(at(10), 0x1000_0000, "\\??\\" + PYD, HEADER)
    log.note_load(at(11), 0x2000_0000, "\\??\\" + DLL, HEADER)
    log.note_unload(at(12), 0x2000_0000)
    log.note_unload(at(13), 0x1000_0000)


def test_a_load_says_what_was_seen(log: ProcessLog) -> None:
    log.note_load(at(500_000), 0x1000_0000, "\\??\\" + PYD, HEADER)
    (event,) = log.events((), PID, wall=1000.0, clock=0)
    assert event == LoadEvent(
        PYD, base=0x1000_0000, size=0x3000, timestamp=1000.5, pid=PID, tid=TID,
        checksum=0xC0FFEE, link_time=1_600_000_000,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reported", "path", "shown"),
    [
        (r"\??\C:\x\a.dll", r"C:\x\a.dll", r"C:\x\a.dll"),
        (r"\??\UNC\server\share\a.dll", r"\\server\share\a.dll", r"\\server\share\a.dll"),
        (r"\Device\HarddiskVolume3\a.dll", r"\Device\HarddiskVolume3\a.dll", r"C:\a.dll"),
        (r"\Device\HarddiskVolume9\a.dll", r"\Device\HarddiskVolume9\a.dll", r"\Device\HarddiskVolume9\a.dll"),
        ("\\??\\C:\\\udc80\u00e9\U0001f40d.dll", "C:\\\udc80\u00e9\U0001f40d.dll", "C:\\\udc80\u00e9\U0001f40d.dll"),
    ],
)
def test_paths_are_those_of_windows_programs(log: ProcessLog, reported: str, path: str, shown: str) -> None:
    log.note_load(at(1), 0x1000_0000, reported, HEADER)
    log.note_exception(TID, exception(VIOLATION, 0x1000_0010), is_first_chance=False)
    (event,) = log.events((), PID, 0.0, 0)
    crash = log.crash(VIOLATION)
    assert (event.path, event.shown_path, crash and crash.image) == (path, shown, shown)


def test_early_events_are_the_final_ones_without_requests() -> None:
    devices = {r"\Device\HarddiskVolume3": "C:"}
    reported: list[object] = []
    log = ProcessLog(devices, lambda record: reported.extend(decode_record_now(record, PID, devices, 1000.0, 0)))
    failed_import(log)
    assert len(reported) == 4
    log.note_load(at(14), 0x1000_0000, r"\Device\HarddiskVolume3\a.dll", ImageHeader())
    log.note_unload(at(15), 0x7000_0000)
    assert reported == list(log.events((), PID, 1000.0, 0))


def test_without_requests_an_unload_is_neutral(log: ProcessLog) -> None:
    failed_import(log)
    events = log.events((), PID, 0.0, 0)
    assert [(type(event), event.path) for event in events] == [
        (LoadEvent, PYD), (LoadEvent, DLL), (UnloadEvent, DLL), (UnloadEvent, PYD)
    ]  # fmt: skip
    assert {event.imports for event in events} == {None}


def test_with_requests_the_rule_for_unloads_is_applied(log: ProcessLog) -> None:
    failed_import(log)
    request = Request(RequestKind.EXTENSION, r"c:\py\BROKEN.pyd", ("broken",), TID, 0.0, 5_000, idle_clock=20_000)
    events = log.events([request], PID, 0.0, 0)
    assert [type(event) for event in events] == [LoadEvent, LoadEvent, LoadFailedEvent, LoadFailedEvent]
    assert {event.imports for event in events} == {("broken",)}
    assert {event.kind for event in events if isinstance(event, LoadFailedEvent)} == {FailureKind.DROPPED}


def test_what_the_loader_brought_before_the_first_instruction(log: ProcessLog) -> None:
    """No import asked for it; of what came later that is not known. The program is the first."""
    for microseconds, name in ((1, "app.exe"), (2, "a.dll"), (4, "wow.dll"), (6, "later.dll")):
        log.note_load(at(microseconds), microseconds << 16, f"\\??\\C:\\{name}", HEADER)
    log.note_ready(3000)
    log.note_ready(5000)  # the second word of a 32-bit program
    log.note_end(7000)
    events = log.events((), PID, 0.0, 0)
    assert [(event.imports, event.phase) for event in events if isinstance(event, LoadEvent)] == [
        ((), Phase.DIRECT), ((), None), ((), None), (None, None)
    ]  # fmt: skip
    assert [event.path for event in log.events((), PID, 0.0, 0, since=5500)] == ["C:\\later.dll"]


def test_a_program_that_never_began(log: ProcessLog) -> None:
    log.note_load(at(1), 0x1000_0000, r"\??\C:\app.exe", HEADER)
    log.note_end(2000)
    (event,) = log.events((), PID, 0.0, 0)
    assert event.imports == ()


def test_an_image_at_the_place_of_one_that_left(log: ProcessLog) -> None:
    log.note_load(at(1), 0x1000_0000, "\\??\\" + PYD, HEADER)
    log.note_unload(at(2), 0x1000_0000)
    log.note_load(at(3), 0x1000_0000, "\\??\\" + DLL, HEADER)
    log.note_exception(TID, exception(VIOLATION, 0x1000_0010), is_first_chance=False)
    log.note_unload(at(4), 0x1000_0000)
    assert [event.path for event in log.events((), PID, 0.0, 0)] == [PYD, PYD, DLL, DLL]
    assert (crash := log.crash(VIOLATION)) is not None and crash.image == DLL


def test_an_unload_without_a_load_is_a_note(log: ProcessLog) -> None:
    log.note_unload(at(1), 0x1234_0000)
    assert log.events((), PID, 0.0, 0) == ()
    (note,) = log.notes()
    assert "0x12340000" in note


def test_a_header_that_cannot_be_read_leaves_the_size_open(log: ProcessLog) -> None:
    log.note_load(at(1), 0x1000_0000, "\\??\\" + PYD, decode_image_header(b""))
    (event,) = log.events((), PID, 0.0, 0)
    assert (event.size, event.checksum, event.link_time) == (None, None, None)


def test_an_unhandled_exception_is_the_crash(log: ProcessLog) -> None:
    log.note_load(at(1), 0x1000_0000, "\\??\\" + PYD, HEADER)
    for is_first_chance in (True, False):
        log.note_exception(TID, exception(VIOLATION, 0x1000_1234, 1, 0x30), is_first_chance)
    assert log.crash(VIOLATION) == Crash(
        VIOLATION, "access violation", address=0x1000_1234, image=PYD, offset=0x1234, thread=TID, fault_address=0x30
    )


@pytest.mark.parametrize(("address", "is_inside"), [(0xFFF_FFFF, False), (0x1000_0000, True), (0x1000_3000, False)])
def test_the_image_of_an_address(log: ProcessLog, address: int, is_inside: bool) -> None:
    log.note_load(at(1), 0x1000_0000, "\\??\\" + PYD, HEADER)
    log.note_exception(TID, exception(0xC000001D, address), is_first_chance=False)
    crash = log.crash(0xC000001D)
    assert crash is not None
    assert (crash.image, crash.offset) == ((PYD, 0) if is_inside else (None, None))
    assert (crash.name, crash.fault_address) == ("illegal instruction", None)


def test_a_fault_that_is_the_status_is_the_crash_and_the_last_of_them(log: ProcessLog) -> None:
    for address in (1, 2):
        log.note_exception(TID, exception(VIOLATION, address, 0, address), is_first_chance=True)
    log.note_exception(TID, exception(0xC0000094, 3), is_first_chance=True)
    assert log.crash(0) is None
    assert log.crash(0xC0000096) is None
    assert (crash := log.crash(VIOLATION)) is not None and crash.fault_address == 2


@pytest.mark.parametrize("code", [BREAKPOINT, 0x80000004, CXX, 0x406D1388, 0x40010005])
def test_what_programs_raise_every_day_is_no_crash(log: ProcessLog, code: int) -> None:
    log.note_exception(TID, exception(code, 0x1000), is_first_chance=True)
    assert log.crash(code) is None


def test_nobody_caught_a_cplusplus_exception(log: ProcessLog) -> None:
    log.note_exception(TID, exception(CXX, 0x1000, 0x19930520, 1, 2), is_first_chance=False)
    assert (crash := log.crash(CXX)) is not None
    assert (crash.name, crash.fault_address) == ("C++ exception", None)


def test_notes_are_bounded(log: ProcessLog) -> None:
    for number in range(1000):
        log.note(str(number))
    assert log.notes() == (*map(str, range(100)), "900 more notes were left out")


def test_an_exception_without_a_name() -> None:
    assert (exception_name(0x80000100), status_name(0x80000100)) == ("exception 0x80000100", None)
    crash = Crash(0x80000100, exception_name(0x80000100), 1, None, None, 1, None)
    assert crash.name_and_code == "exception 0x80000100"
    assert Crash(VIOLATION, "access violation", 1, None, None, 1, None).name_and_code == "access violation (0xc0000005)"


@pytest.mark.parametrize(
    ("data", "is_unicode", "text"),
    [
        (b"hello\r\n\0rest", False, "hello"),
        (b"\xff caf\xc3\xa9", False, "\\xff caf\u00e9"),
        ("snow \u2603\0x".encode("utf-16-le"), True, "snow \u2603"),
        (b"", True, ""),
        (b"a\0b", True, "a\ufffd"),
    ],
)
def test_debug_strings(data: bytes, is_unicode: bool, text: str) -> None:
    assert decode_debug_string(data, is_unicode) == text


@pytest.mark.parametrize("wide", [True, False])
def test_the_header_of_an_image(wide: bool) -> None:
    data = headers(0x5000, 0xABC, 1_700_000_000, at=0x118, wide=wide)
    assert decode_image_header(data) == ImageHeader(0x5000, 0xABC, 1_700_000_000)
    for length in range(len(data)):
        assert decode_image_header(data[:length]) in (ImageHeader(), ImageHeader(0x5000, 0xABC, 1_700_000_000))


@given(st.binary(max_size=400), st.integers(0, 0xFFFFFFFF))
def test_no_header_raises(data: bytes, start: int) -> None:
    assert isinstance(decode_image_header(data), ImageHeader)
    changed = b"MZ" + data[2:0x3C].ljust(0x3A, b"\0") + struct.pack("<I", start) + data[0x40:]
    assert isinstance(decode_image_header(changed), ImageHeader)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 4), st.integers(0, 0xFFFFFFFF), st.integers(0, 3)), max_size=30),
    st.integers(0, 5 << 32) | st.integers(0, 2**64 - 1),
)
def test_whatever_is_noted_can_be_decoded(steps: list[tuple[bool, int, int, int]], address: int) -> None:
    log = ProcessLog({})
    loaded: dict[int, int] = {}  # base to size
    reported = 0
    for is_load, place, size, tid in steps:
        base = place << 32
        if is_load:
            log.note_load(at(reported, tid), base, f"\\??\\C:\\{place}.dll", ImageHeader(size, size, size))
        else:
            log.note_unload(at(reported, tid), base)
        reported += is_load or base in loaded
        if is_load:
            loaded[base] = size
        else:
            loaded.pop(base, None)
    log.note_exception(TID, exception(VIOLATION, address), is_first_chance=False)
    events = log.events((), PID, 0.0, 0)
    assert len(events) == reported
    crash = log.crash(0)
    base = address >> 32 << 32
    is_inside = address - base < loaded.get(base, 0)
    expected = (f"C:\\{address >> 32}.dll", address - base) if is_inside else (None, None)
    assert crash is not None and (crash.image, crash.offset) == expected
