"""Extension modules of Linux that were built for another Python than the one that imports them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.provider import PackageManager
from ...model.tree import MissingSymbol
from ..case import Case
from ..loader_errors import DlProblem
from ..remedies import PIP, is_package_name

LIBPYTHON_CODE = "other-libpython"
API_CODE = "python-api-missing"

_LIBPYTHON = re.compile(r"(?:.*/)?libpython(\d)\.(\d+)([a-z]*)\.so(?:\..*)?$")
_API = re.compile(r"_?(?:Graal)?Py[A-Z_]\w*$")


def check(case: Case) -> Iterator[Finding]:
    """Yield what shows that a file was built for another Python: its libpython, functions that this one lacks."""
    yield from _libpython(case)
    yield from _api(case)


def python_of_library(name: str, case: Case) -> str | None:
    """The Python that a libpython is of, if that is another one than the process has: "3.10"."""
    found = _LIBPYTHON.match(name)
    if found is None or case.run.process is None:
        return None
    same = (int(found[1]), int(found[2])) == case.run.process.version[:2] and (
        "t" in found[3]
    ) is case.run.process.is_free_threaded
    return None if same else f"{found[1]}.{found[2]}{found[3]}"


def is_python_api(symbol: MissingSymbol) -> bool:
    """Whether a symbol is one that the interpreter should have."""
    return _API.match(symbol.name) is not None


def this_python(case: Case) -> str:
    """Return the version of the Python that failed, in words: "Python 3.11"."""
    version = case.run.process.version if case.run.process is not None else ()
    free = " without the GIL" if case.run.process is not None and case.run.process.is_free_threaded else ""
    return f"Python {'.'.join(str(part) for part in version[:2])}{free}"


def _libpython(case: Case) -> Iterator[Finding]:
    """A libpython of another version: needed and missing, or loaded beside the one that runs."""
    for binding in case.tree.bindings if case.tree is not None else ():
        other = python_of_library(binding.need, case)
        if other is None:
            continue
        is_missing = binding.path is None
        crashed = case.error is None
        confidence = Confidence.CERTAIN if is_missing and _is_said(case, binding.need) else Confidence.LIKELY
        if not is_missing and not crashed:
            confidence = Confidence.POSSIBLE
        what = (
            "which is not here"
            if is_missing
            else f"which would bring a second Python ({binding.path}) into the process"
        )
        yield Finding(
            code=LIBPYTHON_CODE,
            title=f"{binding.requested_by} was built for Python {other}, and this is {this_python(case)}",
            confidence=confidence,
            subject=binding.requested_by,
            chain=case.chain_to(binding.requested_by, binding.need),
            probes=binding.probes if is_missing else (),
            explanation=f"{binding.requested_by}{case.owner_of(binding.requested_by)} needs {binding.need}, {what}.",
            evidence=(Evidence(Source.FILES, f"it names {binding.need} among its needs"),),
            remedies=(right_build(case),),
        )


_KINDS = (
    (re.compile(r"_Py_(?:RefTotal|NegativeRefcount|Dealloc_Debug|INCREF_IncRefTotal|DECREF_DecRefTotal)$"
                r"|Py\w+TraceRefs$|_Py_(?:Add|Forget)Reference$"), "a debug build of Python"),
    (re.compile(r"_Py_(?:DecRefShared|DecRefSharedDebug|MergeZeroLocalRefcount|ExplicitMergeRefcount|IncRefShared)$"),
     "a free-threaded build of Python (without the GIL)"),
    (re.compile(r"PyPy[A-Z]"), "PyPy"),
    (re.compile(r"GraalPy"), "GraalPy"),
    (re.compile(r"Py_InitModule\d|PyString_|PyInt_|PyCObject_|PyClass_|PyInstance_|PyFile_(?:AsFile|FromFile)"
                r"|PyUnicodeUCS[24]_|_PyString_|PyNumber_(?:Int|Divide)$|Py_FindMethod"), "Python 2"),
)  # fmt: skip
"""Functions that only one kind of Python has. Sources: Include/object.h, refcount.h and modsupport.h of CPython 2.7 to
3.14; cpyext of PyPy, which puts its name before each."""


def _kind_of_python(symbol: str) -> str:
    """The kind of Python that a file was built for, by a function that it asks for."""
    return next((kind for pattern, kind in _KINDS if pattern.match(symbol)), "another version of Python")


def _is_said(case: Case, need: str) -> bool:
    dl_error = case.dl_error
    return dl_error is not None and dl_error.problem is DlProblem.MISSING and dl_error.library == need


def _api(case: Case) -> Iterator[Finding]:
    """A function of CPython that this interpreter does not have."""
    lacking = [symbol for symbol in case.symbols if is_python_api(symbol)]
    if not lacking:
        return
    symbol = lacking[0]
    dl_error = case.dl_error
    said = dl_error is not None and dl_error.problem is DlProblem.MISSING_SYMBOL and dl_error.symbol == symbol.name
    kind = _kind_of_python(symbol.name)
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    yield Finding(
        code=API_CODE,
        title=f"{symbol.requested_by} needs {symbol.name}, which this Python does not have",
        confidence=Confidence.CERTAIN if said else Confidence.POSSIBLE, subject=symbol.name,
        chain=case.chain_to(symbol.requested_by, symbol.name),
        explanation=(
            f"{symbol.requested_by}{case.owner_of(symbol.requested_by)} asks for {symbol.name}{more} of the "
            f"interpreter. {this_python(case)} has none: the file was built for {kind}."
        ),
        evidence=(Evidence(Source.LOADER, f"undefined symbol: {symbol.name}"),) if said else (),
        remedies=(right_build(case),),
    )


def right_build(case: Case) -> Remedy:
    """Return the advice to install a build for the Python that failed."""
    text = f"install a build for {this_python(case)}, with its own pip"
    for owner in case.owners.get(case.subject or "", ()):
        if owner.manager is PackageManager.PIP and is_package_name(owner.package, PackageManager.PIP):
            return Remedy(text, (*PIP, "install", "--force-reinstall", "--no-deps", owner.package))
    return Remedy(text)
