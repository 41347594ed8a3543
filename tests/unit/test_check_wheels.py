"""Every rule of `dlltracer check`, on wheels made by hand: what is broken is found, what is sound is quiet."""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from builders.elf_file import ElfFile, Symbol, need
from builders.macho_file import ARM64, DYLIB, MACOS, X86_64, build_fat, build_macho, sign, version
from builders.pe_file import AMD64, build_pe, build_version
from builders.pe_file import ARM64 as PE_ARM64
from builders.wheel_file import build_wheel
from dlltracer.check.packages import check_wheel
from dlltracer.check.platforms import Loader, read_platforms
from dlltracer.check.targets import CheckTarget, check_anything, classify_target
from dlltracer.model.check import CheckReport, Severity
from dlltracer.model.elf import DF_STATIC_TLS

LINUX = "cp312-cp312-manylinux_2_17_x86_64"
ARM_LINUX = "cp312-cp312-manylinux_2_17_aarch64"
MUSL = "cp312-cp312-musllinux_1_2_x86_64"
STABLE_T = "cp315-abi3t-manylinux_2_17_x86_64"
WINDOWS = "cp312-cp312-win_amd64"
MAC = "cp312-cp312-macosx_11_0_arm64"
UNIVERSAL = "cp312-cp312-macosx_10_9_universal2"

MUSL_SO = "pkg/mod.cpython-312-x86_64-linux-musl.so"
SO, MAC_SO = "pkg/mod.cpython-312-x86_64-linux-gnu.so", "pkg/mod.cpython-312-darwin.so"
PYD = "pkg/mod.cp312-win_amd64.pyd"
INIT = Symbol("PyInit_mod")
PAGE = Path(__file__).parents[2] / "src/dlltracer/report/pages/checks.md"


def elf(**more: object) -> bytes:
    options: dict[str, object] = {"loadable": True, "symbols": (INIT, need("PyModule_Create2")), **more}
    return ElfFile(**options).build()  # type: ignore[arg-type]


def library(name: str, *symbols: Symbol, **more: object) -> bytes:
    return elf(soname=name, symbols=symbols, **more)


def mach(*needs: str, imports: tuple[tuple[str, int], ...] = (), **more: object) -> bytes:
    options: dict[str, object] = {"signature": 16, **more}
    return build_macho([*needs, "/usr/lib/libSystem.B.dylib"], list(imports), {"_PyInit_mod": None}, **options)  # type: ignore[arg-type]


def dylib(exports: tuple[str, ...] = (), **more: object) -> bytes:
    options: dict[str, object] = {"kind": DYLIB, "signature": 16, **more}
    return build_macho(["/usr/lib/libSystem.B.dylib"], [], dict.fromkeys(exports), **options)  # type: ignore[arg-type]


def pe(imports: dict[str, list[str | int]], **more: object) -> bytes:
    return build_pe(imports, ["PyInit_mod"], **more)  # type: ignore[arg-type]


def with_flags(data: bytes, kind: int, *, flags: int | None = None, align: int | None = None) -> bytes:
    """Change the program header of that type, of a 64-bit little-endian ELF file."""
    changed = bytearray(data)
    start, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    for at in range(start, start + 56 * count, 56):
        if struct.unpack_from("<I", data, at)[0] == kind:
            if flags is not None:
                struct.pack_into("<I", changed, at + 4, flags)
            if align is not None:
                struct.pack_into("<Q", changed, at + 48, align)
    return bytes(changed)


def without_segment(data: bytes, kind: int) -> bytes:
    """Turn the program header of that type into one that says nothing (PT_NULL)."""
    changed = bytearray(data)
    start, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    for at in range(start, start + 56 * count, 56):
        if struct.unpack_from("<I", data, at)[0] == kind:
            struct.pack_into("<I", changed, at, 0)
    return bytes(changed)


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., CheckReport]:
    def run(files: dict[str, bytes], tag: str, **more: object) -> CheckReport:
        return check_wheel(str(build_wheel(tmp_path, files, tag=tag, **more)))  # type: ignore[arg-type]

    return run


def with_static_tls(size: int) -> bytes:
    """Return a module whose thread-local variables take so many bytes of the static TLS block."""
    data = bytearray(elf(tags=((DT_FLAGS, DF_STATIC_TLS),), interpreter="/none"))
    start, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    for at in range(start, start + 56 * count, 56):
        if struct.unpack_from("<I", data, at)[0] == PT_INTERP:
            struct.pack_into("<I", data, at, PT_TLS)
            struct.pack_into("<Q", data, at + 40, size)
    return bytes(data)


DT_FLAGS, PT_INTERP, PT_TLS = 30, 3, 7
MANYLINUX_28, NO_ABI = "cp312-cp312-manylinux_2_28_x86_64", "cp314-none-manylinux_2_17_x86_64"
OF_NEW_LIBSTDCXX = elf(
    needed=("libstdc++.so.6", "libwidgets.so"), symbols=(INIT, need("_ZSt21ios_base_library_initv"), need("w_open"))
)
OLD_RUNTIME = build_pe({}, [], version=build_version((14, 28, 29334, 0)))
NEW_RUNTIME = build_pe({}, ["_Mtx_lock", "_Mtx_init_in_situ"], version=build_version((14, 40, 33810, 0)))
GLIBC_34 = ("libc.so.6", "GLIBC_2.34", False)

BY_CTYPES = {"pkg/__init__.py": b"import ctypes\nctypes.CDLL(__path__[0] + '/libown' + end)\n"}
PLAIN, PLAIN_WINDOWS, PLAIN_MAC = "py3-none-manylinux_2_17_x86_64", "py3-none-win_amd64", "py3-none-macosx_11_0_arm64"

