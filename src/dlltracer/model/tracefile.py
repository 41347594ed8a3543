"""The lines of a recording file: a saved trace as JSON, one object a line, written as the run goes.

The format is described in docs/reference/recording-format.md. `model.tracereader` reads it back.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

from .codec import DamagedRecording, event_from_plain, event_to_plain, losses_to_plain
from .crash import Crash
from .events import DebugEvent, Event, LoadEvent, LoadFailedEvent, UnloadEvent
from .failure import Failure, ProcessFacts, PythonError
from .finding import Diagnosis, Outcome
from .process import TracedProcess
from .recording import Losses
from .saved import ImageFacts, SavedTrace, SearchPlaces
from .typed import Coder, TypedCodec, Wrong

VERSION = 2
"""Of the file; counted up when a reader of the former version would misread the new one. 1 is what
`dlltracer run --format jsonl` writes: it can be read as well."""
VERDICT_VERSION = 1

HEADER, PROCESS, INTERPRETER, FAILURE = "recording", "process", "interpreter", "failure"
EARLY = "early"
CRASH, PLACES, IMAGE, CASE, VERDICT, END, SUMMARY = "crash", "places", "image", "case", "verdict", "end", "summary"
EVENTS = ("load", "failed", "unload", "debug")
TYPED: Mapping[str, type] = {
    PROCESS: TracedProcess, INTERPRETER: ProcessFacts, CRASH: Crash, PLACES: SearchPlaces, IMAGE: ImageFacts,
    VERDICT: Diagnosis,
}  # fmt: skip
"""Lines that are one value each, by their type."""


def trace_to_lines(trace: SavedTrace) -> Iterator[str]:
    """The whole file of a trace, line by line, each with its end of line; `tracereader.read_lines` gives it back."""
    yield header_line(trace)
    for process in trace.recording.processes:
        yield process_line(process)
    for event in trace.recording.events:
        yield event_line(event)
    yield from closing_lines(trace)


def header_line(trace: SavedTrace) -> str:
    """The first line: what is known when the program begins. Events and the like of `trace` are not looked at."""
    recording = trace.recording
    host = None if trace.host is None else trace_codec().to_plain(trace.host)
    return _line(
        HEADER, version=VERSION, dlltracer=trace.written_by, what=trace.what, command=list(trace.command),
        started=trace.started, host=host, backend=recording.backend, pid=recording.pid,
        problems=list(trace.problems) or None,
    )  # fmt: skip


def process_line(process: TracedProcess) -> str:
    """A process as far as it is known now: of several lines about one process the last counts."""
    return value_line(PROCESS, process)


def event_line(event: Event) -> str:
    """One event."""
    return f"{json.dumps(event_to_plain(event), allow_nan=False)}\n"


def early_line(event: Event) -> str:
    """An event as it was seen first, before it is known what became of it: where a mechanism judges that at the end.

    When the program has ended, all events follow as final lines (`event_line`), and a reader passes over these.
    """
    return _line(EARLY, event=event_to_plain(event))


def value_line(kind: str, value: object) -> str:
    """A line of `TYPED`: its type, and the fields of the value."""
    more = {"version": VERDICT_VERSION} if kind == VERDICT else {}
    return _line(kind, **more, **trace_codec().to_plain(value))


def failure_line(failure: Failure, process: ProcessFacts | None) -> str:
    """The exceptions; the process only if it is not the one of the line "interpreter"."""
    plain = trace_codec().to_plain(failure)
    if failure.process == process:
        del plain["process"]
    return _line(FAILURE, **plain)


def closing_lines(trace: SavedTrace) -> Iterator[str]:
    """What is known when the program has ended, and the end line."""
    if trace.process is not None:
        yield value_line(INTERPRETER, trace.process)
    if trace.failure is not None:
        yield failure_line(trace.failure, trace.process)
    if trace.crash is not None:
        yield value_line(CRASH, trace.crash)
    if trace.places is not None:
        yield value_line(PLACES, trace.places)
    for image in trace.images:
        yield value_line(IMAGE, image)
    if trace.diagnosis is not None:
        yield value_line(VERDICT, trace.diagnosis)
    if trace.case is not None:
        yield _line(CASE, case=trace.case)
    recording = trace.recording
    yield _line(
        END, status=trace.status, backend=recording.backend, pid=recording.pid, events=len(recording.events),
        losses=losses_to_plain(recording.losses), notes=list(recording.notes),
    )  # fmt: skip


def _line(kind: str, /, **items: object) -> str:
    known = {name: value for name, value in items.items() if value is not None}
    return f"{json.dumps({'type': kind, **known}, allow_nan=False)}\n"


@functools.cache
def trace_codec() -> TypedCodec:
    """For the values of a trace. Events have the form of `model.codec`, outcomes are words."""
    names = {one.__name__: one for one in (Crash, PythonError, Failure, ProcessFacts, TracedProcess, Diagnosis)}
    return TypedCodec({**names, "Mapping": Mapping}, special_forms())


def special_forms() -> dict[object, Coder]:
    """The types with a form of their own, for whoever makes a codec for more than these."""
    events = Coder(event_to_plain, _reading(event_from_plain))
    kinds: tuple[object, ...] = (Event, LoadEvent, LoadFailedEvent, UnloadEvent, DebugEvent)
    return {**{kind: _only(kind, events) for kind in kinds}, Outcome: _words(Outcome)}


def losses_from_plain(plain: object) -> Losses:
    """Raises `DamagedRecording`."""
    losses = trace_codec().from_plain(Losses, plain, "losses")
    assert isinstance(losses, Losses)
    return losses


def _reading(read: Callable[[object], Any]) -> Callable[[object], Any]:
    def read_or_say(plain: object) -> Any:
        try:
            return read(plain)
        except DamagedRecording as error:
            raise Wrong(f"{error.where}: {error.problem}") from None

    return read_or_say


def _only(kind: object, events: Coder) -> Coder:
    """The coder, for one class of events alone."""
    if not isinstance(kind, type):
        return events

    def read(plain: object) -> Any:
        event = events.read(plain)
        if type(event) is not kind:
            raise Wrong(f"an event of another kind is wanted than {type(event).__name__}")
        return event

    return Coder(events.write, read)


def _words(kind: type[Enum]) -> Coder:
    """An enum by the names of its members, as words: its values are numbers."""
    by_word = {member.name.lower().replace("_", " "): member for member in kind}
    words = {member: word for word, member in by_word.items()}

    def read(plain: object) -> Enum:
        if not isinstance(plain, str) or plain not in by_word:
            raise Wrong(f"one of {', '.join(by_word)} is wanted")
        return by_word[plain]

    return Coder(lambda value: words[value], read)
