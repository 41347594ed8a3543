"""Files that are there for a module, and that this Python does not take for it. For every system."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ..case import Case
from ..environment import ForeignModule
from .integrity import has_lost_module
from .python_abi import right_build, this_python

OTHER_PYTHON_CODE = "other-python"
OTHER_PLATFORM_CODE = "other-platform"
FUNCTION_CODE = "no-module-function"

_TAG = re.compile(r"(?:cpython-|cp)(\d)(\d+)([a-z]*)(?:-(.+))?")
"""cpython-310-x86_64-linux-gnu, cp310-win_amd64 (PEP 3149 and what CPython made of it)."""
_NO_FUNCTION = re.compile(r"dynamic module does not define (?:module export|init) function \((\w+)\)")


def check(case: Case) -> Iterator[Finding]:
    """Yield why the module was not found, or not taken for one."""
    yield from _no_function(case)
    yield from _foreign(case)


def _no_function(case: Case) -> Iterator[Finding]:
    """The file loads and is no extension module of that name."""
    found = _NO_FUNCTION.search(case.error.message) if case.error is not None else None
    if found is None or case.error is None:
        return
    path = case.error.path or case.subject or "the file"
    image = case.images.get(path)
    symbols = getattr(image, "symbols", None)
    provided = sorted(name for name in symbols.provides if name.startswith(("PyInit_", "init"))) if symbols else []
    has = f"It has {', '.join(provided[:3])}: it was renamed, or is a module of another name." if provided else (
        "It has no such function of any name: it is a plain library, or a module for Python 2.")  # fmt: skip
    yield Finding(
        code=FUNCTION_CODE,
        title=f"{path} is not the extension module that it was taken for: it has no {found[1]}",
        confidence=Confidence.CERTAIN,
        subject=path,
        chain=case.chain_to(path),
        explanation=f"The file was loaded. {has}",
        evidence=(Evidence(Source.PYTHON, f"no function {found[1]}"),),
        remedies=(Remedy("give the file the name that it was built with, or take the right file"),),
    )


def _foreign(case: Case) -> Iterator[Finding]:
    """Files of the module that this Python passes over, because their names say they are for others."""
    module = case.missing_module
    if module is None or not case.foreign_modules or has_lost_module(case):
        return
    first = case.foreign_modules[0]
    other_python = _is_other_python(first, case)
    where = "" if other_python else _platform(case)
    files = ", ".join(foreign.path for foreign in case.foreign_modules[:3])
    suffixes = ", ".join(case.run.process.suffixes) if case.run.process is not None else "its own suffixes"
    yield Finding(
        code=OTHER_PYTHON_CODE if other_python else OTHER_PLATFORM_CODE,
        title=f"{module} is there for {_describe(first)}, and this is {this_python(case)}{where}",
        confidence=Confidence.CERTAIN,
        subject=first.path,
        chain=case.chain_to(None, first.path),
        explanation=f"Python did not find {module}, because it takes only files that end in "
        f"{suffixes}. There is {files}.",
        evidence=(Evidence(Source.PYTHON, f"no module of that name for {this_python(case)}"),
         Evidence(Source.FILES, f"{first.path} is there")),
        remedies=(right_build(case),),
    )  # fmt: skip


def _is_other_python(foreign: ForeignModule, case: Case) -> bool:
    found = _TAG.match(foreign.tag)
    if found is None or case.run.process is None:
        return False
    same = (int(found[1]), int(found[2])) == case.run.process.version[:2]
    return (
        not same
        or ("t" in found[3]) is not case.run.process.is_free_threaded
        or ("d" in found[3]) is not case.run.process.is_debug
    )


def _describe(foreign: ForeignModule) -> str:
    found = _TAG.match(foreign.tag)
    if found is None:
        return (
            f"something else ({foreign.tag})"
            if foreign.tag
            else "Windows"
            if foreign.path.endswith(".pyd")
            else "another Python"
        )
    build = " without the GIL" if "t" in found[3] else " (debug)" if "d" in found[3] else ""
    where = f" on {found[4]}" if found[4] else " on Windows" if foreign.path.endswith(".pyd") else ""
    return f"Python {found[1]}.{found[2]}{build}{where}"


def _platform(case: Case) -> str:
    for suffix in case.run.process.suffixes if case.run.process is not None else ():
        if found := _TAG.match(suffix.lstrip(".").rpartition(".")[0]):
            return f" on {found[4]}" if found[4] else ""
    return ""
