"""Sizes and offsets of the ETW structures, as the Windows SDK's headers give them for x64 and ARM64."""

from __future__ import annotations

import ctypes

import pytest

from dlltracer.capture.windows.etw import bindings

pytestmark = pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="the table is that of 64-bit processes")

SIZES = {
    "GUID": 16, "WNODE_HEADER": 48, "EVENT_TRACE_PROPERTIES": 120, "EVENT_TRACE_HEADER": 48, "EVENT_TRACE": 88,
    "SYSTEMTIME": 16, "TIME_ZONE_INFORMATION": 172, "TRACE_LOGFILE_HEADER": 280, "EVENT_TRACE_LOGFILEW": 448,
    "EVENT_DESCRIPTOR": 16, "EVENT_HEADER": 80, "ETW_BUFFER_CONTEXT": 4, "EVENT_RECORD": 112,
}  # fmt: skip
OFFSETS = {
    "WNODE_HEADER": {"TimeStamp": 16, "Guid": 24, "ClientContext": 40, "Flags": 44},
    "EVENT_TRACE_PROPERTIES": {
        "BufferSize": 48, "LogFileMode": 64, "EnableFlags": 72, "EventsLost": 88, "LogBuffersLost": 96,
        "RealTimeBuffersLost": 100, "LoggerThreadId": 104, "LogFileNameOffset": 112, "LoggerNameOffset": 116,
    },
    "TRACE_LOGFILE_HEADER": {"PointerSize": 44, "TimeZone": 72, "BootTime": 248, "PerfFreq": 256, "BuffersLost": 276},
    "EVENT_TRACE_LOGFILEW": {
        "LoggerName": 8, "ProcessTraceMode": 28, "CurrentEvent": 32, "LogfileHeader": 120, "EventRecordCallback": 424,
        "Context": 440,
    },
    "EVENT_HEADER": {
        "Flags": 4, "ThreadId": 8, "ProcessId": 12, "TimeStamp": 16, "ProviderId": 24, "EventDescriptor": 40,
    },
    "EVENT_DESCRIPTOR": {"Version": 2, "Opcode": 5, "Keyword": 8},
    "EVENT_RECORD": {"BufferContext": 80, "UserDataLength": 86, "ExtendedData": 88, "UserData": 96, "UserContext": 104},
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_size(name: str) -> None:
    assert ctypes.sizeof(getattr(bindings, name)) == SIZES[name]


@pytest.mark.parametrize("name", OFFSETS)
def test_offsets(name: str) -> None:
    kind = getattr(bindings, name)
    assert {field: getattr(kind, field).offset for field in OFFSETS[name]} == OFFSETS[name]


def test_the_names_have_room_behind_the_properties() -> None:
    room = bindings.PROPERTIES_WITH_NAMES
    assert room.LoggerName.offset == 120 and ctypes.sizeof(room) == 120 + 2 * 2 * 1024
