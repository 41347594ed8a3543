"""Run the program in a process of its own, and bring home what its trace recorded.

A process of its own, because ours has imported its own modules: their imports would hide the program's. And because the
evidence must outlive the program: a crash in an import is what people come for.

The program starts as soon as it can (docs/adr/0003). The values of the model, and the decoder, are imported when it
runs: `import_for_the_end`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys

from ..capture.backend import NOT_USED, OUTSIDE
from ..errors import BackendUnavailable, DlltracerError
from ..host.scratch import ScratchFile
from .runner import UNTRACED, LogSharing, RunnerOutcome, RunnerReport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Protocol

    from ..model.events import Event
    from ..model.recording import Recording, TracedProcess
    from ..model.run import RunResult
    from .program import Program
    from .stopper import Stopper

    Variables = tuple[tuple[str, str | None], ...]

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

CHILD_MAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child_main.py")


class CannotRun(DlltracerError):
    """The process for the program could not be made, or ended before it could begin."""


def run_child(  # noqa: PLR0913 - each by its name, and most of them for one caller
    program: Program, backend: str, *, python: str | None = None, output: tuple[int, int] | None = None,
    watch_crash: bool = False, stopper: Stopper | None = None, limit: DescriptorLimit | None = None,
    variables: Variables = (), is_whole: bool = True,
) -> RunResult:  # fmt: skip
    """Run the program to its end. Raises `CannotRun`.

    Arguments:
        program: what to run.
        backend: the mechanism; `runner.UNTRACED` for none.
        python: the interpreter; `None` for that of the program, else for this one, with the options it was given.
        output: the descriptors that get its stdout and stderr; `None`: our standard streams are its own.
        watch_crash: find out where it crashes, if it does. The program can tell: it has a tracer, and Python's
            faulthandler writes where it was.
        stopper: ends it, where it takes too long or we are interrupted; `None`: it alone answers an interrupt.
        limit: has raised our limit of open files; `None`: it is raised here where it is very low.
        variables: of its environment that differ from ours; `None` takes one away.
        is_whole: also describe the process of a program that ended well.
    """

    def run_inside(name: str) -> RunResult:
        return _run_inside(
            program, name, python=python, output=output, watch_crash=watch_crash, stopper=stopper, limit=limit,
            variables=variables, is_whole=is_whole,
        )  # fmt: skip

    if sys.platform != "linux" or backend not in ("auto", OUTSIDE):
        return run_inside(backend)
    refusals: tuple[str, ...] = ()
    if backend == "auto":
        refusal: str | None = "this Python's C library is not glibc"
        if python is not None or program.python is not None or _is_glibc():
            run = run_inside("rtld")
            refusal = run.refusal
            if refusal is None:
                return run
        refusals = (f"rtld{NOT_USED}{refusal}",)
    from .run_watched import WatchOptions, run_watched, run_without_rtld

    options = WatchOptions(
        python=python, output=output, watch_crash=watch_crash, stopper=stopper, limit=limit, variables=variables
    )  # fmt: skip
    try:
        return run_without_rtld(program, options, refusals) if refusals else run_watched(program, options)
    except BackendUnavailable as error:
        from ..model.run import RunResult

        return RunResult(refusal=str(error))


def _run_inside(  # noqa: PLR0913 - as above
    program: Program, backend: str, *, python: str | None, output: tuple[int, int] | None, watch_crash: bool,
    stopper: Stopper | None, limit: DescriptorLimit | None, variables: Variables, is_whole: bool,
) -> RunResult:  # fmt: skip
    """Run the program with a mechanism of its own process, or with none; arguments as of `run_child`."""
    start = interpreter_of(program, python)
    start += ["-X", "faulthandler"] if watch_crash else []
    log: int | None = None
    with (limit or DescriptorLimit()) as descriptors, contextlib.ExitStack() as stack:
        if not descriptors.allows(ENOUGH):
            import_all()
        relay = Relay(stopper, descriptors)
        try:
            log = make_log(backend)
            if log is not None:
                stack.callback(os.close, log)
            with _report_file() as file:
                command = runner_command(start, file.path, _share(log), backend, program)
                run, pid = _run(command, log, output, relay, watch_crash, variables)
                report = RunnerReport.read(file.path)
        except (OSError, CannotRun) as error:
            if relay.has_started:
                raise
            if has_no_descriptors(error):
                why = "the limit of open files is too low for that (ulimit -n)"
            elif isinstance(error, _NoReportFile):
                why = str(error)
            else:
                raise
            stack.close()
            run, _ = _run([*start, *program.words], None, output, Relay(stopper, descriptors), False, variables)
            return _untraced(run, why, is_why=watch_crash)
        run = with_report(run, pid, report, backend, log, is_whole)
        # An initialiser may also end the process without a signal, by exit(3).
        if watch_crash and not run.completed and not run.errors:
            from ..model.light import replace

            run = replace(run, initialising=_read_initialising(log, pid))
        return run


def _share(log: int | None) -> LogSharing:
    if sys.platform != "linux" or log is None:
        return LogSharing()
    from ..capture.linux.log_file import view_of_files

    return LogSharing(log, view=view_of_files() or "")


def _is_glibc() -> bool:
    if sys.platform == "win32":
        return False
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (OSError, ValueError):
        return False


def import_all() -> None:
    """Import all that a run may need. An import opens files, and later there may be no descriptor left for them."""
    from ..host import failure  # noqa: F401
    from ..model import words  # noqa: F401

    import_for_the_end()


def import_for_the_end() -> None:
    """Import what the end of a run needs, while the program runs: on a second processor nobody waits for it."""
    from ..model import run  # noqa: F401

    if sys.platform == "linux":
        with contextlib.suppress(ImportError):  # a Python without _ctypes: it cannot trace, and says so at the end
            from ..capture.linux import decoding  # noqa: F401


def has_no_descriptors(error: BaseException) -> bool:
    """Whether a program was not started for want of file descriptors: `ulimit -n` is very low."""
    while isinstance(error, CannotRun) and error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


class _NoReportFile(CannotRun):
    """There is no place for the report of the runner: no folder takes files, and the system makes none in memory."""


def _report_file() -> ScratchFile:
    """Return the file for the report of the runner. Raises `_NoReportFile`."""
    try:
        return ScratchFile("result")
    except OSError as error:
        raise _NoReportFile(f"no file takes its report ({error.strerror or error})") from error


def _untraced(run: RunResult, why: str, *, is_why: bool) -> RunResult:
    """Return the run of a program that was not traced, and the reason: its status counts."""
    from ..model.light import replace
    from ..model.recording import Recording

    note = f"it was not traced: {why}"
    return replace(run, crash_note=note) if is_why else replace(run, recording=Recording(UNTRACED, notes=(note,)))


def runner_command(start: list[str], result: str, log: LogSharing, backend: str, program: Program) -> list[str]:
    """The command line that has an interpreter, started with the words `start`, run the program by the runner.

    Arguments: `result`, the file for the runner's report; `log`, `backend` and `program` are for the runner.
    """
    return [*start, CHILD_MAIN, result, log.encode(), backend, program.kind.value, program.name, *program.arguments]


def make_log(backend: str) -> int | None:
    """A memfd for the loader's text, which we can read when the program is dead; `None` where there is none."""
    if sys.platform == "linux" and backend in ("auto", "rtld"):
        import fcntl

        from ..capture.linux.log_file import create_memory_file

        try:
            low = create_memory_file("dlltracer-loader-log")
        except OSError:
            return None  # the mechanism then makes, or misses, its own
        try:
            # Out of the way: the first file that a program opens is often descriptor 3, and some count on it.
            # PyPy lacks the constant (linux/fcntl.h).
            return fcntl.fcntl(low, getattr(fcntl, "F_DUPFD_CLOEXEC", 1030), 200)
        except OSError:
            return os.dup(low)
        finally:
            os.close(low)
    return None


