"""What glibc makes of each processor: ABIs, folders, names of features."""

from __future__ import annotations

import pytest

from dlltracer.host.processors import (
    LOADERS,
    LoaderFacts,
    Processor,
    guess_facts,
    list_legacy_folders,
    parse_levels,
    read_flags,
)  # fmt: skip
from dlltracer.model.elf import linux_abi
from dlltracer.model.loader_context import LinuxContext

X86, X32, I386 = (64, True, 62, 0), (32, True, 62, 0), (32, True, 3, 0)
ARMHF, ARMSF, ARM = (32, True, 40, 0x05000400), (32, True, 40, 0x05000200), (32, True, 40, 0x05000000)
ARM64, PPC, S390X = (64, True, 183, 0), (64, True, 21, 2), (64, False, 22, 0)
RISCV, RISCV_SOFT = (64, True, 243, 5), (64, True, 243, 1)
LOONGARCH, LOONGARCH_SOFT, MIPS = (64, True, 258, 0x43), (64, True, 258, 0x41), (64, True, 8, 0x80000007)
ABIS = {
    X86: "x86-64", X32: "x32", I386: "i386", ARMHF: "armhf", ARMSF: "armsf", ARM: "arm", ARM64: "aarch64",
    (64, False, 183, 0): "aarch64_be", PPC: "ppc64-v2", (64, False, 21, 1): "ppc64-v1", (64, True, 21, 0): "ppc64",
    (32, False, 20, 0): "ppc", S390X: "s390x", (32, False, 22, 0): "s390", RISCV: "riscv64-lp64d",
    RISCV_SOFT: "riscv64-lp64", (32, True, 243, 4): "riscv32-ilp32d", (64, True, 243, 2): "riscv64-lp64f",
    LOONGARCH: "loongarch64-lp64d", LOONGARCH_SOFT: "loongarch64-lp64s", MIPS: "mips-n64",
    (32, False, 8, 0x20): "mips-n32", (32, False, 8, 0): "mips-o32", (32, True, 8, 0x400): "mips-o32-nan2008",
    (64, False, 43, 0): "sparc64", (64, True, 9999, 0): None,
}  # fmt: skip
"""Bits, byte order, machine and flags of a file to its ABI."""


def context(kind: tuple[int, bool, int, int]) -> LinuxContext:
    bits, little_endian, machine, flags = kind
    return LinuxContext(bits=bits, little_endian=little_endian, machine=machine, flags=flags)


def test_abis() -> None:
    assert {kind: linux_abi(*kind) for kind in ABIS} == ABIS
    assert set(filter(None, ABIS.values())) - {"riscv64-lp64f"} <= LOADERS.keys()


@pytest.mark.parametrize(
    ("kind", "folder", "lib"),
    [
        (X86, "lib64", "lib64"), (X32, "libx32", "libx32"), (I386, "lib", "lib"), (ARM64, "lib64", "lib64"),
        (ARMHF, "lib", "lib"), (RISCV, "lib64/lp64d", "lp64d"), (RISCV_SOFT, "lib64/lp64", "lp64"),
        (LOONGARCH, "lib64", "lib64"), (LOONGARCH_SOFT, "lib64/sf", "sf"), (PPC, "lib64", "lib64"),
        (S390X, "lib64", "lib64"), ((32, False, 8, 0x20), "lib32", "lib32"),
    ],
)  # fmt: skip
def test_folders_of_a_loader_that_does_not_tell(kind: tuple[int, bool, int, int], folder: str, lib: str) -> None:
    facts = guess_facts(b"", context(kind), None)
    assert facts.system_folders == (f"/{folder}", f"/usr/{folder}") and facts.lib == lib
    assert "are assumed" in facts.notes[0]


def test_a_loader_lists_its_folders() -> None:
    """As Debian and Fedora build it for RISC-V: $LIB is the last part only where no patch makes it more."""
    multiarch = guess_facts(b"\0/lib/riscv64-linux-gnu/\0/usr/lib/riscv64-linux-gnu/\0/lib/\0", context(RISCV), None)
    assert multiarch.system_folders == ("/lib/riscv64-linux-gnu", "/usr/lib/riscv64-linux-gnu", "/lib")
    assert multiarch.lib == "lib/riscv64-linux-gnu"
    plain = guess_facts(b"\0/lib64/lp64d/\0/usr/lib64/lp64d/\0/lib/\0", context(RISCV), None)
    assert plain.system_folders == ("/lib64/lp64d", "/usr/lib64/lp64d", "/lib") and plain.lib == "lp64d"


MODERN = b"\0glibc-hwcaps\0"


def facts_of(names: bytes, kind: tuple[int, bool, int, int], processor: Processor | None) -> LoaderFacts:
    return guess_facts(MODERN + names + b"\0/lib64/\0/usr/lib64/\0", context(kind), processor)


