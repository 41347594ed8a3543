"""The two walks of ARCHITECTURE.md are what happens: each step is called, and after the step before it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from contract.native import Native

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the walks go through modules for Linux")

PAGE = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text(encoding="utf-8")
UNSEEN = {"capture.requests.Watch.note_request"}
"""An audit hook: Python profiles none."""

PROFILE = """
import atexit, os, sys, time
calls = []
def note(frame, event, argument):
    code = frame.f_code
    if event == "call" and "/dlltracer/" in code.co_filename:
        module = code.co_filename.rpartition("/dlltracer/")[2][:-3].replace("/", ".")
        calls.append(f"{time.perf_counter_ns()} {module}.{code.co_name}")
def write():
    with open(os.path.join(os.environ["WALK_CALLS"], str(os.getpid())), "w") as file:
        file.write("\\n".join(calls))
def end(status, leave=os._exit):
    write()
    leave(status)
os._exit = end
atexit.register(write)
sys.setprofile(note)
"""
"""A sitecustomize.py, for the command and for its child."""


def walk(title: str) -> list[str]:
    """The first function of each step: its module, and its name without that of its class."""
    section = re.split(r"^## ", PAGE.partition(f"## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    names = re.findall(r"^\d+\. `([\w.]+)`", section, re.MULTILINE)
    assert len(names) > 20
    return [re.sub(r"\.[_A-Z]\w*(?=\.)", "", name) for name in names if name not in UNSEEN]


def calls(folder: Path, *arguments: str) -> list[str]:
    """The functions of dlltracer that a command and its child call, in the order of the calls."""
    (folder / "site").mkdir()
    (folder / "calls").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(PROFILE)
    subprocess.run(
        [sys.executable, "-m", "dlltracer", *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True,
        timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(folder / "site"), "WALK_CALLS": str(folder / "calls")},
    )  # fmt: skip
    lines = [line.split() for file in (folder / "calls").iterdir() for line in file.read_text().splitlines()]
    return [name for _, name in sorted((int(time), name) for time, name in lines)]


def missed(steps: list[str], called: list[str]) -> list[str]:
    """The steps that are not called after all those before them."""
    at, lost = 0, []
    for step in steps:
        if step in called[at:]:
            at = called.index(step, at) + 1
        else:
            lost.append(step)
    return lost


def test_the_path_of_one_load(tmp_path: Path) -> None:
    assert missed(walk("The path of one load"), calls(tmp_path, "run", "-c", "import _ssl")) == []


def test_the_path_of_one_verdict(tmp_path: Path, native: Native) -> None:
    assert missed(walk("The path of one verdict"), calls(tmp_path, "why", str(native.broken_module()))) == []


def test_a_step_in_the_wrong_place_is_noticed() -> None:
    assert missed(["a.f", "a.g"], ["a.g", "a.f"]) == ["a.g"]
