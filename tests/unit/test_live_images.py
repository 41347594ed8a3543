"""Image records and requests, decoded while they come, give what they give together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from builders.image_event import FREQUENCY, PID, payload, record
from dlltracer.capture.windows.image_events import ImageDecoder, LiveImages, RecordContext, decode_records
from dlltracer.capture.windows.image_records import Opcode, RawRecord
from dlltracer.model.request import Request, RequestKind

MACHINE = RecordContext(PID, {r"\Device\HarddiskVolume3": "C:"}, r"C:\Windows", FREQUENCY, wall=1000.0, clock=0)
VOLUME = r"\Device\HarddiskVolume3"
SECOND = 1_000_000_000


class Requests:
    """The requests of a program, as far as they are made at a moment."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._left = list(requests)

    def peek(self, until: int | None) -> Sequence[Request]:
        return [one for one in self._left if until is None or one.clock <= until]

    def forget(self, count: int) -> None:
        del self._left[:count]

    def open_since(self, moment: int) -> int:
        for one in reversed(self._left):
            if one.clock <= moment and (one.idle_clock is None or moment < one.idle_clock):
                moment = one.clock - 1
        return moment


def clock(one: RawRecord) -> int:
    return MACHINE.nanoseconds(one.ticks)


def at(opcode: int, name: str, base: int, moment: int) -> RawRecord:
    """A record at a moment in microseconds."""
    return record(opcode, payload(rf"{VOLUME}\{name}", base=base), ticks=moment * 10)


def a_call(number: int, fails: bool, extension: bool) -> tuple[Request, list[RawRecord]]:
    """A request in the time 100 n to 100 n + 90, for a DLL that needs another one."""
    start = 100 * number
    kind = RequestKind.EXTENSION if extension else RequestKind.CTYPES
    name, other = f"m{number}.pyd", f"d{number}.dll"
    request = Request(kind, rf"C:\{name}", ("p", name), 1, 1000.0, start * 1000, succeeded=not fails,
                      idle_clock=(start + 90) * 1000)  # fmt: skip
    records = [at(Opcode.LOAD, name, 2 * number + 2, start + 10), at(Opcode.LOAD, other, 2 * number + 3, start + 20)]
    if fails:
        records += [at(Opcode.UNLOAD, other, 2 * number + 3, start + 30)]
        records += [at(Opcode.UNLOAD, name, 2 * number + 2, start + 40)]
    return request, records


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=6), st.lists(st.integers(0, 700), max_size=8))
def test_every_division_gives_the_same(calls: list[tuple[bool, bool]], moments: list[int]) -> None:
    made = [a_call(number, *call) for number, call in enumerate(calls)]
    requests, records = [one for one, _ in made], [one for _, some in made for one in some]
    live, came = LiveImages(ImageDecoder(MACHINE), clock, Requests(requests), lambda one: one), 0
    reported = []
    for moment in sorted(moments):
        until = moment * 1000
        fresh = [one for one in records[came:] if clock(one) <= until]
        came += len(fresh)
        live.add(fresh)
        reported += live.take(until)
    live.add(records[came:])
    reported += live.take(SECOND, is_end=True)
    assert tuple(reported) == tuple(live.events) == decode_records(records, requests, MACHINE).events


def test_a_failed_import_is_delivered_when_it_is_known() -> None:
    request, records = a_call(0, fails=True, extension=True)
    request = replace(request, succeeded=None)  # nothing tells yet whether the module is imported
    live = LiveImages(ImageDecoder(MACHINE), clock, Requests([request]), lambda one: one)
    live.add(records)
    assert live.take(50_000) == []  # the call goes on
    assert [str(event).split()[0] for event in live.take(100_000)] == ["LoadLibrary", "LoadLibrary"]
    assert live.take(200_000) == []
    assert [str(event).split()[0] for event in live.take(2 * SECOND)] == ["Failed", "Failed"]
    assert live.take(3 * SECOND, is_end=True) == []
