"""The BPF program of backend "seccomp": run here by the rules of BPF, on any system, for every processor."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from dlltracer.capture.linux import seccomp_lookup
from dlltracer.capture.linux.seccomp_filter import (
    AARCH64,
    ARCHITECTURES,
    ARM,
    I386,
    MARK_MODE,
    RET_ALLOW,
    RET_USER_NOTIF,
    RISCV64,
    X86_64,
    Architecture,
    CallKind,
    architectures_of,
    call_of,
    make_program,
)

O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_CLOEXEC, O_PATH = 0, 1, 2, 0o100, 0o2000000, 0o10000000
READ, WRITE, EXEC, PRIVATE, ANONYMOUS = 1, 2, 4, 2, 0x20


def decide(program: bytes, audit: int, number: int, *arguments: int, address: int = 0) -> int:
    """What the kernel does with a call: the program is run as linux/filter.h says."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, audit, address, *(word & 0xFFFFFFFFFFFFFFFF for word in words))
    instructions = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    for _ in range(len(instructions)):
        code, if_true, if_false, constant = instructions[at]
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif code == 0x15:  # BPF_JMP | BPF_JEQ
            at += if_true if accumulator == constant else if_false
        elif code == 0x45:  # BPF_JMP | BPF_JSET
            at += if_true if accumulator & constant else if_false
        elif code == 0x54:  # BPF_ALU | BPF_AND
            accumulator &= constant
        elif code == 0x06:  # BPF_RET
            return int(constant)
        else:
            raise AssertionError(f"an instruction that is not used: {code:#x}")
    raise AssertionError("no return")


def does_stop(arch: Architecture, kind: CallKind, number: int, **given: int) -> bool:
    """Whether a call stops the process: `flags` or `mode`; of mmap `prot` and `flags`."""
    call = arch.calls[number]
    assert call.kind is kind
    words = [0] * 6
    if kind is CallKind.MAP:
        words[2], words[3] = given["prot"], given["flags"]
    elif call.flags is not None:
        words[call.flags] = next(iter(given.values()))
    program = make_program(tuple(ARCHITECTURES.values()), RET_USER_NOTIF)
    result = decide(program, arch.audit, number, *words)
    assert result in (RET_USER_NOTIF, RET_ALLOW)
    return result == RET_USER_NOTIF


def calls(kind: CallKind) -> list[tuple[Architecture, int]]:
    """Each architecture with the numbers of its calls of that kind, of which it has one or more."""
    found = [(arch, number) for arch in ARCHITECTURES.values() for number, call in arch.calls.items()
             if call.kind is kind]  # fmt: skip
    assert {arch.name for arch, _ in found} == {arch.name for arch in ARCHITECTURES.values()}
    return found


@pytest.mark.parametrize("flags", [O_RDONLY, O_CLOEXEC, O_CLOEXEC | 0o100000, 0o4000])
def test_opens_to_read_stop(flags: int) -> None:
    for arch, number in calls(CallKind.OPEN):
        assert does_stop(arch, CallKind.OPEN, number, flags=flags), (arch.name, number)


@pytest.mark.parametrize("flags", [O_WRONLY, O_RDWR, O_WRONLY | O_CREAT, O_PATH | O_CLOEXEC])
def test_opens_that_no_loader_makes_are_let_pass(flags: int) -> None:
    with_flags = [(arch, number) for arch, number in calls(CallKind.OPEN) if arch.calls[number].flags is not None]
    assert {arch.name for arch, _ in with_flags} == {arch.name for arch in ARCHITECTURES.values()}
    for arch, number in with_flags:
        assert not does_stop(arch, CallKind.OPEN, number, flags=flags), (arch.name, number)


def test_folders_are_let_pass_by_the_flag_of_their_processor() -> None:
    assert not does_stop(X86_64, CallKind.OPEN, 257, flags=0o200000 | O_CLOEXEC)
    assert not does_stop(AARCH64, CallKind.OPEN, 56, flags=0o40000 | O_CLOEXEC)
    assert not does_stop(ARM, CallKind.OPEN, 322, flags=0o40000)
    assert not does_stop(RISCV64, CallKind.OPEN, 56, flags=0o200000)
    # The same bit is O_DIRECT there, and no folder: what is doubtful is looked at.
    assert does_stop(AARCH64, CallKind.OPEN, 56, flags=0o200000)


def test_mmap_of_a_file_to_run_stops() -> None:
    for arch, number in calls(CallKind.MAP):
        assert does_stop(arch, CallKind.MAP, number, prot=READ | EXEC, flags=PRIVATE)
        assert not does_stop(arch, CallKind.MAP, number, prot=READ | WRITE, flags=PRIVATE)
        assert not does_stop(arch, CallKind.MAP, number, prot=READ | EXEC, flags=PRIVATE | ANONYMOUS)


def test_access_stops_with_our_mode_only() -> None:
    for arch, number in calls(CallKind.MARK):
        assert does_stop(arch, CallKind.MARK, number, mode=MARK_MODE)
        for mode in (0, 4, 7, MARK_MODE ^ 1):
            assert not does_stop(arch, CallKind.MARK, number, mode=mode)
    assert MARK_MODE & ~7  # what the kernel refuses before it looks at the path
    assert MARK_MODE < 1 << 31


