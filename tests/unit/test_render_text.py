"""The text report, from recordings made by hand."""

from __future__ import annotations

import pytest

from dlltracer.model.events import (
    DebugEvent,
    FailureKind,
    LoadEvent,
    LoadFailedEvent,
    Phase,
    Probe,
    ProbeOutcome,
    UnloadEvent,
)
from dlltracer.model.recording import Losses, Recording
from dlltracer.model.words import rule_title
from dlltracer.report.drawing import SHOWN, escape, file_name, fold_places
from dlltracer.report.render_text import render_text

MOD = "/x/mod.so"


def loaded(
    path: str, phase: Phase = Phase.DIRECT, by: str | None = None, origin: str | None = None, **more: object
) -> LoadEvent:
    need = path if phase is Phase.DIRECT else path.rsplit("/", 1)[-1]
    probes = (Probe(path, phase, origin, ProbeOutcome.LOADED),)
    return LoadEvent(path, need=need, requested_by=by, phase=phase, probes=probes, **{"imports": ("m",), **more})  # type: ignore[arg-type]


def dropped(event: LoadEvent, reason: str | None = None) -> LoadFailedEvent:
    return LoadFailedEvent(**vars(event), kind=FailureKind.DROPPED, reason=reason)


def missing(name: str, by: str, probes: tuple[Probe, ...], imports: tuple[str, ...] = ("m",)) -> LoadFailedEvent:
    return LoadFailedEvent(name, need=name, requested_by=by, probes=probes, imports=imports, kind=FailureKind.NOT_FOUND)


def shown(*events: object, failed_only: bool = False, **more: object) -> list[str]:
    recording = Recording("rtld", events, **more)  # type: ignore[arg-type]
    return render_text(recording, failed_only=failed_only, ascii_only=True).plain.splitlines()


def test_images_stand_below_what_needed_them() -> None:
    assert shown(
        loaded("/x/_ssl.so", imports=("ssl", "_ssl")),
        loaded("/l/libssl.so.3", Phase.CACHE, "/x/_ssl.so", "/etc/ld.so.cache", imports=("ssl", "_ssl")),
        loaded("/l/libcrypto.so.3", Phase.RUNPATH, "/l/libssl.so.3", "/l/libssl.so.3", imports=("ssl", "_ssl")),
        loaded("/x/math.so", imports=("ssl", "math")),
    ) == [
        "import ssl",
        "|- import _ssl",
        "|  `- _ssl.so  /x/_ssl.so",
        "|     `- libssl.so.3  /l/libssl.so.3  found by cache (/etc/ld.so.cache)",
        "|        `- libcrypto.so.3  /l/libcrypto.so.3  found by RUNPATH of /l/libssl.so.3",
        "`- import math",
        "   `- math.so  /x/math.so",
        "4 images loaded, 0 failed; traced by rtld",
    ]


def test_imports_with_nothing_between_share_a_line() -> None:
    lines = shown(loaded("/x/c.so", imports=("a", "b", "c")), loaded("/x/d.so", imports=("a", "b", "d", "e")))
    assert lines[:5] == [
        "import a > import b",
        "|- import c",
        "|  `- c.so  /x/c.so",
        "`- import d > import e",
        "   `- d.so  /x/d.so",
    ]


def test_very_deep_imports_do_not_exhaust_the_stack() -> None:
    chain = tuple(f"m{n}" for n in range(5000))
    assert shown(loaded("/x/c.so", imports=chain))[0].endswith("> import m4999")


def test_outside_any_import() -> None:
    assert shown(
        loaded("/l/libm.so", Phase.ENVIRONMENT, "/x/_ctypes.so", imports=()),
        loaded("/l/c.so", Phase.SYSTEM, "/l/libm.so", imports=()),
        loaded("/l/u.so", imports=None),
    )[:5] == [
        "(outside any import)",
        "`- libm.so  /l/libm.so  found by LD_LIBRARY_PATH  asked for by /x/_ctypes.so",
        "   `- c.so  /l/c.so  found by system folders",
        "(which import asked is not known)",
        "`- u.so  /l/u.so",
    ]


