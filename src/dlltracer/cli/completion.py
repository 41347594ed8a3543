"""`dlltracer completion`: what a shell needs to complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from .output import say

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
    from .main import cli

    made = get_completion_class(shell)
    assert made is not None
    # Not its own way: for bash that asks the bash of this machine for its version, and may complain.
    say(ShellComplete.source(made(cli, {}, "dlltracer", VARIABLE)) + "\n")
