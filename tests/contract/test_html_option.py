"""`--html FILE` of the commands: the page beside the usual report, and one clear line where it cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from contract.native import Native


def dlltracer(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dlltracer", *map(str, arguments)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the files of the fixtures are ELF on Linux only")


@linux_only
def test_the_page_of_a_failed_import(native: Native, tmp_path: Path) -> None:
    page = tmp_path / "why.html"
    ran = dlltracer("why", native.broken_module(), "--html", page)
    assert (ran.returncode, ran.stderr) == (1, f"wrote {page}\n")
    assert f"{native.missing} was not found" in " ".join(ran.stdout.split())  # the headline is as wide as the terminal
    html = page.read_text("utf-8")
    assert html.startswith("<!DOCTYPE html>") and f"{native.missing} was not found</h1>" in html


@linux_only
def test_the_page_of_a_run(tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    ran = dlltracer("run", "--backend", "snapshot", "--html", page, "-o", "-", "-c", "import bz2")
    assert (ran.returncode, ran.stderr) == (0, "") and "_bz2" in ran.stdout
    html = page.read_text("utf-8")
    assert "It works: nothing to explain</h1>" in html and "_bz2" in html


@linux_only
def test_the_page_of_a_file(native: Native, tmp_path: Path) -> None:
    page = tmp_path / "deps.html"
    ran = dlltracer("deps", native.broken(), "--html", page)
    assert (ran.returncode, ran.stderr) == (1, f"wrote {page}\n") and native.missing in ran.stdout
    assert f"{native.missing} is missing</h1>" in page.read_text("utf-8")


@pytest.mark.parametrize("command", [("run", "-c", "print(1)"), ("why", "json"), ("deps", sys.executable)])
def test_a_page_that_cannot_be_written_stops_before_anything_runs(command: tuple[str, ...], tmp_path: Path) -> None:
    ran = dlltracer(command[0], "--html", tmp_path / "gone" / "x.html", *command[1:])
    assert ran.returncode == 2 and ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith("dlltracer: error: cannot write ")
