"""Reads the lines of a recording file into a saved trace: whole, torn, damaged, or of a later version.

What can be read is read, and `SavedTrace.problems` says what could not. The work and the memory are bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import DlltracerError
from . import tracefile as f
from .codec import DamagedRecording, event_from_plain
from .events import Event
from .failure import Failure, ProcessFacts
from .process import TracedProcess
from .recording import UNKNOWN, Losses, Recording
from .saved import HostFacts, ImageFacts, SavedTrace
from .traceline import Fields, as_object, parse_line, shallow, short

MOST_EVENTS = 1_000_000
MOST_OTHERS = 100_000
"""Of a kind: processes, images. What a file has beyond is counted."""
LONGEST_LINE = 32 << 20
"""In bytes. A longer line is passed over."""

_ENOUGH = 100
"""After so many lines of which none was understood, a file is none of ours."""
_NUMBERS = 3


class NotARecording(DlltracerError, ValueError):
    """A file that is no recording of dlltracer, from its beginning to its end. Attribute: `problem`."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"this is not a recording of dlltracer: {problem}")
        self.problem = problem


def read_lines(lines: Iterable[bytes]) -> SavedTrace:
    """The trace in the lines of a file, ends of lines included. Raises `NotARecording`, and nothing else."""
    reader = TraceReader()
    for line in lines:
        reader.add(line)
    return reader.finish()


