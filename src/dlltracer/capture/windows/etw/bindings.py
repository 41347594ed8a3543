"""The structures and functions of Event Tracing for Windows, as ctypes sees them. Importable on any system.

Source: evntrace.h, evntcons.h, evntprov.h and wmistr.h of the Windows SDK, whose spelling is kept here only; "Event
Tracing Functions" of MS Learn. All functions return a Windows error code, except OpenTraceW. Fields have fixed widths
(`wintypes.ULONG` is 8 bytes on Linux), so the layouts can be checked on any system; the sizes and offsets are those of
x64 and ARM64, and of x86 in a 32-bit process on Windows.
"""

# ruff: noqa: N801
from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p, c_wchar_p

from ..system import open_system_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

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

PROCESS_QUERY_LIMITED_INFORMATION = 0x1000
STILL_ACTIVE = 259

WNODE_FLAG_TRACED_GUID = 0x00020000
EVENT_TRACE_REAL_TIME_MODE = 0x00000100
EVENT_TRACE_SYSTEM_LOGGER_MODE = 0x02000000
EVENT_TRACE_FLAG_IMAGE_LOAD = 0x00000004
EVENT_TRACE_FLAG_NO_SYSCONFIG = 0x10000000
EVENT_CONTROL_CODE_ENABLE_PROVIDER = 1
EVENT_TRACE_CONTROL_STOP = 1
EVENT_TRACE_CONTROL_FLUSH = 3
PROCESS_TRACE_MODE_REAL_TIME = 0x00000100
PROCESS_TRACE_MODE_RAW_TIMESTAMP = 0x00001000
PROCESS_TRACE_MODE_EVENT_RECORD = 0x10000000
INVALID_PROCESSTRACE_HANDLES = (0x00000000FFFFFFFF, 0xFFFFFFFFFFFFFFFF)
"""What OpenTraceW returns when it fails: (UINT64)UINTPTR_MAX, in a process of 32 bits and of 64 ("OpenTraceW", MS
Learn)."""
CLIENT_CONTEXT_QPC = 1
KERNEL_LOGGER_NAMEW = "NT Kernel Logger"


class GUID(ctypes.Structure):
    _fields_ = (("Data1", c_uint32), ("Data2", c_uint16), ("Data3", c_uint16), ("Data4", c_uint8 * 8))


class WNODE_HEADER(ctypes.Structure):
    _fields_ = (
        ("BufferSize", c_uint32),
        ("ProviderId", c_uint32),
        ("HistoricalContext", c_uint64),
        ("TimeStamp", c_int64),
        ("Guid", GUID),
        ("ClientContext", c_uint32),
        ("Flags", c_uint32),
    )


class EVENT_TRACE_PROPERTIES(ctypes.Structure):
    _fields_ = (
        ("Wnode", WNODE_HEADER),
        ("BufferSize", c_uint32),
        ("MinimumBuffers", c_uint32),
        ("MaximumBuffers", c_uint32),
        ("MaximumFileSize", c_uint32),
        ("LogFileMode", c_uint32),
        ("FlushTimer", c_uint32),
        ("EnableFlags", c_uint32),
        ("AgeLimit", c_int32),
        ("NumberOfBuffers", c_uint32),
        ("FreeBuffers", c_uint32),
        ("EventsLost", c_uint32),
        ("BuffersWritten", c_uint32),
        ("LogBuffersLost", c_uint32),
        ("RealTimeBuffersLost", c_uint32),
        ("LoggerThreadId", c_void_p),
        ("LogFileNameOffset", c_uint32),
        ("LoggerNameOffset", c_uint32),
    )


class EVENT_TRACE_HEADER(ctypes.Structure):
    _fields_ = (
        ("Size", c_uint16),
        ("FieldTypeFlags", c_uint16),
        ("Version", c_uint32),
        ("ThreadId", c_uint32),
        ("ProcessId", c_uint32),
        ("TimeStamp", c_int64),
        ("Guid", GUID),
        ("ProcessorTime", c_uint64),
    )


class EVENT_TRACE(ctypes.Structure):
    _fields_ = (
        ("Header", EVENT_TRACE_HEADER),
        ("InstanceId", c_uint32),
        ("ParentInstanceId", c_uint32),
        ("ParentGuid", GUID),
        ("MofData", c_void_p),
        ("MofLength", c_uint32),
        ("ClientContext", c_uint32),
    )


class SYSTEMTIME(ctypes.Structure):
    _fields_ = tuple(
        (f"w{part}", c_uint16)
        for part in ["Year", "Month", "DayOfWeek", "Day", "Hour", "Minute", "Second", "Milliseconds"]
    )


class TIME_ZONE_INFORMATION(ctypes.Structure):
    _fields_ = (
        ("Bias", c_int32),
        ("StandardName", c_uint16 * 32),
        ("StandardDate", SYSTEMTIME),
        ("StandardBias", c_int32),
        ("DaylightName", c_uint16 * 32),
        ("DaylightDate", SYSTEMTIME),
        ("DaylightBias", c_int32),
    )


