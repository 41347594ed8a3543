"""Writes a recording file while a program runs."""

from __future__ import annotations

import os
import platform
import sys
import time
from typing import TypeVar

from ..api.explain import Explained
from ..api.saving import begin_trace, end_trace
from ..host.recording_files import TraceFileWriter
from ..model.events import Event
from ..model.recording import UNKNOWN, TracedProcess
from ..model.run import RunResult, SavedTrace
from ..model.tracefile import closing_lines, early_line, event_line, header_line, process_line
from .output import CommandFailed, say_error, say_written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..report.redact import Redactor


ValueT = TypeVar("ValueT")


class TraceRecorder:
    """Gets what a run records, as it comes, and writes it to a file.

    Arguments:
        path: the file.
        what: what is run, in words.
        command: its command line.
        backend: the mechanism asked for.
        redact: leave out what is private.
        is_quiet: do not say what was written.
    Raises `CommandFailed` when the file cannot be written.
    """

    def __init__(
        self, path: str, what: str, command: tuple[str, ...], backend: str, *, redact: bool = False,
        is_quiet: bool = False,
    ) -> None:  # fmt: skip
        self._is_quiet = is_quiet
        # Which mechanism "auto" has chosen tells the end line.
        self._begun = begin_trace(what, command, UNKNOWN if backend == "auto" else backend, time.time())
        self._redactor = own_redactor() if redact else None
        self._streamed = 0
        self._processes: list[TracedProcess] = []
        self._has_begun = False
        try:
            self._file = TraceFileWriter(path, self._say)
        except OSError as error:
            raise CommandFailed(f"cannot write {path}: {error.strerror or error}") from error

    def process(self, process: TracedProcess) -> None:
        """A process began, or more is known of it."""
        self._begin()
        clean = self._clean(process)
        self._processes.append(clean)
        self._file.write(process_line(clean))

    def early(self, event: Event) -> None:
        """An event that comes again, in its final form, when the program has ended."""
        self._begin()
        self._file.write(early_line(self._clean(event)))

    def event(self, event: Event) -> None:
        """An event; each comes once, in order."""
        self._begin()
        self._streamed += 1
        self._file.write(event_line(self._clean(event)))

    def finish(self, run: RunResult, explained: Explained | None) -> SavedTrace:
        """Write what is known at the end only. Returns all of it, redacted if it is to be."""
        trace = end_trace(self._begun, run, explained)
        if self._redactor is not None:
            trace = self._redactor.redact_trace(trace)
        self._begin()
        for process in trace.recording.processes:
            if process not in self._processes:
                self._file.write(process_line(process))
        for event in trace.recording.events[self._streamed :]:
            self._file.write(event_line(event))
        for line in closing_lines(trace):
            self._file.write(line)
        is_whole = self._file.is_open and self._file.is_regular
        self._file.close()
        if is_whole and not self._is_quiet:
            say_written(self._file.path)
        return trace

    def discard(self) -> None:
        """The program did not begin: there is nothing to record."""
        self._file.discard()

    def close(self) -> None:
        """Whatever happened: what was written stays."""
        self._file.close()

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._file.write(header_line(self._clean(self._begun)))

    def _clean(self, value: ValueT) -> ValueT:
        return value if self._redactor is None else self._redactor.redact(value)

    def _say(self, trouble: str) -> None:
        say_error(f"{self._file.path} cannot be written any more: {trouble}; the program runs on, what is there stays")


def own_redactor() -> Redactor:
    """One that knows who runs it, and where: lines are written before all names in them were met."""
    from ..report.redact import Redactor

    variables = ("USER", "USERNAME", "LOGNAME", "SUDO_USER")
    users = [*map(os.environ.get, variables), os.path.basename(os.path.expanduser("~")), *_names_of_user()]
    hosts = [platform.node(), os.environ.get("HOSTNAME"), os.environ.get("COMPUTERNAME"), os.environ.get("USERDOMAIN")]
    return Redactor(tuple(dict.fromkeys(filter(None, users))), tuple(dict.fromkeys(filter(None, hosts))))


def _names_of_user() -> tuple[str, ...]:
    """The name of the user that runs this, and of its owner where that is on record (passwd(5), GECOS)."""
    if sys.platform == "win32":
        return ()
    import pwd

    try:
        user = pwd.getpwuid(os.getuid())
    except KeyError:
        return ()
    return user.pw_name, user.pw_gecos.partition(",")[0]
