"""Signs of life on a terminal: there while something runs, gone afterwards, and nowhere else."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import pytest

from builders.terminal import parts, run_on_terminal, screen, start_on_terminal
from dlltracer.cli.live import FAILURES, LOADS, LiveState, LiveView
from dlltracer.cli.progress import is_lively, progress
from dlltracer.model.events import DebugEvent, FailureKind, LoadEvent, LoadFailedEvent, UnloadEvent
from dlltracer.model.recording import TracedProcess

posix_only = pytest.mark.skipif(os.name == "nt", reason="needs pseudo-terminals")


class Pretended(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_is_a_terminal_for_drawing() -> None:
    assert is_lively(Pretended(), {"TERM": "xterm"}) and is_lively(Pretended(), {})
    assert not is_lively(Pretended(), {"TERM": "dumb"})
    assert not is_lively(io.StringIO(), {}) and not is_lively(None, {})


def test_nothing_in_a_pipe() -> None:
    stream = io.StringIO()
    before = threading.active_count()
    with progress("working", 3, stream=stream, delay=0) as work:
        work.advance()
        work.say("still working")
        assert threading.active_count() == before
    view = LiveView(stream)
    view.process(TracedProcess(1))
    view.event(LoadEvent("/a.so"))
    view.finish()
    assert stream.getvalue() == ""


def test_what_is_quick_needs_no_sign() -> None:
    stream = Pretended()
    with progress("working", stream=stream, delay=60):
        pass
    assert stream.getvalue() == ""


def test_an_error_passes_through() -> None:
    with pytest.raises(ValueError, match="mine"), progress("working", stream=Pretended(), delay=60):
        raise ValueError("mine")


BAR = """
    import sys, threading
    from dlltracer.cli.progress import progress

    seen = threading.Event()
    write = sys.stderr.write
    def watch(text):
        if sys.argv[1] in text:
            seen.set()
        return write(text)
    sys.stderr.write = watch
    with progress("reading \\x1b[31m" + "a" * 500 + "/xyz.etl", int(sys.argv[2]) or None, delay=0) as work:
        assert seen.wait(30)
        work.advance(50)
        work.say("almost done")
    print("after")
    """


@posix_only
@pytest.mark.parametrize(("total", "wanted"), [("100", "%"), ("0", "0:00:0")])
def test_a_bar_and_a_spinner_leave_nothing_behind(total: str, wanted: str) -> None:
    shown, stdout = run_on_terminal(BAR, "reading", total)
    assert wanted in shown and "/xyz.etl" in shown and "\\x1b[31m" in shown and "\x1b[31maaa" not in shown
    assert screen(shown) == [""] * len(screen(shown)), "everything is taken back"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is back"
    assert stdout == "after\n"


@posix_only
def test_no_colour_is_respected() -> None:
    shown, _ = run_on_terminal(BAR, "reading", "100", NO_COLOR="1")
    assert "reading" in shown and not any(f"\x1b[{code}" in shown for code in ("3", "1;3", "9"))


@posix_only
def test_a_dumb_terminal_gets_nothing() -> None:
    code = """
        from dlltracer.cli.live import LiveView
        from dlltracer.cli.progress import progress
        from dlltracer.model.events import LoadEvent
        with progress("working", delay=0):
            view = LiveView()
            view.event(LoadEvent("/a.so"))
            view.finish()
        """
    assert run_on_terminal(code, TERM="dumb") == ("", "")


LIVE = """
    import sys
    from dlltracer.cli.live import LiveView
    from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent
    from dlltracer.model.recording import TracedProcess

    view = LiveView()
    print("before", flush=True, file=sys.stderr)
    view.process(TracedProcess(7))
    for number in range(200):
        view.event(LoadEvent(f"/lib/{'long' * 40}/lib{number}.so", imports=("numpy",)))
    view.event(LoadFailedEvent("libgone.so", need="libgone\\x1b[2J.so", kind=FailureKind.NOT_FOUND))
    view._live.refresh()
    view.finish()
    view.finish()
    print("after", flush=True, file=sys.stderr)
    """


@posix_only
def test_the_view_shows_what_came_and_leaves_nothing_behind() -> None:
    shown, _ = run_on_terminal(LIVE)
    assert "200 loads, 1 failed" in shown and "lib199.so" in shown and "libgone\\x1b[2J.so  not found" in shown
    assert "\x1b[2J" not in shown
    assert [line for line in screen(shown) if line] == ["before", "after"]


EARLY = """
    import sys
    from dlltracer.cli.live import LiveView
    from dlltracer.model.events import LoadEvent

    class Behind:
        said = []
        def early(self, event): self.said.append(("early", event))
        def event(self, event): self.said.append(("event", event))

    view, events = LiveView(behind=Behind()), [LoadEvent("/a.so"), LoadEvent("/b.so")]
    for event in events: view.early(event)
    for event in events: view.event(event)
    view._live.refresh()
    view.finish()
    print(Behind.said == [(how, event) for how in ("early", "event") for event in events], file=sys.stderr)
    """


@posix_only
def test_what_was_shown_early_is_not_shown_again() -> None:
    shown, _ = run_on_terminal(EARLY)
    assert "2 loads, 0 failed" in shown and "4 loads" not in shown
    assert [line for line in screen(shown) if line] == ["True"]


@pytest.mark.skipif(sys.platform != "linux", reason="there the events come while the program runs")
@pytest.mark.parametrize("output", ["report.txt", "run.dlltrace"])
def test_a_program_is_watched_while_it_runs(tmp_path: Path, output: str) -> None:
    """It loads, then waits for a byte: that is sent when the load is on the screen."""
    code = "import ctypes, sys; ctypes.CDLL('libresolv.so.2'); sys.stdin.buffer.read(1)"
    command = [sys.executable, "-m", "dlltracer", "run", "--live", "-o", str(tmp_path / output), "-c", code]
    child, terminal = start_on_terminal(command)
    assert child.stdin is not None
    shown = ""
    for part in parts(terminal):
        shown += part
        if "libresolv.so.2" in shown and not child.stdin.closed:
            child.stdin.write(b"x")
            child.stdin.close()
    child.stdin = None
    assert child.communicate(timeout=60)[0] == b"" and child.returncode == 0
    assert "".join(screen(shown)) == f"wrote {tmp_path / output}"
    assert "libresolv.so.2" in (tmp_path / output).read_text()


def plain(state: LiveState, seconds: float = 65.5) -> list[str]:
    return ["".join(piece for piece, _ in line) for line in state.lines(seconds)]


def test_the_lines_of_the_view() -> None:
    import uuid

    state = LiveState()
    assert plain(state) == ["0 loads, 0 failed  1:05"]
    state.process(TracedProcess(1))
    state.process(TracedProcess(1, command=("x",)))
    state.event(LoadEvent("/a.so", imports=("m", "m.i")))
    state.event(LoadFailedEvent("/b.so", kind=FailureKind.REFUSED, reason="wrong machine"))
    state.event(UnloadEvent("/a.so"))
    state.event(DebugEvent(uuid.UUID(int=1), 1, b"", b""))
    assert plain(state) == [
        "1 load, 1 failed, 1 unloaded, 1 raw event  1:05",
        "  a.so  /a.so  for import m.i",
        "  /b.so  refused: wrong machine",
    ]
    state.process(TracedProcess(2, parent=1))
    state.process(TracedProcess(2, parent=1, status=0))
    assert plain(state)[0].endswith("raw event; 2 processes, 1 of them ended  1:05")
    for number in range(50):
        state.event(LoadEvent(f"/{number}.so"))
        state.event(LoadFailedEvent(f"/{number}.so"))
    assert len(plain(state)) == 1 + LOADS + FAILURES
