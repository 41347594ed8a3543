"""Works out glibc's view of a processor for systems whose loader is not run: another disk, an image, another machine.

Where the loader can be run, it is asked itself (`host.linux.ask_loader`).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence

from ..model.elf import EM_386, EM_AARCH64, EM_ARM, EM_LOONGARCH, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64
from ..model.light import dataclass
from ..model.loader_context import LinuxContext, LoaderFacts

LOADERS = {
    "x86-64": "/lib64/ld-linux-x86-64.so.2", "x32": "/libx32/ld-linux-x32.so.2", "i386": "/lib/ld-linux.so.2",
    "aarch64": "/lib/ld-linux-aarch64.so.1", "aarch64_be": "/lib/ld-linux-aarch64_be.so.1",
    "armhf": "/lib/ld-linux-armhf.so.3", "armsf": "/lib/ld-linux.so.3", "arm": "/lib/ld-linux-armhf.so.3",
    "riscv64-lp64d": "/lib/ld-linux-riscv64-lp64d.so.1", "riscv64-lp64": "/lib/ld-linux-riscv64-lp64.so.1",
    "riscv32-ilp32d": "/lib/ld-linux-riscv32-ilp32d.so.1", "riscv32-ilp32": "/lib/ld-linux-riscv32-ilp32.so.1",
    "loongarch64-lp64d": "/lib64/ld-linux-loongarch-lp64d.so.1",
    "loongarch64-lp64s": "/lib64/ld-linux-loongarch-lp64s.so.1",
    "ppc": "/lib/ld.so.1", "ppc64": "/lib64/ld64.so.2", "ppc64-v1": "/lib64/ld64.so.1", "ppc64-v2": "/lib64/ld64.so.2",
    "s390": "/lib/ld.so.1", "s390x": "/lib/ld64.so.1", "sparc": "/lib/ld-linux.so.2", "sparc64": "/lib64/ld-linux.so.2",
    "mips-o32": "/lib/ld.so.1", "mips-n32": "/lib32/ld.so.1", "mips-n64": "/lib64/ld.so.1",
    "mips-o32-nan2008": "/lib/ld-linux-mipsn8.so.1", "mips-n32-nan2008": "/lib32/ld-linux-mipsn8.so.1",
    "mips-n64-nan2008": "/lib64/ld-linux-mipsn8.so.1",
}  # fmt: skip
"""ABI (`linux_abi`) to the path of its glibc's loader, in every distribution (shlib-versions of glibc; the ABIs)."""

_FOLDERS = {
    "x86-64": "lib64", "x32": "libx32", "aarch64": "lib64", "aarch64_be": "lib64", "ppc64": "lib64",
    "ppc64-v1": "lib64", "ppc64-v2": "lib64", "s390x": "lib64", "sparc64": "lib64", "mips-n32": "lib32",
    "mips-n64": "lib64", "mips-n32-nan2008": "lib32", "mips-n64-nan2008": "lib64", "riscv64-lp64d": "lib64/lp64d",
    "riscv64-lp64": "lib64/lp64", "riscv32-ilp32d": "lib32/ilp32d", "riscv32-ilp32": "lib32/ilp32",
    "loongarch64-lp64d": "lib64", "loongarch64-lp64s": "lib64/sf",
}  # fmt: skip
"""The folder of libraries of a glibc that is configured as it comes (configure.ac of each machine); else "lib"."""

_SYSTEM_FOLDERS = re.compile(rb"(?:/(?:usr/)?lib[\w./-]*/\0){2,}")
_HWCAPS = re.compile(rb"\0((?:x86-64-v\d|power\d+|z\d\d)(?::(?:x86-64-v\d|power\d+|z\d\d))+)\0")

_MACHINES = {
    "x86_64": (EM_X86_64, EM_386), "i686": (EM_386,), "aarch64": (EM_AARCH64,), "armv7l": (EM_ARM,),
    "armv8l": (EM_ARM,), "riscv64": (EM_RISCV,), "ppc64le": (EM_PPC64,), "ppc64": (EM_PPC64,), "s390x": (EM_S390,),
    "loongarch64": (EM_LOONGARCH,),
}  # fmt: skip
"""Machine of uname(2) to those whose programs it runs, and which have the same processor."""

