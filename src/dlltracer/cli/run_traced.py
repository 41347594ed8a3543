"""Runs a program or a command, and reads the loader logs of all its processes meanwhile."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable

from ..api.failed_load import describe_local_scopes
from ..binary.elf import read_elf
from ..capture.choose import OUTSIDE, note_unused
from ..errors import BackendUnavailable, BinaryFormatError, DlltracerError
from ..host.scratch import ScratchFolder, temporary_folder
from ..model.decode import DamagedRecording, decode
from ..model.events import Event
from ..model.light import replace
from ..model.recording import KeptEvents, Recording, TracedProcess
from ..model.run import RunResult
from .output import describe_ending
from .process import (
    CannotRun,
    DescriptorLimit,
    Relay,
    RunOptions,
    has_no_descriptors,
    interpreter_of,
    runner_command,
    start_program,
    with_facts,
    with_notes,
)
from .program import Program, ProgramKind, describe_start_failure
from .runner import UNTRACED, LogSharing, RunnerOutcome, RunnerReport
from .spawn import run_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..capture.linux.follow import Follower
    from .spawn import Sink

LD_DEBUG = "ld_debug"
"""Name of the mechanism, in recordings: LD_DEBUG in the environment."""


class CannotFollow(DlltracerError):
    """This mechanism or this system cannot do what was asked for."""


def run_followed(
    program: Program, backend: str, *, follow: bool = False, startup: bool = False, sink: Sink | None = None
) -> RunResult:
    """Run the program to its end. Raises `CannotRun`, `CannotFollow`, and what the start of a trace raises.

    Arguments:
        program: what to run; a command, too.
        backend: the mechanism, "auto" for the best.
        follow: also what the processes load that it starts, and those that they start.
        startup: also what the program's own process loads before the program begins. Of a command, that is always
            shown.
        sink: gets everything as it comes; where the mechanism cannot do that, at the end, and before that as far as it
            is known.
    """
    is_command = program.kind is ProgramKind.COMMAND
    guard = _Guard(sink)
    if sys.platform == "win32":
        return guard.replay(_run_on_windows(program, backend, guard, follow=follow, startup=startup))
    if sys.platform == "linux" and (backend == OUTSIDE or (backend == "auto" and not _has_log(program))):
        return _run_watched(program, backend, guard, follow=follow, startup=startup)
    if sys.platform == "linux" and (backend == "auto" or (backend == "rtld" and not is_command)):
        return _LinuxRun(program, backend, follow, startup, guard).run()
    if follow or startup or is_command:
        what = "a command" if is_command else "--follow" if follow else "--startup"
        raise CannotFollow(f"{what} cannot be traced by {backend!r} on {sys.platform}: leave out --backend")
    return guard.replay(run_child(program, backend, RunOptions()))


def _has_log(program: Program) -> bool:
    """Return whether the loader of the program writes a log, as far as its file shows that: glibc's does."""
    path: str | None = sys.executable if program.python is None else program.python
    if program.kind is ProgramKind.COMMAND:
        path = shutil.which(program.words[0])
    try:
        loader = None if path is None else read_elf(path).interpreter
    except (OSError, BinaryFormatError):
        return True
    return loader is None or "ld-musl-" not in loader


def _run_watched(program: Program, backend: str, guard: _Guard, *, follow: bool, startup: bool) -> RunResult:
    if sys.platform != "linux":
        raise CannotFollow("for Linux")
    from .run_watched import run_watched

    try:
        return run_watched(program, RunOptions(follow=follow, startup=startup), guard)
    except BackendUnavailable as error:
        if backend == "auto" and not (follow or startup or program.kind is ProgramKind.COMMAND):
            return guard.replay(run_child(program, backend, RunOptions()))
        return RunResult(refusal=str(error))


def _run_on_windows(program: Program, backend: str, sink: Sink, *, follow: bool, startup: bool) -> RunResult:
    from .run_debugged import NAME, run_debugged_command, run_on_windows

    if program.kind is not ProgramKind.COMMAND:
        return run_on_windows(program, backend, follow=follow, startup=startup, sink=sink)
    if backend not in ("auto", NAME):
        raise CannotFollow(f"a command cannot be traced by {backend!r}: leave out --backend")
    return run_debugged_command(list(program.words), follow=follow, sink=sink)


def _where(command: str) -> str | None:
    """The file that a command names."""
    path = shutil.which(command)
    return None if path is None else os.path.abspath(path)


