"""Runs a program as its debugger: every load and unload, every exception, and how it ended. Needs no privilege.

The thread that starts a process with DEBUG_ONLY_THIS_PROCESS is its debugger; with DEBUG_PROCESS also of all that the
process starts. Only that thread gets the debug events ("WaitForDebugEvent", MS Learn).

The program must run as it would alone: every exception goes back unhandled (see `loop`), and the slow heap that Windows
gives to processes with a debugger is turned off.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass

from ....errors import BackendUnavailable, TraceStartError
from ..system import query_dos_devices, with_final_path
from .bindings import DEBUG_ONLY_THIS_PROCESS, DEBUG_PROCESS, ERROR_ELEVATION_REQUIRED, ERROR_NOT_SUPPORTED, Debugging
from .loop import DebugLoop
from .processes import DebuggedProcesses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ....model.crash import Crash
    from ....model.events import Event
    from ....model.failure import Request
    from ....model.recording import TracedProcess

NAME = "debugger"

_POLL_MS = 100  # how long Ctrl-C may go unnoticed here
_LAST_SECONDS = 2.0  # for the ends of processes that end together with the program


@dataclass(frozen=True)
class DebuggedRun:
    """What a debugger saw of a program.

    Attributes:
        status: the exit status, 32 bits without a sign.
        events: loads and unloads in order, the program itself first.
        crash: the exception that ended it; `None` if it ended by itself or was terminated.
        notes: its OutputDebugString texts, and what else a reader must know.
        pid: of the program.
        processes: the program, and when they were followed those that it started, in the order of their starts.
    """

    status: int
    events: tuple[Event, ...]
    crash: Crash | None
    notes: tuple[str, ...]
    pid: int
    processes: tuple[TracedProcess, ...] = ()


def run_debugged(  # noqa: PLR0913 - one call, whose arguments all have defaults but the first
    command: list[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    output: int | tuple[int, int] | None = None,
    requests: Callable[[], Sequence[Request]] | None = None,
    begun: Callable[[], int | None] | None = None,
    follow: bool = False,
    on_event: Callable[[Event | TracedProcess], None] | None = None,
    on_start: Callable[[subprocess.Popen[bytes]], None] | None = None,
) -> DebuggedRun:
    """Run a program to its end, with our standard streams and inheritable handles, and return what it loaded.

    When we are interrupted (Ctrl-C), or our process is ended, it runs on without a debugger.

    Args:
        command: the program and its arguments.
        env: its environment; ours if `None`. `_NO_DEBUG_HEAP` is added.
        cwd: its current folder; ours if `None`.
        output: a descriptor that gets what it writes to its standard streams, or one each for stdout and stderr; they
            are ours if `None`.
        requests: asked once when the program has ended: what it requested of the loader (`Watch.stop()` in it). They
            give the loads their imports and tell failed loads from unloads; without, every unload is an `UnloadEvent`.
        begun: asked once, too: when it began, as `time.perf_counter_ns()`. What it loaded before is left out.
        follow: debug what it starts, too, and what they start, until the program ends. Otherwise they are not seen.
        on_event: called at once with each process, before its first event and when it has ended, and with each load
            and unload, without what `begun` and `requests` tell later. The program waits meanwhile. It must not raise.
        on_start: called with the process before its first event is read. Whoever gets it may terminate it at any time:
            the debugger then sees it end.

    Raises:
        TraceStartError: the program could not be started, or not as a debuggee.
        BackendUnavailable: this is not Windows.
    """
    if sys.platform != "win32":
        raise BackendUnavailable(NAME, "processes are debugged by it on Windows only")
    api = Debugging()
    processes = DebuggedProcesses(api, query_dos_devices(), time.time(), time.perf_counter_ns(), on_event)
    loop = DebugLoop(api, processes)
    streams = output if isinstance(output, tuple) else (output, output)
    child = _start(command, env, cwd, streams, DEBUG_PROCESS if follow else DEBUG_ONLY_THIS_PROCESS)
    try:
        api.keep_alive_without_us()
        if on_start is not None:
            on_start(child)
        _follow(loop, processes, child)
    except BaseException:
        for pid in {child.pid, *loop.running}:
            api.detach(pid)
        raise
    for pid in loop.running:
        if pid == child.pid:
            continue  # it got rid of its debugger
        processes.note(pid, "it was there when the program ended, and went on unseen")
        api.detach(pid)
    status = child.wait()
    asked = [with_final_path(request, cwd) for request in requests()] if requests is not None else []
    since = begun() if begun is not None else None
    return DebuggedRun(
        status, processes.events(asked, since), processes.crash(status), processes.notes(), child.pid,
        processes.processes(),
    )  # fmt: skip


def _follow(loop: DebugLoop, processes: DebuggedProcesses, child: subprocess.Popen[bytes]) -> None:
    """Answer debug events until the program has ended."""
    while not processes.has_ended(child.pid):
        if loop.step(_POLL_MS) or child.poll() is None:
            continue
        # The wait may time out just before the last events arrive, and the end of a process is an event and a signal at
        # once (seen under Wine on a busy machine). Events that are there when it has ended are read first.
        while not processes.has_ended(child.pid) and loop.step(0):
            pass
        if not processes.has_ended(child.pid):
            # The program, or another one, can remove its debugger: NtRemoveProcessDebug.
            processes.note(child.pid, "the debugger was removed from the program: later events are not known")
            break
    until = time.monotonic() + _LAST_SECONDS
    while loop.running and child.pid not in loop.running and time.monotonic() < until and loop.step(0):
        pass


def _start(
    command: list[str], env: Mapping[str, str] | None, cwd: str | None, streams: tuple[int | None, int | None],
    flags: int,
) -> subprocess.Popen[bytes]:
    # "Behavior of Spawned Processes", Debugging Tools for Windows: without it, the heap is slow and checks itself.
    given = {"_NO_DEBUG_HEAP": "1", **(os.environ if env is None else env)}
    behind = _behind_redirector(command[0])
    if behind is not None:
        command, given["__PYVENV_LAUNCHER__"] = [behind, *command[1:]], os.path.abspath(command[0])
    try:
        # close_fds off: what was handed to us (a pipe of the shell, a socket) is for the program.
        return subprocess.Popen(
            command, env=given, cwd=cwd, stdout=streams[0], stderr=streams[1], close_fds=False, creationflags=flags
        )
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
