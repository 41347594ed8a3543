"""Programs that `dlltracer` starts as their debugger, with what they start: under Wine, on CPython for Windows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from dlltracer.host.recording_files import read_trace_file
from dlltracer.model.events import LoadEvent
from windows.fixtures import dependency_source, python_without
from windows.lab import PYTHONS, Lab, windows_path
from windows.test_debugger_under_wine import CRASHING_MODULE

DRIVER = """
import dataclasses, json, sys
from dlltracer.cli.run_debugged import run_debugged_command, run_on_windows
from dlltracer.cli.program import Program, ProgramKind

runs = []
for words, options in json.loads(sys.argv[2]):
    if words[0] == "-c":
        ending = run_on_windows(Program(ProgramKind.CODE, words[1], tuple(words[2:])), "debugger", **options)
    else:
        ending = run_debugged_command(words, **options)
    events = [{"type": type(event).__name__, **dataclasses.asdict(event)} for event in ending.recording.events]
    recording = {**dataclasses.asdict(ending.recording), "events": events}
    crash, process = (value and dataclasses.asdict(value) for value in (ending.crash, ending.process))
    known = {"crash": crash, "process": process}
    runs.append({"status": ending.status, **known, **recording})
with open(sys.argv[1], "w") as file:
    json.dump(runs, file, default=str)
"""

PROGRAM = """
#include <stdio.h>
int good(void);
int main(void) { printf("%d\\n", good()); return 7; }
"""


@dataclass(frozen=True)
class Desk:
    """Runs commands and code, each with its options, and gives what became of them."""

    lab: Lab
    env: dict[str, str]
    native: Path
    result: Path
    version: str = max(PYTHONS)

    def run(self, *runs: tuple[list[str], dict[str, bool]]) -> tuple[list[dict], list[str]]:
        done = self.lab.run(self.version, ["-c", DRIVER, self.result, json.dumps(runs)], env=self.env)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(self.result.read_text()), done.stdout.splitlines()

    def python(self) -> str:
        return windows_path(self.lab.python_dir(self.version) / "python.exe")


@pytest.fixture(scope="module")
def native(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good.dll; program.exe, which needs it; lame.exe, which needs gone.dll; crashmod.pyd, which crashes."""
    folder = tmp_path_factory.mktemp("native")
    good = lab.build_dll("good", dependency_source("good", 42), folder)
    gone = lab.build_dll("gone", dependency_source("good", 42), folder)
    for name, library in (("program", good), ("lame", gone)):
        source = folder / f"{name}.c"
        source.write_text(PROGRAM)
        lab.compile(["-o", folder / f"{name}.exe", source, library])
    gone.unlink()
    # A dot in the name: Windows itself then looks for no other extension.
    shutil.copy2(folder / "program.exe", folder / "program.x.exe")
    lab.build_pyd(max(PYTHONS), "crashmod", CRASHING_MODULE, folder)
    return folder


@pytest.fixture
def desk(lab: Lab, paths: dict[str, str], native: Path, tmp_path: Path) -> Desk:
    env = {"PYTHONPATH": f"{windows_path(native)};{paths['PYTHONPATH']}"}
    return Desk(lab, env, native, tmp_path / "result.json")


def loaded(run: dict, pid: int | None = None) -> list[str]:
    """Base names of the images that a process loaded, all by default."""
    events = [event for event in run["events"] if event["type"] == "LoadEvent" and pid in (None, event["pid"])]
    return [event["path"].rsplit("\\", 1)[1].lower() for event in events]


