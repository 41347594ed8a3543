"""Counts what a recording shows: the outcome of each image, and its processes."""

from __future__ import annotations

from collections.abc import Iterator

from ..model.events import DebugEvent, Event, FailureKind, LoadEvent, LoadFailedEvent, Phase, UnloadEvent
from ..model.light import dataclass, replace
from ..model.recording import Recording, TracedProcess
from ..model.run import HostFacts, SavedTrace
from ..model.words import describe_crash, describe_end, describe_status, time_in_words
from .drawing import BOLD, DIM, FAILED, PLAIN, Guides, Line, file_name

FinalEvent = LoadEvent | LoadFailedEvent
"""The outcome of one image: its load, or the failure."""

_NEVER_MAPPED = (FailureKind.NOT_FOUND, FailureKind.REFUSED, FailureKind.NAME_NOT_FOUND)


@dataclass(frozen=True)
class OutcomeCounts:
    """Counts of one recording.

    Attributes:
        loaded: images that were mapped and not dropped because a load failed.
        failed: loads that failed by themselves.
        dropped: images mapped and dropped because another load failed.
        unloaded: images that left the process for any other reason.
        raw: raw events.
    """

    loaded: int
    failed: int
    dropped: int
    unloaded: int
    raw: int


def final_events(recording: Recording) -> tuple[FinalEvent, ...]:
    """Return one event for each image of a process, in order of the loads.

    A load that was dropped later is given as its failure, at the place of the load.
    """
    found: list[FinalEvent] = []
    open_loads: dict[tuple[int | None, str], list[int]] = {}
    for event in recording.events:
        if isinstance(event, DebugEvent):
            continue
        image = event.pid, event.path
        if isinstance(event, LoadEvent):
            open_loads.setdefault(image, []).append(len(found))
            found.append(event)
        elif isinstance(event, UnloadEvent):
            if open_loads.get(image):
                open_loads[image].pop()
        elif isinstance(event, LoadFailedEvent):
            if event.kind not in _NEVER_MAPPED and open_loads.get(image):
                at = open_loads[image].pop()
                found[at] = _with_what_was_known(event, found[at])
            else:
                found.append(event)
    return tuple(found)


def is_consequence(event: LoadFailedEvent) -> bool:
    """Return whether the load failed only because another one did: it has no reason of its own (an undefined
    symbol)."""
    return event.kind is FailureKind.DROPPED and event.reason is None


def is_program(event: FinalEvent) -> bool:
    """Return whether the image is the program itself: nobody asked the loader for it."""
    return event.phase is Phase.DIRECT and event.need is None and event.requested_by is None


def count(recording: Recording) -> OutcomeCounts:
    """Count the events. A failure whose kind is not known counts as failed."""
    last = final_events(recording)
    failed = [event for event in last if isinstance(event, LoadFailedEvent)]
    dropped = sum(map(is_consequence, failed))
    return OutcomeCounts(
        loaded=len(last) - len(failed),
        failed=len(failed) - dropped,
        dropped=dropped,
        unloaded=len(recording.unloads),
        raw=len(recording.raw),
    )


def _with_what_was_known(failure: LoadFailedEvent, load: FinalEvent) -> LoadFailedEvent:
    """The failure, with the fields that only its load knew."""
    known = vars(load).items()
    return replace(failure, **{name: value for name, value in known if getattr(failure, name) is None})


_COMMAND_LENGTH = 100
"""Characters of a command line that are shown."""

_LIKE_IT = 8
"""Process ids that are shown of those which did the same as another one."""


@dataclass(frozen=True)
class Share:
    """The part of one process in a recording: its events alone. `like_it`: others that ran and loaded the same."""

    process: TracedProcess
    recording: Recording
    like_it: tuple[TracedProcess, ...] = ()


