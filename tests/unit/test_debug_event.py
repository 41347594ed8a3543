"""A raw event keeps its own bytes, whatever it was made of."""

from __future__ import annotations

import uuid

import pytest

from dlltracer.model.events import DebugEvent


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_it_makes_bytes_of_what_it_is_given(kind: type) -> None:
    source = bytearray(b"header"), bytearray(b"data")
    event = DebugEvent(uuid.UUID(int=1), 10, kind(source[0]), kind(source[1]))
    if kind is bytearray:
        source[0][0:1] = source[1][0:1] = b"-"
    assert (type(event.header), event.header, type(event.data), event.data) == (bytes, b"header", bytes, b"data")
    assert hash(event) == hash(DebugEvent(uuid.UUID(int=1), 10, b"header", b"data"))
