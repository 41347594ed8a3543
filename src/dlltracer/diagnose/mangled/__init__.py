"""Reads mangled C++ symbols: the declaration, the std::string ABI that it asks for, the library that has it.

Source: "Itanium C++ ABI", section 5.1 (External Names), in the wording that c++filt of GNU binutils prints.
Expressions, decltype and vectors are not read: a name that has one has no declaration here, rather than a wrong one.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ...knowledge import read_table
from .grammar import SPECIAL, SPECIAL_NAME, Grammar
from .text import Text, Unreadable, declare, single


class Symbols(Grammar):
    """The rules of the top; each raises `Unreadable` where the text does not follow it."""

    def whole(self) -> Text:
        """Parse all of the symbol: <mangled-name> behind its prefix."""
        text = self.encoding(outermost=True)
        if self.at != len(self.symbol):
            raise Unreadable
        return text

    def encoding(self, *, outermost: bool = False) -> Text:
        """Parse <encoding>, a function or variable. Only the `outermost` function is given its result."""
        with self.deeper():
            if self.peek() in ("T", "G"):
                return self.special()
            saved = self.arguments
            name, qualifiers = self.name(own=True)
            text = single(name)
            if self.peek() not in ("", "E"):
                result = single(self.type()) if text.templated and not text.special else None
                parameters = self.parameters()
                # An enclosing function is named without its result.
                text = declare(result if outermost else None, text, parameters, qualifiers)
                self.count(text)
            elif qualifiers:
                raise Unreadable
            self.arguments = saved
            return text

    def special(self) -> Text:
        """Parse <special-name>: tables of virtual functions, type information, guards, thunks."""
        kind = self.peek(2)
        self.at += 2
        if kind in SPECIAL:
            return Text(SPECIAL[kind] + str(single(self.type())))
        if kind in SPECIAL_NAME:
            name = single(self.name(own=True)[0])
            return Text(SPECIAL_NAME[kind].format(name, self.sequence(36) if kind == "GR" else ""))
        if kind == "TC":
            derived = single(self.type())
            self.digits()
            self.expect("_")
            return Text(f"construction vtable for {single(self.type())}-in-{derived}")
        return Text(self.variant(kind) + str(self.encoding(outermost=True)))

    def variant(self, kind: str) -> str:
        """Return the name of another function that stands for the one that follows."""
        if kind in ("Th", "Tv"):
            self.at -= 1
            self.call_offset()
            return "non-virtual thunk to " if kind == "Th" else "virtual thunk to "
        if kind == "Tc":
            self.call_offset()
            self.call_offset()
            return "covariant return thunk to "
        if kind == "GT":
            self.expect("t")
            return "transaction clone for "
        raise Unreadable


PREFIX = "_Z"
LONGEST_SYMBOL = 16_384
MICROSOFT_NAME = re.compile(r"\?(\?_{0,2}[0-9A-Z])?((?:[\w$]{1,400}@){1,20})@")
"""A name as Visual C++ decorates it, from the innermost to the outermost: ?f@Class@space@@..., ??0Class@space@@..."""


class StringAbi(enum.Enum):
    """The std::string that a symbol is about ("Dual ABI", libstdc++ manual)."""

    NEW = "new"
    """std::__cxx11::string, or an [abi:cxx11] tag: _GLIBCXX_USE_CXX11_ABI=1, GCC 5 and later."""
    OLD = "old"
    """The reference-counted std::string: _GLIBCXX_USE_CXX11_ABI=0."""
    BOTH = "both"
    LIBCXX = "libc++"
    """LLVM's standard library (std::__1), whose types no libstdc++ build has."""


@dataclass(frozen=True)
class MangledSymbol:
    """The declaration and the facts that were read from a symbol.

    Attributes:
        declaration: as c++filt prints it; `None` if it cannot be read whole.
        scope: the namespace or class that the symbol itself is in (not its parameters); empty if global or unknown.
        string_abi: `None` if no std::string takes part.
    """

    declaration: str | None
    scope: str
    string_abi: StringAbi | None


def demangle(symbol: str) -> str | None:
    """The declaration that a mangled symbol stands for, as c++filt prints it; `None` if it is not one, or not known."""
    return read_symbol(symbol).declaration


def read_symbol(symbol: str) -> MangledSymbol:
    """Everything that a mangled name tells. Any text is taken; the work is bounded."""
    if not symbol.startswith(PREFIX) or len(symbol) > LONGEST_SYMBOL or not symbol.isascii():
        return MangledSymbol(None, "", None)
    parser = Symbols(symbol, len(PREFIX))
    try:
        text = str(parser.whole())
    except Unreadable:
        text = None
    return MangledSymbol(text, parser.scope_name, _string_abi(symbol, parser.old_string))


def _string_abi(symbol: str, old: bool) -> StringAbi | None:
    new = "7__cxx11" in symbol or "B5cxx11" in symbol
    if new or old:
        return StringAbi.BOTH if new and old else StringAbi.NEW if new else StringAbi.OLD
    return StringAbi.LIBCXX if "St3__1" in symbol else None


@dataclass(frozen=True)
class SymbolOwner:
    """The library that a symbol belongs to by its name: a guess, since names are free.

    Attributes:
        name: what the library is called.
        libraries: names of files that export it, as patterns with `*`.
        package: the Python distribution that brings it, as a pattern; empty where none is known to.
    """

    name: str
    libraries: tuple[str, ...] = ()
    package: str = ""


def guess_owner(symbol: str) -> SymbolOwner | None:
    """Whose symbol this is, by its C++ namespace (as GCC, Clang or Visual C++ write it) or the prefix of its C name.

    `None` if nothing is known of it.
    """
    table = read_table("symbols")
    if symbol.startswith((PREFIX, "?")):
        scope = read_symbol(symbol).scope if symbol.startswith(PREFIX) else _microsoft_scope(symbol)
        rows = [row for row in table["namespaces"] if _is_inside(scope, row["match"])]
    else:
        rows = [row for row in table["prefixes"] if fnmatchcase(symbol, row["match"])]
    if not rows:
        return None
    row = max(rows, key=lambda row: len(row["match"]))
    return SymbolOwner(row["name"], tuple(row.get("libraries", ())), row.get("package", ""))


def _microsoft_scope(symbol: str) -> str:
    found = MICROSOFT_NAME.match(symbol)
    if found is None:
        return ""
    parts = found[2].split("@")[:-1]
    # A constructor or operator has a code in place of a name of its own.
    return "::".join(reversed(parts if found[1] else parts[1:]))


def _is_inside(scope: str, pattern: str) -> bool:
    depth = pattern.count("::") + 1
    outer = "::".join(scope.split("<", 1)[0].split("::")[:depth])
    return fnmatchcase(outer, pattern)
