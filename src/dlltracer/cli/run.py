"""`dlltracer run`: run a Python program and show what it loaded."""

from __future__ import annotations

import sys

import click

from ..capture.select import BACKEND_NAMES, check_backend_name
from .child import Ending, run_child
from .ending import end_like, say_error
from .output import Format, Target, open_target, write_report
from .program import NoValue, Program, ProgramKind, split_command_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.finding import Diagnosis

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
    "--format", "form", type=click.Choice([form.value for form in Format]), default=Format.TEXT.value,
    show_default=True, help="text: a tree to read. jsonl: JSON, one line an event. lines: LoadLibrary or Failed, path.",
)  # fmt: skip
@click.option(
    "--backend", metavar="NAME", default="auto", show_default=True, help=f"The mechanism: {', '.join(BACKEND_NAMES)}."
)
@click.option("--failed-only", is_flag=True, help="Show failures only, and what leads to them.")
@click.pass_obj
def run(program: Program | None, output: str | None, form: str, backend: str, failed_only: bool) -> None:
    """Run a Python program and show which native images it loaded, for which import, and what failed to load.

    The program's own output, input and exit status are what they are without dlltracer. Options of the interpreter
    are given to it: python -X dev -m dlltracer run ...

    When the program ends with a failed import, the verdict follows: what failed, for whom, why, and what to do.
    """
    if program is None:
        raise click.UsageError("no program was given: say -c CODE, -m MODULE, a SCRIPT, or - for stdin")
    check_backend_name(backend)
    target = open_target(output)
    try:
        ending = _run(program, backend)
        if ending.refusal is not None:
            raise click.ClickException(ending.refusal)
        status = _report(ending, target, Format(form), failed_only, _describe(program))
    finally:
        target.discard()
    end_like(status)


def _run(program: Program, backend: str) -> Ending:
    if sys.platform == "win32":
        from .debugged import run_on_windows

        return run_on_windows(program, backend)
    return run_child(program, backend)


def _describe(program: Program) -> str:
    names = {ProgramKind.CODE: "the code", ProgramKind.MODULE: f"-m {program.name}"}
    return names.get(program.kind, program.name)


def _report(ending: Ending, target: Target, form: Format, failed_only: bool, what: str) -> int:
    """Write the report, if the program began; the status to end with."""
    if ending.recording is None:
        return ending.status
    try:
        write_report(target, ending.recording, form, failed_only=failed_only, verdict=_explain(what, ending))
    except OSError as error:
        ours = say_error(f"the report could not be written: {error.strerror or error}")
        return ending.status or ours
    return ending.status


def _explain(what: str, ending: Ending) -> Diagnosis | None:
    """The verdict, if the program crashed, or ended with an exception that a loader caused."""
    if ending.recording is None or (ending.failure is None and ending.crash is None):
        return None
    from ..api.explain import Death, explain_ending, is_of_a_loader

    if ending.failure is not None and not is_of_a_loader(ending.failure, ending.recording):
        return None
    death = Death(ending.crash, added_folders=ending.added_folders)
    try:
        return explain_ending(
            what, ending.status, ending.recording, ending.failure, death=death, requests=ending.requests
        )
    except Exception as error:  # noqa: BLE001 - the recording is there, and must not be lost with the verdict
        say_error(f"no verdict: {type(error).__name__}: {error}")
        return None
