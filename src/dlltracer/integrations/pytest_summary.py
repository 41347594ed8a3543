"""The verdicts of a session of pytest in the summary of a CI job: a file of Markdown that the runner shows.

Source: "Adding a job summary", GitHub Docs, Workflow commands: a step appends to the file that GITHUB_STEP_SUMMARY
names; GitHub drops a file of more than 1 MiB.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from ..model.finding import Diagnosis

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
        self.said = ""

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
        if self.said:
            terminalreporter.write_line(self.said)

    def write(self) -> None:
        """Append the failures to the file, as many as it may hold. Never raises: the tests are what counts."""
        if self._path is None or not self._texts:
            return
        try:
            with open(self._path, "ab") as file:
                room = MOST - os.fstat(file.fileno()).st_size
                file.write(self._render(room).encode("utf-8", "backslashreplace"))
            self.said = f"dlltracer: wrote the verdicts to the job summary, {self._path}"
        except OSError as error:
            self.said = f"dlltracer: the job summary could not be written: {error.strerror or error}"

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
