"""Defines what a platform tag of a wheel promises: the system, the processor, and the libraries that are there.

Sources: PEP 513, 571, 599 and 600 (manylinux), PEP 656 (musllinux), "Platform compatibility tags" of the PyPA; the
libraries and symbol versions of the manylinux policies as pypa/auditwheel publishes them.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..model.elf import EM_386, EM_AARCH64, EM_ARM, EM_LOONGARCH, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64
from ..model.macho import CPU_ARM64, CPU_X86_64
from ..model.pe import MACHINE_AMD64, MACHINE_ARM64, MACHINE_I386


class Loader(enum.Enum):
    """The loader of a platform, whose rules decide."""

    GLIBC = "glibc"
    MUSL = "musl"
    WINDOWS = "Windows"
    DYLD = "macOS"


@dataclass(frozen=True)
class ElfMachine:
    """A processor as ELF files name it: e_machine, bits, byte order, and the largest pages of its systems in bytes."""

    number: int
    bits: int = 64
    little_endian: bool = True
    largest_page: int = 4096


ELF_MACHINES = {
    "x86_64": ElfMachine(EM_X86_64), "i686": ElfMachine(EM_386, 32),
    "aarch64": ElfMachine(EM_AARCH64, largest_page=0x10000),
    "armv7l": ElfMachine(EM_ARM, 32), "armv6l": ElfMachine(EM_ARM, 32),
    "ppc64le": ElfMachine(EM_PPC64, largest_page=0x10000),
    "ppc64": ElfMachine(EM_PPC64, little_endian=False, largest_page=0x10000),
    "s390x": ElfMachine(EM_S390, little_endian=False), "riscv64": ElfMachine(EM_RISCV),
    "loongarch64": ElfMachine(EM_LOONGARCH, largest_page=0x4000),
}  # fmt: skip
"""By the names of platform tags. Linux for aarch64 runs with pages of 4, 16 or 64 KiB (Kconfig, ARM64_64K_PAGES)."""

_WINDOWS = {"win_amd64": MACHINE_AMD64, "win32": MACHINE_I386, "win_arm64": MACHINE_ARM64}
WINDOWS_TAGS = {machine: tag for tag, machine in _WINDOWS.items()}
"""Platform tags by the machine of a PE file."""
_CPU_I386 = 7
_MACS = {
    "x86_64": (CPU_X86_64,), "arm64": (CPU_ARM64,), "universal2": (CPU_ARM64, CPU_X86_64),
    "intel": (CPU_X86_64, _CPU_I386), "fat64": (CPU_X86_64,), "i386": (_CPU_I386,),
}  # fmt: skip
_FIRST_WITHOUT_32_BITS = (10, 15)
"""macOS Catalina runs no 32-bit programs."""

_LEGACY = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
_MANYLINUX = re.compile(r"(manylinux1|manylinux2010|manylinux2014|manylinux_(\d+)_(\d+))_(\w+)")
_MUSLLINUX = re.compile(r"musllinux_(\d+)_(\d+)_(\w+)")
MACOSX = re.compile(r"macosx_(\d+)_(\d+)_(\w+)")
"""A platform tag of macOS: the version, and the name of the processor."""

GLIBC_LIBRARIES = frozenset(
    ("libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0", "libutil.so.1", "libresolv.so.2",
     "libanl.so.1", "libnsl.so.1", "libmvec.so.1", "libgcc_s.so.1", "libstdc++.so.6", "libatomic.so.1"),
)  # fmt: skip
"""Libraries whose symbols all have versions, so that a need without one is for none of them."""

_POLICY_LIBRARIES = GLIBC_LIBRARIES | {
    "libX11.so.6", "libXext.so.6", "libXrender.so.1", "libICE.so.6", "libSM.so.6", "libGL.so.1",
    "libgobject-2.0.so.0", "libgthread-2.0.so.0", "libglib-2.0.so.0", "libz.so.1", "libexpat.so.1",
}  # fmt: skip
_GLIBC_LOADER = re.compile(r"ld-linux[\w-]*\.so\.\d|ld64\.so\.\d|ld\.so\.1")
_MUSL_LIBRARY = re.compile(r"libc\.musl-\w+\.so\.1|ld-musl-\w+\.so\.1|libc\.so|libz\.so\.1")

_VERSIONS: dict[str, tuple[tuple[tuple[int, int], tuple[int, ...]], ...]] = {
    "GLIBCXX": (
        ((2, 5), (3, 4, 8)), ((2, 12), (3, 4, 13)), ((2, 17), (3, 4, 19)), ((2, 24), (3, 4, 22)), ((2, 26), (3, 4, 24)),
        ((2, 31), (3, 4, 28)), ((2, 34), (3, 4, 29)), ((2, 35), (3, 4, 30)), ((2, 39), (3, 4, 33)),
    ),
    "CXXABI": (
        ((2, 5), (1, 3, 1)), ((2, 12), (1, 3, 3)), ((2, 17), (1, 3, 7)), ((2, 24), (1, 3, 10)), ((2, 26), (1, 3, 11)),
        ((2, 31), (1, 3, 12)), ((2, 34), (1, 3, 13)), ((2, 39), (1, 3, 15)),
    ),
    "GCC": (
        ((2, 5), (4, 2, 0)), ((2, 12), (4, 5, 0)), ((2, 17), (4, 8, 0)), ((2, 26), (7, 0, 0)), ((2, 34), (11, 0)),
        ((2, 35), (12, 0, 0)), ((2, 39), (14, 0, 0)),
    ),
    "LIBATOMIC": (((2, 17), (1, 0)), ((2, 24), (1, 2))),
    "ZLIB": (((2, 12), (1, 2, 2, 4)), ((2, 17), (1, 2, 5, 2)), ((2, 26), (1, 2, 9)), ((2, 36), (1, 2, 12))),
}  # fmt: skip
"""Of families of symbol versions, the highest that a manylinux policy allows, by its version of glibc. GLIBCXX of 2.26
differs by processor; the higher one counts."""
_GLIBC_OF_AARCH64 = {(2, 17): (2, 18)}
"""What the policy for aarch64 allows beyond its number."""
VERSION_FAMILIES = ("GLIBC", *_VERSIONS)
"""What the names of symbol versions begin with, of libraries whose versions a tag limits."""


@dataclass(frozen=True)
class Platform:
    """The promise of a platform tag.

    Attributes:
        tag: the tag.
        loader: whose rules decide.
        machine: the tag's name of the processor ("x86_64", "universal2").
        version: of glibc, musl or macOS, as (2, 17); () where the tag has none ("linux_x86_64", "win_amd64").
        is_conda: packages bring libstdc++ and libgcc of their own.
    """

    tag: str
    loader: Loader
    machine: str
    version: tuple[int, ...] = ()
    is_conda: bool = False

    @property
    def elf(self) -> ElfMachine:
        """Its processor, of a Linux platform."""
        return ELF_MACHINES[self.machine]

    @property
    def pe_machine(self) -> int:
        """Its processor, of a Windows platform."""
        return _WINDOWS[self.machine]

    @property
    def cpus(self) -> tuple[int, ...]:
        """Its processors, of a macOS platform: an image must have one for each."""
        has_32_bits = self.version < _FIRST_WITHOUT_32_BITS
        return tuple(cpu for cpu in _MACS[self.machine] if cpu != _CPU_I386 or has_32_bits)

    def provides(self, library: str) -> bool:
        """Return whether a Linux platform has a library of that name."""
        if self.loader is Loader.MUSL:
            return _MUSL_LIBRARY.fullmatch(library) is not None
        return library in _POLICY_LIBRARIES or _GLIBC_LOADER.fullmatch(library) is not None

    def highest(self, family: str) -> tuple[int, ...] | None:
        """Return the highest symbol version that it promises of a family (`VERSION_FAMILIES`); `None` for any."""
        if self.loader is not Loader.GLIBC or not self.version:
            return None
        if family == "GLIBC":
            more = _GLIBC_OF_AARCH64 if self.machine == "aarch64" else {}
            return more.get((self.version[0], self.version[1]), self.version)
        if self.is_conda:
            return None
        known = [highest for since, highest in _VERSIONS[family] if since <= self.version]
        return known[-1] if known else None


_CONDA = {
    "linux-64": (Loader.GLIBC, "x86_64"), "linux-32": (Loader.GLIBC, "i686"),
    "linux-aarch64": (Loader.GLIBC, "aarch64"), "linux-ppc64le": (Loader.GLIBC, "ppc64le"),
    "linux-s390x": (Loader.GLIBC, "s390x"),
    "linux-armv7l": (Loader.GLIBC, "armv7l"), "linux-riscv64": (Loader.GLIBC, "riscv64"),
    "win-64": (Loader.WINDOWS, "win_amd64"), "win-32": (Loader.WINDOWS, "win32"),
    "win-arm64": (Loader.WINDOWS, "win_arm64"), "osx-64": (Loader.DYLD, "x86_64"), "osx-arm64": (Loader.DYLD, "arm64"),
}  # fmt: skip
_CONDA_FLOORS = {Loader.GLIBC: (2, 17), Loader.DYLD: (10, 13)}
"""The lowest glibc and macOS of packages that name none, since 2024: conda_build_config.yaml of conda-forge."""


def conda_platform(subdir: str, floors: Mapping[str, tuple[int, ...]]) -> Platform | None:
    """Return the platform of a conda package; `None` for "noarch" and what is not known.

    Arguments: `subdir` of its index; `floors`, the lowest versions that it depends on, by virtual package ("__glibc").
    """
    if subdir not in _CONDA:
        return None
    loader, machine = _CONDA[subdir]
    name = "__glibc" if loader is Loader.GLIBC else "__osx"
    return Platform(subdir, loader, machine, floors.get(name, _CONDA_FLOORS.get(loader, ())), is_conda=True)


def read_platforms(tags: Iterable[str]) -> tuple[tuple[Platform, ...], tuple[str, ...]]:
    """Return what platform tags promise, and the tags that are not known here. "any" promises nothing of a system.

    Of tags that only differ in the version of the C library ("manylinux_2_17", "manylinux_2_28") the lowest decides: a
    wheel with several is installed wherever one of them fits.
    """
    lowest: dict[tuple[Loader, str], Platform] = {}
    unknown = []
    for tag in tags:
        platform = _read_platform(tag)
        if platform is None:
            if tag != "any":
                unknown.append(tag)
            continue
        key = platform.loader, platform.machine
        if key not in lowest or (platform.version and platform.version < lowest[key].version):
            lowest[key] = platform
    return tuple(lowest.values()), tuple(unknown)


def _read_platform(tag: str) -> Platform | None:
    found = None
    if match := _MANYLINUX.fullmatch(tag):
        version = _LEGACY.get(match[1]) or (int(match[2]), int(match[3]))
        found = Platform(tag, Loader.GLIBC, match[4], version)
    elif match := _MUSLLINUX.fullmatch(tag):
        found = Platform(tag, Loader.MUSL, match[3], (int(match[1]), int(match[2])))
    elif tag.startswith("linux_"):
        found = Platform(tag, Loader.GLIBC, tag.removeprefix("linux_"))
    elif tag in _WINDOWS:
        found = Platform(tag, Loader.WINDOWS, tag)
    elif match := MACOSX.fullmatch(tag):
        found = Platform(tag, Loader.DYLD, match[3], (int(match[1]), int(match[2])))
    if found is None:
        return None
    is_linux = found.loader in (Loader.GLIBC, Loader.MUSL)
    known = ELF_MACHINES if is_linux else _MACS if found.loader is Loader.DYLD else _WINDOWS
    return found if found.machine in known else None
