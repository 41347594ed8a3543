"""Which changes are tried for a verdict, and what their results make of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import failed_case as b
from dlltracer.diagnose.case import Change, Copy, ShadowedCopy
from dlltracer.diagnose.trials import MOST_TRIALS, TrialResult, propose_trials, weigh_results
from dlltracer.model.elf import ElfSymbols
from dlltracer.model.events import FailureKind, LoadFailedEvent
from dlltracer.model.failure import System
from dlltracer.model.finding import Confidence, Diagnosis, Evidence, Finding, Outcome, Remedy, Source
from dlltracer.model.tree import MissingSymbol

SAYS = "/site/ext.so: undefined symbol: extra"


def finding(code: str = "missing-symbol", confidence: Confidence = Confidence.CERTAIN, **changes: Any) -> Finding:
    facts: dict[str, Any] = {"title": "it lacks something", "subject": "libx.so.1"}
    return Finding(code=code, confidence=confidence, **{**facts, **changes})


def verdict(*findings: Finding) -> Diagnosis:
    decided = bool(findings) and findings[0].confidence is not Confidence.POSSIBLE
    return Diagnosis(
        "import ext", Outcome.EXPLAINED if decided else Outcome.UNDECIDED, b.import_error(SAYS), findings=findings,
        undecided=() if decided else ("a trace",),
    )  # fmt: skip


def proposed(case: Any, *findings: Finding) -> list[tuple[str, str]]:
    return [(trial.how, trial.prelude) for trial in propose_trials(case, verdict(*findings))]


def with_environment(**variables: str) -> Any:
    return b.case(SAYS, process=b.process(environment=tuple(variables.items())))


@pytest.mark.parametrize(
    ("command", "how"),
    [
        (("env", "LD_LIBRARY_PATH=/opt/x", "python"), "with LD_LIBRARY_PATH=/opt/x"),
        (("env", "-u", "LD_PRELOAD", "python", "-c", "import ext"), "without LD_PRELOAD"),
        (("env", "GLIBC_TUNABLES=glibc.rtld.execstack=2", "python"), "with GLIBC_TUNABLES=glibc.rtld.execstack=2"),
    ],
)
def test_a_remedy_that_changes_a_variable_of_the_loader_is_tried(command: tuple[str, ...], how: str) -> None:
    assert proposed(b.case(SAYS), finding("x", remedies=(Remedy("do it", command),))) == [(how, "")]


@pytest.mark.parametrize(
    "command",
    [
        (), ("pip", "install", "x"), ("env", "PATH=/evil", "python"), ("env", "python"), ("env", "-u"),
        ("env", "-i", "x"),
        ("env", "LD_PRELOAD=/x", "-u", "HOME", "python"),
    ],
)  # fmt: skip
def test_nothing_else_is_run(command: tuple[str, ...]) -> None:
    assert proposed(b.case(SAYS), finding("x", remedies=(Remedy("do it", command),))) == []


def test_a_line_of_python_is_tried() -> None:
    line = r"os.add_dll_directory('C:\\x')"
    assert proposed(b.case(SAYS), finding("x", remedies=(Remedy("do it", code=line),))) == [(f"after {line}", line)]


def test_the_variables_that_lead_elsewhere_are_taken_away() -> None:
    case = with_environment(LD_PRELOAD="/old/libx.so.1", LD_LIBRARY_PATH="/old")
    assert proposed(case, finding()) == [("without LD_PRELOAD", ""), ("without LD_LIBRARY_PATH", "")]
    assert proposed(case, finding("no-such-module")) == []


def test_the_folder_of_a_copy_comes_first_in_the_path() -> None:
    copies = {"libx.so.1": (Copy("/bad/libx.so.1", "PATH", unfit="32 bits"), Copy("/opt/x/libx.so.1", "conda"))}
    case = replace(with_environment(LD_LIBRARY_PATH="/y"), copies=copies)
    assert proposed(case, finding("missing-image")) == [("with LD_LIBRARY_PATH=/opt/x:/y", "")]


def test_a_copy_on_windows_is_found_whatever_the_case_of_the_name() -> None:
    copies = {"qt6core.dll": (Copy("D:\\Qt\\bin\\Qt6Core.dll", "PATH"),)}
    case = replace(with_environment(), system=System.WINDOWS, copies=copies)
    line = "os.add_dll_directory('D:\\\\Qt\\\\bin')"
    assert proposed(case, finding("missing-image", subject="Qt6Core.dll")) == [(f"after {line}", line)]


def test_only_a_copy_that_has_it_is_tried_for_a_symbol() -> None:
    without = {"libx.so.1": (Copy("/opt/x/libx.so.1", "conda", has_what_lacks=False),)}
    assert proposed(replace(b.case(SAYS), copies=without), finding()) == []
    having = {"libx.so.1": (Copy("/opt/x/libx.so.1", "conda", has_what_lacks=True),)}
    assert proposed(replace(b.case(SAYS), copies=having), finding()) == [("with LD_LIBRARY_PATH=/opt/x", "")]


def test_the_import_that_failed_comes_first() -> None:
    shadowed = ShadowedCopy(Change.NOTHING_LOADED, "libx.so.1", "/old/libx.so.1", None, "/new/libx.so.1")
    failed = LoadFailedEvent("/site/ext.so", kind=FailureKind.DROPPED, imports=("app", "pkg.ext"))
    case = b.case(SAYS, shadowed=(shadowed,), failures=(failed,))
    assert proposed(case, finding("first-wins")) == [("after import pkg.ext", "import pkg.ext")]
    hostile = replace(failed, imports=("app", "os; evil()"))
    assert proposed(replace(case, failures=(hostile,)), finding("first-wins")) == []


def test_a_symbol_that_another_image_keeps_to_itself() -> None:
    provider = b.image(symbols=ElfSymbols((), {"extra": ("",)}))
    case = b.case(
        SAYS, process=b.process(loaded=("/a/libp.so",)), images={"/a/libp.so": provider},
        symbols=(MissingSymbol("extra", None, "/site/ext.so", None),),
    )  # fmt: skip
    (trial,) = propose_trials(case, verdict(finding()))
    assert "RTLD_GLOBAL" in trial.prelude and "/a/libp.so" in trial.remedy.what


def test_three_at_most_and_none_twice() -> None:
    remedies = tuple(Remedy("do it", ("env", f"LD_LIBRARY_PATH=/{n}", "python")) for n in range(5))
    case = with_environment(LD_PRELOAD="x")
    assert len(proposed(case, finding(remedies=(*remedies[:1], *remedies)))) == MOST_TRIALS
    assert len(set(proposed(case, finding(remedies=remedies[:1] * 5), finding("missing-version")))) == 2


def tried(diagnosis: Diagnosis, case: Any, worked: bool | None, message: str = "") -> Diagnosis:
    results = [TrialResult(trial=one, worked=worked, message=message) for one in propose_trials(case, diagnosis)]
    assert results
    return weigh_results(diagnosis, results)


def test_a_fix_that_works_is_first_and_proves_its_cause() -> None:
    other = Remedy("buy a new machine")
    case = with_environment(LD_PRELOAD="/old/libx.so.1")
    found = tried(verdict(finding(confidence=Confidence.POSSIBLE, remedies=(other,))), case, True)
    (one,) = found.findings
    assert found.outcome is Outcome.EXPLAINED and found.undecided == () and one.confidence is Confidence.CERTAIN
    assert [(remedy.tried, "LD_PRELOAD" in remedy.what) for remedy in one.remedies] == [(True, True), (False, False)]
    assert one.evidence == (Evidence(Source.TRIAL, "the import works without LD_PRELOAD"),)


def test_a_fix_that_does_not_work_is_dropped_and_its_reason_kept() -> None:
    wrong = Remedy("let it look there", ("env", "LD_LIBRARY_PATH=/opt/x", "python"))
    found = tried(verdict(finding("missing-image", remedies=(wrong, Remedy("y")))), b.case(SAYS), False, "OSError: bad")
    (one,) = found.findings
    assert one.remedies == (Remedy("y"),) and one.confidence is Confidence.CERTAIN
    assert one.evidence[0].says == "the import fails with LD_LIBRARY_PATH=/opt/x, too: OSError: bad"


def test_the_same_failure_without_its_cause_speaks_against_the_cause() -> None:
    case = with_environment(LD_LIBRARY_PATH="/old")
    before = verdict(finding("library-path-wins"))
    same = tried(before, case, False, f"ImportError: {SAYS}")
    assert same.findings[0].confidence is Confidence.LIKELY
    assert tried(same, case, False, f"ImportError: {SAYS}").outcome is Outcome.EXPLAINED
    another = tried(before, case, False, "ImportError: something else")
    assert another.findings[0].confidence is Confidence.CERTAIN


def test_what_was_not_decided_changes_nothing_but_the_evidence() -> None:
    before = verdict(finding(remedies=(Remedy("x", ("env", "LD_LIBRARY_PATH=/opt/x", "python")),)))
    found = tried(before, b.case(SAYS), None, "it was ended after 3.0 s")
    assert found.findings[0].remedies == before.findings[0].remedies
    assert "is not known: it was ended after 3.0 s" in found.findings[0].evidence[0].says
