"""Every code block of the documentation runs, page by page, and prints what the page shows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from docs.blocks import OUTPUT_ONLY, Block, parse_blocks, parse_steps
from docs.blocks import is_shown_output as is_shown
from docs.rooms import BashRoom, WindowsRoom, reader_environment
from windows.lab import Lab, windows_path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "adr" not in path.parts),
]  # fmt: skip
WITH_CODE = [page for page in PAGES if any(block.language not in OUTPUT_ONLY for block in parse_blocks(page))]
FOR_WINDOWS = ("psycopg2-binary==2.9.11",)
LANGUAGES = {"console", "sh", "bat", "python", "json", "toml", "yaml", *OUTPUT_ONLY}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pages are run on Linux"),
]

Room = BashRoom | WindowsRoom


@pytest.fixture
def bash(tmp_path: Path, readers_python: Path, readers_wheel: Path) -> BashRoom:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(readers_wheel, home)
    names = {str(home): "/home/me", str(readers_python.parent): "/home/me/venv"}
    return BashRoom(home, reader_environment(home, readers_python), names)


@pytest.fixture
def windows(lab: Lab, tmp_path: Path, readers_wheel: Path) -> WindowsRoom:
    folder = tmp_path / "work"
    folder.mkdir()
    installed = tmp_path / "installed"
    shutil.unpack_archive(readers_wheel, installed, "zip")
    version = "3.11"
    path = ";".join(map(windows_path, (installed, lab.site)))
    names = {windows_path(folder): "C:\\work", windows_path(lab.python_dir(version)): "C:\\Python311"}
    wheels = tmp_path / "wheels"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(wheels)]
    command += ["--platform", "win_amd64", "--python-version", version, *FOR_WINDOWS]
    if subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=False).returncode:
        pytest.skip("no package index can be reached")
    # pip under Wine finds them there: whether it could reach an index is not what the pages are about.
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": windows_path(wheels)}
    return WindowsRoom(folder, lab, version, {"PYTHONPATH": path, **offline}, names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_says_what_it_is(page: Path) -> None:
    """A block without a language would be run by nobody."""
    assert {str(block): block.language for block in parse_blocks(page) if block.language not in LANGUAGES} == {}


def test_few_blocks_are_not_run() -> None:
    """Each says why, and they are few."""
    reasons = [block.reason_not_to_run for page in PAGES for block in parse_blocks(page) if block.reason_not_to_run]
    assert len(reasons) <= 9, reasons
    others = {block.other_test for page in PAGES for block in parse_blocks(page)} - {None}
    assert others and all((ROOT / str(other)).is_file() for other in others)


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_code_blocks(page: Path, request: pytest.FixtureRequest) -> None:
    """All blocks of a page, in order, as a reader would go through them."""
    rooms: dict[str, Room] = {}

    def room(name: str) -> Room:
        if name not in rooms:
            rooms[name] = request.getfixturevalue(name)
        return rooms[name]

    absent = set()
    for block in parse_blocks(page):
        if block.language in OUTPUT_ONLY or block.reason_not_to_run or block.other_test:
            continue
        try:
            _CHECKS[block.language](block, room)
        except NoSuchTool as tool:
            absent.add(str(tool))
    if absent:
        pytest.skip(f"all blocks ran but those that need {', '.join(sorted(absent))}: not on this machine")


class NoSuchTool(Exception):
    """A block needs a program that this machine lacks; the text is its name."""


def _check_tools(status: int, output: str) -> None:
    """Raise `NoSuchTool` if the shell did not find a program (status 127), unless it is one that must be there."""
    found = re.search(r"line \d+: (\S+): command not found", output)
    if status == 127 and found is not None and found[1] not in ("dlltracer", "python", "pip", "pytest"):
        raise NoSuchTool(found[1])


def _check_console(block: Block, room: Callable[[str], Room], name: str = "bash") -> None:
    where = room(name)
    steps = parse_steps(block.code, where.prompt)
    for number, step in enumerate(steps):
        status, output = where.run(step.command)
        _check_tools(status, output)
        expected = block.status if number == len(steps) - 1 else 0
        assert status == expected, f"{block}: {step.command}: status {status}\n{output}"
        if step.output is not None and not is_shown(step.output, output):
            pytest.fail(f"{block}: {step.command}\nthe page shows:\n{step.output}\n\nit is:\n{output}")


def _check_sh(block: Block, room: Callable[[str], Room]) -> None:
    status, output = room("bash").run(block.code)
    _check_tools(status, output)
    assert status == block.status, f"{block}: status {status}\n{output}"


def _check_bat(block: Block, room: Callable[[str], Room]) -> None:
    _check_console(block, room, "windows")


def _check_python(block: Block, room: Callable[[str], Room]) -> None:
    where = room("bash")
    script = where.folder / "block.py"
    script.write_text(block.code, encoding="utf-8")
    status, output = where.run(f"python {script}")
    script.unlink()
    assert status == block.status, f"{block}: status {status}\n{output}"


def _check_json(block: Block, room: object) -> None:
    json.loads(block.code)


def _check_toml(block: Block, room: object) -> None:
    if sys.version_info >= (3, 11):
        import tomllib

        tomllib.loads(block.code)


def _check_yaml(block: Block, room: object) -> None:
    yaml = pytest.importorskip("yaml")
    yaml.safe_load(block.code)


_CHECKS: dict[str, Callable[[Block, Callable[[str], Room]], None]] = {
    "console": _check_console,
    "sh": _check_sh,
    "bat": _check_bat,
    "python": _check_python,
    "json": _check_json,
    "toml": _check_toml,
    "yaml": _check_yaml,
}
