"""The files of a trace as they are now: what a reader on another machine wants to know of each."""

from __future__ import annotations

from ..binary.elf import read_elf
from ..binary.elf_notes import read_build_id
from ..binary.notimage import HEAD_SIZE
from ..binary.pe import read_pe
from ..binary.reading import read_regular
from ..errors import BinaryFormatError
from ..host.digests import sha256_of, stamp_of
from ..model.elf import ElfImage
from ..model.events import LoadEvent, LoadFailedEvent
from ..model.machine import describe_kind
from ..model.pe import PeImage
from ..model.probe import ProbeOutcome
from ..model.saved import ImageFacts
from ..resolve.winfile import describe_machine
from .environment import site_folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.failure import ProcessFacts
    from ..model.recording import Recording

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
