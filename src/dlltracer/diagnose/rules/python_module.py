"""Python modules built for another Python, named so that this one does not import them, or refusing other versions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from ...model.environment import PackageManager
from ...model.failure import PythonError
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.pe import PeImage
from ...model.tree import MissingSymbol
from ..case import Case, ForeignModule, describe_copies
from ..loader_errors import DlProblem, describe_rule, folder_of
from ..named_failure import loaded_libraries_named
from ..package_tools import is_package_name
from ..remedies import PIP, reinstall, with_variable
from .integrity import has_lost_module

OTHER_PYTHON_CODE = "other-python"
OTHER_PLATFORM_CODE = "other-platform"
FUNCTION_CODE = "no-module-function"

_TAG = re.compile(r"(?:cpython-|cp)(\d)(\d+)([a-z]*)(?:-(.+))?")
"""cpython-310-x86_64-linux-gnu, cp310-win_amd64 (PEP 3149 and what CPython made of it)."""
_NO_FUNCTION = re.compile(r"dynamic module does not define (?:module export|init) function \((\w+)\)")


def check_foreign_files(case: Case) -> Iterator[Finding]:
    """Yield why the file of a module was not found, or not accepted."""
    yield from _no_function(case)
    yield from _foreign(case)


def _exported(image: object) -> Collection[str] | None:
    """Return the names that an image exports; `None` if they are not known."""
    if isinstance(image, PeImage):
        return None if image.exports is None else [export.name for export in image.exports if export.name]
    symbols = getattr(image, "symbols", None)
    return symbols.provides if symbols is not None else None


def _no_function(case: Case) -> Iterator[Finding]:
    """Yield the finding about a file that loads and is no extension module of that name."""
    found = _NO_FUNCTION.search(case.error.message) if case.error is not None else None
    if found is None or case.error is None:
        return
    path = case.error.path or case.subject or "the file"
    image = case.images.get(path)
    names = _exported(image)
    provided = sorted(name for name in names or () if name.startswith(("PyInit_", "init")))
    has = f"It has {', '.join(provided[:3])}: it was renamed, or is a module of another name." if provided else (
        "It has no such function of any name: it is a plain library, or a module for Python 2." if names is not None
        else "Which functions it has was not looked at.")  # fmt: skip
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
    """Yield the finding about files of the module whose names say that they are for another Python."""
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


LIBPYTHON_CODE = "other-libpython"
API_CODE = "python-api-missing"

_LIBPYTHON_VERSION = re.compile(r"(?:.*/)?libpython(\d)\.(\d+)([a-z]*)\.so(?:\..*)?$")
_API = re.compile(r"_?(?:Graal)?Py[A-Z_]\w*$")


def check_abi(case: Case) -> Iterator[Finding]:
    """Yield evidence that a file was built for another Python: its libpython, functions that this one lacks."""
    yield from _libpython(case)
    yield from _api(case)


def python_of_library(name: str, case: Case) -> str | None:
    """Return the version of a libpython, "3.10", if the process has another one."""
    found = _LIBPYTHON_VERSION.match(name)
    if found is None or case.run.process is None:
        return None
    same = (int(found[1]), int(found[2])) == case.run.process.version[:2] and (
        "t" in found[3]
    ) is case.run.process.is_free_threaded
    return None if same else f"{found[1]}.{found[2]}{found[3]}"


def is_python_api(symbol: MissingSymbol) -> bool:
    """Return whether a symbol is one that the interpreter should have."""
    return _API.match(symbol.name) is not None


def this_python(case: Case) -> str:
    """Return the version of the Python that failed, in words: "Python 3.11"."""
    version = case.run.process.version if case.run.process is not None else ()
    free = " without the GIL" if case.run.process is not None and case.run.process.is_free_threaded else ""
    return f"Python {'.'.join(str(part) for part in version[:2])}{free}"


def _libpython(case: Case) -> Iterator[Finding]:
    """Yield the finding about a libpython of another version: missing, or loaded beside the running one."""
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
    """Return the kind of Python that a file was built for, by a function that it needs."""
    return next((kind for pattern, kind in _KINDS if pattern.match(symbol)), "another version of Python")


def _is_said(case: Case, need: str) -> bool:
    dl_error = case.dl_error
    return dl_error is not None and dl_error.problem is DlProblem.MISSING and dl_error.library == need


def _api(case: Case) -> Iterator[Finding]:
    """Yield the finding about a function of CPython that this interpreter lacks."""
    lacking = [symbol for symbol in case.symbols if is_python_api(symbol)]
    if not lacking:
        return
    symbol = lacking[0]
    dl_error = case.dl_error
    is_named = dl_error is not None and dl_error.problem is DlProblem.MISSING_SYMBOL and dl_error.symbol == symbol.name
    kind = _kind_of_python(symbol.name)
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    yield Finding(
        code=API_CODE,
        title=f"{symbol.requested_by} needs {symbol.name}, which this Python does not have",
        confidence=Confidence.CERTAIN if is_named else Confidence.POSSIBLE, subject=symbol.name,
        chain=case.chain_to(symbol.requested_by, symbol.name),
        explanation=(
            f"{symbol.requested_by}{case.owner_of(symbol.requested_by)} asks for {symbol.name}{more} of the "
            f"interpreter. {this_python(case)} has none: the file was built for {kind}."
        ),
        evidence=(Evidence(Source.LOADER, f"undefined symbol: {symbol.name}"),) if is_named else (),
        remedies=(right_build(case),),
    )


def right_build(case: Case) -> Remedy:
    """Return the advice to install a build for the Python that failed."""
    text = f"install a build for {this_python(case)}, with its own pip"
    files = (case.subject or "", *(module.path for module in case.foreign_modules))
    for owner in (owner for file in files for owner in case.owners.get(file, ())):
        if owner.manager is PackageManager.PIP and is_package_name(owner.package, PackageManager.PIP):
            return Remedy(text, (*PIP, "install", "--force-reinstall", "--no-deps", owner.package))
    return Remedy(text)


LIBRARY_CODE = "library-check-failed"
PACKAGE_CODE = "built-against-other-package"

_API_VERSION = re.compile(
    r"module compiled against A[BP]I version (?P<built>\S+) but this version of (?P<package>\w+) is "
    r"(?P<found>\S+?)\.?(?:\s|$)"
    r"|compiled using (?P<other>NumPy) (?P<wanted>[\w.]+) cannot be run in\s+NumPy (?P<there>[\w.]+)"
)
"""Messages of NumPy: numpy/_core/code_generators/generate_numpy_api.py, numpy/_core/_internal or its __init__."""
_SIZE = re.compile(
    r"(?P<type>[\w.]+) size changed, may indicate binary incompatibility\. Expected (?P<built>\d+) from C header, "
    r"got (?P<found>\d+) from PyObject"
)
"""Messages of Cython: Cython/Utility/ImportExport.c."""


def check_versions(case: Case) -> Iterator[Finding]:
    """Yield the reason for which a module refused the version of a package or library."""
    package = _package(case)
    if package is not None:
        yield package
    elif case.error is not None and case.dl_error is None and case.missing_module is None:
        checked = list(_library(case, case.error))
        yield from checked
        if not checked and case.named is None and case.namesake is None:
            yield from _raised(case, case.error)


def _package(case: Case) -> Finding | None:
    """Return the finding about a module built for another version of a package, also by an inner exception."""
    texts = [error.message for error in case.run.errors]
    # NumPy writes its message over several lines, above the traceback.
    texts += ["\n".join(case.run.output.stderr.splitlines()[-200:])] if case.error is not None else []
    for text in texts:
        flat = " ".join(text[-_LONGEST_OUTPUT:].split())
        if (found := _API_VERSION.search(flat)) is not None:
            package = (found["package"] or found["other"]).lower()
            built, there = found["built"] or found["wanted"], found["found"] or found["there"]
            what = f"was compiled for {package} {'with ABI ' if found['built'] else ''}{built}, and here it is {there}"
            return _package_finding(package, what, found[0].strip(), _fitting_numpy(package, built, there), case)
        if (found := _SIZE.search(flat)) is not None:
            package = found["type"].partition(".")[0]
            what = f"was compiled for another version of {package}: {found['type']} has another size there"
            wanted = _SIZES_OF_NUMPY.get((found["type"], int(found["built"]), int(found["found"])), "")
            return _package_finding(package, what, found[0], wanted, case)
    return None


_LONGEST_OUTPUT = 50_000
_SIZES_OF_NUMPY = {
    ("numpy.dtype", 96, 88): "numpy<2", ("numpy.dtype", 88, 96): "numpy>=2",
    ("numpy.ndarray", 88, 80): "numpy>=1.20", ("numpy.ndarray", 96, 80): "numpy>=1.22",
    ("numpy.ndarray", 96, 88): "numpy>=1.22",
}  # fmt: skip
"""Sizes of NumPy's types on 64-bit systems: dtype shrank in 2.0, ndarray grew in 1.20 and in 1.22 (ndarraytypes.h)."""


