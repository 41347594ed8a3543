"""What only Wine 10 shows: C++ exceptions under our debugger, `_wmi`, and programs of 32 bits.

On demand: DLLTRACER_LAB=wine10 (see tests/windows/lab.py), which runs all other tests under Wine 10 as well.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from windows.conftest import ROOT
from windows.lab import PYTHON32, Lab, windows_path
from windows.test_debugged_command_under_wine import DRIVER, loaded

VERSION = "3.13"


@pytest.fixture(scope="module")
def lab10(lab: Lab) -> Lab:
    if lab.kind != "wine10":
        pytest.skip("Wine 10 is tried on demand: DLLTRACER_LAB=wine10")
    return lab


def dlltracer(lab: Lab, version: str, *words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    folders = ";".join(map(windows_path, (ROOT / "src", lab.site)))
    done = lab.run(version, ["-m", "dlltracer", *words], env={"PYTHONPATH": folders}, timeout=200)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def test_wmi_under_our_debugger(lab10: Lab) -> None:
    """In Wine 8 it kills the process. Its exceptions are C++ ones, which the program handles itself."""
    code = "import _wmi; print(_wmi.exec_query('SELECT Version FROM Win32_OperatingSystem'))"
    done = dlltracer(lab10, VERSION, "run", "--backend", "debugger", "-c", code)
    assert "Version=10" in done.stdout
    assert "_wmi.pyd" in done.stderr and "crashed" not in done.stderr


THROWS = """
import ctypes
kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
handled = []
@ctypes.WINFUNCTYPE(ctypes.c_long, ctypes.c_void_p)
def handle(pointers):
    record = ctypes.c_void_p.from_address(pointers).value
    code = ctypes.c_uint32.from_address(record).value
    if code == 0xE06D7363:
        handled.append(code)
        return -1  # EXCEPTION_CONTINUE_EXECUTION
    return 0
kernel32.AddVectoredExceptionHandler.argtypes = (ctypes.c_ulong, ctypes.c_void_p)
kernel32.AddVectoredExceptionHandler(1, ctypes.cast(handle, ctypes.c_void_p))
for _ in range(3):
    kernel32.RaiseException(0xE06D7363, 0, 0, None)
import bz2
print("handled", len(handled))
"""


@pytest.mark.parametrize("version", [VERSION, PYTHON32])
def test_a_cpp_exception_that_is_handled_goes_on(lab10: Lab, tmp_path: Path, version: str) -> None:
    script = tmp_path / "throws.py"
    script.write_text(THROWS)
    done = dlltracer(lab10, version, "run", "--backend", "debugger", script)
    assert done.stdout.split() == ["handled", "3"]
    assert "_bz2.pyd" in done.stderr and "crashed" not in done.stderr


def test_32_bits_run(lab10: Lab) -> None:
    code = "import struct, ssl; print(struct.calcsize('P'))"
    done = dlltracer(lab10, PYTHON32, "run", "--backend", "debugger", "-c", code)
    assert done.stdout.split() == ["4"]
    assert "_ssl.pyd" in done.stderr and "libcrypto-3.dll" in done.stderr


@pytest.mark.parametrize("version", [VERSION, PYTHON32])
def test_etw_is_refused(lab10: Lab, version: str) -> None:
    """OpenTraceW of Wine fails, and says so with a number of 32 bits to a process of 32 bits, as Windows does."""
    code = "import dlltracer\ntry: dlltracer.Trace().start()\nexcept PermissionError as error: print(error.winerror)"
    done = lab10.run(version, ["-c", code], env={"PYTHONPATH": windows_path(ROOT / "src")})
    assert done.stdout.split() == ["5"], done.stdout + done.stderr


def test_32_bits_why(lab10: Lab, tmp_path: Path) -> None:
    """The dependency is missing, in a Python of 32 bits."""
    python = lab10.python_dir(PYTHON32)
    for name in ("_ssl.pyd", "libssl-3.dll"):
        (tmp_path / name).write_bytes((python / "DLLs" / name).read_bytes())
    code = f"import sys; sys.path.insert(0, {windows_path(tmp_path)!r}); import _ssl"
    done = dlltracer(lab10, PYTHON32, "why", "--no-try", "-c", code, status=1)
    assert "libcrypto-3.dll" in done.stdout.splitlines()[0]


def test_32_bits_resolver(lab10: Lab) -> None:
    """System32 is SysWOW64 there, for a dlltracer of either width, and what is resolved is what is loaded."""
    file = lab10.python_dir(PYTHON32) / "DLLs" / "_ssl.pyd"
    for version in (PYTHON32, VERSION):
        done = dlltracer(lab10, version, "deps", file)
        text = done.stdout.lower()
        assert "c:\\windows\\syswow64\\crypt32.dll" in text and "system32\\crypt32.dll" not in text, version
        assert "nothing missing" in text, version


def test_32_bits_cannot_see_64(lab10: Lab) -> None:
    python = windows_path(lab10.python_dir(VERSION) / "python.exe")
    done = dlltracer(lab10, PYTHON32, "run", "--backend", "debugger", "--", python, "-c", "import bz2; print('ran')")
    assert done.stdout.split() == ["ran"]
    assert "it has 64 bits: a Python of 32 bits cannot see what it loads" in done.stderr


@pytest.mark.parametrize(("parent", "child"), [(VERSION, PYTHON32), (PYTHON32, VERSION)])
def test_a_followed_child_of_the_other_width(
    lab10: Lab, paths: dict[str, str], tmp_path: Path, parent: str, child: str
) -> None:
    python = windows_path(lab10.python_dir(child) / "python.exe")
    code = f"import subprocess, bz2; print(subprocess.run([{python!r}, '-c', 'import ssl; print(7)']).returncode)"
    result = tmp_path / "result.json"
    runs = json.dumps([[["-c", code], {"follow": True}]])
    done = lab10.run(parent, ["-c", DRIVER, result, runs], env=paths, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == ["7", "0"]
    (run,) = json.loads(result.read_text())
    first, second = run["processes"]
    assert (first["status"], second["status"], second["parent"]) == (0, 0, first["pid"])
    assert "_bz2.pyd" in loaded(run, first["pid"])
    if child == PYTHON32:
        assert {"python.exe", "_ssl.pyd"} <= set(loaded(run, second["pid"]))
        assert run["notes"] == []
    else:
        (note,) = run["notes"]
        assert note.startswith(f"process {second['pid']}: it has 64 bits")
