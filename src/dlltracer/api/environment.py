"""What a machine has around a failed load: who installed the files, what the system allows, what else lies there."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path

from ..diagnose.case import Case, module_not_found
from ..diagnose.environment import (
    ForeignModule,
    InstallFacts,
    MachineLimits,
    PackageCheck,
    StrayFile,
    UnmetRequirement,
)
from ..diagnose.remedies import packages_to_install
from ..diagnose.rules.missing_module import package_names
from ..host.machine import read_c_library, read_mount, read_page_size, this_system
from ..model.environment import AvailablePackages, MemoryLimit, ModuleTraces, PackageManager, PackageOwner
from ..model.failure import ProcessFacts, PythonError, System
from ..model.finding import Finding

_MOST_ASKED = 6
_OF_PACKAGES = ("/usr/", "/lib", "/bin/", "/sbin/", "/opt/", "/etc/", "/srv/", "/var/")
"""Where packages of a distribution put files (Filesystem Hierarchy Standard)."""
_NATIVE = (".so", ".pyd", ".dll", ".dylib")
_LARGEST_HASHED = 100 * 1024 * 1024


def name_owners(paths: tuple[str, ...], process: ProcessFacts) -> dict[str, tuple[PackageOwner, ...]]:
    """The packages of files; files that no package has are left out."""
    if process.system is not this_system():
        return {}
    try:
        from ..host.packages import find_owners
    except ImportError:  # a Python that cannot load its own modules (binascii, hashlib) may be what is asked about
        return {}
    folders = site_folders(process)
    # A package manager is a program that has to be started: not for a file where none puts any.
    places = (*_OF_PACKAGES, *(f"{folder}/" for folder in (*folders, process.prefix, process.base_prefix)))
    likely = [path for path in paths if process.system is not System.LINUX or path.startswith(places)]
    return dict(find_owners(likely[:_MOST_ASKED], folders).owners)


def site_folders(process: ProcessFacts) -> tuple[str, ...]:
    """Folders of sys.path with the metadata of installed packages; the current folder for an empty entry."""
    folders = []
    for entry in dict.fromkeys(entry or process.current_folder for entry in process.path):
        try:
            if any(child.name.endswith((".dist-info", ".egg-info")) for child in Path(entry).iterdir()):
                folders.append(entry)
        except OSError:
            continue
    return tuple(folders)


def read_limits(subject: str | None, process: ProcessFacts) -> MachineLimits | None:
    """What the machine allows; `None` for a process of Windows or of another machine."""
    if process.system is not System.LINUX or process.system is not this_system():
        return None
    memory = MemoryLimit("RLIMIT_AS", process.address_space_limit, process.address_space)
    mount = read_mount(subject) if subject is not None and subject.startswith("/") else None
    return MachineLimits(mount, memory, read_page_size(), read_c_library())


def find_foreign_modules(error: PythonError | None, process: ProcessFacts) -> tuple[ForeignModule, ...]:
    """Extension modules of that name where it was looked for, which this Python does not take."""
    module = module_not_found(error)
    if module is None or process.system is not this_system():
        return ()
    *packages, last = module.split(".")
    foreign_modules = []
    for entry in dict.fromkeys(entry or process.current_folder for entry in process.path):
        folder = Path(entry, *packages)
        try:
            names = sorted(child.name for child in folder.iterdir() if child.name.startswith(f"{last}."))
        except OSError:
            continue
        for name in names:
            if name.endswith((".so", ".pyd")) and name.removeprefix(last) not in process.suffixes:
                tag = name[len(last) + 1 :].rpartition(".")[0]
                foreign_modules.append(ForeignModule(str(folder / name), tag))
    return tuple(foreign_modules)


def read_install_facts(case: Case, findings: tuple[Finding, ...]) -> InstallFacts | None:
    """What can be installed of what the findings would have installed; `None` for a process of another machine."""
    process = case.run.process
    if process is None or process.system is not this_system():
        return None
    kind, names = packages_to_install(findings)
    try:
        from ..host.distributions import list_distributions, normalize
        from ..host.packages import read_available, read_tool_versions
    except ImportError:
        return None
    installed = {normalize(found.name): found.version for found in list_distributions(site_folders(process))}
    is_conda = any(Path(prefix, "conda-meta").is_dir() for prefix in (process.prefix, process.base_prefix) if prefix)
    programs = {remedy.command[0] for finding in findings for remedy in finding.remedies if remedy.command}
    return InstallFacts(
        available=read_available(kind, names) if kind is not None else AvailablePackages(),
        distributions=installed, is_conda=is_conda, tools=read_tool_versions(programs),
    )  # fmt: skip


def find_traces_of_module(error: PythonError | None, process: ProcessFacts) -> ModuleTraces | None:
    """What there is of the module that was not found; `None` if all were, or on another machine."""
    module = module_not_found(error)
    if module is None or process.system is not this_system():
        return None
    try:
        from ..host.modules import find_module_traces
    except ImportError:  # zipfile may be what cannot be imported
        return None
    return find_module_traces(module, process)


def check_packages(case: Case) -> tuple[PackageCheck, ...]:
    """The Python packages of the files in question, with the files that are not as they were installed."""
    process = case.run.process
    if process is None or process.system is not this_system():
        return ()
    try:
        from ..host.distributions import check_record
    except ImportError:
        return ()
    folders = site_folders(process)
    owners = dict(case.owners)
    module = module_not_found(case.error)
    if module is not None:
        owners.update(_owners_of_module(module, process, folders))
    names = {
        owner.package: owner.version
        for found in owners.values()
        for owner in found
        if owner.manager is PackageManager.PIP
    }
    checks = []
    for name, version in names.items():
        sizes = check_record(name, folders, hashes=False, suffixes=_NATIVE)
        changed = {file.path: file for file in sizes.changed}
        for path in _worth_a_hash(owners):
            checked = check_record(name, folders, suffixes=(posixpath.basename(path),))
            changed.update({file.path: file for file in checked.changed})
        if changed:
            checks.append(PackageCheck(f"{name} {version}".strip(), name, tuple(changed.values()), sizes.folder))
    return tuple(checks)


def find_unmet(case: Case) -> tuple[UnmetRequirement, ...]:
    """What the Python packages of the files in question require, and what of that is not installed."""
    process = case.run.process
    if process is None or process.system is not this_system():
        return ()
    try:
        from ..host.distributions import list_distributions, normalize, read_requirement
    except ImportError:
        return ()
    owners = {owner.package for found in case.owners.values() for owner in found if owner.manager is PackageManager.PIP}
    module = case.missing_module if case.error is not None and "ModuleNotFoundError" in case.error.bases else None
    if not owners and module is None:
        return ()
    installed = {normalize(found.name): found for found in list_distributions(site_folders(process))}
    if module is not None:  # whoever requires the package of that module
        owners, wanted = set(installed), package_names(module)
    unmet = []
    for owner in sorted(owners):
        found = installed.get(normalize(owner))
        read = [read_requirement(text, process) for text in found.requires] if found is not None else []
        for one in read:
            if module is not None and one is not None and normalize(one.name) not in wanted:
                continue
            if found is not None and one is not None and normalize(one.name) not in installed:
                package = f"{found.name} {found.version}".strip()
                unmet.append(UnmetRequirement(package=package, name=one.name, versions=one.versions))
    return tuple(dict.fromkeys(unmet))


def find_stray_files(case: Case) -> tuple[StrayFile, ...]:
    """The files in question that no Python package lists, though one has its other files there."""
    process = case.run.process
    if process is None or process.system is not this_system():
        return ()
    try:
        from ..host.packages import find_strays
    except ImportError:
        return ()
    folders = site_folders(process)
    crash = case.run.crash.image if case.run.crash is not None else None
    missing = [binding.requested_by for binding in case.tree.missing[:2]] if case.tree is not None else []
    asked = (case.subject, crash, case.run.initialising, *missing, *(one.requested_by for one in case.symbols[:1]))
    paths = [path for path in dict.fromkeys(asked) if path and path not in case.owners and Path(path).is_file()]
    found = find_strays(paths, folders)
    return tuple(StrayFile(path=path, package=" ".join(owner).strip()) for path, owner in found.items())


def _worth_a_hash(owners: Mapping[str, tuple[PackageOwner, ...]]) -> list[str]:
    """Files in question that are not too large to be read whole."""
    small = []
    for path, found in owners.items():
        try:
            is_small = Path(path).stat().st_size < _LARGEST_HASHED
        except OSError:
            continue
        if is_small and any(owner.manager is PackageManager.PIP for owner in found):
            small.append(path)
    return small


def _owners_of_module(
    module: str, process: ProcessFacts, folders: tuple[str, ...]
) -> dict[str, tuple[PackageOwner, ...]]:
    """The packages that should have the file of a module that was not found."""
    from ..host.packages import find_owners

    *packages, last = module.split(".")
    paths = []
    for entry in dict.fromkeys(entry or process.current_folder for entry in process.path) if packages else folders:
        folder = Path(entry, *packages)
        if folder.is_dir():
            paths += [str(folder / f"{last}{suffix}") for suffix in process.suffixes]
    return dict(find_owners(paths, folders).owners)
