"""Check an environment: would every extension module, library and program in it load on its own system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..errors import DlltracerError
from ..host.environments import PythonEnvironment, environment_in, environment_of, own_environment, read_path_files
from ..host.image_cache import ImageCache, cache_folder
from ..host.native_files import NativeFile, NativeListing, list_native_files
from ..model.check import CheckReport, Problem
from .foreign_environment import check_macos_files, check_windows_files
from .linux_environment import check_linux_files
from .package_files import check_package_files

_FORMATS = {"elf": "Linux", "pe": "Windows", "macho": "macOS"}


def check_environment(path: str, root: str | None = None, *, is_folder: bool, use_cache: bool = True) -> CheckReport:
    """Check the environment of an interpreter, or one in a folder.

    Arguments:
        path: the interpreter, "" for the running one; with `is_folder` the folder.
        root: a folder that holds the system that it belongs to; `None` for this machine.
        is_folder: `path` is a folder.
        use_cache: whether results of earlier checks may be used and kept.
    Nothing of it is run. The report says what cannot be read.
    """
    try:
        environment = _find(path, root, is_folder=is_folder)
    except DlltracerError as error:
        return CheckReport(target=path, unreadable=str(error))
    added = [folder for site in environment.site_folders for folder in read_path_files(site)] if not is_folder else []
    listing = list_native_files((*environment.folders, *added), one_system=root is not None)
    if not listing.entries and listing.unreadable:
        return CheckReport(target=path or environment.folder, unreadable=listing.unreadable[0][1])
    target = path if is_folder else environment.folder
    notes = [*environment.notes, *listing.describe_losses()]
    system, files, left = _choose(environment, listing)
    notes += left
    with ImageCache(cache_folder() if use_cache else None) as cache:
        problems = list(_check_files(environment, system, files, root, notes, cache))
    notes += cache.notes
    places = {file.path: environment.place(file.path) for file in listing.files}
    problems += check_package_files(environment, places, environment.site_folders)
    problems.sort(key=lambda problem: (problem.severity.rank, problem.file, problem.code, problem.title))
    return CheckReport(
        target=target, problems=tuple(dict.fromkeys(problems)), files=len(files), notes=tuple(dict.fromkeys(notes))
    )  # fmt: skip


def _find(path: str, root: str | None, *, is_folder: bool) -> PythonEnvironment:
    if is_folder:
        return environment_in(path, root)
    if root is not None:
        return environment_in(root, root)
    return environment_of(path) if path else own_environment()


def _choose(environment: PythonEnvironment, listing: NativeListing) -> tuple[str, list[NativeFile], list[str]]:
    """Return the format of the environment's native files, these files, and a note on those of other systems.

    Packages ship files of other systems: pip and setuptools have launchers for Windows.
    """
    modules = Counter(file.format for file in listing.files if file.path.lower().endswith((".so", ".pyd")))
    every = Counter(file.format for file in listing.files)
    chosen = "pe" if environment.is_windows else next(
        (form for form, _ in (*modules.most_common(1), *every.most_common(1))), "elf"
    )  # fmt: skip
    others = Counter(_FORMATS[file.format] for file in listing.files if file.format != chosen)
    notes = [f"{count} files are for {name}, and were not judged" for name, count in sorted(others.items())]
    return chosen, [file for file in listing.files if file.format == chosen], notes


def _check_files(
    environment: PythonEnvironment, form: str, files: list[NativeFile], root: str | None, notes: list[str],
    cache: ImageCache,
) -> Iterator[Problem]:  # fmt: skip
    if form == "elf":
        return check_linux_files(environment, files, root, notes, cache)
    check = check_windows_files if form == "pe" else check_macos_files
    return check(environment, files, notes)
