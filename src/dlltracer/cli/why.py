"""`dlltracer why`: try an import in a child, or read a recording, and say why it fails."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import Any

import click

from ..api.explain import Explained
from ..api.saving import begin_trace, end_trace
from ..capture.backend import BACKEND_NAMES, check_backend_name
from ..host.own_files import looks_like_recording
from ..model.finding import Diagnosis
from ..model.recording import Recording
from ..model.run import RECORDING_SUFFIX, SavedTrace, StopReason
from .config import complete_backend, complete_file, is_setting, prefer_command_line
from .formats import GITHUB, HTML, form_of_name, html_option, is_name_of_recording, refuse_same_file, write_form
from .live import progress
from .output import EXIT_USAGE, Target, annotations_option, open_target, say_annotations, say_error, write_styled
from .program import Program
from .record import TraceRecorder, command_of, own_redactor
from .show import STDIN, open_recording
from .try_import import choose_program, try_and_explain


@dataclass(frozen=True)
class _WhyOptions:
    """What was given on the command line, by the names of the parameters below."""

    module: str | None
    code: str | None
    as_json: bool
    github: bool
    output: str | None
    html: str | None
    python: str | None
    backend: str
    redact: bool
    annotations: bool | None
    timeout: float | None
    tries: bool | None

    @property
    def is_recorded(self) -> bool:
        """Whether the output is a recording."""
        return is_name_of_recording(self.output)

    @property
    def form(self) -> str:
        """The format of the verdict: asked for, or by the name of the file."""
        if self.as_json or self.github:
            return "json" if self.as_json else GITHUB
        named = form_of_name(self.output)
        if named is not None and named.name in (GITHUB, HTML):
            return named.name
        return "json" if (self.output or "").lower().endswith(".json") else "text"

    def check(self) -> None:
        """Raise `click.UsageError` when options contradict each other."""
        if (self.module is None) is (self.code is None):
            raise click.UsageError("say what to import: a MODULE, a file, or -c CODE")
        if self.as_json and self.github:
            raise click.UsageError("choose one of --json and --github")
        refuse_same_file("-" if self.is_recorded else self.output or "-", self.html)
        check_backend_name(self.backend)


@click.command("why", short_help="Say why an import fails.")
@click.argument("module", required=False, shell_complete=complete_file)
@click.option("-c", "code", metavar="CODE", help="Run this code instead of importing a module.")
@click.option("--json", "as_json", is_flag=True, help="JSON, with all evidence.")
@click.option("--github", is_flag=True, help="Markdown for an issue, at most 60 lines, with versions and the loads.")
@click.option(
    "-o", "--output", metavar="FILE", shell_complete=complete_file,
    help="Write the verdict to FILE instead of stdout (.html, .md, .json: in that format); FILE.dlltrace: save the "
    "recording there as well.",
)  # fmt: skip
@html_option
@click.option(
    "--python", metavar="PATH", shell_complete=complete_file,
    help="The interpreter to try it with (Python 3.10 or later).",
)  # fmt: skip
@click.option(
    "--backend", metavar="NAME", default="auto", shell_complete=complete_backend,
    help=f"The mechanism: {', '.join(BACKEND_NAMES)}.  [default: auto]",
)  # fmt: skip
@click.option(
    "--timeout", metavar="SECONDS", type=click.FloatRange(min=0, min_open=True),
    help="End the import after so many seconds, and say where it hangs.",
)  # fmt: skip
@click.option(
    "--try/--no-try", "tries", default=None,
    help="Try the import again with each fix that needs no installation, at most three. [default: for modules]",
)  # fmt: skip
@click.option("--redact", is_flag=True, help="Leave out names of users and of this machine, and secrets.")
@annotations_option
def why(**given: Any) -> None:
    """Import MODULE in a process of its own, and say why it fails: which file, needed by whom, looked for where.

    MODULE may be the name of a module, a script (*.py), or the file of an extension module or a shared library. It may
    also be a recording, of this machine or another one: then nothing is tried, and what it holds is explained.

    Fixes that need no installation are tried: the verdict says which of them work.

    An import that hangs is ended by --timeout or Ctrl-C, and the verdict says where it was.

    Exit status: 0 it works, 1 a cause was found, 4 it fails and the evidence does not decide, 3 it could not be traced,
    2 the question was wrong, 124 it was ended by --timeout, 130 by Ctrl-C.
    """
    options = _WhyOptions(**_without_settings(given))
    options.check()
    prepared: list[Target] = []
    try:
        target = open_target("-" if options.is_recorded else options.output or "-")
        prepared.append(target)
        page = open_target(options.html) if options.html is not None else None
        if page is not None:
            prepared.append(page)
        trace, stopped = _answer(options)
        _write(options, trace, target, page)
    finally:
        for one in prepared:
            one.discard()
    diagnosis = _verdict_of(trace)
    from ..report.render_verdict import annotate_verdict

    say_annotations(options.annotations, lambda folder: annotate_verdict(diagnosis, workspace=folder))
    raise click.exceptions.Exit(diagnosis.outcome.exit_status if stopped is None else _STATUSES[stopped])


def _without_settings(given: dict[str, Any]) -> dict[str, Any]:
    """The options as given, without settings that contradict the command line."""
    kept = prefer_command_line(given, ("as_json", "github"))
    if kept["module"] is not None and is_saved(kept["module"]):  # which settings for a trial are not about
        names = ["python"] + ["output"] * is_name_of_recording(kept["output"])
        kept.update({name: None for name in names if is_setting(name)})
    return kept


_STATUSES = {StopReason.TIMED_OUT: 124, StopReason.INTERRUPTED: 130}
"""Exit statuses: those of timeout(1), and of a shell for SIGINT."""


def _answer(options: _WhyOptions) -> tuple[SavedTrace, StopReason | None]:
    """All that is known, the verdict in it; and why the import was ended, if it was."""
    module = options.module
    if module is not None and is_saved(module):
        if options.python is not None or options.is_recorded:
            raise click.UsageError("a recording is explained as it is: leave out --python and -o FILE.dlltrace")
        return _explain_file(module, options.redact), None
    what, program = choose_program(module, options.code)
    command = command_of(program, options.python)
    recorder = None
    if options.is_recorded:
        assert options.output is not None
        recorder = TraceRecorder(options.output, what, command, options.backend, redact=options.redact)
    try:
        with progress(f"trying {what}"):
            begun = time.monotonic()
            run, explained = try_and_explain(what, program, options.python, options.backend, options.timeout)
            seconds = time.monotonic() - begun
        # A script has effects that nobody wants thrice; an import should have none.
        tries = program.must_return and module is not None if options.tries is None else options.tries
        if tries and run.stopped is None and explained.case is not None:
            explained = replace(explained, diagnosis=_try_fixes(explained, program, options.python, seconds))
        if recorder is not None:
            return recorder.finish(run, explained), run.stopped
        if options.html is None and options.form not in (GITHUB, HTML):
            trace = SavedTrace(Recording(options.backend), diagnosis=explained.diagnosis)  # the verdict is all
        else:
            trace = end_trace(begin_trace(what, command, options.backend), run, explained)
        return (own_redactor().redact_trace(trace) if options.redact else trace), run.stopped
    except click.exceptions.Exit:  # it was not traced, or did not begin
        if recorder is not None:
            recorder.discard()
        raise
    finally:
        if recorder is not None:
            recorder.close()


def _try_fixes(explained: Explained, program: Program, python: str | None, seconds: float) -> Diagnosis:
    """The verdict, with what trials of its fixes have shown."""
    from .try_import import try_fixes

    assert explained.case is not None
    with progress("trying fixes"):
        return try_fixes(explained.case, explained.diagnosis, program, python, seconds)


def _verdict_of(trace: SavedTrace) -> Diagnosis:
    assert trace.diagnosis is not None
    return trace.diagnosis


def is_saved(name: str) -> bool:
    """Whether that is a recording to be explained, not a module to be tried."""
    if name.lower().endswith((RECORDING_SUFFIX, ".etl")):
        return os.path.exists(name)  # a FIFO of that name is refused, not imported
    return name == STDIN or looks_like_recording(name)


def _explain_file(file: str, redact: bool) -> SavedTrace:
    """A recording with the verdict on it, which says where it is from."""
    from ..api.saving import explain_saved
    from ..report.outcomes import describe_origin, notes_on_children

    trace: SavedTrace = open_recording(file)
    if trace.steps:
        raise click.UsageError(f"{file} is the report of a self-test, where no import failed: dlltracer show has it")
    if redact:
        from ..report.redact import redact as without_names

        trace = without_names(trace)
    diagnosis = explain_saved(trace)
    notes = trace.recording.notes[-1:] if redact else ()
    notes = (
        *describe_origin(trace), *notes_on_children(trace.recording), *trace.problems, *diagnosis.notes, *notes
    )  # fmt: skip
    return replace(trace, diagnosis=replace(diagnosis, notes=notes))


def _write(options: _WhyOptions, trace: SavedTrace, target: Target, page: Target | None) -> None:
    """Write what was asked for: the verdict, and the page beside it."""
    diagnosis = _verdict_of(trace)
    try:
        if options.form == "json":
            from ..report.render_json import render_verdict_json

            target.write(render_verdict_json(diagnosis))
        elif options.form in (GITHUB, HTML):
            write_form(options.form, target, trace)
        else:
            from ..report.render_verdict import render_verdict

            write_styled(target, lambda plain: render_verdict(diagnosis, ascii_only=plain))
        if page is not None:
            write_form(HTML, page, trace)
    except OSError as error:
        say_error(f"the verdict could not be written: {error.strerror or error}")
        raise click.exceptions.Exit(EXIT_USAGE) from error
