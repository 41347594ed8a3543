"""Decompressing XPRESS (plain LZ77): against a compressor of our own, the examples of the specification, and damage."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.etl_file import compress
from dlltracer.capture.etl.buffers import LONGEST, DamagedData, decompress

REPETITIVE = st.lists(
    st.tuples(st.sampled_from([b"\\Device\\Volume3\\", b"a", b"\0\0", b"xyz", b"\x12\x34\x56"]), st.integers(1, 400)),
    max_size=12,
).map(lambda parts: b"".join(piece * count for piece, count in parts))


@pytest.mark.parametrize(
    ("plain", "compressed"),
    [
        (b"abcdefghijklmnopqrstuvwxyz", "3f000000" + b"abcdefghijklmnopqrstuvwxyz".hex()),
        (b"abc" * 100, "ffffff1f6162631700" + "0fff2601"),
    ],
)
def test_the_examples_of_the_specification(plain: bytes, compressed: str) -> None:
    """MS-XCA, 3.1 "LZ77": the two examples."""
    assert decompress(bytes.fromhex(compressed), len(plain)) == plain


@settings(deadline=None, derandomize=True)
@given(REPETITIVE | st.binary(max_size=600), st.booleans())
def test_what_was_compressed_comes_back(plain: bytes, literal: bool) -> None:
    assert decompress(compress(plain, literal=literal), len(plain)) == plain


@pytest.mark.parametrize("length", [3, 9, 10, 24, 25, 279, 280, 281, 65_538, 65_539, 70_000])
def test_a_match_of_every_kind_of_length(length: int) -> None:
    plain = b"q" * (length + 1) + b"!" + b"w" * (length + 1)
    assert decompress(compress(plain), len(plain)) == plain


@settings(deadline=None, derandomize=True)
@given(REPETITIVE, st.data())
def test_damage_is_reported_as_damage_only(plain: bytes, data: st.DataObject) -> None:
    compressed = bytearray(compress(plain))
    for _ in range(data.draw(st.integers(1, 4))):
        compressed[data.draw(st.integers(0, len(compressed) - 1))] = data.draw(st.integers(0, 255))
    del compressed[data.draw(st.integers(0, len(compressed))) :]
    try:
        assert len(decompress(bytes(compressed), len(plain))) == len(plain)
    except DamagedData as error:
        assert len(error.so_far) <= len(plain) + 0x10000


def test_what_came_before_the_damage_is_kept() -> None:
    compressed = compress(b"abcdefgh" * 3 + bytes(range(200)))
    with pytest.raises(DamagedData, match="26 of 224") as caught:
        decompress(compressed[:17], 224)
    assert caught.value.so_far.startswith(b"abcdefgh" * 3)


def test_a_match_before_the_start() -> None:
    with pytest.raises(DamagedData, match="before the data"):
        decompress(b"\xff\xff\xff\xff\x38\x00\x00\x00", 100)


def test_a_size_that_no_buffer_has() -> None:
    with pytest.raises(DamagedData):
        decompress(b"\0" * 100, LONGEST + 1)
