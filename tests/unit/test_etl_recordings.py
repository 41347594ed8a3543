"""Reading sessions that real Windows kernels recorded: the counts that other readers agree on, and mutants of them."""

from __future__ import annotations

import contextlib
import random
from functools import cache
from pathlib import Path

import pytest

from dlltracer.capture.etl import read_etl
from dlltracer.capture.etl.scan import EtlCounts, scan_etl
from dlltracer.errors import NoSuchProcess, NotATraceFile
from dlltracer.model.events import LoadEvent, UnloadEvent

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "etl"
COUNTS = {
    "airbus-ShutdownPerfDiagLogger.etl": (72, 4791, 6745, 2145),
    "perfview-net.4.5.2.x64.etl": (35, 32, 1763, 1766),
    "tx-Process.etl": (1115, 1153, 0, 0),
    "airbus-lxcore_kernel-noimage.etl": (0, 0, 0, 0),
    "perfview-SelfDescribing-compressed-noimage.etl": (0, 0, 0, 0),
}
COUNTS |= {f"sawbuck-image_data_{name}.etl": (1, 1, 24, 0) for name in ("32_v0", "32_v1", "32_v2", "64_v0", "64_v2")}

scanned = cache(scan_etl)
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the recorded sessions of other projects are not here")


@pytest.mark.parametrize("name", COUNTS)
def test_the_counts(name: str) -> None:
    assert scanned(FOLDER / name).counts == EtlCounts(*COUNTS[name])


@pytest.mark.parametrize("name", [name for name in COUNTS if "_64_" not in name])
def test_every_event_is_decoded(name: str) -> None:
    trace = read_etl(FOLDER / name, startup=True)
    loads, unloads, there, _ = COUNTS[name]
    assert not trace.recording.losses and not trace.problems
    events = trace.recording.events
    assert sum(isinstance(event, UnloadEvent) for event in events) == unloads
    assert sum(isinstance(event, LoadEvent) and event.timestamp is not None for event in events) == loads
    assert sum(event.timestamp is None for event in events) <= there
    times = [event.timestamp for event in events if event.timestamp is not None]
    assert times == sorted(times)
    header = scanned(FOLDER / name).header
    assert header is not None
    end = (header.ended - 116_444_736_000_000_000) / 1e7
    assert all(trace.started is not None and trace.started <= time <= end + 2 for time in times)


def test_a_process_of_windows_8() -> None:
    trace = read_etl(FOLDER / "perfview-net.4.5.2.x64.etl", process="Test.x64.exe")
    (one,) = trace.recording.processes
    assert (one.pid, one.parent, one.command, one.status) == (3676, 3508, ("Test.x64.exe",), 0)
    assert one.program == r"\\clrmain\public\PerfInvestigations\20-07-28.TestTraces\Test.x64.exe"
    events = trace.recording.events
    assert (len(trace.recording.loads), len(trace.recording.unloads)) == (31, 31)
    assert events[1].shown_path == r"C:\Windows\System32\ntdll.dll"
    assert {event.path for event in trace.recording.loads} == {event.path for event in trace.recording.unloads}
    assert all(one.started is not None and one.ended is not None and e.timestamp is not None for e in events)
    assert all(one.started <= event.timestamp <= one.ended for event in events)  # type: ignore[operator]


def test_processes_of_windows_7_by_the_manifest() -> None:
    trace = read_etl(FOLDER / "tx-Process.etl", process="outlook")
    (one,) = trace.recording.processes
    assert one.program is not None and one.program.endswith(r"\OUTLOOK.EXE")
    assert one.started is not None and one.pid == 2880
    assert trace.recording.events[0].path.endswith("OUTLOOK.EXE")


def test_the_end_of_every_process_of_a_shutdown() -> None:
    trace = read_etl(FOLDER / "airbus-ShutdownPerfDiagLogger.etl", process="SecurityHealthSystray.exe")
    (one,) = trace.recording.processes
    assert (one.pid, one.status) == (6780, 0x40010004)
    assert trace.recording.events[0].path.endswith("SecurityHealthSystray.exe")
    assert trace.recording.events[-1].path.endswith("ntdll.dll")


@pytest.mark.parametrize("name", ["airbus-ShutdownPerfDiagLogger.etl", "perfview-net.4.5.2.x64.etl", "tx-Process.etl"])
def test_mutants(name: str, tmp_path: Path) -> None:
    """The start of a file, damaged at random: it is read or refused, and nothing else happens."""
    whole = (FOLDER / name).read_bytes()[:150_000]
    path = tmp_path / "x.etl"
    read = 0
    for seed in range(24):
        chance = random.Random(seed)
        mutant = bytearray(whole)
        for _ in range(chance.randint(1, 300)):
            at = chance.randrange(len(mutant))
            mutant[at] = chance.choice((0, 0xFF, chance.randrange(256)))
        if seed % 3 == 0:
            del mutant[chance.randrange(len(mutant)) :]
        path.write_bytes(mutant)
        try:
            trace = read_etl(path, startup=bool(seed % 2))
        except NotATraceFile:
            continue
        read += 1
        if seed % 3 == 0:
            assert trace.recording.losses, "a file that was cut off has lost something"
        with contextlib.suppress(NoSuchProcess):
            one = read_etl(path, process="svchost.exe", startup=bool(seed % 2))
            assert len(one.recording.events) <= len(trace.recording.events)
    assert read
