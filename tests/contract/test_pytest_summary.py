"""`pytest --dlltracer` in a CI job: the verdicts stand in the summary of the job."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from builders.failed_case import case
from contract.native import Native
from dlltracer.diagnose.engine import diagnose
from dlltracer.integrations.pytest_verdicts import MOST, JobSummary

pytest_plugins = ("pytester",)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the fixtures' messages are those of Linux")


@pytest.fixture
def broken(native: Native, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that tests of the session can import, and that fails for want of `Native.missing`."""
    module = native.broken_module()
    monkeypatch.setenv("PYTHONPATH", str(module.parent))
    return module.name.partition(".")[0]


@pytest.fixture
def summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the job's summary, in which another step has written."""
    file = tmp_path / "summary.md"
    file.write_text("of another step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    return file


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error", *arguments)


@linux_only
@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_each_failure_is_there_once_with_its_tests(
    pytester: pytest.Pytester, broken: str, summary: Path, workers: tuple[str, ...]
) -> None:
    pytester.makepyfile(
        test_one=f"def test_a(): import {broken}\ndef test_b(): import {broken}",
        test_two=f"def test_c(): import {broken}\ndef test_fine(): pass",
    )
    result = run(pytester, "--dlltracer", *workers)
    result.assert_outcomes(failed=3, passed=1)
    text = summary.read_text("utf-8")
    assert text.startswith("of another step\n### dlltracer: `import ") and text.count("### dlltracer: ") == 1
    assert Native.missing in text and "every place, all evidence" in text
    for name in ("test_one.py::test_a", "test_one.py::test_b", "test_two.py::test_c"):
        assert text.count(f"`{name}`") == 1
    result.stdout.fnmatch_lines([f"dlltracer: wrote the verdicts to the job summary, {summary}"])


@linux_only
def test_who_chooses_the_file(pytester: pytest.Pytester, broken: str, summary: Path) -> None:
    pytester.makepyfile(f"def test_it(): import {broken}")
    before = summary.read_text("utf-8")
    assert run(pytester).ret == 1 and run(pytester, "--dlltracer", "--dlltracer-summary", "none").ret == 1
    assert summary.read_text("utf-8") == before
    run(pytester, "--dlltracer-summary", "own.md")
    assert Native.missing in (pytester.path / "own.md").read_text("utf-8")
    pytester.makeini("[pytest]\ndlltracer_summary = ini.md\n")
    run(pytester, "--dlltracer")
    assert Native.missing in (pytester.path / "ini.md").read_text("utf-8")
    assert summary.read_text("utf-8") == before
    result = run(pytester, "--dlltracer", "--dlltracer-summary", "no/such/file.md")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["dlltracer: the job summary could not be written: No such file or directory"])


@linux_only
def test_a_conftest_that_cannot_be_imported(pytester: pytest.Pytester, broken: str, summary: Path) -> None:
    pytester.makeconftest(f"import {broken}")
    assert run(pytester, "--dlltracer").ret != 0
    text = summary.read_text("utf-8")
    assert text.count("### dlltracer: ") == 1 and "`conftest.py`" in text and Native.missing in text


@linux_only
def test_sessions_without_failures_write_nothing(pytester: pytest.Pytester, summary: Path) -> None:
    pytester.makepyfile("def test_it(): import json")
    result = run(pytester, "--dlltracer", "-p", "no:xdist")  # whose hooks are unknown then
    result.assert_outcomes(passed=1)
    assert summary.read_text("utf-8") == "of another step\n" and "job summary" not in result.stdout.str()


def test_the_file_never_gets_larger_than_a_summary_may_be(tmp_path: Path) -> None:
    diagnosis = diagnose(case())
    file = tmp_path / "summary.md"
    file.write_bytes(b"x" * 500_000)
    job = JobSummary(str(file))
    for number in range(2_000):
        job.add(str(number), diagnosis, f"test_{number}.py::test")
    job.write()
    data = file.read_bytes()
    assert MOST - 10_000 < len(data) <= MOST
    last = data.decode().rstrip().splitlines()[-1]
    shown = data.count(b"### dlltracer: ")
    assert shown > 10
    assert last == f"dlltracer explained {2_000 - shown} more failures, for which the summary of a step has no room."
    job.write()
    assert len(file.read_bytes()) <= MOST
