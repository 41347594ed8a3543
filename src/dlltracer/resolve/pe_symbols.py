"""Which imported symbols the bound images do not have.

Source: MS Learn "PE Format" (Import Name Table, Export Address Table). A name or an ordinal that the library does not
export fails the load (error 127) although every file is there. Pure.
"""

from __future__ import annotations

from functools import cached_property

from ..model.pe import MissingForwarder, PeSymbol
from ..model.tree import BindingState, MissingSymbol
from .nearest import MAX_NEAREST, Nearest
from .windows import parse_forwarder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..model.elf import ElfImage
    from ..model.pe import PeExport, PeImage
    from ..model.tree import Binding


MAX_FORWARDS = 16
"""Forwarders that one symbol is followed through; Windows' own need three."""


def find_missing_imports(
    bindings: Iterable[Binding], images: Mapping[str, PeImage | ElfImage]
) -> tuple[MissingSymbol | MissingForwarder, ...]:
    """Compare what images import with what the images they are bound to export. Delayed imports are left out.

    Args:
        bindings: as of `LoadTree`; among them those for the libraries that forwarders name (`requested_by`: the image
            that has the forwarder).
        images: path to image, read with symbols. What an image that is not here exports is unknown, so nothing is
            said about symbols expected of it; nor about forwarders for which there is no binding.

    Returns:
        In the order of the bindings, each symbol once for each image that asks for it.
    """
    return tuple(_Check(bindings, images).find())


class _Exports:
    """What an image exports, to be asked."""

    def __init__(self, exports: tuple[PeExport, ...]) -> None:
        self._by_name = {export.name: export for export in exports if export.name is not None}
        self._by_ordinal = {export.ordinal: export for export in exports}

    def get(self, symbol: PeSymbol) -> PeExport | None:
        if symbol.name is not None:
            return self._by_name.get(symbol.name)
        return self._by_ordinal.get(symbol.ordinal) if symbol.ordinal is not None else None

    @cached_property
    def nearest(self) -> Nearest:
        """The names, to be asked for those that look like another."""
        return Nearest(self._by_name)


class _Check:
    def __init__(self, bindings: Iterable[Binding], images: Mapping[str, PeImage | ElfImage]) -> None:
        self._images = images
        self._bindings: dict[tuple[str, str], Binding] = {}
        for binding in bindings:
            # A delayed load may be bound in another way: what the load itself does goes first.
            key = binding.requested_by, binding.need.lower()
            if key not in self._bindings or (self._bindings[key].delayed and not binding.delayed):
                self._bindings[key] = binding
        self._exports: dict[str, _Exports | None] = {}
        self._guesses = MAX_NEAREST

    def find(self) -> Iterator[MissingSymbol | MissingForwarder]:
        for (requested_by, need), binding in self._bindings.items():
            exports = self._exports_of(binding.path) if binding.state is BindingState.BOUND else None
            if exports is None or binding.path is None or binding.delayed:
                continue
            for library, symbol in self._imports(requested_by, need):
                missing = self._check(symbol, requested_by, library, binding.path, exports)
                if missing is not None:
                    yield missing

    def _imports(self, path: str, library: str) -> dict[tuple[str, PeSymbol], None]:
        """Library and symbol of what the image imports from a library (in small letters), each once."""
        found: dict[tuple[str, PeSymbol], None] = {}
        for need in getattr(self._images.get(path), "imports", ()):
            if not need.delayed and need.library.lower() == library:
                found.update(dict.fromkeys((need.library, symbol) for symbol in need.symbols or ()))
        return found

    def _exports_of(self, path: str | None) -> _Exports | None:
        """What the image at the path exports; `None` if that is not known."""
        if path is None:
            return None
        if path not in self._exports:
            exports = getattr(self._images.get(path), "exports", None)
            self._exports[path] = None if exports is None else _Exports(exports)
        return self._exports[path]

    def _check(
        self, symbol: PeSymbol, requested_by: str, library: str, path: str, exports: _Exports
    ) -> MissingSymbol | MissingForwarder | None:
        export = exports.get(symbol)
        if export is None:
            nearest: tuple[str, ...] = ()
            if symbol.name is not None and self._guesses:
                self._guesses -= 1
                nearest = exports.nearest.to(symbol.name)
            name = symbol.name or ""
            return MissingSymbol(name, None, requested_by, library, nearest=nearest, ordinal=symbol.ordinal)
        return self._follow(symbol, requested_by, path, export)

    def _follow(self, symbol: PeSymbol, requested_by: str, path: str, export: PeExport) -> MissingForwarder | None:
        """Follow an export through its forwarders; `None` when it ends at code, or where nothing is known."""
        at, forwarder = path, export.forwarder
        target = ""
        for _ in range(MAX_FORWARDS):
            if forwarder is None:
                return None
            exporter, target = at, forwarder
            library, wanted = parse_forwarder(forwarder)
            binding = self._bindings.get((exporter, library.lower()))
            if binding is None or binding.state is BindingState.SYSTEM:
                return None
            if binding.state is not BindingState.BOUND or binding.path is None:
                return MissingForwarder(symbol, requested_by, exporter, target)
            exports = self._exports_of(binding.path)
            if exports is None:
                return None
            found = exports.get(wanted)
            if found is None:
                return MissingForwarder(symbol, requested_by, exporter, target, binding.path)
            at, forwarder = binding.path, found.forwarder
        return MissingForwarder(symbol, requested_by, path, target, at)
