"""Installed Python distributions, read from the metadata that installers leave in site-packages.

Source: "Recording installed projects" and "Core metadata", Python Packaging User Guide. importlib.metadata is not used:
the files may be anybody's, and it would wait for a FIFO and read without a bound.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..model.provider import ChangedFile, FileState, RecordCheck
from .bounded import read_regular_file

_MOST_RECORD = 64 << 20
_MOST_METADATA = 4 << 20
_INFO = ".dist-info"


@dataclass(frozen=True)
class Distribution:
    """An installed distribution.

    Attributes:
        name, version: as its METADATA has them, else as its folder is named.
        folder: where it is installed (site-packages); paths of its RECORD begin there.
        info: its folder NAME-VERSION.dist-info.
        requires: its Requires-Dist, as they are written.
    """

    name: str
    version: str
    folder: str
    info: str
    requires: tuple[str, ...] = ()

    def read_record(self) -> list[list[str]] | None:
        """Return path, hash and size of each file; lines that are not so are left out. `None` without a RECORD."""
        try:
            text = read_regular_file(os.path.join(self.info, "RECORD"), _MOST_RECORD).decode("utf-8", "replace")
            return [row for row in csv.reader(text.splitlines()) if len(row) == 3]
        except OSError:
            return None
        except csv.Error:
            return []

    def locate(self, recorded: str) -> str:
        """Return the path of a file that the RECORD lists."""
        return os.path.normpath(os.path.join(self.folder, recorded))


def list_distributions(folders: Iterable[str]) -> Iterator[Distribution]:
    """Yield the distributions installed in these folders; folders and metadata that cannot be read are left out."""
    for folder in dict.fromkeys(folders):
        try:
            entries = sorted(entry for entry in os.listdir(folder) if entry.endswith(_INFO))
        except (OSError, ValueError):
            continue
        for entry in entries:
            yield _read_distribution(os.path.abspath(folder), entry)


def find_distribution(name: str, folders: Iterable[str]) -> Distribution | None:
    """Return the first distribution of that name, compared as names of packages are; `None` if there is none."""
    wanted = normalize(name)
    for folder in dict.fromkeys(folders):
        try:
            entries = sorted(entry for entry in os.listdir(folder) if entry.endswith(_INFO))
        except (OSError, ValueError):
            continue
        for entry in entries:
            if normalize(entry.partition("-")[0]) == wanted:
                return _read_distribution(os.path.abspath(folder), entry)
    return None


def normalize(name: str) -> str:
    """Return the name of a Python package for comparing ("Names and normalization", Packaging User Guide)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check_record(
    distribution: str, folders: Iterable[str], *, hashes: bool = True, suffixes: Sequence[str] = ()
) -> RecordCheck:
    """Hold the files of an installed Python distribution against its RECORD.

    Arguments:
        distribution: its name.
        folders: where to look for it.
        hashes: read and hash the files; else compare their sizes only.
        suffixes: check only files whose names have one of them in or at the end (".so", ".dll"); () for all.
    """
    found = find_distribution(distribution, folders)
    if found is None:
        return RecordCheck(distribution, problem="it is not installed")
    record = found.read_record()
    if record is None:
        return RecordCheck(distribution, found.version, problem="it has no RECORD")
    rows = [row for row in record if row[1] and _is_wanted(row[0], suffixes)]
    states = [_check_file(found.locate(row[0]), row, hashes) for row in rows]
    changed = tuple(state for state in states if state)
    return RecordCheck(distribution, found.version, len(rows), changed, folder=found.folder)


def _read_distribution(folder: str, entry: str) -> Distribution:
    info = os.path.join(folder, entry)
    name, _, version = entry.removesuffix(_INFO).partition("-")
    requires: list[str] = []
    try:
        head = read_regular_file(os.path.join(info, "METADATA"), _MOST_METADATA).decode("utf-8", "replace")
    except OSError:
        head = ""
    for line in head.splitlines():
        key, _, value = line.partition(":")
        if not line:  # the description follows
            break
        if key == "Name":
            name = value.strip()
        elif key == "Version":
            version = value.strip()
        elif key == "Requires-Dist":
            requires.append(value.strip())
    return Distribution(name, version, folder, info, tuple(requires))


def _is_wanted(path: str, suffixes: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return not suffixes or any(name.endswith(suffix) or f"{suffix}." in name for suffix in suffixes)


def _check_file(path: str, row: list[str], hashes: bool) -> ChangedFile | None:
    size = int(row[2]) if row[2].isascii() and row[2].isdigit() and len(row[2]) < 20 else None
    if not os.path.isfile(path):
        return ChangedFile(path, FileState.ABSENT, size)
    try:
        found = os.path.getsize(path)
        same = size in (None, found) and (not hashes or _has_hash(path, row[1]))
    except OSError:
        return ChangedFile(path, FileState.UNREADABLE, size)
    return None if same else ChangedFile(path, FileState.CHANGED, size, found)


def _has_hash(path: str, recorded: str) -> bool:
    """Return whether the file has the hash `NAME=BASE64`; with an algorithm that is not to be had here it has."""
    name, _, value = recorded.partition("=")
    if name not in hashlib.algorithms_guaranteed or name.startswith("shake"):
        return True
    digest = hashlib.new(name, usedforsecurity=False)
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode() == value.rstrip("=")
