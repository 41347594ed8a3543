"""When a list gets its events while the program runs. tests/contract/test_live.py has the other outputs."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event as Flag
from threading import Thread

import pytest

from dlltracer.delivery import Delivery, Outputs
from dlltracer.model.events import Event, LoadEvent
from dlltracer.model.recording import Recording

LONG = 60
"""Seconds after which a test gives up."""


class Telling(list[Event]):
    """A list that tells when it gets something."""

    def __init__(self) -> None:
        self.has_some = Flag()

    def append(self, event: Event, /) -> None:
        super().append(event)
        self.has_some.set()


class Loading:
    """A session of a program that loads something more whenever somebody looks, until `quiet` is set."""

    missed = 0
    is_completed_later = hides_failures = False

    def __init__(self, *, can_wait: bool = True) -> None:
        self.can_wait = can_wait
        self.quiet, self.was_looked_at = Flag(), Flag()
        self.looks = 0
        self.events: list[Event] = [LoadEvent("libx.so")]

    def progress(self) -> int:
        self.looks += not self.quiet.is_set()
        if self.looks > 20:
            self.was_looked_at.set()
        return self.looks

    def drain(self, returned: Sequence[tuple[int, int]] = (), *, is_end: bool = False) -> Sequence[Event]:
        events = []
        while self.events:
            events.append(self.events.pop(0))
        return events

    def stop(self) -> Callable[[], Recording]:
        raise NotImplementedError


@contextmanager
def delivered(session: Loading) -> Iterator[Telling]:
    """The list that gets the events of a session while the block runs."""
    collected = Telling()
    delivery = Delivery(Outputs(collected, None, False, False), session)
    delivery.start()
    try:
        yield collected
    finally:
        delivery.finish(lambda: Recording("rtld"))


@pytest.fixture(autouse=True)
def _wakes_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlltracer.delivery.WAKE_SECONDS", 0.001)


def test_a_list_gets_nothing_while_the_program_loads_and_all_when_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlltracer.delivery._LATEST_SECONDS", 10 * LONG)
    session = Loading()
    with delivered(session) as collected:
        assert session.was_looked_at.wait(LONG)
        assert collected == []
        session.quiet.set()
        assert collected.has_some.wait(LONG)


def test_a_list_gets_its_events_in_time_though_the_program_goes_on_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlltracer.delivery._LATEST_SECONDS", 0.01)
    session = Loading()
    with delivered(session) as collected:
        assert collected.has_some.wait(LONG)
        assert not session.quiet.is_set()


def test_a_list_gets_its_events_when_much_is_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlltracer.delivery._LATEST_SECONDS", 10 * LONG)
    monkeypatch.setattr("dlltracer.delivery._MOST_BACKLOG", 10)
    session = Loading()
    with delivered(session) as collected:
        assert collected.has_some.wait(LONG)
        assert session.looks >= 10 and not session.quiet.is_set()


def test_a_session_that_cannot_wait_is_read_all_the_time() -> None:
    session = Loading(can_wait=False)
    with delivered(session) as collected:
        assert collected.has_some.wait(LONG)


class Slow(Loading):
    """A session whose first `drain` takes until `may_go_on` is set."""

    def __init__(self) -> None:
        super().__init__(can_wait=False)
        self.is_asked, self.may_go_on = Flag(), Flag()

    def drain(self, returned: Sequence[tuple[int, int]] = (), *, is_end: bool = False) -> Sequence[Event]:
        self.is_asked.set()
        assert self.may_go_on.wait(LONG)
        return super().drain()


def test_events_after_a_fork_are_delivered_though_it_came_in_the_midst_of_a_delivery() -> None:
    session = Slow()
    collected = Telling()
    delivery = Delivery(Outputs(collected, None, False, False), session)
    delivery.start()
    assert session.is_asked.wait(LONG)
    threads = len(sys._current_frames())
    for _ in range(3):
        delivery.before_fork()  # gives up waiting
        delivery.after_fork_in_parent()
    assert len(sys._current_frames()) <= threads  # none is added; one of a test before may end
    session.may_go_on.set()
    assert collected.has_some.wait(LONG)
    collected.has_some.clear()
    session.events.append(LoadEvent("liby.so"))
    assert collected.has_some.wait(LONG)
    session.events.append(LoadEvent("libz.so"))
    delivery.finish(lambda: Recording("rtld"))
    assert [str(event) for event in collected] == [f"LoadLibrary lib{name}.so" for name in "xyz"]


@pytest.mark.skipif(sys.platform != "linux", reason="the backend of Linux")
def test_a_reader_does_not_wait_for_a_thread_that_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler that ends the trace waits for the reader, and may have interrupted a thread that decodes."""
    from dlltracer.capture.linux.decoding import Decoding
    from dlltracer.capture.linux.rtld import RtldBackend

    session, feed = RtldBackend().start(live=True), Decoding.feed
    readers: list[Thread] = []

    def feed_after_reader(decoding: Decoding, text: bytes) -> None:
        if not readers:
            readers.append(Thread(target=session.drain, daemon=True))
            readers[0].start()
            readers[0].join(LONG)
        feed(decoding, text)

    monkeypatch.setattr(Decoding, "feed", feed_after_reader)
    try:
        ctypes.CDLL("libc.so.6")
        session.drain()
        assert not readers[0].is_alive()
    finally:
        session.stop()()