def _fitting_numpy(package: str, built: str, there: str) -> str:
    """Return which NumPy a module needs that was built for the API `built`; empty where that does not say it.

    The ABI has the number 0x1000009 in NumPy 1 and 0x2000000 in NumPy 2 (numpy/_core/setup_common.py).
    """
    if package != "numpy":
        return ""
    is_old = [text.startswith(("0x1000", "1.")) for text in (built, there)]
    is_new = [text.startswith(("0x2000", "2.")) for text in (built, there)]
    if is_old[0] and is_new[1]:
        return "numpy<2"
    return "numpy>=2" if is_new[0] and is_old[1] else ""


def _package_finding(package: str, what: str, words: str, wanted: str, case: Case) -> Finding:
    module = case.subject or _last_module(case)
    owner = next((owner for owner in case.owners.get(module or "", ()) if owner.manager is PackageManager.PIP), None)
    name = f"{owner.package} {owner.version}".strip() if owner is not None else (module or "it").rpartition("/")[2]
    newer = (*PIP, "install", "--upgrade", owner.package) if owner is not None else ()
    version = case.install.distributions.get(package) if case.install is not None else None
    return Finding(
        code=PACKAGE_CODE,
        title=f"{name} {what}",
        confidence=Confidence.CERTAIN,
        subject=module or package,
        chain=case.chain_to(None, *([module] if module else [])),
        explanation=(
            f"Its words are: {words}. Everything was found and loaded; {package}{f' {version}' if version else ''} "
            f"lays out its data otherwise than the one that {name} was compiled with."
        ),
        evidence=(Evidence(Source.PYTHON, words),),
        remedies=(
            *([Remedy(f"bring {package} to a version that {name} was built for", (*PIP, "install", wanted))]
              if wanted else []),
            Remedy(
                f"bring {name} to a release that was built for the {package} that is here (mostly a newer one)", newer
            ),
            *([] if wanted else [Remedy(f"or bring {package} to the version that {name} was built for")]),
        ),
    )


