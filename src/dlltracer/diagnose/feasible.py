"""Leaves out the remedies that cannot work on the machine, and changes those that work there in another way."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import replace

from ..model.environment import AvailablePackages, CLibrary, ProviderKind, normalized_name
from ..model.finding import Finding, Remedy
from .case import Case, InstallFacts
from .package_tools import installs_again, tool_that_installs
from .providers import NAMING_RULE, package_with

_NEVER_AGAIN = re.compile(r"(?:libc6|libc-bin|glibc|libstdc\+\+6?|libgcc(?:-s1)?|musl)(?:-dev\w*|-devel)?(?::\w+)?")
"""Packages that every program of the system needs: no remedy replaces them."""

_TUNABLES = {"glibc.rtld.optional_static_tls": (2, 33), "glibc.rtld.execstack": (2, 41)}
"""Since when glibc has a tunable (its NEWS)."""

_OPTIONS = {("patchelf", "--clear-execstack"): (0, 18)}
"""Since when a program has an option (patchelf: release notes of 0.18.0)."""


def packages_to_install(findings: Iterable[Finding]) -> tuple[ProviderKind | None, tuple[str, ...]]:
    """Return the distribution's packages that the findings say to install, and whose they are."""
    commands = [remedy.command for finding in findings for remedy in finding.remedies]
    installs = [(tool.kind, command) for command in commands if (tool := tool_that_installs(command)) is not None]
    first = installs[0][0] if installs else None
    names = [word for kind, command in installs if kind is first for word in _operands(command)]
    return first, tuple(dict.fromkeys(names))


def keep_feasible(finding: Finding, case: Case) -> Finding:
    """Return the finding without remedies that cannot work on the machine, as far as that was looked at."""
    if case.install is None:
        return finding
    tried = (_feasible(remedy, case.install, case) for remedy in finding.remedies)
    remedies = tuple(remedy for remedy in tried if remedy is not None)
    gone = finding.remedies if not remedies and _LIBRARY_FILE.search(finding.subject) else ()
    if gone and all(_has_no_source(remedy, case.install) for remedy in gone):
        remedies = (package_with(posixpath.basename(finding.subject), case.distribution),)
    return finding if remedies == finding.remedies else replace(finding, remedies=remedies)


_LIBRARY_FILE = re.compile(r"\.so(?:\.\d[\w.]*)?$")


def _has_no_source(remedy: Remedy, facts: InstallFacts) -> bool:
    """Return whether a remedy fell away because the machine knows no such package."""
    if tool_that_installs(remedy.command) is not None:
        return not set(_operands(remedy.command)) & facts.available.installed.keys()
    return remedy.command[:1] == ("conda",)


def _feasible(remedy: Remedy, facts: InstallFacts, case: Case) -> Remedy | None:
    """Return the remedy, changed where it has to be; `None` if it cannot work."""
    program = remedy.command[0] if remedy.command else ""
    if tool_that_installs(remedy.command) is not None:
        return _of_the_system(remedy, facts)
    if installs_again(remedy.command):
        return None if any(map(_NEVER_AGAIN.fullmatch, _operands(remedy.command))) else remedy
    if program == "conda":
        return remedy if facts.is_conda or remedy.command[1:2] == ("activate",) else None
    if remedy.command[1:4] == ("-m", "pip", "install"):
        return None if _is_installed(remedy.command, facts) else remedy
    if program == "env":
        return None if _is_in_force(remedy.command, case) or _is_too_new(remedy.command, case.c_library) else remedy
    return _with_tool(remedy, facts)


def _of_the_system(remedy: Remedy, facts: InstallFacts) -> Remedy | None:
    available = facts.available
    packages = _operands(remedy.command)
    if any(name in available.installed for name in packages):
        return None
    if available.unchecked is not None and NAMING_RULE in remedy.what:
        return None  # that there is such a package is no more than a guess
    if available.unchecked is not None:
        return replace(remedy, what=f"{remedy.what} (not checked whether there is one: {available.unchecked})")
    if available.providers.keys() & set(packages):
        return _of_libraries(remedy, available)
    return _by_new_names(remedy, packages, available)


def _by_new_names(remedy: Remedy, packages: tuple[str, ...], available: AvailablePackages) -> Remedy | None:
    """Return an installation by the new names of packages of Debian whose times have 64 bits, where it has those."""
    renamed = {name: f"{name}t64" for name in packages if available.candidates.get(name, "") is None}
    if any(available.candidates.get(new) is None or new in available.installed for new in renamed.values()):
        return None
    if not renamed:
        return remedy
    names = ", ".join(f"{old} is {new} here" for old, new in renamed.items())
    return Remedy(f"{remedy.what} ({names})", tuple(renamed.get(word, word) for word in remedy.command))


def _of_libraries(remedy: Remedy, available: AvailablePackages) -> Remedy | None:
    """Return an installation of packages by the names of libraries with the names of the packages in their place."""
    owners = {name: available.providers[name] for name in _operands(remedy.command) if name in available.providers}
    if any(not names or set(names) & available.installed.keys() for names in owners.values()):
        return None
    if all(len(names) == 1 for names in owners.values()):
        what = f"install {', '.join(names[0] for names in owners.values())}"
        return Remedy(what, tuple(owners[word][0] if word in owners else word for word in remedy.command))
    # Of several apk may choose none: the user does.
    return replace(remedy, what=f"{remedy.what}: {', '.join(' or '.join(names) for names in owners.values())}")


def _is_installed(command: tuple[str, ...], facts: InstallFacts) -> bool:
    """Return whether pip would find all there: packages without a version that is asked for, already installed."""
    if {"--force-reinstall", "--upgrade"} & set(command):
        return False
    return all(normalized_name(word) in facts.distributions for word in _operands(command[2:]))


def _is_in_force(command: tuple[str, ...], case: Case) -> bool:
    """Return whether the program that failed had the environment already that the command gives it."""
    process = case.run.process
    if process is None or (case.choice is not None and case.choice.name in command):
        return False  # of other variables than a loader's the process has kept nothing
    if command[1:2] == ("-u",):
        return not process.variable(command[2])
    name, _, value = command[1].partition("=")
    return value in (process.variable(name), *process.variable(name).split(":"))


def _is_too_new(command: tuple[str, ...], library: CLibrary) -> bool:
    """Return whether the command sets a tunable that the C library of the process does not have."""
    name, _, value = command[1].partition("=")
    since = _TUNABLES.get(value.partition("=")[0]) if name == "GLIBC_TUNABLES" else None
    if since is None or library.name is None:
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
