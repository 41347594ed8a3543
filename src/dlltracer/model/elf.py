"""Values read from an ELF file: facts about itself, and its needs.

Sources of the names and numbers: elf(5), the generic ABI (gabi) chapters 4 and 5, and for versions the "Linux Standard
Base Core Specification", symbol versioning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .light import Rows, dataclass

ET_EXEC, ET_DYN = 2, 3
PF_X = 1
DF_STATIC_TLS = 0x10
DF_1_NODEFLIB = 0x800
DF_1_PIE = 0x08000000


@dataclass(frozen=True)
class ElfSegment:
    """A program header: type (PT_...), flags (PF_...), file offset, address, sizes in file and memory, alignment."""

    type: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int
    align: int


class ElfSegments(Rows[ElfSegment]):
    """Program headers; the columns are the fields of `ElfSegment`, in its order."""

    __slots__ = ()

    _row = ElfSegment


@dataclass(frozen=True, init=False)
class VersionNeed:
    """A symbol version needed: of which `library` (a soname), its `version` name, `weak` when it may be missing."""

    library: str
    version: str
    weak: bool = False

    def __init__(self, library: str, version: str, weak: bool = False) -> None:
        # A third of the time of the one that dataclass writes, in what is read of every file.
        fields = self.__dict__
        fields["library"] = library
        fields["version"] = version
        fields["weak"] = weak


@dataclass(frozen=True, init=False)
class ElfNeed:
    """An undefined symbol that a relocation uses.

    Attributes:
        name: as in the file, not demangled.
        version: the version asked for; `None` if any will do.
        library: soname that the version is of; `None` without a version.
        weak: nothing fails when it is missing.
    """

    name: str
    version: str | None = None
    library: str | None = None
    weak: bool = False

    def __init__(
        self, name: str, version: str | None = None, library: str | None = None, weak: bool = False
    ) -> None:  # fmt: skip
        fields = self.__dict__  # as in VersionNeed
        fields["name"] = name
        fields["version"] = version
        fields["library"] = library
        fields["weak"] = weak


class ElfNeeds(Rows[ElfNeed]):
    """Undefined symbols that relocations use, in the order of the symbol table."""

    __slots__ = ()

    _row = ElfNeed

    def __init__(
        self,
        names: tuple[str, ...],
        versions: tuple[str | None, ...],
        libraries: tuple[str | None, ...],
        weak: tuple[bool, ...],
    ) -> None:  # fmt: skip
        """Take the fields of `ElfNeed`, of each value one."""
        super().__init__(names, versions, libraries, weak)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each."""
        return self._columns[0]

    @property
    def versions(self) -> tuple[str | None, ...]:
        """The version that each asks for; `None` if any will do."""
        return self._columns[1]

    @property
    def weak(self) -> tuple[bool, ...]:
        """For each need, whether it may be missing."""
        return self._columns[3]


@dataclass(frozen=True)
class ElfSymbols:
    """The dynamic symbols.

    Attributes:
        needs: the undefined ones that a relocation uses.
        provides: the defined, visible ones: name to the versions under which it is defined; `None` stands for no
            version. The version "V" that an unversioned reference gets is listed like any other.
        versioned_only: names among them that only a reference with a version finds.
    """

    needs: Sequence[ElfNeed]
    provides: Mapping[str, tuple[str | None, ...]]
    versioned_only: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ElfImage:
    """An ELF file.

    Attributes:
        bits: 32 or 64.
        little_endian: the byte order.
        machine: e_machine (62: x86-64, 183: AArch64, 3: i386).
        kind: e_type (3: shared object or position-independent program, 2: program).
        abi: EI_OSABI.
        flags: e_flags.
        interpreter: PT_INTERP, the program's loader.
        soname: DT_SONAME.
        needed: DT_NEEDED, in order.
        rpath, runpath: DT_RPATH and DT_RUNPATH, as they stand.
        dynamic_flags, dynamic_flags_1: DT_FLAGS and DT_FLAGS_1.
        segments: the program headers.
        version_needs: the symbol versions needed.
        version_defs: names of the symbol versions defined, the file's own base version left out.
        symbols: the dynamic symbols; `None` when they were not asked for.
        is_dynamic: whether there is a dynamic section at all.
        is_versioned: whether there is a table of version definitions (DT_VERDEF), be it empty of names.
    """

    TAG = "elf"

    bits: int
    little_endian: bool
    machine: int
    kind: int
    abi: int
    flags: int
    interpreter: str | None
    soname: str | None
    needed: tuple[str, ...]
    rpath: str | None
    runpath: str | None
    dynamic_flags: int
    dynamic_flags_1: int
    segments: Sequence[ElfSegment]
    version_needs: tuple[VersionNeed, ...]
    version_defs: tuple[str, ...]
    symbols: ElfSymbols | None = None
    is_dynamic: bool = True
    is_versioned: bool = False

    @property
    def is_program(self) -> bool:
        """True if the kernel starts it: with a loader, at a fixed place (ET_EXEC), or linked as a PIE."""
        return self.interpreter is not None or self.kind == ET_EXEC or bool(self.dynamic_flags_1 & DF_1_PIE)

    @property
    def c_library(self) -> str | None:
        """The C library that it asks for by its needs, "glibc" or "musl"; `None` if it asks for none of these two."""
        if any(need.startswith("libc.musl-") for need in self.needed):
            return "musl"
        return "glibc" if "libc.so.6" in self.needed else None


