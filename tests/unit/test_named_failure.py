"""Which load an exception names in words of its own, and what the trace says became of it."""

from __future__ import annotations

import time

import pytest

from builders.failed_case import EXT, dropped, not_found
from dlltracer.diagnose.loader_errors import DlProblem, classify_dlerror, classify_exception
from dlltracer.diagnose.named_failure import (
    NameMatch,
    describe_failure,
    find_named_failure,
    library_that_is_denied,
    stem_of,
)
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent
from dlltracer.model.failure import PythonError
from dlltracer.model.recording import Recording

DRIVER = "/opt/odbc/libdriver-18.so.1"
MISSING = "cannot open shared object file: No such file or directory"


def error(message: str, *bases: str) -> PythonError:
    return PythonError("RuntimeError", message, bases or ("RuntimeError", "Exception"))


def search(name: str) -> LoadFailedEvent:
    return LoadFailedEvent(name, need=name, kind=FailureKind.NAME_NOT_FOUND, imports=("wrap",))


def named(message: str, *events: LoadEvent | LoadFailedEvent) -> tuple[str, NameMatch] | None:
    found = find_named_failure((error(message),), Recording("rtld", events))
    return (found.event.path, found.match) if found is not None else None


@pytest.mark.parametrize(
    "message",
    [
        f"[Driver Manager]Can't open lib '{DRIVER}' : file not found (0) (SQLDriverConnect)",
        f"could not load {DRIVER}",
        f'JVM DLL not loadable: "{DRIVER}"',
        f"the driver ({DRIVER}) failed",
    ],
)
def test_a_path_in_any_words(message: str) -> None:
    assert named(message, dropped(DRIVER)) == (DRIVER, NameMatch.PATH)


def test_a_name_that_goes_on_is_another_one() -> None:
    assert named("Could not load libcudnn.so.8", not_found("libcudnn.so")) is None
    assert named("Could not load libcudnn.so.", not_found("libcudnn.so")) == ("libcudnn.so", NameMatch.NAME)
    assert named("Could not load xlibcudnn.so", not_found("libcudnn.so")) is None


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("PortAudio library not found", "portaudio"),
        ("failed to find libmagic.  Check your installation", "magic"),
        ("Unable to find zbar shared library", "zbar"),
        ("The 'enchant' C library was not found and maybe needs to be installed.", "enchant-2"),
        ("MagickWand shared library not found.", "MagickWand-7.Q16"),
        ("couldn't import psycopg 'python' implementation: libpq library not found", "pq"),
    ],
)
def test_the_middle_of_a_name(message: str, asked: str) -> None:
    assert named(message, search(asked)) == (asked, NameMatch.STEM)


def test_what_find_library_was_asked_for_word_for_word() -> None:
    assert named("cannot load library 'gobject-2.0-0'", search("gobject-2.0-0")) == (
        "gobject-2.0-0", NameMatch.NAME,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("no fast path", "fast"),  # nothing about libraries
        ("the library could not load its data", "data"),  # a word of any message
        ("no pq found", "pq"),  # two letters
        ("settings not found: zstd.toml", "zstd"),
    ],
)
def test_a_word_that_is_no_name(message: str, asked: str) -> None:
    assert named(message, search(asked)) is None


def test_what_came_in_later_did_not_fail() -> None:
    assert named("PortAudio library not found", search("portaudio"), LoadEvent("/l/libportaudio.so.2")) is None
    assert named("no libx.so", not_found("libx.so"), LoadEvent("/l/libx.so", need="libx.so")) is None
    again = (not_found("libx.so"), LoadEvent("/l/libx.so", need="libx.so"), not_found("libx.so"))
    assert named("no libx.so", *again) is not None


def test_a_file_that_is_there_comes_before_an_optional_probe() -> None:
    assert named("cannot load libplug.so", not_found("libplug.so"), dropped("/opt/libplug.so")) == (
        "/opt/libplug.so", NameMatch.NAME,
    )  # fmt: skip


def test_the_leaf_below_the_file_that_is_named() -> None:
    middle = LoadFailedEvent("/opt/odbc/libmid.so", kind=FailureKind.DROPPED, requested_by=DRIVER, imports=("ext",))
    leaf = not_found("libleaf.so.3", "/opt/odbc/libmid.so")
    recording = Recording("rtld", (leaf, middle, dropped(DRIVER)))
    found = find_named_failure((error(f"Can't open lib '{DRIVER}'"),), recording)
    assert found is not None
    dl_error = describe_failure(found, recording)
    assert (dl_error.problem, dl_error.library, dl_error.required_by) == (
        DlProblem.MISSING, "libleaf.so.3", "/opt/odbc/libmid.so",
    )  # fmt: skip


