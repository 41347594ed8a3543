"""Searches the files of this machine: for copies of a library, for a symbol, for a text."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

from ..binary.reading import read_regular
from ..errors import BinaryFormatError
from ..model.environment import CONFIGURED, has_hash
from ..model.failure import ProcessFacts, System
from .bounded import read_regular_file
from .machine import real_path

_START, _END = "# start delvewheel patch", "# end delvewheel patch"
"""Without the end of the line, which is CR LF in the files of some wheels (psycopg2-binary 2.9.11)."""
_FOLDER = re.compile(r"os\.path\.join\(os\.path\.dirname\(__file__\)((?:, ?os\.pardir)*), ?'([^'/\\]+)'\)")
MOST_PARENTS = 16
"""Folders above a file in which `read_added_folders` looks for code."""
_MOST_BYTES = 1 << 20
_MOST_FOLDERS = 64


def read_added_folders(
    image: str, read: Callable[[str], str | None] | None = None, is_folder: Callable[[str], bool] = os.path.isdir,
    paths: ModuleType = os.path,
) -> tuple[str, ...]:  # fmt: skip
    """The folders that importing the packages of `image` (a path of this system) adds; () if they add none.

    Arguments, for files elsewhere: `read` returns the text at a path, `None` for no file; `is_folder` says whether
    there is a folder; `paths`, the module for their paths.
    """
    found: dict[str, None] = {}
    folder = paths.dirname(paths.abspath(image))
    for _ in range(MOST_PARENTS):
        code = (read or _read)(paths.join(folder, "__init__.py"))
        if code is None:
            break
        # Not one regular expression: many starts without an end would take it the square of the file's size.
        for block in code.split(_START)[1:]:
            patch, end, _ = block.partition(_END)
            for up, name in _FOLDER.findall(patch)[:_MOST_FOLDERS] if end else ():
                added = paths.normpath(paths.join(folder, *([os.pardir] * up.count("pardir")), name))
                if is_folder(added):
                    found[added] = None
        folder = paths.dirname(folder)
    return tuple(found)


def _read(path: str) -> str | None:
    try:
        return read_regular(path, _MOST_BYTES).decode("utf-8", "replace")
    except (OSError, BinaryFormatError):
        return None


_MOST_SEARCHED_FOLDERS = 4000
_SYSTEM_FOLDERS = (
    "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu", "/lib", "/lib64", "/opt",
)  # fmt: skip


@dataclass(frozen=True)
class FoundCopy:
    """A file of a wanted name: its `path`, and `where` that is, in words."""

    path: str
    where: str


def find_copies(
    names: Iterable[str], process: ProcessFacts, more: Iterable[tuple[str, str]] = ()
) -> dict[str, tuple[FoundCopy, ...]]:
    """Each name, as given, to the files of that name: in packages, environments, PATH and the usual system folders.

    Each folder is listed once, and no more than some thousand of them: a person's disk is not walked.

    Argument: `more`, folders to look in first, each with words for what it is.
    """
    windows = process.system is System.WINDOWS
    wanted: dict[str, str] = {(name.lower() if windows else name): name for name in names}
    found: dict[str, dict[str, FoundCopy]] = {}
    for number, (folder, where) in enumerate(_folders(process, more)):
        if number >= _MOST_SEARCHED_FOLDERS:
            break
        for entry in _list(folder):
            name = wanted.get(entry.lower() if windows else entry)
            if name is not None:
                path = os.path.join(folder, entry)
                found.setdefault(name, {}).setdefault(real_path(path), FoundCopy(path, where))
    return {name: tuple(copies.values()) for name, copies in found.items()}


_NUMBER = re.compile(r"\d+")
_MOST_VERSIONS = 5


def find_other_versions(name: str, process: ProcessFacts) -> tuple[FoundCopy, ...]:
    """Files whose names differ from that of a library of Windows in numbers only: gdal309.dll for gdal304.dll.

    () for a name without a number, and for one with a hash, which is no version.
    """
    if not _NUMBER.search(name) or has_hash(name):
        return ()
    pattern = re.compile(r"\d+".join(map(re.escape, _NUMBER.split(name))), re.IGNORECASE)
    found: list[FoundCopy] = []
    for number, (folder, where) in enumerate(_folders(process, ())):
        if number >= _MOST_SEARCHED_FOLDERS or len(found) >= _MOST_VERSIONS:
            break
        names = (entry for entry in _list(folder) if pattern.fullmatch(entry) and entry.lower() != name.lower())
        found += [FoundCopy(os.path.join(folder, entry), where) for entry in names]
    return tuple(found[:_MOST_VERSIONS])


def _folders(process: ProcessFacts, more: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Folders with words for what they are; the likelier ones first."""
    seen: set[str] = set()
    for folder, where in (*more, *_named_folders(process)):
        real = real_path(folder)
        if folder and real not in seen and os.path.isdir(real):
            seen.add(real)
            yield folder, where


def _configured_folders(file: str = "/etc/ld.so.conf", depth: int = 2) -> Iterator[str]:
    """The folders that ldconfig(8) reads from ld.so.conf and the files that it includes."""
    try:
        lines = read_regular(file, _MOST_BYTES).decode("utf-8", "replace").splitlines()
    except (OSError, BinaryFormatError):
        return
    for line in lines[:_MOST_FOLDERS]:
        words = line.partition("#")[0].split()
        if words[:1] == ["include"] and depth:
            for pattern in words[1:]:
                for included in sorted(glob.glob(os.path.join(os.path.dirname(file), pattern)))[:_MOST_FOLDERS]:
                    yield from _configured_folders(included, depth - 1)
        elif words and words[0].startswith("/"):
            yield words[0].rstrip("/")


