"""Recordings made on Windows (under Wine), explained here: the verdict is the one that was given there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlltracer.api.saving import explain_saved
from dlltracer.host.recording_files import read_trace_file
from dlltracer.model.finding import Confidence, Diagnosis, Outcome
from dlltracer.model.tracefile import encode_verdict
from dlltracer.report.redact import redact
from scenarios.scenario import Scenario
from windows.lab import Lab

from .windows.catalogue import SCENARIOS
from .windows.desk import Desk
from .windows.workshop import Workshop

pytestmark = pytest.mark.slow

CHOSEN = (
    "missing-leaf", "other-python", "quarantined", "conda", "arm-module", "cut", "crash", "old-runtime-app", "abort",
    "first-wins", "forwarder",
)  # fmt: skip
"""Causes of which each looks at other parts of a case."""


def heads(diagnosis: Diagnosis) -> list[tuple[str, Confidence]]:
    return [(finding.code, finding.confidence) for finding in diagnosis.findings]


@pytest.mark.parametrize("scenario", [one for one in SCENARIOS if one.id in CHOSEN], ids=lambda one: one.id)
def test_the_verdict_of_the_other_machine(scenario: Scenario[Workshop], lab: Lab, desk: Desk, tmp_path: Path) -> None:
    shop = Workshop(lab, desk, tmp_path)
    path = tmp_path / "windows.dlltrace"
    output: dict[str, Any] = json.loads(shop.ask(scenario.build(shop), path))
    trace = read_trace_file(str(path))
    assert trace.problems == ()
    assert trace.host is not None and trace.host.system == "windows"
    again = explain_saved(trace)
    assert encode_verdict(again) == output
    assert (again.findings[0].code, again.outcome) == (scenario.expected, Outcome.EXPLAINED)
    redacted = explain_saved(redact(trace))
    assert heads(redacted) == heads(again)


def test_without_the_case_it_is_not_guessed(lab: Lab, desk: Desk, tmp_path: Path) -> None:
    shop = Workshop(lab, desk, tmp_path)
    path = tmp_path / "windows.dlltrace"
    shop.ask(next(one for one in SCENARIOS if one.id == "missing-leaf").build(shop), path)
    trace = read_trace_file(str(path))
    output = explain_saved(replace(trace, case=None))
    assert output.findings[0].code == "missing-image" and "given where it was recorded" in output.notes[-1]
    output = explain_saved(replace(trace, case=None, diagnosis=None))
    assert output.outcome is Outcome.UNDECIDED and output.undecided


def test_what_windows_alone_knows_is_in_it(lab: Lab, desk: Desk, tmp_path: Path) -> None:
    shop = Workshop(lab, desk, tmp_path)
    path = tmp_path / "windows.dlltrace"
    shop.ask(next(one for one in SCENARIOS if one.id == "missing-leaf").build(shop), path)
    trace = read_trace_file(str(path))
    assert trace.places is not None  # of KnownDLLs Wine has none
    assert dict(trace.places.folders)["system"].lower() == "c:\\windows\\system32"
    kernel = next(image for image in trace.images if image.path.lower().endswith("\\kernel32.dll"))
    assert kernel.machine == "x86-64" and kernel.needs is not None and kernel.size
    assert trace.run.process is not None and trace.run.process.executable.endswith("python.exe")
