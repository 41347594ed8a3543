"""Makes the commands of remedies: for the Python that failed, and for the package that a file is of."""

from __future__ import annotations

import ntpath
import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace

from ..model.environment import PackageManager
from ..model.failure import ProcessFacts, System
from ..model.finding import Finding, Remedy
from .case import Case
from .package_tools import is_package_name, reinstall_command, with_version

PYTHON = "python"
"""The interpreter in the commands of rules and tables: the one that failed takes its place."""

PIP = (PYTHON, "-m", "pip")

_SITE = {
    System.WINDOWS: re.compile(r"(?:lib|python[\w.-]*)\\site-packages"),
    System.LINUX: re.compile(r"(?:local/)?lib(?:32|64)?/[^/]+/(?:site|dist)-packages"),
}
"""Where pip installs by default, seen from a prefix. Source: `sysconfig`, of Python and of Debian's."""


def operand(path: str) -> str:
    """Return a path that no command takes for an option."""
    return f"./{path}" if path.startswith("-") else path


def python_words(case: Case) -> tuple[str, ...]:
    """Return the interpreter, and the import, script or module that failed as its program, where that is known.

    Code is not kept with the case: "CODE" stands for it, since an interpreter alone would start a prompt.
    """
    what = case.what
    if what == "the code":
        return (PYTHON, "-c", "CODE")
    if re.fullmatch(r"import [\w., ]+|from [\w.]+ import [\w., *]+", what):
        return (PYTHON, "-c", what)
    if re.fullmatch(r"-m [\w.]+", what):
        return (PYTHON, *what.split())
    is_script = re.fullmatch(r"[^\s-][^\n]*\.pyw?", what) is not None
    return (PYTHON, what) if is_script else (PYTHON,)


def with_variable(case: Case, name: str, value: str) -> tuple[str, ...]:
    """Return the command that tries again with a variable of the environment set."""
    return ("env", f"{name}={value}", *python_words(case))


def without_variable(case: Case, name: str) -> tuple[str, ...]:
    """Return the command that tries again without a variable of the environment."""
    return ("env", "-u", name, *python_words(case))


def reinstall(case: Case, path: str | None, why: str = "") -> Iterator[Remedy]:
    """Yield the remedy to install the package of a file again; nothing, if none is known.

    Arguments:
        case: has the owners of the file, the interpreter that failed, and the distribution.
        path: of the file; `None` if it is not known.
        why: in a few words.
    """
    owner = next(iter(case.owners.get(path or "", ())), None)
    if owner is None:
        return
    if owner.manager is PackageManager.PIP:
        yield reinstall_by_pip(owner.package, owner.version, owner.folder, case.run.process, why)
        return
    text = f"install {owner.package} again{f', {why}' if why else ''}"
    if not is_package_name(owner.package, owner.manager):
        yield Remedy(text)
        return
    package = with_version(owner.package, owner.version, owner.manager)
    yield Remedy(text, (*reinstall_command(owner.manager, case.distribution), package))


def reinstall_by_pip(name: str, version: str, folder: str, process: ProcessFacts | None, why: str = "") -> Remedy:
    """Return the remedy to install a Python package again, into the folder where it is.

    Arguments:
        name, version: of the package; an empty version if it is not known.
        folder: where it is installed; empty if that is not known.
        process: the interpreter that failed.
        why: in a few words.
    """
    text = f"install {name} again{f', {why}' if why else ''}"
    command = [*PIP, "install", "--force-reinstall", "--no-deps"]
    if process is not None and _is_target(folder, process):
        # Without it pip would install a second one elsewhere. It leaves folders alone that are there: --upgrade.
        command += ["--target", operand(folder), "--upgrade"]
        text += (
            f" (into {folder}, which is not where this Python installs; pip replaces whole folders there, also what "
            "other packages have in one of the same name)"
        )
    if not is_package_name(name, PackageManager.PIP):
        return Remedy(text)
    return Remedy(text, (*command, with_version(name, version, PackageManager.PIP)))


def _is_target(folder: str, process: ProcessFacts) -> bool:
    """Return whether pip needs the option for that folder (`--target`): it is none of the interpreter's own."""
    windows = process.system is System.WINDOWS
    site = _SITE.get(process.system)
    roots = [root for root in (process.prefix, process.base_prefix, process.user_base) if root]
    if site is None or not folder or not roots:
        return False
    path = ntpath if windows else posixpath
    wanted = path.normcase(path.normpath(folder))
    for root in roots:
        top = path.normcase(path.normpath(root)).rstrip(path.sep) + path.sep
        if wanted.startswith(top) and site.fullmatch(wanted[len(top) :]):
            return False
    return True


def for_interpreter(finding: Finding, process: ProcessFacts | None) -> Finding:
    """Return the finding with commands for the Python that failed, and not for whatever comes first on PATH."""
    executable = process.executable if process is not None else ""
    if not executable:
        return finding
    remedies = tuple(
        replace(remedy, command=_for_executable(remedy.command, executable)) for remedy in finding.remedies
    )
    return finding if remedies == finding.remedies else replace(finding, remedies=remedies)


def _for_executable(command: tuple[str, ...], executable: str) -> tuple[str, ...]:
    """Return the command with the interpreter in the place where a program is named: first, behind env or gdb."""
    runs = command[:1] == (PYTHON,) or command[:1] in (("env",), ("gdb",))
    if not runs or PYTHON not in command:
        return command
    at = command.index(PYTHON)
    return (*command[:at], operand(executable), *command[at + 1 :])
