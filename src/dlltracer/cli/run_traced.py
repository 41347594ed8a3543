"""Run a program, or a command, and read what its loaders say while it runs: its own, and those of what it starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace

from ..errors import DlltracerError
from ..host.failure import read_failure, read_process
from ..host.scratch import ScratchFolder
from ..model.decode import DamagedRecording, decode
from ..model.recording import Recording
from .ending import describe_ending
from .program import ProgramKind
from .relay import Relay
from .spawn import CHILD_MAIN, CannotRun, Ending, interpreter, read_result, run_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..capture.linux.follow import Follower
    from ..model.events import Event
    from ..model.process import TracedProcess
    from .program import Program
    from .spawn import Sink

LD_DEBUG = "ld_debug"
"""Name of the mechanism, in recordings: LD_DEBUG in the environment."""


class CannotFollow(DlltracerError):
    """What was asked for cannot be had from this mechanism, or on this system."""


def run_followed(
    program: Program, backend: str, *, follow: bool = False, startup: bool = False, sink: Sink | None = None
) -> Ending:
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
    if sys.platform == "linux" and (backend == "auto" or (backend == "rtld" and not is_command)):
        return _Run(program, backend, follow, startup, guard).run()
    if follow or startup or is_command:
        what = "a command" if is_command else "--follow" if follow else "--startup"
        raise CannotFollow(f"{what} cannot be traced by {backend!r} on {sys.platform}: leave out --backend")
    return guard.replay(run_child(program, backend))


def _run_on_windows(program: Program, backend: str, sink: Sink, *, follow: bool, startup: bool) -> Ending:
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
    """A sink that never raises, and keeps the events. `notes` says whether the one behind it did."""

    def __init__(self, sink: Sink | None) -> None:
        self._sink = sink
        self.events: list[Event] = []
        self.notes: tuple[str, ...] = ()

    def early(self, event: Event) -> None:
        self._hand_on(lambda sink: sink.early(event))

    def event(self, event: Event) -> None:
        self.events.append(event)
        self._hand_on(lambda sink: sink.event(event))

    def process(self, process: TracedProcess) -> None:
        self._hand_on(lambda sink: sink.process(process))

    def replay(self, ending: Ending) -> Ending:
        """Hand on what was recorded at once."""
        if ending.recording is not None:
            for process in ending.recording.processes:
                self.process(process)
            for event in ending.recording.events:
                self.event(event)
            if self.notes:
                notes = ending.recording.notes + self.notes
                return replace(ending, recording=replace(ending.recording, notes=notes))
        return ending

    def _hand_on(self, call: Callable[[Sink], None]) -> None:
        if self._sink is None:
            return
        try:
            call(self._sink)
        except Exception as error:  # noqa: BLE001 - the run and its recording go on
            self._sink = None
            self.notes = (f"events were not handed on from then on, as they came: {type(error).__name__}: {error}",)


class _Run:
    """One run on Linux."""

    def __init__(self, program: Program, backend: str, follow: bool, startup: bool, guard: _Guard) -> None:
        self._program = program
        self._backend = backend
        self._follow = follow
        self._startup = startup
        self._guard = guard
        self._is_command = program.kind is ProgramKind.COMMAND

    def run(self) -> Ending:
        if sys.platform != "linux":
            raise CannotFollow("for Linux")
        from ..capture.linux.folder import LogFolder
        from ..capture.linux.follow import Follower

        with ScratchFolder() as folder:
            logs = LogFolder(folder.path)
            follower = Follower(
                logs.prefix, self._guard.event, self._guard.process,
                everyone=self._follow, fresh=self._startup or self._is_command,
            )  # fmt: skip
            result = os.path.join(folder.path, "result")
            status = self._wait(follower, logs.prefix, result)
            if follower.left:
                folder.keep()
            logs.give_back(os.environ)
            return self._ending(status, read_result(result), follower)

    def _wait(self, follower: Follower, prefix: str, result: str) -> int:
        if sys.platform != "linux":
            raise CannotFollow("for Linux")
        from ..capture.linux.log_file import variables, variables_for_one

        program, environment = self._program, dict(os.environ)
        if self._is_command:
            command = shown = list(program.words)
            environment.update(variables(prefix, environment))
        else:
            log = f"{'f' if self._follow else ''}{'s' if self._startup else ''}:{prefix}"
            channel = [result, log, self._backend, program.kind.value, program.name, *program.arguments]
            command = [*interpreter(), CHILD_MAIN, *channel]
            shown = [*interpreter(), *program.words]
            if self._startup:
                environment.update(variables_for_one(prefix, environment))
        with Relay() as relay:
            try:
                # close_fds off: what was handed to us (a pipe of the shell, a socket) is for the program.
                child = subprocess.Popen(command, close_fds=False, env=environment)
            except OSError as error:
                raise CannotRun(f"{command[0]} could not be started: {error.strerror or error}") from error
            relay.connect(child)
            try:
                return follower.watch(child, tuple(shown), _where(command[0]))
            finally:
                child.wait()

    def _ending(self, status: int, said: dict[str, object] | None, follower: Follower) -> Ending:
        outcome = said["outcome"] if said is not None else "nothing"
        if said is not None and outcome == "refused":
            return Ending(status, refusal=str(said.get("message")))
        if outcome == "not begun":
            return Ending(status, begun=False)
        failure = read_failure(said)
        if said is not None and outcome == "recorded":
            # By another mechanism than the log's, which did not work.
            try:
                recorded = decode(Recording, said.get("recording"), "recording")
                return self._guard.replay(Ending(status, recorded, failure=failure, process=read_process(said)))
            except DamagedRecording as error:
                return Ending(status, self._recording(follower, (str(error),)), failure=failure)
        notes: tuple[str, ...] = ()
        if outcome == "nothing" and (status < 0 or not self._is_command):
            notes += (f"the program {describe_ending(status)}",)
        if said is not None and said.get("attributed") is False:
            from ..capture.linux.rtld import UNATTRIBUTED

            notes += (UNATTRIBUTED,)
        if said is not None and said.get("trouble") is not None:
            notes += (str(said["trouble"]),)
        return Ending(status, self._recording(follower, notes), failure=failure, process=read_process(said))

    def _recording(self, follower: Follower, notes: tuple[str, ...]) -> Recording:
        name = LD_DEBUG if self._is_command else "rtld"
        return follower.recording(name, tuple(self._guard.events), notes + self._guard.notes)
