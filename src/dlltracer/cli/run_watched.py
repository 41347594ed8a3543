"""Runs a program whose system calls are watched (backend "seccomp"): for any C library, from outside."""

from __future__ import annotations

import errno
import os
import signal
import sys

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from collections.abc import Callable

from ..api.search_phases import SearchPhases
from ..capture.linux.seccomp_watch import LoaderWatch
from ..errors import BackendUnavailable
from ..host.scratch import ScratchFile
from ..model.events import Event
from ..model.light import Protocol, replace
from ..model.recording import KeptEvents, TracedProcess
from ..model.run import RunResult
from .output import describe_ending
from .process import (
    CannotRun,
    ChildProgram,
    DescriptorLimit,
    Relay,
    RunOptions,
    child_environment,
    choose_wait,
    interpreter_of,
    runner_command,
    with_facts,
    with_stop,
)
from .program import Program, ProgramKind, describe_start_failure
from .runner import WATCHED, LogSharing, RunnerOutcome, RunnerReport


class Receiver(Protocol):
    """Gets events and processes as they come."""

    @property
    def events(self) -> KeptEvents: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    def event(self, event: Event) -> None: ...
    def process(self, process: TracedProcess) -> None: ...


NAME = "seccomp"

_GRACE = 0.5
"""Seconds that processes may go on which the first one leaves behind. Helpers of multiprocessing end in that time."""

_WATCHING = 32
"""Files that are open when one process is watched, with some to spare."""

_PATIENCE = 60.0
"""Seconds for the launcher to come up."""


class _Keeping:
    """A receiver for a run without one: keeps the events."""

    def __init__(self) -> None:
        self.events = KeptEvents()
        self.notes: tuple[str, ...] = ()

    def event(self, event: Event) -> None:
        self.events.add(event)

    def process(self, process: TracedProcess) -> None:
        """Nobody asks."""


def run_watched(program: Program, options: RunOptions, receiver: Receiver | None = None) -> RunResult:
    """Run the program to its end. Raises `CannotRun`, and `BackendUnavailable` before anything of it has run."""
    if not os.path.isdir("/proc/self/fd"):
        raise BackendUnavailable(NAME, "there is no /proc, by which a process is looked at")
    try:
        import ctypes  # noqa: F401 - the listener and the watcher need it, and come when the program runs
    except ImportError as error:
        raise BackendUnavailable(NAME, f"this Python cannot import ctypes ({error})") from error
    try:
        report = ScratchFile("result")
    except OSError as error:
        raise BackendUnavailable(NAME, f"no file takes its report ({error.strerror or error})") from error
    with (options.limit or DescriptorLimit()) as limit, report as file:
        if not limit.allows(_WATCHING):
            raise BackendUnavailable(NAME, "the limit of open files is too low for that (ulimit -n)")
        run = _WatchedRun(program, options, receiver or _Keeping(), limit, file.path)
        return run.run()


