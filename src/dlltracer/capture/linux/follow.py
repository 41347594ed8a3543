"""Reads the loader logs of a process, and of all processes that it starts, while they grow (LD_DEBUG; `log_folder`).

The loop that waits for the end of the process reads them: nothing is injected, no process is traced or slowed, and its
log outlives a process.
"""

from __future__ import annotations

import os
import resource
import select
import stat as modes
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from ...binary.elf import read_elf
from ...binary.reading import read_kernel_file
from ...errors import BinaryFormatError
from ...model.events import ImageChange, LoadFailedEvent
from ...model.recording import KeptEvents, Losses, Recording, TracedProcess
from ..requests import is_own_load
from .decode import LoaderTextDecoder
from .decoding import examine_failure, is_same_file
from .loaderstate import Change
from .log_file import MASK, OUTPUT, log_path
from .log_folder import LogFolder, LogReader
from .processes import Known, Processes, read_link, read_program_name, read_stat, read_status_field

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")



TICK = 0.02
"""Seconds between two looks at the logs: so late an event may be."""

SWEEP = 1.0
"""Seconds between two looks at the logs of the dead: a child may still write to one that it inherited."""

GRACE = 0.5
"""Seconds that processes may go on which the first one leaves behind. Helpers of multiprocessing end in that time."""

_FULL = "a log could not grow (a full disk, a limit on files): what it lacks is not shown"


class _Log(LogReader):
    """The log of one process, with its decoder."""

    def __init__(self, path: str, pid: int, decoder: LoaderTextDecoder) -> None:
        super().__init__(path, release=True)
        self.pid = pid
        self.decoder = decoder

    def is_full(self) -> bool:
        """Return whether the log's disk is full, or the log has reached the size that files may have (as far as that is
        ours, too)."""
        status = self.status()
        if status is None:
            return False
        file, disk = status
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        return (disk.f_blocks > 0 and disk.f_bavail == 0) or file.st_size >= limit != resource.RLIM_INFINITY

    def last_written(self) -> float | None:
        status = self.status()
        return None if status is None else status[0].st_mtime


