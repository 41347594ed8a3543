"""Makes the commands of remedies, and judges which packages may stand in them and can be installed on the machine."""

from __future__ import annotations

import ntpath
import posixpath
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from ..knowledge import read_table
from ..model.environment import (
    AvailablePackages,
    CLibrary,
    PackageManager,
    PackageOwner,
    Provider,
    ProviderKind,
    has_hash,
    normalized_name,
)
from ..model.failure import ProcessFacts, System
from ..model.finding import Finding, Remedy
from .case import Case, InstallFacts, compared_name

PYTHON = "python"
"""The interpreter in the commands of rules and tables: the one that failed takes its place."""

PIP = (PYTHON, "-m", "pip")

_SITE = {
    System.WINDOWS: re.compile(r"(?:lib|python[\w.-]*)\\site-packages"),
    System.LINUX: re.compile(r"(?:local/)?lib(?:32|64)?/[^/]+/(?:site|dist)-packages"),
}
"""Where pip installs by default, seen from a prefix. Source: `sysconfig`, of Python and of Debian's."""

_REINSTALL = {
    PackageManager.DPKG: ("apt-get", "install", "--reinstall"),
    PackageManager.RPM: ("dnf", "reinstall"),
    PackageManager.APK: ("apk", "fix", "--reinstall"),
    PackageManager.CONDA: ("conda", "install", "--force-reinstall"),
}

_NAMES = {
    PackageManager.PIP: re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"),
    PackageManager.CONDA: re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?"),
    PackageManager.DPKG: re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9][a-z0-9-]*)?"),
    PackageManager.RPM: re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~^-]*"),
    PackageManager.APK: re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*"),
}
"""What names may be: "Names and normalization" (Packaging User Guide); CEP 26 of conda; Debian Policy 5.6.1, with an
architecture as dpkg shows it; rpm-spec(7) and Fedora's naming guidelines; APKBUILD(5)."""

_VERSIONS = {
    PackageManager.PIP: re.compile(r"v?[0-9][A-Za-z0-9.!+_-]*"),
    PackageManager.CONDA: re.compile(r"[0-9a-z][A-Za-z0-9.!+_]*"),
}
"""What versions may be: PEP 440, in any spelling of it; conda's MatchSpec."""


def is_package_name(name: str, manager: PackageManager) -> bool:
    """Return whether a package of that manager can have the name: others are not shown in a command."""
    return len(name) <= 200 and _NAMES[manager].fullmatch(name) is not None


def with_version(name: str, version: str, manager: PackageManager) -> str:
    """Return the package as the manager's command takes it: with its version, if that is one and can be asked for."""
    versions = _VERSIONS.get(manager)
    if versions is None or len(version) > 100 or not versions.fullmatch(version):
        return name
    return f"{name}{'==' if manager is PackageManager.PIP else '='}{version}"


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


def reinstall(owners: Iterable[PackageOwner], process: ProcessFacts | None, why: str = "") -> Iterator[Remedy]:
    """Yield the remedy to install the package of a file again; nothing, if none is known.

    Arguments:
        owners: of the file, the best first.
        process: the interpreter that failed.
        why: in a few words.
    """
    for owner in owners:
        if owner.manager is PackageManager.PIP:
            yield reinstall_by_pip(owner.package, owner.version, owner.folder, process, why)
            return
        text = f"install {owner.package} again{f', {why}' if why else ''}"
        if is_package_name(owner.package, owner.manager):
            package = with_version(owner.package, owner.version, owner.manager)
            yield Remedy(text, (*_REINSTALL[owner.manager], package))
        else:
            yield Remedy(text)
        return


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


NO_DLL_SITES = (
    "Take a library only from the package, the installer or the system it belongs to. Web sites that offer single DLL "
    "files are no source: the file may be altered, or of another version, and the next DLL will be missing."
)
"""Shown wherever a missing DLL is reported."""


_FAMILIES = {
    ProviderKind.APT: "debian ubuntu linuxmint pop raspbian kali devuan elementary zorin neon",
    ProviderKind.DNF: "fedora rhel centos rocky almalinux ol amzn scientific cloudlinux",
    ProviderKind.APK: "alpine postmarketos",
}
"""ID and ID_LIKE of os-release(5)."""

_COMMANDS = {
    ProviderKind.PIP: ("python", "-m", "pip", "install"),
    ProviderKind.CONDA: ("conda", "install", "-c", "conda-forge"),
    ProviderKind.APT: ("apt-get", "install"),
    ProviderKind.DNF: ("dnf", "install"),
    ProviderKind.APK: ("apk", "add"),
}
_WORD = re.compile(r"--?[A-Za-z][A-Za-z-]*|[A-Za-z0-9_][A-Za-z0-9._+:~!=<>,*-]*")
"""A word of a command: an option, or a name with or without a version. The wildcards of a row come from file names."""
_WILDCARDS = {"*": "(.*)", "#": r"(\d+)", "?": "(.)"}


