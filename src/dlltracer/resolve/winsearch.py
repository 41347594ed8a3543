"""Finds the file that the Windows loader takes for one name that one image asks for.

The order of the rules is that of MS Learn "Dynamic-link library search order" ("Factors that affect searching"): API
sets, redirection, manifests, images already loaded, known DLLs, then the folders. Only the last two and the manifest
look at files; a redirection or a manifest is looked at before the loaded images, so that it can bring a second copy.
"""

from __future__ import annotations

import enum
import functools
import ntpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..knowledge import contract_stems, explain_not_system, system_names, usual_known_dlls
from ..model.events import Phase, Probe
from ..model.loader_context import FileKind, LoadFlags, WindowsContext
from ..model.pe import MACHINE_AMD64, MACHINE_ARM64, MACHINE_I386, AssemblyReference, PeImage
from ..model.tree import BindingState
from .lookup import Filesystem, LookupStep, TreeBuilder, TriedFile, try_file

_CONTRACT = re.compile(r"(?:api|ext)-[a-z0-9-]+-l\d+-\d+-\d+(?:\.dll)?", re.IGNORECASE | re.ASCII)


class ContractState(enum.Enum):
    """The state of a contract."""

    MAPPED = "mapped"
    """The map of that Windows names its host."""
    KNOWN = "known"
    """There is no map at hand; Windows has this contract (some versions may not)."""
    ABSENT = "absent"
    """The map of that Windows does not have it, or no host for it: the name is searched for as any other."""
    UNKNOWN = "unknown"
    """There is no map at hand, and the bundled table does not have it."""


@dataclass(frozen=True)
class Contract:
    """The entry of a contract; `host` is a base name, lower case, if it is MAPPED."""

    state: ContractState
    host: str | None = None


def is_contract(name: str) -> bool:
    """Return whether the name is built as a contract's (any case): api-...-lN-N-N or ext-...-lN-N-N, with or without
    ".dll".

    The loader itself looks at the first four characters only, and then into its map.
    """
    return _CONTRACT.fullmatch(name) is not None


def is_optional_contract(name: str) -> bool:
    """Return whether a program must expect that the contract is not there: ext-*."""
    return name.lower().startswith("ext-")


def contract_stem(name: str) -> str:
    """The part of a contract's name that counts, lower case: without ".dll" and the last number.

    >>> contract_stem("api-ms-win-core-file-L1-2-4.dll")
    'api-ms-win-core-file-l1-2'
    """
    return name.lower().removesuffix(".dll").rpartition("-")[0]


def look_up_contract(name: str, importer: str, context: WindowsContext) -> Contract:
    """Return the entry of the context's map for the contract `name`, asked for by the image with base name `importer`.

    Without a map, what the bundled table says.
    """
    stem = contract_stem(name)
    if context.api_sets is None:
        return Contract(ContractState.KNOWN if stem in contract_stems() else ContractState.UNKNOWN)
    entry = context.api_sets.get(stem)
    host = entry.host_for(importer) if entry else ""
    return Contract(ContractState.MAPPED, host) if host else Contract(ContractState.ABSENT)


@dataclass(frozen=True)
class PeRequester:
    """The image that asks: its path and, as far as known, what is in it. A program's own call has "" and `None`."""

    path: str
    image: PeImage | None = None


@dataclass(frozen=True)
class Lookup:
    """The result for a name; the words are those of `Binding`. `image` is set if this newly maps a file."""

    state: BindingState
    path: str | None = None
    phase: Phase | None = None
    probes: tuple[Probe, ...] = ()
    reason: str | None = None
    image: PeImage | None = None


class WindowsSearchMemo:
    """Remembers in which folders many loads found nothing, for walks that keep no probes of absent files.

    Most loads of an environment look for the same names in the same folders. Files are taken not to change meanwhile.

    Attributes:
        orders: the folders of a search, and what is taken for present in them, to a number of that order.
        starts: that number and a name (lower case) to how many of the folders come before anything is there.
    """

    def __init__(self) -> None:
        self.orders: dict[tuple[object, ...], int] = {}
        self.starts: dict[tuple[int, str], int] = {}


