"""Which file Windows failed to load, and with which code: CPython's exceptions say the one or the other, never both."""

from __future__ import annotations

import ntpath
import re
from dataclasses import dataclass

from ..diagnose.codes import known_win32_codes
from ..diagnose.messages import MessageSource, find_code
from ..host.messages import read_system_texts
from ..host.reload import reload_code
from ..model.events import LoadEvent, UnloadEvent
from ..model.request import RequestKind
from ..model.windows_context import EXTENSION_MODULE_SEARCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model.failure import ProcessFacts, PythonError
    from ..model.recording import Recording
    from ..model.request import Request

_NOT_FOUND = 126
_CTYPES = re.compile(r"Could not find module '(.+)' \(or one of its dependencies\)")
_CFFI = re.compile(r"cannot load library '(.+?)': error 0x([0-9a-fA-F]{1,8})")
_NO_CODE = "DLL load failed"
"""Python/dynload_win.c of CPython: how an ImportError begins that hides a code."""


@dataclass(frozen=True)
class WindowsFailure:
    """A load that failed.

    Attributes:
        subject: the file, or the name that was to be searched for; `None` if it is not known.
        code: of GetLastError; `None` if no loader's code is behind the exception.
        is_guess: the code was concluded from words of another language than this system's.
        imports: the Python imports in progress, outermost first.
    """

    subject: str | None = None
    code: int | None = None
    is_guess: bool = False
    imports: tuple[str, ...] = ()


def read_windows_failure(
    error: PythonError | None, process: ProcessFacts, requests: Sequence[Request] = ()
) -> WindowsFailure:
    """What the exception stands for. Without one (`error` is `None`: a crash) the last request is the subject.

    May load the file once more, in a process of its own (`host.reload`).
    """
    if error is None:
        last = requests[-1] if requests else None
        return WindowsFailure(last.target, imports=last.imports) if last is not None else WindowsFailure()
    if "ImportError" in error.bases:
        return _of_import(error, process, requests)
    return _of_load(error, requests)


def is_load_error(error: PythonError) -> bool:
    """Whether an OSError came of a load: any program raises others."""
    found = _of_load(error, ())
    return found.subject is not None or found.code is not None


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


def _of_load(error: PythonError, requests: Sequence[Request]) -> WindowsFailure:
    """An OSError is a loader's only when ctypes, cffi or os.add_dll_directory raised it: any program raises others."""
    found = _CFFI.search(error.message)
    if found is not None:
        return WindowsFailure(found[1], int(found[2], 16))
    where = error.frames[-1] if error.frames else None
    if where is None:
        return WindowsFailure()
    if where.function == "add_dll_directory" and ntpath.basename(where.file) == "os.py":
        return WindowsFailure(None, error.code)
    if ntpath.basename(ntpath.dirname(where.file)) != "ctypes":
        return WindowsFailure()
    asked = [one for one in requests if one.kind is RequestKind.CTYPES and not one.succeeded]
    last = asked[-1] if asked else None
    name = _CTYPES.search(error.message)
    subject = last.target if last is not None else name[1] if name is not None else None
    code = _NOT_FOUND if name is not None else error.code
    return WindowsFailure(subject, code, imports=last.imports if last is not None else ())


def native_error(errors: tuple[PythonError, ...]) -> PythonError | None:
    """The exception nearest to a loader: the innermost that an import or a load raised."""
    for error in reversed(errors):
        if "ImportError" in error.bases and "ModuleNotFoundError" not in error.bases:
            return error
    for error in reversed(errors):
        if {"ImportError", "OSError"} & set(error.bases):
            return error
    return None