def find_providers(
    library: str, system: System, distribution: str | None = None, requested_by: str = ""
) -> tuple[Provider, ...]:
    """Safe sources of a library.

    Arguments:
        library: its file name or soname; a path is taken by its last part.
        system: whose; names of Windows are compared without regard to case.
        distribution: ID of os-release(5), and ID_LIKE after a space, to say only its packages; `None` if unknown.
        requested_by: path of the image that needs it; a package that replaces another one is for its files only.

    Returns: () if nothing is known of the name, or of the system.
    """
    windows = system is System.WINDOWS
    name = compared_name(library, system)
    for row in read_table("providers")["providers"]:
        if row["system"] != system.value:
            continue
        for pattern in row["names"]:
            wildcards = _match(pattern.lower() if windows else pattern, name)
            if wildcards is not None:
                found = _providers(row, wildcards, distribution)
                return tuple(one for one in found if not one.only_for or f"/{one.only_for}/" in requested_by)
    return ()


_SONAME = re.compile(r"lib([A-Za-z][\w.+-]{0,80}?)(?:\.so\.(\d[\w.]{0,20})|-(\d[\d.]{0,20})\.so)")
_NAMING_RULE = "the name that Debian's rules give to its package"
_NUMBERED = re.compile(r"lib[A-Za-z0-9][\w.+-]{0,80}\.so\.\d[\w.]{0,20}")
_LIBRARY_RULE = "apk installs by the name of a library, too"
_OF_ABUILD = {*_FAMILIES[ProviderKind.APK].split(), "wolfi", "chainguard"}
"""ID of distributions whose packages name the libraries in them."""


def provider_by_rule(soname: str, distribution: str | None) -> tuple[Provider, ...]:
    """Return the package of a library by the rules that a distribution has for names.

    With Debian and its family libfoo.so.2 is in libfoo2 (Policy 8.1). Not every package follows the rule, so such a
    package is offered only where the package manager knows one (`keep_feasible`). apk installs a package by the name of
    a library in it, which abuild notes in every package: so:libfoo.so.2.

    () for another distribution, and for other names.
    """
    if has_hash(soname):
        return ()
    if {*(distribution or "").lower().split()} & _OF_ABUILD and _NUMBERED.fullmatch(soname):
        library = f"so:{soname}"
        what = f"the package of {soname}, if there is one"
        return (Provider(ProviderKind.APK, what, (*_COMMANDS[ProviderKind.APK], library), note=_LIBRARY_RULE),)
    found = _SONAME.fullmatch(soname)
    if found is None or package_kind(distribution) is not ProviderKind.APT:
        return ()
    stem, number = found[1].lower().replace("_", "-"), found[2] or found[3]
    name = f"lib{stem}{'-' if stem[-1].isdigit() else ''}{number}"
    return (Provider(ProviderKind.APT, name, (*_COMMANDS[ProviderKind.APT], name), note=_NAMING_RULE),)


_PLAIN_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)
_SUSE = "suse opensuse"
"""The family of distributions with rpm and without dnf, as `_FAMILIES` has others."""

_SEARCHES = {
    _FAMILIES[ProviderKind.APT]: "apt-file search {}",
    _FAMILIES[ProviderKind.DNF]: "dnf provides '*/{}'",
    _FAMILIES[ProviderKind.APK]: "apk search --exact so:{}",
    _SUSE: "zypper search --provides {}",
    "arch": "pacman -F {}",
    "nixos": "nix-locate lib/{}",
}
"""Families of distributions to the commands that ask all packages for a library.

zypper takes what the packages provide, as "libGL.so.1()(64bit)"; the others the name of the file.
"""


def package_with(need: str, distribution: str | None) -> Remedy:
    """Return what to do about a library that no known package has, with what tells its package on the system."""
    words = (distribution or "").lower().split()
    searches = [text for word in words for family, text in _SEARCHES.items() if word in family.split()]
    named = f" ({searches[0].format(need)} names it)" if searches and _PLAIN_NAME.fullmatch(need) else ""
    if "nixos" in words:  # no FHS folders: each program has its libraries by RUNPATH
        return Remedy(
            f"NixOS has no folder of libraries for all: put the lib folder of the package that has {need}{named} into "
            "LD_LIBRARY_PATH, or take the Python package from nixpkgs"
        )
    return Remedy(
        f"install the package that has {need}{named}; if it was built here, name its folder in LD_LIBRARY_PATH"
    )


def install_remedies(providers: Iterable[Provider]) -> Iterator[Remedy]:
    """Yield how to install from each source: its command, its note and its address."""
    for provider in providers:
        verb = "needed" if provider.kind in (ProviderKind.REBUILD, ProviderKind.NEWER_WINDOWS) else "install"
        note = f" ({provider.note})" if provider.note else ""
        # The address before the note: the short verdict cuts what is long.
        source = f", from {provider.url}" if provider.url else ""
        yield Remedy(f"{verb} {provider.name}{source}{note}", provider.command)


