"""The structures and functions of the Windows debugging interface, as ctypes sees them. Importable on any system.

Source: minwinbase.h, winbase.h, winnt.h, ntstatus.h and winternl.h (what leads to the command line of a process) of the
Windows SDK, whose spelling is kept here only; "Debugging Functions", "DEBUG_EVENT structure" and its parts,
"GetFinalPathNameByHandleW", "GetMappedFileNameW", "NtQueryInformationProcess" and "Synchronization Functions" of MS
Learn. Fields have fixed widths, and addresses of the other process are numbers (`c_size_t`), so the layouts can be
checked on any 64-bit system. Every function here is allowed to whoever started the process: no privilege is needed.
"""

# ruff: noqa: N801
from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int32, c_size_t, c_uint16, c_uint32, c_void_p

from ....errors import TraceStartError
from ..system import last_error, open_system_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ERROR_SEM_TIMEOUT = 121
ERROR_ELEVATION_REQUIRED = 740
ERROR_NOT_SUPPORTED = 50

_LONGEST_PATH = 32_768  # characters: "Maximum Path Length Limitation", MS Learn

DEBUG_PROCESS = 0x00000001
DEBUG_ONLY_THIS_PROCESS = 0x00000002

EXCEPTION_DEBUG_EVENT = 1
CREATE_PROCESS_DEBUG_EVENT = 3
EXIT_PROCESS_DEBUG_EVENT = 5
LOAD_DLL_DEBUG_EVENT = 6
UNLOAD_DLL_DEBUG_EVENT = 7
OUTPUT_DEBUG_STRING_EVENT = 8
RIP_EVENT = 9

DBG_CONTINUE = 0x00010002
DBG_EXCEPTION_NOT_HANDLED = 0x80010001

EXCEPTION_MAXIMUM_PARAMETERS = 15


class EXCEPTION_RECORD(ctypes.Structure):
    _fields_ = (
        ("ExceptionCode", c_uint32),
        ("ExceptionFlags", c_uint32),
        ("ExceptionRecord", c_size_t),
        ("ExceptionAddress", c_size_t),
        ("NumberParameters", c_uint32),
        ("ExceptionInformation", c_size_t * EXCEPTION_MAXIMUM_PARAMETERS),
    )


class EXCEPTION_DEBUG_INFO(ctypes.Structure):
    _fields_ = (("ExceptionRecord", EXCEPTION_RECORD), ("dwFirstChance", c_uint32))


class CREATE_THREAD_DEBUG_INFO(ctypes.Structure):
    _fields_ = (("hThread", c_void_p), ("lpThreadLocalBase", c_size_t), ("lpStartAddress", c_size_t))


class CREATE_PROCESS_DEBUG_INFO(ctypes.Structure):
    _fields_ = (
        ("hFile", c_void_p),
        ("hProcess", c_void_p),
        ("hThread", c_void_p),
        ("lpBaseOfImage", c_size_t),
        ("dwDebugInfoFileOffset", c_uint32),
        ("nDebugInfoSize", c_uint32),
        ("lpThreadLocalBase", c_size_t),
        ("lpStartAddress", c_size_t),
        ("lpImageName", c_size_t),
        ("fUnicode", c_uint16),
    )


class EXIT_THREAD_DEBUG_INFO(ctypes.Structure):
    _fields_ = (("dwExitCode", c_uint32),)


class EXIT_PROCESS_DEBUG_INFO(ctypes.Structure):
    _fields_ = (("dwExitCode", c_uint32),)


class LOAD_DLL_DEBUG_INFO(ctypes.Structure):
    _fields_ = (
        ("hFile", c_void_p),
        ("lpBaseOfDll", c_size_t),
        ("dwDebugInfoFileOffset", c_uint32),
        ("nDebugInfoSize", c_uint32),
        ("lpImageName", c_size_t),
        ("fUnicode", c_uint16),
    )


class UNLOAD_DLL_DEBUG_INFO(ctypes.Structure):
    _fields_ = (("lpBaseOfDll", c_size_t),)


class OUTPUT_DEBUG_STRING_INFO(ctypes.Structure):
    _fields_ = (("lpDebugStringData", c_size_t), ("fUnicode", c_uint16), ("nDebugStringLength", c_uint16))


class RIP_INFO(ctypes.Structure):
    _fields_ = (("dwError", c_uint32), ("dwType", c_uint32))


