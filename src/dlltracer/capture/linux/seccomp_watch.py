"""Joins the stops of all watched processes of a run with what /proc shows of them."""

from __future__ import annotations

import os
import sys
from collections import deque

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from collections.abc import Callable

from ...binary.elf import read_elf
from ...binary.reading import read_kernel_file
from ...errors import BinaryFormatError
from ...model.elf import ElfImage
from ...model.events import ImageChange, LoadEvent, LoadFailedEvent
from ...model.light import dataclass, replace
from ...model.recording import KeptEvents, Losses, Recording, TracedProcess
from ...model.request import Request
from ..marks import OWN_BEGIN, OWN_END
from ..requests import is_own_load
from .decoding import examine_failure
from .processes import Processes, read_command, read_status_field
from .seccomp_decode import (
    ExecStop,
    Identity,
    MapStop,
    MarkStop,
    OpenStop,
    ProcessDecoder,
    Stop,
    UnreadMapStop,
    WatchedProgram,
)
from .seccomp_lookup import read_link
from .seccomp_stops import StopReader, TracedTask

NAME = "seccomp"

CANNOT_SEE = (
    "watched from outside by its system calls: whether a file is there was looked at when it was opened; which image "
    "called dlopen, and what was unloaded when, is not seen"
)

_MOST_DECODERS = 4096
_MOST_ENVIRONMENT = 1 << 20


@dataclass(frozen=True)
class _Begin:
    """A process that has appeared (`program` is `None`), or become another program."""

    pid: int
    parent: int
    program: WatchedProgram | None = None
    load: LoadEvent | None = None
    image: ElfImage | None = None
    identity: Identity | None = None


@dataclass(frozen=True)
class _End:
    pid: int
    status: int | None