class Finder:
    """Finds names in one process, and remembers what has been mapped.

    Args:
        context: the process.
        files: its files.
        tree: counts the places that are looked at.
        memo: of other loads with the same files; what is found then has no probes of absent files.
    """

    def __init__(
        self, context: WindowsContext, files: Filesystem, tree: TreeBuilder, memo: WindowsSearchMemo | None = None
    ) -> None:  # fmt: skip
        self._context = context
        self._memo = memo
        self._orders: dict[SearchKind, tuple[tuple[SearchFolder, ...], int]] = {}
        self._tree = tree
        self._files = files
        self._names = context.first_loaded()
        self._paths = {ntpath.normcase(path): path for path in reversed(context.loaded)}
        self._identities: dict[tuple[int, int], str] | None = None
        known = context.known_dlls
        self._known = usual_known_dlls() if known is None else known
        self.notes: list[str] = []
        """What could not be decided."""

    def find(self, need: str, requester: PeRequester, search: SearchKind) -> Lookup:
        """Return the result for `need` (a name or a path, with or without ".dll"), and map the file if that is new."""
        name = complete_name(need)
        if "\\" in name or ":" in name:  # nearly no need has a folder
            if ntpath.splitdrive(name)[0] or name.startswith("\\"):
                return self._take_path(ntpath.normpath(name))
            if "\\" in name:
                return self._search(name, search)
        if not is_contract(name):
            return self._find_file(name, requester, search)
        contract = look_up_contract(name, ntpath.basename(requester.path), self._context)
        if contract.host is not None:
            return self._take_host(contract.host)
        found = self._find_file(name, requester, search)
        if found.state is not BindingState.MISSING:
            return found
        return self._judge_contract(found, name, contract.state)

    def _find_file(self, name: str, requester: PeRequester, search: SearchKind) -> Lookup:
        first = self._redirected(name) or self._by_manifest(name, requester)
        if first is not None:
            return first
        loaded = self._names.get(name.lower())
        if loaded is not None:
            return Lookup(BindingState.BOUND, loaded, Phase.LOADED)
        if name.lower() in self._known:
            found = self._at_system(name, Phase.KNOWN_DLL)
            if found.state is not BindingState.MISSING:
                return found
        return self._search(name, search)

    def _take_path(self, path: str) -> Lookup:
        redirected = self._redirected(ntpath.basename(path))
        if redirected is not None:
            return redirected
        loaded = self._paths.get(ntpath.normcase(path))
        if loaded is not None:
            return Lookup(BindingState.BOUND, loaded, Phase.LOADED)
        return self._try_one(path, Phase.DIRECT)

    def _take_host(self, host: str) -> Lookup:
        loaded = self._names.get(host)
        if loaded is not None:
            return Lookup(BindingState.BOUND, loaded, Phase.API_SET)
        return self._at_system(host, Phase.API_SET)

    def _at_system(self, name: str, phase: Phase) -> Lookup:
        if not self._context.has_system_files:
            return Lookup(BindingState.SYSTEM, phase=phase)
        return self._try_one(ntpath.join(self._context.system_folder, name), phase)

    def _judge_contract(self, found: Lookup, name: str, state: ContractState) -> Lookup:
        """A contract that is no file either: missing only where the whole map is known, and never if optional."""
        if is_optional_contract(name):
            reason: str | None = "an optional contract, which programs expect to be absent"
        elif state is ContractState.ABSENT:
            return replace(found, reason="a contract that this Windows does not have")
        elif state is ContractState.KNOWN:
            reason = found.reason
        else:
            reason = "a contract that is not in the bundled table: whether a Windows has it is not known"
        return Lookup(BindingState.SYSTEM, found.path, Phase.API_SET, found.probes, reason, found.image)

    def _redirected(self, name: str) -> Lookup | None:
        """PROGRAM.local: a folder holds the files, a file means the application folder. Not for known DLLs."""
        redirection = self._context.redirection
        if redirection is None or name.lower() in self._known:
            return None
        kind = self._files.kind(redirection)
        folder = redirection if kind is FileKind.FOLDER else self._context.application_folder
        return None if kind is FileKind.ABSENT else self._take_if_there(folder, name, Phase.REDIRECTION, redirection)

    def _by_manifest(self, name: str, requester: PeRequester) -> Lookup | None:
        resources = requester.image.resources if requester.image else None
        own = resources.assemblies if resources else ()
        if not own and not self._context.assemblies:  # mostly
            return None
        for references, beside, origin in (
            (own, ntpath.dirname(requester.path), requester.path),
            (self._context.assemblies, self._context.application_folder, self._context.application_folder),
        ):
            for reference in references:
                for folder in assembly_folders(reference, beside, self._context):
                    found = self._take_if_there(folder, name, Phase.MANIFEST, origin)
                    if found is not None:
                        return found
        return None

    def _take_if_there(self, folder: str, name: str, phase: Phase, origin: str) -> Lookup | None:
        path = ntpath.join(folder, name)
        if self._files.kind(path) is FileKind.ABSENT:
            return None
        return self._conclude([try_file(path, phase, self._files, self._context, origin)], name)

    def _search(self, name: str, search: SearchKind) -> Lookup:
        tried: list[TriedFile] = []
        for place in self._places_with(name, search):
            given = self._given(name, place)
            if given is not None:
                return replace(given, probes=tuple(t.probe for t in tried)) if tried else given
            if place.phase in (Phase.SYSTEM, Phase.WINDOWS) and not self._context.has_system_files:
                continue
            self._tree.places_left -= 1
            tried.append(try_file(_join(place.folder, name), place.phase, self._files, self._context))
            if tried[-1].step is not LookupStep.NEXT_PLACE:
                self._note_others(name, place)
                break
        return self._conclude(tried, name)

    def _places_with(self, name: str, search: SearchKind) -> Sequence[SearchFolder]:
        """Return the folders to look in, in order; with a memo, those from the first on that has anything."""
        if search not in self._orders:
            places = search_places(search, self._context)
            number = 0
            if self._memo is not None:
                order = (*places, self._context.provided, self._context.has_system_files)
                number = self._memo.orders.setdefault(order, len(self._memo.orders))
            self._orders[search] = places, number
        places, number = self._orders[search]
        if self._memo is None:
            return places
        key = number, name.lower()
        start = self._memo.starts.get(key)
        if start is None:
            start = next((at for at, place in enumerate(places) if self._has(name, place)), len(places))
            self._memo.starts[key] = start
        return places[start:]

    def _has(self, name: str, place: SearchFolder) -> bool:
        """Return whether a search may end at a folder."""
        if self._given(name, place) is not None:
            return True
        if place.phase in (Phase.SYSTEM, Phase.WINDOWS) and not self._context.has_system_files:
            return False
        return self._files.kind(_join(place.folder, name)) is not FileKind.ABSENT

    def _note_others(self, name: str, taken: SearchFolder) -> None:
        """Windows does not say in which order it searches the added folders: say so where that decides."""
        folders = self._context.added_folders
        if taken.phase is not Phase.ADDED or taken.folder not in folders:
            return
        rest = folders[folders.index(taken.folder) + 1 :]
        paths = [ntpath.join(folder, name) for folder in rest]
        others = [path for path in paths if self._files.kind(path) is FileKind.FILE]
        if others:
            first = ntpath.join(taken.folder, name)
            self.notes.append(f"{first} is taken; as well it may be {', '.join(others)}: the order is not specified")

    def _given(self, name: str, place: SearchFolder) -> Lookup | None:
        """Return the lookup of a DLL that counts as present in a folder that cannot be read; `None` for any other
        DLL."""
        if place.phase is Phase.APPLICATION and name.lower() in self._context.provided:
            reason = "comes with Python"
            return Lookup(BindingState.SYSTEM, phase=place.phase, reason=reason)
        if place.phase is Phase.SYSTEM and not self._context.has_system_files and name.lower() in system_names():
            return Lookup(BindingState.SYSTEM, phase=place.phase)
        return None

    def _try_one(self, path: str, phase: Phase) -> Lookup:
        self._tree.places_left -= 1
        return self._conclude([try_file(path, phase, self._files, self._context)], ntpath.basename(path))

    def _conclude(self, tried: list[TriedFile], name: str) -> Lookup:
        probes = tuple(t.probe for t in tried)
        last = tried[-1] if tried else None
        if last is not None and last.step is LookupStep.TAKE and last.image is not None:
            return self._map(last.probe, last.image, probes)
        present = [t.probe for t in tried if t.probe.reason is not None]
        if present:
            refused = present[0]
            return Lookup(BindingState.REFUSED, refused.path, refused.phase, probes, refused.reason)
        return Lookup(BindingState.MISSING, probes=probes, reason=explain_not_system(name.lower()))

    def _map(self, probe: Probe, image: PeImage, probes: tuple[Probe, ...]) -> Lookup:
        known = self._known_path(probe.path)
        path = known or probe.path
        # The first of a name stays: a second file of that name is mapped, and nobody finds it by name.
        name, whole = _keys_of(path)
        self._names.setdefault(name, path)
        self._paths.setdefault(whole, path)
        return Lookup(BindingState.BOUND, path, probe.phase, probes, image=None if known else image)

    def _known_path(self, path: str) -> str | None:
        """The path under which that file is in the process already, and remember it if it is not."""
        loaded = self._paths.get(_keys_of(path)[1])
        if loaded is not None:
            return loaded
        if self._identities is None:
            pairs = ((self._files.identity(each), each) for each in reversed(self._context.loaded))
            self._identities = {identity: each for identity, each in pairs if identity is not None}
        identity = self._files.identity(path)
        if identity is None:
            return None
        known = self._identities.setdefault(identity, path)
        return None if known == path else known


