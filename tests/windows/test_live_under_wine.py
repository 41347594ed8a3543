"""Events are delivered while the block runs, and what came before a crash stays: CPython for Windows under Wine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from contract import native
from windows.lab import PYTHONS, Lab, windows_path

pytestmark = pytest.mark.slow

VERSION = max(PYTHONS)

CRASHES = {
    "_exit": ("os._exit(3)", 3),
    "access violation": ("faulthandler._read_null()", 0xC0000005),
    "abort": ("os.abort()", 3),
    "raised SIGSEGV": ("signal.raise_signal(signal.SIGSEGV)", None),
    "TerminateProcess": ("os.kill(os.getpid(), 9)", 9),
}  # fmt: skip

CRASH = """
import ctypes, faulthandler, os, signal, sys, dlltracer
dlltracer.Trace(out=sys.stdout, backend=sys.argv[1]).start()
ctypes.CDLL(sys.argv[2])
try:
    ctypes.CDLL(sys.argv[3])
except OSError:
    pass
ctypes.CDLL(sys.argv[4])
sys.path.insert(0, os.path.dirname(sys.argv[2]))
try:
    import refusingmod
except ImportError:
    pass
"""

DEBUG = """
import ctypes, io, json, os, sys, threading, dlltracer
answers = {}
for backend in ("etw", "etw+loader", "debugger"):
    class Out(io.StringIO):
        def write(self, text):
            if os.path.basename(path) in text:
                has_come.set()
            return super().write(text)
    has_come, out = threading.Event(), Out()
    path = sys.argv[1 + len(answers)]
    with dlltracer.Trace(collect=True, out=out, backend=backend, debug=True) as events:
        ctypes.CDLL(path)
        came, count = has_come.wait(60), len(events)
    other_kinds = sum(type(event).__name__ != "DebugEvent" for event in events)
    own_loads = sum("_uuid" in str(event) and event.opcode == 10 for event in events)
    answers[backend] = [came, count > 0, other_kinds, own_loads]
print(json.dumps(answers))
"""

FORGOTTEN = """
import os, sys, dlltracer
dlltracer.Trace(out=sys.stdout, backend=sys.argv[1]).start()
sys.path.insert(0, os.path.dirname(sys.argv[2]))
try:
    import refusingmod
except ImportError as error:
    kept = error
"""

BY_ITSELF = """
import ctypes, io, sys, threading, dlltracer
class Out(io.StringIO):
    def write(self, text):
        if "first" in text:
            has_come.set()
        return super().write(text)
has_come, out = threading.Event(), Out()
load = ctypes.windll.kernel32.LoadLibraryW
load.argtypes, load.restype = (ctypes.c_wchar_p,), ctypes.c_void_p
with dlltracer.Trace(collect=True, out=out, backend=sys.argv[1]) as events:
    assert load(sys.argv[2])  # no request of Python
    assert has_come.wait(60)
    print(str(events[-1]).rpartition("\\\\")[2])
print(out.getvalue().splitlines() == [str(event) for event in events])
"""


@pytest.fixture(scope="module")
def files(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two DLLs that load, and between them one that does not; the folder has that one as a module, too."""
    folder = tmp_path_factory.mktemp("native")
    refusing = (
        "#include <windows.h>\n"
        "BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *how)\n"
        "{ (void)self; (void)how; return reason != DLL_PROCESS_ATTACH; }\n"
    )
    files = [
        lab.build_dll("first", native.TINY, folder), lab.build_dll("refusing", refusing, folder),
        lab.build_dll("last", native.TINY, folder),
    ]  # fmt: skip
    shutil.copy(files[1], folder / "refusingmod.pyd")
    return files


@pytest.mark.parametrize("backend", ["etw", "debugger"])
@pytest.mark.parametrize("how", CRASHES)
def test_the_last_load_before_a_crash_stands_in_out(
    how: str, backend: str, lab: Lab, files: list[Path], simulated: dict[str, str], paths: dict[str, str]
) -> None:
    code, status = CRASHES[how]
    env = simulated if backend == "etw" else paths
    arguments = [backend, *map(windows_path, files)]
    done = lab.run(VERSION, ["-c", f"{CRASH}\n{code}\n", *arguments], env=env)
    # Wine's debugger ends a process that has crashed with 0, if it gets at it before that has ended by itself.
    is_ended_by_wine = done.returncode == 0 and "starting debugger" in done.stderr
    assert status is None or is_ended_by_wine or done.returncode & 0xFF == status & 0xFF, done.stderr
    shown = [(line.split()[0], line.rpartition("\\")[2].lower()) for line in done.stdout.splitlines()]
    expected = [
        ("LoadLibrary", "first.dll"), ("LoadLibrary", "refusing.dll"), ("Failed", "refusing.dll"),
        ("LoadLibrary", "last.dll"), ("LoadLibrary", "refusingmod.pyd"), ("Failed", "refusingmod.pyd"),
    ]  # fmt: skip
    assert [one for one in shown if one in expected] == expected, done.stdout + done.stderr


@pytest.mark.parametrize("backend", ["etw", "debugger"])
def test_a_load_that_python_did_not_ask_for_is_read_by_itself(
    backend: str, lab: Lab, files: list[Path], simulated: dict[str, str], paths: dict[str, str]
) -> None:
    env = simulated if backend == "etw" else paths
    done = lab.run(VERSION, ["-c", BY_ITSELF, backend, windows_path(files[0])], env=env)
    assert done.stdout.split() == ["first.dll", "True"], done.stdout + done.stderr


def test_raw_events_are_delivered_while_the_block_runs(
    lab: Lab, files: list[Path], simulated: dict[str, str], tmp_path: Path
) -> None:
    copies = [Path(shutil.copy(files[0], tmp_path / f"copy{number}.dll")) for number in range(3)]
    done = lab.run(VERSION, ["-c", DEBUG, *map(windows_path, copies)], env=simulated)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = json.loads(done.stdout)
    assert set(answers) == {"etw", "etw+loader", "debugger"}
    for backend, (came, was_collected, other_kinds, own_loads) in answers.items():
        assert (came, was_collected, other_kinds, own_loads) == (True, True, 0, 0), backend


@pytest.mark.parametrize("backend", ["etw", "debugger"])
def test_a_forgotten_close_delivers_failures_at_exit(
    backend: str, lab: Lab, files: list[Path], simulated: dict[str, str], paths: dict[str, str]
) -> None:
    env = simulated if backend == "etw" else paths
    done = lab.run(VERSION, ["-c", FORGOTTEN, backend, windows_path(files[0])], env=env)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    shown = [(line.split()[0], line.rpartition("\\")[2].lower()) for line in done.stdout.splitlines()]
    assert shown == [("LoadLibrary", "refusingmod.pyd"), ("Failed", "refusingmod.pyd")]
