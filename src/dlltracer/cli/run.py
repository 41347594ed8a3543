"""`dlltracer run`: runs a program and shows what it loaded.

What the end of a run needs is imported then: until the program starts, this module imports next to nothing.
"""

from __future__ import annotations

import sys

from ..capture.choose import check_backend_name
from .formats import FORMS, HTML, HTML_OPTION, RECORDING, Form, choose_form, formats_help, refuse_same_file
from .options import (
    ANNOTATIONS_OPTION,
    BACKEND_OPTION,
    PROGRAM,
    WRITTEN,
    BadUsage,
    CommandLine,
    Option,
    prefer_command_line,
)
from .output import CommandFailed, Target, end_like, is_stderr_terminal, open_target, say_annotations, say_error
from .process import RunOptions
from .program import Program, ProgramKind, choose_python, command_of, what_is_meant
from .spawn import run_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..api.explain import Explained
    from ..model.finding import Diagnosis
    from ..model.run import RunResult, SavedTrace
    from .record import TraceRecorder
    from .spawn import Sink

USAGE = "[OPTIONS] (-c CODE | -m MODULE | SCRIPT | - | -- COMMAND) [ARGS]..."

PROGRAM_FORMS = (
    ("-c CODE", "run this code"),
    ("-m MODULE", "run a module"),
    ("SCRIPT", "run a file, a folder or a zip archive with __main__.py, a .pyc file"),
    ("-", "run what stdin holds"),
    ("-- COMMAND", "run any program, not only Python"),
)
"""How a program is named, for the help and the manual page."""