def test_all_that_a_program_starts(desk: Desk) -> None:
    """Two at a time, one of them with a child that crashes; each is reported with its own events, parent, and end."""
    leaf = "import os; print('leaf', os.getpid(), os.getppid(), flush=True); import crashmod"
    middle = f"""
import os, subprocess, sys
import bz2
print("middle", os.getpid(), os.getppid(), flush=True)
if sys.argv[1] == "two words": subprocess.run([sys.executable, "-c", {leaf!r}])
sys.exit(int(sys.argv[2]))
"""
    root = f"""
import os, subprocess, sys
print("root", os.getpid(), os.getppid(), flush=True)
children = [subprocess.Popen([sys.executable, "-c", {middle!r}, *words]) for words in (["two words", "3"], ["", "4"])]
print([child.wait() for child in children], flush=True)
import ssl
"""
    (run, alone), output = desk.run((["-c", root, "x"], {"follow": True}), (["-c", root], {}))
    assert output[:5].count("[3, 4]") == output[5:].count("[3, 4]") == 1
    pids = {int(line.split()[1]): int(line.split()[2]) for line in output[:5] if "[" not in line}
    processes = run["processes"]
    assert {process["pid"]: process["parent"] for process in processes} == pids
    first = processes[0]
    assert (first["pid"], first["command"][-3:]) == (run["pid"], ["-c", root, "x"])
    assert first["started"] == min(process["started"] for process in processes)
    by_words = {tuple(process["command"][3:]): process for process in processes[1:]}
    assert {words: process["status"] for words, process in by_words.items()} == {
        ("two words", "3"): 3, ("", "4"): 4, (): 0xC0000005
    }  # fmt: skip
    for process in processes[1:]:
        assert process["program"].lower() == desk.python().lower()
        assert process["started"] < process["ended"] <= first["ended"]
        names = loaded(run, process["pid"])
        assert names[0] == "python.exe" and ("_bz2.pyd" in names) == (len(process["command"]) == 5)
        imports = {event["path"].rsplit("\\", 1)[1].lower(): event["imports"] for event in run["events"]}
        assert imports["python.exe"] == [] and imports.get("crashmod.pyd") is None, "what its start brought is known"
    crash = by_words[()]["crash"]
    assert (crash["name"], crash["image"].rsplit("\\", 1)[1]) == ("access violation", "crashmod.pyd")
    assert run["crash"] is None and first["crash"] is None
    assert "_ssl.pyd" in loaded(run, run["pid"]) and "_bz2.pyd" not in loaded(run, run["pid"])
    imports = {tuple(event["imports"] or ()) for event in run["events"] if event["path"].lower().endswith("_ssl.pyd")}
    assert imports == {("ssl", "_ssl")}
    times = [event["timestamp"] for event in run["events"]]
    assert times == sorted(times)
    assert alone["processes"] == [] and "_bz2.pyd" not in loaded(alone)


def test_what_is_left_when_the_program_ends(desk: Desk, tmp_path: Path) -> None:
    """It goes on, without a debugger."""
    left = f"""
import ctypes, sys
sys.stdin.read()
found = ctypes.c_int32()
ctypes.windll.kernel32.CheckRemoteDebuggerPresent(ctypes.c_void_p(-1), ctypes.byref(found))
with open(r"{windows_path(tmp_path / "left")}.part", "w") as file: print(found.value, file=file)
import os
os.replace(file.name, r"{windows_path(tmp_path / "left")}")
"""
    program = f"""
import os, subprocess, sys
reader, writer = os.pipe()
os.set_inheritable(writer, True)
child = subprocess.Popen([sys.executable, "-c", {left!r}], stdin=reader)
print(child.pid)
"""
    (run,), output = desk.run(([desk.python(), "-c", program], {"follow": True}))
    first, second = run["processes"]
    assert (first["status"], second["pid"], second["status"], second["ended"]) == (0, int(output[0]), None, None)
    assert run["notes"] == [f"process {second['pid']}: it was there when the program ended, and went on unseen"]
    wait = "import _winapi, sys; h = _winapi.OpenProcess(0x100000, False, int(sys.argv[1])); "
    wait += "print(_winapi.WaitForSingleObject(h, 30000))"
    desk.lab.run(desk.version, ["-c", f"try:\n exec({wait!r})\nexcept OSError: pass", output[0]])
    assert (tmp_path / "left").read_text().strip() == "0"


def test_any_program(desk: Desk) -> None:
    """Its own DLLs are reported, and one that is missing is what Windows says; it is found as a shell finds it."""
    program, lame = windows_path(desk.native / "program.exe"), windows_path(desk.native / "lame.exe")
    (run, other, dotted), output = desk.run(([program], {}), ([lame], {"follow": True}), ([program[:-4] + ".x"], {}))
    assert (run["status"], output, run["processes"], run["backend"]) == (7, ["42", "42"], [], "debugger")
    assert dotted["status"] == 7 and loaded(dotted)[0] == "program.x.exe"
    assert loaded(run)[0] == "program.exe" and "good.dll" in loaded(run)
    at_start = [event for event in run["events"] if event["imports"] == []]
    assert loaded({"events": at_start}) == loaded(run)[: len(at_start)] and "good.dll" in loaded({"events": at_start})
    assert (other["status"], other["crash"], other["processes"][0]["status"]) == (0xC0000135, None, 0xC0000135)
    status, cause = other["notes"]
    assert status == "the program ended with status 0xc0000135 (DLL not found)"
    assert cause.startswith("it could not start: gone.dll was not found (")


