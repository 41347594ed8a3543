"""The report of an unchanged environment is given again without a look into its files, and no change passes unseen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import dlltracer.check.environment
from builders.macho_file import build_macho
from builders.pe_file import build_pe
from dlltracer.check.environment import check_environment
from dlltracer.host.native_files import NativeListing, list_native_files
from dlltracer.model.check import CheckReport

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="builds ELF files with gcc"
)
MODULE = """
#include <Python.h>
int extra(void);
static struct PyModuleDef def = {.m_base = PyModuleDef_HEAD_INIT, .m_name = "ext", .m_size = -1};
PyMODINIT_FUNC PyInit_ext(void) { extra(); return PyModule_Create(&def); }
"""
FULL = "int base(void){return 1;} int extra(void){return 2;}"
HALF = FULL.replace("extra", "extr_")
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def build(path: Path, code: str, *options: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    command = ["gcc", "-w", "-shared", "-fPIC", "-xc", "-", "-o", str(path), "-xnone", *options]
    subprocess.run(command, input=code, text=True, check=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with one module, which needs a library that is a link to one of two builds outside."""
    top = tmp_path_factory.mktemp("kept")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(top / "env")], check=True)
    for name, code in (("full", FULL), ("half", HALF)):
        build(top / name / "libgood.so.1", code, "-Wl,-soname,libgood.so.1")
    package = top / "env" / SITE / "pkg"
    options = (f"-I{sysconfig.get_paths()['include']}", str(top / "full/libgood.so.1"), "-Wl,-rpath,$ORIGIN/libs")
    build(package / f"ext{SUFFIX}", MODULE, *options)
    (package / "__init__.py").write_text("from . import ext\n")
    (package / "libs").mkdir()
    info = package.parent / "pkg-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: pkg\nVersion: 1.0\n")
    (info / "RECORD").write_text("pkg/__init__.py,sha256=x,\n../../../share/tool.py,sha256=x,5\n")
    (top / "env/share").mkdir()
    (top / "env/share/tool.py").write_text("12345")
    return top


@pytest.fixture
def top(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(made, copy, symlinks=True)
    (copy / "early").mkdir()
    shutil.copy2(copy / "full/libgood.so.1", copy / "env" / SITE / "pkg/libs/libreal.so")
    (copy / "env" / SITE / "pkg/libs/libgood.so.1").symlink_to("../../../../../../full/libgood.so.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(copy / "early"))
    return copy


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[NativeListing]:
    """The walks through the environment, which a report that is kept needs none of."""
    found: list[NativeListing] = []

    def walk(*given: object, **more: object) -> NativeListing:
        found.append(list_native_files(*given, **more))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(dlltracer.check.environment, "list_native_files", walk)
    return found


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a minute have passed since the files were made: what has just changed is not kept."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 60_000_000_000)


def check(folder: Path, **options: bool) -> CheckReport:
    report = check_environment(str(folder), is_folder=True, **options)
    assert report.unreadable == ""
    return report


def other_file(top: Path) -> None:
    """Another file in the place of the library: of the same size and times."""
    path, new = top / "full/libgood.so.1", top / "full/new"
    before = path.stat()
    shutil.copy(top / "half/libgood.so.1", new)
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def rewritten(top: Path) -> None:
    """The same file, written again, with its times set back."""
    path = top / "full/libgood.so.1"
    before = path.stat()
    path.write_bytes((top / "half/libgood.so.1").read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    kept = before.st_ino, before.st_size, before.st_mtime_ns
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == kept


def removed(top: Path) -> None:
    (top / "full/libgood.so.1").unlink()


def other_link(top: Path) -> None:
    link = top / "env" / SITE / "pkg/libs/libgood.so.1"
    link.unlink()
    link.symlink_to("../../../../../../half/libgood.so.1")


def other_folder(top: Path) -> None:
    """A folder on the way of the link is another one."""
    (top / "full").rename(top / "was-full")
    (top / "half").rename(top / "full")


def shadowed(top: Path) -> None:
    """A library where nothing was, in a folder outside that is searched before."""
    shutil.copy(top / "half/libgood.so.1", top / "early/libgood.so.1")


def damaged_record(top: Path) -> None:
    """A file outside of the packages that a RECORD lists."""
    (top / "env/share/tool.py").unlink()


def added(top: Path) -> None:
    package = top / "env" / SITE / "pkg"
    shutil.copy(top / "half/libgood.so.1", package / f"other{SUFFIX}")
    (package / f"other{SUFFIX}").write_bytes(b"\x7fELF" + bytes(100))


CHANGES = (other_file, rewritten, removed, other_link, other_folder, shadowed, damaged_record, added)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.usefixtures("later")
def test_no_change_passes_unseen(top: Path, walks: list[NativeListing], change: Callable[[Path], None]) -> None:
    first = check(top / "env")
    assert not [problem for problem in first.problems if problem.code != "changed-file"]
    assert check(top / "env") == first and len(walks) == 1, "the second check found the report of the first"
    change(top)
    after = check(top / "env")
    assert len(walks) == 2 and after != first, after
    assert after == check(top / "env", use_cache=False)
    assert check(top / "env") == after and len(walks) == 3


@pytest.mark.usefixtures("later")
def test_code_settings_and_compiled_files(
    top: Path, walks: list[NativeListing], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    removed(top)
    first = check(top / "env")
    code = top / "env" / SITE / "pkg/__init__.py"
    code.write_text("try:\n from . import ext\nexcept ImportError: pass\n")
    assert [one.severity.value for one in check(top / "env").problems if one.code == "missing-image"] == ["warning"]
    assert len(walks) == 2 and "error" in {one.severity.value for one in first.problems}
    (code.parent / "__pycache__").mkdir()
    (code.parent / "__pycache__/x.pyc").write_bytes(b"compiled by an import")
    check(top / "env")
    assert len(walks) == 2, "compiled files change nothing"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(top / "half"))
    assert {one.code for one in check(top / "env").problems} >= {"missing-symbol"} and len(walks) == 3
    monkeypatch.delenv("LD_LIBRARY_PATH")
    check(top / "env")
    check(top / "env", use_cache=False)
    assert len(walks) == 5


def test_what_has_just_changed_is_not_kept(top: Path, walks: list[NativeListing]) -> None:
    """Another change in the same tick of the clock could not be seen."""
    (top / "env" / SITE / "pkg/new.py").write_text("")
    check(top / "env")
    check(top / "env")
    assert len(walks) == 2


@pytest.mark.usefixtures("later")
def test_windows_and_macos(top: Path, walks: list[NativeListing]) -> None:
    pe = build_pe({"python312.dll": ["PyModule_Create2"], "a.dll": ["f"]}, ["PyInit_mod"])
    library = top / "win/Lib/site-packages/pkg/a.dll"
    library.parent.mkdir(parents=True)
    library.with_name("mod.cp312-win_amd64.pyd").write_bytes(pe)
    library.write_bytes(build_pe({}, ["f"]))
    macho = build_macho(["/usr/lib/libSystem.B.dylib", "@loader_path/a.dylib"], (), {"_PyInit_mod": None}, signature=16)
    site = top / "mac/lib/python3.12/site-packages/pkg"
    site.mkdir(parents=True)
    (site / "mod.cpython-312-darwin.so").write_bytes(macho)
    for folder in ("win", "mac"):
        first = check(top / folder)
        assert check(top / folder) == first and len(walks) == 1
        if folder == "win":
            library.unlink()
        else:
            (site / "a.dylib").write_bytes(b"no library")
        assert check(top / folder) != first and len(walks) == 2
        walks.clear()
