"""Marks in memory that a tracer reads: written in place, and handed over by a call where that is not possible."""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from _thread import get_native_id

import pytest

if sys.platform != "linux":
    pytest.skip("seccomp is of Linux", allow_module_level=True)

from dlltracer.capture.linux.seccomp_marks import FILLER, SHARED_SIZE, SharedMarks, describe_memory

in_place = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
cpython_only = pytest.mark.skipif(not in_place, reason="this Python's BytesIO does not write into its own memory")
HEAD = describe_memory(4711, get_native_id())


class Tracer:
    """Takes memory on, as the real one does: it knows the address, and has no part in the object."""

    def __init__(self) -> None:
        self.address = self.taken = 0

    def take(self, memory: bytes) -> bool:
        self.address = id(memory) + bytes.__basicsize__ - 1
        self.taken += 1
        return True

    def read(self) -> bytes:
        return ctypes.string_at(self.address, SHARED_SIZE)


@cpython_only
def test_marks_are_written_where_the_tracer_reads() -> None:
    tracer = Tracer()
    marks = SharedMarks(tracer.take, 4711)
    for mark in (b"\x1eone\x1f", b"\x1etwo\x1f"):
        assert marks.write(mark)
    assert tracer.read() == (HEAD + b"\x1eone\x1f\x1etwo\x1f").ljust(SHARED_SIZE, FILLER)


@cpython_only
def test_other_memory_takes_the_place_of_full_memory() -> None:
    tracer = Tracer()
    marks = SharedMarks(tracer.take, 4711)
    mark = b"\x1e%s\x1f" % (b"m" * 1000)
    fitting = (SHARED_SIZE - len(HEAD) - 1) // len(mark)
    assert all(marks.write(mark) for _ in range(fitting))
    assert tracer.taken == 1
    assert tracer.read().rstrip(FILLER) == HEAD + mark * fitting
    assert tracer.read().endswith(FILLER), "a mark that is not whole has no end"
    assert marks.write(mark)
    assert tracer.taken == 2
    assert tracer.read() == (HEAD + mark).ljust(SHARED_SIZE, FILLER)
    assert not marks.write(b"\x1e%s\x1f" % (b"m" * SHARED_SIZE))


def test_nothing_is_written_that_nobody_reads() -> None:
    asked: list[bytes] = []
    marks = SharedMarks(lambda memory: bool(asked.append(memory)), 4711)
    assert not marks.write(b"\x1eone\x1f")
    assert not marks.write(b"\x1etwo\x1f")
    assert len(asked) == in_place, "it is asked once, and not at all where BytesIO writes into a copy"


@cpython_only
def test_memory_that_somebody_else_holds_is_given_up() -> None:
    """Then BytesIO makes memory of its own, which the tracer does not know."""
    held: list[bytes] = []

    def hold(memory: bytes) -> bool:
        held.append(memory)
        return True

    marks = SharedMarks(hold, 4711)
    assert not marks.write(b"\x1eone\x1f")
    assert not marks.write(b"\x1etwo\x1f")
    assert len(held) == 1


@cpython_only
def test_who_interrupts_a_write_does_not_wait_for_it() -> None:
    """As the handler of a signal does, in the same thread."""
    inside: list[bool] = []

    def interrupt(memory: bytes) -> bool:
        inside.append(marks.write(b"\x1einside\x1f"))
        return tracer.take(memory)

    tracer = Tracer()
    marks = SharedMarks(interrupt, 4711)
    assert marks.write(b"\x1eone\x1f")
    assert inside == [False]
    assert tracer.read().rstrip(FILLER) == HEAD + b"\x1eone\x1f"


def test_a_mark_of_memory_names_tracer_and_thread() -> None:
    assert len({describe_memory(*pair) for pair in ((1, 5), (1, 6), (2, 5), (2, 6), (15, 5), (1, 55))}) == 6
