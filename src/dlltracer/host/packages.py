"""Asks the package managers of this machine: owners of files, installed packages, available packages.

Nothing here raises for what is absent: a manager that does not exist here is named in the answer. Each manager is asked
once for all files together. On Windows none is run: the lists of pip and conda are read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Container, Iterable, Sequence

from ..model.environment import AvailablePackages, OwnerAnswer, PackageManager, PackageOwner, ProviderKind
from .bounded import ask_program, find_program, read_regular_file
from .distributions import Distribution, list_distributions
from .machine import real_path

_MOST_CONDA = 64 << 20
_AT_ONCE = 200
_MOST_SINGLE = 20
"""Files for which rpm and apk are asked, one by one: their answers do not say which file they are about."""

_Owned = dict[str, list[PackageOwner]]
"""Each path, as it was given, to its owners."""


def find_owners(paths: Iterable[str], site_folders: Sequence[str] = ()) -> OwnerAnswer:
    """Find the installed packages that have these files.

    Arguments:
        paths: whole paths of files; they need not exist any more.
        site_folders: folders with the metadata of Python packages (site-packages), besides those around the files.
    """
    reals: dict[str, list[str]] = {}
    for path in dict.fromkeys(paths):
        reals.setdefault(canonical(path), []).append(path)
    owners: _Owned = {}
    asks: tuple[tuple[PackageManager, Callable[[], _Owned | str]], ...] = (
        (PackageManager.PIP, lambda: _ask_records(reals, site_folders)),
        (PackageManager.CONDA, lambda: _ask_conda(reals)),
        (PackageManager.DPKG, lambda: _ask_dpkg(reals)),
        (PackageManager.RPM, lambda: _ask_rpm(_without_owners(reals, owners))),
        (PackageManager.APK, lambda: _ask_apk(_without_owners(reals, owners))),
    )
    asked: list[PackageManager] = []
    unavailable: list[tuple[PackageManager, str]] = []
    for manager, ask in asks:
        found = ask()
        if isinstance(found, str):
            unavailable.append((manager, found))
            continue
        asked.append(manager)
        for path, packages in found.items():
            owners.setdefault(path, []).extend(packages)
    return OwnerAnswer({path: tuple(found) for path, found in owners.items()}, tuple(asked), tuple(unavailable))


def find_strays(paths: Iterable[str], distributions: Iterable[Distribution]) -> dict[str, tuple[str, str]]:
    """Find files that no Python package lists, though one, and only one, has other files in the same place.

    Arguments: `paths` of files without an owner; `distributions` that are installed.
    Returns each such path to name and version of the package. The same place is the same folder, and directly in
    site-packages the same name before the first dot.
    """
    places: dict[str, list[str]] = {}
    for path in paths:
        places.setdefault(_place_of(canonical(path)), []).append(path)
    found: dict[str, set[tuple[str, str]]] = {}
    for distribution in distributions if places else ():
        top = canonical(distribution.folder)
        if not any(place.startswith(os.path.join(top, "")) or place == top for place in places):
            continue  # its list is not worth reading: hundreds of packages may be installed elsewhere
        record = distribution.record or ()
        here = {_place_of(os.path.normpath(os.path.join(top, os.path.normcase(row[0])))) for row in record}
        for place in here & places.keys():
            found.setdefault(place, set()).add((distribution.name, distribution.version))
    return {path: next(iter(owner)) for place, owner in found.items() if len(owner) == 1 for path in places[place]}


def _place_of(path: str) -> str:
    folder, name = os.path.split(path)
    if os.path.basename(folder) in ("site-packages", "dist-packages"):
        return os.path.join(folder, name.partition(".")[0])
    return folder


def canonical(path: str) -> str:
    """Return the file's own path, links followed, for comparing."""
    return os.path.normcase(real_path(path))


