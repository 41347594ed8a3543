"""Reads tables about Windows: its names, its contracts, its usual known DLLs, and names that only look like its own.
Each table is a text file beside this one, read when it is first asked for.

A table tells that a name is Windows' own, never that it is on one particular Windows; what it does not have is unknown.
"""

from __future__ import annotations

import fnmatch
import functools
from pkgutil import get_data


@functools.cache
def system_names() -> frozenset[str]:
    """Files of Windows' own (of its System32), lower case. Made by tools/make_system_names.py from import libraries."""
    return frozenset(_read_lines("system_dlls.txt"))


@functools.cache
def contract_stems() -> frozenset[str]:
    """Contracts of Windows, lower case, without ".dll" and the last number."""
    return frozenset(_read_lines("api_sets.txt"))


@functools.cache
def usual_known_dlls() -> frozenset[str]:
    """The KnownDLLs of Windows 10 and 11 as they come, lower case."""
    return frozenset(_read_lines("known_dlls.txt"))


@functools.cache
def explain_not_system(name: str) -> str | None:
    """Return why a file of that base name (lower case) is not on every Windows, though it is often taken for Windows'
    own.

    Returns: words for a report ("part of the Visual C++ runtime, ..."), or `None` if nothing is known against it.
    """
    for line in _exclusions():
        pattern, _, reason = line.partition("\t")
        if fnmatch.fnmatchcase(name, pattern):
            return None if reason == "!" else reason
    return None


@functools.cache
def _exclusions() -> tuple[str, ...]:
    return tuple(_read_lines("not_system.txt"))


def _read_lines(name: str) -> list[str]:
    data = get_data(__name__, name)  # importlib.resources takes longer to import than all tables to read
    assert data is not None
    return [line for line in data.decode("ascii").splitlines() if line and not line.startswith("#")]
