"""Collects facts around a failed load: owners of the files, what the system allows, other copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from ..diagnose.case import (
    Case,
    Copy,
    ForeignModule,
    MachineLimits,
    module_not_found,
    module_that_lacks,
)
from ..diagnose.feasible import packages_to_install
from ..host.copies import FoundCopy
from ..host.machine import read_c_library, read_mount, read_page_size, this_system
from ..model.environment import AvailablePackages, ImportChoice, MemoryLimit, ModuleTraces, Namesake, PackageOwner
from ..model.failure import ProcessFacts, PythonError, System
from ..model.finding import Finding
from ..model.tree import LoadTree, MissingSymbol

ImageT = TypeVar("ImageT")
LackT_co = TypeVar("LackT_co", covariant=True)


class ProcessView(Protocol[ImageT, LackT_co]):
    """One process, asked what its loader would do and which images it has. Each system has a class of its own for it.

    `ImageT` is the system's kind of image. `LackT_co` is what an image may lack besides symbols: a version, or the
    target of a forwarder.
    """

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what could not be looked at."""
        ...

    def resolve(self, subject: str) -> tuple[LoadTree | None, str | None]:
        """Return what loading a file into the process would do, or what is wrong with the file."""
        ...

    def resolve_program(self, path: str) -> tuple[LoadTree | None, str | None]:
        """Return what starting a program would load, or what is wrong with its file."""
        ...

    def read_image(self, path: str) -> ImageT | None:
        """Return the image there, with symbols; `None` if there is none."""
        ...

    def read_images(self, tree: LoadTree | None) -> dict[str, ImageT]:
        """Return the images of the tree and those of the process, as far as they can be read."""
        ...

    def find_missing(
        self, tree: LoadTree | None, images: Mapping[str, ImageT]
    ) -> tuple[tuple[MissingSymbol, ...], tuple[LackT_co, ...]]:
        """Return what images of the tree need from others, and no image in their reach provides."""
        ...

    def damage(self, path: str) -> str | None:
        """Return what is wrong with a file as an image; `None` if it is one, for whatever machine."""
        ...

    def incompatibility(self, path: str) -> str | None:
        """Return why an image could not be loaded into the process at all; `None` if nothing speaks against it."""
        ...


def judge_copies(
    files: Iterable[FoundCopy], view: ProcessView[ImageT, LackT_co], provides: Callable[[str], bool | None]
) -> tuple[Copy, ...]:
    """Return files of a wanted name with what speaks against each in this process.

    `provides` says of a path whether the file has what the copy in use lacks; `None` where that is not known.
    """
    return tuple(Copy(file.path, file.where, view.incompatibility(file.path), provides(file.path)) for file in files)


def name_owners(paths: tuple[str, ...], process: ProcessFacts) -> dict[str, tuple[PackageOwner, ...]]:
    """Return the packages of files; files that no package has are left out."""
    if process.system is not this_system():
        return {}
    try:
        from .packages import find_likely_owners
    except ImportError:  # a Python that cannot load its own modules (binascii, hashlib) may be what is asked about
        return {}
    return find_likely_owners(paths, process, site_folders(process))


def with_packages(case: Case) -> Case:
    """Return the case with what its files and modules have to do with the Python packages of its interpreter."""
    process = case.run.process
    if process is None or process.system is not this_system():
        return case
    try:
        from .packages import InstalledPackages
    except ImportError:  # as above
        return case
    installed = InstalledPackages(process, site_folders(process))
    return replace(
        case, checks=installed.check(case), unmet=installed.find_unmet(case), strays=installed.find_strays(case),
        install=installed.install_facts(),
    )  # fmt: skip


def with_available(case: Case, findings: tuple[Finding, ...]) -> Case:
    """Return the case with what package managers say of the packages that the findings would have installed."""
    if case.install is None:
        return case
    from ..host.packages import read_available, read_tool_versions

    kind, names = packages_to_install(findings)
    available = read_available(kind, names) if kind is not None else AvailablePackages()
    programs = {remedy.command[0] for finding in findings for remedy in finding.remedies if remedy.command}
    return replace(case, install=replace(case.install, available=available, tools=read_tool_versions(programs)))


def site_folders(process: ProcessFacts) -> tuple[str, ...]:
    """Folders of sys.path with the metadata of installed packages; the current folder for an empty entry."""
    folders = []
    for entry in dict.fromkeys(entry or process.current_folder for entry in process.path):
        try:
            if any(child.name.endswith((".dist-info", ".egg-info")) for child in Path(entry).iterdir()):
                folders.append(entry)
        except (OSError, ValueError):
            continue
    return tuple(folders)


def read_limits(subject: str | None, process: ProcessFacts) -> MachineLimits | None:
    """Return what the machine allows; `None` for a process of Windows or of another machine.

    Arguments: `subject`, the path of the file that failed: the mount of it is read. `None` where no file is known.
    """
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
        except (OSError, ValueError):
            continue
        for name in names:
            if name.endswith((".so", ".pyd")) and name.removeprefix(last) not in process.suffixes:
                tag = name[len(last) + 1 :].rpartition(".")[0]
                foreign_modules.append(ForeignModule(str(folder / name), tag))
    return tuple(foreign_modules)


def find_namesake_of(errors: Iterable[PythonError], process: ProcessFacts) -> Namesake | None:
    """Return what was taken for the module that lacks a name; `None` if no exception is about one, or it is right."""
    module = module_that_lacks(errors)
    if module is None or process.system is not this_system():
        return None
    try:
        from ..host.modules import find_namesake
    except ImportError:  # as below
        return None
    top, _, below = module.partition(".")
    found = find_namesake(top, process)
    # A module in a folder without `__init__.py` was found there: many distributions share such a folder ("google").
    return None if below and found is not None and found.is_plain_folder else found


def find_choice_of(error: PythonError | None, process: ProcessFacts) -> ImportChoice | None:
    """Return the variable that led a program to a module that was not found; `None` if none is known to have."""
    module = module_not_found(error)
    is_cyclic = error is not None and "partially initialized module" in error.message
    if error is None or module is None or is_cyclic or process.system is not this_system():
        return None
    try:
        from ..host.import_choices import find_import_choice
    except ImportError:  # `ast` may be what cannot be imported
        return None
    return find_import_choice(error, module)


def find_traces_of_module(error: PythonError | None, process: ProcessFacts) -> ModuleTraces | None:
    """Return the traces of the module that was not found; `None` if all were found, or on another machine."""
    module = module_not_found(error)
    if module is None or process.system is not this_system():
        return None
    try:
        from ..host.modules import find_module_traces
    except ImportError:  # zipfile may be what cannot be imported
        return None
    return find_module_traces(module, process)
