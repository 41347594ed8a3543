"""`encode` and `decode` give back what they were given, through JSON and marshal, and name the place of any damage."""

from __future__ import annotations

import enum
import json
import marshal
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.saved_traces import CALM, EVENTS, FIELDS, PLAIN, RECORDINGS
from dlltracer.model.decode import DamagedRecording, decode
from dlltracer.model.encode import encode
from dlltracer.model.events import DebugEvent, Event, FailureKind, LoadEvent, LoadFailedEvent, Phase, Probe, UnloadEvent
from dlltracer.model.recording import Losses, Recording


class Colour(enum.Enum):
    RED = "red"
    BLUE = 2


@dataclass(frozen=True)
class Leaf:
    TAG = "leaf"

    name: str
    size: int | None = None


@dataclass(frozen=True)
class Twig:
    TAG = "twig"

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
    data: bytes = b""
    id: uuid.UUID | None = None
    inner: Whole | None = None


NUMBERS = st.integers(-(1 << 63), (1 << 64) - 1)
LEAVES = st.builds(Leaf, st.text(max_size=5), st.none() | NUMBERS)
TWIGS = st.builds(Twig, st.text(max_size=5), st.lists(LEAVES, max_size=2).map(tuple))
WHOLES = st.deferred(
    lambda: st.builds(
        Whole, st.text(max_size=5), st.none() | st.text(max_size=5), LEAVES | TWIGS, st.sampled_from(Colour),
        st.floats(allow_nan=False, allow_infinity=False), st.none() | st.tuples(NUMBERS, st.text(max_size=3)),
        st.frozensets(st.text(max_size=3), max_size=3),
        st.dictionaries(st.text(max_size=3), st.lists(LEAVES, max_size=2).map(tuple), max_size=2),
        st.booleans(), NUMBERS, st.binary(max_size=3), st.none() | st.uuids(), st.none() | WHOLES,
    )
)  # fmt: skip
SMALL = Whole("t", None, Leaf("l"))
FULL = Recording(
    "rtld",
    (
        LoadEvent(
            "/a.so", base=1, timestamp=1.5, phase=Phase.CACHE, probes=(Probe("/a.so", Phase.CACHE),), imports=("m",)
        ),
        LoadFailedEvent("b", kind=FailureKind.NOT_FOUND, reason="r"),
        DebugEvent(uuid.UUID(int=7), 3, b"\x00", b"\xff\x01"),
        UnloadEvent("/c.so"),
    ),
    pid=4,
    losses=Losses(1, 2, 3),
    notes=("n",),
)


def through(kind: Any, value: object) -> None:
    plain = encode(value)
    for copy in (plain, marshal.loads(marshal.dumps(plain)), json.loads(json.dumps(plain, allow_nan=False))):
        assert decode(kind, copy, "value") == value


@given(WHOLES)
@CALM
def test_round_trip_of_every_kind_of_field(value: Whole) -> None:
    through(Whole, value)


@given(RECORDINGS)
@CALM
def test_round_trip_of_recordings(recording: Recording) -> None:
    through(Recording, recording)


@given(EVENTS)
@CALM
def test_round_trip_of_events(event: Event) -> None:
    through(Event, event)


def test_what_is_written() -> None:
    assert encode(SMALL) == {
        "text": "t", "either": {"type": "leaf", "name": "l"}, "colour": "red", "ratio": 1.5, "names": [], "by_name": [],
        "is_set": False, "most": 4096, "data": "",
    }  # fmt: skip
    more = Whole(
        "", "", Twig("t", (Leaf("a", 0),)), Colour.BLUE, 0.0, (1, "x"), frozenset("ba"), {"k": ()}, True, data=b"\x01z"
    )
    assert encode(more) == {
        "text": "", "unknown": "", "colour": 2, "ratio": 0.0, "row": [1, "x"], "names": ["a", "b"], "is_set": True,
        "either": {"type": "twig", "name": "t", "leaves": [{"type": "leaf", "name": "a", "size": 0}]},
        "by_name": [["k", []]], "most": 4096, "data": "017a",
    }  # fmt: skip


