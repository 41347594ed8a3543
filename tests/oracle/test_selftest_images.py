"""The tiny ELF images of the self-test, held against the loaders that they are for: ld.so of each machine lists them.

`ld.so --list` maps a file and all its needs and checks the versions, and runs nothing. Machines that are not this one
are run by qemu-user: those of `DLLTRACER_PROCESSORS`, as in test_processors.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from dlltracer.selftest.step import MACHINES, read_image
from oracle.roots import FOREIGN, Root, find_root

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the loaders are those of Linux")

LOADERS = {
    "x86_64": "ld-linux-x86-64.so.2", "i386": "ld-linux.so.2", "aarch64": "ld-linux-aarch64.so.1",
    "arm": "ld-linux-armhf.so.3", "riscv64": "ld-linux-riscv64-lp64d.so.1",
}  # fmt: skip
ARCHITECTURES = {"i386": "i386", "aarch64": "arm64", "arm": "armhf", "riscv64": "riscv64"}
IMAGES = ("good", "needs-good", "needs-good-rpath", "needs-good-runpath", "needs-missing", "needs-version")


def roots_of(machine: str) -> list[str]:
    """The roots of a machine that are asked for, and those of all machines where all are."""
    chosen = os.environ.get("DLLTRACER_PROCESSORS", "arm64-bookworm")
    names = FOREIGN if chosen == "all" else tuple(chosen.split(","))
    return [name for name in names if name.partition("-")[0] == ARCHITECTURES.get(machine)]


def write_images(machine: str, folder: Path) -> None:
    for name in IMAGES:
        (folder / f"{name}.so").write_bytes(read_image(name, machine))
    for place in ("rpath", "runpath", "."):
        (folder / place).mkdir(exist_ok=True)
        (folder / place / "libdt_dep0.so").write_bytes(read_image("dependency", machine))


def check(listed: dict[str, subprocess.CompletedProcess[str]]) -> None:
    """What the loader must say of each image."""
    for name in ("good", "needs-good-rpath", "needs-good-runpath"):
        assert listed[name].returncode == 0, (name, listed[name].stdout, listed[name].stderr)
    for name, word in (("needs-good-rpath", "/rpath/libdt_dep0.so"), ("needs-good-runpath", "/runpath/libdt_dep0.so")):
        assert word in listed[name].stdout, listed[name].stdout
    assert "libdt_gone0.so: cannot open shared object file" in listed["needs-missing"].stderr
    version = listed["needs-version"]
    assert "version `DT_2.0' not found" in version.stdout + version.stderr
    assert all("Inconsistency" not in one.stderr for one in listed.values())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the loader is that of x86-64")
def test_those_of_this_machine(tmp_path: Path) -> None:
    loader = Path("/lib64") / LOADERS["x86_64"]
    if not loader.exists():
        pytest.skip(f"no {loader}")
    write_images("x86_64", tmp_path)
    listed = {
        name: subprocess.run(
            [loader, "--list", tmp_path / f"{name}.so"], capture_output=True, text=True, timeout=30, check=False
        )
        for name in IMAGES
    }  # fmt: skip
    check(listed)


@pytest.mark.slow
@pytest.mark.parametrize("machine", [name for name in MACHINES if name in ARCHITECTURES])
def test_those_of_another_machine(machine: str, tmp_path: Path) -> None:
    names = roots_of(machine)
    if not names:
        pytest.skip(f"DLLTRACER_PROCESSORS names no root for {machine}")
    root = find_root(names[-1])
    if isinstance(root, str):
        pytest.skip(root)
    write_images(machine, tmp_path)
    check(list_in(root, machine, tmp_path))


def list_in(root: Root, machine: str, folder: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    return {name: root.execute(folder, [f"/lib/{LOADERS[machine]}", "--list", f"/mnt/{name}.so"]) for name in IMAGES}
