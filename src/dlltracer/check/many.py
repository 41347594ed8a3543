"""Runs the checks of many targets over an executor.

The executor is any `concurrent.futures.Executor`: processes here, or machines of a cluster. It may lose workers. A
target whose worker died is checked again, at most `TRIES` times, and then reported. So every target gets one report,
whatever happens to the workers.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from multiprocessing.process import BaseProcess

from ..errors import DlltracerError
from ..model.check import CheckReport
from .targets import CheckTarget, check_anything, classify_target

TRIES = 3
"""How often a target is given to a worker that does not live to answer."""

IN_FLIGHT = 32
"""Targets that an executor has at a time, where the number of its workers is not known."""


class ExecutorLost(DlltracerError):
    """The executor takes no work any more; targets without a report have not been checked."""


def check_many(
    targets: Iterable[str | CheckTarget],
    executor: Executor,
    *,
    check: Callable[[CheckTarget], CheckReport] = check_anything,
    in_flight: int = 0,
) -> Iterator[CheckReport]:
    """Yield a report for each target as soon as it is there, in no order; a target that comes twice is checked once.

    Args:
        targets: paths or URLs, which the workers must be able to read. They are taken as they are needed.
        executor: any; it is not shut down. A `ProcessPoolExecutor` that breaks because a worker died is replaced by a
            new one of the same size, which ends with the generator.
        check: what a worker calls with a target; a function of a module.
        in_flight: how many targets the executor has at a time; 0 for twice its processes, or 32.

    Raises:
        ExecutorLost: an executor of another kind takes no work any more (a cluster that was shut down). Targets without
            a report are not lost: a second call with them checks them.
    """
    sweep = _Sweep(executor, check, in_flight)
    try:
        yield from sweep.run(targets)
    finally:
        sweep.close()


def end_with_parent() -> None:
    """Let this process end when the one that started it does: the `initializer` of a `ProcessPoolExecutor`.

    Without it the workers of a killed process wait for ever: each has the writing end of the pipe that brings its work.
    So the end of the other process is no end of the pipe (seen with CPython 3.11 and `spawn`).
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_and_end, args=(parent,), daemon=True).start()


def _wait_and_end(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


class _Sweep:
    def __init__(self, executor: Executor, check: Callable[[CheckTarget], CheckReport], in_flight: int) -> None:
        self._executor = executor
        self._own: ProcessPoolExecutor | None = None
        self._check = check
        self._workers = getattr(executor, "_max_workers", 0)
        self._most = in_flight or (2 * self._workers + 1 if self._workers else IN_FLIGHT)
        self._pending: dict[Future[CheckReport], CheckTarget] = {}
        self._lost: dict[CheckTarget, int] = {}
        self._suspects: deque[CheckTarget] = deque()
        """Targets whose worker died with the whole pool: one of them may kill each worker that gets it."""

    def run(self, targets: Iterable[str | CheckTarget]) -> Iterator[CheckReport]:
        rest = _distinct(targets)
        while True:
            self._fill(rest)
            if not self._pending:
                return
            done, _ = wait(self._pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield from self._finish(future)

    def close(self) -> None:
        """Take back what has not begun, and end the pool that we made."""
        for future in self._pending:
            future.cancel()
        if self._own is not None:
            self._own.shutdown(cancel_futures=True)

    def _fill(self, rest: Iterator[CheckTarget]) -> None:
        """Give the executor as much as it may have."""
        while not self._suspects and len(self._pending) < self._most:
            target = next(rest, None)
            if target is None:
                return
            self._submit(target)
        # A suspect runs alone: if its worker dies again, no other target is to blame.
        if self._suspects and not self._pending:
            self._submit(self._suspects.popleft())

    def _submit(self, target: CheckTarget) -> None:
        try:
            future = self._executor.submit(self._check, target)
        except BrokenExecutor as error:
            if self._pending:  # they are about to end with the same error; then the pool is replaced
                self._suspects.append(target)
                return
            self._replace(error)
            self._submit(target)
            return
        except RuntimeError as error:  # it was shut down, or its cluster was closed
            raise ExecutorLost(f"the executor takes no more targets: {error}") from error
        self._pending[future] = target

    def _finish(self, future: Future[CheckReport]) -> Iterator[CheckReport]:
        target = self._pending.pop(future)
        error = None
        try:
            report = future.result()
        except BaseException as raised:  # CancelledError of asyncio, by which a cluster says so, is no Exception
            if isinstance(raised, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            error = raised
        if error is None:
            lost = self._lost.pop(target, 0)
            if lost:
                note = f"checked again: a worker ended while it was checked ({lost} of at most {TRIES - 1} times)"
                report = replace(report, notes=(*report.notes, note))
            yield report
            return
        self._lost[target] = self._lost.get(target, 0) + 1
        if self._lost[target] >= TRIES:
            del self._lost[target]
            why = f"no worker lived to answer, {TRIES} times: {type(error).__name__}: {error}"
            yield CheckReport(target=target.path, unreadable=why)
        elif isinstance(error, BrokenExecutor):  # all targets in flight come here: which one it was, nobody knows
            self._suspects.append(target)
        else:
            self._submit(target)

    def _replace(self, error: BaseException) -> None:
        """Make a pool in the place of one that broke; all its futures have ended by now."""
        if not isinstance(self._executor, ProcessPoolExecutor):
            raise ExecutorLost(f"the executor is broken: {error}") from error
        if self._own is not None:
            self._own.shutdown(wait=False, cancel_futures=True)
        broken = self._executor
        self._own = self._executor = ProcessPoolExecutor(
            self._workers or None, mp_context=getattr(broken, "_mp_context", None),
            initializer=getattr(broken, "_initializer", None), initargs=getattr(broken, "_initargs", ()),
        )  # fmt: skip


def _distinct(targets: Iterable[str | CheckTarget]) -> Iterator[CheckTarget]:
    seen: set[CheckTarget] = set()
    for given in targets:
        target = CheckTarget(path=given, kind=classify_target(given)) if isinstance(given, str) else given
        if target not in seen:
            seen.add(target)
            yield target
