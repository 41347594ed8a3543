"""Finds the packages and installers that have a library, by a table and by the rules of distributions for names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from ..knowledge import read_table
from ..model.environment import PackageManager, Provider, ProviderKind, has_hash
from ..model.failure import System
from ..model.finding import Remedy
from .case import compared_name
from .package_tools import NIX, TOOLS, package_tool
from .remedies import PIP

NO_DLL_SITES = (
    "Take a library only from the package, the installer or the system it belongs to. Web sites that offer single DLL "
    "files are no source: the file may be altered, or of another version, and the next DLL will be missing."
)
"""Shown wherever a missing DLL is reported."""


_COMMANDS = {
    ProviderKind.PIP: (*PIP, "install"),
    ProviderKind.CONDA: ("conda", "install", "-c", "conda-forge"),
    **{tool.kind: tool.install for tool in TOOLS if tool.kind is not None},
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
NAMING_RULE = "the name that Debian's rules give to its package"
_NUMBERED = re.compile(r"lib[A-Za-z0-9][\w.+-]{0,80}\.so\.\d[\w.]{0,20}")
_LIBRARY_RULE = "apk installs by the name of a library, too"


def provider_by_rule(soname: str, distribution: str | None) -> tuple[Provider, ...]:
    """Return the package of a library by the rules that a distribution has for names.

    With Debian and its family libfoo.so.2 is in libfoo2 (Policy 8.1). Not every package follows the rule, so such a
    package is offered only where the package manager knows one (`keep_feasible`). apk installs a package by the name of
    a library in it, which abuild notes in every package: so:libfoo.so.2.

    () for another distribution, and for other names.
    """
    if has_hash(soname):
        return ()
    tool = package_tool(distribution)
    if tool is not None and tool.manager is PackageManager.APK and _NUMBERED.fullmatch(soname):
        what = f"the package of {soname}, if there is one"
        return (Provider(ProviderKind.APK, what, (*tool.install, f"so:{soname}"), note=_LIBRARY_RULE),)
    found = _SONAME.fullmatch(soname)
    if found is None or tool is None or tool.kind is not ProviderKind.APT:
        return ()
    stem, number = found[1].lower().replace("_", "-"), found[2] or found[3]
    name = f"lib{stem}{'-' if stem[-1].isdigit() else ''}{number}"
    return (Provider(ProviderKind.APT, name, (*tool.install, name), note=NAMING_RULE),)


_PLAIN_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)


def package_with(need: str, distribution: str | None) -> Remedy:
    """Return what to do about a library that no known package has, with what tells its package on the system."""
    tool = package_tool(distribution)
    named = f" ({tool.search.format(need)} names it)" if tool is not None and _PLAIN_NAME.fullmatch(need) else ""
    if tool is NIX:  # no FHS folders: each program has its libraries by RUNPATH
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


def _match(pattern: str, name: str) -> tuple[str, ...] | None:
    if not any(wildcard in pattern for wildcard in _WILDCARDS):
        return () if pattern == name else None
    expression = "".join(_WILDCARDS.get(character) or re.escape(character) for character in pattern)
    found = re.fullmatch(expression, name)
    return found.groups() if found else None


def _providers(row: dict[str, Any], wildcards: tuple[str, ...], distribution: str | None) -> tuple[Provider, ...]:
    tools = TOOLS if distribution is None else filter(None, (package_tool(distribution),))
    kinds = [tool.kind for tool in tools if tool.kind is not None]
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
