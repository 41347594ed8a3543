"""Rules for files that the loader refuses: for another machine, not an image, truncated, damaged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ...model.events import FOLDER_LOCKED, FailureKind, Probe, ProbeOutcome
from ...model.failure import System
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.tree import BindingState
from ..case import Case
from ..loader_errors import DlError, DlProblem
from ..providers import find_providers, install_remedies
from ..remedies import operand, reinstall

CODE = "not-an-image"
MACHINE_CODE = "wrong-machine"
TRUNCATED_CODE = "truncated-image"
LIBRARY_CODE = "not-a-library"
UNREADABLE_CODE = "unreadable-image"
ALIGNMENT_CODE = "misaligned-image"
DAMAGED_CODE = "damaged-image"
LINK_CODE = "broken-link"

_OF_MACHINE = re.compile(r"made for |ELF file of \d+ bits|wrong ELF class")
DAMAGE = "damaged: "
"""How our reader begins to say what is wrong with the content of a file, and not with its length."""
_CUT = re.compile(r"cut short")
_OTHER_KIND = re.compile(r"empty file|this is |is an? (?!ELF)")
_IS_FOLDER = "Is a directory"
_KINDS = {
    DlProblem.WRONG_CLASS: MACHINE_CODE,
    DlProblem.WRONG_ABI: CODE,
    DlProblem.NOT_AN_IMAGE: CODE,
    DlProblem.NOT_A_LIBRARY: LIBRARY_CODE,
    DlProblem.TRUNCATED: TRUNCATED_CODE,
    DlProblem.DAMAGED: DAMAGED_CODE,
    DlProblem.NO_PERMISSION: UNREADABLE_CODE,
    DlProblem.UNREADABLE: UNREADABLE_CODE,
}


def check(case: Case) -> Iterator[Finding]:
    """Yield the finding about the refused file, and what it is instead."""
    dl_error = case.dl_error
    if dl_error is None or dl_error.problem is DlProblem.MISSING:
        yield from _passed_over(case)
    elif dl_error.library and "(CR LF)" in case.damaged.get(dl_error.library, ""):
        yield _refused(dl_error.library, DlProblem.NOT_AN_IMAGE, case)
    elif dl_error.problem is DlProblem.MISSING_SYMBOL and _is_damaged(dl_error.library, case):
        assert dl_error.library is not None
        yield damaged(dl_error.library, case, Confidence.CERTAIN)
    elif dl_error.problem is DlProblem.ALIGNMENT and dl_error.library:
        yield _misaligned(dl_error.library, case)
    elif wants_plain_libc(dl_error.library, case):
        return
    elif dl_error.problem in _KINDS and dl_error.library and not is_forbidden_mapping(dl_error):
        yield _refused(_file_of(dl_error.library, case), dl_error.problem, case)


def _file_of(library: str, case: Case) -> str:
    """Return the file that the loader opened for a library that its message calls by name only, as musl's do."""
    if "/" in library:
        return library
    present = (
        probe.path for need, _, probes in _searches(case) if need == library
        for probe in probes if probe.outcome is ProbeOutcome.PRESENT
    )  # fmt: skip
    taken = (binding.path for binding in case.tree.bindings if binding.need == library) if case.tree is not None else ()
    return next(present, next((path for path in taken if path is not None), library))


def check_machine(case: Case) -> Iterator[Finding]:
    """Yield the file for another processor that the loader of musl mapped all the same.

    map_library of musl (ldso/dynlink.c) looks at the size and e_type only. What fails then is a consequence: a library
    of that other system, a symbol, a kind of relocation, or the process, which runs foreign code.
    """
    dl_error = case.dl_error
    if case.c_library.name != "musl" or (dl_error is not None and dl_error.problem in _KINDS):
        return
    for binding in case.tree.bindings if case.tree is not None else ():
        if binding.path is None or binding.reason is None or not _OF_MACHINE.search(binding.reason):
            continue
        title, remedy = _words_for(MACHINE_CODE, binding.path, "")
        yield Finding(
            code=MACHINE_CODE,
            title=title,
            confidence=Confidence.CERTAIN,
            subject=binding.path,
            chain=case.chain_to(_requester(binding.path, case), binding.path),
            explanation=f"{binding.path}{case.owner_of(binding.path)} is {binding.reason}. musl does not look at "
            "that: it maps the file, and what fails then is a consequence.",
            evidence=(Evidence(Source.FILES, binding.reason),),
            remedies=(remedy, *_sources(MACHINE_CODE, binding.path, None, case)),
        )
        return


