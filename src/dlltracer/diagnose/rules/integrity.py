"""Files of an installed package that are not as they were installed: lost, or changed since."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.provider import ChangedFile, FileState
from ..case import Case
from ..environment import PackageCheck
from ..remedies import reinstall_by_pip

CODE = "package-file-missing"
CHANGED_CODE = "package-file-changed"


def check(case: Case) -> Iterator[Finding]:
    """Files in question that a package lists and that are lost, or changed."""
    for check in case.checks:
        for file in check.changed:
            if file.state is FileState.ABSENT and _is_wanted(file, case):
                yield _lost(file, check, case)
            elif file.state is FileState.CHANGED and file.path in _files_in_question(case):
                yield _changed(file, check, case)


def lost_file(case: Case, need: str) -> ChangedFile | None:
    """The file of that name that a package in question lists and that is not there."""
    name = posixpath.basename(need)
    for check in case.checks:
        for file in check.changed:
            if file.state is FileState.ABSENT and posixpath.basename(file.path) == name:
                return file
    return None


def has_lost_module(case: Case) -> bool:
    """Whether a package has lost the file of the module that was not found: then that is the cause."""
    files = [file for check in case.checks for file in check.changed if file.state is FileState.ABSENT]
    return any(_is_the_module(file, case) for file in files)


def _is_wanted(file: ChangedFile, case: Case) -> bool:
    """Whether the failure is about that very file: a need of that name, or the module that was not found."""
    name = posixpath.basename(file.path)
    needs = {binding.need for binding in (case.tree.missing if case.tree is not None else ())}
    needs |= {event.need or event.path for event in case.failed_events}
    return name in {posixpath.basename(need) for need in needs} or _is_the_module(file, case)


def _is_the_module(file: ChangedFile, case: Case) -> bool:
    """Whether it is the file of the module that the import system did not find."""
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
