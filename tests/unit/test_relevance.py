"""Which failures of a trace belong to the exception."""

from __future__ import annotations

from dataclasses import replace

from builders.failed_case import EXT, dropped, import_error, not_found
from dlltracer.diagnose.loader_errors import classify_dlerror, failures_behind, top_of
from dlltracer.model.events import LoadEvent, LoadFailedEvent
from dlltracer.model.recording import Recording

MESSAGE = "libgone.so: cannot open shared object file: No such file or directory"


def behind(*events: LoadEvent | LoadFailedEvent, message: str | None = MESSAGE) -> tuple[LoadFailedEvent, ...]:
    output = classify_dlerror(message) if message else None
    dl_error = output if output is not None and output.problem.value != "undecided" else None
    return failures_behind(Recording("rtld", events), import_error(message) if message else None, dl_error)


def test_what_was_tried_in_vain_before_does_not_belong() -> None:
    benign = not_found("libopt.so", None, timestamp=1.0)
    loads = (LoadEvent("/lib/liba.so"), LoadEvent(EXT))
    for time in (2.0, None):  # None: nobody in Python asked, so there is no time
        gone, top = not_found("libgone.so", timestamp=time), replace(dropped(), timestamp=time)
        assert behind(benign, *loads, gone, top) == (gone, top)


def test_of_two_attempts_the_last_counts() -> None:
    first, second = not_found("libgone.so", timestamp=1.0), not_found("libgone.so", timestamp=2.0)
    assert behind(first, second) == (second,)


def test_without_requests_of_python_a_load_is_joined_by_who_needed_what() -> None:
    # As pypy's loads are, watched from outside: each event has the time of its own call.
    benign = not_found("libopt.so", "/lib/other.so", timestamp=1.0, imports=None)
    times = (2.0, 2.1, 2.2, 2.3)
    gone = not_found("libgone.so", "/lib/libmid.so", imports=None)
    load = (dropped(), dropped("/lib/libmid.so", EXT), gone, dropped("/lib/libother.so", "/lib/libmid.so"))
    one = tuple(replace(event, timestamp=time, imports=None) for event, time in zip(load, times, strict=True))
    assert behind(benign, *one) == one


def test_a_failure_of_another_name_does_not_belong() -> None:
    assert behind(not_found("libopt.so", None)) == ()


def test_without_a_loaders_words_only_what_nothing_came_after() -> None:
    last = not_found("libopt.so")
    assert behind(LoadEvent("/lib/liba.so"), last, message="other words") == (last,)
    assert behind(last, LoadEvent("/lib/liba.so"), message="other words") == ()
    assert behind(last, message=None) == (last,)


def test_nothing_traced() -> None:
    assert failures_behind(None, None, None) == () and behind() == ()


def test_the_image_with_which_it_began() -> None:
    inner = dropped("/lib/libmid.so", EXT)
    assert top_of((not_found("libgone.so", "/lib/libmid.so"), inner, dropped())) == EXT
    assert top_of((not_found("libnope.so", None),)) == "libnope.so"
    assert top_of(()) is None
