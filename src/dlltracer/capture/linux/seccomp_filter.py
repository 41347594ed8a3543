"""Makes the BPF program of backend "seccomp": which system calls of a process stop for its tracer. Pure.

The calls by which a loader works stop, on any C library: open, openat and openat2 for reading, and mmap of a
file with the right to run it. Also execve, because what is known of a process ends with its program. Also access
with `MARK_MODE`, which is how our runner hands over the requests of Python. Also the calls after which a path may lead
to another file: chroot, pivot_root, unshare, setns.

The program decides by numbers alone: BPF cannot read the memory behind a pointer. What it lets pass costs nothing
more. Opens to write, to create, of folders and with O_PATH are no loader's (glibc: open_verify in elf/dl-load.c; musl:
path_open in ldso/dynlink.c; both open with O_RDONLY | O_CLOEXEC).

Most opens to read are the program's own: Python opens a file for each module. They differ from the loader's by the
instruction alone. Where in memory that lies is random (ASLR), but not where in a page: `make_program` takes the places
from which libc opens files and the loader does not (`seccomp_lookup.find_passed_entries`).

Sources: seccomp(2), linux/seccomp.h, linux/audit.h, linux/filter.h, the system call tables of Linux (asm/unistd.h).
"""

from __future__ import annotations

import enum
import struct
import sys
from collections.abc import Collection

from ..marks import MARK_MODE

RET_ALLOW = 0x7FFF0000
RET_USER_NOTIF = 0x7FC00000
RET_TRACE = 0x7FF00000

PROT_EXEC, MAP_FIXED, MAP_ANONYMOUS = 4, 0x10, 0x20
AT_FDCWD = -100

_O_WRITES = 0o3
_O_CREAT = 0o100
O_PATH = 0o10000000
"""As in asm-generic/fcntl.h; PyPy's os lacks it."""

_X32_BIT = 0x40000000
"""In the number of a system call of the x32 ABI, whose processes have the audit architecture of x86-64."""


class CallKind(enum.Enum):
    """The purpose of a system call that stops for the tracer."""

    OPEN = "open"
    MAP = "map"
    MARK = "mark"
    EXEC = "exec"
    MOVE = "move"
    """To another root folder, or among other mounts."""


class Call:
    """A system call: its `kind`; the places among its arguments of the `path` (a pointer), the folder that the path is
    relative to (`dirfd`), the `flags` (of MARK: the mode). `None` for an argument that it does not have."""

    __slots__ = ("dirfd", "flags", "kind", "path")

    def __init__(
        self, kind: CallKind, path: int | None = 0, dirfd: int | None = None, flags: int | None = None
    ) -> None:  # fmt: skip
        self.kind = kind
        self.path = path
        self.dirfd = dirfd
        self.flags = flags


_OPEN, _OPENAT, _OPENAT2 = Call(CallKind.OPEN, 0, None, 1), Call(CallKind.OPEN, 1, 0, 2), Call(CallKind.OPEN, 1, 0)
_MMAP = Call(CallKind.MAP, None)
_ACCESS, _FACCESSAT = Call(CallKind.MARK, 0, None, 1), Call(CallKind.MARK, 1, 0, 2)
_EXECVE, _EXECVEAT = Call(CallKind.EXEC, 0), Call(CallKind.EXEC, 1, 0)
_MOVE = Call(CallKind.MOVE, None)
"""chroot, pivot_root, unshare and setns."""

_GENERIC = {
    56: _OPENAT, 437: _OPENAT2, 222: _MMAP, 48: _FACCESSAT, 221: _EXECVE, 281: _EXECVEAT,
    51: _MOVE, 41: _MOVE, 97: _MOVE, 268: _MOVE,
}  # fmt: skip
"""asm-generic/unistd.h: of every architecture that came to Linux after 2010."""


