"""Runs in the helper process of a trace: debugs the process that traces itself, and writes each event to a file.

The process stands still while the helper is at work. So the helper waits for nothing but debug events, and a file never
makes it wait. Runs in the helper only, and imports next to nothing.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("this module is only for Windows")

import _winapi

from ....errors import TraceStartError
from .bindings import Debugging, set_event
from .loop import DEBUG_STRING, END, LOAD, NOTE, READY, REFUSED, UNLOAD, DebugLoop, encode_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .bindings import EXCEPTION_RECORD

_POLL_MS = 100  # the process wakes us by an event of its own when it wants us to leave; this is for when it cannot
_REMOVED = "the debugger was removed from the process: later events are not known"


def serve(pid: int, file: int, ready: int, stop: int, target: int) -> None:
    """Attach to a process, write its debug events down, and leave when asked to or when the process has ended.

    Arguments: the id of the process, and inherited handles: the file to write to, the event to set when the process is
    watched, the event that asks to leave, and the process itself.
    """
    api = Debugging()
    writer = Writer(file, ready)
    loop = DebugLoop(api, writer)
    error = api.attach(pid)
    if error:
        writer.write(REFUSED, error)
        return
    # The process must live on when we are killed. The call fails before we debug anything, so it comes after the attach
    # (DebugSetProcessKillOnExit, MS Learn: "the calling thread must have established at least one debugging
    # connection").
    api.keep_alive_without_us()
    try:
        while not writer.has_ended and not _is_set(stop):
            if not loop.step(_POLL_MS):
                if _is_set(target):
                    break
                if loop.running:
                    # Windows reports all loaded images at the attach, before anything new ("Debugging a Running
                    # Process", MS Learn). Then a thread that it starts in the process hits a breakpoint. That thread
                    # waits for the loader lock, which may be held for long: silence, too, means we have seen it all.
                    writer.be_ready()
    except TraceStartError:
        writer.note(pid, _REMOVED)
    finally:
        api.detach(pid)
        writer.write(END, writer.lost)


def _is_set(handle: int) -> bool:
    """Return whether an event is set, or a process has ended."""
    return _winapi.WaitForSingleObject(handle, 0) != _winapi.WAIT_TIMEOUT


class Writer:
    """The listener of the helper's `DebugLoop`: writes a line for each event.

    Arguments: the `file` to write to, and `ready`, the event to set as soon as every further load is seen.

    Attributes: `lost`, how many lines could not be written at all (the reader finds half a line); `has_ended`, whether
    the process has ended.
    """

    def __init__(self, file: int, ready: int) -> None:
        self._file = file
        self._ready: int | None = ready
        self._is_torn = False
        self.lost = 0
        self.has_ended = False

    def write(self, kind: str, *values: int | str | bytes) -> None:
        """Write a line. On a full disk the line is lost and counted: the process must not wait."""
        before = b"\n" if self._is_torn else b""  # half a line must not take this one with it
        line = before + encode_line(kind, *values)
        try:
            written, _ = _winapi.WriteFile(self._file, line)
        except OSError:
            written = 0
        self.lost += written <= len(before)
        if written:
            self._is_torn = len(before) < written < len(line)

    def be_ready(self) -> None:
        """Tell the process, once, that its further loads are seen."""
        if self._ready is not None:
            self.write(READY)
            set_event(self._ready)
            self._ready = None

    def note_start(self, pid: int, clock: int, process: int) -> None:
        pass

    def note_ready(self, pid: int, clock: int) -> None:
        self.be_ready()

    def note_load(self, pid: int, tid: int, clock: int, base: int, path: str, head: bytes) -> None:
        # As much as `decode_image_header` reads: the PE header lies where the DOS header says.
        size = int.from_bytes(head[0x3C:0x40], "little") + 96
        self.write(LOAD, tid, clock, base, path, head[:size])

    def note_unload(self, pid: int, tid: int, clock: int, base: int) -> None:
        self.write(UNLOAD, tid, clock, base)

    def note_exception(self, pid: int, tid: int, record: EXCEPTION_RECORD, is_first_chance: bool) -> None:
        pass  # either the process goes on, or nobody is left to read of it

    def note_debug_string(self, pid: int, data: bytes, is_unicode: bool) -> None:
        self.write(DEBUG_STRING, int(is_unicode), data)

    def note(self, pid: int, text: str) -> None:
        self.write(NOTE, text)

    def note_end(self, pid: int, clock: int, status: int) -> None:
        self.has_ended = True
