"""Reading recorded ETW sessions that were built: every header, who a process is, and damage of every kind."""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import etl_file as b
from builders.image_event import payload
from dlltracer.capture.etl import buffers, is_etl, read_etl, scan
from dlltracer.capture.etl.scan import EtlCounts, scan_etl
from dlltracer.errors import BinaryFormatError, NoSuchProcess, NotATraceFile
from dlltracer.model.events import LoadEvent, UnloadEvent

VOLUME = r"\Device\HarddiskVolume3"
PYD, DLL, EXE = rf"{VOLUME}\Py\_ssl.pyd", rf"{VOLUME}\Py\libssl.dll", rf"{VOLUME}\Py\python.exe"
SECOND = b.FREQUENCY
PYTHON = 4711

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(events: list[bytes], **options: int) -> Path:
        path = tmp_path / "trace.etl"
        path.write_bytes(b.etl_file(events, **options))
        return path

    return file


def image(hook: int, path: str, base: int, *, pid: int = PYTHON, seconds: float = 0, **options: int) -> bytes:
    ticks = b.FIRST_TICK + int(seconds * SECOND)
    return b.system(hook, payload(path, base=base, pid=pid), pid=pid, tid=9, ticks=ticks, **options)


def process(hook: int, pid: int, name: str, command: str = "", *, seconds: float = 0, **options: int) -> bytes:
    ticks = b.FIRST_TICK + int(seconds * SECOND)
    return b.system(hook, b.process_payload(pid, name, command, **options), version=4, ticks=ticks, pid=1)


ONE_RUN = [
    b.volume(VOLUME, "C:"),
    process(b.PROCESS_THERE, 1, "explorer.exe", "explorer"),
    b.perfinfo(b.THERE_AT_START, payload(rf"{VOLUME}\Windows\explorer.exe", pid=1)),
    process(b.PROCESS_START, PYTHON, "python.exe", r'"C:\Py\python.exe" -c "import ssl"', seconds=1, parent=1),
    image(b.LOAD, EXE, 1, seconds=1.1),
    image(b.LOAD, PYD, 2, seconds=1.2),
    image(b.LOAD, DLL, 2, pid=1, seconds=1.25),
    image(b.UNLOAD, PYD, 2, seconds=1.3),
    process(b.PROCESS_END, PYTHON, "python.exe", seconds=2, status=0xC0000135, parent=1),
    b.perfinfo(b.THERE_AT_END, payload(DLL, pid=1)),
]


@pytest.mark.parametrize("options", [{}, {"compressed": True}, {"per_buffer": 1}, {"compressed": 1, "per_buffer": 3}])
def test_one_run_of_python(write: Write, options: dict[str, int]) -> None:
    trace = read_etl(write(ONE_RUN, **options), process="python.exe")
    assert [str(event) for event in trace.recording.events] == [
        r"LoadLibrary C:\Py\python.exe",
        r"LoadLibrary C:\Py\_ssl.pyd",
        r"UnloadLibrary C:\Py\_ssl.pyd",
    ]
    (one,) = trace.recording.processes
    assert (one.pid, one.parent, one.program, one.status) == (PYTHON, 1, r"C:\Py\python.exe", 0xC0000135)
    assert one.command == (r"C:\Py\python.exe", "-c", "import ssl")
    assert (one.started, one.ended) == (pytest.approx(b.START_EPOCH + 1), pytest.approx(b.START_EPOCH + 2))
    assert (trace.recording.backend, trace.recording.pid, trace.run.status) == ("etl", PYTHON, 0xC0000135)
    assert trace.what == r'"C:\Py\python.exe" -c "import ssl"'
    assert trace.started == pytest.approx(b.START_EPOCH)
    assert trace.host is not None and trace.host.description == "Windows NT 10.0 build 19041"
    assert not trace.recording.losses and not trace.problems
    assert trace.recording.notes[0] == (
        "the file has 3 loads and 1 unloads of images, of all processes; "
        "1 images were there when it began, 1 when it ended"
    )


def test_an_event_says_what_the_file_says(write: Write) -> None:
    first = read_etl(write(ONE_RUN), pid=PYTHON).recording.events[0]
    assert first == LoadEvent(
        EXE, r"C:\Py\python.exe", 1, 0x2000, first.timestamp, PYTHON, 9, checksum=0xC0FFEE, link_time=1_600_000_000
    )
    assert first.timestamp == pytest.approx(b.START_EPOCH + 1.1)


