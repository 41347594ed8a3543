"""The end of a page: where, when and with what the trace was made, and what is known to be lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...model.recording import Losses, TracedProcess
from ...model.run import SavedTrace
from ...model.words import describe_crash, describe_status, shorten, time_in_words
from ..drawing import number

_PROCESSES, _LINES = 500, 1000
"""Rows of the table of processes, and lines of a list, that the page has."""


@dataclass(frozen=True)
class About:
    """Pairs of label and value; `folded` are the long ones, label and lines. `incomplete`: what is known to be lost."""

    facts: tuple[tuple[str, str], ...]
    folded: tuple[tuple[str, tuple[str, ...]], ...]
    processes: tuple[tuple[str, ...], ...]
    incomplete: tuple[str, ...]
    notes: tuple[str, ...]


def about_trace(saved: SavedTrace) -> About:
    """All of it."""
    diagnosis_notes = saved.diagnosis.notes if saved.diagnosis is not None else ()
    notes = tuple(dict.fromkeys((*saved.recording.notes, *diagnosis_notes)))
    raw = len(saved.recording.raw)
    if raw:
        notes += (f"{number(raw, 'raw event')} of the mechanism are in the trace and not on this page",)
    return About(
        tuple((label, value) for label, value in _facts(saved) if value),
        tuple((label, tuple(shorten(lines, _LINES, "more lines"))) for label, lines in _folded(saved) if lines),
        tuple(_processes(saved.recording.processes)),
        (*_losses(saved.recording.losses), *saved.problems),
        notes,
    )


def _facts(saved: SavedTrace) -> Iterator[tuple[str, str]]:
    host, process = saved.host, saved.run.process
    yield "What ran", saved.what
    yield "Command line", " ".join(saved.command)
    yield "Started", time_in_words(saved.started)
    yield "Ended with", "" if saved.run.status is None else describe_status(saved.run.status)
    yield "Traced by", saved.recording.backend
    yield "dlltracer", saved.written_by
    if host is not None:
        yield "System", host.description or host.system
        yield "Processor", host.machine
        yield "C library", host.c_library or ""
        yield "Machine", host.name or ""
    if process is not None:
        kind = f"{' debug' if process.is_debug else ''}{' free-threaded' if process.is_free_threaded else ''}"
        yield "Python", f"{'.'.join(map(str, process.version))}{kind}, {process.bits} bits"
        yield "Interpreter", process.executable
        yield "Prefix", process.prefix
        yield "Current folder", process.current_folder


def _folded(saved: SavedTrace) -> Iterator[tuple[str, tuple[str, ...]]]:
    process = saved.run.process
    if process is not None:
        yield "Environment of the loader", tuple(f"{name}={value}" for name, value in process.environment)
        yield "Folders of os.add_dll_directory", process.added_folders
        yield "sys.path", process.path
    places = saved.places
    if places is not None:
        yield "Where the loader looks", tuple(f"{rule}: {folder}" for rule, folder in places.folders)
        yield "Of ld.so.cache", tuple(f"{name}: {path}" for name, path in places.cache)
        yield "LD_PRELOAD", places.preload


def _processes(processes: Sequence[TracedProcess]) -> Iterator[tuple[str, ...]]:
    yield from map(_process, processes[:_PROCESSES])
    if len(processes) > _PROCESSES:
        yield ("…", "", f"{len(processes) - _PROCESSES} more processes", "", "", "")


def _process(process: TracedProcess) -> tuple[str, ...]:
    """Cells: process id, parent, what it ran, when it started and ended, how."""
    crash = process.crash
    how = describe_status(process.status)
    if crash is not None:
        how += f": {describe_crash(crash)}"
    return (
        str(process.pid),
        "" if process.parent is None else str(process.parent),
        " ".join(process.command or ()) or process.program or "",
        time_in_words(process.started),
        time_in_words(process.ended),
        how,
    )


def _losses(losses: Losses) -> Iterator[str]:
    if losses.events:
        yield f"{number(losses.events, 'event')} could not be recorded by the system"
    if losses.buffers:
        yield f"{number(losses.buffers, 'buffer')} of events were not delivered by the system"
    if losses.undecodable:
        nouns = "event or line" if losses.undecodable == 1 else "events or lines"
        yield f"{losses.undecodable} {nouns} could not be decoded"
