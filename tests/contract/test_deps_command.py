"""`dlltracer deps FILE`: real files in, what would load out; and one clear line for whatever is no image."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builders.macho_file import ARM64, DYLIB, WEAK, X86_64, build_fat, build_macho
from builders.pe_file import build_pe
from builders.schema_check import problems
from contract.native import Native


def deps(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dlltracer", "deps", *map(str, arguments)],
        env={**os.environ, **more}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the files of the fixtures are ELF on Linux only")


@linux_only
def test_a_library_whose_dependency_is_gone(native: Native) -> None:
    broken = native.broken()
    ran = deps(broken)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert f"{native.missing}  NOT FOUND, needed by {broken}" in ran.stdout
    assert ran.stdout.splitlines()[-1].endswith(f"1 missing: {native.missing}")
    assert "/usr/lib" in ran.stdout, "the places are named"


@linux_only
def test_a_file_whose_name_differs_in_case_only_is_noted(native: Native, tmp_path: Path) -> None:
    other = tmp_path / native.missing.upper()
    other.touch()
    ran = deps(native.broken(), LD_LIBRARY_PATH=str(tmp_path))
    note = f"note: {native.missing} was not found, and there is {other}: the loader tells upper from lower case"
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (1, note)


@linux_only
def test_a_library_that_has_all(native: Native) -> None:
    ran = deps(native.tiny(), "--flat")
    assert ran.returncode == 0 and ran.stdout.splitlines()[-1].endswith("nothing missing")


@linux_only
def test_a_list_without_colours_waits_for_little(native: Native) -> None:
    """Most of the time of the command is importing: what it does not need stays out."""
    code = (
        "import sys; from dlltracer.cli.commands import cli; "
        f"cli.main(['deps', '--flat', {str(native.tiny())!r}], standalone_mode=False); "
        "print(sorted({'rich', 'tempfile', 'dlltracer.binary.pe', 'dlltracer.resolve.windows'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


@linux_only
def test_json_and_why(native: Native) -> None:
    broken = native.broken()
    output = json.loads(deps(broken, "--json").stdout)
    assert output["missing"] == [native.missing] and output["top"] == str(broken)
    (binding,) = [b for b in output["bindings"] if b["need"] == native.missing]
    assert binding["state"] == "missing" and len(binding["probes"]) > 2
    assert deps(broken, "--why", native.missing).stdout.startswith(f"{broken.name} > {native.missing}  NOT FOUND")


@linux_only
def test_a_folder_to_look_in_first(native: Native, tmp_path: Path) -> None:
    broken, there = native.broken(), tmp_path / native.missing
    there.write_bytes(native.tiny().read_bytes())
    ran = deps(broken, "--path", tmp_path)
    assert ran.returncode == 0 and f"{there}  found by LD_LIBRARY_PATH" in ran.stdout


@linux_only
def test_a_root(native: Native, tmp_path: Path) -> None:
    broken = native.broken()
    root = tmp_path / "root"
    inside = root / "opt" / broken.name
    inside.parent.mkdir(parents=True)
    inside.write_bytes(broken.read_bytes())
    (root / "usr/lib64").mkdir(parents=True)
    (root / "usr/lib64" / native.missing).write_bytes(native.tiny().read_bytes())
    ran = deps(inside, "--root", root)
    assert f"{native.missing}  /usr/lib64/{native.missing}" in ran.stdout
    refused = deps(broken, "--root", root)
    assert refused.returncode == 2 and "is not inside of" in refused.stderr


def test_a_windows_wheel_anywhere(tmp_path: Path) -> None:
    (tmp_path / "mod.pyd").write_bytes(
        build_pe(imports={"a.dll": ["f"], "KERNEL32.dll": ["Sleep"]}, exports=["PyInit_mod"])
    )
    (tmp_path / "a.dll").write_bytes(build_pe(imports={"gone.dll": ["g"]}, exports=["f"]))
    ran = deps(tmp_path / "mod.pyd")
    assert ran.returncode == 1
    assert "gone.dll  NOT FOUND" in ran.stdout and "KERNEL32.dll  NOT FOUND" not in ran.stdout
    assert f"needed by {tmp_path / 'a.dll'}" in ran.stdout


def test_a_macos_wheel_anywhere(tmp_path: Path) -> None:
    needs, imports = ["@loader_path/.dylibs/liba.dylib", "/usr/lib/libSystem.B.dylib"], [("_f", 1), ("_g", 1)]
    module = build_fat([build_macho(needs, imports, cpu=cpu) for cpu in (X86_64, ARM64)])
    (tmp_path / "mod.so").write_bytes(module)
    (tmp_path / ".dylibs").mkdir()
    library = tmp_path / ".dylibs" / "liba.dylib"
    gone = ["@rpath/libgone.dylib", ("/opt/x/libweak.dylib", WEAK)]
    images = [build_macho(gone, [], {"_f": None}, kind=DYLIB, rpaths=["/opt/lib"], cpu=cpu) for cpu in (ARM64, X86_64)]
    library.write_bytes(build_fat(images))

    ran = deps(tmp_path / "mod.so")

    assert ran.returncode == 1
    assert f"liba.dylib  {library}" in ran.stdout
    assert "of the system: libSystem.B.dylib" in ran.stdout
    assert f"@rpath/libgone.dylib  NOT FOUND, needed by {library}" in ran.stdout
    assert "/opt/lib/libgone.dylib" in ran.stdout
    assert "missing, and not required: /opt/x/libweak.dylib" in ran.stdout
    assert "_g" in ran.stdout and "this is the one for" in ran.stdout
    plain = json.loads(deps(tmp_path / "mod.so", "--json").stdout)
    assert [image["type"] for image in plain["images"]] == ["macho", "macho"]
    assert plain["missing"] == ["@rpath/libgone.dylib"]
    assert problems("deps", plain) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"\x7fELF", "cut short"),
        (b"MZ", ""),
    ],
)
def test_no_image(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.so"
    path.write_bytes(content)
    ran = deps(path)
    (line,) = ran.stderr.splitlines()
    assert (ran.returncode, ran.stdout) == (2, "")
    assert line.startswith(f"dlltracer: error: {path} is not an image: ") and words in line


def test_bad_questions(tmp_path: Path) -> None:
    for arguments, words in (
        ((tmp_path / "none.so",), "cannot read"),
        ((tmp_path,), f"{tmp_path} is a folder without native files"),
        ((sys.executable, "--flat", "--json"), "choose one of"),
        ((sys.executable, "-o", tmp_path / "no" / "file"), "cannot write"),
    ):
        ran = deps(*arguments)
        assert ran.returncode == 2 and ran.stdout == ""
        assert words in ran.stderr.splitlines()[-1], ran.stderr


@linux_only
def test_a_folder_of_which_not_all_could_be_looked_at(tmp_path: Path) -> None:
    """It is not said to have no native file, nor only one."""
    shut = tmp_path / "shut"
    shut.mkdir()
    for number in range(2):
        (tmp_path / f"lib{number}.so").symlink_to(sys.executable)
    plain = [sys.executable, "-m", "dlltracer", "deps"]
    if os.geteuid() == 0:  # root without its privileges is refused as others are
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv")
        plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *plain]
    shut.chmod(0)
    try:
        several = subprocess.run([*plain, tmp_path], capture_output=True, text=True, check=False)
        (tmp_path / "lib1.so").unlink()
        one = subprocess.run([*plain, tmp_path], capture_output=True, text=True, check=False)
        (tmp_path / "lib0.so").unlink()
        none = subprocess.run([*plain, tmp_path], capture_output=True, text=True, check=False)
    finally:
        shut.chmod(0o700)
    refused = f"cannot read {shut} (Permission denied)"
    for ran in (several, one):
        assert f"dlltracer: not all of {tmp_path} was looked at: {refused}" in ran.stderr.splitlines()
    assert several.returncode == 2 and "folder of 2 native files" in several.stderr.splitlines()[-1]
    assert one.returncode == 0 and "has one native file" in one.stderr and one.stdout
    assert none.returncode == 2 and none.stdout == ""
    assert none.stderr == f"dlltracer: error: no native file was found in {tmp_path}: {refused}\n"


def test_a_folder_of_very_many_files(tmp_path: Path) -> None:
    for number in range(20_001):
        (tmp_path / f"{number}.txt").touch()
    ran = deps(tmp_path)
    words = f"no native file was found in {tmp_path}: only its first 20000 files were looked at"
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"dlltracer: error: {words}\n")
