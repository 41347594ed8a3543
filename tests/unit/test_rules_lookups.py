"""Rules about what a program looks up by itself, on cases made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from builders.failed_case import EXT, PYTHON, case, first, image, import_error, process, verdict
from dlltracer.diagnose.case import Case, Copy, MachineLimits
from dlltracer.diagnose.loader_errors import classify_exception
from dlltracer.diagnose.named_failure import find_named_failure
from dlltracer.model.elf import ElfSymbols
from dlltracer.model.environment import SEARCHED, CLibrary
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent
from dlltracer.model.failure import Frame, PythonError
from dlltracer.model.finding import Confidence, Outcome
from dlltracer.model.recording import Recording

FRAMES = (Frame("/site/usb/core.py", 3, "find", "raise NoBackendError"),)


def search(name: str, *imports: str) -> LoadFailedEvent:
    return LoadFailedEvent(name, need=name, kind=FailureKind.NAME_NOT_FOUND, imports=imports or ("usb", "usb.backend"))


def failed(error: PythonError, *events: LoadEvent | LoadFailedEvent, **changes: Any) -> Case:
    """A case as it is gathered, of one exception and a whole trace."""
    recording = Recording("rtld", events)
    output = classify_exception(error)
    dl_error = output if output.problem.name != "UNDECIDED" else None
    named = find_named_failure((error,), recording) if dl_error is None else None
    facts = {"error": error, "errors": (error,), "recording": recording, "dl_error": dl_error, "named": named}
    return case(None, **{**facts, "subject": None, "distribution": "debian", **changes})


def python_error(kind: str, message: str, *bases: str) -> PythonError:
    return PythonError(kind, message, (kind, *bases, "Exception"), frames=FRAMES)


def test_a_search_that_the_exception_names() -> None:
    found = first(failed(python_error("OSError", "PortAudio library not found"), search("portaudio")))
    assert (found.code, found.confidence, found.subject) == ("library-not-found", Confidence.CERTAIN, "portaudio")
    assert found.chain[-1] == "ctypes.util.find_library('portaudio')"


@pytest.mark.parametrize(
    ("message", "names", "subject", "package"),
    [
        ("PortAudio library not found", ("bin\\libportaudio-2.dll", "lib/libportaudio.dylib", "portaudio"), "portaudio",
         "libportaudio2"),
        ("The 'enchant' C library was not found", ("libenchant-1", "enchant-1", "enchant-2"), "enchant-2",
         "libenchant-2-2"),
        ("No hidden backend for Qzork found", ("lib/libqzork.dylib", "qzork"), "qzork", None),
    ],
)  # fmt: skip
def test_of_several_names_of_a_library_the_one_that_has_a_package_counts(
    message: str, names: tuple[str, ...], subject: str, package: str | None
) -> None:
    found = first(failed(python_error("OSError", message), *(search(name) for name in names)))
    assert (found.subject, found.confidence) == (subject, Confidence.CERTAIN)
    assert found.remedies[0].command[-1:] == (() if package is None else (package,))


def test_the_program_itself_was_asked_because_the_search_gave_nothing() -> None:
    error = python_error("AttributeError", f"{PYTHON}: undefined symbol: zbar_version")
    found = first(failed(error, search("zbar")))
    assert (found.code, found.confidence, found.subject) == ("library-not-found", Confidence.CERTAIN, "zbar")
    assert first(failed(error, search("dmtx"))).confidence is Confidence.LIKELY
    alone = verdict(failed(error)).findings
    assert [(one.code, one.confidence) for one in alone] == [("symbol-not-in-library", Confidence.LIKELY)]
    assert not any("import zbar_version" in step for step in alone[0].chain)


def test_an_exception_of_the_package_that_searched() -> None:
    found = first(failed(python_error("NoBackendError", "No backend available"), search("usb-1.0")))
    assert (found.code, found.confidence) == ("library-not-found", Confidence.LIKELY)


@pytest.mark.parametrize(
    ("message", "imports"),
    [("No backend available", ("PIL",)), ("usb wants Python 4", ("usb",)), ("the licence has expired", ("usb",))],
)
def test_an_exception_about_something_else_decides_nothing(message: str, imports: tuple[str, ...]) -> None:
    output = verdict(failed(python_error("RuntimeError", message), search("usb-1.0", *imports)))
    assert output.outcome is Outcome.UNDECIDED
    assert {one.confidence for one in output.findings} == {Confidence.POSSIBLE}


def test_a_search_that_succeeded_later_is_no_cause() -> None:
    found = (search("usb-1.0"), LoadEvent("/lib/libusb-1.0.so.0"))
    assert not verdict(failed(python_error("NoBackendError", "No backend available"), *found)).findings


def test_a_search_is_not_to_blame_for_a_load_that_failed() -> None:
    error = import_error("libgone.so.1: cannot open shared object file: No such file or directory")
    codes = {one.code for one in verdict(failed(error, search("usb-1.0"), subject=EXT)).findings}
    assert codes == {"missing-image"}


def test_a_module_that_was_not_found_is_not_about_a_search() -> None:
    error = PythonError("ModuleNotFoundError", "No module named 'usb'", ("ModuleNotFoundError", "ImportError"), "usb")
    assert [one.code for one in verdict(failed(error, search("usb-1.0"))).findings] == ["no-such-module"]


def test_a_symbol_that_a_library_does_not_have() -> None:
    library = "/usr/lib/libicuuc.so.73"
    error = python_error("AttributeError", f"{library}: undefined symbol: ucnv_open")
    symbols = image(symbols=ElfSymbols((), {"ucnv_open_73": (None,), "ucnv_close_73": (None,)}))
    found = first(failed(error, LoadEvent(library), images={library: symbols}, subject=library))
    assert (found.code, found.confidence, found.subject) == ("symbol-not-in-library", Confidence.CERTAIN, library)
    assert "ucnv_open_73" in found.explanation and "ucnv_close_73" not in found.explanation


def test_a_library_that_the_program_looked_for_itself() -> None:
    error = python_error("JVMNotFoundException", "No JVM shared library file (libjvm.so) found.", "ValueError")
    found = first(failed(error))
    assert (found.code, found.confidence, found.subject) == ("library-not-found", Confidence.LIKELY, "libjvm.so")
    assert process().executable not in found.explanation


@pytest.mark.parametrize(("library", "cached"), [("glibc", True), ("musl", False)])
def test_find_library_found_nothing_and_the_library_is_there(library: str, cached: bool) -> None:
    error = python_error("ImportError", "failed to find libmagic")
    copies = {"magic": (Copy("/usr/bin/magic", "a folder of PATH"), Copy("/usr/lib/libmagic.so.1", SEARCHED))}
    limits = MachineLimits(c_library=CLibrary(library, "1"))
    found = first(failed(error, search("magic"), copies=copies, limits=limits))
    assert found.title == "the library magic was not found by find_library, and is there: /usr/lib/libmagic.so.1"
    assert found.remedies[0].code == "import ctypes; ctypes.CDLL('libmagic.so.1')"
    assert (("ldconfig",) in [remedy.command for remedy in found.remedies]) is cached
    assert not any("install libmagic" in remedy.what for remedy in found.remedies)
