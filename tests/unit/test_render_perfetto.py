"""The timeline: valid by the Trace Event Format, monotonic, slices nested; it says where only the order is known."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from builders.saved_case import CRASH, EVENTS, hostile_trace, saved_trace, trace_of
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent, UnloadEvent
from dlltracer.model.recording import Recording, TracedProcess
from dlltracer.model.run import RunResult, SavedTrace
from dlltracer.report.render_perfetto import NO_LATER_TIME, NO_TIME, render_perfetto


def entries(saved: SavedTrace) -> list[dict[str, Any]]:
    text = render_perfetto(saved)
    assert text.isascii()
    output = json.loads(text, parse_constant=lambda name: 1 / 0)
    assert set(output) == {"traceEvents", "displayTimeUnit", "otherData"}
    found: list[dict[str, Any]] = output["traceEvents"]
    check(found)
    return found


def check(found: list[dict[str, Any]]) -> None:
    """The rules of the Trace Event Format for the phases that are used, and that a slice lies in what holds it."""
    last = -1
    open_slices: dict[tuple[int, int], list[int]] = {}
    for entry in found:
        assert isinstance(entry["pid"], int) and isinstance(entry["tid"], int) and isinstance(entry["name"], str)
        assert isinstance(entry["ts"], int) and entry["ts"] >= 0
        assert entry["ph"] in "MXibe"
        if entry["ph"] == "M":
            assert last == -1, "names come first"
            assert entry["name"] in ("process_name", "process_sort_index", "thread_name")
            continue
        assert entry["ts"] >= last, "in order of time"
        last = entry["ts"]
        assert isinstance(entry["cat"], str)
        if entry["ph"] == "i":
            assert entry["s"] in ("g", "p", "t")
        if entry["ph"] in "be":
            assert entry["id"]
        if entry["ph"] == "X":
            assert isinstance(entry["dur"], int) and entry["dur"] >= 1
            around = open_slices.setdefault((entry["pid"], entry["tid"]), [])
            while around and around[-1] <= entry["ts"]:
                around.pop()
            assert not around or entry["ts"] + entry["dur"] <= around[-1], "slices nest"
            around.append(entry["ts"] + entry["dur"])


def of(found: list[dict[str, Any]], category: str) -> list[dict[str, Any]]:
    return [entry for entry in found if entry.get("cat") == category]


def test_imports_hold_their_loads() -> None:
    found = entries(saved_trace())
    assert [(one["name"], one["ts"], one["dur"]) for one in of(found, "import")] == [
        ("import m", 500_000, 4),
        ("import n", 1_000_000, 1),
        ("import n.i", 1_000_000, 1),
    ]
    loads = of(found, "load")
    assert [(one["name"], one["ts"], one["dur"]) for one in loads] == [
        ("mod.so", 500_000, 1),
        ("liba.so", 500_001, 1),
        ("in.so", 1_000_000, 1),
    ]
    assert loads[1]["args"] == {
        "path": "/lib/liba.so", "need": "liba.so", "requested_by": "/app/mod.so", "rule": "cache",
        "time": NO_LATER_TIME,
    }  # fmt: skip
    assert loads[0]["args"]["base"] == "0x1000" and loads[0]["args"]["size"] == 10


def test_failures_and_unloads_are_instants() -> None:
    found = entries(saved_trace())
    gone, dropped = of(found, "failed")
    assert (gone["ph"], gone["name"]) == ("i", "libgone.so not found")
    assert gone["args"]["places"][-1] == "/lib/libgone.so: present"
    assert (dropped["name"], dropped["args"]["time"]) == ("mod.so dropped", NO_TIME)
    (unload,) = of(found, "unload")
    assert (unload["name"], unload["ts"], unload["tid"]) == ("in.so unloaded", 1_500_000, 8)


def test_names_of_processes_and_threads() -> None:
    named = {(e["name"], e["pid"], e["tid"]): e["args"] for e in entries(saved_trace()) if e["ph"] == "M"}
    assert named["process_name", 7, 7] == {"name": "import m"}
    assert named["thread_name", 7, 7] == {"name": "main thread"}
    assert named["thread_name", 7, 8] == {"name": "thread 8"}


def test_processes_and_a_crash() -> None:
    processes = (
        TracedProcess(7, command=("python", "x"), started=99.5, ended=103.0, status=-11),
        TracedProcess(9, parent=7, program="/bin/sh", started=100.0),
    )
    recording = Recording("rtld", EVENTS, pid=7, processes=processes)
    found = entries(saved_trace(recording=recording, run=RunResult(crash=CRASH)))
    lives = [(e["ph"], e["name"], e["ts"], e.get("id")) for e in of(found, "process")]
    assert lives[:2] == [("b", "python x", 0, "0x7"), ("e", "python x", 3_500_000, "0x7")]
    assert lives[2][:3] == ("i", "was killed by SIGSEGV", 3_500_000)
    (crash,) = of(found, "crash")
    assert crash["s"] == "g" and crash["args"] == {"image": "/app/mod.so", "offset": "0x234", "time": NO_TIME}
    names = [e["args"]["name"] for e in found if e["name"] == "process_name"]
    assert names == ["python x", "/bin/sh"]


def test_a_mechanism_without_times_keeps_the_order() -> None:
    events = [LoadEvent(f"/{number}.so", imports=("a",) if number else None) for number in range(4)]
    found = entries(trace_of(*events, started=None))
    assert [(one["name"], one["ts"], one["args"]["time"]) for one in of(found, "load")] == [
        (f"{number}.so", number, NO_TIME) for number in range(4)
    ]
    assert "zero" not in json.loads(render_perfetto(trace_of(*events, started=None)))["otherData"]


def test_times_that_are_none() -> None:
    events = (LoadEvent("/a.so", timestamp=math.nan), LoadEvent("/b.so", timestamp=math.inf), LoadEvent("/c.so"))
    assert [one["args"]["time"] for one in of(entries(trace_of(*events)), "load")] == [NO_LATER_TIME] * 2 + [NO_TIME]


def test_hostile_names_and_nothing_at_all() -> None:
    found = entries(hostile_trace())
    assert all(char.isprintable() for entry in found for char in str(entry.get("name")))
    assert entries(trace_of()) == []


names = st.sampled_from(["a", "b", "c"])
times = st.one_of(st.none(), st.floats(0, 5), st.floats())
chains = st.one_of(st.none(), st.lists(names, max_size=3).map(tuple))
common: dict[str, Any] = {
    "timestamp": times, "pid": st.sampled_from([None, 7, 8]), "tid": st.sampled_from([None, 7, 9]), "imports": chains,
}  # fmt: skip
events = st.one_of(
    st.builds(LoadEvent, names, **common),
    st.builds(UnloadEvent, names, **common),
    st.builds(LoadFailedEvent, names, **common, kind=st.sampled_from([None, *FailureKind])),
)


@given(st.lists(events, max_size=12))
def test_any_trace_is_valid(made: list[Any]) -> None:
    found = entries(trace_of(*made))
    shown = [entry for entry in found if entry.get("cat") in ("load", "failed", "unload")]
    assert len(shown) == len(made)
    for pid in (7, 8):
        paths = [entry["args"]["path"] for entry in shown if entry["pid"] == pid]
        assert paths == [event.path for event in made if (event.pid or 7) == pid], "the order is kept"
