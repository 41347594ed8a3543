"""A recording file gives back what was written, whatever became of it on the way."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.saved_traces import CALM, PLAIN, PROCESSES, SAVED_TRACES, read_lines
from dlltracer.model import tracereader
from dlltracer.model.events import Event, FailureKind, LoadEvent, LoadFailedEvent, UnloadEvent
from dlltracer.model.failure import ProcessFacts, PythonError, System
from dlltracer.model.finding import Diagnosis, Outcome
from dlltracer.model.recording import Losses, Recording, TracedProcess
from dlltracer.model.run import HostFacts, ImageFacts, RunResult, SavedTrace
from dlltracer.model.tracefile import early_line, process_line, trace_to_lines
from dlltracer.model.tracereader import NotARecording, is_recording
from dlltracer.report.render_json import render_jsonl

PROCESS = ProcessFacts(System.LINUX, (3, 11, 4), (".so",), 64, "/usr/bin/python3", "/usr", "/usr")
TRACE = SavedTrace(
    Recording(
        "rtld",
        (LoadEvent("/a.so", base=1), LoadFailedEvent("b", kind=FailureKind.NOT_FOUND), LoadEvent("/gr\udcfc.so")),
        pid=4,
        losses=Losses(1, 2, 3),
        notes=("n",),
    ),
    "import x",
    "0.1.0",
    1.5,
    HostFacts("linux", name="box"),
    RunResult(process=PROCESS, errors=(PythonError("ImportError", "gone"),), status=1),
    diagnosis=Diagnosis("import x", Outcome.UNDECIDED, undecided=("more",)),
    case={"version": 1, "images": [["/a.so", {}]]},
    images=(ImageFacts("/a.so", 10),),
)


def lines_of(trace: SavedTrace = TRACE) -> list[bytes]:
    return [line.encode("ascii") for line in trace_to_lines(trace)]


def types_of(lines: list[bytes]) -> list[str]:
    return [json.loads(line)["type"] for line in lines]


@given(SAVED_TRACES)
@CALM
def test_round_trip(trace: SavedTrace) -> None:
    lines = lines_of(trace)
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") and line.isascii() for line in lines)
    assert read_lines(lines) == trace


def test_what_is_written() -> None:
    lines = lines_of()
    assert types_of(lines) == [
        "recording", "load", "failed", "load", "interpreter", "failure", "image", "verdict", "case", "end",
    ]  # fmt: skip
    assert json.loads(lines[0]) == {
        "type": "recording", "version": 2, "dlltracer": "0.1.0", "what": "import x", "command": [], "started": 1.5,
        "host": {"system": "linux", "description": "", "machine": "", "name": "box"}, "backend": "rtld", "pid": 4,
        "notes": [], "problems": [],
    }  # fmt: skip
    assert json.loads(lines[5]) == {
        "type": "failure", "errors": [{"type": "ImportError", "message": "gone", "bases": [], "frames": []}]
    }  # fmt: skip
    assert json.loads(lines[7])["outcome"] == "undecided"
    assert json.loads(lines[-1]) == {
        "type": "end", "status": 1, "backend": "rtld", "pid": 4, "events": 3,
        "losses": {"events": 1, "buffers": 2, "undecodable": 3}, "notes": ["n"],
    }  # fmt: skip


@given(SAVED_TRACES, st.data())
@CALM
def test_any_prefix_reads(trace: SavedTrace, data: st.DataObject) -> None:
    whole = b"".join(lines_of(trace))
    header = whole.index(b"\n")
    cut = data.draw(st.integers(header, len(whole) - 2))
    read = read_lines(whole[:cut].splitlines(keepends=True))
    assert read.what == trace.what
    assert read.recording.events == trace.recording.events[: len(read.recording.events)]
    assert any("it was cut off" in problem for problem in read.problems), read.problems


def test_every_prefix_of_one_file() -> None:
    whole = b"".join(lines_of())
    seen = 0
    for cut in range(len(whole) + 1):
        try:
            read = read_lines(whole[:cut].splitlines(keepends=True))
        except NotARecording:
            assert cut < whole.index(b"\n")
            continue
        assert len(read.recording.events) >= seen, "more of the file says more"
        seen = len(read.recording.events)
        assert bool(read.problems) == (cut < len(whole) - 1)
    assert seen == 3


@given(st.binary(max_size=60) | st.lists(PLAIN.map(lambda one: json.dumps(one).encode())).map(b"\n".join))
@CALM
def test_anything_else_is_one_error(data: bytes) -> None:
    with pytest.raises(NotARecording):
        read_lines(data.splitlines(keepends=True))


@given(st.lists(st.binary(max_size=30), max_size=5), st.integers(0, 9))
@CALM
def test_damage_between_lines_costs_nothing_else(junk: list[bytes], at: int) -> None:
    rows = [row.replace(b"\n", b"") + b"\n" for row in junk]
    lines = lines_of()
    read = read_lines([*lines[: at + 1], *rows, *lines[at + 1 :]])
    assert replace(read, problems=()) == TRACE
    assert bool(read.problems) == any(row.strip() for row in rows)


TYPES = st.sampled_from(
    ["recording", "process", "load", "failed", "interpreter", "failure", "crash", "places", "image", "case", "verdict",
     "end", "summary", "debug"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["path", "version", "pid", "errors", "process", "losses", "notes", "host", "images", "events", "case", "folders",
     "outcome", "findings", "system", "status", "crash", "backend", "command", "probes"]
)  # fmt: skip


@given(st.lists(st.tuples(TYPES, st.dictionaries(KEYS, PLAIN, max_size=4)), max_size=6))
@CALM
def test_junk_in_lines_of_ours_raises_nothing_else(rows: list[tuple[str, dict[str, Any]]]) -> None:
    lines = [json.dumps({"type": kind, **items}).encode() + b"\n" for kind, items in rows]
    try:
        read = read_lines(lines)
    except NotARecording as error:
        assert "this is not a recording of dlltracer" in str(error)
    else:
        kinds = [kind for kind, _ in rows]
        assert len(read.recording.events) <= sum(map(kinds.count, ("load", "failed", "debug")))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"not json\n", "1 line (2) could not be read: line: it is not JSON"),
        (b"[1]\n", "could not be read: line: an object is wanted, not list"),
        (b"{}\n", "could not be read: line: it does not say its type"),
        (b'{"type": "teleport"}\n', "1 line (2) is of a type that this dlltracer does not know: the type teleport"),
        (b'{"type": "load"}\n', "could not be read: load: has no 'path'"),
        (b'{"type": "load", "path": "/a", "timestamp": NaN}\n', "NaN is no number"),
        (b'{"type": "image", "path": 3}\n', "image.path: text is wanted, not int"),
        (b'{"type": "places", "folders": [["a"]]}\n', "places.folders[0]: a list of 2 is wanted, not list"),
        (b'{"type": "verdict", "what": "", "outcome": "lost"}\n', "verdict.outcome: no Outcome is called lost"),
        (b'{"type": "crash"}\n', "crash: has no 'code'"),
        (b'{"type": "failure"}\n', "failure: has no 'errors'"),
        (b'{"type": "case", "case": []}\n', "case: an object is wanted"),
        (b'{"type": "case", "case": {"a": ' + b"[" * 90 + b"]" * 90 + b"}}\n", "case: it is nested too deeply"),
        (b"[" * 100_000 + b"\n", "could not be read: line: it is not JSON"),
        (b'{"type": "load", "path": "/a", "base": ' + b"1" * 5000 + b"}\n", "could not be read: line: it is not JSON"),
        (b'{"type": "load", "path": "/\xff"}\n', "could not be read: line: it is not JSON"),
        (b'{"type": "recording", "version": 2}\n', "another recording begins in line 2: it was not read"),
    ],
)
def test_a_damaged_line_is_named(line: bytes, words: str) -> None:
    lines = lines_of()
    read = read_lines([lines[0], line, *lines[1:]])
    assert any(words in problem for problem in read.problems), read.problems


def test_many_damaged_lines_are_counted() -> None:
    lines = lines_of()
    read = read_lines([lines[0], *[b"junk\n"] * 500, *lines[1:]])
    assert replace(read, problems=()) == TRACE
    assert read.problems[0].startswith("500 lines (2, 3, 4, ...) could not be read: ") and len(read.problems) == 1


def test_a_lost_event_is_noticed() -> None:
    lines = lines_of()
    assert read_lines([*lines[:2], *lines[3:]]).problems == ("1 of 3 events are missing",)


def test_a_missing_header_and_a_missing_end() -> None:
    read = read_lines(lines_of()[1:-1])
    assert (read.recording.backend, len(read.recording.events)) == ("unknown", 3)
    assert [problem.partition(":")[0] for problem in read.problems] == [
        "its first line is missing, which says what was run, and where", "it was cut off",
    ]  # fmt: skip


EARLY = (LoadEvent("/a.so", base=1, pid=9), LoadEvent("/b.so", base=2, pid=9), UnloadEvent("/b.so", base=2, pid=9))
AS_FIRST_SEEN = "its events are as they were first seen: which unload was a failure, and for which import, is unknown"


def early_lines(events: tuple[Event, ...] = EARLY) -> list[bytes]:
    return [early_line(event).encode("ascii") for event in events]


def test_an_early_event_counts_until_its_final_one() -> None:
    head, *others = lines_of(replace(TRACE, recording=replace(TRACE.recording, pid=None)))
    cut = read_lines([head, *early_lines()])
    assert (cut.recording.events, cut.recording.pid) == (EARLY, 9)
    assert [problem for problem in cut.problems if "it was cut off" not in problem] == [AS_FIRST_SEEN]
    torn = read_lines([head, *early_lines()[:-1], early_lines()[-1][:-9]])
    assert torn.recording.events == EARLY[:-1] and AS_FIRST_SEEN in torn.problems
    for final in ([*early_lines(), *others], [*others[:1], *early_lines(), *others[1:]], [*others, *early_lines()]):
        assert read_lines([head, *final]) == read_lines([head, *others])
    first = read_lines([head, *early_lines(), others[0]])
    assert first.recording.events == TRACE.recording.events[:1] and AS_FIRST_SEEN not in first.problems
    ended = read_lines([head, *early_lines(), others[-1]])
    assert ended.recording.events == () and ended.problems == ("3 of 3 events are missing",)
    followed = read_lines([head, process_line(TracedProcess(4)).encode(), *early_lines()])
    assert followed.recording.pid == 4, "the first process is the program's"


@given(SAVED_TRACES, st.data())
@CALM
def test_any_prefix_with_early_lines_reads(trace: SavedTrace, data: st.DataObject) -> None:
    """Their events, until the first final one or the end is there; then they are as if they had never been."""
    head, *others = lines_of(trace)
    early = trace.recording.events
    rows = [head, *early_lines(early), *others]
    assert read_lines(rows) == trace
    whole = b"".join(rows)
    cut = data.draw(st.integers(len(head), len(whole) - 2))
    read = read_lines(whole[:cut].splitlines(keepends=True))
    assert read.recording.events == early[: len(read.recording.events)]
    is_early = AS_FIRST_SEEN in read.problems
    assert any("it was cut off" in problem for problem in read.problems), read.problems
    if cut <= len(head) + sum(map(len, early_lines(early))):
        assert is_early == bool(read.recording.events)


@pytest.mark.parametrize("event", [b"7", b"{}", b'{"type": "load"}', b'{"type": "early"}', b"null"])
def test_a_damaged_early_line_is_named(event: bytes) -> None:
    read = read_lines([lines_of()[0], b'{"type": "early", "event": %b}\n' % event, *early_lines()])
    assert read.recording.events == EARLY
    assert [problem for problem in read.problems if problem.startswith("1 line (2) could not be read: early.event")]


def test_too_many_early_events_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracereader, "MOST_EVENTS", 2)
    read = read_lines([lines_of()[0], *early_lines()])
    assert read.recording.events == EARLY[:2]
    assert "1 line (4) was passed over: this dlltracer keeps 2 events" in read.problems


def test_of_a_torn_file_the_first_process_is_the_program() -> None:
    lines = lines_of(replace(TRACE, recording=replace(TRACE.recording, pid=None), run=replace(TRACE.run, status=None)))
    first = process_line(TracedProcess(9, status=3)).encode("ascii"), process_line(TracedProcess(12)).encode("ascii")
    torn = read_lines([lines[0], *first, *lines[1:-1]])
    assert (torn.recording.pid, torn.run.status) == (9, 3)
    whole = read_lines([lines[0], *first, *lines[1:]])
    assert (whole.recording.pid, whole.run.status) == (None, None)


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    lines = lines_of()
    lines[0] = lines[0].replace(b'"version": 2', b'"version": 3, "more": {}')
    read = read_lines(lines)
    assert replace(read, problems=()) == TRACE
    assert read.problems == (
        "it has format version 3, and this dlltracer reads up to 2: what it knows was read; use a newer dlltracer",
    )


def test_a_byte_order_mark_and_the_line_ends_of_windows() -> None:
    lines = [line.replace(b"\n", b"\r\n") for line in lines_of()]
    assert read_lines([b"\xef\xbb\xbf" + lines[0], *lines[1:]]) == TRACE


def test_what_run_writes_as_json_lines_reads_as_well() -> None:
    recording = replace(TRACE.recording, pid=4)
    lines = render_jsonl(recording, verdict=TRACE.diagnosis).encode().splitlines(keepends=True)
    assert read_lines(lines) == SavedTrace(recording, diagnosis=TRACE.diagnosis)


def test_too_many_events_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracereader, "MOST_EVENTS", 2)
    read = read_lines(lines_of())
    assert read.recording.events == TRACE.recording.events[:2]
    assert "1 line (4) was passed over: this dlltracer keeps 2 events" in read.problems


def test_a_file_of_something_else_is_not_read_to_its_end() -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield b"a line of a log\n"

    with pytest.raises(NotARecording, match="line 1: line: it is not JSON"):
        read_lines(endless())
    assert taken < 1000


@given(st.lists(PROCESSES, max_size=4))
@CALM
def test_of_several_lines_about_a_process_the_last_counts(processes: list[TracedProcess]) -> None:
    begun = [replace(process, ended=None, status=None) for process in processes]
    header = lines_of()[0]
    lines = [process_line(process).encode() for one in zip(begun, processes, strict=True) for process in one]
    read = read_lines([header, *lines]).recording.processes
    assert set(read) <= set(processes) | set(begun)
    assert {process.pid for process in read} == {process.pid for process in processes}
    if processes:
        assert processes[-1] in read


def test_a_number_used_again_is_another_process() -> None:
    first, second = TracedProcess(5, started=1.0, ended=2.0, status=0), TracedProcess(5, started=3.0)
    lines = [lines_of()[0], process_line(first).encode(), process_line(second).encode()]
    assert read_lines(lines).recording.processes == (first, second)


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (b'{"type": "recording", ', True),
        (b'\xef\xbb\xbf{"type": "load"', True),
        (b"import os\n", False),
        (b"\x7fELF", False),
        (b"", False),
    ],
)
def test_heads(head: bytes, wanted: bool) -> None:
    assert is_recording(head) is wanted
