"""The native files below folders, each file once, and what the Python code of their package does about them.

A package is sound without an optional back end that it imports in a `try`. The code is parsed, and not run.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..binary.reading import is_macho, open_regular, read_regular
from ..errors import BinaryFormatError
from .bounded import read_regular_file
from .wheel import LOADING_WORDS

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
        is_complete: whether all entries were looked at.
    """

    files: list[NativeFile] = field(default_factory=list)
    entries: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    is_complete: bool = True

    def describe_losses(self) -> list[str]:
        """Return a sentence for each kind of what was not looked at; [] if there is nothing."""
        notes = []
        if self.unreadable:
            shown = ", ".join(f"{path} ({why})" for path, why in self.unreadable[:_MOST_NAMED])
            more = f", and {len(self.unreadable) - _MOST_NAMED} more" if len(self.unreadable) > _MOST_NAMED else ""
            notes.append(f"{len(self.unreadable)} folders or files could not be read: {shown}{more}")
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
    """Whether an ELF file ends before its section headers do, which lie at its end; other files are not judged.

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


_MOST_FILES = 5_000
_MOST_BYTES = 4 << 20
_SHORTEST_STEM = 2
_CATCHING = {"ImportError", "ModuleNotFoundError", "OSError", "Exception", "BaseException"}


def is_import_guarded(module: str, site_folder: str) -> bool:
    """Return whether the package of an extension module imports it, and nowhere without catching a failure.

    Arguments: `module`, path of the file; `site_folder`, the folder of packages that it is in. The code is parsed, not
    run. Code that cannot be parsed counts as one that imports without a guard.
    """
    relative = os.path.relpath(module, site_folder)
    package, separator, _ = relative.partition(os.sep)
    if not separator or package == os.pardir:
        return False
    name = os.path.basename(module).partition(".")[0]
    found = False
    for number, path in enumerate(_list_sources(os.path.join(site_folder, package))):
        if number >= _MOST_FILES:
            return False
        try:
            source = read_regular_file(path, _MOST_BYTES)
        except (OSError, ValueError):
            continue
        if name.encode() not in source or b"import" not in source:
            continue
        guards = _guards_of(source, name)
        if guards is None or not all(guards):
            return False
        found |= bool(guards)
    return found


def loads_libraries(path: str, site_folder: str) -> bool:
    """Return whether code of the package that a file belongs to names a function that loads libraries or adds folders.

    Arguments: `path` of the file; `site_folder`, the folder of packages that it is in.
    """
    package, separator, _ = os.path.relpath(path, site_folder).partition(os.sep)
    if not separator or package == os.pardir:
        return False
    for source in itertools.islice(_list_sources(os.path.join(site_folder, package)), _MOST_FILES):
        try:
            if LOADING_WORDS.search(read_regular_file(source, _MOST_BYTES)):
                return True
        except (OSError, ValueError):
            continue
    return False


def names_library(library: str, site_folder: str) -> bool:
    """Return whether Python code below a folder names a library: code that loads one by ctypes does.

    Code may leave out "lib" and the end of the name, which differ by system ("z3" for libz3.so, libz3.dll).

    Arguments: `library`, name of the file; `site_folder`, the folder of packages. The code is not run.
    """
    stem = library.partition(".")[0].removeprefix("lib")
    if len(stem) < _SHORTEST_STEM:
        stem = library
    wanted = re.compile(rb"(?<![A-Za-z0-9])(?:lib)?" + re.escape(stem.encode()) + rb"(?![A-Za-z0-9])")
    for source in itertools.islice(_list_sources(site_folder), _MOST_FILES):
        try:
            if wanted.search(read_regular_file(source, _MOST_BYTES)):
                return True
        except (OSError, ValueError):
            continue
    return False


class PackageCode:
    """The answers for the native files of an environment, each asked for once.

    Arguments: `site_folders`, the folders of packages; paths of files begin with one of them and "/".
    """

    def __init__(self, site_folders: Sequence[str]) -> None:
        self._site_folders = site_folders
        self._loading: dict[str, bool] = {}
        self._optional: dict[str, bool] = {}

    def site_of(self, path: str) -> str | None:
        """Return the folder of packages that a file is in; `None` for a file elsewhere."""
        sites = [site for site in self._site_folders if path.startswith(f"{site}/")]
        return max(sites, key=len) if sites else None

    def top_of(self, path: str) -> str | None:
        """Return the top folder of the package that a file is in; `None` for a file elsewhere."""
        site = self.site_of(path)
        return None if site is None else f"{site}/{path[len(site) + 1 :].partition('/')[0]}"

    def loads(self, path: str) -> bool:
        """Whether code of the package of a file loads libraries itself, and so perhaps what this file needs."""
        site, top = self.site_of(path), self.top_of(path)
        if site is None or top is None:
            return False
        if top not in self._loading:
            self._loading[top] = loads_libraries(path, site)
        return self._loading[top]

    def is_optional(self, path: str) -> bool:
        """Whether the package of a module goes on without it."""
        if path not in self._optional:
            site = self.site_of(path)
            self._optional[path] = site is not None and is_import_guarded(path, site)
        return self._optional[path]


def _list_sources(folder: str) -> Iterator[str]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each not in ("__pycache__", "tests", "test"))
        yield from (os.path.join(here, name) for name in sorted(names) if name.endswith(".py"))


def _guards_of(source: bytes, name: str) -> list[bool] | None:
    """Return for each import of a module of that name whether it is guarded; `None` if the code cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    guards = []
    stack: list[tuple[ast.AST, bool]] = [(tree, False)]
    while stack:
        node, is_guarded = stack.pop()
        if isinstance(node, ast.Import | ast.ImportFrom) and _names(node, name):
            guards.append(is_guarded)
        if isinstance(node, ast.Try) and any(map(_catches, node.handlers)):
            stack += [(child, True) for child in node.body]
            rest: list[ast.AST] = [*node.handlers, *node.orelse, *node.finalbody]
            stack += [(child, is_guarded) for child in rest]
        else:
            stack += [(child, is_guarded) for child in ast.iter_child_nodes(node)]
    return guards


def _names(node: ast.Import | ast.ImportFrom, name: str) -> bool:
    modules = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        modules.append(node.module or "")
    return any(name == module.rpartition(".")[2] for module in modules)


def _catches(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches a failed import and goes on: numpy's raises another error, with advice."""
    if any(isinstance(node, ast.Raise) for statement in handler.body for node in ast.walk(statement)):
        return False
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in _CATCHING)
        or (isinstance(kind, ast.Attribute) and kind.attr in _CATCHING)
        for kind in kinds
    )  # fmt: skip
