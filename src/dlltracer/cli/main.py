"""The command `dlltracer`: its subcommands, and what becomes of errors."""

from __future__ import annotations

import sys

import click

from .. import __version__
from ..errors import DlltracerError
from .deps import deps
from .ending import EXIT_USAGE, say_error
from .hook import hook
from .run import run
from .why import why


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Documentation of a command: dlltracer COMMAND --help",
)
@click.version_option(__version__, "-V", "--version", prog_name="dlltracer", message="%(prog)s %(version)s")
def cli() -> None:
    """Trace what native imports really load, and what failed to load."""


cli.add_command(run)
cli.add_command(deps)
cli.add_command(why)
cli.add_command(hook)


def main() -> None:
    """Run the command line of this process; never returns."""
    try:
        status = cli.main(prog_name="dlltracer", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        status = EXIT_USAGE
    except click.UsageError as error:
        if error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
        status = say_error(error.format_message())
    except click.ClickException as error:
        status = say_error(error.format_message())
    except (DlltracerError, OSError) as error:
        status = say_error(str(error))
    except (click.Abort, KeyboardInterrupt):
        status = 130
    sys.exit(status)
