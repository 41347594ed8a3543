"""Reads the lines of a recording file into a saved trace: whole, torn, damaged, or of a later version.

What can be read is read, and `SavedTrace.problems` says what could not. The work and the memory are bounded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from ..errors import DlltracerError
from .decode import DamagedRecording, decode, short
from .events import DebugEvent, Event, LoadEvent, LoadFailedEvent, UnloadEvent
from .failure import Crash, ProcessFacts
from .finding import Diagnosis
from .recording import UNKNOWN, Losses, Recording, TracedProcess
from .run import ImageFacts, SavedTrace, SearchPlaces, SelfTestStep
from .tracefile import CASE, LINES, VERSION, EarlyLine, EndLine, FailureLine, HeaderLine

MOST_EVENTS = 1_000_000
MOST_OTHERS = 100_000
"""Processes that are kept, and images. What a file has beyond these is counted."""
LONGEST_LINE = 32 << 20
"""In bytes. A longer line is passed over."""

MOST_TROUBLES = 20_000
"""Lines that could not be read. Behind these the rest of a file is not read: each costs as much as a good one."""
_ENOUGH = 100
"""After so many lines of which none was understood, a file is not a recording."""
_NUMBERS = 3
_DEEPEST = 60
_MOST_DIGITS = 400
_FIELDS: Mapping[type, str] = {SearchPlaces: "places", Diagnosis: "diagnosis"}
"""Where in a saved trace the value of a line belongs."""

ValueT = TypeVar("ValueT")


class NotARecording(DlltracerError, ValueError):
    """The file is not a recording of dlltracer. Attribute: `problem`."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"this is not a recording of dlltracer: {problem}")
        self.problem = problem


