"""The findings of the desk check against real Windows, each against a simulator that is as strict as Windows.

Findings 2, 7 and 11 have vectors in tests/unit/test_desk_check.py, finding 6 is tested in test_launchers_under_wine.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from windows.lab import PYTHONS, Lab, windows_path

VERSION = max(PYTHONS)

PROGRAM = r"""
import ctypes, importlib, io, json, os, shutil, sys, tempfile, traceback
import dlltracer
from builders.pe_file import build_pe
from dlltracer.capture.windows.etw import bindings, session
from dlltracer.capture.windows.etw.backend import EtwBackend
from dlltracer.host import windows as host

sim = ctypes.CDLL(os.environ["DLLTRACER_TEST_ETW"])
sim.sim_spell.argtypes = (ctypes.c_wchar_p, ctypes.c_wchar_p)
START, CONTROL = 1, 4
folder = os.path.realpath(tempfile.mkdtemp())
sys.path.insert(0, folder)

def write_module(name):
    "Write an extension module that needs a DLL that is nowhere."
    path = os.path.join(folder, f"{name}.pyd")
    with open(path, "wb") as file:
        file.write(build_pe({"gone.dll": ["f"]}, [f"PyInit_{name}"]))
    return path

def import_failing(name, trace):
    importlib.invalidate_caches()
    with trace as events:
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    return [str(event).split()[0] for event in events]

def start_raw(name, guid, flags=4):
    "Start a session as another program would: no consumer, no end."
    etw, handle = bindings.Etw(), ctypes.c_uint64()
    properties = session.make_properties(guid, 0x100, flags)
    return etw.StartTraceW(ctypes.byref(handle), name, ctypes.byref(properties.Properties))

def refused(trace):
    try:
        trace.start()
    except OSError as error:
        return [type(error).__name__, error.winerror, str(error)]
    trace.close()
    return None

def finding_1():
    real = session.make_properties
    def with_offset(guid, mode, flags):
        room = real(guid, mode, flags)
        room.Properties.LogFileNameOffset = bindings.PROPERTIES_WITH_NAMES.LogFileName.offset
        return room
    ours = refused(dlltracer.Trace())
    session.make_properties = with_offset
    try:
        return ours, refused(dlltracer.Trace())
    finally:
        session.make_properties = real

def finding_2():
    said = {}
    for number, kernel in enumerate([
        r"\Device\HarddiskVolume7\uv\cache\m0.pyd",
        r"\Device\Mup\server\share\m1.pyd",
        r"\Device\HarddiskVolume9\m2.pyd",
        r"\Device\HarddiskVolume7\LONGNA~1\m3.pyd",
        r"\Device\HarddiskVolume7\pkgs\other name.pyd",
    ]):
        sim.sim_spell(None, None)
        sim.sim_spell(write_module(f"m{number}"), kernel)
        said[kernel] = import_failing(f"m{number}", dlltracer.Trace(collect=True))
    sim.sim_spell(None, None)
    return said

def finding_3():
    start_raw(bindings.KERNEL_LOGGER_NAMEW, session.SYSTEM_TRACE_CONTROL_GUID)
    answers = []
    for code in (87, 1450):
        sim.sim_fail_next(START, code)
        answers.append([*refused(dlltracer.Trace()), sim.sim_session_count()])
    return answers

def finding_4():
    sim.sim_set_queues(2)
    write_module("late")
    return import_failing("late", dlltracer.Trace(collect=True))

def finding_4_live():
    "A thread that comes back from the loader must not get half of it."
    sim.sim_set_queues(2)
    out = io.StringIO()
    with dlltracer.Trace(collect=True, out=out) as events:
        for number in range(3):
            write_module(f"live{number}")
            try:
                importlib.import_module(f"live{number}")
            except ImportError:
                pass
            delivered = out.getvalue().splitlines()
            library = ["bcrypt", "crypt32", "version"][number]
            ctypes.CDLL(library)
    names = [(line.split()[0], line.rpartition(chr(92))[2]) for line in out.getvalue().splitlines()]
    return [[word, name] for word, name in names if name.startswith("live")], len(delivered) > 3

def finding_8():
    sim.sim_set_rundown(0)
    sim.sim_set_noise(0)
    trace = dlltracer.Trace(collect=True, unloads=True)
    with trace as events:
        ctypes.CDLL(os.path.join(os.path.dirname(sys.executable), "DLLs", "sqlite3.dll"))
    raw = dlltracer.Trace(collect=True, debug=True)
    with raw as records:
        pass
    return [os.path.basename(e.path) for e in events], trace.recording.notes, [e.opcode for e in records]

