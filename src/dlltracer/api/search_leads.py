"""Finds why a search missed a library that is there: facts in the files around the requester."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections.abc import Iterable, Iterator
from itertools import islice

from ..binary.elf import read_elf
from ..diagnose.case import Case, LeadKind, SearchLead
from ..errors import BinaryFormatError
from ..host.filesystem import HostFilesystem
from ..model.elf import ElfImage
from ..model.failure import ProcessFacts
from ..model.loader_context import FileKind
from ..model.tree import BindingState
from ..resolve.linux import expand_tokens

_MOST_NEEDS = 20
_MOST_FOLDERS = 50
_MOST_READ = 20
_MOST_ELEMENTS = 100
_LEVELS = 4
"""Folders above a requester in which a file named by a relative path is looked for."""
_STEM = re.compile(r"(.+?\.so)(?:\.|$)")
_T64 = "t64"
"""What Debian and Ubuntu added to names in 2024, for libraries whose time_t grew to 64 bits."""
_EATEN = re.compile(r"^(?:[\\'\"]?\$?[({]?(?:ORIGIN|RIGIN)?[)}]?)(?=/)")
"""What a shell or a build tool leaves of "$ORIGIN/": "$O" is an empty variable to make, "$ORIGIN" to a shell."""


def find_leads(case: Case, process: ProcessFacts) -> dict[str, tuple[SearchLead, ...]]:
    """Return, for each name that was not found, the files that explain it."""
    files = HostFilesystem()
    leads: dict[str, tuple[SearchLead, ...]] = {}
    for need, requester in list(_wanted(case))[:_MOST_NEEDS]:
        found = tuple(_leads_of(need, requester, case, process, files))
        if found:
            leads.setdefault(need, found)
    return leads


def _wanted(case: Case) -> Iterator[tuple[str, str | None]]:
    for event in case.failed_events:
        yield event.need or event.path, event.requested_by
    for binding in case.tree.bindings if case.tree is not None else ():
        if binding.state is BindingState.MISSING and not binding.delayed:
            yield binding.need, binding.requested_by


def _leads_of(
    need: str, requester: str | None, case: Case, process: ProcessFacts, files: HostFilesystem
) -> Iterator[SearchLead]:
    if need.startswith("/"):
        yield from _other_cases(need, [need], files)
        return
    image = case.images.get(requester or "")
    if "/" in need:
        if isinstance(image, ElfImage) and need in image.needed:
            yield from _relative_need(need, requester, process, files)
        return
    if requester is not None and isinstance(image, ElfImage):
        elements = (image.rpath if image.runpath is None else image.runpath or "") or ""
        parts = elements.split(":")[:_MOST_ELEMENTS]
        yield from _beside_the_link(need, requester, parts, files)
        yield from _eaten_origin(need, requester, parts, files)
    yield from _late_path(need, process, files)
    yield from _relative_path(need, process, files)
    tried = [probe.path for probe in case.probes_of(need)]
    yield from _other_names(need, [*dict.fromkeys(map(posixpath.dirname, tried))][:_MOST_FOLDERS], files)
    yield from _other_cases(need, tried, files)


def _relative_need(
    need: str, requester: str | None, process: ProcessFacts, files: HostFilesystem
) -> Iterator[SearchLead]:
    """The loader takes a name with a slash from the current folder, whatever the folder of the image that needs it."""
    folder = posixpath.dirname(requester or process.current_folder)
    for _ in range(_LEVELS):
        for path in (f"{folder}/{need}", f"{folder}/{posixpath.basename(need)}"):
            if files.kind(path) is FileKind.FILE:
                yield SearchLead(LeadKind.RELATIVE_NEED, posixpath.normpath(path))
                return
        folder = posixpath.dirname(folder)
    yield SearchLead(LeadKind.RELATIVE_NEED, None)


def _beside_the_link(need: str, requester: str, elements: Iterable[str], files: HostFilesystem) -> Iterator[SearchLead]:
    """$ORIGIN is the folder of the link, not of the file (see `GlibcRules._origin_of`)."""
    real = files.real_path(requester)
    if posixpath.dirname(real) == posixpath.dirname(requester):
        return
    for element in elements:
        folder = expand_tokens(element, {"ORIGIN": posixpath.dirname(real), "LIB": None, "PLATFORM": None})
        if "ORIGIN" in element and folder is not None and files.kind(f"{folder}/{need}") is FileKind.FILE:
            yield SearchLead(LeadKind.ORIGIN_OF_LINK, posixpath.normpath(f"{folder}/{need}"), element, real)


def _eaten_origin(need: str, requester: str, elements: Iterable[str], files: HostFilesystem) -> Iterator[SearchLead]:
    for element in elements:
        is_whole = expand_tokens(element, {"ORIGIN": "", "LIB": None, "PLATFORM": None}) != element
        # A token behind a backslash or a quote is expanded, and leads nowhere.
        if not element or (is_whole and not element.startswith(("\\", "'", '"'))):
            continue
        rest = _EATEN.sub("", element, count=1)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(requester), rest.strip("'\"").lstrip("/"), need))
        named = posixpath.normpath(posixpath.join(element, need))
        if path != named and files.kind(path) is FileKind.FILE:
            yield SearchLead(LeadKind.ORIGIN_EATEN, path, element)


def _late_path(need: str, process: ProcessFacts, files: HostFilesystem) -> Iterator[SearchLead]:
    start = process.loader_environment.get("LD_LIBRARY_PATH", "").split(":")
    now = process.variable("LD_LIBRARY_PATH").split(":")
    for element in dict.fromkeys((*now, *(start if process.is_secure else ()))):
        path = posixpath.join(process.current_folder, element, need)
        if element and (element not in start or process.is_secure) and files.kind(path) is FileKind.FILE:
            kind = LeadKind.SECURE_MODE if process.is_secure else LeadKind.LATE_LIBRARY_PATH
            yield SearchLead(kind, posixpath.normpath(path), element)


def _relative_path(need: str, process: ProcessFacts, files: HostFilesystem) -> Iterator[SearchLead]:
    """A relative folder starts from the current folder: it was right when the program was started in another one."""
    if process.is_secure or not process.current_folder:
        return
    for element in dict.fromkeys(process.loader_environment.get("LD_LIBRARY_PATH", "").split(":")):
        if not element or element.startswith(("/", "$")):
            continue
        folders = [process.current_folder]
        for _ in range(_LEVELS):
            folders.append(posixpath.dirname(folders[-1]))
        for folder in (*folders[1:], *process.path[:_MOST_FOLDERS]):
            path = posixpath.normpath(f"{folder}/{element}/{need}")
            if folder != process.current_folder and files.kind(path) is FileKind.FILE:
                yield SearchLead(LeadKind.RELATIVE_LIBRARY_PATH, path, element)
                return


def _other_names(need: str, folders: Iterable[str], files: HostFilesystem) -> Iterator[SearchLead]:
    """Files in the folders searched that are the library under another name."""
    match = _STEM.match(need)
    if match is None:
        return
    left = _MOST_READ
    for folder in folders:
        try:
            names = sorted(name for name in os.listdir(folder) if name.startswith(match[1]))
        except (OSError, ValueError):
            continue
        for name in names:
            path = f"{folder}/{name}"
            if name in (f"{need}{_T64}", need.removesuffix(_T64)) and name != need:
                yield SearchLead(LeadKind.RENAMED, path)
            elif name != need and left > 0 and files.kind(path) is FileKind.FILE:
                left -= 1
                if _soname_of(path) == need:
                    yield SearchLead(LeadKind.LINK_MISSING, path)
                elif need.endswith(".so") and _soname_of(path) == name and name.startswith(f"{need}."):
                    yield SearchLead(LeadKind.NUMBERED, path)


def _other_cases(need: str, tried: Iterable[str], files: HostFilesystem) -> Iterator[SearchLead]:
    yield from (SearchLead(LeadKind.OTHER_CASE, path) for _, path in find_other_cases([(need, tried)], files))


def find_other_cases(
    tried: Iterable[tuple[str, Iterable[str]]], files: HostFilesystem
) -> Iterator[tuple[str, str]]:
    """Yield files whose name differs from one that was not found in upper and lower case only.

    Arguments: `tried`, each name with the paths where it was looked for.

    Returns: the name that was not found, and the path of a file in a folder that was searched for it.
    """
    listings: dict[str, dict[str, list[str]]] = {}
    for need, paths in islice(tried, _MOST_NEEDS):
        name = posixpath.basename(need)
        for folder in islice(dict.fromkeys(map(posixpath.dirname, paths)), _MOST_FOLDERS):
            if folder not in listings:
                listings[folder] = _list_by_lower_case(folder, files)
            alike = (one for one in listings[folder].get(name.lower(), ()) if one != name)
            yield from ((need, f"{folder}/{one}") for one in alike if files.kind(f"{folder}/{one}") is FileKind.FILE)


def _list_by_lower_case(folder: str, files: HostFilesystem) -> dict[str, list[str]]:
    listing: dict[str, list[str]] = {}
    with contextlib.suppress(OSError, ValueError):
        for name in sorted(os.listdir(files.host_path(folder))):
            listing.setdefault(name.lower(), []).append(name)
    return listing


def _soname_of(path: str) -> str | None:
    try:
        return read_elf(path).soname
    except (OSError, BinaryFormatError):
        return None
