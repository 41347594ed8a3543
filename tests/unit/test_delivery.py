"""When a list gets its events while the program runs. tests/contract/test_live.py has the other outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event as Flag

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

    def __init__(self, *, is_sampling: bool) -> None:
        self.is_sampling = is_sampling
        self.quiet, self.was_looked_at = Flag(), Flag()
        self.looks = 0
        self.events: list[Event] = [LoadEvent("libx.so")]

    def progress(self) -> int:
        self.looks += not self.quiet.is_set()
        if self.looks > 20:
            self.was_looked_at.set()
        return self.looks

    def drain(self, returned: Sequence[tuple[int, int]] = (), *, is_end: bool = False) -> Sequence[Event]:
        events, self.events = self.events, []
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


def test_a_list_gets_nothing_while_the_program_loads_and_all_when_it_is_quiet() -> None:
    session = Loading(is_sampling=False)
    with delivered(session) as collected:
        assert session.was_looked_at.wait(LONG)
        assert collected == []
        session.quiet.set()
        assert collected.has_some.wait(LONG)


def test_a_list_gets_its_events_in_time_though_the_program_goes_on_to_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlltracer.delivery._LATEST_SECONDS", 0.01)
    session = Loading(is_sampling=False)
    with delivered(session) as collected:
        assert collected.has_some.wait(LONG)
        assert not session.quiet.is_set()


def test_a_session_that_sees_moments_only_is_read_all_the_time() -> None:
    session = Loading(is_sampling=True)
    with delivered(session) as collected:
        assert collected.has_some.wait(LONG)