def is_recording(head: bytes) -> bool:
    """Return whether a file with these first bytes looks like a recording: a line of JSON that names its type."""
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
        self._steps: list[SelfTestStep] = []
        self._number = 0
        self._understood = 0
        self._has_header = self._has_end = self._torn = False
        self._announced: int | None = None
        self._troubles: dict[str, _Trouble] = {}
        self._trouble_count = 0
        self._problems: list[str] = []
        self.is_done = False
        """What follows is not of this recording, and not read."""

    def add(self, data: bytes) -> None:
        """Take a line with its end; a line without one is the torn end of the file. Raises `NotARecording`."""
        self._number += 1
        if self.is_done:
            return
        if not self._understood and self._number > _ENOUGH:
            raise NotARecording(self._first_trouble())
        if not data.strip():
            return
        torn = not data.endswith(b"\n")
        try:
            self._take(_parse_line(data))
        except DamagedRecording as error:
            if torn:
                self._torn = True
            else:
                self._note("could not be read", f"{error.where}: {error.problem}")

    def skip(self, problem: str) -> None:
        """Note that the reader of the file passed over a line."""
        self._number += 1
        if not self.is_done:
            self._note("were passed over", problem)

    def stop(self, problem: str) -> None:
        """Note that the rest of the file is not read."""
        if not self.is_done:
            self._problems.append(problem)
        self.is_done = True

    def finish(self) -> SavedTrace:
        """Return the trace, when all lines were added. Raises `NotARecording`."""
        if not self._understood:
            raise NotARecording(self._first_trouble())
        recording = replace(
            self._trace.recording, events=tuple(self._events or self._early), processes=tuple(self._processes)
        )  # fmt: skip
        run = self._trace.run
        if not self._has_end and recording.processes:  # the end line would tell; the first process is the program's
            first = recording.processes[0]
            recording = replace(recording, pid=first.pid if recording.pid is None else recording.pid)
            run = replace(run, status=first.status if run.status is None else run.status)
        if self._early and recording.pid is None:  # the recording names no process: none was followed
            recording = replace(recording, pid=getattr(self._early[0], "pid", None))
        problems = tuple(dict.fromkeys((*self._trace.problems, *self._describe_problems())))
        return replace(
            self._trace, recording=recording, run=run, images=tuple(self._images), problems=problems,
            steps=tuple(self._steps),
        )  # fmt: skip

    def _take(self, line: dict[str, Any]) -> None:
        kind = line.get("type")
        if not isinstance(kind, str):
            raise DamagedRecording("line", "it does not say its type")
        if kind == CASE:
            self._trace = replace(self._trace, case=_shallow(_as_object(line.get("case"), CASE)))
        elif kind not in LINES:
            self._note("are of a type that this dlltracer does not know", f"the type {short(kind)}")
            return
        else:
            self._take_value(decode(LINES[kind], line, kind))
        self._understood += 1

    def _take_value(self, value: Any) -> None:
        if isinstance(value, LoadEvent | LoadFailedEvent | UnloadEvent | DebugEvent):
            self._keep(self._events, MOST_EVENTS, value, "events")
            self._forget_early()
        elif isinstance(value, EarlyLine):  # it counts as long as no final event is there
            if not self._has_final:
                self._keep(self._early, MOST_EVENTS, value.event, "events")
        elif isinstance(value, HeaderLine):
            self._take_header(value)
        elif isinstance(value, TracedProcess):
            self._take_process(value)
        elif isinstance(value, ImageFacts):
            self._keep(self._images, MOST_OTHERS, value, "images")
        elif isinstance(value, SelfTestStep):
            self._keep(self._steps, MOST_OTHERS, value, "steps")
        elif isinstance(value, ProcessFacts):
            self._take_end_of_run(process=value)
        elif isinstance(value, FailureLine):
            self._take_end_of_run(errors=value.errors)
        elif isinstance(value, Crash):
            self._take_end_of_run(crash=value)
        elif isinstance(value, EndLine):
            self._take_end(value)
        else:
            self._trace = replace(self._trace, **{_FIELDS[type(value)]: value})

    def _forget_early(self) -> None:
        self._has_final = True
        self._early.clear()

    def _keep(self, values: list[ValueT], most: int, value: ValueT, what: str) -> bool:
        if len(values) < most:
            values.append(value)
            return True
        self._note("were passed over", f"this dlltracer keeps {most} {what}")
        return False

    def _take_header(self, header: HeaderLine) -> None:
        if self._has_header:
            self.stop(f"another recording begins in line {self._number}: it was not read")
            return
        if header.version < 1:
            raise DamagedRecording("recording.version", f"there is no version {header.version}")
        self._has_header = True
        if header.version > VERSION:
            self._problems.append(
                f"it has format version {header.version}, and this dlltracer reads up to {VERSION}: "
                "what it knows was read; use a newer dlltracer"
            )
        recording = replace(self._trace.recording, backend=header.backend, pid=header.pid, notes=header.notes)
        self._trace = replace(
            self._trace, recording=recording, what=header.what, written_by=header.dlltracer, started=header.started,
            command=header.command, problems=header.problems, host=header.host,
        )  # fmt: skip

    def _take_process(self, process: TracedProcess) -> None:
        """Take a process, or more about one: the last line counts. Systems use the number of an ended process again."""
        at = self._by_pid.get(process.pid)
        if at is not None:
            former = self._processes[at]
            has_ended = former.ended is not None or former.status is not None
            if not has_ended or former.started == process.started:
                self._processes[at] = process
                return
        if self._keep(self._processes, MOST_OTHERS, process, "processes"):
            self._by_pid[process.pid] = len(self._processes) - 1

    def _take_end_of_run(self, **fields: Any) -> None:
        self._trace = replace(self._trace, run=replace(self._trace.run, **fields))

    def _take_end(self, end: EndLine) -> None:
        recording = self._trace.recording
        recording = replace(
            recording,
            backend=recording.backend if end.backend is None else end.backend,
            pid=recording.pid if end.pid is None else end.pid,
            losses=Losses() if end.losses is None else end.losses,
            notes=recording.notes if end.notes is None else end.notes,
        )
        self._trace = replace(self._trace, recording=recording)
        self._take_end_of_run(status=end.status)
        self._announced = end.events
        self._has_end = True
        self._forget_early()

    def _note(self, what: str, example: str) -> None:
        trouble = self._troubles.setdefault(what, _Trouble(example=example))
        trouble.count += 1
        self._trouble_count += 1
        if self._trouble_count >= MOST_TROUBLES and not self.is_done:
            self.stop(f"{MOST_TROUBLES} of its lines could not be taken: the rest of the file was not read")
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
            yield f"its last line ({self._number}) is torn: its content is lost"
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


def _parse_line(data: bytes) -> dict[str, Any]:
    """Return the object that a line is. Raises `DamagedRecording`, and nothing else.

    Of a key that stands twice in an object the last counts: RFC 8259, 4, leaves it open, and so do most readers.
    """
    try:
        found = _JSON.decode(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DamagedRecording("line", f"it is not JSON ({short(str(error))})") from None
    return _as_object(found, "line")


def _parse_int(digits: str) -> int:
    # int() takes a time quadratic in the digits; Python refuses 4300 since 3.10.7 only.
    if len(digits) > _MOST_DIGITS:
        raise ValueError("a number has too many digits")
    return int(digits)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


_JSON = json.JSONDecoder(parse_constant=_no_number, parse_int=_parse_int)
"""Made once: json.loads would make one for each line."""


def _as_object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DamagedRecording(where, f"an object is wanted, not {type(value).__name__}")
    return value


def _shallow(case: dict[str, Any]) -> dict[str, Any]:
    """Return the case, if nothing in it is nested too deeply for recursive functions. Raises `DamagedRecording`."""
    stack: list[tuple[object, int]] = [(case, 0)]
    while stack:
        value, depth = stack.pop()
        if depth > _DEEPEST:
            raise DamagedRecording(CASE, "it is nested too deeply")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        stack += [(item, depth + 1) for item in inner if isinstance(item, dict | list)]
    return case
