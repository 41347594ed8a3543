"""Recording files on a disk that fills up, in pipes whose reader leaves, torn, endless, or of something else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from builders.saved_traces import CALM, SAVED_TRACES
from dlltracer.errors import BinaryFormatError
from dlltracer.host import recording_files
from dlltracer.host.recording_files import TraceFileWriter, looks_like_recording, read_trace_file, read_trace_stream
from dlltracer.model.events import LoadEvent
from dlltracer.model.recording import Recording
from dlltracer.model.run import SavedTrace
from dlltracer.model.tracefile import event_line, header_line, trace_to_lines
from dlltracer.model.tracereader import NotARecording

posix_only = pytest.mark.skipif(os.name == "nt", reason="limits and pipes of POSIX")
HEADER = header_line(SavedTrace(Recording("rtld"), "import x"))


def event(number: int) -> str:
    return event_line(LoadEvent(f"/lib/lib{number}.so"))


@given(SAVED_TRACES)
@settings(CALM, suppress_health_check=list(HealthCheck), max_examples=25)
def test_round_trip(tmp_path: Path, trace: SavedTrace) -> None:
    path = str(tmp_path / "x.dlltrace")
    writer = TraceFileWriter(path, pytest.fail)
    for line in trace_to_lines(trace):
        writer.write(line)
    writer.close()
    assert read_trace_file(path) == trace


def test_the_first_line_empties_the_file_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "x.dlltrace"
    path.write_text("something else, and longer than what comes" * 20)
    writer = TraceFileWriter(str(path), pytest.fail)
    assert path.read_text().startswith("something else")
    writer.write(HEADER)
    assert path.read_text() == HEADER
    writer.discard()
    assert path.exists(), "it was there before"
    fresh = tmp_path / "y.dlltrace"
    TraceFileWriter(str(fresh), pytest.fail).discard()
    assert not fresh.exists()


@posix_only
def test_a_full_disk(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "x.dlltrace"
    output: list[str] = []
    writer = TraceFileWriter(str(path), output.append)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        writer.write(HEADER)
        for number in range(100):
            writer.write(event(number))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert output == [os.strerror(27)], "once: EFBIG"
    assert not writer.is_open
    read = read_trace_file(str(path))
    whole = (2000 - len(HEADER)) // len(event(10))
    assert whole - 1 <= len(read.recording.events) <= whole + 1
    assert path.read_bytes().endswith(b"}\n"), "no half of a line"
    assert read.problems == ("it was cut off: the end line is missing, and whatever came before it",)


@posix_only
def test_a_device_without_room() -> None:
    output: list[str] = []
    writer = TraceFileWriter("/dev/full", output.append)
    writer.write(HEADER)
    writer.write(HEADER)
    writer.close()
    assert output == [os.strerror(28)], "ENOSPC"


@posix_only
def test_a_reader_that_leaves(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    output: list[str] = []
    writer = TraceFileWriter(str(fifo), output.append)
    writer.write(HEADER)
    assert os.read(reader, 10_000).decode() == HEADER
    os.close(reader)
    writer.write(event(1))
    writer.write(event(2))
    writer.close()
    assert output == [os.strerror(32)], "EPIPE"


KILLED = """
import sys
from dlltracer.host.recording_files import TraceFileWriter
from dlltracer.model.events import LoadEvent
from dlltracer.model.recording import Recording
from dlltracer.model.run import SavedTrace
from dlltracer.model.tracefile import event_line, header_line
writer = TraceFileWriter(sys.argv[1], print)
writer.write(header_line(SavedTrace(Recording("rtld"))))
number = 0
while True:
    writer.write(event_line(LoadEvent(f"/lib/{'x' * 3000}{number}.so")))
    number += 1
    if number == 20:
        print("go", flush=True)
"""


@posix_only
def test_whoever_is_killed_leaves_all_lines_but_the_one_at_hand(tmp_path: Path) -> None:
    """SIGKILL may cut a write(2) short, between two pages: generic_perform_write in mm/filemap.c of Linux."""
    path = tmp_path / "x.dlltrace"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"go\n"
        child.send_signal(signal.SIGKILL)
    read = read_trace_file(str(path))
    assert len(read.recording.events) >= 20
    assert [event.path.removesuffix(".so").lstrip("/libx") for event in read.recording.loads] == [
        str(number) for number in range(len(read.recording.loads))
    ]
    *torn, cut_off = read.problems
    assert cut_off == "it was cut off: the end line is missing, and whatever came before it"
    is_whole = path.read_bytes().endswith(b"\n")
    last = len(read.recording.events) + 2  # behind the header
    assert torn == ([] if is_whole else [f"its last line ({last}) is torn: its content is lost"])


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_files, "LONGEST_LINE", 1 << 20)
    path = tmp_path / "x.dlltrace"
    path.write_text(HEADER + event(1) + '{"type": "' + "x" * (3 << 20) + '"}\n' + event(2))
    read = read_trace_file(str(path))
    assert [one.path for one in read.recording.loads] == ["/lib/lib1.so", "/lib/lib2.so"]
    assert read.problems[0] == "1 line (3) was passed over: it is longer than 1 MB"


def test_a_file_that_is_too_large_is_read_to_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_files, "LARGEST_FILE", 5000)
    path = tmp_path / "x.dlltrace"
    path.write_text(HEADER + "".join(map(event, range(500))))
    read = read_trace_file(str(path))
    assert 0 < len(read.recording.events) < 500
    assert "the rest was not read" in read.problems[0] and len(read.problems) == 1


@posix_only
def test_a_stream_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_files, "LARGEST_FILE", 64 << 20)
    start = time.process_time()
    with open("/dev/zero", "rb") as stream, pytest.raises(NotARecording):
        read_trace_stream(stream)
    assert time.process_time() - start < 5
    with pytest.raises(BinaryFormatError, match="not a regular file"):
        read_trace_file("/dev/zero")


def test_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.dlltrace"
    for content, words in (
        (b"", "it is empty"),
        (b"\x7fELF\0\0", "lines of JSON"),
        (b"print(1)\n", "line 1: line: it"),
    ):
        path.write_bytes(content)
        with pytest.raises(NotARecording, match=words):
            read_trace_file(str(path))
    with pytest.raises(OSError, match="No such file"):
        read_trace_file(str(tmp_path / "nothing"))
    assert not looks_like_recording(str(path))
    assert not looks_like_recording(str(tmp_path))
    assert not looks_like_recording(str(tmp_path / "nothing"))
    path.write_text(HEADER)
    assert looks_like_recording(str(path))
