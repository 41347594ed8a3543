"""`dlltracer selftest` in CPython for Windows under Wine, with ETW from the simulator: one run of a hostile user."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dlltracer.host.recording_files import read_trace_file
from dlltracer.model.run import SelfTestStep, StepState
from windows.lab import Lab, windows_path

pytestmark = pytest.mark.slow

QUICK = ("system", "images", "windows", "structures", "codes", "lookups", "names", "etw")
"""Half of the time; the rest starts thirty processes, slowly here. With DLLTRACER_LAB=wine10 all groups are asked."""

MAY_NOT_BE_ASKED = {
    "windows": {"version", "long paths"},
    "codes": {
        "a missing function", "a missing ordinal", "a need that refuses", "a need that is a text file",
        "a forwarder to nowhere", "an absent assembly", "DependentLoadFlags",
    },
    "lookups": {"KnownDLLs", "a copy of a known DLL"},
    "names": {
        "a short path (8.3)", "a junction", "a link to a folder", "a link to a file", "SUBST", "a UNC path",
        "a hard link", "a renamed file",
    },
    "etw": {"without Administrator", "sessions of this machine"},
    "debugger": {"a missing need", "a failing import", "harmless exceptions", "a killed helper", "abort and fail-fast"},
}  # fmt: skip
"""Where Wine is known to be no Windows. Every other step must be right."""

USER = "Zoë O'Brien"


def test_the_report_of_a_hostile_user(lab: Lab, simulated: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "people" / USER
    (home / "Temp").mkdir(parents=True)
    report = tmp_path / "report.dlltrace"
    folder = windows_path(home)
    hostile = {
        "TEMP": f"{folder}\\Temp", "TMP": f"{folder}\\Temp", "USERPROFILE": folder, "USERNAME": USER,
        "COMPUTERNAME": "ZOE-LAPTOP", "DT_PRIVATE": "value-of-the-environment",
    }  # fmt: skip
    groups = () if lab.kind == "wine10" else tuple(word for name in QUICK for word in ("--only", name))
    ran = lab.run(
        "3.11", ["-m", "dlltracer", "selftest", "--report", report, *groups], env={**simulated, **hostile}, timeout=400
    )
    trace = read_trace_file(str(report))
    assert not trace.problems
    check_steps(trace.steps)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    text = report.read_text("ascii") + repr(trace) + ran.stdout
    for private in (USER, "Zo\\u00eb", "Brien", "people", "zoe-laptop", "value-of-the-environment", str(tmp_path)):
        assert private.casefold() not in text.casefold(), private
    assert "<selftest>" in text
    assert not re.search(r"[A-Z]:\\(?!\.\.\.)", text), "a path with its drive"
    assert not any((home / "Temp").iterdir())


def check_steps(steps: tuple[SelfTestStep, ...]) -> None:
    """Nothing failed, and what could not be asked is what Wine is known not to do."""
    failed = [step for step in steps if step.state is StepState.FAILED]
    assert failed == []
    refused = {(step.group, step.name) for step in steps if step.state is StepState.NOT_ASKED}
    allowed = {(group, name) for group, names in MAY_NOT_BE_ASKED.items() for name in names}
    assert refused <= allowed
    by_name = {(step.group, step.name): dict(step.facts) for step in steps}
    assert len(steps) > 70
    assert by_name["etw", "records"]["events lost"] == "0"
    assert re.search(r"\\Device\\HarddiskVolume\d+<selftest>", by_name["etw", "a good load"]["event"])
    assert by_name["codes", "a missing need"]["code"] == "126"
