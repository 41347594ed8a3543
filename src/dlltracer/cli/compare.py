"""`dlltracer diff` and `dlltracer order`: what differs between two recordings, and which import order breaks."""

from __future__ import annotations

import os

import click

from ..host.scratch import ScratchFile
from ..model.finding import Diagnosis, OrderOutcome, OrderTrial
from ..model.run import RunResult
from ..model.words import describe_end, describe_status
from ..report.drawing import Styled
from .formats import is_json_asked
from .interpreter import choose_python
from .options import BadUsage
from .output import EXIT_MISSING, open_target, screen_of, write_styled
from .program import Program, ProgramKind
from .runner import UNTRACED
from .show import open_recording
from .spawn import run_child


@click.command("diff", short_help="Say what differs between two recordings.")
@click.argument("first")
@click.argument("second")
@click.option("-o", "--output", metavar="FILE", help="Write to FILE instead of stdout.")
@click.option("--json", "as_json", is_flag=True, help="JSON, with every difference.")
def diff(first: str, second: str, output: str | None, as_json: bool) -> None:
    """Compare two recordings: of a machine where it works and one where it does not, of before and after.

    First come the differences that matter: how it ended, what is missing, what came from another place, another
    version, another order. Then what only one of them loaded, and what is otherwise around them.

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
    """Find out whether the order of these imports matters, and which fewest of them do not go together.

    Each module is tried alone, then all in the order given and in reverse, each time in a process of its own. Of an
    order that fails, modules are left out until no fewer fail; then `why` explains what is left.

    Exit status: 0 no order breaks, 1 one does, 4 a module fails alone, 2 the question was wrong.
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
            run = run_child(program, UNTRACED, python=python, output=(null.fileno(), null.fileno()))
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
