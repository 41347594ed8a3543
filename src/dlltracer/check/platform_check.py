"""Shares among the platforms' checks: making problems, finding the owner of a library, copies of one runtime.

Copies of one build are harmless, whoever wins. Tools that repair wheels patch the copies, so that builds are
distinguished by their identification (build-id, UUID, version) and not by their bytes.

Sources for copies: _dl_map_object in elf/dl-load.c of glibc and "Dynamic-link library search order" of MS Learn (one
image of a name in a process); __kmp_register_library_startup in the OpenMP runtime of LLVM ("OMP: Error #15").
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..host.package_code import imported_packages, is_import_guarded, names_library
from ..host.wheel import Wheel, code_folders_of
from ..model.check import Problem, Severity
from ..model.environment import normalized_name, without_hash
from .platforms import Platform
from .python_abi import ApiProblem, judge_api
from .tags import PythonPromise, file_python

_OWN_FOLDER = re.compile(r"^(?:\$ORIGIN|\$\{ORIGIN\}|@loader_path|@executable_path)")
_SITE_PACKAGES = re.compile(r"(?:lib/python[\d.t]+|Lib)/site-packages/")
"""Where packages are in the prefix of a conda environment."""


class PlatformCheck:
    """The check of a wheel on one platform; a subclass has the rules of its loader.

    Arguments: `wheel`, opened; `platform`, what its tag promises; `promise`, the Pythons that its tags promise.
    """

    def __init__(self, wheel: Wheel, platform: Platform, promise: PythonPromise) -> None:
        self._wheel = wheel
        self._platform = platform
        self._promise = promise
        self._reported: dict[tuple[str, str], int] = {}
        self._optional: dict[str, bool] = {}
        self._named: dict[str, bool] = {}
        self._suppliers = Suppliers(wheel)
        self._deferred: list[tuple[Problem, str]] = []
        self._lacking: tuple[str, ...] = ()
        """The libraries that the load that is judged lacks."""
        self._has_modules = False
        self._foreign: dict[str, str] = {}
        """Place of each file for another processor, but of extension modules, and what to say of it."""
        self._by_name: dict[str, list[str]] = {}
        self._by_original_name: dict[str, list[str]] = {}
        for place in sorted(wheel.native):
            name = posixpath.basename(place)
            self._by_name.setdefault(name.lower(), []).append(place)
            self._by_original_name.setdefault(original_name(name), []).append(place)

    def _judge_foreign(self, foreign: Mapping[str, str], fitting: Iterable[str]) -> Iterator[Problem]:
        """Judge the files for other processors: where none fits, the library that code loads by its name is a fault.

        Beside files that fit, it is one for another system, or a launcher that an installer writes.
        """
        fits = any(True for _ in fitting)
        for place, title in foreign.items():
            severity = Severity.NOTE if fits else self._severity_of_library(place)
            severity = severity if severity is Severity.ERROR else Severity.NOTE
            yield self._problem("wrong-machine", severity, place, title)

    def _once(self, problem: Problem) -> Iterator[Problem]:
        """Yield a problem the first time that its file has it, and again if it is worse: many loads share a library."""
        key = problem.file, problem.title
        if key not in self._reported or problem.severity.rank < self._reported[key]:
            self._reported[key] = problem.severity.rank
            yield problem

    def _severity_of(self, module: str) -> Severity:
        """Return how bad it is that an extension module lacks a library."""
        return Severity.WARNING if self._is_optional(module) else Severity.ERROR

    def _severity_of_library(self, place: str) -> Severity:
        """Return how bad it is that a library lacks something, which nothing of the wheel needs.

        A package without extension modules loads its library by ctypes, and is of no use without it. Beside extension
        modules such a library may be a plug-in, or be for another purpose.
        """
        if self._has_modules or self._wheel.others or not self._wheel.loads_by_itself:
            return Severity.WARNING
        if place not in self._named:
            name = posixpath.basename(place)
            self._named[place] = any(names_library(name, folder) for folder in code_folders_of(self._wheel))
        return Severity.ERROR if self._named[place] else Severity.WARNING

    def _is_optional(self, module: str) -> bool:
        """Return whether the package of an extension module goes on without it."""
        if module not in self._optional:
            match = _SITE_PACKAGES.match(module)
            site = match[0].rstrip("/") if match is not None else ""
            self._optional[module] = any(
                is_import_guarded(posixpath.join(folder, module), posixpath.join(folder, site))
                for folder in code_folders_of(self._wheel)
            )
        return self._optional[module]

    def _problem(
        self, code: str, severity: Severity, place: str, title: str, evidence: Sequence[str] = (), fix: str = ""
    ) -> Problem:  # fmt: skip
        return Problem(
            code=code, severity=severity, file=self._wheel.native.get(place, place), title=title,
            evidence=tuple(evidence), fix=fix, platform=self._platform.tag,
        )  # fmt: skip

    def _judge_api(self, place: str, names: Iterable[str]) -> Iterator[Problem]:
        """Judge the symbols that a file imports of Python."""
        for found in judge_api(names, file_python(place, self._promise)):
            yield self._api_problem(place, found)

    def _api_problem(self, place: str, found: ApiProblem) -> Problem:
        return self._problem(found.code, found.severity, place, found.title, found.evidence, found.fix)

    def _renamed(self, name: str) -> list[str]:
        """Return the files of the wheel that have a library's name but for what a repair tool put into it.

        Either may have it: the file was renamed and its user was not, or the user was, and the file is another one.
        """
        alike = self._by_original_name.get(original_name(name), [])
        return [place for place in alike if posixpath.basename(place).lower() != name.lower()]

    def _of_name(self, name: str) -> list[str]:
        """Return the files of the wheel with that name, but for the case of its letters."""
        return self._by_name.get(name.lower(), [])

    def _downgraded(
        self, severity: Severity, library: str, folders: Sequence[str] = (), *, is_runtime: bool = False
    ) -> tuple[Severity, tuple[str, ...]]:  # fmt: skip
        """Return how bad it is that a library is nowhere, when other packages may have it though its name says none.

        Arguments: `folders` of the package in which it is looked for; `is_runtime`, whether it is one of a compiler,
        which says nothing of who brings it.
        """
        if severity is not Severity.ERROR:
            return severity, ()
        if family := self._suppliers.family(folders):
            return Severity.NOTE, (f"{family} may have it: the wheel shares folders with it",)
        for other in () if is_runtime else self._lacking:
            if other != library and (owner := self._suppliers.find(other, folders)):
                return Severity.WARNING, (f"{owner} may have it, as it has {other}",)
        return severity, ()

    def _defer(self, problem: Problem, place: str) -> None:
        """Keep a problem until it is known whether another module loads the file at `place`, which it did not find."""
        self._deferred.append((problem, place))

    def _yield_deferred(self, loaded: Container[str]) -> Iterator[Problem]:
        """Yield what was kept. What another module loads is there for every later one: loaders go by its name."""
        for problem, place in self._deferred:
            severity, evidence = problem.severity, problem.evidence
            if place in loaded and severity is Severity.ERROR:
                severity = Severity.WARNING
                evidence = (*evidence, f"other modules load {place}: the import works after one of them")
            yield from self._once(replace(problem, severity=severity, evidence=evidence))


def original_name(library: str) -> str:
    """Return the name of a library before a repair tool gave it another, in lower case."""
    return without_hash(library).lower()


def search_places(place: str, folders: Iterable[str]) -> list[str]:
    """Return the folders in which a file's needs are looked for beside it, from the top of site-packages.

    Arguments: `place` of the file; `folders` of its RUNPATH or LC_RPATH, of which those of the build machine are left
    out.
    """
    rests = [_OWN_FOLDER.sub("", folder, count=1).lstrip("/") for folder in folders if _OWN_FOLDER.match(folder)]
    return [place_of(posixpath.join("/", posixpath.dirname(place), rest)) for rest in rests]


def place_of(path: str) -> str:
    """Return where a file is, from the top of site-packages; search paths lead there by "..", too."""
    return posixpath.normpath(path).lstrip("/") if path else ""


_FAMILIES = (
    ("LLVM's OpenMP", re.compile(r"lib(?:omp|iomp5)(?:md|140[\w.]*)?\.")), ("libgomp", re.compile(r"libgomp\.")),
    ("libstdc++", re.compile(r"libstdc\+\+")), ("libgcc_s", re.compile(r"libgcc_s")),
    ("libgfortran", re.compile(r"libgfortran")), ("OpenBLAS", re.compile(r"lib\w*openblas")),
    ("TBB", re.compile(r"(?:lib)?tbb(?:12)?\.")), ("OpenSSL", re.compile(r"libcrypto")),
    ("protobuf", re.compile(r"libprotobuf\.")), ("HDF5", re.compile(r"(?:lib)?hdf5\.")),
    ("the C++ runtime", re.compile(r"msvcp140\.")), ("the C runtime", re.compile(r"vcruntime140\.")),
    ("concrt140", re.compile(r"concrt140\.")), ("vcomp140", re.compile(r"vcomp140\.")),
)  # fmt: skip
_ONE_ONLY = "LLVM's OpenMP"
_NAMED = 4


@dataclass(frozen=True)
class RuntimeCopy:
    """A library of an environment: its place, the name that others ask for, its package, and what tells its build."""

    place: str
    name: str
    package: str
    build: str


def family_of(name: str) -> str | None:
    """Return the runtime that a library is a copy of, by its name; `None` for a library of another kind."""
    plain = original_name(name)
    return next((family for family, pattern in _FAMILIES if pattern.match(plain)), None)


def judge_copies(copies: Iterable[RuntimeCopy]) -> Iterator[Problem]:
    """Yield a problem for each runtime of which several packages have copies of different builds."""
    groups: dict[str, list[RuntimeCopy]] = {}
    for copy in copies:
        groups.setdefault(family_of(copy.name) or copy.name, []).append(copy)
    for family, found in sorted(groups.items()):
        packages = sorted({copy.package for copy in found})
        builds = {copy.build for copy in found}
        if len(packages) > 1 and len(builds) > 1:
            yield _several(family, found, packages, len(builds))


def _several(family: str, found: Sequence[RuntimeCopy], packages: Sequence[str], builds: int) -> Problem:
    names = {copy.name.lower() for copy in found}
    more = f" and {len(packages) - _NAMED} more" if len(packages) > _NAMED else ""
    severity, fix = Severity.NOTE, ""
    if len(names) == 1:
        outcome = "all have one name: the copy of the package that is imported first serves the others, too"
    elif len(names) == len({copy.place for copy in found}):
        outcome = "each has a name of its own, and serves its own package"
    else:
        outcome = "of those with one name the copy of the package that is imported first serves the others, too"
    if family == _ONE_ONLY and len(names) > 1:
        severity, fix = Severity.WARNING, "install builds of the packages that share one (conda), or use one of them"
        outcome = "a process that gets two of them ends with: OMP: Error #15"
    return Problem(
        code="runtime-copies", severity=severity, file=found[0].place,
        title=f"{family} is in {len(packages)} packages, in {builds} builds: {', '.join(packages[:_NAMED])}{more}",
        evidence=(outcome, *(f"{copy.package}: {copy.place}" for copy in found)), fix=fix,
    )  # fmt: skip


_SHORTEST_NAME = 3
_SHORTEST_WORD = 4
_OF_NO_PACKAGE = {"python", "core", "common", "runtime", "tools", "base", "extensions", "stubs", "client", "headers"}
"""Words in names of packages that say nothing of what they have."""
_END = r"\.(?:so|dll|dylib|framework|abi3|cpython)\b.*$|\.\d.*$"
_BRINGING_SYMBOLS = {"torch", "tensorflow", "tensorflow-macos", "jaxlib", "mxnet", "shiboken6", "pyside6"}
"""Packages whose libraries extension modules of others find in the process once they are imported. They export what
they were linked with, too: libtorch some of libstdc++ (pytorch/pytorch#80489)."""
_KNOWN_LIBRARIES = {
    "h5py": ("hdf5",), "tables": ("hdf5",), "torch": ("c10", "shm"), "pyarrow": ("arrow", "parquet"),
    "intel-openmp": ("iomp5",),
}  # fmt: skip
"""What the names of libraries begin with that these packages bring, as far as it is not their own name."""
_OF_REPAIR = (".libs", ".dylibs")
"""Ends of the folders that repair tools make: each is of one wheel alone."""


class Suppliers:
    """The packages that may bring what a wheel lacks: those that it requires, or that its code imports.

    A name alone proves little: `libtket-c-api` is not of tket-eccs because tket requires that. So the words of the
    wheel's own name do not count. A package that is imported and not required must have given the library its name.

    Argument: `wheel`, opened.
    """

    def __init__(self, wheel: Wheel) -> None:
        self._wheel = wheel
        self._own = set(_words(wheel.name.split("-")[0]))
        self._imported: tuple[str, ...] | None = None

    def find(self, library: str, folders: Iterable[str] = ()) -> str | None:
        """Return the package that has such a library by its name, or by a folder in which the loader looks for it.

        Arguments: `library`, a file name; `folders` in which the file has it looked for, from the top of site-packages
        (`search_places`).
        """
        if self._wheel.others:
            return self._wheel.others
        parts = {part for folder in folders for part in folder.lower().split("/")}
        for package in self._wheel.requires:
            if package.replace("-", "_") in parts or self._is_named_after(package, library):
                return package
            if package.startswith("nvidia-") and "nvidia" in parts:
                return package
        return next((one for one in self._list_imported() if self._has_name_of(one, library, parts)), None)

    def may_bring_symbols(self) -> bool:
        """Return whether a required package may have symbols that the files name no library for."""
        return bool(self._wheel.others or _BRINGING_SYMBOLS & set(self._wheel.requires))

    def may_export_runtime(self, libraries: Iterable[str]) -> bool:
        """Return whether a library that a load lacks has names of the C++ runtime that it was linked with.

        A library exports them by chance. That holds for the package in the versions that the wheel was built with, and
        so where it requires them.
        """
        owners = {self.find(library) for library in libraries}
        return bool(self._wheel.others or owners & (_BRINGING_SYMBOLS | self._wheel.bounded))

    def family(self, folders: Iterable[str]) -> str:
        """Return the required packages whose names begin as the wheel's does, with which it shares folders; "" if none.

        Several wheels may fill one folder: PyQt6 and PyQt6-Qt6, PySide6-Addons and PySide6-Essentials.

        Argument: `folders` of the package in which libraries are looked for. A folder that a repair tool made for this
        wheel is shared with none.
        """
        own = normalized_name(self._wheel.name.split("-")[0]).partition("-")[0]
        if len(own) < _SHORTEST_NAME or all(folder.endswith(_OF_REPAIR) for folder in folders):
            return ""
        return " or ".join(one for one in self._wheel.requires if one.split("-")[0] == own)

    def _is_named_after(self, package: str, library: str) -> bool:
        """Return whether a library's name has that of a required package in it, or a word of it, or is a part of it."""
        stem, words = _stem(library), _words(package)
        if library.lower().removeprefix("lib").startswith(_KNOWN_LIBRARIES.get(package, ())):
            return True
        if len(stem) >= _SHORTEST_NAME and stem in _sequences(words):
            return True
        whole = "".join(words)
        if len(whole) >= _SHORTEST_NAME and whole in stem:
            return True
        telling = set(words) - _OF_NO_PACKAGE - self._own
        return any(len(word) >= _SHORTEST_WORD and word in stem for word in telling)

    def _has_name_of(self, package: str, library: str, parts: set[str]) -> bool:
        """Return whether a package that is imported and not required has a library: it begins with its name."""
        whole = "".join(_words(package))
        is_named = len(whole) >= _SHORTEST_WORD and _stem(library).startswith(whole)
        return is_named or package.replace("-", "_") in parts

    def _list_imported(self) -> tuple[str, ...]:
        """Return what the wheel's code imports that neither it nor Python has, and that is not required."""
        if self._imported is None:
            own = {name.partition("/")[0].partition(".")[0] for name in self._wheel.names}
            found = {name for folder in code_folders_of(self._wheel) for name in imported_packages(folder)}
            found -= own | sys.stdlib_module_names
            required = set(self._wheel.requires)
            self._imported = tuple(name for name in map(normalized_name, sorted(found)) if name not in required)
        return self._imported


def _words(package: str) -> list[str]:
    """Return the words of a package's name, letters only."""
    words = (re.sub(r"[^a-z]", "", word) for word in normalized_name(package).split("-"))
    return [word for word in words if word]


def _stem(library: str) -> str:
    """Return the letters of a library's name without "lib", its version and its end."""
    return re.sub(r"[^a-z]", "", re.sub(_END, "", library.lower()).removeprefix("lib"))


def _sequences(words: list[str]) -> Iterator[str]:
    """Yield the words that follow one another as one: "tvmffi" of apache-tvm-ffi."""
    for first in range(len(words)):
        for end in range(first + 1, len(words) + 1):
            yield "".join(words[first:end])