def test_all_processes_and_images_that_were_there(write: Write) -> None:
    trace = read_etl(write(ONE_RUN), startup=True)
    assert len(trace.recording.events) == 5
    there = trace.recording.events[0]
    assert (there.shown_path, there.timestamp, there.tid, there.pid) == (r"C:\Windows\explorer.exe", None, None, 1)
    assert [one.pid for one in trace.recording.processes] == [1, PYTHON]
    assert (trace.recording.pid, trace.what) == (None, "trace.etl")


def test_a_process_that_is_not_there(write: Write) -> None:
    path = write(ONE_RUN)
    with pytest.raises(NoSuchProcess, match=r"no process of 'perl.exe'; it has 'explorer.exe', 'python.exe'") as caught:
        read_etl(path, process="perl.exe")
    assert caught.value.names == ("explorer.exe", "python.exe")
    with pytest.raises(NoSuchProcess, match="no process 5 of 'python'"):
        read_etl(path, process="python", pid=5)
    with pytest.raises(NoSuchProcess, match="nor any other"):
        read_etl(write([]), pid=5)


@pytest.mark.parametrize("name", ["python", "PYTHON.EXE", r"C:\Py\python.exe"])
def test_how_a_process_may_be_named(write: Write, name: str) -> None:
    assert read_etl(write(ONE_RUN), process=name).recording.pid == PYTHON


def test_a_name_that_windows_cut_off(write: Write) -> None:
    path = write([process(b.PROCESS_THERE, 5, "SearchProtocol"), image(b.LOAD, DLL, 2, pid=5)])
    assert len(read_etl(path, process="searchprotocolhost.exe").recording.events) == 1
    with pytest.raises(NoSuchProcess):
        read_etl(path, process="search")


def test_a_process_id_is_used_again(write: Write) -> None:
    events = [
        process(b.PROCESS_START, 5, "perl.exe", seconds=1),
        image(b.LOAD, DLL, 2, pid=5, seconds=1.5),
        process(b.PROCESS_END, 5, "perl.exe", seconds=2, status=0),
        process(b.PROCESS_START, 5, "python.exe", seconds=3),
        image(b.LOAD, PYD, 2, pid=5, seconds=3.5),
    ]
    path = write(events[::-1], per_buffer=1)  # the buffers of several processors are in no order
    trace = read_etl(path, process="python.exe")
    assert [event.path for event in trace.recording.events] == [PYD]
    assert [(one.program, one.status) for one in trace.recording.processes] == [("python.exe", None)]
    assert [event.path for event in read_etl(path, pid=5).recording.events] == [DLL, PYD]


def test_a_program_without_any_event_of_its_process(write: Write) -> None:
    events = [b.perfinfo(b.THERE_AT_START, payload(EXE, pid=5)), image(b.LOAD, DLL, 2, pid=5)]
    assert len(read_etl(write(events), process="python.exe").recording.events) == 1


def test_an_unload_has_the_path_of_its_load(write: Write) -> None:
    events = [image(b.LOAD, r"\Windows\x.dll", 2), image(b.UNLOAD, rf"{VOLUME}\Windows\x.dll", 2, seconds=1)]
    trace = read_etl(write(events))
    assert [event.path for event in trace.recording.events] == [r"\Windows\x.dll"] * 2
    assert isinstance(trace.recording.events[1], UnloadEvent)