_OF_BIONIC = frozenset(("liblog.so", "libandroid.so", "libdl.so", "libm.so", "libstdc++.so", "libc++_shared.so"))
"""Libraries of Android whose names have no version, besides libc.so (Android NDK, "Native APIs"); musl has libc.so
only."""


def wants_plain_libc(library: str | None, case: Case) -> str | None:
    """Return the file that asked for a library of Android or musl, if the loader's message names one; `None` if none.

    On a machine with compilers libc.so is there, and is a text for the linker: what lies there is not to blame.
    """
    name = (library or "").rpartition("/")[2]
    if name != "libc.so" and name not in _OF_BIONIC:
        return None
    for path, image in case.images.items():
        needed = getattr(image, "needed", ())
        if name in needed and "libc.so" in needed:
            return path
    return None


def is_of_bionic(image: object) -> bool:
    """Return whether a file that asks for libc.so is for Android: by its other needs, or the version LIBC of bionic."""
    versions = {need.version for need in getattr(image, "version_needs", ())}
    return bool(_OF_BIONIC & set(getattr(image, "needed", ()))) or "LIBC" in versions


def is_forbidden_mapping(dl_error: DlError) -> bool:
    """Return whether musl reports that the kernel forbids to map code of a file that could be opened."""
    return dl_error.loader == "musl" and (dl_error.system_error or "").startswith("Operation not permitted")


def _refused(path: str, problem: DlProblem, case: Case) -> Finding:
    """Return the finding for a message in which the loader gives its reason."""
    reason = _reason(path, case)
    code = _KINDS[problem]
    if reason and _OF_MACHINE.search(reason):
        code = MACHINE_CODE
    elif reason and _CUT.search(reason):
        code = TRUNCATED_CODE
    elif reason and (_OTHER_KIND.search(reason)):
        code = CODE
    words = case.error.message if case.error is not None else ""
    if _IS_FOLDER in words:  # strerror(EISDIR): the loader could open it, and read nothing
        code, reason = CODE, "this is a folder"
    if code == UNREADABLE_CODE and reason is None and path in case.images:  # this process could read it
        reason = _FORBIDDEN
    kind = f"{reason} {words}" if code == LIBRARY_CODE or reason is None else _short(reason)
    title, remedy = _words_for(code, path, kind)
    requested_by = _requester(path, case)
    return Finding(
        code=code,
        title=title,
        confidence=Confidence.CERTAIN,
        subject=path,
        chain=case.chain_to(requested_by, path),
        probes=tuple(probe for probe in _probes(path, case) if probe.outcome is ProbeOutcome.PRESENT),
        explanation=f"The loader opened {path}{case.owner_of(path)} and refused it{f': {reason}' if reason else ''}.",
        evidence=(Evidence(Source.LOADER, words.rpartition(": ")[2] or problem.value),),
        remedies=(remedy, *_sources(code, path, reason, case)),
    )


def rewritten(path: str, case: Case) -> Finding:
    """Return the finding about a file whose line ends were rewritten, and whose load ended in a crash."""
    title, remedy = _words_for(CODE, path, "(CR LF)")
    return Finding(
        code=CODE,
        title=title,
        confidence=Confidence.LIKELY,
        subject=path,
        chain=case.chain_to(None, path),
        explanation=f"The process died while or after it loaded {path}{case.owner_of(path)}: each of its line feeds "
        "has a carriage return before it.",
        evidence=(Evidence(Source.FILES, case.damaged[path]),),
        remedies=(remedy, *_sources(CODE, path, None, case)),
    )