class TRACE_LOGFILE_HEADER(ctypes.Structure):
    _fields_ = (
        ("BufferSize", c_uint32),
        ("Version", c_uint32),
        ("ProviderVersion", c_uint32),
        ("NumberOfProcessors", c_uint32),
        ("EndTime", c_int64),
        ("TimerResolution", c_uint32),
        ("MaximumFileSize", c_uint32),
        ("LogFileMode", c_uint32),
        ("BuffersWritten", c_uint32),
        ("StartBuffers", c_uint32),
        ("PointerSize", c_uint32),
        ("EventsLost", c_uint32),
        ("CpuSpeedInMHz", c_uint32),
        ("LoggerName", c_void_p),
        ("LogFileName", c_void_p),
        ("TimeZone", TIME_ZONE_INFORMATION),
        ("BootTime", c_int64),
        ("PerfFreq", c_int64),
        ("StartTime", c_int64),
        ("ReservedFlags", c_uint32),
        ("BuffersLost", c_uint32),
    )


class EVENT_TRACE_LOGFILEW(ctypes.Structure):
    _fields_ = (
        ("LogFileName", c_void_p),
        ("LoggerName", c_void_p),
        ("CurrentTime", c_int64),
        ("BuffersRead", c_uint32),
        ("ProcessTraceMode", c_uint32),
        ("CurrentEvent", EVENT_TRACE),
        ("LogfileHeader", TRACE_LOGFILE_HEADER),
        ("BufferCallback", c_void_p),
        ("BufferSize", c_uint32),
        ("Filled", c_uint32),
        ("EventsLost", c_uint32),
        ("EventRecordCallback", c_void_p),
        ("IsKernelTrace", c_uint32),
        ("Context", c_void_p),
    )


class EVENT_DESCRIPTOR(ctypes.Structure):
    _fields_ = (
        ("Id", c_uint16),
        ("Version", c_uint8),
        ("Channel", c_uint8),
        ("Level", c_uint8),
        ("Opcode", c_uint8),
        ("Task", c_uint16),
        ("Keyword", c_uint64),
    )


class EVENT_HEADER(ctypes.Structure):
    _fields_ = (
        ("Size", c_uint16),
        ("HeaderType", c_uint16),
        ("Flags", c_uint16),
        ("EventProperty", c_uint16),
        ("ThreadId", c_uint32),
        ("ProcessId", c_uint32),
        ("TimeStamp", c_int64),
        ("ProviderId", GUID),
        ("EventDescriptor", EVENT_DESCRIPTOR),
        ("ProcessorTime", c_uint64),
        ("ActivityId", GUID),
    )


class ETW_BUFFER_CONTEXT(ctypes.Structure):
    _fields_ = (("ProcessorIndex", c_uint16), ("LoggerId", c_uint16))


class EVENT_RECORD(ctypes.Structure):
    _fields_ = (
        ("EventHeader", EVENT_HEADER),
        ("BufferContext", ETW_BUFFER_CONTEXT),
        ("ExtendedDataCount", c_uint16),
        ("UserDataLength", c_uint16),
        ("ExtendedData", c_void_p),
        ("UserData", c_void_p),
        ("UserContext", c_void_p),
    )


class PROPERTIES_WITH_NAMES(ctypes.Structure):
    """EVENT_TRACE_PROPERTIES and the room behind it that ControlTrace writes the names to (1024 characters each)."""

    _fields_ = (
        ("Properties", EVENT_TRACE_PROPERTIES),
        ("LoggerName", c_uint16 * 1024),
        ("LogFileName", c_uint16 * 1024),
    )


class Etw:
    """The ETW functions of `ETW_LIBRARY`: those of a controller, a consumer and a provider. Windows only."""

    def __init__(self) -> None:
        library = open_system_library(ETW_LIBRARY)
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
    """Return whether this process has the rights of an Administrator, not only its user ("IsUserAnAdmin", MS Learn)."""
    return bool(open_system_library("shell32.dll").IsUserAnAdmin())


def _callback_type() -> Callable[[Callable[[int], None]], Any]:
    if sys.platform == "win32":
        return ctypes.WINFUNCTYPE(None, c_void_p)
    return ctypes.CFUNCTYPE(None, c_void_p)


def process_start(pid: int) -> int | None:
    """When a process was created (FILETIME: 100 ns since 1601): `None` if none of that id runs, 0 if Windows is silent.

    Source: GetProcessTimes, GetExitCodeProcess, MS Learn.
    """
    if sys.platform != "win32":
        return 0
    kernel32 = open_system_library("kernel32.dll")
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
    """Return whether the process of that id and creation time (`process_start`) runs.

    If Windows does not say, it counts as running: no session is stopped on a guess.
    """
    found = process_start(pid)
    return found is not None and (0 in (found, start) or found == start)


def counter_frequency() -> int:
    """Return the ticks of the performance counter in a second (QueryPerformanceFrequency)."""
    if sys.platform != "win32":
        return 1_000_000_000
    kernel32 = open_system_library("kernel32.dll")
    ticks = c_uint64()
    kernel32.QueryPerformanceFrequency(ctypes.byref(ticks))
    return ticks.value

