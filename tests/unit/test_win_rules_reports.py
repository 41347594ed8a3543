"""Failures as people report them on Windows, asked of the rules: runtimes, folders, searches by name, other systems."""

from __future__ import annotations

import ntpath
from dataclasses import replace
from pathlib import Path

import pytest

from builders.windows_case import PROCESS, TOP, Windows, pe_image
from dlltracer.api import failed_load
from dlltracer.api.failed_load import read_windows_failure
from dlltracer.diagnose.case import Case, Copy
from dlltracer.diagnose.engine import diagnose
from dlltracer.diagnose.program_output import read_output
from dlltracer.diagnose.rules.win_copies import OTHER_VERSION
from dlltracer.host.copies import find_other_versions
from dlltracer.model.events import LoadEvent
from dlltracer.model.failure import Frame, PythonError
from dlltracer.model.finding import Confidence, Finding, Outcome
from dlltracer.model.loader_context import LoadFlags
from dlltracer.model.recording import Recording
from dlltracer.model.request import Request, RequestKind
from dlltracer.model.run import ProgramOutput
from dlltracer.model.tree import Binding, BindingState, LoadTree

HEALTHY = Windows({TOP: pe_image()})
FOREIGN = "a package on sys.path"
HASHED = "libopenblas64_-c16e4918366c6bc1f1cd71e28ca36fc0.dll"
CTYPES = "C:\\Python\\Lib\\ctypes\\__init__.py"


def needs(name: str, *copies: str, where: str = FOREIGN, **facts: object) -> Finding:
    """The verdict on a module that needs a DLL which is nowhere where it is searched."""
    machine = Windows({TOP: pe_image({name: ["f"]})}, facts=replace(PROCESS, path=("C:\\site",), **facts))  # type: ignore[arg-type]
    found = tuple(Copy(copy, where) for copy in copies)
    return diagnose(machine.case(126, copies={name.lower(): found} if found else {})).findings[0]


def raised(kind: str, message: str, *frames: Frame, bases: tuple[str, ...] = (), **more: object) -> Case:
    """The case of an exception that is no ImportError of the loader."""
    code = more.pop("code", None)
    error = PythonError(kind, message, (kind, *bases, "Exception"), frames=frames, code=code)  # type: ignore[arg-type]
    return HEALTHY.case(None, error=error, errors=(error,), subject=None, tree=None, **more)


def wrote(text: str, status: int, *loads: LoadEvent, **more: object) -> Case:
    """The case of a process that ended itself after it had written a text."""
    case = replace(HEALTHY.case(None, **more), error=None, messages=read_output(text))
    run = replace(
        case.run, errors=(), status=status, completed=False, output=ProgramOutput(stderr=text),
        recording=Recording("debugger", loads),
    )  # fmt: skip
    return replace(case, run=run)


def words_of(finding: Finding) -> str:
    remedies = (f"{one.what} {' '.join(one.command)} {one.code}" for one in finding.remedies)
    return "\n".join((finding.title, finding.explanation, *remedies))


# Runtimes and drivers, of which another package's copy is no substitute.


@pytest.mark.parametrize(
    "name", ["MSVCP140.dll", "VCRUNTIME140_1.dll", "vcomp140.dll", "concrt140.dll", "msvcr120.dll", "mfc140u.dll"]
)
@pytest.mark.parametrize("where", [FOREIGN, "a folder of PATH"])
def test_a_runtime_of_which_another_package_has_a_copy(name: str, where: str) -> None:
    finding = needs(name, f"C:\\site\\pyarrow\\{name}", where=where, environment=(("PATH", "C:\\site\\pyarrow"),))
    assert (finding.code, finding.confidence) == ("missing-vc-runtime", Confidence.CERTAIN)
    assert "add_dll_directory" not in words_of(finding) and "edistributable" in words_of(finding)
    assert any("no substitute" in evidence.says for evidence in finding.evidence)


def test_a_runtime_of_which_its_own_package_has_a_copy() -> None:
    finding = needs("vcomp140.dll", "C:\\site\\pkg\\.libs\\vcomp140.dll")
    assert finding.code == "folder-not-searched" and finding.remedies[0].code.startswith("os.add_dll_directory")


