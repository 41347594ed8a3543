"""What Windows' codes and words become. Which code a text stands for does not depend on its language."""

from __future__ import annotations

import pytest

from builders.windows_case import PROCESS, TOP, Windows, pe_image
from dlltracer.api.explain import is_loader_failure
from dlltracer.api.failed_load import loaded_before, read_windows_failure
from dlltracer.diagnose.engine import diagnose
from dlltracer.diagnose.windows_load import LoadError, bundled_texts, classify_code, known_win32_codes
from dlltracer.host.failure import parse_answer
from dlltracer.model.events import LoadEvent, UnloadEvent
from dlltracer.model.failure import Frame, PythonError
from dlltracer.model.finding import Confidence, Outcome
from dlltracer.model.pe import AssemblyReference, PeResources
from dlltracer.model.recording import Recording
from dlltracer.model.request import Request, RequestKind
from dlltracer.model.run import RunResult

HEALTHY = Windows({TOP: pe_image()})
BROKEN = Windows({TOP: pe_image({"gone.dll": ["f"]})})
MARK = "DLL load failed while importing ext: "


def verdict(code: int, machine: Windows = HEALTHY, **more: object) -> tuple[str, Confidence]:
    first = diagnose(machine.case(code, **more)).findings[0]
    return first.code, first.confidence


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (5, "access-denied"),
        (32, "access-denied"),
        (225, "blocked-by-policy"),
        (226, "blocked-by-policy"),
        (577, "blocked-by-policy"),
        (1260, "blocked-by-policy"),
        (4551, "blocked-by-policy"),
        (0x800711C7, "blocked-by-policy"),
        (8, "out-of-memory"),
        (14, "out-of-memory"),
        (1450, "out-of-memory"),
        (1455, "out-of-memory"),
        (998, "invalid-access"),
        (1114, "initialiser-failed"),
        (1150, "windows-too-old"),
        (14001, "side-by-side"),
    ],
)
def test_a_code_that_says_it_all(code: int, expected: str) -> None:
    assert verdict(code)[0] == expected


@pytest.mark.parametrize("code", known_win32_codes())
def test_no_code_makes_a_firm_verdict_of_healthy_files(code: int) -> None:
    """Where only the files could tell, and they show nothing wrong, nothing is said."""
    of_files = {LoadError.NOT_FOUND, LoadError.SYMBOL_NOT_FOUND, LoadError.BAD_IMAGE, LoadError.BAD_PATH}
    found = diagnose(HEALTHY.case(code))
    if classify_code(code).error in of_files or code == 206:  # ERROR_FILENAME_EXCED_RANGE: a short path is no proof
        assert (found.findings, found.outcome) == ((), Outcome.UNDECIDED)
    else:
        assert len(found.findings) == 1 and found.outcome is Outcome.EXPLAINED


def test_182_without_a_missing_ordinal_is_undecided() -> None:
    assert diagnose(HEALTHY.case(182)).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (None, []), (5, ["access-denied"]), (193, []), (1114, ["initialiser-failed"]), (1455, ["out-of-memory"]),
        (4551, ["blocked-by-policy"]),
    ],
)  # fmt: skip
def test_a_missing_need_is_no_verdict_when_windows_said_something_else(code: int | None, found: list[str]) -> None:
    case = BROKEN.case(code, "initialization of ext raised unreported exception")
    assert [finding.code for finding in diagnose(case).findings] == found


def test_the_policies_name_where_to_look() -> None:
    text = str(diagnose(HEALTHY.case(4551)).findings[0])
    assert "CodeIntegrity" in text and "3077" in text


def test_the_assembly_is_named() -> None:
    image = pe_image(resources=PeResources(assemblies=(AssemblyReference("Microsoft.VC90.CRT", "9.0.21022.8"),)))
    (finding,) = diagnose(Windows({TOP: image}).case(14001)).findings
    assert "Microsoft.VC90.CRT 9.0.21022.8" in finding.explanation


def test_206_of_a_long_path() -> None:
    long = "C:\\" + "x" * 260 + "\\ext.pyd"
    case = HEALTHY.case(206, subject=long)
    (finding,) = diagnose(case).findings
    assert (finding.code, finding.confidence, finding.subject) == ("path-too-long", Confidence.CERTAIN, long)


def test_206_of_many_folders() -> None:
    folders = tuple(f"C:\\site\\package number {number}\\.libs" for number in range(1000))
    machine = Windows({TOP: pe_image()}, added_folders=folders)
    assert verdict(206, machine) == ("too-many-folders", Confidence.CERTAIN)


def test_206_of_a_short_path_and_few_folders_is_undecided() -> None:
    assert diagnose(HEALTHY.case(206)).outcome is Outcome.UNDECIDED


LANGUAGES = sorted(key for key in bundled_texts() if key[0] in (126, 127, 193, 1114))


@pytest.mark.parametrize(("code", "language"), LANGUAGES)
def test_localised_words_get_the_same_code(code: int, language: str) -> None:
    words = bundled_texts()[code, language].replace("%1", "ext.pyd")
    error = PythonError("ImportError", MARK + words, ("ImportError",), "ext", TOP)
    failed = read_windows_failure(error, PROCESS)
    assert (failed.code, failed.is_guess, failed.subject) == (code, True, TOP)


