"""The package tools of distributions: the commands that install packages, and install them again."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ..model.environment import PackageManager, ProviderKind


@dataclass(frozen=True, kw_only=True)
class PackageTool:
    """The tool that installs the packages of a family of distributions of Linux.

    Attributes:
        family: ID and ID_LIKE of os-release(5).
        kind: of its packages in the tables of packages; `None` if these have none.
        manager: the program that keeps the list of what it installed; `None` if that is not asked for owners of files.
        install, reinstall: the commands, to which packages are added; () if none is offered.
        search: the command that asks all packages for a library, whose name takes the place of {}; empty if none does.
    """

    family: frozenset[str]
    kind: ProviderKind | None = None
    manager: PackageManager | None = None
    install: tuple[str, ...] = ()
    reinstall: tuple[str, ...] = ()
    search: str = ""


_APK = PackageTool(
    family=frozenset(("alpine", "postmarketos")),
    kind=ProviderKind.APK,
    manager=PackageManager.APK,
    install=("apk", "add"),
    reinstall=("apk", "fix", "--reinstall"),
    search="apk search --exact so:{}",
)

NIX = PackageTool(family=frozenset(("nixos",)), search="nix-locate lib/{}")

TOOLS = (
    PackageTool(
        family=frozenset(
            ("debian", "ubuntu", "linuxmint", "pop", "raspbian", "kali", "devuan", "elementary", "zorin", "neon")
        ),
        kind=ProviderKind.APT,
        manager=PackageManager.DPKG,
        install=("apt-get", "install"),
        reinstall=("apt-get", "install", "--reinstall"),
        search="apt-file search {}",
    ),
    PackageTool(
        family=frozenset(("fedora", "rhel", "centos", "rocky", "almalinux", "ol", "amzn", "scientific", "cloudlinux")),
        kind=ProviderKind.DNF,
        manager=PackageManager.RPM,
        install=("dnf", "install"),
        reinstall=("dnf", "reinstall"),
        search="dnf provides '*/{}'",
    ),
    _APK,
    # Their packages have other names than Alpine's: the tables know none of them.
    replace(_APK, family=frozenset(("wolfi", "chainguard")), kind=None),
    PackageTool(  # takes what the packages provide, as "libGL.so.1()(64bit)", not the name of the file
        family=frozenset(("suse", "opensuse")),
        manager=PackageManager.RPM,
        reinstall=("zypper", "install", "--force"),  # zypper(8); SUSE has no dnf
        search="zypper search --provides {}",
    ),
    PackageTool(family=frozenset(("arch",)), search="pacman -F {}"),
    NIX,
)

_CONDA_AGAIN = ("conda", "install", "--force-reinstall")

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


def package_tool(distribution: str | None) -> PackageTool | None:
    """Return the package tool of a distribution of Linux; `None` for an unknown distribution.

    Arguments: `distribution`, ID of os-release(5), and ID_LIKE after a space; `None` if unknown.
    """
    words = (distribution or "").lower().split()
    return next((tool for word in words for tool in TOOLS if word in tool.family), None)


def reinstall_command(manager: PackageManager, distribution: str | None) -> tuple[str, ...]:
    """Return the command that installs a package again, to which the package is added.

    The distribution decides between tools that share a list of packages, as dnf and zypper share that of rpm; the first
    of `TOOLS` stands for an unknown one. () for pip, whose command depends on the interpreter.
    """
    if manager is PackageManager.CONDA:
        return _CONDA_AGAIN
    own = package_tool(distribution)
    tools = (own, *TOOLS) if own is not None else TOOLS
    return next((tool.reinstall for tool in tools if tool.manager is manager), ())


def installs_again(command: tuple[str, ...]) -> bool:
    """Return whether a command is that of a package tool for packages that are installed already."""
    return any(tool.reinstall and command[: len(tool.reinstall)] == tool.reinstall for tool in TOOLS)


def tool_that_installs(command: tuple[str, ...]) -> PackageTool | None:
    """Return the package tool whose command installs new packages; `None` for any other command."""
    if installs_again(command):
        return None
    return next((tool for tool in TOOLS if tool.install and command[: len(tool.install)] == tool.install), None)
