"""Which installed package has a file, by the word of the package managers of this machine; and is it as installed?

Nothing here raises for what is absent: a manager that does not exist here is named in the answer.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata

from ..model.provider import (
    ChangedFile,
    FileState,
    OwnerAnswer,
    PackageManager,
    PackageOwner,
    RecordCheck,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

TIMEOUT = 20.0
"""Seconds that one call of a package manager may take."""
MOST_OWNERS = 20
LARGEST_METADATA = 64 * 1024 * 1024

_Found = list[PackageOwner] | str
"""The owners, or why the manager could not be asked."""


def find_owners(path: str, site_folders: Sequence[str] = ()) -> OwnerAnswer:
    """The installed packages that have the file at a path.

    Arguments:
        path: whole path of a file; it need not exist any more.
        site_folders: folders with the metadata of Python packages (site-packages), besides the one around the file.
    """
    # The folders as sys.path spells them come first: the one around the file may go by another name (a link).
    folders = [folder for folder in (*site_folders, site_folder(path)) if folder]
    asks: tuple[tuple[PackageManager, Callable[[], _Found]], ...] = (
        (PackageManager.PIP, lambda: _ask_records(path, folders)),
        (PackageManager.CONDA, lambda: _ask_conda(path)),
        (PackageManager.DPKG, lambda: _ask_dpkg(_spellings(path))),
        (PackageManager.RPM, lambda: _ask_rpm(["-qf", path], path)),
        (PackageManager.APK, lambda: _ask_apk(path)),
    )
    return _collect(asks)


def find_library_owners(name: str) -> OwnerAnswer:
    """The packages of the system that have a file of that name (a soname), installed or, by apt-file, to be had."""
    if name.startswith("-"):
        return OwnerAnswer()
    asks: tuple[tuple[PackageManager, Callable[[], _Found]], ...] = (
        (PackageManager.DPKG, lambda: _ask_dpkg([f"*/{dpkg_literal(name)}"])),
        (PackageManager.RPM, lambda: _ask_rpm(["-q", "--whatprovides", f"{name}()(64bit)"], name)),
        (PackageManager.APT_FILE, lambda: _ask_apt_file(name)),
    )
    return _collect(asks)


def check_record(
    distribution: str, folders: Sequence[str] | None = None, *, hashes: bool = True, suffixes: Sequence[str] = ()
) -> RecordCheck:
    """Hold the files of an installed Python distribution against its RECORD.

    Arguments:
        distribution: its name.
        folders: where to look for it; `None` for `sys.path`.
        hashes: read and hash the files; else compare their sizes only.
        suffixes: check only files whose names have one of them in or at the end (".so", ".dll"); () for all.

    Source: "Recording installed projects", Python Packaging User Guide.
    """
    path = sys.path if folders is None else list(folders)
    found = next(iter(metadata.distributions(name=distribution, path=path)), None)
    if found is None:
        return RecordCheck(distribution, problem="it is not installed")
    text = found.read_text("RECORD")
    if text is None:
        return RecordCheck(distribution, found.version, problem="it has no RECORD")
    rows = [row for row in _rows(text) if row[1] and _is_wanted(row[0], suffixes)]
    states = [_check_file(str(found.locate_file(row[0])), row, hashes) for row in rows]
    changed = tuple(state for state in states if state)
    return RecordCheck(distribution, found.version, len(rows), changed, folder=_folder_of(found))


def _collect(asks: Iterable[tuple[PackageManager, Callable[[], _Found]]]) -> OwnerAnswer:
    owners: list[PackageOwner] = []
    asked: list[PackageManager] = []
    unavailable: list[tuple[PackageManager, str]] = []
    for manager, ask in asks:
        found = ask()
        if isinstance(found, str):
            unavailable.append((manager, found))
        else:
            asked.append(manager)
            owners += found[:MOST_OWNERS]
    return OwnerAnswer(tuple(owners), tuple(asked), tuple(unavailable))


def run_manager(*command: str) -> tuple[int, str] | str:
    """Exit code and output of a manager; or why it could not be run."""
    program = shutil.which(command[0])
    if program is None:
        return f"{command[0]} is not installed"
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [program, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, env=environment,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"{command[0]} did not answer within {TIMEOUT:g} s"
    except (OSError, ValueError) as error:
        return f"{command[0]} could not be run: {error}"
    return done.returncode, os.fsdecode(done.stdout)


def _ask_dpkg(patterns: Sequence[str]) -> _Found:
    # Exit code 1: no package has one of them.
    done = run_manager("dpkg-query", "-S", "--", *patterns)
    if isinstance(done, str) or done[0] not in (0, 1):
        return done if isinstance(done, str) else f"dpkg-query failed with exit code {done[0]}"
    owners: list[PackageOwner] = []
    for line in done[1].splitlines()[:MOST_OWNERS]:
        packages, separator, path = line.partition(": ")
        if separator and not packages.startswith("diversion by "):
            for name in packages.split(", "):
                owners.append(PackageOwner(PackageManager.DPKG, name, _dpkg_version(name), path))
    return owners


def _dpkg_version(package: str) -> str:
    done = run_manager("dpkg-query", "-W", "-f", "${Version}", "--", package)
    return done[1] if isinstance(done, tuple) and done[0] == 0 else ""


def _spellings(path: str) -> list[str]:
    """The path with and without /usr: where both are one folder, a package may have listed it either way."""
    other = path.removeprefix("/usr") if path.startswith("/usr/") else f"/usr{path}"
    return [dpkg_literal(path), dpkg_literal(other)] if path.startswith("/") else [dpkg_literal(path)]


def dpkg_literal(text: str) -> str:
    """For dpkg-query(1), which takes patterns of a shell."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)


