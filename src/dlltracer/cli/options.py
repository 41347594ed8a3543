"""Describes the command line of a command as values, and reads a plain one.

Of `run`, `why` and `deps` people wait for the start, and `click` takes as long to import as Python takes to start. So
their options stand here as values: `commands.py` makes options of click from them, and `read_plain` reads the command
lines that leave nothing to say: known options in their exact spelling, each once, with values that need no check. It
declines everything else, and click reads that from the beginning. So there is one description of the options and one
reader that reports errors (docs/adr/0003).
"""

from __future__ import annotations

import sys

from ..capture.choose import BACKEND_NAMES
from ..errors import DlltracerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

WRITTEN, FOLDER, PROGRAM = "FILE", "DIR", "PATH"
"""Metavars of options that name something in the file system: a file to write, a folder, a program to run."""


class BadUsage(DlltracerError):
    """The command line contradicts itself, or lacks something; the text says what. Raised before anything is done."""


class Option:
    """An option.

    Attributes:
        parameter: its name in the values that a command gets.
        names: its spellings, the long one last ("-o", "--output").
        metavar: the name of its value in the help; `None` for a flag, which has none.
        off: of a flag, the spelling that turns it off ("--no-try"); its value is `None` where neither was given.
        choices: the values that it can have; () for any.
        help: for the help.
        completes: what a shell offers: "file", "folder", "backend", or "".
        multiple: it may be repeated, and its value is a tuple.
        default: without it.
        is_positive: its value is a number above 0.
    """

    __slots__ = (
        "choices", "completes", "default", "help", "is_positive", "metavar", "multiple", "names", "off", "parameter",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - a record; no dataclass here (ADR 3)
        self, parameter: str, *names: str, metavar: str | None = None, off: str | None = None,
        choices: Sequence[str] = (), help: str = "", completes: str = "", multiple: bool = False,
        default: str | None = None, is_positive: bool = False,
    ) -> None:  # fmt: skip
        self.parameter = parameter
        self.names = names
        self.metavar = metavar
        self.off = off
        self.choices = tuple(choices)
        self.help = help
        self.completes = completes
        self.multiple = multiple
        self.default = default
        self.is_positive = is_positive

    @property
    def is_flag(self) -> bool:
        """True if the option has no value on the command line."""
        return self.metavar is None and not self.choices

    @property
    def value_without(self) -> Any:
        """The value of the parameter where the option is not given."""
        if self.is_flag:
            return False if self.off is None else None
        return () if self.multiple else self.default


class CommandLine:
    """A command: its name, what it does in one line, its options, its argument, and the function that does it.

    Attributes:
        name, summary: for the help.
        options: in the order of the help.
        argument: the parameter of its one argument; "" if what is no option is a program with its arguments.
        is_required: whether the argument must be there.
        takes_words: the argument may be several words, and its value is a tuple.
        call: gets the values by their parameters, and which of them are of a settings file. The documentation of the
            function is the help of the command. For a program the values have "program", a `Program` or `None`.
    """

    __slots__ = ("argument", "call", "is_required", "name", "options", "summary", "takes_words")

    def __init__(
        self, name: str, summary: str, call: Callable[[Mapping[str, Any], frozenset[str]], None], *options: Option,
        argument: str = "", is_required: bool = False, takes_words: bool = False,
    ) -> None:  # fmt: skip
        self.takes_words = takes_words
        self.name = name
        self.summary = summary
        self.call = call
        self.options = options
        self.argument = argument
        self.is_required = is_required

    @property
    def takes_value(self) -> frozenset[str]:
        """The spellings of options whose value is the next word."""
        return frozenset(name for option in self.options if not option.is_flag for name in option.names)

    def read_plain(self, words: Sequence[str]) -> dict[str, Any] | None:
        """Return the values that the words give, if they are plain; else `None`: then click is to read them."""
        given: dict[str, Any] = {}
        if not self.argument:
            from .program import NoValue, split_command_line

            try:
                words, given["program"] = split_command_line(words, self.takes_value)
            except NoValue:
                return None
        arguments = self._read_options(words, given)
        if arguments is None or len(arguments) < self.is_required:
            return None
        if self.takes_words:
            given[self.argument] = tuple(arguments)
        elif len(arguments) > bool(self.argument):
            return None
        elif self.argument:
            given[self.argument] = arguments[0] if arguments else None
        return {**{option.parameter: option.value_without for option in self.options}, **given}

    def _read_options(self, words: Sequence[str], given: dict[str, Any]) -> list[str] | None:
        """Read the options into `given`, and return what is no option; `None` if something is not plain."""
        spelled = {name: option for option in self.options for name in option.names}
        spelled |= {option.off: option for option in self.options if option.off is not None}
        arguments, rest = [], list(words)
        while rest:
            word = rest.pop(0)
            if not word.startswith("-") or word == "-":
                if not _is_plain(word):
                    return None
                arguments.append(word)
                continue
            option = spelled.get(word)
            if option is None or (option.parameter in given and not option.multiple):
                return None
            if option.is_flag:
                given[option.parameter] = word != option.off
                continue
            value = rest.pop(0) if rest else ""
            if option.is_positive or (value != "-" and value.startswith("-")) or not _is_plain(value):
                return None
            if option.choices and value not in option.choices:
                return None
            given[option.parameter] = (*given.get(option.parameter, ()), value) if option.multiple else value
        return arguments


BACKEND_OPTION = Option(
    "backend", "--backend", metavar="NAME", default="auto", completes="backend",
    help=f"The mechanism: {', '.join(BACKEND_NAMES)}.  [default: auto]",
)  # fmt: skip
ANNOTATIONS_OPTION = Option(
    "annotations", "--annotations", off="--no-annotations",
    help="Write errors to stderr as annotations of GitHub Actions; the default follows the variable GITHUB_ACTIONS.",
)  # fmt: skip


def _is_plain(word: str) -> bool:
    """Return whether a word means itself. On Windows, click expands patterns, variables and the home folder in
    words."""
    return bool(word) and (sys.platform != "win32" or not any(sign in word for sign in "*?[]~$%"))


def prefer_command_line(
    given: Mapping[str, Any], settings: frozenset[str], *groups: tuple[str, ...]
) -> dict[str, Any]:
    """Return the values as given, without settings that contradict the command line.

    Arguments: `settings`, the parameters whose value is of a settings file; `groups` of parameters of which one at most
    can be chosen.
    """
    kept = dict(given)
    for group in groups:
        chosen = [name for name in group if kept[name] not in (None, False)]
        if any(name not in settings for name in chosen):
            kept.update({name: False if kept[name] is True else None for name in chosen if name in settings})
    return kept
