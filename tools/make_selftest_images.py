"""Make src/dlltracer/selftest/images.json: the tiny libraries that `dlltracer selftest` loads, each for every machine.

They are put together field by field by tests/builders, from bytes that we understand: a wheel brings no compiler. The
file holds them compressed, in base64. tests/unit/test_selftest_images.py holds it against what this makes.
"""

from __future__ import annotations

import base64
import json
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "src" / "dlltracer" / "selftest" / "images.json"
sys.path.insert(0, str(ROOT / "tests"))

from builders.elf_file import ElfFile, Symbol, need  # noqa: E402
from builders.pe_file import AMD64, ARM64, I386, Export, build_manifest, build_pe  # noqa: E402

RETURN_42 = {AMD64: "b8 2a000000 c3", I386: "b8 2a000000 c3", ARM64: "40058052 c0035fd6"}
"""mov eax, 42; ret · mov w0, #42; ret"""
RETURN_FALSE = {AMD64: "31c0 c3", I386: "31c0 c2 0c00", ARM64: "00008052 c0035fd6"}
"""A DllMain that refuses: xor eax, eax; ret (ret 12 on x86: stdcall, three arguments) · mov w0, #0; ret"""

PE_MACHINES = {"x64": AMD64, "x86": I386, "arm64": ARM64}
PROCESSORS = {AMD64: "amd64", I386: "x86", ARM64: "arm64"}
"""As manifests have them."""

ELF_MACHINES: Mapping[str, Mapping[str, object]] = {
    "x86_64": {"machine": 62},
    "i386": {"machine": 3, "bits": 32, "with_addend": False},
    "aarch64": {"machine": 183, "relocation": 1025},
    # EF_ARM_EABI_VER5, without which no loader of today takes it.
    "arm": {"machine": 40, "bits": 32, "with_addend": False, "relocation": 21, "flags": 0x5000000},
    # EF_RISCV_RVC and the double float ABI: glibc takes libraries of its own float ABI only.
    "riscv64": {"machine": 243, "relocation": 2, "flags": 5},
}
"""What differs: R_AARCH64_GLOB_DAT, R_ARM_GLOB_DAT, R_RISCV_64 for the relocation of a symbol."""


def pe_images(machine: int) -> dict[str, bytes]:
    """The DLLs for one machine. `dt_dep_0.dll` is the need that steps give other names of the same length."""
    code = bytes.fromhex(RETURN_42[machine])

    def dll(*needs: str, **more: object) -> bytes:
        imports = {name: ["dt_answer"] for name in needs} or None
        return build_pe(imports, ["dt_answer"], machine=machine, **{"code": code, **more})  # type: ignore[arg-type]

    refusal = bytes.fromhex(RETURN_FALSE[machine])
    manifest = build_manifest("dlltracer.selftest.absent", processor=PROCESSORS[machine])
    return {
        "good": dll(),
        "needs-good": dll("dt_dep_0.dll"),
        "needs-missing": dll("dt_gone0.dll"),
        "needs-symbol": build_pe({"dt_dep_0.dll": ["dt_no_such_name"]}, ["dt_answer"], machine=machine, code=code),
        "needs-ordinal": build_pe({"dt_dep_0.dll": [999]}, ["dt_answer"], machine=machine, code=code),
        "refuses": dll(code=refusal, has_entry=True),
        "asks-for-assembly": dll(manifest=manifest),
        "forwards-nowhere": build_pe(None, [Export("dt_answer", None, "dt_gone0.dt_answer")], machine=machine),
        "needs-good-from-system": dll("dt_dep_0.dll", dependent_load_flags=0x800),
        "delays-missing": build_pe(
            None, ["dt_answer"], machine=machine, code=code, delayed={"dt_gone0.dll": ["dt_answer"]}
        ),
        "needs-contract": build_pe(
            {"api-ms-win-crt-heap-l1-1-0.dll": ["malloc"]}, ["dt_answer"], machine=machine, code=code
        ),
    }


def elf_images(settings: Mapping[str, object]) -> dict[str, bytes]:
    """The libraries for one machine. `libdt_dep0.so` is the need that steps look for in several places.

    They have no code, but a segment for it, by which a library is told from data. What they export lies in the file's
    own header.
    """

    def library(**more: object) -> bytes:
        return ElfFile(**{**settings, "loadable": True, **more}).build()  # type: ignore[arg-type]

    answer = Symbol("dt_answer", kind=1, value=0x10)
    return {
        "good": library(soname="libdt_good.so", symbols=(answer,)),
        "dependency": library(
            soname="libdt_dep0.so", symbols=(Symbol("dt_thing", "DT_1.0", kind=1, value=0x10),),
            version_defs=("DT_1.0",),
        ),
        "needs-good": library(needed=("libdt_dep0.so",), symbols=(answer,)),
        "needs-good-rpath": library(needed=("libdt_dep0.so",), rpath="$ORIGIN/rpath"),
        "needs-good-runpath": library(needed=("libdt_dep0.so",), runpath="$ORIGIN/runpath"),
        "needs-missing": library(needed=("libdt_gone0.so",), runpath="$ORIGIN"),
        "needs-version": library(
            needed=("libdt_dep0.so",), runpath="$ORIGIN", symbols=(need("dt_thing", "DT_2.0", "libdt_dep0.so", kind=1),)
        ),
        "needs-symbol": library(symbols=(need("dt_no_such_symbol", kind=1),)),
    }


def make_images() -> dict[str, dict[str, bytes]]:
    """Every image, by machine and name."""
    made = {name: pe_images(machine) for name, machine in PE_MACHINES.items()}
    return made | {name: elf_images(settings) for name, settings in ELF_MACHINES.items()}


def main() -> None:
    """Write the file."""
    packed = {
        machine: {name: base64.b64encode(zlib.compress(data, 9)).decode() for name, data in images.items()}
        for machine, images in make_images().items()
    }
    TARGET.write_text(json.dumps(packed, indent=0) + "\n", encoding="ascii")
    print(f"{TARGET}: {sum(map(len, packed.values()))} images, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
