"""Windows: a DLL that no searched place had. The cause depends on its kind and on copies elsewhere."""

from __future__ import annotations

import ntpath
import re
from collections.abc import Iterator
from dataclasses import replace

from ...model.environment import FileState, ProviderKind
from ...model.failure import ProcessFacts, System
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.loader_context import LoadFlags
from ...model.pe import PeImage
from ...model.tree import Binding, BindingState
from ..case import Case, Copy, PackageCheck
from ..remedies import find_providers, reinstall_by_pip
from ..windows_load import (
    LoadError,
    base_name,
    code_evidence,
    firmness,
    is_in,
    load_error,
    name_of,
    provider_remedies,
    was_loaded,
)

CODE = "missing-image"
FILE_CODE = "no-such-file"
DEBUG_CODE = "debug-build"
RUNTIME_CODE = "missing-vc-runtime"
FEATURE_CODE = "missing-windows-feature"
WINDOWS_CODE = "windows-too-old"
REMOVED_CODE = "package-file-missing"

_DEBUG = re.compile(
    r"(?:vcruntime140(?:_\d|_threads)?|ucrtbase|concrt140|vccorlib140|vcomp140|msvc[pr]\d{2,3})d(?:_\w+)?\.dll"
    r"|msvcp140_\dd\.dll|mfcm?\d{2,3}u?d\.dll"
)
_RUNTIME = re.compile(r"(?:vcruntime|msvcp|msvcr|concrt|vccorlib|vcomp|vcamp)\d{2,3}(?:_\w+)?\.dll|mfc\d{2,3}\w*\.dll")
_PYTHON = re.compile(r"python\d+t?(?:_d)?\.dll")


def check(case: Case) -> Iterator[Finding]:
    """Yield every missing DLL, never the images that fail because of it."""
    yield from _lost_modules(case)
    if load_error(case) not in (LoadError.NOT_FOUND, LoadError.UNKNOWN):
        return
    forwarded = {(item.exporter, item.target.rpartition(".")[0].lower()) for item in case.forwarders}
    for binding in case.failed_bindings(BindingState.MISSING):
        if was_loaded(case, binding.need):
            continue
        if not binding.requested_by:
            yield _file_itself(case, binding)
        elif _PYTHON.fullmatch(base_name(binding.need)):
            continue  # another rule
        elif (binding.requested_by, base_name(binding.need).removesuffix(".dll")) not in forwarded:
            yield _library(case, binding)


def _lost_modules(case: Case) -> Iterator[Finding]:
    """Yield the finding about the file of a module that was not found, if a package had installed it."""
    module = case.missing_module
    if module is None or case.run.process is None:
        return
    names = {f"{module.rpartition('.')[2]}{suffix}".lower() for suffix in case.run.process.suffixes}
    for check in case.checks:
        for changed in check.changed:
            if changed.state is FileState.ABSENT and base_name(changed.path) in names:
                finding = Finding(
                    code=REMOVED_CODE,
                    title="",
                    confidence=Confidence.CERTAIN, subject=changed.path, chain=case.chain_to(None, changed.path),
                    explanation=f"Python found no module {module}.",
                )  # fmt: skip
                yield _as_removed(finding, check, changed.path, case.run.process)


def _file_itself(case: Case, binding: Binding) -> Finding:
    finding = Finding(
        code=FILE_CODE,
        title=f"there is no {binding.need}",
        confidence=firmness(case), subject=binding.need, chain=case.chain_to(None, binding.need),
        probes=binding.probes,
        explanation=(
            f"The file asked for is not there{', nor where it was searched for' if len(binding.probes) > 1 else ''}."
        ),
        evidence=_evidence(case, binding),
        remedies=(Remedy("give the path of the file, or put its folder on the search with os.add_dll_directory"),),
    )
    return with_copy(case, binding, finding)


def _library(case: Case, binding: Binding) -> Finding:
    need = binding.need
    finding = Finding(
        code=CODE,
        title=f"{need} was not found",
        confidence=firmness(case), subject=need, chain=case.chain_to(binding.requested_by, need),
        probes=binding.probes,
        explanation=(
            f"{binding.requested_by}{case.owner_of(binding.requested_by)} cannot be loaded without {need}, and no "
            "place searched "
            "has it."
        ),
        evidence=_evidence(case, binding),
        remedies=tuple(provider_remedies(need)),
    )
    removed = _removed(case, need)
    if removed is not None:
        return _as_removed(finding, *removed, case.run.process)
    kind = _of_kind(case, finding, binding)
    return kind if kind is not None else with_copy(case, binding, finding)


