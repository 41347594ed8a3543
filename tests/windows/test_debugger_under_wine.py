"""A program run by our debugger, for real: CPython for Windows under Wine, which implements debugging."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from dlltracer.capture.windows.debugger import bindings
from windows.fixtures import REFUSING_DEPENDENCY, dependency_source, module_source
from windows.lab import PYTHONS, Lab, windows_path

HERE = Path(__file__).parent

DRIVER = """
import dataclasses, json, os, pickle, sys
from dlltracer.capture.windows.debugger.run import run_debugged

def requests():
    with open(sys.argv[1] + ".requests", "rb") as file:
        return pickle.load(file)

runs = []
for code in sys.argv[2:]:
    run = run_debugged([sys.executable, "-c", code], requests=requests if "Watch" in code else None)
    events = [{"type": type(event).__name__, **dataclasses.asdict(event)} for event in run.events]
    runs.append({**dataclasses.asdict(run), "events": events})
with open(sys.argv[1], "w") as file:
    json.dump(runs, file, default=str)
"""

# A fault at a place that the test can name: in read_nowhere, at address 0x30.
CRASHING_MODULE = """
#include <Python.h>
#include <windows.h>
struct thing { char before[0x30]; int value; };
struct thing *volatile nowhere = NULL;
__attribute__((noinline)) int read_nowhere(void) { return nowhere->value; }
LONG CALLBACK end_by_code(EXCEPTION_POINTERS *what)
{
    TerminateProcess(GetCurrentProcess(), what->ExceptionRecord->ExceptionCode);
    return EXCEPTION_CONTINUE_SEARCH;
}
static struct PyModuleDef definition = { PyModuleDef_HEAD_INIT, "crashmod", NULL, -1, NULL, NULL, NULL, NULL, NULL };
PyMODINIT_FUNC PyInit_crashmod(void)
{
    if (GetEnvironmentVariableA("HANDLED", NULL, 0)) AddVectoredExceptionHandler(1, end_by_code);
    return read_nowhere() == 42 ? NULL : PyModule_Create(&definition);
}
"""

# What a program can say of an image: where it is, its size, its path (psapi.h).
WHERE = """
import ctypes, json
kernel32 = ctypes.WinDLL("kernel32")
kernel32.GetModuleHandleW.restype = ctypes.c_void_p
kernel32.GetModuleFileNameW.argtypes = (ctypes.c_void_p, ctypes.c_wchar_p, ctypes.c_uint32)
kernel32.K32GetModuleInformation.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
def where(name):
    base, info, path = kernel32.GetModuleHandleW(name), (ctypes.c_uint64 * 3)(), ctypes.create_unicode_buffer(1000)
    kernel32.K32GetModuleInformation(ctypes.c_void_p(-1), base, info, 24)
    kernel32.GetModuleFileNameW(base, path, 1000)
    return base, info[1] & 0xFFFFFFFF, path.value
"""

WATCHED = """
import pickle, sys
from dlltracer.capture.requests import Watch
watch = Watch()
watch.start()
try:
    import {module}
except ImportError as error:
    print(error.name)
finally:
    with open(r"{result}.requests", "wb") as file:
        pickle.dump(watch.stop(), file)
"""


@dataclass(frozen=True)
class Desk:
    """Runs code in a debugged Windows Python: `run` gives what the debugger saw of each, and what was printed."""

    lab: Lab
    version: str
    env: dict[str, str]
    native: Path
    result: Path

    def run(self, *codes: str) -> tuple[list[dict], subprocess.CompletedProcess[str]]:
        done = self.lab.run(self.version, ["-c", DRIVER, self.result, *codes], env=self.env)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(self.result.read_text()), done

    def drive(self, code: str) -> list[str]:
        """What this code, which debugs, prints."""
        done = self.lab.run(self.version, ["-c", code], env=self.env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def libraries(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DLLs: one that is to be missing, one that refuses to load, and two good ones."""
    folder = tmp_path_factory.mktemp("libraries")
    lab.build_dll("refusedep", REFUSING_DEPENDENCY, folder)
    for name, function in (("goodlib", "good"), ("gonelib", "gone"), ("freelib", "free_me")):
        lab.build_dll(name, dependency_source(function, 1), folder)
    return folder


