"""Events of a loader, as frozen values: one class a kind of event."""

from __future__ import annotations

import enum

from .light import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    import uuid


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
    """The outcome of one place that was tried."""

    LOADED = "loaded"
    PASSED = "passed"
    """Tried and not used; whether a file is there was not looked at."""
    ABSENT = "absent"
    """Tried, and no file was there when it was looked at (for a trace: when it ended)."""
    NO_ENTRY = "no entry"
    """`Probe.path` is an index of libraries (/etc/ld.so.cache) that was asked and did not have the name."""
    PRESENT = "present"
    """Tried and not used although a file was there: wrong machine, damaged, unreadable."""


FOLDER_LOCKED = "a folder on the way to it may not be entered"
"""In the reason of a probe: what is at the place could not be looked at."""


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

    def __hash__(self) -> int:
        return hash(self.path)  # all fields take ten times as long, and tell few apart that the path does not


class FailureKind(enum.Enum):
    """The way in which a load failed."""

    NOT_FOUND = "not found"
    """No place had the file: it never became an image."""
    REFUSED = "refused"
    """A file was there and the loader would not map it."""
    DROPPED = "dropped"
    """Mapped, then unmapped because the load it belonged to failed."""
    NAME_NOT_FOUND = "name not found"
    """`ctypes.util.find_library` found no library of this name and returned `None`; no loader was asked."""


@dataclass(frozen=True, repr=False)
class ImageEvent:
    """The fields that all events about one image have. A field is `None` where the mechanism cannot know it.

    Attributes:
        path: the image's path as the loader or the kernel reported it; the bare name of one that was not found.
        display_path: the path for people, where it differs (a drive letter for a Windows device path).
        base: address of the first byte in the process.
        size: bytes from `base`, as mapped.
        timestamp: seconds since the epoch. With the "rtld" mechanism: when Python asked, not when it was mapped; with
            "ld_debug": when the loader's line was read, some hundredths of a second later.
        pid, tid: process and thread.
        need: the name asked for ("libssl.so.3"), as opposed to the path it became.
        requested_by: path of the image that asked for it.
        phase: the rule that found it.
        probes: every place tried, in order.
        imports: the Python imports in progress, outermost first ("ssl", "_ssl"); empty when none.
        checksum, link_time: PE header's CheckSum and TimeDateStamp (seconds since the epoch).
    """

    path: str
    display_path: str | None = None
    base: int | None = None
    size: int | None = None
    timestamp: float | None = None
    pid: int | None = None
    tid: int | None = None
    need: str | None = None
    requested_by: str | None = None
    phase: Phase | None = None
    probes: tuple[Probe, ...] | None = None
    imports: tuple[str, ...] | None = None
    checksum: int | None = None
    link_time: int | None = None

    @property
    def shown_path(self) -> str:
        """The path as lines and reports show it."""
        return self.display_path or self.path


# Without fields of their own, these two need no decorator: each costs half a millisecond at the end of a trace.
class LoadEvent(ImageEvent):
    """An image was mapped into the process."""

    TAG = "load"

    def __repr__(self) -> str:
        return f"<LoadLibrary({self.path})>"

    def __str__(self) -> str:
        return f"LoadLibrary {self.shown_path}"


@dataclass(frozen=True, repr=False)
class LoadFailedEvent(ImageEvent):
    """A load that did not succeed: the file was not found, or was mapped and dropped again.

    `kind` says which, `reason` keeps the loader's own words where it has some about this very image. One that was
    dropped without a reason was dropped because another one failed.
    """

    TAG = "failed"

    kind: FailureKind | None = None
    reason: str | None = None

    def __repr__(self) -> str:
        return f"<LoadLibraryFailed({self.path})>"

    def __str__(self) -> str:
        return f"Failed {self.shown_path}"


class UnloadEvent(ImageEvent):
    """An image left the process and nothing says that a load failed (dlclose, FreeLibrary, process exit)."""

    TAG = "unload"

    def __repr__(self) -> str:
        return f"<UnloadLibrary({self.path})>"

    def __str__(self) -> str:
        return f"UnloadLibrary {self.shown_path}"


@dataclass(frozen=True, repr=False)
class DebugEvent:
    """A raw event as the mechanism delivered it.

    Attributes:
        provider: who sent it (the ETW provider; a constant of ours for glibc's loader).
        opcode: its kind, in the provider's numbering.
        header: the bytes of the event header's descriptor (16 for ETW, none for glibc).
        data: the payload.
    """

    TAG = "debug"

    provider: uuid.UUID
    opcode: int
    header: bytes
    data: bytes

    def __post_init__(self) -> None:
        # A bytearray or a view would change after the event, and could not be hashed.
        for name in ("header", "data"):
            object.__setattr__(self, name, bytes(getattr(self, name)))

    def __repr__(self) -> str:
        return f"<Debug({self.provider}, {self.opcode}, {self.header!r}, {self.data!r})>"

    def __str__(self) -> str:
        lines = [f"Event {{{self.provider}}} opcode {self.opcode}, {len(self.data)} bytes"]
        lines += hex_dump(self.data)
        lines += [f"  text: {text}" for text in texts_in(self.data)]
        return "\n".join(lines)


def hex_dump(data: bytes) -> list[str]:
    """Lines of 16 bytes each: offset, hexadecimal, printable ASCII."""
    lines = []
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        shown = "".join(chr(b) if 0x20 <= b < 0x7F else "." for b in row)
        lines.append(f"  {start:04x}  {row.hex(' '):<47}  {shown}")
    return lines


def texts_in(data: bytes) -> list[str]:
    """The runs of at least four printable characters in `data`, read as UTF-16LE at either alignment and as ASCII."""
    import re

    found: list[tuple[int, str]] = []
    for match in re.finditer(rb"(?:[\x20-\x7e]\x00){4,}", data):
        found.append((match.start(), match.group().decode("utf-16-le")))
    for match in re.finditer(rb"[\x20-\x7e]{4,}", data):
        found.append((match.start(), match.group().decode("ascii")))
    return [text for _, text in sorted(found)]


ImageChange = LoadEvent | LoadFailedEvent | UnloadEvent
"""What decoders make of a loader's log: an image came, left, or did not come."""

Event = ImageChange | DebugEvent
