"""Events are delivered while the block runs, and what came before a crash stays: CPython for Windows under Wine."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract import native
from windows.lab import PYTHONS, Lab, windows_path

pytestmark = pytest.mark.slow

VERSION = max(PYTHONS)

CRASHES = {"_exit": ("os._exit(3)", 3), "access violation": ("faulthandler._read_null()", 0xC0000005)}

CRASH = """
import ctypes, faulthandler, os, sys, dlltracer
dlltracer.Trace(out=sys.stdout, backend=sys.argv[1]).start()
ctypes.CDLL(sys.argv[2])
try:
    ctypes.CDLL(sys.argv[3])
except OSError:
    pass
ctypes.CDLL(sys.argv[4])
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
    """Two DLLs that load, and between them one that does not."""
    folder = tmp_path_factory.mktemp("native")
    refusing = (
        "#include <windows.h>\n"
        "BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *how)\n"
        "{ (void)self; (void)how; return reason != DLL_PROCESS_ATTACH; }\n"
    )
    return [
        lab.build_dll("first", native.TINY, folder), lab.build_dll("refusing", refusing, folder),
        lab.build_dll("last", native.TINY, folder),
    ]  # fmt: skip


@pytest.mark.parametrize("backend", ["etw", "debugger"])
@pytest.mark.parametrize("how", CRASHES)
def test_the_last_load_before_a_crash_stands_in_out(
    how: str, backend: str, lab: Lab, files: list[Path], simulated: dict[str, str], paths: dict[str, str]
) -> None:
    code, status = CRASHES[how]
    env = simulated if backend == "etw" else paths
    arguments = [backend, *map(windows_path, files)]
    done = lab.run(VERSION, ["-c", f"{CRASH}\n{code}\n", *arguments], env=env)
    assert done.returncode & 0xFF == status & 0xFF, done.stderr
    shown = [(line.split()[0], line.rpartition("\\")[2].lower()) for line in done.stdout.splitlines()]
    expected = [
        ("LoadLibrary", "first.dll"), ("LoadLibrary", "refusing.dll"), ("Failed", "refusing.dll"),
        ("LoadLibrary", "last.dll"),
    ]  # fmt: skip
    assert [one for one in shown if one in expected] == expected, done.stdout + done.stderr


@pytest.mark.parametrize("backend", ["etw", "debugger"])
def test_a_load_that_python_did_not_ask_for_is_read_by_itself(
    backend: str, lab: Lab, files: list[Path], simulated: dict[str, str], paths: dict[str, str]
) -> None:
    env = simulated if backend == "etw" else paths
    done = lab.run(VERSION, ["-c", BY_ITSELF, backend, windows_path(files[0])], env=env)
    assert done.stdout.split() == ["first.dll", "True"], done.stdout + done.stderr