def build_native(lab: Lab, version: str, libraries: Path, folder: Path) -> Path:
    """Extension modules: one lacks a DLL, one has a DLL that refuses, one crashes."""
    links = {name: libraries / f"{name}.dll" for name in ("goodlib", "gonelib", "refusedep")}
    lab.build_pyd(version, "crashmod", CRASHING_MODULE, folder)
    broken = [links["goodlib"], links["gonelib"]]
    lab.build_pyd(version, "brokenmod", module_source("brokenmod", "good", "gone"), folder, broken)
    lab.build_pyd(version, "refusemod", module_source("refusemod", "refuse"), folder, [links["refusedep"]])
    for name in ("goodlib", "refusedep", "freelib"):
        shutil.copy2(libraries / f"{name}.dll", folder)
    return folder


@pytest.fixture(scope="module", params=sorted(PYTHONS))
def either(
    request: pytest.FixtureRequest, lab: Lab, libraries: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Each version of Python, and the folder with its files to load."""
    folder = tmp_path_factory.mktemp(f"native-{request.param}")
    return request.param, build_native(lab, request.param, libraries, folder)


@pytest.fixture
def desk(either: tuple[str, Path], lab: Lab, paths: dict[str, str], tmp_path: Path) -> Desk:
    version, native = either
    env = {"PYTHONPATH": f"{windows_path(native)};{paths['PYTHONPATH']}"}
    return Desk(lab, version, env, native, tmp_path / "result.json")


@pytest.fixture
def newest(lab: Lab, paths: dict[str, str], libraries: Path, tmp_path: Path) -> Desk:
    """For what does not depend on the version of Python."""
    return Desk(lab, max(PYTHONS), paths, libraries, tmp_path / "result.json")


def reported(run: dict, folder: Path | str, kind: str = "") -> list[tuple[str, str]]:
    """(type, base name in lower case) of the events about files below a folder."""
    start = windows_path(folder).lower() + "\\"
    lines = [(event["type"], event["path"].lower()) for event in run["events"]]
    return [(name, path.rsplit("\\", 1)[1]) for name, path in lines if path.startswith(start) and kind in name]


def test_every_field_lies_where_the_compiler_puts_it(lab: Lab, tmp_path: Path) -> None:
    exe = tmp_path / "debug_layout.exe"
    lab.compile(["-o", exe, HERE / "debug_layout.c"])
    reported: dict[str, tuple[int, ...]] = {}
    for line in lab.run_exe(exe).splitlines():
        name, *numbers = line.split()
        reported[name] = tuple(map(int, numbers))
    ours: dict[str, tuple[int, ...]] = {}
    unchecked = {"TYPE_CHECKING", "ERROR_ELEVATION_REQUIRED"}  # mingw-w64 10 has no name for the latter
    for name, value in vars(bindings).items():
        if isinstance(value, int) and name.isupper() and not name.startswith("_") and name not in unchecked:
            ours[name] = (value,)
        elif isinstance(value, type) and issubclass(value, ctypes.Structure):
            ours[name] = (ctypes.sizeof(value),)
            fields = [(field, getattr(value, field)) for field, *_ in value._fields_]
            ours |= {f"{name}.{field}": (place.offset, place.size) for field, place in fields}
    assert ours == reported


def test_what_ssl_loads(desk: Desk) -> None:
    names = ["_ssl.pyd", "libssl-3.dll", "libcrypto-3.dll", f"python{desk.version.replace('.', '')}.dll"]
    (run,), done = desk.run(f"{WHERE}import ssl; print(json.dumps({{name: where(name) for name in {names}}}))")
    loads = {event["path"].rsplit("\\", 1)[1].lower(): event for event in run["events"] if event["type"] == "LoadEvent"}
    for name, (base, size, path) in json.loads(done.stdout).items():
        event = loads[name]
        assert (event["base"], event["size"], event["path"].lower()) == (base, size, path.lower())
        assert (event["pid"], event["display_path"]) == (run["pid"], None)
        assert event["link_time"] > 1_500_000_000 and event["timestamp"] > 1_700_000_000
    assert (run["status"], run["crash"], run["notes"]) == (0, None, [])
    assert run["events"][0]["path"].lower() == windows_path(desk.lab.python_dir(desk.version) / "python.exe").lower()


def test_a_dll_that_is_missing(desk: Desk) -> None:
    (run,), done = desk.run("import brokenmod")
    assert "ImportError: DLL load failed while importing brokenmod" in done.stderr
    assert (run["status"], run["crash"]) == (1, None)
    # Wine 8 forgets to unmap the two ("Unrolling is rather difficult", loader.c); Windows does.
    assert reported(run, desk.native, "LoadEvent") == [("LoadEvent", "brokenmod.pyd"), ("LoadEvent", "goodlib.dll")]


def test_a_dll_that_refuses(desk: Desk) -> None:
    (plain, judged), done = desk.run(
        "import refusemod", WATCHED.format(module="refusemod", result=windows_path(desk.result))
    )
    loads = [("LoadEvent", "refusemod.pyd"), ("LoadEvent", "refusedep.dll")]
    for run, verdict in ((plain, "UnloadEvent"), (judged, "LoadFailedEvent")):
        assert reported(run, desk.native, "LoadEvent") == loads
        assert sorted(reported(run, desk.native, verdict)) == [(verdict, "refusedep.dll"), (verdict, "refusemod.pyd")]
        assert len(reported(run, desk.native)) == 4
    failed = [event for event in judged["events"] if event["type"] == "LoadFailedEvent"]
    assert {tuple(event["imports"]) for event in failed} == {("refusemod",)}
    assert done.stdout.strip() == "refusemod"


def functions_of(image: Path) -> list[tuple[int, str]]:
    """(RVA, name) of the functions of an image, in order, as binutils see them."""
    headers = subprocess.run(["x86_64-w64-mingw32-objdump", "-p", image], capture_output=True, text=True, check=True)
    base = re.search(r"^ImageBase\s+([0-9a-f]+)$", headers.stdout, re.MULTILINE)
    assert base is not None
    symbols = subprocess.run(["x86_64-w64-mingw32-nm", "-n", image], capture_output=True, text=True, check=True)
    rows = [line.split() for line in symbols.stdout.splitlines()]
    return [(int(row[0], 16) - int(base[1], 16), row[2]) for row in rows if len(row) == 3 and row[1] in "tT"]


def test_where_it_crashed(desk: Desk) -> None:
    """Unhandled; and seen by a handler of the program's own, that ends it before anybody is asked again."""
    crash_now = "import threading; print(threading.get_native_id(), flush=True); import crashmod"
    runs, done = desk.run(crash_now, f"import os; os.environ['HANDLED'] = '1'; {crash_now}")
    image = desk.native / "crashmod.pyd"
    functions = functions_of(image)
    for run, thread in zip(runs, done.stdout.split(), strict=True):
        crash = run["crash"]
        assert (run["status"], crash["code"], crash["name"]) == (0xC0000005, 0xC0000005, "access violation")
        assert (crash["image"].lower(), crash["fault_address"]) == (windows_path(image).lower(), 0x30)
        assert crash["thread"] == int(thread)
        assert [name for address, name in functions if address <= crash["offset"]][-1] == "read_nowhere"
        (base,) = [event["base"] for event in run["events"] if event["path"] == crash["image"]]
        assert crash["address"] == base + crash["offset"]


def test_an_exception_that_was_handled_is_no_crash(newest: Desk) -> None:
    # What a program raises by itself (C++) is not among them: Wine 8 under a debugger cannot bring it to its handler.
    (fault, broken), done = newest.run(
        "import ctypes\ntry: ctypes.string_at(0)\nexcept OSError as error: print(error)",
        "import ctypes; ctypes.windll.kernel32.DebugBreak()",
    )
    assert done.stdout.strip() == "exception: access violation reading 0x0000000000000000"
    assert (fault["status"], fault["crash"]) == (0, None)
    # Only the loader's own breakpoint is answered for the program: nobody handled this one, so it ended it.
    assert (broken["status"], broken["crash"]["name"]) == (0x80000003, "breakpoint")


def test_how_it_ended(desk: Desk) -> None:
    kill = "import os, subprocess, sys; subprocess.run([sys.executable, '-c', f'import os; os.kill({os.getpid()}, 9)'])"
    runs, done = desk.run(
        "import os; os._exit(7)",
        "import sys; sys.exit(-3)",
        "raise SystemExit('words')",
        kill,
        "import ctypes; ctypes.windll.kernel32.ExitProcess(0xC0000005)",
    )
    assert [run["status"] for run in runs] == [7, 0xFFFFFFFD, 1, 9, 0xC0000005]
    assert {run["crash"] for run in runs} == {None}
    assert done.stderr.strip() == "words"


def test_the_streams_and_handles_are_ours(desk: Desk) -> None:
    program = (
        "import os, sys; os.write(int(sys.argv[1]), input().encode()); print('out'); print('err', file=sys.stderr)"
    )
    driver = f"""
import msvcrt, os, sys
from dlltracer.capture.windows.debugger.run import run_debugged
reader, writer = os.pipe()
handle = msvcrt.get_osfhandle(writer)
os.set_handle_inheritable(handle, True)
program = "import msvcrt, sys; sys.argv[1] = msvcrt.open_osfhandle(int(sys.argv[1]), 0); " + {program!r}
run = run_debugged([sys.executable, "-c", program, str(handle)], env={{**os.environ, "GIVEN": "x"}}, cwd="Z:\\\\")
print(run.status, os.read(reader, 100))
"""
    lines = desk.drive(
        f"""
import subprocess, sys
done = subprocess.run([sys.executable, "-c", {driver!r}], input=b"typed\\n", capture_output=True)
print([done.returncode, done.stdout.split(), done.stderr.split()])
"""
    )
    assert lines == ["[0, [b'out', b'0', b\"b'typed'\"], [b'err']]"]


def test_environment_and_folder(newest: Desk) -> None:
    lines = newest.drive(
        """
import os, sys
from dlltracer.capture.windows.debugger.run import run_debugged
show = "import os; print(os.environ.get('GIVEN'), os.getcwd(), os.environ.get('_NO_DEBUG_HEAP'), flush=True)"
os.environ["GIVEN"] = "ours"
run_debugged([sys.executable, "-c", show], cwd="Z:\\\\")
given = {**os.environ, "GIVEN": "theirs", "_NO_DEBUG_HEAP": "0"}
run_debugged([sys.executable, "-c", show], env=given, cwd="Z:\\\\")
print("_NO_DEBUG_HEAP" in os.environ)
"""
    )
    assert lines == ["ours Z:\\ 1", "theirs Z:\\ 0", "False"]


def test_in_a_virtual_environment_python_itself_is_seen(newest: Desk, tmp_path: Path) -> None:
    """There, python.exe starts another one; this makes the environment as the module venv does."""
    base, scripts = newest.lab.python_dir(newest.version), tmp_path / "env" / "Scripts"
    scripts.mkdir(parents=True)
    shutil.copy2(base / "Lib" / "venv" / "scripts" / "nt" / "venvlauncher.exe", scripts / "python.exe")
    (tmp_path / "env" / "pyvenv.cfg").write_text(f"home = {windows_path(base)}\nversion = {newest.version}\n")
    python = windows_path(scripts / "python.exe")
    lines = newest.drive(
        f"""
import subprocess
from dlltracer.capture.windows.debugger.run import run_debugged
command = [r"{python}", "-c", "import _ssl, os, sys; print(sys.executable, sys.prefix, os.getpid(), flush=True)"]
run = run_debugged(command)
print(run.pid, any(event.path.endswith("_ssl.pyd") for event in run.events))
"""
    )
    executable, prefix, pid = lines[0].split()
    assert (executable, prefix) == (python, windows_path(tmp_path / "env"))
    assert lines[1] == f"{pid} True"


def test_output_to_a_file(newest: Desk) -> None:
    lines = newest.drive(
        """
import sys, tempfile
from dlltracer.capture.windows.debugger.run import run_debugged
with tempfile.TemporaryFile() as file:
    program = "import sys; print('out', flush=True); print('err', file=sys.stderr)"
    run_debugged([sys.executable, "-c", program], output=file.fileno())
    file.seek(0)
    print(file.read().split())
"""
    )
    assert lines == ["[b'out', b'err']"]


def test_threads_that_load(newest: Desk, tmp_path: Path) -> None:
    source, target = windows_path(newest.native / "freelib.dll"), windows_path(tmp_path)
    (run,), done = newest.run(
        f"""
import ctypes, shutil, threading
def load(number):
    path = shutil.copy(r"{source}", rf"{target}\\copy{{number}}.dll")
    barrier.wait()
    library = ctypes.WinDLL(path)
    told.append((number, threading.get_native_id(), library._handle))
told, barrier = [], threading.Barrier(4)
threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
ctypes.windll.kernel32.FreeLibrary(ctypes.c_void_p(told[0][2]))
print(sorted(told), told[0][0])
"""
    )
    ours = [event for event in run["events"] if event["path"].lower().startswith(target.lower())]
    loads = [event for event in ours if event["type"] == "LoadEvent"]
    seen = sorted((int(event["path"][-5]), event["tid"], event["base"]) for event in loads)
    (unload,) = [event for event in ours if event["type"] == "UnloadEvent"]
    assert f"{seen} {unload['path'][-5]}" == done.stdout.strip()
    assert len({tid for _, tid, _ in seen}) == 4


def test_what_the_program_says_to_a_debugger(newest: Desk) -> None:
    """And it may close a handle twice, as without one: Windows, and Wine, raise an exception then."""
    say = "import ctypes; k = ctypes.windll.kernel32; k.OutputDebugStringA(b'one\\n'); k.OutputDebugStringW('two')"
    (run,), done = newest.run(f"{say}; print(k.CloseHandle(0xDEAD0), k.GetLastError())")
    assert run["notes"][:2] == ["OutputDebugString: one", "OutputDebugString: two"]
    assert len(run["notes"]) == 3 and "closed a handle" in run["notes"][2]
    assert done.stdout.split()[0] == "0"
    assert (run["status"], run["crash"]) == (0, None)


def test_a_program_that_cannot_be_started(newest: Desk) -> None:
    lines = newest.drive(
        """
import sys
from dlltracer.capture.windows.debugger.run import run_debugged
from dlltracer.errors import TraceStartError
for command, cwd in ((["nosuch.exe"], None), ([sys.executable], "Z:\\\\nosuch"), ([__import__("os").__file__], None)):
    try:
        run_debugged(command, cwd=cwd)
    except TraceStartError as error:
        print(error.call, error.winerror, command[0] in str(error))
"""
    )
    assert lines == ["CreateProcess 2 True", "CreateProcess 267 True", "CreateProcess 193 True"]


def test_another_debugger(newest: Desk) -> None:
    """Cannot attach while we are it. But a program can get rid of its debugger, and runs on."""
    attach = "import ctypes, sys; print(ctypes.windll.kernel32.DebugActiveProcess(int(sys.argv[1])), flush=True)"
    (attacked, rid), done = newest.run(
        f"import os, subprocess, sys; subprocess.run([sys.executable, '-c', {attach!r}, str(os.getpid())]); import ssl",
        """
import ctypes, sys
ntdll, itself, port = ctypes.WinDLL("ntdll"), ctypes.c_void_p(-1), ctypes.c_void_p()
ntdll.NtQueryInformationProcess(itself, 30, ctypes.byref(port), 8, None)
print(ntdll.NtRemoveProcessDebug(itself, port))
import ssl
sys.exit(9)
""",
    )
    assert done.stdout.split() == ["0", "0"]
    assert (attacked["status"], attacked["notes"]) == (0, [])
    assert "_ssl.pyd" in {event["path"].rsplit("\\", 1)[1] for event in attacked["events"]}
    assert (rid["status"], len(rid["notes"]), "_ssl.pyd" in str(rid["events"])) == (9, 1, False)
    assert rid["notes"][0].startswith("the debugger was removed")


def test_interrupted_it_lets_the_program_go(newest: Desk) -> None:
    lines = newest.drive(
        """
import _thread, msvcrt, os, sys, threading
from dlltracer.capture.windows.debugger.run import run_debugged
def pipe(ours):
    ends = os.pipe()
    handle = msvcrt.get_osfhandle(ends[1 - ours])
    os.set_handle_inheritable(handle, True)
    return ends[ours], str(handle)
started, starting = pipe(0)
go, going = pipe(1)
program = '''
import msvcrt, os, sys
starting, going = [msvcrt.open_osfhandle(int(handle), 0) for handle in sys.argv[1:]]
os.write(starting, b"x")
os.read(going, 1)
import ssl
os.write(starting, b"survived")
'''
threading.Thread(target=lambda: (os.read(started, 1), _thread.interrupt_main())).start()
try:
    run_debugged([sys.executable, "-c", program, starting, going])
except KeyboardInterrupt:
    print("interrupted")
os.write(go, b"x")
print(os.read(started, 100))
print(run_debugged([sys.executable, "-c", "pass"]).status)
"""
    )
    assert lines == ["interrupted", "b'survived'", "0"]


def test_when_the_debugger_dies_the_program_lives(newest: Desk) -> None:
    """The program kills its debugger, its parent, and goes on."""
    program = "import os, sys; os.kill(os.getppid(), 5); import ssl; print('survived')"
    driver = "import sys; from dlltracer.capture.windows.debugger.run import run_debugged; "
    driver += f"run_debugged([sys.executable, '-c', {program!r}])"
    lines = newest.drive(
        f"""
import subprocess, sys
done = subprocess.run([sys.executable, "-c", {driver!r}], stdout=subprocess.PIPE, text=True)
print(done.returncode, done.stdout.strip())
"""
    )
    assert lines == ["5 survived"]


def test_a_program_that_ends_while_the_debugger_is_late(newest: Desk) -> None:
    """The wait for an event times out, and the program ends before it is asked whether it runs: its end is an event."""
    lines = newest.drive(
        """
import sys, time
from dlltracer.capture.windows.debugger import run
class Late(run.Debugging):
    waited = 0
    def wait(self, event, milliseconds):
        if super().wait(event, milliseconds):
            return True
        Late.waited += bool(milliseconds)
        time.sleep(1)
        return False
run.Debugging = Late
done = run.run_debugged([sys.executable, "-c", "import time; time.sleep(0.5)"], follow=True)
print(Late.waited > 0, done.status, done.notes, [(one.ended is not None, one.status) for one in done.processes])
"""
    )
    assert lines == ["True 0 () [(True, 0)]"]


def test_no_file_is_left_open(newest: Desk) -> None:
    """Files only: the handles of the process and its threads are Windows' to close, which Wine 8 forgets."""
    lines = newest.drive(
        """
import ctypes, sys
from dlltracer.capture.windows.debugger import run
kernel32 = ctypes.WinDLL("kernel32")
kernel32.GetFileType.argtypes = (ctypes.c_void_p,)
FILE_TYPE_DISK = 1
def files():
    return sum(kernel32.GetFileType(handle) == FILE_TYPE_DISK for handle in range(4, 4000, 4))
def attempt(code, program=sys.executable):
    try:
        return len(run.run_debugged([program, "-c", code]).events) > 10
    except Exception as error:
        return type(error).__name__
before = files()
told = [attempt(code) for code in ("import ssl", "import os; os.kill(os.getpid(), 5)")]
told.append(attempt("", "nosuch.exe"))
def fail(*arguments):
    raise ValueError
run.decode_image_header = fail
told.append(attempt("pass"))
with open(sys.executable, "rb"):
    print(told, files() - before)
"""
    )
    assert lines == ["[True, True, 'TraceStartError', 'ValueError'] 1"]