def package_kind(distribution: str | None) -> ProviderKind | None:
    """Return the package manager of a distribution of Linux; `None` for an unknown distribution."""
    words = (distribution or "").lower().split()
    return next((kind for word in words for kind, family in _FAMILIES.items() if word in family.split()), None)


def _match(pattern: str, name: str) -> tuple[str, ...] | None:
    if not any(wildcard in pattern for wildcard in _WILDCARDS):
        return () if pattern == name else None
    expression = "".join(_WILDCARDS.get(character) or re.escape(character) for character in pattern)
    found = re.fullmatch(expression, name)
    return found.groups() if found else None


def _providers(row: dict[str, Any], wildcards: tuple[str, ...], distribution: str | None) -> tuple[Provider, ...]:
    own = package_kind(distribution)
    kinds = [kind for kind in _FAMILIES if distribution is None or kind is own]
    found = [
        replace(_package(kind, spec), note=row.get(f"{kind.value}_note", ""))
        for kind in (*kinds, ProviderKind.PIP)
        for spec in row.get(kind.value, ())
    ]
    found += [
        Provider(**{**entry, "kind": ProviderKind(entry["kind"]), "command": tuple(entry.get("command", ()))})
        for entry in row.get("other", ())
    ]
    found += [_package(ProviderKind.CONDA, spec) for spec in row.get("conda", ())]
    if found and "note" in row:
        found[0] = replace(found[0], note="; ".join(filter(None, (found[0].note, row["note"]))))
    filled = (_fill(provider, wildcards) for provider in found)
    return tuple(provider for provider in filled if all(map(_WORD.fullmatch, provider.command)))


def _package(kind: ProviderKind, spec: str) -> Provider:
    return Provider(kind, spec.partition("=")[0], (*_COMMANDS[kind], spec))


def _fill(provider: Provider, wildcards: tuple[str, ...]) -> Provider:
    """The provider with what the wildcards stood for."""

    def filled(text: str) -> str:
        for number, value in enumerate(wildcards, 1):
            text = text.replace(f"{{{number}}}", value)
        return text

    command = tuple(map(filled, provider.command))
    return replace(provider, name=filled(provider.name), command=command, note=filled(provider.note))


_MANAGERS = {"apt-get": ProviderKind.APT, "dnf": ProviderKind.DNF, "apk": ProviderKind.APK}
_INSTALL, _AGAIN = ("install", "add"), ("--reinstall", "reinstall", "fix")

_NEVER_AGAIN = re.compile(r"(?:libc6|libc-bin|glibc|libstdc\+\+6?|libgcc(?:-s1)?|musl)(?:-dev\w*|-devel)?(?::\w+)?")
"""Packages that every program of the system needs: no remedy replaces them."""

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
    if set(_SUSE.split()) & {*(case.distribution or "").lower().split()}:
        finding = replace(finding, remedies=tuple(map(_by_zypper, finding.remedies)))
    if case.install is None:
        return finding
    tried = (_feasible(remedy, case.install, case.run.process, case.c_library) for remedy in finding.remedies)
    remedies = tuple(remedy for remedy in tried if remedy is not None)
    gone = finding.remedies if not remedies and _LIBRARY_FILE.search(finding.subject) else ()
    if gone and all(_has_no_source(remedy, case.install) for remedy in gone):
        remedies = (package_with(posixpath.basename(finding.subject), case.distribution),)
    return finding if remedies == finding.remedies else replace(finding, remedies=remedies)


def _by_zypper(remedy: Remedy) -> Remedy:
    """Return the remedy with the command of zypper that installs a package again (zypper(8), install --force)."""
    if remedy.command[:2] != _REINSTALL[PackageManager.RPM]:
        return remedy
    return replace(remedy, command=("zypper", "install", "--force", *remedy.command[2:]))


_LIBRARY_FILE = re.compile(r"\.so(?:\.\d[\w.]*)?$")


def _has_no_source(remedy: Remedy, facts: InstallFacts) -> bool:
    """Return whether a remedy fell away because the machine knows no such package."""
    if is_system_install(remedy):
        return not set(_operands(remedy.command)) & facts.available.installed.keys()
    return remedy.command[:1] == ("conda",)


def _feasible(
    remedy: Remedy, facts: InstallFacts, process: ProcessFacts | None, library: CLibrary
) -> Remedy | None:
    """Return the remedy, changed where it has to be; `None` if it cannot work."""
    program = remedy.command[0] if remedy.command else ""
    if is_system_install(remedy):
        return _of_the_system(remedy, facts)
    if program in _MANAGERS or program == "zypper":
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
    if available.unchecked is not None and _NAMING_RULE in remedy.what:
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


def _is_in_force(command: tuple[str, ...], process: ProcessFacts | None) -> bool:
    """Return whether the program that failed had the environment already that the command gives it."""
    if process is None:
        return False
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