def _of_kind(case: Case, finding: Finding, binding: Binding) -> Finding | None:
    """Return the finding for a DLL that its name alone identifies; `None` for any other."""
    name = base_name(finding.subject)
    if _DEBUG.fullmatch(name):
        return replace(
            finding,
            code=DEBUG_CODE,
            title=f"{name_of(binding.requested_by)} is a debug build: it needs {finding.subject}",
            explanation=f"{finding.explanation} {finding.subject} is a debug runtime: Visual Studio alone installs it, "
            "and it may not be passed on.",
        )
    if name.startswith(("api-ms-win-", "ext-ms-")):
        return replace(
            finding,
            code=WINDOWS_CODE,
            title=f"this Windows has no {finding.subject}, which {name_of(binding.requested_by)} needs",
            explanation=f"{finding.explanation} It is a contract of Windows itself: only a newer Windows has it, and "
            "no file can be installed for it.",
            remedies=(Remedy("use a newer Windows, or a version of the package (or of Python) for this one"),),
        )
    providers = find_providers(name, System.WINDOWS)
    if any(provider.kind is ProviderKind.WINDOWS_FEATURE for provider in providers):
        return replace(
            finding,
            code=FEATURE_CODE,
            title=f"{finding.subject} is missing: a part of Windows that this edition comes without",
            explanation=f"{finding.explanation} {binding.reason or 'Some editions of Windows come without it'}.",
        )
    if _RUNTIME.fullmatch(name) and not case.copies.get(name):
        return replace(
            finding,
            code=RUNTIME_CODE,
            title=f"the Visual C++ runtime is missing: {finding.subject}",
            explanation=f"{finding.explanation} It is part of the Visual C++ runtime, which is not part of Windows.",
        )
    if name in case.windows_own:
        return replace(
            finding,
            explanation=f"{finding.explanation} It is a file of Windows itself: this Windows is older than the file "
            "that needs it, it is damaged, or it is none (Wine).",
            remedies=(Remedy("use a newer or repaired Windows; a single DLL of another one does not help"),),
        )
    return None


def _evidence(case: Case, binding: Binding) -> tuple[Evidence, ...]:
    says = f"none of the {len(binding.probes)} places that the rules lead to has a {binding.need}"
    return (*code_evidence(case), Evidence(Source.FILES, says))


def _removed(case: Case, need: str) -> tuple[PackageCheck, str] | None:
    """Return the package that had installed a file of that name, and its path; `None` if none had."""
    for check in case.checks:
        for changed in check.changed:
            if changed.state is FileState.ABSENT and base_name(changed.path) == base_name(need):
                return check, changed.path
    return None


def _as_removed(finding: Finding, check: PackageCheck, path: str, process: ProcessFacts | None) -> Finding:
    return replace(
        finding,
        code=REMOVED_CODE,
        title=f"{name_of(path)} was installed by {check.package} and is gone",
        subject=path,
        explanation=f"{finding.explanation} {check.package} installed it as {path}, and it is not there any more: an "
        "antivirus program may have taken it away, or somebody deleted it.",
        evidence=(*finding.evidence, Evidence(Source.PACKAGES, f"the RECORD of {check.package} lists {path}")),
        remedies=(
            Remedy("look into the quarantine of the antivirus program"),
            reinstall_by_pip(check.name, "", check.folder, process),
        ),
    )


PATH_CODE = "path-not-searched"
CONDA_CODE = "conda-not-activated"
FLAGS_CODE = "search-restricted"
FOLDER_CODE = "folder-not-searched"

_FIRST_WITHOUT_PATH = (3, 8)
_SEARCH_OF_ADDED = LoadFlags.USER_DIRS | LoadFlags.DEFAULT_DIRS


def with_copy(case: Case, binding: Binding, finding: Finding) -> Finding:
    """Return the finding with the copies that the process could load; unchanged if there are none."""
    copies = case.copies.get(base_name(binding.need), ())
    unfit = [copy for copy in copies if copy.unfit is not None]
    if unfit:
        says = "; ".join(f"{copy.path} has that name, but {copy.unfit}" for copy in unfit[:3])
        finding = replace(finding, evidence=(*finding.evidence, Evidence(Source.FILES, says)))
    restricted = _restricted(case, binding, finding)
    if restricted is not None:
        return restricted
    fit = [copy for copy in copies if copy.unfit is None]
    if not fit:
        return finding
    for build in (_in_conda, _on_path):
        for copy in fit:
            precise = build(case, copy, finding)
            if precise is not None:
                return precise
    return _elsewhere(case, fit, finding)


