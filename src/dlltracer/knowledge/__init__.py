"""Reads tables of systems, Pythons and packages from the data files of this folder.

A table of names tells that a name is the system's own, never that it is on one particular system; what it does not have
is unknown. Each file is read when it is first asked for, also from inside a zip archive.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Mapping
from pkgutil import get_data
from typing import Any

from ..model.light import dataclass


def _read(name: str) -> str:
    data = get_data(__name__, name)  # importlib.resources takes longer to import than all tables to read
    assert data is not None
    return data.decode("utf-8")


def _read_lines(name: str) -> list[str]:
    return [line for line in _read(name).splitlines() if line and not line.startswith("#")]


@functools.cache
def read_table(name: str) -> dict[str, Any]:
    """Return the data file `NAME.json`, read once for all that ask. Not to be changed."""
    import json

    table: dict[str, Any] = json.loads(_read(f"{name}.json"))
    return table


_OF_LINUX_DRIVERS = re.compile(
    r"lib(?:cuda\.so|nvidia-|nvcuvid|OpenCL|vulkan|amdhip|hsa|ze_|va\.so|va-|rdmacm|ibverbs|mlx)"
)
"""Families of graphics, compute and network drivers: they fit the kernel of the machine, so no wheel can bring them.
The distribution has packages of some."""


def is_of_driver(name: str, system: str) -> bool:
    """Return whether a library comes with a driver, by its name; names of Windows are compared in any case.

    Arguments: `system`, "windows" or "linux", as in the table of providers, whose rows name the files of drivers.
    """
    wanted = name.lower() if system == "windows" else name
    if system == "linux" and _OF_LINUX_DRIVERS.match(name) is not None:
        return True
    return any(fnmatch.fnmatchcase(wanted, pattern) for pattern in _driver_names(system))


@functools.cache
def _driver_names(system: str) -> tuple[str, ...]:
    rows = [row for row in read_table("providers")["providers"] if row["system"] == system]
    names = [name for row in rows for one in row.get("other", ()) if one["kind"] == "driver" for name in row["names"]]
    # "#" is digits in the table.
    return tuple((name.lower() if system == "windows" else name).replace("#", "[0-9]*") for name in names)


@functools.cache
def system_names() -> frozenset[str]:
    """Return files of Windows' own (of its System32), lower case. tools/make_system_names.py makes the table."""
    return frozenset(_read_lines("system_dlls.txt"))


@functools.cache
def contract_stems() -> frozenset[str]:
    """Return contracts of Windows, lower case, without ".dll" and the last number."""
    return frozenset(_read_lines("api_sets.txt"))


@functools.cache
def usual_known_dlls() -> frozenset[str]:
    """Return the KnownDLLs of Windows 10 and 11 as they come, lower case."""
    return frozenset(_read_lines("known_dlls.txt"))


@functools.lru_cache(maxsize=4096)  # not without an end: the names are those of the files
def explain_not_system(name: str) -> str | None:
    """Return why a file of that base name (lower case) is not on every Windows, though often taken for Windows' own.

    In words for a report ("part of the Visual C++ runtime, ..."); `None` if nothing is known against it.
    """
    for line in _exclusions():
        pattern, _, reason = line.partition("\t")
        if fnmatch.fnmatchcase(name, pattern):
            return None if reason == "!" else reason
    return None


@functools.cache
def _exclusions() -> tuple[str, ...]:
    return tuple(_read_lines("not_system.txt"))


@functools.cache
def glibc_names() -> frozenset[str]:
    """Return the names that glibc exports and musl does not."""
    return frozenset(_read_lines("glibc_libc.txt"))


@dataclass(frozen=True)
class MuslName:
    """A name that musl's libc exports: since which version, and on which processors (none given: on all)."""

    since: tuple[int, ...] = (1, 0)
    machines: tuple[str, ...] = ()


@functools.cache
def musl_names() -> Mapping[str, MuslName]:
    """Return the names that musl's libc exports. They are also names of C libraries in general."""
    names = {}
    for line in _read_lines("musl_libc.txt"):
        name, *facts = line.split()
        has_version = bool(facts) and facts[0][0].isdecimal()
        since = tuple(map(int, facts.pop(0).split("."))) if has_version else (1, 0)
        names[name] = MuslName(since, tuple(facts))
    return names


NEWEST_PYTHON = 15
"""The table of Python's API ends with 3.15."""


@dataclass(frozen=True)
class PythonName:
    """A name of CPython's C API.

    Attributes:
        stable_since: the minor version of Python 3 that put it into the stable ABI; `None` if it is not in there.
        minors: the minor versions that export it, from 6 to `NEWEST_PYTHON`.
        is_free_threaded: whether the free-threaded 3.14 exports it.
        is_debug: whether debug builds alone have it.
        is_elsewhere: whether Linux has it in no version: a name for Windows.
    """

    stable_since: int | None
    minors: frozenset[int]
    is_free_threaded: bool
    is_debug: bool
    is_elsewhere: bool


@functools.cache
def python_names() -> Mapping[str, PythonName]:
    """Return the names of CPython's C API, private ones included."""
    names, alike = {}, {}
    for line in _read_lines("python_api.txt"):
        name, facts = line.split(maxsplit=1)
        if facts not in alike:  # a few hundred of three thousand are not
            alike[facts] = _read_python_name(*facts.split())
        names[name] = alike[facts]
    return names


def _read_python_name(added: str, ranges: str, marks: str) -> PythonName:
    minors: set[int] = set()
    for part in ranges.split(",") if ranges != "-" else ():
        first, _, last = part.partition("-")
        minors.update(range(int(first), int(last or first) + 1))
    stable = None if added == "-" else int(added)
    return PythonName(stable, frozenset(minors), "t" in marks, "d" in marks, "w" in marks)
