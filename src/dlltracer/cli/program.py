"""Where our options end and the program begins, as `python` itself would say it; or, after `--`, a command."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass


class ProgramKind(enum.Enum):
    """How the program is named. `child_main.py` is given these values, except for a command, which it does not run."""

    CODE = "code"
    MODULE = "module"
    SCRIPT = "script"
    COMMAND = "command"
    """Any program: `name` is a file, or is looked for on PATH."""


@dataclass(frozen=True)
class Program:
    """What to run: its `kind`, the `name` (code, module, or path), its own `arguments`.

    `must_return`: the question is whether all of it runs, as for an import. A script may end itself (sys.exit).
    """

    kind: ProgramKind
    name: str
    arguments: tuple[str, ...] = ()
    must_return: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The program as one writes it behind `python`; a command, as one writes it."""
        option = {ProgramKind.CODE: ("-c",), ProgramKind.MODULE: ("-m",)}.get(self.kind, ())
        return (*option, self.name, *self.arguments)


_SOURCES = (".py", ".pyw", ".pyc", ".pyz", ".pyzw")


def is_command(word: str) -> bool:
    """Whether the word behind `--` names a command: what the system would run, unless its name says Python."""
    if word.lower().endswith(_SOURCES):
        return False
    import shutil

    return shutil.which(word) is not None


def command_of(program: Program, python: str | None = None) -> tuple[str, ...]:
    """The command line of a program, as it would be without us."""
    if program.kind is ProgramKind.COMMAND:
        return program.words
    return (python or sys.executable or "python", *program.words)


class NoValue(Exception):
    """`-c` or `-m` stands last: what belongs to it is missing. `option` is which."""

    def __init__(self, option: str) -> None:
        super().__init__(option)
        self.option = option


def split_command_line(
    arguments: Sequence[str], takes_value: Collection[str], runs: Callable[[str], bool] = is_command
) -> tuple[list[str], Program | None]:
    """Our options, and the program with everything after it; `None` if there is no program.

    `takes_value` names our options whose value is the next argument; `runs` tells whether the word behind `--` is a
    command. Nothing is checked here. Raises `NoValue`.
    """
    at = 0
    while at < len(arguments):
        argument = arguments[at]
        if argument == "--":
            words = arguments[at + 1 :]
            kind = ProgramKind.COMMAND if words and runs(words[0]) else ProgramKind.SCRIPT
            return list(arguments[:at]), _file(kind, words)
        if argument[:2] in ("-c", "-m"):
            return list(arguments[:at]), _code_or_module(arguments[at:])
        if not argument.startswith("-") or argument == "-":
            return list(arguments[:at]), _file(ProgramKind.SCRIPT, arguments[at:])
        at += 2 if argument in takes_value else 1
    return list(arguments), None


def _file(kind: ProgramKind, words: Sequence[str]) -> Program | None:
    return Program(kind, words[0], tuple(words[1:])) if words else None


def _code_or_module(words: Sequence[str]) -> Program:
    option, attached = words[0][:2], words[0][2:]
    kind = ProgramKind.CODE if option == "-c" else ProgramKind.MODULE
    if attached:
        return Program(kind, attached, tuple(words[1:]))
    if len(words) < 2:
        raise NoValue(option)
    return Program(kind, words[1], tuple(words[2:]))