BROKEN: list[tuple[str, dict[str, bytes], str, str, str]] = [
    ("glibc-above-tag", {SO: elf(needed=("libc.so.6",), version_needs=(GLIBC_34,))}, LINUX, "error", r"GLIBC_2\.34"),
    (
        "libstdcxx-above-tag",
        {SO: elf(needed=("libstdc++.so.6",), version_needs=(("libstdc++.so.6", "GLIBCXX_3.4.29", False),))},
        LINUX, "error", r"GLIBCXX_3\.4\.29.*3\.4\.19",
    ),
    ("missing-image", {SO: elf(needed=("libtbb.so.12",))}, LINUX, "error", r"libtbb\.so\.12"),
    ("missing-image", {SO: elf(needed=("libxcb-cursor.so.0",))}, LINUX, "warning", "libxcb-cursor"),
    ("missing-image", {SO: elf(needed=("libcuda.so.1",))}, LINUX, "note", "driver"),
    ("missing-image", {"pkg/lib.so": library("lib.so", needed=("libz9.so",))}, LINUX, "warning", "libz9"),
    ("not-on-runpath", {SO: elf(needed=("liba.so",)), "pkg/lib/liba.so": library("liba.so")}, LINUX, "error", "liba"),
    (
        "mangled-name", {SO: elf(needed=("liba.so.1",)), "pkg.libs/liba-1a2b3c4d.so.1": library("liba.so.1")}, LINUX,
        "error", r"liba-1a2b3c4d",
    ),
    ("other-libpython", {SO: elf(needed=("libpython3.12.so.1.0",))}, LINUX, "error", "libpython"),
    ("executable-stack", {SO: with_flags(elf(), 0x6474E551, flags=7)}, LINUX, "error", "stack"),
    (
        "misaligned-image",
        {"pkg/mod.cpython-312-aarch64-linux-gnu.so": with_flags(elf(machine=183), 1, align=0x1000)}, ARM_LINUX, "error",
        "64 KiB",
    ),
    ("executable-stack", {SO: without_segment(elf(), 0x6474E551)}, LINUX, "error", "stack"),
    ("executable-stack", {MUSL_SO: with_flags(elf(), 0x6474E551, flags=7)}, MUSL, "note", "stack"),
    (
        "executable-stack",
        {"pkg/tool": with_flags(elf(interpreter="/lib64/ld-linux-x86-64.so.2", symbols=()), 0x6474E551, flags=7)},
        LINUX, "note", "stack",
    ),
    ("wrong-machine", {SO: elf(machine=183)}, LINUX, "error", "AArch64"),
    ("wrong-machine", {"pkg/data.so": library("x", machine=183)}, LINUX, "note", "AArch64"),
    ("other-c-library", {SO: elf(needed=("libc.musl-x86_64.so.1",))}, LINUX, "error", "musl"),
    ("other-c-library", {SO: elf(needed=("libc.so.6",))}, MUSL, "error", "glibc"),
    ("other-platform", {SO: pe({})}, LINUX, "error", "PE file"),
    ("damaged-image", {SO: elf()[:200]}, LINUX, "error", "cut short"),
    ("damaged-image", {"pkg/mod.abi3t.so": elf()[:200]}, STABLE_T, "error", "cut short"),
    ("wrong-machine", {"pkg/mod.abi3t.so": elf(machine=183)}, STABLE_T, "error", "AArch64"),
    ("other-platform", {"pkg/mod.abi3t.so": elf()}, "cp315-abi3t-macosx_11_0_arm64", "error", "not a Mach-O"),
    ("missing-symbol", {SO: elf(symbols=(INIT, need("never_linked")))}, LINUX, "error", "never_linked"),
    (
        "missing-symbol", {"pkg/libown.so": library("lib.so", need("__cxa_thread_atexit_impl")), **BY_CTYPES}, MUSL,
        "error", "__cxa_thread_atexit_impl",
    ),
    (
        "missing-symbol",
        {
            SO: elf(needed=("liba.so",), runpath="$ORIGIN", symbols=(INIT, need("f", "V_2", "liba.so"))),
            "pkg/liba.so": library("liba.so", Symbol("f", "V_1"), version_defs=("V_1",)),
        },
        LINUX, "error", "f in version V_2",
    ),
    ("absolute-runpath", {SO: elf(runpath="/home/builder/lib")}, LINUX, "note", "/home/builder/lib"),
    ("suffix-mismatch", {"pkg/mod.cpython-312t-x86_64-linux-gnu.so": elf()}, LINUX, "error", r"3\.12t"),
    ("suffix-mismatch", {SO: elf(machine=183)}, ARM_LINUX, "error", "aarch64-linux-gnu"),
    ("suffix-mismatch", {SO: elf()}, MUSL, "error", "x86_64-linux-musl"),
    ("suffix-mismatch", {"pkg/mod.cp312-win32.pyd": pe({})}, WINDOWS, "error", "win_amd64"),
    ("suffix-mismatch", {SO: elf()}, "cp312-abi3-manylinux_2_17_x86_64", "error", "stable ABI"),
    ("suffix-mismatch", {SO: elf()}, "py3-none-manylinux_2_17_x86_64", "warning", "every Python 3"),
    ("tag-mismatch", {SO: elf()}, "py3-none-any", "warning", "every platform"),
    (
        "suffix-mismatch", {"pkg/mod.cpython-311-x86_64-linux-gnu.so": elf()}, LINUX, "error", r"3\.11.*3\.12",
    ),
    (
        "other-c-library",
        {
            SO: elf(needed=("liba.so",), runpath="$ORIGIN"),
            "pkg/liba.so": library("liba.so", needed=("libc.musl-x86_64.so.1",)),
        },
        LINUX, "error", "an extension module needs it",
    ),
    (
        "missing-symbol",
        {
            MUSL_SO: elf(needed=("liba.so",), runpath="$ORIGIN"),
            "pkg/liba.so": library("liba.so", need("__memcpy_chk", "GLIBC_2.3.4", "libc.so.6"), needed=("libc.so.6",)),
        },
        MUSL, "error", "__memcpy_chk",
    ),
    (
        "glibc-above-tag", {SO: elf(needed=("libc.so.6",), version_needs=(("libc.so.6", "GLIBC_ABI_DT_RELR", False),))},
        LINUX, "error", r"GLIBC_2\.36",
    ),
    (
        "libstdcxx-above-tag",
        {SO: elf(needed=("libgcc_s.so.1",), version_needs=(("libgcc_s.so.1", "GCC_12.0.0", False),))}, LINUX, "error",
        r"GCC_12\.0\.0 of libgcc_s\.so\.1.*GCC_4\.8\.0",
    ),
    ("musl-above-tag", {MUSL_SO: elf(symbols=(INIT, need("qsort_r")))}, MUSL, "warning", r"qsort_r.*1\.2\.3"),
    (
        "musl-above-tag", {MUSL_SO: elf(symbols=(INIT, need("gettid")))}, "cp312-cp312-musllinux_1_1_x86_64", "error",
        r"gettid.*1\.2\.2",
    ),
    (
        "missing-symbol", {MUSL_SO: elf(symbols=(INIT, need("__dlsym_time64")))}, MUSL, "error", "__dlsym_time64",
    ),
    ("dangling-runpath", {SO: elf(needed=("libc.so.6",), runpath="$ORIGIN/../pkg.libs")}, LINUX, "note", "pkg.libs"),
    (
        "mangled-name",
        {SO: elf(needed=("liba-00000000.so.1",)), "pkg.libs/liba-1a2b3c4d.so.1": library("liba.so.1")}, LINUX, "error",
        r"liba-1a2b3c4d",
    ),
    (
        "other-libpython",
        {
            SO: elf(needed=("libpython3.12-1a2b3c4d.so.1.0",), runpath="$ORIGIN/../pkg.libs"),
            "pkg.libs/libpython3.12-1a2b3c4d.so.1.0": library("libpython3.12-1a2b3c4d.so.1.0"),
        },
        LINUX, "warning", "a Python of its own",
    ),
    (
        "missing-image",
        {"pkg-1.0.data/scripts/tool": elf(interpreter="/lib64/ld-linux-x86-64.so.2", needed=("liba.so",), symbols=())},
        LINUX, "error", "liba",
    ),
    ("missing-vc-runtime", {PYD: pe({"MSVCP140.dll": ["f"]})}, WINDOWS, "error", "MSVCP140"),
    ("vc-runtime-too-old", {PYD: pe({"MSVCP140.dll": ["_Mtx_lock"]})}, WINDOWS, "error", r"14\.40"),
    (
        "vc-runtime-too-old", {PYD: pe({"msvcp140.dll": ["_Mtx_lock"]}), "pkg/msvcp140.dll": OLD_RUNTIME}, WINDOWS,
        "error", r"14\.28",
    ),
    ("old-vc-runtime", {"pkg/msvcp140.dll": OLD_RUNTIME}, WINDOWS, "error", r"14\.28\.29334\.0"),
    ("debug-build", {PYD: pe({"VCRUNTIME140D.dll": ["f"]})}, WINDOWS, "error", "VCRUNTIME140D"),
    ("debug-build", {PYD: pe({"python312_d.dll": ["f"]})}, WINDOWS, "error", "python312_d"),
    ("debug-build", {PYD: pe({"MSVCP140_1D.dll": ["f"]})}, WINDOWS, "error", "MSVCP140_1D"),
    ("debug-build", {PYD: pe({"mfcm140ud.dll": ["f"]})}, WINDOWS, "error", "mfcm140ud"),
    ("debug-build", {PYD: pe({"MSVCP140D_ATOMIC_WAIT.dll": ["f"]})}, WINDOWS, "error", "MSVCP140D_ATOMIC"),
    ("other-python", {PYD: pe({"python311.dll": ["f"]})}, WINDOWS, "error", "python311"),
    ("missing-image", {PYD: pe({"gone.dll": ["f"]})}, WINDOWS, "error", "gone.dll"),
    ("missing-image", {PYD: pe({"nvcuda.dll": ["f"]})}, WINDOWS, "note", "driver"),
    (
        "not-on-search-path", {PYD: pe({"a.dll": ["f"]}), "pkg/lib/a.dll": build_pe({}, ["f"])}, WINDOWS, "error",
        "pkg/lib/a.dll",
    ),
    (
        "mangled-name", {PYD: pe({"a.dll": ["f"]}), "pkg.libs/a-0123456789abcdef.dll": build_pe({}, ["f"])}, WINDOWS,
        "error", "a-0123456789abcdef",
    ),
    ("missing-symbol", {PYD: pe({"a.dll": ["g"]}), "pkg/a.dll": build_pe({}, ["f"])}, WINDOWS, "error", "g of a.dll"),
    ("wrong-machine", {PYD: pe({}, machine=PE_ARM64)}, WINDOWS, "error", "ARM64"),
    ("missing-slice", {MAC_SO: mach(cpu=X86_64)}, MAC, "error", "x86_64.*arm64"),
    ("missing-slice", {MAC_SO: mach(targets=[(MACOS, version(10, 9), 0)])}, UNIVERSAL, "error", "arm64.*x86_64"),
    ("unsigned-image", {MAC_SO: mach(signature=0)}, MAC, "error", "signature"),
    (
        "signature-invalid", {MAC_SO: sign(mach(signature=4096)).replace(b"libSystem.B", b"libSystem.C")}, MAC, "error",
        "changed after",
    ),
    (
        "missing-symbol",  # perhaps pkg.other has loaded AppKit
        {
            MAC_SO: mach(imports=(("_OBJC_CLASS_$_NSApplication", -2),)),
            "pkg/other.cpython-312-darwin.so": mach("/System/Library/Frameworks/AppKit.framework/AppKit"),
        },
        MAC, "warning", "NSApplication.*flat namespace",
    ),
    (
        "missing-symbol",
        {
            MAC_SO: mach(imports=(("_rotl64", -2),)),
            "pkg/__init__.py": b"try:\n    from . import mod\nexcept ImportError:\n    mod = None\n",
        },
        MAC, "warning", "_rotl64",
    ),
    ("missing-slice", {MAC_SO: mach(cpu=X86_64)}, "cp37-cp37m-macosx_10_6_intel", "error", "i386"),
    ("macos-above-tag", {MAC_SO: mach(targets=[(MACOS, version(13), 0)])}, MAC, "warning", r"13\.0.*11\.0"),
    (
        "macos-above-tag",
        {MAC_SO: mach(imports=(("_mkfifoat", 1),), targets=[(MACOS, version(13), 0)])}, MAC, "error", r"13\.0",
    ),
    (
        "missing-symbol", {MAC_SO: mach(imports=(("_PQbackendPID", -2),))}, MAC, "error", "_PQbackendPID",
    ),
    (
        "missing-symbol",
        {MAC_SO: mach("/usr/lib/libxml2.2.dylib", imports=(("_xmlOther", -2),))}, MAC, "error", "_xmlOther",
    ),
    (
        "missing-symbol",
        {MAC_SO: mach("/System/Library/Frameworks/A.framework/A", imports=(("_FSMake", -2),))}, MAC, "warning",
        "_FSMake",
    ),
    (
        "missing-symbol",
        {MAC_SO: mach(imports=(("_f", -2),)), "pkg/liba.dylib": dylib(("_f",))}, MAC, "note", "_f, of no",
    ),
    ("macos-above-tag", {MAC_SO: mach(imports=(("_strchrnul", 1),))}, MAC, "error", r"_strchrnul.*15\.4.*11\.0"),
    (
        "macos-above-tag", {MAC_SO: mach(imports=(("__ZNSt3__117bad_function_callD1Ev", 1),))}, MAC, "error",
        r"bad_function.*15\.4",
    ),
    (
        "macos-above-tag",
        {MAC_SO: mach(imports=(("__ZTVNSt3__115basic_stringbufIcNS_11char_traitsIcEENS_9allocatorIcEEEE", 1),))}, MAC,
        "error", r"basic_stringbuf.*12\.0",
    ),
    ("macos-above-tag", {MAC_SO: mach(imports=(("_dgemm$NEWLAPACK", 1),))}, MAC, "error", r"NEWLAPACK.*13\.3"),
    ("missing-image", {MAC_SO: mach("/opt/homebrew/lib/libx.dylib")}, MAC, "error", "a path of the machine"),
    ("missing-image", {MAC_SO: mach("@rpath/libx.dylib")}, MAC, "error", "in none of the folders"),
    ("not-on-rpath", {MAC_SO: mach("@rpath/libx.dylib"), "pkg/lib/libx.dylib": dylib()}, MAC, "error", "pkg/lib/libx"),
    ("other-libpython", {MAC_SO: mach("@rpath/Python3.framework/Versions/3.12/Python3")}, MAC, "error", "Python3"),
    (
        "missing-symbol",
        {MAC_SO: mach("@loader_path/liba.dylib", imports=(("_g", 1),)), "pkg/liba.dylib": dylib(("_f",))}, MAC, "error",
        "_g of @loader_path/liba.dylib",
    ),
    (
        "wrong-file",
        {MAC_SO: mach("@loader_path/liba.dylib"), "pkg/liba.dylib": dylib(targets=[(7, version(11), 0)])}, MAC, "error",
        "iOS simulator",
    ),
    ("other-platform", {MAC_SO: elf()}, MAC, "error", "ELF file"),
    # Loaded by ctypes, in a wheel without extension modules: without its library the package is of no use.
    (
        "missing-image", {"pkg/libown.so": library("libown.so", needed=("libz9.so",)), **BY_CTYPES}, PLAIN, "error",
        "libz9",
    ),
    (
        "missing-image", {"pkg/own.dll": build_pe({"MSVCR120.dll": ["f"]}, []), **BY_CTYPES}, PLAIN_WINDOWS, "error",
        "MSVCR",
    ),
    (
        "missing-vc-runtime", {"pkg/own.dll": build_pe({"MSVCP140.dll": ["f"]}, []), **BY_CTYPES}, PLAIN_WINDOWS,
        "error", "MSVCP140",
    ),
    (
        "vc-runtime-too-old", {"pkg/own.dll": build_pe({"MSVCP140.dll": ["_Mtx_lock"]}, []), **BY_CTYPES},
        PLAIN_WINDOWS, "error", r"14\.40",
    ),
    (
        "missing-image", {"pkg/libown.dylib": mach("@rpath/libz9.dylib", kind=DYLIB), **BY_CTYPES}, PLAIN_MAC, "error",
        "libz9",
    ),
    (
        "missing-symbol", {"pkg/libown.dylib": mach(imports=(("_forgotten", -2),), kind=DYLIB), **BY_CTYPES}, PLAIN_MAC,
        "error", "_forgotten",
    ),
    ("wrong-machine", {"pkg/libown.so": library("libown.so", machine=183), **BY_CTYPES}, PLAIN, "error", "AArch64"),
    (
        "wrong-machine",
        {"pkg/libown.so": library("libown.so"), "pkg/arm/libown.so": library("libown.so", machine=183), **BY_CTYPES},
        PLAIN, "note", "AArch64",
    ),
    (
        "wrong-machine", {"pkg/own.dll": build_pe({}, [], machine=PE_ARM64), **BY_CTYPES}, PLAIN_WINDOWS, "error",
        "ARM64",
    ),
    # Beside extension modules, or named by no code, it may be a plug-in.
    (
        "missing-image", {SO: elf(), "pkg/libown.so": library("libown.so", needed=("libz9.so",)), **BY_CTYPES}, LINUX,
        "warning", "libz9",
    ),
    (
        "missing-image", {"pkg/other.so": library("other.so", needed=("libz9.so",)), **BY_CTYPES}, PLAIN, "warning",
        "libz9",
    ),
    # Needs without a version, that libstdc++ fulfils where it is new enough.
    (
        "libstdcxx-above-tag",
        {SO: elf(needed=("libstdc++.so.6",), symbols=(INIT, need("_ZSt28__throw_bad_array_new_lengthv")))}, LINUX,
        "error", r"_ZSt28.*GLIBCXX_3\.4\.29.*3\.4\.19",
    ),
    ("libstdcxx-above-tag", {SO: OF_NEW_LIBSTDCXX}, MANYLINUX_28, "error", r"GLIBCXX_3\.4\.32"),
    (
        "missing-symbol",  # a string of libstdc++ among its parameters makes it none of libstdc++
        {
            SO: elf(
                needed=("libstdc++.so.6",),
                symbols=(INIT, need("_ZN7testing2EqERKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE")),
            )
        },
        LINUX, "error", "testing",
    ),
    ("static-tls", {MUSL_SO: with_static_tls(8)}, MUSL, "error", "musl has no place"),
    (
        "static-tls", {MUSL_SO: elf(needed=("liba.so",), runpath="$ORIGIN"), "pkg/liba.so": with_static_tls(8)}, MUSL,
        "error", "static TLS",
    ),
    ("static-tls", {SO: with_static_tls(4096)}, LINUX, "error", "glibc has not that much"),
    ("other-python", {"pkg/mod.so": elf(symbols=(INIT, need("_Py_Dealloc")))}, NO_ABI, "error", r"3\.14t"),
    (
        "missing-symbol",
        {SO: elf(needed=("libstdc++.so.6",), symbols=(INIT, need("_ZNSt6vectorI3FooE4growEv")))}, LINUX, "error",
        "vector",
    ),
    ("missing-symbol", {SO: elf(symbols=(INIT, need("_ZSt20__throw_length_errorPKc")))}, LINUX, "error", "_ZSt20"),
    (
        "missing-symbol",
        {SO: elf(needed=("libc.so.6",), symbols=(INIT, need("scalbln", "GLIBC_2.2.5", "libc.so.6")))}, LINUX, "error",
        "scalbln.*no more",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("code", "files", "tag", "severity", "words"), BROKEN)
def test_what_is_broken_is_found(
    check: Callable[..., CheckReport], code: str, files: dict[str, bytes], tag: str, severity: str, words: str
) -> None:
    report = check(files, tag)
    found = [(p.severity.value, p.title) for p in report.problems if p.code == code]
    assert found, report.problems
    assert [s for s, title in found if s == severity and re.search(words, title, re.DOTALL)], found


SOUND: list[tuple[dict[str, bytes], str]] = [
    (
        {
            SO: elf(
                needed=("liba-1a2b3c4d.so", "libc.so.6"), runpath="$ORIGIN/../pkg.libs",
                symbols=(
                    INIT, need("f"), need("PyErr_Occurred"), need("nextafter"),
                    need("puts", "GLIBC_2.2.5", "libc.so.6"),
                ),
            ),
            "pkg.libs/liba-1a2b3c4d.so": library("liba-1a2b3c4d.so", Symbol("f"), needed=("libm.so.6",)),
        },
        LINUX,
    ),
    ({MUSL_SO: elf(needed=("libc.musl-x86_64.so.1",), symbols=(INIT, need("puts"), need("open64")))}, MUSL),
    ({"pkg-1.0.data/scripts/tool": elf(kind=2, dynamic=False, symbols=())}, MUSL),
    ({"pkg-1.0.data/scripts/tool": elf(interpreter="/lib64/ld-linux-x86-64.so.2", needed=("libc.so.6",))}, LINUX),
    (
        {
            PYD: pe({"a.dll": ["f"], "python312.dll": ["PyErr_Occurred"], "KERNEL32.dll": ["Sleep"]}),
            "pkg/a.dll": build_pe({}, ["f"]),
        },
        WINDOWS,
    ),
    ({PYD: pe({"msvcp140.dll": ["_Mtx_lock"]}), "pkg/msvcp140.dll": NEW_RUNTIME}, WINDOWS),
    ({PYD: pe({"MSVCP140.dll": ["_Mtx_lock", "_Mtx_init_in_situ"]}), "pkg/msvcp140.dll": NEW_RUNTIME}, WINDOWS),
    (
        {
            MAC_SO: mach(
                "@rpath/liba.dylib", imports=(("_f", 1), ("_PyErr_Occurred", -2)), rpaths=["@loader_path/.dylibs"]
            ),
            "pkg/.dylibs/liba.dylib": dylib(("_f",)),
        },
        MAC,
    ),
    (
        {MAC_SO: build_fat([mach(cpu=X86_64, targets=[(MACOS, version(10, 9), 0)], signature=0), mach(cpu=ARM64)])},
        UNIVERSAL,
    ),
    (
        {
            MAC_SO: mach(
                "@loader_path/liba.dylib", imports=(("_f", -2), ("_PyErr_Occurred", -2), ("_g", -2, True))
            ),
            "pkg/liba.dylib": dylib(("_f",)),
        },
        MAC,
    ),
    ({MAC_SO: mach(imports=(("_strchrnul", 1, True), ("_clock_gettime", 1)))}, MAC),
    ({"pkg/__init__.py": b""}, "py3-none-any"),
    ({SO: elf(symbols=(INIT, need("gamma"), need("backtrace")))}, LINUX),
    (
        {
            SO: elf(
                needed=("libstdc++.so.6",), symbols=(INIT, need("_ZSt28__throw_bad_array_new_lengthv"), need("_ZdlPvm"))
            )
        },
        "cp312-cp312-manylinux_2_35_x86_64",
    ),
    ({MAC_SO: mach(imports=(("_objc_msgSend", -2),))}, MAC),
    ({MAC_SO: mach(imports=(("_kCFBooleanTrue", -2), ("_CFRelease", -2)))}, MAC),
    (
        {
            MAC_SO: mach("@loader_path/liba.dylib", "/usr/lib/libBLAS.dylib", imports=(("_f", 1),)),
            "pkg/liba.dylib": build_macho(
                ["/usr/lib/libSystem.B.dylib"], [("_cblas_caxpy", -2), ("_dgesv_", -2)], {"_f": None}, kind=DYLIB,
                signature=16,
            ),
        },
        MAC,
    ),
    ({MAC_SO: sign(mach(signature=4096))}, MAC),
    (
        {
            MAC_SO: mach(),
            "pkg/libc++.dylib": build_macho(  # it passes a name on, which nobody asks for
                ["/usr/lib/libSystem.B.dylib"], [("_strchrnul", 1)], {"_strchrnul": (1, "_strchrnul")}, kind=DYLIB,
                signature=16,
            ),
        },
        MAC,
    ),
    ({MAC_SO: mach(cpu=X86_64)}, "cp312-cp312-macosx_11_0_intel"),
    ({SO: with_static_tls(64)}, LINUX),
    ({"pkg/mod.so": elf(symbols=(INIT, need("_Py_Dealloc")))}, "cp312-none-manylinux_2_17_x86_64"),
    ({"pkg/mod.so": elf(symbols=(INIT, need("_Py_Dealloc")))}, "cp314-cp314-manylinux_2_17_x86_64"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "tag"), SOUND)
def test_what_is_sound_is_quiet(check: Callable[..., CheckReport], files: dict[str, bytes], tag: str) -> None:
    report = check(files, tag)
    assert report.problems == ()
    assert report.unreadable == ""


def test_a_library_that_code_of_the_wheel_loads_is_a_note(check: Callable[..., CheckReport]) -> None:
    files = {
        SO: elf(needed=("liba.so",)), "pkg/lib/liba.so": library("liba.so"),
        "pkg/__init__.py": b"import ctypes\nctypes.CDLL('lib/liba.so')\n",
    }  # fmt: skip
    (problem,) = check(files, LINUX).problems
    assert (problem.code, problem.severity) == ("not-on-runpath", Severity.NOTE)


@pytest.mark.parametrize(
    ("code", "severity"),
    [
        (b"try:\n    from . import mod\nexcept ImportError:\n    mod = None\n", Severity.WARNING),
        (b"try:\n    from . import mod\nexcept ImportError:\n    raise ImportError('see the page')\n", Severity.ERROR),
        (b"from . import mod\n", Severity.ERROR),
        (b"try:\n    from . import mod\nexcept ModuleNotFoundError:\n    pass\n", Severity.ERROR),
    ],
)
def test_a_module_that_its_package_goes_without(
    check: Callable[..., CheckReport], code: bytes, severity: Severity
) -> None:  # fmt: skip
    files = {SO: elf(needed=("libgomp.so.1",)), "pkg/__init__.py": code}
    assert [problem.severity for problem in check(files, LINUX).problems] == [severity]


def test_the_worst_of_two_loads_is_reported(check: Callable[..., CheckReport]) -> None:
    files = {
        "pkg/a.cpython-312-x86_64-linux-gnu.so": elf(needed=("liba.so",), runpath="$ORIGIN"),
        "pkg/b.cpython-312-x86_64-linux-gnu.so": elf(needed=("liba.so",), runpath="$ORIGIN"),
        "pkg/liba.so": library("liba.so", needed=("gone.so",)),
        "pkg/__init__.py": b"from . import b\ntry:\n    from . import a\nexcept ImportError:\n    pass\n",
    }
    assert [(p.file, p.severity) for p in check(files, LINUX).problems] == [("pkg/liba.so", Severity.ERROR)]


def test_a_library_of_a_required_package_is_a_note(check: Callable[..., CheckReport]) -> None:
    (problem,) = check({SO: elf(needed=("libtbb.so.12",))}, LINUX, requires=["tbb (>=2021)"]).problems
    assert problem.severity is Severity.NOTE and "expects from tbb" in problem.title
    (other,) = check({SO: elf(needed=("libtbb.so.12",))}, LINUX, requires=["tbb; extra == 'fast'"]).problems
    assert other.severity is Severity.ERROR


@pytest.mark.parametrize(
    ("requires", "code", "library", "severity"),
    [
        (["pkg-qt6>=6"], b"", "libQt6Core.so.6", Severity.NOTE),  # wheels of one family fill one folder
        (["pkg-qt6>=6"], b"", "libgone.so", Severity.NOTE),
        (["make-widgets"], b"", "libwidgets_core.so.1", Severity.NOTE),  # a word of the package's name
        (["make-python"], b"", "libpython_x.so", Severity.ERROR),
        ([], b"import os, re\nimport widgets\n", "libwidgets.so", Severity.NOTE),  # what code imports, it needs
        ([], b"import os, re\nimport pkg\n", "libos.so", Severity.ERROR),
        (["make-widgets"], b"", "libother.so", Severity.WARNING),  # libwidgets.so beside it is of make-widgets
        (["somebody"], b"", "libother.so", Severity.ERROR),
        (["apache-widgets-ffi"], b"", "libwidgets_ffi.so", Severity.NOTE),  # words of the package's name
        (["h5py"], b"", "libhdf5.so.310", Severity.NOTE),  # known to be brought by it
        (["pkg-data"], b"", "libpkg-c-api.so", Severity.ERROR),  # the word is the wheel's own name
        ([], b"import ptxcompiler\n", "libomp.so", Severity.ERROR),  # nobody named "omp" is imported
    ],
)  # fmt: skip
def test_libraries_of_other_packages(
    check: Callable[..., CheckReport], requires: list[str], code: bytes, library: str, severity: Severity
) -> None:
    needed = ("libwidgets.so", library) if library == "libother.so" else (library,)
    runpath = None if library == "libpkg-c-api.so" else "$ORIGIN/lib"
    report = check({SO: elf(needed=needed, runpath=runpath), "pkg/__init__.py": code}, LINUX, requires=requires)
    (found,) = [one for one in report.problems if library in one.title]
    assert (found.code, found.severity) == ("missing-image", severity)


def test_the_vc_runtime_is_of_no_package_that_has_other_libraries(check: Callable[..., CheckReport]) -> None:
    files = {PYD: pe({"MSVCP140.dll": ["f"], "widgets.dll": ["g"]})}
    found = {one.code: one.severity for one in check(files, WINDOWS, requires=["widgets"]).problems}
    assert found == {"missing-vc-runtime": Severity.ERROR, "missing-image": Severity.NOTE}


def test_a_library_in_the_folders_of_a_required_package_of_macos(check: Callable[..., CheckReport]) -> None:
    module = mach("@rpath/libc10.dylib", rpaths=["@loader_path/../widgets/lib"])
    (problem,) = check({MAC_SO: module}, MAC, requires=["widgets"]).problems
    assert (problem.severity, problem.title.endswith("expects from widgets")) == (Severity.NOTE, True)


def test_folders_of_the_build_machine_name_no_package(check: Callable[..., CheckReport]) -> None:
    module = mach("@rpath/libc++.1.dylib", rpaths=["/var/folders/x/widgets-1/lib", "/home/me/widgets/lib"])
    (problem,) = check({MAC_SO: module}, MAC, requires=["widgets"]).problems
    assert problem.severity is Severity.ERROR
    assert "-change @rpath/libc++.1.dylib /usr/lib/libc++.1.dylib" in problem.fix


@pytest.mark.parametrize(
    ("requirement", "severity"),
    [("widgets>=1", Severity.ERROR), ("widgets~=1.2", Severity.WARNING), ("torch", Severity.ERROR)],
)
def test_a_library_that_has_parts_of_libstdcxx_by_chance(
    check: Callable[..., CheckReport], requirement: str, severity: Severity
) -> None:  # fmt: skip
    report = check({SO: OF_NEW_LIBSTDCXX}, MANYLINUX_28, requires=[requirement])
    assert [one.severity for one in report.problems if one.code == "libstdcxx-above-tag"] == [severity]


def test_what_another_module_loads_is_found_by_its_name(check: Callable[..., CheckReport]) -> None:
    library = build_pe({}, ["f"])
    files = {"pkg/sub/mod.cp312-win_amd64.pyd": pe({"a.dll": ["f"]}), "pkg/a.dll": library}
    assert [one.severity for one in check(files, WINDOWS).problems] == [Severity.ERROR]
    files["pkg/first.cp312-win_amd64.pyd"] = pe({"a.dll": ["f"]})
    (problem,) = check(files, WINDOWS).problems
    assert (problem.code, problem.severity) == ("not-on-search-path", Severity.WARNING)
    assert "after one of them" in problem.evidence[-1]


def test_many_missing_symbols_are_one_problem(check: Callable[..., CheckReport]) -> None:
    (problem,) = check({SO: elf(symbols=(INIT, *(need(f"name_{n}") for n in range(40))))}, LINUX).problems
    assert "and 39 more" in problem.title


def test_a_delvewheel_folder_is_searched(check: Callable[..., CheckReport]) -> None:
    patch = (
        b"# start delvewheel patch\nlibs = os.path.join(os.path.dirname(__file__), os.pardir, 'pkg.libs')\n"
        b"# end delvewheel patch\n"
    )
    files = {PYD: pe({"a.dll": ["f"]}), "pkg.libs/a.dll": build_pe({}, ["f"]), "pkg/__init__.py": patch}
    assert check(files, WINDOWS).problems == ()


@pytest.mark.parametrize(
    ("platforms", "severity", "words"),
    [
        ("macosx_10_9_arm64", Severity.ERROR, "11.0"),
        ("macosx_12_3_arm64", Severity.ERROR, "macosx_12_0 or macosx_13_0"),
        ("macosx_10_9_arm64.macosx_11_0_arm64", Severity.NOTE, "macosx_10_9_arm64"),
        ("manylinux2010_aarch64", Severity.ERROR, "manylinux_2_17"),
        ("manylinux_2_12_aarch64.manylinux_2_17_aarch64", Severity.NOTE, "manylinux_2_12"),
        ("macosx_10_16_x86_64", None, ""), ("macosx_10_9_universal2", None, ""), ("manylinux1_i686", None, ""),
    ],
)  # fmt: skip
def test_tags_that_no_system_has(
    check: Callable[..., CheckReport], platforms: str, severity: Severity | None, words: str
) -> None:
    problems = [one for one in check({"pkg/a.py": b""}, f"py3-none-{platforms}").problems if one.code == "unfit-tag"]
    assert [one.severity for one in problems] == ([severity] if severity else [])
    assert all(words in one.title for one in problems)


@pytest.mark.parametrize(
    ("built_for", "tag"), [((11, 7), "macosx_12_0"), ((13, 0), "macosx_13_0"), ((15, 4), "macosx_26_0")]
)  # fmt: skip
def test_the_proposed_tag_of_macos_is_one_that_installers_look_for(
    check: Callable[..., CheckReport], built_for: tuple[int, int], tag: str
) -> None:
    (problem,) = check({MAC_SO: mach(targets=[(MACOS, version(*built_for), 0)])}, MAC).problems
    assert problem.fix.endswith(f"tag the wheel {tag}")


def test_the_lowest_of_several_tags_decides(check: Callable[..., CheckReport]) -> None:
    tag = "cp312-cp312-manylinux_2_17_x86_64.manylinux_2_34_x86_64"
    report = check({SO: elf(needed=("libc.so.6",), version_needs=(GLIBC_34,))}, tag)
    assert [problem.platform for problem in report.problems] == ["manylinux_2_17_x86_64"]


def test_record(check: Callable[..., CheckReport]) -> None:
    files = {"pkg/a.py": b"a = 1\n", "pkg/b.py": b"b = 1\n", "pkg/c.py": b"c = 1\n"}
    record = {"pkg/a.py": "sha256=AAAA,6", "pkg/b.py": ",7", "pkg/gone.py": ",1"}
    report = check(files, "py3-none-any", record=record, left_out=["pkg/c.py"])
    assert [(p.code, p.file, p.severity) for p in report.problems] == [
        ("record-mismatch", f"pkg/{name}.py", Severity.ERROR) for name in ("a", "b", "c", "gone")
    ]


def test_a_record_with_backslashes(check: Callable[..., CheckReport]) -> None:
    record = {"pkg\\a.py": ",6", "pkg-1.0.dist-info\\RECORD": ","}
    (problem,) = check({"pkg/a.py": b"a = 1\n"}, "py3-none-any", record=record, left_out=["pkg/a.py"]).problems
    assert (problem.code, problem.severity) == ("record-mismatch", Severity.ERROR)
    assert "backslashes" in problem.title and "1 file" in problem.title


def test_tags_that_differ(check: Callable[..., CheckReport]) -> None:
    (problem,) = check({"pkg/a.py": b""}, "py3-none-any", wheel_tags=["cp312-cp312-win_amd64"]).problems
    assert (problem.code, problem.severity) == ("tag-mismatch", Severity.WARNING)


def test_entries_that_no_installer_takes(tmp_path: Path) -> None:
    path = build_wheel(tmp_path, {"pkg/a.py": b""}, tag="py3-none-any")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../outside.py", b"x")
        archive.writestr("/etc/outside", b"x")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("pkg/a.py", b"x")
    report = check_wheel(str(path))
    found = {(problem.code, problem.file) for problem in report.problems}
    assert found >= {("unsafe-entry", "../../outside.py"), ("unsafe-entry", "/etc/outside")}
    assert ("duplicate-entry", "pkg/a.py") in found
    assert not (tmp_path.parent.parent / "outside.py").exists()


def unreadable(path: Path) -> str:
    report = check_wheel(str(path))
    assert report.problems == ()
    return report.unreadable


def test_what_cannot_be_read(tmp_path: Path) -> None:
    whole = build_wheel(tmp_path, {"pkg/a.py": b"a = 1\n"}, tag="py3-none-any")
    cut = tmp_path / "cut-1.0-py3-none-any.whl"
    cut.write_bytes(whole.read_bytes()[:-40])
    assert "zip archive" in unreadable(cut)
    assert "No such file" in unreadable(tmp_path / "none-1.0-py3-none-any.whl")
    assert "No such file" in unreadable(tmp_path / "pkg-1.0.tar.gz")
    other = tmp_path / "pkg.whl"
    other.write_bytes(whole.read_bytes())
    assert "not that of a wheel" in unreadable(other)
    flagged = bytearray(whole.read_bytes())
    at = flagged.rindex(b"PK\x01\x02")
    flagged[at + 8] |= 1
    locked = tmp_path / "locked-1.0-py3-none-any.whl"
    locked.write_bytes(flagged)
    assert "encrypted" in unreadable(locked)
    folder = tmp_path / "folder-1.0-py3-none-any.whl"
    folder.mkdir()
    assert unreadable(folder)


def test_names_that_cannot_be_written(tmp_path: Path) -> None:
    long = f"pkg/{'x' * 256}.so"
    path = build_wheel(tmp_path, {SO: elf(), "pkg/a": b"", "pkg/a/b.py": b"", long: elf()}, tag=LINUX)
    report = check_wheel(str(path))
    assert {(one.code, one.file) for one in report.problems} == {("duplicate-entry", "pkg/a"), ("unsafe-entry", long)}
    assert report.files == 1


@pytest.mark.parametrize(("tag", "found"), [(WINDOWS, ["warning"]), (MAC, ["warning"]), (LINUX, [])])
def test_names_that_differ_by_case(check: Callable[..., CheckReport], tag: str, found: list[str]) -> None:
    problems = check({"pkg/A.py": b"", "pkg/a.py": b""}, tag).problems
    assert [one.severity.value for one in problems if one.code == "duplicate-entry"] == found


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("ending", ["-1.0-py3-none-any.whl", ".conda", ".tar.bz2", ".so"])
def test_nothing_waits_for_a_fifo(tmp_path: Path, ending: str) -> None:
    path = str(tmp_path / f"pkg{ending}")
    os.mkfifo(path)
    report = check_anything(CheckTarget(path=path, kind=classify_target(path)))
    assert "not a regular file" in report.unreadable


def test_a_large_image_is_read_from_a_file(check: Callable[..., CheckReport], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlltracer.host.zip_members.LARGEST_WHOLE", 100)
    (problem,) = check({SO: elf(needed=("libx.so.1",))}, LINUX).problems
    assert problem.code == "missing-image"


def test_code_that_has_no_room(check: Callable[..., CheckReport], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only wheels that lack something have their code looked at, in a folder that may be impossible."""
    monkeypatch.setattr("tempfile.mkdtemp", Mock(side_effect=FileNotFoundError(2, "No usable temporary directory")))
    files = {SO: elf(), "pkg/__init__.py": b"import pkg.mod\n"}
    assert check(files, LINUX).unreadable == ""
    report = check({**files, SO: elf(needed=("libx.so.1",))}, LINUX)
    assert report.unreadable == "no folder for its Python code: No usable temporary directory"


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    path = build_wheel(wheels, {SO: elf()}, tag=LINUX)
    mode = stat.S_IMODE(path.stat().st_mode)
    assert check_wheel(str(path)).files == 1
    assert list(place.iterdir()) == []
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_platforms_of_tags() -> None:
    tags = ["manylinux2014_x86_64", "manylinux_2_28_x86_64", "win32", "any", "emscripten_3"]
    platforms, unknown = read_platforms(tags)
    assert [(one.tag, one.loader, one.version) for one in platforms] == [
        ("manylinux2014_x86_64", Loader.GLIBC, (2, 17)), ("win32", Loader.WINDOWS, ()),
    ]  # fmt: skip
    assert unknown == ("emscripten_3",)
    (mac,) = read_platforms(["macosx_10_9_universal2"])[0]
    assert mac.cpus == (ARM64, X86_64)
    (linux,) = read_platforms(["linux_x86_64"])[0]
    assert linux.highest("GLIBC") is None


def test_every_code_has_an_entry_in_the_documentation() -> None:
    headings = re.findall(r"^## ([a-z].+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    source = Path(check_wheel.__code__.co_filename).parent
    texts = [path.read_text(encoding="utf-8") for path in source.glob("*.py")]
    texts.append((source.parent / "host/wheel.py").read_text(encoding="utf-8"))
    codes = set(re.findall(r'"([a-z]+\d?(?:-[a-z]+)+)"', "\n".join(texts))) & set(headings)
    assert sorted(headings) == headings
    assert codes == set(headings)
    assert {code for code, *_ in BROKEN} <= codes
    assert AMD64 == 0x8664