class DEBUG_EVENT_UNION(ctypes.Union):
    """The unnamed `u` of DEBUG_EVENT."""

    _fields_ = (
        ("Exception", EXCEPTION_DEBUG_INFO),
        ("CreateThread", CREATE_THREAD_DEBUG_INFO),
        ("CreateProcessInfo", CREATE_PROCESS_DEBUG_INFO),
        ("ExitThread", EXIT_THREAD_DEBUG_INFO),
        ("ExitProcess", EXIT_PROCESS_DEBUG_INFO),
        ("LoadDll", LOAD_DLL_DEBUG_INFO),
        ("UnloadDll", UNLOAD_DLL_DEBUG_INFO),
        ("DebugString", OUTPUT_DEBUG_STRING_INFO),
        ("RipInfo", RIP_INFO),
    )


class DEBUG_EVENT(ctypes.Structure):
    _fields_ = (
        ("dwDebugEventCode", c_uint32),
        ("dwProcessId", c_uint32),
        ("dwThreadId", c_uint32),
        ("u", DEBUG_EVENT_UNION),
    )


class UNICODE_STRING(ctypes.Structure):
    _fields_ = (("Length", c_uint16), ("MaximumLength", c_uint16), ("Buffer", c_size_t))


class PROCESS_BASIC_INFORMATION(ctypes.Structure):
    _fields_ = (
        ("ExitStatus", c_int32),
        ("PebBaseAddress", c_size_t),
        ("AffinityMask", c_size_t),
        ("BasePriority", c_int32),
        ("UniqueProcessId", c_size_t),
        ("InheritedFromUniqueProcessId", c_size_t),
    )


PARAMETERS_IN_PEB = 4 * ctypes.sizeof(c_void_p)
"""offsetof(PEB, ProcessParameters)"""
COMMAND_LINE_IN_PARAMETERS = 16 + 12 * ctypes.sizeof(c_void_p)
"""offsetof(RTL_USER_PROCESS_PARAMETERS, CommandLine)"""


class Debugging:
    """The functions of kernel32.dll. Windows only: only the thread that starts, or attaches to, a process may call them
    for it."""

    def __init__(self) -> None:
        library = open_system_library("kernel32.dll")
        # Windows 10 and later: only this one tells debug strings in Unicode.
        wait = getattr(library, "WaitForDebugEventEx", None) or library.WaitForDebugEvent
        self._wait = _typed(wait, POINTER(DEBUG_EVENT), c_uint32)
        self._continue = _typed(library.ContinueDebugEvent, c_uint32, c_uint32, c_uint32)
        self._kill_on_exit = _typed(library.DebugSetProcessKillOnExit, c_int32)
        self._attach = _typed(library.DebugActiveProcess, c_uint32)
        self._detach = _typed(library.DebugActiveProcessStop, c_uint32)
        self._read = _typed(library.ReadProcessMemory, c_void_p, c_size_t, c_void_p, c_size_t, POINTER(c_size_t))
        self._close = _typed(library.CloseHandle, c_void_p)
        self._final_path = _typed(library.GetFinalPathNameByHandleW, c_void_p, c_void_p, c_uint32, c_uint32)
        self._mapped_name = _typed(library.K32GetMappedFileNameW, c_void_p, c_size_t, c_void_p, c_uint32)
        self._room = (c_uint16 * _LONGEST_PATH)()

    def wait(self, event: DEBUG_EVENT, milliseconds: int) -> bool:
        """Wait for the next debug event; `False` if none came in time. Raises `TraceStartError` if none can come."""
        if self._wait(ctypes.byref(event), milliseconds):
            return True
        code = last_error()
        if code == ERROR_SEM_TIMEOUT:
            return False
        raise TraceStartError("WaitForDebugEvent", code, "this thread is not the debugger of a process (any more)")

    def attach(self, pid: int) -> int:
        """Become the debugger of a process that runs. Returns Windows' error, 0 when it worked."""
        return 0 if self._attach(pid) else last_error()

    def resume(self, pid: int, tid: int, answer: int) -> None:
        """Let the process run on after an event, which was handled or not (`answer`: DBG_...)."""
        self._continue(pid, tid, answer)

    def keep_alive_without_us(self) -> None:
        """Should this process end first, then the debugged one runs on: by default Windows would end it."""
        self._kill_on_exit(0)

    def detach(self, pid: int) -> None:
        """Stop debugging a process, which runs on. Windows closes the handles that came with its events."""
        self._detach(pid)

    def read_memory(self, process: int, address: int, size: int) -> bytes:
        """Up to `size` bytes at `address` of the process; what follows memory that cannot be read is left out."""
        data, done = ctypes.create_string_buffer(size), c_size_t()
        self._read(process, address, data, size, ctypes.byref(done))
        return data.raw[: done.value]

    def close(self, handle: int) -> None:
        """Close a handle of this process."""
        self._close(handle)

    def file_path(self, file: int) -> str | None:
        """The path of an open file as a Win32 device path (`\\\\?\\C:\\...`); `None` where it has no drive or share."""
        return self._text(self._final_path(file, self._room, _LONGEST_PATH, 0))

    def mapped_path(self, process: int, address: int) -> str | None:
        """The kernel's path (`\\Device\\...`) of the file mapped at an address of the process; `None` if none is."""
        return self._text(self._mapped_name(process, address, self._room, _LONGEST_PATH))

    def _text(self, length: int) -> str | None:
        if not 0 < length < _LONGEST_PATH:
            return None
        return ctypes.string_at(self._room, 2 * length).decode("utf-16-le", "surrogatepass")

    def read_origin(self, process: int) -> tuple[int | None, str]:
        """Return the id of the process that started another one, and its command line; `None` and "" if they cannot be
        read.

        The command line is the program's own copy, at PEB.ProcessParameters (winternl.h).
        """
        query = open_system_library("ntdll.dll").NtQueryInformationProcess
        query.argtypes = (c_void_p, c_uint32, c_void_p, c_uint32, c_void_p)
        query.restype = c_int32
        basic = PROCESS_BASIC_INFORMATION()
        if query(process, 0, ctypes.byref(basic), ctypes.sizeof(basic), None) < 0:
            return None, ""
        parent = int(basic.InheritedFromUniqueProcessId)
        place = self.read_memory(process, basic.PebBaseAddress + PARAMETERS_IN_PEB, ctypes.sizeof(c_size_t))
        at = int.from_bytes(place, "little") + COMMAND_LINE_IN_PARAMETERS
        head = self.read_memory(process, at, ctypes.sizeof(UNICODE_STRING))
        if len(head) < ctypes.sizeof(UNICODE_STRING):
            return parent, ""
        text = UNICODE_STRING.from_buffer_copy(head)
        return parent, self.read_memory(process, text.Buffer, text.Length).decode("utf-16-le", "replace")


    def is_too_wide(self, process: int) -> bool:
        """Return whether we have 32 bits and a process has 64: Windows tells us nothing of what it loads.

        IsWow64Process (MS Learn) is true for a 32-bit process on 64-bit Windows.
        """
        if ctypes.sizeof(c_void_p) == 8:
            return False
        check = _typed(open_system_library("kernel32.dll").IsWow64Process, c_void_p, POINTER(c_int32))
        ours, theirs = c_int32(), c_int32()
        return bool(
            check(c_void_p(-1), ctypes.byref(ours)) and check(process, ctypes.byref(theirs))
            and ours.value and not theirs.value
        )  # fmt: skip


