"""Runs the loop of a debugger: waits for debug events, hands them to a listener, answers them. Defines the lines in
which the helper of a trace writes these events.

A process stands still until its event is answered, so the listener gets an event before all that follows from it.
Nothing here needs the process to run. Every exception goes back unhandled except two that only a debugger causes: the
breakpoint that tells it that the process is ready, and the one for closing a handle that is not open.

Imports next to nothing: it also runs in the helper of a trace, which the program waits for.
"""

from __future__ import annotations

import time

from . import bindings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    from .bindings import Debugging

    class DebugListener(Protocol):
        """Gets the debug events. `clock` is `time.perf_counter_ns()`, which all processes of a machine share."""

        def note_start(self, pid: int, clock: int, process: int) -> None:
            """A process is debugged from now on; `process` is its handle, good until its end."""

        def note_ready(self, pid: int, clock: int) -> None:
            """The greeting breakpoint: what is loaded now, the process had at the attach, or before its first line."""

        def note_load(self, pid: int, tid: int, clock: int, base: int, path: str, head: bytes) -> None:
            """An image was mapped. `path` is the kernel's (`\\??\\C:\\...` is one), `head` the start of the image."""

        def note_unload(self, pid: int, tid: int, clock: int, base: int) -> None:
            """An image was unmapped."""

        def note_exception(self, pid: int, tid: int, record: bindings.EXCEPTION_RECORD, is_first_chance: bool) -> None:
            """An exception was raised (first chance), or was not handled (second)."""

        def note_debug_string(self, pid: int, data: bytes, is_unicode: bool) -> None:
            """The program called OutputDebugString."""

        def note(self, pid: int, text: str) -> None:
            """A note for the reader."""

        def note_end(self, pid: int, clock: int, status: int) -> None:
            """A process has ended."""


_HEADER_BYTES = 4096  # the headers of an image lie in its first page, or it is a strange one
_LONGEST_STRING = 1000
_GREETINGS = (0x80000003, 0x4000001F)  # STATUS_BREAKPOINT, STATUS_WX86_BREAKPOINT: 32-bit programs have both
_CLOSE_EXCEPTIONS = (0xC0000008, 0xC0000235)  # STATUS_INVALID_HANDLE, STATUS_HANDLE_NOT_CLOSABLE


