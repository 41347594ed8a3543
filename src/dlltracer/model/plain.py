"""Values of the model as what JSON can hold, for output. `model.codec` is the way that also leads back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum


def to_plain(value: object) -> object:
    """Dictionaries with string keys, lists, strings, numbers, booleans, `None`. Fields that are `None` are left out."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((field.name, getattr(value, field.name)) for field in fields(value))
        return {name: to_plain(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence | frozenset) and not isinstance(value, str | bytes):
        return [to_plain(item) for item in value]
    return value
