"""The lines of a recording file: a saved trace as JSON, one object a line, written as the run goes.

The format is described in docs/reference/recording-format.md. `model.tracereader` reads it back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .encode import encode
from .events import DebugEvent, Event, LoadEvent, LoadFailedEvent, UnloadEvent
from .failure import Crash, ProcessFacts, PythonError
from .finding import Diagnosis
from .recording import UNKNOWN, Losses, TracedProcess
from .run import HostFacts, ImageFacts, SavedTrace, SearchPlaces, SelfTestStep

VERSION = 2
"""Of the file; counted up when a reader of the former version would misread the new one. 1 is what
`dlltracer run --format jsonl` writes: it can be read as well."""
VERDICT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class HeaderLine:
    """The first line: what is known when the program begins. `notes` and `pid` are in what `--format jsonl` writes."""

    version: int
    dlltracer: str = ""
    what: str = ""
    command: tuple[str, ...] = ()
    started: float | None = None
    host: HostFacts | None = None
    backend: str = UNKNOWN
    pid: int | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class EarlyLine:
    """An event as it was seen first, before it is known what became of it."""

    event: Event


@dataclass(frozen=True)
class FailureLine:
    """The exceptions that ended the program, outermost first (each raised while the next was handled)."""

    errors: tuple[PythonError, ...]


@dataclass(frozen=True, kw_only=True)
class EndLine:
    """The last line. What is `None` is as the header says it; the summary of `--format jsonl` has `losses` only."""

    status: int | None = None
    backend: str | None = None
    pid: int | None = None
    events: int | None = None
    losses: Losses | None = None
    notes: tuple[str, ...] | None = None


HEADER, PROCESS, INTERPRETER, FAILURE, EARLY = "recording", "process", "interpreter", "failure", "early"
CRASH, PLACES, IMAGE, CASE, VERDICT, END, SUMMARY = "crash", "places", "image", "case", "verdict", "end", "summary"
STEP = "step"
LINES: Mapping[str, type] = {
    HEADER: HeaderLine, PROCESS: TracedProcess, INTERPRETER: ProcessFacts, FAILURE: FailureLine, EARLY: EarlyLine,
    CRASH: Crash, PLACES: SearchPlaces, IMAGE: ImageFacts, VERDICT: Diagnosis, END: EndLine, SUMMARY: EndLine,
    STEP: SelfTestStep,
    **{kind.TAG: kind for kind in (LoadEvent, LoadFailedEvent, UnloadEvent, DebugEvent)},
}  # fmt: skip
"""What a line is, by its type. The line "case" is not among them: it holds a value that `api.explain_saved` reads."""

_JSON = json.JSONEncoder(allow_nan=False)
"""Made once: json.dumps would make one for each line."""


def trace_to_lines(trace: SavedTrace) -> Iterator[str]:
    """Yield the lines of the file of a trace, each with its end; `tracereader.TraceReader` gives the trace back."""
    yield header_line(trace)
    for process in trace.recording.processes:
        yield process_line(process)
    for event in trace.recording.events:
        yield event_line(event)
    for step in trace.steps:
        yield step_line(step)
    yield from closing_lines(trace)


def header_line(trace: SavedTrace) -> str:
    """Return the first line: what is known when the program begins. Events of `trace` are not looked at."""
    recording = trace.recording
    header = HeaderLine(
        version=VERSION, dlltracer=trace.written_by, what=trace.what, command=trace.command, started=trace.started,
        host=trace.host, backend=recording.backend, pid=recording.pid, problems=trace.problems,
    )  # fmt: skip
    return _line(HEADER, encode(header))


def process_line(process: TracedProcess) -> str:
    """Return the line of a process as far as it is known now: of several lines about one the last counts."""
    return _line(PROCESS, encode(process))


def event_line(event: Event) -> str:
    """Return the line of an event in its final form."""
    return _line(event.TAG, encode(event))


def early_line(event: Event) -> str:
    """Return the line of an event as it was seen first, where a mechanism knows only at the end what became of it.

    When the program has ended, all events follow as final lines (`event_line`), and a reader passes over these.
    """
    return _line(EARLY, encode(EarlyLine(event)))


def step_line(step: SelfTestStep) -> str:
    """Return the line of a step of a self-test."""
    return _line(STEP, encode(step))


def closing_lines(trace: SavedTrace) -> Iterator[str]:
    """Yield the lines of what is known when the program has ended, the end line last."""
    run = trace.run
    if run.process is not None:
        yield _line(INTERPRETER, encode(run.process))
    if run.errors:
        yield _line(FAILURE, encode(FailureLine(run.errors)))
    if run.crash is not None:
        yield _line(CRASH, encode(run.crash))
    if trace.places is not None:
        yield _line(PLACES, encode(trace.places))
    for image in trace.images:
        yield _line(IMAGE, encode(image))
    if trace.diagnosis is not None:
        yield f"{_JSON.encode(encode_verdict(trace.diagnosis))}\n"
    if trace.case is not None:
        yield _line(CASE, {"case": trace.case})
    recording = trace.recording
    end = EndLine(
        status=run.status, backend=recording.backend, pid=recording.pid, events=len(recording.events),
        losses=recording.losses, notes=recording.notes,
    )  # fmt: skip
    yield _line(END, encode(end))


def encode_verdict(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the verdict as it is in every format: alone, among JSON lines, in a recording, beside an order."""
    return {"type": VERDICT, "version": VERDICT_VERSION, **encode(diagnosis)}


def _line(kind: str, plain: dict[str, object]) -> str:
    # json.dumps escapes every character that is not ASCII, line ends among them: one value is one line. A lone
    # surrogate (a byte of a path that is no text, PEP 383) survives, which UTF-8 itself could not hold.
    return f"{_JSON.encode({'type': kind, **plain})}\n"