def _ask_records(reals: dict[str, list[str]], site_folders: Sequence[str]) -> _Owned | str:
    # The folders as sys.path spells them come first: the one around a file may go by another name (a link).
    around = (_site_folder(path) for paths in reals.values() for path in paths)
    folders = list(dict.fromkeys(folder for folder in (*site_folders, *around) if folder))
    if not folders:
        return "no folder of Python packages is around the file"
    # Of the lists, only files of a wanted name are looked at closer. One that RECORD lists may be a link elsewhere.
    names = {os.path.normcase(os.path.basename(path)) for real, paths in reals.items() for path in (real, *paths)}
    owners: _Owned = {}
    for distribution in list_distributions(folders):
        for row in distribution.record or ():
            if os.path.normcase(row[0]).replace("\\", "/").rpartition("/")[2] not in names:
                continue
            for path in reals.get(canonical(distribution.locate(row[0])), ()):
                known = owners.setdefault(path, [])
                if all(owner.package != distribution.name for owner in known):
                    known.append(PackageOwner(
                        PackageManager.PIP, distribution.name, distribution.version, path, distribution.folder
                    ))  # fmt: skip
    return owners


def _site_folder(path: str) -> str | None:
    """Return the folder around a file that has metadata of Python packages."""
    folder = os.path.dirname(path)
    while folder != os.path.dirname(folder):
        if os.path.basename(folder) in ("site-packages", "dist-packages"):
            return folder
        folder = os.path.dirname(folder)
    return None


def _ask_conda(reals: dict[str, list[str]]) -> _Owned | str:
    prefixes: dict[str, dict[str, list[str]]] = {}
    for real, paths in reals.items():
        for spelling in dict.fromkeys((*map(os.path.normcase, paths), real)):
            prefix = _conda_prefix(os.path.dirname(spelling))
            if prefix is not None:
                inside = os.path.relpath(spelling, prefix).replace(os.sep, "/")
                prefixes.setdefault(prefix, {}).setdefault(inside, paths)
    if not prefixes:
        return "the file is not inside a conda environment"
    owners: _Owned = {}
    for prefix, wanted in prefixes.items():
        folder = os.path.join(prefix, "conda-meta")
        for entry in sorted(os.listdir(folder)):
            package = _read_conda_package(os.path.join(folder, entry)) if entry.endswith(".json") else None
            if package is not None:
                name, version, files = package
                for path in [path for file in files & wanted.keys() for path in wanted[file]]:
                    owners.setdefault(path, []).append(PackageOwner(PackageManager.CONDA, name, version, path))
    return owners


def _conda_prefix(folder: str) -> str | None:
    """Return the conda environment that a folder is in."""
    while not os.path.isdir(os.path.join(folder, "conda-meta")):
        if folder == os.path.dirname(folder):
            return None
        folder = os.path.dirname(folder)
    return folder


def _read_conda_package(metadata_path: str) -> tuple[str, str, set[str]] | None:
    """Return name, version and files, relative to the environment, in normal case; `None` if they cannot be read.

    Source: "conda-meta" of the conda documentation.
    """
    try:
        package = json.loads(read_regular_file(metadata_path, _MOST_CONDA))
        files = {os.path.normcase(str(name)).replace(os.sep, "/") for name in package.get("files", ())}
        return str(package["name"]), str(package.get("version", "")), files
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _ask_dpkg(reals: dict[str, list[str]]) -> _Owned | str:
    if find_program("dpkg-query") is None:
        return "dpkg-query is not installed"
    found: list[tuple[str, str, str]] = []
    spellings = {spelling: path for paths in reals.values() for path in paths for spelling in _spellings(path)}
    patterns = [dpkg_literal(spelling) for spelling in spellings]
    for start in range(0, len(patterns), _AT_ONCE):
        # Exit code 1: no package has one of them.
        done = ask_program("dpkg-query", "-S", "--", *patterns[start : start + _AT_ONCE])
        if isinstance(done, str) or done.status not in (0, 1):
            return done if isinstance(done, str) else f"dpkg-query failed with exit code {done.status}"
        for line in done.output.splitlines():
            packages, separator, path = line.partition(": ")
            if separator and not packages.startswith("diversion by ") and path in spellings:
                found += [(name, path, spellings[path]) for name in packages.split(", ")]
    versions = _dpkg_versions(sorted({name for name, _, _ in found}))
    owners: _Owned = {}
    for name, listed, path in found:
        known = owners.setdefault(path, [])
        if all(owner.package != name for owner in known):
            known.append(PackageOwner(PackageManager.DPKG, name, versions.get(name, ""), listed))
    for paths in reals.values():  # links to one file
        whole = next((owners[path] for path in paths if path in owners), None)
        for path in paths if whole is not None else ():
            owners.setdefault(path, whole or [])
    return owners


