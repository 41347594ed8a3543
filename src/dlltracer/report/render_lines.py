"""Lines: what `Trace(out=...)` writes."""

from __future__ import annotations

from ..model.events import DebugEvent, LoadFailedEvent, UnloadEvent
from ..model.printable import escape
from ..model.recording import Recording


def render_lines(recording: Recording, *, failed_only: bool = False, escaped: bool = False) -> str:
    """Return `LoadLibrary <path>` or `Failed <path>`, one line an event; unloads are silent.

    Arguments: `escaped`, for a terminal: a path stays on its line and does nothing there. Programs that read the lines
    get the paths as they are.
    """
    return "".join(
        f"{escape(str(event)) if escaped and not isinstance(event, DebugEvent) else event}\n"
        for event in recording.events
        if (isinstance(event, LoadFailedEvent) if failed_only else not isinstance(event, UnloadEvent))
    )
