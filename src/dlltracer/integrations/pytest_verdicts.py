"""The hooks of `pytest --dlltracer`: trace each module's import and each test, and explain loads that failed.

The verdicts go to the report of each test, and to the summary of a CI job: a file of Markdown that the runner shows.
Source: "Adding a job summary", GitHub Docs, Workflow commands: a step appends to the file that GITHUB_STEP_SUMMARY
names; GitHub drops a file of more than 1 MiB.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, overload

import pytest

from ..model.events import DebugEvent, Event, LoadEvent, LoadFailedEvent, UnloadEvent
from ..model.finding import Diagnosis
from ..model.recording import Losses, Recording
from ..model.screen import escape
from ..trace import Trace

MOST = 1 << 20
"""Bytes that the file of a step may have."""
_ROOM = 200
"""Bytes kept for the line that counts what was left out."""
_MOST_TESTS = 5
_OF_WORKER = "dlltracer_summary"
"""The key of a worker's failures in what pytest-xdist hands to the main process."""


class JobSummary:
    """The failures that were explained, each once, with the tests that had it; written when the session ends.

    Arguments: `path`, of the file, to which is appended; `None` where nothing is to be written.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._texts: dict[str, str] = {}
        self._tests: dict[str, list[str]] = {}
        self.message = ""

    def add(self, key: str, diagnosis: Diagnosis, test: str) -> None:
        """Note a failure of a test, which `key` identifies."""
        if self._path is None:
            return
        if key not in self._texts:
            from ..report.render_markdown import render_markdown_verdict

            self._texts[key] = render_markdown_verdict(diagnosis)
        self._tests.setdefault(key, []).append(test)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take the failures of a worker of pytest-xdist."""
        for key, text, tests in getattr(node, "workeroutput", {}).get(_OF_WORKER, ()):
            self._texts.setdefault(key, text)
            self._tests.setdefault(key, []).extend(tests)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the file; a worker hands its failures to the main process."""
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[_OF_WORKER] = [(key, text, self._tests[key]) for key, text in self._texts.items()]
        else:
            self.write()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what became of the file."""
        if self.message:
            terminalreporter.write_line(self.message)

    def write(self) -> None:
        """Append the failures to the file, as many as it may hold. Never raises: the tests are what counts."""
        if self._path is None or not self._texts:
            return
        try:
            with open(self._path, "ab") as file:
                room = MOST - os.fstat(file.fileno()).st_size
                file.write(self._render(room).encode("utf-8", "backslashreplace"))
            self.message = f"dlltracer: wrote the verdicts to the job summary, {self._path}"
        except OSError as error:
            self.message = f"dlltracer: the job summary could not be written: {error.strerror or error}"

    def _render(self, room: int) -> str:
        """The text, of at most `room` bytes: whole failures, and a line that counts the others."""
        pieces: list[str] = []
        left = room - _ROOM
        for key, text in self._texts.items():
            piece = text + self._render_tests(self._tests.get(key, []))
            size = len(piece.encode("utf-8", "backslashreplace"))
            if size > left:
                break
            pieces.append(piece)
            left -= size
        rest = len(self._texts) - len(pieces)
        if rest and room >= _ROOM:
            pieces.append(f"dlltracer explained {rest} more failures, for which the summary of a step has no room.\n\n")
        return "".join(pieces)

    def _render_tests(self, tests: list[str]) -> str:
        from ..report.render_markdown import code

        names = list(dict.fromkeys(tests))
        more = f" and {len(names) - _MOST_TESTS} more" if len(names) > _MOST_TESTS else ""
        return f"In {', '.join(map(code, names[:_MOST_TESTS]))}{more}.\n\n"


class HookResult(Protocol):
    """The object that pluggy passes to an old-style hook wrapper."""

    excinfo: tuple[Any, BaseException, Any] | None

    def get_result(self) -> Any:
        """Return the result of the hook, or raise its exception."""


TITLE = "dlltracer"


