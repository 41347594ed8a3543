"""Reads the Python code of a package for native files that it loads itself or can do without.

A package is sound without an optional back end that it imports in a `try`. The code is parsed, and not run.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import os
import re
import warnings
from collections.abc import Iterator, Sequence

from .bounded import read_regular_file
from .wheel import names_loading

_MOST_FILES = 5_000
_MOST_BYTES = 4 << 20
_SHORTEST_STEM = 2
"""Characters of a name without "lib" and its end: shorter ones are in any code by chance."""
_IMPORT = re.compile(rb"^[ \t]*(?:import|from)[ \t]+([A-Za-z_][A-Za-z0-9_]*)", re.MULTILINE)
_CATCHING = {"ImportError", "Exception", "BaseException"}
"""What catches a failed load of an extension module, which is an ImportError and no ModuleNotFoundError."""


def is_import_guarded(module: str, site_folder: str) -> bool:
    """Return whether the package of an extension module imports it, and nowhere without catching a failure.

    Arguments: `module`, path of the file; `site_folder`, the folder of packages that it is in. The code is parsed, not
    run. Code that cannot be parsed counts as one that imports without a guard.
    """
    package = _package_folder(module, site_folder)
    if package is None:
        return False
    name = os.path.basename(module).partition(".")[0]
    found = False
    for number, source in enumerate(_read_sources(package, _MOST_FILES + 1)):
        if number >= _MOST_FILES:
            return False
        if name.encode() not in source or b"import" not in source:
            continue
        guards = _guards_of(source, name)
        if guards is None or not all(guards):
            return False
        found |= bool(guards)
    return found


def loads_libraries(path: str, site_folder: str) -> bool:
    """Return whether code of the package that a file belongs to names a function that loads libraries or adds folders.

    Arguments: `path` of the file; `site_folder`, the folder of packages that it is in.
    """
    package = _package_folder(path, site_folder)
    return package is not None and any(map(names_loading, _read_sources(package)))


def _package_folder(path: str, site_folder: str) -> str | None:
    """Return the folder of the package that a file is in; `None` for a file elsewhere, or beside the packages."""
    package, separator, _ = os.path.relpath(path, site_folder).partition(os.sep)
    return os.path.join(site_folder, package) if separator and package != os.pardir else None


def names_library(library: str, site_folder: str) -> bool:
    """Return whether Python code below a folder names a library: code that loads one by ctypes does.

    Code may leave out "lib" and the end of the name, which differ by system ("z3" for libz3.so, libz3.dll).

    Arguments: `library`, name of the file; `site_folder`, the folder of packages. The code is not run.
    """
    stem = library.partition(".")[0].removeprefix("lib")
    if len(stem) < _SHORTEST_STEM:
        stem = library
    wanted = re.compile(rb"(?<![A-Za-z0-9])(?:lib)?" + re.escape(stem.encode()) + rb"(?![A-Za-z0-9])")
    return any(wanted.search(code) is not None for code in _read_sources(site_folder))


def imported_packages(site_folder: str) -> set[str]:
    """Return the names of the packages that Python code below a folder imports, in whatever way. It is not run."""
    return {name.decode("ascii") for code in _read_sources(site_folder) for name in _IMPORT.findall(code)}


class PackageCode:
    """The answers for the native files of an environment, each asked for once.

    Arguments: `site_folders`, the folders of packages; paths of files begin with one of them and "/".
    """

    def __init__(self, site_folders: Sequence[str]) -> None:
        self._site_folders = site_folders
        self._loading: dict[str, bool] = {}
        self._optional: dict[str, bool] = {}

    def site_of(self, path: str) -> str | None:
        """Return the folder of packages that a file is in; `None` for a file elsewhere."""
        sites = [site for site in self._site_folders if path.startswith(f"{site}/")]
        return max(sites, key=len) if sites else None

    def top_of(self, path: str) -> str | None:
        """Return the top folder of the package that a file is in; `None` for a file elsewhere."""
        site = self.site_of(path)
        return None if site is None else f"{site}/{path[len(site) + 1 :].partition('/')[0]}"

    def loads(self, path: str) -> bool:
        """Return whether code of the package of a file loads libraries itself, and so perhaps what this file needs."""
        site, top = self.site_of(path), self.top_of(path)
        if site is None or top is None:
            return False
        if top not in self._loading:
            self._loading[top] = loads_libraries(path, site)
        return self._loading[top]

    def is_optional(self, path: str) -> bool:
        """Return whether the package of a module goes on without it."""
        if path not in self._optional:
            site = self.site_of(path)
            self._optional[path] = site is not None and is_import_guarded(path, site)
        return self._optional[path]


def _read_sources(folder: str, most: int = _MOST_FILES) -> Iterator[bytes]:
    """Yield the Python files below a folder, `most` of them, without those that cannot be read."""
    for path in itertools.islice(list_sources(folder), most):
        with contextlib.suppress(OSError, ValueError):
            yield read_regular_file(path, _MOST_BYTES)


def list_sources(folder: str) -> Iterator[str]:
    """Yield the paths of the Python files below a folder, without those of tests."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each not in ("__pycache__", "tests", "test"))
        yield from (os.path.join(here, name) for name in sorted(names) if name.endswith(".py"))


def _guards_of(source: bytes, name: str) -> list[bool] | None:
    """Return for each import of a module of that name whether it is guarded; `None` if the code cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    guards = []
    stack: list[tuple[ast.AST, bool]] = [(tree, False)]
    while stack:
        node, is_guarded = stack.pop()
        if isinstance(node, ast.Import | ast.ImportFrom) and _names(node, name):
            guards.append(is_guarded)
        if isinstance(node, ast.Try) and any(map(_catches, node.handlers)):
            stack += [(child, True) for child in node.body]
            rest: list[ast.AST] = [*node.handlers, *node.orelse, *node.finalbody]
            stack += [(child, is_guarded) for child in rest]
        else:
            stack += [(child, is_guarded) for child in ast.iter_child_nodes(node)]
    return guards


def _names(node: ast.Import | ast.ImportFrom, name: str) -> bool:
    modules = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        modules.append(node.module or "")
    return any(name == module.rpartition(".")[2] for module in modules)


def _catches(handler: ast.ExceptHandler) -> bool:
    """Return whether a handler catches a failed import and goes on: numpy's raises another error, with advice."""
    if any(isinstance(node, ast.Raise) for statement in handler.body for node in ast.walk(statement)):
        return False
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in _CATCHING)
        or (isinstance(kind, ast.Attribute) and kind.attr in _CATCHING)
        for kind in kinds
    )  # fmt: skip
