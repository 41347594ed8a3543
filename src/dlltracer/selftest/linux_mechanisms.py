"""Questions about the mechanisms of Linux: whether each sees what really happens, and puts everything back."""

from __future__ import annotations

import ctypes
import os
import sys
import threading

if sys.platform != "linux":
    raise ImportError("only for Linux")

from ..capture.choose import BACKEND_NAMES, make_backend
from ..capture.linux.debug_mask import WANTED, DebugMaskPatch, prove_patch
from ..capture.linux.log_file import create_memory_file
from ..errors import BackendUnavailable
from ..model.events import FailureKind, LoadEvent, LoadFailedEvent, ProbeOutcome
from ..model.recording import Recording
from ..trace import Trace
from .step import Answer, CannotAsk, Question, Room

_THREADS, _ROUNDS = 4, 25


def questions() -> tuple[Question, ...]:
    """Return the questions of the mechanisms of Linux, one group each."""
    return (
        Question("rtld", "words of the loader", "mask and descriptor of ld.so are found, and both are off", _ask_words),
        Question("rtld", "proof", "the loader writes its log when they are set", _ask_proof),
        Question("rtld", "a good load", "an event with the path, and the requester of it", _ask_good),
        Question("rtld", "an import", "the event names the import that asked", _ask_import),
        Question("rtld", "a failed load", "the failed need, with every place that was tried", _ask_failed),
        Question("rtld", "loads of threads", f"all of {_THREADS} threads, nothing lost", _ask_threads),
        Question("rtld", "traces that nest", "each sees its own loads", _ask_nested),
        Question("rtld", "afterwards", "mask, descriptor and rights of their page are as before", _ask_restored),
        Question("snapshot", "a good load", "an event with the path", _ask_snapshot),
        Question("snapshot", "an image that is gone", "it is counted", _ask_gone),
    )


def _need_backend(name: str) -> None:
    """Raise `CannotAsk` where a mechanism does not exist or cannot work."""
    if name not in BACKEND_NAMES:
        raise CannotAsk("this dlltracer does not have it")
    try:
        found = make_backend(name).availability()
    except BackendUnavailable as error:
        raise CannotAsk(error.reason) from error
    if not found.ok:
        raise CannotAsk(f"{found.reason}. {found.remedy}".rstrip(". "))


def _load_traced(room: Room, backend: str, path: str) -> tuple[Recording, OSError | None]:
    """Load a file in a trace and return what was recorded, and the error."""
    _need_backend(backend)
    failure = None
    trace = Trace(backend=backend, unloads=True)
    with trace:
        try:
            ctypes.CDLL(path)
        except OSError as error:
            failure = error
    recording = trace.recording
    assert recording is not None
    for note in recording.notes:
        room.note("note", note)
    for event in recording.events[:20]:
        room.note("event", event)
    return recording, failure


def _ask_words(room: Room) -> Answer:
    _need_backend("rtld")
    patch = DebugMaskPatch()
    mask, descriptor = patch.before
    room.note("mask", hex(mask))
    room.note("descriptor", descriptor)
    room.note("place of the descriptor, in words", patch.words.fd)
    room.note("found by", patch.words.note or "their pattern")
    return mask & WANTED == 0 and descriptor == 2, f"mask {mask:#x}, descriptor {descriptor}"


def _ask_proof(room: Room) -> Answer:
    _need_backend("rtld")
    file = create_memory_file("dlltracer-selftest")
    try:
        patch = prove_patch(DebugMaskPatch(), file)
        patch.restore()
        text = os.pread(file, 4096, 0).decode("utf-8", "replace")
    finally:
        os.close(file)
    room.note("log", text)
    return "libc.so.6" in text, f"{len(text.splitlines())} lines"


def _ask_good(room: Room) -> Answer:
    path = room.place("good", "good.so")
    recording, _ = _load_traced(room, "rtld", path)
    found = [event for event in recording.loads if event.path == path]
    if len(found) != 1:
        return False, f"{len(found)} events of it, {len(recording.events)} in all"
    event = found[0]
    requester = os.path.basename(event.requested_by or "")
    right = "_ctypes" in requester and event.base is not None and event.size is not None
    return right, f"base {event.base}, {event.size} bytes, for {requester}"