class Verdicts:
    """The hooks of a session, and the failures that it has explained."""

    def __init__(self, backend: str, summary: JobSummary) -> None:
        self._backend = backend
        self._summary = summary
        self._refusal = ""
        self._of_test: Trace | None = None
        self._explained: dict[tuple[object, ...], str] = {}

    def pytest_report_header(self) -> str:
        """Return the line of the header: the mechanism of the trace, or why there is none."""
        trace = self._begin()
        recording = _end(trace)
        if recording is None:
            return f"dlltracer: verdicts without a trace: {escape(self._refusal)}"
        return f"dlltracer: traced by {recording.backend}"

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_make_collect_report(self) -> Generator[None, HookResult]:
        """Trace the collection of a test module, which imports it."""
        trace = self._begin()
        outcome = yield
        recording = _end(trace)
        if outcome.excinfo is None:
            report = outcome.get_result()
            call = getattr(report, "call", None)
            if report.failed and call is not None and call.excinfo is not None:
                self._explain(report, call.excinfo.value, recording)

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Generator[None, HookResult]:
        """Trace a test with its setup and teardown."""
        self._of_test = self._begin()
        yield
        _end(self._of_test)
        self._of_test = None

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, HookResult]:
        """Explain the phase of a test that failed."""
        outcome = yield
        if outcome.excinfo is None and call.excinfo is not None and outcome.get_result().failed:
            recording = _end(self._of_test)
            self._explain(outcome.get_result(), call.excinfo.value, recording)
            self._of_test = self._begin()

    def _begin(self) -> Trace | None:
        """Return a running trace; `None` if none can be started. Then verdicts rest on the files only."""
        try:
            trace = Trace(backend=self._backend)
            trace.start()
        except Exception as error:  # noqa: BLE001 - the tests go on, whatever keeps a trace from starting
            self._refusal = str(error) or type(error).__name__
            return None
        return trace

    def _explain(self, report: Any, error: BaseException, recording: Recording | None) -> None:
        text = _say(error, recording, lambda diagnosis: self._told_before(diagnosis, report.nodeid or "collection"))
        if text is not None:
            add_section(report, text)

    def _told_before(self, diagnosis: Diagnosis, where: str) -> str | None:
        """Return where the same failure was explained before: one broken file may fail a hundred tests."""
        error = diagnosis.error
        key: tuple[object, ...] = (error.type, error.message, error.path) if error is not None else ()
        for finding in diagnosis.findings[:1]:
            key += (finding.code, finding.subject, *finding.chain[-2:])
        self._summary.add(repr(key), diagnosis, where)
        first = self._explained.setdefault(key, where)
        return None if first == where else first


def explain_conftest(backend: Callable[[], str], summary: JobSummary) -> Generator[None, HookResult]:
    """Trace what a wrapper of pytest_load_initial_conftests wraps; a verdict goes to stderr, as pytest's own words do.

    It goes into the summary of the job at once, as pytest ends then. Where `backend` raises there is no trace:
    pytest_configure will say why, if it comes to that.
    """
    trace = None
    try:
        trace = Trace(backend=backend())
        trace.start()
    except Exception:  # noqa: BLE001 - see above
        trace = None
    outcome = yield
    recording = _end(trace)
    if outcome.excinfo is not None:
        text = _say(outcome.excinfo[1], recording, lambda diagnosis: summary.add("", diagnosis, "conftest.py"))
        summary.write()
        if text is not None and sys.stderr is not None:
            encoding = sys.stderr.encoding or "ascii"
            print(text.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)


def _end(trace: Trace | None) -> Recording | None:
    if trace is None:
        return None
    try:
        trace.close()
    except Exception:  # noqa: BLE001 - the tests go on; a verdict then says that there was no trace
        return None
    return trace.recording


