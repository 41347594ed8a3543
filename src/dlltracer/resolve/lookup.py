"""Shared by all searches: a file system, whether a loader takes a file, its next step, a bound on the work.

`host.filesystem` implements the file system; tests have one in memory.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from ..binary.reading import describe_not_image
from ..errors import BinaryFormatError
from ..model.elf import (
    DF_1_PIE,
    EM_AARCH64,
    EM_ARM,
    EM_MIPS,
    EM_PPC64,
    EM_RISCV,
    ET_DYN,
    ElfImage,
    describe_kind,
    linux_abi,
)
from ..model.events import Phase, Probe, ProbeOutcome
from ..model.light import Protocol, dataclass
from ..model.loader_context import MACHINES_WITH_ABIS, FileKind, GlibcContext, LinuxContext, WindowsContext
from ..model.pe import MACHINE_AMD64, MACHINE_ARM64, MACHINE_I386, PeImage
from ..model.tree import Binding, BindingState, LoadTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.macho import MachoFile, MachoImage


class Filesystem(Protocol):
    """Files, by the paths that the loader in question would use."""

    def kind(self, path: str) -> FileKind:
        """Return what is at the path."""
        ...

    def identity(self, path: str) -> tuple[int, int] | None:
        """Return what two paths of one file have in common (device and inode); `None` if there is no file."""
        ...

    def real_path(self, path: str) -> str:
        """Return the path without symbolic links, as far as it exists."""
        ...

    def read_head(self, path: str, size: int) -> bytes:
        """Return the first `size` bytes of the file, or all if it has fewer. Raises `BinaryFormatError`, `OSError`."""
        ...

    def read_image(self, path: str) -> ElfImage | PeImage | MachoFile:
        """Return names and headers of the image, without symbols. Raises `BinaryFormatError`, `OSError`."""
        ...


class LookupStep(enum.Enum):
    """The next step of a loader after it has looked at a place."""

    TAKE = "take"
    """Use the file."""
    NEXT_PLACE = "next place"
    NEXT_RULE = "next rule"
    """Skip the other places of the same rule."""
    STOP = "stop"
    """Give up: the load fails."""


MOST_PLACES = 60_000
"""Places looked at for one tree. Real trees need some thousand; one RUNPATH can name 100,000 folders in 500 kB."""
MOST_BINDINGS = 20_000
"""Needs listed of one tree. Real trees have some hundred; 600 images that need one another have 360,000."""
MOST_IMAGES = 10_000
"""Images mapped in one tree."""


class TreeBuilder:
    """Collects a `LoadTree` and bounds the work for it.

    Hostile files can cause any amount of work. Work beyond the bounds is counted, and reported in the notes.

    Attributes:
        images: path to image of what the load maps, in order.
        places_left: how many more places may be looked at.
    """

    def __init__(self) -> None:
        self.images: dict[str, ElfImage | PeImage | MachoImage] = {}
        self.places_left = MOST_PLACES
        self._bindings: list[Binding] = []
        self._answers: set[tuple[str, str | None, BindingState]] = set()
        self._unlisted = 0
        self._unresolved = 0

    @property
    def is_spent(self) -> bool:
        """True if nothing more may be looked for."""
        return self.places_left <= 0 or len(self.images) >= MOST_IMAGES

    def skip_need(self) -> None:
        """Count a need that is not looked for, as the budget is spent."""
        self._unresolved += 1

    def add(self, binding: Binding) -> None:
        """Append a binding; where the list is long already, only one that tells something new."""
        if len(self._bindings) < MOST_BINDINGS:
            self._bindings.append(binding)
            return
        if not self._answers:
            self._answers.update((one.need, one.path, one.state) for one in self._bindings)
        answer = binding.need, binding.path, binding.state
        if answer in self._answers:
            self._unlisted += 1
        else:
            self._answers.add(answer)
            self._bindings.append(binding)

    def build(self, top: str, notes: Iterable[str]) -> LoadTree:
        """Return the tree of the file `top`."""
        found = list(notes)
        if self._unresolved:
            found.append(
                f"{self._unresolved} needs were not looked for: a search stops after {MOST_PLACES} places or "
                f"{MOST_IMAGES} images"
            )
        if self._unlisted:
            found.append(
                f"{self._unlisted} more needs are not listed: they have the same answer as others of their name, and "
                f"{MOST_BINDINGS} are"
            )
        return LoadTree(top, self.images, tuple(self._bindings), tuple(found), self._unresolved)


PT_LOAD = 1


@dataclass(frozen=True)
class HeaderCheck:
    """The decision of the loader about a file by its header, and the reason for a refusal."""

    step: LookupStep
    reason: str | None = None


TAKEN = HeaderCheck(LookupStep.TAKE)


def judge_for_glibc(head: bytes, context: GlibcContext) -> HeaderCheck:
    """Return the decision of open_verify (elf/dl-load.c) by the first `HEAD_SIZE` bytes, in its order and words.

    It passes over only files of another class or machine; whatever else is wrong with a file stops the search.
    """
    if len(head) < _header_size(context):
        return HeaderCheck(LookupStep.STOP, _with_kind("file too short", head))
    if head[:4] != b"\x7fELF":
        return HeaderCheck(LookupStep.STOP, _with_kind("invalid ELF header", head))
    foreign = _describe_foreign(head, context)
    if head[4] != (2 if context.bits == 64 else 1):
        return HeaderCheck(LookupStep.NEXT_PLACE, foreign)
    problem = _ident_problem(head, context)
    other_abi = _describe_other_abi(head, context) if foreign is None else None
    # ARM: the loader stops with these words (VALID_FLOAT_ABI, sysdeps/unix/sysv/linux/arm/ldsodefs.h). Debian's, which
    # has libraries of several ABIs side by side, passes over the file: seen on armhf with glibc 2.41.
    is_multiarch = context.lib is not None and "/" in context.lib
    if problem is None and other_abi is not None and context.machine == EM_ARM and not is_multiarch:
        problem = f"internal error: {other_abi}"
    if problem is None and (foreign or other_abi):
        return HeaderCheck(LookupStep.NEXT_PLACE, foreign or other_abi)
    problem = problem or _type_problem(head, context)
    return TAKEN if problem is None else HeaderCheck(LookupStep.STOP, problem)


def _highest_gnu_abi(machine: int) -> int:
    """Return the highest EI_ABIVERSION for ELFOSABI_GNU that glibc takes: LIBC_ABI_MAX is one more.

    Each feature in libc-abis that the processor has counts one. Seen: 3 from 2.31 to 2.43 on x86, and in 2.41 on
    riscv64; 2 from 2.31 to 2.41 on arm64, and in 2.41 on armhf. Only the port to MIPS takes others
    (sysdeps/mips/ldsodefs.h).
    """
    return 2 if machine in (EM_AARCH64, EM_ARM) else 3


def _ident_problem(head: bytes, context: LinuxContext) -> str | None:
    problem = None
    if head[5] != (1 if context.little_endian else 2):
        problem = f"ELF file data encoding not {'little' if context.little_endian else 'big'}-endian"
    elif head[6] != 1:
        problem = "ELF file version ident does not match current one"
    elif head[7] not in (0, 3) and (head[7], context.machine) != (64, EM_ARM):  # ELFOSABI_SYSV, _GNU, _ARM_AEABI
        problem = "ELF file OS ABI invalid"
    elif head[8] > (_highest_gnu_abi(context.machine) if head[7] == 3 else 0) and context.machine != EM_MIPS:
        problem = "ELF file ABI version invalid"
    elif any(head[9:16]):
        problem = "nonzero padding in e_ident"
    elif _number(head[20:24], context) != 1:
        problem = "ELF file version does not match current one"
    return problem


def _type_problem(head: bytes, context: LinuxContext) -> str | None:
    if _number(head[16:18], context) not in (2, 3):
        return "only ET_DYN and ET_EXEC can be loaded"
    at, size = (54, 56) if context.bits == 64 else (42, 32)
    if _number(head[at : at + 2], context) != size:
        return "ELF file's phentsize not the expected size"
    return None


def _number(data: bytes, context: LinuxContext) -> int:
    return int.from_bytes(data, "little" if context.little_endian else "big")


def judge_for_musl(head: bytes, context: LinuxContext) -> HeaderCheck:
    """Return the decision of map_library (ldso/dynlink.c), which looks at the size and e_type only.

    A file of another machine is mapped all the same, and fails when it is relocated, or reads as damaged: the reason
    given is the machine. musl stops at the first file that can be opened.
    """
    if len(head) < _header_size(context) or head[:4] != b"\x7fELF":
        return HeaderCheck(LookupStep.STOP, _with_kind("Exec format error", head))
    foreign = _describe_foreign(head, context)
    if foreign is not None:
        return HeaderCheck(LookupStep.STOP, foreign)
    if _number(head[16:18], context) not in (2, 3):
        return HeaderCheck(LookupStep.STOP, "Exec format error: neither a shared object nor a program")
    return TAKEN


def judge_image(image: object, context: GlibcContext, *, program: bool) -> HeaderCheck:
    """Return what is wrong with a file whose header was taken (_dl_map_object_from_fd in elf/dl-load.c).

    Arguments: `program`, whether it is started rather than loaded.
    """
    problem = None
    if not isinstance(image, ElfImage):
        problem = "invalid ELF header"
    elif not any(segment.type == PT_LOAD for segment in image.segments):
        problem = "object file has no loadable segments"
    elif program:  # the kernel maps it
        return TAKEN
    elif misplaced := _describe_misplaced(image, context):
        problem = misplaced
    elif image.kind != ET_DYN:
        problem = "cannot dynamically load executable"
    elif not image.is_dynamic:
        problem = "object file has no dynamic section"
    elif image.dynamic_flags_1 & DF_1_PIE:
        problem = "cannot dynamically load position-independent executable"
    return TAKEN if problem is None else HeaderCheck(LookupStep.STOP, problem)


def _describe_misplaced(image: ElfImage, context: GlibcContext) -> str | None:
    """Return why the segments of an image cannot be mapped on a system with pages of that size, in glibc's words.

    A build for pages of 4 KiB fails so where they have 16 or 64 (arm64, ppc64le, Asahi Linux).
    """
    page = context.page_size
    for segment in image.segments:
        if segment.type != PT_LOAD:
            continue
        shift = segment.address - segment.offset
        if context.checks_alignment:
            if segment.align & (page - 1):
                return "ELF load command alignment not page-aligned"
            if shift & (segment.align - 1):  # of 0 or 1 alike: no place is right but the very same
                return "ELF load command address/offset not properly aligned"
        elif shift & (page - 1):
            return "ELF load command address/offset not page-aligned"
    return None


def _header_size(context: LinuxContext) -> int:
    return 64 if context.bits == 64 else 52


def _with_kind(words: str, head: bytes) -> str:
    """The loader's words, and what the file is instead, where that is known."""
    kind = None if head.startswith(b"\x7fELF") else describe_not_image(head)
    return words if kind is None else f"{words}: this is {kind}"