def is_recording(head: bytes) -> bool:
    """Whether a file that begins so looks like a recording: a line of JSON that says its type."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b'{"type"')


@dataclass
class _Trouble:
    """Lines with one kind of trouble: how many, the numbers of the first ones, an example."""

    count: int = 0
    numbers: list[int] = field(default_factory=list)
    example: str = ""


class TraceReader:
    """Takes one line after the other."""

    def __init__(self) -> None:
        self._trace = SavedTrace(Recording(UNKNOWN))
        self._events: list[Event] = []
        self._early: list[Event] = []
        self._has_final = False
        self._processes: list[TracedProcess] = []
        self._by_pid: dict[int, int] = {}
        self._images: list[ImageFacts] = []
        self._number = 0
        self._understood = 0
        self._has_header = self._has_end = self._torn = False
        self._announced: int | None = None
        self._troubles: dict[str, _Trouble] = {}
        self._problems: list[str] = []
        self.is_done = False
        """What follows is not of this recording, and not read."""

    def add(self, data: bytes) -> None:
        """A line with its end; one without is the torn end of the file. Raises `NotARecording` when enough was seen."""
        self._number += 1
        if self.is_done or not data.strip():
            return
        torn = not data.endswith(b"\n")
        try:
            self._take(parse_line(data))
        except DamagedRecording as error:
            if torn:
                self._torn = True
            else:
                self._note("could not be read", f"{error.where}: {error.problem}")
        if not self._understood and self._number >= _ENOUGH:
            raise NotARecording(self._first_trouble())

    def skip(self, problem: str) -> None:
        """A line was passed over by whoever reads the file."""
        self._number += 1
        if not self.is_done:
            self._note("were passed over", problem)

    def stop(self, problem: str) -> None:
        """The rest of the file is not read."""
        if not self.is_done:
            self._problems.append(problem)
        self.is_done = True

    def finish(self) -> SavedTrace:
        """The trace, when all lines were added. Raises `NotARecording`."""
        if not self._understood:
            raise NotARecording(self._first_trouble())
        recording = replace(
            self._trace.recording, events=tuple(self._events or self._early), processes=tuple(self._processes)
        )  # fmt: skip
        status = self._trace.status
        if not self._has_end and recording.processes:  # the end line would tell; the first process is the program's
            first = recording.processes[0]
            recording = replace(recording, pid=first.pid if recording.pid is None else recording.pid)
            status = first.status if status is None else status
        if self._early and recording.pid is None:  # no process was told of: nobody was followed
            recording = replace(recording, pid=getattr(self._early[0], "pid", None))
        problems = tuple(dict.fromkeys((*self._trace.problems, *self._describe_problems())))
        return replace(
            self._trace, recording=recording, status=status, images=tuple(self._images), problems=problems
        )  # fmt: skip

    def _take(self, line: dict[str, Any]) -> None:
        kind = line.get("type")
        if not isinstance(kind, str):
            raise DamagedRecording("line", "it does not say its type")
        if kind in f.EVENTS:
            self._take_event(line, kind)
        elif kind == f.EARLY:
            self._take_early(line)
        elif kind == f.HEADER:
            self._take_header(line)
        elif kind in f.TYPED:
            self._take_value(kind, f.trace_codec().from_plain(f.TYPED[kind], line, kind))
        elif kind == f.FAILURE:
            self._take_failure(line)
        elif kind == f.CASE:
            self._trace = replace(self._trace, case=shallow(as_object(line.get("case"), "case")))
        elif kind in (f.END, f.SUMMARY):
            self._take_end(line)
        else:
            self._note("are of a type that this dlltracer does not know", f"the type {short(kind)}")
            return
        self._understood += 1

    def _take_event(self, line: dict[str, Any], kind: str) -> None:
        self._keep_event(self._events, event_from_plain(line, kind))
        self._forget_early()

    def _take_early(self, line: dict[str, Any]) -> None:
        """An event as it was first seen: it counts as long as no final one is there."""
        event = event_from_plain(line.get("event"), f"{f.EARLY}.event")
        if not self._has_final:
            self._keep_event(self._early, event)

    def _forget_early(self) -> None:
        self._has_final = True
        self._early.clear()

    def _keep_event(self, events: list[Event], event: Event) -> None:
        if len(events) < MOST_EVENTS:
            events.append(event)
        else:
            self._note("were passed over", f"this dlltracer keeps {MOST_EVENTS} events")

    def _take_header(self, line: dict[str, Any]) -> None:
        if self._has_header:
            self.stop(f"another recording begins in line {self._number}: it was not read")
            return
        version = line.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise DamagedRecording("recording.version", f"there is no version {short(version)}")
        self._has_header = True
        if version > f.VERSION:
            self._problems.append(
                f"it has format version {version}, and this dlltracer reads up to {f.VERSION}: "
                "what it knows was read; use a newer dlltracer"
            )
        header = Fields(line, f.HEADER)
        host = line.get("host")
        self._trace = replace(
            self._trace,
            recording=replace(
                self._trace.recording, backend=header.text("backend", UNKNOWN), pid=header.number("pid"),
                notes=header.texts("notes"),
            ),
            what=header.text("what"),
            written_by=header.text("dlltracer"),
            started=f.trace_codec().from_plain(float | None, line.get("started"), "recording.started"),
            command=header.texts("command"),
            problems=header.texts("problems"),
            host=None if host is None else f.trace_codec().from_plain(HostFacts, host, "recording.host"),
        )  # fmt: skip

    def _take_value(self, kind: str, value: Any) -> None:
        if kind == f.PROCESS:
            self._take_process(value)
        elif kind == f.IMAGE:
            if len(self._images) < MOST_OTHERS:
                self._images.append(value)
            else:
                self._note("were passed over", f"this dlltracer keeps {MOST_OTHERS} images")
        else:
            name = {f.INTERPRETER: "process", f.VERDICT: "diagnosis"}.get(kind, kind)
            self._trace = replace(self._trace, **{name: value})

    def _take_process(self, process: TracedProcess) -> None:
        """A process, or more about one: the last line counts, until it ended and another one got its number."""
        at = self._by_pid.get(process.pid)
        if at is not None:
            former = self._processes[at]
            has_ended = former.ended is not None or former.status is not None
            if not has_ended or former.started == process.started:
                self._processes[at] = process
                return
        if len(self._processes) < MOST_OTHERS:
            self._by_pid[process.pid] = len(self._processes)
            self._processes.append(process)
        else:
            self._note("were passed over", f"this dlltracer keeps {MOST_OTHERS} processes")

    def _take_failure(self, line: dict[str, Any]) -> None:
        known = self._trace.process
        if "process" not in line:
            if known is None:
                raise DamagedRecording("failure", "it has no process, and no line before tells it")
            stand_in = f.trace_codec().to_plain(known, ProcessFacts)
            line = {**line, "process": stand_in}
        failure = f.trace_codec().from_plain(Failure, line, "failure")
        self._trace = replace(self._trace, failure=failure)

    def _take_end(self, line: dict[str, Any]) -> None:
        """The end line; or the summary of `run --format jsonl`, which has the losses only."""
        end = Fields(line, str(line["type"]))
        recording = self._trace.recording
        losses = line.get("losses")
        self._trace = replace(
            self._trace,
            status=end.number("status"),
            recording=replace(
                recording,
                backend=end.text("backend", recording.backend),
                pid=end.number("pid") if "pid" in line else recording.pid,
                losses=Losses() if losses is None else f.losses_from_plain(losses),
                notes=end.texts("notes") if "notes" in line else recording.notes,
            ),
        )
        self._announced = end.number("events")
        self._has_end = True
        self._forget_early()

    def _note(self, what: str, example: str) -> None:
        trouble = self._troubles.setdefault(what, _Trouble(example=example))
        trouble.count += 1
        if len(trouble.numbers) < _NUMBERS:
            trouble.numbers.append(self._number)

    def _describe_problems(self) -> Iterable[str]:
        yield from self._problems
        if not self._has_header:
            yield "its first line is missing, which says what was run, and where"
        for what, trouble in self._troubles.items():
            more = ", ..." if trouble.count > len(trouble.numbers) else ""
            which = f"{trouble.count} {'line' if trouble.count == 1 else 'lines'} ({_join(trouble.numbers)}{more})"
            verb = what if trouble.count > 1 else what.replace("were", "was", 1).replace("are", "is", 1)
            yield f"{which} {verb}: {trouble.example}"
        if self._torn:
            yield f"its last line ({self._number}) is torn: what it said is lost"
        if not self._has_end and not self.is_done:
            yield "it was cut off: the end line is missing, and whatever came before it"
        if self._early:
            yield "its events are as they were first seen: which unload was a failure, and for which import, is unknown"
        missing = (self._announced or 0) - len(self._events)
        if missing > 0:
            yield f"{missing} of {self._announced} events are missing"

    def _first_trouble(self) -> str:
        for trouble in self._troubles.values():
            return f"line {trouble.numbers[0]}: {trouble.example}"
        return "it is empty" if not self._torn else "it is not made of lines of JSON"


def _join(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
