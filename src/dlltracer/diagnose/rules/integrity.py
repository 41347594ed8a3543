"""Packages that differ from their installation: files lost, changed, owned twice or by none, requirements missing."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace

from ...model.environment import ChangedFile, FileState, PackageManager, PackageOwner
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ..case import Case, PackageCheck, StrayFile
from ..package_tools import is_package_name
from ..remedies import PIP, reinstall_by_pip

CODE = "package-file-missing"
CHANGED_CODE = "package-file-changed"
SHARED_CODE = "file-of-two-packages"
STRAY_CODE = "file-of-no-package"
REQUIREMENT_CODE = "requirement-not-installed"

_MISSING_CODES = ("missing-image", "missing-at-runtime", "no-such-file")
"""Findings of other rules that a requirement which is not installed explains."""
_VERSIONS = re.compile(r"[<>=!~0-9A-Za-z.,*+]*")
_MOST_NAMED = 12


def check(case: Case) -> Iterator[Finding]:
    """Yield files in question that a package lists, and that are lost or changed."""
    for check in case.checks:
        for file in check.changed:
            if file.state is FileState.ABSENT and _is_wanted(file, case):
                yield _lost(file, check, case)
            elif file.state is FileState.CHANGED and file.path in _files_in_question(case):
                yield _changed(file, check, case)


def check_ownership(case: Case) -> Iterator[Finding]:
    """Yield files in question of two packages or of none, and requirements that are not installed."""
    for path in sorted(_files_in_question(case)):
        owners = tuple(owner for owner in case.owners.get(path, ()) if owner.manager is PackageManager.PIP)
        if len({owner.package for owner in owners}) > 1:
            yield _shared(path, owners, case)
    for stray in case.strays:
        yield _stray(stray, case)
    if case.unmet and (case.error is None or "ModuleNotFoundError" not in case.error.bases):
        yield _unmet(case)


def with_requirements(finding: Finding, case: Case) -> Finding:
    """Return the finding about a missing file, with the requirement that would have brought it.

    If the requirement is named like the file, packages that tables know for it are guesses, and left out.
    """
    if finding.code not in _MISSING_CODES or not case.unmet:
        return finding
    remedies = (*finding.remedies, install_requirements(case))
    if any(_is_named_like(one.name, finding.subject) for one in case.unmet):
        remedies = (install_requirements(case), *(one for one in finding.remedies if not _is_guess(one)))
    return replace(
        finding,
        explanation=f"{finding.explanation} {describe_requirements(case)}",
        evidence=(*finding.evidence, Evidence(Source.PACKAGES, describe_requirements(case).rstrip("."))),
        remedies=remedies,
    )


def _is_named_like(package: str, library: str) -> bool:
    """Return whether a word of a package's name is in that of a library: PyQt6-Qt6 and Qt6Core.dll."""
    stem = re.split(r"[/\\]", library)[-1].lower()
    return any(len(word) > 2 and word in stem for word in re.split(r"[-_.]", package.lower()))


def _is_guess(remedy: Remedy) -> bool:
    """Return whether a remedy installs some package by name, not again the one whose file it is."""
    installs = remedy.command[1:4] == ("-m", "pip", "install") or remedy.command[:2] == ("conda", "install")
    return installs and "--force-reinstall" not in remedy.command


def describe_requirements(case: Case) -> str:
    """Return sentences that say which packages require what is not installed."""
    by_package: dict[str, list[str]] = {}
    for one in case.unmet[:_MOST_NAMED]:
        by_package.setdefault(one.package, []).append(f"{one.name}{f' ({one.versions})' if one.versions else ''}")
    texts = [
        f"{package} requires {', '.join(names)}, which {'are' if len(names) > 1 else 'is'} not installed."
        for package, names in by_package.items()
    ]
    return " ".join(texts)


def install_requirements(case: Case) -> Remedy:
    """Return the remedy to install the requirements that are not there."""
    versions: dict[str, list[str]] = {}
    for one in case.unmet:
        if is_package_name(one.name, PackageManager.PIP) and _VERSIONS.fullmatch(one.versions):
            versions.setdefault(one.name, []).extend([one.versions] if one.versions else [])
    words = [name + ",".join(dict.fromkeys(wanted)) for name, wanted in versions.items()]
    names = ", ".join(dict.fromkeys(one.name for one in case.unmet[:_MOST_NAMED]))
    return Remedy(f"install what the package requires: {names}", (*PIP, "install", *words) if words else ())


def _unmet(case: Case) -> Finding:
    wants_file = case.tree is not None and bool(case.tree.missing)
    return Finding(
        code=REQUIREMENT_CODE,
        title=f"{case.unmet[0].package} requires {case.unmet[0].name}, which is not installed",
        confidence=Confidence.LIKELY if wants_file else Confidence.POSSIBLE,
        subject=case.unmet[0].name, chain=case.chain_to(case.subject),
        explanation=f"{describe_requirements(case)} pip check lists such packages.",
        evidence=(Evidence(Source.PACKAGES, describe_requirements(case).rstrip(".")),),
        remedies=(install_requirements(case),),
    )  # fmt: skip


