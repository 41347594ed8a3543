"""Windows: failures that the error code explains, and files that are no images for this process or this Python."""

from __future__ import annotations

import ntpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.pe import PeImage
from ...model.tree import Binding, BindingState
from ..case import Case
from ..providers import find_providers, install_remedies
from ..remedies import operand, reinstall
from ..windows_load import (
    CodeMeaning,
    LoadError,
    base_name,
    classify_code,
    code_evidence,
    described,
    firmness,
    load_error,
    name_of,
)
from . import win_symbols

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


DENIED_CODE = "access-denied"
BLOCKED_CODE = "blocked-by-policy"
MEMORY_CODE = "out-of-memory"
PACKED_CODE = "invalid-access"
ASSEMBLY_CODE = "side-by-side"
PATH_CODE = "path-too-long"
FOLDERS_CODE = "too-many-folders"
WINDOWS_CODE = "windows-too-old"
INITIALISER_CODE = "initialiser-failed"

_MAX_PATH = 260
"""MAX_PATH of minwindef.h: LoadLibraryEx is not among the functions that LongPathsEnabled extends."""
_LONGEST_SEARCH_PATH = 32767
"""Characters of a UNICODE_STRING, in which ntdll keeps the folders that it searches."""
_MANY_FOLDERS = 30000


@dataclass(frozen=True)
class _Kind:
    """The texts about a code; "{file}" and "{meaning}" are filled in."""

    code: str
    title: str
    remedies: tuple[Remedy, ...]


_KINDS = {
    LoadError.ACCESS_DENIED: _Kind(
        DENIED_CODE,
        "{file} may not be loaded: {meaning}",
        (
            Remedy("look at its permissions", ("icacls", "{file}")),
            Remedy("look into the log of the antivirus or endpoint protection program, and ask for an exception"),
        ),
    ),
    LoadError.BLOCKED: _Kind(
        BLOCKED_CODE,
        "Windows blocks {file}: {meaning}",
        (
            Remedy(
                "Event Viewer names the policy: Applications and Services Logs, Microsoft, Windows, CodeIntegrity, "
                "Operational (events 3033 and 3077) or AppLocker, EXE and DLL; and the protection history of Windows "
                "Security"
            ),
            Remedy("ask whoever sets the policy for an exception, or the package's makers for signed files"),
        ),
    ),
    LoadError.ELEVATION: _Kind(
        DENIED_CODE,
        "{file} asks to be run as administrator",
        (
            Remedy("start the program from a prompt that was opened with Run as administrator, if you trust it"),
            Remedy("or use a build of it whose manifest asks for no more than the user has (asInvoker)"),
        ),
    ),
    LoadError.NOT_FETCHED: _Kind(
        UNREADABLE_CODE,
        "{file} is not on this disk: {meaning}",
        (
            Remedy("start the sync program (OneDrive), and have the folder always kept on this device (Explorer, menu "
                   "of the folder)"),
            Remedy("or make the environment in a folder that is not synchronised"),
        ),
    ),
    LoadError.OUT_OF_MEMORY: _Kind(
        MEMORY_CODE,
        "there is not enough memory to load {file}: {meaning}",
        (
            Remedy("start fewer processes at a time: each one loads its own copy"),
            Remedy("let Windows manage the size of the paging file (System, Advanced, Performance, Virtual memory)"),
        ),
    ),
    LoadError.INVALID_ACCESS: _Kind(
        PACKED_CODE,
        "{file} touched memory that it may not while it was loaded",
        (Remedy("install the package again; if an executable packer (UPX) made the file smaller, build without it"),),
    ),
    LoadError.SIDE_BY_SIDE: _Kind(
        ASSEMBLY_CODE,
        "{file} needs a side-by-side assembly that is not installed",
        (
            Remedy(
                "install what it names: for Microsoft.VC80 and VC90 the Visual C++ 2005 or 2008 Redistributable, "
                "https://learn.microsoft.com/cpp/windows/latest-supported-vc-redist"
            ),
            Remedy("see which assembly is asked for: sxstrace.exe, or Event Viewer, Windows Logs, Application"),
        ),
    ),
    LoadError.WINDOWS_TOO_OLD: _Kind(
        WINDOWS_CODE,
        "{file} needs a newer version of Windows",
        (Remedy("use a newer Windows, or a version of the package for this one"),),
    ),
    LoadError.INITIALISATION_FAILED: _Kind(
        INITIALISER_CODE,
        "the initialiser of {file} failed: it was found and loaded, and its own code refused",
        (
            Remedy(
                "look at what the package asks of the machine (processor, driver, configuration), and for a newer one"
            ),
        ),
    ),
}


_ANTIVIRUS = (
    Remedy(
        "see in the protection history of the antivirus program (Windows Security) what it takes the file for, and ask "
        "the makers of the package whether it is theirs: do not allow what you do not trust"
    ),
    Remedy("if it is a false alarm, allow the file there, and install the package again: the file may be gone"),
)
_REMEDIES_BY_CODE = {
    32: (Remedy("wait until the installer, update or scan is over, or end the other program, and try again"),),
    225: _ANTIVIRUS,
    226: _ANTIVIRUS,
    1920: (
        Remedy("look where it leads: dir /AL in its folder lists links; make a broken one, or the environment, again"),
        Remedy("look into the log of the antivirus program, and whether the sync program of the folder runs"),
    ),
}
"""Remedies that are better than those of the kind of failure."""


