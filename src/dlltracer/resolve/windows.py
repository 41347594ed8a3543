"""What the Windows loader would do with a file: every image it would map, every import and what became of it.

Pure: files come from a `Filesystem`, all else from a `WindowsContext`, so it runs on any system.

Documented (MS Learn): the order of the rules and of the folders, the flags, DEPENDENTLOADFLAG for the static imports of
the image that has it and of no other, the first of a base name wins, a delayed import is a LoadLibraryEx(name, 0, 0) of
the compiler's helper. Seen in Wine 8 only: a file for another machine is passed over, one that is no image ends the
search, dependencies are mapped depth first (Windows 10 maps some in parallel). Assumed: DLL_LOAD_DIR in a
DEPENDENTLOADFLAG means the folder of that image. Not modelled: Windows 11's package dependency graph, application
policies, what other programs inject.
"""

from __future__ import annotations

import ntpath
from collections import deque
from dataclasses import dataclass

from ..model.events import Phase
from ..model.loader_context import STANDARD_SEARCH, LoadFlags
from ..model.pe import PeImage, PeImport, PeSymbol, list_forwarders
from ..model.tree import Binding, BindingState, LoadTree
from .lookup import TreeBuilder
from .winplaces import SearchKind
from .winsearch import Finder, Lookup, PeRequester, complete_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..model.loader_context import WindowsContext
    from ..model.pe import PeExport
    from .lookup import Filesystem


def resolve_windows(path: str, context: WindowsContext, files: Filesystem) -> LoadTree:
    """Work out the whole load of `path`, without running anything.

    Everything missing is found at once; the real loader reports the first. Libraries that forwarded symbols lead to are
    found if `files` reads images with their symbols.

    Args:
        path: a Windows path; or a bare name, which is searched for as LoadLibraryExW would.
        context: the process and the call.
        files: the files of that Windows, by Windows paths (`host.filesystem.WindowsFiles`).

    Returns:
        The tree; `images` has what the load maps, depth first as the imports are met. What delayed imports would bring
        later is in `bindings` only, at their end, `delayed` down to the last leaf.
    """
    return _WindowsWalk(context, files).follow(path)


@dataclass
class _Frame:
    """An image whose needs are being met, and how they are searched for."""

    requester: PeRequester
    needs: deque[tuple[str, PeImport]]
    search: SearchKind


class _WindowsWalk:
    def __init__(self, context: WindowsContext, files: Filesystem) -> None:
        self._context = context
        self._tree = TreeBuilder()
        self._finder = Finder(context, files, self._tree)
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