def finding_9():
    name = "dlltracer-4000000-1-1"
    start_raw(name, bytes(range(16)), flags=0)
    notes = []
    for code in (5, 0):
        sim.sim_fail_next(CONTROL, code)
        trace = dlltracer.Trace()
        with trace:
            pass
        notes.append([note for note in trace.recording.notes if name in note])
    return notes

def finding_10():
    answers = []
    for calls in (3, 50):
        sim.sim_reset()
        start_raw(bindings.KERNEL_LOGGER_NAMEW, session.SYSTEM_TRACE_CONTROL_GUID)
        sim.sim_set_linger(calls)
        answers.append(refused(dlltracer.Trace(backend=EtwBackend(kernel_logger=True))))
        answers.append([sim.sim_session_count(), sim.sim_thread_count()])
    return answers

def finding_12():
    # As with the Python of Microsoft's Store: there is a file, and Windows does not start it.
    alias = os.path.join(folder, "python.exe")
    shutil.copy(__file__, alias)
    sys._base_executable, sys.base_prefix = alias, folder
    trace = dlltracer.Trace(collect=True, backend="debugger")
    with trace as events:
        ctypes.CDLL(os.path.join(os.path.dirname(sys.executable), "DLLs", "libffi-8.dll"))
        ctypes.CDLL(os.path.join(os.path.dirname(sys.executable), "DLLs", "libssl-3.dll"))
    return ["libssl-3.dll" in event.path for event in events].count(True)

def finding_13():
    real = sys.getwindowsversion
    class Version(tuple):
        platform_version = (10, 0, 19045)
    sys.getwindowsversion = lambda: Version((6, 2, 9200, 2, ""))
    try:
        return host.read_windows_context().honours_dependent_flags
    finally:
        sys.getwindowsversion = real

def finding_14_known():
    before = sorted(host.read_windows_context().known_dlls)
    ntdll = ctypes.WinDLL("ntdll.dll")
    def attributes(name):
        text = host._UnicodeString(2 * len(name), 2 * len(name) + 2, name)
        size = ctypes.sizeof(host._ObjectAttributes)
        return host._ObjectAttributes(size, None, ctypes.pointer(text), 0x40, None, None)
    directory, section, size = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int64(4096)
    made = ntdll.NtCreateDirectoryObject(ctypes.byref(directory), 0xF000F, ctypes.byref(attributes("\\KnownDlls")))
    filled = ntdll.NtCreateSection(
        ctypes.byref(section), 0xF001F, ctypes.byref(attributes("\\KnownDlls\\Planted.dll")), ctypes.byref(size), 4,
        0x8000000, None,
    )
    return before, [made, filled], sorted(host.read_windows_context().known_dlls)

def finding_14_lost():
    lost = bytes.fromhex("e09a396ac64be94d870b3657f8947e7e")
    recordings = []
    for backend in ("etw", "etw+loader"):
        trace = dlltracer.Trace(backend=backend)
        with trace:
            for opcode in (32, 32, 33, 34):
                sim.sim_inject(lost, 2, opcode, 0x40, -1, -1, b"", 0)
        recordings.append([trace.recording.losses.events, trace.recording.losses.buffers])
    sim.sim_set_lost(17, 1)
    trace = dlltracer.Trace()
    with trace:
        sim.sim_inject(lost, 2, 32, 0x40, -1, -1, b"", 0)
    return [*recordings, [trace.recording.losses.events, trace.recording.losses.buffers]]

