"""The decoder of glibc's log, on built text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.loader_text import LoaderText, decode_loader_text
from dlltracer.capture.linux.decode import split_text
from dlltracer.capture.linux.lines import LineKind, parse_line
from dlltracer.capture.marks import encode_request
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase, ProbeOutcome, UnloadEvent
from dlltracer.model.request import Request


def output(text: LoaderText, *, ended: bool = True) -> list[str]:
    decoded = decode_loader_text(text.bytes, ended=ended)
    assert decoded.undecodable == 0
    return [str(event) for event in decoded.events]


def a_module() -> LoaderText:
    return LoaderText().request("/m.so", "pkg", "pkg.m").open("/m.so").map("/m.so")


def test_a_load_with_its_dependency() -> None:
    text = a_module().need("libx.so.1", "/m.so").find("libx.so.1").search("/a:/b", "RUNPATH from file /m.so")
    text.trying("/a/libx.so.1", "/b/libx.so.1").map("libx.so.1").init("/b/libx.so.1").opened("/m.so")
    module, library = decode_loader_text(text.bytes).events
    assert isinstance(module, LoadEvent) and isinstance(library, LoadEvent)
    assert (module.path, module.phase, module.requested_by) == ("/m.so", Phase.DIRECT, "/usr/bin/python3")
    assert (library.path, library.need, library.requested_by) == ("/b/libx.so.1", "libx.so.1", "/m.so")
    assert library.phase is Phase.RUNPATH and library.base == module.base + 0x100000 and library.size == 0x4018  # type: ignore[operator]
    assert [(p.path, p.outcome, p.origin) for p in library.probes or ()] == [
        ("/a/libx.so.1", ProbeOutcome.PASSED, "/m.so"),
        ("/b/libx.so.1", ProbeOutcome.LOADED, "/m.so"),
    ]
    assert (library.imports, library.tid, library.timestamp, library.pid) == (("pkg", "pkg.m"), 5, 1e9, 77)


@pytest.mark.parametrize(
    ("origin", "phase", "by"),
    [
        ("RPATH from file /x", Phase.RPATH, "/x"),
        ("RUNPATH from file a b", Phase.RUNPATH, "a b"),
        ("LD_LIBRARY_PATH", Phase.ENVIRONMENT, None),
        ("system search path", Phase.SYSTEM, None),
        ("some future rule", Phase.OTHER, "some future rule"),
    ],
)
def test_every_rule_has_its_phase(origin: str, phase: Phase, by: str | None) -> None:
    text = LoaderText().open("libx.so").find("libx.so").search("/a", origin).trying("/a/libx.so").map("libx.so")
    (event,) = decode_loader_text(text.opened("/a/libx.so").bytes).events
    assert isinstance(event, LoadEvent) and event.probes
    assert (event.phase, event.probes[0].origin) == (phase, by)


def test_a_missing_dependency_comes_before_what_it_brings_down() -> None:
    text = a_module().need("libx.so.1", "/m.so").find("libx.so.1").cache().search("/lib", "system search path")
    text.trying("/lib/libx.so.1").destroy("/m.so")
    loaded, missing, dropped = decode_loader_text(text.bytes).events
    assert isinstance(missing, LoadFailedEvent) and isinstance(dropped, LoadFailedEvent)
    assert (missing.path, missing.kind, missing.requested_by) == ("libx.so.1", FailureKind.NOT_FOUND, "/m.so")
    assert missing.imports == ("pkg", "pkg.m")
    assert (dropped.path, dropped.kind, dropped.base) == ("/m.so", FailureKind.DROPPED, loaded.base)
    assert dropped.reason is None
    assert [(p.path, p.outcome) for p in missing.probes or ()] == [
        ("/etc/ld.so.cache", ProbeOutcome.NO_ENTRY),
        ("/lib/libx.so.1", ProbeOutcome.PASSED),
    ]


def test_the_cache_that_has_the_name_is_the_place_it_names() -> None:
    text = LoaderText().open("libx.so").find("libx.so").cache().trying("/lib/libx.so").map("libx.so")
    (event,) = decode_loader_text(text.opened("/lib/libx.so").bytes).events
    assert [(p.path, p.phase, p.origin) for p in event.probes or ()] == [
        ("/lib/libx.so", Phase.CACHE, "/etc/ld.so.cache")
    ]


def test_a_newer_loader_says_why_not() -> None:
    text = LoaderText().open("libx.so").find("libx.so").search("/a:/b:/c", "LD_LIBRARY_PATH")
    text.miss("/a/libx.so", "no such file").miss("/b/libx.so", "incompatible ELF class").trying("/c/libx.so")
    decoded = decode_loader_text(text.map("libx.so").opened("/c/libx.so").bytes)
    (event,) = decoded.events
    assert [(p.outcome, p.reason) for p in event.probes or ()] == [
        (ProbeOutcome.ABSENT, None),
        (ProbeOutcome.PRESENT, "incompatible ELF class"),
        (ProbeOutcome.LOADED, None),
    ]
    assert decoded.undecodable == 0
    assert decode_loader_text(LoaderText().line("    (no such file)").bytes).undecodable == 1


def test_a_name_the_loader_knew_already_is_no_failure() -> None:
    text = a_module().need("libalias.so", "/m.so").find("libalias.so").trying("/a/libalias.so")
    text.need("libc.so.6", "/m.so").init("/m.so").opened("/m.so")
    assert output(text) == ["LoadLibrary /m.so"]


def test_the_reason_of_a_relocation_error_is_kept() -> None:
    text = a_module().error("/m.so", "symbol lookup error: undefined symbol: f").destroy("/m.so")
    _, dropped = decode_loader_text(text.bytes).events
    assert isinstance(dropped, LoadFailedEvent) and dropped.reason == "symbol lookup error: undefined symbol: f"


def test_dlclose_is_not_a_failure() -> None:
    text = a_module().init("/m.so").opened("/m.so").fini("/m.so").destroy("/m.so")
    loaded, unloaded = decode_loader_text(text.bytes).events
    assert isinstance(unloaded, UnloadEvent) and unloaded.base == loaded.base


def test_dlclose_of_what_was_there_before_the_trace() -> None:
    assert output(LoaderText().fini("/old.so").destroy("/old.so")) == ["UnloadLibrary /old.so"]


def test_dlclose_without_initialisers_and_finalisers() -> None:
    assert output(a_module().opened("/m.so").destroy("/m.so")) == ["LoadLibrary /m.so", "UnloadLibrary /m.so"]


@pytest.mark.parametrize("after", ["end", "dlclose", "dlopen"])
def test_a_missing_top_file(after: str) -> None:
    text = LoaderText().open("/none.so")
    if after == "dlclose":
        text.fini("/old.so").destroy("/old.so")
    elif after == "dlopen":
        text.open("/m.so").map("/m.so").opened("/m.so")
    assert output(text)[0] == "Failed /none.so"


def test_a_missing_file_then_an_image_there_already_is_left_to_who_can_look() -> None:
    decoded = decode_loader_text(LoaderText().open("/link.so").opened("/lib/libc.so.6", 2).bytes)
    assert [str(e) for e in decoded.events] == ["Failed /link.so"]
    assert decoded.doubts == {0: "/lib/libc.so.6"}


def test_a_dlopen_inside_an_initialiser() -> None:
    text = a_module().init("/m.so").open("/plugin.so", by="/m.so").map("/plugin.so").init("/plugin.so")
    text.opened("/plugin.so").opened("/m.so")
    events = decode_loader_text(text.bytes).events
    assert [str(e) for e in events] == ["LoadLibrary /m.so", "LoadLibrary /plugin.so"]
    assert events[1].imports == ("pkg", "pkg.m")


def test_a_dlopen_that_fails_inside_an_initialiser() -> None:
    text = a_module().init("/m.so").open("/plugin.so", by="/m.so").opened("/m.so").fini("/m.so").destroy("/m.so")
    assert output(text) == ["LoadLibrary /m.so", "Failed /plugin.so", "UnloadLibrary /m.so"]


def test_a_mark_inside_a_line_does_not_break_it() -> None:
    plain = (
        LoaderText()
        .open("/m.so")
        .map("/m.so")
        .need("libx.so", "/m.so")
        .find("libx.so")
        .search("/a", "system search path")
    )
    plain.trying("/a/libx.so").map("libx.so").opened("/m.so")
    mark = LoaderText().request("/other.so", "other").bytes
    expected = decode_loader_text(plain.bytes)
    for position in range(0, len(plain.bytes), 7):
        assert decode_loader_text(plain.bytes[:position] + mark + plain.bytes[position:]) == expected


def test_a_killed_process_leaves_what_was_certain() -> None:
    text = a_module().need("libx.so", "/m.so").find("libx.so").trying("/a/libx.so")
    assert output(text, ended=False) == ["LoadLibrary /m.so"]
    assert decode_loader_text(a_module().init("/m.so").bytes, ended=False).initialising == "/m.so"


def test_lines_of_other_processes_are_counted() -> None:
    text = LoaderText().line("file=/x.so [0];  generating link map", pid=99).open("/m.so").map("/m.so").opened("/m.so")
    decoded = decode_loader_text(text.bytes, pid=77)
    assert ([str(e) for e in decoded.events], decoded.foreign) == (["LoadLibrary /m.so"], 1)


def test_unknown_lines_are_counted() -> None:
    text = LoaderText().line("file=/m.so [0];  a new wording").line("what is this")
    assert decode_loader_text(text.bytes + b"no prefix\n").undecodable == 3
    assert decode_loader_text(b"\x1e('nonsense',)\x1f").undecodable == 1


def test_names_that_are_not_utf8_survive() -> None:
    name = b"/m\xff.so".decode("utf-8", "surrogateescape")
    (event,) = decode_loader_text(LoaderText().open(name).map(name).opened(name).bytes).events
    assert event.path == name


def test_lines_of_no_use_are_not_undecodable() -> None:
    assert output(a_module().line("file=/m.so [0];  needed by /lib/x.so [0] (relocation dependency)")) == [
        "LoadLibrary /m.so"
    ]
    for line in ("symbol=f;  lookup in file=/x [0]", "binding file /a [0] to /b [0]: normal symbol `f' [V]"):
        assert parse_line(line).kind == LineKind.IGNORED


@given(st.binary(max_size=400))
def test_no_input_makes_it_raise(data: bytes) -> None:
    for text in (data, b"   77:\t" + data.replace(b"\n", b"\n   77:\t")):
        assert decode_loader_text(text).events == ()


@given(st.data())
def test_no_mutation_makes_it_raise_or_invent(data: st.DataObject) -> None:
    text = a_module().need("libx.so.1", "/m.so").find("libx.so.1").search("/a", "RUNPATH from file /m.so")
    text.trying("/a/libx.so.1").map("libx.so.1").init("/m.so").opened("/m.so").fini("/m.so").destroy("/m.so")
    lines = text.bytes.splitlines(keepends=True)
    kept = data.draw(st.lists(st.sampled_from(lines), max_size=30))
    decoded = decode_loader_text(b"".join(kept))
    assert sum(isinstance(e, LoadEvent) for e in decoded.events) <= sum(b"generating" in line for line in kept)
    assert {e.path for e in decoded.events} <= {"/m.so", "/a/libx.so.1", "libx.so.1"}


def test_a_megabyte_of_an_error_is_parsed_at_once() -> None:
    start = time.process_time()
    for piece in ("x: error: ", " (fatal", ": error: ("):
        text = "/lib/x.so: error: " + piece * (1_000_000 // len(piece))
        assert parse_line(text).kind == LineKind.UNKNOWN
        fatal = parse_line(f"{text} (fatal)")
        assert (fatal.kind, fatal.name) == (LineKind.ERROR, "/lib/x.so")
    assert time.process_time() - start < 2


def test_the_flags_of_a_request() -> None:
    raw = ("ctypes.dlopen", "C:\\a.dll", ("a",), 5, 1e9, 1, ())
    marks = encode_request((*raw, 0)) + encode_request((*raw, None))
    requests = [one for one in split_text(marks.decode()) if isinstance(one, Request)]
    assert [(one.target, one.imports) for one in requests] == [("C:\\a.dll", ("a",))] * 2
    assert [one.flags for one in requests] == [0, None]
