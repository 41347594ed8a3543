"""The images of the HTML report: what became of each, who needs whom, and why; from traces and trees made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders.large_run import IMAGES, large_run
from builders.memory_filesystem import elf_image
from builders.report_traces import GONE, PID, dropped, load, many_images, missing, small_failure, windows_failure
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase, Probe, ProbeOutcome, UnloadEvent
from dlltracer.model.finding import Diagnosis, Outcome
from dlltracer.model.recording import Recording
from dlltracer.model.run import ImageFacts, RunResult, SavedTrace
from dlltracer.model.tree import Binding, BindingState, LoadTree
from dlltracer.report.html.build_images import images_of_trace, images_of_tree
from dlltracer.report.html.images import (
    ImageView,
    NeedSource,
    PageImages,
    State,
    causes_of,
    count_causes,
    limit,
    origin_of,
)


def found_in(*events: object, **more: object) -> PageImages:
    return images_of_trace(SavedTrace(Recording("rtld", events, PID), **more))  # type: ignore[arg-type]


def parents(found: PageImages) -> dict[str, str | None]:
    """Name of each image to that of the image that asked for it."""
    return {
        image.name: None if image.parent is None else found.images[image.parent].name for image in found.images
    }  # fmt: skip


def needs(found: PageImages) -> set[tuple[str, str, NeedSource]]:
    return {(found.images[need.start].name, found.images[need.end].name, need.source) for need in found.needs}


def states(found: PageImages) -> dict[str, State]:
    return {image.name: image.state for image in found.images}


def test_the_requester_is_who_asked() -> None:
    found = images_of_trace(small_failure())
    extension = "core.cpython-311-x86_64-linux-gnu.so"
    assert parents(found) == {"_json.so": None, extension: None, "libdep.so.2": extension, GONE: "libdep.so.2"}
    assert states(found) == {
        "_json.so": State.LOADED, extension: State.DROPPED, "libdep.so.2": State.DROPPED, GONE: State.NOT_FOUND,
    }  # fmt: skip
    # What the loader said is not replaced by what the file lists.
    assert needs(found) == {(extension, "libdep.so.2", NeedSource.ASKED), ("libdep.so.2", GONE, NeedSource.ASKED)}
    assert list(found.elsewhere.values()) == [("libc.so.6",), ("libc.so.6",)]
    assert found.focus is not None and found.images[found.focus].name == GONE


def test_a_requester_that_came_before_the_trace_is_no_image() -> None:
    found = found_in(load("/x/a.so", by="/lib/libpython3.so"))
    assert parents(found) == {"a.so": None} and found.images[0].requested_by == "/lib/libpython3.so"


def test_what_a_file_lists_is_a_need_of_its_own_kind() -> None:
    found = found_in(
        load("/x/a.so"), load("/x/libb.so.1.2", by="/x/a.so", need="libb.so.1"), load("/x/c.so"),
        images=(ImageFacts("/x/c.so", needs=("libb.so.1", "c.so", "libz.so")), ImageFacts("/x/a.so")),
    )  # fmt: skip
    assert needs(found) == {("a.so", "libb.so.1", NeedSource.ASKED), ("c.so", "libb.so.1", NeedSource.LISTED)}
    assert found.elsewhere == {2: ("libz.so",)}


def test_on_windows_files_say_who_needs_whom_in_any_case_and_the_verdict_what_is_missing() -> None:
    found = images_of_trace(windows_failure())
    assert parents(found) == {"Core.pyd": None, "Dep.dll": "Core.pyd", "msvcp140.dll": "Dep.dll"}
    assert needs(found) == {
        ("Core.pyd", "Dep.dll", NeedSource.LISTED), ("Dep.dll", "msvcp140.dll", NeedSource.VERDICT),
    }  # fmt: skip
    gone = found.images[-1]
    assert gone.state is State.NOT_FOUND and gone.concluded == "the verdict (missing-vc-runtime)"


def test_a_finding_adds_nothing_that_an_image_says_already() -> None:
    saved = small_failure()
    assert parents(images_of_trace(saved)) == parents(images_of_trace(replace(saved, diagnosis=None)))


def test_an_image_that_left_without_a_failure_is_unloaded() -> None:
    first = load("/x/a.so")
    found = found_in(first, UnloadEvent(**vars(first)), load("/x/a.so", at=1))
    assert [image.state for image in found.images] == [State.UNLOADED, State.LOADED]


def test_processes_have_titles_and_their_own_images() -> None:
    saved = many_images(100, processes=2)
    found = images_of_trace(saved)
    assert found.processes == ((PID, f"process {PID}: python -m app0"), (PID + 1, f"process {PID + 1}: python -m app1"))
    assert all(found.images[need.start].pid == found.images[need.end].pid for need in found.needs)
    assert images_of_trace(many_images(10)).processes == ()


def test_a_process_that_loaded_nothing_is_there_too() -> None:
    saved = many_images(50, processes=3)
    alone = replace(saved, recording=replace(saved.recording, events=saved.recording.events[:5]))
    assert [pid for pid, _ in images_of_trace(alone).processes] == [PID, PID + 1, PID + 2]


def test_a_very_deep_chain() -> None:
    paths = [f"/x/{number}.so" for number in range(3000)]
    chain = [load(path, by=by, phase=Phase.SYSTEM) for path, by in zip(paths[1:], paths, strict=False)]
    found = found_in(load(paths[0]), *chain)
    assert [image.parent for image in found.images] == [None, *range(2999)]


def test_a_trace_of_nothing() -> None:
    assert found_in() == PageImages(())


def test_the_time_of_a_load_its_rule_and_its_places_are_kept() -> None:
    event, gone = load("/x/liba.so", phase=Phase.RUNPATH, origin="/x/m.so", at=2.5), missing("libq.so", "/x/a.so")
    first, second = found_in(event, gone).images
    assert first.rule == "RUNPATH of /x/m.so" and first.time == event.timestamp and first.size == event.size
    assert second.probes == gone.probes and isinstance(event, LoadEvent)


def worked(*events: object) -> PageImages:
    return found_in(*events, run=RunResult(status=0), diagnosis=Diagnosis("x", Outcome.IMPORTED))


def test_a_name_that_a_program_looked_for_in_vain_and_did_without_is_not_required() -> None:
    stays, probe = load("/x/liba.so"), missing("libfast.so.avx2", "/x/liba.so")
    assert states(worked(stays, probe))["libfast.so.avx2"] is State.OPTIONAL
    alone = missing("libfoo.so.3", "/usr/lib/libpython3.so")
    assert states(worked(alone)) == {"libfoo.so.3": State.OPTIONAL}


def test_in_a_run_that_did_not_work_every_failure_counts() -> None:
    stays, probe = load("/x/liba.so"), missing("libfast.so.avx2", "/x/liba.so")
    assert states(found_in(stays, probe, run=RunResult(status=1)))["libfast.so.avx2"] is State.NOT_FOUND
    assert states(found_in(stays, probe))["libfast.so.avx2"] is State.NOT_FOUND


def test_a_library_without_which_another_image_left_is_a_failure_also_where_the_run_worked() -> None:
    plugin = load("/x/plugin.so")
    found = worked(plugin, dropped(plugin), missing("libgone.so", "/x/plugin.so"))
    assert states(found) == {"plugin.so": State.DROPPED, "libgone.so": State.NOT_FOUND}
    refused = LoadFailedEvent(**vars(load("/x/b.so")), kind=FailureKind.REFUSED, reason="invalid ELF header")
    assert states(worked(refused)) == {"b.so": State.REFUSED}


def test_the_cause_of_what_was_dropped_is_the_failure_of_the_same_request() -> None:
    found = images_of_trace(small_failure())
    causes = causes_of(found.images)
    assert [None if cause is None else cause.number for cause in causes] == [None, 3, 3, 3]
    windows = images_of_trace(windows_failure())
    assert [cause.number for cause in causes_of(windows.images) if cause is not None] == [2, 2, 2]


def test_causes_are_counted_the_most_frequent_first() -> None:
    found = images_of_trace(large_run())
    assert len(found.images) == IMAGES == 1866 and found.count("bad") == 190 and found.count("dropped") == 58
    counted = count_causes(causes_of(found.images))
    assert [(one.heading, one.count) for one in counted[:3]] == [
        ("Undefined symbol: libperl5.36 5.36.0-7", 106), ("Libraries not found", 44),
        ("Refused by the loader: invalid ELF header", 7),
    ]  # fmt: skip
    assert sum(one.count for one in counted) == 190
    assert all(cause.number >= 0 for cause in causes_of(found.images) if cause is not None)


@pytest.mark.parametrize(
    ("path", "package", "kind", "label"),
    [
        ("/v/lib/python3.11/site-packages/numpy/a.so", "numpy 2.1.0", "package", "numpy 2.1.0"),
        ("/v/lib/python3.11/site-packages/numpy.libs/a.so", None, "package", "numpy"),
        ("/home/me/app/PIL/a.so", "pillow 12.2.0", "package", "pillow 12.2.0"),
        ("/opt/python/lib/python3.11/lib-dynload/_ssl.so", None, "stdlib", "Python"),
        ("/opt/python/lib/libpython3.11.so.1.0", None, "stdlib", "Python"),
        ("C:\\Python311\\DLLs\\_ssl.pyd", None, "stdlib", "Python"),
        ("C:\\Python311\\python311.dll", None, "stdlib", "Python"),
        ("/lib/x86_64-linux-gnu/libssl.so.3", "libssl3 3.0.11-1", "system", "libssl3 3.0.11-1"),
        ("/usr/lib64/libz.so.1", None, "system", "/usr/lib64"),
        ("C:\\Windows\\System32\\kernel32.dll", None, "system", "C:\\Windows\\System32"),
        ("\\Device\\Harddisk3\\Windows\\WinSxS\\a.dll", None, "system", "\\Device\\Harddisk3\\Windows\\WinSxS"),
        ("/System/Library/Frameworks/A.framework/A", None, "system", "/System/Library/Frameworks/A.framework"),
        ("D:\\app\\x.pyd", None, "other", "D:\\app"),
        ("x.so", None, "other", "of no folder"),
    ],
)  # fmt: skip
def test_where_an_image_comes_from(path: str, package: str | None, kind: str, label: str) -> None:
    image = ImageView(path, path, State.LOADED, facts=ImageFacts(path, package=package))
    assert (origin_of(image).kind, origin_of(image).label) == (kind, label)


def test_a_load_tree() -> None:
    top = "/x/mod.so"
    gone = (Probe("/x/libz.so", Phase.RUNPATH, top, ProbeOutcome.ABSENT),)
    taken = (Probe("/x/liba.so", Phase.RUNPATH, top, ProbeOutcome.LOADED),)
    tree = LoadTree(
        top,
        {top: elf_image("liba.so"), "/x/liba.so": elf_image("libz.so")},
        (
            Binding("liba.so", top, BindingState.BOUND, "/x/liba.so", Phase.RUNPATH, taken),
            Binding("libz.so", top, BindingState.MISSING, probes=gone),
            Binding("libz.so", "/x/liba.so", BindingState.MISSING, probes=gone),
            Binding("late.dll", top, BindingState.MISSING, delayed=True),
            Binding("weak.dylib", top, BindingState.MISSING, optional=True),
            Binding("kernel32.dll", top, BindingState.SYSTEM),
            Binding("bad.so", top, BindingState.REFUSED, "/x/bad.so", Phase.RUNPATH, reason="invalid ELF header"),
        ),
    )
    found = images_of_tree(tree)
    names = ("liba.so", "libz.so", "late.dll", "weak.dylib", "kernel32.dll", "bad.so")
    assert parents(found) == {"mod.so": None} | dict.fromkeys(names, "mod.so")
    assert states(found) == {
        "mod.so": State.FOUND, "liba.so": State.FOUND, "libz.so": State.NOT_FOUND, "late.dll": State.LATE,
        "weak.dylib": State.OPTIONAL, "kernel32.dll": State.SYSTEM, "bad.so": State.REFUSED,
    }  # fmt: skip
    assert ("liba.so", "libz.so", NeedSource.LISTED) in needs(found)
    assert found.images[1].rule == f"RUNPATH of {top}" and found.focus == 2


def test_where_not_all_fit_failures_come_first_and_the_rest_is_counted() -> None:
    found = found_in(*(load(f"/x/{number}.so") for number in range(20)), missing("libq.so", "/x/19.so"))
    few = limit(found, 5, 100)
    assert [image.name for image in few.images] == ["0.so", "1.so", "2.so", "3.so", "libq.so"]
    assert few.left_out == ("16 more images are not on this page",) and few.images[4].parent is None
    assert few.focus == 4
    assert limit(found, 100, 0).left_out == ("1 more needs are not on this page",)
    assert limit(found, 100, 100) == found
