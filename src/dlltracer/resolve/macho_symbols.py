"""Which symbols the images of a Mach-O tree need of one another, and do not have.

Sources: "Two-level namespace" of ld(1); <mach-o/nlist.h>; Loader::resolveSymbol of dyld.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..model.macho import MachoImage, NeedKind
from ..model.tree import Binding, BindingState, MissingSymbol
from .symbols import MAX_NEAREST, Nearest

_MOST_LIBRARIES = 100
"""Libraries that one may pass on the exports of."""


def find_missing_imports(
    images: Mapping[str, MachoImage], bindings: Iterable[Binding]
) -> tuple[MissingSymbol, ...]:
    """Return the symbols that an image expects of a library that was found, and that this library does not export.

    Args:
        images: path to image, with symbols.
        bindings: what became of their needs.

    A symbol of the "flat namespace" may come from any image of the process, the interpreter and the libraries of the
    system among them: those are not judged. Nor is what a library of the system should have.
    """
    search = _TwoLevelSearch(images, bindings)
    return tuple(missing for path in images for missing in search.find_missing(path))


class _TwoLevelSearch:
    """Looks for symbols in the libraries of a tree."""

    def __init__(self, images: Mapping[str, MachoImage], bindings: Iterable[Binding]) -> None:
        self._images = images
        self._found = {
            (binding.requested_by, binding.need): binding.path for binding in bindings
            if binding.state is BindingState.BOUND and binding.path is not None and binding.path in images
        }  # fmt: skip
        self._nearest: dict[str, Nearest] = {}
        self._guesses_left = MAX_NEAREST

    def find_missing(self, path: str) -> Iterator[MissingSymbol]:
        """Yield what the image at `path` lacks."""
        image = self._images[path]
        if image.symbols is None:
            return
        for wanted in image.symbols.imports:
            if not 0 < wanted.ordinal <= len(image.needs):
                continue
            need = image.needs[wanted.ordinal - 1]
            library = self._found.get((path, need.name))
            if library is None or need.kind is NeedKind.LAZY:
                continue
            reach, is_complete = self._reach(library)
            if is_complete and not any(wanted.name in self._exports(one) for one in reach):
                is_weak = wanted.weak or need.kind is NeedKind.WEAK
                nearest = self._guess(wanted.name, library)
                yield MissingSymbol(wanted.name, None, path, need.name, is_weak, nearest)

    def _guess(self, name: str, library: str) -> tuple[str, ...]:
        if not self._guesses_left:
            return ()
        self._guesses_left -= 1
        if library not in self._nearest:
            self._nearest[library] = Nearest(self._exports(library))
        return self._nearest[library].to(name)

    def _exports(self, path: str) -> Mapping[str, tuple[int, str] | None]:
        symbols = self._images[path].symbols
        return symbols.exports if symbols is not None else {}

    def _reach(self, library: str) -> tuple[list[str], bool]:
        """Return a library and those that it passes on (LC_REEXPORT_DYLIB), and whether all of these are known."""
        reach, is_complete = [library], True
        for path in reach:
            image = self._images[path]
            is_complete &= image.symbols is not None
            for need in image.needs:
                if need.kind is not NeedKind.REEXPORT:
                    continue
                passed_on = self._found.get((path, need.name))
                if passed_on is None or len(reach) >= _MOST_LIBRARIES:
                    is_complete = False
                elif passed_on not in reach:
                    reach.append(passed_on)
        return reach, is_complete
