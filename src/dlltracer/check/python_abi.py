"""Checks whether the names that native files import of Python are there: stable ABI, versions, debug builds.

What a version exports is known from the files of CPython itself (knowledge/python_api.txt). On Linux and macOS a module
finds whatever the running Python exports: a name outside the stable ABI fails only where a promised version lacks it.
On Windows, python3.dll exports the stable ABI and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..knowledge import NEWEST_PYTHON, PythonName, python_names
from ..model.check import Severity
from .tags import PythonPromise

_API = re.compile(r"_?Py(?!Py|Init_)")
"""Names of the C API. PyPy's own names begin with PyPy."""
_TRACING = re.compile(
    r"_Py_(?:RefTotal|NegativeRefcount|INCREF_IncRefTotal|DECREF_DecRefTotal|AddToAllObjects)$|Py\w+TraceRefs$"
)
"""Names that debug builds alone export: Include/refcount.h and Include/modsupport.h of CPython."""
_FREE_THREADED_KNOWN = 14
_OF_GIL_BUILD = "_Py_Dealloc"
_OF_FREE_THREADED = {"_Py_MergeZeroLocalRefcount", "_Py_DecRefShared"}
"""Names that Py_DECREF is compiled to: the first with a GIL, the others without one (Include/refcount.h)."""
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class ApiProblem:
    """Something wrong with what a file imports of Python; the check of its platform makes a `Problem` of it."""

    code: str
    severity: Severity
    title: str
    evidence: tuple[str, ...]
    fix: str


def is_python_name(name: str, promise: PythonPromise) -> bool:
    """Return whether a Python exports a symbol of that name: CPython 3 of any version or build, PyPy.

    For files of which it is not known that they are for Python 3, every name counts that looks like one of the C API.
    """
    if _API.match(name) and (promise.version is None or promise.version[0] != 3):
        return True
    return name in python_names() or name.startswith(("PyPy", "_PyPy")) or _TRACING.match(name) is not None


def judge_api(names: Iterable[str], promise: PythonPromise) -> Iterator[ApiProblem]:
    """Judge the symbols that a file of Linux or macOS imports of Python.

    Args:
        names: the symbols that it cannot do without, as C has them.
        promise: the Pythons that it is for.
    """
    table = python_names()
    wanted = [name for name in names if _API.match(name)]
    yield from _judge_debug(wanted)
    if promise.takes_both_builds and promise.version is not None:
        yield from _judge_build(wanted, promise.version)
    known = [(name, table[name]) for name in wanted if name in table and not table[name].is_debug]
    if not promise.minors:
        return
    if promise.is_stable:
        yield from _judge_stable(known, promise)
        return
    minor = promise.minors[0]
    if promise.is_free_threaded:
        lacking = [(n, e) for n, e in known if minor == _FREE_THREADED_KNOWN and not e.is_free_threaded]
    else:
        lacking = [(n, e) for n, e in known if minor not in e.minors and not e.is_elsewhere]
    if lacking:
        python = f"Python 3.{minor}{'t' if promise.is_free_threaded else ''}"
        yield ApiProblem(
            code="other-python", severity=Severity.ERROR,
            title=f"it needs {_some(lacking)}, which {python} does not have",
            evidence=tuple(_describe(name, entry) for name, entry in lacking[:_SHOWN]),
            fix=f"build it with {python}; its sources may use what that version no longer has",
        )  # fmt: skip


def judge_python3_dll(names: Iterable[str], promise: PythonPromise) -> Iterator[ApiProblem]:
    """Judge the symbols that a file of Windows imports of python3.dll, which has the stable ABI only."""
    table = python_names()
    wanted = [name for name in names if _API.match(name)]
    yield from _judge_debug(wanted)
    lowest = promise.minors[0] if promise.minors else None
    foreign = [(n, table[n]) for n in wanted if n in table and table[n].stable_since is None]
    foreign += [(n, _UNKNOWN) for n in wanted if n not in table and _TRACING.match(n) is None]
    if foreign:
        yield ApiProblem(
            code="abi3-violation", severity=Severity.ERROR,
            title=f"it needs {_some(foreign)} of python3.dll, which has the stable ABI only",
            evidence=_outside(foreign),
            fix="build it with Py_LIMITED_API and without these names, or for one version of Python",
        )  # fmt: skip
    yield from _judge_newer(
        [(n, table[n]) for n in wanted if n in table], lowest, Severity.ERROR, "python3.dll of older versions lacks it"
    )


_UNKNOWN = PythonName(None, frozenset(), False, False, False)


