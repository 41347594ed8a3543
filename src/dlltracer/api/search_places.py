"""Where the loader of a traced process looked, short enough for a recording."""

from __future__ import annotations

import ntpath

from ..host.linux import read_linux_context
from ..host.machine import this_system
from ..model.events import ImageEvent
from ..model.failure import ProcessFacts, System
from ..model.linux_context import GlibcContext
from ..model.probe import Phase
from ..model.saved import ImageFacts, SearchPlaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model.recording import Recording

_MOST_NAMES = 2000


def read_places(process: ProcessFacts, recording: Recording, images: Sequence[ImageFacts]) -> SearchPlaces | None:
    """The places of that process' loader; `None` for a process of another system than this one."""
    if process.system is not this_system():
        return None
    if process.system is System.LINUX:
        return _linux_places(process, _names_of(recording, images))
    return _windows_places(process) if process.system is System.WINDOWS else None


def _names_of(recording: Recording, images: Sequence[ImageFacts]) -> frozenset[str]:
    """What the trace was asked for: of the thousands of entries of the cache only these matter."""
    events = [event for event in recording.events if isinstance(event, ImageEvent)]
    asked = {event.need for event in events if event.need} | {name for image in images for name in image.needs or ()}
    return frozenset(sorted(asked)[:_MOST_NAMES])


def _linux_places(process: ProcessFacts, names: frozenset[str]) -> SearchPlaces:
    context = read_linux_context(environment=process.loader_environment, program=process.executable or None)
    library_path = () if process.is_secure else context.library_path
    folders = [(Phase.ENVIRONMENT.value, folder) for folder in library_path]
    folders += [(Phase.SYSTEM.value, folder) for folder in context.system_folders]
    cache = context.cache if isinstance(context, GlibcContext) else ()
    return SearchPlaces(
        tuple(folders),
        tuple(dict.fromkeys((entry.soname, entry.path) for entry in cache if entry.soname in names)),
        len(cache) if isinstance(context, GlibcContext) else None,
        preload=context.preload,
        notes=context.notes,
    )


def _windows_places(process: ProcessFacts) -> SearchPlaces:
    from ..host.windows import read_windows_context

    context = read_windows_context(added_folders=process.added_folders)
    program = ntpath.dirname(process.loaded[0]) if process.loaded else process.base_prefix
    folders = [
        (Phase.APPLICATION.value, program),
        *((Phase.ADDED.value, folder) for folder in process.added_folders),
        *((Phase.ADDED.value, folder) for folder in (context.dll_directory,) if folder),
        (Phase.SYSTEM.value, context.system_folder),
        (Phase.WINDOWS.value, context.windows_folder),
        *((Phase.PATH.value, part) for part in process.variable("PATH").split(";") if part),
    ]
    return SearchPlaces(tuple(folders), known_dlls=tuple(sorted(context.known_dlls or ())))