class DebugLoop:
    """Answers debug events. Only the thread that starts or attaches to the processes may use it."""

    def __init__(self, api: Debugging, listener: DebugListener) -> None:
        self._api = api
        self._listener = listener
        self._event = bindings.DEBUG_EVENT()
        self._handles: dict[int, int] = {}
        self._greetings: dict[int, list[int]] = {}

    @property
    def running(self) -> tuple[int, ...]:
        """Ids of the processes that are debugged, in the order of their starts."""
        return tuple(self._handles)

    def let_go(self, pid: int) -> None:
        """Debug a process no more; it runs on."""
        self._api.detach(pid)
        self._handles.pop(pid, None)
        self._greetings.pop(pid, None)

    def step(self, milliseconds: int) -> bool:
        """Wait for one event, hand it to the listener and answer it; `False` if none came in time.

        The event is answered and its file closed, whatever the listener raises. Raises `TraceStartError` when this
        thread does not debug any process any more.
        """
        event = self._event
        if not self._api.wait(event, milliseconds):
            return False
        handled = event.dwDebugEventCode != bindings.EXCEPTION_DEBUG_EVENT
        try:
            handled = self._dispatch(event)
        finally:
            answer = bindings.DBG_CONTINUE if handled else bindings.DBG_EXCEPTION_NOT_HANDLED
            self._api.resume(event.dwProcessId, event.dwThreadId, answer)
        return True

    def _dispatch(self, event: bindings.DEBUG_EVENT) -> bool:
        """Hand an event to the listener; `False` for an exception that the program itself must handle."""
        code, info, pid, tid = event.dwDebugEventCode, event.u, event.dwProcessId, event.dwThreadId
        clock = time.perf_counter_ns()
        if code == bindings.LOAD_DLL_DEBUG_EVENT:
            self._on_load(pid, tid, clock, info.LoadDll.hFile, info.LoadDll.lpBaseOfDll)
        elif code == bindings.UNLOAD_DLL_DEBUG_EVENT:
            self._listener.note_unload(pid, tid, clock, info.UnloadDll.lpBaseOfDll)
        elif code == bindings.EXCEPTION_DEBUG_EVENT:
            return self._on_exception(pid, tid, clock, info.Exception)
        elif code == bindings.CREATE_PROCESS_DEBUG_EVENT:
            self._handles[pid], self._greetings[pid] = info.CreateProcessInfo.hProcess or 0, list(_GREETINGS)
            self._listener.note_start(pid, clock, self._handles[pid])
            self._on_load(pid, tid, clock, info.CreateProcessInfo.hFile, info.CreateProcessInfo.lpBaseOfImage)
        elif code == bindings.EXIT_PROCESS_DEBUG_EVENT:
            self._listener.note_end(pid, clock, info.ExitProcess.dwExitCode)
            self._handles.pop(pid, None)
        elif code == bindings.OUTPUT_DEBUG_STRING_EVENT:
            self._on_debug_string(pid, info.DebugString)
        elif code == bindings.RIP_EVENT:
            self._listener.note(pid, f"Windows reports a system debugging error {info.RipInfo.dwError}")
        return True

    def _on_load(self, pid: int, tid: int, clock: int, file: int | None, base: int) -> None:
        path, process = None, self._handles.get(pid, 0)
        if file:
            try:
                path = self._api.file_path(file)
            finally:
                self._api.close(file)
        if path is not None and path.startswith("\\\\?\\"):
            path = "\\??\\" + path[4:]
        path = path or self._api.mapped_path(process, base) or f"(image at {base:#x})"
        self._listener.note_load(pid, tid, clock, base, path, self._api.read_memory(process, base, _HEADER_BYTES))

    def _on_exception(self, pid: int, tid: int, clock: int, info: bindings.EXCEPTION_DEBUG_INFO) -> bool:
        code, is_first_chance = info.ExceptionRecord.ExceptionCode, bool(info.dwFirstChance)
        expected = self._greetings.get(pid, [])
        if is_first_chance and code in expected:
            # A program started under a debugger stops in the loader (ntdll) when its own DLLs are mapped. In a running
            # process DebugActiveProcess starts a thread that hits a breakpoint, after events for all that is there
            # (DebugActiveProcess, MS Learn). Either marks the end of what was loaded before, and must be answered as
            # handled: given back to the process it would end it. Once each: a later breakpoint is the program's own.
            expected.remove(code)
            self._listener.note_ready(pid, clock)
            return True
        if is_first_chance and code in _CLOSE_EXCEPTIONS:
            # "CloseHandle function", MS Learn: raised for programs with a debugger only; others get an error code.
            self._listener.note(pid, f"thread {tid} closed a handle that was not open, or not to be closed")
            return True
        self._listener.note_exception(pid, tid, info.ExceptionRecord, is_first_chance)
        return False

    def _on_debug_string(self, pid: int, info: bindings.OUTPUT_DEBUG_STRING_INFO) -> None:
        size = min(info.nDebugStringLength, _LONGEST_STRING) * (2 if info.fUnicode else 1)
        data = self._api.read_memory(self._handles.get(pid, 0), info.lpDebugStringData, size)
        self._listener.note_debug_string(pid, data, bool(info.fUnicode))


LOAD, UNLOAD, DEBUG_STRING, NOTE = "load", "unload", "string", "note"
READY, REFUSED, END = "ready", "refused", "end"

_SHAPES: dict[str, tuple[int | type, ...]] = {
    LOAD: (32, 63, 63, str, bytes),  # thread, clock, base, path, start of the image
    UNLOAD: (32, 63, 63),  # thread, clock, base
    DEBUG_STRING: (1, bytes),  # whether it is UTF-16, the text
    NOTE: (str,),
    READY: (),  # lines before this one tell what was loaded before the attach
    REFUSED: (32,),  # Windows' error
    END: (63,),  # how many lines could not be written
}
"""The values of each kind: a number of so many bits, text, bytes."""


def encode_line(kind: str, *values: int | str | bytes) -> bytes:
    """Return a line of that kind."""
    return " ".join([kind, *map(_encode, values), "\n"]).encode("ascii")


def decode_lines(data: bytes) -> Iterator[tuple[Any, ...] | None]:
    """Yield each line as its kind and values, `None` for a damaged one."""
    *whole, rest = data.split(b"\n")
    for line in whole:
        yield _decode_line(line)
    if rest:
        yield None


def _encode(value: int | str | bytes) -> str:
    if isinstance(value, str):
        return f"s{value.encode('utf-8', 'surrogatepass').hex()}"
    return f"x{value.hex()}" if isinstance(value, bytes) else str(value)


def _decode_line(line: bytes) -> tuple[Any, ...] | None:
    try:
        kind, *words, end = line.decode("ascii").split(" ")
        values = [_decode(word) for word in words]
    except ValueError:
        return None
    shape = _SHAPES.get(kind)
    if shape is None or end or len(shape) != len(values) or not all(map(_fits, values, shape)):
        return None
    return kind, *values


def _decode(word: str) -> int | str | bytes:
    if word.startswith("s"):
        return bytes.fromhex(word[1:]).decode("utf-8", "surrogatepass")
    return bytes.fromhex(word[1:]) if word.startswith("x") else int(word)


def _fits(value: int | str | bytes, shape: int | type) -> bool:
    if isinstance(shape, int):
        return isinstance(value, int) and 0 <= value < 1 << shape
    return type(value) is shape