def _describe_foreign(head: bytes, context: LinuxContext) -> str | None:
    """Return why a file is for another kind of process; `None` if it is for this one."""
    little = head[5] != 2
    made = (32 if head[4] == 1 else 64, little, int.from_bytes(head[18:20], "little" if little else "big"))
    wanted = (context.bits, context.little_endian, context.machine)
    if made == wanted:
        return None
    if made[1:] == wanted[1:] and made[2] != EM_RISCV:
        return f"an ELF file of {made[0]} bits, this process has {wanted[0]}"
    return f"made for {describe_kind(*made)}, this process is {describe_kind(*wanted)}"


def _describe_other_abi(head: bytes, context: LinuxContext) -> str | None:
    """Return why a file for this machine does not fit the process: `elf_machine_matches_host` of its glibc.

    LoongArch has several ABIs as well, and its glibc takes them for one.
    """
    if context.flags is None or context.machine not in MACHINES_WITH_ABIS:
        return None
    at = 48 if context.bits == 64 else 36
    made = linux_abi(
        context.bits, context.little_endian, context.machine, _number(head[at : at + 4], context)
    )
    wanted = context.abi()
    if made == wanted or (context.machine == EM_ARM and "arm" in (made, wanted)):
        return None
    if context.machine == EM_PPC64:
        # A program that uses nothing of either runs with the usual one: 2 is for little endian.
        wanted = wanted if wanted != "ppc64" else f"ppc64-v{2 if context.little_endian else 1}"
        if made in ("ppc64", wanted):
            return None
    return f"made for the ABI {made}, this process has {wanted}"


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
    if kind in (FileKind.DENIED, FileKind.HIDDEN):
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
    """Return whether a process of that machine can map the image.

    x86-64 processes on ARM also take ARM64X files, whose header says ARM64 (MS Learn "Arm64X PE files"). A .NET file is
    mapped whatever its header says, if it has no native code of its own; that is not looked at.
    """
    if image.machine == machine or image.is_managed:
        return True
    return image.is_hybrid and (image.machine, machine) == (MACHINE_ARM64, MACHINE_AMD64)


def describe_machine(machine: int) -> str:
    """The machine for a reader: "x86-64"."""
    return _MACHINES.get(machine, f"machine {machine:#x}")
