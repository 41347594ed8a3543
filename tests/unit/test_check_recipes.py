"""The action, the hook of pre-commit and the recipes of docs/how-to/check-in-ci.md: they fit the command, and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from builders.elf_file import ElfFile, Symbol
from builders.wheel_file import build_wheel
from dlltracer.cli.commands import cli

yaml = pytest.importorskip("yaml", reason="needs pyyaml (.ci/tools.txt)")

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "check-in-ci.md"
SCRIPT = ROOT / "tools" / "check_action.py"
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")


def action() -> Any:
    return yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def options_in(text: str) -> set[str]:
    return set(re.findall(r"--[a-z][a-z-]+", text))


def known_options() -> set[str]:
    command = cli.get_command(click.Context(cli), "check")
    assert command is not None
    return {name for one in command.params for name in one.opts}


def test_the_action_is_pinned_and_gives_its_inputs_to_no_shell() -> None:
    steps = action()["runs"]["steps"]
    used = [step["uses"] for step in steps if "uses" in step]
    assert used and [name for name in used if not PINNED.fullmatch(name)] == []
    for step in steps:
        assert "${{" not in step.get("run", ""), "an input in a script is code"
    environment = steps[-1]["env"]
    given = {name: value for name, value in environment.items() if "inputs." in value}
    assert {re.sub(r"\W|inputs", "", value) for value in given.values()} == {
        re.sub(r"\W", "", name) for name in action()["inputs"]
    }
    source = SCRIPT.read_text("utf-8")
    assert all(f'"{name}"' in source for name in given)
    assert options_in(source) <= known_options() and "tools/check_action.py" in steps[-1]["run"]


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    for name, needed in (("good", "libc.so.6"), ("bad", "libtbb.so.12")):
        (tmp_path / name).mkdir()
        content = ElfFile(loadable=True, symbols=(Symbol("PyInit_mod"),), needed=(needed,)).build()
        build_wheel(tmp_path / name, {"pkg/mod.cpython-312-x86_64-linux-gnu.so": content})
    return tmp_path


def run_action(folder: Path, **inputs: str) -> tuple[int, str]:
    environment = {
        **os.environ, **inputs, "GITHUB_STEP_SUMMARY": str(folder / "summary"), "GITHUB_OUTPUT": str(folder / "output"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], cwd=folder, env=environment, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_action_as_a_job_runs_it(wheels: Path) -> None:
    status, output = run_action(wheels, TARGETS="good/*.whl\n\nbad/*.whl\n", SARIF="x.sarif", FAIL_ON="error", JOBS="1")
    assert status == 1 and "[missing-image]" in output
    assert "::error title=pkg-1.0" in output
    assert "libtbb.so.12" in (wheels / "summary").read_text() and (wheels / "output").read_text() == "status=1\n"
    assert '"2.1.0"' in (wheels / "x.sarif").read_text()
    status, output = run_action(wheels, TARGETS="**/*.whl", IGNORE="missing-image:pkg/*\n")
    assert status == 0 and "::" not in output
    assert run_action(wheels, TARGETS=" \n")[0] == 2
    assert run_action(wheels, TARGETS="none/*.whl")[0] == 3


def test_the_hook_fits_the_command() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    assert hook["entry"].split() == ["dlltracer", "check"] and hook["language"] == "python"
    assert re.search(hook["files"], "dist/pkg-1.0-py3-none-any.whl")
    (used,) = [yaml.safe_load(text) for text in blocks("yaml") if "repos:" in text]
    (mine,) = used["repos"][0]["hooks"]
    assert mine["id"] == hook["id"] and options_in(" ".join(mine["args"])) <= known_options()


def test_recipes_name_options_that_exist() -> None:
    workflow = [text for text in blocks("yaml") if "uses: OWNER/dlltracer" in text]
    assert set(yaml.safe_load(workflow[0])[0]["with"]) <= set(action()["inputs"])
    commands = [line for line in PAGE.read_text("utf-8").splitlines() if "dlltracer" in line and "check" in line]
    found = {option for line in commands for option in options_in(line.partition("dlltracer")[2])}
    assert found <= known_options() and len(found) >= 3
    compile(blocks("text")[0], "noxfile.py", "exec")


def test_a_pattern_that_no_shell_expanded(wheels: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dlltracer", "check", "g*/*.whl"], cwd=wheels, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("pkg-1.0-cp312")
