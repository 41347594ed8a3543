"""Finding 6 of the desk check: programs that start Python as another process, under our debugger.

The launchers are real ones: those of distlib (pip's), and of setuptools (as conda's entry points).
"""

from __future__ import annotations

import io
import json
import shutil
import sysconfig
import zipfile
from pathlib import Path

import pytest

from windows.lab import PYTHONS, Lab, windows_path
from windows.test_debugged_command_under_wine import DRIVER, loaded

VERSION = max(PYTHONS)

SCRIPT = """
import subprocess, sys
import bz2
code = "import ctypes; f = ctypes.c_int32(); ctypes.windll.kernel32.CheckRemoteDebuggerPresent("
code += "ctypes.c_void_p(-1), ctypes.byref(f)); import ssl; print('debugged', f.value)"
print(sys.argv[1:], flush=True)
sys.exit(subprocess.run([sys.executable, "-c", code]).returncode + 7)
"""


DISTLIB = {"win32": "t32.exe", "win-arm64": "t64-arm.exe"}.get(sysconfig.get_platform(), "t64.exe")


@pytest.fixture(scope="module")
def launchers(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an entry point of each kind that there is here, and a py.exe."""
    folder = tmp_path_factory.mktemp("launchers")
    python = lab.python_dir(VERSION)
    packages = python / "Lib" / "site-packages"
    if not (packages / "pip" / "_vendor" / "distlib" / DISTLIB).exists():
        pytest.skip(f"pip has no launcher here ({DISTLIB})")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("__main__.py", SCRIPT)
    launcher = (packages / "pip" / "_vendor" / "distlib" / DISTLIB).read_bytes()
    shebang = f"#!{windows_path(python / 'python.exe')}\n".encode()
    (folder / "entry.exe").write_bytes(launcher + shebang + archive.getvalue())
    if DISTLIB == "t64.exe" and (packages / "setuptools" / "cli-64.exe").exists():
        shutil.copy(packages / "setuptools" / "cli-64.exe", folder / "older.exe")
        (folder / "older-script.py").write_bytes(shebang + SCRIPT.encode())
    shutil.copy(folder / "entry.exe", folder / "py.exe")  # whose name is all that tells
    return folder


def test_finding_6_the_python_behind_a_launcher_is_the_one_reported(
    lab: Lab, paths: dict[str, str], launchers: Path, tmp_path: Path
) -> None:
    kinds = sorted(path.stem for path in launchers.glob("*.exe"))
    assert len(kinds) >= 2
    runs = [[[windows_path(launchers / f"{name}.exe"), "x y"], {}] for name in kinds]
    runs.append([[windows_path(launchers / "entry.exe"), "z"], {"follow": True}])
    result = tmp_path / "result.json"
    done = lab.run(VERSION, ["-c", DRIVER, result, json.dumps(runs)], env=paths, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    *alone, followed = json.loads(result.read_text())
    assert done.stdout.splitlines() == [*["['x y']", "debugged 0"] * len(kinds), "['z']", "debugged 1"]
    for run, name in zip(alone, kinds, strict=True):
        assert run["status"] == 7, name
        names = loaded(run)
        assert names[0] == "python.exe" and "_bz2.pyd" in names and "_ssl.pyd" not in names, name
        assert {event["pid"] for event in run["events"]} == {run["pid"]}
        assert run["notes"] == [f"{name}.exe starts Python as another process, and that one is shown"]
    launcher, python, child = followed["processes"]
    assert (launcher["status"], python["parent"], child["parent"]) == (7, launcher["pid"], python["pid"])
    assert "_ssl.pyd" in loaded(followed, child["pid"])


def test_finding_6_a_recording_holds_the_python_only(
    lab: Lab, paths: dict[str, str], launchers: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "x.dlltrace"
    words = ["-m", "dlltracer", "run", "-o", trace, "--", launchers / "entry.exe", "x"]
    done = lab.run(VERSION, words, env=paths, timeout=120)
    assert done.returncode == 7, done.stdout + done.stderr
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    text = json.dumps(lines).lower()
    assert "_bz2.pyd" in text and "_ssl.pyd" not in text
    assert "entry.exe" in text, "the note names it"
