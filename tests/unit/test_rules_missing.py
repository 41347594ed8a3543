"""Rules about files that are not there, on cases made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders.failed_case import (
    EXT,
    PYTHON,
    absent,
    bound,
    case,
    dropped,
    first,
    image,
    not_found,
    process,
    tree,
    verdict,
)
from dlltracer.diagnose.case import Copy, MachineLimits, PackageCheck
from dlltracer.diagnose.rules import missing_image
from dlltracer.model.environment import CONFIGURED, ChangedFile, CLibrary, FileState, PackageManager, PackageOwner
from dlltracer.model.events import Phase, Probe, ProbeOutcome
from dlltracer.model.failure import Crash, PythonError, System
from dlltracer.model.finding import Confidence, Outcome

GONE = "libgone.so.1: cannot open shared object file: No such file or directory"


def test_the_leaf_is_named_with_its_chain() -> None:
    made = case(
        GONE,
        tree=tree(bound("libmid.so", "/site/libmid.so"), absent("libgone.so.1", "/site/libmid.so")),
        failures=(not_found("libgone.so.1", "/site/libmid.so"), dropped("/site/libmid.so", EXT), dropped()),
    )
    found = first(made)
    assert (found.code, found.subject, found.confidence) == ("missing-image", "libgone.so.1", Confidence.CERTAIN)
    assert found.chain == ("/app/main.py:3: import ext", "import ext", EXT, "/site/libmid.so", "libgone.so.1")
    assert [f.subject for f in verdict(made).findings] == ["libgone.so.1"]


def test_what_would_be_missing_next_is_less_sure() -> None:
    made = case(
        GONE, tree=tree(absent("libgone.so.1"), absent("libnext.so")), failures=(not_found("libgone.so.1"), dropped())
    )
    assert [(f.subject, f.confidence) for f in verdict(made).findings] == [
        ("libgone.so.1", Confidence.CERTAIN),
        ("libnext.so", Confidence.LIKELY),
    ]


def test_the_exception_alone_will_do_without_a_trace() -> None:
    assert first(case(GONE, failures=())).confidence is Confidence.CERTAIN
    assert first(case(GONE, failures=(), tree=tree(absent("libgone.so.1")))).chain[-2:] == (EXT, "libgone.so.1")


def test_a_failure_that_the_exception_says_nothing_of_is_no_verdict() -> None:
    made = case("the licence has expired", failures=(not_found("libgone.so.1", None),), subject=None)
    assert verdict(made).outcome is Outcome.UNDECIDED
    assert {f.confidence for f in verdict(made).findings} == {Confidence.POSSIBLE}


@pytest.mark.parametrize(
    ("place", "phase", "again"),
    [
        ("/site/pkg/libgone.so.1", Phase.RUNPATH, True),
        ("/site/pkg.libs/libgone.so.1", Phase.RPATH, False),
        ("/venv/site/pkg.libs/libgone.so.1", Phase.RPATH, True),
        ("/opt/cuda/libgone.so.1", Phase.RUNPATH, False),
        ("/venv/site/pkg/libgone.so.1", Phase.ENVIRONMENT, False),
    ],
)
def test_a_file_expected_in_the_packages_own_folders_is_part_of_it(place: str, phase: Phase, again: bool) -> None:
    by = "/venv/site/pkg/ext.so" if place.startswith("/venv") else "/site/pkg/ext.so"
    probe = Probe(place, phase, by, ProbeOutcome.ABSENT)
    made = case(
        GONE, subject=by, tree=tree(absent("libgone.so.1", by, probe), top=by),
        failures=(not_found("libgone.so.1", by, probes=(probe,)), dropped(by)),
    )  # fmt: skip
    assert any("is part of the package" in remedy.what for remedy in first(made).remedies) is again


def test_a_healthy_tree_gives_nothing() -> None:
    assert not list(missing_image.check(case(None, tree=tree(bound("libmid.so", "/site/libmid.so")))))


def test_the_rules_of_linux_do_not_run_on_cases_of_windows() -> None:
    made = case(GONE, tree=tree(absent("libgone.so.1")), failures=(not_found("libgone.so.1"),))
    assert [finding.code for finding in verdict(made).findings] == ["missing-image"]
    assert not verdict(replace(made, system=System.WINDOWS)).findings


def test_what_was_asked_for_itself() -> None:
    for name in ("libnope.so.3", "/opt/x/libnope.so"):
        made = case(f"{name}: cannot open shared object file: No such file or directory", subject=name,
                    failures=(not_found(name, "/usr/lib/python3.11/lib-dynload/_ctypes.cpython-311.so"),))  # fmt: skip
        assert (first(made).code, first(made).subject) == ("no-such-file", name)


def test_a_copy_elsewhere_comes_with_a_command() -> None:
    copies = {"libgone.so.1": (Copy("/opt/x/lib/libgone.so.1", "a folder below /opt"),)}
    found = first(case(GONE, tree=tree(absent("libgone.so.1")), failures=(not_found("libgone.so.1"),), copies=copies))
    assert "/opt/x/lib/libgone.so.1 (a folder below /opt)" in found.explanation
    assert found.remedies[0].command == ("env", "LD_LIBRARY_PATH=/opt/x/lib", PYTHON, "-c", "import ext")


def test_a_copy_that_would_not_do_is_no_remedy() -> None:
    copies = {
        "libgone.so.1": (Copy("/opt/x/libgone.so.1", "a folder below /opt", "it is for another kind of processor"),)
    }
    found = first(case(GONE, tree=tree(absent("libgone.so.1")), copies=copies))
    assert "another kind of processor" in found.explanation
    assert not any("/opt" in " ".join(remedy.command) for remedy in found.remedies)


def test_a_copy_in_usr_local_wants_ldconfig() -> None:
    copies = {"libgone.so.1": (Copy("/usr/local/lib/libgone.so.1", CONFIGURED),)}
    assert first(case(GONE, tree=tree(absent("libgone.so.1")), copies=copies)).remedies[0].command == ("ldconfig",)


def test_the_package_of_this_distribution() -> None:
    message = "libGL.so.1: cannot open shared object file: No such file or directory"
    made = case(message, tree=tree(absent("libGL.so.1")), failures=(not_found("libGL.so.1"),))
    for distribution, offered in (("ubuntu debian", True), ("fedora", False)):
        commands = [remedy.command for remedy in first(replace(made, distribution=distribution)).remedies]
        assert (("apt-get", "install", "libgl1") in commands) is offered


@pytest.mark.parametrize(
    ("distribution", "name", "search"),
    [
        ("ubuntu debian", "libgone.so", "apt-file search libgone.so"),
        ("fedora", "libgone.so", "dnf provides '*/libgone.so'"),
        ("manjaro arch", "libgone.so", "pacman -F libgone.so"),
        ("opensuse-tumbleweed opensuse suse", "libgone.so", "zypper search --provides libgone.so"),
        ("alpine", "libgone.so", "apk search --exact so:libgone.so"),
        ("slackware", "libgone.so", None),
        ("debian", "libx.so;reboot", None),
    ],
)
def test_a_library_of_no_known_package_says_how_to_find_one(distribution: str, name: str, search: str | None) -> None:
    message = f"{name}: cannot open shared object file: No such file or directory"
    made = case(message, tree=tree(absent(name)), distribution=distribution)
    (remedy,) = first(made).remedies
    assert remedy.what.startswith(f"install the package that has {name}") and not remedy.command
    assert (f"({search} names it)" in remedy.what) if search else ("(" not in remedy.what)


def test_a_library_of_the_wheel_itself_wants_the_wheel_again() -> None:
    name = "libgfortran-040039e1.so.5.0.0"
    made = case(
        f"{name}: cannot open shared object file: No such file or directory",
        tree=tree(absent(name)),
        owners={EXT: (PackageOwner(PackageManager.PIP, "scipy", "1.11", EXT),)},
    )
    assert first(made).remedies[0].command == (
        PYTHON, "-m", "pip", "install", "--force-reinstall", "--no-deps", "scipy==1.11"
    )  # fmt: skip


def test_runpath_counts_for_its_own_image_only() -> None:
    ours = Probe("/site/lib/libmid.so", Phase.RUNPATH, EXT, ProbeOutcome.LOADED)
    middle = replace(bound("libmid.so", "/site/lib/libmid.so"), probes=(ours,))
    copies = {"libgone.so.1": (Copy("/site/lib/libgone.so.1", "a package"),)}
    found = first(case(GONE, tree=tree(middle, absent("libgone.so.1", "/site/lib/libmid.so")), copies=copies))
    assert f"The RUNPATH of {EXT} names that folder" in found.explanation


def _at_runtime(message: str | None, output: str = "", **changes: object) -> object:
    event = not_found("libcudnn_ops.so.9", "/site/engine.so")
    return case(message, failures=(event,), subject="libcudnn_ops.so.9", stderr=output, **changes)


def test_asked_for_by_native_code_while_it_ran() -> None:
    message = "libcudnn_ops.so.9: cannot open shared object file: No such file or directory"
    found = first(_at_runtime(message))  # type: ignore[arg-type]
    assert (found.code, found.confidence) == ("missing-at-runtime", Confidence.CERTAIN)
    assert "/site/engine.so" in found.chain
    assert first(_at_runtime("the backend cudnn_ops is not there")).confidence is Confidence.LIKELY  # type: ignore[arg-type]
    assert verdict(_at_runtime("something else")).outcome is Outcome.UNDECIDED  # type: ignore[arg-type]


def test_an_abort_that_names_the_library() -> None:
    crash = Crash(6, "SIGABRT", 1, "/lib/libc.so.6", 2, 3, None)
    made = _at_runtime(None, "Could not load library libcudnn_ops.so.9", crash=crash, status=-6)
    assert first(made).code == "missing-at-runtime"  # type: ignore[arg-type]


def test_built_for_musl() -> None:
    name = "libc.musl-x86_64.so.1"
    made = case(f"{name}: cannot open shared object file: No such file or directory", tree=tree(absent(name)))
    assert (first(made).code, first(made).subject) == ("other-c-library", EXT)


def test_built_for_glibc_on_musl() -> None:
    from dlltracer.diagnose.case import MachineLimits

    message = "Error loading shared library ld-linux-x86-64.so.2: No such file or directory (needed by /site/ext.so)"
    made = case(
        message, tree=tree(absent("ld-linux-x86-64.so.2")), limits=MachineLimits(c_library=CLibrary("musl", "1.2"))
    )
    assert (first(made).code, first(made).confidence) == ("other-c-library", Confidence.CERTAIN)


@pytest.mark.parametrize(
    ("runpath", "is_said"), [("$LIB/x:$ORIGIN", True), ("${ORIGIN}/../$PLATFORM", True), ("$ORIGIN/lib", False)]
)
def test_a_token_that_musl_does_not_know(runpath: str, is_said: bool) -> None:
    from dlltracer.diagnose.case import MachineLimits

    words = "Error loading shared library libx.so: No such file or directory (needed by /site/ext.so)"
    made = case(words, tree=tree(absent("libx.so")), images={EXT: image(runpath=runpath)},
                limits=MachineLimits(c_library=CLibrary("musl", "1.2")))  # fmt: skip
    text = f"musl knows no other token than $ORIGIN, so that it ignores the search path in that file: {runpath}."
    assert (text in first(made).explanation) is is_said


def _package(path: str, state: FileState) -> PackageCheck:
    return PackageCheck("pkg 1.0", "pkg", (ChangedFile(path, state, 100, 90),))


def test_a_file_that_the_package_has_lost() -> None:
    made = case(
        GONE, tree=tree(absent("libgone.so.1")), checks=(_package("/site/pkg.libs/libgone.so.1", FileState.ABSENT),)
    )
    assert [f.code for f in verdict(made).findings] == ["package-file-missing"]
    other = case(GONE, tree=tree(absent("libgone.so.1")), checks=(_package("/site/pkg/libother.so", FileState.ABSENT),))
    assert [f.code for f in verdict(other).findings] == ["missing-image"]


def test_a_module_that_the_package_has_lost() -> None:
    error = PythonError(
        "ModuleNotFoundError", "No module named 'pkg._core'", ("ModuleNotFoundError", "ImportError"), "pkg._core"
    )
    lost = _package("/site/pkg/_core.cpython-311-x86_64-linux-gnu.so", FileState.ABSENT)
    made = case(None, error=error, errors=(error,), subject=None, checks=(lost,), process=process())
    assert [f.code for f in verdict(made).findings] == ["package-file-missing"]
    elsewhere = _package("/site/other/_core.so", FileState.ABSENT)
    assert first(replace(made, checks=(elsewhere,))).code == "no-such-module"


def test_a_changed_file_is_a_cause_only_if_it_is_damaged() -> None:
    message = f"{EXT}: undefined symbol: f"
    made = case(message, checks=(_package(EXT, FileState.CHANGED),), tree=tree())
    assert [f.confidence for f in verdict(made).findings if f.code == "package-file-changed"] == [Confidence.POSSIBLE]
    damaged = replace(made, damaged={EXT: "cut short"})
    assert [f.confidence for f in verdict(damaged).findings if f.code == "package-file-changed"] == [Confidence.LIKELY]


@pytest.mark.parametrize(("library", "offered"), [("glibc", True), ("musl", False)])
def test_ldconfig_is_for_glibc(library: str, offered: bool) -> None:
    copies = {"libgone.so.1": (Copy("/opt/x/libgone.so.1", CONFIGURED),)}
    message = "libgone.so.1: cannot open shared object file: No such file or directory"
    limits = MachineLimits(c_library=CLibrary(library, "1"))
    found = first(case(message, tree=tree(absent("libgone.so.1")), copies=copies, limits=limits))
    assert (("ldconfig",) in [remedy.command for remedy in found.remedies]) is offered
    assert ("ldconfig has not run" in found.explanation) is offered


def test_an_absolute_path_among_the_needs_is_not_searched_for() -> None:
    need = "/home/builder/lib/libdep.so"
    copies = {"libdep.so": (Copy("/opt/x/libdep.so", "x"),)}
    message = f"{need}: cannot open shared object file: No such file or directory"
    found = first(case(message, tree=tree(absent(need)), copies=copies, images={EXT: image(needed=(need,))}))
    assert found.title == f"there is no {need}, the path by which {EXT} asks for it"
    assert found.remedies[0].command == ("patchelf", "--replace-needed", need, "libdep.so", EXT)
    assert not any("LD_LIBRARY_PATH=/opt/x" in remedy.command for remedy in found.remedies), "it does not count"


def test_a_file_that_the_cache_lists_and_that_is_gone() -> None:
    listed = Probe("/usr/local/lib/libdep.so.1", Phase.CACHE, None, ProbeOutcome.ABSENT)
    message = "libdep.so.1: cannot open shared object file: No such file or directory"
    found = first(case(message, tree=tree(replace(absent("libdep.so.1"), probes=(listed,)))))
    assert "ld.so.cache still lists /usr/local/lib/libdep.so.1" in found.explanation


def test_a_library_that_the_table_knows_of_conda_only_is_looked_for_by_the_rule_of_the_distribution() -> None:
    message = "libgomp.so.1: cannot open shared object file: No such file or directory"
    found = first(case(message, tree=tree(absent("libgomp.so.1")), distribution="wolfi"))
    assert found.remedies[0].command == ("apk", "add", "so:libgomp.so.1")


@pytest.mark.parametrize(("library", "told"), [("musl", True), ("glibc", False)])
def test_semicolons_separate_folders_for_glibc_only(library: str, told: bool) -> None:
    message = "libx.so.1: cannot open shared object file: No such file or directory"
    made = case(
        message, tree=tree(absent("libx.so.1")), copies={"libx.so.1": (Copy("/b/libx.so.1", "x"),)},
        limits=MachineLimits(c_library=CLibrary(library, "1")),
        process=process(environment=(("LD_LIBRARY_PATH", "/a;/b"),)),
    )  # fmt: skip
    assert ("musl takes colons only" in first(made).title) is told


def test_a_blank_at_the_end_of_a_folder_is_a_part_of_its_name() -> None:
    message = "libx.so.1: cannot open shared object file: No such file or directory"
    made = case(
        message, tree=tree(absent("libx.so.1")), copies={"libx.so.1": (Copy("/b/libx.so.1", "x"),)},
        process=process(environment=(("LD_LIBRARY_PATH", "/a:/b "),)),
    )  # fmt: skip
    assert "in LD_LIBRARY_PATH '/b ' is no folder, because a blank" in first(made).title
