"""Works out what the Windows loader would do with a file: every image it would map, every import and its outcome.

Pure: files come from a `Filesystem`, all else from a `WindowsContext`, so it runs on any system.

Documented (MS Learn): the order of the rules and of the folders; the flags; DEPENDENTLOADFLAG for the static imports of
the image that has it and of no other; the first of a base name wins; a delayed import is a LoadLibraryEx(name, 0, 0) of
the compiler's helper. Seen in Wine 8 only: a file for another machine is passed over; one that is no image ends the
search; dependencies are mapped depth first (Windows 10 maps some in parallel). Assumed: DLL_LOAD_DIR in a
DEPENDENTLOADFLAG means the folder of that image. Not modelled: Windows 11's package dependency graph, application
policies, what other programs inject.

Source of symbols: "PE Format" (Import Name Table, Export Address Table). Windows fails a load (error 127) for a name
or an ordinal that the library does not export, although every file is there.
"""

from __future__ import annotations

import ntpath
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..model.elf import ElfImage
from ..model.events import Phase
from ..model.loader_context import STANDARD_SEARCH, LoadFlags, WindowsContext
from ..model.macho import MachoImage
from ..model.pe import MissingForwarder, PeExport, PeExports, PeImage, PeImport, PeSymbol, PeSymbols, list_forwarders
from ..model.tree import Binding, BindingState, LoadTree, MissingSymbol
from .lookup import Filesystem, TreeBuilder
from .symbols import MAX_NEAREST, Nearest
from .winsearch import Finder, Lookup, PeRequester, SearchKind, WindowsSearchMemo, complete_name


def resolve_windows(
    path: str, context: WindowsContext, files: Filesystem, memo: WindowsSearchMemo | None = None
) -> LoadTree:  # fmt: skip
    """Work out the whole load of `path`, without running anything.

    Everything missing is found at once; the real loader reports the first. Libraries that forwarded symbols lead to are
    found if `files` reads images with their symbols.

    Args:
        path: a Windows path; or a bare name, which is searched for as LoadLibraryExW would.
        context: the process and the call.
        files: the files of that Windows, by Windows paths (`host.filesystem.WindowsFiles`).
        memo: of other loads with these files; bindings then have no probes of absent files.

    Returns:
        The tree; `images` has what the load maps, depth first as the imports are met. What delayed imports would bring
        later is in `bindings` only, at their end, `delayed` down to the last leaf.
    """
    return _WindowsWalk(context, files, memo).follow(path)


@dataclass
class _Frame:
    """An image whose needs are being met, and how they are searched for."""

    requester: PeRequester
    needs: deque[tuple[str, PeImport]]
    search: SearchKind


