"""Decoding and judging image events, on built records and on payloads that real kernels wrote."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.image_event import FREQUENCY, PID, payload, record
from dlltracer.capture.windows.image_events import RecordContext, debug_events, decode_records
from dlltracer.capture.windows.image_records import (
    Opcode,
    RawRecord,
    decode_image_payload,
    display_path,
    is_same_name,
    is_same_path,
)
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent, UnloadEvent
from dlltracer.model.request import Request, RequestKind

PAYLOADS = Path(__file__).parents[3] / "shared" / "data" / "etl" / "libtrace_image_payloads.json"
MACHINE = RecordContext(PID, {r"\Device\HarddiskVolume3": "C:"}, r"C:\Windows", FREQUENCY, wall=1000.0, clock=0)
VOLUME = r"\Device\HarddiskVolume3"
PYD, DLL, SYSTEM = rf"{VOLUME}\Py\_ssl.pyd", rf"{VOLUME}\Py\libssl.dll", rf"{VOLUME}\Windows\System32\crypt32.dll"


def load(path: str, base: int, at: int, **options: int) -> RawRecord:
    return record(Opcode.LOAD, payload(path, base=base), ticks=at * 10, **options)


def unload(path: str, base: int, at: int, **options: int) -> RawRecord:
    return record(Opcode.UNLOAD, payload(path, base=base), ticks=at * 10, **options)


def asked(target: str, at: int, idle: int | None, **options: object) -> Request:
    """A request whose thread is back in Python at `idle`; times in microseconds, as for the records."""
    idle_clock = None if idle is None else idle * 1000
    request = Request(RequestKind.EXTENSION, target, ("ssl", "_ssl"), 1, 1000.0, at * 1000, idle_clock=idle_clock)
    return replace(request, **options)  # type: ignore[arg-type]


def output(records: list[RawRecord], *requests: Request) -> list[str]:
    return [str(event) for event in decode_records(records, requests, MACHINE).events]


def kinds(records: list[RawRecord], *requests: Request) -> list[str]:
    return [line.split()[0] for line in output(records, *requests)]


def test_the_example_of_the_contract() -> None:
    records = [load(PYD, 1, 10), load(SYSTEM, 2, 11), load(DLL, 3, 12)]
    records += [unload(SYSTEM, 2, 13), unload(DLL, 3, 14), unload(PYD, 1, 15)]
    assert output(records, asked(r"C:\Py\_ssl.pyd", 5, 20)) == [
        r"LoadLibrary C:\Py\_ssl.pyd",
        r"LoadLibrary C:\Windows\System32\crypt32.dll",
        r"LoadLibrary C:\Py\libssl.dll",
        r"Failed C:\Windows\System32\crypt32.dll",
        r"Failed C:\Py\libssl.dll",
        r"Failed C:\Py\_ssl.pyd",
    ]


def test_an_event_says_what_the_record_said() -> None:
    (event,) = decode_records([load(PYD, 0x7FF0, 10)], [asked(r"c:\py\_SSL.pyd", 5, 20)], MACHINE).events
    assert isinstance(event, LoadEvent)
    assert (event.path, event.display_path) == (PYD, r"C:\Py\_ssl.pyd")
    assert (event.base, event.size, event.pid, event.tid) == (0x7FF0, 0x2000, PID, 1)
    assert (event.checksum, event.link_time, event.imports) == (0xC0FFEE, 1_600_000_000, ("ssl", "_ssl"))
    assert event.timestamp == pytest.approx(1000.00001)


def test_unload_and_load_match_by_base_although_spelled_in_two_ways() -> None:
    records = [load(r"\Windows\System32\crypt32.dll", 2, 10), unload(SYSTEM, 2, 11)]
    first, second = decode_records(records, [], MACHINE).events
    assert isinstance(second, UnloadEvent) and second.path == first.path
    assert first.shown_path == r"C:\Windows\System32\crypt32.dll"


@pytest.mark.parametrize(
    ("succeeded", "idle", "verdict"),
    [
        (True, 20, "UnloadLibrary"),  # FreeLibrary, however soon
        (False, 20, "Failed"),
        (None, 20, "Failed"),  # gone before the thread ran Python again
        (None, 11, "UnloadLibrary"),  # the thread had run Python in between
        (None, None, "UnloadLibrary"),  # nothing tells when the call returned: no verdict
    ],
)
def test_a_library_of_ctypes(succeeded: bool | None, idle: int | None, verdict: str) -> None:
    request = asked("libssl", 5, idle, kind=RequestKind.CTYPES, succeeded=succeeded)
    assert kinds([load(DLL, 3, 10), unload(DLL, 3, 15)], request)[1] == verdict


@pytest.mark.parametrize(
    "kernel",
    [
        rf"{VOLUME}\uv\cache\_ssl.pyd",  # a junction leads there
        r"\Device\Mup\server\share\_ssl.pyd",  # a mapped drive
        r"\Device\HarddiskVolume9\_ssl.pyd",  # a mount point, or a drive of SUBST
        rf"{VOLUME}\Py\_SSL.PYD",
    ],
)
def test_the_kernel_spells_the_path_of_a_module_otherwise(kernel: str) -> None:
    records = [load(kernel, 1, 10), load(DLL, 3, 11), unload(DLL, 3, 12), unload(kernel, 1, 13)]
    assert kinds(records, asked(r"C:\Py\_ssl.pyd", 5, 20))[2:] == ["Failed", "Failed"]


def test_the_whole_path_decides_between_two_of_one_name() -> None:
    other = rf"{VOLUME}\other\_ssl.pyd"
    records = [load(other, 2, 10), load(PYD, 1, 11), unload(other, 2, 12)]
    assert kinds(records, asked(r"C:\Py\_ssl.pyd", 5, 20)) == ["LoadLibrary", "LoadLibrary", "UnloadLibrary"]


def test_a_module_that_is_there_by_another_path_has_not_failed() -> None:
    again = rf"{VOLUME}\link\_ssl.pyd"
    records = [load(PYD, 1, 10), load(again, 2, 30), unload(again, 2, 31)]
    requests = [asked(r"C:\Py\_ssl.pyd", 5, 20), asked(r"C:\link\_ssl.pyd", 25, 40)]
    assert kinds(records, *requests) == ["LoadLibrary", "LoadLibrary", "UnloadLibrary"]


def test_records_of_two_processors_arrive_out_of_order() -> None:
    ordered = [load(PYD, 1, 10), load(DLL, 3, 11), unload(DLL, 3, 12), unload(PYD, 1, 13)]
    late = [ordered[1], ordered[3], ordered[0], ordered[2]]
    request = asked(r"C:\Py\_ssl.pyd", 5, 20)
    assert output(late, request) == output(ordered, request)


def test_an_unload_without_a_request_is_benign() -> None:
    assert kinds([load(SYSTEM, 2, 10), unload(SYSTEM, 2, 11)]) == ["LoadLibrary", "UnloadLibrary"]


def test_an_image_of_a_call_that_succeeded_may_go_again() -> None:
    records = [load(PYD, 1, 10), load(DLL, 3, 11), unload(DLL, 3, 12)]
    assert kinds(records, asked(r"C:\Py\_ssl.pyd", 5, 20)) == ["LoadLibrary", "LoadLibrary", "UnloadLibrary"]


def test_the_failure_of_one_call_does_not_fail_another() -> None:
    records = [load(SYSTEM, 2, 4), load(PYD, 1, 10), unload(PYD, 1, 11), unload(SYSTEM, 2, 30)]
    requests = [asked(r"C:\other.pyd", 3, 5), asked(r"C:\Py\_ssl.pyd", 9, 20)]
    assert kinds(records, *requests) == ["LoadLibrary", "LoadLibrary", "Failed", "UnloadLibrary"]


def test_a_worker_thread_of_the_loader_belongs_to_the_call_around_it() -> None:
    records = [load(PYD, 1, 10), load(DLL, 3, 11, tid=99), unload(DLL, 3, 12, tid=99), unload(PYD, 1, 13)]
    events = decode_records(records, [asked(r"C:\Py\_ssl.pyd", 5, 20)], MACHINE).events
    assert [str(e).split()[0] for e in events] == ["LoadLibrary", "LoadLibrary", "Failed", "Failed"]
    assert {e.imports for e in events} == {("ssl", "_ssl")}


def test_another_thread_outside_the_call_is_not_attributed() -> None:
    (_, event) = decode_records(
        [load(PYD, 1, 10), load(DLL, 3, 15, tid=99)], [asked(r"C:\Py\_ssl.pyd", 5, 20)], MACHINE
    ).events
    assert event.imports is None


def test_a_base_is_used_again() -> None:
    records = [load(PYD, 1, 10), unload(PYD, 1, 11), load(DLL, 1, 30), unload(DLL, 1, 31)]
    assert kinds(records, asked(r"C:\Py\_ssl.pyd", 5, 20)) == ["LoadLibrary", "Failed", "LoadLibrary", "UnloadLibrary"]


def test_events_of_others_and_of_other_kinds_are_passed_over() -> None:
    foreign = record(Opcode.LOAD, payload(DLL, pid=PID + 1))
    rundown = record(Opcode.RUNDOWN_START, payload(DLL))
    other = record(Opcode.LOAD, payload(DLL), provider=bytes(16))
    decoded = decode_records([foreign, rundown, other], [], MACHINE)
    assert (decoded.events, decoded.undecodable) == ((), 0)


def test_the_judgement_needs_no_drive_letter() -> None:
    machine = replace(MACHINE, devices={})
    events = decode_records([load(PYD, 1, 10), unload(PYD, 1, 11)], [asked(r"C:\Py\_ssl.pyd", 5, 20)], machine).events
    assert isinstance(events[1], LoadFailedEvent) and events[1].kind is FailureKind.DROPPED
    assert str(events[1]) == f"Failed {PYD}"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (r"\Device\HarddiskVolume3\x\y.dll", r"C:\x\y.dll"),
        (r"\device\harddiskvolume3\x\y.dll", r"C:\x\y.dll"),
        (r"\Device\HarddiskVolume31\y.dll", None),
        (r"\SystemRoot\System32\y.dll", r"C:\Windows\System32\y.dll"),
        (r"\??\D:\y.dll", r"D:\y.dll"),
        (r"\??\UNC\server\share\y.dll", r"\\server\share\y.dll"),
        (r"\Device\Mup\server\share\y.dll", r"\\server\share\y.dll"),
        (r"\Device\Mup\DfsClient\;Z:0000000000012345\server\share\y.dll", r"\\server\share\y.dll"),
        (r"\Windows\System32\y.dll", r"C:\Windows\System32\y.dll"),
        (r"\Users\me\y.dll", None),
    ],
)
def test_paths_for_people(path: str, shown: str | None) -> None:
    assert display_path(path, MACHINE.devices, MACHINE.system_root) == shown


def test_same_path_and_same_name() -> None:
    assert is_same_path(PYD, r"C:\Py\_ssl.pyd", r"c:\py\.\_SSL.PYD")
    assert not is_same_path(PYD, r"C:\Py\_ssl.pyd", r"D:\py\_ssl.pyd")
    assert is_same_path(PYD, None, r"D:\py\_ssl.pyd") and not is_same_path(PYD, None, "_ssl.pyd")
    assert is_same_name(SYSTEM, "CRYPT32") and is_same_name(SYSTEM, r"C:\x\crypt32.dll")
    assert not is_same_name(SYSTEM, "crypt32.")


@pytest.mark.parametrize("version", [0, 1, 2, 3])
@pytest.mark.parametrize("pointer_size", [4, 8])
def test_every_version_by_the_events_own_pointer_size(version: int, pointer_size: int) -> None:
    data = payload(DLL, base=0x12345678, version=version, pointer_size=pointer_size)
    image = decode_image_payload(data, version, pointer_size)
    assert image is not None
    assert (image.base, image.size, image.path) == (0x12345678, 0x2000, DLL)
    assert image.pid == (None if version == 0 else PID)
    assert image.checksum == (None if version < 2 else 0xC0FFEE)
    event = record(Opcode.LOAD, data, version=version, pointer_size=pointer_size)
    assert [str(e) for e in decode_records([event], [], MACHINE).events] == [r"LoadLibrary C:\Py\libssl.dll"]


def test_raw_events_keep_header_and_payload() -> None:
    raw = load(DLL, 3, 10)
    (event,) = debug_events([raw])
    assert (str(event.provider), event.opcode) == ("2cb15d1d-5fc1-11d2-abe1-00a0c911f518", 10)
    assert (event.header, event.data) == (raw.header[40:56], raw.data)
    assert f"text: {DLL}" in str(event)


def number(text: str) -> int:
    """A C literal as the recordings' expectations spell it: "0x7FEF7780000ULL", "5956U"."""
    return int(re.sub("[UL]+$", "", text), 0)


