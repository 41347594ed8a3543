"""Finds the interpreter, the packages and the other files of a Python environment, from files alone.

Sources: PEP 405 (pyvenv.cfg), "sysconfig installation paths" and "site" of the Python documentation, "Python Policy" of
Debian (dist-packages), "Environments" of the conda documentation. No interpreter is run: it may be of another system,
and a folder to be examined may name anything.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import DlltracerError
from .bounded import read_regular_file
from .filesystem import HostFilesystem

_MOST_TEXT = 1 << 20
_MOST_LINES = 1_000
_LIB_PYTHON = re.compile(r"python(\d)\.(\d+)(t?)")
_VERSION = re.compile(r"(\d+)\.(\d+)")
_SITE = ("site-packages", "dist-packages")
_SYSTEM_PREFIXES = ("/", "/usr", "/usr/local")
"""Prefixes that have much besides Python: of them only Python's own folders are the environment."""


class NoEnvironment(DlltracerError):
    """There is no environment where one was named; the text says why."""


@dataclass(frozen=True, kw_only=True)
class PythonEnvironment:
    """A Python environment, or a folder of packages without an interpreter of its own.

    All paths are as this machine names them.

    Attributes:
        folder: the target: the prefix, or the folder that was named.
        program: its interpreter, links followed; `None` if it has none that was found.
        version: of its Python, (3, 12); `None` if not known.
        free_threaded: whether that is the build without the GIL.
        site_folders: the folders of packages, in their order.
        folders: what belongs to it, to be looked through.
        is_windows: it has the layout of Windows.
        is_conda: conda made it.
        notes: what could not be found.
    """

    folder: str
    program: str | None = None
    version: tuple[int, int] | None = None
    free_threaded: bool = False
    site_folders: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    is_windows: bool = False
    is_conda: bool = False
    notes: tuple[str, ...] = ()

    def place(self, path: str) -> str:
        """Return the path of a file in the target, "/" between its parts; the path itself for one outside of it."""
        start = self.folder.rstrip(os.sep) + os.sep
        return path[len(start) :].replace(os.sep, "/") if path.startswith(start) else path


def own_environment() -> PythonEnvironment:
    """Return the environment of the running Python."""
    found = _read_prefix(sys.prefix, None, os.path.realpath(sys.executable) if sys.executable else None)
    more = [os.path.abspath(entry) for entry in sys.path if entry and os.path.basename(entry) in _SITE]
    more = [entry for entry in more if os.path.isdir(entry) and not _is_below(entry, found.folders)]
    return _with_folders(found, more)


def environment_of(interpreter: str) -> PythonEnvironment:
    """Return the environment of an interpreter, which is not run. Raises `NoEnvironment`."""
    path = os.path.abspath(interpreter)
    if os.sep not in interpreter and not os.path.exists(path):
        folders = os.environ.get("PATH", "").split(os.pathsep)
        candidates = [os.path.join(folder, interpreter) for folder in folders if folder]
        path = next(filter(os.path.isfile, candidates), path)
    if not os.path.isfile(path):
        raise NoEnvironment(f"{interpreter} is no program" if os.path.exists(path) else f"{interpreter} is not there")
    for start in (path, os.path.realpath(path)):
        folder = os.path.dirname(start)
        for prefix in (folder, os.path.dirname(folder)):
            found = _read_prefix(prefix, None, os.path.realpath(path))
            if found.site_folders:
                return found
    raise NoEnvironment(f"{interpreter} has no folder of packages beside it, as an interpreter of Python has")


def environment_in(folder: str, root: str | None = None) -> PythonEnvironment:
    """Return what a folder is: a prefix, a folder of packages, or any other tree, which is taken as a whole.

    Argument: `root`, the folder of the system that it belongs to; `None` for this one.
    """
    folder = os.path.abspath(folder)
    found = _read_prefix(folder, root)
    if (found.site_folders or found.program) and not _is_same(folder, root or os.sep):
        return found
    prefix = _prefix_of(folder)
    if prefix is not None:
        around = _read_prefix(prefix, root)
        return replace(around, folder=folder, site_folders=(folder,), folders=(folder,))
    sites = tuple(_sites_below(folder)) if found.site_folders or _is_same(folder, root or "") else (folder,)
    return PythonEnvironment(
        folder=folder, program=found.program, version=found.version, free_threaded=found.free_threaded,
        site_folders=sites or (folder,), folders=(folder,), is_windows=found.is_windows,
    )  # fmt: skip