def test_the_universal_runtime_can_be_installed_and_other_contracts_cannot() -> None:
    crt, core = needs("api-ms-win-crt-runtime-l1-1-0.dll"), needs("api-ms-win-core-path-l1-1-0.dll")
    assert crt.code == "missing-vc-runtime" and "KB2999226" in words_of(crt)
    assert core.code == "windows-too-old" and "KB2999226" not in words_of(core)


def test_the_copy_of_a_driver_in_a_package_is_no_driver() -> None:
    finding = needs("nvcuda.dll", "C:\\site\\other\\nvcuda.dll")
    assert "driver" in finding.title and "add_dll_directory" not in words_of(finding)


# Names that tools of wheels made, and names that nobody knows.


def test_a_library_of_the_package_itself_that_is_gone() -> None:
    assert "install the package of ext.pyd again" in needs(HASHED).remedies[0].what


def test_a_library_of_the_package_itself_whose_folder_was_not_added() -> None:
    finding = needs(HASHED, f"C:\\site\\pkg.libs\\{HASHED}")
    assert finding.code == "folder-not-searched" and "delvewheel" in finding.explanation


def test_what_nobody_knows_has_a_next_step() -> None:
    assert "documentation of ext " in needs("vendor7.dll").remedies[0].what


def test_another_version_of_the_library() -> None:
    machine = Windows({TOP: pe_image({"gdal304.dll": ["f"]})})
    copies = {"gdal304.dll": (Copy("C:\\OSGeo4W\\bin\\gdal309.dll", "a folder of PATH", OTHER_VERSION),)}
    finding = diagnose(machine.case(126, copies=copies)).findings[0]
    assert finding.code == "missing-image" and "gdal309.dll: another version" in finding.explanation
    assert "versions that belong together" in finding.remedies[0].what


def test_names_that_differ_in_numbers_only(tmp_path: Path) -> None:
    for name in ("gdal309.dll", "GDAL304.dll", "gdal.dll", "gdal3x.dll", "xgdal309.dll"):
        (tmp_path / name).write_bytes(b"")
    facts = replace(PROCESS, environment=(("PATH", str(tmp_path)),))
    assert [Path(one.path).name for one in find_other_versions("gdal304.dll", facts)] == ["gdal309.dll"]
    assert find_other_versions("gdal.dll", facts) == () == find_other_versions(HASHED, facts)


# conda behind a virtual environment.


def test_a_virtual_environment_made_from_the_python_of_conda() -> None:
    library = "C:\\conda\\Library\\bin\\libssl-3-x64.dll"
    finding = needs(
        "libssl-3-x64.dll", library, where="the conda environment", prefix="C:\\venv", base_prefix="C:\\conda"
    )
    assert finding.code == "conda-not-activated"
    assert finding.remedies[0].command == ("conda", "activate", "C:\\conda")
    assert finding.remedies[1].code == "os.add_dll_directory('C:\\\\conda\\\\Library\\\\bin')"
    active = needs(
        "libssl-3-x64.dll", library, where="the conda environment", prefix="C:\\venv", base_prefix="C:\\conda",
        environment=(("CONDA_PREFIX", "C:\\conda"),),
    )  # fmt: skip
    assert active.code == "folder-not-searched"


# The last words of a runtime.


def test_two_openmp_runtimes() -> None:
    text = "OMP: Error #15: Initializing libiomp5md.dll, but found libiomp5md.dll already initialized.\nOMP: Hint\n"
    one = LoadEvent("C:\\conda\\Library\\bin\\libiomp5md.dll", imports=("numpy",))
    two = LoadEvent("C:\\site\\torch\\lib\\libiomp5md.dll", imports=("torch",))
    (finding,) = diagnose(wrote(text, 3, one, two)).findings
    assert (finding.code, finding.confidence) == ("two-openmp-runtimes", Confidence.CERTAIN)
    assert "brought by import numpy" in finding.explanation and two.path in finding.explanation
    assert all("KMP_DUPLICATE" not in " ".join(remedy.command) for remedy in finding.remedies)