def interpreter_of(program: Program, python: str | None = None) -> list[str]:
    """The interpreter that runs the program, with our options if it is ours; `python` is one to take in any case."""
    chosen = python if python is not None else program.python
    return interpreter() if chosen is None else [chosen]


def interpreter() -> list[str]:
    """This interpreter, with the options that it was given."""
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    given = {option.partition("=")[0] for option in options}
    # subprocess passes on the -X options that it knows; the program may look for any other in sys._xoptions.
    for name, value in sys._xoptions.items():
        if name not in given:
            options += ["-X", name if value is True else f"{name}={value}"]
    # PyPy's is always so.
    if sys.implementation.name != "pypy" and getattr(sys.__stdout__, "write_through", False):
        options.append("-u")
    return [sys.executable, *options]


def _run(
    command: list[str], log: int | None, output: tuple[int, int] | None, relay: Relay, watch_crash: bool,
    variables: Variables,
) -> tuple[RunResult, int]:  # fmt: skip
    """Run it to its end: how it ended, and its process id."""
    wait = choose_wait(watch_crash)
    stdout, stderr = output if output is not None else (None, None)
    with relay:
        try:
            if log is not None:
                os.set_inheritable(log, True)
            # close_fds off: what was handed to us (a pipe of the shell, a socket) is for the program.
            environment = child_environment(variables) if variables else None
            child = subprocess.Popen(command, close_fds=False, stdout=stdout, stderr=stderr, env=environment)
        except OSError as error:
            from .program import describe_start_failure

            raise CannotRun(describe_start_failure(command[0], error)) from error
        finally:
            if log is not None:
                os.set_inheritable(log, False)
        relay.connect(child)
        run = wait(child)
    return with_stop(run, relay.stopper), child.pid