def folder_exists(path: str) -> bool:
    """Return whether there is a folder at the path."""
    return os.path.isdir(path)


def read_path_files(folder: str) -> tuple[str, ...]:
    """Return the folders that the .pth files of a folder of packages add to the search for modules ("site")."""
    added: dict[str, None] = {}
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".pth"))
    except OSError:
        return ()
    for name in names[:_MOST_LINES]:
        for line in _read_text(os.path.join(folder, name)).splitlines()[:_MOST_LINES]:
            text = line.strip()
            if text and not text.startswith(("#", "import ", "import\t")) and "\0" not in text:
                path = os.path.normpath(os.path.join(folder, text))
                if os.path.isdir(path):
                    added[path] = None
    return tuple(added)


def _read_prefix(prefix: str, root: str | None, program: str | None = None) -> PythonEnvironment:
    settings = _read_settings(os.path.join(prefix, "pyvenv.cfg"))
    windows = _is_windows_prefix(prefix)
    sites = [*_site_folders(prefix, windows=windows)]
    version, free = _version_of(sites, settings, prefix)
    notes: tuple[str, ...] = ()
    if program is None:
        program = _find_program(prefix, settings, version, root, windows=windows)
    if settings and program is None and not windows:
        notes = (f"the Python that {prefix} was made with is not there: {settings.get('home', 'no home is named')}",)
    if settings.get("include-system-site-packages", "").lower() == "true" and program is not None:
        sites += _site_folders(os.path.dirname(os.path.dirname(program)), windows=windows)
    folders = [prefix]
    if prefix.rstrip(os.sep) + os.sep in {each.rstrip("/") + "/" for each in _SYSTEM_PREFIXES} and not settings:
        folders = [os.path.dirname(site) if os.path.basename(site) == _SITE[0] else site for site in sites]
        # Modules of the standard library, and on Debian the packages of all its versions of Python.
        more = [f"{folder}/lib-dynload" for folder, _ in _python_folders(prefix)]
        more.append(f"{prefix.rstrip('/')}/lib/python3/dist-packages")
        folders += [each for each in more if os.path.isdir(each)]
    conda = os.path.isdir(os.path.join(prefix, "conda-meta"))
    return PythonEnvironment(
        folder=prefix, program=program, version=version, free_threaded=free, site_folders=tuple(dict.fromkeys(sites)),
        folders=tuple(dict.fromkeys(folders)), is_windows=windows, is_conda=conda, notes=notes,
    )  # fmt: skip


def _with_folders(found: PythonEnvironment, more: list[str]) -> PythonEnvironment:
    return replace(
        found,
        site_folders=tuple(dict.fromkeys((*found.site_folders, *more))),
        folders=tuple(dict.fromkeys((*found.folders, *more))),
    )


def _read_settings(path: str) -> dict[str, str]:
    """Return the keys of a pyvenv.cfg, lower case; empty if there is none."""
    pairs = (line.partition("=") for line in _read_text(path).splitlines()[:_MOST_LINES])
    return {key.strip().lower(): value.strip() for key, equals, value in pairs if equals}


def _read_text(path: str) -> str:
    try:
        return read_regular_file(path, _MOST_TEXT).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def _is_windows_prefix(prefix: str) -> bool:
    """Whether it has the layout of Windows: Lib\\site-packages. On a file system without case "lib" is the same."""
    has_site = os.path.isdir(os.path.join(prefix, "Lib", _SITE[0]))
    return (has_site and not any(_python_folders(prefix))) or os.path.isfile(os.path.join(prefix, "python.exe"))