@pytest.mark.parametrize("begin", ["INTEL MKL", "Intel oneMKL"])
def test_mkl_without_its_threads(begin: str) -> None:
    text = f"{begin} FATAL ERROR: Cannot load mkl_intel_thread.2.dll.\n"
    (finding,) = diagnose(wrote(text, 2)).findings
    assert (finding.code, finding.subject) == ("missing-at-runtime", "mkl_intel_thread.2.dll")


@pytest.mark.parametrize(
    ("place", "folder"), [("C:\\mkl_def.2.dll", "C:\\"), ("D:\\x/bin\\a/mkl_def.2.dll", "D:\\x/bin\\a")]
)
def test_the_folder_of_what_mkl_did_not_find_is_one_for_path(place: str, folder: str) -> None:
    # "C:" alone would be the current folder of the drive ("Naming Files, Paths, and Namespaces", MS Learn).
    text = "INTEL MKL FATAL ERROR: Cannot load MKL_def.2.dll.\n"
    (finding,) = diagnose(wrote(text, 2, copies={"mkl_def.2.dll": (Copy(place, "PATH"),)})).findings
    assert f"put {folder} in front of PATH" in finding.remedies[0].what


def test_mkl_that_lacks_a_symbol_names_no_file() -> None:
    text = "Intel MKL FATAL ERROR: Cannot load symbol MKLMPI_Get_wrappers.\n"
    assert [one.code for one in diagnose(wrote(text, 2)).findings] == ["exit-in-import"]


@pytest.mark.parametrize("status", [3, 0xC0000409])
def test_qt_without_its_plug_in(status: int) -> None:
    text = 'qt.qpa.plugin: Could not find the Qt platform plugin "windows" in ""\n'
    facts = replace(PROCESS, environment=(("QT_PLUGIN_PATH", "C:\\Anaconda\\plugins"),))
    (finding,) = diagnose(wrote(text, status, process=facts)).findings
    assert finding.code == "qt-platform-plugin" and "without QT_PLUGIN_PATH" in finding.remedies[0].what


def test_a_plug_in_with_a_hyphen_in_its_name() -> None:
    text = 'qt.qpa.plugin: Could not find the Qt platform plugin "wayland-egl" in ""\n'
    assert diagnose(wrote(text, 3)).findings[0].code == "qt-platform-plugin"


def test_a_plug_in_that_is_there() -> None:
    text = 'qt.qpa.plugin: Could not load the Qt platform plugin "windows" in "C:\\x" even though it was found.\n'
    plugin = LoadEvent("C:\\x\\platforms\\qwindows.dll")
    (finding,) = diagnose(wrote(text, 3, plugin)).findings
    assert finding.subject == plugin.path and finding.remedies[0].command == ("dlltracer", "why", plugin.path)


# Searches that the program makes itself.


