"""Parses names and types in mangled C++ symbols ("Itanium C++ ABI", section 5.1): no expressions, decltype, vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from .text import (
    Pack,
    Text,
    Unreadable,
    Value,
    instantiate,
    join_list,
    lift,
    make_array,
    make_function,
    point,
    point_to_member,
    qualify,
    refer,
    single,
)  # fmt: skip

BUILTIN = {
    "v": "void", "w": "wchar_t", "b": "bool", "c": "char", "a": "signed char", "h": "unsigned char", "s": "short",
    "t": "unsigned short", "i": "int", "j": "unsigned int", "l": "long", "m": "unsigned long", "x": "long long",
    "y": "unsigned long long", "n": "__int128", "o": "unsigned __int128", "f": "float", "d": "double",
    "e": "long double", "g": "__float128", "z": "...",
}  # fmt: skip
BUILTIN_D = {
    "Dn": "decltype(nullptr)", "Di": "char32_t", "Ds": "char16_t", "Du": "char8_t", "Da": "auto",
    "Dc": "decltype(auto)", "Df": "decimal32", "Dd": "decimal64", "De": "decimal128",
}  # fmt: skip
OPERATORS = {
    "nw": " new", "na": " new[]", "dl": " delete", "da": " delete[]", "ps": "+", "ng": "-", "ad": "&", "de": "*",
    "co": "~", "pl": "+", "mi": "-", "ml": "*", "dv": "/", "rm": "%", "an": "&", "or": "|", "eo": "^", "aS": "=",
    "pL": "+=", "mI": "-=", "mL": "*=", "dV": "/=", "rM": "%=", "aN": "&=", "oR": "|=", "eO": "^=", "ls": "<<",
    "rs": ">>", "lS": "<<=", "rS": ">>=", "eq": "==", "ne": "!=", "lt": "<", "gt": ">", "le": "<=", "ge": ">=",
    "ss": "<=>", "nt": "!", "aa": "&&", "oo": "||", "pp": "++", "mm": "--", "cm": ",", "pm": "->*", "pt": "->",
    "cl": "()", "ix": "[]",
}  # fmt: skip
_CHARS = "char, std::char_traits<char>"
ABBREVIATIONS = {
    "Sa": Text("std::allocator", last="allocator"),
    "Sb": Text("std::basic_string", last="basic_string"),
    "Ss": Text(f"std::basic_string<{_CHARS}, std::allocator<char> >", last="basic_string"),
    "Si": Text(f"std::basic_istream<{_CHARS} >", last="basic_istream"),
    "So": Text(f"std::basic_ostream<{_CHARS} >", last="basic_ostream"),
    "Sd": Text(f"std::basic_iostream<{_CHARS} >", last="basic_iostream"),
}
SPECIAL = {"TV": "vtable for ", "TT": "VTT for ", "TI": "typeinfo for ", "TS": "typeinfo name for "}
"""Followed by a type; those of `SPECIAL_NAME` by a name."""
SPECIAL_NAME = {
    "GV": "guard variable for {}", "GR": "reference temporary #{1} for {0}", "TH": "TLS init function for {}",
    "TW": "TLS wrapper function for {}",
}  # fmt: skip
DECLARATORS = "PROAMu"
"""Pointer, references, array, pointer to member, a vendor's type."""
QUALIFIERS = {"r": "restrict", "V": "volatile", "K": "const"}
INTEGER_SUFFIX = {"i": "", "j": "u", "l": "l", "m": "ul", "x": "ll", "y": "ull"}


LONGEST_TEXT = 65_536
MOST_TEXT = 1_000_000
"""Characters made in all while one symbol is read: substitutions could double a text at every step."""
DEEPEST = 48
LONGEST_NUMBER = 24
ANYWHERE = "anywhere"
IN_LAMBDA = "in a lambda"


