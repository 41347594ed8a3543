"""Finding the loader's words by comparing starts of the interpreter."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

if sys.platform != "linux":
    pytest.skip("the loader of glibc is Linux's", allow_module_level=True)

import dlltracer
from dlltracer.capture.linux import compared_starts, debug_mask, loader_log, log_file
from dlltracer.capture.linux.compared_starts import Start, find_compared_words
from dlltracer.errors import BackendUnavailable

LIBS, FILES = 3, 66
"""The masks that the two values of LD_DEBUG give (DL_DEBUG_IMPCALLS, 2, is in both)."""

ints = st.integers(-(1 << 31), (1 << 31) - 1)
alike = st.lists(st.tuples(ints, st.booleans()), max_size=60)


def starts(*columns: tuple[int, int, int], logs: tuple[int, int] = (3, 4)) -> tuple[Start, Start, Start]:
    """Three starts with these words, a column each."""
    rows = tuple(zip(*columns, strict=True)) or ((), (), ())
    return Start("8:1", -1, rows[0]), Start("8:1", logs[0], rows[1]), Start("8:1", logs[1], rows[2])


def test_each_word_is_the_one_that_follows_its_variable() -> None:
    assert find_compared_words(*starts((7, 7, 7), (2, 3, 4), (0, 0, 0), (0, LIBS, FILES))) == (3, 1)
    assert find_compared_words(*starts((0, LIBS, FILES), (2, 9, 5), (2, 3, 4), logs=(9, 5))) == (0, 1)


@pytest.mark.parametrize(
    ("columns", "left"),
    [
        (((2, 3, 4), (1, LIBS, FILES)), "0 places for the loader's debug mask and 1 for"),
        (((2, 3, 4), (0, LIBS, LIBS)), "0 places for the loader's debug mask and 1 for"),
        (((2, 3, 4), (0, 1 << 16 | LIBS, FILES)), "0 places for the loader's debug mask and 1 for"),
        (((2, 3, 4), (0, LIBS, FILES), (0, 1, 64)), "2 places for the loader's debug mask and 1 for"),
        (((2, 3, 4), (2, 3, 4), (0, LIBS, FILES)), "1 places for the loader's debug mask and 2 for"),
        (((2, 3, 3), (0, LIBS, FILES)), "1 places for the loader's debug mask and 0 for"),
        ((), "0 places for the loader's debug mask and 0 for"),
    ],
)
def test_anything_but_one_place_for_each_is_no_answer(columns: tuple[tuple[int, int, int], ...], left: str) -> None:
    with pytest.raises(BackendUnavailable, match=left):
        find_compared_words(*starts(*columns))


def test_logs_of_one_number_tell_nothing() -> None:
    with pytest.raises(BackendUnavailable, match=r"1 places .* and 0 for its descriptor"):
        find_compared_words(*starts((2, 3, 3), (0, LIBS, FILES), logs=(3, 3)))


@given(alike, alike, alike, st.booleans())
def test_words_that_do_not_follow_the_variables_do_not_matter(
    before: list[tuple[int, bool]], between: list[tuple[int, bool]], after: list[tuple[int, bool]], mask_first: bool
) -> None:
    """Words of one value, and halves of addresses, which differ from start to start."""

    def columns(words: list[tuple[int, bool]]) -> list[tuple[int, int, int]]:
        return [(word, word ^ differs << 20, word ^ differs << 21) for word, differs in words]

    known = [(0, LIBS, FILES), (2, 3, 4)] if mask_first else [(2, 3, 4), (0, LIBS, FILES)]
    whole = [*columns(before), known[0], *columns(between), known[1], *columns(after)]
    places = len(before), len(before) + 1 + len(between)
    assert find_compared_words(*starts(*whole)) == (places if mask_first else places[::-1])


@pytest.fixture
def glibc() -> debug_mask.DebugMaskPatch:
    try:
        return debug_mask.DebugMaskPatch()
    except BackendUnavailable as error:
        pytest.skip(str(error))


def test_both_ways_name_the_same_words(glibc: debug_mask.DebugMaskPatch) -> None:
    assert glibc.words.note is None
    found = glibc.compare_starts("the pattern does not do")
    assert (found.mask, found.fd) == (glibc.words.mask, glibc.words.fd)
    assert found.note is not None and found.note.startswith("the pattern does not do: ")


def own_children() -> set[str]:
    """The processes that this one has started and not reaped: other tests of this worker may have some, too."""
    found = set()
    for task in os.listdir("/proc/self/task"):
        # A thread that ends meanwhile takes its folder along, and its children go to another thread.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(Path(f"/proc/self/task/{task}/children").read_text().split())
    return found


@pytest.mark.parametrize("places", [0, 2])
def test_a_trace_whose_pattern_does_not_fit(
    places: int, glibc: debug_mask.DebugMaskPatch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing of the comparison stays, and the recording names the way."""
    find = debug_mask.find_debug_fd
    monkeypatch.setattr(debug_mask, "find_debug_fd", lambda words: find(words * places))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(loader_log.the_loader_log(), "words", None)
    descriptors, children = os.listdir("/proc/self/fd"), own_children()
    trace = dlltracer.Trace(collect=True, backend="rtld")
    with trace as events:
        import ctypes

        with pytest.raises(OSError, match=r"libnowhere\.so"):
            ctypes.CDLL("libnowhere.so")
    assert events is not None and [event.path for event in events] == ["libnowhere.so"]
    assert trace.recording is not None
    (note,) = trace.recording.notes
    assert f"({places} places fit its pattern): its place was found by starting the interpreter three times" in note
    assert not list(tmp_path.iterdir()) and set(os.listdir("/proc/self/fd")) <= set(descriptors)
    assert own_children() <= children