def test_a_function_that_a_library_of_another_program_lacks() -> None:
    asked = Request(RequestKind.CTYPES, "zlib1.dll", (), 1, 0.0, 1, succeeded=True)
    frames = Frame("C:\\app\\pkg.py", 3, "<module>", "z.compress9"), Frame(CTYPES, 393, "__getattr__")
    case = raised("AttributeError", "function 'compress9' not found", *frames, requests=(asked,))
    assert (finding := diagnose(case).findings[0]).code == "symbol-not-in-library"
    assert (finding.subject, finding.confidence) == ("zlib1.dll", Confidence.CERTAIN)
    kernel = replace(asked, target="kernel32", imports=("pkg", "ctypes"))
    ours = replace(asked, target="kernel32.dll", flags=0x800)
    mine = raised("AttributeError", "function 'compress9' not found", *frames, requests=(asked, kernel, ours))
    assert diagnose(mine).findings[0].confidence is Confidence.CERTAIN  # ctypes asks for that one by itself
    both = (asked, replace(kernel, imports=("pkg",)))
    two = raised(
        "AttributeError", "function 'compress9' not found", *frames, requests=both,
        windows_own=frozenset({"kernel32.dll"}),
    )  # fmt: skip
    finding = diagnose(two).findings[0]
    assert (finding.subject, finding.confidence) == ("zlib1.dll", Confidence.LIKELY)
    other = raised("AttributeError", "function 'compress9' not found", frames[0], requests=(asked,))
    assert diagnose(other).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize(
    ("source", "title"),
    [
        ("lib = ctypes.CDLL(ctypes.util.find_library('usb-1.0'))", "the library usb-1.0 was not found"),
        ("lib = ctypes.CDLL(path)", "pkg.py, line 3 loads a library that was not found before"),
    ],
)
def test_none_from_find_library(source: str, title: str) -> None:
    frames = Frame("C:\\app\\pkg.py", 3, "<module>", source), Frame(CTYPES, 366, "__init__")
    finding = diagnose(raised("TypeError", "argument of type 'NoneType' is not iterable", *frames)).findings[0]
    assert (finding.code, finding.title) == ("library-not-found", title)


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        ("ImportError", "failed to find libmagic.  Check your installation", "python-magic-bin"),
        ("ImportError", "Unable to find zbar shared library", "pyzbar"),
        ("ImportError", "MagickWand shared library not found.", "imagemagick.org"),
        ("ImportError", "The 'enchant' C library was not found.", "pyenchant"),
        ("OSError", "PortAudio library not found", "sounddevice"),
        ("OSError", "Cannot find mpv-1.dll, mpv-2.dll or libmpv-2.dll in your system %PATH%.", "mpv.io"),
    ],
)
def test_a_library_that_the_program_reports_as_missing(kind: str, text: str, wanted: str) -> None:
    finding = diagnose(raised(kind, text)).findings[0]
    assert (finding.code, finding.confidence) == ("library-not-found", Confidence.LIKELY)
    assert wanted in words_of(finding)


@pytest.mark.parametrize(
    ("text", "file", "wanted"),
    [
        ("No backend available", "C:\\site\\usb\\core.py", "libusb-package"),
        ("no library found", "C:\\site\\sounddevice.py", "sounddevice"),
        ('DPI-1047: Cannot locate a 64-bit Oracle Client library: "..."', "C:\\app.py", "Oracle Instant Client"),
    ],
)
def test_a_library_that_is_known_by_the_package_or_other_words(text: str, file: str, wanted: str) -> None:
    finding = diagnose(raised("NoBackendError", text, Frame(file, 1, "f"))).findings[0]
    assert finding.confidence is Confidence.LIKELY and wanted in words_of(finding)


@pytest.mark.parametrize(
    "text",
    [
        "numpy.core.multiarray failed to import", "cannot import name 'x' from 'y'", "no licence could be found",
        "the library is not licensed for this machine", "could not find a version of libraries that fits",
    ],
)  # fmt: skip
def test_words_that_name_no_library(text: str) -> None:
    assert diagnose(raised("ImportError", text)).outcome is Outcome.UNDECIDED


@pytest.mark.parametrize(
    ("code", "folder", "wanted"),
    [(87, "lib", "os.add_dll_directory(os.path.abspath('lib'))"), (3, "C:\\CUDA\\v11\\bin", "CUDA_PATH")],
)
def test_a_folder_that_cannot_be_added(code: int, folder: str, wanted: str) -> None:
    text = f"[WinError {code}] The system says no: {folder!r}"
    frames = Frame("C:\\app\\pkg.py", 3, "<module>"), Frame("C:\\Python\\Lib\\os.py", 1111, "add_dll_directory")
    finding = diagnose(raised("OSError", text, *frames, code=code)).findings[0]
    assert (finding.code, finding.subject, finding.confidence) == ("no-such-file", folder, Confidence.CERTAIN)
    assert wanted in words_of(finding)


# Requests for files by name and path.


def requested(need: str, *copies: str, others: tuple[str, ...] = ()) -> Finding:
    """The verdict on a request of ctypes for a name or path that is not there."""
    tree = LoadTree(need, {}, (Binding(need, "", BindingState.MISSING),))
    asked = tuple(Request(RequestKind.CTYPES, one, (), 1, 0.0, 1, succeeded=False) for one in (*others, need))
    found = {ntpath.basename(need).lower(): tuple(Copy(copy, FOREIGN) for copy in copies)} if copies else {}
    facts = replace(PROCESS, current_folder="C:\\work")
    case = HEALTHY.case(126, subject=need, tree=tree, requests=asked, copies=found, process=facts)
    return diagnose(case).findings[0]


