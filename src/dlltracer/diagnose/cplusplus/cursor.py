"""A place in a mangled name, what was read before it that may be referred to, and the limits of the work."""

from __future__ import annotations

from contextlib import contextmanager

from .tables import ABBREVIATIONS
from .text import Pack, Text, Unreadable, Value, lift

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST_TEXT = 65_536
MOST_TEXT = 1_000_000
"""Characters made in all while one symbol is read: substitutions could double a text at every step."""
DEEPEST = 48
LONGEST_NUMBER = 24
ANYWHERE = "anywhere"
IN_LAMBDA = "in a lambda"


class Cursor:
    """Reads the characters of a symbol.

    Attributes:
        symbol, at: the text, and the next character to read.
        arguments: what the template parameters T_, T0_ ... stand for; `None` where that is not known.
        in_lambda: they stand for `auto` parameters.
        scope_name: the namespace or class of what the symbol is about, as far as read; empty if it is global.
        old_string: an abbreviation for the old std::string was met.
    """

    def __init__(self, symbol: str, at: int) -> None:
        self.symbol = symbol
        self.at = at
        self.arguments: list[Value] | None = None
        self.in_lambda = False
        self.scope_name = ""
        self.old_string = False
        self._named = False
        self._substitutions: list[tuple[Value, object]] = []
        self._trusted = len(symbol)
        self._parameter_at = -1
        self._depth = 0
        self._made = 0

    def peek(self, length: int = 1) -> str:
        return self.symbol[self.at : self.at + length]

    def take(self, wanted: str) -> bool:
        if wanted and self.symbol.startswith(wanted, self.at):
            self.at += len(wanted)
            return True
        return False

    def expect(self, wanted: str) -> None:
        if not self.take(wanted):
            raise Unreadable

    def digits(self, allowed: str = "0123456789") -> str:
        start = self.at
        while self.peek() and self.peek() in allowed:
            self.at += 1
        if self.at - start > LONGEST_NUMBER:
            raise Unreadable
        return self.symbol[start : self.at]

    def sequence(self, base: int = 10) -> int:
        """ "_" is 0, "0_" is 1, and so on."""
        word = self.digits("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:base])
        self.expect("_")
        return int(word, base) + 1 if word else 0

    def source_name(self) -> str:
        length = int(self.digits() or "0")
        name = self.peek(length)
        if not length or len(name) < length:
            raise Unreadable
        self.at += length
        return "(anonymous namespace)" if name.startswith("_GLOBAL__N") else name

    def call_offset(self) -> None:
        virtual = self.take("v")
        if not virtual:
            self.expect("h")
        for _ in range(2 if virtual else 1):
            self.take("n")
            if not self.digits():
                raise Unreadable
            self.expect("_")

    def discriminator(self) -> None:
        if self.take("__"):
            self.digits()
            self.expect("_")
        elif self.take("_") and not self.digits():
            raise Unreadable

    @contextmanager
    def deeper(self) -> Iterator[None]:
        self._depth += 1
        if self._depth > DEEPEST:
            raise Unreadable
        yield
        self._depth -= 1

    def make(self, build: Callable[..., Text], *values: Value) -> Value:
        """`build` of the values, within the limits."""
        made = lift(build, *values)
        self.count(made)
        return made

    def count(self, value: Value) -> None:
        """Raise `Unreadable` if this is one text too many."""
        for text in value.items if isinstance(value, Pack) else (value,):
            self._made += len(text.left) + len(text.right) + 1
            if self._made > MOST_TEXT or len(text.left) > LONGEST_TEXT:
                raise Unreadable

    @property
    def scope(self) -> object:
        """What template parameters stand for here."""
        return IN_LAMBDA if self.in_lambda else self.arguments

    def distrust_substitutions(self) -> None:
        """From here on compilers and c++filt do not number alike (unnamed types): take no substitution made later."""
        self._trusted = min(self._trusted, len(self._substitutions))

    def remember(self, value: Value, start: int) -> Value:
        """Keep what was read since `start` for a substitution; if it has a template parameter, for this scope only."""
        self._substitutions.append((value, self.scope if self._parameter_at >= start else ANYWHERE))
        return value

    def template_parameter(self) -> Value:
        self._parameter_at = self.at
        self.expect("T")
        number = self.sequence()
        if self.in_lambda:
            return Text(f"auto:{number + 1}")
        if self.arguments is None or number >= len(self.arguments):
            raise Unreadable
        self.count(self.arguments[number])
        return self.arguments[number]

    def substitution(self) -> Value:
        short = self.peek(2)
        if short in ABBREVIATIONS:
            self.at += 2
            self.old_string = self.old_string or short in ("Ss", "Sb")
            return ABBREVIATIONS[short]
        self.expect("S")
        number = self.sequence(36)
        if number >= min(len(self._substitutions), self._trusted):
            raise Unreadable
        value, scope = self._substitutions[number]
        self.count(value)
        if scope is not ANYWHERE:
            if scope is not self.scope:
                raise Unreadable
            self._parameter_at = self.at - 1
        return value