class Follower:
    """Reads logs and hands out what is in them.

    Arguments:
        folder: where the logs are written.
        on_event: gets each event, at most about `TICK` after its line was written.
        on_process: gets each process before its first event, and again when more is known of it.
        everyone: also of the processes that the first one starts.
        fresh: the log of the first one begins with its start.
    """

    def __init__(
        self, folder: LogFolder, on_event: Callable[[ImageChange], None], on_process: Callable[[TracedProcess], None],
        *, everyone: bool, fresh: bool,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._prefix = folder.prefix
        self._on_event = on_event
        self._everyone = everyone
        self._fresh = fresh
        self._first = 0
        self._first_name: dict[str, str] = {}
        self._processes = Processes(on_process)
        self._untraced = UntracedProcesses(self._processes, folder.prefix)
        self._logs: dict[int, _Log] = {}
        self._new_files = folder.watch()
        self._swept = 0.0
        self._own = 0
        self._full = False
        self._left: tuple[int, ...] = ()

    def watch(self, child: subprocess.Popen[bytes], command: tuple[str, ...], file: str | None = None) -> int:
        """Wait for the end of a child that was just started, reading meanwhile; its status as of `Popen.wait`.

        Arguments: `command`, its command line as the user wrote it; `file`, the path of that program.
        """
        self._first = child.pid
        # It may have ended before its log is found: what was started is then what it was.
        self._first_name = {command[0]: os.path.realpath(file)} if file is not None else {}
        self._processes.begin(child.pid, command, given=int(self._fresh), file=file)
        while child.poll() is None:
            self._tick()
        self._finish(self._processes.get(child.pid), child.returncode)
        deadline = time.monotonic() + GRACE
        while self._others() and time.monotonic() < deadline:
            self._tick()
        self._conclude()
        return child.returncode

    def recording(self, backend: str, events: KeptEvents, notes: tuple[str, ...] = ()) -> Recording:
        """The run as one value; `events` as they were handed out."""
        logs = self._logs.values()
        undecodable = sum(log.decoder.undecodable for log in logs)
        foreign = sum(log.decoder.foreign for log in logs)
        if foreign:
            notes += (f"{foreign} lines were written by child processes made by fork and are not shown",)
        if self._own:
            notes += (f"{self._own} events of modules that dlltracer itself imported are left out",)
        notes += (_FULL,) * self._full
        refused = sum(log.refused for log in logs)
        if refused:
            notes += (f"{refused} files among the logs were not made by this run, and are not read",)
        notes += (*self._deaths(), *self._untraced.notes(), *self._left_behind())
        processes = tuple(known.process for known in self._processes if self._is_wanted(known.process.pid))
        losses = Losses(events=events.dropped, undecodable=undecodable)
        return Recording(backend, events.take(), self._first, losses, notes + events.notes(), processes)

    @property
    def left(self) -> tuple[int, ...]:
        """Process ids of those that still ran when the reading ended: what they start writes to the same folder."""
        return self._left

    def _is_wanted(self, pid: int) -> bool:
        return self._everyone or pid == self._first

    def _wait(self) -> set[int]:
        """Sleep until there is something to do, or for a tick; returns the descriptors that are readable."""
        poller = select.poll()
        if self._new_files.descriptor is not None:
            poller.register(self._new_files.descriptor, select.POLLIN)
        for known in self._processes:
            if known.descriptor is not None:
                poller.register(known.descriptor, select.POLLIN)
        return {descriptor for descriptor, _ in poller.poll(TICK * 1000)}

    def _tick(self) -> None:
        ready = self._wait()
        now = time.monotonic()
        sweep = now - self._swept >= SWEEP
        if sweep:
            self._swept = now
        self._folder.reserve()
        self._discover()
        for log in tuple(self._logs.values()):
            known = self._processes.get(log.pid)
            if sweep or known.alive:
                self._read(log)
        if self._everyone:
            self._untraced.look(now)
        for known in self._processes:
            if known.alive and known.process.pid != self._first and _has_ended(known, ready):
                self._finish(known, None)

    def _discover(self) -> None:
        names = self._new_files.drain()
        for pid in self._pids(self._names() if names is None else names):
            if pid not in self._logs:
                self._open(pid)

    def _names(self) -> list[str]:
        return self._folder.written()

    def _pids(self, names: list[str]) -> list[int]:
        """The processes whose logs have these names."""
        head = os.path.basename(self._prefix) + "."
        numbers = [name.removeprefix(head) for name in names if name.startswith(head)]
        return [int(number) for number in numbers if number.isdecimal()]

    def _open(self, pid: int) -> None:
        if not self._is_wanted(pid):
            return
        is_fresh = self._fresh or pid != self._first
        decoder = LoaderTextDecoder(
            pid, others=self._everyone, fresh=is_fresh, on_start=self._processes.start,
            names={} if is_fresh else read_program_name(pid) or self._first_name,
        )  # fmt: skip
        log = self._logs[pid] = _Log(log_path(self._prefix, pid), pid, decoder)
        known = self._known(pid, log)
        self._read(log)
        if not known.alive:
            self._emit(decoder.finish(self._went_on(known, log), pid), log)

    def _known(self, pid: int, log: _Log) -> Known:
        """The process that wrote into this log."""
        last = None if pid in self._processes else log.last_written()
        known = self._processes.add(pid, last=last, like=log.pid)
        known.log = True
        return known

    def _read(self, log: _Log) -> None:
        while data := log.read():
            changes = log.decoder.feed(data, time.time())
            for pid in log.decoder.pids:
                if pid not in self._processes:
                    self._known(pid, log)
            self._emit(changes, log)

    def _emit(self, changes: list[Change], log: _Log) -> None:
        for event, doubt in changes:
            pid = log.pid if event.pid is None else event.pid
            known = self._known(pid, log)
            if is_own_load(event):
                self._own += 1  # a trace inside the program ends, or its exception is described
                continue
            if isinstance(event, LoadFailedEvent) and known.same_files:
                self._processes.look(known)
                if doubt is not None and is_same_file(event, doubt, folder=known.folder):
                    continue
                program = known.program or "/proc/self/exe"
                event = examine_failure(event, program=program, folder=known.folder)  # noqa: PLW2901
            self._on_event(event)

    def _finish(self, known: Known, status: int | None) -> None:
        """Read the rest of the logs of a process that has ended, and conclude."""
        self._discover()
        pid = known.process.pid
        logs = [one for one in self._logs.values() if one.pid == pid or pid in one.decoder.pids]
        for log in logs:
            self._read(log)
        self._processes.end(known, status)
        for log in logs:
            self._emit(log.decoder.finish(self._went_on(known, log), pid), log)

    def _went_on(self, known: Known, log: _Log) -> bool | None:
        """Return whether a process that has ended went on behind the last line that is there, as of
        `LoaderState.finish`."""
        self._full = self._full or log.is_full()
        status = known.process.status
        return False if log.is_full() else None if status is None else status >= 0

    def _others(self) -> list[int]:
        """The processes still running whose loaders write here, whether they are shown or not."""
        unseen = [pid for pid in self._pids(self._names()) if pid not in self._processes]
        running = {pid for pid in unseen if self._processes.is_running(pid)}
        return sorted(running | {one.process.pid for one in self._processes if one.alive})

    def _conclude(self) -> None:
        self._left = tuple(self._others())
        self._discover()
        for log in tuple(self._logs.values()):
            self._read(log)
            for pid in log.decoder.pids:
                if self._processes.get(pid).alive:
                    self._emit(log.decoder.finish(False, pid), log)
        self._untraced.expect(self._processes.get(self._first))
        self._processes.close()
        self._new_files.close()

    def _deaths(self) -> list[str]:
        """Notes on processes that were killed inside, or behind, an initialiser."""
        found = []
        for log in self._logs.values():
            for pid in log.decoder.pids:
                status = self._processes.get(pid).process.status if pid in self._processes else None
                image = log.decoder.initialising(pid)
                if image and status is not None and status < 0:
                    found.append(f"process {pid} ended while or after the initialiser of {image} ran")
        return found

    def _left_behind(self) -> list[str]:
        if not self._left:
            return []
        shown = ", ".join(map(str, self._left[:8])) + (", ..." if len(self._left) > 8 else "")
        folder = os.path.dirname(self._prefix)
        return [
            f"still running when the first process had ended: {shown}. What they load from then on is not shown; their "
            f"loaders go on writing to {folder}, which is left for them"
        ]


def _has_ended(known: Known, ready: set[int]) -> bool:
    if known.descriptor is not None:
        return known.descriptor in ready
    stat = read_stat(known.process.pid)
    return stat is None or stat.is_zombie


if sys.platform != "linux":
    raise ImportError("this module is only for Linux")


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
        if f"{OUTPUT}={self._prefix}" in read_kernel_file(f"/proc/{pid}/environ").split("\0"):
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
        if path in links or not read_kernel_file(f"/proc/{pid}/cmdline"):
            self._closed.pop(pid, None)
        else:
            self._closed[pid] = pid in self._closed


def why_untraced(program: str) -> str | None:
    """Return why the loader of a program writes no log; `None` if it should write one."""
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