def test_a_failing_chain_appears_once() -> None:
    mod, dep1 = loaded(MOD), loaded("/x/libdep1.so", Phase.RUNPATH, MOD, MOD)
    places = tuple(
        Probe(f"{folder}/{variant}libdep2.so", phase, origin, ProbeOutcome.ABSENT)
        for folder, phase, origin in (("/x", Phase.RUNPATH, "/x/libdep1.so"), ("/lib", Phase.SYSTEM, None))
        for variant in ("glibc-hwcaps/x86-64-v3/", "tls/x86_64/", "tls/", "")
    )
    fine = loaded("/x/fine.so", imports=("other",))
    events = (fine, mod, dep1, missing("libdep2.so", "/x/libdep1.so", places), dropped(mod), dropped(dep1))
    failing = [
        "import m",
        "`- mod.so  /x/mod.so  dropped because of the failure",
        "   `- libdep1.so  /x/libdep1.so  dropped because of the failure",
        "      `- libdep2.so  NOT FOUND, needed by /x/libdep1.so",
        "         |- RUNPATH of /x/libdep1.so",
        "         |  |- /x/libdep2.so",
        "         |  `- ... 3 more places",
        "         `- system folders",
        "            |- /lib/libdep2.so",
        "            `- ... 3 more places",
    ]
    last = ["1 image loaded, 1 failed, 2 dropped because of that; traced by rtld"]
    assert shown(*events) == ["import other", "`- fine.so  /x/fine.so", *failing, *last]
    assert shown(*events, failed_only=True) == failing + last


def test_failed_only_keeps_what_leads_to_a_failure() -> None:
    lines = shown(
        loaded(MOD), loaded("/x/a.so", Phase.CACHE, MOD), loaded("/x/b.so", Phase.CACHE, MOD),
        missing("gone.so", "/x/b.so", ()), failed_only=True,
    )  # fmt: skip
    assert lines[:3] == [
        "import m",
        "`- mod.so  /x/mod.so",
        "   `- b.so  /x/b.so  found by cache",
    ]
    assert "gone.so  NOT FOUND" in lines[3] and not any("a.so" in line for line in lines)


def test_a_drop_with_a_reason_is_the_failure() -> None:
    mod = loaded(MOD)
    lines = shown(mod, dropped(mod, "undefined symbol: gone"))
    assert lines[1:] == [
        "`- mod.so  /x/mod.so  FAILED: undefined symbol: gone",
        "0 images loaded, 1 failed; traced by rtld",
    ]


def test_refused_shows_the_file_that_lies_there() -> None:
    probes = tuple(Probe(f"/p{n}/tls/d.so", Phase.SYSTEM, None, ProbeOutcome.ABSENT) for n in range(6))
    probes += (
        Probe("/q/tls/d.so", Phase.SYSTEM, None, ProbeOutcome.PRESENT),
        Probe("/r/tls/d.so", Phase.SYSTEM, None, ProbeOutcome.PRESENT, "for another machine"),
    )
    event = LoadFailedEvent(
        "d.so", need="d.so", probes=probes, kind=FailureKind.REFUSED, reason="an empty file", imports=()
    )
    assert shown(event)[1:-1] == [
        "`- d.so  REFUSED: an empty file",
        "   `- system folders",
        "      |- /p0/tls/d.so",
        "      |- /q/tls/d.so  a file is there",
        "      |- /r/tls/d.so  a file is there: for another machine",
        "      `- ... 5 more places",
    ]


def test_a_failure_of_unknown_kind_replaces_its_load() -> None:
    path = r"\Device\HarddiskVolume3\Python\DLLs\_ssl.pyd"
    load = LoadEvent(path, display_path=r"C:\Python\DLLs\_ssl.pyd", imports=("_ssl",), base=1)
    assert shown(load, LoadFailedEvent(path, base=1)) == [
        "import _ssl",
        r"`- _ssl.pyd  C:\Python\DLLs\_ssl.pyd  FAILED",
        "0 images loaded, 1 failed; traced by rtld",
    ]


