"""Runs a program as its debugger: every load and unload, every exception, and how it ended. Needs no privilege.

The thread that starts a process with DEBUG_ONLY_THIS_PROCESS is its debugger, and only that thread is told its events
("WaitForDebugEvent", MS Learn). The process stands still until each is answered, so an event is told before anything
that came of it.

The program shall run as it would alone. Every exception goes back unhandled, and two things that Windows does to
processes with a debugger are undone: their slow heap, and the exception for closing a handle twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace

from ...errors import BackendUnavailable, TraceStartError
from ...model.request import RequestKind
from . import debug_structs as s
from .bindings import query_dos_devices
from .debug_bindings import ERROR_ELEVATION_REQUIRED, ERROR_NOT_SUPPORTED, Debugging
from .debug_decode import Account, Happening, decode_debug_string, decode_image_header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...model.crash import Crash
    from ...model.events import Event
    from ...model.request import Request

NAME = "debugger"

_POLL_MS = 100  # how long Ctrl-C may go unnoticed here
_HEADER_BYTES = 4096  # the headers of an image lie in its first page, or it is a strange one
_LONGEST_STRING = 1000
_INITIAL_BREAKPOINTS = (0x80000003, 0x4000001F)  # STATUS_BREAKPOINT, STATUS_WX86_BREAKPOINT
_CLOSE_EXCEPTIONS = (0xC0000008, 0xC0000235)  # STATUS_INVALID_HANDLE, STATUS_HANDLE_NOT_CLOSABLE


@dataclass(frozen=True)
class DebuggedRun:
    """What a debugger saw of a program.

    Attributes:
        status: the exit status, 32 bits without a sign.
        events: loads and unloads in order, the program itself first.
        crash: the exception that ended it; `None` if it ended by itself or was terminated.
        notes: what it said with OutputDebugString, and what else a reader must know.
        pid: of the program.
    """

    status: int
    events: tuple[Event, ...]
    crash: Crash | None
    notes: tuple[str, ...]
    pid: int


def run_debugged(
    command: list[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    output: int | None = None,
    requests: Callable[[], Sequence[Request]] | None = None,
) -> DebuggedRun:
    """Run a program to its end, with our standard streams and inheritable handles, and tell what it loaded.

    Processes that it starts are not seen. When we are interrupted (Ctrl-C), or our process is ended, it runs on without
    a debugger.

    Args:
        command: the program and its arguments.
        env: its environment; ours if `None`. `_NO_DEBUG_HEAP` is added.
        cwd: its current folder; ours if `None`.
        output: a descriptor that gets what it writes to its standard streams; they are ours if `None`.
        requests: asked once when the program has ended: what it requested of the loader (`Watch.stop()` in it). They
            give the loads their imports and tell failed loads from unloads; without, every unload is an `UnloadEvent`.

    Raises:
        TraceStartError: the program could not be started, or not as a debuggee.
        BackendUnavailable: this is not Windows.
    """
    if sys.platform != "win32":
        raise BackendUnavailable(NAME, "processes are debugged by it on Windows only")
    api = Debugging()
    account = Account(query_dos_devices())
    wall, clock = time.time(), time.perf_counter_ns()
    child = _start(command, env, cwd, output)
    try:
        api.keep_alive_without_us()
        _Debugger(api, account, child).follow()
    except BaseException:
        api.detach(child.pid)
        raise
    status = child.wait()
    asked = [_as_final(request, cwd) for request in requests()] if requests is not None else []
    events = account.events(asked, child.pid, wall, clock)
    return DebuggedRun(status, events, account.crash(status), account.notes(), child.pid)


def _start(
    command: list[str], env: Mapping[str, str] | None, cwd: str | None, output: int | None
) -> subprocess.Popen[bytes]:
    # "Behavior of Spawned Processes", Debugging Tools for Windows: without it, the heap is slow and checks itself.
    given = {"_NO_DEBUG_HEAP": "1", **(os.environ if env is None else env)}
    behind = _behind_redirector(command[0])
    if behind is not None:
        command, given["__PYVENV_LAUNCHER__"] = [behind, *command[1:]], os.path.abspath(command[0])
    try:
        # close_fds off: what was handed to us (a pipe of the shell, a socket) is for the program.
        return subprocess.Popen(
            command, env=given, cwd=cwd, stdout=output, stderr=output, close_fds=False,
            creationflags=s.DEBUG_ONLY_THIS_PROCESS,
        )  # fmt: skip
    except OSError as error:
        code = getattr(error, "winerror", None) or 0
        remedy = {
            ERROR_NOT_SUPPORTED: "a 32-bit Python cannot debug a 64-bit program: use a 64-bit one",
            ERROR_ELEVATION_REQUIRED: "the program wants to run as Administrator: start this as Administrator",
        }.get(code, f"{command[0]} could not be started: {error.strerror}")
        raise TraceStartError("CreateProcess", code, remedy) from error


def _behind_redirector(program: str) -> str | None:
    """The python.exe that the one of a virtual environment starts as another process, unseen by us; `None` if it is no
    such one. What it does then is done here (PC/venvlauncher.c of CPython; multiprocessing does so as well)."""
    folder, name = os.path.split(os.path.abspath(program))
    places = (folder, os.path.dirname(folder)) if os.path.isfile(program) else ()
    for place in places:
        try:
            with open(os.path.join(place, "pyvenv.cfg"), encoding="utf-8", errors="replace") as file:
                settings = [line.partition("=") for line in file]
        except OSError:
            continue
        for key, _, value in settings:
            base = os.path.join(value.strip(), name)
            if key.strip().lower() == "home" and os.path.isfile(base):
                return base
    return None


def _as_final(request: Request, cwd: str | None) -> Request:
    """A request with the path that Windows has for the open file: without links, short names, substituted drives."""
    if request.kind is not RequestKind.EXTENSION:
        return request
    path = os.path.join(cwd or "", request.target)
    try:
        return replace(request, target=os.path.realpath(path))
    except OSError:  # a path of 260 characters or more: Windows does not open what it cannot load either
        return request


class _Debugger:
    """Answers the debug events of one process until it ends."""

    def __init__(self, api: Debugging, account: Account, child: subprocess.Popen[bytes]) -> None:
        self._api = api
        self._account = account
        self._child = child
        self._process = 0
        self._breakpoints = list(_INITIAL_BREAKPOINTS)

    def follow(self) -> None:
        """Return when the process has ended. Every event is answered and its file closed, whatever happens."""
        event = s.DEBUG_EVENT()
        while True:
            if not self._api.wait(event, _POLL_MS):
                if self._child.poll() is None:
                    continue
                # It, or somebody else, can do so: NtRemoveProcessDebug.
                self._account.note("the debugger was removed from the program: what came after that is not known")
                return
            handled = event.dwDebugEventCode != s.EXCEPTION_DEBUG_EVENT
            try:
                handled = self._note(event)
            finally:
                answer = s.DBG_CONTINUE if handled else s.DBG_EXCEPTION_NOT_HANDLED
                self._api.resume(event.dwProcessId, event.dwThreadId, answer)
            # A late event of a process that this thread debugged before is answered, and is not the end of this one.
            if event.dwDebugEventCode == s.EXIT_PROCESS_DEBUG_EVENT and event.dwProcessId == self._child.pid:
                return

    def _note(self, event: s.DEBUG_EVENT) -> bool:
        """Write the event down; `False` for an exception that is for the program to handle."""
        code, info = event.dwDebugEventCode, event.u
        when = Happening(event.dwProcessId, event.dwThreadId, time.perf_counter_ns())
        if code == s.LOAD_DLL_DEBUG_EVENT:
            self._note_load(when, info.LoadDll.hFile, info.LoadDll.lpBaseOfDll)
        elif code == s.UNLOAD_DLL_DEBUG_EVENT:
            self._account.note_unload(when, info.UnloadDll.lpBaseOfDll)
        elif code == s.EXCEPTION_DEBUG_EVENT:
            return self._note_exception(when, info.Exception)
        elif code == s.CREATE_PROCESS_DEBUG_EVENT:
            self._process = info.CreateProcessInfo.hProcess
            self._note_load(when, info.CreateProcessInfo.hFile, info.CreateProcessInfo.lpBaseOfImage)
        elif code == s.OUTPUT_DEBUG_STRING_EVENT:
            self._note_string(info.DebugString)
        elif code == s.RIP_EVENT:
            self._account.note(f"Windows reports a system debugging error {info.RipInfo.dwError}")
        return True

    def _note_load(self, when: Happening, file: int | None, base: int) -> None:
        path = None
        if file:
            try:
                path = self._api.file_path(file)
            finally:
                self._api.close(file)
        if path is not None and path.startswith("\\\\?\\"):
            path = "\\??\\" + path[4:]
        path = path or self._api.mapped_path(self._process, base) or f"(image at {base:#x})"
        header = decode_image_header(self._api.read_memory(self._process, base, _HEADER_BYTES))
        self._account.note_load(when, base, path, header)

    def _note_exception(self, when: Happening, info: s.EXCEPTION_DEBUG_INFO) -> bool:
        """Write it down, unless it is one that only a debugger causes: then `True`."""
        code, is_first_chance = info.ExceptionRecord.ExceptionCode, bool(info.dwFirstChance)
        if is_first_chance and code in self._breakpoints:
            # Once each: the loader stops for the debugger before the program begins; for 32-bit programs twice.
            self._breakpoints.remove(code)
            return True
        if is_first_chance and code in _CLOSE_EXCEPTIONS:
            # "CloseHandle function", MS Learn: raised for programs with a debugger only; others get an error code.
            self._account.note(f"thread {when.tid} closed a handle that was not open, or not to be closed")
            return True
        self._account.note_exception(when.tid, info.ExceptionRecord, is_first_chance)
        return False

    def _note_string(self, info: s.OUTPUT_DEBUG_STRING_INFO) -> None:
        width = 2 if info.fUnicode else 1
        size = min(info.nDebugStringLength, _LONGEST_STRING) * width
        data = self._api.read_memory(self._process, info.lpDebugStringData, size)
        self._account.note(f"the program said: {decode_debug_string(data, bool(info.fUnicode))}")
