"""The words of musl's loader, from the loader itself: it runs on any Linux, without its own system around it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlltracer.diagnose.loader_errors import DlError, DlProblem, classify_dlerror
from oracle.roots import find_root

if sys.platform != "linux":
    pytest.skip("a loader of Linux", allow_module_level=True)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc on this machine"),
]

COMPILE = ("gcc", "-shared", "-fPIC", "-nostdlib", "-xc", "-", "-xnone")
PROVIDER = "int away(void) { return 1; }"
USER = "int away(void); int _start(void) { return away(); }"


@pytest.fixture(scope="module")
def loader() -> Path:
    root = find_root("musl")
    if isinstance(root, str):
        pytest.skip(root)
    assert root.folder is not None
    return next(root.folder.glob("usr/lib/ld-musl-*.so.1"))


def build(folder: Path, name: str, source: str, *options: str) -> None:
    subprocess.run([*COMPILE, "-o", name, *options], input=source, text=True, cwd=folder, check=True)


def refusal(loader: Path, folder: Path, name: str) -> DlError:
    done = subprocess.run([loader, f"./{name}"], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode
    return classify_dlerror(done.stderr)


def test_a_symbol(loader: Path, tmp_path: Path) -> None:
    build(tmp_path, "x.so", USER)
    assert refusal(loader, tmp_path, "x.so") == DlError(DlProblem.MISSING_SYMBOL, "./x.so", "away", loader="musl")


def test_a_library(loader: Path, tmp_path: Path) -> None:
    build(tmp_path, "liba.so", PROVIDER, "-Wl,-soname,libaway-for-good.so")
    build(tmp_path, "x.so", USER, "./liba.so")
    assert refusal(loader, tmp_path, "x.so") == DlError(
        DlProblem.MISSING, "libaway-for-good.so", required_by="./x.so", system_error="No such file or directory",
        loader="musl",
    )  # fmt: skip


def test_a_file_that_is_none(loader: Path, tmp_path: Path) -> None:
    build(tmp_path, "liba.so", PROVIDER)
    build(tmp_path, "x.so", USER, "./liba.so")
    (tmp_path / "liba.so").write_text("version https://git-lfs.github.com/spec/v1\n")
    found = refusal(loader, tmp_path, "x.so")
    assert (found.problem, found.system_error, found.loader) == (DlProblem.NOT_AN_IMAGE, "Exec format error", "musl")
    assert (found.library, found.required_by) == ("./liba.so", "./x.so")
