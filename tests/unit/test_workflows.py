"""The workflows of GitHub: valid YAML, pinned actions, and no step that names a file or an option that is absent."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from dlltracer.cli.commands import cli

yaml = pytest.importorskip("yaml", reason="needs pyyaml (.ci/tools.txt)")

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")

pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="the sdist has no workflows")


def jobs() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}, "what a job needs beyond that it asks for itself"
        found += [(f"{path.name}: {name}", job) for name, job in workflow["jobs"].items()]
    return found


def steps() -> list[tuple[str, dict[str, Any]]]:
    return [(name, step) for name, job in jobs() for step in job["steps"]]


def test_actions_are_pinned_and_checkouts_keep_no_credentials() -> None:
    used = [(name, step) for name, step in steps() if "uses" in step]
    assert len(used) > 10
    for name, step in used:
        assert PINNED.fullmatch(step["uses"]), (name, step["uses"])
        if step["uses"].startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, name
    texts = [path.read_text(encoding="utf-8") for path in WORKFLOWS]
    one_each = {line.split("@")[0]: set() for text in texts for line in re.findall(r"uses: (\S+)", text)}
    for text in texts:
        for action, commit in re.findall(r"uses: (\S+)@([0-9a-f]{40} # v[\d.]+)$", text, re.MULTILINE):
            one_each[action].add(commit)
    assert all(len(commits) == 1 for commits in one_each.values()), one_each


def test_every_job_ends_and_runs_in_a_bounded_time() -> None:
    assert jobs()
    for name, job in jobs():
        assert 0 < job["timeout-minutes"] <= 40, name


def test_files_and_options_in_commands_exist() -> None:
    seen = 0
    for name, step in steps():
        for line in step.get("run", "").splitlines():
            words = shlex.split(re.sub(r"\$\{\{.*?\}\}", "x", line))
            for word in words:
                if re.match(r"(tests|tools|\.ci)/", word):
                    assert (ROOT / word).exists(), (name, word)
                    seen += 1
            if words[:3] == ["python", "-m", "dlltracer"]:
                command = cli.get_command(click.Context(cli), words[3])
                assert command is not None, (name, line)
                known = {option for one in command.params for option in one.opts}
                assert {word for word in words if word.startswith("--")} <= known, (name, line)
                seen += 1
    assert seen >= 6


def test_the_matrix_of_windows_has_both_mechanisms_and_three_machines() -> None:
    job = dict(jobs())["ci.yml: windows"]
    matrix = job["strategy"]["matrix"]
    machines = {(row["architecture"], row["backend"]) for row in matrix["include"]}
    assert machines == {(one, other) for one in ("x86", "arm64") for other in ("etw", "debugger")}
    assert matrix["backend"] == ["etw", "debugger"] and matrix["architecture"] == ["x64"]
    rows = dict(jobs())["ci.yml: selftest"]["strategy"]["matrix"]["include"]
    asked = {(row["system"], row["architecture"]) for row in rows}
    assert asked >= {("windows", machine) for machine in ("x64", "x86", "arm64")}
    assert asked >= {("macos", "arm64"), ("ubuntu", "x64"), ("ubuntu", "arm64")}
