"""Windows: a DLL that no searched place had. The cause depends on its kind and on copies elsewhere."""

from __future__ import annotations

import ntpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ...model.environment import FileState, Provider, ProviderKind, has_hash
from ...model.failure import ProcessFacts, System
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.loader_context import LoadFlags
from ...model.pe import PeImage
from ...model.tree import Binding, BindingState
from ..case import Case, Copy, PackageCheck
from ..remedies import NO_DLL_SITES, find_providers, install_remedies, reinstall_by_pip
from ..windows_load import (
    LoadError,
    base_name,
    code_evidence,
    firmness,
    is_in,
    load_error,
    name_of,
    reinstall,
    was_loaded,
)
from .win_lookups import providers_of

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
_UNIVERSAL_CRT = re.compile(r"ucrtbase\.dll|api-ms-win-crt-[\w-]+\.dll")
"""The Universal C Runtime: part of Windows 10, an update (KB2999226) of older ones; MS Learn, "Universal CRT
deployment". Its contracts are files there, unlike those of Windows itself."""
_QUOTED = re.compile(r"(['\"])([^'\"\n]{1,400})\1")
_OF_ANOTHER_SYSTEM = re.compile(r"[^\\/]+\.(?:so(?:\.\d+)*|dylib)")


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
    other = _OF_ANOTHER_SYSTEM.fullmatch(base_name(binding.need))
    failed = [one.target for one in case.run.requests if one.succeeded is False and one.target != binding.need]
    has_own_names = any(not _OF_ANOTHER_SYSTEM.fullmatch(base_name(target)) for target in failed)
    if other is not None and not has_own_names and not case.copies.get(base_name(binding.need)):
        return _of_another_system(case, binding)
    if ntpath.dirname(binding.need):
        return _no_such_path(case, binding)
    finding = Finding(
        code=FILE_CODE,
        title=f"there is no {binding.need}",
        confidence=firmness(case), subject=binding.need, chain=case.chain_to(None, binding.need),
        probes=binding.probes,
        explanation="The file asked for is not there, nor where it was searched for.",
        evidence=_evidence(case, binding),
        remedies=(
            *install_remedies(providers_of(binding.need)),
            Remedy("give the path of the file, or put its folder on the search with os.add_dll_directory"),
        ),
    )
    return with_copy(case, binding, finding)


def _no_such_path(case: Case, binding: Binding) -> Finding:
    """Return the finding about a request for a file by its path, which is not searched for anywhere else."""
    need = binding.need
    process = case.run.process
    current = process.current_folder if process is not None else ""
    written = _written_path(case, need, current)
    is_relative = not ntpath.isabs(written)
    copies = [copy for copy in case.copies.get(base_name(need), ()) if copy.unfit is None]
    start = f" It is a relative path, which starts from the current folder{f', {current}' if current else ''}."
    remedies = [Remedy(f"give the path of that file: {copies[0].path}")] if copies else []
    if is_relative:
        # No line to run before the import, which a trial could prove: the call itself has to be another one.
        here = f"os.path.join(os.path.dirname(__file__), {written!r})"
        remedies.append(Remedy(f"make it a path from the folder of the code, not from the current one: {here}"))
    elif not copies:
        remedies += [*install_remedies(providers_of(need)), Remedy("see where the file is, and give that path")]
    finding = Finding(
        code=FILE_CODE,
        title=f"there is no {need}",
        confidence=firmness(case),
        subject=need,
        chain=case.chain_to(None, need),
        probes=binding.probes,
        explanation=f"The program asked for that very file: what has a folder in its name is not searched for."
        f"{start if is_relative else ''}{f' There is {copies[0].path} ({copies[0].where}).' if copies else ''}",
        evidence=_evidence(case, binding),
        remedies=tuple(remedies),
    )
    removed = _removed(case, need)
    return finding if removed is None else _as_removed(finding, *removed, process)


def _written_path(case: Case, need: str, current: str) -> str:
    """Return the path as the line of the program has it: ctypes makes a relative one whole before it asks for it."""
    line = case.python_line
    for found in _QUOTED.finditer(line.source or "" if line is not None else ""):
        if current and ntpath.normcase(ntpath.normpath(ntpath.join(current, found[2]))) == ntpath.normcase(need):
            return found[2]
    return need


def _of_another_system(case: Case, binding: Binding) -> Finding:
    """Return the finding about a request for a library of Linux or macOS, such as libc.so.6: Windows has none."""
    system = "macOS" if base_name(binding.need).endswith(".dylib") else "Linux"
    line = case.python_line
    return Finding(
        code=FILE_CODE,
        title=f"{binding.need} is a library of {system}, and this is Windows",
        confidence=firmness(case),
        subject=binding.need,
        chain=case.chain_to(None, binding.need),
        probes=binding.probes,
        explanation=f"{line.file if line is not None else 'The program'} asks for a file that only {system} has: that "
        "code, or the part of it that ran, is not for Windows.",
        evidence=_evidence(case, binding),
        remedies=(
            Remedy("use a version of the package for Windows, if there is one; no file can be installed for it"),
            Remedy(f"or run the program on {system} (on this machine in WSL)" if system == "Linux"
                   else f"or run the program on {system}"),
        ),
    )  # fmt: skip


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
        remedies=tuple(_sources(case, binding)),
    )
    removed = _removed(case, need)
    if removed is not None:
        return _as_removed(finding, *removed, case.run.process)
    kind = _of_kind(case, finding, binding)
    return kind if kind is not None else with_copy(case, binding, finding)