def _ask_import(room: Room) -> Answer:
    """The image has no PyInit: it is loaded, and the import fails."""
    _need_backend("rtld")
    name = f"dt_module_{room.letter}"
    path = room.place("good", f"{name}.so")
    message = "it was imported"
    sys.path.insert(0, room.folder)
    with Trace(collect=True, backend="rtld") as events:
        try:
            __import__(name)  # not importlib.import_module, which raises no audit event
        except ImportError as error:
            message = str(error)
    sys.path.remove(room.folder)
    room.note("message", message)
    assert events is not None
    own = [event for event in events if isinstance(event, LoadEvent) and event.path == path]
    imports = own[0].imports if own else None
    right = imports is not None and name in imports and "PyInit" in message
    return right, f"imports {imports}"


def _ask_failed(room: Room) -> Answer:
    path = room.place("needs-missing", "top.so")
    recording, error = _load_traced(room, "rtld", path)
    needs = [event for event in recording.failures if event.kind is FailureKind.NOT_FOUND]
    if error is None or len(needs) != 1:
        return False, f"{len(needs)} failed needs; the error: {error}"
    event = needs[0]
    beside = os.path.join(room.folder, f"libdt_gone{room.letter}.so")
    probes = event.probes or ()
    for probe in probes[:40]:
        room.note(f"probe, {probe.phase.value}", f"{probe.path}: {probe.outcome.value}")
    right = event.requested_by == path and beside in [probe.path for probe in probes]
    right = right and all(probe.outcome is not ProbeOutcome.LOADED for probe in probes)
    return right and _dropped(recording, path), f"{event.need} is missing, {len(probes)} places were tried"


def _dropped(recording: Recording, path: str) -> bool:
    return any(isinstance(event, LoadFailedEvent) and event.path == path for event in recording.events)


def _ask_threads(room: Room) -> Answer:
    _need_backend("rtld")
    paths = [
        [room.place("good", f"thread{thread}-{number}.so") for number in range(_ROUNDS)] for thread in range(_THREADS)
    ]

    def load(mine: list[str]) -> None:
        for path in mine:
            ctypes.CDLL(path)

    trace = Trace(backend="rtld")
    with trace:
        threads = [threading.Thread(target=load, args=(mine,)) for mine in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert trace.recording is not None
    wanted = {path for mine in paths for path in mine}
    seen = {event.path for event in trace.recording.loads} & wanted
    room.note("losses", trace.recording.losses)
    return seen == wanted and not trace.recording.losses, f"{len(seen)} of {len(wanted)} loads"


def _ask_nested(room: Room) -> Answer:
    _need_backend("rtld")
    first, second = room.place("good", "first.so"), room.place("good", "second.so")
    outer, inner = Trace(backend="rtld"), Trace(backend="rtld")
    with outer:
        ctypes.CDLL(first)
        with inner:
            ctypes.CDLL(second)
    assert outer.recording is not None and inner.recording is not None
    seen = [
        [path for path in (first, second) if path in [event.path for event in recording.loads]]
        for recording in (outer.recording, inner.recording)
    ]
    counts = [len(paths) for paths in seen]
    return seen == [[first, second], [second]], f"the outer one sees {counts[0]} of 2, the inner one {counts[1]} of 1"


def _ask_restored(room: Room) -> Answer:
    _need_backend("rtld")
    before, protection = DebugMaskPatch().before, DebugMaskPatch().protection()
    with Trace(backend="rtld"):
        ctypes.CDLL(room.place("good", "good.so"))
    after = DebugMaskPatch()
    room.note("rights of the page", after.protection())
    same = after.before == before and after.protection() == protection
    return same, f"mask and descriptor {after.before}, before {before}"


def _ask_snapshot(room: Room) -> Answer:
    path = room.place("good", "good.so")
    recording, _ = _load_traced(room, "snapshot", path)
    return path in [event.path for event in recording.loads], f"{len(recording.loads)} loads"


def _ask_gone(room: Room) -> Answer:
    """A load that fails maps its image and removes it again, between the two snapshots."""
    recording, error = _load_traced(room, "snapshot", room.place("needs-missing", "top.so"))
    counted = [note for note in recording.notes if "loaded and unloaded again" in note]
    return error is not None and len(counted) == 1, counted[0] if counted else "nothing of it"
