"""The structures and numbers of the Windows debugging functions, as ctypes sees them.

Source: minwinbase.h, winbase.h, winnt.h and ntstatus.h of the Windows SDK; "DEBUG_EVENT structure" and its parts on
MS Learn; what leads to the command line of a process is of winternl.h. The spelling of the SDK is kept here and in
`debug_bindings` only. Fields have fixed widths, and addresses of the other process are numbers (`c_size_t`), so the
layouts can be checked on any 64-bit system.
"""

# ruff: noqa: N801
from __future__ import annotations

import ctypes
from ctypes import c_int32, c_size_t, c_uint16, c_uint32, c_void_p

DEBUG_PROCESS = 0x00000001
DEBUG_ONLY_THIS_PROCESS = 0x00000002

EXCEPTION_DEBUG_EVENT = 1
CREATE_THREAD_DEBUG_EVENT = 2
CREATE_PROCESS_DEBUG_EVENT = 3
EXIT_THREAD_DEBUG_EVENT = 4
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
