"""The requests of Python to the loader."""

from __future__ import annotations

import enum

from .light import dataclass


class RequestKind(enum.Enum):
    """The way in which Python asked; the values are the names of CPython's audit events, but for the last."""

    EXTENSION = "import"
    """An extension module: `name` is the module, `target` its file."""
    CTYPES = "ctypes.dlopen"
    """ctypes: `target` is what was handed to LoadLibrary or dlopen."""
    FIND_LIBRARY = "ctypes.util.find_library"
    """A search of `ctypes.util` that found nothing: `target` is the name asked for, without "lib" and suffix."""


@dataclass(frozen=True)
class Request:
    """One call of Python into the loader.

    Attributes:
        kind: which door.
        target: the file or library name handed over.
        imports: names of the Python imports in progress, outermost first.
        tid: native thread id.
        wall: `time.time()` at the call, seconds since the epoch.
        clock: `time.perf_counter_ns()` at the call.
        position: where the mechanism's own stream stood at the call (bytes of text for "rtld"), if it has one.
        succeeded: whether the call returned an image; `None` where that is not known.
        idle_clock: `time.perf_counter_ns()` of the next sign that the thread was back in Python; `None` if none came.
        places: of FIND_LIBRARY, the programs that were run to find the library: "ldconfig", "gcc", "ld".
        flags: of CTYPES on Windows, the flags of LoadLibraryExW that the call gave; `None` where they are not known.
    """

    kind: RequestKind
    target: str
    imports: tuple[str, ...]
    tid: int
    wall: float
    clock: int
    position: int | None = None
    succeeded: bool | None = None
    idle_clock: int | None = None
    places: tuple[str, ...] = ()
    flags: int | None = None