def _sources(case: Case, binding: Binding) -> Iterator[Remedy]:
    """Yield where to get a missing library, and the word against other sources."""
    need, requested_by = binding.need, binding.requested_by
    providers = find_providers(base_name(need), System.WINDOWS)
    owners = case.owners.get(requested_by, ())
    who = owners[0].package if owners else case.first_import or name_of(requested_by)
    again = tuple(reinstall(case, requested_by))
    if has_hash(base_name(need)):
        # delvewheel and the like gave it that name when they copied it into the wheel: nothing else has it.
        yield from again or (
            Remedy(f"install the package of {name_of(requested_by)} again: {need} is a file of its own (*.libs)"),
        )
    yield from install_remedies(providers)
    has_copy = any(copy.unfit is None for copy in case.copies.get(base_name(need), ()))
    is_known = has_copy or any(provider.kind is not ProviderKind.CONDA for provider in providers)
    if not has_hash(base_name(need)) and not is_known:
        yield Remedy(
            f"see in the documentation of {who} what it needs on Windows: another program or package brings {need}"
        )
    yield Remedy(NO_DLL_SITES)


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
    providers = find_providers(name, System.WINDOWS)
    has_own = _has_copy_of_its_own(case, binding)
    if any(provider.kind is ProviderKind.DRIVER for provider in providers) and not has_own:
        return replace(
            finding,
            title=f"{finding.subject} was not found: the driver of the graphics card brings it",
            explanation=f"{finding.explanation} No package has it: it belongs to the driver, and fits that alone.",
        )
    if _RUNTIME.fullmatch(name) and not has_own:
        return replace(
            finding,
            code=RUNTIME_CODE,
            title=f"the Visual C++ runtime is missing: {finding.subject}",
            explanation=f"{finding.explanation} It is part of the Visual C++ runtime, which is not part of Windows.",
            evidence=(*finding.evidence, *_copies_evidence(case, name)),
        )
    return _of_windows(case, finding, binding, providers)


def _of_windows(
    case: Case, finding: Finding, binding: Binding, providers: Sequence[Provider]
) -> Finding | None:  # fmt: skip
    """Return the finding for a DLL of Windows itself, or an update or feature of it; `None` for any other."""
    name = base_name(finding.subject)
    if _UNIVERSAL_CRT.fullmatch(name):
        return replace(
            finding,
            code=RUNTIME_CODE,
            title=f"the Universal C Runtime is missing: {finding.subject}",
            explanation=f"{finding.explanation} It is part of Windows 10 and later, and an update of older ones.",
            evidence=(*finding.evidence, *_copies_evidence(case, name)),
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
    if any(provider.kind is ProviderKind.WINDOWS_FEATURE for provider in providers):
        return replace(
            finding,
            code=FEATURE_CODE,
            title=f"{finding.subject} is missing: a part of Windows that this edition comes without",
            explanation=f"{finding.explanation} {binding.reason or 'Some editions of Windows come without it'}.",
        )
    if name in case.windows_own:
        return replace(
            finding,
            explanation=f"{finding.explanation} It is a file of Windows itself: this Windows is older than the file "
            "that needs it, it is damaged, or it is none (Wine).",
            remedies=(Remedy("use a newer or repaired Windows; a single DLL of another one does not help"),),
        )
    return None


def _has_copy_of_its_own(case: Case, binding: Binding) -> bool:
    """Return whether the requester's own package, or the conda environment, has a copy of the runtime.

    The copy of another package or program is of that one's version. Whoever adds its folder lets an old runtime serve
    all: the first one in a process wins.
    """
    requester = ntpath.dirname(binding.requested_by)
    process = case.run.process
    tops = [requester] if requester else []
    for folder in process.path if process is not None else ():
        if folder and is_in(binding.requested_by, folder):
            package = ntpath.relpath(binding.requested_by, folder).split("\\")[0]
            tops += [ntpath.join(folder, f"{package}{suffix}") for suffix in ("", ".libs")]
    return any(
        copy.unfit is None and (copy.where == CONDA or any(is_in(copy.path, top) for top in tops))
        for copy in case.copies.get(base_name(binding.need), ())
    )


def _copies_evidence(case: Case, name: str) -> Iterator[Evidence]:
    copies = [copy.path for copy in case.copies.get(name, ()) if copy.unfit is None]
    if copies:
        yield Evidence(
            Source.FILES, f"{', '.join(copies[:3])} belongs to others, and is no substitute: it may be older"
        )


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
    prefix = conda_prefix(case, copy.path)
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


def conda_prefix(case: Case, path: str) -> str | None:
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
