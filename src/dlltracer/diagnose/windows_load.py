"""What the rules for Windows ask of a case: which kind of failure it is, how firm that is, and the words for it."""

from __future__ import annotations

import ntpath

from ..model.environment import PackageManager, ProviderKind
from ..model.events import ImageEvent, Phase
from ..model.failure import System
from ..model.finding import Confidence, Evidence, Remedy, Source
from ..model.pe import PeImage
from ..model.words import RULES
from .codes import LoadError, classify_code
from .remedies import NO_DLL_SITES, find_providers, reinstall_by_pip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model.tree import Binding
    from .case import Case

WINE_STUB = 0x80000100
"""EXCEPTION_WINE_STUB (Wine's include/winternl.h): Wine binds a symbol that is missing, and raises at its call."""

def load_error(case: Case) -> LoadError | None:
    """The kind of failure that Windows reported; `None` if it was no failure of its loader.

    `LoadError.UNKNOWN`: a load failed, and the code behind the words is not known.
    """
    if case.code is not None:
        return classify_code(case.code).error
    if case.run.crash is not None and case.run.crash.code == WINE_STUB:
        return LoadError.SYMBOL_NOT_FOUND
    if case.is_program or (case.error is not None and case.error.message.startswith("DLL load failed")):
        return LoadError.UNKNOWN
    return None


def firmness(case: Case) -> Confidence:
    """How sure a cause is that the files show and the code fits: by how the code came to be known."""
    return Confidence.CERTAIN if case.code is not None and not case.code_is_guess else Confidence.LIKELY


def code_evidence(case: Case) -> tuple[Evidence, ...]:
    """The code, with its meaning."""
    if case.code is None:
        return ()
    meaning = classify_code(case.code)
    guess = ", as concluded from the words of the exception" if case.code_is_guess else ""
    number = str(case.code) if case.code < 1 << 16 else f"{case.code:#010x}"
    return (Evidence(Source.SYSTEM, f"Windows' error {number} {meaning.name}: {meaning.meaning}{guess}"),)


def why_taken(phase: Phase | None) -> str:
    """The rule that chose a copy, as a clause."""
    return (RULES[phase].reason if phase is not None else "") or "the loader's rules led to it"


def base_name(path: str) -> str:
    """The last part of a path, in lower case: what Windows compares."""
    return ntpath.basename(path).lower()


def name_of(path: str) -> str:
    """The last part of a path, for people."""
    return ntpath.basename(path)


def is_in(path: str, folder: str) -> bool:
    """Whether the file lies in that folder or below."""
    top = ntpath.normcase(ntpath.normpath(folder)).rstrip("\\") + "\\" if folder else ""
    return bool(top) and ntpath.normcase(ntpath.normpath(path)).startswith(top)


def is_of_windows(path: str) -> bool:
    """Whether a file lies in the system folder."""
    return base_name(ntpath.dirname(path)) in ("system32", "syswow64")


def first_importer(case: Case, path: str) -> str:
    """Who brought an image into the process, as a clause: "import pyarrow" ...; empty if that was not seen."""
    loads = case.run.recording.loads if case.run.recording is not None else ()
    wanted = ntpath.normcase(path)
    for event in loads:
        if ntpath.normcase(event.shown_path) == wanted:
            return " > ".join(f"import {name}" for name in event.imports[-2:]) if event.imports else ""
    return ""


def was_loaded(case: Case, name: str) -> bool:
    """Whether an image of that base name was seen to come into the process, if only for a moment.

    Then it was found, by a rule that is not known here: SetDllDirectory or AddDllDirectory called by native code.
    """
    events = case.run.recording.events if case.run.recording is not None else ()
    wanted = base_name(name)
    return any(isinstance(event, ImageEvent) and base_name(event.shown_path) == wanted for event in events)


def version_of(case: Case, path: str) -> str:
    """The file version of an image, "14.28.29334.0"; empty if it has none, or was not read."""
    image = case.images.get(path)
    version = image.resources.file_version if isinstance(image, PeImage) and image.resources is not None else None
    return ".".join(map(str, version)) if version else ""


def described(case: Case, path: str) -> str:
    """An image with its version and the package that shipped it."""
    version = version_of(case, path)
    return f"{path}{f' {version}' if version else ''}{case.owner_of(path)}"


def provider_remedies(name: str) -> Iterator[Remedy]:
    """Safe sources of a DLL, and the word against unsafe ones."""
    for provider in find_providers(name, System.WINDOWS):
        note = f" ({provider.note})" if provider.note else ""
        source = f", {provider.url}" if provider.url else ""
        verb = "needed" if provider.kind in (ProviderKind.REBUILD, ProviderKind.NEWER_WINDOWS) else "install"
        yield Remedy(f"{verb} {provider.name}{source}{note}", provider.command)
    yield Remedy(NO_DLL_SITES)


def reinstall(case: Case, path: str | None) -> Iterator[Remedy]:
    """Install the package of a file again, if pip knows whose it is."""
    for owner in case.owners.get(path or "", ()):
        if owner.manager is PackageManager.PIP:
            yield reinstall_by_pip(owner.package, owner.version, owner.folder, case.run.process)
            return


def binding_of(case: Case, requested_by: str, library: str) -> Binding | None:
    """What became of that need of that image."""
    wanted = library.lower()
    for binding in case.tree.bindings if case.tree is not None else ():
        if binding.requested_by == requested_by and binding.need.lower() == wanted and not binding.delayed:
            return binding
    return None
