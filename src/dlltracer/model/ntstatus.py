"""The names of Windows' exceptions, and of the statuses with which it ends a process, for people."""

from __future__ import annotations

ACCESS_VIOLATION, IN_PAGE_ERROR = 0xC0000005, 0xC0000006
FAULTS = {
    ACCESS_VIOLATION: "access violation",
    IN_PAGE_ERROR: "in-page error",
    0xC000001D: "illegal instruction",
    0xC000008C: "array bounds exceeded",
    0xC0000094: "integer division by zero",
    0xC0000095: "integer overflow",
    0xC0000096: "privileged instruction",
    0xC00000FD: "stack overflow",
    0x80000002: "datatype misalignment",
}
"""Those that are a fault of an instruction."""

_NAMES = {
    **FAULTS,
    0x80000001: "guard page violation",
    0x80000003: "breakpoint",
    0x80000004: "single step",
    0xC0000025: "noncontinuable exception",
    0xC000007B: "invalid image format",
    0xC000008E: "floating-point division by zero",
    0xC0000135: "DLL not found",
    0xC0000138: "ordinal not found",
    0xC0000139: "entry point not found",
    0xC0000142: "DLL initialization failed",
    0xC0000374: "heap corruption",
    0xC0000409: "fail fast",
    0xC0000420: "assertion failure",
    0xC06D007E: "delay-loaded DLL not found",
    0xC06D007F: "delay-loaded function not found",
    0xE06D7363: "C++ exception",
    0x20474343: "C++ exception of GCC",
}
"""Source: ntstatus.h; the last four are of runtimes: delayimp.h and ehdata.h of Visual C++, unwind-seh.c of libgcc."""


def status_name(code: int) -> str | None:
    """The name, if there is one."""
    return _NAMES.get(code)


def exception_name(code: int) -> str:
    """The name, or the number."""
    return _NAMES.get(code) or f"exception {code:#010x}"