def _ask_rpm(arguments: Sequence[str], path: str) -> _Found:
    done = run_manager("rpm", "--qf", "%{NAME}\t%{VERSION}-%{RELEASE}\n", *arguments)
    if isinstance(done, str):
        return done
    rows = (line.split("\t") for line in done[1].splitlines())
    return [PackageOwner(PackageManager.RPM, row[0], row[1], path) for row in rows if len(row) == 2]


def _ask_apk(path: str) -> _Found:
    done = run_manager("apk", "info", "--who-owns", path)
    if isinstance(done, str):
        return done
    found = re.findall(r"is owned by (\S+)-(\d[^-\s]*-r\d+)$", done[1], re.MULTILINE)
    return [PackageOwner(PackageManager.APK, name, version, path) for name, version in found]


def _ask_apt_file(name: str) -> _Found:
    done = run_manager("apt-file", "search", "--fixed-string", f"/{name}")
    if isinstance(done, str) or done[0] not in (0, 1):
        return done if isinstance(done, str) else f"apt-file failed with exit code {done[0]} (apt-file update?)"
    rows = (line.partition(": ") for line in done[1].splitlines())
    return [PackageOwner(PackageManager.APT_FILE, row[0], "", row[2]) for row in rows if row[2].endswith(f"/{name}")]


def _ask_conda(path: str) -> _Found:
    prefix = os.path.dirname(path)
    while not os.path.isdir(os.path.join(prefix, "conda-meta")):
        if prefix == os.path.dirname(prefix):
            return "the file is not inside a conda environment"
        prefix = os.path.dirname(prefix)
    wanted = os.path.normcase(os.path.relpath(path, prefix))
    folder = os.path.join(prefix, "conda-meta")
    owners = []
    for name in sorted(os.listdir(folder)):
        if name.endswith(".json"):
            package = read_conda_package(os.path.join(folder, name), os.path.basename(wanted))
            if package is not None and wanted in package[2]:
                owners.append(PackageOwner(PackageManager.CONDA, package[0], package[1], path))
    return owners


def read_conda_package(metadata_path: str, mentioning: str = "") -> tuple[str, str, set[str]] | None:
    """Name, version and files, relative to the environment, in normal case; `None` if they cannot be read.

    Arguments: `mentioning`, a file's name: a package that does not mention it is `None`, too.
    Source: "conda-meta" of the conda documentation.
    """
    try:
        if os.path.getsize(metadata_path) > LARGEST_METADATA:
            return None
        with open(metadata_path, encoding="utf-8") as stream:
            content = stream.read()
        if mentioning not in os.path.normcase(content):
            return None
        package = json.loads(content)
        files = {os.path.normcase(str(name)) for name in package.get("files", ())}
        return str(package["name"]), str(package.get("version", "")), files
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def site_folder(path: str) -> str | None:
    """The folder around a file that has metadata of Python packages."""
    folder = os.path.dirname(path)
    while folder != os.path.dirname(folder):
        if os.path.basename(folder) in ("site-packages", "dist-packages"):
            return folder
        folder = os.path.dirname(folder)
    return None


def _ask_records(path: str, folders: Sequence[str]) -> _Found:
    if not folders:
        return "no folder of Python packages is around the file"
    wanted, name = canonical(path), os.path.normcase(os.path.basename(path))
    owners = []
    for distribution in metadata.distributions(path=list(dict.fromkeys(folders))):
        text = distribution.read_text("RECORD") or ""
        if name in os.path.normcase(text) and any(
            os.path.normcase(row[0]).endswith(name) and canonical(str(distribution.locate_file(row[0]))) == wanted
            for row in _rows(text)
        ):
            label = distribution.metadata["Name"] or ""
            version = distribution.version or ""
            owners.append(PackageOwner(PackageManager.PIP, label, version, path, _folder_of(distribution)))
    return owners


def _folder_of(distribution: metadata.Distribution) -> str:
    """Where it is installed: paths of its RECORD begin there."""
    return os.path.abspath(str(distribution.locate_file("")))


def canonical(path: str) -> str:
    """The file's own path, for comparing."""
    try:
        return os.path.normcase(os.path.realpath(path))
    except (OSError, ValueError):  # Windows, and 260 characters or more; a NUL
        return os.path.normcase(path)


def _rows(record: str) -> list[list[str]]:
    """Path, hash and size of each file; lines that are not so are left out."""
    try:
        return [row for row in csv.reader(record.splitlines()) if len(row) == 3]
    except csv.Error:
        return []


def _is_wanted(path: str, suffixes: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return not suffixes or any(name.endswith(suffix) or f"{suffix}." in name for suffix in suffixes)


def _check_file(path: str, row: list[str], hashes: bool) -> ChangedFile | None:
    size = int(row[2]) if row[2].isascii() and row[2].isdigit() else None
    if not os.path.isfile(path):
        return ChangedFile(path, FileState.ABSENT, size)
    try:
        found = os.path.getsize(path)
        same = size in (None, found) and (not hashes or _has_hash(path, row[1]))
    except OSError:
        return ChangedFile(path, FileState.UNREADABLE, size)
    return None if same else ChangedFile(path, FileState.CHANGED, size, found)


def _has_hash(path: str, recorded: str) -> bool:
    """Whether the file has the hash `NAME=BASE64`; an algorithm that is not to be had here counts as the same."""
    name, _, value = recorded.partition("=")
    if name not in hashlib.algorithms_guaranteed or name.startswith("shake"):
        return True
    digest = hashlib.new(name, usedforsecurity=False)
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode() == value.rstrip("=")
