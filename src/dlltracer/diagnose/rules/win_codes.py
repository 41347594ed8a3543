"""Windows: failures that the error code itself explains, whatever the files look like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.pe import PeImage
from ..case import Case
from ..remedies import operand
from ..windows_load import CodeMeaning, LoadError, classify_code, code_evidence, described, firmness, name_of
from . import win_symbols

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
        yield _finding(case, meaning, kind)


def _finding(case: Case, meaning: CodeMeaning, kind: _Kind) -> Finding:
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
            for remedy in kind.remedies
        ),
    )


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
