"""Limits of the system or the loader: no room for a good file, or a policy that forbids it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...model.elf import DF_STATIC_TLS, PF_X, ElfImage
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ..case import Case
from ..loader_errors import DlError, DlProblem
from ..remedies import operand, with_variable
from .wrong_file import is_forbidden_mapping

CODE = "map-refused"
NOEXEC_CODE = "noexec-mount"
MEMORY_CODE = "memory-limit"
TLS_CODE = "static-tls"
STACK_CODE = "executable-stack"
TEXT_CODE = "text-relocations"
FILES_CODE = "too-many-files"
CPU_CODE = "cpu-too-old"

_PT_LOAD, _PT_TLS, _PT_GNU_STACK = 1, 7, 0x6474E551
_MEGA = 1 << 20
_SET_ASIDE = 2048
"""More static TLS than glibc sets aside for dlopen by default: 1664 bytes or less (csu/libc-tls.c, elf/dl-tls.c)."""
_OF_C = re.compile(r"/(?:libc|libm|libpthread|ld-linux)[-.][^/]*$")
_OF_TEXT = re.compile(r"cannot make segment writable for relocation|cannot restore segment prot after reloc")
_FORBIDDEN = re.compile(r"Permission denied|Operation not permitted")
"""The kernel's answer to mprotect(2) where a policy forbids memory that is writable and executable. glibc 2.41 and
later refuse an executable stack by themselves, with "Invalid argument" (elf/dl-execstack.c)."""
_POLICIES = (
    "MemoryDenyWriteExecute=yes of a systemd service, PR_SET_MDWE of prctl(2), or SELinux"
)


def check(case: Case) -> Iterator[Finding]:
    """Yield the exhausted resource, or the policy that forbids the load."""
    dl_error = case.dl_error
    if dl_error is None:
        return
    path = dl_error.library or case.subject or ""
    message = case.error.message if case.error is not None else ""
    if dl_error.problem is DlProblem.STATIC_TLS:
        yield _static_tls(path, case)
    elif dl_error.problem is DlProblem.EXECUTABLE_STACK:
        yield _executable_stack(path, case)
    elif dl_error.problem is DlProblem.NOT_MAPPED and _OF_TEXT.search(message):
        yield _text_relocations(path, case)
    elif dl_error.problem in (DlProblem.NOT_MAPPED, DlProblem.OUT_OF_MEMORY) or is_forbidden_mapping(dl_error):
        yield from _not_mapped(path, dl_error, case)
    elif dl_error.problem is DlProblem.TOO_MANY_FILES:
        yield _simple(
            FILES_CODE, path, "the process has too many open files", case,
            "The system has no more file descriptors for this process: it leaks them, or its limit is low.",
            Remedy("raise the limit, and see what keeps files open", ("ulimit", "-n", "4096")),
        )  # fmt: skip
    elif dl_error.problem is DlProblem.CPU_TOO_OLD:
        yield _simple(
            CPU_CODE, path, f"{path} is for a newer processor", case,
            f"{path}{case.owner_of(path)} says that it needs a processor of a higher level (x86-64-v2, -v3, ...).",
            Remedy("take a build for the processor at hand"),
        )  # fmt: skip


def _simple(code: str, path: str, title: str, case: Case, text: str, remedy: Remedy) -> Finding:
    words = case.error.message if case.error is not None else ""
    return Finding(
        code=code,
        title=title,
        confidence=Confidence.CERTAIN, subject=path, chain=case.chain_to(case.subject, path),
        explanation=text,
        evidence=(Evidence(Source.LOADER, words),),
        remedies=(remedy,),
    )  # fmt: skip


def _not_mapped(path: str, dl_error: DlError, case: Case) -> Iterator[Finding]:
    """Separate two causes of one message by what the system allows."""
    limits = case.limits
    mount = limits.mount if limits is not None else None
    chain = case.chain_to(case.subject, path)
    message = Evidence(Source.LOADER, case.error.message.partition(": ")[2] if case.error is not None else "")
    if mount is not None and mount.noexec:
        yield Finding(
            code=NOEXEC_CODE,
            title=f"{path} lies on a file system from which nothing may be run",
            confidence=Confidence.CERTAIN, subject=path, chain=chain,
            explanation=(
                f"{mount.point} ({mount.kind}) is mounted noexec: the kernel refuses to map code from it, so the "
                f"loader cannot map {path}{case.owner_of(path)}."
            ),
            evidence=(message, Evidence(Source.SYSTEM, f"{mount.point} is mounted {','.join(mount.options)}")),
            remedies=(
                Remedy("install it elsewhere (another TMPDIR or PYTHONUSERBASE, another folder for the environment)"),
                Remedy(
                    "or let that file system run code (as root)",
                    ("mount", "-o", "remount,exec", operand(mount.point)),
                ),
            ),
        )  # fmt: skip
    elif dl_error.problem is not DlProblem.NO_PERMISSION:
        yield _memory(path, case, chain, message)


def _memory(path: str, case: Case, chain: tuple[str, ...], message: Evidence) -> Finding:
    memory = case.limits.address_space if case.limits is not None else None
    need = _memory_size(case, path)
    if memory is None or memory.limit is None:
        return Finding(
            code=CODE,
            title=f"the system did not let the loader map {path}",
            confidence=Confidence.POSSIBLE, subject=path, chain=chain,
            explanation=(
                "No limit of the address space and no noexec mount was found: memory of a container or machine that is "
                "used up, or a security policy, would do the same."
            ),
            evidence=(message,),
            remedies=(Remedy("see what the kernel logged", ("dmesg",)),),
        )  # fmt: skip
    free = memory.free
    tight = free is not None and need is not None and free < need
    return Finding(
        code=MEMORY_CODE,
        title=f"the memory limit of the process leaves no room for {path}",
        confidence=Confidence.CERTAIN if tight else Confidence.LIKELY,
        subject=path,
        chain=chain,
        explanation=f"Its address space may have {memory.limit // _MEGA} MB (RLIMIT_AS, ulimit -v)"
        + (f", of which {free // _MEGA} MB were left" if free is not None else "")
        + (f"; {path}{case.owner_of(path)} and what it needs take {need / _MEGA:.1f} MB" if need is not None else "")
        + ". The loader then says that it failed to map a segment.",
        evidence=(message, Evidence(Source.SYSTEM, f"RLIMIT_AS is {memory.limit} bytes")),
        remedies=(Remedy("raise the limit", ("ulimit", "-v", "unlimited")),),
    )


def _memory_size(case: Case, path: str) -> int | None:
    """Return the bytes of address space that the images of the load take."""
    images = case.tree.images.values() if case.tree is not None else (case.images.get(path),)
    total = 0
    for image in images:
        for segment in image.segments if isinstance(image, ElfImage) else ():
            total += segment.memory_size if segment.type == _PT_LOAD else 0
    return total or None


def _tls_size(image: object) -> int:
    return sum(s.memory_size for s in image.segments if s.type == _PT_TLS) if isinstance(image, ElfImage) else 0


def _static_tls(path: str, case: Case) -> Finding:
    size = _tls_size(case.images.get(path))
    others = [
        other
        for other, image in case.images.items()
        if isinstance(image, ElfImage) and image.dynamic_flags & DF_STATIC_TLS and other != path and _tls_size(image)
    ]
    users = [other for other in others if not _OF_C.search(other)]
    alone = size > _SET_ASIDE
    takes = f" It wants {size} bytes of it." if size else ""
    if alone:
        takes += " That is more than the loader sets aside: the order of imports does not help."
    elif users:
        takes += f" Others that use it: {', '.join(users[:3])}. What comes first gets it."
    if case.dl_error is not None and case.dl_error.loader == "musl":
        return _tls_on_musl(path, case)
    top = case.first_import
    first = Remedy(f"import {top} before everything else" if top else "load it before everything else")
    return Finding(
        code=TLS_CODE,
        title=f"there is no static TLS left for {path}",
        confidence=Confidence.CERTAIN, subject=path, chain=case.chain_to(path),
        explanation=(
            f"{path}{case.owner_of(path)} keeps variables of its threads in the static block, of which the loader has "
            f"little to give once the program runs.{takes}"
        ),
        evidence=(Evidence(Source.LOADER, "cannot allocate memory in static TLS block"),
         *((Evidence(Source.FILES, f"its TLS segment has {size} bytes"),) if size else ())),
        remedies=(*(() if alone else (first,)),
         Remedy("have it loaded with the program", with_variable(case, "LD_PRELOAD", path)),
         Remedy("or have the loader set more aside (glibc 2.33 and later)",
                with_variable(case, "GLIBC_TUNABLES", f"glibc.rtld.optional_static_tls={max(2048, 2 * size)}"))),
    )  # fmt: skip


def _tls_on_musl(path: str, case: Case) -> Finding:
    """Return the finding about static TLS with musl, which keeps no room in that block for what is loaded later.

    do_relocs (ldso/dynlink.c) refuses every relocation to it beyond the images that came with the program.
    """
    variable = case.dl_error.symbol if case.dl_error is not None else None
    return Finding(
        code=TLS_CODE,
        title=f"{path} can be loaded by musl with the program only: it wants static TLS",
        confidence=Confidence.CERTAIN, subject=path, chain=case.chain_to(path),
        explanation=f"{path}{case.owner_of(path)} was built to find {variable or 'variables'} of its threads in the "
        "static block (the initial-exec model). musl gives room there to the images that are loaded with the program, "
        "and none to later ones.",
        evidence=(Evidence(Source.LOADER, "initial-exec TLS resolves to dynamic definition"),),
        remedies=(Remedy("have it loaded with the program", with_variable(case, "LD_PRELOAD", path)),
         Remedy("or build it with -ftls-model=global-dynamic")),
    )  # fmt: skip


def wants_executable_stack(image: object) -> bool:
    """Return whether an image asks for an executable stack (PT_GNU_STACK with PF_X)."""
    if not isinstance(image, ElfImage):
        return False
    return any(s.type == _PT_GNU_STACK and s.flags & PF_X for s in image.segments)


def _executable_stack(path: str, case: Case) -> Finding:
    marked = wants_executable_stack(case.images.get(path))
    words = case.error.message if case.error is not None else ""
    evidence = [Evidence(Source.LOADER, "cannot enable executable stack as shared object requires")]
    if _FORBIDDEN.search(words):
        why = (
            "The kernel refused to make the stack executable: a policy forbids memory that is writable and executable "
            f"({_POLICIES})."
        )
        last = Remedy("or lift that policy for the program (MemoryDenyWriteExecute=no in its unit)")
    else:
        why = "Since glibc 2.41 dlopen makes no stack executable any more."
        last = Remedy(
            "or let the program start with such a stack (glibc 2.41 and later)",
            with_variable(case, "GLIBC_TUNABLES", "glibc.rtld.execstack=2"),
        )
    if marked:
        evidence.append(Evidence(Source.FILES, "its PT_GNU_STACK asks for an executable stack (RWE)"))
    return Finding(
        code=STACK_CODE,
        title=f"{path} asks for an executable stack, and the loader does not give it one",
        confidence=Confidence.CERTAIN, subject=path, chain=case.chain_to(path),
        explanation=(
            f"{path}{case.owner_of(path)} is marked as one that runs code on the stack: most often by mistake, by an "
            f"assembler file without a note. {why}"
        ),
        evidence=tuple(evidence),
        remedies=(
            Remedy("take a version without the mark"),
            Remedy(
                "or clear the mark (patchelf 0.18 or later)", ("patchelf", "--clear-execstack", operand(path))
            ),
            last,
        ),
    )


def _text_relocations(path: str, case: Case) -> Finding:
    """Return the finding about text relocations: the loader must change code, and the kernel forbids that."""
    words = case.error.message if case.error is not None else ""
    is_forbidden = _FORBIDDEN.search(words) is not None
    why = (
        f"The kernel refused that: a policy forbids memory that is written and then run ({_POLICIES})."
        if is_forbidden
        else "The kernel refused that: memory may be used up."
    )
    return Finding(
        code=TEXT_CODE,
        title=f"{path} has relocations in its code, and the system forbids the loader to write them",
        confidence=Confidence.CERTAIN if is_forbidden else Confidence.LIKELY,
        subject=path,
        chain=case.chain_to(path),
        explanation=(
            f"{path}{case.owner_of(path)} was not built as position-independent code: the loader has to make its code "
            f"writable, change it, and make it executable again. {why}"
        ),
        evidence=(Evidence(Source.LOADER, words.rpartition(f"{path}: ")[2]),),
        remedies=(
            Remedy("build it as position-independent code (-fPIC), or take a build that is"),
            Remedy("or lift that policy for the program (MemoryDenyWriteExecute=no in its unit)"),
        ),
    )
