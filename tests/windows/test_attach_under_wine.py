"""Backend "debugger", for real: a helper attaches to CPython for Windows under Wine; what may go wrong there, goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from windows.fixtures import REFUSING_DEPENDENCY, dependency_source, module_source
from windows.lab import PYTHONS, Lab, windows_path

START = """
import _winapi, ctypes, os, subprocess, sys, threading
import dlltracer
from dlltracer.capture.windows.debugger.bindings import is_debugged

def names(events, folder=r"{native}", kind="Event"):
    shown = [e.shown_path.lower() for e in events if kind in type(e).__name__]
    return [path.rsplit("\\\\", 1)[1] for path in shown if path.startswith(folder.lower() + "\\\\")]

def load(name):
    return ctypes.WinDLL(rf"{native}\\{{name}}.dll")

def trace(**more):
    return dlltracer.Trace(collect=True, backend="debugger", **more)
"""

# Faults that the program handles itself: one of the processor, one of its own.
FAULTS = """
#include <windows.h>
static int seen;
static LONG CALLBACK skip(EXCEPTION_POINTERS *what)
{
    DWORD code = what->ExceptionRecord->ExceptionCode;
    if (code != EXCEPTION_BREAKPOINT && code != 0xE0001234) return EXCEPTION_CONTINUE_SEARCH;
    seen++;
    if (code == EXCEPTION_BREAKPOINT) what->ContextRecord->Rip++;
    return EXCEPTION_CONTINUE_EXECUTION;
}
__declspec(dllexport) int faults(void)
{
    void *handler = AddVectoredExceptionHandler(1, skip);
    seen = 0;
    for (int i = 0; i < 3; i++) __asm__ volatile ("int3");
    RaiseException(0xE0001234, 0, 0, NULL);
    RemoveVectoredExceptionHandler(handler);
    return seen;
}
"""


@dataclass(frozen=True)
class Desk:
    """Runs code in a Windows Python that has files to load."""

    lab: Lab
    version: str
    env: dict[str, str]
    native: Path

    def lines(self, code: str, *arguments: str | Path, status: int = 0) -> list[str]:
        """What the code prints, behind `START`."""
        start = START.format(native=windows_path(self.native))
        done = self.lab.run(self.version, ["-c", start + code, *arguments], env=self.env)
        assert (done.returncode, done.stderr) == (status, ""), done.stdout + done.stderr
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def native(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DLLs a, b, c, ... that need nothing; faults.dll; refusedep.dll, which refuses to load."""
    folder = tmp_path_factory.mktemp("native")
    lab.build_dll("faults", FAULTS, folder)
    lab.build_dll("refusedep", REFUSING_DEPENDENCY, folder)
    for name in "abcd":
        lab.build_dll(name, dependency_source(f"{name}_function", 1), folder)
    return folder


@pytest.fixture
def newest(lab: Lab, paths: dict[str, str], native: Path) -> Desk:
    return Desk(lab, max(PYTHONS), paths, native)


@pytest.fixture
def desk(lab: Lab, version: str, paths: dict[str, str], native: Path) -> Desk:
    """For what is to be seen with each version of Python."""
    return Desk(lab, version, paths, native)


def test_a_block_after_another_and_inside(desk: Desk) -> None:
    """What was loaded before is no event. After the last block there is no debugger, no file and no handle left."""
    lines = desk.lines(
        """
kernel32 = ctypes.WinDLL("kernel32")
room = ctypes.create_unicode_buffer(300)
kernel32.GetTempPathW(300, room)
def left():
    count = ctypes.c_uint32()
    kernel32.GetProcessHandleCount(ctypes.c_void_p(-1), ctypes.byref(count))
    return count.value, [name for name in os.listdir(room.value) if name.startswith(f"dlltracer-{os.getpid()}-")]
load("a")
with trace():
    pass
before = left()
with trace() as first:
    load("b")
    debugged = is_debugged()
between = is_debugged()
load("c")
with trace(unloads=True) as second:
    helper = dlltracer.capture.windows.debugger.backend.the_attachment()._helper
    with trace() as third:
        load("d")
        same = helper is dlltracer.capture.windows.debugger.backend.the_attachment()._helper
    kernel32.FreeLibrary(ctypes.c_void_p(load("a")._handle))
    kernel32.FreeLibrary(ctypes.c_void_p(load("a")._handle))
    kernel32.FreeLibrary(ctypes.c_void_p(load("a")._handle))
print(names(first), names(second), names(third))
print(debugged, between, same, is_debugged())
print(left() == before, before[1])
"""
    )
    assert lines == ["['b.dll'] ['d.dll'] ['d.dll']", "True False True False", "True []"]


