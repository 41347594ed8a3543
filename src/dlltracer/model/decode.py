"""Turns JSON values into values of the model, by the type hints of their fields: the only way back.

Reading trusts nothing: any input gives a value of the type asked for, or `DamagedRecording`. Keys that a class does not
know are passed over: a later dlltracer may add some. `model.encode` describes the form.
"""

from __future__ import annotations

import functools
import importlib
import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..errors import DlltracerError

Decoder = Callable[[Any], Any]
"""Makes a value of what JSON held. Raises `_Wrong`."""

_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
"""No address, size, status or process id of any system lies beyond. Python's own numbers have no end, and some of its
functions are quadratic in their length."""


class DamagedRecording(DlltracerError, ValueError):
    """Something that is not a recording.

    Attributes: `where` (the place in the value, as "events[3].path"), `problem`.
    """

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"this is not a whole recording: {where}: {problem}")
        self.where = where
        self.problem = problem


class NewerRecording(DlltracerError, ValueError):
    """A recording written by a later dlltracer.

    Attributes: `version` (of the recording), `known` (the latest that this dlltracer reads).
    """

    def __init__(self, version: int, known: int) -> None:
        super().__init__(
            f"the recording has format version {version}, and this dlltracer reads up to {known}: use a newer dlltracer"
        )
        self.version = version
        self.known = known