_LEVELS = (
    ("x86-64-v2", "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3"),
    ("x86-64-v3", "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"),
    ("x86-64-v4", "avx512bw avx512cd avx512dq avx512f avx512vl"),
)
"""The levels of the x86-64 psABI, each with all below it, in the words of /proc/cpuinfo."""

_POWER = (("power9", 0, 0x00C00000), ("power10", 0, 0x00060000))
_Z = (("z13", 0x800, 0), ("z14", 0x7000, 0), ("z15", 0x18000, 0), ("z16", 0x80000, 0))
"""Each name with the bits of AT_HWCAP and AT_HWCAP2 that it and all before it need (sysdeps/powerpc/powerpc64/le/ and
sysdeps/s390/s390-64/dl-hwcaps-subdirs.c). They do not tell z17 apart."""

_AT_PLATFORM, _AT_HWCAP, _AT_HWCAP2 = 15, 16, 26

_HWCAP_ATOMICS, _HWCAP_VFP, _HWCAP_NEON = 1 << 8, 1 << 6, 1 << 12


@dataclass(frozen=True)
class Processor:
    """The facts about the processor that the kernel tells programs.

    Attributes:
        platform: AT_PLATFORM, which $PLATFORM stands for; `None` for none. (AT_BASE_PLATFORM, of PowerPC, names what
            the processor really is where it runs in the mode of an older one: the loader does not look at it.)
        hwcap, hwcap2: AT_HWCAP and AT_HWCAP2 (getauxval(3)).
        cpuinfo: the text of /proc/cpuinfo.
    """

    platform: str | None = None
    hwcap: int = 0
    hwcap2: int = 0
    cpuinfo: str = ""


def read_processor(context: LinuxContext) -> Processor | None:
    """This machine's processor as a process of that kind sees it; `None` where such processes do not run here."""
    if sys.platform != "linux" or context.machine not in _MACHINES.get(os.uname().machine, ()):
        return None
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as stream:
            cpuinfo = stream.read()
    except OSError:
        cpuinfo = ""
    if context.machine == EM_386 and sys.maxsize >= 1 << 32:  # the auxiliary vector is that of another kind of process
        return Processor("i686", cpuinfo=cpuinfo)
    try:
        import ctypes
    except ImportError:  # a Python whose libffi is gone: exactly what people ask about
        return Processor(None, cpuinfo=cpuinfo)
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.argtypes, getauxval.restype = (ctypes.c_ulong,), ctypes.c_ulong
    platform = getauxval(_AT_PLATFORM)
    name = ctypes.string_at(platform).decode("ascii", "replace") if platform else None
    return Processor(name or None, getauxval(_AT_HWCAP), getauxval(_AT_HWCAP2), cpuinfo)


def guess_facts(loader: bytes, context: LinuxContext, processor: Processor | None) -> LoaderFacts:
    """Return the loader's facts as far as the bytes of a loader that is not run, and the processor, tell them.

    Arguments: `loader`, all of it, or nothing; `context`, the kind of process; `processor`, `None` if not known.
    """
    notes = []
    found = _SYSTEM_FOLDERS.search(loader)
    if found is not None:
        folders = tuple(part.decode().rstrip("/") for part in found[0].split(b"\0") if part)
    else:
        folder = _FOLDERS.get(context.abi() or "", "lib64" if context.bits == 64 else "lib")
        folders = (f"/{folder}", f"/usr/{folder}")
        notes.append(f"the loader does not tell its own folders: {', '.join(folders)} are assumed")
    has_legacy = bool(loader) and (b"glibc-hwcaps" not in loader or b"Legacy HWCAP" in loader)
    platform = _find_platform(context, processor)
    if platform is None and context.machine != EM_RISCV:  # there the kernel gives none
        notes.append("$PLATFORM is not known without running the loader: folders that name it are left out")
    names = _HWCAPS.search(loader)
    if processor is not None:
        active = list(reversed(_active_names(context, processor)))
        subfolders = [f"glibc-hwcaps/{name}" for name in active if names and name in names[1].decode().split(":")]
        if names or has_legacy:
            notes.append("the processor is taken to be that of this machine")
    else:
        subfolders = []
        if names or (has_legacy and context.machine != EM_RISCV):
            notes.append("which processor the system runs on is not known: folders for some of them are left out")
    if has_legacy:
        subfolders += list_legacy_folders(platform, _legacy_features(context, processor))
    return LoaderFacts(folders, tuple(subfolders), _find_lib(folders[0]), platform, tuple(notes))


