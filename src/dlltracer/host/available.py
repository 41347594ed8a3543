"""What could be installed on this machine, and what is: asked of its package managers, without the network."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable

from ..model.provider import AvailablePackages, ProviderKind
from .bounded import ask_program

_LISTS = {ProviderKind.APT: "/var/lib/apt/lists", ProviderKind.APK: "/var/cache/apk"}
"""Where the lists of packages are that apt and apk have fetched. Images of containers are often made without."""

_NO_LISTS = "this machine has no lists of packages, which {} update fetches"

_TOOLS = {"patchelf": ("--version",)}
"""Programs of which a newer version has more options, and how to ask for their version."""


def read_available(kind: ProviderKind, names: Iterable[str]) -> AvailablePackages:
    """Ask the package manager of this machine for packages, offline.

    Arguments: `names` of packages; those that the manager does not know are in `candidates` with `None`.
    """
    wanted = list(dict.fromkeys(names))
    ask = {ProviderKind.APT: _ask_apt, ProviderKind.DNF: _ask_dnf, ProviderKind.APK: _ask_apk}.get(kind)
    if ask is None or not wanted:
        return AvailablePackages()
    return ask(wanted)


def read_tool_versions(programs: Container[str]) -> dict[str, str]:
    """Return the versions of those of these programs whose version matters and that are installed in the system."""
    found = {}
    for name, arguments in _TOOLS.items():
        answer = ask_program(name, *arguments, seconds=5) if name in programs else ""
        version = None if isinstance(answer, str) else re.search(r"\d+(?:\.\d+)*", answer.output)
        if version is not None:
            found[name] = version[0]
    return found


def _ask_apt(names: list[str]) -> AvailablePackages:
    # Debian 13 and Ubuntu 24.04 gave packages another name whose interface has times of 64 bits on 32-bit machines.
    both = [name for wanted in names for name in (wanted, f"{wanted}t64")]
    answer = ask_program("apt-cache", "policy", "--", *both)
    if isinstance(answer, str):
        return AvailablePackages(unchecked=answer)
    candidates, installed = parse_apt_policy(answer.output)
    if not _has_lists(ProviderKind.APT, "_Packages"):
        return AvailablePackages(installed=installed, unchecked=_NO_LISTS.format("apt-get"))
    return AvailablePackages(candidates={**dict.fromkeys(both), **candidates}, installed=installed)


def parse_apt_policy(text: str) -> tuple[dict[str, str | None], dict[str, str]]:
    """Return candidates and installed versions from what `apt-cache policy` writes in English."""
    candidates: dict[str, str | None] = {}
    installed: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            name = line.rstrip(":")
        found = re.fullmatch(r"  (Installed|Candidate): (\S+)", line)
        if found is None or not name:
            continue
        version = None if found[2] == "(none)" else found[2]
        if found[1] == "Candidate":
            candidates[name] = version
        elif version is not None:
            installed[name] = version
    return candidates, installed


def _ask_apk(names: list[str]) -> AvailablePackages:
    answer = ask_program("apk", "policy", "--", *names)
    if isinstance(answer, str):
        return AvailablePackages(unchecked=answer)
    candidates, installed = parse_apk_policy(answer.output)
    if not _has_lists(ProviderKind.APK, ".tar.gz"):
        return AvailablePackages(installed=installed, unchecked=_NO_LISTS.format("apk"))
    return AvailablePackages(candidates={**dict.fromkeys(names), **candidates}, installed=installed)


def parse_apk_policy(text: str) -> tuple[dict[str, str | None], dict[str, str]]:
    """Return candidates and installed versions from what `apk policy` writes.

    A package has a line "NAME policy:", a line for each version, and below that the places that have it:
    "lib/apk/db/installed" for what is installed, the address of a repository for what can be.
    """
    candidates: dict[str, str | None] = {}
    installed: dict[str, str] = {}
    name = version = ""
    for line in text.splitlines():
        if line.endswith(" policy:"):
            name = line.removesuffix(" policy:")
        elif re.fullmatch(r"  \S+:", line):
            version = line.strip().rstrip(":")
        elif line.strip() == "lib/apk/db/installed":
            installed[name] = version
        elif line.startswith("    ") and name:
            candidates[name] = version
    return candidates, installed


def _ask_dnf(names: list[str]) -> AvailablePackages:
    form = "%{name} %{version}\n"
    installed = ask_program("rpm", "-q", "--qf", form, "--", *names)
    rows = [] if isinstance(installed, str) else [line.split() for line in installed.output.splitlines()]
    have = {row[0]: row[1] for row in rows if len(row) == 2 and row[0] in names}
    answer = ask_program("dnf", "--cacheonly", "--quiet", "repoquery", "--qf", form, "--", *names)
    if isinstance(answer, str) or answer.status != 0:
        why = answer if isinstance(answer, str) else "dnf has no lists of packages here (dnf makecache)"
        return AvailablePackages(installed=have, unchecked=why)
    rows = [line.split() for line in answer.output.splitlines()]
    found: dict[str, str | None] = {row[0]: row[1] for row in rows if len(row) == 2}
    return AvailablePackages(candidates={**dict.fromkeys(names), **found}, installed=have)


def _has_lists(kind: ProviderKind, mark: str) -> bool:
    try:
        return any(mark in name for name in os.listdir(_LISTS[kind]))
    except OSError:
        return False
