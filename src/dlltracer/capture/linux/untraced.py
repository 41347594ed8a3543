"""Processes of a followed run that write no log, or stop to, and why. They are looked for now and then: a process that
ends between two looks is not noticed."""

from __future__ import annotations

import os
import stat as modes
import sys
import time
from dataclasses import dataclass

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from ...binary.elf import read_elf
from ...errors import BinaryFormatError
from .log_file import MASK, OUTPUT, log_path
from .processes import Known, Processes, read_link, read_stat, read_status_field, read_text

INTERVAL = 0.1
"""Seconds between two looks, at least."""

_SHARE = 20
"""A look may take the twentieth part of the time; on a machine with many processes they become rarer."""

_SHOWN = 6


@dataclass
class UntracedProcess:
    """A descendant without a log: the program and the command of its parent, and why it has none, if that is known."""

    known: Known
    parent: tuple[str | None, tuple[str, ...] | None]
    why: str | None = None


class UntracedProcesses:
    """Finds processes without a log in /proc.

    Arguments: the processes known, which it adds to; the `prefix` of the logs.
    """

    def __init__(self, processes: Processes, prefix: str) -> None:
        self._processes = processes
        self._prefix = prefix
        self._seen: set[int] = set()
        self._untraced: dict[int, UntracedProcess] = {}
        self._closed: dict[int, bool] = {}
        self._next = 0.0

    def look(self, now: float) -> None:
        """Look, if it is time to; `now` of time.monotonic()."""
        if now >= self._next:
            self.look_now()
            self._next = now + max(INTERVAL, _SHARE * (time.monotonic() - now))

    def look_now(self) -> None:
        """Find new descendants, look again at those without a log, and for logs that were closed."""
        running = {int(name) for name in os.listdir("/proc") if name.isdecimal()}
        # In the order of their numbers, a parent mostly comes before its children.
        for pid in sorted(running - self._seen):
            found = read_stat(pid)
            if found is None or found.is_zombie:
                continue  # if it has loaded anything, its log is the better witness
            if pid not in self._processes and found.parent in self._processes:
                parent = self._processes.get(found.parent)
                same = parent.program, parent.process.command
                self._untraced[pid] = UntracedProcess(self._processes.add(pid), same)
        self._seen = running
        for untraced in self._untraced.values():
            if untraced.known.alive and not untraced.known.log:
                self._judge(untraced)
        for known in self._processes:
            if known.alive and known.log and self._closed.get(known.process.pid) is not True:
                self._check_descriptor(known)

    def expect(self, known: Known) -> None:
        """Note the reason if a process has no log that must have written one, if it could."""
        if not known.log and known.program is not None:
            self._untraced[known.process.pid] = UntracedProcess(known, (None, None), why_untraced(known.program))

    def notes(self) -> tuple[str, ...]:
        """Notes for the recording: processes without a log, and logs that were closed."""
        by_reason: dict[str, list[Known]] = {}
        for untraced in self._untraced.values():
            if untraced.why is not None and not untraced.known.log:
                by_reason.setdefault(untraced.why, []).append(untraced.known)
        found = [f"no loader log from {_spelled(members)}: {why}" for why, members in by_reason.items()]
        closed = [self._processes.get(pid) for pid, is_closed in self._closed.items() if is_closed]
        if closed:
            found.append(
                f"the descriptor of the loader's log was closed by {_spelled(closed)}: what was loaded after that "
                "is not shown, and the loader's lines may stand in a file opened in its place"
            )
        return tuple(found)

    def _judge(self, untraced: UntracedProcess) -> None:
        known = untraced.known
        pid = known.process.pid
        self._processes.refresh(known)
        if (known.program, known.process.command) == untraced.parent:
            untraced.why = None  # made by fork, and has loaded nothing since
            return
        untraced.why = None if known.program is None else why_untraced(known.program)
        if untraced.why is not None:
            return
        user = read_status_field(pid, "Uid").split()[1:2]
        if f"{OUTPUT}={self._prefix}" in read_text(f"/proc/{pid}/environ").split("\0"):
            if user and user[0] not in (str(os.geteuid()), "0"):
                untraced.why = "it runs as another user, who could open no log: its standard output got the lines"
            return
        found = read_stat(pid)
        if found is not None and not found.is_zombie and os.access(f"/proc/{pid}/environ", os.R_OK):
            untraced.why = f"{MASK} and {OUTPUT} were taken out of its environment, or changed"

    def _check_descriptor(self, known: Known) -> None:
        """Note a log that is closed at two looks in a row: between execve and ld.so it is too."""
        pid = known.process.pid
        path = log_path(self._prefix, pid)
        try:
            if not os.stat(path).st_size:
                return  # made beforehand (`log_folder`): it writes to the log of its parent
        except OSError:
            return
        try:
            links = [read_link(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            return
        if path in links or not read_text(f"/proc/{pid}/cmdline"):
            self._closed.pop(pid, None)
        else:
            self._closed[pid] = pid in self._closed


def why_untraced(program: str) -> str | None:
    """Why the loader of a program writes no log; `None` if it should write one."""
    try:
        mode = os.stat(program).st_mode
        image = read_elf(program)
    except (OSError, BinaryFormatError):
        return None
    if image.interpreter is None:
        return "a static program, without a loader"
    if mode & modes.S_ISUID or (mode & modes.S_ISGID and mode & modes.S_IXGRP):
        return "it runs with the rights of another user (setuid, setgid), where the loader does not listen to LD_DEBUG"
    name = os.path.basename(image.interpreter)
    if name.startswith("ld-musl"):
        return "its loader is musl's, which writes no log"
    if not name.startswith(("ld-linux", "ld64.so", "ld.so")):
        return f"its loader is {image.interpreter}, not glibc's"
    return None


def _spelled(members: list[Known]) -> str:
    names = [f"process {one.process.pid} ({one.process.program or 'its program is not known'})" for one in members]
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