@pytest.mark.parametrize(
    ("hwcap2", "active"),
    [(0, []), (0x00800000, []), (0x00C00000, ["power9"]), (0x00C60000, ["power10", "power9"]), (0x00060000, [])],
)
def test_hwcaps_of_power(hwcap2: int, active: list[str]) -> None:
    facts = facts_of(b"power10:power9", PPC, Processor("power10", 0, hwcap2))
    assert facts.subfolders == tuple(f"glibc-hwcaps/{name}" for name in active) and facts.platform == "power10"


@pytest.mark.parametrize(
    ("hwcap", "names", "active"),
    [
        (0x7FF, b"z16:z15:z14:z13", []),
        (0xFFF, b"z16:z15:z14:z13", ["z13"]),
        (0x7FFF, b"z16:z15:z14:z13", ["z14", "z13"]),
        (0x1FFFF, b"z15:z14:z13", ["z15", "z14", "z13"]),
        (0x9FFFF, b"z15:z14:z13", ["z15", "z14", "z13"]),  # glibc 2.33 knew no z16
        (0x9FFFF, b"z17:z16:z15:z14:z13", ["z16", "z15", "z14", "z13"]),
    ],
)
def test_hwcaps_of_z(hwcap: int, names: bytes, active: list[str]) -> None:
    facts = facts_of(names, S390X, Processor("z16", hwcap))
    assert facts.subfolders == tuple(f"glibc-hwcaps/{name}" for name in active)


def test_arm64_has_no_hwcaps_folders() -> None:
    facts = facts_of(b"", ARM64, None)
    assert (facts.subfolders, facts.platform, facts.notes) == ((), "aarch64", ())


def test_a_processor_that_is_not_known() -> None:
    facts = facts_of(b"x86-64-v4:x86-64-v3:x86-64-v2", X86, None)
    assert facts.subfolders == () and facts.platform is None
    assert [note.partition(":")[0] for note in facts.notes] == [
        "$PLATFORM is not known without running the loader", "which processor the system runs on is not known",
    ]  # fmt: skip
    assert facts_of(b"", RISCV, None).notes == ()  # it has neither


LEGACY = b"\0/lib64/\0/usr/lib64/\0"
"""Of a loader before glibc 2.33, which knows no glibc-hwcaps."""


def test_folders_before_glibc_2_37() -> None:
    """As ld.so of Debian 11 and 12 names them in its log."""
    atomics = guess_facts(LEGACY, context(ARM64), Processor("aarch64", 1 << 8))
    assert atomics.subfolders == (
        "tls/aarch64/atomics", "tls/aarch64", "tls/atomics", "tls", "aarch64/atomics", "aarch64", "atomics",
    )  # fmt: skip
    assert guess_facts(LEGACY, context(ARM64), Processor("aarch64", 0)).subfolders == ("tls/aarch64", "tls", "aarch64")
    assert guess_facts(b"Legacy HWCAP" + LEGACY, context(ARM64), None).subfolders == ("tls/aarch64", "tls", "aarch64")
    assert guess_facts(MODERN + LEGACY, context(ARM64), None).subfolders == ()
    assert list_legacy_folders("x86_64", ["x86_64"]) == [
        "tls/x86_64/x86_64", "tls/x86_64", "tls/x86_64", "tls", "x86_64/x86_64", "x86_64", "x86_64",
    ]  # fmt: skip
    arm = guess_facts(LEGACY, context(ARMHF), Processor("v7l", 1 << 6 | 1 << 12)).subfolders
    assert arm[:3] == ("tls/v7l/neon/vfp", "tls/v7l/neon", "tls/v7l/vfp")
    assert guess_facts(LEGACY, context(I386), Processor("i686", cpuinfo="flags\t: sse2\n")).subfolders[0] == (
        "tls/i686/sse2"
    )


@pytest.mark.parametrize(
    ("vendor", "flags", "platform"),
    [
        ("AuthenticAMD", "avx2 fma bmi1 bmi2 abm movbe popcnt", "x86_64"),
        ("GenuineIntel", "avx2 fma bmi1 bmi2 abm movbe popcnt", "haswell"),
        ("GenuineIntel", "avx2 fma bmi1 bmi2 abm movbe", "x86_64"),
        ("GenuineIntel", "avx512cd avx512er avx512pf", "xeon_phi"),
    ],
)
def test_the_platform_of_x86(vendor: str, flags: str, platform: str) -> None:
    cpuinfo = f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t: x\n"
    assert read_flags(cpuinfo) == set(flags.split())
    assert guess_facts(LEGACY, context(X86), Processor("x86_64", cpuinfo=cpuinfo)).platform == platform


def test_levels_of_the_processor() -> None:
    second = "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"
    third = "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"
    assert parse_levels(f"flags\t\t: fpu {second} {third} avx512f\n") == ["x86-64-v2", "x86-64-v3"]
    assert parse_levels(f"flags : {third}\n") == []
    assert parse_levels("Features : fp asimd\n") == []
