"""Finds the load that failed, and the loader's words or code for it, in the exceptions of a run and in its trace."""

from __future__ import annotations

import ntpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..binary.elf import read_elf
from ..diagnose.loader_errors import (
    DlError,
    DlProblem,
    classify_exception,
    ends_of,
    failures_behind,
    loader_messages,
    top_of,
)
from ..diagnose.named_failure import NamedFailure, NameMatch, describe_failure, find_hidden_failure, find_named_failure
from ..diagnose.program_output import OutputKind, OutputMessage
from ..diagnose.windows_load import MessageSource, find_code, known_win32_codes
from ..errors import BinaryFormatError
from ..host.failure import read_loader_translations, read_system_texts, reload_code
from ..host.machine import is_file
from ..model.events import LoadEvent, LoadFailedEvent, UnloadEvent
from ..model.failure import ProcessFacts, PythonError
from ..model.loader_context import CTYPES_NAME_SEARCH, EXTENSION_MODULE_SEARCH, LoadFlags
from ..model.recording import Recording
from ..model.request import Request, RequestKind
from ..model.run import RunResult
from ..model.tree import MissingSymbol, MissingVersion

Symbols = tuple[MissingSymbol, ...]
Versions = tuple[MissingVersion, ...]


@dataclass(frozen=True, kw_only=True)
class LinuxFailure:
    """A load that failed.

    Attributes:
        error: the exception with a loader's message, else the one nearest to a loader; `None` if there is none.
        dl_error: the message taken apart, or made from the trace; `None` if no loader's failure is behind `error`.
        named: how an exception names the load, where its words are not a loader's.
        failures: the failures of the trace that belong to it.
        subject: the image whose load failed; `None` if it is not known.
    """

    error: PythonError | None
    dl_error: DlError | None
    named: NamedFailure | None
    failures: tuple[LoadFailedEvent, ...]
    subject: str | None


def read_linux_failure(run: RunResult, messages: tuple[OutputMessage, ...] = ()) -> LinuxFailure:
    """Return what failed to load in a run that failed; `messages` are those in its output."""
    error, dl_error = _loader_error(run.errors)
    error, dl_error, named = _completed(error, dl_error, run.errors, run.recording)
    if not run.errors and not run.completed:
        dl_error = _last_word(run, messages)
    failures = failures_behind(run.recording, error, dl_error)
    subject = _find_subject(error, dl_error, failures, run)
    return LinuxFailure(error=error, dl_error=dl_error, named=named, failures=failures, subject=subject)


LOADER_STATUS = 127
"""With which ld.so ends a process, at its start or at a symbol that it binds late (elf/rtld.c, elf/dl-error.c)."""


def _last_word(run: RunResult, messages: tuple[OutputMessage, ...]) -> DlError | None:
    """Return the message that the process's loader wrote when it ended the process: at a symbol bound at its first
    call."""
    if run.status != LOADER_STATUS:
        return None
    found = [message.dl_error for message in messages if message.kind is OutputKind.LOADER]
    return found[-1] if found else None


def _loader_error(errors: tuple[PythonError, ...]) -> tuple[PythonError | None, DlError | None]:
    """The exception with a message of a loader of Linux, and the message; else the one nearest to a loader.

    Of several that pass on the same message the innermost, which knows most. Of several messages the outermost: what
    came before it was handled.
    """
    translations = read_loader_translations(loader_messages()) if errors else {}
    classified = [(error, classify_exception(error, translations)) for error in errors]
    known = [(error, found) for error, found in classified if found.problem is not DlProblem.UNDECIDED]
    if known:
        same = [(error, found) for error, found in known if _is_same(found, known[0][1])]
        return same[-1]
    if errors and "ModuleNotFoundError" in errors[0].bases:
        return errors[0], None
    for bases in ({"ImportError"}, {"OSError"}):
        for error in reversed(errors):
            if bases & set(error.bases):
                return error, None
    return (errors[0] if errors else None), None