def _say(
    error: BaseException, recording: Recording | None, told_before: Callable[[Diagnosis], str | None]
) -> str | None:
    """Return the verdict on an exception, or where it was given before; `None` if no loader took part."""
    try:
        # Imported for a failure only: most sessions have none.
        from ..api.explain import explain_if_of_a_loader, import_error_in
        from ..host.screen import screen_here
        from ..report.render_short import render_short_verdict

        cause = import_error_in(error)
        diagnosis = None if cause is None else explain_if_of_a_loader(cause, recording)
        if diagnosis is None:
            return None
        before = told_before(diagnosis)
        if before is not None:
            return f"explained before: the same failure as in {escape(before)}"
        return render_short_verdict(diagnosis, screen_here(is_ascii=True)).plain.rstrip("\n")
    except Exception as problem:  # noqa: BLE001 - a test's own failure must not be hidden by one of ours
        return f"no verdict: {type(problem).__name__}: {escape(str(problem))}"


def add_section(report: Any, text: str) -> None:
    """Put a section into the text of a report: there terminals, junitxml and xdist find it, and --tb=no leaves it out.

    `TestReport.sections` is for captured output: junitxml passes over others, and --show-capture=no hides them.
    """
    longrepr = report.longrepr
    if hasattr(longrepr, "addsection"):
        longrepr.addsection(TITLE, text, "-")
    else:
        report.longrepr = _WithSection(longrepr, text)


class _WithSection:
    """The representation of a failure that cannot hold sections (a module that cannot be imported)."""

    def __init__(self, shown: object, text: str) -> None:
        self._shown = shown
        self._text = text

    def __str__(self) -> str:
        return f"{self._shown}\n{f' {TITLE} ':-^80}\n{self._text}"

    def toterminal(self, writer: Any) -> None:
        """Write the representation, as `_pytest._code.code.TerminalRepr` does."""
        if hasattr(self._shown, "toterminal"):
            self._shown.toterminal(writer)
        else:
            writer.line(str(self._shown))
        writer.sep("-", TITLE)
        writer.line(self._text)


class LiveTrace(Sequence[Event]):
    """The events of a trace, in order, benign unloads left out: every look at it has all that was loaded until then.

    A look ends the trace that runs and begins another, so a load by another thread in that moment can be missed.
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._running: Trace | None = None
        self._seen = Recording(backend)

    def start(self) -> None:
        """Start or continue the trace. Raises the errors of `Trace.start`."""
        if self._running is None:
            trace = Trace(backend=self._backend)
            trace.start()
            self._running = trace

    def stop(self) -> None:
        """End the trace and keep its events. Does nothing if it is not running."""
        trace, self._running = self._running, None
        if trace is not None:
            trace.close()
            if trace.recording is not None:
                self._seen = _join(self._seen, trace.recording)

    def __enter__(self) -> LiveTrace:
        """Drop all events, and trace only the block."""
        self.stop()
        self._seen = Recording(self._backend)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def recording(self) -> Recording:
        """The recording so far."""
        if self._running is not None:
            self.stop()
            self.start()
        return self._seen

    @property
    def events(self) -> tuple[LoadEvent | LoadFailedEvent, ...]:
        """The events of loads and failures."""
        return tuple(event for event in self.recording.events if not isinstance(event, UnloadEvent | DebugEvent))

    @property
    def loads(self) -> tuple[LoadEvent, ...]:
        """The events of loads."""
        return self.recording.loads

    @property
    def failures(self) -> tuple[LoadFailedEvent, ...]:
        """The events of loads that failed, or were dropped again."""
        return self.recording.failures

    def __len__(self) -> int:
        return len(self.events)

    @overload
    def __getitem__(self, at: int) -> Event: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Event]: ...

    def __getitem__(self, at: int | slice) -> Event | Sequence[Event]:
        return self.events[at]

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __repr__(self) -> str:
        return f"<dlltrace: {', '.join(map(str, self.events)) or 'no events'}>"


def _join(first: Recording, second: Recording) -> Recording:
    """Return two recordings as one, the first one's events first."""
    losses = Losses(
        first.losses.events + second.losses.events,
        first.losses.buffers + second.losses.buffers,
        first.losses.undecodable + second.losses.undecodable,
    )
    notes = tuple(dict.fromkeys((*first.notes, *second.notes)))
    return replace(second, events=first.events + second.events, losses=losses, notes=notes)
