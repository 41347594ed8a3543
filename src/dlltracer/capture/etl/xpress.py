"""XPRESS, plain LZ77: the compression of ETW's buffers (EVENT_TRACE_COMPRESSED_MODE). Pure.

Source: MS-XCA, "Xpress Compression Algorithm", 2.3 and 2.4 (Plain LZ77). A word of 32 flags, highest first, then what
they announce: 0 is a literal byte; 1 is a match of 16 bits, 13 of distance - 1 and 3 of length - 3. A length of 7 in
these 3 bits goes on in half a byte, which two such matches share; 15 there in a byte; 255 there in 16 bits, and 0
there in 32, which hold the whole of length - 3.
"""

from __future__ import annotations

from contextlib import suppress

LONGEST = 1 << 24
"""Bytes that one piece of data may be decompressed to: ETW's buffers are far smaller."""

_Runs = tuple[tuple[int, ...], int]


class DamagedData(ValueError):
    """Compressed data that ends too early, or refers to what was never there.

    Attributes: `so_far`, what was decompressed before.
    """

    def __init__(self, problem: str, so_far: bytearray) -> None:
        super().__init__(problem)
        self.so_far = so_far


def decompress(data: bytes, size: int) -> bytearray:
    """The `size` bytes that `data` was made of.

    Raises `DamagedData`. What follows the `size` bytes is of no account: the last word of flags may announce more.
    """
    if size > LONGEST:
        raise DamagedData(f"decompressed it would be {size} bytes long", bytearray())
    out = bytearray()
    # The end of the data is met in the middle of the last word of flags, as a rule.
    with suppress(IndexError):
        _expand(data, size, out)
    if len(out) < size:
        raise DamagedData(f"{len(out)} of {size} bytes are there", out)
    del out[size:]
    return out


def _expand(data: bytes, size: int, out: bytearray) -> None:
    """Append to `out` until it has `size` bytes; `IndexError` where `data` ends.

    This loop is what reading a compressed file costs. It takes 16 flags at a time, as the literals before each match.
    """
    at = done = 0
    shared = 0  # where the byte lies whose upper half the next long match takes; no match comes before offset 4
    known = _RUNS
    while done < size:
        words = (data[at + 2] | data[at + 3] << 8, data[at] | data[at + 1] << 8)
        at += 4
        for word in words:
            runs, tail = known[word] or _learn(word)
            for run in runs:
                if run:
                    out += data[at : at + run]
                    at += run
                    done += run
                low = data[at]
                start = done - (low >> 3 | data[at + 1] << 5) - 1
                if start < 0:
                    raise DamagedData(f"a match begins {-start} bytes before the data", out)
                at += 2
                length = (low & 7) + 3
                if length == 10:
                    if shared:
                        length += data[shared] >> 4
                        shared = 0
                    else:
                        shared = at
                        length += data[at] & 15
                        at += 1
                    if length == 25:
                        length, at = _longer(data, at, size, out)
                end = start + length
                if end <= done:
                    out += out[start:end]
                else:
                    repeated = out[start:]
                    out += (repeated * (length // (done - start) + 1))[:length]
                done += length
            if tail:
                out += data[at : at + tail]
                at += tail
                done += tail


def _longer(data: bytes, at: int, size: int, out: bytearray) -> tuple[int, int]:
    """A length that takes 8, 16 or 32 bits more, and where the data goes on."""
    length = data[at]
    at += 1
    if length < 255:
        return length + 25, at
    length = data[at] | data[at + 1] << 8
    at += 2
    if not length:
        length = int.from_bytes(data[at : at + 4], "little")
        at += 4
    if length + 3 > size - len(out):
        raise DamagedData(f"a match of {length + 3} bytes where {size - len(out)} are missing", out)
    return length + 3, at


def _learn(word: int) -> _Runs:
    """What 16 flags say: the number of literals before each match, and after the last."""
    runs: list[int] = []
    run = 0
    for bit in range(15, -1, -1):
        if word >> bit & 1:
            runs.append(run)
            run = 0
        else:
            run += 1
    _RUNS[word] = found = (tuple(runs), run)
    return found


_RUNS: list[_Runs | None] = [None] * 65536
"""By 16 flags; filled as they are met, as a file has few of them."""