def _completed(
    error: PythonError | None, dl_error: DlError | None, errors: tuple[PythonError, ...], recording: Recording | None
) -> tuple[PythonError | None, DlError | None, NamedFailure | None]:
    """Return the two values of `_loader_error`, from the trace where the exception only names what failed.

    The third value is how an exception names a load that failed; `None` where the loader's own words say it, or nothing
    does.
    """
    if recording is None:
        return error, dl_error, None
    if dl_error is not None:
        return error, _checked(dl_error, errors, recording), None
    named = find_named_failure(errors, recording) or find_hidden_failure(errors, recording)
    return (error, None, None) if named is None else (named.error, describe_failure(named, recording), named)


def _checked(dl_error: DlError, errors: tuple[PythonError, ...], recording: Recording) -> DlError:
    """A loader's message, with what the trace knows better: whose symbol is missing, and the name of the file."""
    if dl_error.problem is DlProblem.MISSING_SYMBOL and _is_lookup(dl_error, recording):
        return replace(dl_error, problem=DlProblem.NOT_IN_LIBRARY)
    seen = {(event.need or event.path).rpartition("/")[2] for event in recording.failures}
    if dl_error.problem is not DlProblem.MISSING or (dl_error.library or "").rpartition("/")[2] in seen:
        return dl_error
    named = find_named_failure(errors, recording)
    if named is None or named.event.need is None or named.match is NameMatch.STEM:
        return dl_error
    return replace(dl_error, library=named.event.need, required_by=named.event.requested_by)


def _is_lookup(dl_error: DlError, recording: Recording) -> bool:
    """Return whether the words are those of a dlsym of native code: a whole trace saw that image come in, and no load
    fail."""
    if recording.backend != "rtld" or recording.losses or recording.failures:
        return False
    return any(event.path == dl_error.library for event in recording.loads)


def _is_same(one: DlError, other: DlError) -> bool:
    """Return whether two messages are of one failure, in other words around it."""
    names = [(error.library or "").rpartition("/")[2] for error in (one, other)]
    return (one.problem, one.symbol, one.version, names[0]) == (other.problem, other.symbol, other.version, names[1])


def _find_subject(
    error: PythonError | None,
    dl_error: DlError | None,
    failures: tuple[LoadFailedEvent, ...],
    run: RunResult,
) -> str | None:
    """The image whose load failed: what the exception names, else what the trace saw fail, else the loader's words."""
    suffixes = run.process.suffixes if run.process is not None else (".so",)
    if error is not None and error.path is not None and error.path.endswith(suffixes):
        return error.path
    top = top_of(failures)
    if top is not None and (dl_error is not None or error is None):
        return top
    if dl_error is not None:
        return dl_error.required_by or dl_error.library
    return run.initialising


def with_dl_error(symbols: Symbols, versions: Versions, dl_error: DlError) -> tuple[Symbols, Versions]:
    """Put what the loader's message names first, even if the files do not show that it is missing."""
    if dl_error.problem is DlProblem.MISSING_SYMBOL and dl_error.symbol:
        known = [item for item in symbols if item.name == dl_error.symbol]
        others = [item for item in symbols if item.name != dl_error.symbol]
        named = MissingSymbol(dl_error.symbol, dl_error.version, dl_error.library or "", dl_error.provider)
        return (*(known or [named]), *others), versions
    if dl_error.problem is DlProblem.MISSING_VERSION and dl_error.version:
        same = [
            item for item in versions if item.version == dl_error.version and item.requested_by == dl_error.required_by
        ]
        rest = [item for item in versions if item not in same]
        provider = dl_error.library or ""
        said_version = MissingVersion(
            dl_error.version, provider.rpartition("/")[2], provider, dl_error.required_by or ""
        )  # fmt: skip
        return symbols, (*(same or [said_version]), *rest)
    return symbols, versions


_UNDEFINED = re.compile(r"undefined symbol: (\w+)")
_MOST_SYMBOLS = 20
_MOST_READ = 50