@functools.lru_cache(maxsize=4096)
def _keys_of(path: str) -> tuple[str, str]:
    """Return the name of a file and its whole path as they are compared; the loads of a wheel ask for the same ones."""
    return ntpath.basename(path).lower(), ntpath.normcase(path)


def _join(folder: str, name: str) -> str:
    """Return a name in a folder; what `ntpath.join` does, which is asked for the rare forms of folders."""
    return f"{folder}\\{name}" if folder[-1:] not in ("", "\\", "/", ":") else ntpath.join(folder, name)


def complete_name(need: str) -> str:
    """The name that is looked for: "\\" for "/", no spaces at its end, ".dll" if there is no dot in its last part.

    A dot at the end says that there is no extension, and is not part of the name (LoadLibraryExW).
    """
    name = need.rstrip(" ").replace("/", "\\")
    last = ntpath.basename(name) if "\\" in name or ":" in name else name
    if last.endswith("."):
        return name[:-1]
    return name if "." in last else f"{name}.dll"


_CHOOSING = (
    LoadFlags.DLL_LOAD_DIR | LoadFlags.APPLICATION_DIR | LoadFlags.USER_DIRS | LoadFlags.SYSTEM32
    | LoadFlags.DEFAULT_DIRS
)  # fmt: skip
_PROCESSORS = {MACHINE_I386: "x86", MACHINE_AMD64: "amd64", MACHINE_ARM64: "arm64"}


