"""The manual page: made of the help as it is now, whole, and read by roff without a warning."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import click
import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_manpage.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_manpage", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_up_to_date() -> None:
    tool = load()
    assert tool.PAGE.read_text("utf-8") == tool.make_page(), "run tools/make_manpage.py"


def test_every_command_and_option_is_in_it() -> None:
    tool = load()
    page = tool.make_page()
    commands = list(tool.list_commands(tool.cli, "dlltracer"))
    assert {path for path, _ in commands} >= {"dlltracer run", "dlltracer why", "dlltracer hook enable"}
    for path, command in commands:
        assert f".SH {path.upper()}\n" in page
        for option in command.params:
            if isinstance(option, click.Option):
                assert all(name.replace("-", "\\-") in page for name in option.opts)


def test_text_that_roff_would_take_for_more() -> None:
    tool = load()
    assert tool.roff_text(".TH a\\b 'c' -d") == "\\&.TH a\\eb \\(aqc\\(aq \\-d"


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_roff_reads_it() -> None:
    ran = subprocess.run(
        ["groff", "-man", "-Tutf8", "-wall", "-rLL=100n", load().PAGE], capture_output=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"dlltracer" in ran.stdout


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man")
def test_man_shows_it() -> None:
    ran = subprocess.run(["man", "--warnings", "-l", load().PAGE], capture_output=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"") and b"SYNOPSIS" in ran.stdout