def describe_local_scopes(recording: Recording) -> Iterator[str]:
    """Yield a sentence for each library whose symbols were not seen by images loaded after it.

    dlopen without RTLD_GLOBAL puts a library and its needs into a scope of their own (dlopen(3)). A program that
    embeds Python by dlopen meets it at its first extension module, which does not list libpython among its needs.
    """
    missing: dict[str, str] = {}
    for failure in recording.failures:
        found = _UNDEFINED.search(failure.reason or "")
        if found is not None and len(missing) < _MOST_SYMBOLS:
            missing.setdefault(found[1], failure.path)
    for event in _before_a_failure(recording) if missing else ():
        provided = _symbols_of(event.path)
        hidden = next((symbol for symbol in missing if symbol in provided), None)
        if hidden is not None:
            name = event.path.rpartition("/")[2]
            yield (
                f"{event.path} defines {hidden}, which {missing[hidden]} did not find: {name} is in a local scope. Who "
                "loads it has to do so with RTLD_GLOBAL (dlopen(3)), or has to be linked with it"
            )


def _before_a_failure(recording: Recording) -> list[LoadEvent]:
    """The images that had been loaded when a load failed; none of those that failed themselves."""
    failed = {event.path for event in recording.failures}
    loads: dict[str, LoadEvent] = {}
    for event in recording.events:
        if isinstance(event, LoadFailedEvent):
            return list(loads.values())[:_MOST_READ]
        if isinstance(event, LoadEvent) and event.path not in failed:
            loads.setdefault(event.path, event)
    return []


def _symbols_of(path: str) -> frozenset[str]:
    try:
        symbols = read_elf(path, symbols=True).symbols
    except (OSError, BinaryFormatError):
        return frozenset()
    return frozenset(symbols.provides) if symbols is not None else frozenset()


_NOT_FOUND = 126
_CTYPES = re.compile(r"Could not find module '(.+)' \(or one of its dependencies\)")
_CFFI = re.compile(r"cannot load library '(.+?)': error 0x([0-9a-fA-F]{1,8})")
_OF_OTHERS = re.compile(r"\.(?:so(?:\.\d+)*|dylib)$", re.IGNORECASE)
_NO_CODE = "DLL load failed"
"""Python/dynload_win.c of CPython: how an ImportError begins that hides a code."""
_OF_PYTHON = (_NO_CODE, "Module use of ", "dynamic module does not define ")
"""How ImportErrors of CPython's own loader begin (Python/dynload_win.c, Python/importdl.c)."""
_OF_LOADERS = frozenset({126, 127, 182, 193, 577, 1114, 1154, 1157, 14001, 4551})
"""Errors that no function but those of the loader gives: an OSError with one of them comes of a load."""
_LOADS = re.compile(r"\bload(?:ing|ed|library\w*)?\b", re.IGNORECASE)
_QUOTED = re.compile(
    r"""['"<(]([^'"<>()|?*]{1,400}\.(?:dll|pyd|exe))['">)]|(\S{1,300}\.(?:dll|pyd|exe))\b""", re.IGNORECASE
)
_PATH = re.compile(r"(?<![\w\\])([A-Za-z]:[\\/][^\n\"'<>|?*:]{1,400}?\.(?:dll|pyd))(?!\w)", re.IGNORECASE)
_ERROR_NUMBER = re.compile(r"\b(?:system |Windows )?error(?: code)?:? (\d{1,5})\b", re.IGNORECASE)


@dataclass(frozen=True)
class WindowsFailure:
    """A load that failed.

    Attributes:
        subject: the file, or the name that was to be searched for; `None` if it is not known.
        code: of GetLastError; `None` if no loader's code is behind the exception.
        is_guess: the code was concluded from words of another language than this system's.
        imports: the Python imports in progress, outermost first.
        flags: of the call of LoadLibraryExW; `None` for those that its kind of call always has.
        clock: `time.perf_counter_ns()` of the call; `None` if it is not known.
    """

    subject: str | None = None
    code: int | None = None
    is_guess: bool = False
    imports: tuple[str, ...] = ()
    flags: LoadFlags | None = None
    clock: int | None = None


