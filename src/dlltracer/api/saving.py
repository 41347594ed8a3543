"""A run as one saved trace: with its machine, its files, its verdict, and all that the verdict rests on."""

from __future__ import annotations

import ntpath
from collections.abc import Sequence
from dataclasses import replace

from .. import __version__
from ..binary.elf import read_build_id, read_elf
from ..binary.pe import read_pe
from ..binary.reading import HEAD_SIZE, read_regular
from ..errors import BinaryFormatError
from ..host.linux import read_linux_context
from ..host.machine import describe_named_host, sha256_of, stamp_of, this_system
from ..model.elf import ElfImage, describe_kind
from ..model.events import ImageEvent, LoadEvent, LoadFailedEvent, Phase, ProbeOutcome
from ..model.failure import ProcessFacts, System
from ..model.loader_context import GlibcContext
from ..model.pe import PeImage
from ..model.recording import Recording
from ..model.run import ImageFacts, RunResult, SavedTrace, SearchPlaces
from ..resolve.lookup import describe_machine
from .environment import site_folders
from .explain import Explained
from .explain_saved import encode_case

MOST = 5000
"""Files looked at; a trace that has more says so."""
_ELF, _PE = b"\x7fELF", b"MZ"
_LARGEST_HASHED_IN_ALL = 64 << 20


def facts_of_images(recording: Recording, process: ProcessFacts | None) -> tuple[ImageFacts, ...]:
    """Return the images that loaded or were refused, each once, in order. Files that are gone are left out."""
    paths = _paths_of(recording)[:MOST]
    packages = packages_of(paths, process)
    left = _LARGEST_HASHED_IN_ALL
    found = []
    for path in paths:
        stamp = stamp_of(path)
        if stamp is None:
            continue
        image = _read(path)
        digest = _build_id(path, image)
        if digest is None and stamp.size <= left:
            hashed = sha256_of(path)
            left -= stamp.size if hashed is not None else 0
            digest = f"sha256:{hashed}" if hashed is not None else None
        found.append(
            ImageFacts(
                path, stamp.size, stamp.modified, _file_version(image), getattr(image, "soname", None),
                _machine(image), _needs(image), packages.get(path), digest,
            )
        )  # fmt: skip
    return tuple(found)


def _paths_of(recording: Recording) -> list[str]:
    """Paths by which the files can be opened: on Windows the one for people, not that of the kernel."""
    paths = []
    for event in recording.events:
        if isinstance(event, LoadEvent):
            paths.append(event.shown_path)
        elif isinstance(event, LoadFailedEvent):
            present = [probe.path for probe in event.probes or () if probe.outcome is ProbeOutcome.PRESENT]
            paths += [event.shown_path, *present]
    return [path for path in dict.fromkeys(paths) if "/" in path or "\\" in path]


def packages_of(paths: list[str], process: ProcessFacts | None) -> dict[str, str]:
    """Return each path that belongs to a package, to that package in words: "numpy 2.1.0", "libssl3 3.0.11-1"."""
    try:
        from ..host.packages import find_owners
    except ImportError:  # a Python that cannot load its own modules (hashlib) may be what is asked about
        return {}
    folders = site_folders(process) if process is not None else ()
    owners = find_owners(paths, folders).owners
    return {path: f"{found[0].package.partition(':')[0]} {found[0].version}".strip() for path, found in owners.items()}


def _read(path: str) -> ElfImage | PeImage | None:
    try:
        head = read_regular(path, HEAD_SIZE)
        if head.startswith(_PE):
            return read_pe(path, resources=True)
        return read_elf(path) if head.startswith(_ELF) else None
    except (BinaryFormatError, OSError):
        return None


def _build_id(path: str, image: ElfImage | PeImage | None) -> str | None:
    try:
        found = read_build_id(path, image) if isinstance(image, ElfImage) else None
    except (BinaryFormatError, OSError):
        return None
    return f"build-id:{found}" if found else None


def _file_version(image: ElfImage | PeImage | None) -> str | None:
    version = image.resources.file_version if isinstance(image, PeImage) and image.resources is not None else None
    return ".".join(map(str, version)) if version is not None else None


def _machine(image: ElfImage | PeImage | None) -> str | None:
    if isinstance(image, ElfImage):
        return describe_kind(image.bits, image.little_endian, image.machine)
    return describe_machine(image.machine) if image is not None else None


def _needs(image: ElfImage | PeImage | None) -> tuple[str, ...] | None:
    if isinstance(image, ElfImage):
        return image.needed
    return tuple(dict.fromkeys(one.library for one in image.imports)) if image is not None else None


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


NOT_TRACED = "none"
"""In the place of a mechanism's name."""


def begin_trace(what: str, command: tuple[str, ...], backend: str, started: float | None = None) -> SavedTrace:
    """What is known of a run when it begins: arguments are attributes of `SavedTrace` by the same names."""
    return SavedTrace(Recording(backend), what, __version__, started, describe_named_host(), command=command)


def end_trace(begun: SavedTrace, run: RunResult, explained: Explained | None) -> SavedTrace:
    """What is known when it has ended, of a trace that `begin_trace` made. Looks at the files that loaded."""
    recorded = run.recording if run.recording is not None else Recording(NOT_TRACED, notes=("there was no trace",))
    case = explained.case if explained is not None else None
    process = run.process if run.process is not None or case is None else case.run.process
    images = facts_of_images(recorded, process)
    return replace(
        begun, recording=recorded, run=replace(run, recording=None, process=process),
        diagnosis=explained.diagnosis if explained is not None else None,
        case=encode_case(case) if case is not None else None, images=images,
        places=read_places(process, recorded, images) if process is not None else None,
    )  # fmt: skip
