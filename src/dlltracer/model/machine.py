"""Names of the processors that ELF files are made for. Source: e_machine of the System V ABI."""

from __future__ import annotations

import enum

EM_X86_64, EM_RISCV = 62, 243

_MACHINES = {
    2: "SPARC", 3: "x86 (32 bit)", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 22: "S390", 40: "ARM (32 bit)",
    43: "SPARC64", EM_X86_64: "x86-64", 183: "AArch64", EM_RISCV: "RISC-V", 258: "LoongArch",
}  # fmt: skip


def describe_kind(bits: int, little_endian: bool, machine: int) -> str:
    """Words for what a file or a process is made for.

    Arguments: as in the header of an ELF file; `bits` 32 or 64, `machine` is e_machine.
    """
    name = _MACHINES.get(machine, f"machine {machine}")
    if machine in (EM_X86_64, EM_RISCV) and bits == 32:
        name += " (32 bit)"  # x32; RISC-V has both
    return name if little_endian else f"{name}, big endian"


class System(enum.Enum):
    """The family of loaders that a process lives with."""

    LINUX = "linux"
    WINDOWS = "windows"
    OTHER = "other"