def _find_lib(folder: str) -> str:
    """Return the value of $LIB: the last part of the loader's own folder; with Debian's patches all below the root."""
    is_multiarch = re.fullmatch(r"/lib/[\w-]+-linux-[\w-]+", folder) is not None
    return folder.lstrip("/") if is_multiarch else folder.rpartition("/")[2]


def _find_platform(context: LinuxContext, processor: Processor | None) -> str | None:
    """$PLATFORM. On x86, glibc puts a name of its own in the place of the kernel's (sysdeps/x86/cpu-features.c)."""
    if context.machine == EM_AARCH64:  # the kernel has this one only
        return "aarch64" if context.little_endian else "aarch64_be"
    if processor is None:
        return None
    if context.machine == EM_X86_64 and re.search(r"^vendor_id\s*: GenuineIntel$", processor.cpuinfo, re.MULTILINE):
        flags = read_flags(processor.cpuinfo)
        if flags >= {"avx512cd", "avx512er", "avx512pf"}:
            return "xeon_phi"
        if flags >= {"avx2", "fma", "bmi1", "bmi2", "abm", "movbe", "popcnt"}:
            return "haswell"
    return processor.platform


def _active_names(context: LinuxContext, processor: Processor) -> list[str]:
    """The names below glibc-hwcaps that the processor has, the least demanding first."""
    if context.machine == EM_X86_64:
        return parse_levels(processor.cpuinfo)
    table = _POWER if context.machine == EM_PPC64 else _Z if context.machine == EM_S390 else ()
    active = []
    for name, hwcap, hwcap2 in table:
        if processor.hwcap & hwcap != hwcap or processor.hwcap2 & hwcap2 != hwcap2:
            break
        active.append(name)
    return active


def _legacy_features(context: LinuxContext, processor: Processor | None) -> list[str]:
    """The features that had folders before glibc 2.37, the highest bit first (HWCAP_IMPORTANT of each machine)."""
    if processor is None:
        return ["x86_64"] if context.machine == EM_X86_64 else []
    flags = read_flags(processor.cpuinfo)
    by_machine = {
        EM_X86_64: (
            ("avx512_1", flags >= {"avx512cd", "avx512bw", "avx512dq", "avx512vl"} and "avx512er" not in flags),
            ("x86_64", True),
        ),
        EM_386: (("sse2", "sse2" in flags),),
        EM_AARCH64: (("atomics", bool(processor.hwcap & _HWCAP_ATOMICS)),),
        EM_ARM: (("neon", bool(processor.hwcap & _HWCAP_NEON)), ("vfp", bool(processor.hwcap & _HWCAP_VFP))),
    }
    return [name for name, has_it in by_machine.get(context.machine, ()) if has_it]


def list_legacy_folders(platform: str | None, features: Sequence[str]) -> list[str]:
    """The folders tried below each folder by glibc before 2.37, in its order: of every choice of these names, the
    choices with more of the first names first (_dl_important_hwcaps in elf/dl-hwcaps.c)."""
    names = ("tls", *((platform,) if platform else ()), *features)
    return ["/".join(chosen) for chosen in _choices(names)]


def _choices(names: Sequence[str]) -> Iterator[list[str]]:
    for mask in range((1 << len(names)) - 1, 0, -1):
        yield [name for at, name in enumerate(names) if mask >> (len(names) - 1 - at) & 1]


def read_flags(cpuinfo: str) -> frozenset[str]:
    """The flags of the first processor in the text of /proc/cpuinfo."""
    match = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    return frozenset(match[1].split()) if match else frozenset()


def parse_levels(cpuinfo: str) -> list[str]:
    """The x86-64 levels, lowest first, of the first processor in the text of /proc/cpuinfo."""
    flags = read_flags(cpuinfo)
    levels = []
    for name, wanted in _LEVELS:
        if not flags.issuperset(wanted.split()):
            break
        levels.append(name)
    return levels
