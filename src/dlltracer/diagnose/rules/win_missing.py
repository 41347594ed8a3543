"""Windows: a DLL that no place had. What it is, and where else it lies, make the difference."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ...model.failure import System
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.provider import FileState, ProviderKind
from ...model.tree import Binding, BindingState
from ..case import Case
from ..codes import LoadError
from ..environment import PackageCheck
from ..providers import find_providers
from ..remedies import reinstall_by_pip
from ..windows_load import base_name, code_evidence, firmness, load_error, name_of, provider_remedies, was_loaded
from . import win_elsewhere

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...model.failure import ProcessFacts

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
    """Every DLL that is missing, the leaf and never those that fail because of it."""
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
    """The file of the module that Python did not find, if a package did install it."""
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
    return win_elsewhere.with_copy(case, binding, finding)


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
    return kind if kind is not None else win_elsewhere.with_copy(case, binding, finding)


def _of_kind(case: Case, finding: Finding, binding: Binding) -> Finding | None:
    """The finding for a DLL of which the name alone tells what it is; `None` for any other."""
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
    """The package that did install a file of that name, and its path; `None` if none did."""
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
