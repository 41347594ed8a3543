"""The Windows functions that a debugger calls, with their types. Opened from System32 only.

Source: "Debugging Functions", "GetFinalPathNameByHandleW" and "GetMappedFileNameW" of MS Learn. All that is called
here is allowed to whoever started the process: no privilege is needed.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_int32, c_size_t, c_uint16, c_uint32, c_void_p

from ...errors import TraceStartError
from .bindings import LOAD_LIBRARY_SEARCH_SYSTEM32, last_error
from .debug_structs import DEBUG_EVENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ERROR_SEM_TIMEOUT = 121
ERROR_ELEVATION_REQUIRED = 740
ERROR_NOT_SUPPORTED = 50

_LONGEST_PATH = 32_768  # characters: "Maximum Path Length Limitation", MS Learn


class Debugging:
    """The functions of kernel32.dll. Windows only: only the thread that starts a process may call them for it."""

    def __init__(self) -> None:
        library = _open()
        # Windows 10 and later: only this one tells debug strings in Unicode.
        wait = getattr(library, "WaitForDebugEventEx", None) or library.WaitForDebugEvent
        self._wait = _typed(wait, POINTER(DEBUG_EVENT), c_uint32)
        self._continue = _typed(library.ContinueDebugEvent, c_uint32, c_uint32, c_uint32)
        self._kill_on_exit = _typed(library.DebugSetProcessKillOnExit, c_int32)
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


def _open() -> ctypes.CDLL:
    if sys.platform == "win32":
        return ctypes.WinDLL("kernel32.dll", use_last_error=True, winmode=LOAD_LIBRARY_SEARCH_SYSTEM32)
    raise OSError("processes are debugged on Windows only")


def _typed(function: Any, *arguments: Any) -> Any:
    """All of these return a number: zero for a failure, except for the paths, whose length it is."""
    function.argtypes, function.restype = arguments, c_uint32
    return function
