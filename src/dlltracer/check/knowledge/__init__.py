"""Reads tables of the systems and Pythons that wheels are for, each in a text file beside this one."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pkgutil import get_data


def _rows(name: str) -> Iterator[list[str]]:
    data = get_data(__name__, name)  # importlib.resources takes a fifth of the start of `check`
    assert data is not None
    text = data.decode("ascii")
    return (line.split() for line in text.splitlines() if line and not line.startswith("#"))


@dataclass(frozen=True)
class MuslName:
    """A name that musl's libc exports: since which version, and on which processors (none given: on all)."""

    since: tuple[int, ...] = (1, 0)
    machines: tuple[str, ...] = ()


@functools.cache
def musl_names() -> Mapping[str, MuslName]:
    """Return the names that musl's libc exports. They are also names of C libraries in general."""
    names = {}
    for name, *facts in _rows("musl_libc.txt"):
        since = (1, 0)
        if facts and facts[0][0].isdecimal():
            since = tuple(map(int, facts.pop(0).split(".")))  # type: ignore[assignment]
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
    for name, *facts in _rows("python_api.txt"):
        key = tuple(facts)
        if key not in alike:  # a few hundred of three thousand are not
            alike[key] = _read_python_name(*facts)
        names[name] = alike[key]
    return names


def _read_python_name(added: str, ranges: str, marks: str) -> PythonName:
    minors: set[int] = set()
    for part in ranges.split(",") if ranges != "-" else ():
        first, _, last = part.partition("-")
        minors.update(range(int(first), int(last or first) + 1))
    stable = None if added == "-" else int(added)
    return PythonName(stable, frozenset(minors), "t" in marks, "d" in marks, "w" in marks)
