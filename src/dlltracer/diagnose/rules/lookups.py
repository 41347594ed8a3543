"""Searches that a program makes itself: for a library by `ctypes.util.find_library`, for a symbol by dlsym."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ...model.elf import ElfImage
from ...model.environment import SEARCHED, Provider
from ...model.events import FailureKind, LoadFailedEvent
from ...model.failure import System
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ..case import Case, describe_copies
from ..loader_errors import DlError, DlProblem
from ..named_failure import NamedFailure, final_failures, is_about_something_missing, library_that_is_denied, stem_of
from ..providers import find_providers, install_remedies

LIBRARY_CODE = "library-not-found"
SYMBOL_CODE = "symbol-not-in-library"

_MOST_PROVIDERS = 2
_MOST_NAMED = 4
_NEWEST_SONAME = 30
_PROGRAM = re.compile(r"(?:^|/)(?:python|pypy)[\d.]*[a-z]*$|(?:^|/)libpython[^/]*$")
"""Names of the program itself, which CDLL(None) opens, and of libpython."""


def check(case: Case) -> Iterator[Finding]:
    """Yield the library that the program did not find, or the symbol that a library lacks."""
    searched = [event for event in final_failures(case.run.recording) if event.kind is FailureKind.NAME_NOT_FOUND]
    wanted = _searched_for(searched, case)
    if wanted is not None:
        yield _library(wanted, searched, case)
    if case.dl_error is not None and case.dl_error.problem is DlProblem.NOT_IN_LIBRARY:
        if wanted is None:
            yield _symbol(case)
    elif wanted is None and case.dl_error is None and case.named is None:
        denied = library_that_is_denied(case.run.errors)
        if denied is not None and case.missing_module is None:
            yield _denied(denied, case)


@dataclass(frozen=True)
class _Search:
    """The search that the failure is about, with confidence and evidence."""

    event: LoadFailedEvent
    confidence: Confidence
    says: Evidence | None = None


def _searched_for(searched: list[LoadFailedEvent], case: Case) -> _Search | None:
    """Return the search that the failure is about; `None` if it is about something else."""
    if not searched or case.error is None or "ModuleNotFoundError" in case.error.bases:
        return None
    if case.named is not None:
        return _by_words(searched, case.named, case)
    if case.dl_error is not None:
        return _by_symbol(searched, case.dl_error) if _is_program_asked(case) else None
    about_it = is_about_something_missing(case.error.message)
    mine = [event for event in searched if about_it and _is_of_the_package(event, case)]
    if not mine:
        return _Search(searched[-1], Confidence.POSSIBLE)
    says = f"{case.error.type} came from the same package, {_package_of(mine[0])}"
    return _Search(_best_known(mine, case), Confidence.LIKELY, Evidence(Source.PYTHON, says))


def _by_words(searched: list[LoadFailedEvent], named: NamedFailure, case: Case) -> _Search | None:
    """Return the search that the message names. Of several names of one library, prefer one with a known package."""
    stem = stem_of(named.event.path)
    same = [event for event in searched if event is named.event or stem_of(event.path) == stem]
    says = Evidence(Source.PYTHON, f"{named.error.type} says {named.name}")
    return _Search(_best_known(same, case), Confidence.CERTAIN, says) if same else None


def _best_known(searched: list[LoadFailedEvent], case: Case) -> LoadFailedEvent:
    """Return the first name with a known package; else the first that does not belong to another system."""
    own = [event for event in searched if not event.path.lower().endswith((".dylib", ".dll"))] or searched
    return next((event for event in own if _providers_of(event.path, case)), own[0])


def _by_symbol(searched: list[LoadFailedEvent], dl_error: DlError) -> _Search:
    """Return the search that gave `None`, so that a symbol was looked for in the program itself."""
    like = [event for event in searched if stem_of(event.path).lower() in (dl_error.symbol or "").lower()]
    says = f"{dl_error.symbol} was looked for in the program itself, for which ctypes.CDLL(None) stands"
    confidence = Confidence.CERTAIN if like else Confidence.LIKELY
    return _Search((like or searched)[-1], confidence, Evidence(Source.PYTHON, says))


def _is_program_asked(case: Case) -> bool:
    dl_error = case.dl_error
    return (
        dl_error is not None and dl_error.problem is DlProblem.NOT_IN_LIBRARY and _is_program(dl_error.library, case)
    )


def _is_program(library: str | None, case: Case) -> bool:
    executable = case.run.process.executable if case.run.process is not None else ""
    return library is None or library == executable or _PROGRAM.search(library) is not None


def _package_of(event: LoadFailedEvent) -> str:
    return event.imports[0].partition(".")[0] if event.imports else ""


def _is_of_the_package(event: LoadFailedEvent, case: Case) -> bool:
    """Return whether the exception came from code of the package whose import made the search."""
    packages = {name.partition(".")[0] for name in event.imports or ()}
    frames = case.error.frames if case.error is not None else ()
    parts = set(re.split(r"[/\\]", frames[-1].file.removesuffix(".py"))) if frames else set()
    return bool(packages & parts)


def _library(search: _Search, searched: list[LoadFailedEvent], case: Case) -> Finding:
    event, name = search.event, search.event.path
    others = [other for other in dict.fromkeys(one.path for one in searched) if other != name]
    also = f" Names that it looked for as well: {', '.join(others[:_MOST_NAMED])}." if others else ""
    evidence = Evidence(Source.PYTHON, f"ctypes.util.find_library({name!r}) found nothing")
    there = next((copy.path for copy in case.copies.get(name, ()) if copy.where == SEARCHED), None)
    if there is not None:
        also += (
            f" There is {there}, where the loader looks: not the library is missing, but a program that find_library "
            "asks (images of containers mostly have neither gcc nor ld, Alpine no ldconfig that answers), or what they "
            "need to know the file by."
        )
    return Finding(
        code=LIBRARY_CODE,
        title=f"the library {name} was not found" + (f" by find_library, and is there: {there}" if there else ""),
        confidence=search.confidence,
        subject=name,
        chain=case.chain_to(None, f"ctypes.util.find_library({name!r})"),
        probes=event.probes or (),
        explanation=(
            f"The program asked ctypes.util.find_library for {name}, which looks into ld.so.cache and asks the "
            f"compiler and the linker, and got nothing.{also} No loader was asked for a file of that name after it."
        ),
        evidence=(evidence,) if search.says is None else (evidence, search.says),
        remedies=tuple(_install(name, case) if there is None else _ask_by_soname(there, case)),
    )


def _ask_by_soname(path: str, case: Case) -> Iterator[Remedy]:
    code = f"import ctypes; ctypes.CDLL({posixpath.basename(path)!r})"
    yield Remedy("ask for it by the name of its file: the loader finds it", code=code)
    if case.c_library.name == "glibc":
        yield Remedy("or let the system take note of its new libraries (as root)", ("ldconfig",))
    yield Remedy("or install what find_library asks: gcc, and the package of the library that compilers need (-dev)")


def _install(name: str, case: Case) -> Iterator[Remedy]:
    found = _providers_of(name, case)
    yield from install_remedies(found[:_MOST_PROVIDERS])
    if not found:
        yield Remedy(f"install the package of the system that brings {_soname_of(name)}")


def _soname_of(name: str) -> str:
    base = posixpath.basename(name)
    return base if ".so" in base else f"{base if base.startswith('lib') else f'lib{base}'}.so"


def _providers_of(name: str, case: Case) -> tuple[Provider, ...]:
    """Return the sources of a library by the argument of `find_library`: of the first soname in the table that fits."""
    plain = _soname_of(name)
    for soname in (plain, *(f"{plain}.{number}" for number in range(_NEWEST_SONAME))):
        found = find_providers(soname, System.LINUX, case.distribution)
        if found:
            return found
    return ()


def _symbol(case: Case) -> Finding:
    """Return the finding about a symbol that dlsym did not find in a library that is loaded and whole."""
    dl_error = case.dl_error
    assert dl_error is not None
    symbol, library = dl_error.symbol or "", dl_error.library or ""
    evidence = [Evidence(Source.LOADER, f"dlsym found no {symbol} in {library or 'the program'}")]
    if _is_program(library or None, case):
        return Finding(
            code=SYMBOL_CODE,
            title=f"{symbol} was looked for in the program itself, which does not have it",
            confidence=Confidence.LIKELY,
            subject=symbol,
            chain=case.chain_to(None),
            explanation=(
                f"ctypes.CDLL(None) stands for the program ({library or 'python'}) and all that it has loaded for "
                f"everybody, and none of that has {symbol}. Mostly None came from ctypes.util.find_library, which "
                "found no library."
            ),
            evidence=tuple(evidence),
            remedies=(Remedy("see which library the name is for, and install it"),),
        )
    base = posixpath.basename(library)
    nearest = _alike(symbol, case.images.get(library))
    copies = tuple(copy for copy in case.copies.get(base, ()) if copy.has_what_lacks and copy.unfit is None)
    text = (
        f"{library}{case.owner_of(library)} is loaded. The code that uses it asked for {symbol} by name (dlsym), and "
        "that library has no such symbol: it is older or newer than the code expects, or was built without that part."
    )
    if nearest:
        text += f" Alike, and there: {', '.join(nearest)}."
    if copies:
        text += f" {describe_copies(copies)} has it."
    owner = next((owner.package for owner in case.owners.get(library, ())), None)
    return Finding(
        code=SYMBOL_CODE,
        title=f"{base} has no {symbol}, which the code that loaded it asks for",
        confidence=Confidence.CERTAIN,
        subject=library,
        chain=case.chain_to(None, library),
        explanation=text,
        evidence=tuple(evidence),
        remedies=(
            Remedy(f"bring {owner or base} and the package that uses it to versions that were made for one another"),
        ),
    )


def _alike(symbol: str, image: object) -> list[str]:
    """Return two exported names of which one begins with the other."""
    symbols = image.symbols if isinstance(image, ElfImage) else None
    names = symbols.provides if symbols is not None else ()
    return sorted(name for name in names if name.startswith(symbol) or symbol.startswith(f"{name}_"))[:2]


def _denied(library: str, case: Case) -> Finding:
    """Return the finding about a library that the program itself reports as missing, without a load that failed."""
    error = case.error
    kind = error.type if error is not None else "the exception"
    return Finding(
        code=LIBRARY_CODE,
        title=f"the program did not find {posixpath.basename(library)}",
        confidence=Confidence.LIKELY,
        subject=library,
        chain=case.chain_to(None, library),
        explanation=(
            f"{kind} says that {library} is missing. The program looked for it by itself and asked no loader for it: "
            "the folders that count are those of its documentation, not those of the loader."
        ),
        evidence=(Evidence(Source.PYTHON, f"{kind} names {library}"),),
        remedies=tuple(_install(library, case)),
    )
