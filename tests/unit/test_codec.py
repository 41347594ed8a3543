"""The codec gives back what it was given, through JSON and marshal, and names the place of any damage."""

from __future__ import annotations

import contextlib
import json
import marshal
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.model.codec import VERSION, DamagedRecording, NewerRecording, event_from_plain, from_plain, to_plain
from dlltracer.model.events import (
    DebugEvent,
    FailureKind,
    LoadEvent,
    LoadFailedEvent,
    UnloadEvent,
)
from dlltracer.model.probe import Phase, Probe, ProbeOutcome
from dlltracer.model.recording import Losses, Recording

# With lone surrogates: an undecodable byte of a file name is one.
TEXTS = st.text(st.characters(codec=None), max_size=20)
NUMBERS = st.integers(0, 2**64 - 1)
PROBES = st.builds(
    Probe, TEXTS, st.sampled_from(Phase), st.none() | TEXTS, st.sampled_from(ProbeOutcome), st.none() | TEXTS
)
FIELDS = {
    "path": TEXTS,
    "display_path": st.none() | TEXTS,
    "base": st.none() | NUMBERS,
    "size": st.none() | NUMBERS,
    "timestamp": st.none() | st.floats(allow_nan=False, allow_infinity=False),
    "pid": st.none() | NUMBERS,
    "tid": st.none() | NUMBERS,
    "need": st.none() | TEXTS,
    "requested_by": st.none() | TEXTS,
    "phase": st.none() | st.sampled_from(Phase),
    "probes": st.none() | st.lists(PROBES, max_size=3).map(tuple),
    "imports": st.none() | st.lists(TEXTS, max_size=3).map(tuple),
    "checksum": st.none() | NUMBERS,
    "link_time": st.none() | NUMBERS,
}
FAILED = {"kind": st.none() | st.sampled_from(FailureKind), "reason": st.none() | TEXTS}
EVENTS = st.one_of(
    st.builds(LoadEvent, **FIELDS),
    st.builds(UnloadEvent, **FIELDS),
    st.builds(LoadFailedEvent, **FIELDS, **FAILED),
    st.builds(DebugEvent, st.uuids(), st.integers(0, 255), st.binary(max_size=16), st.binary(max_size=40)),
)
RECORDINGS = st.builds(
    Recording,
    backend=TEXTS,
    events=st.lists(EVENTS, max_size=4).map(tuple),
    pid=st.none() | NUMBERS,
    losses=st.builds(Losses, NUMBERS, NUMBERS, NUMBERS),
    notes=st.lists(TEXTS, max_size=2).map(tuple),
)

FULL = Recording(
    "rtld",
    (
        LoadEvent(
            "/a.so", base=1, timestamp=1.5, phase=Phase.CACHE, probes=(Probe("/a.so", Phase.CACHE),), imports=("m",)
        ),
        LoadFailedEvent("b", kind=FailureKind.NOT_FOUND, reason="r"),
        DebugEvent(uuid.UUID(int=7), 3, b"\x00", b"\xff\x01"),
    ),
    pid=4,
    losses=Losses(1, 2, 3),
    notes=("n",),
)


@given(RECORDINGS)
def test_round_trip(recording: Recording) -> None:
    plain = to_plain(recording)
    assert from_plain(plain) == recording
    assert from_plain(marshal.loads(marshal.dumps(plain))) == recording
    assert from_plain(json.loads(json.dumps(plain, allow_nan=False))) == recording


def test_what_is_written() -> None:
    plain = to_plain(FULL)
    assert plain == {
        "version": 1,
        "backend": "rtld",
        "pid": 4,
        "losses": {"events": 1, "buffers": 2, "undecodable": 3},
        "notes": ["n"],
        "events": [
            {
                "type": "load", "path": "/a.so", "base": 1, "timestamp": 1.5, "phase": "cache",
                "probes": [{"path": "/a.so", "phase": "cache", "outcome": "passed"}], "imports": ["m"],
            },
            {"type": "failed", "path": "b", "kind": "not found", "reason": "r"},
            {"type": "debug", "provider": str(uuid.UUID(int=7)), "opcode": 3, "header": "00", "data": "ff01"},
        ],
    }  # fmt: skip


def test_unknown_keys_are_passed_over() -> None:
    plain = to_plain(FULL) | {"later": 1}
    plain["events"][0]["later"] = [1]
    assert from_plain(plain) == FULL


def test_a_newer_version_says_so() -> None:
    with pytest.raises(NewerRecording, match=r"version 2.* up to 1: use a newer dlltracer") as caught:
        from_plain({"version": VERSION + 1, "anything": "else"})
    assert (caught.value.version, caught.value.known) == (2, 1)


def _changed(path: str, value: object) -> Any:
    plain: Any = to_plain(FULL)
    *way, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    inner = plain
    for part in way:
        inner = inner[part]
    if value is KeyError:
        del inner[last]
    else:
        inner[last] = value
    return plain


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        ("version", KeyError, "recording"),
        ("version", "1", "version"),
        ("version", True, "version"),
        ("version", 0, "version"),
        ("backend", KeyError, "recording"),
        ("backend", 3, "backend"),
        ("pid", "4", "pid"),
        ("losses", None, "losses"),
        ("losses/buffers", KeyError, "losses"),
        ("losses/events", 1.5, "losses.events"),
        ("notes", "n", "notes"),
        ("notes/0", None, "notes[0]"),
        ("events", {}, "events"),
        ("events/0", [], "events[0]"),
        ("events/0/type", "loaded", "events[0].type"),
        ("events/0/path", KeyError, "events[0]"),
        ("events/0/path", b"/a.so", "events[0].path"),
        ("events/0/base", "1", "events[0].base"),
        ("events/0/timestamp", "1", "events[0].timestamp"),
        ("events/0/timestamp", 10**400, "events[0].timestamp"),
        ("events/0/phase", "magic", "events[0].phase"),
        ("events/0/phase", 1, "events[0].phase"),
        ("events/0/probes", "x", "events[0].probes"),
        ("events/0/probes/0/outcome", KeyError, "events[0].probes[0]"),
        ("events/0/probes/0/origin", 3, "events[0].probes[0].origin"),
        ("events/0/imports/0", 1, "events[0].imports[0]"),
        ("events/1/kind", "lost", "events[1].kind"),
        ("events/2/provider", "x", "events[2]"),
        ("events/2/data", "0", "events[2]"),
        ("events/2/opcode", None, "events[2].opcode"),
    ],
)
def test_damage_is_named(path: str, value: object, where: str) -> None:
    with pytest.raises(DamagedRecording) as caught:
        from_plain(_changed(path, value))
    assert caught.value.where == where and where in str(caught.value)


@pytest.mark.parametrize("value", [None, [], "text", b"", 1])
def test_what_is_no_recording_at_all(value: object) -> None:
    with pytest.raises(DamagedRecording):
        from_plain(value)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.sampled_from(["version", "backend", "pid", "losses", "notes", "events", "events/0", "events/1", "events/2"]),
    JUNK,
)
def test_junk_raises_nothing_else(path: str, junk: object) -> None:
    with contextlib.suppress(DamagedRecording, NewerRecording):
        from_plain(_changed(path, junk))


@given(st.sampled_from(sorted(FIELDS | FAILED)), JUNK)
def test_junk_in_a_field_raises_nothing_else(name: str, junk: object) -> None:
    with contextlib.suppress(DamagedRecording):
        event_from_plain({"type": "failed", "path": "x", name: junk})