@dataclass(frozen=True)
class SearchKind:
    """The search order for one image's imports.

    Attributes:
        flags: of the call, or of the image (DependentLoadFlags).
        load_folder: the folder of the image that was asked for, by its whole path; `None` if it was asked for by name.
    """

    flags: LoadFlags
    load_folder: str | None


@dataclass(frozen=True)
class SearchFolder:
    """A folder, and the rule that led there."""

    folder: str
    phase: Phase


def search_places(search: SearchKind, context: WindowsContext) -> tuple[SearchFolder, ...]:
    """The folders in order; those that cannot be known (a current folder of `None`) are left out.

    With any LOAD_LIBRARY_SEARCH flag: the load folder, the application's, the added ones and SetDllDirectory's,
    System32. PATH, the Windows folder and the current folder are then not searched.
    """
    chosen = _chosen(search, context) if search.flags & _CHOOSING else _standard(search, context)
    return tuple(place for place in chosen if place.folder)


def _chosen(search: SearchKind, context: WindowsContext) -> Iterator[SearchFolder]:
    flags = search.flags
    if flags & LoadFlags.DEFAULT_DIRS:
        flags |= LoadFlags.APPLICATION_DIR | LoadFlags.USER_DIRS | LoadFlags.SYSTEM32
    if flags & LoadFlags.DLL_LOAD_DIR and search.load_folder:
        yield SearchFolder(search.load_folder, Phase.IMAGE_FOLDER)
    if flags & LoadFlags.APPLICATION_DIR:
        yield SearchFolder(context.application_folder, Phase.APPLICATION)
    if flags & LoadFlags.USER_DIRS:
        for folder in (*context.added_folders, context.dll_directory or ""):
            yield SearchFolder(folder, Phase.ADDED)
    if flags & LoadFlags.SYSTEM32:
        yield SearchFolder(context.system_folder, Phase.SYSTEM)