answers = {}
for name, finding in list(globals().items()):
    if name.startswith("finding_"):
        sim.sim_reset()
        try:
            answers[name] = finding()
        except Exception:
            answers[name] = traceback.format_exc()
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(
    lab: Lab, paths: dict[str, str], simulator: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the program above says, all in one process: a start takes longer than all of it."""
    folder = tmp_path_factory.mktemp("desk-check")
    (folder / "sessions").mkdir()
    script = folder / "findings.py"
    script.write_text(PROGRAM)
    state = windows_path(folder / "sessions")
    env = {**paths, "DLLTRACER_TEST_ETW": windows_path(simulator), "DLLTRACER_SIM_STATE": state}
    done = lab.run(VERSION, [script], env=env, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_finding_1_a_real_time_start_has_no_log_file_name(answers: dict[str, Any]) -> None:
    ours, with_offset = answers["finding_1"]
    assert ours is None
    assert with_offset[:2] == ["TraceStartError", 161], "the simulator is not strict"


def test_finding_2_a_failure_is_reported_however_the_kernel_spells_the_path(answers: dict[str, Any]) -> None:
    assert len(answers["finding_2"]) == 5
    for kernel, output in answers["finding_2"].items():
        assert output == ["LoadLibrary", "Failed"], kernel


def test_finding_3_an_error_of_the_start_stops_no_foreign_session(answers: dict[str, Any]) -> None:
    wrong, taken = answers["finding_3"]
    assert (wrong[:2], wrong[3]) == (["TraceStartError", 87], 1)
    assert (taken[:2], taken[3]) == (["TraceStartError", 1450], 1)
    assert "eight" in taken[2]


def test_finding_4_records_of_two_processors_are_sorted(answers: dict[str, Any]) -> None:
    assert answers["finding_4"] == ["LoadLibrary", "Failed"]


def test_finding_4_a_live_trace_keeps_the_order_of_two_processors(answers: dict[str, Any]) -> None:
    shown, is_live = answers["finding_4_live"]
    assert shown == [[word, f"live{number}.pyd"] for number in range(3) for word in ("LoadLibrary", "Failed")]
    assert is_live


def test_finding_8_a_start_without_rundown_makes_an_event_itself_and_hides_it(answers: dict[str, Any]) -> None:
    names, notes, opcodes = answers["finding_8"]
    assert names == ["sqlite3.dll"]
    assert notes == ["session: private system logger"], "it waited, and gave up"
    assert opcodes == []


def test_finding_9_a_session_that_will_not_be_reaped_does_not_stop_the_start(answers: dict[str, Any]) -> None:
    (stays,), (stopped,) = answers["finding_9"]
    assert "stays" in stays and "access denied" in stays
    assert stopped.startswith("stopped the session ")


def test_finding_10_a_name_that_lingers_is_tried_again(answers: dict[str, Any]) -> None:
    soon, left_soon, never, left_never = answers["finding_10"]
    assert (soon, left_soon) == (None, [0, 0])
    assert never[:2] == ["TraceStartError", 183] and "would not stop" in never[2]
    assert left_never == [0, 0]


def test_finding_12_the_helper_starts_by_the_file_behind_the_alias(answers: dict[str, Any]) -> None:
    assert answers["finding_12"] == 1


def test_finding_13_the_version_of_windows_is_the_real_one(answers: dict[str, Any]) -> None:
    assert answers["finding_13"] is True


def test_finding_14_known_dlls_are_those_of_the_object_directory(answers: dict[str, Any]) -> None:
    before, made, after = answers["finding_14_known"]
    assert before == [], "Wine has neither the directory nor the list in the registry"
    assert made == [0, 0]
    assert after == ["planted.dll"]


def test_finding_14_records_of_lost_events_are_counted(answers: dict[str, Any]) -> None:
    plain, with_loader, both = answers["finding_14_lost"]
    assert plain == [2, 2]
    assert with_loader == [4, 4], "two sessions, and both said so"
    assert both == [17, 1], "the stop had counted that one, too"


ERROR_MODE = """
#include <windows.h>
BOOL WINAPI DllMain(HINSTANCE self, DWORD reason, void *reserved)
{
    (void)self; (void)reserved;
    return reason != DLL_PROCESS_ATTACH || (GetErrorMode() & 3) == 3;
}
"""


def test_finding_14_a_reload_shows_no_box_for_a_crash(lab: Lab, paths: dict[str, str], tmp_path: Path) -> None:
    dll = lab.build_dll("error_mode", ERROR_MODE, tmp_path)
    code = "import sys; from dlltracer.host.failure import reload_code as reload; "
    code += "print(reload(sys.executable, sys.argv[1], 8))"
    done = lab.run(VERSION, ["-c", code, dll], env=paths)
    assert done.stdout.split() == ["0"], "neither SEM_FAILCRITICALERRORS nor SEM_NOGPFAULTERRORBOX: " + done.stderr


COMPILER = '#include <stdio.h>\nint main(void) { puts("x86_64-w64-mingw32"); return 0; }\n'


@pytest.mark.slow
def test_finding_5_on_windows_the_lab_is_windows_itself(lab: Lab, tmp_path: Path) -> None:
    """What the workflow does on Windows: pytest in CPython for Windows, which runs tests of the debugger in itself.

    No test that is asked for here compiles anything, so that the compiler need only say that it is there.
    """
    (tmp_path / "gcc.c").write_text(COMPILER)
    lab.compile(["-o", tmp_path / "gcc.exe", tmp_path / "gcc.c"])
    root = Path(__file__).parents[2]
    env = {
        "PYTHONPATH": ";".join(map(windows_path, (root / "src", root / "tests", lab.site))), "DLLTRACER_LAB": "native",
        "WINEPATH": windows_path(tmp_path), "LOCALAPPDATA": windows_path(tmp_path),
    }  # fmt: skip
    asked = ["-p", "no:cacheprovider", "tests/windows/test_launchers_under_wine.py", "-k", "behind_a_launcher"]
    done = lab.run(VERSION, ["-m", "pytest", "-q", *asked], env=env, cwd=root, timeout=300)
    assert done.stdout.splitlines()[-1].startswith("1 passed"), done.stdout + done.stderr