class NameCursor:
    """Reads the characters of a symbol. Methods raise `Unreadable` where the text does not follow the grammar.

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
        """Return the next characters, and stay before them; fewer at the end."""
        return self.symbol[self.at : self.at + length]

    def take(self, wanted: str) -> bool:
        """Return whether this text comes next, and go behind it if so."""
        if wanted and self.symbol.startswith(wanted, self.at):
            self.at += len(wanted)
            return True
        return False

    def expect(self, wanted: str) -> None:
        """Go behind this text, which has to come next."""
        if not self.take(wanted):
            raise Unreadable

    def digits(self, allowed: str = "0123456789") -> str:
        """Take the digits that follow, possibly none; `Unreadable` for more than any symbol has."""
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
        """Parse <source-name>: a length, and so many characters."""
        length = int(self.digits() or "0")
        name = self.peek(length)
        if not length or len(name) < length:
            raise Unreadable
        self.at += length
        return "(anonymous namespace)" if name.startswith("_GLOBAL__N") else name

    def call_offset(self) -> None:
        """Skip <call-offset>, of a thunk."""
        virtual = self.take("v")
        if not virtual:
            self.expect("h")
        for _ in range(2 if virtual else 1):
            self.take("n")
            if not self.digits():
                raise Unreadable
            self.expect("_")

    def discriminator(self) -> None:
        """Skip <discriminator>, which numbers local names."""
        if self.take("__"):
            self.digits()
            self.expect("_")
        elif self.take("_") and not self.digits():
            raise Unreadable

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """Count one level of nesting, for a `with` block; `Unreadable` beyond `DEEPEST`."""
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
        """The arguments that template parameters stand for here."""
        return IN_LAMBDA if self.in_lambda else self.arguments

    def distrust_substitutions(self) -> None:
        """From here on compilers and c++filt do not number alike (unnamed types): take no substitution made later."""
        self._trusted = min(self._trusted, len(self._substitutions))

    def remember(self, value: Value, start: int) -> Value:
        """Keep what was read since `start` for a substitution; if it has a template parameter, for this scope only."""
        self._substitutions.append((value, self.scope if self._parameter_at >= start else ANYWHERE))
        return value

    def template_parameter(self) -> Value:
        """Parse <template-param>, and return the argument that it stands for."""
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
        """Parse <substitution>, and return the value that it stands for."""
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


class Grammar(NameCursor):
    """A method for each rule of names and types; each raises `Unreadable` where the text does not follow it."""

    def encoding(self, *, outermost: bool = False) -> Text:
        """A whole mangled entity: see `Symbols`."""
        raise NotImplementedError

    def parameters(self) -> str:
        """Parse <bare-function-type>, and return the parameters as text."""
        if self.take("v"):
            return ""
        values: list[Value] = []
        while self.peek() not in ("", "E"):
            if self.peek(2) in ("RE", "OE"):
                break
            if self.peek() == "v":
                raise Unreadable
            values.append(self.type())
        if not values or any(isinstance(value, Pack) and not value.items for value in values[:-1]):
            raise Unreadable
        return join_list(values)

    # Names

    def name(self, *, own: bool = False) -> tuple[Value, str]:
        """A name, and the qualifiers of the member function that it is; `own` if it is what an encoding is about."""
        with self.deeper():
            start = self.at
            if self.take("N"):
                return self.nested_name(own)
            if self.take("Z"):
                return self.local_name(own)
            if self.peek() == "S" and self.peek(2) != "St":
                name = self.substitution()
                if self.peek() != "I":
                    raise Unreadable
                return self.apply_arguments(name, own), ""
            name = self.inside(Text("std")) if self.take("St") else self.unqualified(None)
            if self.first(own) and str(name).startswith("std::"):
                self.scope_name = "std"
            if self.peek() == "I":
                self.remember(name, start)
                name = self.apply_arguments(name, own)
            return name, ""

    def first(self, own: bool) -> bool:
        """Return whether this is the name that the whole symbol is about."""
        first, self._named = own and not self._named, self._named or own
        return first

    def nested_name(self, own: bool) -> tuple[Value, str]:
        """Parse <nested-name> behind its "N"; returns as `name`."""
        start = self.at
        qualifiers = "".join(f" {QUALIFIERS[q]}" for q in reversed(self.digits("rVK")))
        qualifiers += " &" if self.take("R") else " &&" if self.take("O") else ""
        prefix: Value | None = None
        bare = True
        first = self.first(own)
        while not self.take("E"):
            if self.peek(2) == "St" and prefix is None:
                self.at += 2
                prefix = Text("std")
            elif self.peek() == "S" and prefix is None:
                prefix = self.substitution()
            elif prefix is None or not self.take("M"):
                prefix = self.component(prefix, own)
                bare = False
                if self.peek() != "E":
                    self.remember(prefix, start)
            if first and self.peek() != "E" and isinstance(prefix, Text):
                self.scope_name = str(prefix)
        if prefix is None or bare:
            raise Unreadable
        return prefix, qualifiers

    def component(self, prefix: Value | None, own: bool) -> Value:
        """Parse one part of <prefix>, behind the parts in `prefix`."""
        if prefix is None:
            return self.template_parameter() if self.peek() == "T" else self.unqualified(None)
        return self.apply_arguments(prefix, own) if self.peek() == "I" else self.inside(prefix)

    def inside(self, prefix: Value) -> Value:
        """The next name, as a member of `prefix`."""
        inner = self.unqualified(prefix)

        def qualified(outer: Text, member: Text) -> Text:
            return replace(member, left=f"{outer}::{member.left}")

        return self.make(qualified, prefix, inner)

    def unqualified(self, prefix: Value | None) -> Text:
        """Parse <unqualified-name>, in the scope `prefix`."""
        self.take("L")
        start = self.peek()
        if start.isdigit():
            word = self.source_name()
            name = Text(word, last=word)
        elif start == "U":
            name = self.unnamed()
        elif start in ("C", "D") and isinstance(prefix, Text) and prefix.last:
            name = self.structor(prefix.last)
        elif self.take("li"):
            name = Text(f'operator"" {self.source_name()}')
        elif self.take("cv"):
            saved, self.arguments = self.arguments, None
            name = replace(single(self.make(lambda t: Text(f"operator {t}"), self.type())), special=True)
            self.arguments = saved
        elif self.peek(2) in OPERATORS:
            name = Text("operator" + OPERATORS[self.peek(2)])
            self.at += 2
        else:
            raise Unreadable
        while self.take("B"):
            name = replace(name, left=f"{name.left}[abi:{self.source_name()}]")
        return name

    def structor(self, last: str) -> Text:
        """Parse <ctor-dtor-name> of the class with the name `last`."""
        kind = self.peek(2)
        self.at += 2
        if kind in ("C1", "C2", "C3", "C4", "C5"):
            return Text(last, last=last, special=True)
        if kind in ("D0", "D1", "D2", "D4", "D5"):
            return Text(f"~{last}", last=last, special=True)
        raise Unreadable

    def unnamed(self) -> Text:
        """Parse <unnamed-type-name>: an unnamed type or a lambda."""
        if self.take("Ut"):
            self.distrust_substitutions()
            return Text(f"{{unnamed type#{self.sequence() + 1}}}")
        self.expect("Ul")
        saved, self.in_lambda = self.in_lambda, True
        parameters = self.parameters()
        self.in_lambda = saved
        self.expect("E")
        return Text(f"{{lambda({parameters})#{self.sequence() + 1}}}")

    def local_name(self, own: bool) -> tuple[Value, str]:
        """Parse <local-name> behind its "Z"; returns as `name`."""
        outer = self.encoding()
        self.expect("E")
        if self.take("s"):
            self.discriminator()
            return Text(f"{outer}::string literal"), ""
        if self.peek() == "d":
            raise Unreadable
        inner, qualifiers = self.name(own=own)
        self.discriminator()
        return self.make(lambda name: replace(name, left=f"{outer}::{name.left}"), inner), qualifiers

    # Templates and substitutions

    def apply_arguments(self, name: Value, own: bool) -> Value:
        """Parse <template-args>, and return the name with them."""
        saved = self.arguments
        self.arguments = None if own else saved
        self.expect("I")
        found: list[Value] = []
        listed: list[Value] = []
        while not self.take("E"):
            value = self.argument()
            if isinstance(value, Text) or not value.spread:
                found.append(value)
                listed.append(value)
                continue
            found.append(replace(value, spread=False))
            listed += value.items
            if not value.items and found[1:]:
                # c++filt prints a comma and takes it back, and then sees no ">" before its own.
                if self.peek() != "E":
                    raise Unreadable
                listed.append(Text(""))
        self.arguments = found if own else saved
        return self.make(instantiate, name, *listed)

    def argument(self) -> Value:
        """Parse <template-arg>."""
        if self.take("J"):
            return self.argument_pack()
        if self.take("X"):
            value = self.template_parameter()
            self.expect("E")
            return value
        return self.literal() if self.take("L") else self.type()

    def argument_pack(self) -> Pack:
        """Parse the rest of an argument pack, up to its "E"."""
        items: list[Text] = []
        with self.deeper():
            while not self.take("E"):
                value = self.argument()
                items += value.items if isinstance(value, Pack) and value.spread else (single(value),)
        return Pack(tuple(items), spread=True)

    def literal(self) -> Text:
        """Parse <expr-primary> behind its "L": a literal."""
        if self.peek() == "_":
            raise Unreadable
        kind = self.peek()
        of = str(single(self.type()))
        sign = "-" if self.take("n") else ""
        value = sign + self.digits()
        self.expect("E")
        if value in ("", "-"):
            raise Unreadable
        if kind == "b" and value in ("0", "1"):
            return Text("true" if value == "1" else "false")
        return Text(value + INTEGER_SUFFIX[kind]) if kind in INTEGER_SUFFIX else Text(f"({of}){value}")

    # Types

    def type(self) -> Value:
        """Parse <type>."""
        with self.deeper():
            start, kind = self.at, self.peek()
            for table, length in ((BUILTIN, 1), (BUILTIN_D, 2)):
                if self.peek(length) in table:
                    self.at += length
                    return Text(table[self.symbol[start : self.at]])
            if kind == "S" and self.peek(2) != "St":
                value = self.substitution()
            else:
                value = self.remember(self.template_parameter() if kind == "T" else self.compound(kind), start)
            if kind in "ST" and self.peek() == "I":
                value = self.remember(self.apply_arguments(value, False), start)
            return value

    def compound(self, start: str) -> Value:
        """Parse a type that begins with `start` and is made of other types."""
        if start in QUALIFIERS:
            return self.qualified(self.digits("rVK"))
        if start == "F" or self.peek(3) == "DoF":
            return self.function("")
        if self.take("Dp"):
            return self.expansion()
        if start in DECLARATORS:
            return self.declarator(start)
        name, qualifiers = self.name()
        if qualifiers:
            raise Unreadable
        return name

    def declarator(self, start: str) -> Value:
        """Parse a type with a declarator: a pointer, reference, array or pointer to member."""
        self.at += 1
        if start == "u":
            return Text(self.source_name())
        if start == "A":
            size = self.digits()
            self.expect("_")
            return self.make(make_array(size), self.type())
        if start == "M":
            owner = self.type()
            return self.make(point_to_member, owner, self.type())
        return self.make(point if start == "P" else refer("&" if start == "R" else "&&"), self.type())

    def expansion(self) -> Pack:
        """Parse a pack expansion ("Dp")."""
        value = self.type()
        if not isinstance(value, Pack) or value.spread:
            raise Unreadable
        return replace(value, spread=True)

    def qualified(self, letters: str) -> Value:
        """Parse a type behind its cv-qualifiers, `letters`."""
        if self.peek() == "F" or self.peek(3) == "DoF":
            return self.function("".join(f" {QUALIFIERS[q]}" for q in reversed(letters)))
        value = self.type()
        for letter in reversed(letters):
            value = self.make(qualify(QUALIFIERS[letter]), value)
        return value

    def function(self, qualifiers: str) -> Value:
        """Parse <function-type>, of a function with these cv-qualifiers."""
        safe = " noexcept" if self.take("Do") else ""
        self.expect("F")
        self.take("Y")
        result = single(self.type())
        parameters = self.parameters()
        reference = " &" if self.take("R") else " &&" if self.take("O") else ""
        self.expect("E")
        return self.make(lambda r: make_function(r, parameters, f"{qualifiers}{reference}{safe}"), result)
