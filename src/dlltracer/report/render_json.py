"""JSON lines: one object a line, for programs."""

from __future__ import annotations

import json

from ..model.codec import VERSION, event_to_plain, losses_to_plain
from ..model.events import LoadFailedEvent
from ..model.recording import Recording
from .tally import count


def render_jsonl(recording: Recording, *, failed_only: bool = False) -> str:
    """A line that describes the recording, one line an event, a summary at the end; ASCII only.

    The summary counts the whole recording, also with `failed_only`. A file without it was cut off.
    """
    head = {
        "type": "recording",
        "version": VERSION,
        "backend": recording.backend,
        "pid": recording.pid,
        "notes": list(recording.notes),
    }
    tally = count(recording)
    summary = {
        "type": "summary",
        "loaded": tally.loaded,
        "failed": tally.failed,
        "dropped": tally.dropped,
        "unloaded": tally.unloaded,
        "raw": tally.raw,
        "losses": losses_to_plain(recording.losses),
    }
    events = (e for e in recording.events if not failed_only or isinstance(e, LoadFailedEvent))
    return "".join(f"{json.dumps(item)}\n" for item in (head, *map(event_to_plain, events), summary))
