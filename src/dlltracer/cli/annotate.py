"""Annotations for GitHub Actions: whether to write them, and where."""

from __future__ import annotations

import os

import click

from .output import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

annotations_option = click.option(
    "--annotations/--no-annotations", default=None,
    help="Errors as GitHub Actions shows them beside the code, on stderr; the default is what GITHUB_ACTIONS says.",
)  # fmt: skip


def say_annotations(choice: bool | None, render: Callable[[str], str], *, inside_line: bool = False) -> None:
    """Write them on stderr, which the runner reads as well as stdout, and which no other program is fed with.

    Arguments:
        choice: of the option; `None` leaves it to the environment.
        render: makes them, given the folder of the checkout.
        inside_line: something without an end of line may stand there.
    """
    if not (os.environ.get("GITHUB_ACTIONS") == "true" if choice is None else choice):
        return
    text = render(os.environ.get("GITHUB_WORKSPACE", ""))
    if text:
        say(f"\n{text}" if inside_line else text, err=True)
