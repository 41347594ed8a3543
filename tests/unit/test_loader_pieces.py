"""The decoder of glibc's log, given the text piece by piece, of processes that fork and become other programs."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.loader_text import PYTHON, LoaderText, decode_loader_text
from dlltracer.capture.linux.decode import LoaderTextDecoder, SimpleDlopens
from dlltracer.capture.marks import FORKED, MARK_END, OWN_BEGIN, OWN_END
from dlltracer.model.events import LoadEvent, LoadFailedEvent, UnloadEvent

LIBC = "/lib/libc.so.6"


def a_long_text() -> LoaderText:
    text = LoaderText().request("/m.so", "pkg", "pkg.m").open("/m.so").map("/m.so").need("libx.so", "/m.so")
    text.find("libx.so").search("/a", "RUNPATH from file /m.so").trying("/a/libx.so").map("libx.so").init("/a/libx.so")
    text.init("/m.so").opened("/m.so").request("/n.so", "n").open("/n.so").map("/n.so").need("libgone.so", "/n.so")
    text.find("libgone.so").cache().search("/lib", "system search path").trying("/lib/libgone.so").destroy("/n.so")
    return text.open("/link.so").opened(LIBC, 2).fini("/m.so").destroy("/m.so").line("what is this")


class Programs:
    """Answers to the start of a program, and keeps what started."""

    def __init__(self) -> None:
        self.started: list[tuple[int, str]] = []

    def __call__(self, pid: int, name: str) -> LoadEvent | None:
        self.started.append((pid, name))
        return LoadEvent(f"/usr/bin/{name}", pid=pid) if "/" not in name else None


def words(decoder: LoaderTextDecoder, text: bytes) -> list[str]:
    return [f"{event.pid} {event}" for event, _ in decoder.feed(text) + decoder.finish()]


@given(st.lists(st.integers(0, len(a_long_text().bytes)), max_size=12))
def test_any_cut_gives_the_same(cuts: list[int]) -> None:
    text = a_long_text().bytes
    whole = decode_loader_text(text)
    assert len(whole.events) == 7 and whole.doubts == {5: LIBC} and whole.undecodable == 1
    decoder = LoaderTextDecoder(None)
    places = [0, *sorted(cuts), len(text)]
    changes = [c for low, high in itertools.pairwise(places) for c in decoder.feed(text[low:high])]
    changes += decoder.finish()
    assert tuple(event for event, _ in changes) == whole.events
    assert {n: doubt for n, (_, doubt) in enumerate(changes) if doubt} == whole.doubts
    assert (decoder.undecodable, decoder.initialising()) == (whole.undecodable, whole.initialising)


def a_simple_load(text: LoaderText, path: str) -> None:
    text.request(path, "pkg").open(path).map(path).init(path).opened(path)


def a_load_without_request(text: LoaderText, path: str) -> None:
    text.open(path).map(path).init(path).opened(path)


def a_request_without_load(text: LoaderText, path: str) -> None:
    text.request(path, "pkg", "there")


def a_failure(text: LoaderText, path: str) -> None:
    text.request(path, "gone").open(path)


def a_dropped_load(text: LoaderText, path: str) -> None:
    text.request(path, "broken").open(path).map(path).need("libgone.so", path).find("libgone.so").cache().destroy(path)


def a_load_inside(text: LoaderText, path: str) -> None:
    text.request("/outer.so", "outer").open("/outer.so").map("/outer.so").init("/outer.so")
    text.request(path, "outer", "inner").open(path).map(path).init(path).opened(path).opened("/outer.so")


def an_unload(text: LoaderText, path: str) -> None:
    text.fini(path).destroy(path)


def another_process(text: LoaderText, path: str) -> None:
    text.line(f"file={path} [0];  dynamically loaded by /x [0]", pid=78)


STEPS = (
    a_simple_load, a_load_without_request, a_request_without_load, a_failure, a_dropped_load, a_load_inside, an_unload,
    another_process,
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(["/a.so", "/b.so", "./c.so", "/with [0] in.so"]))))
def test_a_whole_dlopen_reads_as_its_lines_do(steps: list[tuple[Callable[[LoaderText, str], None], str]]) -> None:
    text = LoaderText()
    for step, path in steps:
        step(text, path)
    whole, by_line = LoaderTextDecoder(77), LoaderTextDecoder(77)
    expected = [change for line in text.bytes.splitlines(keepends=True) for change in by_line.feed(line)]
    assert whole.feed(text.bytes) + whole.finish() == expected + by_line.finish()
    assert (whole.undecodable, whole.foreign) == (by_line.undecodable, by_line.foreign)
    assert whole.initialising() == by_line.initialising()


def test_a_simple_dlopen_is_read_at_once_with_its_mark() -> None:
    dlopen = LoaderText().request("/m.so", "m", "m.n").open("/m.so").map("/m.so").init("/m.so").opened("/m.so").bytes
    mark, _, text = dlopen.decode()[1:].partition(MARK_END.decode())
    reader = SimpleDlopens(77)
    found = reader.read(mark, text)
    assert found == ("/m.so", PYTHON, 0x7F0000100000, 0x4018, 5, 1e9, ("m", "m.n"))
    assert reader.read(mark, text.replace(PYTHON, "/x.so")) == (*found[:1], "/x.so", *found[2:])
    assert reader.read(mark[:-20], text) is None
    lines = text.split("\n")[:-1]
    for number, line in enumerate(lines):
        for torn in ((line[:-20],), (f"{line};",), (line, line), ()):
            changed = "\n".join((*lines[:number], *torn, *lines[number + 1 :], ""))
            is_entry = "entry: " in line and len(torn) == 1  # of no use: only its beginning is looked at
            assert (reader.read(mark, changed) is None) != is_entry, (number, torn)


def test_a_hole_that_is_read_in_two_pieces_is_one() -> None:
    decoder = LoaderTextDecoder(77)
    for piece in (b"\0\0", b"\0", b"", b"\0" + LoaderText().open("/m.so").bytes, b"\0"):
        decoder.feed(piece)
    assert decoder.undecodable == 2


def test_an_event_comes_as_soon_as_the_text_decides_it() -> None:
    decoder = LoaderTextDecoder(77)
    assert decoder.feed(LoaderText().request("/m.so", "m").open("/m.so").bytes) == []
    ((loaded, _),) = decoder.feed(LoaderText().map("/m.so").bytes, 5.0)
    assert (str(loaded), loaded.imports, loaded.timestamp) == ("LoadLibrary /m.so", ("m",), 1e9)
    assert decoder.feed(b"       77:\tfile=/m.so [0];  destr") == []
    ((dropped, _),) = decoder.feed(b"oying link map\n", 6.0)
    assert isinstance(dropped, LoadFailedEvent) and dropped.timestamp == 6.0
    assert decoder.finish() == []


def test_events_that_no_request_has_a_time_for_have_that_of_the_reading() -> None:
    decoder = LoaderTextDecoder(77)
    (loaded, _), (unloaded, _) = decoder.feed(LoaderText().open("/m.so").map("/m.so").opened("/m.so").bytes, 5.0) + (
        decoder.feed(LoaderText().fini("/m.so").destroy("/m.so").bytes, 7.0)
    )
    assert (loaded.timestamp, loaded.imports) == (5.0, None)
    assert isinstance(unloaded, UnloadEvent) and unloaded.timestamp == 7.0


def test_a_program_that_starts() -> None:
    programs = Programs()
    decoder = LoaderTextDecoder(77, fresh=True, on_start=programs)
    text = LoaderText().started("prog", LIBC).open("/m.so", by="prog").map("/m.so").opened("/m.so").left()
    events = [event for event, _ in decoder.feed(text.bytes, 5.0)]
    assert [str(event) for event in events] == [
        "LoadLibrary /usr/bin/prog", f"LoadLibrary {LIBC}", "LoadLibrary /m.so",
    ]  # fmt: skip
    assert [event.imports for event in events] == [(), (), None]
    assert [event.requested_by for event in events] == [None, "/usr/bin/prog", "/usr/bin/prog"]
    assert programs.started == [(77, "prog")] and events[0].timestamp == 5.0


def test_a_program_that_needs_nothing_is_named_when_it_gets_control() -> None:
    programs = Programs()
    decoder = LoaderTextDecoder(77, fresh=True, on_start=programs)
    assert words(decoder, LoaderText().init("/lib64/ld.so").transfer("./x").bytes) == []
    assert programs.started in ([(77, "./x")], [(77, "/lib64/ld.so")])


def test_a_library_missing_at_the_start() -> None:
    text = LoaderText().need("libgone.so", "./x").find("libgone.so").trying("/lib/libgone.so")
    for blank, ended, output in ((False, None, 0), (True, None, 1), (False, True, 1), (True, False, 0)):
        decoder = LoaderTextDecoder(77, others=True, fresh=True, on_start=Programs())
        decoder.feed(text.bytes + (b"       77:\t\n" if blank else b""))
        changes = decoder.finish(ended)
        assert [str(event) for event, _ in changes] == ["Failed libgone.so"] * output


def test_another_program_takes_the_place() -> None:
    programs = Programs()
    decoder = LoaderTextDecoder(77, fresh=True, on_start=programs)
    text = LoaderText().started("sh", LIBC).started("sh", LIBC).started("other", LIBC, "/lib/libm.so")
    assert words(decoder, text.bytes) == [
        "77 LoadLibrary /usr/bin/sh", f"77 LoadLibrary {LIBC}",
        "77 LoadLibrary /usr/bin/sh", f"77 LoadLibrary {LIBC}",
        "77 LoadLibrary /usr/bin/other", f"77 LoadLibrary {LIBC}", "77 LoadLibrary /lib/libm.so",
    ]  # fmt: skip
    assert programs.started == [(77, "sh"), (77, "sh"), (77, "other")]


def test_another_program_takes_the_place_inside_an_initialiser() -> None:
    programs = Programs()
    decoder = LoaderTextDecoder(77, fresh=True, on_start=programs)
    text = LoaderText().started("a", LIBC).open("/m.so", by="a").map("/m.so").init("/m.so").started("b", LIBC)
    assert words(decoder, text.bytes)[-2:] == ["77 LoadLibrary /usr/bin/b", f"77 LoadLibrary {LIBC}"]


def test_needs_of_what_dlopen_mapped_are_no_program() -> None:
    programs = Programs()
    decoder = LoaderTextDecoder(77, on_start=programs)
    text = LoaderText().open("/m.so").map("/m.so").need("libx.so", "/m.so").find("libx.so").trying("/a/libx.so")
    text.map("libx.so").need("liby.so", "/a/libx.so").find("liby.so").trying("/a/liby.so").map("liby.so")
    assert len(words(decoder, text.opened("/m.so").bytes)) == 3 and programs.started == []


def test_a_forked_child_writes_into_the_log_of_its_parent() -> None:
    text = LoaderText().open("/m.so").map("/m.so").opened("/m.so")
    child = LoaderText(pid=78).fini("/m.so").destroy("/m.so").open("/c.so").map("/c.so").opened("/c.so")
    mixed = text.bytes + child.bytes + LoaderText().open("/p.so").map("/p.so").opened("/p.so").bytes
    decoder = LoaderTextDecoder(77, others=True)
    changes = decoder.feed(mixed)
    assert [f"{e.pid} {e}" for e, _ in changes] == [
        "77 LoadLibrary /m.so", "78 UnloadLibrary /m.so", "78 LoadLibrary /c.so", "77 LoadLibrary /p.so",
    ]  # fmt: skip
    assert changes[1][0].base == changes[0][0].base and decoder.pids == (77, 78)
    assert LoaderTextDecoder(77).feed(mixed)[-1] == changes[-1]


def test_what_is_our_own_is_left_out() -> None:
    ours = LoaderText().open("/_ctypes.so").map("/_ctypes.so").opened("/_ctypes.so")
    text = OWN_BEGIN + ours.bytes + OWN_END + LoaderText().open("/m.so").map("/m.so").opened("/m.so").bytes
    assert words(LoaderTextDecoder(77), text) == ["77 LoadLibrary /m.so"]


def test_the_log_of_a_forked_child_begins_in_its_midst() -> None:
    programs = Programs()
    decoder = LoaderTextDecoder(77, fresh=True, on_start=programs)
    assert words(decoder, FORKED + LoaderText().open("/m.so").map("/m.so").opened("/m.so").bytes) == [
        "77 LoadLibrary /m.so"
    ]
    assert programs.started == []


@pytest.mark.parametrize("others", [True, False])
@given(data=st.data())
def test_any_pieces_give_the_events_of_their_whole(others: bool, data: st.DataObject) -> None:
    """Whatever the text is: nothing raises, and where it is cut changes no event and no count."""
    text = a_long_text().started("sh", LIBC).left().request("/x.so", "x").bytes
    lines = [
        *text.splitlines(keepends=True),
        OWN_BEGIN,
        FORKED,
        b"\x1e",
        b"\x1f",
        b"       78:\t\n",
        b"99999999999999:\tx\n",
    ]
    fresh = data.draw(st.booleans())
    pieces = data.draw(st.lists(st.sampled_from(lines) | st.binary(max_size=9), max_size=20))
    results = []
    for cut in (pieces, [b"".join(pieces)]):
        programs = Programs()
        # Of a log that others may write into, the first line tells the process; of another one it is known.
        decoder = LoaderTextDecoder(None if others else 77, others=others, fresh=fresh, on_start=programs)
        changes = [change for piece in cut for change in decoder.feed(piece)]
        results.append((changes + decoder.finish(None), decoder.undecodable, decoder.pids, programs.started))
    assert results[0] == results[1]