def test_a_library_of_linux() -> None:
    finding = requested("libc.so.6")
    assert "a library of Linux" in finding.title and "add_dll_directory" not in words_of(finding)
    assert "Linux" not in requested("libfoo.so", others=("foo.dll",)).title


def test_a_name_with_a_known_source() -> None:
    assert "pip install nvidia-cublas-cu12" in words_of(requested("cublas64_12.dll"))
    assert "mingw-w64-x86_64-pango" in words_of(requested("gobject-2.0-0"))


def test_a_relative_path_starts_from_the_current_folder() -> None:
    finding = requested("lib/core.dll", "C:\\app\\lib\\core.dll")
    assert "C:\\work" in finding.explanation and "add_dll_directory" not in words_of(finding)
    assert "C:\\app\\lib\\core.dll" in finding.remedies[0].what and "__file__" in finding.remedies[1].what
    assert not any(one.code for one in finding.remedies)  # a trial would run it before the import, which proves nothing


def test_a_relative_path_that_ctypes_made_whole() -> None:
    need = "C:\\work\\lib\\core.dll"
    line = Frame("C:\\app\\use.py", 2, "<module>", "ctypes.WinDLL('lib/core.dll')")
    error = PythonError("FileNotFoundError", f"Could not find module {need!r}", ("OSError",), frames=(line,))
    tree = LoadTree(need, {}, (Binding(need, "", BindingState.MISSING),))
    facts = replace(PROCESS, current_folder="C:\\work")
    case = HEALTHY.case(126, subject=need, tree=tree, error=error, errors=(error,), process=facts)
    assert "'lib/core.dll'" in diagnose(case).findings[0].remedies[0].what


def test_a_whole_path_is_not_searched_for() -> None:
    finding = requested("C:\\app\\core.dll", "D:\\else\\core.dll")
    assert finding.code == "no-such-file" and "add_dll_directory" not in words_of(finding)


def test_of_several_names_that_cffi_tried_the_one_of_windows_counts() -> None:
    text = "\n".join(
        f"cannot load library {name!r}: error 0x7e" for name in ("libcairo-2.dll", "libcairo.so.2", "libcairo.2.dylib")
    )
    error = PythonError("OSError", f"no library called cairo was found\n{text}", ("OSError",))
    found = read_windows_failure(error, PROCESS)
    assert (found.subject, found.code) == ("libcairo-2.dll", 126)


@pytest.mark.parametrize("code", [5, 8, 32, 126, 127, 182, 206, 225, 998, 1114, 1260, 1455, 1920, 4551, 14001])
def test_an_os_error_of_a_loader_of_torch(code: int) -> None:
    """Its own code calls LoadLibraryExW, and makes the error of GetLastError."""
    path = "C:\\site\\torch\\lib\\c10.dll"
    text = f'[WinError {code}] Whatever. Error loading "{path}" or one of its dependencies.'
    line = Frame("C:\\site\\torch\\__init__.py", 148, "<module>", "raise err")
    error = PythonError("OSError", text, ("OSError", "Exception"), frames=(line,), code=code)
    found = read_windows_failure(error, PROCESS)
    assert (found.subject, found.code) == (path, code)


@pytest.mark.parametrize("code", [5, 32, 1455])
def test_an_os_error_of_no_loader(code: int) -> None:
    text = f"[WinError {code}] Whatever: 'C:\\site\\torch\\lib\\c10.dll'"
    line = Frame("C:\\Python\\Lib\\shutil.py", 1, "copyfile", "os.remove(path)")
    error = PythonError("PermissionError", text, ("PermissionError", "OSError"), frames=(line,), code=code)
    found = read_windows_failure(error, PROCESS)
    assert (found.subject, found.code) == (None, None)


