"""Sizes and offsets of the structures of debugging, as the Windows SDK's headers give them for x64 and ARM64."""

from __future__ import annotations

import ctypes

import pytest

from dlltracer.capture.windows.debugger import bindings

pytestmark = pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="the table is that of 64-bit processes")

SIZES = {
    "EXCEPTION_RECORD": 152, "EXCEPTION_DEBUG_INFO": 160, "CREATE_THREAD_DEBUG_INFO": 24,
    "CREATE_PROCESS_DEBUG_INFO": 72, "EXIT_THREAD_DEBUG_INFO": 4, "EXIT_PROCESS_DEBUG_INFO": 4,
    "LOAD_DLL_DEBUG_INFO": 40, "UNLOAD_DLL_DEBUG_INFO": 8, "OUTPUT_DEBUG_STRING_INFO": 16, "RIP_INFO": 8,
    "DEBUG_EVENT_UNION": 160, "DEBUG_EVENT": 176, "UNICODE_STRING": 16, "PROCESS_BASIC_INFORMATION": 48,
}  # fmt: skip
OFFSETS = {
    "EXCEPTION_RECORD": {
        "ExceptionCode": 0, "ExceptionFlags": 4, "ExceptionRecord": 8, "ExceptionAddress": 16, "NumberParameters": 24,
        "ExceptionInformation": 32,
    },
    "EXCEPTION_DEBUG_INFO": {"ExceptionRecord": 0, "dwFirstChance": 152},
    "CREATE_PROCESS_DEBUG_INFO": {
        "hFile": 0, "hProcess": 8, "hThread": 16, "lpBaseOfImage": 24, "dwDebugInfoFileOffset": 32,
        "nDebugInfoSize": 36, "lpThreadLocalBase": 40, "lpStartAddress": 48, "lpImageName": 56, "fUnicode": 64,
    },
    "LOAD_DLL_DEBUG_INFO": {
        "hFile": 0, "lpBaseOfDll": 8, "dwDebugInfoFileOffset": 16, "nDebugInfoSize": 20, "lpImageName": 24,
        "fUnicode": 32,
    },
    "OUTPUT_DEBUG_STRING_INFO": {"lpDebugStringData": 0, "fUnicode": 8, "nDebugStringLength": 10},
    "UNICODE_STRING": {"Length": 0, "MaximumLength": 2, "Buffer": 8},
    "PROCESS_BASIC_INFORMATION": {
        "ExitStatus": 0, "PebBaseAddress": 8, "AffinityMask": 16, "BasePriority": 24, "UniqueProcessId": 32,
        "InheritedFromUniqueProcessId": 40,
    },
    "DEBUG_EVENT": {"dwDebugEventCode": 0, "dwProcessId": 4, "dwThreadId": 8, "u": 16},
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_size(name: str) -> None:
    assert ctypes.sizeof(getattr(bindings, name)) == SIZES[name]


@pytest.mark.parametrize("name", OFFSETS)
def test_offsets(name: str) -> None:
    kind = getattr(bindings, name)
    assert {field: getattr(kind, field).offset for field in OFFSETS[name]} == OFFSETS[name]


def test_the_table_has_every_structure() -> None:
    kinds = {name for name, kind in vars(bindings).items() if isinstance(kind, type)}
    assert {name for name in kinds if hasattr(getattr(bindings, name), "_fields_")} == set(SIZES)
