"""Looks on this machine for a module that the import system did not find: hidden, unreadable, zipped, misspelt.

The import system passes over folders that it may not read and over archives that hold extension modules
(Lib/importlib/_bootstrap_external.py, Lib/zipimport.py) without a word.
"""

from __future__ import annotations

import difflib
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from ..model.environment import HiddenModule, Hiding, ModuleTraces, Namesake, PackageManager
from ..model.failure import ProcessFacts
from .machine import real_path

_MOST_NAMES = 20_000
_LARGEST_ARCHIVE = 200 * 1024 * 1024
_MOST_NEAR = 2
_LIKENESS = 0.8
_SHORTEST_ALIKE = 4
_ENVIRONMENTS = (".venv", "venv", "env")


def find_module_traces(name: str, process: ProcessFacts) -> ModuleTraces:
    """Return what there is of a module, where this Python looked and where it did not.

    Arguments:
        name: its whole name, with packages.
        process: the interpreter that did not find it, of this machine.
    """
    entries = tuple(dict.fromkeys(entry or process.current_folder for entry in process.path))
    *packages, last = name.split(".")
    folders = [os.path.join(entry, *packages) for entry in entries if entry]
    names = {folder: _names_in(folder) for folder in folders}
    here = {one for found in names.values() for one in found or ()}
    plain = sorted({_module_of(one) for one in here} - {last, ""})
    other_case = tuple(one for one in plain if one.lower() == last.lower())
    candidates = plain if packages else sorted({*plain, *sys.stdlib_module_names} - {last})
    if len(last) < _SHORTEST_ALIKE:  # gi is no misspelt cgi
        candidates = []
    return ModuleTraces(
        unreadable=tuple(_unreadable(entries, packages)),
        zipped=tuple(_zipped(entries, packages, last, process.suffixes)),
        other_case=other_case,
        near=() if other_case else tuple(difflib.get_close_matches(last, candidates, _MOST_NEAR, _LIKENESS)),
        hidden=tuple(_hidden(name, entries, process)),
        shadow=_shadow(entries, name.partition(".")[0]),
        parent=_parent(entries, packages),
        broken_links=tuple(_broken_links(folders, last, process.suffixes)),
        behind=_behind(entries, name, process.suffixes) if packages else None,
        has_pip=any(os.path.isdir(os.path.join(entry, "pip")) for entry in entries),
        is_of_uv=_is_of_uv(process.prefix),
        is_externally_managed=any(os.path.isfile(os.path.join(entry, "EXTERNALLY-MANAGED")) for entry in entries)
        and process.prefix == process.base_prefix,
    )


def find_namesake(top: str, process: ProcessFacts) -> Namesake | None:
    """Return what Python takes for a module without a dot in its name, if another one may be meant; else `None`.

    The import system takes the first package or file on sys.path. It takes a folder without `__init__.py` only if
    there is neither (PEP 420).
    """
    found: dict[str, str] = {}
    plain = None
    for entry in dict.fromkeys(entry or process.current_folder for entry in process.path):
        folder = os.path.join(entry, top)
        package = os.path.join(folder, "__init__.py")
        files = (f"{folder}{suffix}" for suffix in (*process.suffixes, ".py"))
        one = package if os.path.isfile(package) else next((file for file in files if os.path.isfile(file)), None)
        if one is not None:
            found.setdefault(real_path(one), one)
        elif plain is None and os.path.isdir(folder):
            plain = folder
    if not found:
        return Namesake(plain, is_plain_folder=True) if plain is not None else None
    first, *others = [os.path.dirname(one) if one.endswith("/__init__.py") else one for one in found.values()]
    return Namesake(first, others[0]) if others else None


def _is_of_uv(prefix: str) -> bool:
    """Return whether an environment has the line "uv = VERSION" in its pyvenv.cfg."""
    try:
        with open(os.path.join(prefix, "pyvenv.cfg"), encoding="utf-8", errors="replace") as lines:
            return any(line.partition("=")[0].strip() == "uv" for line in lines.read(8192).splitlines())
    except OSError:
        return False


def _names_in(folder: str) -> list[str] | None:
    """The names in a folder; `None` if it cannot be read, or is none."""
    try:
        with os.scandir(folder) as found:
            return [entry.name for _, entry in zip(range(_MOST_NAMES), found, strict=False)]
    except (OSError, ValueError):
        return None


def _module_of(file: str) -> str:
    """The module that a file or folder of that name is, as far as a name shows it; empty if it is none."""
    stem, dot, ending = file.partition(".")
    is_module = not dot or file.endswith((".py", ".so", ".pyd"))
    return stem if is_module and stem.isidentifier() and not ending.endswith("-info") else ""


def _unreadable(entries: tuple[str, ...], packages: list[str]) -> Iterator[str]:
    """Folders of sys.path, and of the package in them, whose names this user may not read."""
    for entry in entries:
        for depth in range(len(packages) + 1):
            folder = os.path.join(entry, *packages[:depth])
            try:
                os.listdir(folder)
            except PermissionError:
                yield folder
                break
            except (OSError, ValueError):
                break


