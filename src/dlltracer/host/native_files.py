"""Finds the native files below folders: ELF, PE and Mach-O, each file once, whatever links and trees there are."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from ..binary.reading import is_macho, open_regular, read_regular
from ..errors import BinaryFormatError

MOST_ENTRIES = 2_000_000
"""Entries of folders looked at for one target. The largest environments have some hundred thousand."""
_MOST_NAMED = 3
_SMALLEST = 52
"""Bytes of the header of the smallest native file (ELF of 32 bits); fewer are none."""
_HEAD = 8
_NOT_NATIVE = frozenset(
    ("py", "pyc", "pyi", "pyx", "pxd", "pxi", "pyo", "txt", "rst", "md", "html", "htm", "css", "js", "mjs", "ts", "map",
     "json", "xml", "yaml", "yml", "toml", "ini", "cfg", "conf", "csv", "tsv", "h", "hpp", "hxx", "hh", "c", "cc",
     "cpp", "cxx", "cu", "cuh", "f", "f90", "f95", "inc", "in", "am", "cmake", "pc", "la", "mo", "po", "pot", "qm",
     "qml", "qmltypes", "qrc", "ui", "svg", "png", "jpg", "jpeg", "gif", "ico", "bmp", "tif", "tiff", "webp", "ttf",
     "otf", "woff", "woff2", "eot", "pfb", "afm", "npy", "npz", "mat", "sav", "h5", "hdf5", "parquet", "arrow",
     "feather", "pkl", "pickle", "gz", "bz2", "xz", "zip", "whl", "tar", "tgz", "pak", "dat", "db", "sqlite", "sql",
     "wav", "mp3", "mp4", "avi", "pdf", "ps", "tex", "bib", "ipynb", "sh", "bash", "fish", "bat", "ps1", "pem", "crt",
     "typed", "jinja", "j2", "tmpl", "license", "wasm", "a", "lib", "exp", "pdb", "lock", "log", "gir", "typelib"),
)  # fmt: skip
"""Ends of names that no loader is given: these files are not opened."""


@dataclass(frozen=True)
class NativeFile:
    """A native file.

    Attributes:
        path: as this machine names it.
        format: "elf", "pe" or "macho", by its first bytes.
        identity: device and number, the same for all names of one file.
        size: in bytes.
        times: when its content and its entry changed last (st_mtime_ns, st_ctime_ns).
    """

    path: str
    format: str
    identity: tuple[int, int]
    size: int
    times: tuple[int, int]


@dataclass
class NativeListing:
    """The native files below some folders.

    Attributes:
        files: in the order of their paths; of several links to one file the first that is no symbolic link.
        entries: how many entries of folders were looked at.
        unreadable: folders and files that could not be read, each with the reason.
        unfollowed: links to folders that were not looked at by another way.
        is_complete: whether all entries were looked at.
    """

    files: list[NativeFile] = field(default_factory=list)
    entries: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    unfollowed: list[str] = field(default_factory=list)
    is_complete: bool = True

    def describe_losses(self) -> list[str]:
        """Return a sentence for each kind of what was not looked at; [] if there is nothing."""
        notes = []
        if self.unreadable:
            shown = ", ".join(f"{path} ({why})" for path, why in self.unreadable[:_MOST_NAMED])
            more = f", and {len(self.unreadable) - _MOST_NAMED} more" if len(self.unreadable) > _MOST_NAMED else ""
            notes.append(f"{len(self.unreadable)} folders or files could not be read: {shown}{more}")
        if self.unfollowed:
            shown = ", ".join(self.unfollowed[:_MOST_NAMED])
            more = f", and {len(self.unfollowed) - _MOST_NAMED} more" if len(self.unfollowed) > _MOST_NAMED else ""
            notes.append(f"links to folders elsewhere, which were not followed: {shown}{more}")
        if not self.is_complete:
            notes.append(f"only the first {MOST_ENTRIES} entries were looked at: check parts of it by themselves")
        return notes


def list_native_files(folders: Iterable[str], *, one_system: bool = False) -> NativeListing:
    """Return the native files below the folders, which are taken in order and in each by name.

    Links to folders are not followed, as they may lead in circles and anywhere; what they lead to is found where it is.

    Arguments: `one_system`, the folders are of another system: links are left out, as the absolute ones among them
    would lead into this one, and so is what is mounted there (/proc).
    """
    walk = _FolderWalk(one_system=one_system)
    for folder in dict.fromkeys(folders):
        walk.take(folder)
    return walk.finish()


def is_cut_short(path: str) -> bool:
    """Return whether an ELF file ends before its section headers do, which lie at its end; other files are not judged.

    No loader reads them (elf(5)): such a file may load all the same.
    """
    try:
        head = read_regular(path, 64)
        size = os.stat(path).st_size
    except (OSError, BinaryFormatError):
        return False
    if len(head) < 64 or not head.startswith(b"\x7fELF"):
        return False
    order: Literal["little", "big"] = "big" if head[5] == 2 else "little"
    start, width, counts = (40, 8, 58) if head[4] == 2 else (32, 4, 46)
    offset = int.from_bytes(head[start : start + width], order)
    entry, count = (int.from_bytes(head[at : at + 2], order) for at in (counts, counts + 2))
    return bool(offset) and offset + entry * count > size


class _FolderWalk:
    def __init__(self, *, one_system: bool) -> None:
        self._listing = NativeListing()
        self._one_system = one_system
        self._folders: set[tuple[int, int]] = set()
        self._files: dict[tuple[int, int], NativeFile] = {}
        self._links: list[str] = []
        self._unfollowed: set[tuple[int, int]] = set()

    def take(self, top: str) -> None:
        try:
            device = os.stat(top).st_dev
        except (OSError, ValueError) as error:
            self._fail(top, error)
            return
        stack = [top]
        while stack:
            folder = stack.pop()
            try:
                status = os.stat(folder)
                entries = self._read(folder)
            except OSError as error:
                self._fail(folder, error)
                continue
            key = status.st_dev, status.st_ino
            if key in self._folders or (self._one_system and status.st_dev != device):
                continue
            self._folders.add(key)
            below = []
            for entry in entries:
                if self._listing.entries >= MOST_ENTRIES:
                    self._listing.is_complete = False
                    return
                self._listing.entries += 1
                if self._is_folder(entry):
                    below.append(entry.path)
            stack += reversed(below)

    def finish(self) -> NativeListing:
        for path in self._links:
            self._add(path)
        self._listing.files = sorted(self._files.values(), key=lambda file: file.path)
        return self._listing

    def _read(self, folder: str) -> list[os.DirEntry[str]]:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        """Take a file, or say that the entry is a folder to go into."""
        _, dot, ending = entry.name.rpartition(".")
        try:
            if entry.is_dir(follow_symlinks=False):
                return entry.name != "__pycache__"
            if dot and ending.lower() in _NOT_NATIVE:
                return False
            if entry.is_symlink():
                if not self._one_system:
                    self._links.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                self._add(entry.path)
        except OSError as error:
            self._fail(entry.path, error)
        return False

    def _add(self, path: str) -> None:
        try:
            status = os.stat(path)
        except OSError:
            return  # a link to nothing, or one that leads back to itself
        identity = status.st_dev, status.st_ino
        if stat.S_ISDIR(status.st_mode):
            if identity not in self._folders and identity not in self._unfollowed:
                self._unfollowed.add(identity)
                self._listing.unfollowed.append(path)
            return
        if status.st_size < _SMALLEST or not stat.S_ISREG(status.st_mode) or identity in self._files:
            return
        try:
            fd = open_regular(path)
            try:
                head = os.read(fd, _HEAD)
            finally:
                os.close(fd)
        except (OSError, BinaryFormatError) as error:
            self._fail(path, error)
            return
        kind = _format_of(head)
        if kind is not None:
            times = status.st_mtime_ns, status.st_ctime_ns
            self._files[identity] = NativeFile(path, kind, identity, status.st_size, times)

    def _fail(self, path: str, error: Exception) -> None:
        why = error.strerror or "" if isinstance(error, OSError) else str(error)
        self._listing.unreadable.append((path, why or type(error).__name__))


def _format_of(head: bytes) -> str | None:
    if head.startswith(b"\x7fELF"):
        return "elf"
    if head.startswith(b"MZ"):
        return "pe"
    return "macho" if is_macho(head) else None
