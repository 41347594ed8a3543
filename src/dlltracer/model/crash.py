"""A crash: the exception or signal that ended a process, and the instruction it came from."""

from __future__ import annotations

from dataclasses import dataclass


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
