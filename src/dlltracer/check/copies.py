"""Which runtimes an environment has more than once, and whose copy a process gets.

Copies of one build are harmless, whoever wins. Tools that repair wheels patch the copies, so that builds are told apart
by their identification (build-id, UUID, version) and not by their bytes.

Sources: _dl_map_object in elf/dl-load.c of glibc and "Dynamic-link library search order" of MS Learn (one image of a
name in a process); __kmp_register_library_startup in the OpenMP runtime of LLVM ("OMP: Error #15").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..model.check import Problem, Severity
from .platform_check import original_name

_FAMILIES = (
    ("LLVM's OpenMP", re.compile(r"lib(?:omp|iomp5)(?:md|140[\w.]*)?\.")), ("libgomp", re.compile(r"libgomp\.")),
    ("libstdc++", re.compile(r"libstdc\+\+")), ("libgcc_s", re.compile(r"libgcc_s")),
    ("libgfortran", re.compile(r"libgfortran")), ("OpenBLAS", re.compile(r"lib\w*openblas")),
    ("TBB", re.compile(r"(?:lib)?tbb(?:12)?\.")), ("OpenSSL", re.compile(r"libcrypto")),
    ("protobuf", re.compile(r"libprotobuf\.")), ("HDF5", re.compile(r"(?:lib)?hdf5\.")),
    ("the C++ runtime", re.compile(r"msvcp140\.")), ("the C runtime", re.compile(r"vcruntime140\.")),
    ("concrt140", re.compile(r"concrt140\.")), ("vcomp140", re.compile(r"vcomp140\.")),
)  # fmt: skip
_ONE_ONLY = "LLVM's OpenMP"
_NAMED = 4


@dataclass(frozen=True)
class RuntimeCopy:
    """A library of an environment: its place, the name that others ask for, its package, and what tells its build."""

    place: str
    name: str
    package: str
    build: str


def family_of(name: str) -> str | None:
    """Return the runtime that a library is a copy of, by its name; `None` for a library of another kind."""
    plain = original_name(name)
    return next((family for family, pattern in _FAMILIES if pattern.match(plain)), None)


def judge_copies(copies: Iterable[RuntimeCopy]) -> Iterator[Problem]:
    """Yield a problem for each runtime of which several packages have copies of different builds."""
    groups: dict[str, list[RuntimeCopy]] = {}
    for copy in copies:
        groups.setdefault(family_of(copy.name) or copy.name, []).append(copy)
    for family, found in sorted(groups.items()):
        packages = sorted({copy.package for copy in found})
        builds = {copy.build for copy in found}
        if len(packages) > 1 and len(builds) > 1:
            yield _several(family, found, packages, len(builds))


def _several(family: str, found: Sequence[RuntimeCopy], packages: Sequence[str], builds: int) -> Problem:
    names = {copy.name.lower() for copy in found}
    more = f" and {len(packages) - _NAMED} more" if len(packages) > _NAMED else ""
    severity, fix = Severity.NOTE, ""
    if len(names) == 1:
        outcome = "all have one name: the copy of the package that is imported first serves the others, too"
    elif len(names) == len({copy.place for copy in found}):
        outcome = "each has a name of its own, and serves its own package"
    else:
        outcome = "of those with one name the copy of the package that is imported first serves the others, too"
    if family == _ONE_ONLY and len(names) > 1:
        severity, fix = Severity.WARNING, "install builds of the packages that share one (conda), or use one of them"
        outcome = "a process that gets two of them ends with: OMP: Error #15"
    return Problem(
        code="runtime-copies", severity=severity, file=found[0].place,
        title=f"{family} is in {len(packages)} packages, in {builds} builds: {', '.join(packages[:_NAMED])}{more}",
        evidence=(outcome, *(f"{copy.package}: {copy.place}" for copy in found)), fix=fix,
    )  # fmt: skip