def with_notes(run: RunResult, notes: tuple[str, ...]) -> RunResult:
    """The run, with notes before those of its recording."""
    if run.recording is None:
        return run
    from ..model.light import replace

    return replace(run, recording=replace(run.recording, notes=(*notes, *run.recording.notes)))


def with_stop(run: RunResult, stopper: Stopper | None) -> RunResult:
    """The run, with how it was ended from outside, if it was."""
    if stopper is None or stopper.reason is None:
        return run
    from ..model.light import replace

    # The signal was ours: where it hit is no crash.
    return replace(run, stopped=stopper.reason, seconds=stopper.seconds, crash=None, crash_note=None)


def child_environment(variables: Variables) -> dict[str, str]:
    """Our environment, with these variables changed; `None` takes one away."""
    changed = dict(os.environ)
    for name, value in variables:
        if value is None:
            changed.pop(name, None)
        else:
            changed[name] = value
    return changed


def choose_wait(watch_crash: bool) -> Callable[[subprocess.Popen[bytes]], RunResult]:
    """The function that waits for a child, and sees its crash if that is wanted."""
    return _crash_watcher() if watch_crash else _wait


_POLL = 0.1
"""Seconds after which a wait on Windows lets Python see an interrupt: there it goes on through one."""


def _wait(child: subprocess.Popen[bytes]) -> RunResult:
    import_for_the_end()
    from ..model.run import RunResult

    while sys.platform == "win32":
        with contextlib.suppress(subprocess.TimeoutExpired):
            return RunResult(status=child.wait(_POLL))
    return RunResult(status=child.wait())


_NO_CTYPES = "the place of a crash is not known: this Python has no _ctypes, by which a child is watched"


def _crash_watcher() -> Callable[[subprocess.Popen[bytes]], RunResult]:
    """The function that waits for a child and sees its crash. Made before the child is: its first moments count."""
    if sys.platform != "linux":
        return _wait
    try:
        from ..capture.linux import crashwatch
    except ImportError:  # no _ctypes: the import in question may be about just that, and is tried all the same
        from ..model.light import replace

        return lambda child: replace(_wait(child), crash_note=_NO_CTYPES)

    def wait(child: subprocess.Popen[bytes]) -> RunResult:
        watched = crashwatch.watch(child)
        from ..model.run import RunResult

        return RunResult(status=watched.status, crash=watched.crash, crash_note=watched.note)

    return wait


def _read_initialising(log: int | None, pid: int) -> str | None:
    """The image whose initialiser ran when the program died, in the loader's log."""
    if sys.platform == "linux" and log is not None:
        from ..capture.linux.decoding import read_initialising

        return read_initialising(log, pid)
    return None


def with_report(
    run: RunResult, pid: int, report: RunnerReport | None, backend: str, log: int | None, is_whole: bool = True
) -> RunResult:
    """The run, with what its runner reported, and what its trace recorded."""
    from ..model.light import replace

    if report is not None and report.outcome == RunnerOutcome.REFUSED:
        return replace(run, refusal=report.message)
    if report is not None and report.outcome == RunnerOutcome.NOT_BEGUN:
        return replace(run, begun=False)
    message = ""
    if report is not None and not is_whole and run.status == 0 and not report.errors:
        run = replace(run, completed=report.completed)
    else:
        run = with_facts(run, report)
    if report is not None:
        if report.outcome == RunnerOutcome.UNTRACED:
            return run
        message = report.message
    if report is not None and report.outcome in (RunnerOutcome.RECORDED, RunnerOutcome.LEFT):
        try:
            return replace(run, recording=read_recorded(report, log, pid))
        except (DlltracerError, OSError) as error:
            message = str(error)
    from .output import describe_ending

    how = (
        f"the trace could not be ended in the program: {message}"
        if message
        else f"the program {describe_ending(run.status or 0)} before the trace could end"
    )
    return replace(run, recording=salvage(how, backend, log, pid, in_search=not _died_outside_of_loader(run)))


def read_recorded(report: RunnerReport, log: int | None, pid: int) -> Recording:
    """The recording of a trace that was ended in its process: in the report, or in a log that is left to us.

    Raises `DamagedRecording`, or `OSError` if the log cannot be read.
    """
    if sys.platform == "linux" and report.left is not None and log is not None:
        from ..capture.linux.decoding import read_left_log
        from ..capture.linux.log_file import LeftLog
        from ..trace import without_own_loads

        return without_own_loads(read_left_log(log, pid, LeftLog(**report.left)))
    from ..model.decode import decode
    from ..model.recording import Recording

    found: Recording = decode(Recording, report.recording, "recording")
    return found


