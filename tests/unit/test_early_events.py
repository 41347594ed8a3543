"""Events as they are seen first: from the debugger of Windows to the file, while the program runs."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path

from dlltracer.cli import run_traced
from dlltracer.cli.record import TraceRecorder
from dlltracer.cli.run_debugged import EarlyEvents
from dlltracer.host.recording_files import read_trace_file
from dlltracer.model.events import Event, LoadEvent, UnloadEvent
from dlltracer.model.recording import Recording, TracedProcess
from dlltracer.model.run import RunResult

LOAD, LATER = LoadEvent("C:\\a.dll", pid=7), UnloadEvent("C:\\a.dll", pid=7)
CHILDS = LoadEvent("C:\\b.dll", pid=8)
FIRST, CHILD = TracedProcess(7, command=("python", "child_main.py")), TracedProcess(8, parent=7)
WHAT, COMMAND = "the code", ("python", "-c", "x")


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.output: list[Event | TracedProcess] = []
        self.process = self.early = self.event = self.output.append


def test_what_the_file_has_while_the_program_runs(tmp_path: Path) -> None:
    path = tmp_path / "run.dlltrace"
    recorder = TraceRecorder(str(path), WHAT, COMMAND, "auto")
    recorder.early(LOAD)
    read = read_trace_file(str(path))
    assert (read.what, read.recording.events, read.recording.pid) == ("the code", (LOAD,), 7)
    assert any("as they were first seen" in problem for problem in read.problems)
    recorder.event(LATER)
    trace = recorder.finish(RunResult(status=0, recording=Recording("debugger", (LATER,), 7)), None)
    assert read_trace_file(str(path)) == trace and trace.recording.events == (LATER,)


def test_what_is_private_is_left_out_early(tmp_path: Path) -> None:
    path = tmp_path / "run.dlltrace"
    recorder = TraceRecorder(str(path), WHAT, COMMAND, "auto", redact=True)
    recorder.early(LoadEvent("C:\\Users\\someone\\a.dll", pid=7))
    recorder.close()
    assert "someone" not in path.read_text() and "a.dll" in path.read_text()


def test_before_the_first_line_of_the_program(tmp_path: Path) -> None:
    """What its interpreter loads is not its own; of what it starts all is shown. It is recognised by its own words."""
    kept, begun = Kept(), tmp_path / "begun"
    early = EarlyEvents(kept, True, ("python", "-c", "x"), str(begun))
    for reported in (FIRST, LOAD):
        early(reported)
    assert kept.output == []
    shown = TracedProcess(7, command=("python", "-c", "x"))
    for reported in (CHILD, CHILDS, LOAD):
        early(reported)
    assert kept.output == [shown, CHILD, CHILDS]
    begun.write_text("")
    early(LATER)
    begun.unlink()  # it is looked at no more
    early(LOAD)
    assert kept.output[3:] == [LATER, LOAD]


def test_all_of_it_and_no_processes() -> None:
    kept = Kept()
    early = EarlyEvents(kept, False)
    for reported in (FIRST, LOAD, LATER):
        early(reported)
    assert kept.output == [LOAD, LATER]


def failing(error: BaseException) -> Callable[[object], None]:
    def fail(_: object) -> None:
        raise error

    return fail


def test_a_sink_that_raises_is_given_up_and_said() -> None:
    kept = Kept()
    guard = run_traced._Guard(types.SimpleNamespace(early=failing(OSError("full")), event=kept.event))
    guard.early(LOAD)
    guard.early(LOAD)
    ending = guard.replay(RunResult(status=0, recording=Recording("debugger", (LATER,), 7, notes=("n",))))
    assert kept.output == [] and guard.events.take() == (LATER,)
    assert ending.recording is not None
    assert ending.recording.notes == (
        "n", "events were not handed on from then on, as they came: OSError: full",
    )  # fmt: skip
