"""The packages of many files at once: each manager is asked once, each list of files read once.

`host.packages` answers for one file, and says who could not be asked.
"""

from __future__ import annotations

import os
import shutil
from importlib import metadata

from .packages import canonical, dpkg_literal, find_owners, read_conda_package, run_manager, site_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_AT_ONCE = 200
_MOST_SINGLE = 20


def name_packages(paths: Iterable[str], site_folders: Sequence[str], prefixes: Sequence[str]) -> dict[str, str]:
    """Each path that belongs to a package, to that package in words: "numpy 2.1.0", "libssl3 3.0.11-1".

    Arguments:
        paths: whole paths of files.
        site_folders: folders with the metadata of Python packages, besides those around the files.
        prefixes: folders that may be conda environments.
    """
    reals = {path: canonical(path) for path in dict.fromkeys(paths)}
    wanted: dict[str, str] = {}
    for path, real in reals.items():
        wanted.setdefault(real, path)  # one path for each file is asked about
    found = _ask_records(wanted, dict.fromkeys((*site_folders, *filter(None, map(site_folder, wanted.values())))))
    found.update(_ask_conda({real: path for real, path in wanted.items() if path not in found}, prefixes))
    rest = [path for path in wanted.values() if path not in found]
    found.update(_ask_dpkg(rest))
    if shutil.which("rpm") or shutil.which("apk"):
        for path in [path for path in rest if path not in found][:_MOST_SINGLE]:
            owners = find_owners(path).owners
            if owners:
                found[path] = _words(owners[0].package, owners[0].version)
    return {path: found[wanted[real]] for path, real in reals.items() if wanted[real] in found}


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
            path = wanted.get(canonical(str(distribution.locate_file(name))))
            if path is not None:
                found[path] = _words(distribution.metadata["Name"] or "", distribution.version or "")
    return found


def _ask_conda(wanted: dict[str, str], prefixes: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for prefix in dict.fromkeys(prefixes):
        top = canonical(prefix)
        inside = {os.path.relpath(real, top): path for real, path in wanted.items() if real.startswith(top + os.sep)}
        folder = os.path.join(prefix, "conda-meta")
        if not inside or not os.path.isdir(folder):
            continue
        for entry in sorted(os.listdir(folder)):
            package = read_conda_package(os.path.join(folder, entry)) if entry.endswith(".json") else None
            if package is not None:
                name, version, files = package
                found.update({inside[file]: _words(name, version) for file in files & inside.keys()})
    return found


def _ask_dpkg(paths: Sequence[str]) -> dict[str, str]:
    if shutil.which("dpkg-query") is None:
        return {}
    owners: dict[str, str] = {}
    for start in range(0, len(paths), _AT_ONCE):
        spellings = {spelling: path for path in paths[start : start + _AT_ONCE] for spelling in _spellings(path)}
        patterns = [dpkg_literal(spelling) for spelling in spellings]
        for line in _query_dpkg("-S", "--", *patterns).splitlines():
            packages, separator, path = line.partition(": ")
            if separator and not packages.startswith("diversion by ") and path in spellings:
                owners.setdefault(spellings[path], packages.split(", ")[0])
    names = sorted(set(owners.values()))
    answer = _query_dpkg("-W", "-f", "${binary:Package}\t${Version}\n", "--", *names) if names else ""
    versions = dict(line.partition("\t")[::2] for line in answer.splitlines())
    short = {name.partition(":")[0]: version for name, version in versions.items()}
    return {
        path: _words(name.partition(":")[0], versions.get(name) or short.get(name.partition(":")[0], ""))
        for path, name in owners.items()
    }


def _query_dpkg(*arguments: str) -> str:
    """What it says, also if it fails: one file without a package is a failure to dpkg-query."""
    done = run_manager("dpkg-query", *arguments)
    return done[1] if isinstance(done, tuple) else ""


def _spellings(path: str) -> tuple[str, ...]:
    """With and without /usr: where both are one folder, a package may have listed it either way."""
    if not path.startswith("/"):
        return ()
    real = os.path.realpath(path)
    both = {path, real, path.removeprefix("/usr"), real.removeprefix("/usr"), f"/usr{path}", f"/usr{real}"}
    return tuple(sorted(one for one in both if not one.startswith("/usr/usr/")))