def _judge_debug(names: Iterable[str]) -> Iterator[ApiProblem]:
    entries = python_names()
    debug = [n for n in names if _TRACING.match(n) or (n in entries and entries[n].is_debug)]
    if debug:
        yield ApiProblem(
            code="debug-build", severity=Severity.ERROR,
            title=f"it needs {debug[0]}, which debug builds of Python alone have",
            evidence=("it was compiled with Py_DEBUG or Py_TRACE_REFS",), fix="build it with a release build of Python",
        )  # fmt: skip


def _judge_build(names: list[str], version: tuple[int, int]) -> Iterator[ApiProblem]:
    """Judge a module whose name and tags let Pythons with and without a GIL import it: objects differ between them."""
    if _OF_GIL_BUILD in names and _OF_FREE_THREADED.isdisjoint(names):
        python = f"Python 3.{version[1]}"
        yield ApiProblem(
            code="other-python", severity=Severity.ERROR,
            title=f"it was built for {python} with a GIL, and its tag (ABI none) is for {python}t (free-threaded), too",
            evidence=(f"it needs {_OF_GIL_BUILD}, to which Py_DECREF is compiled for the build with a GIL",
                      "objects are laid out differently without one: the import crashes"),
            fix=f"give the wheel the ABI tag cp3{version[1]}: python -m wheel tags --abi-tag cp3{version[1]}",
        )  # fmt: skip


def _judge_stable(known: list[tuple[str, PythonName]], promise: PythonPromise) -> Iterator[ApiProblem]:
    lacking = [
        (name, entry) for name, entry in known
        if not entry.is_elsewhere and any(minor not in entry.minors for minor in promise.minors)
    ]  # fmt: skip
    if lacking:
        without = [minor for minor in promise.minors if minor not in lacking[0][1].minors]
        yield ApiProblem(
            code="abi3-violation", severity=Severity.ERROR,
            title=f"it needs {_some(lacking)}, which Python {_versions(without)} does not have",
            evidence=tuple(_describe(name, entry) for name, entry in lacking[:_SHOWN]),
            fix="build it with Py_LIMITED_API of the lowest version that the tags promise, or change the tags",
        )  # fmt: skip
    reported = {name for name, _ in lacking}
    foreign = [(n, e) for n, e in known if e.stable_since is None and n not in reported]
    if foreign:
        yield ApiProblem(
            code="abi3-violation", severity=Severity.WARNING,
            title=f"it needs {_some(foreign)}, which the stable ABI does not have",
            evidence=(*_outside(foreign), f"every Python up to 3.{NEWEST_PYTHON} that the tags promise has it"),
            fix="build it with Py_LIMITED_API and without these names, or for one version of Python",
        )  # fmt: skip
    lowest = promise.minors[0] if promise.minors else None
    yield from _judge_newer(
        [(n, e) for n, e in known if n not in reported], lowest, Severity.NOTE,
        "the promised versions export it all the same",
    )  # fmt: skip


def _judge_newer(
    known: list[tuple[str, PythonName]], lowest: int | None, severity: Severity, remark: str
) -> Iterator[ApiProblem]:
    """Judge names that came into the stable ABI after the lowest promised version."""
    newer = [(n, e) for n, e in known if lowest is not None and e.stable_since is not None and e.stable_since > lowest]
    if newer:
        yield ApiProblem(
            code="abi3-violation", severity=severity,
            title=f"it needs {_some(newer)}, which is in the stable ABI from 3.{newer[0][1].stable_since} on, and the"
            f" tags promise 3.{lowest}",
            evidence=(*(f"{n}: in the stable ABI from 3.{e.stable_since} on" for n, e in newer[:_SHOWN]), remark),
            fix=f"build it with Py_LIMITED_API of 3.{lowest}, or raise the version in the tags or in Requires-Python",
        )  # fmt: skip


def _some(names: list[tuple[str, PythonName]]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0][0]}{more}"


def _outside(names: list[tuple[str, PythonName]]) -> tuple[str, ...]:
    return tuple(f"{name}: not in the stable ABI" for name, _ in names[:_SHOWN])


def _describe(name: str, entry: PythonName) -> str:
    return f"{name}: Python {_versions(sorted(entry.minors))} has it" if entry.minors else f"{name}: no Python 3 has it"


def _versions(minors: list[int]) -> str:
    """Return "3.6 to 3.9, 3.12" for minor versions in their order."""
    runs: list[list[int]] = []
    for minor in minors:
        if runs and minor == runs[-1][-1] + 1:
            runs[-1].append(minor)
        else:
            runs.append([minor])
    return ", ".join(f"3.{run[0]} to 3.{run[-1]}" if len(run) > 1 else f"3.{run[0]}" for run in runs)
