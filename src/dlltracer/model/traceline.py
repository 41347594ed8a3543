"""A line of a recording file as an object, and its keys: checked, since anybody may have written it."""

from __future__ import annotations

import json
from typing import Any

from .codec import DamagedRecording
from .tracefile import trace_codec

_DEEPEST = 60


class Fields:
    """Optional keys of a line; each method raises `DamagedRecording` for a value of another type."""

    def __init__(self, line: dict[str, Any], where: str) -> None:
        self._line = line
        self._where = where

    def text(self, name: str, usual: str = "") -> str:
        value = self._get(name, str | None)
        return usual if value is None else str(value)

    def number(self, name: str) -> int | None:
        value = self._get(name, int | None)
        return None if value is None else int(value)

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(self._get(name, tuple[str, ...] | None) or ())

    def _get(self, name: str, kind: object) -> Any:
        return trace_codec().from_plain(kind, self._line.get(name), f"{self._where}.{name}")


def parse_line(data: bytes) -> dict[str, Any]:
    """The object that a line is. Raises `DamagedRecording`, and nothing else."""
    try:
        found = json.loads(data.decode("utf-8-sig"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise DamagedRecording("line", f"it is not JSON ({short(str(error))})") from None
    return as_object(found, "line")


def as_object(value: object, where: str) -> dict[str, Any]:
    """The value, if it is an object. Raises `DamagedRecording`."""
    if not isinstance(value, dict):
        raise DamagedRecording(where, f"an object is wanted, not {type(value).__name__}")
    return value


def shallow(case: dict[str, Any]) -> dict[str, Any]:
    """The case, if nothing in it is nested so deeply that walking through it would fail. Raises `DamagedRecording`."""
    stack: list[tuple[object, int]] = [(case, 0)]
    while stack:
        value, depth = stack.pop()
        if depth > _DEEPEST:
            raise DamagedRecording("case", "it is nested too deeply")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        stack += [(item, depth + 1) for item in inner if isinstance(item, dict | list)]
    return case


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def short(value: object) -> str:
    """A value for a message: printable, and not long."""
    text = value if isinstance(value, str) else repr(value)
    text = ascii(text)[1:-1] if not text.isprintable() else text
    return text if len(text) <= 60 else f"{text[:57]}..."