def test_two_providers_tell_of_the_same(write: Write) -> None:
    created = struct.pack("<IQII", PYTHON, b.STARTED, 1, 1) + b.wide(EXE)
    stopped = struct.pack("<IQQI", PYTHON, b.STARTED, b.STARTED, 3) + bytes(60) + b"python.exe\0"
    at = b.FIRST_TICK + SECOND
    events = [
        b.manifest(b.KERNEL_PROCESS, 1, created, ticks=at - 5, items=[b"stack" * 5, b"xyz"]),
        process(b.PROCESS_START, PYTHON, "python.exe", "python x.py", seconds=1, parent=1),
        image(b.LOAD, DLL, 2, seconds=1.1),
        b.manifest(b.KERNEL_PROCESS, 5, b.manifest_image(DLL, base=2, pid=PYTHON), ticks=at + SECOND // 10 + 3),
        image(b.UNLOAD, DLL, 2, seconds=1.2),
        b.manifest(b.KERNEL_PROCESS, 6, b.manifest_image(DLL, base=2, pid=PYTHON), ticks=at + SECOND // 5 + 3),
        b.manifest(b.KERNEL_PROCESS, 2, stopped, version=1, ticks=at + SECOND),
        process(b.PROCESS_END, PYTHON, "python.exe", seconds=2, status=3),
    ]
    trace = read_etl(write(events), process="python")
    assert [str(event) for event in trace.recording.events] == [f"LoadLibrary {DLL}", f"UnloadLibrary {DLL}"]
    (one,) = trace.recording.processes
    assert (one.program, one.command, one.parent, one.status) == (EXE, ("python", "x.py"), 1, 3)
    assert "2 image events were reported by two providers: shown once" in trace.recording.notes
    assert scan_etl(write(events)).counts == EtlCounts(2, 2)


HEADERS = ["system", "compact", "classic", "manifest", "kernel process"]


def under(
    header: str, load: bool, path: str, base: int, pid: int, version: int, pointer_size: int, ticks: int
) -> bytes:
    data = payload(path, base=base, pid=pid, version=version, pointer_size=pointer_size)
    known = {"pid": pid, "tid": 3, "ticks": ticks, "pointer_size": pointer_size}
    if header == "classic":
        return b.classic(b.IMAGE, 10 if load else 2, data, version=version, **known)
    if header == "manifest":
        return b.manifest(b.IMAGE, 0, data, version=version, opcode=10 if load else 2, **known)
    if header == "kernel process":
        data = b.manifest_image(path, base=base, pid=pid, pointer_size=pointer_size)
        return b.manifest(b.KERNEL_PROCESS, 5 if load else 6, data, items=[b"12345"], **known)
    build = b.system if header == "system" else b.compact
    return build(b.LOAD if load else b.UNLOAD, data, version=version, **known)


PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=()), min_size=1, max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from(HEADERS), PATHS, st.integers(1, 4), st.integers(0, 3), st.sampled_from([4, 8])),
        max_size=12,
    ),
    st.booleans(), st.integers(1, 5),
)  # fmt: skip
def test_every_image_comes_back(
    tmp_path: Path, images: list[tuple[str, str, int, int, int]], compressed: bool, per_buffer: int
) -> None:
    events, expected = [], []
    for number, (header, path, pid, version, pointer_size) in enumerate(images):
        base = 0x1000 * (number + 1)
        for load in (True, False):
            ticks = b.FIRST_TICK + 2 * number + (not load)
            events.append(under(header, load, path, base, pid, version, pointer_size, ticks))
            expected.append((LoadEvent if load else UnloadEvent, path, base, pid, 3))
    file = tmp_path / "x.etl"
    file.write_bytes(b.etl_file(events, per_buffer=per_buffer, compressed=compressed, size=16384))
    trace = read_etl(file)
    assert [(type(e), e.path, e.base, e.pid, e.tid) for e in trace.recording.events] == expected
    assert not trace.recording.losses
    for pid in {one.pid for one in trace.recording.processes}:
        ours = [(type(e), e.path, e.base, e.pid, e.tid) for e in read_etl(file, pid=pid).recording.events]
        assert ours == [one for one in expected if one[3] == pid]


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("pointer_size", [4, 8])
@pytest.mark.parametrize("sid", [b.SID, None])
def test_every_version_of_a_process_event(write: Write, version: int, pointer_size: int, sid: bytes | None) -> None:
    data = b.process_payload(99, "python.exe", "python -m x", version=version, pointer_size=pointer_size, sid=sid)
    event = b.system(b.PROCESS_START, data, version=version, pointer_size=pointer_size)
    path = write([event], pointer_size=pointer_size)
    (one,) = read_etl(path, process="python.exe").recording.processes
    assert (one.pid, one.parent) == (99, 7)
    assert one.command == (None if version < 2 else ("python", "-m", "x"))


