"""Failures of Linux under backend "seccomp", a second opinion on `rtld`: the same verdict, and the same places.

Three of them run always. With DLLTRACER_WATCH_SCENARIOS=1 in the environment the whole list does, in some minutes.
The imports of large packages are compared event by event where they are installed, or in the Python that
DLLTRACER_PACKAGES_PYTHON names (with numpy, pandas and PySide6-Essentials).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlltracer.capture.choose import make_backend
from scenarios.linux.asking import ask_why
from scenarios.linux.catalogue import SCENARIOS
from scenarios.linux.workshop import Workshop, why_there_is_none
from scenarios.scenario import CannotBuild, Question, judge

pytestmark = pytest.mark.skipif(why_there_is_none() is not None, reason=why_there_is_none() or "")

ALWAYS = ("missing-chain", "machine-dependency", "asked-by-name")
ON_DEMAND = (
    "missing-leaf", "missing-two", "missing-elsewhere", "missing-runpath", "missing-everywhere", "missing-on-path",
    "missing-wrapped", "missing-after-benign", "missing-handled", "asked-by-path", "asked-dependency", "library-file",
    "search-named", "class-module", "lfs-module", "truncated-library", "dangling-link",
    "symbol-gone", "version-missing", "symbol-library-path", "pool-leaf", "relative-library-path",
    "broken-zlib", "works",
)  # fmt: skip
"""Not here: what only the log tells. Which native code calls dlopen ("runtime-dlopen"), and which initialiser runs
("crash-library": the verdict is "crash-in-import")."""


def places(verdict: dict[str, Any]) -> list[object]:
    """What a verdict says of what was looked for: every piece of evidence that is a list of places."""
    found: list[object] = []

    def walk(value: object, key: str = "") -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, name)
        elif isinstance(value, list) and key == "probes":
            found.append([(probe["path"], probe["outcome"]) for probe in value])
        elif isinstance(value, list):
            for inner in value:
                walk(inner, key)

    walk(verdict)
    return found


@pytest.mark.parametrize("name", [*ALWAYS, *(ON_DEMAND if os.environ.get("DLLTRACER_WATCH_SCENARIOS") else ())])
def test_both_mechanisms_come_to_the_same_verdict(name: str, tmp_path: Path) -> None:
    if not make_backend("seccomp").availability().ok:
        pytest.skip(make_backend("seccomp").availability().reason)
    (scenario,) = [one for one in SCENARIOS if one.id == name]
    try:
        question: Question = scenario.build(Workshop(tmp_path))
    except CannotBuild as error:
        pytest.skip(str(error))
    answers = {}
    for backend in ("rtld", "seccomp"):
        asked = replace(question, arguments=("--backend", backend, *question.arguments))
        answers[backend] = ask_why(asked)
        judgement = judge(scenario, lambda backend=backend: answers[backend])  # type: ignore[misc]
        assert not judgement.problem, (backend, judgement.problem)
    inside, outside = json.loads(answers["rtld"]), json.loads(answers["seccomp"])
    assert [one["code"] for one in inside["findings"]] == [one["code"] for one in outside["findings"]]
    assert places(inside) == places(outside)


PACKAGES = {
    "numpy": "import numpy",
    "pandas": "import pandas",
    "PySide6": "import PySide6.QtWidgets, PySide6.QtNetwork; PySide6.QtWidgets.QApplication([])",
}


@pytest.mark.parametrize("package", PACKAGES)
def test_both_mechanisms_tell_of_the_same_loads_and_places(package: str, tmp_path: Path) -> None:
    if not make_backend("seccomp").availability().ok:
        pytest.skip(make_backend("seccomp").availability().reason)
    python = os.environ.get("DLLTRACER_PACKAGES_PYTHON", sys.executable)
    if subprocess.run([python, "-c", f"import {package}"], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} has no {package}")
    inside, outside = (events_of(python, PACKAGES[package], backend, tmp_path) for backend in ("rtld", "seccomp"))
    assert [event[1:] for event in inside] == [event[1:] for event in outside] and len(inside) > 10
    # Which native code calls dlopen is in the log only: the loads that it begins have no requester.
    assert [(ours, theirs) for (ours, *_), (theirs, *_) in zip(inside, outside, strict=True)
            if theirs not in (ours, None)] == []  # fmt: skip


def events_of(python: str, code: str, backend: str, folder: Path) -> list[tuple[object, ...]]:
    """Return the loads and failures of a run, in order: for whom, what, and the places that were tried.

    Without the rule of a place: for a folder that several search paths name, the log of glibc has the first of them.
    """
    command = [sys.executable, "-m", "dlltracer", "run", "--backend", backend, "--format", "jsonl", "-o", "report"]
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [*command, "--python", python, "-c", code], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (folder / "report").read_text().splitlines()]
    own = ("_ctypes.", "libffi", "_struct.")  # rtld has loaded these itself, before the program began
    return [
        (*(event.get(key) for key in ("requested_by", "type", "path", "need", "kind", "imports")),
         [(probe["path"], probe["outcome"] == "loaded") for probe in event.get("probes") or ()])
        for event in events
        if event["type"] in ("load", "failed") and not Path(event["path"]).name.startswith(own)
    ]  # fmt: skip
