"""The failure of a program: its exceptions or its crash, and the facts of its interpreter."""

from __future__ import annotations

import enum

from .light import dataclass


class System(enum.Enum):
    """The family of loaders that a process lives with."""

    LINUX = "linux"
    WINDOWS = "windows"
    OTHER = "other"


@dataclass(frozen=True)
class Frame:
    """A line of a traceback: `source` is its text where it is known."""

    file: str
    line: int
    function: str
    source: str | None = None


@dataclass(frozen=True)
class PythonError:
    """An exception.

    Attributes:
        type: name of its class; `bases`, the names of the classes below it, the class itself among them.
        message: its text.
        name, path: as an ImportError has them: the module, and the file of an extension module.
        code: winerror on Windows, else errno; `None` for an ImportError, which has none.
        frames: its traceback, outermost first.
    """

    type: str
    message: str
    bases: tuple[str, ...] = ()
    name: str | None = None
    path: str | None = None
    code: int | None = None
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True)
class ProcessFacts:
    """The facts of an interpreter when its program failed.

    Attributes:
        system: its family of loaders.
        version: of Python: major, minor, micro.
        suffixes: the endings of extension modules that it imports, best first.
        bits: 32 or 64.
        is_debug, is_free_threaded: the kind of build.
        executable, prefix, base_prefix, user_base: as `sys` and `site` have them.
        path: sys.path.
        loaded: files of the images in the process, in no order.
        environment: the variables that a loader looks at: LD_LIBRARY_PATH, LD_PRELOAD, PATH, CONDA_PREFIX.
        start_environment: LD_LIBRARY_PATH, LD_PRELOAD and GLIBC_TUNABLES as they were when the process began, which
            is when a loader of Linux reads them; `None` if that is not known.
        is_secure: the process runs in secure mode (AT_SECURE): its loader ignores LD_LIBRARY_PATH and LD_PRELOAD.
        current_folder: the current folder.
        added_folders: of os.add_dll_directory, in order of the calls; those taken back are among them.
        dll_directory: of SetDllDirectoryW; `None` if it was not called, or not on Windows.
        address_space, address_space_limit: bytes of it in use, and allowed (RLIMIT_AS); `None` if not limited, or not
            known.
    """

    system: System
    version: tuple[int, int, int]
    suffixes: tuple[str, ...]
    bits: int
    executable: str
    prefix: str
    base_prefix: str
    path: tuple[str, ...] = ()
    loaded: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    current_folder: str = ""
    added_folders: tuple[str, ...] = ()
    dll_directory: str | None = None
    user_base: str | None = None
    is_debug: bool = False
    is_free_threaded: bool = False
    address_space: int | None = None
    address_space_limit: int | None = None
    start_environment: tuple[tuple[str, str], ...] | None = None
    is_secure: bool = False

    def variable(self, name: str) -> str:
        """Return a variable of the environment when the program failed; empty when it is not set."""
        return dict(self.environment).get(name, "")

    @property
    def loader_environment(self) -> dict[str, str]:
        """The variables as the loader of Linux goes by them: with their values at the start, if these are known."""
        return dict(self.environment if self.start_environment is None else self.start_environment)


STACK_OVERFLOW = "stack overflow"
"""In the name of a crash on Linux too: "SIGSEGV, stack overflow"."""
ACCESS_VIOLATION, IN_PAGE_ERROR = 0xC0000005, 0xC0000006
FAULTS = {
    ACCESS_VIOLATION: "access violation",
    IN_PAGE_ERROR: "in-page error",
    0xC000001D: "illegal instruction",
    0xC000008C: "array bounds exceeded",
    0xC0000094: "integer division by zero",
    0xC0000095: "integer overflow",
    0xC0000096: "privileged instruction",
    0xC00000FD: STACK_OVERFLOW,
    0x80000002: "datatype misalignment",
}
"""Those that are a fault of an instruction."""

DLL_NOT_FOUND, FUNCTION_NOT_FOUND = 0xC06D007E, 0xC06D007F
DELAY_LOAD = (DLL_NOT_FOUND, FUNCTION_NOT_FOUND)
"""VcppException(ERROR_SEVERITY_ERROR, ERROR_MOD_NOT_FOUND or ERROR_PROC_NOT_FOUND) of delayimp.h: the helper for
delay-loaded DLLs raises it."""
VISUAL_CPP, GNU_CPP = 0xE06D7363, 0x20474343
"""What `throw` raises: Visual C++ (ehdata.h), GCC for Windows (STATUS_GCC_THROW in unwind-seh.c of libgcc)."""

SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS = 4, 5, 6, 7, 8, 11, 31
"""Numbers of Linux (signal(7)). A recording of Linux may be read elsewhere, where `signal` has others."""
CRASH_SIGNALS = (SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS)
"""Signals by which code of the process itself ends it."""

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
    0xC000013A: "ended by Ctrl-C",
    0xC0000139: "entry point not found",
    0xC0000142: "DLL initialization failed",
    0xC0000374: "heap corruption",
    0xC0000409: "fail fast",
    0xC0000420: "assertion failure",
    DLL_NOT_FOUND: "delay-loaded DLL not found",
    FUNCTION_NOT_FOUND: "delay-loaded function not found",
    VISUAL_CPP: "C++ exception",
    GNU_CPP: "C++ exception of GCC",
}
"""Source: ntstatus.h; the last four are of runtimes: delayimp.h and ehdata.h of Visual C++, unwind-seh.c of libgcc."""


def status_name(code: int) -> str | None:
    """Return the name of an exception code of Windows or an NTSTATUS ("access violation"); `None` if it has none."""
    return _NAMES.get(code)


def exception_name(code: int) -> str:
    """Return the name of `status_name`, else the number: "exception 0xe0000001"."""
    return _NAMES.get(code) or f"exception {code:#010x}"


@dataclass(frozen=True)
class Crash:
    """The signal or exception that ended a process. A field is `None` where that is not known.

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
