"""Read back what `host.facts` gathered in another process, which may be damaged."""

from __future__ import annotations

import linecache
import os
import re
from collections.abc import Iterator
from dataclasses import replace

from ..model.decode import DamagedRecording, decode
from ..model.failure import Frame, ProcessFacts, PythonError
from .facts import describe_process


def read_errors(errors: object) -> tuple[PythonError, ...]:
    """The exceptions in what `host.facts.describe_errors` made; () if it is nothing of the kind."""
    try:
        found: tuple[PythonError, ...] = decode(tuple[PythonError, ...], errors, "errors")
    except DamagedRecording:
        return ()
    return tuple(replace(error, frames=tuple(_own_frames(error.frames))) for error in found)


def read_process(process: object) -> ProcessFacts | None:
    """The process in what `host.facts.describe_process` made; `None` if it is nothing of the kind."""
    try:
        found: ProcessFacts = decode(ProcessFacts, process, "process")
    except DamagedRecording:
        return None
    return found


def this_process() -> ProcessFacts:
    """The same facts about the running interpreter, for a program that died before it could tell."""
    found: ProcessFacts = decode(ProcessFacts, describe_process([]), "process")
    return found


def _own_frames(frames: tuple[Frame, ...]) -> Iterator[Frame]:
    """The frames of the program, with the text of each line."""
    for frame in frames:
        if not _is_machinery(frame.file):
            yield replace(frame, source=linecache.getline(frame.file, frame.line).strip() or None)


def _is_machinery(file: str) -> bool:
    """Whether a frame is ours or the import system's: nobody looks for a cause there."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return file.startswith("<frozen importlib") or os.path.dirname(os.path.dirname(file)) == folder


_HEAD = re.compile(r"^(?:Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):$")
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$')
_MOST = 100


def read_fault_frames(said: str, *, hidden: str = "", main: bool = False) -> tuple[Frame, ...]:
    """The lines of the thread that died, outermost first.

    Arguments:
        said: what the program wrote; the format is that of CPython's Python/traceback.c.
        hidden: frames of files below this folder are left out.
        main: no thread died; the lines of the main thread are wanted. It is the last one, since CPython puts new
            threads first in its list (Python/pystate.c).
    """
    lines = said.splitlines()
    starts = [number for number, line in enumerate(lines) if _HEAD.match(line)]
    current = [number for number in starts if main or lines[number].startswith("Current thread")]
    frames: list[Frame] = []
    for line in lines[current[-1] + 1 :][:_MOST] if current else ():
        found = _FRAME.match(line)
        if found is None:
            break
        file = found[1]
        if not (hidden and file.startswith(hidden)):
            number = int(found[2])
            frames.append(Frame(file, number, found[3], linecache.getline(file, number).strip() or None))
    return tuple(frames[::-1])