def test_an_import_that_fails(lab: Lab, desk: Desk, tmp_path: Path) -> None:
    links = [desk.native / "refusedep.dll"]
    lab.build_pyd(desk.version, "refusemod", module_source("refusemod", "refuse"), tmp_path, links)
    lines = desk.lines(
        """
folder, sys.argv[1:] = sys.argv[1], []
os.add_dll_directory(r"{native}")
sys.path.insert(0, folder)
with trace() as events:
    try:
        import refusemod
    except ImportError as error:
        print(error.name)
failed = [event for event in events if isinstance(event, dlltracer.LoadFailedEvent)]
print(sorted(names(events, folder)), {event.imports for event in failed})
print(names(events, kind="Failed"), names(events, folder, kind="Failed"))
""".replace("{native}", windows_path(desk.native)),
        tmp_path,
    )
    assert lines == [
        "refusemod",
        "['refusemod.pyd', 'refusemod.pyd'] {('refusemod',)}",
        "['refusedep.dll'] ['refusemod.pyd']",
    ]


def test_the_helper_is_killed(desk: Desk) -> None:
    """The program lives, and keeps what was seen until then. The next block has a helper of its own."""
    lines = desk.lines(
        """
outer = trace()
events = outer.start()
load("a")
helper = dlltracer.capture.windows.debugger.backend.the_attachment()._helper
os.kill(helper.pid, 9)
_winapi.WaitForSingleObject(helper._process, 30000)
load("b")
with trace() as inner:
    load("c")
outer.close()
print(names(events), names(inner), is_debugged())
print([note.replace(str(helper.pid), "N") for note in outer.recording.notes])
with trace() as events:
    load("d")
print(names(events))
"""
    )
    assert lines[0] == "['a.dll'] ['c.dll'] False"
    assert "the helper process N ended before the block did: what came then is not known" in lines[1]
    assert lines[2] == "['d.dll']"


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(9)", "sys.exit(9)"])
def test_the_process_ends_in_the_block(newest: Desk, end: str) -> None:
    """However it does, its helper ends, too."""
    start = START.format(native=windows_path(newest.native))
    code = f"""{start}
running = trace()
running.start()
print(dlltracer.capture.windows.debugger.backend.the_attachment()._helper.pid, flush=True)
input()
{end}
"""
    lines = newest.lines(
        f"""
program = subprocess.Popen([sys.executable, "-c", {code!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
helper = _winapi.OpenProcess(0x100000, False, int(program.stdout.readline()))
before = _winapi.WaitForSingleObject(helper, 0)
program.communicate(b"\\n")
print(program.returncode, before, _winapi.WaitForSingleObject(helper, 30000))
"""
    )
    assert lines == ["9 258 0"]


def test_another_debugger_holds_it(newest: Desk) -> None:
    """Ours, for example. `auto` says both reasons."""
    code = START.format(native=windows_path(newest.native)) + (
        """
try:
    trace().start()
except dlltracer.BackendUnavailable as error:
    print(error)
try:
    dlltracer.Trace(backend="auto").start()
except PermissionError as error:
    print("nor etw")
load("a")
"""
    )
    lines = newest.lines(
        f"""
from dlltracer.capture.windows.debugger.run import run_debugged
run = run_debugged([sys.executable, "-c", {code!r}])
print(run.status, names(run.events))
"""
    )
    assert lines == [
        "backend 'debugger' is not available here: another debugger holds this process, and Windows allows one. "
        "End that debugger, or use backend='etw' as Administrator",
        "nor etw",
        "0 ['a.dll']",
    ]


def test_where_no_helper_can_be(newest: Desk) -> None:
    """Each refusal names the cause, and nothing is left."""
    lines = newest.lines(
        """
def refused():
    try:
        trace().start()
    except dlltracer.BackendUnavailable as error:
        print(type(error).__name__, error.reason.replace(os.environ["TEMP"], "TEMP"))
    except dlltracer.TraceStartError as error:
        print(type(error).__name__, error.call, error.winerror)
good = sys._base_executable, sys.base_prefix
import dlltracer.capture.windows.debugger.backend
dlltracer.capture.windows.debugger.backend.program_path = lambda: r"C:\\\\app.exe"
sys._base_executable, sys.base_prefix = r"C:\\\\app.exe", r"C:\\\\app"
refused()
os.makedirs(folder := os.path.join(os.environ["TEMP"], f"no-{os.getpid()}"))
sys._base_executable = os.path.join(folder, "python.exe")
with open(sys._base_executable, "w") as file:
    file.write("no program")
refused()
os.remove(sys._base_executable)
os.rmdir(folder)
sys._base_executable, sys.base_prefix = good
os.environ["TMP"] = r"C:\\\\no\\\\such"
refused()
os.environ["TMP"] = os.environ["TEMP"]
backend = dlltracer.capture.windows.debugger.backend
start, getpid = backend._start, os.getpid
def start_for_nobody(*arguments):
    os.getpid = lambda: 4294967292
    try:
        return start(*arguments)
    finally:
        os.getpid = getpid
backend._start = start_for_nobody
refused()
print(is_debugged(), threading.active_count())
""".replace("\\\\", "\\")
    )
    assert lines == [
        r"BackendUnavailable there is no python.exe in C:\app for the helper process",
        "TraceStartError CreateProcess 193",
        r"BackendUnavailable no file can be made in C:\no\such\ (No such file or directory)",
        "TraceStartError DebugActiveProcess 87",
        "False 1",
    ]


