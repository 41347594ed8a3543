"""Windows: a file that is no image for this process, or was built for another Python."""

from __future__ import annotations

import ntpath
import re
from collections.abc import Iterator

from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.tree import Binding, BindingState
from ..case import Case
from ..remedies import operand
from ..windows_load import LoadError, base_name, code_evidence, firmness, load_error, name_of, reinstall

MACHINE_CODE = "wrong-machine"
CODE = "not-an-image"
TRUNCATED_CODE = "truncated-image"
DAMAGED_CODE = "damaged-image"
UNREADABLE_CODE = "unreadable-image"

_CUT = ("cut short", "beyond the end", "ends before")
_OTHER = ("not a PE file", "a Linux library", "not a file", "empty")

_FITTING = (LoadError.BAD_IMAGE, LoadError.NOT_FOUND, LoadError.UNKNOWN, LoadError.ACCESS_DENIED)


def check_image(case: Case) -> Iterator[Finding]:
    """Yield the finding about the requested file, or one of its needs, that is no image for the process."""
    error = load_error(case)
    if error not in _FITTING:
        return
    for path, problem in case.damaged.items() if error is not LoadError.NOT_FOUND else ():
        yield _damaged(case, path, problem, firmness(case), case.chain_to(None, path))
    for binding in case.failed_bindings(BindingState.REFUSED):
        # A need that is refused is a need that was not found, to some loaders.
        confidence = Confidence.LIKELY if error is LoadError.NOT_FOUND else firmness(case)
        yield _refused(case, binding, confidence)


def _refused(case: Case, binding: Binding, confidence: Confidence) -> Finding:
    path, reason = binding.path or binding.need, binding.reason or "it is not an image for this process"
    chain = case.chain_to(binding.requested_by or None, path)
    if "access denied" in reason:
        return Finding(
            code=UNREADABLE_CODE,
            title=f"{path} may not be read",
            confidence=confidence,
            subject=path,
            chain=chain,
            probes=binding.probes,
            explanation=f"{_whose(case, path)} is there, and this user may not read it.",
            evidence=(*code_evidence(case), Evidence(Source.FILES, reason)),
            remedies=(Remedy("look at its permissions", ("icacls", operand(path))),),
        )
    if not reason.startswith("made for"):
        return _damaged(case, path, reason, confidence, chain, binding)
    return Finding(
        code=MACHINE_CODE,
        title=f"{name_of(path)} is for another kind of processor: {reason}",
        confidence=confidence, subject=path, chain=chain, probes=binding.probes,
        explanation=(
            f"{_whose(case, path)} is {reason}. 32-bit and 64-bit, and different processors, cannot be mixed in one "
            "process, and no other copy for this one was found where the loader looks."
        ),
        evidence=(*code_evidence(case), Evidence(Source.FILES, f"{path}: {reason}")),
        remedies=(
            Remedy("install the package with the pip of this very Python, or use a Python of the kind the file is for"),
            *reinstall(case, path),
        ),
    )


def _damaged(
    case: Case, path: str, problem: str, confidence: Confidence, chain: tuple[str, ...], binding: Binding | None = None
) -> Finding:
    return Finding(
        code=_kind(problem),
        title=f"{name_of(path)} is no DLL, or not a whole one: {problem.rpartition('): ')[2]}",
        confidence=confidence,
        subject=path,
        chain=chain,
        probes=binding.probes if binding is not None else (),
        explanation=f"{_whose(case, path)} is there, and Windows cannot load it: {problem}.",
        evidence=(*code_evidence(case), Evidence(Source.FILES, f"{path}: {problem}")),
        remedies=(*reinstall(case, path), Remedy("replace the file with a whole one, from where it came")),
    )


def _kind(problem: str) -> str:
    """Return the code of the finding for a problem as the readers of images describe it."""
    if any(words in problem for words in _OTHER):
        return CODE
    return TRUNCATED_CODE if any(words in problem for words in _CUT) else DAMAGED_CODE


def _whose(case: Case, path: str) -> str:
    return f"{path}{case.owner_of(path)}"


PYTHON_CODE = "other-libpython"
INCOMPLETE_CODE = "incomplete-python"

_CONFLICT = re.compile(r"Module use of (python\d+t?(?:_d)?\.dll) conflicts with this version of Python")
"""Python/dynload_win.c of CPython, in no other language."""
_PYTHON = re.compile(r"python(\d)(\d*)(t?)(_d)?\.dll")
_STUBS = ("python3.dll", "python3t.dll", "python3_d.dll", "python3t_d.dll")


