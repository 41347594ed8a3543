"""Commands on recordings: `show` in any format, `diff` of two, and `order`, which makes some and compares them."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import Any

import click

from ..binary.reading import read_regular
from ..errors import BinaryFormatError
from ..host.recording_files import read_trace_file, read_trace_stream
from ..host.scratch import ScratchFile
from ..model.finding import Diagnosis, OrderOutcome, OrderTrial
from ..model.run import RunResult, SavedTrace
from ..model.tracereader import NotARecording
from ..model.words import describe_end, describe_status
from ..report.drawing import Styled
from .commands import complete_file, settings_of
from .formats import (
    FORMS,
    GITHUB,
    HTML,
    RECORDING,
    STDIN,
    Form,
    choose_form,
    formats_help,
    is_json_asked,
    refuse_as_recording,
)
from .options import BadUsage, prefer_command_line
from .output import EXIT_MISSING, EXIT_USAGE, CommandFailed, open_target, say_error, screen_of, write_styled
from .process import RunOptions
from .program import Program, ProgramKind, choose_python
from .runner import UNTRACED
from .spawn import run_child

_HEAD = 4096


@dataclass(frozen=True)
class _ShowOptions:
    """Values of the command line, by the names of the parameters below."""

    file: str
    output: str | None
    form: str | None
    html: str | None
    github: bool
    failed_only: bool
    verbose: bool
    redact: bool
    startup: bool
    process: str | None
    pid: int | None

    def chosen_form(self, settings: frozenset[str]) -> Form:
        """Return the format to write. Raises `BadUsage` when options contradict each other."""
        if self.html is not None and (self.output is not None or self.form not in (None, HTML)):
            raise BadUsage("--html FILE is an output of its own: leave out -o and --format")
        if self.github and (self.html is not None or self.form not in (None, GITHUB)):
            raise BadUsage("--github is a format of its own: leave out --html and --format")
        if self.html is not None:
            refuse_as_recording(self.html, HTML)
            return choose_form(HTML, False, None, self.failed_only, settings)
        return choose_form(self.form, self.github, self.output, self.failed_only, settings)


@click.command("show", short_help="Show a recording, made here or on another machine.")
@click.argument("file", shell_complete=complete_file)
@click.option("-o", "--output", metavar="FILE", shell_complete=complete_file, help="Write to FILE instead of stdout.")
@click.option(
    "--format", "form", type=click.Choice(list(FORMS)),
    help=f"{formats_help()}  [default: by the name of the output, else text]",
)  # fmt: skip
@click.option("--html", metavar="FILE", shell_complete=complete_file, help="Write an HTML page to FILE.")
@click.option("--github", is_flag=True, help="Markdown for an issue, at most 60 lines: the same as --format github.")
@click.option("-v", "--verbose", is_flag=True, help="Text: show all images and places, and the whole verdict.")
@click.option("--failed-only", is_flag=True, help="Show failures only, and what leads to them.")
@click.option("--redact", is_flag=True, help="Leave out names of users and of the machine, and secrets.")
@click.option("--startup", is_flag=True, help="For an .etl file: show the images that were loaded at its start, too.")
@click.option("--process", metavar="NAME", help="For a file of many processes (.etl): those of this program.")
@click.option("--pid", metavar="N", type=int, help="For a file of many processes (.etl): the one with this id.")
def show(**given: Any) -> None:
    """Show a recording: the loads, the failures, and the verdict if there is one.

    FILE was made by dlltracer run or dlltracer why (-o FILE.dlltrace), on this or another machine with any system; "-"
    reads a recording from standard input. A damaged or torn recording is shown as far as it can be read.

    Exit status: 0 the recording was shown, 2 the file is no recording, or the command line is wrong.
    """
    settings = settings_of(click.get_current_context())
    options = _ShowOptions(**prefer_command_line(given, settings, ("form", "github", "html"), ("output", "html")))
    chosen = options.chosen_form(settings)
    chosen = chosen.in_full(options.verbose and (chosen.write_full is not None or "verbose" not in settings))
    trace = open_recording(options.file, options.process, options.pid, startup=options.startup)
    if trace.steps and not chosen.can_show_steps:
        shown = ", ".join(form.name for form in FORMS.values() if form.can_show_steps)
        raise BadUsage(f"this is the report of a self-test, which is shown as {shown} only, not {chosen.name}")
    if options.redact:
        from ..report.redact import redact as without_names

        trace = without_names(trace)
    if chosen.name != RECORDING:
        trace = _with_own_verdict(trace)
    _write(trace, chosen, options.html or options.output or "-", options.failed_only)


def open_recording(
    file: str, process: str | None = None, pid: int | None = None, *, startup: bool = False
) -> SavedTrace:
    """Return the trace in a file, of whatever kind it is; "-" is standard input, which must hold a recording.

    Arguments, for a file that has many processes (.etl): `process`, `pid`, the name of the program, the number of the
    one; `startup`, also the images that were there when it began.
    Raises `CommandFailed` with one line on what is wrong.
    """
    try:
        if file == STDIN:
            return read_trace_stream(sys.stdin.buffer)
        from ..capture.etl import is_etl, read_etl

        if is_etl(read_regular(file, _HEAD)):
            return read_etl(file, process=process, pid=pid, startup=startup)
        if process is not None or pid is not None or startup:
            raise BadUsage("--process, --pid and --startup are for .etl files: this is a recording of one run")
        return read_trace_file(file)
    except OSError as error:
        raise CommandFailed(f"cannot read {file}: {error.strerror or error}") from error
    except BinaryFormatError as error:
        raise CommandFailed(f"cannot read {file}: {error.problem}; - reads a recording from a pipe") from error
    except NotARecording as error:
        raise CommandFailed(f"{file}: {error}") from error


def _with_own_verdict(trace: SavedTrace) -> SavedTrace:
    """Return the trace with the verdict that our rules give on its facts, in the place of the one that it brought."""
    if trace.diagnosis is None:
        return trace
    from ..api.saving import explain_saved

    return replace(trace, diagnosis=explain_saved(trace))


def _write(trace: SavedTrace, form: Form, output: str, failed_only: bool) -> None:
    target = open_target(output)
    try:
        form.write(target, trace, failed_only)
    except OSError as error:
        say_error(f"the report could not be written: {error.strerror or error}")
        raise click.exceptions.Exit(EXIT_USAGE) from error
    finally:
        target.discard()


@click.command("diff", short_help="Say what differs between two recordings.")
@click.argument("first")
@click.argument("second")
@click.option("-o", "--output", metavar="FILE", help="Write to FILE instead of stdout.")
@click.option("--json", "as_json", is_flag=True, help="JSON, with every difference.")
def diff(first: str, second: str, output: str | None, as_json: bool) -> None:
    """Compare two recordings: one of a machine where a program works and one where it fails, or before and after.

    The differences that matter come first: the end of the run, missing images, other places, versions and orders.
    Images that only one run loaded follow, then differences of the environment.

    The exit status is 1 when something differs besides the environment.
    """
    from ..diagnose.compare import compare_traces
    from ..model.finding import DifferenceKind

    as_json = is_json_asked(as_json, output)
    traces = open_recording(first), open_recording(second)
    comparison = compare_traces(*traces, names=(first, second))
    target = open_target(output or "-")
    try:
        if as_json:
            from ..report.render_json import render_diff_json

            target.write(render_diff_json(comparison))
        else:
            from ..report.render_comparisons import render_diff

            write_styled(target, lambda plain: render_diff(comparison, ascii_only=plain))
    finally:
        target.discard()
    if any(difference.kind is not DifferenceKind.ENVIRONMENT for difference in comparison.differences):
        raise click.exceptions.Exit(EXIT_MISSING)


EXIT_UNDECIDED = 4
"""Status when a module fails alone, so that orders cannot be compared."""

_BEGIN = "import os, sys; begun = os.open(sys.argv.pop(), os.O_WRONLY | os.O_APPEND)"
_IMPORT = "os.write(begun, b'.'); import {}"
"""The file has a point for each import that began: a crash takes nothing with it."""


@click.command("order", short_help="Find the import order that breaks.")
@click.argument("modules", nargs=-1, metavar="MODULE MODULE...")
@click.option(
    "--python", metavar="PATH",
    help="The interpreter to try it with (Python 3.10 or later), or the folder of its environment.",
)  # fmt: skip
@click.option("-o", "--output", metavar="FILE", help="Write to FILE instead of stdout.")
@click.option("--json", "as_json", is_flag=True, help="JSON, with every trial, and the verdict.")
def order(modules: tuple[str, ...], python: str | None, output: str | None, as_json: bool) -> None:
    """Find out whether the order of these imports matters, and the smallest set of them that fails together.

    Each module is tried alone, then all in the order given and in reverse, each time in a process of its own. If an
    order fails, modules are left out until the smallest failing set remains. `why` then explains that set.

    Exit status: 0 no order fails, 1 an order fails, 4 a module fails alone, 2 the command line is wrong.
    """
    from ..diagnose.trials import find_breaking_order

    _check(modules)
    as_json = is_json_asked(as_json, output)
    python = choose_python(python)
    target = open_target(output or "-")
    try:
        search = find_breaking_order(modules, lambda tried: _attempt(tried, python))
        verdict = None if search.breaking is None else _explain(search.breaking.modules, python)
        if as_json:
            from ..report.render_json import render_order_json

            target.write(render_order_json(search, verdict))
        else:
            from ..report.render_comparisons import render_order
            from ..report.render_short import render_short_verdict

            def render(plain: bool) -> Styled:
                text = render_order(search)
                return text if verdict is None else text + render_short_verdict(verdict, screen_of(target))

            write_styled(target, render)
    finally:
        target.discard()
    statuses = {OrderOutcome.NO_ORDER_BREAKS: 0, OrderOutcome.BREAKS: EXIT_MISSING}
    raise click.exceptions.Exit(statuses.get(search.outcome, EXIT_UNDECIDED))


def _check(modules: tuple[str, ...]) -> None:
    if len(modules) < 2:
        raise BadUsage("name at least two modules")
    for module in modules:
        if not all(part.isidentifier() for part in module.split(".")):
            raise BadUsage(f"{module} is not the name of a module")
        if modules.count(module) > 1:
            raise BadUsage(f"{module} is named twice")


def _attempt(modules: tuple[str, ...], python: str | None) -> OrderTrial:
    with ScratchFile("begun") as file:
        begun = file.path
        with open(begun, "wb"), open(os.devnull, "wb") as null:
            program = Program(ProgramKind.CODE, "\n".join([_BEGIN, *map(_IMPORT.format, modules)]), (begun,))
            run = run_child(program, UNTRACED, RunOptions(python=python, output=(null.fileno(), null.fileno())))
        count = os.stat(begun).st_size
    if run.status == 0:
        return OrderTrial(modules)
    return OrderTrial(modules, max(count - 1, 0), _how(run))


def _how(run: RunResult) -> str:
    if run.errors:
        return f"{run.errors[0].type}: {run.errors[0].message}"
    status = run.status or 0
    return describe_end(status) if status < 0 or status >> 31 else describe_status(status)


def _explain(modules: tuple[str, ...], python: str | None) -> Diagnosis:
    from .try_import import explain_code

    *before, victim = modules
    what = f"import {victim}" + (f" after {', '.join(before)}" if before else "")
    return explain_code(what, "\n".join(f"import {module}" for module in modules), python)
