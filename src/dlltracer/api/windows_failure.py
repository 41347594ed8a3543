"""Which file Windows failed to load, and with which code: CPython's exceptions say the one or the other, never both.

Many programs catch the loader's exception and raise one of their own, and native code raises OSErrors that ctypes had
no part in. Their words are matched with the loads that are known to have failed.
"""

from __future__ import annotations

import ntpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..diagnose.windows_load import MessageSource, find_code, known_win32_codes
from ..host.failure import read_system_texts, reload_code
from ..model.events import LoadEvent, UnloadEvent
from ..model.failure import ProcessFacts, PythonError, Request, RequestKind
from ..model.loader_context import CTYPES_NAME_SEARCH, EXTENSION_MODULE_SEARCH, LoadFlags
from ..model.recording import Recording

_NOT_FOUND = 126
_CTYPES = re.compile(r"Could not find module '(.+)' \(or one of its dependencies\)")
_CFFI = re.compile(r"cannot load library '(.+?)': error 0x([0-9a-fA-F]{1,8})")
_NO_CODE = "DLL load failed"
"""Python/dynload_win.c of CPython: how an ImportError begins that hides a code."""
_OF_PYTHON = (_NO_CODE, "Module use of ", "dynamic module does not define ")
"""How ImportErrors of CPython's own loader begin (Python/dynload_win.c, Python/importdl.c)."""
_OF_LOADERS = frozenset({126, 127, 182, 193, 577, 1114, 1154, 1157, 14001, 4551})
"""Errors that no function but those of the loader gives: an OSError with one of them comes of a load."""
_QUOTED = re.compile(
    r"""['"<(]([^'"<>()|?*]{1,400}\.(?:dll|pyd|exe))['">)]|(\S{1,300}\.(?:dll|pyd|exe))\b""", re.IGNORECASE
)


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
    """What the exception stands for. Without one (`error` is `None`: a crash) the last request is the subject.

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
    """Whether an OSError came of a load: any program raises others."""
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
    """Whether an exception is of CPython's own loading code, or an OSError of a load."""
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
        return WindowsFailure()
    flags: int = EXTENSION_MODULE_SEARCH if ntpath.dirname(named.target) else CTYPES_NAME_SEARCH
    flags = flags if named.flags is None else named.flags
    code = reload_code(process.executable, named.target, flags, process.added_folders)
    return WindowsFailure(named.target, code or None, is_guess=True, imports=named.imports)


def _is_named(target: str, text: str) -> bool:
    """Whether a text names a file: by its base name, as a word of its own."""
    name = re.escape(ntpath.basename(target).lower())
    return re.search(rf"(?<![\w.-]){name}(?![\w-])", text) is not None


def _of_load(error: PythonError, requests: Sequence[Request]) -> WindowsFailure:
    """An OSError is a loader's when ctypes, cffi or os.add_dll_directory raised it, or when its code is one."""
    found = _CFFI.search(error.message)
    if found is not None:
        return WindowsFailure(found[1], int(found[2], 16))
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
    if error.code not in _OF_LOADERS:
        return WindowsFailure()
    found = _QUOTED.search(error.message)
    subject = (found[1] or found[2]) if found is not None else None
    last = requests[-1] if requests else None
    return WindowsFailure(subject, error.code, imports=last.imports if last is not None else ())
