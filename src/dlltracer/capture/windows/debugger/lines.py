"""The lines that the helper of a trace writes, and their decoder. Pure; imports nothing.

`KIND VALUE ... `: numbers in decimal; in hexadecimal text as UTF-8, after an `s`, and bytes, after an `x`. A line that
is cut short or does not fit its kind is damaged: it is counted and passed over.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LOAD, UNLOAD, DEBUG_STRING, NOTE = "load", "unload", "string", "note"
READY, REFUSED, END = "ready", "refused", "end"

_SHAPES: dict[str, tuple[int | type, ...]] = {
    LOAD: (32, 63, 63, str, bytes),  # thread, clock, base, path, start of the image
    UNLOAD: (32, 63, 63),  # thread, clock, base
    DEBUG_STRING: (1, bytes),  # whether it is UTF-16, the text
    NOTE: (str,),
    READY: (),  # lines before this one tell what was loaded before the attach
    REFUSED: (32,),  # Windows' error
    END: (63,),  # how many lines could not be written
}
"""The values of each kind: a number of so many bits, text, bytes."""


def encode_line(kind: str, *values: int | str | bytes) -> bytes:
    """Return a line of that kind."""
    return " ".join([kind, *map(_encode, values), "\n"]).encode("ascii")


def decode_lines(data: bytes) -> Iterator[tuple[Any, ...] | None]:
    """Yield each line as its kind and values, `None` for a damaged one."""
    *whole, rest = data.split(b"\n")
    for line in whole:
        yield _decode_line(line)
    if rest:
        yield None


def _encode(value: int | str | bytes) -> str:
    if isinstance(value, str):
        return f"s{value.encode('utf-8', 'surrogatepass').hex()}"
    return f"x{value.hex()}" if isinstance(value, bytes) else str(value)


def _decode_line(line: bytes) -> tuple[Any, ...] | None:
    try:
        kind, *words, end = line.decode("ascii").split(" ")
        values = [_decode(word) for word in words]
    except ValueError:
        return None
    shape = _SHAPES.get(kind)
    if shape is None or end or len(shape) != len(values) or not all(map(_fits, values, shape)):
        return None
    return kind, *values


def _decode(word: str) -> int | str | bytes:
    if word.startswith("s"):
        return bytes.fromhex(word[1:]).decode("utf-8", "surrogatepass")
    return bytes.fromhex(word[1:]) if word.startswith("x") else int(word)


def _fits(value: int | str | bytes, shape: int | type) -> bool:
    if isinstance(shape, int):
        return isinstance(value, int) and 0 <= value < 1 << shape
    return type(value) is shape
