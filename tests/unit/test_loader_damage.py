"""A damaged stretch of the loader's log costs what it holds, is counted, and turns no load after it into a failure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.loader_text import LoaderText, decode_loader_text
from dlltracer.capture.linux.decode import LoaderTextDecoder
from dlltracer.capture.marks import GAP, encode_request
from dlltracer.capture.requests import FIND_LIBRARY
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase, ProbeOutcome, UnloadEvent
from dlltracer.model.recording import KeptEvents


def a_pair(name: str) -> LoaderText:
    text = LoaderText().request(name, "pkg").open(name).map(name).init(name).opened(name)
    return text.fini(name).destroy(name)


MANY = b"".join(a_pair(f"/plugin{number}.so").bytes for number in range(12))


@given(st.integers(0, len(MANY)), st.integers(1, 900), st.sampled_from([b"\0" * 40, b"\ngarbage\n", b"\x1ezz\x1f"]))
def test_a_stretch_that_is_missing(start: int, length: int, filling: bytes) -> None:
    whole = {str(event) for event in decode_loader_text(MANY).events}
    decoded = decode_loader_text(MANY[:start] + filling + MANY[start + length :], pid=77)
    assert not [event for event in decoded.events if isinstance(event, LoadFailedEvent)]
    assert len({str(event) for event in decoded.events} - whole) <= 2, "names that were cut in two"
    touched = MANY[start : start + length].count(b"dynamically loaded by") + 1
    loads = [event for event in decoded.events if isinstance(event, LoadEvent)]
    assert 12 - touched - 1 <= len(loads) <= 12
    assert decoded.undecodable


@given(
    st.integers(0, len(MANY)), st.integers(0, 900),
    st.sampled_from([b"", b"\0", b"\ngarbage\n", b"\x1ez\x1f", b"\x1e", b"\x1f", b"        77:\t", b" 78:\tx\n"]),
)  # fmt: skip
def test_a_damaged_text_reads_as_its_lines_do(start: int, length: int, filling: bytes) -> None:
    """The whole text is searched for dlopens that can be read at once, which none with damage in it is."""
    text = MANY[:start] + filling + MANY[start + length :]
    whole, by_line = LoaderTextDecoder(77), LoaderTextDecoder(77)
    expected = [change for line in text.splitlines(keepends=True) for change in by_line.feed(line)] + by_line.finish()
    assert whole.feed(text) + whole.finish() == expected
    assert (whole.undecodable, whole.foreign) == (by_line.undecodable, by_line.foreign)


def test_a_line_inside_a_line_is_read_and_the_torn_one_counted() -> None:
    torn = LoaderText().open("/m.so").bytes + b"       77:\tfile=/m.so [0];  gener"
    decoded = decode_loader_text(torn + a_pair("/n.so").bytes)
    assert ([str(event) for event in decoded.events], decoded.undecodable) == (
        ["LoadLibrary /n.so", "UnloadLibrary /n.so"], 1,
    )  # fmt: skip


def test_many_lines_inside_a_line_are_counted_one_by_one() -> None:
    torn = b"        77:\ta" * 100_000
    decoded = decode_loader_text(torn + b"\n" + a_pair("/n.so").bytes)
    assert ([str(event) for event in decoded.events], decoded.undecodable) == (
        ["LoadLibrary /n.so", "UnloadLibrary /n.so"], 100_000,
    )  # fmt: skip


def test_the_line_that_ends_a_dlopen_is_missing() -> None:
    text = LoaderText().open("/m.so").map("/m.so").bytes + LoaderText().fini("/m.so").destroy("/m.so").bytes
    assert [type(event) for event in decode_loader_text(text).events] == [LoadEvent, UnloadEvent]


def test_a_search_cut_off_by_a_gap_is_no_failure() -> None:
    text = LoaderText().open("/m.so").map("/m.so").need("libx.so", "/m.so").find("libx.so").trying("/a/libx.so").bytes
    after = LoaderText().init("/m.so").opened("/m.so").fini("/m.so").destroy("/m.so").bytes
    assert [str(event) for event in decode_loader_text(text + GAP + after).events] == [
        "LoadLibrary /m.so", "UnloadLibrary /m.so",
    ]  # fmt: skip


def test_what_is_needed_behind_a_gap_starts_no_program() -> None:
    started: list[str] = []
    decoder = LoaderTextDecoder(77, on_start=lambda pid, name: started.append(name))
    text = LoaderText().open("/m.so").map("/m.so").bytes + GAP
    text += LoaderText().need("libx.so", "/m.so").find("libx.so").trying("/a/libx.so").map("libx.so").bytes
    events = [str(event) for event, _ in decoder.feed(text + LoaderText().opened("/m.so").bytes)]
    assert (events, started) == (["LoadLibrary /m.so", "LoadLibrary /a/libx.so"], [])


def test_an_image_whose_search_is_missing_has_no_place() -> None:
    (event,) = decode_loader_text(LoaderText().map("libx.so").bytes).events
    assert (event.path, event.phase, event.probes) == ("libx.so", None, None)


def test_requests_for_what_is_there_do_not_pile_up() -> None:
    text = b"".join(LoaderText().request("libc.so.6", tid=5).opened("/lib/libc.so.6", 2).bytes for _ in range(5))
    (event,) = decode_loader_text(text + LoaderText().open("libc.so.6").map("libc.so.6").bytes).events
    assert event.tid == 5


def test_a_name_that_find_library_did_not_find() -> None:
    raw = (FIND_LIBRARY, "zbar", ("pyzbar",), 5, 1e9, 1, ("ldconfig", "ld"), None)
    (event,) = decode_loader_text(encode_request(raw)).events
    assert isinstance(event, LoadFailedEvent) and str(event) == "Failed zbar"
    assert (event.kind, event.need, event.imports) == (FailureKind.NAME_NOT_FOUND, "zbar", ("pyzbar",))
    assert [(probe.path, probe.phase, probe.outcome) for probe in event.probes or ()] == [
        ("/etc/ld.so.cache", Phase.CACHE, ProbeOutcome.NO_ENTRY), ("libzbar.so", Phase.OTHER, ProbeOutcome.ABSENT),
    ]  # fmt: skip


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 10))
def test_failures_are_kept_first(failures: list[bool], most: int) -> None:
    events = [(LoadFailedEvent if failed else LoadEvent)(str(number)) for number, failed in enumerate(failures)]
    kept = KeptEvents(most)
    for event in events:
        kept.add(event)
    found = kept.take()
    assert len(found) == min(most, len(events)) and kept.dropped == len(events) - len(found)
    assert list(found) == sorted(found, key=events.index)
    assert sum(isinstance(event, LoadFailedEvent) for event in found) == min(most, sum(failures))
    others = [event for event in events if not isinstance(event, LoadFailedEvent)]
    room = max(0, most - sum(failures))
    assert [event for event in found if not isinstance(event, LoadFailedEvent)] == others[:room]
    assert bool(kept.notes()) == bool(kept.dropped)


@pytest.mark.skipif(sys.platform != "linux", reason="holes in files of Linux")
def test_a_log_whose_beginning_was_released(tmp_path: Path) -> None:
    from dlltracer.capture.linux.decoding import read_initialising, read_recording
    from dlltracer.capture.linux.log_file import punch_hole

    path, size = tmp_path / "log", 1 << 20
    text = MANY * (size // len(MANY) + 3)
    path.write_bytes(text + LoaderText().open("/m.so").map("/m.so").init("/m.so").bytes)
    with path.open("r+b", buffering=0) as file:
        punch_hole(file.fileno(), size)
        recording = read_recording(file.fileno(), 77)
        assert recording.losses.undecodable in (1, 2) and not recording.failures
        assert recording.loads[-1].path == "/m.so" and 12 < len(recording.loads) < 60
        assert read_initialising(file.fileno(), 77) == "/m.so"