def test_an_image_loaded_again_is_another_image() -> None:
    first = loaded(MOD)
    again = loaded(MOD, imports=("n",))
    lines = shown(first, UnloadEvent(MOD), again, dropped(again))
    assert lines == [
        "import m",
        "`- mod.so  /x/mod.so",
        "import n",
        "`- mod.so  /x/mod.so  dropped because of the failure",
        "1 image loaded, 0 failed, 1 dropped because of that; traced by rtld",
    ]


def test_losses_and_notes() -> None:
    lines = shown(loaded(MOD), losses=Losses(2, 1, 1), notes=("half blind",))
    assert lines[-2:] == ["evidence was lost: 2 events, 1 buffer, 1 undecodable line or event", "note: half blind"]
    assert "2 undecodable lines or events" in shown(losses=Losses(undecodable=2))[-1]


def test_nothing_loaded() -> None:
    assert shown()[0].startswith("no image was loaded: ")
    assert shown(failed_only=True)[0] == shown(loaded(MOD), failed_only=True)[0] == "no load failed"
    # What was not recorded is not said to be absent.
    assert shown(notes=("killed",))[0] == shown(losses=Losses(events=1))[0] == "no load of an image was recorded"


def test_raw_events_are_counted() -> None:
    import uuid

    assert (
        shown(DebugEvent(uuid.UUID(int=1), 1, b"", b""))[0] == "0 images loaded, 0 failed; 1 raw event; traced by rtld"
    )


def test_styles_and_characters() -> None:
    text = render_text(Recording("rtld", (loaded(MOD), missing("gone.so", MOD, ()))))
    assert "\u2514\u2500 gone.so" in text.plain
    assert {style for line in text.lines for piece, style in line if piece == "  NOT FOUND"} == {"bold red"}


def test_names_cannot_write_to_the_terminal_or_as_markup() -> None:
    lines = shown(loaded("/x/[red]a[b]\x1b[2J\n\udcff\u202e.so"))
    assert lines[1] == r"`- [red]a[b]\x1b[2J\n\udcff\u202e.so  /x/[red]a[b]\x1b[2J\n\udcff\u202e.so"


def test_long_lines_are_whole() -> None:
    path = "/" + "a" * 4000 + " " + "b" * 4000 + ".so"
    assert shown(loaded(path))[1].endswith(f"  {path}")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b.so", "b.so"),
        (r"C:\a\b.dll", "b.dll"),
        (r"\Device\x\b.dll", "b.dll"),
        (r"/a/b\c.so", r"b\c.so"),
        ("/", "/"),
    ],
)
def test_file_name(path: str, name: str) -> None:
    assert file_name(path) == name


def test_escape_leaves_other_alphabets() -> None:
    assert escape("gr\u00fc\u00df \u4e2d") == "gr\u00fc\u00df \u4e2d"


def test_folding_names_a_few_plain_places_of_each_rule() -> None:
    probes = tuple(Probe(f"/p{n}/d.so", Phase.SYSTEM) for n in range(SHOWN + 3))
    (rule,) = fold_places(probes)
    assert (rule.shown, rule.more) == (probes[:SHOWN], 3)
    variants = tuple(Probe(f"/p/{folder}/d.so", Phase.CACHE, "c") for folder in ("tls", "haswell"))
    assert [(r.title, len(r.shown), r.more) for r in fold_places(variants)] == [("cache (c)", 1, 1)]
    (rule,) = fold_places((Probe("/opt/x86_64/lib/d.so", Phase.OTHER, "the loader's words"),))
    assert (rule.title, rule.more) == ("the loader's words", 0)


def test_an_index_without_an_entry_is_not_a_place() -> None:
    asked = Probe("/etc/ld.so.cache", Phase.CACHE, None, ProbeOutcome.NO_ENTRY)
    places = (asked, Probe("/lib/d.so", Phase.SYSTEM, None, ProbeOutcome.ABSENT))
    assert shown(missing("d.so", MOD, places))[2:6] == [
        "   |- cache (/etc/ld.so.cache): no entry",
        "   `- system folders",
        "      `- /lib/d.so",
        "0 images loaded, 1 failed; traced by rtld",
    ]


def test_every_rule_has_words() -> None:
    assert {rule_title(phase, None) for phase in Phase}.isdisjoint(("", None))
