"""The rules of Windows on loads that are worked out in memory: where Wine differs from Windows, and edges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders.windows_case import PROCESS, PYTHON, SITE, TOP, Windows, pe_image
from dlltracer.diagnose.case import Case, Copy
from dlltracer.diagnose.engine import diagnose
from dlltracer.model.events import LoadEvent
from dlltracer.model.failure import Crash
from dlltracer.model.finding import Confidence, Finding, Outcome
from dlltracer.model.pe import PeExport
from dlltracer.model.recording import Recording

SYSTEM = "C:\\Windows\\System32"
LOCKING = ("_Mtx_lock", "_Mtx_unlock")
RUNTIME = (*LOCKING, "_Mtx_init_in_situ", "f")


def first(case: Case) -> Finding:
    return diagnose(case).findings[0]


def output(case: Case) -> tuple[str, str, Confidence]:
    finding = first(case)
    return finding.code, finding.subject, finding.confidence


def died(code: int, image: str | None, name: str = "access violation") -> Crash:
    return Crash(code, name, 0x1000, image, 0x10, 1, None)


# What is missing, and where it is.


def test_load_flags_that_leave_out_the_sibling() -> None:
    """Not in Wine 8, which does not heed them."""
    sibling = f"{SITE}\\sibling.dll"
    machine = Windows({TOP: pe_image({"sibling.dll": ["f"]}, dependent_load_flags=0x800), sibling: pe_image()})
    case = machine.case(126, copies={"sibling.dll": (Copy(sibling, "a package on sys.path"),)})
    assert output(case) == ("search-restricted", "sibling.dll", Confidence.CERTAIN)
    assert "/DEPENDENTLOADFLAG:0x800" in first(case).explanation


def in_another_folder(**more: object) -> Finding:
    machine = Windows({TOP: pe_image({"far.dll": ("f",)})})
    copies = {"far.dll": (Copy("C:\\other\\far.dll", "a package"), Copy("D:\\far\\far.dll", "a package"))}
    return first(machine.case(126, copies=copies, **more))


def test_a_folder_that_was_not_in_force_at_the_load() -> None:
    finding = in_another_folder(other_folders=(("d:\\far\\", "it was taken back"),))
    assert finding.code == "folder-not-searched"
    assert "D:\\far\\far.dll" in finding.explanation and "it was taken back" in finding.explanation
    assert finding.remedies[0].code == "os.add_dll_directory('D:\\\\far')"


def test_winmode_takes_added_folders_out_of_the_search() -> None:
    finding = in_another_folder(load_flags=0)
    assert "winmode" in finding.explanation and "PATH" in finding.explanation
    assert [remedy.code for remedy in finding.remedies] == ["", ""]
    assert in_another_folder(load_flags=0x1000).remedies[0].code == "os.add_dll_directory('C:\\\\other')"


def test_load_flags_do_not_explain_what_is_nowhere() -> None:
    machine = Windows({TOP: pe_image({"gone.dll": ["f"]}, dependent_load_flags=0x800)})
    assert output(machine.case(126))[0] == "missing-image"


def test_media_foundation() -> None:
    case = Windows({TOP: pe_image({"MFPlat.DLL": ["MFStartup"]})}).case(126)
    assert output(case) == ("missing-windows-feature", "MFPlat.DLL", Confidence.CERTAIN)
    assert any("MediaFeaturePack" in " ".join(remedy.command) for remedy in first(case).remedies)


@pytest.mark.parametrize(
    "name",
    ["VCRUNTIME140D.dll", "ucrtbased.dll", "MSVCP140D.dll", "MSVCP140_1D.dll", "mfc140ud.dll", "vcomp120d.dll",
     "vcruntime140_threadsd.dll"],
)
def test_debug_runtimes(name: str) -> None:
    assert output(Windows({TOP: pe_image({name: ["f"]})}).case(126)) == ("debug-build", name, Confidence.CERTAIN)


@pytest.mark.parametrize("name", ["MSVCP140.dll", "VCRUNTIME140_1.dll", "concrt140.dll", "MSVCP120.dll", "mfc140u.dll"])
def test_runtimes(name: str) -> None:
    assert output(Windows({TOP: pe_image({name: ["f"]})}).case(126)) == ("missing-vc-runtime", name, Confidence.CERTAIN)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("python310.dll", "Python 3.10"),
        ("python3_d.dll", "a debug build of Python 3"),
        ("python313t.dll", "free-threaded Python 3.13"),
    ],
)
def test_other_pythons(name: str, words: str) -> None:
    case = Windows({TOP: pe_image({name: ["PyModule_Create2"]})}).case(126)
    assert output(case) == ("other-libpython", TOP, Confidence.CERTAIN)
    assert words in first(case).title


@pytest.mark.parametrize("name", ["python3.dll", "python311.dll"])
def test_a_dll_of_this_very_python_is_missing(name: str) -> None:
    """A bundle has left it out: the module fits."""
    case = Windows({TOP: pe_image({name: ["PyModule_Create2"]})}).case(126)
    assert output(case) == ("incomplete-python", name, Confidence.CERTAIN)
    assert len(diagnose(case).findings) == 1


@pytest.mark.parametrize(
    ("name", "is_free_threaded", "words"),
    [
        ("python3t.dll", False, "free-threaded Python 3, and this is Python 3.11"),
        ("python3.dll", True, "the usual build of Python 3, and this is free-threaded Python 3.11"),
    ],
)
def test_the_limited_api_of_another_kind_of_build(name: str, is_free_threaded: bool, words: str) -> None:
    facts = replace(PROCESS, is_free_threaded=is_free_threaded)
    case = Windows({TOP: pe_image({name: ["PyModule_Create2"]})}, facts=facts).case(126)
    assert output(case) == ("other-libpython", TOP, Confidence.CERTAIN)
    assert words in first(case).title and "limited API" in first(case).explanation


@pytest.mark.parametrize("code", [0xC06D007E, 0xC06D007F])
def test_the_delay_load_helper_names_what_it_wanted(code: int) -> None:
    machine = Windows({TOP: pe_image(delayed=["later.dll", "other.dll"])})
    crash = replace(
        died(code, f"{SYSTEM}\\kernelbase.dll", "delay-loaded"), wanted="later.dll", wanted_symbol="compute",
        wanted_by=TOP, reason=126,
    )  # fmt: skip
    case = machine.case(crash=crash)
    expected = "missing-delayed-image" if code == 0xC06D007E else "missing-delayed-symbol"
    assert output(case) == (expected, "later.dll", Confidence.CERTAIN)
    assert first(case).chain[-1] == ("later.dll" if code == 0xC06D007E else "compute")
    assert len(diagnose(case).findings) == 1


def test_a_cplusplus_exception_has_its_type_and_text() -> None:
    crash = replace(
        died(0xE06D7363, f"{SYSTEM}\\kernelbase.dll", "C++ exception"), thrown=".?AVruntime_error@std@@",
        message="no device",
    )  # fmt: skip
    case = Windows({TOP: pe_image()}).case(crash=crash)
    assert output(case) == ("cpp-exception", TOP, Confidence.LIKELY)
    assert "std::runtime_error" in first(case).title and "no device" in first(case).title


def test_a_delayed_need_is_no_cause() -> None:
    assert diagnose(Windows({TOP: pe_image(delayed=["later.dll"])}).case(126)).outcome is Outcome.UNDECIDED


def test_a_delayed_need_is_the_cause_of_its_own_exception() -> None:
    machine = Windows({TOP: pe_image(delayed=["later.dll"])})
    case = machine.case(crash=died(0xC06D007E, f"{SYSTEM}\\kernelbase.dll", "delay-loaded DLL not found"))
    assert output(case) == ("missing-delayed-image", "later.dll", Confidence.LIKELY)


def test_what_was_seen_to_load_is_not_missing() -> None:
    """It came by a folder that native code added, of which nobody can tell."""
    machine = Windows({TOP: pe_image({"hidden.dll": ["f"], "gone.dll": ["f"]})})
    recording = Recording("debugger", (LoadEvent("D:\\added\\HIDDEN.dll"),))
    diagnosis = diagnose(machine.case(126, recording=recording))
    assert [finding.subject for finding in diagnosis.findings] == ["gone.dll"]


def test_a_crash_makes_nothing_missing() -> None:
    machine = Windows({TOP: pe_image({"gone.dll": ["f"]})})
    assert output(machine.case(crash=died(0xC0000005, TOP)))[0] == "crash-in-import"


# Functions that are not there.


def test_a_forwarder_of_windows_to_what_an_old_windows_lacks() -> None:
    machine = Windows(
        {
            TOP: pe_image({"icuuc.dll": ["ucnv_open"]}),
            f"{SYSTEM}\\icuuc.dll": pe_image(exports=[PeExport(1, "ucnv_open", "icu.ucnv_open")]),
        }
    )
    assert output(machine.case(127)) == ("missing-forwarder", "icu.dll", Confidence.CERTAIN)


def test_names_with_a_version() -> None:
    beside = f"{PYTHON}\\icuuc.dll"
    machine = Windows({TOP: pe_image({"icuuc.dll": ["ucnv_open"]}), beside: pe_image(exports=["ucnv_open_73"])})
    finding = first(machine.case(127))
    assert (finding.code, finding.subject) == ("missing-symbol", beside)
    assert any("ucnv_open_73" in evidence.says for evidence in finding.evidence)
    assert "folder of python.exe" in finding.explanation


def test_an_ordinal() -> None:
    from dlltracer.model.pe import PeImport, PeSymbol

    image = pe_image(imports=None)
    top = type(image)(**{**vars(image), "imports": (PeImport("omp.dll", (PeSymbol(None, 242),)),)})
    machine = Windows({TOP: top, f"{SYSTEM}\\omp.dll": pe_image()})
    for code in (127, 182):
        finding = first(machine.case(code))
        assert (finding.code, finding.confidence) == ("missing-symbol", Confidence.CERTAIN)
        assert "ordinal 242" in finding.title


def test_windows_too_old_for_a_function() -> None:
    machine = Windows({TOP: pe_image({"bcrypt.dll": ["NewCall"]}), f"{SYSTEM}\\bcrypt.dll": pe_image()})
    case = machine.case(127, windows_own=frozenset({"bcrypt.dll"}))
    assert output(case) == ("windows-too-old", f"{SYSTEM}\\bcrypt.dll", Confidence.CERTAIN)


def test_first_wins_names_the_import() -> None:
    old = "C:\\site\\old\\shared.dll"
    machine = Windows(
        {TOP: pe_image({"shared.dll": ["newer"]}), f"{SITE}\\shared.dll": pe_image(exports=["newer"]), old: pe_image()},
        loaded=(old,),
    )
    recording = Recording("debugger", (LoadEvent(old, imports=("old", "old._one")),))
    copies = {"shared.dll": (Copy(f"{SITE}\\shared.dll", "a package on sys.path", None, True),)}
    finding = first(machine.case(127, recording=recording, copies=copies))
    assert (finding.code, finding.subject, finding.confidence) == ("first-wins", old, Confidence.CERTAIN)
    assert "import old._one" in finding.title


# The Visual C++ runtime.


def old_runtime(imports: tuple[str, ...] = LOCKING, version: int = 28, linker: int = 42) -> Windows:
    return Windows(
        {
            TOP: pe_image({"MSVCP140.dll": imports}, linker_version=(14, linker)),
            f"{PYTHON}\\msvcp140.dll": pe_image(exports=RUNTIME, version=(14, version, 29334, 0)),
        }
    )


def test_the_sharp_sign_with_a_crash_in_the_runtime() -> None:
    runtime = f"{PYTHON}\\msvcp140.dll"
    case = old_runtime().case(crash=died(0xC0000005, runtime))
    finding = first(case)
    assert (finding.code, finding.confidence) == ("vc-runtime-too-old", Confidence.LIKELY)
    assert finding.subject.lower() == runtime.lower()


@pytest.mark.parametrize("code", [1114, 998])
def test_an_old_runtime_and_a_failed_initialiser(code: int) -> None:
    assert output(old_runtime(("f",)).case(code, initialising=TOP))[0] == "vc-runtime-too-old"


def test_an_old_runtime_is_not_blamed_for_a_crash_elsewhere() -> None:
    diagnosis = diagnose(old_runtime().case(crash=died(0xC0000005, TOP)))
    assert diagnosis.findings[0].code == "crash-in-import"
    (runtime,) = [finding for finding in diagnosis.findings if finding.code == "vc-runtime-too-old"]
    assert runtime.confidence is Confidence.POSSIBLE


@pytest.mark.parametrize(("version", "linker", "imports"), [(44, 42, LOCKING), (42, 42, ("f",)), (40, 29, LOCKING)])
def test_a_runtime_that_is_new_enough(version: int, linker: int, imports: tuple[str, ...]) -> None:
    diagnosis = diagnose(old_runtime(imports, version, linker).case(1114))
    assert [finding.code for finding in diagnosis.findings] == ["initialiser-failed"]


def test_code_that_initialises_its_mutexes_needs_no_new_runtime() -> None:
    machine = old_runtime((*LOCKING, "_Mtx_init_in_situ"), version=29, linker=29)
    assert [finding.code for finding in diagnose(machine.case(1114)).findings] == ["initialiser-failed"]


@pytest.mark.parametrize(
    ("code", "found"), [(126, []), (193, []), (5, ["access-denied"]), (1455, ["out-of-memory"])]
)
def test_an_old_runtime_explains_no_other_code(code: int, found: list[str]) -> None:
    assert [finding.code for finding in diagnose(old_runtime().case(code)).findings] == found


def test_an_illegal_instruction_is_not_the_runtimes_fault() -> None:
    case = old_runtime().case(crash=died(0xC000001D, f"{PYTHON}\\msvcp140.dll", "illegal instruction"))
    assert [finding.code for finding in diagnose(case).findings] == ["illegal-instruction"]


def test_other_linkers_tell_nothing() -> None:
    machine = Windows(
        {
            TOP: pe_image({"MSVCP140.dll": ["f"]}, linker_version=(2, 35)),
            f"{PYTHON}\\msvcp140.dll": pe_image(exports=RUNTIME, version=(14, 0, 23026, 0)),
        }
    )
    assert [finding.code for finding in diagnose(machine.case(1114)).findings] == ["initialiser-failed"]
