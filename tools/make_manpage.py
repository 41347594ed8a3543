"""Write docs/man/dlltracer.1 from what the commands say about themselves: the source of --help is its source.

`--check` writes nothing, and ends with status 1 when the file is not what it would become.
The language is that of man(7), as far as every man(1) reads it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from dlltracer import __version__
from dlltracer.cli.commands import cli
from dlltracer.cli.run import PROGRAM_FORMS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "man" / "dlltracer.1"

ENVIRONMENT = (
    ("NO_COLOR", "Write no colours."),
    ("FORCE_COLOR", "Write colours, also where there is no terminal; NO_COLOR wins."),
    ("GITHUB_ACTIONS", 'When it is "true", write annotations; see --no-annotations.'),
    ("DLLTRACER", 'When it is "1", and dlltracer hook enable was run, programs explain their failed imports.'),
)

Named = tuple[str, click.Command]


def make_page() -> str:
    """The whole page."""
    commands = list(list_commands(cli, "dlltracer"))
    return "".join(f"{line}\n" for line in _lines(commands))


def list_commands(group: click.Group, path: str) -> Iterator[Named]:
    """Every command below the group, with all the words that call it."""
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from list_commands(command, f"{path} {name}")


def _lines(commands: list[Named]) -> Iterator[str]:
    yield '.\\" Made by tools/make_manpage.py from the help of the commands: do not edit.'
    yield f'.TH DLLTRACER 1 "" "dlltracer {roff_text(__version__)}" "User Commands"'
    yield ".SH NAME"
    yield "dlltracer \\- explain why a native import fails, and show what a program loads"
    yield ".SH SYNOPSIS"
    for place, (path, command) in enumerate(commands):
        if not isinstance(command, click.Group):
            yield from ((".br",) if place else ())
            yield f"\\fB{roff_text(path)}\\fR {roff_text(_usage(path, command))}"
    yield ".SH DESCRIPTION"
    yield from _prose(cli.help or "")
    for path, command in commands:
        yield from _section(path, command)
    yield ".SH ENVIRONMENT"
    for name, meaning in ENVIRONMENT:
        yield from _item(name, meaning)
    yield ".SH SEE ALSO"
    yield "\\fBld.so\\fR(8), \\fBldd\\fR(1), \\fBpython\\fR(1)"


def _usage(path: str, command: click.Command) -> str:
    """How it is called. Written here where click writes it: its brackets differ between its versions."""
    if type(command).format_usage is click.Command.format_usage:
        arguments = [option for option in command.params if isinstance(option, click.Argument)]
        return " ".join(("[OPTIONS]", *map(_argument, arguments)))
    context = click.Context(command, info_name=path)
    formatter = context.make_formatter()
    formatter.width = 10_000
    command.format_usage(context, formatter)
    return " ".join(formatter.getvalue().split()).partition(f"{path} ")[2]


def _argument(argument: click.Argument) -> str:
    name = _values(argument) or (argument.name or "").upper()
    return name if argument.required and "|" not in name else f"({name})" if argument.required else f"[{name}]"


def _values(option: click.Parameter) -> str:
    """The words that may be given."""
    return "|".join(map(str, option.type.choices)) if isinstance(option.type, click.Choice) else ""


def _option(option: click.Option) -> tuple[str, str]:
    """Its names, with what they take, and what it does."""
    names = ", ".join(option.opts)
    if option.secondary_opts:
        names += f" / {', '.join(option.secondary_opts)}"
    elif not option.is_flag:
        names += f" {option.metavar or _values(option) or 'VALUE'}"
    default = f" The default is {option.default}." if option.show_default else ""
    return names, f"{option.help}{default}"


def _section(path: str, command: click.Command) -> Iterator[str]:
    yield f".SH {roff_text(path.upper())}"
    yield from _prose(command.help or "")
    if path == "dlltracer run":
        for form, meaning in PROGRAM_FORMS:
            yield from _item(form, meaning)
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            yield from _item(*_option(option))


def _item(name: str, meaning: str) -> Iterator[str]:
    yield ".TP"
    yield f"\\fB{roff_text(name)}\\fR"
    yield roff_text(meaning)


def _prose(text: str) -> Iterator[str]:
    """Paragraphs; one that begins with \\b keeps its lines, as in the help."""
    for place, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        yield from ((".PP",) if place else ())
        if paragraph.lstrip().startswith("\b"):
            yield ".nf"
            yield from (roff_text(line.strip()) for line in paragraph.replace("\b", "").strip().splitlines())
            yield ".fi"
        else:
            yield roff_text(" ".join(paragraph.split()))


def roff_text(text: str) -> str:
    """Text that means itself: roff takes backslashes, dashes, and a dot or a quote at the start of a line for more."""
    shown = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return f"\\&{shown}" if shown.startswith(".") else shown


def main() -> int:
    page = make_page()
    if "--check" in sys.argv[1:]:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page
        print("the manual page is up to date" if same else f"{PAGE} is out of date: run tools/make_manpage.py")
        return 0 if same else 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page, encoding="utf-8", newline="\n")
    print(f"{PAGE} is written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
