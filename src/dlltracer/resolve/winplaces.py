"""The folders that the Windows loader searches, in order, for one call.

Source: MS Learn "Dynamic-link library search order" (standard order for unpackaged apps; order with
LOAD_LIBRARY_SEARCH flags), "LoadLibraryExW", "SetDllDirectoryW".
"""

from __future__ import annotations

import ntpath
from collections.abc import Iterator
from dataclasses import dataclass

from ..model.probe import Phase
from ..model.windows_context import LoadFlags, WindowsContext

_CHOOSING = (
    LoadFlags.DLL_LOAD_DIR | LoadFlags.APPLICATION_DIR | LoadFlags.USER_DIRS | LoadFlags.SYSTEM32
    | LoadFlags.DEFAULT_DIRS
)  # fmt: skip


@dataclass(frozen=True)
class Search:
    """How one image's imports are looked for.

    Attributes:
        flags: of the call, or of the image (DependentLoadFlags).
        load_folder: the folder of the image that was asked for, by its whole path; `None` if it was asked for by name.
    """

    flags: LoadFlags
    load_folder: str | None


@dataclass(frozen=True)
class Place:
    """A folder, and the rule that led there."""

    folder: str
    phase: Phase


def search_places(search: Search, context: WindowsContext) -> tuple[Place, ...]:
    """The folders in order; those that cannot be known (a current folder of `None`) are left out.

    With any LOAD_LIBRARY_SEARCH flag: the load folder, the application's, the added ones and SetDllDirectory's,
    System32. PATH, the Windows folder and the current folder are then not searched.
    """
    chosen = _chosen(search, context) if search.flags & _CHOOSING else _standard(search, context)
    return tuple(place for place in chosen if place.folder)


def _chosen(search: Search, context: WindowsContext) -> Iterator[Place]:
    flags = search.flags
    if flags & LoadFlags.DEFAULT_DIRS:
        flags |= LoadFlags.APPLICATION_DIR | LoadFlags.USER_DIRS | LoadFlags.SYSTEM32
    if flags & LoadFlags.DLL_LOAD_DIR and search.load_folder:
        yield Place(search.load_folder, Phase.IMAGE_FOLDER)
    if flags & LoadFlags.APPLICATION_DIR:
        yield Place(context.application_folder, Phase.APPLICATION)
    if flags & LoadFlags.USER_DIRS:
        for folder in (*context.added_folders, context.dll_directory or ""):
            yield Place(folder, Phase.ADDED)
    if flags & LoadFlags.SYSTEM32:
        yield Place(context.system_folder, Phase.SYSTEM)


def _standard(search: Search, context: WindowsContext) -> Iterator[Place]:
    if search.flags & LoadFlags.ALTERED_SEARCH_PATH and search.load_folder:
        yield Place(search.load_folder, Phase.IMAGE_FOLDER)
    else:
        yield Place(context.application_folder, Phase.APPLICATION)
    # SetDllDirectory takes the current folder out of the order, and so does the flag, as far as we can know.
    current = context.current_folder or ""
    if context.dll_directory or search.flags & LoadFlags.SAFE_CURRENT_DIRS:
        current = ""
    if context.dll_directory:
        yield Place(context.dll_directory, Phase.ADDED)
    if not context.safe_search:
        yield Place(current, Phase.CURRENT)
    yield Place(context.system_folder, Phase.SYSTEM)
    yield Place(ntpath.join(context.windows_folder, "System"), Phase.WINDOWS)
    yield Place(context.windows_folder, Phase.WINDOWS)
    if context.safe_search:
        yield Place(current, Phase.CURRENT)
    for folder in context.path:
        yield Place(folder, Phase.PATH)
