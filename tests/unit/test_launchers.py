"""Which files are taken for launchers of Python: by their names, by what lies beside them, and by their ends."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from dlltracer.capture.windows.debugger.launchers import is_launcher, is_python_library

PROGRAM = b"MZ" + bytes(500)


def archive(comment: bytes = b"") -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        file.writestr("__main__.py", "pass")
        file.comment = comment
    return data.getvalue()


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(archive(), id="archive"),
        pytest.param(archive(bytes(65_535)), id="archive with the longest comment"),
        pytest.param(b"#!C:\\Python 3\\python.exe\r\n" + archive(), id="distlib"),
        pytest.param(b"#!C:\\Python\\python.exe\r\n", id="script line"),
        pytest.param(b"C:\\Python\\python.exe\x14\0\0\0UVSC", id="uv"),
        pytest.param(b"MEI\x0c\x0b\x0a\x0b\x0e" + bytes(80), id="PyInstaller"),
    ],
)
def test_by_the_end_of_the_file(tmp_path: Path, end: bytes) -> None:
    program = tmp_path / "pytest.exe"
    program.write_bytes(PROGRAM + end)
    assert is_launcher(str(program))
    assert is_launcher(str(program.with_suffix(""))), "as a shell finds it"
    program.write_bytes(PROGRAM)
    assert not is_launcher(str(program))


@pytest.mark.parametrize("name", ["tool-script.py", "tool-script.pyw", "tool.exe.__target__", "tool.shim"])
def test_by_what_lies_beside_it(tmp_path: Path, name: str) -> None:
    program = tmp_path / "tool.exe"
    program.write_bytes(PROGRAM)
    (tmp_path / f"another {name}").touch()
    assert not is_launcher(str(program))
    (tmp_path / name).touch()
    assert is_launcher(str(program))


def test_by_the_folder_of_a_virtual_environment(tmp_path: Path) -> None:
    program = tmp_path / "Scripts" / "tool.exe"
    program.parent.mkdir()
    program.write_bytes(PROGRAM)
    assert not is_launcher(str(program))
    (tmp_path / "pyvenv.cfg").touch()
    assert is_launcher(str(program))


@pytest.mark.parametrize(
    "name",
    ["py.exe", "PY.EXE", "pyw.exe", "python.exe", "python3.14t.exe", "pythonw.exe", "pymanager.exe", "pypy3.exe"],
)
def test_by_the_name_where_no_interpreter_is_there(tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.write_bytes(PROGRAM)
    (tmp_path / "python3.dll").touch()  # only leads to the library
    assert is_launcher(str(program))
    (tmp_path / "python314t.dll").touch()
    assert not is_launcher(str(program)), "an interpreter itself"


def test_what_is_none(tmp_path: Path) -> None:
    assert not is_launcher(str(tmp_path / "absent.exe"))
    assert not is_launcher(str(tmp_path))
    program = tmp_path / "pyramid.exe"
    program.write_bytes(PROGRAM)
    assert not is_launcher(str(program))


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        (r"\Device\HarddiskVolume3\Python\python311.dll", True), (r"C:\x\PYTHON314t_d.DLL", True),
        (r"C:\x\libpypy3.11-c.dll", True), ("python3.dll", False), ("python.dll", False), ("python311.exe", False),
    ],
)  # fmt: skip
def test_the_library_of_an_interpreter(name: str, is_one: bool) -> None:
    assert is_python_library(name) is is_one
