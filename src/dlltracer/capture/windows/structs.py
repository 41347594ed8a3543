"""The structures of Event Tracing for Windows, as ctypes sees them.

Source: evntrace.h, evntcons.h, evntprov.h and wmistr.h of the Windows SDK, whose spelling is kept here and in
`bindings` only. Fields have fixed widths (`wintypes.ULONG` is 8 bytes on Linux), so the layouts can be checked on any
system; the sizes and offsets are those of x64 and ARM64, and of x86 in a 32-bit process on Windows.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p

WNODE_FLAG_TRACED_GUID = 0x00020000
EVENT_TRACE_REAL_TIME_MODE = 0x00000100
EVENT_TRACE_SYSTEM_LOGGER_MODE = 0x02000000
EVENT_TRACE_FLAG_IMAGE_LOAD = 0x00000004
EVENT_TRACE_FLAG_NO_SYSCONFIG = 0x10000000
EVENT_CONTROL_CODE_ENABLE_PROVIDER = 1
EVENT_TRACE_CONTROL_QUERY = 0
EVENT_TRACE_CONTROL_STOP = 1
EVENT_TRACE_CONTROL_FLUSH = 3
PROCESS_TRACE_MODE_REAL_TIME = 0x00000100
PROCESS_TRACE_MODE_RAW_TIMESTAMP = 0x00001000
PROCESS_TRACE_MODE_EVENT_RECORD = 0x10000000
INVALID_PROCESSTRACE_HANDLE = 0xFFFFFFFFFFFFFFFF
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
