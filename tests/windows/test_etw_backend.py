"""The ETW backend under Wine against the simulator: what goes wrong, and what must not be left behind."""

from __future__ import annotations

import textwrap

import pytest

from windows.lab import Lab

PRELUDE = '''
import ctypes, os, shutil, subprocess, sys, tempfile, time, _thread
import dlltracer
from dlltracer.capture.windows.etw import bindings, session
from dlltracer.capture.windows.etw.backend import EtwBackend

sim = ctypes.CDLL(os.environ["DLLTRACER_TEST_ETW"])
STOP_ALL = """
from dlltracer.capture.windows.etw import bindings, session
etw = bindings.Etw()
for name in session.session_names(etw):
    session.stop_by_name(etw, name)
"""
TAKE_KERNEL_LOGGER_AND_DIE = """
import os
from dlltracer.capture.windows.etw.backend import EtwBackend
EtwBackend(kernel_logger=True).start()
os._exit(9)
"""
START, OPEN, PROCESS, CONTROL, CLOSE, QUERY_ALL = 1, 2, 3, 4, 5, 8
folder = tempfile.mkdtemp()
originals = iter(range(1000))

def dll():
    # Any small DLL under a new name: ctypes' own test helper is always there.
    source = os.path.join(os.path.dirname(sys.executable), "DLLs", "libffi-8.dll")
    return shutil.copy(source, os.path.join(folder, f"copy{next(originals)}.dll"))

def traced(trace, path):
    with trace as events:
        ctypes.CDLL(path)
    return [e for e in events if e.shown_path.lower() == path.lower()]

def nothing_left():
    counts = sim.sim_session_count(), sim.sim_thread_count(), sim.sim_provider_count(), _thread._count()
    return counts == (0, 0, 0, 0)
'''


