"""`dlltracer deps` compares symbols, by what the real search finds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="builds ELF files with gcc"
)


def build(path: Path, code: str, *options: str) -> None:
    command = ["gcc", "-w", "-xc", "-", "-o", str(path), "-xnone", *options]
    subprocess.run(command, input=code, text=True, cwd=path.parent, check=True)


def deps(path: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "dlltracer", "deps", *options, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Modules and a program that were linked with a library which had more."""
    shared = ("-shared", "-fPIC", "-Wl,-soname,libs.so.1")
    build(tmp_path / "libs.so.1", "int base(void){return 1;} int extra(void){return 2;}", *shared)
    rpath = ("libs.so.1", "-Wl,-rpath,$ORIGIN")
    include = f"-I{sysconfig.get_paths()['include']}"
    module = "#include <Python.h>\nint extra(void);\nPyMODINIT_FUNC PyInit_ext(void){extra();return Py_None;}"
    build(tmp_path / "ext.so", module, "-shared", "-fPIC", include, *rpath)
    build(tmp_path / "prog", "int extra(void);int main(void){return extra();}", *rpath)
    build(tmp_path / "plain.so", "int extra(void);int f(void){return extra();}", "-shared", "-fPIC", *rpath)
    assert [deps(tmp_path / name)[0] for name in ("ext.so", "prog", "plain.so")] == [0, 0, 0]
    build(tmp_path / "libs.so.1", "int base(void){return 1;}", *shared)
    return tmp_path


@pytest.mark.parametrize("name", ["ext.so", "prog"])
def test_a_symbol_that_the_library_found_does_not_have(name: str, folder: Path) -> None:
    status, text = deps(folder / name)
    assert status == 1
    assert f"MISSING SYMBOL  {folder / name} needs extra" in text
    status, text = deps(folder / name, "--json")
    (symbol,) = json.loads(text)["symbols"]
    assert status == 1 and (symbol["name"], symbol["requested_by"]) == ("extra", str(folder / name))


def test_a_library_may_find_symbols_in_what_loads_it(folder: Path) -> None:
    assert deps(folder / "plain.so")[0] == 0


def test_a_version_that_the_library_found_does_not_have(tmp_path: Path) -> None:
    shared = ("-shared", "-fPIC", "-Wl,-soname,libs.so.1")
    (tmp_path / "two").write_text("S_1 { global: base; };\nS_2 { global: extra; } S_1;\n")
    (tmp_path / "one").write_text("S_1 { global: base; extra; };\n")
    code = "int base(void){return 1;} int extra(void){return 2;}"
    build(tmp_path / "libs.so.1", code, *shared, "-Wl,--version-script=two")
    build(
        tmp_path / "plain.so", "int extra(void);int f(void){return extra();}", "-shared", "-fPIC", "libs.so.1",
        "-Wl,-rpath,$ORIGIN",
    )  # fmt: skip
    assert deps(tmp_path / "plain.so")[0] == 0
    build(tmp_path / "libs.so.1", code, *shared, "-Wl,--version-script=one")
    status, text = deps(tmp_path / "plain.so")
    assert status == 1
    assert f"MISSING VERSION  {tmp_path}/plain.so needs version S_2 of libs.so.1" in text
