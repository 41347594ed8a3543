"""Run the program in a process of its own, and bring home what its trace recorded.

A process of its own, because ours has imported its own modules: their imports would hide the program's. And because the
evidence must outlive the program: a crash in an import is what people come for.
"""

from __future__ import annotations

import contextlib
import os
import sys

from ..capture.choose import OUTSIDE, note_unused
from ..errors import BackendUnavailable, DlltracerError
from ..host.scratch import ScratchFile
from ..model.light import replace
from .process import (
    ENOUGH,
    CannotRun,
    Child,
    DescriptorLimit,
    Relay,
    RunOptions,
    child_environment,
    choose_wait,
    glibc_version,
    has_no_descriptors,
    import_all,
    interpreter_of,
    runner_command,
    start_plainly,
    start_program,
    with_facts,
    with_notes,
    with_stop,
)
from .runner import UNTRACED, LogSharing, RunnerOutcome, RunnerReport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..model.events import Event
    from ..model.recording import Recording, TracedProcess
    from ..model.run import RunResult
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

def run_child(program: Program, backend: str, options: RunOptions) -> RunResult:
    """Run the program to its end. Raises `CannotRun`.

    Arguments: `backend`, the mechanism, or `runner.UNTRACED` for none; `options`, but its `follow` and `startup`.
    """
    if sys.platform != "linux" or backend not in ("auto", OUTSIDE):
        return _run_inside(program, backend, options)
    refusals: tuple[str, ...] = ()
    if backend == "auto":
        refusal = "this Python's C library is not glibc"
        if options.python is not None or program.python is not None or glibc_version():
            run = _run_inside(program, "rtld", options)
            if run.refusal is None:
                return run
            refusal = run.refusal
        refusals = (note_unused("rtld", refusal),)
    from .run_watched import run_watched

    try:
        return with_notes(run_watched(program, options), refusals)
    except BackendUnavailable as error:
        # It says so before anything of the program has run.
        if backend == OUTSIDE:
            from ..model.run import RunResult

            return RunResult(refusal=str(error))
        run = _run_inside(program, "snapshot", options)
        return with_notes(run, (*refusals, note_unused(OUTSIDE, str(error))))


def _run_inside(program: Program, backend: str, options: RunOptions) -> RunResult:
    """Run the program with a mechanism of its own process, or with none."""
    start = interpreter_of(program, options.python)
    start += ["-X", "faulthandler"] if options.watch_crash else []
    log: int | None = None
    with (options.limit or DescriptorLimit()) as descriptors, contextlib.ExitStack() as stack:
        if not descriptors.allows(ENOUGH):
            import_all()
        relay = Relay(options.stopper, descriptors)
        try:
            log = make_log(backend)
            if log is not None:
                stack.callback(os.close, log)
            with _report_file() as file:
                command = runner_command(start, file.path, _share(log), backend, program)
                run, pid = _run(command, log, relay, options)
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
            plain = replace(options, watch_crash=False)
            run, _ = _run([*start, *program.words], None, Relay(options.stopper, descriptors), plain)
            return _untraced(run, why, is_why=options.watch_crash)
        run = with_report(run, pid, report, backend, log, options.is_whole)
        # An initialiser may also end the process without a signal, by exit(3).
        if options.watch_crash and not run.completed and not run.errors:
            run = replace(run, initialising=_read_initialising(log, pid))
        return run


def _share(log: int | None) -> LogSharing:
    if sys.platform != "linux" or log is None:
        return LogSharing()
    from ..capture.linux.log_file import view_of_files

    return LogSharing(log, view=view_of_files() or "")


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
    from ..model.recording import Recording

    note = f"it was not traced: {why}"
    return replace(run, crash_note=note) if is_why else replace(run, recording=Recording(UNTRACED, notes=(note,)))


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


def _run(command: list[str], log: int | None, relay: Relay, options: RunOptions) -> tuple[RunResult, int]:
    """Run it to its end: how it ended, and its process id."""
    wait = choose_wait(options.watch_crash)
    stdout, stderr = options.output if options.output is not None else (None, None)
    with relay:
        try:
            if log is not None:
                os.set_inheritable(log, True)
            if options.variables or options.output is not None:
                child: Child = start_program(command, child_environment(options), stdout, stderr)
            else:
                child = start_plainly(command)
        except OSError as error:
            from .program import describe_start_failure

            raise CannotRun(describe_start_failure(command[0], error)) from error
        finally:
            if log is not None:
                os.set_inheritable(log, False)
        relay.connect(child)
        run = wait(child)
    return with_stop(run, relay.stopper), child.pid


def _read_initialising(log: int | None, pid: int) -> str | None:
    """The image whose initialiser ran when the program died, in the loader's log."""
    if sys.platform == "linux" and log is not None:
        from ..capture.linux.decoding import read_initialising

        return read_initialising(log, pid)
    return None


def with_report(
    run: RunResult, pid: int, report: RunnerReport | None, backend: str, log: int | None, is_whole: bool = True
) -> RunResult:
    """Return the run, with what its runner reported, and what its trace recorded.

    Arguments:
        run, pid: how the program ended, and its process id.
        report: of the runner in it; `None` where it left none.
        backend: the mechanism that was asked for.
        log: descriptor of the loader's text (`make_log`); `None` where there is none.
        is_whole: as of `RunOptions`.
    """
    if report is not None and report.outcome == RunnerOutcome.REFUSED:
        return replace(run, refusal=report.message)
    if report is not None and report.outcome == RunnerOutcome.NOT_BEGUN:
        return replace(run, begun=False)
    message = ""
    run = with_facts(run, report, is_whole=is_whole)
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


def _died_outside_of_loader(run: RunResult) -> bool:
    """Return whether no search of the loader was cut off, as far as that is known: whatever it looked for last, it had
    given up on."""
    return run.crash is not None and run.crash.image is not None and "/ld-" not in run.crash.image


def salvage(how: str, backend: str, log: int | None, pid: int, *, in_search: bool = True) -> Recording:
    """Return the recording of a trace that was not ended, from the text of its loader log.

    Arguments: `how` says why it was not; `log` as of `make_log`; `in_search`, that the loader may have been at a search
    when the process died.
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
