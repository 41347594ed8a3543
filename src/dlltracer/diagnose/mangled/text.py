"""Writes C++ types as text: a declarator has a part to the left of where a name would stand and one to the right."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace


class Unreadable(Exception):
    """A mangled name that this reader does not know, or not at all one."""


@dataclass(frozen=True)
class Text:
    """A type or a name, as far as printed.

    Attributes:
        left, right: what stands before and after the name in a declaration; for most types right is empty.
        opener: what opens the parenthesis that a pointer to it needs (functions and arrays); else empty.
        reference: "&" or "&&" if it is a reference, and `referent` what it refers to.
        qualifiers: those it has already, which are not repeated.
        last: the name a constructor of it has.
        templated: it ends with template arguments.
        special: a constructor, destructor or conversion, which has no return type.
    """

    left: str
    right: str = ""
    opener: str = ""
    reference: str = ""
    referent: Text | None = None
    qualifiers: tuple[str, ...] = ()
    last: str = ""
    templated: bool = False
    special: bool = False

    def __str__(self) -> str:
        return self.left + self.right


@dataclass(frozen=True)
class Pack:
    """The arguments that a template parameter pack stands for; `spread` once they stand in a list one by one."""

    items: tuple[Text, ...]
    spread: bool = False


Value = Text | Pack


def lift(make: Callable[..., Text], *values: Value) -> Value:
    """`make` of the values, or where some are packs, of each element of the packs (which must be of one length).

    Raises `Unreadable` where they are not.
    """
    packs = [value for value in values if isinstance(value, Pack)]
    if not packs:
        return make(*values)
    length = len(packs[0].items)
    if any(len(pack.items) != length or pack.spread for pack in packs):
        raise Unreadable
    rows = ([v.items[i] if isinstance(v, Pack) else v for v in values] for i in range(length))
    return Pack(tuple(make(*row) for row in rows))


def qualify(qualifier: str) -> Callable[[Text], Text]:
    """A type with "const", "volatile" or "restrict"."""

    def make(text: Text) -> Text:
        if qualifier in text.qualifiers:
            return text
        known = (*text.qualifiers, qualifier)
        return replace(text, left=f"{text.left} {qualifier}", qualifiers=known, reference="", referent=None)

    return make


def point(text: Text) -> Text:
    """A pointer to the type."""
    return _decorate(text, "*")


def refer(mark: str) -> Callable[[Text], Text]:
    """A reference to the type; "&" wins where two meet."""

    def make(text: Text) -> Text:
        if text.referent is None:
            return replace(_decorate(text, mark), reference=mark, referent=text)
        return text if text.reference in ("&", mark) else make(text.referent)

    return make


def point_to_member(owner: Text, text: Text) -> Text:
    """A pointer to a member of `owner` that has the type `text`."""
    return _decorate(text, f"{owner}::*" if text.opener else f" {owner}::*")


def _decorate(text: Text, mark: str) -> Text:
    if text.opener:
        return Text(f"{text.left}{text.opener}{mark}", f"){text.right}")
    return Text(f"{text.left}{mark}", text.right)


def make_array(size: str) -> Callable[[Text], Text]:
    """An array of the type."""

    def make(text: Text) -> Text:
        inner = text.right.lstrip(" ") if text.opener == " (" else text.right
        return Text(text.left, f" [{size}]{inner}", opener=" (", qualifiers=text.qualifiers)

    return make


def make_function(result: Text, parameters: str, qualifiers: str) -> Text:
    """A function type."""
    gap = "" if result.right else " "
    return Text(f"{result.left}{gap}", f"({parameters}){qualifiers}{result.right}", opener="(")


def declare(result: Text | None, name: Text, parameters: str, qualifiers: str) -> Text:
    """A function of that name."""
    body = f"{name}({parameters})"
    if result is None:
        return Text(f"{body}{qualifiers}")
    gap = "" if result.right else " "
    return Text(f"{result.left}{gap}{body}{result.right}{qualifiers}")


def join_list(values: Iterable[Value]) -> str:
    """The values with commas between, packs one by one. Raises `Unreadable` for a pack that is not spread."""
    words: list[str] = []
    for value in values:
        if isinstance(value, Text):
            words.append(str(value))
        elif value.spread:
            words += map(str, value.items)
        else:
            raise Unreadable
    return ", ".join(words)


def instantiate(name: Text, *arguments: Text) -> Text:
    """A template with its arguments, one text for each, packs spread; an empty one is an empty pack at the end.

    Raises `Unreadable` for a template that has its arguments already.
    """
    if name.templated:
        raise Unreadable
    words = [str(argument) for argument in arguments]
    before = " " if name.left.endswith("<") else ""
    after = " " if words and words[-1].endswith(">") else ""
    listed = ", ".join(word for word in words if word)
    return Text(f"{name.left}{before}<{listed}{after}>", last=name.last, templated=True, special=name.special)


def single(value: Value) -> Text:
    """Return the value. Raises `Unreadable` for a pack: there must be one type here."""
    if isinstance(value, Pack):
        raise Unreadable
    return value