class _Guard:
    """A sink that never raises, and keeps as many events as a recording holds.

    `notes` says whether the sink behind it raised.
    """

    def __init__(self, sink: Sink | None) -> None:
        self._sink = sink
        self.events = KeptEvents()
        self.notes: tuple[str, ...] = ()
        self._held: list[TracedProcess] | None = None

    def hold(self) -> None:
        """Keep back what is known of the first process until it has loaded something or another one began.

        The process may refuse its mechanism before anything of the program has run: then it is not the program's.
        """
        self._held = []

    def drop_held(self) -> None:
        """Forget what is kept back."""
        self._held = None

    def release(self) -> None:
        """Hand on what is kept back, and keep back no more."""
        held, self._held = self._held, None
        for process in held or ():
            self.process(process)

    def early(self, event: Event) -> None:
        self.release()
        self._hand_on(lambda sink: sink.early(event))

    def event(self, event: Event) -> None:
        self.release()
        self.events.add(event)
        self._hand_on(lambda sink: sink.event(event))

    def process(self, process: TracedProcess) -> None:
        if self._held is not None and all(held.pid == process.pid for held in self._held):
            self._held.append(process)
            return
        self.release()
        self._hand_on(lambda sink: sink.process(process))

    def replay(self, run: RunResult) -> RunResult:
        """Hand on what was recorded at once."""
        if run.recording is not None:
            for process in run.recording.processes:
                self.process(process)
            for event in run.recording.events:
                self.event(event)
            if self.notes:
                return replace(run, recording=replace(run.recording, notes=run.recording.notes + self.notes))
        return run

    def _hand_on(self, call: Callable[[Sink], None]) -> None:
        if self._sink is None:
            return
        try:
            call(self._sink)
        except Exception as error:  # noqa: BLE001 - the run and its recording go on
            self._sink = None
            self.notes = (f"events were not handed on from then on, as they came: {type(error).__name__}: {error}",)


_FOLLOWING = 24
"""Files that are open when one process is followed, with some to spare; each further process needs two."""


