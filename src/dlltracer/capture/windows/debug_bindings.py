"""The Windows functions that a debugger calls, with their types. Opened from System32 only.

Source: "Debugging Functions", "GetFinalPathNameByHandleW", "GetMappedFileNameW", "NtQueryInformationProcess" and
"Synchronization Functions" of MS Learn. All that is called here is allowed to whoever started the process: no privilege
is needed.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_int32, c_size_t, c_uint16, c_uint32, c_void_p

from ...errors import TraceStartError
from .bindings import LOAD_LIBRARY_SEARCH_SYSTEM32, last_error
from .debug_structs import (
    COMMAND_LINE_IN_PARAMETERS,
    DEBUG_EVENT,
    PARAMETERS_IN_PEB,
    PROCESS_BASIC_INFORMATION,
    UNICODE_STRING,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ERROR_SEM_TIMEOUT = 121
ERROR_ELEVATION_REQUIRED = 740
ERROR_NOT_SUPPORTED = 50

_LONGEST_PATH = 32_768  # characters: "Maximum Path Length Limitation", MS Learn


class Debugging:
    """The functions of kernel32.dll. Windows only: only the thread that starts, or attaches to, a process may call them
    for it."""

    def __init__(self) -> None:
        library = _open()
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
        """Be its debugger no more; it runs on. Windows closes the handles it gave us with the events."""
        self._detach(pid)

    def read_memory(self, process: int, address: int, size: int) -> bytes:
        """Up to `size` bytes at `address` of the process; what follows memory that cannot be read is left out."""
        data, done = ctypes.create_string_buffer(size), c_size_t()
        self._read(process, address, data, size, ctypes.byref(done))
        return data.raw[: done.value]

    def close(self, handle: int) -> None:
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
        """Who started a process, by its id, and its command line; `None` and "" where that cannot be read.

        The command line is the program's own copy, at PEB.ProcessParameters (winternl.h).
        """
        query = _open("ntdll.dll").NtQueryInformationProcess
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


def is_debugged() -> bool:
    """Whether this process has a debugger: it can have one only (CheckRemoteDebuggerPresent)."""
    check = _typed(_open().CheckRemoteDebuggerPresent, c_void_p, POINTER(c_int32))
    found = c_int32()
    return bool(check(c_void_p(-1), ctypes.byref(found))) and bool(found.value)


def create_event() -> int:
    """A new event, not set, that stays set once it is; for `_winapi` and `set_event`. Raises `OSError`."""
    create = _open().CreateEventW
    create.argtypes, create.restype = (c_void_p, c_int32, c_int32, c_void_p), c_void_p
    handle: int | None = create(None, 1, 0, None)
    if not handle:
        raise TraceStartError("CreateEvent", last_error(), "Windows has no room for another event")
    return handle


def set_event(handle: int) -> None:
    """Set an event: whoever waits for it goes on."""
    _typed(_open().SetEvent, c_void_p)(handle)


def temporary_folder() -> str:
    """The folder for temporary files, with a backslash at its end (GetTempPathW)."""
    room = (c_uint16 * 300)()
    length = _typed(_open().GetTempPathW, c_uint32, c_void_p)(len(room), room)
    return ctypes.string_at(room, 2 * min(length, len(room))).decode("utf-16-le", "surrogatepass")


def _open(name: str = "kernel32.dll") -> ctypes.CDLL:
    if sys.platform == "win32":
        return ctypes.WinDLL(name, use_last_error=True, winmode=LOAD_LIBRARY_SEARCH_SYSTEM32)
    raise OSError("processes are debugged on Windows only")


def _typed(function: Any, *arguments: Any) -> Any:
    """All of these return a number: zero for a failure, except for the paths, whose length it is."""
    function.argtypes, function.restype = arguments, c_uint32
    return function