def damaged(path: str, case: Case, confidence: Confidence) -> Finding:
    """Return the finding about a file whose tables were lost, which loaders do not look at before they use them."""
    problem = case.damaged[path].removeprefix(DAMAGE)
    return Finding(
        code=DAMAGED_CODE,
        title=f"{path} is damaged: {problem}",
        confidence=confidence,
        subject=path,
        chain=case.chain_to(_requester(path, case), path),
        explanation=f"{path}{case.owner_of(path)} begins as an image does, and {problem}: a copy or a download left a "
        "hole there, or a tool wrote over it. The loader does not look at that before it needs it.",
        evidence=(Evidence(Source.FILES, case.damaged[path]),),
        remedies=(Remedy("fetch or install the file again"), *_sources(DAMAGED_CODE, path, None, case)),
    )


def _is_damaged(path: str | None, case: Case) -> bool:
    return case.damaged.get(path or "", "").startswith(DAMAGE)


def _sources(code: str, path: str, reason: str | None, case: Case) -> Iterator[Remedy]:
    """Yield where the right file comes from: the package that installed it, or the known source of an empty one.

    Containers have empty files in place of the driver's libraries when they run without the driver.
    """
    owned = [*reinstall(case, path)]
    yield from owned
    if not owned and code == CODE and "empty file" in (reason or ""):
        yield from install_remedies(find_providers(path, System.LINUX, case.distribution)[:1])


def _passed_over(case: Case) -> Iterator[Finding]:
    """Yield the finding about a file that glibc passed over, with the error "No such file"."""
    named = (
        case.dl_error.library if case.dl_error is not None and case.dl_error.problem is DlProblem.MISSING else None
    )
    seen: set[str] = set()
    for need, requested_by, probes in _searches(case):
        present = [
            probe for probe in probes
            if probe.outcome is ProbeOutcome.PRESENT or FOLDER_LOCKED in (probe.reason or "")
        ]  # fmt: skip
        if need in seen or not present:
            continue
        seen.add(need)
        probe = present[0]
        reason = probe.reason or "the loader did not say why"
        if _fits(need, probe.path, case):
            reason = _FORBIDDEN
        is_link, is_hidden = "symbolic link" in reason, FOLDER_LOCKED in reason
        code = MACHINE_CODE if _OF_MACHINE.search(reason) else LINK_CODE if is_link else CODE
        if is_hidden or reason == _FORBIDDEN or "permission" in reason.lower():
            code = UNREADABLE_CODE
        title, remedy = _words_for(code, probe.path, reason if code == UNREADABLE_CODE else _short(reason))
        has_it = "would have that name, if it is there" if is_hidden else "has that name"
        needs = f"{requested_by or 'The program'}{case.owner_of(requested_by or '')} needs {need}."
        yield Finding(
            code=code,
            title=title,
            confidence=_confidence(need == named, probe, case, is_fit=reason == _FORBIDDEN), subject=probe.path,
            chain=case.chain_to(requested_by, need), probes=tuple(probes),
            explanation=(
                f"{needs} {probe.path} {has_it}: {reason}. The loader passes over such a file "
                "without a word and says that there is none."
            ),
            evidence=(Evidence(Source.LOADER, f"it tried {probe.path} and went on"), Evidence(Source.FILES, reason)),
            remedies=(remedy,),
        )


def _fits(need: str, path: str, case: Case) -> bool:
    """Return whether the file is what the rules of the loader lead to, and nothing is wrong with it."""
    bindings = case.tree.bindings if case.tree is not None else ()
    return any((one.need, one.path, one.state) == (need, path, BindingState.BOUND) for one in bindings)


def _confidence(is_named: bool, probe: Probe, case: Case, *, is_fit: bool) -> Confidence:
    if case.dl_error is None or probe.reason is None:
        return Confidence.POSSIBLE
    if "did not say" in probe.reason:
        return Confidence.LIKELY if is_named and is_fit else Confidence.POSSIBLE
    if FOLDER_LOCKED in probe.reason:
        return Confidence.LIKELY
    return Confidence.CERTAIN if is_named else Confidence.LIKELY


def _searches(case: Case) -> Iterator[tuple[str, str | None, tuple[Probe, ...]]]:
    for event in case.seen_failures(FailureKind.REFUSED):
        yield event.need or event.path, event.requested_by, event.probes or ()
    for binding in case.failed_bindings(BindingState.MISSING):
        yield binding.need, binding.requested_by, binding.probes


