"""Reads installed Python distributions: their files, and which of their requirements apply to an interpreter.

Source: "Recording installed projects" and "Core metadata", Python Packaging User Guide. importlib.metadata is not used:
the files may be anybody's, and it would wait for a FIFO and read without a bound.

Source of requirements: "Dependency specifiers", Packaging User Guide (PEP 508), as far as metadata of wheels uses it. A
requirement with a marker that cannot be read does not count as missing.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import platform
import re
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..model.environment import ChangedFile, FileState, RecordCheck
from ..model.failure import ProcessFacts, System
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

    @cached_property
    def record(self) -> list[list[str]] | None:
        """Path, hash and size of each file in the RECORD, read once; other lines are left out. `None` without one."""
        try:
            text = read_regular_file(os.path.join(self.info, "RECORD"), _MOST_RECORD).decode("utf-8", "replace")
            return [row for row in csv.reader(text.splitlines()) if len(row) == 3]
        except OSError:
            return None
        except csv.Error:
            return []

    @property
    def modules(self) -> tuple[str, ...]:
        """The top-level modules that it brings, by its RECORD; the packages first."""
        packages, files = dict[str, None](), dict[str, None]()
        for path, _, _ in self.record or ():
            first, slash, _ = path.partition("/")
            if slash and first.isidentifier() and not path.endswith(".pth"):
                packages[first] = None
            elif not slash and first.endswith((".py", ".so", ".pyd")) and first.partition(".")[0].isidentifier():
                files[first.partition(".")[0]] = None
        return (*packages, *(name for name in files if name not in packages))

    def recorded_elsewhere(self) -> Iterator[str]:
        """Yield the files of the RECORD that may be in no folder of packages, or that are among compiled files."""
        for path, recorded, _ in self.record or ():
            is_elsewhere = ".." in path or os.path.isabs(path) or "__pycache__" in path
            if recorded and is_elsewhere and not path.endswith(".pyc"):
                yield self.locate(path)

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


def check_record(
    found: Distribution, *, suffixes: Sequence[str] = (), hashed: Collection[str] | None = None
) -> RecordCheck:
    """Hold the files of an installed Python distribution against its RECORD.

    Arguments:
        found: the distribution.
        suffixes: check only files whose names have one of them in or at the end (".so", ".dll"); () for all.
        hashed: base names of files that are checked in any case, and by their hash; of all other files only the size
            is compared. `None`: the hash of every file.
    """
    if found.record is None:
        return RecordCheck(found.name, found.version, problem="it has no RECORD", folder=found.folder)
    rows = [(row, row[0].rpartition("/")[2]) for row in found.record if row[1]]
    rows = [(row, name) for row, name in rows if _has_suffix(name, suffixes) or (hashed and name in hashed)]
    states = [_check_file(found.locate(row[0]), row, hashed is None or name in hashed) for row, name in rows]
    changed = tuple(state for state in states if state)
    return RecordCheck(found.name, found.version, len(rows), changed, folder=found.folder)


def find_changed(found: Distribution, identities: Container[str]) -> RecordCheck:
    """Hold all files of an installed distribution against its RECORD, as far as that is cheap.

    Existence and size are compared of every file. Sums are compared of native files that were written after the RECORD
    was, which installers write last; a gigabyte of sums takes a second. Compiled files (.pyc) are left out.

    Arguments: `found`; `identities`, the paths of the native files.
    """
    if found.record is None:
        return RecordCheck(found.name, found.version, problem="it has no RECORD", folder=found.folder)
    try:
        written = os.stat(os.path.join(found.info, "RECORD")).st_mtime_ns
    except OSError:
        written = 0
    rows = [row for row in found.record if row[1] and not row[0].endswith(".pyc")]
    changed = []
    for row in rows:
        path = found.locate(row[0])
        try:
            hashes = path in identities and os.stat(path).st_mtime_ns > written
        except OSError:
            hashes = False
        state = _check_file(path, row, hashes)
        if state is not None:
            changed.append(state)
    return RecordCheck(found.name, found.version, len(rows), tuple(changed), folder=found.folder)


def is_repackaged(found: Distribution) -> bool:
    """Return whether conda or a Linux distribution installed it: they change files after the RECORD was made.

    conda writes the prefix into files; dpkg and rpm packages are stripped. The file INSTALLER names who installed;
    Debian's packages have none, and a folder of their own (Python Policy).
    """
    if found.folder.replace(os.sep, "/").endswith("/lib/python3/dist-packages"):
        return True
    try:
        return read_regular_file(os.path.join(found.info, "INSTALLER"), 64).strip() in (b"conda", b"debian", b"rpm")
    except (OSError, ValueError):
        return False


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


def _has_suffix(name: str, suffixes: Sequence[str]) -> bool:
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


_NAME = re.compile(
    r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*\(?([^;@()]*)\)?\s*(@[^;]*)?(?:;(.*))?"
)
_TOKEN = re.compile(
    r"\s*(?:(\(|\)|and\b|or\b|not\s+in\b|in\b|===|==|~=|!=|<=|>=|<|>)|'([^']*)'|\"([^\"]*)\"|([A-Za-z_.]+))"
)
_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
_MOST_TOKENS = 200


@dataclass(frozen=True)
class Requirement:
    """A package that another one requires: its `name`, and the `versions` that will do, as written (">=1.2")."""

    name: str
    versions: str


def read_requirement(text: str, process: ProcessFacts) -> Requirement | None:
    """Return the requirement if it applies to the interpreter, without any extra; `None` if not, or if unreadable."""
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    if found[4] is not None and _Marker(found[4], _values(process)).holds() is not True:
        return None
    return Requirement(found[1], found[2].replace(" ", ""))


def _values(process: ProcessFacts) -> dict[str, str]:
    windows = process.system is System.WINDOWS
    version = ".".join(map(str, process.version[:3]))
    return {
        "python_version": ".".join(map(str, process.version[:2])), "python_full_version": version,
        "implementation_version": version, "os_name": "nt" if windows else "posix",
        "sys_platform": "win32" if windows else "linux", "platform_system": "Windows" if windows else "Linux",
        "platform_machine": platform.machine(), "platform_python_implementation": platform.python_implementation(),
        "implementation_name": platform.python_implementation().lower(), "extra": "",
    }  # fmt: skip


class _Marker:
    """A marker being read from left to right. Truth is `None` for what is not known."""

    def __init__(self, text: str, values: dict[str, str]) -> None:
        self._values = values
        self._tokens: list[tuple[str, str | None]] | None = []
        at, end = 0, len(text.rstrip())
        while at < end and self._tokens is not None:
            found = _TOKEN.match(text, at)
            if found is None or len(self._tokens) >= _MOST_TOKENS:
                self._tokens = None
                break
            quoted = found[2] if found[2] is not None else found[3]
            kind = re.sub(r"\s+", " ", found[1]) if found[1] else "value"
            self._tokens.append((kind, quoted if quoted is not None or found[1] else values.get(found[4])))
            at = found.end()

    def holds(self) -> bool | None:
        """Return whether the marker holds; `None` if it cannot be read."""
        if self._tokens is None:
            return None
        try:
            truth = self._any()
        except (IndexError, RecursionError):
            return None
        return truth if not self._tokens else None

    def _any(self) -> bool | None:
        truths = [self._all()]
        while self._tokens and self._tokens[0][0] == "or":
            self._tokens.pop(0)
            truths.append(self._all())
        return True if True in truths else None if None in truths else False

    def _all(self) -> bool | None:
        truths = [self._one()]
        while self._tokens and self._tokens[0][0] == "and":
            self._tokens.pop(0)
            truths.append(self._one())
        return False if False in truths else None if None in truths else True

    def _one(self) -> bool | None:
        assert self._tokens is not None
        if self._tokens[0][0] == "(":
            self._tokens.pop(0)
            truth = self._any()
            self._tokens.pop(0)
            return truth
        (_, left), (operator, _), (_, right) = (self._tokens.pop(0) for _ in range(3))
        return None if left is None or right is None else _compare(left, operator, right)


def _compare(left: str, operator: str, right: str) -> bool | None:
    if operator in ("in", "not in"):
        return (left in right) is (operator == "in")
    if _NUMBERS.fullmatch(left) and _NUMBERS.fullmatch(right):
        one, other = _release(left), _release(right)
        return {
            "==": one == other, "!=": one != other, "<": one < other, ">": one > other, "<=": one <= other,
            ">=": one >= other, "===": left == right,
        }.get(operator)  # fmt: skip
    return {"==": left == right, "!=": left != right, "===": left == right}.get(operator)


def _release(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