EM_SPARC, EM_386, EM_MIPS, EM_PPC, EM_PPC64, EM_S390, EM_ARM, EM_SPARCV9 = 2, 3, 8, 20, 21, 22, 40, 43
EM_X86_64, EM_AARCH64, EM_RISCV, EM_LOONGARCH, EM_ALPHA = 62, 183, 243, 258, 0x9026
"""Values of e_machine (elf.h of glibc)."""

_MACHINES = {
    EM_SPARC: "SPARC", EM_386: "x86 (32 bit)", EM_MIPS: "MIPS", EM_PPC: "PowerPC", EM_PPC64: "PowerPC64",
    EM_S390: "S390", EM_ARM: "ARM (32 bit)", EM_SPARCV9: "SPARC64", EM_X86_64: "x86-64", EM_AARCH64: "AArch64",
    EM_RISCV: "RISC-V", EM_LOONGARCH: "LoongArch",
}  # fmt: skip
"""e_machine of the System V ABI to the name of the processor."""

_EF_ARM_EABI, _EF_ARM_EABI5, _EF_ARM_SOFT, _EF_ARM_HARD = 0xFF000000, 0x05000000, 0x200, 0x400
_EF_MIPS_ABI2, _EF_MIPS_NAN2008 = 0x20, 0x400
_FLOAT_OF_RISCV = {0: "", 2: "f", 4: "d", 6: "q"}
_FLOAT_OF_LOONGARCH = {1: "s", 2: "f", 3: "d"}

_PLAIN_ABIS = {
    (64, EM_X86_64): "x86-64", (32, EM_X86_64): "x32", (32, EM_386): "i386", (32, EM_PPC): "ppc",
    (64, EM_S390): "s390x", (32, EM_S390): "s390", (32, EM_SPARC): "sparc", (64, EM_SPARCV9): "sparc64",
}  # fmt: skip


def linux_abi(bits: int, little_endian: bool, machine: int, flags: int) -> str | None:
    """Return the name of the Linux ABI that a file is made for; images of different ABIs do not load together.

    Arguments: of the ELF header; `flags` is e_flags. `None` for a machine that this does not know. Sources: elf.h of
    glibc, and the ELF supplements of the processors (RISC-V psABI, AAELF32, LoongArch ELF psABI, OpenPOWER ELFv2).
    """
    abi = _PLAIN_ABIS.get((bits, machine))
    if machine == EM_AARCH64:
        abi = "aarch64" if little_endian else "aarch64_be"
    elif machine == EM_ARM:  # the bits say how floating-point numbers are passed; a file may leave them out
        marks = flags if flags & _EF_ARM_EABI == _EF_ARM_EABI5 else 0
        abi = "armhf" if marks & _EF_ARM_HARD else "armsf" if marks & _EF_ARM_SOFT else "arm"
    elif machine == EM_RISCV:
        abi = f"riscv{bits}-{'lp64' if bits == 64 else 'ilp32'}{_FLOAT_OF_RISCV[flags & 6]}"
    elif machine == EM_LOONGARCH:
        abi = f"loongarch{bits}-{'lp64' if bits == 64 else 'ilp32'}{_FLOAT_OF_LOONGARCH.get(flags & 7, 'd')}"
    elif machine == EM_PPC64:
        abi = f"ppc64-v{flags & 3}" if flags & 3 else "ppc64"  # 0: the file uses nothing that differs
    elif machine == EM_MIPS:
        word = "n64" if bits == 64 else "n32" if flags & _EF_MIPS_ABI2 else "o32"
        abi = f"mips-{word}{'-nan2008' if flags & _EF_MIPS_NAN2008 else ''}"
    return abi


def describe_kind(bits: int, little_endian: bool, machine: int) -> str:
    """Return words for what a file or a process is made for: "AArch64", "MIPS, big endian".

    Arguments: as in the header of an ELF file; `bits` 32 or 64, `machine` is e_machine.
    """
    name = _MACHINES.get(machine, f"machine {machine}")
    if machine in (EM_X86_64, EM_RISCV) and bits == 32:
        name += " (32 bit)"  # x32; RISC-V has both
    return name if little_endian else f"{name}, big endian"
