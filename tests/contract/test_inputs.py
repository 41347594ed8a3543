"""What newcomers type: each command does what was meant, or says in one line what to type, with status 2."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from contract.native import Native

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="files and programs of Linux")


def dlltracer(*words: str | Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dlltracer", *map(str, words)], cwd=folder, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **variables},
    )  # fmt: skip


@pytest.fixture
def room(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pure").mkdir()
    (tmp_path / "pure" / "__init__.py").touch()
    (tmp_path / "a.py").touch()
    with zipfile.ZipFile(tmp_path / "x-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("x/__init__.py", "")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "output"),
    [
        ("wyh numpy", "there is no command wyh: did you mean dlltracer why numpy?"),
        ("PIL.Image", "did you mean dlltracer why PIL.Image?"),
        ("help", "did you mean dlltracer --help?"),
        ("x-1-py3-none-any.whl", "did you mean dlltracer check x-1-py3-none-any.whl?"),
        ("why --jsn json", "Did you mean '--json'?"),
        ("why -m json", "dlltracer run -m MODULE runs it"),
        ("why json -o x.pdf", "x.pdf: dlltracer writes no .pdf files"),
        ("why json --html x.docx", "x.docx: dlltracer writes no .docx files"),
        ("run -o x.pdf -c print(1)", "x.pdf: dlltracer writes no .pdf files"),
        ("deps a.py -o x.png", ""),
        ("why json -o x.dot", "x.dot: this command writes text, or by the name of the file .html"),
        ("run -o x.json -c pass", ".jsonl"),
        ("why opencv-python", "did you mean dlltracer why cv2?"),
        ("why empty", "loads nothing"),
        ("why --python empty json", "this folder has no Python"),
        ("deps x-1-py3-none-any.whl", "dlltracer check x-1-py3-none-any.whl"),
        ("deps a.py", "dlltracer run a.py"),
        ("deps json", "dlltracer run -c 'import json'"),
        ("deps sys", "is part of this Python itself: dlltracer deps "),
        ("deps pure", "without native files"),
        ("deps opencv-python", "did you mean the module cv2?"),
        ("deps ./b.py", "did you mean ./a.py?"),
        ("deps no_such_thing", "there is no such file, module or program"),
    ],
)
def test_one_line_says_what_to_type(words: str, output: str, room: Path) -> None:
    before = sorted(room.iterdir())
    ran = dlltracer(*words.split(" "), folder=room)
    assert (ran.returncode, ran.stdout) == (2, ""), ran
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("dlltracer: error: ") and output in last, ran.stderr
    assert ran.stderr.count("dlltracer: error") == 1 and sorted(room.iterdir()) == before


@linux_only
def test_a_program_that_is_no_python_is_not_run_with_our_arguments(room: Path) -> None:
    ran = dlltracer("why", "--python", "/bin/ls", "json", folder=room)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "dlltracer: error: --python /bin/ls: that is no Python: its --version does not say so\n"
    reported = room / "told"
    (room / "tool").write_text(f'#!/bin/sh\necho "$@" >> {reported}\n')
    (room / "tool").chmod(0o755)
    for command in (("why", "json"), ("run", "-c", "pass"), ("order", "json", "re"), ("deps", "_json")):
        assert dlltracer(command[0], "--python", "./tool", *command[1:], folder=room).returncode == 2
    assert reported.read_text().splitlines() == ["--version"] * 4


@linux_only
def test_deps_takes_modules_and_programs(native: Native, room: Path) -> None:
    module = native.broken_module()
    name = module.name.partition(".")[0]
    search = {"PYTHONPATH": str(module.parent)}
    ran = dlltracer("deps", name, folder=room, **search)
    assert ran.returncode == 1 and native.missing in ran.stdout
    assert ran.stderr == f"dlltracer: {name} is {module}\n"
    package = room / "pure"
    module.rename(package / "ext.so")
    ran = dlltracer("deps", "pure", folder=room)
    assert ran.returncode == 1 and ran.stderr == "dlltracer: pure has one native file: pure/ext.so\n"
    ran = dlltracer("deps", "pure", folder=room / "empty", PYTHONPATH=str(room))
    assert ran.returncode == 1 and str(package / "ext.so") in ran.stderr
    (package / "two.so").write_bytes((package / "ext.so").read_bytes())
    ran = dlltracer("deps", "pure", folder=room / "empty", PYTHONPATH=str(room))
    assert ran.returncode == 2 and "a package of 2 native files (pure.ext, pure.two)" in ran.stderr
    assert dlltracer("deps", "env", folder=room).stderr.startswith("dlltracer: env is /")


@linux_only
def test_run_and_deps_take_another_python(room: Path) -> None:
    other = room / "env" / "bin" / "python"
    other.parent.mkdir(parents=True)
    other.symlink_to(sys.executable)
    code = "import sys; print(sys.orig_argv[0])"
    for options in ((), ("--follow",), ("--startup",), ("--backend", "snapshot")):
        ran = dlltracer("run", *options, "--python", room / "env", "-c", code, folder=room)
        assert (ran.returncode, ran.stdout) == (0, f"{other}\n"), ran
    assert dlltracer("deps", "--python", "env", "_json", folder=room).returncode == 0
    ran = dlltracer("run", "--python", "env", "--", "true", folder=room)
    assert ran.returncode == 2 and "a command brings its own interpreter" in ran.stderr
