"""Dataclasses through plain values and back, by their hints alone."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.model.codec import DamagedRecording
from dlltracer.model.typed import TypedCodec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fractions import Fraction as Elsewhere


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


@dataclass(frozen=True)
class Leaf:
    name: str
    size: int | None = None


@dataclass(frozen=True)
class Twig:
    name: str
    leaves: tuple[Leaf, ...] = ()


@dataclass(frozen=True)
class Whole:
    text: str
    unknown: str | None
    either: Leaf | Twig
    colour: Colour = Colour.RED
    ratio: float = 1.5
    row: tuple[int, str] | None = None
    names: frozenset[str] = frozenset()
    by_name: Mapping[str, tuple[Leaf, ...]] = field(default_factory=dict)
    is_set: bool = False
    most: int = 4096
    inner: Whole | None = None
    later: Elsewhere | None = None


@dataclass(frozen=True)
class Fraction:
    top: int


CODEC = TypedCodec({"Elsewhere": Fraction})
LEAVES = st.builds(Leaf, st.text(max_size=5), st.none() | st.integers())
TWIGS = st.builds(Twig, st.text(max_size=5), st.lists(LEAVES, max_size=2).map(tuple))
WHOLES = st.deferred(
    lambda: st.builds(
        Whole, st.text(max_size=5), st.none() | st.text(max_size=5), LEAVES | TWIGS, st.sampled_from(Colour),
        st.floats(allow_nan=False, allow_infinity=False), st.none() | st.tuples(st.integers(), st.text(max_size=3)),
        st.frozensets(st.text(max_size=3), max_size=3),
        st.dictionaries(st.text(max_size=3), st.lists(LEAVES, max_size=2).map(tuple), max_size=2),
        st.booleans(), st.integers(), st.none() | WHOLES, st.none() | st.builds(Fraction, st.integers()),
    )
)  # fmt: skip
SMALL = Whole("t", None, Leaf("l"))


@given(WHOLES)
def test_round_trip(value: Whole) -> None:
    plain = CODEC.to_plain(value)
    assert CODEC.from_plain(Whole, plain, "whole") == value
    assert CODEC.from_plain(Whole, json.loads(json.dumps(plain, allow_nan=False)), "whole") == value


def test_what_is_written() -> None:
    assert CODEC.to_plain(SMALL) == {
        "text": "t", "either": {"is": "Leaf", "name": "l"}, "colour": "red", "ratio": 1.5, "most": 4096,
    }  # fmt: skip
    more = Whole("", "", Twig("t", (Leaf("a", 0),)), Colour.BLUE, 0.0, (1, "x"), frozenset("ba"), {"k": ()}, True)
    assert CODEC.to_plain(more) == {
        "text": "", "unknown": "", "either": {"is": "Twig", "name": "t", "leaves": [{"name": "a", "size": 0}]},
        "colour": 2, "ratio": 0.0, "row": [1, "x"], "names": ["a", "b"], "by_name": [["k", []]], "is_set": True,
        "most": 4096,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "where", "words"),
    [
        ({"text": None}, "whole.text", "text is wanted, not NoneType"),
        ({"either": {"is": "Tree"}}, "whole.either", "one of Leaf, Twig"),
        (
            {"either": {"is": "Twig", "name": "", "leaves": [{"name": ""}, {}]}},
            "whole.either.leaves[1]",
            "has no 'name'",
        ),
        ({"colour": "green"}, "whole.colour", "no Colour is called 'green'"),
        ({"colour": True}, "whole.colour", "no Colour is called True"),
        ({"ratio": "1"}, "whole.ratio", "a number is wanted, not str"),
        ({"ratio": 10**400}, "whole.ratio", "too large"),
        ({"row": [1]}, "whole.row", "a list of 2 is wanted"),
        ({"row": [1, 2]}, "whole.row[1]", "text is wanted, not int"),
        ({"names": {}}, "whole.names", "a list is wanted, not dict"),
        ({"by_name": [["k"]]}, "whole.by_name[0]", "a list of 2"),
        ({"by_name": {"k": []}}, "whole.by_name", "a list is wanted"),
        ({"most": True}, "whole.most", "a whole number is wanted, not bool"),
        ({"inner": {"text": 3}}, "whole.inner.text", "text is wanted"),
        ({"is_set": 1}, "whole.is_set", "true or false"),
    ],
)
def test_damage_is_named(change: dict[str, object], where: str, words: str) -> None:
    with pytest.raises(DamagedRecording) as caught:
        CODEC.from_plain(Whole, CODEC.to_plain(SMALL) | change, "whole")
    assert (caught.value.where, words in caught.value.problem) == (where, True), caught.value.problem


def test_unknown_keys_are_passed_over_and_an_int_is_a_float() -> None:
    assert CODEC.from_plain(Whole, CODEC.to_plain(SMALL) | {"more": [], "ratio": 2}, "whole").ratio == 2.0


def test_a_type_without_a_form_is_a_mistake_of_ours() -> None:
    for kind in (bytes, list[int], set, int | bytes):
        with pytest.raises((TypeError, AttributeError)):
            TypedCodec({}).from_plain(kind, None, "x")
