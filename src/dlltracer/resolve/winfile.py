"""Whether the Windows loader takes a file, passes it over or stops there."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BinaryFormatError
from ..model.events import FileKind, Phase, Probe, ProbeOutcome
from ..model.pe import MACHINE_AMD64, MACHINE_ARM64, MACHINE_I386, PeImage
from .lookup import LookupStep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.loader_context import WindowsContext
    from .lookup import Filesystem

_MACHINES = {
    MACHINE_I386: "x86 (32 bit)", MACHINE_AMD64: "x86-64", MACHINE_ARM64: "ARM64", 0x1C0: "ARM (32 bit)",
    0x1C4: "ARM (32 bit)", 0x200: "Itanium",
}  # fmt: skip
"""IMAGE_FILE_MACHINE_... of MS Learn "PE Format"."""


@dataclass(frozen=True)
class TriedFile:
    """A place tried: the probe with its outcome, what the loader does next, the image if it takes it."""

    probe: Probe
    step: LookupStep
    image: PeImage | None = None


def try_file(
    path: str, phase: Phase, files: Filesystem, context: WindowsContext, origin: str | None = None
) -> TriedFile:
    """Look at the file there as the loader of the process would.

    Args:
        path: whole path.
        phase, origin: for the probe.
        files: where to look.
        context: the process: its machine, and what it does about a file for another.
    """
    kind = files.kind(path)
    if kind is FileKind.ABSENT:
        return TriedFile(Probe(path, phase, origin, ProbeOutcome.ABSENT), LookupStep.NEXT_PLACE)
    image = _read(path, kind, files)
    if isinstance(image, PeImage) and fits_machine(image, context.machine):
        return TriedFile(Probe(path, phase, origin, ProbeOutcome.LOADED), LookupStep.TAKE, image)
    step, reason = LookupStep.STOP, image
    if isinstance(image, PeImage):
        step = LookupStep.NEXT_PLACE if context.skips_wrong_machine else LookupStep.STOP
        made, needed = (describe_machine(number) for number in (image.machine, context.machine))
        reason = f"made for {made}, this process is {needed} (error 193)"
    return TriedFile(Probe(path, phase, origin, ProbeOutcome.PRESENT, str(reason)), step)


def _read(path: str, kind: FileKind, files: Filesystem) -> PeImage | str:
    """The image there, or why there is none. The error numbers are those that LoadLibrary would leave."""
    if kind is FileKind.DENIED:
        return "access denied (error 5)"
    if kind is not FileKind.FILE:
        return "not a file"
    try:
        image = files.read_image(path)
    except BinaryFormatError as error:
        return f"not an image that Windows loads (error 193): {error}"
    except OSError as error:
        return "access denied (error 5)" if isinstance(error, PermissionError) else f"cannot be read: {error.strerror}"
    return image if isinstance(image, PeImage) else "a Linux library, not an image that Windows loads (error 193)"


def fits_machine(image: PeImage, machine: int) -> bool:
    """Whether a process of that machine can map the image.

    x86-64 processes on ARM also take ARM64X files, whose header says ARM64 (MS Learn "Arm64X PE files"). A .NET file is
    mapped whatever its header says, if it has no native code of its own; that is not looked at.
    """
    if image.machine == machine or image.is_managed:
        return True
    return image.is_hybrid and (image.machine, machine) == (MACHINE_ARM64, MACHINE_AMD64)


def describe_machine(machine: int) -> str:
    """The machine for a reader: "x86-64"."""
    return _MACHINES.get(machine, f"machine {machine:#x}")