def test_the_helper_cannot_write(newest: Desk) -> None:
    """Its disk is full, say: nobody waits, nobody dies, and a note tells that words are missing."""
    lines = newest.lines(
        """
from dlltracer.capture.windows.debugger import backend
start = backend._start
def start_with_a_file_to_read(python, handles):
    with open(sys.executable, "rb") as file:
        import msvcrt
        return start(python, [msvcrt.get_osfhandle(file.fileno()), *handles[1:]])
backend._start = start_with_a_file_to_read
with (running := trace()) as events:
    load("a")
print(events, [note.partition(" ended ")[2] for note in running.recording.notes], is_debugged())
from dlltracer.capture.windows.debugger.helper import Writer
writer = Writer(0xDEAD0, 0)
writer.note(1, "lost")
print(writer.lost)
from dlltracer.capture.windows.debugger import helper, loop
class NearlyFull:
    room, written = [99, 3, 0, 0, 99, 2, 1, 99], b""
    def WriteFile(self, file, line):
        part = line[:self.room.pop(0)]
        self.written += part
        return len(part), 0
helper._winapi = disk = NearlyFull()
writer = Writer(0, 0)
for number in range(8):
    writer.note(1, str(number))
print([line and line[1] for line in loop.decode_lines(disk.written)], writer.lost)
"""
    )
    assert lines == [
        "[] ['without its last word (status 0)'] False",
        "1",
        # Of the half lines each is found, and what comes when there is room again is whole.
        "['0', None, '4', None, '7'] 3",
    ]


def test_exceptions_and_strings_pass(desk: Desk) -> None:
    """What the program handles, it handles as without us; what it says to a debugger is noted."""
    lines = desk.lines(
        """
kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
def act():
    faults = load("faults").faults()
    try:
        ctypes.string_at(0)
    except OSError as error:
        return faults, str(error), kernel32.CloseHandle(ctypes.c_void_p(0xDEAD0)), ctypes.get_last_error()
plain = act()
kernel32.OutputDebugStringW("before")
with (outer := trace()):
    kernel32.OutputDebugStringA(b"one\\n")
    with (inner := trace()):
        kernel32.OutputDebugStringW("two")
    traced = act()
kernel32.OutputDebugStringW("after")
print(plain == traced, traced)
print(inner.recording.notes)
print(len(outer.recording.notes), *outer.recording.notes[:2], "closed a handle" in outer.recording.notes[2])
""".replace('"one\\n"', '"one"')
    )
    assert lines == [
        "True (4, 'exception: access violation reading 0x0000000000000000', 0, 6)",
        "('OutputDebugString: two',)",
        "3 OutputDebugString: one OutputDebugString: two True",
    ]


def test_threads_that_load_while_blocks_begin_and_end(newest: Desk, tmp_path: Path) -> None:
    """Every load that returned inside a block is in it, whichever thread made it; no load is lost or told twice."""
    lines = newest.lines(
        """
import shutil
target = sys.argv[1]
def work(number):
    for turn in range(6):
        path = shutil.copy(r"{native}\\a.dll", rf"{target}\\copy{number}-{turn}.dll")
        handle = ctypes.WinDLL(path)._handle
        done.append((number, turn, threading.get_native_id(), handle))
done = []
with trace() as outer:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    [thread.start() for thread in threads]
    parts = []
    while any(thread.is_alive() for thread in threads):
        with trace() as part:
            count = len(done)
        parts.append((count, part))
    [thread.join() for thread in threads]
seen = sorted((int(e.path[-7]), int(e.path[-5]), e.tid, e.base) for e in outer if "copy" in e.path)
print(seen == sorted(done), len(seen), len(parts) > 0)
print(all(set(e.path for e in part) <= set(e.path for e in outer) for _, part in parts))
""".replace("{native}", windows_path(newest.native)).replace("\\\\", "\\"),
        tmp_path,
    )
    assert lines == ["True 24 True", "True"]
