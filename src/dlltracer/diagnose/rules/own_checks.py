"""A module that loaded, looked at what it was bound to, and refused: the versions that it found do not fit."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...model.failure import PythonError
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ..case import Case
from ..named_failure import loaded_libraries_named
from ..phrases import describe_copies, describe_rule, folder_of
from ..remedies import reinstall, with_variable

LIBRARY_CODE = "library-check-failed"
PACKAGE_CODE = "built-against-other-package"

_API = re.compile(
    r"module compiled against A[BP]I version (?P<built>\S+) but this version of (?P<package>\w+) is "
    r"(?P<found>\S+?)\.?(?:\s|$)"
    r"|compiled using (?P<other>NumPy) (?P<wanted>[\w.]+) cannot be run in\s+NumPy (?P<there>[\w.]+)"
)
"""NumPy's own words: numpy/_core/code_generators/generate_numpy_api.py, numpy/_core/_internal or its __init__."""
_SIZE = re.compile(
    r"(?P<type>[\w.]+) size changed, may indicate binary incompatibility\. Expected (?P<built>\d+) from C header, "
    r"got (?P<found>\d+) from PyObject"
)
"""Cython's words: Cython/Utility/ImportExport.c."""


def check(case: Case) -> Iterator[Finding]:
    """Yield what a module found wrong with a package or a library that was there."""
    package = _package(case)
    if package is not None:
        yield package
    elif case.error is not None and case.dl_error is None and case.missing_module is None:
        yield from _library(case, case.error)


def _package(case: Case) -> Finding | None:
    """The module was built for another version of a package that is here; it may say so in an inner exception."""
    texts = [error.message for error in case.run.errors]
    texts += case.run.output.stderr.splitlines()[-200:] if case.error is not None else []
    for text in texts:
        flat = " ".join(text[:5000].split())
        if (found := _API.search(flat)) is not None:
            package = (found["package"] or found["other"]).lower()
            built, there = found["built"] or found["wanted"], found["found"] or found["there"]
            what = f"was compiled for {package} {'with ABI ' if found['built'] else ''}{built}, and here it is {there}"
            return _package_finding(package, what, found[0].strip(), case)
        if (found := _SIZE.search(flat)) is not None:
            package = found["type"].partition(".")[0]
            what = f"was compiled for another version of {package}: {found['type']} has another size there"
            return _package_finding(package, what, found[0], case)
    return None


def _package_finding(package: str, what: str, words: str, case: Case) -> Finding:
    module = case.subject or _last_module(case)
    owner = next((owner.package for owner in case.owners.get(module or "", ())), None)
    name = owner or (module or "the module").rpartition("/")[2]
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
            Remedy(f"bring {name} to a release that was built for the {package} that is here (mostly a newer one)"),
            Remedy(f"or bring {package} to the version that {name} was built for, in an environment of their own"),
        ),
    )


def _last_module(case: Case) -> str | None:
    """The extension module that was loaded last: its initialiser is what failed."""
    top = case.last_top
    return top.path if top is not None and top.imports else None


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
    remedies += reinstall(case.owners.get(requester, ()), case.run.process)
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
