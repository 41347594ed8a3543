"""The loop of a debugger: waits for the debug events of one or more processes, tells them, answers them.

A process stands still until its event is answered, so an event is told before anything that came of it. Nothing here
needs the process to run. Every exception goes back unhandled, with two exceptions that only a debugger causes: the
breakpoint with which Windows greets it, and the one for closing a handle that is not open.

Imports next to nothing: it also runs in the helper of a trace, which the program waits for.
"""

from __future__ import annotations

import time

from . import debug_structs as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from .debug_bindings import Debugging

    class Listener(Protocol):
        """Gets what happens. `clock` is `time.perf_counter_ns()`, which all processes of a machine share."""

        def note_start(self, pid: int, clock: int, process: int) -> None:
            """A process is debugged from now on; `process` is its handle, good until its end."""

        def note_ready(self, pid: int, clock: int) -> None:
            """The greeting breakpoint: what is loaded now, the process had at the attach, or before its first line."""

        def note_load(self, pid: int, tid: int, clock: int, base: int, path: str, head: bytes) -> None:
            """An image was mapped. `path` is the kernel's (`\\??\\C:\\...` is one), `head` the start of the image."""

        def note_unload(self, pid: int, tid: int, clock: int, base: int) -> None:
            """An image was unmapped."""

        def note_exception(self, pid: int, tid: int, record: s.EXCEPTION_RECORD, is_first_chance: bool) -> None:
            """An exception was raised (first chance), or was handled by nobody (second)."""

        def note_said(self, pid: int, data: bytes, is_unicode: bool) -> None:
            """OutputDebugString."""

        def note(self, pid: int, text: str) -> None:
            """Something else that is worth telling."""

        def note_end(self, pid: int, clock: int, status: int) -> None:
            """A process has ended."""


_HEADER_BYTES = 4096  # the headers of an image lie in its first page, or it is a strange one
_LONGEST_STRING = 1000
_GREETINGS = (0x80000003, 0x4000001F)  # STATUS_BREAKPOINT, STATUS_WX86_BREAKPOINT: 32-bit programs have both
_CLOSE_EXCEPTIONS = (0xC0000008, 0xC0000235)  # STATUS_INVALID_HANDLE, STATUS_HANDLE_NOT_CLOSABLE


class DebugLoop:
    """Answers debug events. Only the thread that starts or attaches to the processes may use it."""

    def __init__(self, api: Debugging, listener: Listener) -> None:
        self._api = api
        self._listener = listener
        self._event = s.DEBUG_EVENT()
        self._handles: dict[int, int] = {}
        self._greetings: dict[int, list[int]] = {}

    @property
    def running(self) -> tuple[int, ...]:
        """Ids of the processes that are debugged, in the order of their starts."""
        return tuple(self._handles)

    def step(self, milliseconds: int) -> bool:
        """Wait for one event, tell and answer it; `False` if none came in time.

        The event is answered and its file closed, whatever the listener raises. Raises `TraceStartError` when this
        thread is nobody's debugger any more.
        """
        event = self._event
        if not self._api.wait(event, milliseconds):
            return False
        handled = event.dwDebugEventCode != s.EXCEPTION_DEBUG_EVENT
        try:
            handled = self._tell(event)
        finally:
            answer = s.DBG_CONTINUE if handled else s.DBG_EXCEPTION_NOT_HANDLED
            self._api.resume(event.dwProcessId, event.dwThreadId, answer)
        return True

    def _tell(self, event: s.DEBUG_EVENT) -> bool:
        """`False` for an exception that is for the program to handle."""
        code, info, pid, tid = event.dwDebugEventCode, event.u, event.dwProcessId, event.dwThreadId
        clock = time.perf_counter_ns()
        if code == s.LOAD_DLL_DEBUG_EVENT:
            self._tell_load(pid, tid, clock, info.LoadDll.hFile, info.LoadDll.lpBaseOfDll)
        elif code == s.UNLOAD_DLL_DEBUG_EVENT:
            self._listener.note_unload(pid, tid, clock, info.UnloadDll.lpBaseOfDll)
        elif code == s.EXCEPTION_DEBUG_EVENT:
            return self._tell_exception(pid, tid, clock, info.Exception)
        elif code == s.CREATE_PROCESS_DEBUG_EVENT:
            self._handles[pid], self._greetings[pid] = info.CreateProcessInfo.hProcess or 0, list(_GREETINGS)
            self._listener.note_start(pid, clock, self._handles[pid])
            self._tell_load(pid, tid, clock, info.CreateProcessInfo.hFile, info.CreateProcessInfo.lpBaseOfImage)
        elif code == s.EXIT_PROCESS_DEBUG_EVENT:
            self._listener.note_end(pid, clock, info.ExitProcess.dwExitCode)
            self._handles.pop(pid, None)
        elif code == s.OUTPUT_DEBUG_STRING_EVENT:
            self._tell_string(pid, info.DebugString)
        elif code == s.RIP_EVENT:
            self._listener.note(pid, f"Windows reports a system debugging error {info.RipInfo.dwError}")
        return True

    def _tell_load(self, pid: int, tid: int, clock: int, file: int | None, base: int) -> None:
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

    def _tell_exception(self, pid: int, tid: int, clock: int, info: s.EXCEPTION_DEBUG_INFO) -> bool:
        code, is_first_chance = info.ExceptionRecord.ExceptionCode, bool(info.dwFirstChance)
        expected = self._greetings.get(pid, [])
        if is_first_chance and code in expected:
            # Once each: before a program begins the loader stops for the debugger, and at an attach a thread does.
            expected.remove(code)
            self._listener.note_ready(pid, clock)
            return True
        if is_first_chance and code in _CLOSE_EXCEPTIONS:
            # "CloseHandle function", MS Learn: raised for programs with a debugger only; others get an error code.
            self._listener.note(pid, f"thread {tid} closed a handle that was not open, or not to be closed")
            return True
        self._listener.note_exception(pid, tid, info.ExceptionRecord, is_first_chance)
        return False

    def _tell_string(self, pid: int, info: s.OUTPUT_DEBUG_STRING_INFO) -> None:
        size = min(info.nDebugStringLength, _LONGEST_STRING) * (2 if info.fUnicode else 1)
        data = self._api.read_memory(self._handles.get(pid, 0), info.lpDebugStringData, size)
        self._listener.note_said(pid, data, bool(info.fUnicode))