def _named_folders(process: ProcessFacts) -> Iterator[tuple[str, str]]:
    yield from _prefix_folders(process)
    start = process.loader_environment.get("LD_LIBRARY_PATH", "").split(":")
    for entry in dict.fromkeys((*start, *process.variable("LD_LIBRARY_PATH").split(":"))):
        late = "" if entry in start else ", set after the start"
        yield entry, f"a folder of LD_LIBRARY_PATH{late}"
    for entry in process.variable("PATH").split(os.pathsep):
        yield entry, "a folder of PATH"
    if process.system is System.LINUX:
        yield from ((folder, CONFIGURED) for folder in _configured_folders())
        yield from _system_folders()
    for entry in dict.fromkeys(entry or process.current_folder for entry in process.path):
        if os.path.isdir(entry):
            for folder in _below(entry, 3):
                yield folder, "a package on sys.path"


def _prefix_folders(process: ProcessFacts) -> Iterator[tuple[str, str]]:
    prefixes = {
        "the environment": process.prefix,
        "the Python installation": process.base_prefix,
        "the conda environment": process.variable("CONDA_PREFIX"),
        "the user's site": process.user_base or "",
    }
    for where, prefix in prefixes.items():
        for inner in ("", "lib", "lib64", "bin", "DLLs", os.path.join("Library", "bin")) if prefix else ():
            yield os.path.join(prefix, inner), where


def _system_folders() -> Iterator[tuple[str, str]]:
    for folder in _SYSTEM_FOLDERS:
        yield folder, "a folder of the system"
    for folder in _below("/opt", 2):
        yield folder, "a folder below /opt"
    for folder in _below("/usr/local", 3):
        if os.path.basename(folder) in ("lib", "lib64"):
            yield folder, "a folder below /usr/local"


def _below(top: str, depth: int) -> Iterator[str]:
    """The folder and those below it, to that depth, nearer ones first; links are not followed."""
    level = [top]
    for _ in range(depth + 1):
        following: list[str] = []
        for folder in level:
            yield folder
            try:
                with os.scandir(folder) as entries:
                    following += sorted(
                        entry.path for entry in entries
                        if entry.name != "__pycache__" and entry.is_dir(follow_symlinks=False)
                    )  # fmt: skip
            except (OSError, ValueError):
                continue
        level = following


def _list(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (OSError, ValueError):
        return []


_MOST_OF_A_FILE = 32 << 20
_MOST_SEARCHED_BYTES = 400 << 20
"""What is read for one question, in all: a second's work."""
_MOST_OF_A_FOLDER = 200
_LIBRARY = re.compile(r"\.so(?:\.\d+)*$")
_SHORTEST_TEXT = 16
"""Characters of a line that no other file has by accident."""
_FILLED_IN = re.compile(r"0x[0-9a-fA-F]+|\d+|/\S+|'[^']*'|\"[^\"]*\"|[^\x20-\x7e]+")
"""What a program puts into a text that it has: numbers, paths, names in quotes."""


def find_definers(
    symbol: str, folders: Iterable[str], others: Iterable[str], *, fits: Callable[[str], bool]
) -> tuple[str, ...]:
    """Return the libraries that define a symbol: those in the folders, else those among `others`.

    Arguments:
        symbol: as the dynamic symbol table has it.
        folders: the likely places.
        others: files of libraries, such as all of ld.so.cache.
        fits: whether a file that has the name in it defines it, and can be loaded.
    """
    wanted = symbol.encode() + b"\0"
    left = _MOST_SEARCHED_BYTES
    for paths in (_libraries_in(folders), others):
        found: dict[str, str] = {}
        for path in paths:
            real = real_path(path)
            if real in found or left <= 0:
                continue
            data = _read_library(real)
            left -= len(data)
            if wanted in data and fits(path):
                found[real] = path
        if found:
            return tuple(found.values())
    return ()


def find_speaker(lines: Iterable[str], paths: Iterable[str]) -> str | None:
    """Return the one file of `paths` that holds the texts of those lines; `None` if none does, or several do alike.

    Numbers, paths and quoted names are filled in when a text is written, and are not looked for.
    """
    texts = [part.strip().encode() for line in lines for part in _FILLED_IN.split(line)]
    texts = [text for text in texts if len(text) >= _SHORTEST_TEXT]
    left, counts = _MOST_SEARCHED_BYTES, dict[str, int]()
    for path in paths if texts else ():
        if left <= 0:
            break
        data = _read_library(path)
        left -= len(data)
        counts[path] = sum(text in data for text in texts)
    best = max(counts.values(), default=0)
    speakers = [path for path, count in counts.items() if count == best and best]
    return speakers[0] if len(speakers) == 1 else None


def _libraries_in(folders: Iterable[str]) -> Iterator[str]:
    for folder in dict.fromkeys(folders):
        try:
            names = sorted(name for name in os.listdir(folder) if _LIBRARY.search(name))
        except (OSError, ValueError):
            continue
        yield from (f"{folder}/{name}" for name in names[:_MOST_OF_A_FOLDER])


def _read_library(path: str) -> bytes:
    try:
        return read_regular_file(path, _MOST_OF_A_FILE)
    except (OSError, ValueError, BinaryFormatError):
        return b""