def _shared(path: str, owners: tuple[PackageOwner, ...], case: Case) -> Finding:
    names = [f"{owner.package} {owner.version}".strip() for owner in owners]
    changed = [
        check.package for check in case.checks for file in check.changed
        if file.path == path and file.state is FileState.CHANGED
    ]  # fmt: skip
    spoilt = f" It is not as {' and '.join(changed)} installed it." if changed else ""
    text = "have one of them only: take all of them away, and install the one that is wanted"
    valid = [owner.package for owner in owners if is_package_name(owner.package, PackageManager.PIP)]
    return Finding(
        code=SHARED_CODE,
        title=f"{path} is a file of {' and of '.join(names)}",
        confidence=Confidence.LIKELY if changed else Confidence.POSSIBLE,
        subject=path, chain=case.chain_to(path),
        explanation=f"Several installed packages list {path}. What was installed last overwrote the others.{spoilt}",
        evidence=(Evidence(Source.PACKAGES, f"the RECORDs of {' and '.join(names)} list it"),),
        remedies=(Remedy(text, (*PIP, "uninstall", *valid)),),
    )  # fmt: skip


def _stray(stray: StrayFile, case: Case) -> Finding:
    name, _, version = stray.package.partition(" ")
    return Finding(
        code=STRAY_CODE,
        title=f"{stray.path} is no file of {stray.package}, among whose files it lies",
        confidence=Confidence.POSSIBLE,
        subject=stray.path, chain=case.chain_to(stray.path),
        explanation=(
            f"The RECORD of {stray.package} lists files in that place, and not this one. Another version of it left "
            "it, or somebody built or copied it there."
        ),
        evidence=(Evidence(Source.PACKAGES, f"{stray.path} is not in the RECORD of {stray.package}"),),
        remedies=(
            Remedy(f"if nobody put it there on purpose, take {stray.path} away"),
            reinstall_by_pip(name, version, "", case.run.process, "to have its files whole"),
        ),
    )  # fmt: skip


def lost_file(case: Case, need: str) -> ChangedFile | None:
    """Return the lost file of that name, which a package in question lists; `None` if there is none."""
    name = posixpath.basename(need)
    for check in case.checks:
        for file in check.changed:
            if file.state is FileState.ABSENT and posixpath.basename(file.path) == name:
                return file
    return None


def has_lost_module(case: Case) -> bool:
    """Return whether a package has lost the file of the module that was not found. Then that is the cause."""
    files = [file for check in case.checks for file in check.changed if file.state is FileState.ABSENT]
    return any(_is_the_module(file, case) for file in files)


def _is_wanted(file: ChangedFile, case: Case) -> bool:
    """Return whether the failure is about that file: a need of its name, or the module that was not found."""
    name = posixpath.basename(file.path)
    needs = {binding.need for binding in (case.tree.missing if case.tree is not None else ())}
    needs |= {event.need or event.path for event in case.failed_events}
    return name in {posixpath.basename(need) for need in needs} or _is_the_module(file, case)


def _is_the_module(file: ChangedFile, case: Case) -> bool:
    """Return whether this is the file of the module that was not found."""
    module = case.missing_module
    suffixes = case.run.process.suffixes if case.run.process is not None else ()
    if module is None:
        return False
    names = {f"{module.rpartition('.')[2]}{suffix}" for suffix in suffixes}
    folders = module.split(".")[:-1]
    here = file.path.split("/")
    return posixpath.basename(file.path) in names and here[-1 - len(folders) : -1] == folders


def _files_in_question(case: Case) -> set[str]:
    paths = {case.subject, case.run.initialising, *case.damaged}
    paths |= {symbol.requested_by for symbol in case.symbols[:1]}
    paths |= {case.run.crash.image if case.run.crash is not None else None}
    return {path for path in paths if path}


def _lost(file: ChangedFile, check: PackageCheck, case: Case) -> Finding:
    name = posixpath.basename(file.path)
    missing = case.tree.missing if case.tree is not None else ()
    requested_by = next((b.requested_by for b in missing if posixpath.basename(b.need) == name), None)
    return Finding(
        code=CODE,
        title=f"{name} was installed by {check.package} and is gone",
        confidence=Confidence.CERTAIN if case.dl_error is not None or _is_the_module(file, case) else Confidence.LIKELY,
        subject=file.path, chain=case.chain_to(requested_by, file.path), probes=case.probes_of(name),
        explanation=(
            f"The RECORD of {check.package} lists {file.path}, and no file is there. Something took it away after it "
            "was installed: a virus scanner, a tool that makes images or packages smaller, an interrupted installation."
        ),
        evidence=(Evidence(Source.PACKAGES, f"{file.path} is in the RECORD of {check.package}"),
         Evidence(Source.FILES, "no file is there")),
        remedies=(_reinstall(check, case),),
    )  # fmt: skip


def _changed(file: ChangedFile, check: PackageCheck, case: Case) -> Finding:
    sizes = (
        f"it has {file.size} bytes and had {file.expected_size}"
        if file.size != file.expected_size
        else "its contents are others"
    )
    damaged = file.path in case.damaged
    return Finding(
        code=CHANGED_CODE,
        title=f"{file.path} is not as {check.package} installed it",
        confidence=Confidence.LIKELY if damaged else Confidence.POSSIBLE, subject=file.path,
        chain=case.chain_to(file.path),
        explanation=(
            f"The RECORD of {check.package} has another file there: {sizes}. Tools that patch or strip files do that."
        ),
        evidence=(Evidence(Source.PACKAGES, sizes),),
        remedies=(_reinstall(check, case),),
    )


def _reinstall(check: PackageCheck, case: Case) -> Remedy:
    return reinstall_by_pip(check.name, check.package.partition(" ")[2], check.folder, case.run.process)