def _restricted(case: Case, binding: Binding, finding: Finding) -> Finding | None:
    """Return the finding about an image whose /DEPENDENTLOADFLAG leaves out its own folder."""
    image = case.images.get(binding.requested_by)
    flags = image.dependent_load_flags if isinstance(image, PeImage) else 0
    tried = {ntpath.normcase(probe.path) for probe in binding.probes}
    for copy in case.copies.get(base_name(binding.need), ()) if flags else ():
        is_beside = ntpath.dirname(copy.path).lower() in _folders_of_load(case, binding)
        if copy.unfit is None and is_beside and ntpath.normcase(copy.path) not in tried:
            return replace(
                finding,
                code=FLAGS_CODE,
                title=f"{name_of(binding.requested_by)} forbids the search of the folder that has {binding.need}",
                explanation=f"{binding.requested_by}{case.owner_of(binding.requested_by)} was linked with "
                f"/DEPENDENTLOADFLAG:{flags:#x}, which replaces the search of whoever loads it: {copy.path} is not "
                "looked at.",
                evidence=(
                    *finding.evidence,
                    Evidence(Source.FILES, f"its load configuration has the flags {flags:#x}"),
                ),
                remedies=(
                    Remedy(f"load {binding.need} before the import", code=f"ctypes.CDLL({copy.path!r})"),
                    Remedy(f"or have {name_of(binding.requested_by)} linked without that option"),
                ),
            )
    return None


def _folders_of_load(case: Case, binding: Binding) -> set[str]:
    """Return the folders, in lower case, that would have been searched without the flags."""
    files = (case.subject or "", binding.requested_by)
    added = case.run.process.added_folders if case.run.process is not None else ()
    return {folder.lower() for folder in (*map(ntpath.dirname, files), *added) if folder}


def _in_conda(case: Case, copy: Copy, finding: Finding) -> Finding | None:
    process = case.run.process
    if process is None or copy.where != "the conda environment" or not is_in(copy.path, process.prefix):
        return None
    active = process.variable("CONDA_PREFIX")
    if active and ntpath.normcase(active) == ntpath.normcase(process.prefix):
        return None
    other = f"; the active one is {active}" if active else ""
    return replace(
        finding,
        code=CONDA_CODE,
        title=f"the conda environment {process.prefix} is not activated, so {finding.subject} in it is not found",
        explanation=f"{finding.explanation} {copy.path} has it. Activation is what makes its folder searched: this "
        f"Python was started without{other}.",
        remedies=(Remedy("activate the environment first", ("conda", "activate", process.prefix)),),
    )


def _on_path(case: Case, copy: Copy, finding: Finding) -> Finding | None:
    process = case.run.process
    if process is None or process.version[:2] < _FIRST_WITHOUT_PATH:
        return None
    folder = ntpath.dirname(copy.path)
    entries = (entry.strip('"') for entry in process.variable("PATH").split(";"))
    if _plain(folder) not in {_plain(entry) for entry in entries if entry}:
        return None
    return replace(
        finding,
        code=PATH_CODE,
        title=f"{finding.subject} is in a folder of PATH, which is not searched for the needs of extension modules",
        explanation=f"{finding.explanation} {copy.path} is on PATH, and Python does not search it since 3.8: "
        "the program has to add the folder itself.",
        remedies=_add(folder),
    )


def _elsewhere(case: Case, copies: list[Copy], finding: Finding) -> Finding:
    others = {_plain(folder): why for folder, why in case.other_folders}
    copy = next((one for one in copies if _plain(ntpath.dirname(one.path)) in others), copies[0])
    folder = ntpath.dirname(copy.path)
    why = others.get(_plain(folder), "")
    reason = f" os.add_dll_directory had that folder: {why}." if why else ""
    remedies = _add(folder)
    if case.load_flags is not None and not case.load_flags & _SEARCH_OF_ADDED:
        reason += (
            f" The call gave the flags {case.load_flags:#x} (winmode of ctypes): with these, Windows looks in none of "
            f"the folders of os.add_dll_directory{'' if case.load_flags else ', nor that of the library, but PATH'}."
        )
        remedies = (Remedy("leave winmode out of the call"), Remedy(f"or put {folder} on PATH before it"))
    return replace(
        finding,
        code=FOLDER_CODE,
        title=f"{finding.subject} lies in a folder that is not searched",
        explanation=f"{finding.explanation} {copy.path} ({copy.where}) has it, and the loader does not look there."
        + reason,
        remedies=remedies,
    )


def _add(folder: str) -> tuple[Remedy, ...]:
    return (Remedy("in the program, before the import", code=f"os.add_dll_directory({folder!r})"),)


def _plain(folder: str) -> str:
    return ntpath.normcase(ntpath.normpath(folder))
