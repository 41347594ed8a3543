"""PyPy, Debian's in a root: `run` and `why` watch it from outside; what cannot be says so in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dlltracer
from oracle.roots import Root, find_root

if sys.platform != "linux":
    pytest.skip("a root of Linux", allow_module_level=True)

from dlltracer.capture.choose import make_backend

if not make_backend("seccomp").availability().ok:
    pytest.skip(make_backend("seccomp").availability().reason, allow_module_level=True)

pytestmark = pytest.mark.slow

LOAD = "import ctypes; ctypes.CDLL('/mnt/libtop.so')"


@pytest.fixture(scope="module")
def root() -> Root:
    found = find_root("trixie")
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What goes into the root: dlltracer, and a library that needs one which needs one that is gone."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this machine")
    folder = tmp_path_factory.mktemp("shared")
    home = Path(dlltracer.__file__).parent
    shutil.copytree(home, folder / "dlltracer", ignore=shutil.ignore_patterns("__pycache__"))
    before = ""
    for name in ("gone", "mid", "top"):
        source = f"int {name}(void) {{ return {f'{before}()' if before else '1'}; }}\n"
        declared = f"int {before}(void);\n" if before else ""
        command = ["gcc", "-shared", "-fPIC", "-nostdlib", "-xc", "-", "-o", f"lib{name}.so", "-Wl,-rpath,$ORIGIN"]
        command += ["-L.", f"-l{before}", "-Wl,-rpath-link,."] if before else []
        subprocess.run(command, input=declared + source, text=True, cwd=folder, check=True)
        before = name
    (folder / "libgone.so").unlink()
    return folder


def run(root: Root, shared: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = root.execute(shared, words, {"PYTHONPATH": "/mnt"})
    assert "Traceback" not in done.stderr or words[1] == "-c", done.stderr
    return done


def test_run_tells_of_its_loads(root: Root, shared: Path) -> None:
    code = "import os, sqlite3; print(os.open('/dev/null', os.O_RDONLY)); raise SystemExit(7)"
    report = shared / "report"
    done = run(root, shared, "pypy3", "-m", "dlltracer", "run", "-o", "/mnt/report", "--format", "jsonl", "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (7, "3\n", "")
    head, *events, summary = map(json.loads, report.read_text().splitlines())
    assert head["backend"] == "seccomp" and any("the imports of pypy are not seen" in note for note in head["notes"])
    assert "libsqlite3.so.0" in {event.get("need") for event in events} and summary["failed"] == 0


@pytest.mark.parametrize("command", [["pypy3", "-m", "dlltracer", "why"],
                                     ["python3", "-m", "dlltracer", "why", "--python", "pypy3"]])  # fmt: skip
def test_why_names_what_is_missing(command: list[str], root: Root, shared: Path) -> None:
    done = run(root, shared, *command, "--json", "-c", LOAD)
    assert done.returncode == 1, done.stderr
    (finding, *_) = json.loads(done.stdout)["findings"]
    assert (finding["code"], finding["subject"]) == ("missing-image", "libgone.so")
    names = [name.rpartition("/")[2] for name in finding["chain"]]
    assert names == ["the code", "libtop.so", "libmid.so", "libgone.so"]


def test_a_trace_in_the_process_says_what_to_do(root: Root, shared: Path) -> None:
    done = run(root, shared, "pypy3", "-c", "import dlltracer; dlltracer.Trace().start()")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("`dlltracer run` and `dlltracer why` trace this Python from outside")
