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
    """

    code: int
    name: str
    address: int
    image: str | None
    offset: int | None
    thread: int | None
    fault_address: int | None

    @property
    def name_and_code(self) -> str:
        """ "access violation (0xc0000005)"; the code once, where it is all the name there is."""
        code = f"{self.code:#010x}"
        return self.name if code in self.name else f"{self.name} ({code})"
