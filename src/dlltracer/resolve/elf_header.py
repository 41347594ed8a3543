"""Whether a Linux loader would take a file, by its ELF header: what it passes over, and what it stops at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..binary.reading import describe_not_image
from ..model.elf import DF_1_PIE, EM_RISCV, ElfImage, describe_kind
from ..model.loader_context import LinuxContext
from .lookup import LookupStep

PT_LOAD, ET_DYN = 1, 3


@dataclass(frozen=True)
class HeaderCheck:
    """What the loader does with a file by its header, and why it does not take it."""

    step: LookupStep
    reason: str | None = None


TAKEN = HeaderCheck(LookupStep.TAKE)


def judge_for_glibc(head: bytes, context: LinuxContext) -> HeaderCheck:
    """What open_verify (elf/dl-load.c) decides from the first `HEAD_SIZE` bytes, in its order and words.

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
    if problem is None and foreign is not None:
        return HeaderCheck(LookupStep.NEXT_PLACE, foreign)
    problem = problem or _type_problem(head, context)
    return TAKEN if problem is None else HeaderCheck(LookupStep.STOP, problem)


def _ident_problem(head: bytes, context: LinuxContext) -> str | None:
    problem = None
    if head[5] != (1 if context.little_endian else 2):
        problem = f"ELF file data encoding not {_order(context)}-endian"
    elif head[6] != 1:
        problem = "ELF file version ident does not match current one"
    elif head[7] not in (0, 3):  # ELFOSABI_SYSV, ELFOSABI_GNU
        problem = "ELF file OS ABI invalid"
    elif head[7] == 0 and head[8] != 0:  # what GNU allows grows with glibc
        problem = "ELF file ABI version invalid"
    elif any(head[9:16]):
        problem = "nonzero padding in e_ident"
    elif int.from_bytes(head[20:24], _order(context)) != 1:
        problem = "ELF file version does not match current one"
    return problem


def _type_problem(head: bytes, context: LinuxContext) -> str | None:
    if int.from_bytes(head[16:18], _order(context)) not in (2, 3):
        return "only ET_DYN and ET_EXEC can be loaded"
    at, size = (54, 56) if context.bits == 64 else (42, 32)
    if int.from_bytes(head[at : at + 2], _order(context)) != size:
        return "ELF file's phentsize not the expected size"
    return None


def _order(context: LinuxContext) -> Literal["little", "big"]:
    return "little" if context.little_endian else "big"


def judge_for_musl(head: bytes, context: LinuxContext) -> HeaderCheck:
    """What map_library (ldso/dynlink.c) decides, which looks at the size and e_type only.

    A file of another machine is mapped all the same, and fails when it is relocated, or reads as damaged: the reason
    given is the machine. musl stops at the first file that can be opened.
    """
    if len(head) < _header_size(context) or head[:4] != b"\x7fELF":
        return HeaderCheck(LookupStep.STOP, _with_kind("Exec format error", head))
    foreign = _describe_foreign(head, context)
    if foreign is not None:
        return HeaderCheck(LookupStep.STOP, foreign)
    if int.from_bytes(head[16:18], _order(context)) not in (2, 3):
        return HeaderCheck(LookupStep.STOP, "Exec format error: neither a shared object nor a program")
    return TAKEN


def judge_image(image: object, *, program: bool) -> HeaderCheck:
    """What remains to be wrong with a file whose header was taken (_dl_map_object_from_fd in elf/dl-load.c).

    Arguments: `program`, whether it is started rather than loaded.
    """
    problem = None
    if not isinstance(image, ElfImage):
        problem = "invalid ELF header"
    elif not any(segment.type == PT_LOAD for segment in image.segments):
        problem = "object file has no loadable segments"
    elif program:
        return TAKEN
    elif image.kind != ET_DYN:
        problem = "cannot dynamically load executable"
    elif not image.is_dynamic:
        problem = "object file has no dynamic section"
    elif image.dynamic_flags_1 & DF_1_PIE:
        problem = "cannot dynamically load position-independent executable"
    return TAKEN if problem is None else HeaderCheck(LookupStep.STOP, problem)


def _header_size(context: LinuxContext) -> int:
    return 64 if context.bits == 64 else 52


def _with_kind(words: str, head: bytes) -> str:
    """The loader's words, and what the file is instead, where that is known."""
    kind = None if head.startswith(b"\x7fELF") else describe_not_image(head)
    return words if kind is None else f"{words}: this is {kind}"


def _describe_foreign(head: bytes, context: LinuxContext) -> str | None:
    """Why a file is for another kind of process; `None` if it is for this one."""
    little = head[5] != 2
    made = (32 if head[4] == 1 else 64, little, int.from_bytes(head[18:20], "little" if little else "big"))
    wanted = (context.bits, context.little_endian, context.machine)
    if made == wanted:
        return None
    if made[1:] == wanted[1:] and made[2] != EM_RISCV:
        return f"an ELF file of {made[0]} bits, this process has {wanted[0]}"
    return f"made for {describe_kind(*made)}, this process is {describe_kind(*wanted)}"
