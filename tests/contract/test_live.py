"""Events are delivered while the block runs, and what came before a crash stays. Real loaders, real crashes."""

from __future__ import annotations

import ctypes
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import dlltracer
from contract.native import WINDOWS, Native, load

RunPython = Callable[..., subprocess.CompletedProcess[str]]

linux_only = pytest.mark.skipif(WINDOWS, reason="of Linux")

LONG = 60
"""Seconds after which a test gives up."""


class Lines(io.StringIO):
    """An output that tells when a line about a file has come."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._name = path.name.lower()
        self.has_come = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._name in text.lower():
            self.has_come.set()
        return written


class Blocked(io.StringIO):
    """An output that takes nothing until it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked, self.may_write = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.is_asked.set()
        assert self.may_write.wait(LONG)
        return super().write(text)


def named(text: str, path: Path) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if path.name.lower() in line.lower()]


CRASHES = {
    "_exit": "os._exit(0)",
    "abort": "os.abort()",
    "segmentation fault": "ctypes.string_at(0)",
    "signal": "signal.raise_signal(signal.SIGSEGV)",
    "kill": "os.kill(os.getpid(), 9)",
}


@linux_only
@pytest.mark.parametrize("how", CRASHES)
@pytest.mark.parametrize("requester", ["ctypes", "import"])
def test_the_last_load_before_a_crash_stands_in_out(how: str, requester: str, native: Native) -> None:
    path = native.tiny() if requester == "ctypes" else native.module()
    code = f"""if True:
        import ctypes, importlib.util, os, signal, sys, dlltracer
        spec = importlib.util.spec_from_file_location("tinymod", sys.argv[1])
        trace = dlltracer.Trace(out=sys.stdout)
        trace.start()
        if {requester!r} == "ctypes":
            ctypes.CDLL(sys.argv[1])
        else:
            importlib.util.module_from_spec(spec)
        {CRASHES[how]}
        """
    command = [sys.executable, "-X", "faulthandler=0", "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    assert named(done.stdout, path) == ["LoadLibrary"], done.stderr
    assert done.stdout.splitlines()[-1] == f"LoadLibrary {path}"


@linux_only
@pytest.mark.parametrize("how", CRASHES)
def test_snapshots_show_the_last_load_before_a_crash(how: str, native: Native) -> None:
    path = native.tiny()
    code = (
        "import ctypes, os, signal, sys, dlltracer\n"
        "dlltracer.Trace(out=sys.stdout, backend='snapshot').start()\n"
        f"ctypes.CDLL(sys.argv[1])\n{CRASHES[how]}\n"
    )
    command = [sys.executable, "-X", "faulthandler=0", "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    assert done.stdout == f"LoadLibrary {path}\n", done.stderr


INITIALISER = "__attribute__((constructor)) static void crash(void) { *(volatile int *)0 = 1; }"
PYINIT = "void *PyInit_crashing(void) { *(volatile int *)0 = 1; return 0; }"


@linux_only
@pytest.mark.parametrize("backend", ["rtld", "snapshot"])
@pytest.mark.parametrize(("source", "load_it"), [
    pytest.param(INITIALISER, "ctypes.CDLL(sys.argv[2])", id="initialiser"),
    pytest.param(PYINIT, "sys.path.insert(0, os.path.dirname(sys.argv[2])); import crashing", id="PyInit"),
])
def test_a_crash_inside_a_load_leaves_what_came_before_it(
    source: str, load_it: str, backend: str, native: Native, tmp_path: Path
) -> None:
    before, crashing = native.tiny(), tmp_path / "crashing.so"
    compiler = ["cc", "-shared", "-fPIC", "-x", "c", "-o", str(crashing), "-"]
    subprocess.run(compiler, input=source, text=True, check=True, timeout=LONG)
    code = (
        "import ctypes, os, sys, dlltracer\n"
        f"dlltracer.Trace(out=sys.stdout, backend={backend!r}).start()\nctypes.CDLL(sys.argv[1])\n{load_it}\n"
    )
    command = [sys.executable, "-X", "faulthandler=0", "-c", code, str(before), str(crashing)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    assert done.returncode == -11
    assert done.stdout == f"LoadLibrary {before}\n", done.stderr


IMPORTS_BESIDE_SNAPSHOTS = """
import importlib.machinery, importlib.util, os, sys, threading
from dlltracer.capture.snapshots import make_reader
sys.setswitchinterval(1e-5)
read, has_ended = make_reader(), threading.Event()
def watch():
    while not has_ended.is_set():
        read(False)
thread = threading.Thread(target=watch)
thread.start()
for path in sys.argv[1:]:
    loader = importlib.machinery.ExtensionFileLoader("tinymod", path)
    importlib.util.module_from_spec(importlib.util.spec_from_file_location("tinymod", path, loader=loader))
has_ended.set()
thread.join()
print(len([path for _, path in read(False).images if path in sys.argv]))
"""


@linux_only
def test_snapshots_in_a_thread_hold_up_no_import(native: Native) -> None:
    """The loader's lock and the GIL are taken in one order by an import, and must not be in another by a snapshot."""
    command = [sys.executable, "-c", IMPORTS_BESIDE_SNAPSHOTS, *(str(native.module()) for _ in range(150))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    assert done.stdout.split() == ["150"], done.stderr


@linux_only
def test_a_failed_load_is_delivered_before_a_crash(native: Native, run_python: RunPython) -> None:
    done = run_python(
        """
        import ctypes, os, sys, dlltracer
        dlltracer.Trace(out=sys.stdout).start()
        try:
            ctypes.CDLL("libnowhere.so.7")
        except OSError:
            pass
        os._exit(0)
        """
    )
    assert done.stdout == "Failed libnowhere.so.7\n", done.stderr


@linux_only
def test_a_load_that_python_did_not_ask_for_is_read_by_itself(native: Native) -> None:
    path = native.tiny()
    out = Lines(path)
    dlopen = ctypes.CDLL(None).dlopen
    with dlltracer.Trace(collect=True, out=out) as events:
        assert dlopen(os.fsencode(path), 1)
        assert out.has_come.wait(LONG)
        assert events is not None and str(events[-1]) == f"LoadLibrary {path}"


def test_a_list_alone_has_the_load_before_the_end(native: Native) -> None:
    path, until = native.tiny(), time.monotonic() + LONG
    with dlltracer.Trace(collect=True) as events:
        load(path)
        while not events and time.monotonic() < until:
            threading.Event().wait(0.01)
        assert [str(event) for event in events or ()] == [f"LoadLibrary {path}"]


def test_outputs_have_the_event_when_the_load_returns(native: Native) -> None:
    path, out = native.tiny(), io.StringIO()
    with dlltracer.Trace(collect=True, out=out) as events:
        load(path)
        now = out.getvalue()
        collected = list(events or ())
    assert named(now, path) == ["LoadLibrary"]
    assert [str(event) for event in collected] == now.splitlines()
    assert events is not None and events[: len(collected)] == collected


def test_what_is_delivered_is_what_is_recorded(native: Native) -> None:
    out = io.StringIO()
    trace = dlltracer.Trace(collect=True, out=out)
    with trace as events:
        load(native.tiny())
        with pytest.raises(OSError):
            load(native.broken())
        load(native.tiny())
    assert trace.recording is not None and events
    shown = [one for one in trace.recording.events if not isinstance(one, dlltracer.UnloadEvent)]
    assert events == shown and out.getvalue().splitlines() == [str(one) for one in shown]


def test_not_live_delivers_at_the_end(native: Native) -> None:
    path, out = native.tiny(), io.StringIO()
    with dlltracer.Trace(collect=True, out=out, live=False) as events:
        load(path)
        assert (events, out.getvalue()) == ([], "")
    assert named(out.getvalue(), path) == ["LoadLibrary"] and events


def test_a_slow_output_holds_up_nobody(native: Native) -> None:
    first, second, out = native.tiny(), native.tiny(), Blocked()
    with dlltracer.Trace(collect=True, out=out) as events:
        load(first)
        assert out.is_asked.wait(LONG)
        load(second)  # returns, though no line can be written
        assert out.getvalue() == ""
        out.may_write.set()
    assert named(out.getvalue(), first) == named(out.getvalue(), second) == ["LoadLibrary"]
    assert out.getvalue().splitlines() == [str(event) for event in events or ()]


def test_an_output_that_never_takes_anything_ends_with_the_trace(
    native: Native, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dlltracer.delivery.PATIENCE", 0.0)
    first, second, out = native.tiny(), native.tiny(), Blocked()
    trace = dlltracer.Trace(collect=True, out=out)
    with trace as events:
        load(first)
        assert out.is_asked.wait(LONG)
        load(second)
    out.may_write.set()
    assert trace.recording is not None
    assert [note for note in trace.recording.notes if "did not get to it" in note]
    assert "did not get to it" in capsys.readouterr().err
    collected = " ".join(map(str, events or ()))
    assert first.name in collected and second.name in collected


@linux_only
def test_events_that_do_not_fit_are_counted(
    native: Native, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dlltracer.capture.linux.decoding.MOST_WAITING", 2)
    monkeypatch.setattr("dlltracer.capture.linux.rtld.DRAIN_AT", 1)
    monkeypatch.setattr("dlltracer.capture.linux.loader_log.DRAIN_AT", 1)
    out = Blocked()
    trace = dlltracer.Trace(collect=True, out=out)
    with trace as events:
        load(native.tiny())
        assert out.is_asked.wait(LONG)
        for _ in range(6):
            load(native.tiny())
        out.may_write.set()
    assert trace.recording is not None and len(trace.recording.events) == len(events or ()) == 7
    lost = 7 - len(out.getvalue().splitlines())
    note = f"{lost} events came faster than the outputs took them, and did not get to them"
    assert lost > 0 and note in trace.recording.notes and note in capsys.readouterr().err


def test_an_output_may_load_something_itself(native: Native) -> None:
    first, second = native.tiny(), native.tiny()

    class Loading(io.StringIO):
        def write(self, text: str) -> int:
            if first.name in text:
                load(second)
            return super().write(text)

    out = Loading()
    with dlltracer.Trace(out=out):
        load(first)
    assert [line.rpartition(os.sep)[2] for line in out.getvalue().splitlines()] == [first.name, second.name]


def test_where_no_thread_can_be_started_the_loading_threads_deliver(
    native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("dlltracer.delivery.start_new_thread", refuse)
    path, out = native.tiny(), io.StringIO()
    trace = dlltracer.Trace(out=out)
    with trace:
        load(path)
        assert named(out.getvalue(), path) == ["LoadLibrary"]
    assert trace.recording is not None and any("no thread could be started" in note for note in trace.recording.notes)


def test_a_forgotten_close_delivers_at_exit(native: Native, run_python: RunPython) -> None:
    path = native.tiny()
    done = run_python(
        """
        import ctypes, sys, dlltracer
        dlltracer.Trace(out=sys.stdout).start()
        ctypes.CDLL(sys.argv[1])
        """,
        path,
    )
    assert done.returncode == 0 and done.stderr == "" and named(done.stdout, path) == ["LoadLibrary"]


@linux_only
@pytest.mark.parametrize("backend", ["rtld", "snapshot"])
@pytest.mark.parametrize(("ending", "status"), [("pass", 0), ("sys.exit(3)", 3), ("raise ValueError", 1)])
def test_an_interpreter_that_exits_delivers_what_a_forgotten_trace_has(
    ending: str, status: int, backend: str, native: Native
) -> None:
    """Exit handlers run in reverse order: of the two here, one runs before that of the trace, and one after it."""
    in_block, before, after = native.tiny(), native.tiny(), native.tiny()
    code = (
        "import atexit, ctypes, sys, dlltracer\n"
        "atexit.register(ctypes.CDLL, sys.argv[3])\n"
        f"dlltracer.Trace(out=sys.stdout, backend={backend!r}).start()\n"
        "atexit.register(ctypes.CDLL, sys.argv[2])\n"
        f"ctypes.CDLL(sys.argv[1])\n{ending}\n"
    )
    command = [sys.executable, "-c", code, str(in_block), str(before), str(after)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=False)
    assert done.returncode == status
    shown = [line for line in done.stdout.splitlines() if "tiny" in line.lower()]
    assert shown == [f"LoadLibrary {path}" for path in (in_block, before, after)], done.stderr


def test_interrupts_of_a_hook_come_at_the_end(native: Native, run_python: RunPython) -> None:
    done = run_python(
        """
        import ctypes, sys, dlltracer
        def hook(name, args):
            if name == "dlltracer.load":
                raise KeyboardInterrupt
        sys.addaudithook(hook)
        try:
            with dlltracer.Trace(audit=True):
                ctypes.CDLL(sys.argv[1])
                print("the block goes on")
        except KeyboardInterrupt:
            print("interrupted")
        """,
        native.tiny(),
    )
    assert done.stdout.splitlines() == ["the block goes on", "interrupted"], done.stderr


@linux_only
def test_a_forked_child_delivers_its_own_events(native: Native, run_python: RunPython) -> None:
    before, inside, after = native.tiny(), native.tiny(), native.tiny()
    done = run_python(
        """
        import ctypes, os, sys, warnings, dlltracer
        warnings.simplefilter("error")
        with dlltracer.Trace(collect=True, out=sys.stdout) as events:
            ctypes.CDLL(sys.argv[1])
            pid = os.fork()
            if pid == 0:
                ctypes.CDLL(sys.argv[2])
                assert [event.path for event in events] == [sys.argv[2]], events
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            ctypes.CDLL(sys.argv[3])
        assert [event.path for event in events] == [sys.argv[1], sys.argv[3]], events
        """,
        before, inside, after,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines() == [f"LoadLibrary {path}" for path in (before, inside, after)]


@linux_only
def test_a_trace_without_outputs_has_no_thread(native: Native) -> None:
    def tasks() -> set[str]:
        return set(os.listdir("/proc/self/task"))

    before = tasks()  # a thread of an earlier test may still end: its join returns before the kernel removes the task
    with dlltracer.Trace() as events:
        load(native.tiny())
        assert events is None and tasks() <= before


@linux_only
def test_its_own_imports_hide_no_load_of_the_program(run_python: RunPython) -> None:
    done = run_python(
        """
        import sys, dlltracer
        with dlltracer.Trace(out=sys.stdout):
            import dataclasses, datetime, uuid
        """
    )
    shown = {line.rpartition("/")[2].partition(".")[0] for line in done.stdout.splitlines()}
    code = (
        "import dataclasses, datetime, uuid, sys\n"
        "print(*(n for n, m in sys.modules.items() if str(getattr(m, '__file__', '')).endswith('.so')))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ctypes_needs = {"_ctypes", "_struct"}  # without it there is no trace
    assert set(there) - ctypes_needs <= shown, done.stderr
