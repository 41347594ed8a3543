"""The folders that the Windows loader searches, in order, for one call, and those of side-by-side assemblies.

Source: MS Learn "Dynamic-link library search order" (standard order for unpackaged apps; order with
LOAD_LIBRARY_SEARCH flags), "LoadLibraryExW", "SetDllDirectoryW"; for assemblies "Assembly Searching Sequence",
"Assembly manifests" and "Publisher configuration". Left out of these: the files that an assembly's own manifest lists
(a file in its folder is taken for listed), languages, configuration files.
"""

from __future__ import annotations

import ntpath
from collections.abc import Iterator
from dataclasses import dataclass

from ..model.events import Phase
from ..model.loader_context import LoadFlags, WindowsContext
from ..model.pe import MACHINE_AMD64, MACHINE_ARM64, MACHINE_I386, AssemblyReference

_CHOOSING = (
    LoadFlags.DLL_LOAD_DIR | LoadFlags.APPLICATION_DIR | LoadFlags.USER_DIRS | LoadFlags.SYSTEM32
    | LoadFlags.DEFAULT_DIRS
)  # fmt: skip
_PROCESSORS = {MACHINE_I386: "x86", MACHINE_AMD64: "amd64", MACHINE_ARM64: "arm64"}


@dataclass(frozen=True)
class SearchKind:
    """How one image's imports are looked for.

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
    """Where a file of the assembly may be, in the order in which Windows looks.

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