def test_execve_stops() -> None:
    assert {arch.name for arch, number in calls(CallKind.EXEC) if does_stop(arch, CallKind.EXEC, number)} == {
        arch.name for arch in ARCHITECTURES.values()
    }


def test_every_other_call_is_let_pass() -> None:
    program = make_program((X86_64, I386), RET_USER_NOTIF)
    for arch in (X86_64, I386):
        for number in range(600):
            if number not in arch.calls:
                assert decide(program, arch.audit, number, 4, 4, 4, 4, 4) == RET_ALLOW


def test_x32_has_the_numbers_of_x86_64_with_a_bit() -> None:
    program = make_program((X86_64,), RET_USER_NOTIF)
    assert decide(program, X86_64.audit, 0x40000000 | 257, 0, 0, O_CLOEXEC) == RET_USER_NOTIF
    assert call_of(X86_64.audit, 0x40000000 | 257) is X86_64.calls[257]
    assert call_of(I386.audit, 0x40000000 | 5) is None


def test_processes_of_another_architecture_are_let_pass() -> None:
    program = make_program((X86_64, I386), RET_USER_NOTIF)
    assert decide(program, AARCH64.audit, 56, 0, 0, O_CLOEXEC) == RET_ALLOW
    assert decide(program, I386.audit, 295, 0, 0, O_CLOEXEC) == RET_USER_NOTIF
    assert call_of(0x12345678, 2) is None


def test_the_process_itself_comes_first() -> None:
    assert architectures_of("x86_64", 64) == (X86_64, I386)
    assert architectures_of("x86_64", 32) == (I386, X86_64)
    assert architectures_of("aarch64", 64) == (AARCH64, ARM)
    assert architectures_of("armv7l", 32) == (ARM,)
    assert architectures_of("riscv64", 64) == (RISCV64,)
    assert architectures_of("s390x", 64) == ()


HEADERS = {
    "x86-64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "i386": "/usr/include/x86_64-linux-gnu/asm/unistd_32.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
    "riscv64": "/usr/include/asm-generic/unistd.h",
}
NAMES = {CallKind.OPEN: {"open", "openat", "openat2"}, CallKind.MAP: {"mmap", "mmap2", "3264_mmap", "old_mmap"},
         CallKind.MARK: {"access", "faccessat"}, CallKind.EXEC: {"execve", "execveat"},
         CallKind.MOVE: {"chroot", "pivot_root", "unshare", "setns"}}  # fmt: skip


@pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES.values() if arch.name in HEADERS], ids=str)
def test_the_numbers_are_those_of_the_kernel(arch: Architecture) -> None:
    header = Path(HEADERS[arch.name])
    if not header.exists():
        pytest.skip(f"no {header} on this machine (package linux-libc-dev)")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    numbers = {int(number): name for name, number in found}
    for number, call in arch.calls.items():
        if number not in (520, 545):  # of x32
            assert numbers[number] in NAMES[call.kind], number
    assert numbers[arch.seccomp] == "seccomp"


def test_opens_of_libc_are_let_pass_wherever_it_is_mapped() -> None:
    passed = (0x90, 0x11, 0xFFE)
    program = make_program((X86_64, I386), RET_USER_NOTIF, passed)
    for base in (0x7FE3C3515000, 0x5000):
        for number in (2, 257):
            for place in passed:
                assert decide(program, X86_64.audit, number, 0, 0, 0, address=base + place) == RET_ALLOW
                assert decide(program, I386.audit, 5, 0, 0, 0, address=base + place) == RET_USER_NOTIF
            for place in (0x10, 0x12, 0, 0xFFF):
                assert decide(program, X86_64.audit, number, 0, 0, 0, address=base + place) == RET_USER_NOTIF
                assert decide(program, X86_64.audit, number, 0, O_WRONLY, O_WRONLY, address=base + place) == RET_ALLOW
        # What is no open stops wherever it comes from.
        assert decide(program, X86_64.audit, 9, 0, 0, EXEC, PRIVATE, 3, 0, address=base + 0x90) == RET_USER_NOTIF
        assert decide(program, X86_64.audit, 59, 0, 0, 0, address=base + 0x90) == RET_USER_NOTIF


@pytest.mark.parametrize(
    ("own", "seen", "hidden", "answers"),
    [
        ({"root": "/", "ns/mnt": "mnt:[1]"}, {"root": "/", "ns/mnt": "mnt:[1]"}, {}, [True, True]),
        ({"root": "/", "ns/mnt": "mnt:[1]"}, {"root": "/jail", "ns/mnt": "mnt:[1]"}, {}, [False, False]),
        ({"root": "/", "ns/mnt": "mnt:[1]"}, {}, {}, [False, False]),
        ({}, {}, {}, [True, True]),  # gVisor
    ],
)
def test_whose_files_a_process_sees(
    own: dict[str, str], seen: dict[str, str], hidden: dict[str, str], answers: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """And what is known stays so, if the process hides it since (PR_SET_DUMPABLE)."""
    shown = [seen]

    def read_link(path: str) -> str | None:
        _, _, pid, name = path.split("/", 3)
        return (own if pid == "self" else shown[0]).get(name)

    monkeypatch.setattr(seccomp_lookup, "read_link", read_link)
    lookup = seccomp_lookup.FileLookup()
    found = [lookup.has_our_files(7)]
    shown[0] = hidden
    assert [*found, lookup.has_our_files(7)] == answers
