"""A crash: the exception or signal that ended a process, and the instruction it came from."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Crash:
    """What ended a process that did not end by itself. A field is `None` where that is not known.

    Attributes:
        code: the NTSTATUS of the exception on Windows (0xC0000005), the number of the signal on Linux (11).
        name: its name for people: "access violation", "SIGSEGV".
        address: of the instruction, in the process.
        image: path of the image that the instruction lies in; `None` outside of every image known.
        offset: of the instruction from the base of that image, in bytes (on Windows its RVA).
        thread: native id of the thread.
        fault_address: the address that could not be read, written or run, if that was the trouble.
        wanted, wanted_symbol: the DLL, and the function, that a delayed load of Windows asked for in vain.
        wanted_by: path of the image whose delayed load that was.
        reason: the error of Windows with which that failed.
        thrown: the type of a C++ exception that nobody caught, as its compiler spells it.
        message: the text of that exception.
    """

    code: int
    name: str
    address: int
    image: str | None
    offset: int | None
    thread: int | None
    fault_address: int | None
    wanted: str | None = None
    wanted_symbol: str | None = None
    wanted_by: str | None = None
    reason: int | None = None
    thrown: str | None = None
    message: str | None = None

    @property
    def name_and_code(self) -> str:
        """ "access violation (0xc0000005)"; the code once, where it is all the name there is."""
        code = f"{self.code:#010x}"
        return self.name if code in self.name else f"{self.name} ({code})"
