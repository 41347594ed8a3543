"""`dlltracer explain`: the page of a code that a verdict or a check names."""

from __future__ import annotations

import difflib

import click
from click.shell_completion import CompletionItem

from ..report.causes import PAGES, read_causes, render_cause
from ..report.drawing import BOLD, PLAIN, Line, Styled
from .options import BadUsage
from .output import open_target, screen_of, write_styled


def _complete_code(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    codes = sorted({cause.code for cause in read_causes()})
    return [CompletionItem(code) for code in codes if code.startswith(incomplete)]


@click.command("explain", short_help="Print the page of a code: what it means, how to check, fix and avoid it.")
@click.argument("code", required=False, shell_complete=_complete_code)
def explain(code: str | None) -> None:
    """Print what CODE means, how to check it, how to fix it, and how the maintainer of a package avoids it.

    CODE stands in the last line of a verdict and behind each problem of dlltracer check. Without CODE, all are listed.

    Exit status: 0 it was printed, 2 there is no such code.
    """
    target = open_target("-")
    screen = screen_of(target)
    if code is None:
        write_styled(target, lambda _: Styled(_list_of_codes()))
        return
    asked = code.strip().strip("[]").lower()
    causes = read_causes(asked)
    if not causes:
        codes = sorted({cause.code for cause in read_causes()})
        near = difflib.get_close_matches(asked, codes, 3, 0.5)
        near = near or [known for known in codes if asked and (asked in known or known in asked)][:3]
        meant = f"did you mean {' or '.join(near)}?" if near else "dlltracer explain lists all"
        raise BadUsage(f"there is no code {code}: {meant}")
    write_styled(target, lambda _: render_cause(causes, screen))


def _list_of_codes() -> list[Line]:
    lines: list[Line] = []
    for page, command in PAGES.items():
        lines.append(((f"{command}:", BOLD),))
        lines += [((f"  {cause.code}", PLAIN),) for cause in read_causes() if cause.page == page]
    return lines
