"""Reports of several processes: a part for each, totals over all."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase, UnloadEvent
from dlltracer.model.failure import Crash
from dlltracer.model.recording import Recording, TracedProcess
from dlltracer.report.counts import count, notes_on_children
from dlltracer.report.render_json import render_jsonl
from dlltracer.report.render_text import render_lines, render_text

FIRST = TracedProcess(1, 0, ("python", "-m", "pytest"), "/usr/bin/python3.11", 1.0, 9.0, 0)
CHILD = TracedProcess(2, 1, ("python", "-c", "x"), "/usr/bin/python", 2.0, 3.0, -11)


def at_start(pid: int, program: str) -> tuple[LoadEvent, ...]:
    return (
        LoadEvent(program, pid=pid, phase=Phase.DIRECT, imports=()),
        LoadEvent("/lib/libc.so.6", pid=pid, need="libc.so.6", requested_by=program, phase=Phase.CACHE, imports=()),
    )


def text(recording: Recording, **more: bool) -> list[str]:
    return render_text(recording, **more).plain.splitlines()


def test_a_part_for_each_process() -> None:
    missing = LoadFailedEvent("libx.so", pid=2, need="libx.so", requested_by="/m.so", kind=FailureKind.NOT_FOUND)
    recording = Recording(
        "rtld",
        (
            LoadEvent("/p.so", pid=1, imports=("pkg",), tid=1), *at_start(2, "/usr/bin/python"),
            LoadEvent("/q.so", pid=1, imports=("q",), tid=1), LoadEvent("/m.so", pid=2), missing,
        ),
        pid=1, processes=(FIRST, CHILD),
    )  # fmt: skip
    assert text(recording) == [
        "process 1  python -m pytest  (/usr/bin/python3.11)  status 0",
        "import pkg", "└─ p.so  /p.so", "import q", "└─ q.so  /q.so", "",
        "process 2  python -c x  killed by SIGSEGV",
        "(at its start)", "└─ python  /usr/bin/python",
        "   └─ libc.so.6  /lib/libc.so.6  found by cache",
        "(while it ran)", "└─ m.so  /m.so", "   └─ libx.so  NOT FOUND, needed by /m.so", "",
        "5 images loaded, 1 failed in 2 processes, 1 of them killed; traced by rtld",
    ]  # fmt: skip
    shown = text(recording, failed_only=True)
    assert shown[0].startswith("process 2") and not any("process 1 " in line or "p.so" in line for line in shown)


def test_a_single_process_has_no_heading() -> None:
    recording = Recording("rtld", (LoadEvent("/p.so", pid=1, imports=("pkg",)),), 1, processes=(FIRST,))
    assert text(recording)[0] == "import pkg"
    started = Recording("ld_debug", at_start(1, "/bin/ls"), 1, processes=(FIRST,))
    assert text(started)[0] == "(at its start)"
    mixed = replace(started, backend="rtld")
    assert text(mixed)[0] == "(at its start, or outside any import)"


def test_processes_that_did_the_same_are_shown_once() -> None:
    children = tuple(TracedProcess(pid, 1, ("true", str(pid)), "/bin/true", 2.0, 3.0, 0) for pid in range(10, 30))
    other = TracedProcess(30, 1, ("true",), "/bin/true", 2.0, 3.0, 1)
    running = TracedProcess(31, 1, None, "/bin/true", 2.0)
    unknown = TracedProcess(32, ended=3.0)
    everyone = (*children, other, running, unknown)
    events = tuple(event for process in everyone[:-1] for event in at_start(process.pid, "/bin/true"))
    lines = text(Recording("ld_debug", events, 1, processes=(FIRST, *everyone)))
    headings = [line for line in lines if line.startswith("process ")]
    assert headings[1:] == [
        "process 10  true 10  status 0", "process 30  true  status 1", "process 31  /bin/true  still running",
        "process 32  (its command is not known)  ended",
    ]  # fmt: skip
    assert "and 19 more processes that loaded the same: 11, 12, 13, 14, 15, 16, 17, 18, …" in lines
    assert lines[-1].startswith("44 images loaded, 0 failed in 24 processes;")


def test_a_failure_is_never_folded() -> None:
    children = tuple(TracedProcess(pid, 1, ("x",), "/bin/x", 2.0, 3.0, 127) for pid in (2, 3))
    events = tuple(LoadFailedEvent("l.so", pid=one.pid, need="l.so", kind=FailureKind.NOT_FOUND) for one in children)
    lines = text(Recording("ld_debug", events, 1, processes=(FIRST, *children)), failed_only=True)
    assert [line[:9] for line in lines if "process " in line][:2] == ["process 2", "process 3"]


def test_where_a_process_crashed() -> None:
    crash = Crash(0xC0000005, "access violation", 0x1384, "C:\\x\\bad.pyd", 0x1384, 7, 16)
    child = replace(CHILD, status=0xC0000005, crash=crash)
    lines = text(Recording("debugger", (), 1, processes=(FIRST, child)))
    assert "process 2  python -c x  crashed: access violation in bad.pyd at offset 0x1384" in lines
    nowhere = replace(child, crash=replace(crash, image=None, offset=None))
    assert any(
        line.endswith("  crashed: access violation at an unknown place")
        for line in text(Recording("x", (), 1, processes=(FIRST, nowhere)))
    )


def test_notes_on_children_that_did_not_end_by_themselves() -> None:
    well = replace(CHILD, pid=3, status=1)
    (note,) = notes_on_children(Recording("x", (), 1, processes=(replace(FIRST, status=-9), CHILD, well)))
    assert note == "process 2, which it started, killed by SIGSEGV: python -c x"


def test_of_a_command_no_import_is_missed() -> None:
    """A debugger runs Python and anything else: where no import is known, none is shown."""
    loads = (LoadEvent("C:\\a.exe", pid=1, phase=Phase.DIRECT, imports=()), LoadEvent("C:\\b.dll", pid=1))
    titles = [line for line in text(Recording("debugger", loads, 1)) if line.startswith("(")]
    assert titles == ["(at its start)", "(while it ran)"]
    lines = text(Recording("debugger", (*loads, LoadEvent("C:\\c.pyd", imports=("c",))), 1))
    assert "(which import asked is not known)" in lines


@pytest.mark.parametrize(
    ("status", "words"),
    [(-64, "killed by signal 64"), (0xC0000005, "ended by Windows with status 0xc0000005 (access violation)")],
)
def test_other_endings(status: int, words: str) -> None:
    recording = Recording("x", pid=1, processes=(replace(FIRST, status=status), CHILD))
    assert words in text(recording)[0]


def test_names_are_harmless() -> None:
    hostile = TracedProcess(2, 1, ("a\x1b[31m\n", "\udcff" + "b" * 300), "/x\r", 1.0)
    shown = render_text(Recording("x", pid=1, processes=(FIRST, hostile)), ascii_only=True).plain
    assert "\x1b" not in shown and "\r" not in shown and "\udcff" not in shown
    assert r"a\x1b[31m\n \udcffbbb" in shown and "b" * 99 not in shown and "b..." in shown


def test_the_same_path_in_two_processes_is_two_images() -> None:
    events = (
        LoadEvent("/m.so", pid=1), LoadEvent("/m.so", pid=2), UnloadEvent("/m.so", pid=1),
        LoadFailedEvent("/m.so", pid=2, kind=FailureKind.DROPPED),
    )  # fmt: skip
    counts = count(Recording("rtld", events))
    assert (counts.loaded, counts.dropped, counts.unloaded) == (1, 1, 1)


def test_json_lines_and_lines() -> None:
    crash = Crash(11, "SIGSEGV", 4096, "/m.so", 16, 2, 0)
    events = (LoadEvent("/p.so", pid=1), LoadEvent("/q.so", pid=2))
    recording = Recording("rtld", events, 1, processes=(FIRST, replace(CHILD, crash=crash, started=None)))
    head, first, child, *rest = map(json.loads, render_jsonl(recording).splitlines())
    assert head["type"] == "recording" and [item["type"] for item in rest] == ["load", "load", "summary"]
    assert first == {
        "type": "process", "pid": 1, "parent": 0, "command": ["python", "-m", "pytest"],
        "program": "/usr/bin/python3.11", "started": 1.0, "ended": 9.0, "status": 0,
    }  # fmt: skip
    assert "started" not in child and (child["crash"]["name"], child["crash"]["offset"]) == ("SIGSEGV", 16)
    assert render_lines(recording) == "LoadLibrary /p.so\nLoadLibrary /q.so\n"