class _LinuxRun:
    """One run on Linux."""

    def __init__(self, program: Program, backend: str, follow: bool, startup: bool, guard: _Guard) -> None:
        self._program = program
        self._backend = backend
        self._follow = follow
        self._startup = startup
        self._guard = guard
        self._is_command = program.kind is ProgramKind.COMMAND
        self._trouble: str | None = None
        self._has_started = False
        self._limit = DescriptorLimit()

    def run(self) -> RunResult:
        try:
            temporary_folder()
        except OSError as error:
            return self._run_without_logs(f"no folder takes the logs of processes ({error.strerror or error})")
        try:
            with self._limit:
                if self._limit.allows(_FOLLOWING):
                    return self._run_by_best_mechanism()
        except (OSError, CannotRun) as error:
            if self._has_started or not has_no_descriptors(error):
                raise
        return self._run_without_logs("the limit of open files is too low for that (ulimit -n)")

    def _run_without_logs(self, why: str) -> RunResult:
        """Run it all the same: ld.so writes its log of a process to a path only."""
        if self._is_command:
            run = RunResult(status=_run_plainly(list(self._program.words)))
            return replace(run, recording=Recording(UNTRACED, notes=(f"it was not traced: {why}",)))
        run = run_child(self._program, self._backend, RunOptions())
        asked = [*(["what it loads before its first line"] if self._startup else []),
                 *(["the processes that it starts"] if self._follow else [])]  # fmt: skip
        if run.recording is not None and asked:
            notes = (*run.recording.notes, f"{' and '.join(asked)} could not be traced: {why}")
            run = replace(run, recording=replace(run.recording, notes=notes))
        return self._guard.replay(run)

    def _run_by_best_mechanism(self) -> RunResult:
        if self._backend != "auto" or self._is_command:
            return self._run_with_logs()
        # A start that is shown is shown at once, and cannot be taken back when the runner is refused rtld.
        refusal = _refusal_of_rtld() if self._startup else None
        if refusal is None:
            if not self._startup:
                self._guard.hold()
            run = self._run_with_logs()
            refusal = run.refusal
            if refusal is None:
                self._guard.release()
                return run
            self._guard.drop_held()
        try:
            run = self._run_watched()
        except BackendUnavailable as error:
            return with_notes(self._run_as_command(refusal), (note_unused(OUTSIDE, str(error)),))
        return with_notes(run, (note_unused("rtld", refusal),))

    def _run_watched(self) -> RunResult:
        """Run it by the next mechanism. Raises `BackendUnavailable` before anything of it has run."""
        if sys.platform != "linux":
            raise CannotFollow("for Linux")
        from .run_watched import run_watched

        options = RunOptions(follow=self._follow, startup=self._startup, limit=self._limit)
        return run_watched(self._program, options, self._guard)

    def _run_as_command(self, why: str) -> RunResult:
        """Run it by the mechanism after that: the loader writes its log from the start of the interpreter on.

        That changes nothing in the process, so it works where rtld does not; no request of Python is in such a log.
        """
        start, *options = interpreter_of(self._program)
        program = Program(ProgramKind.COMMAND, start, (*options, *self._program.words))
        run = _LinuxRun(program, "auto", self._follow, True, self._guard).run()
        return with_notes(run, (note_unused("rtld", why),))

    def _run_with_logs(self) -> RunResult:
        if sys.platform != "linux":
            raise CannotFollow("for Linux")
        from ..capture.linux.follow import Follower
        from ..capture.linux.log_folder import LogFolder

        # The logs have a folder of their own, which may admit other users: the report of the runner may not.
        with ScratchFolder() as folder, ScratchFolder() as log_folder:
            logs = LogFolder(log_folder.path, admit_others=os.geteuid() == 0 and (self._follow or self._is_command))
            follower = Follower(
                logs, self._guard.event, self._guard.process,
                everyone=self._follow, fresh=self._startup or self._is_command,
            )  # fmt: skip
            result = os.path.join(folder.path, "result")
            status = self._wait(follower, logs.prefix, result)
            if follower.left:
                log_folder.keep()
            logs.give_back(os.environ)
            return self._result(RunResult(status=status), RunnerReport.read(result), follower)

    def _wait(self, follower: Follower, prefix: str, result: str) -> int:
        if sys.platform != "linux":
            raise CannotFollow("for Linux")
        from ..capture.linux.log_file import variables, variables_for_one

        program, environment = self._program, dict(os.environ)
        if self._is_command:
            command = shown = list(program.words)
            environment.update(variables(prefix, environment))
        else:
            log = LogSharing(prefix=prefix, from_start=self._startup, with_children=self._follow)
            command = runner_command(interpreter_of(program), result, log, self._backend, program)
            shown = [*interpreter_of(program), *program.words]
            if self._startup:
                environment.update(variables_for_one(prefix, environment))
            environment.update(log.environment())
        with Relay(limit=self._limit) as relay:
            try:
                child = start_program(command, environment)
            except OSError as error:
                raise CannotRun(describe_start_failure(command[0], error)) from error
            self._has_started = True
            relay.connect(child)
            try:
                return follower.watch(child, tuple(shown), _where(command[0]))
            except OSError as error:  # no descriptors, no memory: the program goes on, and its status counts
                self._trouble = f"the following of the program ended early: {error.strerror or error}"
                return child.wait()
            finally:
                child.wait()

    def _result(self, run: RunResult, report: RunnerReport | None, follower: Follower) -> RunResult:
        """The run, with what its runner reported and what its logs say. A command has no runner."""
        if report is None or report.outcome == RunnerOutcome.UNFINISHED:
            run = run if self._is_command else with_facts(run, report)
            has_said_all = self._is_command and run.status is not None and run.status >= 0
            notes = () if has_said_all else (f"the program {describe_ending(run.status or 0)}",)
            return replace(run, recording=self._recording(follower, notes))
        if report.outcome == RunnerOutcome.REFUSED:
            return replace(run, refusal=report.message)
        if report.outcome == RunnerOutcome.NOT_BEGUN:
            return replace(run, begun=False)
        run = with_facts(run, report)
        if report.outcome == RunnerOutcome.RECORDED:  # by another mechanism than the log's, which did not work
            try:
                return self._guard.replay(replace(run, recording=decode(Recording, report.recording, "recording")))
            except DamagedRecording as error:
                return replace(run, recording=self._recording(follower, (str(error),)))
        return replace(run, recording=self._recording(follower, report.notes))

    def _recording(self, follower: Follower, notes: tuple[str, ...]) -> Recording:
        name = LD_DEBUG if self._is_command else "rtld"
        notes += self._guard.notes
        notes += () if self._trouble is None else (self._trouble,)
        recording = follower.recording(name, self._guard.events, notes)
        return replace(recording, notes=(*recording.notes, *describe_local_scopes(recording)))


def _refusal_of_rtld() -> str | None:
    """Return why rtld does not work in this process, and so neither in a child; `None` if it does."""
    if sys.platform != "linux":
        return None
    from ..capture.linux.rtld import RtldBackend

    try:
        RtldBackend().start().stop()
    except OSError as error:
        return str(error)
    return None


def _run_plainly(command: list[str]) -> int:
    with Relay() as relay:
        try:
            child = start_program(command)
        except OSError as error:
            raise CannotRun(describe_start_failure(command[0], error)) from error
        relay.connect(child)
        return child.wait()
