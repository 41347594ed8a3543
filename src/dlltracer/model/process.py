"""A process that a trace followed: who started it, what it was told to do, how it ended."""

from __future__ import annotations

from dataclasses import dataclass

from .crash import Crash


@dataclass(frozen=True)
class TracedProcess:
    """One process of a trace. A field is `None` where the mechanism cannot know it.

    Attributes:
        pid: its process id; events of it carry the same.
        parent: process id of the one that started it.
        command: its command line, a word each.
        program: path of the file that it runs.
        started, ended: seconds since the epoch.
        status: how it ended, as of `subprocess.Popen`: negative for a signal; on Windows 32 bits without a sign.
        crash: where it crashed, if it did and somebody watched.
    """

    pid: int
    parent: int | None = None
    command: tuple[str, ...] | None = None
    program: str | None = None
    started: float | None = None
    ended: float | None = None
    status: int | None = None
    crash: Crash | None = None