def test_the_loaders_reason_in_the_trace() -> None:
    event = LoadFailedEvent(EXT, kind=FailureKind.DROPPED, reason="symbol lookup error: undefined symbol: core_fn")
    recording = Recording("rtld", (event,))
    found = find_named_failure((error(f"cannot use {EXT}"),), recording)
    assert found is not None
    dl_error = describe_failure(found, recording)
    assert (dl_error.problem, dl_error.symbol, dl_error.library) == (DlProblem.MISSING_SYMBOL, "core_fn", EXT)


def test_a_library_that_the_program_looked_for_itself() -> None:
    assert library_that_is_denied((error("No JVM shared library file (libjvm.so) found."),)) == "libjvm.so"
    assert library_that_is_denied((error("loaded libjvm.so"),)) is None
    assert library_that_is_denied((error("no licence"),)) is None


@pytest.mark.parametrize(
    ("name", "stem"),
    [("libportaudio.so.2", "portaudio"), ("usb-1.0", "usb"), ("/x/libfoo_bar.so", "foo_bar"), ("7z", ""), ("", "")],
)
def test_stems(name: str, stem: str) -> None:
    assert stem_of(name) == stem


@pytest.mark.parametrize(
    ("before", "after", "library"),
    [
        ("", "", "libx.so.1"),
        ('DPI-1047: cannot locate the client: "', '". See the manual', "libx.so.1"),
        ("DPI-1047: cannot locate the client: (", "). See the manual", "libx.so.1"),
        ("OSError('", "')", "libx.so.1"),
        ("failed to load ", "", "libx.so.1"),
        ("can't load ", "", "/opt/my files/libx.so.1"),
        ("could not load [", "]", "/opt/my files/libx.so.1"),
        ("Could not load library libx.so.1. Error: ", "", "libx.so.1"),
        ("app: error while loading shared libraries: ", "", "libx.so.1"),
        ("\u201c", "\u201d", "libx.so.1"),
    ],
)
def test_a_loaders_words_in_the_words_of_others(before: str, after: str, library: str) -> None:
    dl_error = classify_dlerror(f"{before}{library}: {MISSING}{after}")
    assert (dl_error.problem, dl_error.library) == (DlProblem.MISSING, library)


def test_lines_that_were_wrapped() -> None:
    text = "cannot start: libx.so.1: cannot open shared\n   object file: No such file or\n directory"
    dl_error = classify_dlerror(text)
    assert (dl_error.problem, dl_error.library) == (DlProblem.MISSING, "libx.so.1")


def test_dlsym_is_no_relocation() -> None:
    words = "/usr/lib/libz.so.1: undefined symbol: zbar_version"
    for kind, problem in (
        ("OSError", DlProblem.MISSING_SYMBOL), ("AttributeError", DlProblem.NOT_IN_LIBRARY),
        ("ValueError", DlProblem.NOT_IN_LIBRARY),
    ):  # fmt: skip
        dl_error = classify_exception(error(words, kind, "Exception"))
        assert (dl_error.problem, dl_error.library, dl_error.symbol) == (problem, "/usr/lib/libz.so.1", "zbar_version")
    cffi = f"function/symbol 'zbar_version' not found in library 'libz.so.1': {words}"
    assert classify_exception(error(cffi, "AttributeError")).library == "/usr/lib/libz.so.1"


@pytest.mark.parametrize(
    "piece",
    ["x: ", "(", '"', "libx.so ", ": error: ", "version `A' not found (required by ", "undefined symbol: ", " / load"],
)
def test_a_megabyte_is_read_at_once(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    start = time.process_time()
    dl_error = classify_dlerror(text + f"\nlibx.so.1: {MISSING}")
    found = find_named_failure((error(text),), Recording("rtld", tuple(not_found(f"lib{n}.so") for n in range(1000))))
    denied = library_that_is_denied((error(text),))
    assert time.process_time() - start < 3
    is_symbol = piece.startswith("undefined")
    expected = (DlProblem.MISSING_SYMBOL, None) if is_symbol else (DlProblem.MISSING, "libx.so.1")
    assert (dl_error.problem, dl_error.library) == expected
    assert (found, denied) == (None, None)


def test_the_words_at_the_end_of_a_long_message_count() -> None:
    log = "compiling...\n" * 80_000
    assert classify_dlerror(f"{log}libx.so.1: {MISSING}").library == "libx.so.1"
    assert classify_dlerror(f"libx.so.1: {MISSING}\n{log}").library == "libx.so.1"
