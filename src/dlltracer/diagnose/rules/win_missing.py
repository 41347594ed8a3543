"""Windows: a DLL that no searched place had. The cause depends on its kind; `win_copies` knows of copies elsewhere."""

from __future__ import annotations

import ntpath
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from ...model.environment import FileState, Provider, ProviderKind, has_hash, is_debug_runtime
from ...model.failure import ProcessFacts, System
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.tree import Binding, BindingState
from ..case import Case, PackageCheck
from ..providers import NO_DLL_SITES, find_providers, install_remedies
from ..remedies import reinstall, reinstall_by_pip
from ..windows_load import (
    LoadError,
    base_name,
    code_evidence,
    firmness,
    is_in,
    load_error,
    name_of,
    was_loaded,
)
from .win_copies import CONDA, with_copy
from .win_lookups import providers_of

CODE = "missing-image"
FILE_CODE = "no-such-file"
DEBUG_CODE = "debug-build"
RUNTIME_CODE = "missing-vc-runtime"
FEATURE_CODE = "missing-windows-feature"
WINDOWS_CODE = "windows-too-old"
REMOVED_CODE = "package-file-missing"

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
    for check, path in _removed(case, names):
        finding = Finding(
            code=REMOVED_CODE,
            title="",
            confidence=Confidence.CERTAIN, subject=path, chain=case.chain_to(None, path),
            explanation=f"Python found no module {module}.",
        )  # fmt: skip
        yield _as_removed(finding, check, path, case.run.process)


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
    removed = next(_removed(case, (base_name(need),)), None)
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
    removed = next(_removed(case, (base_name(need),)), None)
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
    if is_debug_runtime(name):
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


def _removed(case: Case, names: Collection[str]) -> Iterator[tuple[PackageCheck, str]]:
    """Yield the packages that had installed a file of one of these names (`base_name`), and its path."""
    for check in case.checks:
        for changed in check.changed:
            if changed.state is FileState.ABSENT and base_name(changed.path) in names:
                yield check, changed.path


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