class LoaderWatch:
    """Makes events of the system calls of a run.

    Arguments:
        on_event: gets each event.
        on_process: gets each process before its first event, and again when more is known of it.
        explain: puts the rules of the loader to the places of an event.
        everyone: also of the processes that the first one starts.
        marked: the first process hands over marks, and what is before the first of them is not its program's doing.
        passed: of the filter (`seccomp_filter.make_program`).
    """

    def __init__(
        self, on_event: Callable[[ImageChange], None], on_process: Callable[[TracedProcess], None],
        explain: Callable[[ImageChange, WatchedProgram], ImageChange], *, everyone: bool, startup: bool, marked: bool,
        passed: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        self._on_event = on_event
        self._explain = explain
        self._everyone = everyone
        self._startup = startup
        self._marked = marked
        self._first = 0
        self._processes = Processes(on_process)
        self._decoders: dict[int, ProcessDecoder] = {}
        self._programs: dict[int, WatchedProgram] = {}
        self._privileged: dict[str, str] = {}
        self._own = 0
        self._forgotten = 0
        self._waiting: deque[Stop | _Begin | _End] = deque()
        self.reader = StopReader(self._note_start, self.add, passed)
        self._passed_over: dict[str, None] = {}
        self._takes_rights = False

    def begin(self, pid: int, command: tuple[str, ...], file: str | None) -> None:
        """The first process has started: it is still the one that puts the filter on.

        Arguments: `command`, its command line as the user wrote it; `file`, the path of that program.
        """
        self._first = pid
        self._takes_rights = [read_status_field(one, "NoNewPrivs") for one in (os.getpid(), pid)] == ["0", "1"]
        self._processes.begin(pid, command, given=1, file=file)

    def add(self, stop: Stop) -> None:
        """Take in a stop; what it means is worked out by `work`, when there is time."""
        self._waiting.append(stop)

    @property
    def has_work(self) -> bool:
        """True if stops wait that were taken in."""
        return bool(self._waiting)

    def work(self, most: int = 1) -> None:
        """Work out what the oldest stops mean, and no more of them than `most`."""
        for _ in range(min(most, len(self._waiting))):
            item = self._waiting.popleft()
            if isinstance(item, _Begin):
                self._start(item)
            elif isinstance(item, _End):
                self.end(item.pid, item.status)
            else:
                self._handle(item)

    def note_end(self, pid: int, status: int | None = None) -> None:
        """A process has ended; `status` as of `Popen`, `None` where that is to be found out."""
        self.reader.end(pid)
        self._waiting.append(_End(pid, status))

    def _handle(self, stop: Stop) -> None:
        if isinstance(stop, ExecStop):
            self._note_exec(stop)
        if not self._is_wanted(stop.pid):
            return
        decoder = self._decoders.get(stop.pid)
        if decoder is None:
            return
        if isinstance(stop, OpenStop):
            decoder.open(stop)
        elif isinstance(stop, MapStop):
            decoder.map(stop)
        elif isinstance(stop, UnreadMapStop):
            decoder.map_unread(stop)
        elif isinstance(stop, MarkStop):
            self._mark(decoder, stop)
        self._emit(decoder)

    def finish(self, pid: int, status: int | None) -> None:
        """The first process has ended, and nothing more is watched: conclude."""
        while self.has_work:
            self.work()
        self.end(pid, status)

    def end(self, pid: int, status: int | None = None) -> None:
        """A process has ended; `status` as of `Popen`, `None` where that is to be found out."""
        self.reader.end(pid)
        if pid in self._processes:
            known = self._processes.get(pid)
            if known.alive:
                self._processes.end(known, status)
            status = known.process.status
        decoder = self._decoders.pop(pid, None)
        if decoder is not None:
            decoder.finish(ended=status is None or status >= 0)
            self._emit(decoder)
        self._programs.pop(pid, None)

    def others(self) -> tuple[int, ...]:
        """The processes that still run, as far as one of their calls has stopped, but for the first one."""
        return tuple(
            known.process.pid for known in self._processes if known.alive and known.process.pid != self._first
        )  # fmt: skip

    def recording(self, kept: KeptEvents, notes: tuple[str, ...]) -> Recording:
        """The run as one value; `kept` are the events as they were handed out."""
        for pid in tuple(self._decoders):
            if pid != self._first:
                self._decoders[pid].finish(ended=False)
        unsure = sum(decoder.unsure for decoder in self._decoders.values()) + self._forgotten
        notes = (*notes, CANNOT_SEE)
        if self.reader.unreadable:
            notes += (
                f"{self.reader.unreadable} system calls could not be looked at (their process may not be read, or the "
                "memory was not there): what they opened is not shown, what they mapped is taken for the file opened "
                "before",
            )  # fmt: skip
        if self.reader.changed:
            shown = ", ".join(sorted(self.reader.changed)[:4])
            notes += (
                f"{len(self.reader.changed)} files changed before dlltracer had read what they need ({shown}): what was"
                " loaded for them is not shown as theirs",
            )  # fmt: skip
        if unsure:
            notes += (
                f"{unsure} files named like libraries were opened and not mapped, by whom is not known (the loader and "
                "the C library are one image): they are not shown as failures",
            )  # fmt: skip
        notes += tuple(
            f"{path}: its loader is not this system's, and may open files where the filter takes an open for the "
            "program's own: libraries that it looked for may be missing here"
            for path in self._passed_over
        )  # fmt: skip
        if self._own:
            notes += (f"{self._own} events of modules that dlltracer itself imported are left out",)
        if self._takes_rights:
            notes += tuple(
                f"{path} ({why}) ran without the rights of its owner: the filter needs no_new_privs, which takes them"
                for path, why in self._privileged.items()
            )  # fmt: skip
        processes = tuple(known.process for known in self._processes if self._is_wanted(known.process.pid))
        losses = Losses(events=kept.dropped, undecodable=self.reader.unreadable)
        is_one = not self._everyone
        return Recording(NAME, kept.take(), self._first, losses, notes + kept.notes(), () if is_one else processes)

    def close(self) -> None:
        """Let go of the processes that still run."""
        self._processes.close()
        self.reader.close()

    def _is_wanted(self, pid: int) -> bool:
        return self._everyone or pid == self._first

    def _note_start(self, task: TracedTask) -> None:
        """A process has appeared, or become another program: keep what is known of it now."""
        pid = task.pid
        if not self._is_wanted(pid):
            return
        if task.is_passed_over and len(self._passed_over) < 16:
            self._passed_over[read_link(f"/proc/{pid}/exe") or f"process {pid}"] = None
        if pid not in self._processes:
            self._processes.add(pid, like=task.parent)
        if task.generation == 1:
            self._waiting.append(_Begin(pid, task.parent))
            return
        command = read_command(pid)
        load = self._processes.start(pid, command[0] if command else "")
        image, identity = _read_program(pid)
        self._waiting.append(_Begin(pid, task.parent, self._look(task), load, image, identity))

    def _start(self, begin: _Begin) -> None:
        pid = begin.pid
        if begin.program is None:
            self._decoders[pid] = ProcessDecoder(pid, is_shown=pid != self._first)
            if pid != self._first:
                self._inherit(pid, begin.parent)
            return
        decoder = self._decoders.setdefault(pid, ProcessDecoder(pid))
        self._programs[pid] = begin.program
        decoder.set_own(pid == self._first and self._marked and not self._startup)
        preload = tuple(dict(begin.program.environment).get("LD_PRELOAD", "").replace(":", " ").split())
        decoder.start(pid, begin.load, begin.image, begin.identity, preload)
        self._emit(decoder)

    def _inherit(self, pid: int, parent: int) -> None:
        """A process made by fork has what its parent has."""
        if len(self._decoders) >= _MOST_DECODERS:
            self._drop_oldest()
        if parent in self._decoders:
            self._decoders[pid] = self._decoders[parent].forked(pid)
        if parent in self._programs:
            self._programs[pid] = replace(self._programs[parent], pid=pid)

    def _drop_oldest(self) -> None:
        pid = next(iter(self._decoders))
        self._forgotten += self._decoders.pop(pid).unsure
        self._programs.pop(pid, None)

    def _look(self, task: TracedTask) -> WatchedProgram:
        place = f"/proc/{task.pid}"
        pairs = (line.partition("=") for line in read_kernel_file(f"{place}/environ")[:_MOST_ENVIRONMENT].split("\0"))
        environment = tuple((name, value) for name, is_pair, value in pairs if is_pair)
        return WatchedProgram(
            task.pid, read_link(f"{place}/exe"), environment, read_link(f"{place}/cwd") or "/", task.same_files
        )  # fmt: skip

    def _mark(self, decoder: ProcessDecoder, stop: MarkStop) -> None:
        for mark in stop.marks:
            if isinstance(mark, Request):
                decoder.ask(mark, stop.tid)
            elif mark in (OWN_BEGIN, OWN_END):
                if mark == OWN_BEGIN:
                    self._compare(decoder, stop.maps)
                decoder.set_own(mark == OWN_BEGIN)

    def _compare(self, decoder: ProcessDecoder, maps: str) -> None:
        """Tell what has been unloaded since it was loaded, by what is mapped."""
        mapped = {line[line.index(" /") + 1 :].removesuffix(" (deleted)") for line in maps.split("\n") if " /" in line}
        if mapped:
            decoder.settle()
            decoder.compare(mapped)

    def _note_exec(self, stop: ExecStop) -> None:
        if stop.privileged is not None and len(self._privileged) < 16:
            self._privileged.setdefault(stop.path, stop.privileged)

    def _emit(self, decoder: ProcessDecoder) -> None:
        for event in decoder.take():
            if is_own_load(event):
                self._own += 1
                continue
            program = self._programs.get(decoder.pid)
            if program is not None:
                event = self._completed(event, program)  # noqa: PLW2901
            self._on_event(event)

    def _completed(self, event: ImageChange, program: WatchedProgram) -> ImageChange:
        if isinstance(event, LoadFailedEvent) and program.same_files:
            event = examine_failure(event, program=program.program or "/proc/self/exe", folder=program.folder)
        return self._explain(event, program)


def _read_program(pid: int) -> tuple[ElfImage | None, Identity | None]:
    """Return the image of a process's program, and the identity of its file."""
    path = f"/proc/{pid}/exe"
    try:
        status = os.stat(path)
        return read_elf(path), (status.st_dev, status.st_ino)
    except (OSError, BinaryFormatError):
        return None, None
