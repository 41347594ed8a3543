"""Defaults of the options, from the settings of a project; and completions of their values.

The command line wins over the settings.

The keys are the long names of the options; a table for each command, and above them what holds for every command that
has such an option. They end up in click's `default_map`, checked.
"""

from __future__ import annotations

import os
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..errors import ConfigurationError
from ..host.configfile import PYTEST, Section, UntrustedSettings, describe, find_config, read_config, unknown
from .options import FOLDER, PROGRAM, WRITTEN

PATHS = (WRITTEN, FOLDER, PROGRAM)
"""All metavars of options that name something in the file system."""


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
    except UntrustedSettings as error:  # to stop here would let strangers in a shared folder stop us
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
    from ..capture.backend import BACKEND_NAMES

    return [CompletionItem(name) for name in BACKEND_NAMES if name.startswith(incomplete)]


def complete_file(ctx: click.Context, param: object, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a file."""
    return [CompletionItem(incomplete, type="file")]


def complete_folder(ctx: click.Context, param: object, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a folder."""
    return [CompletionItem(incomplete, type="dir")]