class _WatchedRun:
    """One run."""

    def __init__(
        self, program: Program, options: RunOptions, receiver: Receiver, limit: DescriptorLimit, result: str
    ) -> None:  # fmt: skip
        self._options = options
        self._receiver = receiver
        self._limit = limit
        self._result_path = result
        self._is_command = program.kind is ProgramKind.COMMAND
        self._notes: tuple[str, ...] = ()
        self._passed: frozenset[int] = frozenset()
        start = interpreter_of(program, options.python)
        start += ["-X", "faulthandler"] if options.watch_crash else []
        self._shown = tuple(program.words) if self._is_command else (*start, *program.words)
        self._command = (
            list(program.words) if self._is_command else runner_command(start, result, LogSharing(), WATCHED, program)
        )  # fmt: skip

    def run(self) -> RunResult:
        try:
            return self._run_once(self._run_notified)
        except NoListener as error:
            self._notes = (f"it was watched by ptrace, since {error.reason}",)
            if error.is_taken:
                return self._run_once(self._run_at_every_call, has_filter=False)
        try:
            return self._run_once(self._run_at_filter)
        except NoListener:
            return self._run_once(self._run_at_every_call, has_filter=False)

    def _launch(self, way: str) -> _Launcher:
        return _Launcher(way, self._command, self._options, self._passed)

    def _run_once(self, run_by: Callable[[LoaderWatch], RunResult], *, has_filter: bool = True) -> RunResult:
        """Run it by one way of watching."""
        from ..capture.linux.seccomp_lookup import find_passed_entries
        from ..capture.linux.seccomp_watch import LoaderWatch

        phases = SearchPhases()
        self._passed = find_passed_entries() if has_filter else frozenset()
        watch = LoaderWatch(
            self._receiver.event, self._receiver.process, phases.complete, everyone=self._options.follow,
            startup=self._options.startup or self._is_command, marked=not self._is_command, passed=self._passed,
        )  # fmt: skip
        try:
            run = run_by(watch)
            return self._result(run, RunnerReport.read(self._result_path), watch)
        finally:
            watch.close()

    def _run_at_filter(self, watch: LoaderWatch) -> RunResult:
        """Run it with a filter whose stops are ptrace's."""
        return self._run_traced(watch, has_filter=True)

    def _run_at_every_call(self, watch: LoaderWatch) -> RunResult:
        """Run it without a filter: each of its system calls stops."""
        return self._run_traced(watch, has_filter=False)

    def _run_traced(self, watch: LoaderWatch, *, has_filter: bool) -> RunResult:
        from ..capture.linux.seccomp_launch import send
        from ..capture.linux.seccomp_ptrace import PtraceLoop

        options, way = self._options, "ptrace" if has_filter else "calls"
        with Relay(options.stopper, self._limit) as relay, self._launch(way) as launcher:
            child = launcher.child
            launcher.await_ready()
            watch.begin(child.pid, self._shown, _where(self._command[0]))
            loop = PtraceLoop(
                child, watch, lambda: send(launcher.socket, b"G"), _say_waiting, has_filter=has_filter
            )  # fmt: skip
            try:
                loop.start()
            except RuntimeError as error:  # a limit on processes (`ulimit -u`, a pids cgroup) counts threads
                launcher.end()
                raise BackendUnavailable(NAME, f"no thread could be started to watch the program ({error})") from error
            relay.connect(child)
            loop.first_ended.wait()
            if loop.refusal is not None:
                launcher.end()
                raise BackendUnavailable(NAME, f"{self._notes[0]}; {loop.refusal}" if self._notes else loop.refusal)
            loop.join()
            launcher.check_start()
            watched = loop.result()
            watch.finish(child.pid, watched.status)
            if loop.left:
                self._notes += _left_behind(loop.left if options.follow else (), has_keeper=False)
            run = RunResult(status=watched.status)
            if options.watch_crash:
                run = replace(run, crash=watched.crash, crash_note=watched.note)
            return with_stop(run, relay.stopper)

    def _run_notified(self, watch: LoaderWatch) -> RunResult:
        """Run it with a listener."""
        from ..capture.linux.seccomp_launch import send
        from ..capture.linux.seccomp_notify import NotifyLoop

        options = self._options
        with Relay(options.stopper, self._limit) as relay, self._launch("notify") as launcher:
            child = launcher.child
            relay.connect(child)
            listener, keeper = launcher.receive_listener()
            watch.begin(child.pid, self._shown, _where(self._command[0]))
            loop = NotifyLoop(listener, keeper, launcher.room, watch)
            try:
                loop.start(child.pid)
            except RuntimeError as error:  # as in _run_traced
                launcher.end()
                raise BackendUnavailable(NAME, f"no thread could be started to watch the program ({error})") from error
            try:
                send(launcher.socket, b"G")
                run = choose_wait(options.watch_crash)(child)
                launcher.check_start()
                watching_ended = loop.wait(_GRACE)
            finally:
                loop.stop()
            watch.finish(child.pid, run.status)
            if loop.error is not None:
                self._notes += (
                    f"the watching ended early ({type(loop.error).__name__}: {loop.error}): what came then is missing",
                )  # fmt: skip
            if not watching_ended:
                self._notes += _left_behind(watch.others() if options.follow else (), has_keeper=True)
            return with_stop(run, relay.stopper)

    def _result(self, run: RunResult, report: RunnerReport | None, watch: LoaderWatch) -> RunResult:
        """The run, with what its runner reported. A command has no runner."""
        notes = self._notes
        if self._is_command:
            if run.status is not None and run.status < 0:
                notes += (f"the program {describe_ending(run.status)}",)
        elif report is not None and report.outcome == RunnerOutcome.REFUSED:
            return replace(run, refusal=report.message)
        elif report is not None and report.outcome == RunnerOutcome.NOT_BEGUN:
            return replace(run, begun=False)
        else:
            if report is None or report.outcome == RunnerOutcome.UNFINISHED:
                notes += (f"the program {describe_ending(run.status or 0)}",)
            else:
                notes += report.notes
            run = with_facts(run, report, is_whole=self._options.is_whole)
        return replace(run, recording=watch.recording(self._receiver.events, (*notes, *self._receiver.notes)))


