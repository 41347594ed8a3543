"""Failures of Linux under backend "seccomp", a second opinion on `rtld`: the same verdict, and the same places.

Three of them run always. With DLLTRACER_WATCH_SCENARIOS=1 in the environment the whole list does, in some minutes.
"""

from __future__ import annotations

import json
import os
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