def _reason(path: str, case: Case) -> str | None:
    """Return why a file was refused, as the file itself shows it."""
    if path in case.damaged:
        return case.damaged[path]
    reasons = [b.reason for b in (case.tree.bindings if case.tree is not None else ()) if b.path == path and b.reason]
    probes = [probe for event in case.failed_events for probe in event.probes or () if probe.path == path]
    probes += [probe for _, _, places in _searches(case) for probe in places if probe.path == path]
    reasons += [probe.reason for probe in probes if probe.reason and "did not say" not in probe.reason]
    return reasons[0] if reasons else None


def _short(reason: str | None) -> str:
    """Return the last part of a reason: what the file is, without the loader's message."""
    text = (reason or "").rpartition("this is ")[2]
    return text or "no image that this loader takes"


def _probes(path: str, case: Case) -> tuple[Probe, ...]:
    for binding in case.tree.bindings if case.tree is not None else ():
        if binding.path == path:
            return binding.probes
    return ()


def _requester(path: str, case: Case) -> str | None:
    for binding in case.tree.bindings if case.tree is not None else ():
        if binding.path == path and path not in (binding.requested_by, case.subject):
            return binding.requested_by
    for _, requested_by, probes in _searches(case):
        if path != case.subject and any(probe.path == path for probe in probes):
            return requested_by
    return None


def _words_for(code: str, path: str, kind: str) -> tuple[str, Remedy]:
    """Return the title and the first remedy for a kind of wrong file."""
    named = {CODE: _NAMED, LIBRARY_CODE: _UNLINKED, DAMAGED_CODE: _DAMAGED, UNREADABLE_CODE: _HIDDEN}.get(code, {})
    words = next((words for sign, words in named.items() if sign in kind), None) or _WORDS.get(code)
    if words is not None:
        title, remedy = words
        command = tuple(operand(path) if word == "{path}" else word for word in remedy.command)
        return title.format(path=path), replace(remedy, command=command)
    what = kind if kind.startswith(("a ", "an ", "no ", "nothing")) else "no image that this loader takes"
    return f"{path} is {what}", Remedy("fetch the file again, and look at what is fetched")