class Architecture:
    """A kind of process.

    Attributes:
        name: as people say it.
        audit: AUDIT_ARCH_* of linux/audit.h.
        calls: number to system call.
        o_directory: the flag O_DIRECTORY, which differs (asm/fcntl.h).
        seccomp: the number of seccomp(2).
        bits: of a pointer.
    """

    __slots__ = ("audit", "bits", "calls", "name", "o_directory", "seccomp")

    def __init__(
        self, name: str, audit: int, calls: dict[int, Call], *, o_directory: int, seccomp: int, bits: int
    ) -> None:  # fmt: skip
        self.name = name
        self.audit = audit
        self.calls = calls
        self.o_directory = o_directory
        self.seccomp = seccomp
        self.bits = bits

    def __str__(self) -> str:
        return self.name


X86_64 = Architecture(
    "x86-64", 0xC000003E,
    {2: _OPEN, 257: _OPENAT, 437: _OPENAT2, 9: _MMAP, 21: _ACCESS, 269: _FACCESSAT, 59: _EXECVE, 322: _EXECVEAT,
     520: _EXECVE, 545: _EXECVEAT, 161: _MOVE, 155: _MOVE, 272: _MOVE, 308: _MOVE},
    o_directory=0o200000, seccomp=317, bits=64,
)  # fmt: skip
"""With 520 and 545, which are execve and execveat of x32; no system call of x86-64 itself has these numbers."""

I386 = Architecture(
    "i386", 0x40000003,
    {5: _OPEN, 295: _OPENAT, 437: _OPENAT2, 192: _MMAP, 33: _ACCESS, 307: _FACCESSAT, 11: _EXECVE, 358: _EXECVEAT,
     61: _MOVE, 217: _MOVE, 310: _MOVE, 346: _MOVE},
    o_directory=0o200000, seccomp=354, bits=32,
)  # fmt: skip
AARCH64 = Architecture("aarch64", 0xC00000B7, _GENERIC, o_directory=0o40000, seccomp=277, bits=64)
ARM = Architecture(
    "arm", 0x40000028,
    {5: _OPEN, 322: _OPENAT, 437: _OPENAT2, 192: _MMAP, 33: _ACCESS, 334: _FACCESSAT, 11: _EXECVE, 387: _EXECVEAT,
     61: _MOVE, 218: _MOVE, 337: _MOVE, 375: _MOVE},
    o_directory=0o40000, seccomp=383, bits=32,
)  # fmt: skip
RISCV64 = Architecture("riscv64", 0xC00000F3, _GENERIC, o_directory=0o200000, seccomp=277, bits=64)

ARCHITECTURES = {arch.audit: arch for arch in (X86_64, I386, AARCH64, ARM, RISCV64)}

_OF_MACHINES = {
    "x86_64": (X86_64, I386), "aarch64": (AARCH64, ARM), "riscv64": (RISCV64,),
    "i686": (I386,), "i586": (I386,), "i386": (I386,), "armv7l": (ARM,), "armv6l": (ARM,), "armv8l": (ARM,),
}  # fmt: skip
"""Machine, as of uname(2), to the kinds of processes that its kernel runs, its own first. What a program started as
32-bit says of the machine is another name ("i686", "armv8l"): the number is then of that architecture as well."""


def architectures_of(machine: str, bits: int) -> tuple[Architecture, ...]:
    """The kinds of processes of a machine; first that of a process with pointers of so many bits. Empty if unknown."""
    known = _OF_MACHINES.get(machine, ())
    return tuple(sorted(known, key=lambda arch: arch.bits != bits))


def call_of(audit: int, number: int) -> Call | None:
    """Return the call that a stop is of; `None` for a call of no interest.

    Arguments: `audit`, AUDIT_ARCH_... of its kind of process; `number`, of the system call there.
    """
    arch = ARCHITECTURES.get(audit)
    if arch is None:
        return None
    if arch is X86_64:
        number &= ~_X32_BIT
    return arch.calls.get(number)


def does_stop(audit: int, number: int, arguments: tuple[int, ...]) -> bool:
    """Return whether the BPF program would stop a call: for a tracer at whom every call stops."""
    call, arch = call_of(audit, number), ARCHITECTURES.get(audit)
    if call is None or arch is None:
        return False
    if call.kind is CallKind.MAP:
        return bool(arguments[2] & PROT_EXEC) and not arguments[3] & MAP_ANONYMOUS
    if call.flags is None:
        return True
    given = arguments[call.flags] & 0xFFFFFFFF
    return given == MARK_MODE if call.kind is CallKind.MARK else not given & _not_of_loaders(arch)