def _last_module(case: Case) -> str | None:
    """Return the extension module that was loaded last: its initialiser failed."""
    top = case.last_top
    return top.path if top is not None and top.imports else None


RAISED_CODE = "initialiser-raised"

_OF_IMPORTS = ("cannot import name", "No module named", "attempted relative import", "dynamic module does not")
"""How messages of the import system itself begin."""


def _raised(case: Case, error: PythonError) -> Iterator[Finding]:
    """Yield the finding about an extension module whose own initialiser raised the exception.

    Native code has no frame in a traceback: it ends at the import statement of the module that was loaded last.
    """
    top = case.last_top
    suffixes = case.run.process.suffixes if case.run.process is not None else ()
    if top is None or not top.imports or not top.path.endswith(suffixes or ("?",)) or not error.frames:
        return
    source = error.frames[-1].source or ""
    names = re.split(r"\W+", source)
    is_import = source.startswith(("import ", "from ")) and top.imports[-1].rpartition(".")[2] in names
    if not is_import or error.message.startswith(_OF_IMPORTS):
        return
    name = top.path.rpartition("/")[2]
    loads = case.run.recording.loads if case.run.recording is not None else ()
    twins = [event.path for event in loads if event.path.endswith(f"/{name}") and event.path != top.path]
    again = f" {twins[0]}, of the same name, is loaded as well." if twins else ""
    yield Finding(
        code=RAISED_CODE,
        title=f"the initialiser of {top.path} raised {error.type}: {' '.join(error.message.split())}",
        confidence=Confidence.LIKELY,
        subject=top.path,
        chain=case.chain_to(None, *twins[:1], top.path),
        explanation=f"{top.path}{case.owner_of(top.path)} was loaded, with all that it needs. Its own code then raised "
        f"{error.type}, and no loader did.{again}",
        evidence=(
            Evidence(Source.PYTHON, "the traceback ends at the import of that module, before any code of Python"),
            Evidence(Source.LOADER, f"{top.path} was loaded last"),
        ),
        remedies=(
            Remedy("keep one of the two in the program: a type is registered once in a process") if twins
            else Remedy("do what the message says: nothing is missing that a loader looks for"),
        ),
    )  # fmt: skip


def _library(case: Case, error: PythonError) -> Iterator[Finding]:
    named = loaded_libraries_named(error, case.run.recording)
    if not named:
        return
    event = named[0]
    name = event.need or event.path.rpartition("/")[2]
    requester = event.requested_by or ""
    rule = describe_rule(event.phase)
    own = f", found {rule}" if rule else ""
    copies = tuple(
        copy for copy in case.copies.get(name, ()) if copy.unfit is None and copy.path != event.path
    )
    text = f"{error.type} comes from code that checks the library. {name} is {event.path}{own}: it was loaded."
    if copies:
        text += f" There is {describe_copies(copies)}, too, which may be the one that it was built with."
    remedies = [
        Remedy("let the loader take the other copy", with_variable(case, "LD_LIBRARY_PATH", folder_of(copies[0].path)))
    ] if copies else []
    remedies += reinstall(case, requester)
    who = requester.rpartition("/")[2] or "the module"
    remedies.append(Remedy(f"or take a build of {who} that was made for the {name} that is here"))
    yield Finding(
        code=LIBRARY_CODE,
        title=f"{who} does not accept {event.path}",
        confidence=Confidence.LIKELY,
        subject=event.path,
        chain=case.chain_to(None, *([requester] if requester else []), event.path),
        explanation=text,
        evidence=(
            Evidence(Source.PYTHON, f"{error.type} names {name.partition('.so')[0]}"),
            Evidence(Source.LOADER, f"{event.path} was loaded"),
        ),
        remedies=tuple(remedies),
    )
