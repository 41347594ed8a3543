"""`dlltracer run`: run a program and show what it loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import click

from ..capture.select import BACKEND_NAMES, check_backend_name
from .annotate import annotations_option, say_annotations
from .child import Ending, run_child
from .complete import complete_backend, complete_file
from .ending import end_like, say_error
from .output import Format, Target, open_target, write_report
from .program import NoValue, Program, ProgramKind, split_command_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from click.shell_completion import CompletionItem

    from ..model.finding import Diagnosis
    from ..model.recording import Recording
    from .child import Sink

_USAGE = "[OPTIONS] (-c CODE | -m MODULE | SCRIPT | - | -- COMMAND) [ARGS]..."

PROGRAM_FORMS = (
    ("-c CODE", "run this code"),
    ("-m MODULE", "run a module"),
    ("SCRIPT", "run a file, a folder or a zip archive with __main__.py, a .pyc file"),
    ("-", "run what stdin holds"),
    ("-- COMMAND", "run any program, not only Python"),
)
"""How a program is named, for the help and the manual page."""


@dataclass(frozen=True)
class _Options:
    """What was given on the command line, by the names of the parameters below."""

    output: str | None
    form: str
    github: bool
    backend: str
    failed_only: bool
    annotations: bool | None
    follow: bool
    startup: bool

    def chosen_format(self) -> Format:
        """The format of the report. Raises `click.UsageError` when options contradict each other."""
        form = Format(self.form)
        if self.github and form not in (Format.TEXT, Format.GITHUB):
            raise click.UsageError(f"choose one of --github and --format {self.form}")
        form = Format.GITHUB if self.github else form
        if self.failed_only and form.needs_saved:
            raise click.UsageError(f"--failed-only is for text, jsonl and lines: {form.value} shows the whole trace")
        return form


class _RunCommand(click.Command):
    """A command whose options end where the program begins."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        takes_value = {
            name for option in self.params if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        }  # fmt: skip
        try:
            own, ctx.obj = split_command_line(args, takes_value)
        except NoValue as error:
            if ctx.resilient_parsing:  # a completion: the value is what is being typed
                return super().parse_args(ctx, [])
            raise click.UsageError(f"argument expected for the {error.option} option", ctx) from None
        return super().parse_args(ctx, own)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if ctx.obj is None and incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return complete_file(ctx, self, incomplete)  # the program, or what belongs to it

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, _USAGE)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("The program, as python takes it; everything after it belongs to it"):
            formatter.write_dl(list(PROGRAM_FORMS))
        super().format_options(ctx, formatter)


@click.command("run", cls=_RunCommand, short_help="Run a program and show what it loads.")
@click.option(
    "-o", "--output", metavar="FILE", shell_complete=complete_file,
    help="Write the report to FILE ('-': stdout) instead of stderr.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice([form.value for form in Format]), default=Format.TEXT.value,
    show_default=True, help="text: a tree to read. jsonl: JSON, one line an event. lines: LoadLibrary or Failed, path. "
    "dot, mermaid: a graph. perfetto: a timeline. github: Markdown for an issue.",
)  # fmt: skip
@click.option("--github", is_flag=True, help="Markdown for an issue, at most 60 lines: the same as --format github.")
@click.option(
    "--backend", metavar="NAME", default="auto", show_default=True, shell_complete=complete_backend,
    help=f"The mechanism: {', '.join(BACKEND_NAMES)}.",
)  # fmt: skip
@click.option("--failed-only", is_flag=True, help="Show failures only, and what leads to them.")
@click.option("--follow", is_flag=True, help="Show the loads of all processes that the program starts, too.")
@click.option("--startup", is_flag=True, help="Show what is loaded before the program begins, too.")
@annotations_option
@click.pass_obj
def run(program: Program | None, /, **given: Any) -> None:
    """Run a program and show which native images it loaded, for which import, and what failed to load.

    The program's own output, input and exit status are what they are without dlltracer. Options of the interpreter
    are given to it: python -X dev -m dlltracer run ...

    When the program ends with a failed import, the verdict follows: what failed, for whom, why, and what to do.
    """
    if program is None:
        raise click.UsageError("no program was given: say -c CODE, -m MODULE, a SCRIPT, - for stdin, or -- COMMAND")
    options = _Options(**given)
    form = options.chosen_format()
    check_backend_name(options.backend)
    target = open_target(options.output)
    try:
        ending = _run(program, options.backend, follow=options.follow, startup=options.startup)
        if ending.refusal is not None:
            raise click.ClickException(ending.refusal)
        verdict = _explain(_describe(program), ending)
        status = _report(ending, target, form, options.failed_only, _describe(program), verdict)
    finally:
        target.discard()
    if verdict is not None:
        _annotate(verdict, options.annotations, inside_line=options.output is not None)
    end_like(status)


def _run(
    program: Program, backend: str, *, follow: bool = False, startup: bool = False, sink: Sink | None = None
) -> Ending:
    """Run it, in the plain way if nothing asks for another one."""
    if not follow and not startup and sink is None and program.kind is not ProgramKind.COMMAND:
        return run_child(program, backend)
    from .followed import run_followed

    return run_followed(program, backend, follow=follow, startup=startup, sink=sink)


def _annotate(verdict: Diagnosis, annotations: bool | None, *, inside_line: bool) -> None:
    from ..report.annotations import annotate_verdict

    say_annotations(annotations, lambda folder: annotate_verdict(verdict, workspace=folder), inside_line=inside_line)


def _describe(program: Program) -> str:
    names = {ProgramKind.CODE: "the code", ProgramKind.MODULE: f"-m {program.name}"}
    return names.get(program.kind, program.name)


def _report(
    ending: Ending, target: Target, form: Format, failed_only: bool, what: str, verdict: Diagnosis | None
) -> int:
    """Write the report, if the program began; the status to end with."""
    if ending.recording is None:
        return ending.status
    try:
        if form.needs_saved:
            from .saved import render_saved, saved_trace_of

            target.write(render_saved(saved_trace_of(what, ending, verdict), form))
        else:
            write_report(target, ending.recording, form, failed_only=failed_only, verdict=verdict)
    except OSError as error:
        ours = say_error(f"the report could not be written: {error.strerror or error}")
        return ending.status or ours
    return ending.status


def _explain(what: str, ending: Ending) -> Diagnosis | None:
    """The verdict, if the program ended with an exception that a loader caused."""
    if ending.failure is None or ending.recording is None:
        return None
    from ..api.explain import explain_ending, is_of_a_loader

    recording = _of_first(ending.recording)
    if not is_of_a_loader(ending.failure, recording):
        return None
    try:
        return explain_ending(what, ending.status, recording, ending.failure)
    except Exception as error:  # noqa: BLE001 - the recording is there, and must not be lost with the verdict
        say_error(f"no verdict: {type(error).__name__}: {error}")
        return None


def _of_first(recording: Recording) -> Recording:
    """What the first process recorded: the exception is its."""
    if len(recording.processes) < 2:
        return recording
    events = (event for event in recording.events if getattr(event, "pid", None) in (None, recording.pid))
    return replace(recording, events=tuple(events))