class _Wrong(Exception):
    """A plain value that does not fit its type. `steps` lead to it, innermost first."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.steps: list[str] = []


def decode(kind: Any, plain: object, where: str) -> Any:
    """The value of type `kind` that `plain` describes.

    Arguments:
        kind: a dataclass, an enum, or a hint such as `tuple[str, ...] | None`.
        plain: what `encode` made, or anything else.
        where: what the value is called in messages.
    Raises `DamagedRecording`, which names the place, beginning with `where`.
    """
    try:
        return _decoder(kind)(plain)
    except _Wrong as error:
        raise DamagedRecording(where + "".join(reversed(error.steps)), error.problem) from None


@functools.cache
def _decoder(hint: Any) -> Decoder:
    if isinstance(hint, type) and not get_args(hint):
        return _decoder_of_class(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is Sequence or (origin is tuple and arguments[-1:] == (...,)):
        return _list(arguments[0], tuple)
    if origin is tuple:
        return _row(arguments)
    if origin is frozenset:
        return _list(arguments[0], frozenset)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        pairs = _list(tuple[arguments], tuple)  # type: ignore[valid-type]
        return lambda plain: dict(pairs(plain))
    raise TypeError(f"there is no plain form for {hint!r}")


def _decoder_of_class(kind: type[Any]) -> Decoder:
    if kind in _WORDS:
        return _float if kind is float else _int if kind is int else _scalar(kind)
    if issubclass(kind, Enum):
        return _enum(kind)
    if is_dataclass(kind):
        return _DataclassDecoder(kind)
    if kind is bytes:
        return _parsed(bytes.fromhex)
    if kind.__name__ == "UUID":
        return _parsed(kind)
    raise TypeError(f"there is no plain form for {kind!r}")


class _DataclassDecoder:
    """Reads objects of one class. Its fields are looked at when the first object comes: one may be of the same type."""

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind
        self._tag = getattr(kind, "TAG", None)

    @functools.cached_property
    def _plan(self) -> tuple[dict[str, Decoder], tuple[str, ...], dict[str, None]]:
        """Return the decoder of each field; the required fields; the fields that are `None` when they are left out."""
        hints = _hints_of(self._kind)
        own = fields(self._kind)
        if self._tag is not None and any(field.name == "type" for field in own):
            raise TypeError(f"{self._kind.__name__} has a field that its tag would hide")
        bare = [field for field in own if _has_no_default(field)]
        nullable = {field.name: None for field in bare if type(None) in get_args(hints[field.name])}
        required = tuple(field.name for field in bare if field.name not in nullable)
        return {field.name: _decoder(hints[field.name]) for field in own}, required, nullable

    def __call__(self, plain: object) -> object:
        if not isinstance(plain, dict):
            raise _unfit("an object", plain)
        decoders, required, nullable = self._plan
        values: dict[str, Any] = dict(nullable)
        name: str = ""
        try:
            for name, item in plain.items():
                read = decoders.get(name)
                if read is not None:
                    values[name] = read(item)
        except _Wrong as error:
            error.steps.append(f".{name}")
            raise
        for name in required:
            if name not in values:
                raise _Wrong(f"has no {name!r}")
        return self._kind(**values)


def _has_no_default(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


_UNIMPORTED = {"Crash": ".failure", "MachoImage": ".macho", "Diagnosis": ".finding"}
"""Classes that a module names in hints without the import, and where they are."""


def _hints_of(kind: type[Any]) -> dict[str, Any]:
    """The types of its fields. Classes whose modules spare themselves an import (ADR 3; `tree`) are helped out."""
    names: dict[str, Any] = {}
    hints = " ".join(map(str, kind.__annotations__.values()))
    if "uuid." in hints:
        import uuid

        names["uuid"] = uuid
    for name, module in _UNIMPORTED.items():
        if name in hints:
            names[name] = getattr(importlib.import_module(module, __package__), name)
    return get_type_hints(kind, localns=names or None)


def _union(members: tuple[Any, ...]) -> Decoder:
    kinds = [member for member in members if member is not type(None)]
    inner = _decoder(kinds[0]) if len(kinds) == 1 else _one_of(kinds)
    if len(kinds) == len(members):
        return inner
    return lambda plain: None if plain is None else inner(plain)


def _one_of(kinds: list[Any]) -> Decoder:
    decoders = {kind.TAG: _decoder(kind) for kind in kinds}

    def read(plain: object) -> object:
        tag = plain.get("type") if isinstance(plain, dict) else None
        if not isinstance(tag, str) or tag not in decoders:
            raise _Wrong(f"an object is wanted whose type is one of {', '.join(decoders)}")
        return decoders[tag](plain)

    return read


_WORDS: Mapping[type, str] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _unfit(wanted: str, plain: object) -> _Wrong:
    return _Wrong(f"{wanted} is wanted, not {type(plain).__name__}")


def _scalar(kind: type) -> Decoder:
    def read(plain: object) -> object:
        if type(plain) is kind:
            return plain
        raise _unfit(_WORDS[kind], plain)

    return read


def _int(plain: object) -> int:
    if type(plain) is not int:
        raise _unfit(_WORDS[int], plain)
    if not _LEAST <= plain <= _MOST:
        raise _Wrong("a number of at most 64 bits is wanted")
    return plain


def _float(plain: object) -> float:
    if type(plain) is int:
        plain = float(_int(plain))
    if type(plain) is not float:
        raise _unfit(_WORDS[float], plain)
    if not math.isfinite(plain):  # JSON has no name for it, and Python reads 1e999 as one
        raise _Wrong("the number is too large")
    return plain


def _enum(kind: type[Enum]) -> Decoder:
    members = {member.value: member for member in kind}

    def read(plain: object) -> Enum:
        member = members.get(plain) if isinstance(plain, str | int) and not isinstance(plain, bool) else None
        if member is None:
            raise _Wrong(f"no {kind.__name__} is called {short(plain)}")
        return member

    return read


def _parsed(parse: Callable[[str], Any]) -> Decoder:
    def read(plain: object) -> object:
        if not isinstance(plain, str):
            raise _unfit("text", plain)
        try:
            return parse(plain)
        except ValueError as error:
            raise _Wrong(short(str(error))) from None

    return read


def _list(item_kind: Any, kind: type[tuple[Any, ...]] | type[frozenset[Any]]) -> Decoder:
    read_one = _decoder(item_kind)

    def read(plain: object) -> object:
        if not isinstance(plain, list):
            raise _unfit("a list", plain)
        found: list[object] = []
        try:
            for item in plain:
                found.append(read_one(item))
        except _Wrong as error:
            error.steps.append(f"[{len(found)}]")
            raise
        return kind(found)

    return read


def _row(kinds: tuple[Any, ...]) -> Decoder:
    """For a tuple of that many items, each of its own type."""
    decoders = tuple(map(_decoder, kinds))

    def read(plain: object) -> tuple[object, ...]:
        if not isinstance(plain, list) or len(plain) != len(decoders):
            raise _unfit(f"a list of {len(decoders)}", plain)
        found: list[object] = []
        try:
            for read_one, item in zip(decoders, plain, strict=True):
                found.append(read_one(item))
        except _Wrong as error:
            error.steps.append(f"[{len(found)}]")
            raise
        return tuple(found)

    return read


def short(value: object) -> str:
    """A value for a message: printable, and not long. Of a list or an object only the kind: it may be deep."""
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "an object"
    text = value if isinstance(value, str) else repr(value)
    text = ascii(text)[1:-1] if not text.isprintable() else text
    return text if len(text) <= 60 else f"{text[:57]}..."
