"""A place where a loader looks, the rule that led there, what is there, and what became of it.

The same words for what a loader was seen to do (events) and for what was worked out from files (a load tree).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Phase(enum.Enum):
    """The rule of the loader that led to a place.

    Sources: ld.so(8); MS Learn "Dynamic-link library search order", "LoadLibraryExW", "Windows API sets",
    "Manifests" and "DLL redirection".
    """

    DIRECT = "direct"
    """The name has a folder in it: that file and no other."""
    LOADED = "already loaded"
    """An image of that soname, or base name on Windows, is in the process already: no place is looked at."""

    PRELOAD = "preload"
    """LD_PRELOAD names it: loaded at the start, between the program and what the program needs."""
    RPATH = "rpath"
    RUNPATH = "runpath"
    ENVIRONMENT = "environment"
    """LD_LIBRARY_PATH."""
    CACHE = "cache"
    """/etc/ld.so.cache."""
    SYSTEM = "system"
    """The folders built into the loader; on Windows the system folder (System32)."""

    API_SET = "api set"
    """The name is a contract (api-ms-win-...), which the system maps to a file of its own."""
    REDIRECTION = "redirection"
    """A file or folder `PROGRAM.local` beside the program."""
    MANIFEST = "manifest"
    """A side-by-side assembly that the active manifest names."""
    KNOWN_DLL = "known dll"
    """The system's own list of names that are never searched for."""
    IMAGE_FOLDER = "image folder"
    """The folder of the image that was asked for (LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR)."""
    APPLICATION = "application"
    """The folder of the program (python.exe)."""
    ADDED = "added"
    """A folder of os.add_dll_directory."""
    WINDOWS = "windows"
    """The Windows folder, and its old 16-bit system folder."""
    CURRENT = "current"
    """The current folder."""
    PATH = "path"
    """A folder of PATH."""

    OTHER = "other"
    """A rule whose name this version does not know; `Probe.origin` keeps the loader's words."""


class ProbeOutcome(enum.Enum):
    """What became of a place that was tried."""

    LOADED = "loaded"
    PASSED = "passed"
    """Tried and not used; whether a file is there was not looked at."""
    ABSENT = "absent"
    """Tried, and no file was there when it was looked at (for a trace: when it ended)."""
    NO_ENTRY = "no entry"
    """`Probe.path` is an index of libraries (/etc/ld.so.cache) that was asked and did not have the name."""
    PRESENT = "present"
    """Tried and not used although a file was there: wrong machine, damaged, unreadable."""


class FileKind(enum.Enum):
    """What is at a path, links followed."""

    FILE = "file"
    FOLDER = "folder"
    ABSENT = "absent"
    """Nothing, or a link that leads nowhere."""
    DENIED = "denied"
    """It may not be looked at or read."""
    SYMLINK_LOOP = "symlink loop"
    """A link that leads back to itself."""
    OTHER = "other"
    """A device, a fifo, a socket."""


@dataclass(frozen=True)
class Probe:
    """A place tried.

    Attributes:
        path: the whole path.
        phase: the rule that led there.
        origin: the image whose RPATH, RUNPATH or manifest named the folder, or the cache file; `None` if it has none.
        outcome: what became of it.
        reason: why a file that was there was not used; `None` where that is not known or does not apply.
    """

    path: str
    phase: Phase
    origin: str | None = None
    outcome: ProbeOutcome = ProbeOutcome.PASSED
    reason: str | None = None