@pytest.mark.parametrize(
    ("words", "is_there", "expected"),
    [
        ("due to system error 126: ...", True, ("C:\\o\\driver.dll", 126)),
        ("due to system error 126: ...", False, (None, None)),
        ("The specified procedure could not be found.", True, ("C:\\o\\driver.dll", 127)),
        ("error 28000: wrong password", True, (None, None)),
        ("nothing said", True, (None, None)),
    ],
)
def test_a_driver_that_native_code_names(
    words: str, is_there: bool, expected: tuple[str | None, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failed_load, "is_file", lambda path: is_there and path == "C:\\o\\driver.dll")
    text = f"('IM003', '[IM003] {words} (X, C:\\o\\driver.dll). (160)')"
    found = read_windows_failure(PythonError("Error", text, ("Error", "Exception")), PROCESS)
    assert (found.subject, found.code) == expected


def test_the_need_of_a_driver_is_searched_for_in_path() -> None:
    machine = Windows({TOP: pe_image({"client.dll": ["f"]})})
    copies = {"client.dll": (Copy("D:\\client\\client.dll", FOREIGN),)}
    finding = diagnose(machine.case(126, copies=copies, load_flags=LoadFlags.ALTERED_SEARCH_PATH)).findings[0]
    assert finding.code == "folder-not-searched" and "winmode" not in words_of(finding)
    assert finding.remedies[0].what == "put D:\\client on PATH before the program starts"


@pytest.mark.parametrize(
    ("exports", "words"),
    [(("PyInit_other", "f"), "PyInit_other: it was renamed"), (("f",), "a plain library"), (None, "not looked at")],
)
def test_a_file_without_the_function_of_its_module(exports: tuple[str, ...] | None, words: str) -> None:
    image = pe_image(exports=exports or ())
    machine = Windows({TOP: image if exports is not None else replace(image, exports=None)})
    case = machine.case(None, "dynamic module does not define module export function (PyInit_ext)")
    assert words in diagnose(case).findings[0].explanation


# Modules of another system, and parts of Python that are missing.


@pytest.mark.parametrize(
    ("name", "code", "wanted"),
    [
        ("fcntl", "no-such-module", "WSL"),
        ("_curses", "no-such-module", "pip install windows-curses"),
        ("readline", "no-such-module", "pip install pyreadline3"),
        ("_tkinter", "stdlib-not-built", "tcl/tk"),
        ("_sqlite3", "stdlib-not-built", "Repair"),
    ],
)
def test_modules_that_this_python_cannot_have(name: str, code: str, wanted: str) -> None:
    bases = ("ModuleNotFoundError", "ImportError")
    error = PythonError("ModuleNotFoundError", f"No module named {name!r}", bases, name)
    finding = diagnose(HEALTHY.case(None, error=error, errors=(error,), subject=None, tree=None)).findings[0]
    assert (finding.code, finding.confidence) == (code, Confidence.CERTAIN)
    assert wanted in words_of(finding) and "headers" not in words_of(finding)


def test_a_failed_initialiser_of_a_load_that_uses_the_runtime() -> None:
    runtime = "C:\\Windows\\System32\\msvcp140.dll"
    machine = Windows({TOP: pe_image({"MSVCP140.dll": ["f"]}), runtime: pe_image(version=(14, 44, 1, 0))})
    assert "vc_redist" in words_of(diagnose(machine.case(1114)).findings[0])
    assert "vc_redist" not in words_of(diagnose(HEALTHY.case(1114)).findings[0])


@pytest.mark.parametrize(
    ("code", "expected", "wanted", "not_wanted"),
    [
        (225, "blocked-by-policy", "protection history", "CodeIntegrity"),
        (32, "access-denied", "wait", "icacls"),
        (740, "access-denied", "administrator", "icacls"),
        (1920, "access-denied", "link", "icacls"),
        (362, "unreadable-image", "OneDrive", "icacls"),
        (426, "unreadable-image", "OneDrive", "icacls"),
        (786, "blocked-by-policy", "AppLocker", "icacls"),
        (4556, "blocked-by-policy", "CodeIntegrity", "icacls"),
        (0xC0E90002, "blocked-by-policy", "CodeIntegrity", "icacls"),
    ],
)
def test_codes_with_remedies_of_their_own(code: int, expected: str, wanted: str, not_wanted: str) -> None:
    finding = diagnose(HEALTHY.case(code)).findings[0]
    assert finding.code == expected
    assert wanted in words_of(finding) and not_wanted not in words_of(finding)
