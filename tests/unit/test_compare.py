"""What differs between two traces, on traces that are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.diagnose.compare import compare_traces, longest_rising, name_key, stem_key
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase
from dlltracer.model.failure import ProcessFacts, System
from dlltracer.model.finding import Difference, DifferenceKind
from dlltracer.model.recording import Losses, Recording
from dlltracer.model.run import HostFacts, ImageFacts, RunResult, SavedTrace

PROCESS = ProcessFacts(System.LINUX, (3, 11, 7), (), 64, "/venv/bin/python", "/venv", "/usr", path=("/venv/lib",))
HOST = HostFacts("linux", "Debian 12", "x86_64", "glibc 2.36")


def trace(*paths: str, prefix: str = "/venv", **more: object) -> SavedTrace:
    events = tuple(LoadEvent(path, pid=7) for path in paths)
    process = replace(PROCESS, prefix=prefix, executable=f"{prefix}/bin/python", path=())
    images = tuple(ImageFacts(path, size=1) for path in paths)
    made = SavedTrace(Recording("rtld", events, 7), host=HOST, run=RunResult(process=process, status=0), images=images)
    return replace(made, **more)  # type: ignore[arg-type]


def kinds(first: SavedTrace, second: SavedTrace) -> list[tuple[DifferenceKind, str]]:
    found = compare_traces(first, second).differences
    return [(one.kind, one.name) for one in found if one.kind is not DifferenceKind.ENVIRONMENT]


def test_the_same_trace_has_no_differences() -> None:
    one = trace("/venv/a.so", "/lib/libc.so.6")
    found = compare_traces(one, one)
    assert (found.differences, found.same, found.notes) == ((), 2, ())


def test_places_below_each_prefix_correspond_and_so_do_other_pythons() -> None:
    one = trace("/venv/lib/python3.11/site-packages/x/_core.cpython-311-x86_64-linux-gnu.so")
    other = trace("/opt/env/lib/python3.12/site-packages/x/_core.cpython-312-x86_64-linux-gnu.so", prefix="/opt/env")
    assert kinds(one, other) == []


def test_homes_of_other_people_correspond() -> None:
    one, other = trace("/home/ann/lib/libx.so.1"), trace("/home/bob/lib/libx.so.1")
    assert kinds(one, other) == []


def test_a_library_that_one_has_not_comes_first() -> None:
    one = trace("/venv/mod.so", "/venv/libs/libdep.so.1", "/lib/libextra.so")
    failed = LoadFailedEvent("libdep.so.1", pid=7, kind=FailureKind.NOT_FOUND, requested_by="/venv/mod.so")
    other = trace("/venv/mod.so", run=RunResult(status=1))
    other = replace(other, recording=replace(other.recording, events=(*other.recording.events, failed)))
    found = compare_traces(one, other).differences
    assert [one.kind for one in found] == [DifferenceKind.OUTCOME, DifferenceKind.MISSING, DifferenceKind.ONLY_ONE]
    fates = "loaded from /venv/libs/libdep.so.1", "not found"
    assert found[1] == Difference(DifferenceKind.MISSING, "libdep.so.1", *fates, "needed by /venv/mod.so")


def test_another_copy_is_shown_with_its_rules_and_versions() -> None:
    def found_by(path: str, phase: Phase) -> SavedTrace:
        made = trace(path)
        return replace(made, recording=replace(made.recording, events=(LoadEvent(path, pid=7, phase=phase),)))

    one, other = found_by("/usr/lib/libx.so.1", Phase.CACHE), found_by("/opt/cuda/libx.so.1", Phase.ENVIRONMENT)
    (found,) = compare_traces(one, other).differences
    assert (found.kind, found.first, found.second) == (
        DifferenceKind.OTHER_COPY, "/usr/lib/libx.so.1 (1 bytes)", "/opt/cuda/libx.so.1 (1 bytes)"
    )  # fmt: skip
    assert found.detail == "found by cache in the first, found by environment in the second"


def test_the_same_path_is_the_same_place_whatever_is_known_of_the_interpreters() -> None:
    one = trace("/venv/lib/python3.11/site-packages/x/_core.so")
    torn = replace(one, run=RunResult(), images=())
    found = compare_traces(one, torn, ("one", "torn"))
    assert [(one.kind, one.second) for one in found.differences] == [(DifferenceKind.OUTCOME, "not known")]
    assert found.same == 1 and "torn: it says nothing of the interpreter and its environment" in found.notes


def test_a_copy_that_another_rule_found_comes_before_one_that_lies_elsewhere() -> None:
    def found_by(folder: str, phase: Phase) -> SavedTrace:
        paths = "/x/liba.so.1", f"{folder}/libb.so.1", f"{folder}/libc.so.1"
        phases = Phase.CACHE, Phase.CACHE, phase
        made = trace(*paths)
        events = tuple(LoadEvent(path, pid=7, phase=one) for path, one in zip(paths, phases, strict=True))
        return replace(made, recording=replace(made.recording, events=events))

    found = compare_traces(found_by("/usr/lib", Phase.CACHE), found_by("/opt/lib", Phase.ENVIRONMENT)).differences
    assert [one.name for one in found] == ["libc.so.1", "libb.so.1"]


def test_what_was_dropped_is_no_cause_and_comes_behind_the_copy_that_won() -> None:
    def dropped(path: str, reason: str | None = None) -> LoadFailedEvent:
        return LoadFailedEvent(path, pid=7, kind=FailureKind.DROPPED, reason=reason)

    one = trace("/venv/mod.so", "/venv/libs/libdep.so.1", "/venv/libs/libok.so.1", "/lib/libextra.so")
    other = trace(run=RunResult(status=1))
    events = [dropped("/venv/mod.so", "no symbol f"), dropped("/old/libdep.so.1"), dropped("/venv/libs/libok.so.1")]
    other = replace(other, recording=replace(other.recording, events=tuple(events)))
    found = compare_traces(one, other).differences
    assert [(one.kind, one.name) for one in found[1:]] == [
        (DifferenceKind.OTHER_COPY, "libdep.so.1"), (DifferenceKind.ONLY_ONE, "mod.so"),
        (DifferenceKind.ONLY_ONE, "libok.so.1"), (DifferenceKind.ONLY_ONE, "libextra.so"),
    ]  # fmt: skip
    assert (found[1].second, found[1].detail) == ("/old/libdep.so.1", "dropped in the second because a load failed")
    assert [one.second for one in found[2:]] == ["failed: no symbol f", "dropped because another one failed", None]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ImageFacts("/l/x.dll", file_version="14.28"), ImageFacts("/l/x.dll", file_version="14.40")),
        (ImageFacts("/l/x.dll", size=5), ImageFacts("/l/x.dll", size=6)),
        (ImageFacts("/l/x.dll", digest="build-id:aa"), ImageFacts("/l/x.dll", digest="build-id:bb")),
    ],
)
def test_another_version_in_the_same_place(one: ImageFacts, other: ImageFacts) -> None:
    assert kinds(trace("/l/x.dll", images=(one,)), trace("/l/x.dll", images=(other,))) == [
        (DifferenceKind.OTHER_VERSION, "x.dll")
    ]


def test_a_library_of_another_version_is_the_same_library() -> None:
    found = kinds(trace("/lib/libssl.so.1.1"), trace("/lib/libssl.so.3"))
    assert found == [(DifferenceKind.OTHER_COPY, "libssl.so.1.1")]


def test_only_what_was_moved_is_in_another_order() -> None:
    one, other = trace("/a.so", "/b.so", "/c.so", "/d.so"), trace("/d.so", "/a.so", "/b.so", "/c.so")
    (found,) = compare_traces(one, other).differences
    assert (found.name, found.first, found.second) == ("d.so", "loaded after c.so", "loaded first")


def test_variables_and_folders() -> None:
    one = trace("/a.so")
    assert one.run.process is not None
    process = replace(one.run.process, environment=(("LD_LIBRARY_PATH", "/x:/y"),), version=(3, 12, 1))
    other = replace(one, run=RunResult(process=process, status=0))
    found = {difference.name: difference for difference in compare_traces(one, other).differences}
    assert (found["LD_LIBRARY_PATH"].first, found["LD_LIBRARY_PATH"].second) == ("nothing else", "/x; /y")
    assert (found["Python"].first, found["Python"].second) == ("3.11.7, 64-bit", "3.12.1, 64-bit")


def test_what_could_not_be_compared_is_said() -> None:
    one = trace("/a.so", images=(), problems=("its end is missing",))
    other = replace(trace("/a.so"), recording=Recording("etw", (LoadEvent("/a.so"),), losses=Losses(events=3)))
    text = " | ".join(compare_traces(one, other, ("A", "B")).notes)
    for word in ("A: its end is missing", "A: it says nothing of the files", "B: evidence was lost", "(rtld, etw)"):
        assert word in text


def test_a_process_that_was_followed_is_not_mixed_in() -> None:
    one = trace("/a.so")
    other = replace(one, recording=replace(one.recording, events=(*one.recording.events, LoadEvent("/b.so", pid=8))))
    assert kinds(one, other) == []


@pytest.mark.parametrize(
    ("path", "name", "stem"),
    [
        ("/x/_ssl.cpython-311-x86_64-linux-gnu.so", "_ssl.so", "_ssl"),
        ("/x/m.abi3.so", "m.so", "m"),
        ("C:\\x\\_Psycopg.cp311-win_amd64.pyd", "_psycopg.pyd", "_psycopg"),
        ("/x/libssl.so.1.1", "libssl.so.1.1", "libssl"),
        ("/x/libjpeg-6dc8d115.so.62.4.0", "libjpeg-6dc8d115.so.62.4.0", "libjpeg"),
        ("C:\\x\\MSVCP140-a4c2229bdc2a2a63.dll", "msvcp140-a4c2229bdc2a2a63.dll", "msvcp"),
        ("C:\\x\\icuuc73.dll", "icuuc73.dll", "icuuc"),
    ],
)
def test_keys(path: str, name: str, stem: str) -> None:
    assert (name_key(path), stem_key(path)) == (name, stem)


@given(st.lists(st.integers(0, 30), max_size=30, unique=True))
def test_the_longest_rising_part_rises_and_none_is_longer(numbers: list[int]) -> None:
    kept = [numbers[index] for index in sorted(longest_rising(numbers))]
    assert kept == sorted(kept)
    best = [1] * len(numbers)
    for at, number in enumerate(numbers):
        best[at] = 1 + max((best[before] for before in range(at) if numbers[before] < number), default=0)
    assert len(kept) == max(best, default=0)
