"""Which other package a wheel expects a library from: one that it requires, or that its code imports.

A name alone proves little: `libtket-c-api` is not of tket-eccs because tket requires that. So the words of the wheel's
own name do not count, and a package that is imported and not required must have given the library its whole name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator

from ..host.package_code import imported_packages
from ..host.wheel import Wheel, unpack_code

_SHORTEST_NAME = 3
_SHORTEST_WORD = 4
_OF_NO_PACKAGE = {"python", "core", "common", "runtime", "tools", "base", "extensions", "stubs", "client", "headers"}
"""Words in names of packages that say nothing of what they have."""
_END = r"\.(?:so|dll|dylib|framework|abi3|cpython)\b.*$|\.\d.*$"
_BRINGING_SYMBOLS = {"torch", "tensorflow", "tensorflow-macos", "jaxlib", "mxnet", "shiboken6", "pyside6"}
"""Packages whose libraries extension modules of others find in the process once they are imported. They export what
they were linked with, too: libtorch some of libstdc++ (pytorch/pytorch#80489)."""
_OF_REPAIR = (".libs", ".dylibs")
"""Ends of the folders that repair tools make: each is of one wheel alone."""


class Suppliers:
    """The packages that may bring what a wheel lacks.

    Argument: `wheel`, opened.
    """

    def __init__(self, wheel: Wheel) -> None:
        self._wheel = wheel
        self._own = set(_words(wheel.name.split("-")[0]))
        self._imported: tuple[str, ...] | None = None

    def find(self, library: str, folders: Iterable[str] = ()) -> str | None:
        """Return the package that has such a library by its name, or by a folder in which the loader looks for it.

        Arguments: `library`, a file name; `folders` in which the file has it looked for, from the top of site-packages
        (`platform_check.search_places`).
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
        """Whether a package that the wheel requires may have symbols that the files do not name a library for."""
        return bool(self._wheel.others or _BRINGING_SYMBOLS & set(self._wheel.requires))

    def may_export_runtime(self, libraries: Iterable[str]) -> bool:
        """Whether one of the libraries that a load lacks has names of the C++ runtime that it was linked with.

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
        own = _normal(self._wheel.name.split("-")[0]).partition("-")[0]
        if len(own) < _SHORTEST_NAME or all(folder.endswith(_OF_REPAIR) for folder in folders):
            return ""
        return " or ".join(one for one in self._wheel.requires if one.split("-")[0] == own)

    def _is_named_after(self, package: str, library: str) -> bool:
        """Whether a library's name has that of a required package in it, or a word of it, or is a part of it."""
        stem, words = _stem(library), _words(package)
        if len(stem) >= _SHORTEST_NAME and stem in _sequences(words):
            return True
        whole = "".join(words)
        if len(whole) >= _SHORTEST_NAME and whole in stem:
            return True
        telling = set(words) - _OF_NO_PACKAGE - self._own
        return any(len(word) >= _SHORTEST_WORD and word in stem for word in telling)

    def _has_name_of(self, package: str, library: str, parts: set[str]) -> bool:
        """Whether a package that code imports, and that is not required, has a library: it begins with its name."""
        whole = "".join(_words(package))
        return package.replace("-", "_") in parts or (len(whole) >= _SHORTEST_WORD and _stem(library).startswith(whole))

    def _list_imported(self) -> tuple[str, ...]:
        """Return what the wheel's code imports that neither it nor Python has, and that is not required."""
        if self._imported is None:
            own = {name.partition("/")[0].partition(".")[0] for name in self._wheel.names}
            unpack_code(self._wheel)
            found = imported_packages(self._wheel.folder) - own - sys.stdlib_module_names
            required = set(self._wheel.requires)
            self._imported = tuple(name for name in map(_normal, sorted(found)) if name not in required)
        return self._imported


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _words(package: str) -> list[str]:
    """Return the words of a package's name, letters only."""
    words = (re.sub(r"[^a-z]", "", word) for word in _normal(package).split("-"))
    return [word for word in words if word]


def _stem(library: str) -> str:
    """Return the letters of a library's name without "lib", its version and its end."""
    return re.sub(r"[^a-z]", "", re.sub(_END, "", library.lower()).removeprefix("lib"))


def _sequences(words: list[str]) -> Iterator[str]:
    """Yield the words that follow one another as one: "tvmffi" of apache-tvm-ffi."""
    for first in range(len(words)):
        for end in range(first + 1, len(words) + 1):
            yield "".join(words[first:end])