def shares(recording: Recording) -> tuple[Share, ...]:
    """Return the part of each process in a recording, in the order of their starts.

    Events of no known process go to the first. Processes that ran the same program, loaded the same, and ended the same
    are one share; not where a load failed.
    """
    known = {process.pid: process for process in recording.processes}
    events: dict[int, list[Event]] = {pid: [] for pid in known}
    first = next(iter(known))
    for event in recording.events:
        pid = getattr(event, "pid", None)
        events[pid if pid in known else first].append(event)
    found: dict[object, Share] = {}
    like_it: dict[object, list[TracedProcess]] = {}
    for pid, process in known.items():
        share = Share(process, replace(recording, events=tuple(events[pid])))
        key = pid if share.recording.failures or pid == first else _likeness(share)
        if key in found:
            like_it[key].append(process)
        else:
            found[key], like_it[key] = share, []
    return tuple(replace(share, like_it=tuple(like_it[key])) for key, share in found.items())


def _likeness(share: Share) -> object:
    process = share.process
    images = tuple((type(event), str(event), getattr(event, "imports", None)) for event in share.recording.events)
    return process.program, process.status, process.ended is None, images


def process_line(process: TracedProcess, guides: Guides) -> Line:
    """Return the line of a process: its program, its command, how it ended."""
    line: Line = ((f"process {process.pid}", BOLD), (f"  {_command(process, guides.more)}", BOLD))
    if process.command and process.program and file_name(process.program) != file_name(process.command[0]):
        line += ((f"  ({process.program})", DIM),)
    how, style = _ending(process)
    return (*line, (f"  {how}", style))


def like_it_line(share: Share, guides: Guides) -> Line:
    """Return the line that counts the other processes that did the same."""
    pids = ", ".join(str(one.pid) for one in share.like_it[:_LIKE_IT])
    more = f", {guides.more}" if len(share.like_it) > _LIKE_IT else ""
    what = "process that loaded" if len(share.like_it) == 1 else "processes that loaded"
    return ((f"and {len(share.like_it)} more {what} the same: {pids}{more}", DIM),)


def describe_processes(recording: Recording) -> str:
    """Return how many processes there were, and how many of them a signal killed: " in 3 processes, 1 of them
    killed"."""
    if len(recording.processes) < 2:
        return ""
    killed = sum(is_killed(process) for process in recording.processes)
    return f" in {len(recording.processes)} processes" + (f", {killed} of them killed" if killed else "")


def is_killed(process: TracedProcess) -> bool:
    """Return whether a signal or an exception ended the process."""
    return process.status is not None and (process.status < 0 or bool(process.status >> 31))


def notes_on_children(recording: Recording) -> tuple[str, ...]:
    """Return a note on each process but the first that a signal or an exception ended."""
    return tuple(
        f"process {process.pid}, which it started, {_ending(process)[0]}: {_command(process, '...')}"
        for process in recording.processes[1:]
        if is_killed(process)
    )


def _command(process: TracedProcess, more: str) -> str:
    command = " ".join(process.command) if process.command else process.program or "(its command is not known)"
    return command if len(command) <= _COMMAND_LENGTH else command[:_COMMAND_LENGTH] + more


def _ending(process: TracedProcess) -> tuple[str, str]:
    status, crash = process.status, process.crash
    if crash is not None:
        short = replace(crash, image=None if crash.image is None else file_name(crash.image))
        return f"crashed: {describe_crash(short)}", FAILED
    if status is None:
        return ("still running" if process.ended is None else "ended", DIM)
    if status >= 0 and status >> 31:
        return f"ended by Windows with {describe_status(status)}", FAILED
    return describe_status(status), FAILED if status < 0 else DIM if status == 0 else PLAIN


def describe_origin(trace: SavedTrace) -> tuple[str, ...]:
    """Return what was recorded, where and when, as far as that is known; and how the run ended."""
    return tuple(_sentences(trace))


def describe_host(host: HostFacts) -> str:
    """Return the machine in words: "build7, Debian GNU/Linux 12 (bookworm), kernel 6.1, x86_64, glibc 2.36"."""
    return ", ".join(filter(None, (host.name, host.description or host.system, host.machine, host.c_library)))


def _sentences(trace: SavedTrace) -> Iterator[str]:
    parts = [trace.what] if trace.what else []
    if trace.host is not None:
        parts.append(f"on {describe_host(trace.host)}")
    if trace.started is not None:
        parts.append(f"at {time_in_words(trace.started)}")
    if trace.written_by:
        parts.append(f"by dlltracer {trace.written_by}")
    if parts:
        yield f"recorded: {', '.join(parts)}"
    if trace.run.status:
        yield f"it {describe_end(trace.run.status)}"