class _WindowsWalk:
    def __init__(self, context: WindowsContext, files: Filesystem, memo: WindowsSearchMemo | None) -> None:
        self._context = context
        self._tree = TreeBuilder()
        self._finder = Finder(context, files, self._tree, memo)
        self._mapped: dict[str, PeImage] = {}
        self._later: deque[tuple[str, PeImport]] = deque()
        self._forwarded: set[tuple[str, str, PeSymbol]] = set()
        self._forwarders: dict[str, dict[PeSymbol, PeExport]] = {}

    def follow(self, top: str) -> LoadTree:
        name = complete_name(top)
        if "\\" in name:
            name = ntpath.normpath(ntpath.join(self._context.current_folder or "", name))
        folder = ntpath.dirname(name) if ntpath.isabs(name) else None
        search = SearchKind(self._context.flags, folder)
        found = self._finder.find(name, PeRequester(""), search)
        notes = self._finder.notes
        if found.phase is not Phase.DIRECT or found.state is not BindingState.BOUND:
            self._tree.add(_bind(top, "", found))
        if found.image is not None and found.path is not None:
            self._descend(found.path, found.image, search, delayed=False)
            self._follow_delayed()
        elif found.state is BindingState.BOUND:
            notes.append(f"{found.path} is in the process already: nothing is loaded")
        return self._tree.build(found.path or top, notes)

    def _descend(self, path: str, image: PeImage, search: SearchKind, *, delayed: bool) -> None:
        """Meet the needs of an image just mapped, and of all that they map, depth first."""
        stack = [self._enter(path, image, search, delayed)]
        while stack:
            frame = stack[-1]
            if not frame.needs:
                stack.pop()
                continue
            requested_by, need = frame.needs.popleft()
            if self._tree.is_spent:
                self._tree.skip_need()
                continue
            requester = frame.requester
            if requested_by != requester.path:
                requester = PeRequester(requested_by, self._mapped.get(requested_by))
            found = self._finder.find(need.library, requester, frame.search)
            self._tree.add(_bind(need.library, requested_by, found, delayed))
            if found.path is None or found.state is not BindingState.BOUND:
                continue
            if found.image is not None:
                stack.append(self._enter(found.path, found.image, search, delayed))
            frame.needs.extendleft(reversed(self._list_forwards(need, found.path)))

    def _enter(self, path: str, image: PeImage, search: SearchKind, delayed: bool) -> _Frame:
        self._mapped[path] = image
        if not delayed:
            self._tree.images[path] = image
        self._later.extend((path, need) for need in image.imports if need.delayed)
        needs = deque((path, need) for need in image.imports if not (need.delayed or need.unused))
        return _Frame(PeRequester(path, image), needs, self._own_search(path, image) or search)

    def _own_search(self, path: str, image: PeImage) -> SearchKind | None:
        """The search of an image with DependentLoadFlags, for its own needs only."""
        if not (self._context.honours_dependent_flags and image.dependent_load_flags):
            return None
        return SearchKind(LoadFlags(image.dependent_load_flags), ntpath.dirname(path))

    def _follow_delayed(self) -> None:
        """The delayed imports: each a LoadLibraryEx(name, 0, 0), which does not know the folder of its image."""
        while self._later:
            path, need = self._later.popleft()
            if self._tree.is_spent:
                self._tree.skip_need()
                continue
            image = self._mapped[path]
            search = self._own_search(path, image) or SearchKind(STANDARD_SEARCH, None)
            found = self._finder.find(need.library, PeRequester(path, image), search)
            self._tree.add(_bind(need.library, path, found, delayed=True))
            if found.image is not None and found.path is not None:
                self._descend(found.path, found.image, SearchKind(STANDARD_SEARCH, None), delayed=True)

    def _list_forwards(self, need: PeImport, path: str) -> list[tuple[str, PeImport]]:
        """The needs that arise where symbols imported from the image at `path` are forwarded, each once."""
        image = self._mapped.get(path)
        if image is None or not image.exports or not need.symbols:
            return []
        if path not in self._forwarders:
            self._forwarders[path] = _by_symbol(list_forwarders(image.exports))
        forwarders = self._forwarders[path]
        result = []
        for export in [forwarders[wanted] for wanted in need.symbols if wanted in forwarders] if forwarders else ():
            assert export.forwarder is not None
            library, symbol = parse_forwarder(export.forwarder)
            if library and (path, library, symbol) not in self._forwarded:
                self._forwarded.add((path, library, symbol))
                result.append((path, PeImport(library, (symbol,))))
        return result


def _by_symbol(forwarders: Iterable[PeExport]) -> dict[PeSymbol, PeExport]:
    """Forwarders by all that an import can ask for them by: the name, the ordinal."""
    found: dict[PeSymbol, PeExport] = {}
    for export in forwarders:
        found.setdefault(PeSymbol(None, export.ordinal), export)
        if export.name is not None:
            found.setdefault(PeSymbol(export.name), export)
    return found


def parse_forwarder(forwarder: str) -> tuple[str, PeSymbol]:
    """The library, with ".dll", and the symbol of a forwarder: "NTDLL.RtlAllocateHeap", "other.#12", "a.b.symbol".

    Source: MS Learn "PE Format", Export Address Table. The library of "" is malformed.
    """
    library, _, symbol = forwarder.rpartition(".")
    number = symbol[1:]
    if symbol.startswith("#") and number.isdecimal() and len(number) < 6:
        return complete_name(library) if library else "", PeSymbol(None, int(number))
    return complete_name(library) if library else "", PeSymbol(symbol)


def _bind(need: str, requested_by: str, found: Lookup, delayed: bool = False) -> Binding:
    return Binding(
        need, requested_by, found.state, found.path, found.phase, found.probes, delayed=delayed, reason=found.reason
    )


MAX_FORWARDS = 16
"""Forwarders that one symbol is followed through; Windows' own need three."""


def find_missing_imports(
    bindings: Iterable[Binding], images: Mapping[str, PeImage | ElfImage | MachoImage],
    known: KnownExports | None = None,
) -> tuple[MissingSymbol | MissingForwarder, ...]:
    """Compare what images import with what the images they are bound to export. Delayed imports are left out.

    Args:
        bindings: as of `LoadTree`; among them those for the libraries that forwarders name (`requested_by`: the image
            that has the forwarder).
        images: path to image, read with symbols. What an image that is not here exports is unknown, so nothing is
            reported about symbols expected of it; nor about forwarders for which there is no binding.
        known: of earlier calls with the same files, and this one adds to it; `None` for nothing.

    Returns:
        In the order of the bindings, each symbol once for each image that asks for it.
    """
    return tuple(_Check(bindings, images, known or KnownExports()).find())