@pytest.mark.parametrize("language", [language for code, language in LANGUAGES if code == 126])
def test_localised_words_get_the_same_verdict(language: str) -> None:
    error = PythonError("ImportError", MARK + bundled_texts()[126, language], ("ImportError",), "ext", TOP)
    failed = read_windows_failure(error, PROCESS)
    (finding,) = diagnose(BROKEN.case(failed.code, error.message, code_is_guess=failed.is_guess)).findings
    assert (finding.code, finding.subject, finding.confidence) == ("missing-image", "gone.dll", Confidence.LIKELY)


def test_unknown_words_still_are_a_failed_load() -> None:
    failed = read_windows_failure(PythonError("ImportError", MARK + "???", ("ImportError",), "ext", TOP), PROCESS)
    assert failed.code is None
    (finding,) = diagnose(BROKEN.case(None, MARK + "???")).findings
    assert (finding.code, finding.confidence) == ("missing-image", Confidence.LIKELY)


def of_load(message: str, file: str, function: str, code: int | None = None) -> PythonError:
    return PythonError("OSError", message, ("OSError",), code=code, frames=(Frame(file, 1, function),))


CTYPES = "C:\\Python\\Lib\\ctypes\\__init__.py"


def test_ctypes_hides_126() -> None:
    text = "Could not find module 'C:\\x\\y.dll' (or one of its dependencies). Try using the full path"
    failed = read_windows_failure(of_load(text, CTYPES, "__init__"), PROCESS)
    assert (failed.subject, failed.code) == ("C:\\x\\y.dll", 126)


def test_what_ctypes_asked_for_last_is_the_subject() -> None:
    asked = [
        Request(RequestKind.CTYPES, "kernel32", ("a",), 1, 0.0, 1, succeeded=True),
        Request(RequestKind.CTYPES, "C:\\x.dll", ("a", "b"), 1, 0.0, 2, succeeded=False),
        Request(RequestKind.CTYPES, "user32", (), 1, 0.0, 3, succeeded=True),
    ]
    failed = read_windows_failure(of_load("[WinError 193] ...", CTYPES, "__init__", 193), PROCESS, asked)
    assert (failed.subject, failed.code, failed.imports) == ("C:\\x.dll", 193, ("a", "b"))


def test_cffi_names_the_code() -> None:
    failed = read_windows_failure(of_load("cannot load library 'foo.dll': error 0x7e", "api.py", "dlopen"), PROCESS)
    assert (failed.subject, failed.code) == ("foo.dll", 126)


def test_a_folder_too_many() -> None:
    failed = read_windows_failure(
        of_load("[WinError 206]", "C:\\Python\\Lib\\os.py", "add_dll_directory", 206), PROCESS
    )
    assert (failed.subject, failed.code) == (None, 206)


@pytest.mark.parametrize("code", [2, 5, 8])
def test_an_error_of_open_is_no_failed_load(code: int) -> None:
    assert read_windows_failure(of_load("no such file", "C:\\app\\settings.py", "read", code), PROCESS).code is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (of_load("Could not find module 'C:\\x.dll' (or one of its dependencies).", CTYPES, "__init__"), True),
        (of_load("[WinError 193] ...", CTYPES, "__init__", 193), True),
        (of_load("cannot load library 'foo.dll': error 0x7e", "api.py", "dlopen"), True),
        (of_load("no such file", "C:\\app\\settings.py", "read", 2), False),
        (PythonError("OSError", "no traceback", ("OSError",)), False),
    ],
)
def test_which_errors_of_the_system_have_a_loader_behind_them(error: PythonError, expected: bool) -> None:
    """What ends a program is explained by itself (`install`, `run`) only then: any program may miss a file."""
    assert is_loader_failure(RunResult(errors=(error,), process=PROCESS)) is expected


def test_an_import_error_of_a_package_has_no_code() -> None:
    error = PythonError("ImportError", "cannot import name 'x' from 'y'", ("ImportError",), "y", "C:\\y.py")
    assert read_windows_failure(error, PROCESS).code is None


def test_after_a_crash_the_last_request_is_the_subject() -> None:
    asked = [Request(RequestKind.EXTENSION, path, (path,), 1, 0.0, 1) for path in ("C:\\a.pyd", "C:\\b.pyd")]
    assert read_windows_failure(None, PROCESS, asked).subject == "C:\\b.pyd"
    assert read_windows_failure(None, PROCESS).subject is None


def test_the_images_before_the_subject() -> None:
    events = (
        LoadEvent("C:\\python.exe"), LoadEvent("C:\\a.dll"), LoadEvent("C:\\b.dll"), UnloadEvent("C:\\A.dll"),
        LoadEvent("C:\\ext.pyd"), LoadEvent("C:\\later.dll"),
    )  # fmt: skip
    recording = Recording("debugger", events)
    assert loaded_before(recording, "c:\\EXT.pyd") == ("C:\\python.exe", "C:\\b.dll")
    assert loaded_before(None, "x") == ()


def test_the_answer_of_a_reload() -> None:
    assert parse_answer(b"noise code 5 more\r\ncode 126.") == 126
    assert parse_answer(b"code 0.") == 0
    assert parse_answer(b"") is None
    assert parse_answer(b"code x.") is None
