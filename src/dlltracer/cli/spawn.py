"""Run the program in a process of its own, and bring home what its trace recorded.

A process of its own, because ours has imported click and rich: their imports would hide the program's. And because the
evidence must outlive the program: a crash in an import is what people come for.
"""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from dataclasses import dataclass, replace

from ..errors import DlltracerError
from ..host.failure import read_failure, read_process
from ..host.scratch import ScratchFolder
from ..model.decode import DamagedRecording, decode
from ..model.recording import Recording
from .ending import describe_ending
from .relay import Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from ..model.crash import Crash
    from ..model.events import Event
    from ..model.failure import Failure, ProcessFacts
    from ..model.process import TracedProcess
    from ..model.request import Request
    from .program import Program

    class Sink(Protocol):
        """Gets what a run records, as it comes; the waiting loop of the parent calls it.

        One that raises is not called again: the run goes on, and a note of the recording says so.
        """

        def process(self, process: TracedProcess) -> None:
            """A process, before its first event; again, when more is known of it: the last word counts."""

        def early(self, event: Event) -> None:
            """An event as it was seen first, where its final form is known only when the program has ended. All events
            come as `event` then, these among them."""

        def event(self, event: Event) -> None:
            """An event, in its final form."""


UNTRACED = "none"
"""In the place of a backend's name: run the program, and tell how it ended only."""

CHILD_MAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child_main.py")


class CannotRun(DlltracerError):
    """The process for the program could not be made, or ended before it could begin."""


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        status: as of `subprocess.Popen`: negative for a signal.
        recording: what the trace recorded; `None` if the program never began (there is no such script or module).
        refusal: why the trace could not start, in which case the program was not run.
        failure: the exceptions that ended the program.
        begun: whether the program began at all.
        crash: where it crashed; `None` if it did not, or nobody watched.
        crash_note: what is doubtful about `crash`, or why there is none.
        initialising: the image whose initialiser was running when it crashed, as far as the loader told.
        requests: what Python asked of the loader, where that was written down apart from the recording.
        added_folders: of os.add_dll_directory, written down as they came.
        process: what its interpreter knew when it ended; `None` if it could not tell.
    """

    status: int
    recording: Recording | None = None
    refusal: str | None = None
    failure: Failure | None = None
    begun: bool = True
    crash: Crash | None = None
    crash_note: str | None = None
    initialising: str | None = None
    requests: tuple[Request, ...] = ()
    added_folders: tuple[str, ...] = ()
    process: ProcessFacts | None = None


@dataclass(frozen=True)
class _Run:
    """A child that has ended: its status and process id, its crash with a note on it."""

    status: int
    pid: int
    crash: Crash | None = None
    crash_note: str | None = None


def run_child(
    program: Program, backend: str, *, python: str | None = None, said: int | None = None, watch_crash: bool = False
) -> Ending:
    """Run the program to its end. Raises `CannotRun`.

    Arguments:
        program: what to run.
        backend: the mechanism; `UNTRACED` for none.
        python: the interpreter; `None` for this one, with the options it was given.
        said: a descriptor that gets what the program writes; `None`: our standard streams are its own.
        watch_crash: find out where it crashes, if it does. The program can tell: it has a tracer, and Python's
            faulthandler writes where it was.
    """
    log = make_log(backend)
    with ScratchFolder() as folder:
        try:
            result = os.path.join(folder.path, "result")
            channel = [result, "-" if log is None else str(log), backend]
            command = [python] if python is not None else interpreter()
            if watch_crash:
                command += ["-X", "faulthandler"]
            command += [CHILD_MAIN, *channel, program.kind.value, program.name, *program.arguments]
            ran = _run(command, log, said, watch_crash)
            ending = _ending(ran, read_result(result), backend, log)
            if ran.status >= 0 or not watch_crash:
                return ending
            initialising = _read_initialising(log, ran.pid)
            return replace(ending, crash=ran.crash, crash_note=ran.crash_note, initialising=initialising)
        finally:
            if log is not None:
                os.close(log)


def make_log(backend: str) -> int | None:
    """A memfd for the loader's text, which we can read when the program is dead; `None` where there is none."""
    if sys.platform == "linux" and backend in ("auto", "rtld"):
        import fcntl

        from ..capture.linux.memfile import create_memory_file

        try:
            low = create_memory_file("dlltracer-account")
        except OSError:
            return None  # the mechanism then makes, or misses, its own
        try:
            # Out of the way: the first file that a program opens is often descriptor 3, and some count on it.
            return fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 200)
        except OSError:
            return os.dup(low)
        finally:
            os.close(low)
    return None