def read_windows_failure(
    error: PythonError | None, process: ProcessFacts, requests: Sequence[Request] = ()
) -> WindowsFailure:
    """Return the failed load that an exception stands for; without one (`None`: a crash) the last request is the
    subject.

    May load the file once more, in a process of its own (`host.failure.reload_code`).
    """
    found = _read_failure(error, process, requests)
    asked = [one for one in requests if one.target == found.subject and not one.succeeded]
    if not asked:
        return found
    flags = asked[-1].flags
    return replace(found, flags=None if flags is None else LoadFlags(flags), clock=asked[-1].clock)


def _read_failure(error: PythonError | None, process: ProcessFacts, requests: Sequence[Request]) -> WindowsFailure:
    if error is None:
        last = requests[-1] if requests else None
        return WindowsFailure(last.target, imports=last.imports) if last is not None else WindowsFailure()
    if _is_of_loader(error, process.suffixes):
        if "ImportError" in error.bases:
            return _of_import(error, process, requests)
        return _of_load(error, requests)
    return _of_words(error, process, requests)


def is_load_error(error: PythonError) -> bool:
    """Return whether an OSError came of a load: any program raises others."""
    found = _of_load(error, ())
    return found.subject is not None or found.code is not None


def nearest_error(errors: Sequence[PythonError], suffixes: Sequence[str]) -> PythonError | None:
    """Return the exception nearest to the loader, of a chain with the outermost first; `None` for none at all.

    That is the innermost that a loader made. Without one, it is the innermost ModuleNotFoundError in the chain, then
    the innermost ImportError or OSError, then the outermost exception of all.
    """
    for error in reversed(errors):
        if _is_of_loader(error, suffixes):
            return error
    for base in ("ModuleNotFoundError", "ImportError", "OSError"):
        for error in reversed(errors):
            if base in error.bases:
                return error
    return errors[0] if errors else None


def failed_requests(requests: Sequence[Request]) -> tuple[str, ...]:
    """Return what ctypes could not load, each once, in the order of the calls."""
    return tuple(dict.fromkeys(one.target for one in requests if one.succeeded is False))


def loaded_before(recording: Recording | None, subject: str | None) -> tuple[str, ...]:
    """The images that a process had when `subject` came, or at the end, as its debugger saw them come and go."""
    found: dict[str, str] = {}
    wanted = ntpath.normcase(subject or "")
    for event in recording.events if recording is not None else ():
        if isinstance(event, LoadEvent):
            key = ntpath.normcase(event.shown_path)
            if key == wanted:
                break
            found[key] = event.shown_path
        elif isinstance(event, UnloadEvent):
            found.pop(ntpath.normcase(event.shown_path), None)
    return tuple(found.values())


def _of_import(error: PythonError, process: ProcessFacts, requests: Sequence[Request]) -> WindowsFailure:
    subject = error.path if error.path is not None and error.path.endswith(process.suffixes) else None
    if subject is None and error.message.startswith(_OF_PYTHON):
        # "Module use of python310.dll conflicts ..." has no path: the last request is the one that failed.
        subject = next((one.target for one in reversed(requests) if one.kind is RequestKind.EXTENSION), None)
    asked = [one for one in requests if one.kind is RequestKind.EXTENSION and one.target == subject]
    imports = asked[-1].imports if asked else ()
    if not error.message.startswith(_NO_CODE):
        return WindowsFailure(subject, imports=imports)
    found = find_code(error.message, read_system_texts(known_win32_codes()))
    if found is not None and found.source is not MessageSource.BUNDLED:
        return WindowsFailure(subject, found.code, imports=imports)
    again = None
    if subject is not None:
        again = reload_code(process.executable, subject, EXTENSION_MODULE_SEARCH, process.added_folders)
    if again:
        return WindowsFailure(subject, again, imports=imports)
    return WindowsFailure(subject, found.code if found is not None else None, is_guess=True, imports=imports)


def _is_of_loader(error: PythonError, suffixes: Sequence[str]) -> bool:
    """Return whether an exception is of CPython's own loading code, or an OSError of a load."""
    if "ModuleNotFoundError" in error.bases:
        return False
    if "ImportError" in error.bases:
        return error.message.startswith(_OF_PYTHON) or (error.path or "").endswith(tuple(suffixes))
    return "OSError" in error.bases and is_load_error(error)


