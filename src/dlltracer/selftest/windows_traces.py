"""What both mechanisms of Windows must see of the same loads: asked by `windows_debugger` and `windows_etw`."""

from __future__ import annotations

import ctypes
import os
import sys

if sys.platform != "win32":
    raise ImportError("only for Windows")

from ..model.events import ImageEvent, LoadEvent, LoadFailedEvent, UnloadEvent
from ..model.recording import Recording
from ..trace import Trace
from .step import Answer, Room
from .windows_api import WindowsApi


def load_traced(room: Room, backend: str, path: str, *, free: bool = False) -> tuple[Recording, int]:
    """Load a DLL in a trace; what was recorded, and Windows' error."""
    api = WindowsApi()
    trace = Trace(backend=backend, unloads=True)
    with trace:
        handle, code = api.load(path)
        if handle and free:
            api.free(handle)
    assert trace.recording is not None
    note_recording(room, trace.recording)
    room.note("code", code)
    return trace.recording, code


def note_recording(room: Room, recording: Recording) -> None:
    """Note what a trace recorded, as far as it is about the self-test."""
    room.note("mechanism", recording.backend)
    room.note("losses", recording.losses)
    room.note("events", len(recording.events))
    for note in recording.notes:
        room.note("note", note)
    for event in recording.events:
        if isinstance(event, ImageEvent) and _name(event).startswith("dt_"):
            room.note("event", f"{event} (the kernel: {event.path}, base {event.base}, for {event.imports})")


def _name(event: ImageEvent) -> str:
    return os.path.basename(event.shown_path).lower()


def events_of(recording: Recording, path: str) -> list[str]:
    """The kinds of events of a DLL, in order: "load", "failed", "unload"."""
    words = {LoadEvent: "load", LoadFailedEvent: "failed", UnloadEvent: "unload"}
    wanted = os.path.basename(path).lower()
    return [
        words[type(event)] for event in recording.events
        if isinstance(event, LoadEvent | LoadFailedEvent | UnloadEvent) and _name(event) == wanted
    ]  # fmt: skip


def _judge(recording: Recording, path: str, wanted: list[str], *more: tuple[str, list[str]]) -> Answer:
    seen = {os.path.basename(one): events_of(recording, one) for one in (path, *(name for name, _ in more))}
    right = list(seen.values()) == [wanted, *(kinds for _, kinds in more)] and not recording.losses
    return right, "; ".join(f"{name}: {', '.join(kinds) or 'nothing'}" for name, kinds in seen.items())


def ask_good(room: Room, backend: str) -> Answer:
    """A DLL that is loaded and stays."""
    path = room.place("good", f"dt_good_{room.letter}.dll")
    recording, code = load_traced(room, backend, path)
    right, seen = _judge(recording, path, ["load"])
    shown = [event.shown_path for event in recording.loads if _name(event) == os.path.basename(path).lower()]
    return right and code == 0 and os.path.samefile(shown[0], path), seen


def ask_dependency(room: Room, backend: str) -> Answer:
    """A DLL and its need, which lies beside it."""
    need = room.place("good", room.dependency)
    path = room.place("needs-good", f"dt_top_{room.letter}.dll")
    recording, code = load_traced(room, backend, path)
    right, seen = _judge(recording, path, ["load"], (need, ["load"]))
    return right and code == 0, seen


def ask_unload(room: Room, backend: str) -> Answer:
    """A DLL that is loaded and let go: no failure."""
    path = room.place("good", f"dt_free_{room.letter}.dll")
    recording, code = load_traced(room, backend, path, free=True)
    right, seen = _judge(recording, path, ["load", "unload"])
    return right and code == 0, seen


def ask_failed(room: Room, backend: str) -> Answer:
    """A DLL whose need is missing: a load by ctypes, so that the request is known."""
    path = room.place("needs-missing", f"dt_needs_{room.letter}.dll")
    trace = Trace(backend=backend, unloads=True)
    with trace:
        try:
            ctypes.CDLL(path)
        except OSError as error:
            room.note("error", error)
    assert trace.recording is not None
    note_recording(room, trace.recording)
    return _judge(trace.recording, path, ["load", "failed"])


def ask_refused(room: Room, backend: str) -> Answer:
    """A DLL whose DllMain returns FALSE."""
    path = room.place("refuses", f"dt_refuses_{room.letter}.dll")
    trace = Trace(backend=backend, unloads=True)
    with trace:
        try:
            ctypes.CDLL(path)
        except OSError as error:
            room.note("error", error)
    assert trace.recording is not None
    note_recording(room, trace.recording)
    return _judge(trace.recording, path, ["load", "failed"])


def ask_import(room: Room, backend: str) -> Answer:
    """A module whose file needs a DLL that is missing."""
    name = f"dt_module_{room.letter}"
    path = room.place("needs-missing", f"{name}.pyd")
    sys.path.insert(0, room.folder)
    trace = Trace(backend=backend, unloads=True)
    try:
        with trace:
            __import__(name)
    except ImportError as error:
        room.note("error", error)
    finally:
        sys.path.remove(room.folder)
    assert trace.recording is not None
    note_recording(room, trace.recording)
    right, seen = _judge(trace.recording, path, ["load", "failed"])
    named = [event.imports for event in trace.recording.failures if _name(event) == os.path.basename(path)]
    return right and bool(named) and name in (named[0] or ()), f"{seen}; imports {named}"