def interpreter() -> list[str]:
    """This interpreter, with the options that it was given."""
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    given = {option.partition("=")[0] for option in options}
    # subprocess passes on the -X options that it knows; the program may look for any other in sys._xoptions.
    for name, value in sys._xoptions.items():
        if name not in given:
            options += ["-X", name if value is True else f"{name}={value}"]
    if getattr(sys.__stdout__, "write_through", False):
        options.append("-u")
    return [sys.executable, *options]


def _run(command: list[str], log: int | None, said: int | None, watch_crash: bool) -> _Run:
    """Run it to its end."""
    wait = _watcher() if watch_crash else None
    with Relay() as relay:
        try:
            if log is not None:
                os.set_inheritable(log, True)
            # close_fds off: what was handed to us (a pipe of the shell, a socket) is for the program.
            child = subprocess.Popen(command, close_fds=False, stdout=said, stderr=said)
        except OSError as error:
            raise CannotRun(f"{command[0]} could not be started: {error.strerror or error}") from error
        finally:
            if log is not None:
                os.set_inheritable(log, False)
        relay.connect(child)
        return _Run(child.wait(), child.pid) if wait is None else wait(child)


def _watcher() -> Callable[[subprocess.Popen[bytes]], _Run] | None:
    """What waits for a child and sees its crash. Made before the child is: its first moments count."""
    if sys.platform != "linux":
        return None
    import contextlib

    from ..capture.linux import crashwatch

    with contextlib.suppress(ImportError):  # crashwatch then says it
        from ..capture.linux import ptrace  # noqa: F401 - else the watching begins with this import

    def wait(child: subprocess.Popen[bytes]) -> _Run:
        watched = crashwatch.watch(child)
        return _Run(watched.status, child.pid, watched.crash, watched.note)

    return wait


def _read_initialising(log: int | None, pid: int) -> str | None:
    """The image whose initialiser ran when the program died, in the loader's log."""
    if sys.platform == "linux" and log is not None:
        from ..capture.linux.rtld import read_initialising

        return read_initialising(log, pid)
    return None


def read_result(path: str) -> dict[str, object] | None:
    """What the runner left: a dictionary with an "outcome". `None` if it left nothing, or something damaged."""
    try:
        with open(path, "rb") as file:
            said = marshal.load(file)  # noqa: S302 - written by the same user, in a folder of our own
    except (OSError, EOFError, ValueError, TypeError):
        return None
    return said if isinstance(said, dict) and isinstance(said.get("outcome"), str) else None


def _ending(ran: _Run, said: dict[str, object] | None, backend: str, log: int | None) -> Ending:
    status = ran.status
    outcome = said["outcome"] if said is not None else "nothing"
    message = str(said.get("message")) if said is not None else ""
    if outcome == "refused":
        return Ending(status, refusal=message)
    if outcome == "not begun":
        return Ending(status, begun=False)
    failure = read_failure(said)
    if outcome == "not traced":
        return Ending(status, failure=failure, process=read_process(said))
    if outcome == "recorded":
        assert said is not None
        try:
            recorded = decode(Recording, said.get("recording"), "recording")
            return Ending(status, recorded, failure=failure, process=read_process(said))
        except DamagedRecording as error:
            message = str(error)
    how = (
        f"the trace could not be ended in the program: {message}"
        if message
        else f"the program {describe_ending(status)} before the trace could end"
    )
    recording = salvage(how, backend, log, ran.pid, in_search=not _died_outside_of_loader(ran))
    return Ending(status, recording, failure=failure)


def _died_outside_of_loader(ran: _Run) -> bool:
    """Whether it is known that no search of the loader was cut off: whatever it looked for last, it had given up on."""
    return ran.crash is not None and ran.crash.image is not None and "/ld-" not in ran.crash.image


def salvage(how: str, backend: str, log: int | None, pid: int, *, in_search: bool = True) -> Recording:
    """What can be known of a trace that was not ended.

    `how` says why it was not; `in_search`, that the loader may have been at a search when the process died.
    """
    if sys.platform == "linux" and log is not None and os.fstat(log).st_size:
        from ..capture.linux.rtld import read_recording

        notes = (f"{how}; the loader's log was read by dlltracer's own process",)
        return read_recording(log, pid, notes, ended=not in_search)
    return Recording(backend, pid=pid, notes=(f"{how}; what it recorded is lost",))