def test_what_is_written_of_a_recording() -> None:
    assert encode(FULL) == {
        "backend": "rtld", "pid": 4, "losses": {"events": 1, "buffers": 2, "undecodable": 3}, "notes": ["n"],
        "processes": [],
        "events": [
            {
                "type": "load", "path": "/a.so", "base": 1, "timestamp": 1.5, "phase": "cache",
                "probes": [{"path": "/a.so", "phase": "cache", "outcome": "passed"}], "imports": ["m"],
            },
            {"type": "failed", "path": "b", "kind": "not found", "reason": "r"},
            {"type": "debug", "provider": str(uuid.UUID(int=7)), "opcode": 3, "header": "00", "data": "ff01"},
            {"type": "unload", "path": "/c.so"},
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "where", "words"),
    [
        ({"text": None}, "whole.text", "text is wanted, not NoneType"),
        ({"text": b""}, "whole.text", "text is wanted, not bytes"),
        ({"either": {"type": "tree"}}, "whole.either", "one of leaf, twig"),
        ({"either": {"type": ["leaf"]}}, "whole.either", "one of leaf, twig"),
        (
            {"either": {"type": "twig", "name": "", "leaves": [{"name": ""}, {}]}},
            "whole.either.leaves[1]",
            "has no 'name'",
        ),
        ({"colour": "green"}, "whole.colour", "no Colour is called green"),
        ({"colour": True}, "whole.colour", "no Colour is called True"),
        ({"colour": [[]]}, "whole.colour", "no Colour is called a list"),
        ({"ratio": "1"}, "whole.ratio", "a number is wanted, not str"),
        ({"ratio": 10**400}, "whole.ratio", "at most 64 bits"),
        ({"ratio": float("inf")}, "whole.ratio", "too large"),
        ({"row": [1]}, "whole.row", "a list of 2 is wanted"),
        ({"row": [1, 2]}, "whole.row[1]", "text is wanted, not int"),
        ({"names": {}}, "whole.names", "a list is wanted, not dict"),
        ({"by_name": [["k"]]}, "whole.by_name[0]", "a list of 2"),
        ({"by_name": {"k": []}}, "whole.by_name", "a list is wanted"),
        ({"most": True}, "whole.most", "a whole number is wanted, not bool"),
        ({"most": 1 << 64}, "whole.most", "at most 64 bits"),
        ({"most": 1.0}, "whole.most", "a whole number is wanted, not float"),
        ({"inner": {"text": 3}}, "whole.inner.text", "text is wanted"),
        ({"is_set": 1}, "whole.is_set", "true or false"),
        ({"data": "0"}, "whole.data", "hexadecimal"),
        ({"data": []}, "whole.data", "text is wanted"),
        ({"id": "x"}, "whole.id", "hexadecimal UUID"),
    ],
)
def test_damage_is_named(change: dict[str, object], where: str, words: str) -> None:
    with pytest.raises(DamagedRecording) as caught:
        decode(Whole, encode(SMALL) | change, "whole")
    assert (caught.value.where, words in caught.value.problem) == (where, True), caught.value.problem


@pytest.mark.parametrize("plain", [None, [], "text", b"", 1])
def test_what_is_no_object_at_all(plain: object) -> None:
    with pytest.raises(DamagedRecording, match="an object is wanted"):
        decode(Whole, plain, "whole")


def test_unknown_keys_are_passed_over_and_an_int_is_a_float() -> None:
    assert decode(Whole, encode(SMALL) | {"more": [], "ratio": 2}, "whole").ratio == 2.0


JUNK = st.recursive(
    PLAIN | st.floats() | st.binary(max_size=3) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(encode(SMALL))), JUNK)
@CALM
def test_junk_in_a_field_raises_nothing_else(name: str, junk: object) -> None:
    try:
        whole = decode(Whole, encode(SMALL) | {name: junk}, "whole")
    except DamagedRecording as error:
        assert error.where.startswith(f"whole.{name}"), "the error names the place"
    else:
        assert isinstance(whole, Whole)
        through(Whole, whole)


@given(st.sampled_from(sorted([*FIELDS, "kind", "reason"])), JUNK)
@CALM
def test_junk_in_an_event_raises_nothing_else(name: str, junk: object) -> None:
    try:
        event = decode(Event, {"type": "failed", "path": "x", name: junk}, "event")
    except DamagedRecording as error:
        assert error.where.startswith("event"), "the error names the place"
    else:
        assert isinstance(event, LoadEvent | LoadFailedEvent | UnloadEvent)
        through(Event, event)


@dataclass(frozen=True)
class Ambiguous:
    """A class whose tag would hide a field of its own."""

    TAG = "ambiguous"

    type: str


def test_a_type_without_a_form_is_a_mistake_of_ours() -> None:
    for kind in (list[int], set, int | bytes, Ambiguous):
        with pytest.raises((TypeError, AttributeError)):
            decode(kind, {}, "x")
    for value in (object(), lambda: None):
        with pytest.raises(TypeError):
            encode(value)
