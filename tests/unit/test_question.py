"""What `why` takes for a question, and what it says to those that are none: one line that says what to type."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from dlltracer.cli import program
from dlltracer.cli.options import BadUsage
from dlltracer.cli.output import CommandFailed
from dlltracer.cli.program import ProgramKind, choose_python, find_python, python_in
from dlltracer.cli.question import read_question

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="programs of Linux")


@pytest.fixture(autouse=True)
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a package, a project, a folder without modules, and files of many kinds."""
    monkeypatch.chdir(tmp_path)
    for name in ("pkg/sub/__init__.py", "pkg/__init__.py", "proj/pyproject.toml", "proj/src/mylib/__init__.py",
                 "plain/mod.py", "app/__main__.py", "env/pyvenv.cfg", "a.py", "s.tar.gz", "book.ipynb"):  # fmt: skip
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("words\n")
    (tmp_path / "book.ipynb").write_text("{}\n")
    with zipfile.ZipFile(tmp_path / "x-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("x/__init__.py", "")
    with zipfile.ZipFile(tmp_path / "z.pyz", "w") as application:
        application.writestr("__main__.py", "")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "what", "code"),
    [
        (("json",), "import json", "import json"),
        (("PIL.Image",), "import PIL.Image", "import PIL.Image"),
        (("import numpy",), "import numpy", "import numpy"),
        (("import", "numpy"), "import numpy", "import numpy"),
        (("  from PIL   import Image ",), "from PIL import Image", "from PIL import Image"),
        (("from", "PIL", "import", "Image"), "from PIL import Image", "from PIL import Image"),
        (("import numpy as np; import os",), "import numpy as np; import os", "import numpy as np; import os"),
        (("pkg",), "import pkg", "import pkg"),
        (("pkg/",), "import pkg", "import pkg"),
        (("./pkg/sub",), "import pkg.sub", "import pkg.sub"),
    ],
)
def test_imports(words: tuple[str, ...], what: str, code: str) -> None:
    asked = read_question(words, None)
    assert (asked.what, asked.program.kind, asked.program.name) == (what, ProgramKind.CODE, code)
    assert asked.program.must_return


def test_a_package_of_another_folder_is_imported_from_there(room: Path) -> None:
    asked = read_question(("proj/src/mylib",), None)
    assert asked.what == f"import mylib from {room / 'proj' / 'src'}"
    assert repr(str(room / "proj" / "src")) in asked.program.name and asked.program.name.endswith("; import mylib")


@pytest.mark.parametrize("name", ["a.py", "z.pyz", "app/"])
def test_programs_of_python(name: str) -> None:
    asked = read_question((name,), None)
    assert (asked.program.kind, asked.program.name) == (ProgramKind.SCRIPT, name) and not asked.program.must_return


def test_code_that_is_an_import_is_named_as_it_was_typed() -> None:
    assert read_question((), "from PIL import Image").what == "from PIL import Image"
    assert read_question((), "import json; print(1)").what == "the code"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("numpy==2.0",), "dlltracer why numpy"),
        (("numpy >= 2",), "dlltracer why numpy"),
        (("opencv-python",), "did you mean dlltracer why cv2?"),
        (("opencv-python-headless[x]~=4",), "dlltracer why "),
        (("scikit-learn",), "did you mean dlltracer why sklearn?"),
        (("pytest-xdist",), "did you mean dlltracer why xdist?"),
        (("my-own-thing",), "did you mean dlltracer why my_own_thing?"),
        (("numpy; python_version < '3.12'",), "dlltracer why numpy"),
        (("numpy,pandas",), "dlltracer why 'import numpy, pandas'"),
        (("numpy", "pandas"), "dlltracer why 'import numpy, pandas'"),
        (("python3", "a.py"), "dlltracer why --python python3 a.py"),
        (("pkg.mod:main",), "dlltracer why pkg.mod"),
        (("numpy.linalg==2",), "to try what is installed: dlltracer why numpy.linalg"),
        (("json", "as", "j"), "dlltracer why 'import json as j'"),
        (("json,", "re"), "dlltracer why 'import json, re'"),
        (("json\\tool",), "did you mean dlltracer why json.tool?"),
        (("123",), "123 is neither the name of a module nor a file"),
        ((".sub",), "dlltracer why PACKAGE.sub"),
        (("json.",), "did you mean dlltracer why json?"),
        (("print(1)",), "dlltracer why -c 'print(1)'"),
        (("import json; print(1)",), "dlltracer why -c 'import json; print(1)'"),
        (("import json as",), "no import that Python can read"),
        (("import",), "no import that Python can read"),
        (("from . import x",), "'from PACKAGE import NAME'"),
        (("class",), "a word of the language"),
        (("https://example.org/x.whl",), "is an address"),
        (("x-1-py3-none-any.whl",), "dlltracer check x-1-py3-none-any.whl"),
        (("s.tar.gz",), "a source archive, which is not installed"),
        (("book.ipynb",), "%load_ext dlltracer"),
        (("notes.txt",), "neither an image"),
        (("b.py",), "there is no file b.py; did you mean a.py?"),
        (("json/tool",), "dlltracer why json.tool"),
        (("libfoo.so.1",), "ctypes.CDLL"),
        (("env",), "dlltracer why --python env MODULE"),
        (("env/",), "dlltracer why --python env/ MODULE"),
        (("empty",), "loads nothing: it has no modules either"),
        (("empty/",), "a folder without any module"),
        (("plain",), "loads nothing: dlltracer why plain.mod"),
        (("plain/",), "dlltracer why plain/mod.py"),
        (("app",), "a folder here that Python runs: dlltracer why app"),
        (("proj",), "dlltracer why mylib"),
        (("proj/",), "dlltracer why mylib"),
    ],
)
def test_what_is_no_question_is_answered_in_one_line(words: tuple[str, ...], shown: str) -> None:
    with pytest.raises(CommandFailed) as raised:
        read_question(words, None)
    text = str(raised.value)
    assert shown in text and "\n" not in text


