"""The two formats for programs."""

from __future__ import annotations

import json
import uuid

from dlltracer.model.decode import decode
from dlltracer.model.events import DebugEvent, Event, FailureKind, LoadEvent, LoadFailedEvent, UnloadEvent
from dlltracer.model.recording import Losses, Recording
from dlltracer.report.render_json import render_jsonl
from dlltracer.report.render_text import render_lines

EVENTS = (
    LoadEvent("/a \udcff.so"),
    LoadEvent(r"\Device\b.dll", display_path=r"C:\b.dll"),
    UnloadEvent("/a \udcff.so"),
    LoadFailedEvent("gone.so", kind=FailureKind.NOT_FOUND),
    LoadFailedEvent(r"\Device\b.dll", display_path=r"C:\b.dll", kind=FailureKind.DROPPED),
)
RECORDING = Recording("etw", EVENTS, pid=7, losses=Losses(events=2), notes=("a", "\u00e9"))


def test_lines() -> None:
    assert render_lines(RECORDING) == (
        "LoadLibrary /a \udcff.so\nLoadLibrary C:\\b.dll\nFailed gone.so\nFailed C:\\b.dll\n"
    )
    assert render_lines(RECORDING, failed_only=True) == "Failed gone.so\nFailed C:\\b.dll\n"
    assert render_lines(Recording("etw")) == ""


def test_json_lines() -> None:
    text = render_jsonl(RECORDING)
    assert text.isascii() and text.endswith("}\n")
    head, *events, summary = map(json.loads, text.splitlines())
    assert head == {"type": "recording", "version": 1, "backend": "etw", "pid": 7, "notes": ["a", "\u00e9"]}
    assert tuple(decode(Event, event, "event") for event in events) == EVENTS
    assert summary == {
        "type": "summary", "loaded": 1, "failed": 1, "dropped": 1, "unloaded": 1, "raw": 0,
        "losses": {"events": 2, "buffers": 0, "undecodable": 0},
    }  # fmt: skip


def test_json_lines_of_failures_only() -> None:
    _, *events, summary = map(json.loads, render_jsonl(RECORDING, failed_only=True).splitlines())
    assert [event["type"] for event in events] == ["failed", "failed"]
    assert summary["loaded"] == 1


def test_raw_events() -> None:
    recording = Recording("rtld", (DebugEvent(uuid.UUID(int=1), 2, b"", b"abcd"),))
    assert json.loads(render_jsonl(recording).splitlines()[1])["data"] == "61626364"
    assert "text: abcd" in render_lines(recording)
