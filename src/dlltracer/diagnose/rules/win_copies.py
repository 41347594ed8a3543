"""Windows: copies of a missing DLL, and why the loader did not come by them.

Sources: "Dynamic-link library search order", "/DEPENDENTLOADFLAG" (MS Learn); "What's New In Python 3.8" (os, ctypes).
"""

from __future__ import annotations

import ntpath
from dataclasses import replace

from ...model.environment import has_hash
from ...model.finding import Evidence, Finding, Remedy, Source
from ...model.loader_context import LoadFlags
from ...model.pe import PeImage
from ...model.tree import Binding
from ..case import Case, Copy
from ..remedies import reinstall
from ..windows_load import base_name, is_in, name_of

PATH_CODE = "path-not-searched"
CONDA_CODE = "conda-not-activated"
FLAGS_CODE = "search-restricted"
FOLDER_CODE = "folder-not-searched"
OTHER_VERSION = "its name is that of another version"
"""Why a copy does not fit whose name differs in numbers only: the words of `Copy.unfit`."""
CONDA = "the conda environment"
"""What kind of place a copy lies in: the words of `Copy.where`."""

_FIRST_WITHOUT_PATH = (3, 8)
_SEARCH_OF_ADDED = LoadFlags.USER_DIRS | LoadFlags.DEFAULT_DIRS


def with_copy(case: Case, binding: Binding, finding: Finding) -> Finding:
    """Return the finding with the copies that the process could load; unchanged if there are none."""
    copies = case.copies.get(base_name(binding.need), ())
    unfit = [copy for copy in copies if copy.unfit is not None]
    versions = [copy.path for copy in unfit if copy.unfit == OTHER_VERSION]
    if versions:
        requester = name_of(binding.requested_by) or "the program"
        remedy = Remedy(
            f"bring {requester} and {name_of(versions[0])} to versions that belong together; a renamed copy is no help"
        )
        finding = replace(
            finding,
            explanation=f"{finding.explanation} There is {', '.join(versions[:3])}: another version, by its name.",
            remedies=(remedy, *finding.remedies),
        )
    unfit = [copy for copy in unfit if copy.unfit != OTHER_VERSION]
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
    prefix = _conda_prefix(case, copy.path)
    if process is None or copy.where != CONDA or prefix is None:
        return None
    active = process.variable("CONDA_PREFIX")
    if active and ntpath.normcase(active) == ntpath.normcase(prefix):
        return None
    other = f"; the active one is {active}" if active else ""
    is_base = ntpath.normcase(prefix) != ntpath.normcase(process.prefix)
    behind = f", from which the virtual environment {process.prefix} was made," if is_base else ""
    return replace(
        finding,
        code=CONDA_CODE,
        title=f"the conda environment {prefix}{' behind this one' if is_base else ''} is not activated, so "
        f"{finding.subject} in it is not found",
        explanation=f"{finding.explanation} {copy.path} has it. Activation is what makes its folder searched: this "
        f"Python was started without{other}. {prefix}{behind} is conda's.",
        remedies=(
            Remedy(
                f"activate that environment first{', then the virtual one' if is_base else ''}",
                ("conda", "activate", prefix),
            ),
            *(_add(ntpath.dirname(copy.path)) if is_base else ()),
        ),
    )


def _conda_prefix(case: Case, path: str) -> str | None:
    """Return which prefix of the process a file lies in: its environment, or the Python that this was made from."""
    process = case.run.process
    prefixes = (process.prefix, process.base_prefix) if process is not None else ()
    return next((prefix for prefix in prefixes if is_in(path, prefix)), None)


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
        remedies=(*_add(folder), *finding.remedies),
    )


def _elsewhere(case: Case, copies: list[Copy], finding: Finding) -> Finding:
    others = {_plain(folder): why for folder, why in case.other_folders}
    copy = next((one for one in copies if _plain(ntpath.dirname(one.path)) in others), copies[0])
    folder = ntpath.dirname(copy.path)
    why = others.get(_plain(folder), "")
    reason = f" os.add_dll_directory had that folder: {why}." if why else ""
    if has_hash(base_name(copy.path)):
        reason += " The package adds that folder itself when it is imported (delvewheel), and has not done so."
    owned = tuple(reinstall(case, finding.chain[-2])) if len(finding.chain) > 1 and not has_hash(copy.path) else ()
    remedies = (*_add(folder), *owned, *finding.remedies)
    if case.load_flags is LoadFlags.ALTERED_SEARCH_PATH:
        reason += " Native code loads it, with a search of PATH, and not of the folders of os.add_dll_directory."
        remedies = (Remedy(f"put {folder} on PATH before the program starts"), *finding.remedies)
    elif case.load_flags is not None and not case.load_flags & _SEARCH_OF_ADDED:
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