@pytest.mark.skipif(not PAYLOADS.exists(), reason="the recorded payloads are not on this machine")
def test_payloads_that_real_kernels_wrote() -> None:
    recorded = json.loads(PAYLOADS.read_text())
    assert len(recorded) == 11
    for name, entry in recorded.items():
        data, pointer_size, expected = bytes.fromhex(entry["hex"]), entry["bits"] // 8, entry["expected"]
        if entry["opcode"] == 33:
            continue  # the address of the kernel, which nothing here reads
        image = decode_image_payload(data, entry["version"], pointer_size)
        assert image is not None, name
        assert image.base == number(expected["BaseAddress"]) and image.size == number(expected["ModuleSize"]), name
        assert image.path == entry["decoded"]["path"], name
        fields = {
            "ProcessId": image.pid, "ImageCheckSum": image.checksum, "TimeDateStamp": image.link_time,
            "SignatureLevel": image.signature_level, "SignatureType": image.signature_type,
            "DefaultBase": image.default_base,
        }  # fmt: skip
        for field, value in fields.items():
            assert value == (number(expected[field]) if field in expected else None), (name, field)


@given(st.binary(max_size=200), st.integers(0, 255), st.sampled_from([4, 8]))
def test_no_payload_makes_it_raise(data: bytes, version: int, pointer_size: int) -> None:
    decode_image_payload(data, version, pointer_size)
    event = record(Opcode.LOAD, data, version=version, pointer_size=pointer_size)
    decoded = decode_records([event], [], MACHINE)
    assert len(decoded.events) + decoded.undecodable <= 1


@given(st.sampled_from([0, 1, 2, 3]), st.sampled_from([4, 8]), st.text(min_size=1, max_size=30), st.data())
def test_a_payload_cut_short_is_counted(version: int, pointer_size: int, path: str, data: st.DataObject) -> None:
    path = path.replace("\0", "x")
    whole = payload(path, version=version, pointer_size=pointer_size)
    image = decode_image_payload(whole, version, pointer_size)
    assert image is not None and image.path == path
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    event = record(Opcode.LOAD, cut, version=version, pointer_size=pointer_size)
    decoded = decode_records([event], [], MACHINE)
    assert (decoded.events, decoded.undecodable) == ((), 1)