def _standard(search: SearchKind, context: WindowsContext) -> Iterator[SearchFolder]:
    if search.flags & LoadFlags.ALTERED_SEARCH_PATH and search.load_folder:
        yield SearchFolder(search.load_folder, Phase.IMAGE_FOLDER)
    else:
        yield SearchFolder(context.application_folder, Phase.APPLICATION)
    # SetDllDirectory takes the current folder out of the order, and so does the flag, as far as we can know.
    current = context.current_folder or ""
    if context.dll_directory or search.flags & LoadFlags.SAFE_CURRENT_DIRS:
        current = ""
    if context.dll_directory:
        yield SearchFolder(context.dll_directory, Phase.ADDED)
    if not context.safe_search:
        yield SearchFolder(current, Phase.CURRENT)
    yield SearchFolder(context.system_folder, Phase.SYSTEM)
    yield SearchFolder(ntpath.join(context.windows_folder, "System"), Phase.WINDOWS)
    yield SearchFolder(context.windows_folder, Phase.WINDOWS)
    if context.safe_search:
        yield SearchFolder(current, Phase.CURRENT)
    for folder in context.path:
        yield SearchFolder(folder, Phase.PATH)


def assembly_folders(reference: AssemblyReference, beside: str, context: WindowsContext) -> Iterator[str]:
    """Return the folders that may have a file of the assembly, in the order in which Windows looks.

    The shared ones of WinSxS come first, the newest that has the same major and minor version (Windows' publisher
    policies lead there); then the private ones.

    Args:
        reference: what the manifest asks for.
        beside: folder of the image or program whose manifest it is.
        context: knows the names in WinSxS, and the machine.
    """
    matches = []
    for name in context.assembly_folders:
        version = _version_of(name, reference, context.machine)
        if version is not None:
            matches.append((version, name))
    for _, name in sorted(matches, reverse=True):
        yield ntpath.join(context.windows_folder, "WinSxS", name)
    yield ntpath.join(beside, reference.name)


def _version_of(folder: str, reference: AssemblyReference, machine: int) -> tuple[int, ...] | None:
    """Version in a name such as amd64_microsoft.vc90.crt_1fc8b3b9a1e18e3b_9.0.30729.9635_none_08e2c157a83ed5da.

    `None` if the folder is no assembly that the reference accepts.
    """
    parts = folder.lower().split("_")
    if len(parts) < 6:
        return None
    processor, name, token, version = parts[0], "_".join(parts[1:-4]), parts[-4], parts[-3]
    wanted = (reference.processor or "*").lower()
    processors = {_PROCESSORS.get(machine, "")} if wanted == "*" else {wanted}
    if processor not in processors or name != reference.name.lower():
        return None
    if token != (reference.public_key_token or token).lower():
        return None
    found, asked = _numbers(version), _numbers(reference.version or version)
    return found if found and asked and found[:2] == asked[:2] and found >= asked else None


def _numbers(version: str) -> tuple[int, ...] | None:
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() and len(part) < 10 for part in parts) else None
