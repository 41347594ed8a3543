"""Which other package a wheel expects a library from: one that it requires, or that its code imports."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from ..host.package_code import imported_packages
from ..host.wheel import Wheel, unpack_code

_SHORTEST_NAME = 3
_SHORTEST_WORD = 4
_OF_NO_PACKAGE = {"python", "core", "common", "runtime", "tools", "base", "extensions", "stubs", "client", "headers"}
"""Words in names of packages that say nothing of what they have."""
_END = r"\.(?:so|dll|dylib|framework|abi3|cpython)\b.*$|\.\d.*$"


class Suppliers:
    """The packages that may bring what a wheel lacks.

    Argument: `wheel`, opened.
    """

    def __init__(self, wheel: Wheel) -> None:
        self._wheel = wheel
        self._candidates: tuple[str, ...] | None = None

    def find(self, library: str, folders: Iterable[str] = ()) -> str | None:
        """Return the package that has such a library by its name, or by a folder in which the loader looks for it.

        Arguments: `library`, a file name; `folders`, where it is looked for, as the file says and from the top.
        """
        if self._wheel.others:
            return self._wheel.others
        places = ":".join(f"/{folder}" for folder in folders).lower()
        for package in self._packages():
            words = re.sub(r"[^a-z]", "", package)
            has_folder = len(words) >= _SHORTEST_NAME and f"/{package.replace('-', '_')}" in places
            if has_folder or _is_named_after(package, library):
                return package
            if package.startswith("nvidia-") and "/nvidia/" in places:
                return package
        return None

    def family(self) -> str:
        """Return the required packages whose names begin as the wheel's does, with which it shares folders; "" if none.

        Several wheels may fill one folder: PyQt6 and PyQt6-Qt6, PySide6-Addons and PySide6-Essentials.
        """
        own = _normal(self._wheel.name.split("-")[0]).partition("-")[0]
        if len(own) < _SHORTEST_NAME:
            return ""
        return " or ".join(one for one in self._wheel.requires if one.split("-")[0] == own)

    def _packages(self) -> tuple[str, ...]:
        """Return what the wheel requires, and what its code imports that neither it nor Python has."""
        if self._candidates is None:
            own = {name.partition("/")[0].partition(".")[0] for name in self._wheel.names}
            unpack_code(self._wheel)
            found = imported_packages(self._wheel.folder) - own - sys.stdlib_module_names
            imported = (_normal(name) for name in sorted(found))
            self._candidates = tuple(dict.fromkeys((*self._wheel.requires, *imported)))
        return self._candidates


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_named_after(package: str, library: str) -> bool:
    """Whether a library's name has a package's in it, or a word of it, or the reverse."""
    stem = re.sub(r"[^a-z]", "", re.sub(_END, "", library.lower()).removeprefix("lib"))
    whole = re.sub(r"[^a-z]", "", package)
    if len(whole) >= _SHORTEST_NAME and (whole in stem or (len(stem) >= _SHORTEST_NAME and stem in whole)):
        return True
    words = {re.sub(r"[^a-z]", "", word) for word in package.split("-")} - _OF_NO_PACKAGE
    return any(len(word) >= _SHORTEST_WORD and word in stem for word in words)
