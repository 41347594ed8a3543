"""What the loader of Windows says of itself: decoded, and joined with the images of the kernel. All of it is built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import etl_file as etl
from builders import loader_messages as b
from builders.image_event import PID, payload, record
from dlltracer.capture.etl import read_etl
from dlltracer.capture.windows.etw.loader_messages import (
    IMAGE_OPCODES,
    USER_LOADER,
    USER_LOADER_IDS,
    FailedLoad,
    LoaderMessage,
    LoaderRemark,
    NewImage,
    SearchFolders,
    SearchHit,
    SearchPlacesMessage,
    TimedMessage,
    decode_image_loader,
    decode_messages,
    decode_user_loader,
    merge_messages,
)
from dlltracer.capture.windows.image_events import RecordContext
from dlltracer.capture.windows.image_records import RawRecord
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase, ProbeOutcome, UnloadEvent
from dlltracer.model.request import Request, RequestKind

PYD = LoadEvent(r"\Device\HarddiskVolume3\Py\_ssl.pyd", r"C:\Py\_ssl.pyd", 0x10, 1, 10.0, PID, 1)
DLL = LoadEvent(r"\Device\HarddiskVolume3\Py\libssl.dll", r"C:\Py\libssl.dll", 0x20, 1, 11.0, PID, 1)
NAME = "libcrypto-3.dll"


def at(time: float, message: object, tid: int = 1) -> TimedMessage:
    return TimedMessage(message, PID, tid, time)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("opcode", "data", "messages"),
    [
        (164, b.coded(NAME), FailedLoad(NAME, None, b.DLL_NOT_FOUND, "loader 164")),
        (171, b.coded("x", status=0xC0000142), LoaderRemark("status 0xc0000142 x")),
        (211, b.coded("api-ms-win-x-l1-1-0"), FailedLoad("api-ms-win-x-l1-1-0", None, b.DLL_NOT_FOUND, "loader 211")),
        (176, b.new_dll(16, 32, r"C:\a.dll", reason=4), NewImage(16, 32, 4, r"C:\a.dll")),
        (192, b.coded("Search path", r"C:\Py;C:\Windows"), SearchPlacesMessage("Search path", r"C:\Py;C:\Windows")),
        (212, b.found(r"C:\a.dll"), SearchHit(r"C:\a.dll")),
        (213, b.folders("a", "b", "c", "d"), SearchFolders("a", "b", "c", "d")),
        (215, b.snap(NAME, r"\\?\C:\Py\_ssl.pyd"), FailedLoad(NAME, r"C:\Py\_ssl.pyd", b.DLL_NOT_FOUND, "snaps")),
        (215, b.snap(NAME), FailedLoad(NAME, None, b.DLL_NOT_FOUND, "snaps")),
        (215, b.coded("LdrLoadDll - ENTER: DLL name: x"), LoaderRemark("")),
        (215, b.coded("LdrpInit - ERROR: x failed\n"), LoaderRemark("LdrpInit - ERROR: x failed")),
    ],
)
def test_events_under_the_guid_of_images(opcode: int, data: bytes, messages: object) -> None:
    assert decode_image_loader(opcode, data, 8) == messages


def test_a_new_image_of_32_bits() -> None:
    assert decode_image_loader(177, b.new_dll(16, 32, "x", pointer_size=4), 4) == NewImage(16, 32, 0, "x")


@pytest.mark.parametrize(
    ("number", "data", "messages"),
    [
        (3, b.failure(NAME), FailedLoad(NAME, None, b.DLL_NOT_FOUND, "user loader 3")),
        (8, b.failure(NAME, r"C:\x.dll"), FailedLoad(NAME, r"C:\x.dll", b.DLL_NOT_FOUND, "user loader 8")),
        (10, b.failure(NAME, reason=7), LoaderRemark(f"{NAME} could not be loaded (reason 0x7)")),
        (9, b.wide("x.dll"), LoaderRemark("fatal error while loading x.dll")),
        (11, b.wide("e") + b.wide(r"C:\a.dll") + b.wide(r"D:\a.dll"),
         LoaderRemark(r"C:\a.dll is in the current folder; loaded was D:\a.dll")),
    ],
)  # fmt: skip
def test_events_of_the_user_loader(number: int, data: bytes, messages: object) -> None:
    assert decode_user_loader(number, data) == messages


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=120), st.sampled_from([4, 8]))
def test_any_bytes_are_decoded_or_not(data: bytes, pointer_size: int) -> None:
    found = [decode_image_loader(opcode, data, pointer_size) for opcode in IMAGE_OPCODES]
    found += [decode_user_loader(number, data) for number in USER_LOADER_IDS]
    for message in found:
        if isinstance(message, FailedLoad):
            assert message.name and message.name.encode("utf-16-le", "surrogatepass") in data
        else:
            assert isinstance(message, LoaderMessage | None)
    if not data:
        assert set(found) == {None}


@pytest.mark.parametrize("opcode", sorted(IMAGE_OPCODES - {215}))
def test_what_is_cut_short_is_not_decoded(opcode: int) -> None:
    assert decode_image_loader(opcode, b.coded("abc")[:9], 8) is None


def test_a_status_that_is_no_missing_file_is_a_refusal() -> None:
    messages = decode_image_loader(215, b.snap(NAME, status=0xC000007B), 8)
    assert isinstance(messages, FailedLoad) and messages.kind is FailureKind.REFUSED
    (failure,) = merge_messages([], [at(1, messages)]).events
    assert isinstance(failure, LoadFailedEvent) and failure.reason == "the loader of Windows: status 0xc000007b"


def test_the_missing_name_comes_where_it_was_said_and_once() -> None:
    first = FailedLoad(NAME, r"C:\PY\_SSL.pyd", b.DLL_NOT_FOUND, "snaps")
    second = replace(first, parent=None, source="user loader 3")
    gone = UnloadEvent(PYD.path, PYD.display_path, PYD.base, 1, 20.0, PID, 1)
    merged = merge_messages([PYD, DLL, gone], [at(12.0, second), at(12.1, first)])
    assert [str(event).split("\\")[-1] for event in merged.events] == [
        "_ssl.pyd", "libssl.dll", f"Failed {NAME}", "_ssl.pyd",
    ]  # fmt: skip
    failure = merged.events[2]
    assert failure == LoadFailedEvent(
        NAME, timestamp=12.0, pid=PID, tid=1, need=NAME, requested_by=PYD.path, kind=FailureKind.NOT_FOUND,
        reason="the loader of Windows: status 0xc0000135",
    )  # fmt: skip
    assert isinstance(merged.events[3], UnloadEvent), "that it went proves nothing"


def test_a_second_attempt_is_a_second_failure() -> None:
    messages = FailedLoad(NAME, None, b.DLL_NOT_FOUND, "snaps")
    assert len(merge_messages([], [at(1, messages), at(2, messages)]).events) == 2


def test_the_places_of_a_search_are_probes() -> None:
    messages = [
        at(1.0, SearchPlacesMessage("DLL search path", r"C:\Py;C:\Windows\System32;")),
        at(1.1, SearchFolders(current=r"C:\work", application="", dll="", loading=rf"C:\Py\DLLs\{NAME}")),
        at(1.2, SearchPlacesMessage("other thread", r"D:\x"), tid=2),
        at(1.3, FailedLoad(NAME, None, b.DLL_NOT_FOUND, "snaps")),
    ]
    (failure,) = merge_messages([], messages).events
    assert isinstance(failure, LoadFailedEvent) and failure.probes is not None
    assert [(probe.path, probe.phase, probe.origin) for probe in failure.probes] == [
        (rf"C:\Py\{NAME}", Phase.OTHER, "DLL search path"),
        (rf"C:\Windows\System32\{NAME}", Phase.OTHER, "DLL search path"),
        (rf"C:\Py\DLLs\{NAME}", Phase.IMAGE_FOLDER, None),
        (rf"C:\work\{NAME}", Phase.CURRENT, None),
    ]
    assert {probe.outcome for probe in failure.probes} == {ProbeOutcome.PASSED}


def test_who_asked_and_where_it_was_found() -> None:
    messages = [at(10.5, SearchHit(r"C:\Py\libssl.dll")), at(11.5, NewImage(0x20, 0x10, 0, r"C:\Py\libssl.dll"))]
    loaded = merge_messages([PYD, DLL], messages).events[1]
    assert isinstance(loaded, LoadEvent) and loaded.requested_by == PYD.path
    assert loaded.probes is not None and loaded.probes[0].outcome is ProbeOutcome.LOADED
    early = merge_messages([PYD, DLL], [at(10.5, NewImage(0x20, 0x10, 0, "x"))]).events[1]
    assert isinstance(early, LoadEvent) and early.requested_by == PYD.path


def test_paths_without_drives_are_known_all_the_same() -> None:
    messages = FailedLoad(NAME, r"C:\Py\_ssl.pyd", b.DLL_NOT_FOUND, "snaps")
    failure = merge_messages([replace(PYD, display_path=None)], [at(12, messages)]).events[1]
    assert isinstance(failure, LoadFailedEvent) and failure.requested_by == PYD.path


def test_other_words_are_notes() -> None:
    merged = merge_messages([], [at(1, LoaderRemark(f"word {n % 7}")) for n in range(14)])
    assert merged.notes == (*(f"the loader: word {n}" for n in range(5)), "the loader: 2 more remarks")
    assert merge_messages([], [at(1, LoaderRemark(""))]).notes == ()


def test_records_of_the_loader_have_the_import_they_belong_to() -> None:
    machine = RecordContext(PID, {}, None, 10_000_000, wall=1000.0, clock=0)
    request = Request(RequestKind.EXTENSION, r"C:\Py\_ssl.pyd", ("ssl", "_ssl"), 1, 1000.0, 1000, idle_clock=90_000)
    snaps = record(b.SNAPS, b.snap(NAME), ticks=100)
    short = record(b.NEW_DLL, b"123", ticks=100)
    user = record(0, b.failure(NAME), provider=USER_LOADER, ticks=100)
    user = RawRecord(user.header[:40] + b"\3\0" + user.header[42:], user.data)
    image = record(10, payload(PYD.path))
    messages = decode_messages([snaps, short, user, image], [request], machine)
    assert messages.undecodable == 1
    assert [one.imports for one in messages.messages] == [("ssl", "_ssl")] * 2
    assert messages.messages[0].time == pytest.approx(1000.00001)


@pytest.mark.parametrize("header", ["system", "classic", "manifest"])
def test_a_recorded_session_that_listened_to_the_loader(tmp_path: Path, header: str) -> None:
    known = {"pid": PID, "tid": 1}
    loads = [
        etl.system(etl.LOAD, payload(event.path, base=event.base or 0), ticks=etl.FIRST_TICK + n, **known)
        for n, event in enumerate((PYD, DLL))
    ]
    ticks = etl.FIRST_TICK + 5
    snaps, edge = b.snap(NAME, r"C:\Py\_ssl.pyd"), b.new_dll(0x20, 0x10, r"C:\Py\libssl.dll")
    if header == "system":
        messages = [etl.system(0x14D7, snaps, ticks=ticks, **known), etl.system(0x14B0, edge, ticks=ticks, **known)]
    elif header == "classic":
        parts = ((215, snaps), (176, edge))
        messages = [etl.classic(etl.IMAGE, kind, data, ticks=ticks, **known) for kind, data in parts]
    else:
        messages = [
            etl.manifest(etl.IMAGE, 0, data, opcode=kind, ticks=ticks, **known)
            for kind, data in ((215, snaps), (176, edge))
        ]
    messages.append(etl.manifest(etl.USER_LOADER, 3, b.failure(NAME), ticks=ticks + 1, **known))
    messages.append(etl.manifest(etl.USER_LOADER, 1, b"of no use", ticks=ticks + 1, **known))
    messages.append(etl.manifest(etl.USER_LOADER, 3, b.failure("other.dll"), ticks=ticks, pid=PID + 1))
    path = tmp_path / "x.etl"
    path.write_bytes(etl.etl_file([etl.volume(r"\Device\HarddiskVolume3", "C:"), *loads, *messages]))
    events = read_etl(path, pid=PID).recording.events
    assert [str(event) for event in events] == [
        r"LoadLibrary C:\Py\_ssl.pyd", r"LoadLibrary C:\Py\libssl.dll", f"Failed {NAME}",
    ]  # fmt: skip
    assert events[1].requested_by == events[2].requested_by == PYD.path
    assert len(read_etl(path).recording.failures) == 2