def with_facts(run: RunResult, report: RunnerReport | None) -> RunResult:
    """The run, with the exceptions that ended it and its interpreter, as its runner reported them."""
    from ..model.light import replace

    if report is None:
        return replace(run, completed=False)
    from ..host.failure import read_errors, read_process
    from ..model.run import StartedChild

    return replace(
        run, errors=read_errors(report.errors), process=read_process(report.process), completed=report.completed,
        children=tuple(StartedChild(*child) for child in report.children),
    )  # fmt: skip


def _died_outside_of_loader(run: RunResult) -> bool:
    """Whether it is known that no search of the loader was cut off: whatever it looked for last, it had given up on."""
    return run.crash is not None and run.crash.image is not None and "/ld-" not in run.crash.image


def salvage(how: str, backend: str, log: int | None, pid: int, *, in_search: bool = True) -> Recording:
    """What can be known of a trace that was not ended.

    `how` says why it was not; `in_search`, that the loader may have been at a search when the process died.
    """
    if sys.platform == "linux" and log is not None and os.fstat(log).st_size:
        notes = (f"{how}; the loader's log was read by dlltracer's own process",)
        try:
            from ..capture.linux.decoding import read_recording

            return read_recording(log, pid, notes, ended=not in_search)
        except OSError as error:  # no descriptors: the program's status must not be lost with its recording
            how = f"{how}; the loader's log could not be read ({error.strerror or error})"
    from ..model.recording import Recording

    return Recording(backend, pid=pid, notes=(f"{how}; what it recorded is lost",))


class Relay:
    """Our signals while the program runs.

    What the terminal sends to the whole group (SIGINT, SIGQUIT) is the program's to answer, and reaches it without us.
    What somebody sends to us alone (SIGTERM ...) is passed on. A signal that we were started to ignore stays ignored.
    With a `stopper`, an interrupt ends the program if it does not end by itself.
    """

    _LEAVE = ("SIGINT", "SIGQUIT", "SIGBREAK")
    _PASS_ON = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")

    def __init__(self, stopper: Stopper | None = None, limit: DescriptorLimit | None = None) -> None:
        self.stopper = stopper
        self._limit = limit
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        self._before: dict[int, object] = {}

    def __enter__(self) -> Relay:
        # Handlers, not SIG_IGN: the program would inherit that.
        for name in self._LEAVE:
            self._take(name, self._leave)
        if sys.platform != "win32":
            for name in self._PASS_ON:
                self._take(name, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        if self.stopper is not None:
            self.stopper.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def has_started(self) -> bool:
        """Whether the program has been started: it must not be started a second time."""
        return self._child is not None

    def connect(self, child: subprocess.Popen[bytes]) -> None:
        """The program has started: it gets what came before."""
        self._child = child
        if self._limit is not None:
            self._limit.give_back(child.pid)
        if self.stopper is not None:
            self.stopper.connect(child)
        for number in self._early:
            child.send_signal(number)

    def _take(self, name: str, handler: object) -> None:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            self._before[number] = signal.signal(number, handler)  # type: ignore[arg-type]

    def _leave(self, number: int, frame: FrameType | None) -> None:
        if self.stopper is not None and number == signal.SIGINT:
            self.stopper.interrupt()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._child is None:
            self._early.append(number)
        else:
            self._child.send_signal(number)


ENOUGH = 256
"""Descriptors that a run of ours can do with; a log lies at 200 or above, out of the program's way."""


class DescriptorLimit:
    """Raises our limit of open files (RLIMIT_NOFILE) for a block, where it is very low: `ulimit -n 6`.

    A child inherits the raised limit; `give_back` sets it to what the user had (prlimit(2)) as soon as it has started.
    Nothing is done where the system refuses: the soft limit can be raised to the hard one, that one by root only.
    """

    def __init__(self) -> None:
        self._former: tuple[int, int] | None = None

    def __enter__(self) -> DescriptorLimit:
        if self._former is not None:
            return self  # raised already
        if sys.platform == "linux":
            import resource

            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            if soft != resource.RLIM_INFINITY and soft < ENOUGH:
                most = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
                for limits in ((ENOUGH, max(ENOUGH, hard)), (most, hard)):
                    with contextlib.suppress(OSError, ValueError):
                        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                        self._former = (soft, hard)
                        break
        return self

    def __exit__(self, *_: object) -> None:
        if sys.platform == "linux" and self._former is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_NOFILE, self._former)
            self._former = None

    def allows(self, number: int) -> bool:
        """Return whether so many files can be open, ours of now among them."""
        if sys.platform == "linux":
            import resource

            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return soft == resource.RLIM_INFINITY or soft >= number
        return True

    def give_back(self, pid: int) -> None:
        """Let a child have the limit that the user set."""
        if sys.platform == "linux" and self._former is not None:
            import resource

            with contextlib.suppress(OSError):  # it has ended
                resource.prlimit(pid, resource.RLIMIT_NOFILE, self._former)