@pytest.mark.parametrize("words", [(), ("",), ("  ",)])
def test_nothing_is_asked(words: tuple[str, ...]) -> None:
    with pytest.raises(BadUsage, match="say what to import"):
        read_question(words, None)


@linux_only
def test_programs_are_for_run(room: Path) -> None:
    shutil.copy("/bin/true", room / "tool")
    (room / "shell").write_text("#!/bin/sh\n")
    (room / "other").write_bytes(b"MZ" + bytes(100))
    for name, shown in (
        ("tool", "dlltracer run -- ./tool shows"), ("shell", "run --follow -- ./shell"), ("other", "deps ./other"),
    ):  # fmt: skip
        with pytest.raises(CommandFailed) as raised:
            read_question((f"./{name}",), None)
        assert shown in str(raised.value)


@linux_only
def test_a_script_is_run_by_the_python_of_its_first_line(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = room / "python3"
    python.symlink_to("/bin/sh")
    (room / "own").write_text(f"#!{sys.executable}\n")
    (room / "usual").write_text("#!/usr/bin/env python3\n")
    (room / "named").write_text(f"#!{python} -E\n")
    (room / "gone").write_text("#!/no/such/python3\n")
    assert read_question(("./own",), None).python is None
    assert read_question(("./usual",), None).python is None and capsys.readouterr().err == ""
    assert read_question(("./named",), None).python == str(python)
    assert str(python) in capsys.readouterr().err
    assert read_question(("./named",), None, "/given").python is None
    with pytest.raises(CommandFailed, match="names /no/such/python3"):
        read_question(("./gone",), None)


@linux_only
def test_python_may_be_named_by_its_environment_and_is_asked_what_it_is(room: Path) -> None:
    (room / "env" / "bin").mkdir()
    (room / "env" / "bin" / "python").symlink_to(sys.executable)
    assert find_python("env") == python_in("env") == "env/bin/python"
    assert find_python("env/bin") == "env/bin/python"
    assert find_python(sys.executable) == sys.executable
    assert find_python("/no/such/python") == "/no/such/python"  # why it cannot be started is for the verdict
    old, broken = room / "old", room / "broken"
    old.write_text("#!/bin/sh\necho Python 3.8.1\n")
    broken.write_text("#!/bin/sh\nexit 127\n")
    alone = room / "alone" / "bin" / "python"
    alone.parent.mkdir(parents=True)
    alone.write_text("#!/bin/sh\necho No Python at gone; exit 103\n")  # what the launcher of Windows says and returns
    (room / "alone" / "pyvenv.cfg").write_text("home = /gone/python\nversion = 3.11.9\n")
    for script in (old, broken, alone):
        script.chmod(0o755)
    assert find_python(str(broken)) == str(broken)
    for named, shown in (
        ("/bin/ls", "that is no Python"), ("empty", "has no Python"), ("3.99", "no python3.99 on PATH"),
        (str(old), "Python 3.8: 3.10 or later"), ("alone", "its pyvenv.cfg names /gone/python"),
    ):  # fmt: skip
        with pytest.raises(CommandFailed, match=shown):
            find_python(named)


@linux_only
def test_a_tool_looks_at_the_active_environment(
    room: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = room / "env" / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    tool = room / "tool"
    tool.mkdir()
    monkeypatch.setattr(program.sys, "prefix", str(tool))
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.setenv("VIRTUAL_ENV", str(room / "env"))
    assert choose_python(None) is None  # python -m: that Python was chosen
    with monkeypatch.context() as patched:  # the script of an installation
        patched.setattr(sys.modules["__main__"], "__spec__", None)
        patched.setattr(sys, "argv", [str(tool / "bin" / "dlltracer"), "why"])
        assert choose_python(None) == str(python) and capsys.readouterr().err != ""
    (tool / "uv-receipt.toml").touch()
    assert choose_python(None) == str(python)
    assert capsys.readouterr().err == (
        f"dlltracer: taking the Python of VIRTUAL_ENV: {python} (--python PATH takes another one)\n"
    )
    assert choose_python(sys.executable) == sys.executable and capsys.readouterr().err == ""
    monkeypatch.setenv("VIRTUAL_ENV", str(tool))
    monkeypatch.setenv("CONDA_PREFIX", str(room / "env"))
    assert choose_python(None) is None  # ours is the active one
    monkeypatch.setenv("VIRTUAL_ENV", str(room / "gone"))
    assert choose_python(None) == str(python) and "CONDA_PREFIX" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [("pip install pillow",), ("pip", "install", "-U", "pillow"), ("python3 -m pip install pillow==12",),
              ("!pip install pillow[x]",), ("uv", "add", "pillow"), ("conda", "install", "-y", "pillow")],
)  # fmt: skip
def test_a_command_that_installs(words: tuple[str, ...]) -> None:
    with pytest.raises(CommandFailed, match=r"installs, dlltracer looks .*: dlltracer why PIL$"):
        read_question(words, None)