def check(case: Case) -> Iterator[Finding]:
    """Yield the finding about an error code that explains itself."""
    if case.code is None:
        return
    meaning = classify_code(case.code)
    if meaning.error is LoadError.PATH_TOO_LONG:
        yield from _too_long(case)
        return
    kind = _KINDS.get(meaning.error)
    if kind is not None:
        yield _win_codes_finding(case, meaning, kind)


def _win_codes_finding(case: Case, meaning: CodeMeaning, kind: _Kind) -> Finding:
    # The initialiser of a DLL that touches memory that it may not ends the load with that code, too.
    is_initialiser = meaning.error in (LoadError.INITIALISATION_FAILED, LoadError.INVALID_ACCESS)
    file = (case.run.initialising if is_initialiser else None) or case.subject or "the file"
    causes = f" It can be: {'; '.join(meaning.causes)}." if meaning.causes else ""
    named = f" It names {', '.join(_assemblies(case))}." if meaning.error is LoadError.SIDE_BY_SIDE else ""
    return Finding(
        code=kind.code,
        title=kind.title.format(file=name_of(file), meaning=meaning.meaning),
        confidence=_confidence(case, is_initialiser), subject=file,
        chain=case.chain_to(file if case.subject is not None else None, file),
        explanation=(
            f"{described(case, file)} is there. Windows' code is {meaning.code}: {meaning.meaning}.{named}{causes}"
        ),
        evidence=(*code_evidence(case), *_initialiser_evidence(case, is_initialiser)),
        remedies=tuple(
            replace(remedy, command=tuple(operand(file) if word == "{file}" else word for word in remedy.command))
            for remedy in (*_REMEDIES_BY_CODE.get(meaning.code, kind.remedies), *_newer_runtime(case, meaning))
        ),
    )


def _newer_runtime(case: Case, meaning: CodeMeaning) -> Iterator[Remedy]:
    """Yield the newest Visual C++ runtime where an initialiser failed of a load that uses one: the usual cause.

    A copy that is known to be too old is another finding (`win_symbols.check_runtime`). Newer ones serve all programs.
    """
    needs = (base_name(one.need) for one in (case.tree.bindings if case.tree is not None else ()))
    if meaning.error is LoadError.INITIALISATION_FAILED and any(name.startswith(_VC_RUNTIME) for name in needs):
        installers = (one for one in find_providers("msvcp140.dll", case.system) if one.url)
        yield from (replace(one, what=f"or {one.what}") for one in install_remedies(installers))


_VC_RUNTIME = ("msvcp140", "vcruntime140", "concrt140")


def _confidence(case: Case, is_initialiser: bool) -> Confidence:
    """Return how sure a finding is: the code does not tell whose initialiser failed, nor why."""
    if is_initialiser and (case.run.initialising is None or any(win_symbols.check_runtime(case))):
        return Confidence.LIKELY
    return firmness(case)


def _initialiser_evidence(case: Case, is_initialiser: bool) -> tuple[Evidence, ...]:
    if not is_initialiser or case.run.initialising is None:
        return ()
    return (
        Evidence(
            Source.SYSTEM, f"{case.run.initialising} fails so when it is loaded alone, and what it needs does not"
        ),
    )


def _assemblies(case: Case) -> list[str]:
    image = case.images.get(case.subject or "")
    asked = image.resources.assemblies if isinstance(image, PeImage) and image.resources is not None else ()
    return [f"{one.name}{f' {one.version}' if one.version else ''}" for one in asked] or [
        "no assembly that could be read"
    ]


def _too_long(case: Case) -> Iterator[Finding]:
    """Yield the finding about error 206, which has two causes: the lengths of the paths decide."""
    paths = [case.subject or "", *(case.tree.images if case.tree is not None else ())]
    longest = max(paths, key=len)
    folders = case.run.process.added_folders if case.run.process is not None else ()
    taken = sum(len(folder) + 1 for folder in folders)
    if len(longest) >= _MAX_PATH:
        yield Finding(
            code=PATH_CODE,
            title=f"the path of {name_of(longest)} is too long: it has {len(longest)} characters",
            confidence=firmness(case), subject=longest, chain=case.chain_to(None, longest),
            explanation=(
                f"LoadLibraryEx takes paths of fewer than {_MAX_PATH} characters, whatever the setting for long paths "
                "is."
            ),
            evidence=(*code_evidence(case), Evidence(Source.FILES, f"{len(longest)} characters: {longest}")),
            remedies=(
                Remedy("put the environment into a folder with a short path (C:\\venv), or map a drive to it (subst)"),
            ),
        )
    elif taken >= _MANY_FOLDERS or case.subject is None:
        yield Finding(
            code=FOLDERS_CODE,
            title=f"too many folders were added to the search for DLLs: {len(folders)}, with {taken} characters",
            confidence=firmness(case) if taken >= _MANY_FOLDERS else Confidence.LIKELY, subject="os.add_dll_directory",
            chain=case.chain_to(None),
            explanation=f"Windows keeps all of them in one text of at most {_LONGEST_SEARCH_PATH} characters.",
            evidence=(
                *code_evidence(case),
                Evidence(Source.PYTHON, f"os.add_dll_directory was called {len(folders)} times"),
            ),
            remedies=(
                Remedy("close() what os.add_dll_directory returned when the import is over"),
                Remedy("import fewer of the packages that add folders, or shorten the path of the environment"),
            ),
        )
