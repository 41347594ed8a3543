"""A copy of a library was taken that lacks something, and another one that has it was not: because of what came before.

Worked out by asking what the loader would do with the same file if it were otherwise.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.tree import MissingSymbol, MissingVersion
from ..case import Case
from ..environment import Change, ShadowedCopy
from ..loader_errors import DlProblem
from ..remedies import without_variable

CODE = "first-wins"
_PRELOADS = re.compile(r"[:\s]+")
PATH_CODE = "library-path-wins"


def check(case: Case) -> Iterator[Finding]:
    """The copy that is in the way."""
    if is_about_a_rival(case):
        rival = case.shadowed[0]
        yield _loaded_first(rival, case) if rival.change is Change.NOTHING_LOADED else _library_path(rival, case)


def is_about_a_rival(case: Case) -> bool:
    """Whether what is missing is missing because of the copy that was taken."""
    dl_error = case.dl_error
    wanted = (DlProblem.MISSING_SYMBOL, DlProblem.MISSING_VERSION)
    return bool(case.shadowed) and dl_error is not None and dl_error.problem in wanted


def describe_missing(case: Case) -> str:
    """What is missing first of all, in words: "the version X_2", "the symbol foo"."""
    if case.versions:
        return f"version {case.versions[0].version}"
    return f"symbol {case.symbols[0].name}" if case.symbols else "what is needed"


def requested_by(case: Case) -> str:
    """Who needs what is missing first of all."""
    lacks: tuple[MissingVersion | MissingSymbol, ...] = (*case.versions[:1], *case.symbols[:1])
    return lacks[0].requested_by if lacks else case.subject or ""


def _loaded_first(rival: ShadowedCopy, case: Case) -> Finding:
    event = case.load_of(rival.used)
    requester = requested_by(case)
    process = case.run.process
    preloaded = process.loader_environment.get("LD_PRELOAD", "") if process is not None else ""
    is_preloaded = any(posixpath.basename(rival.used) == posixpath.basename(one) for one in _PRELOADS.split(preloaded))
    if is_preloaded:
        who = f"LD_PRELOAD brought it at the start (it is {preloaded})"
    elif event is None:
        who = "it was there before the trace began (the program itself, or what it loads at its start)"
    else:
        who = (
            f"{' > '.join(f'import {name}' for name in event.imports)} loaded it" if event.imports else "it was loaded"
        )
        who += f" for {event.requested_by}" if event.requested_by else ""
    first = event.imports[0] if event is not None and event.imports else None
    remedies = []
    if is_preloaded:
        remedies.append(Remedy("start the program without LD_PRELOAD", without_variable(case, "LD_PRELOAD")))
    top = case.first_import
    if first and top and first != top:
        remedies.append(Remedy(f"import {top} before {first}: then the other copy wins, if {first} can live with it"))
    remedies.append(
        Remedy(f"bring the packages to one version of {rival.need}, from one source (all conda, or all pip)")
    )
    return Finding(
        code=CODE,
        title=f"another {rival.need} was loaded first, and lacks {describe_missing(case)}",
        confidence=Confidence.CERTAIN, subject=rival.used,
        chain=case.chain_to(requester, f"{rival.need} (in use: {rival.used})"),
        explanation=(
            f"{requester}{case.owner_of(requester)} needs {describe_missing(case)} of {rival.need}. A process has one "
            "image of a "
            f"name: {rival.used}{case.owner_of(rival.used)} was in it already; {who}. "
            f"{rival.other}{case.owner_of(rival.other)} has what is needed, and would have been taken in a "
            "fresh process, which is why ldd shows nothing wrong."
        ),
        evidence=(Evidence(Source.LOADER, f"{rival.used} lacks {describe_missing(case)}"),
         Evidence(Source.FILES, f"{rival.other} has it")),
        remedies=tuple(remedies),
    )  # fmt: skip


def _library_path(rival: ShadowedCopy, case: Case) -> Finding:
    requester = requested_by(case)
    process = case.run.process
    value = process.loader_environment.get("LD_LIBRARY_PATH", "") if process is not None else ""
    # An element that is empty, as before or after a colon too many, stands for the current folder: ld.so(8).
    here = "" if "/" in rival.used or process is None else (
        " An empty element in it (a colon at an end, or two in a row) means the current folder, "
        f"{process.current_folder}."
    )
    return Finding(
        code=PATH_CODE,
        title=f"LD_LIBRARY_PATH leads to a {rival.need} that lacks {describe_missing(case)}",
        confidence=Confidence.CERTAIN, subject=rival.used,
        chain=case.chain_to(requester, f"{rival.need} (in use: {rival.used})"),
        explanation=(
            f"{requester}{case.owner_of(requester)} needs {describe_missing(case)} of {rival.need}. LD_LIBRARY_PATH "
            f"is {value!r}, so "
            f"{rival.used}{case.owner_of(rival.used)} was taken. Without it the loader takes {rival.other}"
            f"{case.owner_of(rival.other)}, which has it.{here}"
        ),
        evidence=(Evidence(Source.LOADER, f"{rival.used} lacks {describe_missing(case)}"),
         Evidence(Source.FILES, f"{rival.other} has it")),
        remedies=(
            Remedy(
                "start the program without it, or without that folder in it",
                without_variable(case, "LD_LIBRARY_PATH"),
            ),
        ),
    )  # fmt: skip
