"""Windows: a module that was built for another Python."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.tree import BindingState
from ..case import Case
from ..codes import LoadError
from ..windows_load import base_name, code_evidence, firmness, load_error, name_of

CODE = "other-libpython"

_CONFLICT = re.compile(r"Module use of (python\d+t?(?:_d)?\.dll) conflicts with this version of Python")
"""Python/dynload_win.c of CPython, in no other language."""
_PYTHON = re.compile(r"python(\d)(\d*)(t?)(_d)?\.dll")


def check(case: Case) -> Iterator[Finding]:
    """The module asks for the DLL of a Python that is not this one."""
    if case.run.process is None:
        return
    conflict = _CONFLICT.search(case.error.message) if case.error is not None else None
    if conflict is not None:
        says = Evidence(Source.PYTHON, f"it found {conflict[1]} among the imports of the module")
        yield _finding(case, conflict[1], case.subject, (says,), Confidence.CERTAIN)
    if load_error(case) not in (LoadError.NOT_FOUND, LoadError.UNKNOWN):
        return
    for binding in case.failed_bindings(BindingState.MISSING):
        name = base_name(binding.need)
        if binding.requested_by and _PYTHON.fullmatch(name):
            sentence = f"{binding.requested_by} imports {binding.need}, and no place searched has it"
            says = Evidence(Source.FILES, sentence)
            yield _finding(case, binding.need, binding.requested_by, (*code_evidence(case), says), firmness(case))


def _finding(
    case: Case, dll: str, requested_by: str | None, evidence: tuple[Evidence, ...], confidence: Confidence
) -> Finding:
    process = case.run.process
    assert process is not None
    own = ".".join(map(str, process.version[:2]))
    theirs = describe_python(dll)
    file = name_of(requested_by or case.subject or "the module")
    return Finding(
        code=CODE,
        title=f"{file} was built for {theirs}, and this is {_kind(case)}Python {own}",
        confidence=confidence, subject=requested_by or dll, chain=case.chain_to(requested_by, dll),
        probes=case.probes_of(dll),
        explanation=(
            f"{requested_by or 'The module'}{case.owner_of(requested_by) if requested_by else ''} asks for {dll}, "
            "which belongs to "
            f"{theirs}. A module without the limited API works with the one version that it was built for."
        ),
        evidence=evidence,
        remedies=(
            Remedy(f"install a build of it for Python {own}, with the pip of this Python: {process.executable}"),
        ),
    )


def describe_python(dll: str) -> str:
    """Which Python a python*.dll belongs to, in words."""
    found = _PYTHON.fullmatch(dll.lower())
    if found is None:
        return f"the Python of {dll}"
    kind = f"{'a debug build of ' if found[4] else ''}{'free-threaded ' if found[3] else ''}"
    return f"{kind}Python {found[1]}{f'.{found[2]}' if found[2] else ''}"


def _kind(case: Case) -> str:
    assert case.run.process is not None
    debug = "a debug build of " if case.run.process.is_debug else ""
    return f"{debug}{'free-threaded ' if case.run.process.is_free_threaded else ''}"
