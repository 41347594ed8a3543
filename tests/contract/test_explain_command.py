"""`dlltracer explain CODE`."""

from __future__ import annotations

import os
import subprocess
import sys


def explain(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONUTF8": "1", **more}
    command = [sys.executable, "-m", "dlltracer", "explain", *arguments]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, encoding="utf-8", env=environment, timeout=60
    )


def test_a_page() -> None:
    ran = explain("first-wins", COLUMNS="60")
    assert (ran.returncode, ran.stderr) == (0, "")
    parts = ("What it means", "How to check", "How to fix", "For the maintainer")
    places = [ran.stdout.index(f"\n{part}\n") for part in parts]
    assert places == sorted(places) and max(map(len, ran.stdout.splitlines())) <= 60
    assert "dlltracer why" in explain("missing-image").stdout and "dlltracer check" in explain("missing-image").stdout


def test_an_unknown_code() -> None:
    ran = explain("missing-imag")
    assert (ran.returncode, ran.stdout) == (2, "") and "did you mean missing-image" in ran.stderr
    ran = explain("\x1b[31mxyz")
    assert ran.returncode == 2 and "dlltracer explain lists all" in ran.stderr and "\x1b" not in ran.stderr
    everything = explain()
    assert everything.returncode == 0 and "  first-wins\n" in everything.stdout
