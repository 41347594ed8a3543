"""Questions about the mechanism "debugger": what it sees of this process, and of programs that it starts."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
import threading

if sys.platform != "win32":
    raise ImportError("only for Windows")

from ..capture.windows.debugger.backend import find_pythons
from ..capture.windows.debugger.run import DebuggedRun, run_debugged
from ..errors import BackendUnavailable
from .step import Answer, CannotAsk, Question, Room
from .windows_api import WindowsApi, ask_dependency, ask_failed, ask_good, ask_import, ask_refused, ask_unload

NAME = "debugger"
_ROUNDS, _THREADS = 10, 4
_HOLDS_FAILED = "it does not unmap what failed to load"
_KERNEL32 = "import ctypes; k = ctypes.WinDLL('kernel32.dll'); k.SetErrorMode(3); "
_HEAP_BITS = 0x70
"""FLG_HEAP_ENABLE_TAIL_CHECK, _FREE_CHECK and _VALIDATE_PARAMETERS in PEB.NtGlobalFlag: the debug heap."""


def questions() -> tuple[Question, ...]:
    """Return the questions of the group "debugger"."""
    return (
        Question(NAME, "a helper", "a python.exe is there that can be the debugger of this process", _ask_helper),
        Question(NAME, "a good load", "an event with its path", lambda room: ask_good(room, NAME)),
        Question(NAME, "a load with a need", "an event for each", lambda room: ask_dependency(room, NAME)),
        Question(NAME, "FreeLibrary", "an unload, no failure", lambda room: ask_unload(room, NAME)),
        Question(
            NAME, "a missing need", "the DLL is mapped, then dropped: Failed", lambda room: ask_failed(room, NAME),
            on_wine=_HOLDS_FAILED,
        ),
        Question(
            NAME, "a failing import", "Failed, with the import that asked", lambda room: ask_import(room, NAME),
            on_wine=_HOLDS_FAILED,
        ),
        Question(NAME, "a DllMain that refuses", "Failed", lambda room: ask_refused(room, NAME)),
        Question(
            NAME, "attach and detach", f"{_ROUNDS} rounds while {_THREADS} threads load, nothing lost", _ask_rounds
        ),
        Question(NAME, "a killed helper", "this process lives on, and the trace says what happened", _ask_killed),
        Question(NAME, "a program", "its status, its loads, its debug strings", _ask_program),
        Question(NAME, "no debug heap", "a debugged program has the heap that it has alone", _ask_heap),
        Question(NAME, "a fault", "0xc0000005, its address and its image", _ask_fault),
        Question(
            NAME, "abort and fail-fast", "the program ends with 0xc0000602, or 0xc0000409", _ask_fail_fast,
            on_wine="it may end such a program in another way",
        ),
        Question(
            NAME, "harmless exceptions", "a thread's name, a breakpoint and a C++ exception end no program",
            _ask_exceptions, on_wine="Wine 8 hangs on some of them",
        ),
        Question(NAME, "an invalid handle", "CloseHandle fails as it does alone", _ask_handle),
        Question(NAME, "loader snaps", "to be learned: whether the PEB's flag makes the loader talk", _ask_snaps),
        Question(NAME, "this Python as a program", "its redirector is passed, its images are seen", _ask_python),
    )  # fmt: skip


def _ask_helper(room: Room) -> Answer:
    try:
        found = find_pythons()
    except BackendUnavailable as error:
        raise CannotAsk(error.reason) from error
    room.note("in order", ", ".join(found))
    return bool(found), f"{len(found)} found"


def _ask_rounds(room: Room) -> Answer:
    from ..trace import Trace

    paths = [
        [room.place("good", f"r{number}-{thread}-{room.letter}.dll") for number in range(_ROUNDS)]
        for thread in range(_THREADS)
    ]
    lost = 0
    for number in range(_ROUNDS):
        trace = Trace(backend=NAME)
        with trace:
            threads = [
                threading.Thread(target=ctypes.CDLL, args=(mine[number],), daemon=True) for mine in paths
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        assert trace.recording is not None
        seen = {os.path.normcase(event.shown_path) for event in trace.recording.loads}
        lost += sum(os.path.normcase(mine[number]) not in seen for mine in paths)
        room.note(f"losses of round {number}", trace.recording.losses)
    return lost == 0, f"{_ROUNDS * _THREADS - lost} of {_ROUNDS * _THREADS} loads"


def _ask_killed(room: Room) -> Answer:
    from ..trace import Trace

    trace = Trace(backend=NAME)
    with trace:
        ctypes.CDLL(room.place("good", f"good-{room.letter}.dll"))
        helpers = _children(room)
        for pid in helpers:
            subprocess.run(
                [_system("taskkill.exe"), "/F", "/PID", str(pid)], stdin=subprocess.DEVNULL, capture_output=True,
                timeout=20, check=False,
            )  # fmt: skip
    assert trace.recording is not None
    for note in trace.recording.notes:
        room.note("note", note)
    if len(helpers) != 1:
        raise CannotAsk(f"{len(helpers)} processes were found that could be the helper")
    found = [note for note in trace.recording.notes if "helper" in note]
    return bool(found), found[0] if found else "no note says so"


def _system(name: str) -> str:
    return os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", name)


def _children(room: Room) -> list[int]:
    """Processes that this one started (CreateToolhelp32Snapshot, Process32FirstW)."""
    kernel32 = WindowsApi().kernel32
    kernel32.CreateToolhelp32Snapshot.restype = ctypes.c_void_p
    kernel32.CreateToolhelp32Snapshot.argtypes = (ctypes.c_uint32, ctypes.c_uint32)
    for name in ("Process32FirstW", "Process32NextW"):
        getattr(kernel32, name).argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    kernel32.CloseHandle.argtypes = (ctypes.c_void_p,)

    class Entry(ctypes.Structure):
        _fields_ = (
            ("size", ctypes.c_uint32), ("usage", ctypes.c_uint32), ("pid", ctypes.c_uint32),
            ("heap", ctypes.c_size_t), ("module", ctypes.c_uint32), ("threads", ctypes.c_uint32),
            ("parent", ctypes.c_uint32), ("priority", ctypes.c_int32), ("flags", ctypes.c_uint32),
            ("file", ctypes.c_wchar * 260),
        )  # fmt: skip

    snapshot = kernel32.CreateToolhelp32Snapshot(2, 0)  # TH32CS_SNAPPROCESS
    entry = Entry(size=ctypes.sizeof(Entry))
    found = []
    more = kernel32.Process32FirstW(snapshot, ctypes.byref(entry))
    while more:
        if entry.parent == os.getpid() and entry.file.lower().startswith("python"):
            found.append(int(entry.pid))
        more = kernel32.Process32NextW(snapshot, ctypes.byref(entry))
    kernel32.CloseHandle(snapshot)
    return found


def _debug(room: Room, code: str, *arguments: str) -> tuple[DebuggedRun, str]:
    """Run Python code as its debugger; the run, and what it wrote."""
    output = room.path(f"output-{len(os.listdir(room.folder))}")
    with open(output, "wb") as stream:
        ran = run_debugged([sys.executable, "-c", code, *arguments], output=stream.fileno(), cwd=room.folder)
    with open(output, "rb") as stream:
        text = stream.read().decode("utf-8", "replace").strip()
    room.note("status", f"{ran.status:#x}")
    room.note("output", text[-800:])
    for note in ran.notes[:20]:
        room.note("note", note)
    if ran.crash is not None:
        room.note("crash", ran.crash)
    return ran, text


def _ask_program(room: Room) -> Answer:
    path = room.place("good", f"good-{room.letter}.dll")
    ran, text = _debug(
        room,
        _KERNEL32 + "import sys; k.OutputDebugStringW('dlltracer selftest'); ctypes.CDLL(sys.argv[1]); print('done'); "
        "sys.exit(7)", path,
    )  # fmt: skip
    seen = os.path.normcase(path) in [os.path.normcase(getattr(event, "shown_path", "")) for event in ran.events]
    has_string = any("dlltracer selftest" in note for note in ran.notes)
    room.note("events", len(ran.events))
    right = ran.status == 7 and seen and has_string and text == "done"
    return right, f"status {ran.status}; seen: its load {seen}, its string {has_string}"


def _ask_heap(room: Room) -> Answer:
    offset = 0xBC if struct.calcsize("P") == 8 else 0x68  # PEB.NtGlobalFlag (ntdll.pdb)
    code = (
        "import ctypes; from dlltracer.selftest.windows_api import WindowsApi; "
        f"print(ctypes.c_uint32.from_address(WindowsApi().peb() + {offset}).value)"
    )
    ran, text = _debug(room, f"import sys; sys.path.insert(0, sys.argv[1]); {code}", _root())
    flags = int(text) if text.isdecimal() else -1
    return ran.status == 0 and flags & _HEAP_BITS == 0, f"NtGlobalFlag {flags:#x}"


def _root() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _ask_fault(room: Room) -> Answer:
    ran, _ = _debug(room, "import faulthandler; faulthandler._read_null()")
    crash = ran.crash
    if crash is None:
        return False, f"no crash, status {ran.status:#x}"
    image = os.path.basename(crash.image or "").lower()
    right = crash.code == 0xC0000005 and ran.status == 0xC0000005 and image.startswith("python")
    return right, f"{crash.name_and_code} in {image}, fault address {crash.fault_address}"


def _ask_fail_fast(room: Room) -> Answer:
    ran, _ = _debug(room, _KERNEL32 + "k.RaiseFailFastException(None, None, 0)")
    aborted, _ = _debug(room, "import os; os.abort()")
    room.note("os.abort", f"{aborted.status:#x}")
    right = ran.status in (0xC0000409, 0xC0000602) and aborted.status != 0
    return right, f"fail-fast {ran.status:#x}, os.abort {aborted.status:#x}"


def _ask_exceptions(room: Room) -> Answer:
    """Ask whether ctypes turns an unhandled exception into an OSError, so that the program goes on."""
    code = _KERNEL32 + (
        "\nfor number in (0x406D1388, 0x80000003, 0xE06D7363):\n"
        "    try:\n        k.RaiseException(number, 0, 0, None)\n"
        "    except OSError as error:\n        print(hex(number), type(error).__name__)\n"
        "print('alive')"
    )
    ran, text = _debug(room, code)
    alone = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False, text=True
    )
    room.note("alone", f"status {alone.returncode:#x}: {alone.stdout.strip()}")
    same = ran.status == alone.returncode & 0xFFFFFFFF and text.split() == alone.stdout.split()
    return same, f"status {ran.status:#x}, {'as it is alone' if same else 'unlike it is alone'}"


def _ask_handle(room: Room) -> Answer:
    """Under a debugger CloseHandle raises 0xC0000008 for a handle that is none ("CloseHandle", MS Learn)."""
    code = _KERNEL32 + (
        "\ntry:\n    print(k.CloseHandle(ctypes.c_void_p(0x12344)))\nexcept OSError as error:\n    print(error)\n"
    )
    ran, text = _debug(room, code)
    return ran.status == 0 and bool(text), f"status {ran.status}: {text or 'nothing'}"


def _ask_snaps(room: Room) -> Answer:
    """FLG_SHOW_LDR_SNAPS in PEB.NtGlobalFlag, set by the program itself: Windows may read it at the start only."""
    offset = 0xBC if struct.calcsize("P") == 8 else 0x68
    path = room.place("needs-missing", f"needs-{room.letter}.dll")
    code = (
        "import ctypes, sys; sys.path.insert(0, sys.argv[1]); from dlltracer.selftest.windows_api import WindowsApi\n"
        f"flags = ctypes.c_uint32.from_address(WindowsApi().peb() + {offset}); flags.value |= 2\n"
        "print(WindowsApi().load(sys.argv[2])[1])"
    )
    ran, text = _debug(room, code, _root(), path)
    messages = [note for note in ran.notes if "Ldr" in note or "LDR" in note]
    named = [note for note in messages if f"dt_gone{room.letter}" in note]
    room.note("messages of the loader", len(messages))
    room.note("that name the missing DLL", len(named))
    return ran.status == 0 and text == "126", f"error {text}; {len(messages)} messages, {len(named)} name the DLL"


def _ask_python(room: Room) -> Answer:
    ran, text = _debug(room, "import sys, os; print(os.path.basename(sys.executable), sys.prefix != sys.base_prefix)")
    names = [os.path.basename(getattr(event, "shown_path", "")).lower() for event in ran.events]
    room.note("first images", ", ".join(names[:6]))
    wanted = f"python3{sys.version_info[1]}"
    seen = any(name.startswith(wanted) and name.endswith(".dll") for name in names)
    return ran.status == 0 and seen, f"{text}; {len(names)} events, first {names[0] if names else 'none'}"