class _Launcher:
    """The process that becomes the program, until it does. Raises `CannotRun`.

    Arguments: `way` and `passed` as of seccomp_launch.py.
    """

    def __init__(self, way: str, command: list[str], options: RunOptions, passed: frozenset[int]) -> None:
        from ..capture.linux.seccomp_launch import Launch

        self._command = command
        try:
            launch = Launch(command, child_environment(options), options.output, way, passed)
        except OSError as error:
            raise CannotRun(describe_start_failure(command[0], error)) from error
        self.socket, self.child, self.room = launch.socket, ChildProgram(launch.pid), launch.room
        self.socket.settimeout(_PATIENCE)

    def __enter__(self) -> _Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.child.wait()

    def await_ready(self) -> None:
        """Wait until it can be seized. Raises `BackendUnavailable`."""
        message, _ = self._receive(0)
        if message != b"L":
            self.end()
            raise _refusal(message)

    def receive_listener(self) -> tuple[int, int]:
        """The listener, and the socket of the keeper. Raises `BackendUnavailable` where there can be none."""
        message, descriptors = self._receive(2)
        if message != b"L" or len(descriptors) != 2:
            self.end()
            raise _refusal(message)
        return descriptors[0], descriptors[1]

    def check_start(self) -> None:
        """Raise `CannotRun` if the program could not be started, `NoListener` if the filter could not be put on."""
        message, _ = self._receive(0)
        if message.startswith(b"X"):
            raise CannotRun(describe_start_failure(self._command[0], _error_in(message)))
        if message.startswith(b"F"):
            raise NoListener(NAME, _error_in(message).strerror or "no filter can be put on")

    def _receive(self, most: int) -> tuple[bytes, tuple[int, ...]]:
        from ..capture.linux.seccomp_launch import receive

        try:
            return receive(self.socket, most)
        except OSError:
            return b"", ()

    def end(self) -> None:
        """End it before it has begun."""
        self.socket.close()
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()


class NoListener(BackendUnavailable):
    """The kernel gives no listener: it knows none (gVisor), or the process has one already (`is_taken`)."""

    is_taken = False


def _refusal(message: bytes) -> BackendUnavailable:
    if not message.startswith(b"F"):
        return BackendUnavailable(NAME, "the process for the program ended before it could begin")
    error = _error_in(message)
    if error.errno == errno.EBUSY:
        taken = NoListener(NAME, "the process is watched by a seccomp listener already")
        taken.is_taken = True
        return taken
    if error.errno == errno.EINVAL:
        return NoListener(NAME, "this kernel has no seccomp listeners (Linux before 5.5, gVisor)")
    return BackendUnavailable(NAME, f"the system refuses a seccomp filter ({error.strerror})")


def _error_in(message: bytes) -> OSError:
    number, _, text = message[1:].decode("utf-8", "replace").partition(" ")
    return OSError(int(number) if number.isdecimal() else 0, text)


def _left_behind(pids: tuple[int, ...], *, has_keeper: bool) -> tuple[str, ...]:
    shown = f" ({', '.join(map(str, pids[:8]))}{', ...' if len(pids) > 8 else ''})" if pids else ""
    keeper = ". They keep the filter; a process of dlltracer's answers it until they end" if has_keeper else ""
    what = f"processes of the program still ran when it had ended{shown}"
    return (f"{what}: what they load from then on is not shown{keeper}",)


def _say_waiting(number: int) -> None:
    """Say why the command does not end."""
    sys.stderr.write(
        f"dlltracer: waiting for {number} threads or processes that the program has left behind. They are watched by "
        "ptrace with a filter, and would fail without it\n"
    )  # fmt: skip


def _where(command: str) -> str | None:
    """The file that a command names."""
    if os.path.isabs(command):
        return os.path.normpath(command)
    import shutil

    path = shutil.which(command)
    return None if path is None else os.path.abspath(path)
