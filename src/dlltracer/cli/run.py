"""`dlltracer run`: run a Python program and show what it loaded."""

from __future__ import annotations

import click

from ..api.saving import RunFacts, end_trace
from ..capture.select import BACKEND_NAMES, check_backend_name
from ..model.saved import SavedTrace
from .child import Ending, run_child
from .ending import end_like, say_error
from .formats import FORMS, RECORDING, Form, form_for, formats_help
from .output import Target, open_target
from .program import NoValue, Program, ProgramKind, split_command_line
from .record import TraceRecorder, command_of, facts_of_ending, own_redactor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..api.explain import Explained

_USAGE = "[OPTIONS] (-c CODE | -m MODULE | SCRIPT | -) [ARGS]..."


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
            raise click.UsageError(f"argument expected for the {error.option} option", ctx) from None
        return super().parse_args(ctx, own)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, _USAGE)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("The program, as python takes it; everything after it belongs to it"):
            formatter.write_dl(
                [
                    ("-c CODE", "run this code"),
                    ("-m MODULE", "run a module"),
                    ("SCRIPT", "run a file, a folder or a zip archive with __main__.py, a .pyc file"),
                    ("-", "run what stdin holds"),
                ]
            )
        super().format_options(ctx, formatter)


@click.command("run", cls=_RunCommand, short_help="Run a Python program and show what it loads.")
@click.option("-o", "--output", metavar="FILE", help="Write the report to FILE ('-': stdout) instead of stderr.")
@click.option(
    "--format", "form", type=click.Choice(list(FORMS)),
    help=f"{formats_help()}  [default: by the name of FILE, else text]",
)  # fmt: skip
@click.option(
    "--backend", metavar="NAME", default="auto", show_default=True, help=f"The mechanism: {', '.join(BACKEND_NAMES)}."
)
@click.option("--failed-only", is_flag=True, help="Show failures only, and what leads to them.")
@click.option("--redact", is_flag=True, help="Leave out names of users and of this machine, and secrets.")
@click.pass_obj
def run(
    program: Program | None, output: str | None, form: str | None, backend: str, failed_only: bool, redact: bool
) -> None:
    """Run a Python program and show which native images it loaded, for which import, and what failed to load.

    The program's own output, input and exit status are what they are without dlltracer. Options of the interpreter
    are given to it: python -X dev -m dlltracer run ...

    When the program ends with a failed import, the verdict follows: what failed, for whom, why, and what to do.
    """
    if program is None:
        raise click.UsageError("no program was given: say -c CODE, -m MODULE, a SCRIPT, or - for stdin")
    check_backend_name(backend)
    chosen = form_for(form, output)
    if chosen.name == RECORDING:
        status = _record(program, backend, output, redact)
    else:
        target = open_target(output)
        try:
            ending = run_child(program, backend)
            if ending.refusal is not None:
                raise click.ClickException(ending.refusal)
            status = _report(ending, target, chosen, failed_only, redact, program)
        finally:
            target.discard()
    end_like(status)


def _record(program: Program, backend: str, output: str | None, redact: bool) -> int:
    """Run the program and write its recording as it goes; the status to end with."""
    if output is None or output == "-":
        raise click.UsageError("a recording is written while the program runs: name a file for it, -o FILE.dlltrace")
    recorder = TraceRecorder(output, _facts_of(program), backend, redact=redact)
    try:
        ending = run_child(program, backend)
        if ending.recording is None:
            recorder.discard()
        else:
            recorder.finish(ending, _explain(_describe(program), ending))
    finally:
        recorder.close()
    if ending.refusal is not None:
        raise click.ClickException(ending.refusal)
    return ending.status


def _facts_of(program: Program) -> RunFacts:
    return RunFacts(_describe(program), command_of(program))


def _describe(program: Program) -> str:
    names = {ProgramKind.CODE: "the code", ProgramKind.MODULE: f"-m {program.name}"}
    return names.get(program.kind, program.name)


def _report(ending: Ending, target: Target, form: Form, failed_only: bool, redact: bool, program: Program) -> int:
    """Write the report, if the program began; the status to end with."""
    if ending.recording is None:
        return ending.status
    try:
        form.write(target, _saved(ending, form, redact, program), failed_only)
    except OSError as error:
        ours = say_error(f"the report could not be written: {error.strerror or error}")
        return ending.status or ours
    return ending.status


def _saved(ending: Ending, form: Form, redact: bool, program: Program) -> SavedTrace:
    """The trace to show: no more is gathered than the format asks for."""
    assert ending.recording is not None
    explained = _explain(_describe(program), ending)
    if form.is_short:
        trace = SavedTrace(ending.recording, diagnosis=explained.diagnosis if explained is not None else None)
    else:
        trace = end_trace(facts_of_ending(_facts_of(program), ending), ending.recording, explained)
    return own_redactor().redact_trace(trace) if redact else trace


def _explain(what: str, ending: Ending) -> Explained | None:
    """The verdict, if the program ended with an exception that a loader caused."""
    if ending.failure is None or ending.recording is None:
        return None
    from ..api.explain import explain_with_case, is_of_a_loader

    if not is_of_a_loader(ending.failure, ending.recording):
        return None
    try:
        return explain_with_case(what, ending.status, ending.recording, ending.failure)
    except Exception as error:  # noqa: BLE001 - the recording is there, and must not be lost with the verdict
        say_error(f"no verdict: {type(error).__name__}: {error}")
        return None
