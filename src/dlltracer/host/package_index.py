"""The packages of many files at once: each manager is asked once, each list of files read once.

`host.packages` answers for one file, and says who could not be asked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from importlib import metadata

from .packages import LARGEST_METADATA, TIMEOUT, find_owners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_AT_ONCE = 200
_MOST_SINGLE = 20
_SITES = ("site-packages", "dist-packages")


def name_packages(paths: Iterable[str], site_folders: Sequence[str], prefixes: Sequence[str]) -> dict[str, str]:
    """Each path that belongs to a package, to that package in words: "numpy 2.1.0", "libssl3 3.0.11-1".

    Arguments:
        paths: whole paths of files.
        site_folders: folders with the metadata of Python packages, besides those around the files.
        prefixes: folders that may be conda environments.
    """
    wanted = {_canonical(path): path for path in dict.fromkeys(paths)}
    found = _ask_records(wanted, dict.fromkeys((*site_folders, *filter(None, map(_site_folder, wanted.values())))))
    found.update(_ask_conda({real: path for real, path in wanted.items() if path not in found}, prefixes))
    rest = [path for path in wanted.values() if path not in found]
    found.update(_ask_dpkg(rest))
    if shutil.which("rpm") or shutil.which("apk"):
        for path in [path for path in rest if path not in found][:_MOST_SINGLE]:
            owners = find_owners(path).owners
            if owners:
                found[path] = _words(owners[0].package, owners[0].version)
    return found


def _words(name: str, version: str) -> str:
    return f"{name} {version}".strip()


def _ask_records(wanted: dict[str, str], folders: Iterable[str]) -> dict[str, str]:
    """By the lists of files that installers of Python packages leave (RECORD)."""
    names = {os.path.basename(real) for real in wanted}
    found: dict[str, str] = {}
    for distribution in metadata.distributions(path=list(folders)):
        try:
            text = distribution.read_text("RECORD") or ""
        except (OSError, UnicodeDecodeError):
            continue
        listed = (line.split(",", 1)[0].strip('"') for line in text.splitlines())
        for name in listed:
            if os.path.normcase(name).rpartition(os.sep)[2].rpartition("/")[2] not in names:
                continue
            path = wanted.get(_canonical(str(distribution.locate_file(name))))
            if path is not None:
                found[path] = _words(distribution.metadata["Name"] or "", distribution.version or "")
    return found


def _ask_conda(wanted: dict[str, str], prefixes: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for prefix in dict.fromkeys(prefixes):
        top = _canonical(prefix)
        inside = {os.path.relpath(real, top): path for real, path in wanted.items() if real.startswith(top + os.sep)}
        folder = os.path.join(prefix, "conda-meta")
        if not inside or not os.path.isdir(folder):
            continue
        for entry in sorted(os.listdir(folder)):
            package = _read_conda(os.path.join(folder, entry)) if entry.endswith(".json") else None
            if package is not None:
                name, files = package
                found.update({inside[file]: name for file in files & inside.keys()})
    return found


def _read_conda(path: str) -> tuple[str, set[str]] | None:
    """A package in words and its files, by conda's metadata."""
    try:
        if os.path.getsize(path) > LARGEST_METADATA:
            return None
        with open(path, encoding="utf-8") as stream:
            package = json.load(stream)
        files = {os.path.normcase(str(name)) for name in package.get("files", ())}
        return _words(str(package["name"]), str(package.get("version", ""))), files
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _ask_dpkg(paths: Sequence[str]) -> dict[str, str]:
    program = shutil.which("dpkg-query")
    if program is None:
        return {}
    owners: dict[str, str] = {}
    for start in range(0, len(paths), _AT_ONCE):
        spellings = {spelling: path for path in paths[start : start + _AT_ONCE] for spelling in _spellings(path)}
        patterns = [_literal(spelling) for spelling in spellings]
        for line in _run(program, "-S", "--", *patterns).splitlines():
            packages, separator, path = line.partition(": ")
            if separator and not packages.startswith("diversion by ") and path in spellings:
                owners.setdefault(spellings[path], packages.split(", ")[0])
    names = sorted(set(owners.values()))
    answer = _run(program, "-W", "-f", "${binary:Package}\t${Version}\n", "--", *names) if names else ""
    versions = dict(line.partition("\t")[::2] for line in answer.splitlines())
    short = {name.partition(":")[0]: version for name, version in versions.items()}
    return {
        path: _words(name.partition(":")[0], versions.get(name) or short.get(name.partition(":")[0], ""))
        for path, name in owners.items()
    }


def _run(*command: str) -> str:
    """What it says, also if it fails: one file without a package is a failure to dpkg-query."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT,
            env={**os.environ, "LC_ALL": "C"}, check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return os.fsdecode(done.stdout)


def _spellings(path: str) -> tuple[str, ...]:
    """With and without /usr: where both are one folder, a package may have listed it either way."""
    if not path.startswith("/"):
        return ()
    real = os.path.realpath(path)
    both = {path, real, path.removeprefix("/usr"), real.removeprefix("/usr"), f"/usr{path}", f"/usr{real}"}
    return tuple(sorted(one for one in both if not one.startswith("/usr/usr/")))


def _literal(text: str) -> str:
    """For dpkg-query(1), which takes patterns of a shell."""
    return "".join(f"\\{c}" if c in "\\*?[]" else c for c in text)


def _site_folder(path: str) -> str | None:
    """The folder around a file that has metadata of Python packages."""
    folder = os.path.dirname(path)
    while folder != os.path.dirname(folder):
        if os.path.basename(folder) in _SITES:
            return folder
        folder = os.path.dirname(folder)
    return None


def _canonical(path: str) -> str:
    try:
        return os.path.normcase(os.path.realpath(path))
    except (OSError, ValueError):  # Windows, and 260 characters or more; a NUL
        return os.path.normcase(path)