def _python_folders(prefix: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Yield lib/pythonX.Y of a prefix, each with its version."""
    for lib in ("lib", "lib64", "local/lib"):
        folder = os.path.join(prefix, lib)
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            match = _LIB_PYTHON.fullmatch(name)
            if match is not None:
                yield os.path.join(folder, name), match


def _site_folders(prefix: str, *, windows: bool) -> Iterator[str]:
    if windows:
        yield from filter(os.path.isdir, [os.path.join(prefix, "Lib", _SITE[0])])
        return
    seen: set[str] = set()
    candidates = [os.path.join(folder, name) for folder, _ in _python_folders(prefix) for name in _SITE]
    candidates.append(os.path.join(prefix, "lib", "python3", "dist-packages"))
    for site in candidates:
        real = os.path.realpath(site)
        if real not in seen and os.path.isdir(site):
            seen.add(real)
            yield site


def _version_of(
    sites: list[str], settings: dict[str, str], prefix: str
) -> tuple[tuple[int, int] | None, bool]:  # fmt: skip
    for site in sites:
        match = _LIB_PYTHON.fullmatch(os.path.basename(os.path.dirname(site)))
        if match is not None:
            return (int(match[1]), int(match[2])), bool(match[3])
    match = _VERSION.match(settings.get("version", "") or settings.get("version_info", ""))
    if match is not None:
        return (int(match[1]), int(match[2])), False
    try:
        names = os.listdir(prefix)
    except OSError:
        return None, False
    for name in sorted(names):
        dll = re.fullmatch(r"python(\d)(\d+)(t?)\.dll", name, re.IGNORECASE)
        if dll is not None:
            return (int(dll[1]), int(dll[2])), bool(dll[3])
    return None, False


def _find_program(
    prefix: str, settings: dict[str, str], version: tuple[int, int] | None, root: str | None, *, windows: bool
) -> str | None:
    """Return the interpreter, links followed inside of the root."""
    if windows:
        path = os.path.join(prefix, "python.exe")
        return path if os.path.isfile(path) else None
    names = [f"python{version[0]}.{version[1]}"] if version is not None else []
    names += ["python3", "python"]
    files = HostFilesystem(root)
    base = os.path.realpath(root) if root is not None else ""
    for name in names:
        path = os.path.join(prefix, "bin", name)
        inside = path
        if base:
            real = os.path.realpath(os.path.join(prefix, "bin"))
            if not f"{real}/".startswith(f"{base.rstrip('/')}/"):
                continue
            inside = f"{real[len(base.rstrip('/')):]}/{name}"
        try:
            here = files.host_path(inside)
        except OSError:
            continue
        if os.path.isfile(here):
            return os.path.realpath(here)
    return None


def _prefix_of(folder: str) -> str | None:
    """Return the prefix that a folder of or in packages belongs to (PREFIX/lib/pythonX.Y/site-packages/...).

    `None` for other folders.
    """
    parts = folder.split(os.sep)
    for at in range(len(parts) - 1, 2, -1):
        if parts[at] not in _SITE:
            continue
        if _LIB_PYTHON.fullmatch(parts[at - 1]) or parts[at - 1] == "python3":
            return os.sep.join(parts[: at - 2]) or os.sep
        if parts[at - 1] == "Lib":
            return os.sep.join(parts[: at - 1])
    return None


_DEEPEST_SITE = 8
"""Folders from the top of a system to one of packages: home/USER/PROJECT/.venv/lib/pythonX.Y/site-packages has 7."""
_MOST_FOLDERS = 20_000


def _sites_below(folder: str) -> Iterator[str]:
    """Yield the folders of packages in a whole system, which lie up to `_DEEPEST_SITE` folders below its top."""
    level = [folder]
    for _ in range(_DEEPEST_SITE):
        following = []
        for each in level:
            try:
                with os.scandir(each) as entries:
                    below = sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
            except OSError:
                continue
            following += [path for path in below if os.path.basename(path) not in ("proc", "sys", "dev", *_SITE)]
            yield from (path for path in below if os.path.basename(path) in _SITE)
        level = following[:_MOST_FOLDERS]


def _is_same(one: str, other: str) -> bool:
    return bool(other) and os.path.realpath(one) == os.path.realpath(other)


def _is_below(path: str, folders: tuple[str, ...]) -> bool:
    real = os.path.realpath(path) + os.sep
    return any(real.startswith(os.path.realpath(folder).rstrip(os.sep) + os.sep) for folder in folders)
