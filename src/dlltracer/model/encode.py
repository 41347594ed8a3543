"""Turns values of the model into values for JSON: the only way there. `model.decode` is the way back.

A dataclass becomes an object with a key for each field; a field that is `None` is left out. A class that stands beside
others in a union has a `TAG`, which becomes the key "type". An enum becomes its value, bytes become hexadecimal digits,
a UUID its text. Sequences and sets become lists. A mapping becomes a list of pairs: keys of objects are always names of
fields, never data.

The process of the traced program writes its recording by it when the trace has ended: it imports what is there already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from enum import Enum
from typing import Any

_SCALARS = frozenset((str, int, float, bool, type(None)))


def encode(value: object) -> Any:
    """The value as dictionaries, lists, strings, numbers, booleans and `None`. Raises `TypeError` for other types."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is tuple:
        return [item if type(item) in _SCALARS else encode(item) for item in value]  # type: ignore[attr-defined]
    fields = getattr(kind, "__dataclass_fields__", None)
    if fields is not None:
        tag = getattr(kind, "TAG", None)
        found: dict[str, Any] = {} if tag is None else {"type": tag}
        for name in fields:
            item = getattr(value, name)
            if item is not None:
                found[name] = item if type(item) in _SCALARS else encode(item)
        return found
    return _encode_other(value)


def _encode_other(value: object) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return [[encode(key), encode(item)] for key, item in value.items()]
    if isinstance(value, Set | Sequence) and not isinstance(value, str):
        items = [encode(item) for item in value]
        return sorted(items) if isinstance(value, Set) else items
    if type(value).__name__ == "UUID":  # known by name: the import of uuid costs a library of its own (_uuid)
        return str(value)
    raise TypeError(f"there is no plain form for {type(value).__name__}")