def _of_words(error: PythonError, process: ProcessFacts, requests: Sequence[Request]) -> WindowsFailure:
    """A failed load that an exception of another kind names: its code is asked of Windows once more."""
    failed = [one for one in requests if one.succeeded is False]
    text = error.message.lower()
    named = next((one for one in failed if _is_named(one.target, text)), None)
    if named is None:
        return _of_quoted_file(error)
    flags: int = EXTENSION_MODULE_SEARCH if ntpath.dirname(named.target) else CTYPES_NAME_SEARCH
    flags = flags if named.flags is None else named.flags
    code = reload_code(process.executable, named.target, flags, process.added_folders)
    return WindowsFailure(named.target, code or None, is_guess=True, imports=named.imports)


def _of_quoted_file(error: PythonError) -> WindowsFailure:
    """A failed load of native code that an exception names by the whole path, with the words or the number of Windows.

    A manager of drivers does that (ODBC: "... could not be loaded due to system error 126 (..., C:\\x\\driver.dll)").
    The file is not loaded for it: the exception may be one of a recording.
    """
    text = ends_of(error.message)
    number = _ERROR_NUMBER.search(text)
    known = find_code(text, read_system_texts(known_win32_codes()))
    code = int(number[1]) if number is not None else known.code if known is not None else None
    path = next((found[1] for found in _PATH.finditer(text) if is_file(found[1])), None)
    if path is None or code not in _OF_LOADERS:
        return WindowsFailure()
    # Managers of drivers and plug-ins load by the whole path, and have its folder and PATH searched for its needs.
    return WindowsFailure(path, code, is_guess=True, flags=LoadFlags.ALTERED_SEARCH_PATH)


def _is_named(target: str, text: str) -> bool:
    """Return whether a text names a file: by its base name, as a word of its own."""
    name = re.escape(ntpath.basename(target).lower())
    return re.search(rf"(?<![\w.-]){name}(?![\w-])", text) is not None


def _of_load(error: PythonError, requests: Sequence[Request]) -> WindowsFailure:
    """An OSError is a loader's when ctypes, cffi or os.add_dll_directory raised it, or when its code is one."""
    # A wrapper may try the names of all systems in turn, and quote every failure.
    tried = [(found[1], int(found[2], 16)) for found in _CFFI.finditer(error.message)]
    own = [one for one in tried if not _OF_OTHERS.search(one[0])] or tried
    if own:
        return WindowsFailure(*own[-1])
    where = error.frames[-1] if error.frames else None
    if where is None:
        return _of_native_code(error, requests)
    if where.function == "add_dll_directory" and ntpath.basename(where.file) == "os.py":
        return WindowsFailure(None, error.code)
    if ntpath.basename(ntpath.dirname(where.file)) != "ctypes":
        return _of_native_code(error, requests)
    asked = [one for one in requests if one.kind is RequestKind.CTYPES and not one.succeeded]
    last = asked[-1] if asked else None
    name = _CTYPES.search(error.message)
    subject = last.target if last is not None else name[1] if name is not None else None
    code = _NOT_FOUND if name is not None else error.code
    return WindowsFailure(subject, code, imports=last.imports if last is not None else ())


def _of_native_code(error: PythonError, requests: Sequence[Request]) -> WindowsFailure:
    """An OSError that native code made of GetLastError (PyErr_SetFromWindowsErr): it may name the file, or not."""
    found = _QUOTED.search(error.message)
    subject = (found[1] or found[2]) if found is not None else None
    # Any function gives the other codes (5, 8, 1455 ...): then the words have to be about a load of a library.
    is_about_load = subject is not None and error.code is not None and _LOADS.search(error.message) is not None
    if error.code not in _OF_LOADERS and not (is_about_load and error.code in known_win32_codes()):
        return WindowsFailure()
    last = requests[-1] if requests else None
    return WindowsFailure(subject, error.code, imports=last.imports if last is not None else ())
