"""What a loader did, decoded from the files that it opened and mapped. Pure: stops in, events out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from dlltracer.capture.linux.seccomp_decode import MapStop, OpenStop, ProcessDecoder, UnreadMapStop
from dlltracer.model.elf import ElfImage, ElfSegments
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase, ProbeOutcome, UnloadEvent
from dlltracer.model.request import Request, RequestKind

PID = TID = 100


def image(*needed: str) -> ElfImage:
    return ElfImage(64, True, 62, 3, 0, 0, None, None, needed, None, None, 0, 0, (), (), ())


class Loader:
    """A decoder, fed with what a loader does."""

    def __init__(self, *, by_loader: bool | None = True) -> None:
        self.decoder = ProcessDecoder(PID)
        self.by_loader = by_loader
        self.numbers: dict[str, tuple[int, int]] = {}

    def identity(self, path: str) -> tuple[int, int]:
        return self.numbers.setdefault(path, (1, len(self.numbers) + 1))

    def absent(self, *paths: str, tid: int = TID) -> Loader:
        for path in paths:
            self.decoder.open(OpenStop(PID, tid, 1.0, path, self.by_loader, None, 2))
        return self

    def present(self, path: str, tid: int = TID) -> Loader:
        self.decoder.open(OpenStop(PID, tid, 1.0, path, self.by_loader, self.identity(path)))
        return self

    def load(self, path: str, *needed: str, tid: int = TID) -> Loader:
        self.present(path, tid)
        self.decoder.map(MapStop(PID, tid, 1.0, path, self.identity(path), lambda: image(*needed), 0x1000, 0x2000))
        return self

    def ask(self, target: str, *imports: str, kind: RequestKind = RequestKind.EXTENSION, tid: int = TID) -> Loader:
        self.decoder.ask(Request(kind, target, imports, 7, 5.0, 1), tid)
        return self

    def end(self) -> list[Any]:
        self.decoder.finish(ended=True)
        return self.decoder.take()


def brief(events: list[Any]) -> list[tuple[str, str, str | None]]:
    names = {LoadEvent: "load", LoadFailedEvent: "failed", UnloadEvent: "unload"}
    return [
        (event.kind.value if isinstance(event, LoadFailedEvent) else names[type(event)], event.path, event.requested_by)
        for event in events
    ]  # fmt: skip


def test_a_request_of_python_gives_imports_and_time() -> None:
    (event,) = Loader().ask("/m/_x.so", "x", "_x").load("/m/_x.so").end()
    assert (event.need, event.imports, event.timestamp, event.phase) == ("/m/_x.so", ("x", "_x"), 5.0, Phase.DIRECT)
    assert (event.base, event.size, event.pid, event.tid) == (0x1000, 0x2000, PID, TID)


def test_a_mapping_that_may_not_be_looked_at_is_of_the_file_opened_before() -> None:
    loader = Loader().ask("/m/_x.so", "x")
    loader.decoder.map_unread(UnreadMapStop(PID, TID, 1.0))  # of a program, for which nothing was opened
    for path, needs in (("/m/_x.so", ("liba.so",)), ("/l/liba.so", ())):
        loader.decoder.open(OpenStop(PID, TID, 1.0, path, True, loader.identity(path), read=partial(image, *needs)))
        for _ in range(2):  # an image may have two segments with code
            loader.decoder.map_unread(UnreadMapStop(PID, TID, 1.0))
    loader.absent("/k/libb.so").decoder.map_unread(UnreadMapStop(PID, TID, 1.0))
    events = loader.end()
    assert brief(events)[:2] == [("load", "/m/_x.so", None), ("load", "/l/liba.so", "/m/_x.so")]
    assert [event.base for event in events[:2]] == [None, None]
    assert not any(isinstance(event, LoadEvent) for event in events[2:])


def test_needs_are_searched_for_breadth_first() -> None:
    loader = Loader().ask("/m/_x.so", "x").load("/m/_x.so", "liba.so", "libb.so").load("/l/liba.so", "libc1.so")
    events = loader.absent("/k/libb.so").load("/l/libb.so", "libc1.so").load("/l/libc1.so").end()
    assert brief(events) == [
        ("load", "/m/_x.so", None), ("load", "/l/liba.so", "/m/_x.so"), ("load", "/l/libb.so", "/m/_x.so"),
        ("load", "/l/libc1.so", "/l/liba.so"),
    ]  # fmt: skip
    assert [(probe.path, probe.outcome) for probe in events[2].probes] == [
        ("/k/libb.so", ProbeOutcome.ABSENT), ("/l/libb.so", ProbeOutcome.LOADED),
    ]  # fmt: skip
    assert all(event.imports == ("x",) for event in events)


def test_a_need_in_the_process_already_is_passed_over() -> None:
    loader = Loader().ask("/m/a.so", "a").load("/m/a.so", "libq.so").load("/l/libq.so")
    loader.ask("/m/b.so", "b").load("/m/b.so", "libq.so", "libr.so").load("/l/libr.so")
    assert brief(loader.end())[-1] == ("load", "/l/libr.so", "/m/b.so")


def test_a_need_that_is_not_met_ends_the_load() -> None:
    events = Loader().ask("/m/_x.so", "x").load("/m/_x.so", "liba.so", "libno.so").load("/l/liba.so").absent(
        "/k/libno.so", "/l/libno.so"
    ).end()
    assert brief(events)[2:] == [
        ("not found", "libno.so", "/m/_x.so"), ("dropped", "/l/liba.so", "/m/_x.so"), ("dropped", "/m/_x.so", None),
    ]  # fmt: skip
    assert [probe.path for probe in events[2].probes] == ["/k/libno.so", "/l/libno.so"]


def test_what_was_dropped_can_be_loaded_again() -> None:
    loader = Loader().ask("/m/x.so", "x").load("/m/x.so", "libno.so").absent("/l/libno.so")
    loader.ask("/m/x.so", "x").load("/m/x.so", "libno.so").load("/l/libno.so")
    assert brief(loader.end())[-2:] == [("load", "/m/x.so", None), ("load", "/l/libno.so", "/m/x.so")]


def test_the_file_of_an_image_that_is_there_is_no_failure() -> None:
    loader = Loader().ask("/m/a.so", "a").load("/m/a.so").ask("liba.so", kind=RequestKind.CTYPES)
    loader.numbers["/other/liba.so"] = loader.identity("/m/a.so")
    assert brief(loader.present("/other/liba.so").end()) == [("load", "/m/a.so", None)]


def test_a_file_that_is_there_and_not_taken_is_a_failure() -> None:
    (event,) = Loader().ask("/m/bad.so", "bad").present("/m/bad.so").end()
    assert (event.kind, event.probes[0].outcome) == (FailureKind.NOT_FOUND, ProbeOutcome.PASSED)


def test_a_bare_name_keeps_its_places_together_even_if_one_comes_twice() -> None:
    paths = ("/a/t/libn.so", "/a/libn.so", "/a/libn.so", "/b/libn.so")
    (event,) = Loader().ask("libn.so", kind=RequestKind.CTYPES).absent(*paths).end()
    assert event.need == "libn.so"
    assert tuple(probe.path for probe in event.probes) == paths
    assert {probe.phase for probe in event.probes} == {Phase.OTHER}


def test_a_search_that_begins_anew_is_another_one() -> None:
    paths = ("/a/libn.so", "/b/libn.so", "/c/libn.so")
    assert len(Loader().absent(*paths, *paths).end()) == 2


def test_the_cache_tells_a_name_from_a_path() -> None:
    """glibc looks into its index for names only."""
    (named,) = Loader().absent("/etc/ld.so.cache").load("/lib/libn.so").end()
    (direct,) = Loader().load("/lib/libn.so").end()
    assert (named.need, named.phase) == ("libn.so", Phase.OTHER)
    assert (direct.need, direct.phase) == ("/lib/libn.so", Phase.DIRECT)


def test_a_library_that_is_only_read_is_no_failure_where_the_reader_is_not_known() -> None:
    loader = Loader(by_loader=None).present("/l/liba.so").absent("/l/libb.so")
    assert loader.end() == []
    assert loader.decoder.unsure == 2


def test_a_search_of_several_places_is_a_loaders_even_if_the_reader_is_not_known() -> None:
    (event,) = Loader(by_loader=None).absent("/a/libn.so", "/b/libn.so").end()
    assert event.need == "libn.so"


def test_a_second_segment_is_the_same_image() -> None:
    loader = Loader().load("/l/liba.so")
    loader.decoder.map(MapStop(PID, TID, 1.0, "/l/liba.so", loader.identity("/l/liba.so"), image))
    assert len(loader.end()) == 1


def test_an_image_without_code_is_loaded_without_a_stop() -> None:
    """libicudata has data only: no mapping of it can be run."""
    data = replace(image(), segments=ElfSegments((1,), (4,), (0,), (0,), (9,), (9,), (4096,)))
    loader = Loader().ask("/m/x.so", "x").load("/m/x.so", "libdata.so", "libq.so")
    loader.decoder.open(OpenStop(PID, TID, 1.0, "/l/libdata.so", True, (7, 7), read=lambda: data))
    assert brief(loader.load("/l/libq.so").end()) == [
        ("load", "/m/x.so", None), ("load", "/l/libdata.so", "/m/x.so"), ("load", "/l/libq.so", "/m/x.so"),
    ]  # fmt: skip


def test_threads_do_not_mix() -> None:
    loader = Loader().ask("/m/a.so", "a", tid=1).ask("/m/b.so", "b", tid=2)
    loader.present("/m/a.so", tid=1).present("/m/b.so", tid=2)
    for path, tid in (("/m/b.so", 2), ("/m/a.so", 1)):
        loader.decoder.map(MapStop(PID, tid, 1.0, path, loader.identity(path), image))
    assert [(event.path, event.imports) for event in loader.end()] == [("/m/b.so", ("b",)), ("/m/a.so", ("a",))]


def test_own_loads_are_known_and_not_shown() -> None:
    loader = Loader()
    loader.decoder.set_own(True)
    loader.load("/l/liba.so")
    loader.decoder.set_own(False)
    loader.ask("/m/x.so", "x").load("/m/x.so", "liba.so").present("/l/liba.so")
    assert brief(loader.end()) == [("load", "/m/x.so", None)]


def test_a_start_brings_the_program_its_preloads_and_its_needs() -> None:
    loader = Loader()
    loader.decoder.start(TID, LoadEvent("/bin/p", pid=PID), image("libc.so"), (9, 9), ("libpre.so", "libno.so"))
    events = loader.absent("/l/libno.so").load("/l/libpre.so").load("/l/libc.so").end()
    assert brief(events) == [
        ("load", "/bin/p", None), ("not found", "libno.so", "/bin/p"), ("load", "/l/libpre.so", "/bin/p"),
        ("load", "/l/libc.so", "/bin/p"),
    ]  # fmt: skip
    assert {event.imports for event in events} == {()}


def test_a_forked_process_has_the_images_of_its_parent() -> None:
    loader = Loader().ask("/m/a.so", "a").load("/m/a.so")
    child = loader.decoder.forked(200)
    child.open(OpenStop(200, 200, 1.0, "/m/a.so", True, loader.identity("/m/a.so")))
    child.finish(ended=True)
    assert child.take() == []


def test_what_left_is_found_by_comparison() -> None:
    loader = Loader().ask("/m/a.so", "a").load("/m/a.so")
    loader.decoder.compare({"/m/b.so"})
    assert brief(loader.end()) == [("load", "/m/a.so", None), ("unload", "/m/a.so", None)]


def test_a_process_that_died_leaves_its_search_undecided() -> None:
    loader = Loader().absent("/a/libn.so")
    loader.decoder.finish(ended=False)
    assert loader.decoder.take() == []


def test_a_search_by_name_that_found_nothing() -> None:
    loader = Loader()
    loader.decoder.ask(Request(RequestKind.FIND_LIBRARY, "q", (), 7, 5.0, 1, places=("ldconfig", "ld")), TID)
    (event,) = loader.end()
    assert event.kind is FailureKind.NAME_NOT_FOUND