def _broken_links(folders: list[str], last: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Symbolic links that have the name of the module and lead nowhere: the import system passes over them."""
    for folder in folders:
        for ending in ("", ".py", *suffixes):
            path = os.path.join(folder, last + ending)
            if os.path.islink(path) and not os.path.exists(path):
                yield path


def _zipped(entries: tuple[str, ...], packages: list[str], last: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Extension modules of that name inside archives on sys.path."""
    wanted = {"/".join((*packages, f"{last}{suffix}")) for suffix in suffixes}
    for entry in entries:
        archive = Path(entry)
        try:
            if not os.path.isfile(archive) or archive.stat().st_size > _LARGEST_ARCHIVE:
                continue
            with zipfile.ZipFile(archive) as opened:
                names = set(opened.namelist())
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
            continue
        yield from (f"{entry}/{name}" for name in sorted(wanted & names))


def _hidden(name: str, entries: tuple[str, ...], process: ProcessFacts) -> Iterator[HiddenModule]:
    """The module in folders that are not on sys.path."""
    seen = {real_path(entry) for entry in entries}
    for folder, why in _other_folders(process):
        real = real_path(folder)
        if real in seen:
            continue
        seen.add(real)
        found = _find_in(folder, name, process.suffixes)
        if found is not None:
            yield HiddenModule(found, folder, why, _package_of(found, folder))


def _package_of(path: str, folder: str) -> str:
    """The installed package whose RECORD lists a module; empty if none does."""
    try:
        from .packages import find_owners
    except ImportError:  # a Python without its own hashlib may be what is asked about
        return ""
    file = os.path.join(path, "__init__.py") if os.path.isdir(path) else path
    owners = find_owners([file], [folder]).owners.get(file, ())
    return next((owner.package for owner in owners if owner.manager is PackageManager.PIP), "")


def _other_folders(process: ProcessFacts) -> Iterator[tuple[str, Hiding]]:
    current = process.current_folder  # empty where it was deleted, or is not known: that of this process is another one
    if current:
        yield current, Hiding.CURRENT_FOLDER
        yield os.path.join(current, "src"), Hiding.SOURCE_FOLDER
    for top in (process.prefix, process.base_prefix):
        own = Hiding.SITE if top == process.prefix else Hiding.BASE
        yield from ((folder, own) for folder in _site_folders(top, process.version))
    if process.prefix != process.base_prefix:
        yield from ((folder, Hiding.OTHER_VERSION) for folder in _site_folders(process.prefix, None))
    if process.user_base:
        yield from ((folder, Hiding.USER) for folder in _site_folders(process.user_base, process.version))
    named = [process.variable(variable) for variable in ("VIRTUAL_ENV", "CONDA_PREFIX")]
    near = [os.path.join(current, one) for one in _ENVIRONMENTS] if current else []
    for top in (*named, *near):
        if top:
            yield from ((folder, Hiding.ENVIRONMENT) for folder in _site_folders(top, None))


def _site_folders(top: str, version: tuple[int, int, int] | None) -> Iterator[str]:
    """Folders of installed packages below a prefix: of that version of Python, or of any."""
    if os.name == "nt":
        yield os.path.join(top, "Lib", "site-packages")
        return
    wanted = None if version is None else f"python{version[0]}.{version[1]}"
    for lib in ("lib", "lib64"):
        for name in sorted(_names_in(os.path.join(top, lib)) or ()):
            if name.startswith("python3") and wanted in (None, name.rstrip("t")):
                yield from (os.path.join(top, lib, name, kind) for kind in ("site-packages", "dist-packages"))


def _find_in(folder: str, name: str, suffixes: tuple[str, ...]) -> str | None:
    """The file or folder of a module below a folder."""
    path = os.path.join(folder, *name.split("."))
    for ending in ("/__init__.py", ".py", *suffixes):
        if os.path.isfile(path + ending):
            return path if ending.startswith("/") else path + ending
    # A folder without __init__.py is a package as well, if there is any module in it.
    inside = _names_in(path) or ()
    return path if any(one.endswith((".py", *suffixes)) for one in inside) else None


def _shadow(entries: tuple[str, ...], top: str) -> str | None:
    """The single file that is taken for the package of that name."""
    for entry in entries:
        if os.path.isfile(os.path.join(entry, top, "__init__.py")):
            return None
        file = os.path.join(entry, f"{top}.py")
        if os.path.isfile(file):
            return file
    return None


def _parent(entries: tuple[str, ...], packages: list[str]) -> str | None:
    """The first folder that is the package of a module."""
    folders = (os.path.join(entry, *packages) for entry in entries if packages)
    return next((folder for folder in folders if os.path.isdir(folder)), None)


def _behind(entries: tuple[str, ...], name: str, suffixes: tuple[str, ...]) -> str | None:
    """The module in a later package of the same name: the first one that is no namespace is the only one asked."""
    top = name.partition(".")[0]
    taken = next((at for at, entry in enumerate(entries) if os.path.isfile(os.path.join(entry, top, "__init__.py"))), 0)
    if any(_find_in(entry, name, suffixes) is not None for entry in entries[: taken + 1]):
        return None  # an import of itself in a circle, or a name that is no module
    found = (_find_in(entry, name, suffixes) for entry in entries[taken + 1 :])
    return next((path for path in found if path is not None), None)