def test_with_and_without_the_start_of_the_interpreter(desk: Desk) -> None:
    code = "import _bz2"
    (plain, all_of_it), _ = desk.run((["-c", code], {}), (["-c", code], {"startup": True}))
    assert loaded(plain) == ["python3.dll", "_bz2.pyd"]
    assert loaded(all_of_it)[0] == "python.exe" and loaded(all_of_it)[-2:] == loaded(plain)
    assert "kernel32.dll" in loaded(all_of_it)


def test_what_the_interpreter_knew(desk: Desk) -> None:
    """What the interpreter knew is reported when the program ended by itself, also by a failure."""
    code = "import os, sys; sys.path.append('marker'); os.add_dll_directory('C:\\\\windows'); "
    runs, _ = desk.run(*((["-c", f"{code}{end}"], {}) for end in ("pass", "sys.exit(4)", "1 / 0", "os._exit(5)")))
    assert [run["status"] for run in runs] == [0, 4, 1, 5]
    assert [run["process"]["path"][-1] == "marker" for run in runs] == [True, True, True, False]
    for run in runs:
        assert run["process"]["version"][:2] == [int(part) for part in desk.version.split(".")]
        assert run["process"]["added_folders"] == ["C:\\windows"]
        assert loaded(run) == []


def test_a_crash_in_an_import_is_reported(desk: Desk) -> None:
    arguments = ["-m", "dlltracer", "run", "-c", "import bz2, crashmod"]
    done = desk.lab.run(desk.version, arguments, env=desk.env)
    report = done.stderr.splitlines()
    assert done.returncode == 0xC0000005 & 0xFF
    assert [line for line in report if "crashmod.pyd  " in line and "_bz2" not in line]
    image = windows_path(desk.native / "crashmod.pyd")
    note = f"note: the program crashed: access violation (0xc0000005) in {image} at offset 0x"
    assert [line for line in report if line.startswith(note)], done.stderr
    verdict = done.stderr[done.stderr.index("\nimport bz2, crashmod failed: ") :].split()
    (code,) = [line for line in report if line.endswith("dlltracer explain crash-in-import")]
    assert code.split()[:3] == ["likely", "·", "crash-in-import"]
    assert " ".join(verdict).startswith(
        "import bz2, crashmod failed: the process died of access violation in crashmod.pyd"
    ), done.stderr
    assert windows_path(desk.native) == report[report.index(code) + 1].split()[1], done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_recording_has_when_dlltracer_is_killed(desk: Desk, tmp_path: Path) -> None:
    """What the program had loaded until then; the program lives on."""
    path = tmp_path / "x.dlltrace"
    code = "import bz2; print('ready', flush=True); print(input() * 2)"
    words = ["-m", "dlltracer", "run", "-o", windows_path(path), "-c", code]
    command = ["wine", str(desk.lab.python_dir(desk.version) / "python.exe"), *words]
    with subprocess.Popen(
        command, env=desk.lab.environment(desk.version, desk.env), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline().split() == [b"ready"]
            process.kill()
            process.wait(30)
            output, _ = process.communicate(b"on\n", timeout=30)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert output.split() == [b"onon"]
    trace = read_trace_file(str(path))
    names = [event.path.rsplit("\\", 1)[1].lower() for event in trace.recording.events if type(event) is LoadEvent]
    assert "_bz2.pyd" in names and "python.exe" not in names, "what came before its first line is not its own"
    assert trace.recording.pid is not None and trace.run.status is None
    assert [problem for problem in trace.problems if "as they were first seen" in problem]


def test_a_python_without_ctypes_is_named_with_what_to_do(lab: Lab, paths: dict[str, str], tmp_path: Path) -> None:
    """Nothing of Windows can be asked without it. Another Python can ask about this one."""
    broken = python_without(lab, max(PYTHONS), tmp_path / "broken", "libffi-8.dll")
    done = lab.run(max(PYTHONS), ["-m", "dlltracer", "why", "ctypes"], env=paths, python=broken)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "needs ctypes" in line and f"why --python {windows_path(broken / 'python.exe')} ctypes" in line
