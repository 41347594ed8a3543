"""Shows that a command works: a bar or a spinner on a terminal, gone when the work is done."""

from __future__ import annotations

import contextlib
import os
import sys
from _thread import allocate_lock

from ..model.screen import escape, is_terminal
from .output import encodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from rich.progress import Progress as Bar

DELAY = 0.5
"""Seconds before anything appears: what is over by then needs no sign."""

_LONGEST = 48
"""Characters of what is done."""


class Progress:
    """Receives the state of a command's work. All methods may be called whether or not anything is shown.

    Arguments: `what`, what is being done, in words; `total`, of how many steps, `None` where that is not known.
    """

    def __init__(self, what: str, total: int | None) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._bar: Bar | None = None
        self._lock = allocate_lock()
        self._over = False

    def advance(self, steps: int = 1) -> None:
        """So many more of the total are done."""
        self._done += steps
        self._update()

    def say(self, what: str) -> None:
        """Show what is being done now."""
        self._what = what
        self._update()

    def _update(self) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, description=_shown(self._what))

    def _show(self, stream: TextIO) -> None:
        """Runs in the timer's thread, or not at all."""
        bar = _make_bar(stream, counted=self._total is not None)
        with self._lock:
            if self._over:
                return
            bar.add_task(_shown(self._what), total=self._total, completed=self._done)
            bar.start()
            self._bar = bar

    def _hide(self) -> None:
        with self._lock:
            self._over = True
            bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()


@contextlib.contextmanager
def progress(
    what: str, total: int | None = None, *, stream: TextIO | None = None, delay: float = DELAY
) -> Iterator[Progress]:
    """Show a bar, or without a `total` a spinner, while the block runs; nothing if stderr is no terminal.

    Arguments:
        what: what is done, in a few words ("reading trace.etl").
        total: how many steps there will be: bytes, files.
        stream: where to show it; `None` for stderr.
        delay: seconds before it appears.
    """
    shown = Progress(what, total)
    where = stream if stream is not None else sys.stderr
    if not is_lively(where, dict(os.environ)):
        yield shown
        return
    import threading

    timer = threading.Timer(delay, shown._show, (where,))
    timer.daemon = True
    try:
        timer.start()
    except RuntimeError:  # no thread can be started: the work is done without a bar
        yield shown
        return
    try:
        yield shown
    finally:
        timer.cancel()
        shown._hide()
        timer.join()


def is_lively(stream: object, environment: dict[str, str]) -> bool:
    """Return whether lines can be drawn and taken back: a terminal, and not one that calls itself dumb."""
    return is_terminal(stream) and environment.get("TERM") != "dumb"


def _make_bar(stream: TextIO, *, counted: bool) -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    spinner = SpinnerColumn("dots" if encodes("⠋", getattr(stream, "encoding", None)) else "line")
    columns: list[ProgressColumn] = [spinner, TextColumn("{task.description}", markup=False)]
    columns += [BarColumn(), TextColumn("{task.percentage:>3.0f}%")] if counted else [TimeElapsedColumn()]
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    return Bar(*columns, console=console, transient=True)


def _shown(text: str) -> str:
    """The text for one row, which has more to show: of a long path the end tells most."""
    shown = escape(text)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST // 3]}...{shown[3 - _LONGEST * 2 // 3 :]}"