def run(lab: Lab, version: str, env: dict[str, str], code: str, **more: str) -> str:
    result = lab.run(version, ["-c", PRELUDE + textwrap.dedent(code)], env={**env, **more}, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_a_failed_start_leaves_nothing_behind(lab: Lab, version: str, simulated: dict[str, str]) -> None:
    out = run(
        lab, version, simulated,
        """
        for call, code in ((START, 1450), (START, 5), (START, 24), (OPEN, 5), (OPEN, 161)):
            sim.sim_fail_next(call, code)
            try:
                dlltracer.Trace().start()
            except OSError as error:
                print(type(error).__name__, error.winerror, isinstance(error, PermissionError), nothing_left())
            sim.sim_fail_next(call, 0)
        sim.sim_set_admin(0)
        try:
            dlltracer.Trace().start()
        except PermissionError as error:
            print("Administrator" in str(error), nothing_left())
        sim.sim_set_admin(1)
        def no_thread(*arguments):
            raise RuntimeError("can't start new thread")
        session.start_new_thread, kept = no_thread, session.start_new_thread
        try:
            dlltracer.Trace().start()
        except RuntimeError as error:
            print(error, nothing_left())
        session.start_new_thread = kept
        print(len(traced(dlltracer.Trace(collect=True), dll())), nothing_left())
        """,
    )  # fmt: skip
    assert out.splitlines() == [
        "TraceStartError 1450 False True",
        "TracePermissionError 5 True True",
        "TraceStartError 24 False True",
        "TracePermissionError 5 True True",
        "TraceStartError 161 False True",
        "True True",
        "can't start new thread True",
        "1 True",
    ]


def test_what_was_lost_is_reported(lab: Lab, version: str, simulated: dict[str, str]) -> None:
    out = run(
        lab, version, simulated,
        """
        trace = dlltracer.Trace(collect=True)
        with trace:
            sim.sim_set_lost(17, 2)
            sim.sim_set_log_lost(3)
        print(trace.recording.losses)
        sim.sim_set_lost(0, 0); sim.sim_set_log_lost(0)
        trace = dlltracer.Trace(collect=True)
        with trace:
            subprocess.run([sys.executable, "-c", STOP_ALL], check=True)
            ctypes.CDLL(dll())
        print(*trace.recording.notes, sep="\\n")
        image = bytes.fromhex("1d5db12cc15fd211abe100a0c911f518")
        trace = dlltracer.Trace(collect=True)
        with trace as events:
            sim.sim_inject(image, 3, 10, 0x40, os.getpid(), 1, b"\\x01" * 9, 9)
        print(events, trace.recording.losses)
        """,
    )  # fmt: skip
    first, *notes, last = out.splitlines()
    assert first == "Losses(events=17, buffers=5, undecodable=0)"
    assert any("another program stopped the session" in note for note in notes), out
    assert last == "[] Losses(events=0, buffers=0, undecodable=1)"


def test_the_session_of_a_killed_process_is_stopped_at_the_next_start(
    lab: Lab, version: str, simulated: dict[str, str]
) -> None:
    out = run(
        lab, version, simulated,
        """
        code = "import dlltracer, os; dlltracer.Trace().start(); os._exit(9)"
        subprocess.run([sys.executable, "-c", code])
        print(sim.sim_session_count())
        with dlltracer.Trace():   # a living trace of this process is not taken for a dead one
            trace = dlltracer.Trace()
            with trace:
                print(sim.sim_session_count())
        print(*trace.recording.notes, sep="\\n")
        trace = dlltracer.Trace()
        with trace:
            pass
        print(len(trace.recording.notes), nothing_left())
        """,
    )  # fmt: skip
    assert out.splitlines() == ["1", "2", "session: private system logger", "1 True"]


def test_the_reaper_says_what_it_stopped(lab: Lab, version: str, simulated: dict[str, str]) -> None:
    out = run(
        lab, version, simulated,
        """
        subprocess.run([sys.executable, "-c", "import dlltracer, os; dlltracer.Trace().start(); os._exit(9)"])
        trace = dlltracer.Trace()
        with trace:
            print(sim.sim_session_count())
        print(trace.recording.notes[0])
        """,
    )  # fmt: skip
    count, note = out.splitlines()
    assert count == "1"
    assert note.startswith("stopped the session dlltracer-") and "left behind by a process that was killed" in note


def test_the_nt_kernel_logger(lab: Lab, version: str, simulated: dict[str, str]) -> None:
    out = run(
        lab, version, simulated,
        """
        subprocess.run([sys.executable, "-c", TAKE_KERNEL_LOGGER_AND_DIE])
        sim.sim_set_private_sessions(0)
        try:
            dlltracer.Trace().start()
        except dlltracer.TraceStartError as error:
            print(error.winerror, sim.sim_session_count())
        session.stop_by_name(bindings.Etw(), bindings.KERNEL_LOGGER_NAMEW)
        with dlltracer.Trace(backend=EtwBackend(kernel_logger=True)):
            try:
                dlltracer.Trace(backend=EtwBackend(kernel_logger=True)).start()
            except OSError as error:
                print(error)
        sim.sim_set_private_sessions(1)
        subprocess.run([sys.executable, "-c", TAKE_KERNEL_LOGGER_AND_DIE])
        trace = dlltracer.Trace(collect=True, backend=EtwBackend(kernel_logger=True))
        print(len(traced(trace, dll())), trace.recording.notes)
        print(nothing_left())
        """,
    )  # fmt: skip
    lines = out.splitlines()
    assert lines[0] == "87 1", "the session of another program was stopped by an error that nobody answered for"
    assert "another trace of this process holds the NT Kernel Logger" in lines[1]
    assert lines[2] == "1 ('session: NT Kernel Logger, taken from whoever held it: their trace was stopped',)"
    assert lines[3] == "True"


@pytest.mark.parametrize("payload", ["2", "3"])
def test_both_versions_of_the_payload(lab: Lab, version: str, simulated: dict[str, str], payload: str) -> None:
    out = run(
        lab, version, simulated,
        f"""
        sim.sim_set_version({payload})
        sim.sim_set_noise(500)
        path = dll()
        trace = dlltracer.Trace(collect=True, unloads=True)
        with trace as events:
            library = ctypes.CDLL(path)
            import _ctypes
            _ctypes.FreeLibrary(library._handle)
        print([type(e).__name__ for e in events], {{e.pid for e in events}} == {{os.getpid()}})
        print(len({{e.base for e in events}}))
        print(abs(events[0].timestamp - time.time()) < 600, trace.recording.losses)
        """,
    )  # fmt: skip
    assert out.splitlines() == [
        "['LoadEvent', 'UnloadEvent'] True",
        "1",
        "True Losses(events=0, buffers=0, undecodable=0)",
    ]


SAY = """
from dlltracer.capture.windows.etw.loader_messages import USER_LOADER
from builders import loader_messages as b
IMAGES = bytes.fromhex("1d5db12cc15fd211abe100a0c911f518")
def say(provider, kind, data, pid=None):
    number, opcode = (kind, 0) if provider == USER_LOADER else (0, kind)
    return sim.sim_say(provider, number, 3, opcode, pid or os.getpid(), _thread.get_native_id(), data, len(data))
"""


def test_the_loader_itself_names_what_is_missing(lab: Lab, version: str, simulated: dict[str, str]) -> None:
    out = run(
        lab, version, simulated,
        SAY + textwrap.dedent("""
        path = dll()
        trace = dlltracer.Trace(collect=True, backend="etw+loader")
        with trace as events:
            print(sim.sim_session_count())
            ctypes.CDLL(path)
            say(IMAGES, b.SEARCH_PATH, b.coded("search", folder + ";C:\\\\windows"))
            print(say(IMAGES, b.SNAPS, b.snap("lost.dll", path)))
            say(USER_LOADER, 3, b.failure("lost.dll"))
            say(USER_LOADER, 3, b.failure("another.dll"), pid=4)
            say(IMAGES, b.SNAPS, b"\1" * 3)
        print([type(e).__name__ for e in events if e.path == "lost.dll" or e.shown_path.lower() == path.lower()])
        lost = [e for e in events if e.path == "lost.dll"][0]
        print(lost.kind.value, lost.pid == os.getpid(), lost.requested_by in [e.path for e in events])
        print([probe.path.lower().endswith("lost.dll") for probe in lost.probes], len(trace.recording.failures))
        print(trace.recording.backend, trace.recording.losses, trace.recording.notes)
        print(nothing_left())
        """),
    )  # fmt: skip
    assert out.splitlines() == [
        "2",
        "1",
        "['LoadEvent', 'LoadFailedEvent']",
        "not found True True",
        "[True, True] 1",
        "etw+loader Losses(events=0, buffers=0, undecodable=1) ('session: private system logger',)",
        "True",
    ]


def test_a_listener_that_fails_costs_nothing_else(lab: Lab, version: str, simulated: dict[str, str]) -> None:
    out = run(
        lab, version, simulated,
        SAY + textwrap.dedent("""
        from dlltracer.capture.windows.etw.backend import EtwBackend
        real = session.RunningSession._start
        def one_refusal(code):
            def start(self, guid, mode, flags):
                if not flags:
                    sim.sim_fail_next(START, code)
                return real(self, guid, mode, flags)
            return start
        for code in (5, 1450):
            session.RunningSession._start = one_refusal(code)
            trace = dlltracer.Trace(collect=True, backend="etw+loader")
            print(len(traced(trace, dll())), trace.recording.notes[-1][:60], nothing_left())
        session.RunningSession._start = real
        sim.sim_fail_next(6, 87)
        trace = dlltracer.Trace(collect=True, backend=EtwBackend(loader_events=True))
        print(len(traced(trace, dll())), *trace.recording.notes[1:], nothing_left(), sep="\\n")
        trace = dlltracer.Trace(collect=True, backend="etw+loader")
        with trace:
            sim.sim_set_lost(3, 1)
        print(trace.recording.losses)
        def no_thread(*arguments):
            if sim.sim_session_count() == 2:
                raise RuntimeError("can't start new thread")
            return kept(*arguments)
        session.start_new_thread, kept = no_thread, session.start_new_thread
        trace = dlltracer.Trace(collect=True, backend="etw+loader")
        print(len(traced(trace, dll())), trace.recording.notes[-1], nothing_left())
        class Stop(BaseException): pass
        def interrupted(*arguments):
            if sim.sim_session_count() == 2:
                raise Stop
            return kept(*arguments)
        session.start_new_thread = interrupted
        try:
            dlltracer.Trace(backend="etw+loader").start()
        except Stop:
            print("interrupted", nothing_left())
        """),
    )  # fmt: skip
    refused = "the loader itself was not listened to: StartTrace "
    lines = out.splitlines()
    assert [line.startswith(f"1 {refused}") and line.endswith("True") for line in lines[:2]] == [True, True], out
    assert lines[2:] == [
        "1",
        "listening to the loader: Windows refused a provider (EnableTraceEx2, error 87)",
        lines[4],
        "True",
        "Losses(events=6, buffers=2, undecodable=0)",
        "1 the loader itself was not listened to: can't start new thread True",
        "interrupted True",
    ]
    assert lines[4].startswith("the loader itself wrote no events: ")


def test_what_the_loader_says_as_it_came(lab: Lab, version: str, simulated: dict[str, str]) -> None:
    out = run(
        lab, version, simulated,
        SAY + textwrap.dedent("""
        trace = dlltracer.Trace(collect=True, debug=True, backend="etw+loader")
        with trace as events:
            say(USER_LOADER, 3, b.failure("lost.dll"))
            say(IMAGES, 200, b"whatever it is")
        print([(str(e.provider)[:8], e.opcode, e.header[0]) for e in events if e.opcode in (0, 200)], nothing_left())
        """),
    )  # fmt: skip
    assert out.splitlines() == ["[('b059b83f', 0, 3), ('2cb15d1d', 200, 0)] True"]
