"""The tree, the list and the chains of `dlltracer deps`, from load trees made by hand."""

from __future__ import annotations

import json
from dataclasses import replace

from builders.memory_filesystem import elf_image
from dlltracer.model.events import Phase, Probe, ProbeOutcome
from dlltracer.model.tree import Binding, BindingState, LoadTree
from dlltracer.report.render_deps import render_deps, render_flat, render_why
from dlltracer.report.render_json import render_deps_json

TOP = "/x/mod.so"
GONE = (Probe("/x/libz.so", Phase.RUNPATH, TOP, ProbeOutcome.ABSENT), Probe("/lib/libz.so", Phase.SYSTEM))


def bound(need: str, by: str, path: str, phase: Phase = Phase.CACHE) -> Binding:
    origin = {Phase.RUNPATH: by, Phase.CACHE: "/etc/ld.so.cache"}.get(phase)
    return Binding(need, by, BindingState.BOUND, path, phase, (Probe(path, phase, origin, ProbeOutcome.LOADED),))


def missing(need: str, by: str, *, delayed: bool = False) -> Binding:
    return Binding(need, by, BindingState.MISSING, probes=GONE, delayed=delayed)


def tree_of(*bindings: Binding, notes: tuple[str, ...] = ()) -> LoadTree:
    paths = [TOP, *(b.path for b in bindings if b.path and b.state is BindingState.BOUND)]
    return LoadTree(TOP, {path: elf_image() for path in paths}, bindings, notes)


CHAIN = (
    bound("liba.so", TOP, "/x/liba.so", Phase.RUNPATH),
    bound("libc.so.6", TOP, "/lib/libc.so.6"),
    bound("libb.so", "/x/liba.so", "/lib/libb.so"),
    bound("libc.so.6", "/x/liba.so", "/lib/libc.so.6", Phase.LOADED),
)


def plain(tree: LoadTree, *, missing_only: bool = False) -> list[str]:
    return render_deps(tree, missing_only=missing_only, ascii_only=True).plain.splitlines()


def test_an_image_stands_below_the_one_that_brought_it() -> None:
    assert plain(tree_of(*CHAIN)) == [
        "/x/mod.so",
        "|- liba.so  /x/liba.so  found by RUNPATH of mod.so",
        "|  |- libb.so  /lib/libb.so  found by cache (/etc/ld.so.cache)",
        "|  `- and, loaded for others: libc.so.6",
        "`- libc.so.6  /lib/libc.so.6  found by cache (/etc/ld.so.cache)",
        "4 images, nothing missing",
    ]


def test_what_is_missing_has_its_places_once() -> None:
    tree = tree_of(*CHAIN, missing("libz.so", TOP), missing("libz.so", "/lib/libb.so"), notes=("a note",))
    shown = plain(tree, missing_only=True)
    assert shown == [
        "/x/mod.so",
        "|- liba.so  /x/liba.so  found by RUNPATH of mod.so",
        "|  `- libb.so  /lib/libb.so  found by cache (/etc/ld.so.cache)",
        "|     `- libz.so  NOT FOUND, needed by /lib/libb.so",
        "`- libz.so  NOT FOUND, needed by /x/mod.so",
        "   |- RUNPATH of /x/mod.so",
        "   |  `- /x/libz.so",
        "   `- system folders",
        "      `- /lib/libz.so",
        "4 images, 1 missing: libz.so",
        "note: a note",
    ]
    assert [b.requested_by for b in tree.missing] == [TOP, "/lib/libb.so"]


def test_a_file_that_the_loader_does_not_take_has_the_reason() -> None:
    why = "ELF file ABI version invalid"
    tree = LoadTree(TOP, {}, (Binding(TOP, "/bin/python", BindingState.REFUSED, TOP, Phase.DIRECT, reason=why),))
    assert plain(tree) == [f"{TOP}  REFUSED: {why}", f"0 images, 1 missing: {TOP}"]
    gone = LoadTree(TOP, {}, (missing(TOP, "/bin/python"),))
    assert plain(gone)[0] == f"{TOP}  NOT FOUND"
    again = replace(tree, images={TOP: elf_image()})
    assert plain(again)[0] == TOP


def test_delayed_and_refused_and_system() -> None:
    refused = Binding("libr.so", TOP, BindingState.REFUSED, "/x/libr.so", Phase.RUNPATH, reason="invalid ELF header")
    system = tuple(Binding(f"s{n}.dll", TOP, BindingState.SYSTEM) for n in range(6))
    assert plain(tree_of(*system, missing("late.dll", TOP, delayed=True), refused)) == [
        "/x/mod.so",
        "|- late.dll  NOT FOUND, at the first call, needed by /x/mod.so",
        "|  |- RUNPATH of /x/mod.so",
        "|  |  `- /x/libz.so",
        "|  `- system folders",
        "|     `- /lib/libz.so",
        "|- libr.so  REFUSED: /x/libr.so: invalid ELF header, needed by /x/mod.so",
        "`- of the system: s0.dll, s1.dll, s2.dll, ... 3 more",
        "1 image, 1 missing: libr.so",
        "missing, and needed at the first call only: late.dll",
    ]


def test_the_list() -> None:
    assert render_flat(tree_of(*CHAIN, missing("libz.so", TOP))).plain.splitlines() == [
        "/x/mod.so",
        "/x/liba.so  found by RUNPATH of mod.so",
        "/lib/libc.so.6  found by cache (/etc/ld.so.cache)",
        "/lib/libb.so  found by cache (/etc/ld.so.cache)",
        "libz.so  NOT FOUND, needed by /x/mod.so",
        "4 images, 1 missing: libz.so",
    ]


def test_who_pulls_a_library_in() -> None:
    tree = tree_of(*CHAIN)
    for name in ("libb.so", "/lib/libb.so"):
        assert render_why(tree, name).plain.splitlines() == [
            "mod.so > liba.so > libb.so  /lib/libb.so  found by cache (/etc/ld.so.cache)"
        ]
    assert len(render_why(tree, "libc.so.6").plain.splitlines()) == 2
    assert render_why(tree, "LIBB.SO").plain == "nothing that /x/mod.so loads needs LIBB.SO\n"


def test_json_has_every_place() -> None:
    output = json.loads(render_deps_json(tree_of(*CHAIN, missing("libz.so", TOP))))
    assert (output["type"], output["version"], output["missing"]) == ("deps", 1, ["libz.so"])
    assert [image["path"] for image in output["images"]] == [TOP, "/x/liba.so", "/lib/libc.so.6", "/lib/libb.so"]
    assert output["bindings"][-1]["probes"][0] == {
        "path": "/x/libz.so",
        "phase": "runpath",
        "origin": TOP,
        "outcome": "absent",
    }
    assert output["bindings"][-1]["state"] == "missing"
