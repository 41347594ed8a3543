"""Windows: a DLL that was not found, and lies where the loader does not look: why it does not look there."""

from __future__ import annotations

import ntpath
from dataclasses import replace

from ...model.finding import Evidence, Finding, Remedy, Source
from ...model.pe import PeImage
from ...model.tree import Binding
from ..case import Case
from ..environment import Copy
from ..windows_load import base_name, is_in, name_of

PATH_CODE = "path-not-searched"
CONDA_CODE = "conda-not-activated"
FLAGS_CODE = "search-restricted"
FOLDER_CODE = "folder-not-searched"

_FIRST_WITHOUT_PATH = (3, 8)


def with_copy(case: Case, binding: Binding, finding: Finding) -> Finding:
    """The finding, made precise by the copies that there are; as it is without any that the process could load."""
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
    return _elsewhere(fit[0], finding)


def _restricted(case: Case, binding: Binding, finding: Finding) -> Finding | None:
    """The image says itself where its needs are looked for (/DEPENDENTLOADFLAG), and that leaves out its own folder."""
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
    """The folders, in lower case, that would have been searched without the flags."""
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


def _elsewhere(copy: Copy, finding: Finding) -> Finding:
    return replace(
        finding,
        code=FOLDER_CODE,
        title=f"{finding.subject} lies in a folder that is not searched",
        explanation=f"{finding.explanation} {copy.path} ({copy.where}) has it, and the loader does not look there.",
        remedies=_add(ntpath.dirname(copy.path)),
    )


def _add(folder: str) -> tuple[Remedy, ...]:
    return (Remedy("in the program, before the import", code=f"os.add_dll_directory({folder!r})"),)


def _plain(folder: str) -> str:
    return ntpath.normcase(ntpath.normpath(folder))