_WORDS = {
    MACHINE_CODE: (
        "{path} is for another kind of machine",
        Remedy("install the build for this machine, and take the other out of the way"),
    ),
    TRUNCATED_CODE: (
        "{path} is cut short",
        Remedy("fetch the file again: a copy or download was interrupted, or the disk was full"),
    ),
    LIBRARY_CODE: (
        "{path} is a program, not a library",
        Remedy("load the library that belongs to it, or link it as one: gcc -shared -fPIC"),
    ),
    UNREADABLE_CODE: (
        "{path} may not be read",
        Remedy("let the user who runs Python read it", ("chmod", "a+r", "{path}")),
    ),
    LINK_CODE: (
        "{path} is a symbolic link that leads to no file",
        Remedy("install the package of the library again"),
    ),
    DAMAGED_CODE: ("{path} is damaged", Remedy("fetch the file again")),
}
_FORBIDDEN = "it fits, and the process could not open it"
_HIDDEN = {
    _FORBIDDEN: (
        "{path} is there and fits, and the process may not open it",
        Remedy(
            "see what forbids it to the program: a sandbox (Landlock, seccomp, a confined snap or service), AppArmor "
            "or SELinux (the kernel's log names what it denied)",
            ("dmesg",),
        ),
    ),
    FOLDER_LOCKED: (
        "{path} cannot be looked for: a folder on the way may not be entered by this user",
        Remedy("see which folder denies it, and let others pass it (chmod o+x)", ("namei", "-l", "{path}")),
    ),
}
"""For a path that may not be looked at: words of the reason, to title and remedy."""
_DAMAGED = {
    "no dynamic section": (
        "{path} has nothing that a loader can use: no dynamic section",
        Remedy(
            "take the library itself: a file of debug information (objcopy --only-keep-debug, a package -dbgsym or "
            "-debuginfo) has its name and size"
        ),
    ),
}
"""For an ELF file that cannot be used: words of the loader, to title and remedy."""
_NAMED = {
    "stored as a text file": (
        "{path} is a symbolic link that was stored as a text file",
        Remedy(
            "make it a link again: git with core.symlinks=true, or unpack the archive with a tool that keeps links; "
            "the text in it is what it should lead to"
        ),
    ),
    "Mach-O": (
        "{path} is a Mach-O file (macOS)",
        Remedy("install the build for Linux: this one is for macOS"),
    ),
    "Windows": ("{path} is a file for Windows", Remedy("install the build for Linux: this one is for Windows")),
    "ABI version invalid": (
        "{path} needs a newer glibc: its EI_ABIVERSION is above what the loader knows",
        Remedy("install a build for this system, or use a newer system"),
    ),
    "OS ABI invalid": (
        "{path} is an ELF file for another operating system",
        Remedy("install the build for Linux: this one is for FreeBSD or another system (its EI_OSABI says which)"),
    ),
    "folder": (
        "{path} is a folder, not a library",
        Remedy("move that folder out of the way, and install the package of the library again"),
    ),
    "LFS": (
        "{path} is a Git LFS pointer, not the file itself",
        Remedy("fetch the file itself", ("git", "lfs", "pull")),
    ),
    "empty file": (
        "{path} is an empty file",
        Remedy("fetch or install the file again, and look at its size: a disk was full, or it only keeps a place"),
    ),
    "(CR LF)": (
        "{path} is damaged: the ends of its lines were rewritten (CR LF), as if it were a text",
        Remedy("tell git that it is no text (*.so binary in .gitattributes), and fetch it again"),
    ),
    "compressed": (
        "{path} is a compressed file, not the library itself",
        Remedy("unpack it: the loader maps files as they are"),
    ),
    "encrypted": (
        "{path} is encrypted by git-crypt",
        Remedy("decrypt the files of the repository", ("git-crypt", "unlock")),
    ),
    "ar archive": (
        "{path} is a static library (an ar archive), not a shared one",
        Remedy("link a shared library of its objects, which have to be compiled with -fPIC: gcc -shared"),
    ),
    "linker": (
        "{path} is a text for linkers, not a library",
        Remedy("load the library that it names, by its soname (libc.so.6 for libc.so)"),
    ),
}
"""For a file that is no image: a word of its description, to title and remedy."""
_UNLINKED = {
    "only ET_DYN": (
        "{path} is an object file that was not linked",
        Remedy("link it as a shared library: gcc -shared -fPIC, without -c"),
    ),
}
"""For an ELF file that is no library: words of glibc (elf/dl-load.c) that tell object files from programs."""


def _misaligned(path: str, case: Case) -> Finding:
    page = case.limits.page_size if case.limits is not None else 4096
    image = case.images.get(path)
    segments = [segment for segment in getattr(image, "segments", ()) if segment.type == 1]
    aligns = sorted({segment.align for segment in segments})
    small = [align for align in aligns if align < page]
    odd = [s for s in segments if (s.address - s.offset) % max(s.align, 1)]
    if odd:
        why = (
            f"a segment lies at offset {odd[0].offset:#x} and wants address {odd[0].address:#x}, which differ in their "
            "place within a page. strip after patchelf, or patchelf itself, leaves such files."
        )
    elif small:
        why = f"its segments are made for pages of {small[0]} bytes, and this system has pages of {page}."
    else:
        why = "its segments do not fit the pages of this system."
    remedy = (
        Remedy(f"take a build that is linked for pages of {page} bytes (-Wl,-z,max-page-size={page})")
        if small and not odd
        else Remedy("build it again, and strip before patchelf, not after it; or take another version of patchelf")
    )
    return Finding(
        code=ALIGNMENT_CODE,
        title=(
            f"{path} is spoilt: its segments do not fit the pages"
            if odd or not small
            else f"{path} is for smaller pages"
        ),
        confidence=Confidence.CERTAIN, subject=path, chain=case.chain_to(_requester(path, case), path),
        explanation=f"The loader refused {path}{case.owner_of(path)}: {why}",
        evidence=(Evidence(Source.LOADER, "ELF load command not page-aligned"),
         Evidence(Source.FILES, f"alignments {', '.join(hex(align) for align in aligns) or 'not readable'}")),
        remedies=(remedy, *reinstall(case, path)),
    )  # fmt: skip
