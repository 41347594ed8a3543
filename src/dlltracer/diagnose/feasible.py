"""Leaves out remedies that cannot work on the machine, and says of others what could not be checked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from ..model.failure import ProcessFacts
from ..model.finding import Finding, Remedy
from ..model.limits import CLibrary
from ..model.provider import ProviderKind
from .case import Case
from .environment import InstallFacts

_MANAGERS = {"apt-get": ProviderKind.APT, "dnf": ProviderKind.DNF, "apk": ProviderKind.APK}
_INSTALL, _AGAIN = ("install", "add"), ("--reinstall", "reinstall", "fix")

_NEVER_AGAIN = re.compile(r"(?:libc6|libc-bin|glibc|libstdc\+\+6?|libgcc(?:-s1)?|musl)(?:-dev\w*|-devel)?(?::\w+)?")
"""Packages that every program of the system runs on: nobody is told to replace them."""

_TUNABLES = {"glibc.rtld.optional_static_tls": (2, 33), "glibc.rtld.execstack": (2, 41)}
"""Since when glibc has a tunable (its NEWS)."""

_OPTIONS = {("patchelf", "--clear-execstack"): (0, 18)}
"""Since when a program has an option (patchelf: release notes of 0.18.0)."""


def packages_to_install(findings: Iterable[Finding]) -> tuple[ProviderKind | None, tuple[str, ...]]:
    """Return the distribution's packages that the findings say to install, and whose they are."""
    commands = [remedy.command for finding in findings for remedy in finding.remedies if is_system_install(remedy)]
    kind = _MANAGERS[commands[0][0]] if commands else None
    names = [word for command in commands if _MANAGERS[command[0]] is kind for word in _operands(command)]
    return kind, tuple(dict.fromkeys(names))


def is_system_install(remedy: Remedy) -> bool:
    """Return whether a remedy installs packages of the distribution, not again ones that are there."""
    return remedy.command[:1] != () and remedy.command[0] in _MANAGERS and remedy.command[1:2] != () and (
        remedy.command[1] in _INSTALL and not set(_AGAIN) & set(remedy.command)
    )  # fmt: skip


def keep_feasible(finding: Finding, case: Case) -> Finding:
    """Return the finding without remedies that cannot work on the machine, as far as that was looked at."""
    if case.install is None:
        return finding
    library = case.limits.c_library if case.limits is not None else None
    tried = (_feasible(remedy, case.install, case.run.process, library) for remedy in finding.remedies)
    remedies = tuple(remedy for remedy in tried if remedy is not None)
    return finding if remedies == finding.remedies else replace(finding, remedies=remedies)


def _feasible(
    remedy: Remedy, facts: InstallFacts, process: ProcessFacts | None, library: CLibrary | None
) -> Remedy | None:
    """Return the remedy, changed where it has to be; `None` if it cannot work."""
    program = remedy.command[0] if remedy.command else ""
    if is_system_install(remedy):
        return _of_the_system(remedy, facts)
    if program in _MANAGERS:
        return None if any(map(_NEVER_AGAIN.fullmatch, _operands(remedy.command))) else remedy
    if program == "conda":
        return remedy if facts.is_conda or remedy.command[1:2] == ("activate",) else None
    if remedy.command[1:4] == ("-m", "pip", "install"):
        return None if _is_installed(remedy.command, facts) else remedy
    if program == "env":
        return None if _is_in_force(remedy.command, process) or _is_too_new(remedy.command, library) else remedy
    return _with_tool(remedy, facts)


def _of_the_system(remedy: Remedy, facts: InstallFacts) -> Remedy | None:
    available = facts.available
    packages = _operands(remedy.command)
    if any(name in available.installed for name in packages):
        return None
    if available.unchecked is not None:
        return replace(remedy, what=f"{remedy.what} (not checked whether there is one: {available.unchecked})")
    renamed = {name: f"{name}t64" for name in packages if available.candidates.get(name, "") is None}
    if any(available.candidates.get(new) is None or new in available.installed for new in renamed.values()):
        return None
    if not renamed:
        return remedy
    names = ", ".join(f"{old} is {new} here" for old, new in renamed.items())
    return Remedy(f"{remedy.what} ({names})", tuple(renamed.get(word, word) for word in remedy.command))


def _is_installed(command: tuple[str, ...], facts: InstallFacts) -> bool:
    """Return whether pip would find all there: packages without a version that is asked for, already installed."""
    if {"--force-reinstall", "--upgrade"} & set(command):
        return False
    return all(re.sub(r"[-_.]+", "-", word).lower() in facts.distributions for word in _operands(command[2:]))


def _is_in_force(command: tuple[str, ...], process: ProcessFacts | None) -> bool:
    """Return whether the program that failed had the environment already that the command gives it."""
    if process is None:
        return False
    if command[1:2] == ("-u",):
        return not process.variable(command[2])
    name, _, value = command[1].partition("=")
    return value in (process.variable(name), *process.variable(name).split(":"))


def _is_too_new(command: tuple[str, ...], library: CLibrary | None) -> bool:
    """Return whether the command sets a tunable that the C library of the process does not have."""
    name, _, value = command[1].partition("=")
    since = _TUNABLES.get(value.partition("=")[0]) if name == "GLIBC_TUNABLES" else None
    if since is None or library is None or library.name is None:
        return False
    return library.name != "glibc" or (library.version is not None and _numbers(library.version) < since)


def _with_tool(remedy: Remedy, facts: InstallFacts) -> Remedy:
    since = _OPTIONS.get((remedy.command[0], remedy.command[1])) if len(remedy.command) > 1 else None
    if since is None:
        return remedy
    tool = remedy.command[0]
    version = facts.tools.get(tool)
    if version is not None and _numbers(version) >= since:
        return remedy
    here = f"here is {version}, which has no {remedy.command[1]}" if version is not None else "none is installed here"
    return Remedy(f"{remedy.what}: with {tool} {'.'.join(map(str, since))} or later ({here})")


def _operands(command: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in command[2:] if not word.startswith("-"))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d{1,9}", version)[:2])
