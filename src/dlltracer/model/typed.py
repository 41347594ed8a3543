"""Frozen dataclasses as plain values and back, by the type hints of their fields.

A dataclass is an object with a key for each field; left out are `None`, and what is empty and the usual value. An enum
is its value. Tuples, frozensets and other sequences are lists (a sequence is read as a tuple), a mapping is a list of
pairs: so keys of objects are always names of fields, and never data. Where a hint allows several dataclasses, the key
"is" names the one that it is.

Reading trusts nothing: any plain value gives an object of that type, or `DamagedRecording`. Keys that it does not know
are passed over.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

from .codec import DamagedRecording

KIND = "is"
"""The key that names the class, where a hint allows several."""


@dataclass(frozen=True)
class Coder:
    """How values of one type are written, and read: `read` raises `Wrong`."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


class Wrong(Exception):
    """A plain value that does not fit its type. `steps` lead to it, innermost first."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.steps: list[str] = []


@dataclass(frozen=True)
class _Plan:
    """A field of a dataclass: its coder, and what it is when the key is missing (`MISSING`: that is an error)."""

    name: str
    coder: Coder
    default: object


class TypedCodec:
    """Writes and reads values by their types.

    Arguments:
        names: what hints name that their modules import for type checkers only: name to class.
        special: types, unions among them, that have a form of their own.
    """

    def __init__(self, names: Mapping[str, object], special: Mapping[object, Coder] | None = None) -> None:
        self._names = dict(names)
        self._coders: dict[object, Coder] = dict(special or {})

    def to_plain(self, value: object, kind: object = None) -> Any:
        """The value as plain values; `kind` is its type, that of the value itself if not given."""
        return self._coder(type(value) if kind is None else kind).write(value)

    def from_plain(self, kind: object, plain: object, where: str) -> Any:
        """The value of that type. Raises `DamagedRecording`, which names the place, beginning with `where`."""
        try:
            return self._coder(kind).read(plain)
        except Wrong as error:
            raise DamagedRecording(where + "".join(reversed(error.steps)), error.problem) from None

    def _coder(self, hint: Any) -> Coder:
        known = self._coders.get(hint)
        if known is None:
            known = self._coders[hint] = self._make(hint)
        return known

    def _make(self, hint: Any) -> Coder:
        if isinstance(hint, type) and not get_args(hint):
            return self._of_class(hint)
        origin, arguments = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            return self._union(arguments)
        if origin is Sequence or (origin is tuple and arguments[-1:] == (...,)):
            return _list(self._coder(arguments[0]), tuple)
        if origin is tuple:
            return _row(tuple(self._coder(argument) for argument in arguments))
        if origin is frozenset:
            return _list(self._coder(arguments[0]), frozenset)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return _mapping(_row(tuple(self._coder(argument) for argument in arguments)))
        raise TypeError(f"there is no plain form for {hint!r}")

    def _of_class(self, kind: type[Any]) -> Coder:
        if kind in _SCALARS:
            return _scalar(kind)
        if issubclass(kind, Enum):
            return _enum(kind)
        if is_dataclass(kind):
            return self._dataclass(kind)
        raise TypeError(f"there is no plain form for {kind!r}")

    def _union(self, members: tuple[Any, ...]) -> Coder:
        kinds = [member for member in members if member is not type(None)]
        inner = self._coder(kinds[0]) if len(kinds) == 1 else self._one_of(kinds)
        if len(kinds) == len(members):
            return inner
        write, read = inner.write, inner.read
        return Coder(
            lambda value: None if value is None else write(value), lambda plain: None if plain is None else read(plain)
        )

    def _one_of(self, kinds: list[Any]) -> Coder:
        coders = {kind.__name__: self._coder(kind) for kind in kinds}

        def write(value: object) -> object:
            name = type(value).__name__
            return {KIND: name, **coders[name].write(value)}

        def read(plain: object) -> object:
            name = plain.get(KIND) if isinstance(plain, dict) else None
            if not isinstance(name, str) or name not in coders:
                raise Wrong(f"an object is wanted that is one of {', '.join(coders)}")
            return coders[name].read(plain)

        return Coder(write, read)

    def _dataclass(self, kind: type[Any]) -> Coder:
        plans: list[_Plan] = []

        def write(value: object) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for plan in plans:
                item = getattr(value, plan.name)
                usual = plan.default in (None, MISSING) if item is None else not item and item == plan.default
                if not usual:
                    found[plan.name] = plan.coder.write(item)
            return found

        def read(plain: object) -> object:
            if not isinstance(plain, dict):
                raise _unfit("an object", plain)
            values = {}
            for plan in plans:
                name = plan.name
                if name in plain:
                    try:
                        values[name] = plan.coder.read(plain[name])
                    except Wrong as error:
                        error.steps.append(f".{name}")
                        raise
                elif plan.default is MISSING:
                    raise Wrong(f"has no {name!r}")
                else:
                    values[name] = plan.default
            return kind(**values)

        # Known before its fields are: one of them may be of the same type.
        coder = self._coders[kind] = Coder(write, read)
        hints = get_type_hints(kind, localns=self._names)
        plans += [
            _Plan(field.name, self._coder(hints[field.name]), _default(field, hints[field.name]))
            for field in fields(kind)
        ]
        return coder


_SCALARS = (str, int, float, bool)


def _default(field: Field[Any], hint: object) -> object:
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if type(None) in get_args(hint) else MISSING


def _unfit(wanted: str, plain: object) -> Wrong:
    return Wrong(f"{wanted} is wanted, not {type(plain).__name__}")


def _scalar(kind: type) -> Coder:
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[kind]

    def read(plain: object) -> object:
        if type(plain) is kind:
            return plain
        if kind is float and type(plain) is int:
            try:
                return float(plain)
            except OverflowError as error:
                raise Wrong(str(error)) from None
        raise _unfit(words, plain)

    return Coder(lambda value: value, read)


def _enum(kind: type[Enum]) -> Coder:
    members = {member.value: member for member in kind}

    def read(plain: object) -> Enum:
        member = members.get(plain) if isinstance(plain, str | int) and not isinstance(plain, bool) else None
        if member is None:
            raise Wrong(f"no {kind.__name__} is called {_short(plain)}")
        return member

    return Coder(lambda value: value.value, read)


def _list(inner: Coder, kind: type[tuple[Any, ...]] | type[frozenset[Any]]) -> Coder:
    write_one, read_one = inner.write, inner.read

    def write(value: Any) -> list[object]:
        found = [write_one(item) for item in value]
        return sorted(found) if kind is frozenset else found

    def read(plain: object) -> object:
        if not isinstance(plain, list):
            raise _unfit("a list", plain)
        found: list[object] = []
        try:
            for item in plain:
                found.append(read_one(item))
        except Wrong as error:
            error.steps.append(f"[{len(found)}]")
            raise
        return kind(found)

    return Coder(write, read)


def _row(inner: tuple[Coder, ...]) -> Coder:
    """A tuple of that many items, each of its own type."""

    def read(plain: object) -> tuple[object, ...]:
        if not isinstance(plain, list) or len(plain) != len(inner):
            raise _unfit(f"a list of {len(inner)}", plain)
        found: list[object] = []
        try:
            for coder, item in zip(inner, plain, strict=True):
                found.append(coder.read(item))
        except Wrong as error:
            error.steps.append(f"[{len(found)}]")
            raise
        return tuple(found)

    return Coder(lambda value: [coder.write(item) for coder, item in zip(inner, value, strict=True)], read)


def _mapping(pair: Coder) -> Coder:
    rows = _list(pair, tuple)
    return Coder(lambda value: rows.write(value.items()), lambda plain: dict(rows.read(plain)))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