@pytest.mark.parametrize(("number", "version"), [(1, 0), (1, 1), (1, 2), (1, 3), (15, 0), (15, 1)])
def test_every_version_of_a_manifest_process_event(write: Write, number: int, version: int) -> None:
    if (number, version) in ((1, 3), (15, 1)):
        data = struct.pack("<IQQIQIIII", 99, 1, b.STARTED, 7, 2, 1, 0, 1, 0) + b.SID + b.wide(EXE) + bytes(12)
    else:
        flags = b"" if (number, version) == (1, 0) else bytes(4)
        data = struct.pack("<IQII", 99, b.STARTED, 7, 1) + flags + b.wide(EXE)
    trace = read_etl(write([b.manifest(b.KERNEL_PROCESS, number, data, version=version)]), process="python")
    (one,) = trace.recording.processes
    assert (one.pid, one.parent, one.program) == (99, 7, EXE)
    assert one.started == pytest.approx(b.START_EPOCH)


def test_the_end_of_a_newer_manifest(write: Write) -> None:
    data = struct.pack("<IQQQI", 99, 1, b.STARTED, b.STARTED, 0xC0000005) + bytes(60) + b"python.exe\0"
    end = b.manifest(b.KERNEL_PROCESS, 2, data, version=2, ticks=b.FIRST_TICK + 9)
    assert read_etl(write([process(b.PROCESS_THERE, 99, "python.exe"), end]), pid=99).run.status == 0xC0000005


def test_a_file_of_too_many_events_is_read_as_far_as_they_are_kept(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "MOST_EVENTS", 7)  # the description of the file is one
    monkeypatch.setattr(scan, "BYTES_AN_EVENT", 1 << 20)
    loads = [image(b.LOAD, f"{VOLUME}\\{number}.dll", number) for number in range(1, 5)]
    assert read_etl(write(loads)).problems == ()
    trace = read_etl(write([*loads, *loads]))
    assert len(trace.recording.events) == 6
    assert trace.problems == ("it has more than 7 events of images and processes: the rest is not read",)
    assert trace.recording.losses.undecodable == 1


