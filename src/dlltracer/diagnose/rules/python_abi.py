"""Extension modules made for another Python, and modules that are not there at all."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.symbols import MissingSymbol
from ..case import Case
from ..environment import ForeignModule
from ..loader_errors import DlProblem
from .integrity import has_lost_module

CODE = "no-such-module"
OTHER_PYTHON_CODE = "other-python"
OTHER_PLATFORM_CODE = "other-platform"
LIBPYTHON_CODE = "other-libpython"
API_CODE = "python-api-missing"
FUNCTION_CODE = "no-module-function"

_TAG = re.compile(r"(?:cpython-|cp)(\d)(\d+)([a-z]*)(?:-(.+))?")
"""cpython-310-x86_64-linux-gnu, cp310-win_amd64 (PEP 3149 and what CPython made of it)."""
_LIBPYTHON = re.compile(r"(?:.*/)?libpython(\d)\.(\d+)([a-z]*)\.so(?:\..*)?$")
_API = re.compile(r"_?Py[A-Z_]\w*$")
_NO_FUNCTION = re.compile(r"dynamic module does not define (?:module export|init) function \((\w+)\)")


def find(case: Case) -> Iterator[Finding]:
    """What speaks for a file of another Python, or for none at all."""
    if not case.is_windows:
        yield from _libpython(case)
        yield from _api(case)
    yield from _no_function(case)
    yield from _strangers(case)
    yield from _no_module(case)


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


def _this_python(case: Case) -> str:
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
            LIBPYTHON_CODE,
            f"{binding.requested_by} was built for Python {other}, and this is {_this_python(case)}",
            confidence,
            binding.requested_by,
            case.chain_to(binding.requested_by, binding.need),
            binding.probes if is_missing else (),
            f"{binding.requested_by}{case.owner_of(binding.requested_by)} needs {binding.need}, {what}.",
            (Evidence(Source.FILES, f"it names {binding.need} among its needs"),),
            (_right_build(case),),
        )


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
    debug = symbol.name in (
        "_Py_RefTotal",
        "_Py_NegativeRefcount",
        "PyModule_Create2TraceRefs",
        "_Py_INCREF_IncRefTotal",
    )
    kind = "a debug build of Python" if debug else "another version of Python"
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    yield Finding(
        API_CODE,
        f"{symbol.requested_by} needs {symbol.name}, which this Python does not have",
        Confidence.CERTAIN if said else Confidence.POSSIBLE,
        symbol.name,
        case.chain_to(symbol.requested_by, symbol.name),
        (),
        f"{symbol.requested_by}{case.owner_of(symbol.requested_by)} asks for {symbol.name}{more} of the interpreter. "
        f"{_this_python(case)} has none: the file was built for {kind}.",
        (Evidence(Source.LOADER, f"undefined symbol: {symbol.name}"),) if said else (),
        (_right_build(case),),
    )


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
        FUNCTION_CODE,
        f"{path} is not the extension module that it was taken for: it has no {found[1]}",
        Confidence.CERTAIN,
        path,
        case.chain_to(path),
        (),
        f"The file was loaded. {has}",
        (Evidence(Source.PYTHON, f"no function {found[1]}"),),
        (Remedy("give the file the name that it was built with, or take the right file"),),
    )


def _strangers(case: Case) -> Iterator[Finding]:
    """Files of the module that this Python passes over, because their names say they are for others."""
    module = case.missing_module
    if module is None or not case.foreign_modules or has_lost_module(case):
        return
    first = case.foreign_modules[0]
    other_python = _is_other_python(first, case)
    where = "" if other_python else _platform(case)
    files = ", ".join(stranger.path for stranger in case.foreign_modules[:3])
    suffixes = ", ".join(case.run.process.suffixes) if case.run.process is not None else "its own suffixes"
    yield Finding(
        OTHER_PYTHON_CODE if other_python else OTHER_PLATFORM_CODE,
        f"{module} is there for {_describe(first)}, and this is {_this_python(case)}{where}",
        Confidence.CERTAIN,
        first.path,
        case.chain_to(None, first.path),
        (),
        f"Python did not find {module}, because it takes only files that end in "
        f"{suffixes}. There is {files}.",
        (Evidence(Source.PYTHON, f"no module of that name for {_this_python(case)}"),
         Evidence(Source.FILES, f"{first.path} is there")),
        (_right_build(case),),
    )  # fmt: skip


def _is_other_python(stranger: ForeignModule, case: Case) -> bool:
    found = _TAG.match(stranger.tag)
    if found is None or case.run.process is None:
        return False
    same = (int(found[1]), int(found[2])) == case.run.process.version[:2]
    return (
        not same
        or ("t" in found[3]) is not case.run.process.is_free_threaded
        or ("d" in found[3]) is not case.run.process.is_debug
    )


def _describe(stranger: ForeignModule) -> str:
    found = _TAG.match(stranger.tag)
    if found is None:
        return (
            f"something else ({stranger.tag})"
            if stranger.tag
            else "Windows"
            if stranger.path.endswith(".pyd")
            else "another Python"
        )
    build = " without the GIL" if "t" in found[3] else " (debug)" if "d" in found[3] else ""
    where = f" on {found[4]}" if found[4] else " on Windows" if stranger.path.endswith(".pyd") else ""
    return f"Python {found[1]}.{found[2]}{build}{where}"


def _platform(case: Case) -> str:
    for suffix in case.run.process.suffixes if case.run.process is not None else ():
        if found := _TAG.match(suffix.lstrip(".").rpartition(".")[0]):
            return f" on {found[4]}" if found[4] else ""
    return ""


def _no_module(case: Case) -> Iterator[Finding]:
    """Nothing of that name is there: the import system itself says so."""
    error = case.error
    if error is None or "ModuleNotFoundError" not in error.bases or not error.name:
        return
    if case.foreign_modules or has_lost_module(case):
        return
    # A program may raise the same exception in words of its own.
    if not error.message.startswith(f"No module named {error.name!r}"):
        return
    top = error.name.partition(".")[0]
    executable = case.run.process.executable if case.run.process is not None else "this Python"
    shadowed = "is not a package" in error.message
    why = (
        f"{top} is a single file where a package was expected: another {top}.py comes first on sys.path."
        if shadowed
        else f"No folder of sys.path of {executable} has it: it is not installed there, or for another Python."
    )
    yield Finding(
        CODE,
        f"there is no module {error.name}",
        Confidence.CERTAIN,
        error.name,
        case.chain_to(None),
        (),
        f"{why} No loader had a part in this.",
        (Evidence(Source.PYTHON, error.message),),
        () if shadowed or "." in error.name
        else (Remedy(f"install the package that brings {top} for this Python", "python -m pip install ..."),),
    )  # fmt: skip


def _right_build(case: Case) -> Remedy:
    return Remedy(
        f"install a build for {_this_python(case)}, with its own pip", "python -m pip install --force-reinstall ..."
    )
