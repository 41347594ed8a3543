"""The command `dlltracer`: its subcommands, and the exit statuses of errors."""

from __future__ import annotations

import importlib
import sys

import click

from .. import __version__
from ..errors import DlltracerError
from .output import EXIT_USAGE, say, say_error

_MODULES = {
    "run": "run", "why": "why", "show": "show", "deps": "deps", "check": "check", "diff": "compare", "order": "compare",
    "hook": "about", "info": "about", "selftest": "selftest", "schema": "about", "completion": "about",
}  # fmt: skip
"""The module beside this one that has the command, under the command's name."""


class _Commands(click.Group):
    """The commands. Each is imported when it is used, so that none waits for the imports of another."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        command = getattr(importlib.import_module(f".{_MODULES[cmd_name]}", __package__), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Documentation of a command: dlltracer COMMAND --help",
)
@click.version_option(__version__, "-V", "--version", prog_name="dlltracer", message="%(prog)s %(version)s")
@click.option("--config", metavar="FILE", help="Take the settings from FILE, not from the project's own file.")
@click.option("--no-config", is_flag=True, help="Take no settings from a file.")
@click.pass_context
def cli(ctx: click.Context, config: str | None, no_config: bool) -> None:
    """Trace what native imports really load, and what failed to load.

    Settings of a project stand in its pyproject.toml, as [tool.dlltracer].
    """
    if no_config and config is not None:
        raise click.UsageError("choose one of --config and --no-config")
    if not no_config:
        from .config import load_config

        load_config(ctx, config)


def main() -> None:
    """Run the command line of this process; never returns."""
    try:
        status = cli.main(prog_name="dlltracer", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        say(f"{error.format_message()}\n", err=True)
        status = EXIT_USAGE
    except click.UsageError as error:
        if error.ctx is not None:
            say(f"{error.ctx.get_usage()}\n", err=True)
        # click lists the choices of a missing argument on lines of their own; names of others are not in that message.
        is_missing = isinstance(error, click.MissingParameter)
        status = say_error(" ".join(error.format_message().split()) if is_missing else error.format_message())
    except click.ClickException as error:
        status = say_error(error.format_message())
    except (DlltracerError, OSError) as error:
        status = say_error(str(error))
    except (click.Abort, KeyboardInterrupt):
        status = 130
    sys.exit(status)
