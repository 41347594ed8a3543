"""Many targets over an executor: every target gets one report, whatever happens to the workers."""

from __future__ import annotations

import multiprocessing
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from builders.check_workers import check
from builders.wheel_file import build_wheel
from dlltracer.check.many import TRIES, ExecutorLost, check_many
from dlltracer.check.targets import CheckTarget
from dlltracer.model.check import CheckReport

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")


@pytest.fixture
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@posix_only
def test_workers_that_die_lose_and_double_nothing(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    targets = [f"target {number}" for number in range(40)]
    targets[7], targets[23] = f"die:{tmp_path}/first", f"die:{tmp_path}/second"
    targets[30] = "always:"
    reports = list(check_many(targets, pool, check=check))
    assert Counter(report.target for report in reports) == Counter(targets)
    by_target = {report.target: report for report in reports}
    assert [report.target for report in reports if report.unreadable] == ["always:"]
    assert f"no worker lived to answer, {TRIES} times" in by_target["always:"].unreadable
    for number, name in ((7, "first"), (23, "second")):
        assert any("checked again" in note for note in by_target[targets[number]].notes)
        assert by_target[targets[number]].files != int((tmp_path / name).read_text()), "another process has checked it"


@posix_only
def test_a_pool_that_is_broken_from_the_start(pool: ProcessPoolExecutor) -> None:
    with pytest.raises(BrokenExecutor):
        pool.submit(check, CheckTarget(path="always:", kind=None)).result()  # type: ignore[arg-type]
    assert [report.target for report in check_many(["a", "b"], pool, check=check)] in (["a", "b"], ["b", "a"])


class Immediate(Executor):
    """An executor that runs a task when it is submitted; `fail` may give the error that the task ends with."""

    def __init__(self, fail: Callable[[str], BaseException | None]) -> None:
        self.fail = fail
        self.submitted: list[str] = []

    def submit(self, fn: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        (target,) = arguments
        self.submitted.append(target.path)
        future: Future[Any] = Future()
        error = self.fail(target.path)
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(fn(target))
        return future


def report_of(target: CheckTarget) -> CheckReport:
    return CheckReport(target=target.path)


def test_a_worker_of_a_cluster_that_dies_ends_one_task() -> None:
    errors: dict[str, list[BaseException]] = {"b": [OSError("killed")], "c": [CancelledError()] * TRIES}
    executor = Immediate(lambda target: errors[target].pop() if errors.get(target) else None)
    reports = {report.target: report for report in check_many("abcd", executor, check=report_of)}
    assert set(reports) == set("abcd")
    assert executor.submitted.count("b") == 2 and reports["b"].notes
    assert executor.submitted.count("c") == TRIES and "CancelledError" in reports["c"].unreadable


def test_an_executor_that_ends_is_reported_and_the_results_are_kept() -> None:
    executor = Immediate(lambda target: BrokenExecutor("gone") if target == "c" else None)
    seen = []

    def submit(*arguments: Any) -> Future[Any]:
        if "c" in executor.submitted:
            raise BrokenExecutor("gone")
        return Immediate.submit(executor, *arguments)

    executor.submit = submit  # type: ignore[method-assign]
    with pytest.raises(ExecutorLost, match="gone"):
        for report in check_many("abcd", executor, check=report_of):
            seen.append(report.target)
    assert sorted(seen) == ["a", "b"]
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    with pytest.raises(ExecutorLost, match="shutdown"):
        list(check_many("a", threads, check=report_of))


def test_few_targets_are_in_flight_and_each_is_checked_once() -> None:
    taken: list[int] = []

    def targets() -> Iterator[str]:
        for number in range(1_000):
            taken.append(number)
            yield f"target {number % 100}"

    with ThreadPoolExecutor(2) as threads:
        first = next(iter(check_many(targets(), threads, check=report_of, in_flight=4)))
        assert first.target.startswith("target") and len(taken) <= 8
        taken.clear()
        reports = list(check_many(targets(), threads, check=report_of))
    assert len(reports) == len({report.target for report in reports}) == 100


def test_an_error_of_ours_is_the_report_on_its_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dlltracer.check import many, targets

    monkeypatch.setattr(targets, "check_target", check)
    with ThreadPoolExecutor(1) as threads:
        by_target = {report.target: report for report in many.check_many(["raise:this", "fine"], threads)}
    assert by_target["raise:this"].unreadable == "dlltracer failed: ValueError: this"
    assert not by_target["fine"].unreadable


def test_wheels_over_threads(tmp_path: Path) -> None:
    wheel = str(build_wheel(tmp_path, {}))
    gone = str(tmp_path / "gone-1.0-py3-none-any.whl")
    with ThreadPoolExecutor(2) as threads:
        reports = {report.target: report for report in check_many([wheel, gone], threads)}
    assert not reports[wheel].unreadable and reports[gone].unreadable