def is_debugged() -> bool:
    """Return whether this process has a debugger: it can have one only (CheckRemoteDebuggerPresent)."""
    check = _typed(open_system_library("kernel32.dll").CheckRemoteDebuggerPresent, c_void_p, POINTER(c_int32))
    found = c_int32()
    return bool(check(c_void_p(-1), ctypes.byref(found))) and bool(found.value)


def create_event() -> int:
    """A new event, not set, that stays set once it is; for `_winapi` and `set_event`. Raises `OSError`."""
    create = open_system_library("kernel32.dll").CreateEventW
    create.argtypes, create.restype = (c_void_p, c_int32, c_int32, c_void_p), c_void_p
    handle: int | None = create(None, 1, 0, None)
    if not handle:
        raise TraceStartError("CreateEvent", last_error(), "Windows has no room for another event")
    return handle


def set_event(handle: int) -> None:
    """Set an event: threads that wait for it go on."""
    _typed(open_system_library("kernel32.dll").SetEvent, c_void_p)(handle)


def temporary_folder() -> str:
    """The folder for temporary files, with a backslash at its end (GetTempPathW)."""
    room = (c_uint16 * 300)()
    length = _typed(open_system_library("kernel32.dll").GetTempPathW, c_uint32, c_void_p)(len(room), room)
    return ctypes.string_at(room, 2 * min(length, len(room))).decode("utf-16-le", "surrogatepass")


def program_path() -> str:
    """Return the path of this process' program (GetModuleFileNameW, MS Learn); "" where Windows does not say."""
    room = (c_uint16 * _LONGEST_PATH)()
    length = _typed(open_system_library("kernel32.dll").GetModuleFileNameW, c_void_p, c_void_p, c_uint32)(
        None, room, len(room)
    )
    return ctypes.string_at(room, 2 * length).decode("utf-16-le", "surrogatepass") if 0 < length < len(room) else ""


def _typed(function: Any, *arguments: Any) -> Any:
    """All of these return a number: zero for a failure, except for the paths, whose length it is."""
    function.argtypes, function.restype = arguments, c_uint32
    return function
