"""Columns that look like a sequence of values."""

from __future__ import annotations

import pytest

from dlltracer.model.elf import ElfNeed, ElfNeeds
from dlltracer.model.encode import encode
from dlltracer.model.pe import PeExport, PeExports, PeImport, PeSymbol, PeSymbols, list_forwarders

VALUES = (PeSymbol("a"), PeSymbol(None, 7), PeSymbol("b"))
ROWS = PeSymbols(("a", None, "b"), (None, 7, None))


def test_they_are_the_values_of_their_columns() -> None:
    assert tuple(ROWS) == VALUES
    assert (len(ROWS), ROWS[1], ROWS[-1], ROWS[1:]) == (3, VALUES[1], VALUES[2], VALUES[1:])
    assert VALUES[1] in ROWS and PeSymbol("c") not in ROWS
    assert list(reversed(ROWS)) == list(reversed(VALUES))
    with pytest.raises(IndexError):
        ROWS[3]


def test_they_equal_any_sequence_of_the_same_values() -> None:
    rows = PeSymbols(("a", None, "b"), (None, 7, None))
    for same in (VALUES, list(VALUES), ROWS):
        assert rows == same
        assert same == rows
    for other in (VALUES[:2], PeSymbols(("a", None, "b"), (None, 8, None)), "ab", None):
        assert rows != other
    assert hash(rows) == hash(VALUES)
    assert PeImport("x.dll", ROWS) == PeImport("x.dll", VALUES)
    assert not PeSymbols(()) and PeSymbols(()) == ()


def test_columns_that_say_nothing_need_not_be_given() -> None:
    assert PeSymbols(("a", "b")) == (PeSymbol("a"), PeSymbol("b"))
    assert PeExports((3, 4), ("f", None)) == (PeExport(3, "f"), PeExport(4))


def test_forwarders_are_picked_from_both_forms() -> None:
    forwarder = PeExport(2, "g", "other.g")
    assert list_forwarders(PeExports((1, 2), ("f", "g"), (None, "other.g"))) == [forwarder]
    assert list_forwarders((PeExport(1, "f"), forwarder)) == [forwarder]
    assert list_forwarders(PeExports((1,), ("f",))) == []


def test_needs_name_their_columns() -> None:
    needs = ElfNeeds(("f", "g"), ("V", None), ("lib.so", None), (False, True))
    assert needs == (ElfNeed("f", "V", "lib.so"), ElfNeed("g", weak=True))
    assert (needs.names, needs.versions) == (("f", "g"), ("V", None))


def test_plain_values_of_them_are_those_of_the_sequence() -> None:
    assert encode(ROWS) == encode(VALUES) == [{"name": "a"}, {"ordinal": 7}, {"name": "b"}]
