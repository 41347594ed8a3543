"""JSON lines: one object a line, for programs."""

from __future__ import annotations

import json

from ..model.codec import VERSION, event_to_plain, losses_to_plain, process_to_plain
from ..model.events import LoadFailedEvent
from ..model.recording import Recording
from .counts import count
from .verdict_json import verdict_to_plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.finding import Diagnosis


def render_jsonl(recording: Recording, *, failed_only: bool = False, verdict: Diagnosis | None = None) -> str:
    """A line that describes the recording, one line a process that was followed, one line an event, the verdict if
    there is one, a summary; ASCII only.

    The summary counts the whole recording, also with `failed_only`. A file without it was cut off.
    """
    head = {
        "type": "recording",
        "version": VERSION,
        "backend": recording.backend,
        "pid": recording.pid,
        "notes": list(recording.notes),
    }
    counts = count(recording)
    summary = {
        "type": "summary",
        "loaded": counts.loaded,
        "failed": counts.failed,
        "dropped": counts.dropped,
        "unloaded": counts.unloaded,
        "raw": counts.raw,
        "losses": losses_to_plain(recording.losses),
    }
    events = (e for e in recording.events if not failed_only or isinstance(e, LoadFailedEvent))
    verdicts = () if verdict is None else (verdict_to_plain(verdict),)
    processes = map(process_to_plain, recording.processes)
    items = (head, *processes, *map(event_to_plain, events), *verdicts, summary)
    return "".join(f"{json.dumps(item)}\n" for item in items)
