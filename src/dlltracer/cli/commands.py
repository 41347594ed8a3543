"""The commands for click, which reads every command line that is not plain, writes the help and completes words."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from .. import __version__
from .config import complete_backend, complete_file, complete_folder, load_config, settings_of
from .options import BadUsage, CommandLine, Option
from .output import EXIT_USAGE, CommandFailed, say, say_error
from .program import NoValue, split_command_line

_MODULES = {
    "run": "run", "why": "why", "show": "show", "deps": "deps", "check": "check", "diff": "compare", "order": "compare",
    "hook": "about", "info": "about", "selftest": "selftest", "schema": "about", "completion": "about",
}  # fmt: skip
"""The module beside this one that has the command: under the command's name or, as values, as `COMMAND`."""


class _Commands(click.Group):
    """The commands. Each is imported when it is used, so that none waits for the imports of another."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _MODULES and cmd_name not in self.commands:
            module = importlib.import_module(f".{_MODULES[cmd_name]}", __package__)
            values = getattr(module, "COMMAND", None)
            command = getattr(module, cmd_name) if values is None else make_command(values)
            assert isinstance(command, click.Command)
            if values is None and command.callback is not None:
                command.callback = refusing_bad_usage(command.callback)
            self.add_command(command, cmd_name)  # the same each time: a settings file may give it further spellings
        return self.commands.get(cmd_name)


    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if ctx.resilient_parsing or args[0].startswith("-"):
                raise
            raise CommandFailed(f"there is no command {args[0]}: {_suggest_command(args)}") from error


_OTHER_WORDS = {
    "help": "dlltracer --help", "version": "dlltracer --version", "trace": "dlltracer run", "import": "dlltracer why",
    "ldd": "dlltracer deps", "tree": "dlltracer deps", "needs": "dlltracer deps", "doctor": "dlltracer selftest",
    "debug": "dlltracer why", "test": "dlltracer selftest", "bug": "dlltracer report", "list": "dlltracer --help",
    "audit": "dlltracer check", "repair": "dlltracer check", "compare": "dlltracer diff", "python": "dlltracer run",
    "explain": "dlltracer why", "open": "dlltracer show", "view": "dlltracer show", "report": "dlltracer run -o",
}  # fmt: skip
"""What people type, from other tools, and the command that does it. Commands of those names win."""
_OF_ENDINGS = {
    ".whl": "check", ".dlltrace": "show", ".etl": "show", ".py": "run", ".pyz": "run", ".so": "deps", ".pyd": "deps",
    ".dll": "deps", ".dylib": "deps", ".exe": "deps",
}  # fmt: skip


def _suggest_command(words: list[str]) -> str:
    """Return what was probably meant by a command line whose first word is no command."""
    import difflib
    import os
    import shlex

    word = words[0]
    near = difflib.get_close_matches(word.lower(), _MODULES, 1, 0.6)
    if near:
        return f"did you mean dlltracer {shlex.join([near[0], *words[1:]])}?"
    if word.lower() in _OTHER_WORDS:
        return f"did you mean {_OTHER_WORDS[word.lower()]}?"
    ending = os.path.splitext(word)[1].lower()
    if ending in _OF_ENDINGS:
        return f"did you mean dlltracer {_OF_ENDINGS[ending]} {shlex.join(words)}?"
    if word.isidentifier() or all(part.isidentifier() for part in word.split(".")) or " " in word:
        return f"did you mean dlltracer why {shlex.join(words)}?"
    return "dlltracer --help lists them; an import is explained by dlltracer why MODULE"


_HINTS = {
    ("why", "-m"): "dlltracer why MODULE imports it, dlltracer run -m MODULE runs it",
}
"""Options that people expect of a command, and what does it."""


def _hint_on_option(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption) and error.ctx is not None and not error.possibilities:
        hint = _HINTS.get((error.ctx.info_name or "", error.option_name))
        return f" {hint}" if hint else ""
    return ""


class _ProgramCommand(click.Command):
    """A command whose options end where the program begins."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        takes_value = {
            name for option in self.params if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        }  # fmt: skip
        try:
            own, ctx.obj = split_command_line(args, takes_value)
        except NoValue as error:
            if ctx.resilient_parsing:  # a completion: the value is what is being typed
                return super().parse_args(ctx, [])
            raise click.UsageError(f"argument expected for the {error.option} option", ctx) from None
        return super().parse_args(ctx, own)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if ctx.obj is None and incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return complete_file(ctx, self, incomplete)  # the program, or what belongs to it

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from .run import USAGE

        formatter.write_usage(ctx.command_path, USAGE)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from .run import PROGRAM_FORMS

        with formatter.section("The program, as python takes it; everything after it belongs to it"):
            formatter.write_dl(list(PROGRAM_FORMS))
        super().format_options(ctx, formatter)


_COMPLETIONS = {"": None, "file": complete_file, "folder": complete_folder, "backend": complete_backend}


def make_command(command: CommandLine) -> click.Command:
    """Return the command of click for one that is described by values."""

    def call(**given: Any) -> None:
        ctx = click.get_current_context()
        if not command.argument:
            given["program"] = ctx.obj
        command.call(given, settings_of(ctx))

    params: list[click.Parameter] = [_make_option(option) for option in command.options]
    if command.argument:
        shape: dict[str, Any] = {"nargs": -1, "metavar": f"[{command.argument.upper()}]"} if command.takes_words else {}
        params.insert(
            0,
            click.Argument([command.argument], required=command.is_required, shell_complete=complete_file, **shape),
        )
    kind = click.Command if command.argument else _ProgramCommand
    return kind(
        command.name, params=params, callback=refusing_bad_usage(call), short_help=command.summary,
        help=command.call.__doc__,
    )  # fmt: skip


def _make_option(option: Option) -> click.Option:
    names = [*option.names[:-1], option.names[-1] if option.off is None else f"{option.names[-1]}/{option.off}"]
    if option.is_flag:
        shape: dict[str, Any] = {"is_flag": True} if option.off is None else {"default": None}
    elif option.is_positive:
        shape = {"type": click.FloatRange(min=0, min_open=True)}
    else:
        shape = {"type": click.Choice(option.choices)} if option.choices else {"default": option.default}
    if option.multiple:
        shape = {"multiple": True}
    return click.Option(
        [*names, option.parameter], metavar=option.metavar, help=option.help,
        shell_complete=_COMPLETIONS[option.completes], **shape,
    )  # fmt: skip


def refusing_bad_usage(call: Callable[..., None]) -> Callable[..., None]:
    """Return the function with `BadUsage` as the error of click, which knows the usage of the command."""

    @functools.wraps(call)
    def wrapped(*arguments: Any, **given: Any) -> None:
        try:
            call(*arguments, **given)
        except BadUsage as error:
            raise click.UsageError(str(error)) from error

    return wrapped


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
        load_config(ctx, config)


def call_by_click() -> int:
    """Run the command line of this process, and return the status to leave with."""
    try:
        status = cli.main(prog_name="dlltracer", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        say(f"{error.format_message()}\n", err=True)
        return EXIT_USAGE
    except click.UsageError as error:
        if error.ctx is not None:
            say(f"{error.ctx.get_usage()}\n", err=True)
        # click lists the choices of a missing argument on lines of their own; names of others are not in that message.
        is_missing = isinstance(error, click.MissingParameter)
        text = error.format_message() + _hint_on_option(error)
        return say_error(" ".join(text.split()) if is_missing else text)
    except click.ClickException as error:
        return say_error(error.format_message())
    except click.Abort:
        return 130
    return status if isinstance(status, int) else 0