def _not_of_loaders(arch: Architecture) -> int:
    """Flags with which no loader opens a file."""
    return _O_WRITES | _O_CREAT | arch.o_directory | O_PATH


PAGE = 0x1000
"""No page is smaller: the place in it is the same wherever the kernel maps the file."""

# linux/bpf_common.h: what an instruction does.
_LOAD, _EQUALS, _HAS_BITS, _AND, _RETURN = 0x20, 0x15, 0x45, 0x54, 0x06

_INSTRUCTION = struct.Struct("=HBBI")
"""struct sock_filter: code, how many instructions to skip if true, and if false, and a constant."""

_NUMBER_AT, _ARCH_AT, _ADDRESS_AT, _ARGUMENTS_AT = 0, 4, 8, 16
"""struct seccomp_data (linux/seccomp.h)."""

Instruction = tuple[int, int, int, int]


def make_program(architectures: tuple[Architecture, ...], action: int, passed: Collection[int] = ()) -> bytes:
    """The BPF program, as an array of struct sock_filter.

    Arguments: `action`, `RET_USER_NOTIF` or `RET_TRACE`. `passed`, addresses modulo `PAGE`: opens are let pass that an
    instruction just before one makes, in processes of the first architecture. Other architectures are let pass.
    """
    sections = [_section(arch, action, () if number else passed) for number, arch in enumerate(architectures)]
    program: list[Instruction] = [(_LOAD, 0, 0, _ARCH_AT)]
    for arch, section in zip(architectures, sections, strict=True):
        assert len(section) < 256  # a jump has eight bits
        program += [(_EQUALS, 0, len(section), arch.audit), *section]
    program.append((_RETURN, 0, 0, RET_ALLOW))
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def _section(arch: Architecture, action: int, passed: Collection[int]) -> list[Instruction]:
    section: list[Instruction] = [(_LOAD, 0, 0, _NUMBER_AT)]
    if arch is X86_64:
        section.append((_AND, 0, 0, 0xFFFFFFFF ^ _X32_BIT))
    for number, call in arch.calls.items():
        block = _block(arch, call, action, passed)
        section += [(_EQUALS, 0, len(block), number), *block]
    return [*section, (_RETURN, 0, 0, RET_ALLOW)]


def _block(arch: Architecture, call: Call, action: int, passed_at: Collection[int]) -> list[Instruction]:
    """Return the instructions for one system call: they always end with a return."""
    stopped, passed = (_RETURN, 0, 0, action), (_RETURN, 0, 0, RET_ALLOW)
    if call.kind is CallKind.MAP:
        return [
            _load_argument(2), (_HAS_BITS, 0, 3, PROT_EXEC),
            _load_argument(3), (_HAS_BITS, 1, 0, MAP_ANONYMOUS), stopped, passed,
        ]  # fmt: skip
    if call.kind is CallKind.EXEC or call.flags is None:
        return [stopped]
    if call.kind is CallKind.MARK:
        return [_load_argument(call.flags), (_EQUALS, 0, 1, MARK_MODE), stopped, passed]
    places = sorted(passed_at)
    # A place that is one of them jumps over the other comparisons and the stop.
    compared = [(_EQUALS, len(places) - number, 0, place) for number, place in enumerate(places)]
    address = [_load_low(_ADDRESS_AT), (_AND, 0, 0, PAGE - 1), *compared] if places else []
    flags = (_HAS_BITS, len(address) + 1, 0, _not_of_loaders(arch))
    return [_load_argument(call.flags), flags, *address, stopped, passed]


def _load_argument(place: int) -> Instruction:
    """Load the low half of an argument."""
    return _load_low(_ARGUMENTS_AT + 8 * place)


def _load_low(offset: int) -> Instruction:
    """Load the low half of a number of 64 bits: BPF works with 32."""
    return _LOAD, 0, 0, offset + (0 if sys.byteorder == "little" else 4)
