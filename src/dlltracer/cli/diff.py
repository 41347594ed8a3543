"""`dlltracer diff`: what differs between a machine where it works and one where it does not."""

from __future__ import annotations

import click

from .ending import EXIT_MISSING
from .output import open_target, write_styled
from .show import open_recording


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
    from ..model.comparison import DifferenceKind

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
