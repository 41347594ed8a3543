"""The Windows functions that the ETW backend calls, with their types. Opened from System32 only: we run as
Administrator, and a DLL of the same name beside the program must not be taken.

Source: "Event Tracing Functions" of MS Learn. All of these return a Windows error code, except OpenTraceW.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_int32, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p, c_wchar_p

from .structs import EVENT_DESCRIPTOR, EVENT_TRACE_LOGFILEW, EVENT_TRACE_PROPERTIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LOAD_LIBRARY_SEARCH_SYSTEM32 = 0x800
ETW_LIBRARY = "advapi32.dll"
"""The one place that names the DLL with the ETW functions; tests put the path of a simulator here."""

ERROR_SUCCESS = 0
ERROR_ACCESS_DENIED = 5
ERROR_INVALID_PARAMETER = 87
ERROR_ALREADY_EXISTS = 183
ERROR_MORE_DATA = 234
ERROR_NO_SYSTEM_RESOURCES = 1450
ERROR_TIMEOUT = 1460
ERROR_WMI_INSTANCE_NOT_FOUND = 4201
ERROR_CTX_CLOSE_PENDING = 7007

PROCESS_QUERY_LIMITED_INFORMATION = 0x1000
STILL_ACTIVE = 259


class Etw:
    """The ETW functions of `ETW_LIBRARY`: those of a controller, a consumer and a provider. Windows only."""

    def __init__(self) -> None:
        library = _open(ETW_LIBRARY)
        properties = POINTER(EVENT_TRACE_PROPERTIES)
        self.callback_type = _callback_type()
        self.StartTraceW = library.StartTraceW
        self.StartTraceW.argtypes = (POINTER(c_uint64), c_wchar_p, properties)
        self.ControlTraceW = library.ControlTraceW
        self.ControlTraceW.argtypes = (c_uint64, c_wchar_p, properties, c_uint32)
        self.ProcessTrace = library.ProcessTrace
        self.ProcessTrace.argtypes = (POINTER(c_uint64), c_uint32, c_void_p, c_void_p)
        self.CloseTrace = library.CloseTrace
        self.CloseTrace.argtypes = (c_uint64,)
        self.QueryAllTracesW = library.QueryAllTracesW
        self.QueryAllTracesW.argtypes = (POINTER(properties), c_uint32, POINTER(c_uint32))
        self.EnableTraceEx2 = library.EnableTraceEx2
        self.EnableTraceEx2.argtypes = (
            c_uint64, c_void_p, c_uint32, c_uint8, c_uint64, c_uint64, c_uint32, c_void_p,
        )  # fmt: skip
        self.EventRegister = library.EventRegister
        self.EventRegister.argtypes = (c_void_p, c_void_p, c_void_p, POINTER(c_uint64))
        self.EventWrite = library.EventWrite
        self.EventWrite.argtypes = (c_uint64, POINTER(EVENT_DESCRIPTOR), c_uint32, c_void_p)
        self.EventUnregister = library.EventUnregister
        self.EventUnregister.argtypes = (c_uint64,)
        for function in (
            self.StartTraceW, self.ControlTraceW, self.ProcessTrace, self.CloseTrace, self.QueryAllTracesW,
            self.EnableTraceEx2, self.EventRegister, self.EventWrite, self.EventUnregister,
        ):  # fmt: skip
            function.restype = c_uint32
        self.OpenTraceW = library.OpenTraceW
        self.OpenTraceW.argtypes = (POINTER(EVENT_TRACE_LOGFILEW),)
        self.OpenTraceW.restype = c_uint64


def is_administrator() -> bool:
    """Whether this process has the rights of an Administrator, not only its user ("IsUserAnAdmin", MS Learn)."""
    return bool(_open("shell32.dll").IsUserAnAdmin())


def _open(name: str) -> ctypes.CDLL:
    if sys.platform == "win32":
        return ctypes.WinDLL(name, use_last_error=True, winmode=LOAD_LIBRARY_SEARCH_SYSTEM32)
    raise OSError("ETW exists on Windows only")


def _callback_type() -> Callable[[Callable[[int], None]], Any]:
    if sys.platform == "win32":
        return ctypes.WINFUNCTYPE(None, c_void_p)
    return ctypes.CFUNCTYPE(None, c_void_p)


def query_dos_devices() -> dict[str, str]:
    """Device -> drive, as `{"\\Device\\HarddiskVolume3": "C:"}`, for every drive letter there is (QueryDosDeviceW)."""
    if sys.platform != "win32":
        return {}
    kernel32 = ctypes.WinDLL("kernel32.dll", winmode=LOAD_LIBRARY_SEARCH_SYSTEM32)
    query = kernel32.QueryDosDeviceW
    query.argtypes, query.restype = (c_wchar_p, c_void_p, c_uint32), c_uint32
    room = (c_uint16 * 1024)()
    found: dict[str, str] = {}
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        if query(f"{letter}:", room, len(room)):
            device = bytes(room).decode("utf-16-le", "surrogatepass").split("\0", 1)[0]
            found.setdefault(device, f"{letter}:")
    return found


def process_start(pid: int) -> int | None:
    """When a process was created (FILETIME: 100 ns since 1601): `None` if none of that id runs, 0 if Windows is silent.

    Source: GetProcessTimes, GetExitCodeProcess, MS Learn.
    """
    if sys.platform != "win32":
        return 0
    kernel32 = ctypes.WinDLL("kernel32.dll", use_last_error=True, winmode=LOAD_LIBRARY_SEARCH_SYSTEM32)
    kernel32.OpenProcess.argtypes, kernel32.OpenProcess.restype = (c_uint32, c_int32, c_uint32), c_void_p
    kernel32.GetExitCodeProcess.argtypes = (c_void_p, POINTER(c_uint32))
    kernel32.GetProcessTimes.argtypes = (c_void_p, *(POINTER(c_uint64),) * 4)
    kernel32.CloseHandle.argtypes = (c_void_p,)
    handle = kernel32.OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid)
    if not handle:
        return None if ctypes.get_last_error() == ERROR_INVALID_PARAMETER else 0
    try:
        status = c_uint32()
        if kernel32.GetExitCodeProcess(handle, ctypes.byref(status)) and status.value != STILL_ACTIVE:
            return None
        times = [c_uint64() for _ in range(4)]
        return times[0].value if kernel32.GetProcessTimes(handle, *map(ctypes.byref, times)) else 0
    finally:
        kernel32.CloseHandle(handle)


def is_process_alive(pid: int, start: int) -> bool:
    """Whether the process of that id and creation time runs. Where Windows will not say, it does: nobody's session is
    stopped on a guess."""
    found = process_start(pid)
    return found is not None and (0 in (found, start) or found == start)


def counter_frequency() -> int:
    """Ticks of the performance counter in a second (QueryPerformanceFrequency)."""
    if sys.platform != "win32":
        return 1_000_000_000
    kernel32 = ctypes.WinDLL("kernel32.dll", winmode=LOAD_LIBRARY_SEARCH_SYSTEM32)
    ticks = c_uint64()
    kernel32.QueryPerformanceFrequency(ctypes.byref(ticks))
    return ticks.value


def last_error() -> int:
    """GetLastError as the last ETW call left it."""
    if sys.platform == "win32":
        return ctypes.get_last_error()
    return 0
