"""Shows the loads of a running program as they happen: a few lines at the foot of the terminal, gone at the end.

Gets its events as a sink (cli/spawn.py); draws on stderr, where it is a terminal that can take lines back.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import TextIO

from ..model.events import DebugEvent, Event, LoadEvent, LoadFailedEvent, UnloadEvent
from ..model.recording import TracedProcess
from ..model.screen import escape
from ..report.drawing import BOLD, DIM, FAILED, PLAIN, Line, file_name, number
from .progress import is_lively

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from .spawn import Sink


LOADS = 5
FAILURES = 3
"""How many of the last ones are shown."""

PER_SECOND = 8
"""Drawings."""


class LiveState:
    """The facts so far: counts, the last loads, the last failures. Knows no terminal."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._loads: deque[LoadEvent] = deque(maxlen=LOADS)
        self._failures: deque[LoadFailedEvent] = deque(maxlen=FAILURES)
        self._processes: dict[int, TracedProcess] = {}

    def process(self, process: TracedProcess) -> None:
        """A process, or what more is known of one."""
        self._processes[process.pid] = process

    def event(self, event: Event) -> None:
        """Count an event, and keep it among the last ones."""
        if isinstance(event, LoadEvent):
            self._counts["loaded"] += 1
            self._loads.append(event)
        elif isinstance(event, LoadFailedEvent):
            self._counts["failed"] += 1
            self._failures.append(event)
        elif isinstance(event, UnloadEvent):
            self._counts["unloaded"] += 1
        elif isinstance(event, DebugEvent):
            self._counts["raw"] += 1

    def lines(self, seconds: float) -> list[Line]:
        """The lines to draw, `seconds` after the start."""
        counts = self._counts
        summary = f"{number(counts['loaded'], 'load')}, {counts['failed']} failed"
        if counts["unloaded"]:
            summary += f", {counts['unloaded']} unloaded"
        if counts["raw"]:
            summary += f", {number(counts['raw'], 'raw event')}"
        ended = sum(process.ended is not None or process.status is not None for process in self._processes.values())
        if len(self._processes) > 1:
            summary += f"; {len(self._processes)} processes, {ended} of them ended"
        time_line = f"  {int(seconds) // 60}:{int(seconds) % 60:02}"
        rows: list[Line] = [((summary, FAILED if counts["failed"] else BOLD), (time_line, DIM))]
        for load in self._loads:
            imports = f"  for import {load.imports[-1]}" if load.imports else ""
            rows.append((("  ", PLAIN), (file_name(load.shown_path), PLAIN), (f"  {load.shown_path}{imports}", DIM)))
        for failure in self._failures:
            kind = failure.kind.value if failure.kind is not None else "failed"
            why = f": {failure.reason}" if failure.reason else ""
            rows.append((("  ", PLAIN), (f"{failure.need or failure.shown_path}  {kind}{why}", FAILED)))
        return rows


class LiveView:
    """A sink that draws. On a stream that is no terminal, or a dumb one, it does nothing.

    The first call starts the drawing, in a thread of this process: the program has been started by then, and runs in
    one of its own.

    Arguments: `stream`, where to draw (stderr); `clock`, seconds that only go forward; `behind`, another sink, which
    gets everything first.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic, behind: Sink | None = None
    ) -> None:
        self._behind = behind
        where = stream if stream is not None else sys.stderr
        self._state = LiveState()
        self._lock = threading.Lock()
        self._clock = clock
        self._start = clock()
        self._stream = where if is_lively(where, dict(os.environ)) else None
        self._live: Live | None = None
        self._was_early = False

    def process(self, process: TracedProcess) -> None:
        """A process began, or more is known of it."""
        if self._behind is not None:
            self._behind.process(process)
        with self._lock:
            self._state.process(process)
        self._begin()

    def early(self, event: Event) -> None:
        """Show an event now. It comes again, in its final form, when the run has ended."""
        if self._behind is not None:
            self._behind.early(event)
        self._was_early = True
        self._show(event)

    def event(self, event: Event) -> None:
        """Show an event, unless `early` has shown it."""
        if self._behind is not None:
            self._behind.event(event)
        if not self._was_early:
            self._show(event)

    def finish(self) -> None:
        """Take the lines away again; the report follows. May be called twice, and before anything came."""
        self._stream = None
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _show(self, event: Event) -> None:
        with self._lock:
            self._state.event(event)
        self._begin()

    def _begin(self) -> None:
        if self._live is None and self._stream is not None:
            self._live = _start(self._stream, self._render)

    def _render(self) -> Text:
        with self._lock:
            return _text(self._state.lines(self._clock() - self._start))


def _start(stream: TextIO, render: Callable[[], Text]) -> Live:
    from rich.console import Console
    from rich.live import Live

    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    live = Live(
        console=console, get_renderable=render, refresh_per_second=PER_SECOND, transient=True, redirect_stdout=False,
        redirect_stderr=False,
    )  # fmt: skip
    live.start(refresh=True)
    return live


def _text(lines: list[Line]) -> Text:
    """The lines as styled text; what is wider than the terminal is cut, or lines could not be taken back."""
    from rich.text import Text

    text = Text(no_wrap=True, overflow="crop")
    for place, line in enumerate(lines):
        text.append("\n" if place else "")
        for piece, style in line:
            text.append(escape(piece), style)
    return text