def test_words_that_fit_and_say_nothing_are_the_wrong_ones(
    glibc: debug_mask.DebugMaskPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = debug_mask.DebugWords(glibc.words.mask, glibc.words.fd + 1)  # _dl_lazy
    descriptor = log_file.create_memory_file("test")
    try:
        patch = debug_mask.prove_patch(debug_mask.DebugMaskPatch(wrong), descriptor)
        patch.restore()
    finally:
        os.close(descriptor)
    assert patch.words.fd == glibc.words.fd and patch.words.note is not None and "produced no log" in patch.words.note
    assert debug_mask.DebugMaskPatch().before == glibc.before


@pytest.mark.parametrize(
    ("name", "value"), [("sys.executable", "/usr/bin/env"), ("sys.executable", ""), ("sys.frozen", True)]
)
def test_an_application_is_not_started(
    name: str, value: object, glibc: debug_mask.DebugMaskPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with Python inside would run three times over."""
    monkeypatch.setattr(name, value, raising=False)
    monkeypatch.setattr(os, "posix_spawn", lambda *_: pytest.fail("it was started"))
    with pytest.raises(BackendUnavailable, match=r"no place; .*(not a plain Python|does not name this process)"):
        glibc.compare_starts("no place")


def test_a_child_that_hangs_is_ended(glibc: debug_mask.DebugMaskPatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared_starts, "CHILD", "import time; time.sleep(60)")
    monkeypatch.setattr(compared_starts, "FIRST_SECONDS", 0.2)
    children = own_children()
    with pytest.raises(BackendUnavailable, match="gave no answer within 0 s"):
        glibc.compare_starts("no place")
    assert own_children() <= children


@pytest.mark.parametrize(
    ("times", "is_found"),
    [((10, 45, 45), True), ((10, 55, 55), False), ((1, 10, 10), True), ((1, 12, 12), False), ((95, 95, 95), False)],
)
def test_the_limit_grows_with_the_time_of_the_first_start(
    times: tuple[int, int, int], is_found: bool, glibc: debug_mask.DebugMaskPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real starts whose answers come so many seconds late, by a clock that each look at a pipe moves on."""
    clock, pipes = [0.0], list[int]()
    read = os.read

    def read_late(descriptor: int, size: int) -> bytes:
        if descriptor not in pipes:
            pipes.append(descriptor)
        if clock[0] < times[pipes.index(descriptor)]:
            clock[0] += 0.5
            raise BlockingIOError
        os.set_blocking(descriptor, True)
        return read(descriptor, size)

    monkeypatch.setattr(compared_starts, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda _: None))
    monkeypatch.setattr(os, "read", read_late)
    if is_found:
        assert glibc.compare_starts("no place").mask == glibc.words.mask
    else:
        with pytest.raises(BackendUnavailable, match=r"gave no answer within \d+ s"):
            glibc.compare_starts("no place")


def test_no_process_may_be_started(glibc: debug_mask.DebugMaskPatch, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    descriptors = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "posix_spawn", refuse)
    with pytest.raises(BackendUnavailable, match=r"could not be started to compare \(Operation not permitted\)"):
        glibc.compare_starts("no place")
    assert set(os.listdir("/proc/self/fd")) <= set(descriptors)