class _RunOptions:
    """Values of the command line, by the names of the parameters in `COMMAND`."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.output: str | None = given["output"]
        self.form: str | None = given["form"]
        self.github: bool = given["github"]
        self.html: str | None = given["html"]
        self.backend: str = given["backend"]
        self.python: str | None = given["python"]
        self.failed_only: bool = given["failed_only"]
        self.follow: bool = given["follow"]
        self.startup: bool = given["startup"]
        self.live: bool = given["live"]
        self.redact: bool = given["redact"]
        self.verbose: bool = given["verbose"]
        self.annotations: bool | None = given["annotations"]

    def chosen_form(self, settings: frozenset[str]) -> Form:
        """The format of the report. Raises `BadUsage` when options contradict each other."""
        form = choose_form(self.form, self.github, self.output, self.failed_only, settings)
        if form.name == RECORDING and self.output in (None, "-"):
            raise BadUsage(
                "a recording is written while the program runs: name a file for it, -o FILE.dlltrace"
            )  # fmt: skip
        refuse_same_file(self.output, self.html)
        return form.in_full(self.verbose and (form.write_full is not None or "verbose" not in settings))


def run(given: Mapping[str, Any], settings: frozenset[str]) -> None:
    """Run a program and show which native images it loaded, for which import, and what failed to load.

    The program's own output, input and exit status are what they are without dlltracer. Options of the interpreter
    are given to it: python -X dev -m dlltracer run ...

    When the program ends with a failed import, the verdict follows: what failed, for whom, why, and what to do.
    """
    program: Program | None = given["program"]
    if program is None:
        raise BadUsage("no program was given: say -c CODE, -m MODULE, a SCRIPT, - for stdin, or -- COMMAND")
    options = _RunOptions(prefer_command_line(given, settings, ("form", "github")))
    form = options.chosen_form(settings)
    check_backend_name(options.backend)
    if program.kind is not ProgramKind.COMMAND:
        program = program.with_python(choose_python(options.python))
    elif options.python is not None:
        raise BadUsage("a command brings its own interpreter: leave out --python, or name a SCRIPT, -c or -m")
    meant = what_is_meant(program.name) if program.kind is ProgramKind.SCRIPT else None
    if meant is not None:
        raise CommandFailed(meant)
    reports = _Reports(form, options, _describe(program), command_of(program))
    try:
        run = _run_shown(program, options, reports)
        if run.refusal is not None:
            raise CommandFailed(run.refusal)
        status, verdict = reports.write(run)
    finally:
        reports.discard()
    if verdict is not None:
        _annotate(verdict, options.annotations, inside_line=options.output is not None)
    end_like(status)


COMMAND = CommandLine(
    "run", "Run a program and show what it loads.", run,
    Option(
        "output", "-o", "--output", metavar=WRITTEN, completes="file",
        help="Write the report to FILE ('-': stdout) instead of stderr. FILE.dlltrace: a recording, for another "
        "machine.",
    ),
    Option(
        "form", "--format", choices=tuple(FORMS),
        help=f"{formats_help()}  [default: by the name of FILE, else text]",
    ),
    Option("github", "--github", help="Markdown for an issue, at most 60 lines: the same as --format github."),
    HTML_OPTION,
    BACKEND_OPTION,
    Option(
        "python", "--python", metavar=PROGRAM, completes="file",
        help="The interpreter to run it with (Python 3.10 or later), or the folder of its environment.",
    ),
    Option("verbose", "-v", "--verbose", help="Text: show all images and places, and the whole verdict."),
    Option("failed_only", "--failed-only", help="Show failures only, and what leads to them."),
    Option("follow", "--follow", help="Show the loads of all processes that the program starts, too."),
    Option("startup", "--startup", help="Show what is loaded before the program begins, too."),
    Option("live", "--live", help="Show the loads on the terminal while the program runs."),
    Option("redact", "--redact", help="Leave out names of users and of this machine, and secrets."),
    ANNOTATIONS_OPTION,
)  # fmt: skip


class _Reports:
    """Outputs to write when the program has ended: a report or a recording, and perhaps a page.

    The constructor makes sure that all of it can be written, and raises `CommandFailed` when it cannot.
    """

    def __init__(self, form: Form, options: _RunOptions, what: str, command: tuple[str, ...]) -> None:
        self._what = what
        self._command = command
        self._backend = options.backend
        self._redact = options.redact
        self._failed_only = options.failed_only
        self.recorder: TraceRecorder | None = None
        self._outputs: list[tuple[Form, Target]] = []
        is_quiet = not is_stderr_terminal()  # in a pipe, stderr is the program's alone
        try:
            if form.name != RECORDING:
                self._outputs.append((form, open_target(options.output, is_quiet=is_quiet)))
            if options.html is not None:
                self._outputs.append((FORMS[HTML], open_target(options.html, is_quiet=is_quiet)))
            if form.name == RECORDING:
                assert options.output is not None
                from .record import TraceRecorder

                self.recorder = TraceRecorder(
                    options.output, what, command, options.backend, redact=options.redact, is_quiet=is_quiet
                )
        except BaseException:
            self.discard()
            raise

    @property
    def are_short(self) -> bool:
        """True if all of it shows the recording and the verdict alone."""
        return self.recorder is None and all(form.is_short for form, _ in self._outputs)

    def write(self, run: RunResult) -> tuple[int, Diagnosis | None]:
        """Write them, if the program began; the status to end with, and the verdict."""
        status = run.status or 0
        if run.recording is None:
            if self.recorder is not None:
                self.recorder.discard()
            return status, None
        explained = _explain(self._what, run, is_saved=self.recorder is not None)
        trace = self._trace(run, explained)
        try:
            for form, target in self._outputs:
                form.write(target, trace, self._failed_only and form.can_select)
        except OSError as error:
            ours = say_error(f"the report could not be written: {error.strerror or error}")
            return status or ours, trace.diagnosis
        return status, trace.diagnosis

    def discard(self) -> None:
        """Take back what was prepared and not written; what was recorded stays."""
        for _, target in self._outputs:
            target.discard()
        if self.recorder is not None:
            self.recorder.close()

    def _trace(self, run: RunResult, explained: Explained | None) -> SavedTrace:
        """The trace to show: no more is gathered than the formats ask for."""
        if self.recorder is not None:
            return self.recorder.finish(run, explained)
        assert run.recording is not None
        if self.are_short:
            from ..model.light import replace
            from ..model.run import SavedTrace

            diagnosis = explained.diagnosis if explained is not None else None
            ending = replace(run, recording=None, errors=())
            trace = SavedTrace(run.recording, run=ending, diagnosis=diagnosis)
        else:
            from ..api.saving import begin_trace, end_trace

            trace = end_trace(begin_trace(self._what, self._command, self._backend), run, explained)
        if not self._redact:
            return trace
        from .record import own_redactor

        return own_redactor().redact_trace(trace)


def _run_shown(program: Program, options: _RunOptions, reports: _Reports) -> RunResult:
    """Run it, with what it loads on the terminal meanwhile if that is wanted."""
    if not options.live:
        return _run(program, options, reports, reports.recorder)
    from .live import LiveView

    view = LiveView(behind=reports.recorder)
    try:
        return _run(program, options, reports, view)
    finally:
        view.finish()


def _run(program: Program, options: _RunOptions, reports: _Reports, sink: Sink | None) -> RunResult:
    """Run it, in the plain way if nothing asks for another one."""
    is_plain = not options.follow and not options.startup and sink is None and program.kind is not ProgramKind.COMMAND
    if is_plain and sys.platform != "win32":
        return run_child(program, options.backend, RunOptions(is_whole=not reports.are_short))
    from .run_traced import run_followed

    return run_followed(program, options.backend, follow=options.follow, startup=options.startup, sink=sink)


def _annotate(verdict: Diagnosis, annotations: bool | None, *, inside_line: bool) -> None:
    from ..report.render_verdict import annotate_verdict

    say_annotations(annotations, lambda folder: annotate_verdict(verdict, workspace=folder), inside_line=inside_line)


def _describe(program: Program) -> str:
    """The program as it was typed; code that is more than an import would fill the line."""
    if program.kind is ProgramKind.MODULE:
        return f"-m {program.name}"
    if program.kind is not ProgramKind.CODE:
        return program.name
    code = program.name.strip()
    is_import = code.startswith(("import ", "from ")) and len(code) < _LONGEST_IMPORT and not set(code) & set(";\n#")
    return code if is_import else "the code"


_LONGEST_IMPORT = 60


def _has_crashed(run: RunResult) -> bool:
    """Return whether a fault ended the process, wherever: a signal that somebody sent (SIGINT, SIGTERM, SIGKILL) is no
    crash."""
    from ..model.failure import CRASH_SIGNALS

    return not run.errors and (run.crash is not None or -(run.status or 0) in CRASH_SIGNALS)


def _may_be_asked_about(run: RunResult) -> bool:
    """Return whether the program died, or a module could not be imported for whatever reason."""
    if not run.errors:
        return (run.status or 0) < 0 or run.crash is not None
    return any("ImportError" in error.bases for error in run.errors)


def _explain(what: str, run: RunResult, *, is_saved: bool = False) -> Explained | None:
    """The verdict, if the program crashed, or ended with an exception that a loader caused.

    `is_saved`: also if it ended so that somebody may ask why later, when this machine cannot be asked any more.
    """
    if run.recording is None:
        return None
    has_crashed = _has_crashed(run)
    if not run.errors and not has_crashed and not is_saved:
        return None  # most programs end well, and the rules need not be imported to say so
    from ..api.explain import explain_with_case, is_loader_failure
    from ..model.light import replace

    run = replace(run, recording=run.recording.first_process)
    if not is_loader_failure(run) and not has_crashed and not (is_saved and _may_be_asked_about(run)):
        return None
    try:
        return explain_with_case(what, run)
    except Exception as error:  # noqa: BLE001 - the recording is there, and must not be lost with the verdict
        say_error(f"no verdict: {type(error).__name__}: {error}")
        return None
