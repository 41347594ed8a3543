"""What the helper of a trace writes, read back: whole, cut short, damaged; and told to an log."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.capture.windows.debugger.loop import (
    DEBUG_STRING,
    END,
    LOAD,
    NOTE,
    READY,
    REFUSED,
    UNLOAD,
    decode_lines,
    encode_line,
)
from dlltracer.capture.windows.debugger.process_log import ProcessLog, replay_lines
from dlltracer.model.events import LoadEvent, UnloadEvent

PID, TID = 4711, 7
HEAD = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0" + bytes(4) + struct.pack("<I", 1_600_000_000)
HEAD = HEAD.ljust(0x40 + 24 + 56, b"\0") + struct.pack("<III", 0x3000, 0, 0xC0FFEE)
PATHS = st.text(max_size=20) | st.just("C:\\\udc80.dll")
LINES = st.one_of(
    st.tuples(st.just(LOAD), st.integers(0, 2**32 - 1), *[st.integers(0, 2**63 - 1)] * 2, PATHS, st.binary(max_size=9)),
    st.tuples(st.just(UNLOAD), st.integers(0, 2**32 - 1), *[st.integers(0, 2**63 - 1)] * 2),
    st.tuples(st.just(DEBUG_STRING), st.integers(0, 1), st.binary(max_size=9)),
    st.tuples(st.just(NOTE), PATHS),
    st.tuples(st.just(READY)),
    st.tuples(st.just(REFUSED), st.integers(0, 2**32 - 1)),
    st.tuples(st.just(END), st.integers(0, 99)),
)


def written(*lines: tuple[object, ...]) -> bytes:
    return b"".join(encode_line(*line) for line in lines)  # type: ignore[arg-type]


@given(st.lists(LINES, max_size=9))
def test_what_is_written_is_read(lines: list[tuple[object, ...]]) -> None:
    assert list(decode_lines(written(*lines))) == lines


@given(st.lists(LINES, min_size=1, max_size=4), st.data())
def test_cut_short_only_the_last_line_is_damaged(lines: list[tuple[object, ...]], data: st.DataObject) -> None:
    whole = written(*lines)
    at = data.draw(st.integers(1, len(whole) - 1))
    read = list(decode_lines(whole[:at]))
    complete = whole[:at].count(b"\n")
    assert read[:complete] == lines[:complete]
    assert read[complete:] == ([] if whole[:at].endswith(b"\n") else [None])


@pytest.mark.parametrize(
    "line",
    [
        b"", b"load", b"load 1 2 3 sff xff ", b"load 1 2 3 x00 x00 ", b"load -1 2 3 s x ", b"unload 4294967296 2 3 ",
        b"unload 1 2 3", b"unload 1 2 3 4 ", b"ready  ", b"said 2 x ", b"end s ", b"magic ", b"end \xff ", b"note xzz ",
    ],
)  # fmt: skip
def test_what_does_not_fit_is_damaged(line: bytes) -> None:
    assert list(decode_lines(line + b"\nready \n")) == [None, (READY,)]


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_bytes_raise(data: bytes, start: int) -> None:
    log = ProcessLog({})
    damaged = replay_lines(data, start, PID, log)
    assert damaged <= data[start:].count(b"\n") + 1
    log.events((), PID, 0.0, 0)


@given(st.lists(LINES, max_size=20), st.integers(0, 20))
def test_any_lines_can_be_rendered(lines: list[tuple[object, ...]], before: int) -> None:
    log = ProcessLog({})
    text = written(*lines)
    assert replay_lines(text, len(written(*lines[:before])), PID, log) == 0
    events = log.events((), PID, 0.0, 0)
    assert sum(isinstance(event, LoadEvent) for event in events) == sum(
        line[0] == LOAD and bool(str(line[4]).split("\0")[0]) for line in lines[before:]
    )


def test_what_was_there_before_is_no_event_but_its_unload_is_one() -> None:
    old, new = "\\??\\C:\\old.dll", "\\??\\C:\\new.dll"
    before = written(
        (LOAD, TID, 1, 0x1000_0000, old, HEAD), (LOAD, TID, 1, 0x3000_0000, old, HEAD), (UNLOAD, TID, 1, 0x3000_0000),
        (DEBUG_STRING, 0, b"before"), (NOTE, "before"), (READY,),
    )  # fmt: skip
    block = written(
        (LOAD, TID, 500_000_000, 0x2000_0000, new, HEAD), (UNLOAD, TID, 600_000_000, 0x1000_0000),
        (DEBUG_STRING, 0, b"hello"), (UNLOAD, TID, 600_000_000, 0x3000_0000), (NOTE, "a note"),
    )  # fmt: skip
    log = ProcessLog({})
    assert replay_lines(before + block + b"load 1 2", len(before), PID, log) == 1
    loaded, unloaded = log.events((), PID, wall=1000.0, clock=0)
    assert loaded == LoadEvent(
        "C:\\new.dll", base=0x2000_0000, size=0x3000, timestamp=1000.5, pid=PID, tid=TID, checksum=0xC0FFEE,
        link_time=1_600_000_000,
    )  # fmt: skip
    assert (type(unloaded), unloaded.path, unloaded.base) == (UnloadEvent, "C:\\old.dll", 0x1000_0000)
    gone = "something at 0x30000000 was unloaded whose load was not seen"
    assert log.notes() == ("OutputDebugString: hello", gone, "a note")
    assert [record.opcode for record in log.records] == [10, 2]
