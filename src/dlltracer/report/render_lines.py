"""Lines: what `Trace(out=...)` writes."""

from __future__ import annotations

from ..model.events import LoadFailedEvent, UnloadEvent
from ..model.recording import Recording


def render_lines(recording: Recording, *, failed_only: bool = False) -> str:
    """`LoadLibrary <path>` or `Failed <path>`, one line an event; unloads are silent, paths are not escaped."""
    return "".join(
        f"{event}\n"
        for event in recording.events
        if (isinstance(event, LoadFailedEvent) if failed_only else not isinstance(event, UnloadEvent))
    )
