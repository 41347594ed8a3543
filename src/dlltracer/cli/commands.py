"""Makes the commands for click, which reads every command line that is not plain, writes the help and completes
words."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import click
from click.shell_completion import CompletionItem

from .. import __version__
from ..errors import ConfigurationError, Interrupted
from ..host.configfile import PYTEST, Section, UntrustedSettings, describe, find_config, read_config, unknown
from .options import FOLDER, PROGRAM, WRITTEN, BadUsage, CommandLine, Option
from .output import EXIT_USAGE, CommandFailed, say, say_error
from .program import NoValue, split_command_line

_MODULES = {
    "run": "run", "why": "why", "show": "show", "deps": "deps", "check": "check", "explain": "about",
    "report": "bundle", "diff": "show", "order": "show",
    "hook": "about", "info": "about", "selftest": "selftest", "schema": "about", "completion": "about",
}  # fmt: skip
"""The module beside this one that has the command: under the command's name or, as values, as `COMMAND`."""


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted from error


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


    def make_context(self, *arguments: Any, **given: Any) -> click.Context:
        with _interruptible():
            return super().make_context(*arguments, **given)

    def invoke(self, ctx: click.Context) -> Any:
        with _interruptible():
            return super().invoke(ctx)

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
    "open": "dlltracer show", "view": "dlltracer show",
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
    """Explain why a native import fails, and show what a program loads.

    A project keeps its settings in the table [tool.dlltracer] of its pyproject.toml.
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
    return status if isinstance(status, int) else 0


def load_config(ctx: click.Context, named: str | None) -> None:
    """Make the settings the defaults of the command that the context is about to call.

    `named` is the file to take; without it, the one that belongs to the current folder, if there is one. Raises
    `ConfigurationError`.
    """
    section = read_config(named) if named is not None else _find()
    if section is None or ctx.invoked_subcommand is None:
        return
    group = ctx.command
    assert isinstance(group, click.Group)
    name = ctx.invoked_subcommand
    command = group.get_command(ctx, name)
    if command is None:
        return  # click says that there is no such command
    tables = (*group.list_commands(ctx), PYTEST)
    general = Section(section.path, "", {key: value for key, value in section.values.items() if key not in tables})
    _check_general(ctx, group, general)
    ctx.default_map = {name: defaults_of(command, section.section(name), general)}


def settings_of(ctx: click.Context) -> frozenset[str]:
    """Return the parameters whose value is of a settings file, not of the command line."""
    source = click.core.ParameterSource.DEFAULT_MAP
    return frozenset(name for name in ctx.params if ctx.get_parameter_source(name) is source)


def _find() -> Section | None:
    try:
        return find_config(os.getcwd())
    except FileNotFoundError:  # the current folder was removed
        return None
    except UntrustedSettings as error:  # to stop here would let other users of a shared folder stop us
        click.echo(f"dlltracer: {error} (--config FILE takes it, --no-config does not look)", err=True)
        return None


def _check_general(ctx: click.Context, group: click.Group, general: Section) -> None:
    """Raise for a setting above the tables that no command has."""
    unexplained = {_plain(key): key for key in general.values}
    known: list[str] = []
    # The command that is called comes first: mostly it has them all, and the others need not be imported.
    for name in sorted(group.list_commands(ctx), key=lambda name: name != ctx.invoked_subcommand):
        if not unexplained:
            return
        command = group.get_command(ctx, name)
        options = settable_options(command) if command is not None else {}
        for option in options:
            unexplained.pop(_plain(option), None)
        known += [name, *options]
    for key in unexplained.values():
        raise unknown(general, key, tuple(dict.fromkeys(known)))


def defaults_of(command: click.Command, section: Section, general: Section) -> dict[str, Any]:
    """The `default_map` of a command; below a group, that of its commands."""
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        section.refuse_unknown(tuple(command.list_commands(ctx)))
        below = {name: command.get_command(ctx, name) for name in command.list_commands(ctx)}
        return {
            name: defaults_of(one, section.section(name), general) for name, one in below.items() if one is not None
        }
    options = settable_options(command)
    by_plain = {_plain(key): option for key, option in options.items()}
    defaults: dict[str, Any] = {}
    for where, is_own in ((general, False), (section, True)):
        for key, value in where.values.items():
            option = by_plain.get(_plain(key))
            if option is None:
                if is_own:
                    raise unknown(where, key, tuple(options))
                continue
            assert option.name is not None
            defaults[option.name] = _checked(option, where, key, value)
            if value is True:
                _make_undoable(option)
    return defaults


def settable_options(command: click.Command) -> dict[str, click.Option]:
    """The options that a file can set, by their long names."""
    found = {}
    for param in command.params:
        if isinstance(param, click.Option) and not param.is_eager:
            names = [name[2:] for name in param.opts if name.startswith("--")]
            if names:
                found[names[0]] = param
    return found


def _plain(key: str) -> str:
    """A key without the difference between failed-only and failed_only."""
    return key.replace("_", "-")


def _checked(option: click.Option, section: Section, key: str, value: object) -> Any:
    """The value, if it is one for the option. Raises `ConfigurationError`."""
    if option.is_flag:
        return _of_type(bool, "true or false", section, key, value)
    if not option.multiple:
        return _converted(option, section, key, value)
    if not isinstance(value, list):
        raise ConfigurationError(section.path, section.key(key), f"this is an array, not {describe(value)}")
    return [_converted(option, section, key, one) for one in value]


def _converted(option: click.Option, section: Section, key: str, value: object) -> Any:
    if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType):
        wanted: tuple[type, ...] = (int,) if isinstance(option.type, click.types.IntParamType) else (int, float)
        value = _of_type(wanted, "a number", section, key, value)
    else:
        value = _of_type(str, "text", section, key, value)
        # A project that was cloned must neither run programs nor write elsewhere because somebody stands in its folder.
        if option.metavar == PROGRAM:
            problem = "a program to run is not taken from a file: name it on the command line"
            raise ConfigurationError(section.path, section.key(key), problem)
        if option.metavar in (WRITTEN, FOLDER):
            value = _from_folder(section.path, str(value))
        if option.metavar == WRITTEN and not _is_inside(section.path, str(value)):
            problem = f"{value} is not below the folder of the settings, and only there they may have a file written"
            raise ConfigurationError(section.path, section.key(key), problem)
    try:
        option.type.convert(value, option, None)
    except click.BadParameter as error:
        raise ConfigurationError(section.path, section.key(key), error.message.rstrip(".")) from error
    return value


def _of_type(wanted: type | tuple[type, ...], words: str, section: Section, key: str, value: object) -> object:
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise ConfigurationError(section.path, section.key(key), f"this is {words}, not {describe(value)}")
    return value


def _from_folder(file: str, value: str) -> str:
    """A path as it is meant in the file; "-" is none."""
    if value in ("", "-"):
        return value
    return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(file)), os.path.expanduser(value)))


def _is_inside(file: str, value: str) -> bool:
    """Return whether a path, links followed, is below the folder of the file; "-" writes no file."""
    if value in ("", "-"):
        return True
    folder = os.path.realpath(os.path.dirname(os.path.abspath(file)))
    real = os.path.realpath(value)
    return os.path.splitdrive(real)[0] == os.path.splitdrive(folder)[0] and os.path.commonpath((folder, real)) == folder


def _make_undoable(option: click.Option) -> None:
    """Let --no-NAME take back on the command line what a file has turned on."""
    if not option.secondary_opts:
        option.secondary_opts = [f"--no-{name[2:]}" for name in option.opts if name.startswith("--")]


def complete_backend(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a mechanism."""
    from ..capture.choose import BACKEND_NAMES

    return [CompletionItem(name) for name in BACKEND_NAMES if name.startswith(incomplete)]


def complete_file(ctx: click.Context, param: object, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a file."""
    return [CompletionItem(incomplete, type="file")]


def complete_folder(ctx: click.Context, param: object, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a folder."""
    return [CompletionItem(incomplete, type="dir")]


_COMPLETIONS = {"": None, "file": complete_file, "folder": complete_folder, "backend": complete_backend}
