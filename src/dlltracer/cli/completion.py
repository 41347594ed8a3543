"""`dlltracer completion`: what a shell needs to complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from .output import say


def complete_backend(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The mechanisms."""
    from ..capture.backend import BACKEND_NAMES

    return [CompletionItem(name) for name in BACKEND_NAMES if name.startswith(incomplete)]


def complete_file(ctx: click.Context, param: object, incomplete: str) -> list[CompletionItem]:
    """A file: the shell lists them."""
    return [CompletionItem(incomplete, type="file")]


def complete_folder(ctx: click.Context, param: object, incomplete: str) -> list[CompletionItem]:
    """A folder: the shell lists them."""
    return [CompletionItem(incomplete, type="dir")]


SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_DLLTRACER_COMPLETE"
"""The script sets it when it asks the command for what could follow; click answers and leaves."""


@click.command("completion", short_help="Print a script that completes commands in a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script for SHELL that completes commands, options, mechanisms, formats and files.

    \b
    bash: dlltracer completion bash > ~/.local/share/bash-completion/completions/dlltracer
    zsh:  dlltracer completion zsh > FOLDER/_dlltracer, FOLDER being one of $fpath
    fish: dlltracer completion fish > ~/.config/fish/completions/dlltracer.fish
    """
    from .commands import cli

    made = get_completion_class(shell)
    assert made is not None
    # Not its own way: for bash that asks the bash of this machine for its version, and may complain.
    say(ShellComplete.source(made(cli, {}, "dlltracer", VARIABLE)) + "\n")
