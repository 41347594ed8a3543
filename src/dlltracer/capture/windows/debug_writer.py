"""What the helper of a trace does: it is the debugger of a process that traces itself, and writes down what it sees.

It never waits for the process in any other way than for its debug events, and what it writes goes to a file, which
never makes it wait: the process stands still while it is at work. Runs in the helper only, and imports next to nothing.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("only for Windows: capture.select keeps other systems away")

import _winapi

from ...errors import TraceStartError
from .debug_bindings import Debugging, set_event
from .debug_lines import END, LOAD, NOTE, READY, REFUSED, SAID, UNLOAD, encode_line
from .debug_loop import DebugLoop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .debug_structs import EXCEPTION_RECORD

_POLL_MS = 100  # the process wakes us by an event of its own when it wants us to leave; this is for when it cannot
_REMOVED = "the debugger was removed from the process: what came after that is not known"


def serve(pid: int, file: int, ready: int, stop: int, target: int) -> None:
    """Attach to a process, write down what happens, and leave when told so, or when the process has ended.

    Arguments: its id, and handles that this process inherited: the file to write to, the event to set when the process
    is watched, the event that tells to leave, the process itself.
    """
    api = Debugging()
    writer = Writer(file, ready)
    loop = DebugLoop(api, writer)
    error = api.attach(pid)
    if error:
        writer.write(REFUSED, error)
        return
    # It shall live on when we are killed. Windows takes this word from a debugger only, so not before.
    api.keep_alive_without_us()
    try:
        while not writer.has_ended and not _is_set(stop):
            if not loop.step(_POLL_MS):
                if _is_set(target):
                    break
                if loop.running:
                    # All it had loaded is told at once. The greeting may be late: its thread waits for the loader.
                    writer.be_ready()
    except TraceStartError:
        writer.note(pid, _REMOVED)
    finally:
        api.detach(pid)
        writer.write(END, writer.lost)


def _is_set(handle: int) -> bool:
    """Whether an event is set, or a process has ended."""
    return _winapi.WaitForSingleObject(handle, 0) != _winapi.WAIT_TIMEOUT


class Writer:
    """Writes down what the loop tells.

    Arguments: the `file` to write to, and `ready`, the event to set as soon as everything is seen.

    Attributes: `lost`, how many lines could not be written at all (half a line is found by who reads it); `has_ended`,
    that the process is no more.
    """

    def __init__(self, file: int, ready: int) -> None:
        self._file = file
        self._ready: int | None = ready
        self._is_torn = False
        self.lost = 0
        self.has_ended = False

    def write(self, kind: str, *values: int | str | bytes) -> None:
        """A line. Where there is no room for it, it is lost: the process must not wait."""
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
        """Tell the process, once, that whatever it loads from now on is seen."""
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

    def note_said(self, pid: int, data: bytes, is_unicode: bool) -> None:
        self.write(SAID, int(is_unicode), data)

    def note(self, pid: int, text: str) -> None:
        self.write(NOTE, text)

    def note_end(self, pid: int, clock: int, status: int) -> None:
        self.has_ended = True