class ImageExports:
    """The exports of an image, indexed for questions."""

    def __init__(self, exports: Sequence[PeExport]) -> None:
        if not isinstance(exports, PeExports):
            exports = PeExports(
                tuple(one.ordinal for one in exports), tuple(one.name for one in exports),
                tuple(one.forwarder for one in exports),
            )  # fmt: skip
        self._exports = exports
        # By columns: libraries export ten thousand symbols, and most questions are about all that one file imports.
        forwarders = list_forwarders(exports)
        self._own_names = frozenset(exports.names).difference(one.name for one in forwarders)
        self._own_ordinals = frozenset(exports.ordinals).difference(one.ordinal for one in forwarders)

    def has_all(self, symbols: Sequence[PeSymbol]) -> bool:
        """Return whether all symbols are exported, and none of them is forwarded."""
        if not isinstance(symbols, PeSymbols):
            symbols = PeSymbols(tuple(one.name for one in symbols), tuple(one.ordinal for one in symbols))
        if None not in symbols.names:
            return self._own_names.issuperset(symbols.names)
        by_ordinal = {number for name, number in zip(symbols.names, symbols.ordinals, strict=True) if name is None}
        by_name = (name for name in symbols.names if name is not None)
        return self._own_names.issuperset(by_name) and self._own_ordinals.issuperset(by_ordinal)

    def get(self, symbol: PeSymbol) -> PeExport | None:
        """Return the export that a symbol is bound to, by its name or else by its ordinal; `None` if there is none."""
        if symbol.name is not None:
            return self._by_name.get(symbol.name)
        return self._by_ordinal.get(symbol.ordinal) if symbol.ordinal is not None else None

    @cached_property
    def _by_name(self) -> dict[str, PeExport]:
        return {export.name: export for export in self._exports if export.name is not None}

    @cached_property
    def _by_ordinal(self) -> dict[int, PeExport]:
        return {export.ordinal: export for export in self._exports}

    @cached_property
    def nearest(self) -> Nearest:
        """The names, to be asked for those that look like another."""
        return Nearest(self._by_name)


class KnownExports:
    """The exports of images that many loads share.

    Attributes:
        tables: path of an image to what it exports; `None` where that is not known.
        sound: who needs which library that was found where: all that is imported is there, and nothing is forwarded.
    """

    def __init__(self) -> None:
        self.tables: dict[str, ImageExports | None] = {}
        self.sound: set[tuple[str, str, str]] = set()


class _Check:
    def __init__(
        self, bindings: Iterable[Binding], images: Mapping[str, PeImage | ElfImage | MachoImage], known: KnownExports
    ) -> None:  # fmt: skip
        self._images = images
        self._bindings: dict[tuple[str, str], Binding] = {}
        for binding in bindings:
            # A delayed load may be bound in another way: what the load itself does goes first.
            key = binding.requested_by, binding.need.lower()
            if key not in self._bindings or (self._bindings[key].delayed and not binding.delayed):
                self._bindings[key] = binding
        self._exports = known.tables
        self._sound = known.sound
        self._guesses = MAX_NEAREST
        self._forwards = 0

    def find(self) -> Iterator[MissingSymbol | MissingForwarder]:
        for (requested_by, need), binding in self._bindings.items():
            exports = self._exports_of(binding.path) if binding.state is BindingState.BOUND else None
            if exports is None or binding.path is None or binding.delayed:
                continue
            key = requested_by, need, binding.path
            if key in self._sound:
                continue
            asked = [imported.symbols for imported in self._imports_of(requested_by, need) if imported.symbols]
            if all(map(exports.has_all, asked)):
                self._sound.add(key)
                continue
            self._forwards = 0
            is_sound = True
            for library, symbol in self._imports(requested_by, need):
                missing = self._check(symbol, requested_by, library, binding.path, exports)
                if missing is not None:
                    is_sound = False
                    yield missing
            if is_sound and not self._forwards:
                self._sound.add(key)

    def _imports(self, path: str, library: str) -> dict[tuple[str, PeSymbol], None]:
        """Library and symbol of what the image imports from a library (in small letters), each once."""
        found: dict[tuple[str, PeSymbol], None] = {}
        for need in self._imports_of(path, library):
            found.update(dict.fromkeys((need.library, symbol) for symbol in need.symbols or ()))
        return found

    def _imports_of(self, path: str, library: str) -> list[PeImport]:
        """Return what the image imports from a library (in small letters), but for delayed imports."""
        imports = getattr(self._images.get(path), "imports", ())
        return [need for need in imports if not need.delayed and need.library.lower() == library]

    def _exports_of(self, path: str | None) -> ImageExports | None:
        """Return the exports of the image at the path; `None` if they are not known."""
        if path is None:
            return None
        if path not in self._exports and path in self._images:
            exports = getattr(self._images[path], "exports", None)
            self._exports[path] = None if exports is None else ImageExports(exports)
        return self._exports.get(path)

    def _check(
        self, symbol: PeSymbol, requested_by: str, library: str, path: str, exports: ImageExports
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
        self._forwards += forwarder is not None
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
