"""Answers questions about the Python packages of an interpreter: owners of files, and damage to their files.

`environment` imports this module when it is needed: hashing files takes modules that a broken Python may lack.
"""

from __future__ import annotations

import posixpath
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

from ..diagnose.case import Case, InstallFacts, PackageCheck, StrayFile, UnmetRequirement
from ..diagnose.rules.missing_module import package_names
from ..host.distributions import Distribution, check_record, list_distributions, read_requirement
from ..host.machine import is_file, is_folder
from ..host.packages import find_owners, find_strays
from ..model.environment import PackageManager, PackageOwner, normalized_name
from ..model.failure import ProcessFacts, System

_MOST_ASKED = 6
"""Files whose owner is asked for: each may take a run of a package manager."""
_OF_PACKAGES = ("/usr/", "/lib", "/bin/", "/sbin/", "/opt/", "/etc/", "/srv/", "/var/")
"""Where packages of a distribution put files (Filesystem Hierarchy Standard)."""
_NATIVE = (".so", ".pyd", ".dll", ".dylib")
_LARGEST_HASHED = 100 * 1024 * 1024
"""Bytes of a file that is read whole for its sum."""


def find_likely_owners(
    paths: tuple[str, ...], process: ProcessFacts, folders: tuple[str, ...]
) -> dict[str, tuple[PackageOwner, ...]]:
    """Return the packages of files that are where packages put files; `folders` have metadata of Python packages."""
    # A package manager is a program that has to be started: not for a file where none puts any.
    places = (*_OF_PACKAGES, *(f"{folder}/" for folder in (*folders, process.prefix, process.base_prefix)))
    likely = [path for path in paths if process.system is not System.LINUX or path.startswith(places)]
    return dict(find_owners(likely[:_MOST_ASKED], folders).owners)


class InstalledPackages:
    """The Python packages of an interpreter, read once for all questions.

    Arguments: `process`, of that interpreter; `folders`, with the metadata of its packages.
    """

    def __init__(self, process: ProcessFacts, folders: tuple[str, ...]) -> None:
        self._process = process
        self._folders = folders
        self._installed: dict[str, Distribution] = {}
        for found in list_distributions(folders):
            self._installed.setdefault(normalized_name(found.name), found)

    def install_facts(self) -> InstallFacts:
        """Return what is installed; what a package manager could install is not asked."""
        prefixes = (self._process.prefix, self._process.base_prefix)
        return InstallFacts(
            distributions={name: found.version for name, found in self._installed.items()},
            is_conda=any(is_folder(prefix, "conda-meta") for prefix in prefixes if prefix),
        )

    def check(self, case: Case) -> tuple[PackageCheck, ...]:
        """Return the packages of the files in question that have files which are not as they were installed."""
        owners = dict(case.owners)
        if case.missing_module is not None:
            owners.update(self._owners_of_module(case.missing_module))
        hashed = {posixpath.basename(path) for path in _worth_a_hash(owners)}
        checks = []
        for name, version in {owner.package: owner.version for owner in _owners_by_pip(owners)}.items():
            found = self._installed.get(normalized_name(name))
            check = check_record(found, suffixes=_NATIVE, hashed=hashed) if found is not None else None
            if check is not None and check.changed:
                checks.append(PackageCheck(f"{name} {version}".strip(), name, check.changed, check.folder))
        return tuple(checks)

    def find_unmet(self, case: Case) -> tuple[UnmetRequirement, ...]:
        """Return what the packages of the files in question require and is not installed.

        For a module that was not found, return which packages require the package of that module.
        """
        owners: Iterable[str] = {normalized_name(owner.package) for owner in _owners_by_pip(case.owners)}
        wanted: Container[str] | None = None
        if case.missing_module is not None and case.error is not None and "ModuleNotFoundError" in case.error.bases:
            owners, wanted = self._installed, package_names(case.missing_module)
        unmet = []
        for found in filter(None, map(self._installed.get, sorted(owners))):
            for text in found.requires:
                one = read_requirement(text, self._process)
                name = normalized_name(one.name) if one is not None else ""
                if one is not None and name not in self._installed and (wanted is None or name in wanted):
                    package = f"{found.name} {found.version}".strip()
                    unmet.append(UnmetRequirement(package=package, name=one.name, versions=one.versions))
        return tuple(dict.fromkeys(unmet))

    def find_strays(self, case: Case) -> tuple[StrayFile, ...]:
        """Return the files in question that no Python package lists, though one has its other files there."""
        crash = case.run.crash.image if case.run.crash is not None else None
        missing = [binding.requested_by for binding in case.tree.missing[:2]] if case.tree is not None else []
        asked = (case.subject, crash, case.run.initialising, *missing, *(one.requested_by for one in case.symbols[:1]))
        paths = [
            path for path in dict.fromkeys(asked)
            if path and path not in case.owners and is_file(path) and not self._is_of_python(path)
        ]  # fmt: skip
        found = find_strays(paths, self._installed.values())
        return tuple(StrayFile(path=path, package=" ".join(owner).strip()) for path, owner in found.items())

    def _is_of_python(self, path: str) -> bool:
        """Return whether a file is the interpreter's own: no RECORD lists these, and some packages put DLLs beside."""
        own = self._process
        places = [Path(own.executable).parent, Path(own.base_prefix), Path(own.base_prefix, "DLLs")]
        is_beside = own.system is System.WINDOWS and Path(path).parent in places
        return is_beside or Path(path).name.lower().startswith(("libpython", "python3"))

    def _owners_of_module(self, module: str) -> dict[str, tuple[PackageOwner, ...]]:
        """Return the packages that should have the file of a module that was not found."""
        *packages, last = module.split(".")
        entries = (entry or self._process.current_folder for entry in self._process.path)
        paths = []
        for entry in dict.fromkeys(entries) if packages else self._folders:
            folder = Path(entry, *packages)
            if is_folder(folder):
                paths += [str(folder / f"{last}{suffix}") for suffix in self._process.suffixes]
        return dict(find_owners(paths, self._folders).owners)


def _owners_by_pip(owners: Mapping[str, tuple[PackageOwner, ...]]) -> Iterator[PackageOwner]:
    return (owner for found in owners.values() for owner in found if owner.manager is PackageManager.PIP)


def _worth_a_hash(owners: Mapping[str, tuple[PackageOwner, ...]]) -> list[str]:
    """Return the files of pip's packages that are not too large to be read whole."""
    small = []
    for path, found in owners.items():
        try:
            is_small = Path(path).stat().st_size < _LARGEST_HASHED
        except OSError:
            continue
        if is_small and any(owner.manager is PackageManager.PIP for owner in found):
            small.append(path)
    return small