def _dpkg_versions(names: list[str]) -> dict[str, str]:
    """Return the versions of packages, by their names as dpkg-query -S has them: with the architecture, or without."""
    done = ask_program("dpkg-query", "-W", "-f", "${binary:Package}\t${Version}\n", "--", *names) if names else ""
    rows = [line.partition("\t") for line in done.output.splitlines()] if not isinstance(done, str) else []
    return {name: version for package, _, version in rows for name in (package, package.partition(":")[0])}


def _spellings(path: str) -> tuple[str, ...]:
    """Return the path with and without /usr: where both are one folder, a package may have listed it either way."""
    if not path.startswith("/"):
        return ()
    real = real_path(path)
    both = {path, real, path.removeprefix("/usr"), real.removeprefix("/usr"), f"/usr{path}", f"/usr{real}"}
    return tuple(sorted(one for one in both if not one.startswith("/usr/usr/")))


def dpkg_literal(text: str) -> str:
    """Quote a path for dpkg-query(1), which takes patterns of a shell."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)


def _ask_rpm(paths: Sequence[str]) -> _Owned | str:
    if find_program("rpm") is None:
        return "rpm is not installed"
    owners: _Owned = {}
    for path in paths:
        done = ask_program("rpm", "--qf", "%{NAME}\t%{VERSION}-%{RELEASE}\n", "-qf", "--", path)
        if isinstance(done, str):
            return done
        rows = [line.split("\t") for line in done.output.splitlines()]
        found = [PackageOwner(PackageManager.RPM, row[0], row[1], path) for row in rows if len(row) == 2]
        if found:
            owners[path] = found
    return owners


def _ask_apk(paths: Sequence[str]) -> _Owned | str:
    if find_program("apk") is None:
        return "apk is not installed"
    owners: _Owned = {}
    for path in paths:
        done = ask_program("apk", "info", "--who-owns", "--", path)
        if isinstance(done, str):
            return done
        found = re.findall(r"is owned by (\S+)-(\d[^-\s]*-r\d+)$", done.output, re.MULTILINE)
        if found:
            owners[path] = [PackageOwner(PackageManager.APK, name, version, path) for name, version in found]
    return owners


def _without_owners(reals: dict[str, list[str]], owners: _Owned) -> list[str]:
    paths = [paths[0] for paths in reals.values() if paths[0].startswith("/") and paths[0] not in owners]
    return paths[:_MOST_SINGLE]


_LISTS = {ProviderKind.APT: "/var/lib/apt/lists", ProviderKind.APK: "/var/cache/apk"}
"""Where the lists of packages are that apt and apk have fetched. Images of containers are often made without."""

_NO_LISTS = "this machine has no lists of packages, which {} update fetches"

_TOOLS = {"patchelf": ("--version",)}
"""Programs of which a newer version has more options, and how to ask for their version."""


def read_available(kind: ProviderKind, names: Iterable[str]) -> AvailablePackages:
    """Ask the package manager of this machine for packages, offline.

    Arguments: `names` of packages; those that the manager does not know are in `candidates` with `None`.
    """
    wanted = list(dict.fromkeys(names))
    ask = {ProviderKind.APT: _ask_apt, ProviderKind.DNF: _ask_dnf, ProviderKind.APK: _ask_apk_policy}.get(kind)
    if ask is None or not wanted:
        return AvailablePackages()
    return ask(wanted)


def read_tool_versions(programs: Container[str]) -> dict[str, str]:
    """Return the versions of those of these programs whose version matters and that are installed in the system."""
    found = {}
    for name, arguments in _TOOLS.items():
        answer = ask_program(name, *arguments, seconds=5) if name in programs else ""
        version = None if isinstance(answer, str) else re.search(r"\d+(?:\.\d+)*", answer.output)
        if version is not None:
            found[name] = version[0]
    return found


def _ask_apt(names: list[str]) -> AvailablePackages:
    # Debian 13 and Ubuntu 24.04 gave packages another name whose interface has times of 64 bits on 32-bit machines.
    both = [name for wanted in names for name in (wanted, f"{wanted}t64")]
    answer = ask_program("apt-cache", "policy", "--", *both)
    if isinstance(answer, str):
        return AvailablePackages(unchecked=answer)
    candidates, installed = parse_apt_policy(answer.output)
    if not _has_lists(ProviderKind.APT, "_Packages"):
        return AvailablePackages(installed=installed, unchecked=_NO_LISTS.format("apt-get"))
    return AvailablePackages(candidates={**dict.fromkeys(both), **candidates}, installed=installed)


def parse_apt_policy(text: str) -> tuple[dict[str, str | None], dict[str, str]]:
    """Return candidates and installed versions from what `apt-cache policy` writes in English."""
    candidates: dict[str, str | None] = {}
    installed: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            name = line.rstrip(":")
        found = re.fullmatch(r"  (Installed|Candidate): (\S+)", line)
        if found is None or not name:
            continue
        version = None if found[2] == "(none)" else found[2]
        if found[1] == "Candidate":
            candidates[name] = version
        elif version is not None:
            installed[name] = version
    return candidates, installed


def _ask_apk_policy(names: list[str]) -> AvailablePackages:
    answer = ask_program("apk", "policy", "--", *names)
    if isinstance(answer, str):
        return AvailablePackages(unchecked=answer)
    candidates, installed = parse_apk_policy(answer.output)
    if not _has_lists(ProviderKind.APK, ".tar.gz"):
        return AvailablePackages(installed=installed, unchecked=_NO_LISTS.format("apk"))
    providers = {}
    for name in [name for name in names if name.startswith("so:")][:_MOST_SINGLE]:
        # `policy` takes names of packages only.
        found = ask_program("apk", "search", "--exact", "--", name)
        if isinstance(found, str):
            return AvailablePackages(installed=installed, unchecked=found)
        providers[name] = parse_apk_search(found.output)
        have = ask_program("apk", "info", "--installed", "--", *providers[name]) if providers[name] else ""
        if not isinstance(have, str):
            installed |= dict.fromkeys(set(have.output.split()) & {*providers[name]}, "")
    return AvailablePackages(
        candidates={**dict.fromkeys(names), **candidates}, installed=installed, providers=providers
    )  # fmt: skip


def parse_apk_search(text: str) -> tuple[str, ...]:
    """Return the names of packages in what `apk search` writes: a line for each, "libuv-1.49.2-r0"."""
    return tuple(sorted({found[1] for found in re.finditer(r"^(\S+)-\d[^-\s]*-r\d+$", text, re.MULTILINE)}))


def parse_apk_policy(text: str) -> tuple[dict[str, str | None], dict[str, str]]:
    """Return candidates and installed versions from what `apk policy` writes.

    A package has a line "NAME policy:", a line for each version, and below that the places that have it:
    "lib/apk/db/installed" for what is installed, the address of a repository for what can be.
    """
    candidates: dict[str, str | None] = {}
    installed: dict[str, str] = {}
    name = version = ""
    for line in text.splitlines():
        if line.endswith(" policy:"):
            name = line.removesuffix(" policy:")
        elif re.fullmatch(r"  \S+:", line):
            version = line.strip().rstrip(":")
        elif line.strip() == "lib/apk/db/installed":
            installed[name] = version
        elif line.startswith("    ") and name:
            candidates[name] = version
    return candidates, installed


def _ask_dnf(names: list[str]) -> AvailablePackages:
    form = "%{name} %{version}\n"
    installed = ask_program("rpm", "-q", "--qf", form, "--", *names)
    rows = [] if isinstance(installed, str) else [line.split() for line in installed.output.splitlines()]
    have = {row[0]: row[1] for row in rows if len(row) == 2 and row[0] in names}
    answer = ask_program("dnf", "--cacheonly", "--quiet", "repoquery", "--qf", form, "--", *names)
    if isinstance(answer, str) or answer.status != 0:
        why = answer if isinstance(answer, str) else "dnf has no lists of packages here (dnf makecache)"
        return AvailablePackages(installed=have, unchecked=why)
    rows = [line.split() for line in answer.output.splitlines()]
    found: dict[str, str | None] = {row[0]: row[1] for row in rows if len(row) == 2}
    return AvailablePackages(candidates={**dict.fromkeys(names), **found}, installed=have)


def _has_lists(kind: ProviderKind, mark: str) -> bool:
    try:
        return any(mark in name for name in os.listdir(_LISTS[kind]))
    except OSError:
        return False
