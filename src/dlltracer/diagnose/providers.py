"""Who provides a library: from its file name to safe sources, the most fitting first.

The table (`knowledge/providers.json`) has a row for each group of names. In a name `*` stands for anything, `#` for one
or more digits and `?` for one character; "{1}" in a package name is what the first of them stood for. The first row
that has the name counts. A name with the hash of a repaired wheel (libgomp-a34b3233.so.1) is in none: its package
brings the file itself. "checked" in a row names the kinds of package of which the list of files, or the recipe that
makes them, was seen to have a file of the row; how, and how to add a row: docs/reference/providers.md.
"""

from __future__ import annotations

import ntpath
import posixpath
import re
from dataclasses import replace

from ..model.failure import System
from ..model.provider import Provider, ProviderKind
from .knowledge.reader import read_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NO_DLL_SITES = (
    "Take a library only from the package, the installer or the system it belongs to. Web sites that offer single DLL "
    "files are no source: the file may be altered, or of another version, and the next DLL will be missing."
)
"""To be said wherever a missing DLL is reported."""


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


def find_providers(library: str, system: System, distribution: str | None = None) -> tuple[Provider, ...]:
    """Safe sources of a library.

    Arguments:
        library: its file name or soname; a path is taken by its last part.
        system: whose; names of Windows are compared without regard to case.
        distribution: ID of os-release(5), and ID_LIKE after a space, to say only its packages; `None` if unknown.

    Returns: () if nothing is known of the name, or of the system.
    """
    windows = system is System.WINDOWS
    name = ntpath.basename(library).lower() if windows else posixpath.basename(library)
    for row in read_table("providers")["providers"]:
        if row["system"] != system.value:
            continue
        for pattern in row["names"]:
            wildcards = _match(pattern.lower() if windows else pattern, name)
            if wildcards is not None:
                return _providers(row, wildcards, distribution)
    return ()


def package_kind(distribution: str | None) -> ProviderKind | None:
    """Which manager a distribution of Linux has; `None` if it is not one of those known."""
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