def test_a_file_that_swells_is_read_as_far_as_is_proper(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = [image(b.LOAD, f"{VOLUME}\\{'a' * 400}{number}.dll", number) for number in range(1, 41)]
    path = write(loads, compressed=True)
    assert len(read_etl(path).recording.events) == 40
    monkeypatch.setattr(buffers, "RATIO_IN_ALL", 1)
    monkeypatch.setattr(buffers, "LARGEST", 8192)
    trace = read_etl(path)
    assert 0 < len(trace.recording.events) < 40
    assert trace.problems[0].startswith("it holds more than 1 times its size: nothing from offset 0x")


def test_a_buffer_that_swells_is_damaged(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write([image(b.LOAD, DLL, 1)] * 8, compressed=True)
    monkeypatch.setattr(buffers, "LARGEST", 700)
    assert any("bytes would become" in problem for problem in read_etl(path).problems)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs among its files")
def test_a_fifo_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.etl")
    with pytest.raises(BinaryFormatError, match="not a regular file"):
        read_etl(tmp_path / "x.etl")


def test_what_windows_lost_and_a_session_that_was_not_stopped(write: Write) -> None:
    trace = read_etl(write(ONE_RUN, events_lost=5, buffers_lost=2, ended=0))
    assert (trace.recording.losses.events, trace.recording.losses.buffers) == (5, 2)
    assert any("was not stopped" in note for note in trace.recording.notes)


@pytest.mark.parametrize(("clock", "frequency", "unit"), [(2, 1, 1e7), (3, 1, 3e9)])
def test_other_clocks(write: Write, clock: int, frequency: int, unit: float) -> None:
    first = b.STARTED if clock == 2 else b.FIRST_TICK
    load = b.system(b.LOAD, payload(DLL, pid=1), ticks=first + int(5 * unit))
    (event,) = read_etl(write([load], clock=clock, frequency=frequency)).recording.events
    assert event.timestamp == pytest.approx(b.START_EPOCH + 5)


def test_a_time_that_no_calendar_has(write: Write) -> None:
    load = b.system(b.LOAD, payload(DLL, pid=1), ticks=1 << 63)
    assert read_etl(write([load], frequency=1)).recording.events[0].timestamp is None


def test_events_of_other_kinds_are_counted_and_passed_over(write: Write) -> None:
    message = struct.pack("<HBBI", 24, 0, 0x90, 7) + bytes(16)
    instance = struct.pack("<HBBI", 56, 0x15, 0xC0, 7) + bytes(48)
    other = b.manifest(uuid.UUID(int=5), 1, b"hello")
    trace = read_etl(write([message, instance, other, image(b.LOAD, DLL, 2)]))
    assert len(trace.recording.events) == 1
    assert "2 events of other kinds (messages, instances) were passed over" in trace.recording.notes


@pytest.mark.parametrize("content", [b"", b"MZ", bytes(4096), b"\0\0\1\0" + b"x" * 4092, b'{"type": "x"}' * 99])
def test_what_is_no_trace(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.etl"
    path.write_bytes(content)
    assert not is_etl(content[:4096])
    with pytest.raises(NotATraceFile, match=r"x\.etl"):
        read_etl(path)


def test_a_trace_is_known_by_its_first_bytes() -> None:
    for pointer_size in (4, 8):
        assert is_etl(b.etl_file([], pointer_size=pointer_size)[:4096])


def test_a_file_cut_off_in_the_middle(write: Write) -> None:
    path = write(ONE_RUN, per_buffer=4)
    whole = path.read_bytes()
    path.write_bytes(whole[: 2 * 4096 + 72 + 200])
    trace = read_etl(path)
    assert trace.recording.losses.undecodable == 2
    assert "has 272 of its 4096 bytes" in trace.problems[0]
    assert "is damaged or cut off" in trace.problems[1]


def test_a_damaged_buffer_costs_no_other(write: Write) -> None:
    path = write(ONE_RUN, per_buffer=1)
    whole = bytearray(path.read_bytes())
    whole[3 * 4096 : 3 * 4096 + 72] = bytes(72)
    whole[6 * 4096 + 74] = 0x77
    path.write_bytes(whole)
    trace = read_etl(path, pid=PYTHON)
    assert [event.path for event in trace.recording.events] == [EXE, PYD]
    assert trace.recording.losses.undecodable == 2
    assert "no buffer begins at offset 0x3000: 4096 bytes are not read" in trace.problems[0]


def test_a_damaged_compressed_buffer_is_read_up_to_the_damage(write: Write) -> None:
    path = write(ONE_RUN[:8], compressed=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:-60])
    trace = read_etl(path)
    assert 0 < len(trace.recording.events) < 4
    assert any("compressed buffer" in problem for problem in trace.problems)


def test_a_buffer_that_would_grow_without_measure(write: Write) -> None:
    path = write([])
    bomb = bytearray(b.buffer(bytes(200), compressed=True))
    struct.pack_into("<I", bomb, 4, 1 << 30)
    path.write_bytes(path.read_bytes() + bomb + b.buffer(image(b.LOAD, DLL, 2)))
    trace = read_etl(path)
    assert len(trace.recording.events) == 1
    assert trace.recording.losses.undecodable == 1


def test_payloads_that_are_cut_short_are_counted(write: Write) -> None:
    data = payload(DLL, pid=PYTHON)
    events = [b.system(b.LOAD, data[:size], pid=PYTHON) for size in (8, 20, 40, 60, len(data) - 2)]
    events += [b.system(b.PROCESS_START, b.process_payload(5, "x")[:size], version=4) for size in (4, 40, 70)]
    events += [b.classic(b.CONFIG, 35, b.wide("\\Device\\x\\"), version=0), image(b.LOAD, DLL, 2)]
    trace = read_etl(write(events))
    assert len(trace.recording.events) == 1
    assert trace.recording.losses.undecodable == 9


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True
)
@given(st.data(), st.booleans())
def test_damage_never_ends_in_an_error(tmp_path: Path, data: st.DataObject, compressed: bool) -> None:
    whole = bytearray(b.etl_file(ONE_RUN, per_buffer=4, compressed=compressed, size=2048))
    for _ in range(data.draw(st.integers(0, 8))):
        at = data.draw(st.integers(0, len(whole) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\0" * 8, b"\xff" * 8]))
        whole[at : at + len(piece)] = piece
    del whole[data.draw(st.integers(0, len(whole)) | st.just(len(whole))) :]
    path = tmp_path / "x.etl"
    path.write_bytes(whole)
    startup = data.draw(st.booleans())
    try:
        trace = read_etl(path, startup=startup)
        assert len(trace.problems) <= 21
        read_etl(path, process="python.exe", startup=startup)
    except (NotATraceFile, NoSuchProcess):
        pass
