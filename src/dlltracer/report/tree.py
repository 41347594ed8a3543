"""The outcome of each image in a recording, and counts of the outcomes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from ..model.events import DebugEvent, FailureKind, LoadEvent, LoadFailedEvent, Phase, UnloadEvent
from ..model.recording import Recording

FinalEvent = LoadEvent | LoadFailedEvent
"""The last word on one image."""

_NEVER_MAPPED = (FailureKind.NOT_FOUND, FailureKind.REFUSED, FailureKind.NAME_NOT_FOUND)


@dataclass(frozen=True)
class Tally:
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
    """One event an image in a process, in order of the loads: a load that was dropped later is its failure, at the
    load's place."""
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
    """Whether the load failed only because another one did: it has no reason of its own (an undefined symbol)."""
    return event.kind is FailureKind.DROPPED and event.reason is None


def is_program(event: FinalEvent) -> bool:
    """Whether the image is the program itself: nobody asked the loader for it."""
    return event.phase is Phase.DIRECT and event.need is None and event.requested_by is None


def count(recording: Recording) -> Tally:
    """Count the events. A failure whose kind is not known counts as failed."""
    last = final_events(recording)
    failed = [event for event in last if isinstance(event, LoadFailedEvent)]
    dropped = sum(map(is_consequence, failed))
    return Tally(
        loaded=len(last) - len(failed),
        failed=len(failed) - dropped,
        dropped=dropped,
        unloaded=len(recording.unloads),
        raw=len(recording.raw),
    )


def _with_what_was_known(failure: LoadFailedEvent, load: FinalEvent) -> LoadFailedEvent:
    """The failure, with the fields that only its load knew."""
    unknown = [field.name for field in fields(load) if getattr(failure, field.name) is None]
    return replace(failure, **{name: getattr(load, name) for name in unknown})