def check_python(case: Case) -> Iterator[Finding]:
    """Yield the finding about a module that needs the DLL of another Python."""
    if case.run.process is None:
        return
    own = own_dlls(case)
    conflict = _CONFLICT.search(case.error.message) if case.error is not None else None
    if conflict is not None:
        says = Evidence(Source.PYTHON, f"it found {conflict[1]} among the imports of the module")
        yield _finding(case, conflict[1], case.subject, (says,), Confidence.CERTAIN)
    if load_error(case) not in (LoadError.NOT_FOUND, LoadError.UNKNOWN):
        return
    for binding in case.failed_bindings(BindingState.MISSING):
        name = base_name(binding.need)
        if not binding.requested_by or not _PYTHON.fullmatch(name):
            continue
        if case.is_program or name in own:
            yield _incomplete(case, binding)
        else:
            sentence = f"{binding.requested_by} imports {binding.need}, and no place searched has it"
            says = Evidence(Source.FILES, sentence)
            yield _finding(case, binding.need, binding.requested_by, (*code_evidence(case), says), firmness(case))


def own_dlls(case: Case) -> frozenset[str]:
    """Return the names, in lower case, of the DLLs that belong to the interpreter of the case.

    python3.dll, and python3t.dll of free-threaded builds, only pass on to the DLL of the version. The limited API is
    bound to them, so that a module fits every version ("Stable Application Binary Interface", Python documentation).
    """
    process = case.run.process
    if process is None:
        return frozenset()
    major, minor = process.version[:2]
    t, debug = "t" if process.is_free_threaded else "", "_d" if process.is_debug else ""
    return frozenset({f"python{major}{minor}{t}{debug}.dll", f"python{major}{t}{debug}.dll"})


def _incomplete(case: Case, binding: Binding) -> Finding:
    """Return the finding about a DLL of this Python that the folder of python.exe lacks."""
    process = case.run.process
    assert process is not None
    need, requested_by = binding.need, binding.requested_by
    folder = ntpath.dirname(requested_by if case.is_program else process.loaded[0] if process.loaded else "")
    is_stub = base_name(need) in _STUBS
    whose = "this Python" if not case.is_program else name_of(requested_by)
    what = (
        f"{need} is a part of every Python: the limited API, which {name_of(requested_by)} uses, is bound to it, and "
        "it passes every call on to the DLL of the version."
        if is_stub
        else f"{need} is the interpreter itself."
    )
    return Finding(
        code=INCOMPLETE_CODE,
        title=f"{need} is missing from {whose}, and {name_of(requested_by)} needs it",
        confidence=firmness(case), subject=need, chain=case.chain_to(requested_by, need), probes=case.probes_of(need),
        explanation=(
            f"{what} It belongs into the folder of the program{f', {folder}' if folder else ''}. Bundles of programs "
            "(PyInstaller, Nuitka, cx_Freeze, embedded copies) leave it out now and then."
        ),
        evidence=(
            *code_evidence(case),
            Evidence(Source.FILES, f"{requested_by} imports {need}, and no place searched has it"),
        ),
        remedies=(
            Remedy(f"copy {need} from a Python of the same version and kind into the folder of the program"),
            Remedy("in a bundle, collect it: pyinstaller --add-binary, or the like of your tool"),
            Remedy("or install this Python again"),
        ),
    )  # fmt: skip


def _finding(
    case: Case, dll: str, requested_by: str | None, evidence: tuple[Evidence, ...], confidence: Confidence
) -> Finding:
    process = case.run.process
    assert process is not None
    own = ".".join(map(str, process.version[:2]))
    theirs = describe_python(dll)
    is_stub = base_name(dll) in _STUBS
    why = (
        "It uses the limited API, for which each kind of build has a DLL of its own: the usual one, the free-threaded "
        "one, the debug build."
        if is_stub
        else "A module without the limited API works with the one version that it was built for."
    )
    file = name_of(requested_by or case.subject or "the module")
    return Finding(
        code=PYTHON_CODE,
        title=f"{file} was built for {theirs}, and this is {_python_kind(case)}Python {own}",
        confidence=confidence, subject=requested_by or dll, chain=case.chain_to(requested_by, dll),
        probes=case.probes_of(dll),
        explanation=(
            f"{requested_by or 'The module'}{case.owner_of(requested_by) if requested_by else ''} asks for {dll}, "
            "which belongs to "
            f"{theirs}. {why}"
        ),
        evidence=evidence,
        remedies=(
            Remedy(f"install a build of it for Python {own}, with the pip of this Python: {process.executable}"),
        ),
    )


def describe_python(dll: str) -> str:
    """Return in words which Python a python*.dll belongs to."""
    found = _PYTHON.fullmatch(dll.lower())
    if found is None:
        return f"the Python of {dll}"
    kind = f"{'a debug build of ' if found[4] else ''}{'free-threaded ' if found[3] else ''}"
    usual = "the usual build of " if not found[2] and not kind else ""
    return f"{usual}{kind}Python {found[1]}{f'.{found[2]}' if found[2] else ''}"


def _python_kind(case: Case) -> str:
    assert case.run.process is not None
    debug = "a debug build of " if case.run.process.is_debug else ""
    return f"{debug}{'free-threaded ' if case.run.process.is_free_threaded else ''}"
