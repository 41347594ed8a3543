"""A library that no searched place has. The rule names the missing library, not the images that fail because of it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from ...model.environment import CONFIGURED, PackageManager, Provider, ProviderKind, has_hash
from ...model.events import FOLDER_LOCKED, FailureKind, LoadFailedEvent, Phase, ProbeOutcome
from ...model.failure import System
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.tree import Binding, BindingState
from ..case import Case, Copy, LeadKind, describe_copies
from ..loader_errors import DlProblem, folder_of
from ..named_failure import final_failures, stem_of
from ..package_tools import package_tool
from ..providers import find_providers, install_remedies, package_with, provider_by_rule
from ..remedies import operand, reinstall, with_variable
from .integrity import lost_file
from .python_module import python_of_library
from .search_rules import lead_of
from .wrong_file import is_of_bionic, wants_plain_libc

CODE = "missing-image"
NO_FILE_CODE = "no-such-file"
RUNTIME_CODE = "missing-at-runtime"
C_LIBRARY_CODE = "other-c-library"

_MOST_PROVIDERS = 2
_SHORTEST_NAME = 3
"""A longer name in the output of the program is no accident."""
_STALE = (Phase.CACHE, ProbeOutcome.ABSENT)
_PYTHONS_OWN = re.compile(r"(?:^|/)(?:libpython|python|pypy|_ctypes\.|_cffi_backend)[^/]*$")
"""Images that call dlopen because Python code asks for it."""


def check(case: Case) -> Iterator[Finding]:
    """Yield every missing library: first the one that stopped the loader, then others that the files show."""
    android = wants_plain_libc(case.dl_error.library if case.dl_error is not None else None, case)
    if android is not None and _own_c_library(case) != "musl":
        yield _plain_libc(android, case)
        return
    seen = {event.need or event.path: event for event in case.seen_failures(FailureKind.NOT_FOUND)}
    names = _names_tried(case)
    for failure in case.run.recording.failures if case.run.recording is not None and names else ():
        if failure.need in names or failure.path in names:
            seen.setdefault(failure.need or failure.path, failure)
    bindings = {
        binding.need: binding for binding in case.failed_bindings(BindingState.MISSING) if not _is_present(binding)
    }
    dl_error = case.dl_error
    named = dl_error.library if dl_error is not None and dl_error.problem is DlProblem.MISSING else None
    named = _best_known(names, case) if names else named
    refused = {event.need or event.path for event in case.seen_failures(FailureKind.REFUSED)}
    dropped = _dropped_images(case)
    # The one that the loader named comes first.
    first = [named] if named is not None and named not in refused else []
    for need in dict.fromkeys((*first, *(name for name in seen if name not in names), *bindings)):
        event, binding = seen.get(need), bindings.get(need)
        if python_of_library(need, case) or lost_file(case, need) or lead_of(need, case):
            continue
        if binding is None and event is not None and _is_asked_for(event, case, dropped):
            yield _runtime(need, event, case) if _is_requested_by_code(event) else _no_file(need, case, names)
        elif binding is None and event is None and need == case.subject and not case.is_of_another_process:
            yield _no_file(need, case, names)
        else:
            yield _missing(need, event, binding, named == need, case)


def _names_tried(case: Case) -> tuple[str, ...]:
    """Return the names by which a program asked for one library, one after the other, and got it by none.

    () if it asked by a single name, or an image lists it among its needs.
    """
    dl_error = case.dl_error
    library = dl_error.library if dl_error is not None and dl_error.problem is DlProblem.MISSING else None
    if library is None or any(library in getattr(image, "needed", ()) for image in case.images.values()):
        return ()
    stem = stem_of(library)
    dropped = _dropped_images(case)
    tried = [event.need or event.path for event in final_failures(case.run.recording)
             if event.kind is FailureKind.NOT_FOUND and _is_asked_for(event, case, dropped)]  # fmt: skip
    names = dict.fromkeys((library, *(name for name in tried if stem and stem_of(name) == stem)))
    return tuple(names) if len(names) > 1 else ()


def _best_known(names: tuple[str, ...], case: Case) -> str:
    """Return the name with a known package of this system, else with any, else the first that is no path."""
    bare = [name for name in names if "/" not in name] or list(names)
    known = {name: find_providers(name, System.LINUX, case.distribution) for name in bare}
    tool = package_tool(case.distribution)
    own = (name for name in bare if tool is not None and any(one.kind is tool.kind for one in known[name]))
    return next(own, next((name for name in bare if known[name]), bare[0]))


def _is_present(binding: Binding) -> bool:
    return any(probe.outcome is ProbeOutcome.PRESENT for probe in binding.probes)


def _dropped_images(case: Case) -> frozenset[str]:
    """Return the paths of images that left because another load failed."""
    return frozenset(failure.path for failure in case.failed_events if failure.kind is FailureKind.DROPPED)


def _is_asked_for(event: LoadFailedEvent, case: Case, dropped: frozenset[str]) -> bool:
    """Return whether a program requested the library by dlopen, not an image by its list of needs."""
    by = event.requested_by
    image = case.images.get(by or "")
    listed = getattr(image, "needed", ()) if image is not None else ()
    return by not in dropped and event.need not in listed


def _is_requested_by_code(event: LoadFailedEvent) -> bool:
    """Return whether native code made the request, not Python."""
    return event.requested_by is not None and _PYTHONS_OWN.search(event.requested_by) is None


def _missing(need: str, event: LoadFailedEvent | None, binding: Binding | None, is_named: bool, case: Case) -> Finding:
    dl_error = case.dl_error
    requested_by = binding.requested_by if binding is not None else event.requested_by if event is not None else None
    if requested_by is None and is_named and dl_error is not None:
        requested_by = dl_error.required_by
    evidence = []
    if event is not None:
        places = len(event.probes or ())
        evidence.append(Evidence(Source.LOADER, f"it looked for {need} in {places} places and gave up"))
    elif is_named:
        evidence.append(Evidence(Source.PYTHON, f"the loader's words are that it did not find {need}"))
    if binding is not None:
        evidence.append(Evidence(Source.FILES, f"no place that the rules lead to has a {need} that fits"))
    foreign = _other_c_library(need, case)
    is_of_trace = event is not None and case.dl_error is None and case.run.crash is None
    return Finding(
        code=C_LIBRARY_CODE if foreign else CODE,
        title=f"{requested_by or 'the file'} was built for {foreign}" if foreign
        else f"there is no {need}, the path by which {requested_by} asks for it"
        if _is_asked_by_path(need, requested_by, case)
        else f"{need} was not found{_mistake_in_path(need, case)}",
        confidence=Confidence.LIKELY if _is_hidden(need, case) else _confidence(case, is_named or is_of_trace),
        subject=(requested_by or need) if foreign else need, chain=case.chain_to(requested_by, need),
        probes=case.probes_of(need),
        explanation=_explain_c_library(need, requested_by, foreign, case)
        if foreign
        else _explain(need, requested_by, binding, case),
        evidence=tuple(evidence),
        remedies=(
            (Remedy(f"install a build for {_own_c_library(case)}, or use a Python with that C library"),)
            if foreign
            else tuple(_remedies(need, requested_by, case))
        ),
    )  # fmt: skip


def _confidence(case: Case, is_named: bool) -> Confidence:
    # By the files alone: with a loader that stopped at another name, this one is next in line.
    if is_named and case.dl_error is not None:
        return Confidence.CERTAIN
    dl_error = case.dl_error
    if dl_error is not None and dl_error.problem is not DlProblem.MISSING:
        return Confidence.POSSIBLE
    return Confidence.LIKELY if dl_error is not None else Confidence.POSSIBLE


def _explain(need: str, requested_by: str | None, binding: Binding | None, case: Case) -> str:
    owner = case.owner_of(requested_by) if requested_by else ""
    if case.is_of_another_process:
        return f"A loader says that it did not find {need}. That of this process looked for no such file."
    places = "no place that could be looked at" if _is_hidden(need, case) else "no place searched"
    text = f"{requested_by or 'The import'}{owner} cannot be loaded without {need}, and {places} has it."
    if _is_asked_by_path(need, requested_by, case):
        text += (
            " It asks for it by that very path: it was linked with a library that has no soname, and the path given to "
            "the linker was kept. No other folder is searched, and LD_LIBRARY_PATH does not count."
        )
    gone = [probe.path for probe in case.probes_of(need) if (probe.phase, probe.outcome) == _STALE]
    if gone:
        text += f" ld.so.cache still lists {gone[0]}, which was taken away since ldconfig ran last."
    copies = _copies_of(need, case)
    fit = tuple(copy for copy in copies if copy.unfit is None)
    if fit:
        text += f" There is {describe_copies(fit)}, where the loader does not look."
        text += _why_not_inherited(fit, requested_by, case)
        if any(_is_configured(copy, case) for copy in fit):
            text += " ld.so.conf names that folder, and ld.so.cache does not have the file: ldconfig has not run since."
    elif copies:
        text += f" {copies[0].path} has that name, but {copies[0].unfit}."
    text += _explain_other_case(need, case)
    if _own_c_library(case) == "musl":
        text += _ignored_by_musl(requested_by, case)
    if binding is None and case.tree is None:
        text += " Whether more is missing could not be worked out."
    return text


def _other_case_of(need: str, case: Case) -> str | None:
    """Return a file, in a folder that was searched, whose name differs from the library's in its case only."""
    return next((lead.path for lead in case.leads.get(need, ()) if lead.kind is LeadKind.OTHER_CASE), None)


def _explain_other_case(need: str, case: Case) -> str:
    path = _other_case_of(need, case)
    return f" There is {path}, and the loader tells upper from lower case." if path is not None else ""


def _rename_remedy(need: str, case: Case) -> Iterator[Remedy]:
    path = _other_case_of(need, case)
    if path is not None:
        link = f"{folder_of(path)}/{posixpath.basename(need)}"
        command = ("ln", "-s", operand(posixpath.basename(path)), operand(link))
        yield Remedy(f"if {path} is that library: correct the name where it is asked for, or make a link", command)


def _ignored_by_musl(requested_by: str | None, case: Case) -> str:
    """Return that musl ignores a search path as a whole, for a token in it (fixup_rpath in ldso/dynlink.c)."""
    image = case.images.get(requested_by or "")
    path = getattr(image, "rpath" if getattr(image, "runpath", None) is None else "runpath", None) or ""
    if "$" not in path.replace("${ORIGIN}", "").replace("$ORIGIN", ""):
        return ""
    return f" musl knows no other token than $ORIGIN, so that it ignores the search path in that file: {path}."


def _why_not_inherited(copies: tuple[Copy, ...], requested_by: str | None, case: Case) -> str:
    """RUNPATH counts for the image that has it only; people expect it to count for what that image loads (ld.so(8))."""
    for binding in case.tree.bindings if case.tree is not None else ():
        for probe in binding.probes:
            folders = {folder_of(copy.path) for copy in copies}
            if probe.phase is Phase.RUNPATH and probe.origin != requested_by and folder_of(probe.path) in folders:
                return f" The RUNPATH of {probe.origin} names that folder, but counts for its own needs only, not for those of {requested_by}."  # noqa: E501
    return ""


def _mistake_in_path(need: str, case: Case) -> str:
    """Return what is wrong with an element of LD_LIBRARY_PATH that is meant for the library; empty if nothing is.

    The loader takes each element as a folder, letter by letter (ld.so(8)).
    """
    process = case.run.process
    elements = process.loader_environment.get("LD_LIBRARY_PATH", "").split(":") if process is not None else []
    copies = [copy for copy in case.copies.get(need, ()) if copy.unfit is None]
    for element in elements if copies else ():
        if element in {copy.path for copy in copies} or posixpath.basename(element) == need:
            return f": LD_LIBRARY_PATH has to name its folder, and names the file {element}"
        if element.startswith("~"):
            return f": in LD_LIBRARY_PATH {element} is no folder, because only shells know what ~ is"
        if element != element.strip():
            return f": in LD_LIBRARY_PATH {element!r} is no folder, because a blank is a part of its name"
        if ";" in element and _own_c_library(case) == "musl":
            return f": in LD_LIBRARY_PATH {element} is one folder, because musl takes colons only to separate folders"
        if element.startswith(("'", '"', "$HOME", "${")):
            return f": in LD_LIBRARY_PATH {element} is no folder, because the loader knows no quotes and variables"
    return ""


def _is_configured(copy: Copy, case: Case) -> bool:
    """Return whether ldconfig would let the loader find the copy. musl reads no cache."""
    return copy.where == CONFIGURED and _own_c_library(case) != "musl"


def _is_hidden(need: str, case: Case) -> bool:
    """Return whether a place that was searched could not be looked at: the library may be there."""
    bindings = case.tree.bindings if case.tree is not None else ()
    by_files = [probe for binding in bindings if binding.need == need for probe in binding.probes]
    return any(FOLDER_LOCKED in (probe.reason or "") for probe in (*case.probes_of(need), *by_files))


def _providers_of(need: str, requested_by: str | None, case: Case) -> tuple[Provider, ...]:
    """Return the known sources of a library; by the distribution's rules for names where it is in no row of its own."""
    known = find_providers(need, System.LINUX, case.distribution, requested_by or "")
    if all(provider.kind is ProviderKind.CONDA for provider in known):
        return (*provider_by_rule(need, case.distribution), *known)
    return known


def _copies_of(need: str, case: Case) -> tuple[Copy, ...]:
    return case.copies.get(need, ()) or case.copies.get(posixpath.basename(need), ())


def _is_asked_by_path(need: str, requested_by: str | None, case: Case) -> bool:
    """Return whether an image lists an absolute path among its needs: the loader opens that, and searches nothing."""
    return need.startswith("/") and need in getattr(case.images.get(requested_by or ""), "needed", ())


def _remedies(need: str, requested_by: str | None, case: Case) -> Iterator[Remedy]:
    fit = [copy for copy in _copies_of(need, case) if copy.unfit is None]
    if _is_asked_by_path(need, requested_by, case):
        name = posixpath.basename(need)
        yield Remedy(
            "link it again with a library that has a soname (-Wl,-soname), or change the name that it needs",
            ("patchelf", "--replace-needed", need, name, operand(requested_by or "")),
        )
        if fit:
            folder = folder_of(fit[0].path)
            yield Remedy(f"then let the loader find {name}: by an RPATH to {folder}, or LD_LIBRARY_PATH")
        yield from reinstall(case, requested_by)
        return
    yield from _rename_remedy(need, case)
    if fit:
        fit.sort(key=lambda copy: _is_configured(copy, case), reverse=True)
        folder = folder_of(fit[0].path)
        if _is_configured(fit[0], case):
            yield Remedy("let the system take note of its new libraries (as root)", ("ldconfig",))
        yield Remedy(
            "let the loader look there, to see whether that copy will do",
            with_variable(case, "LD_LIBRARY_PATH", folder),
        )
    providers = _providers_of(need, requested_by, case)
    yield from install_remedies(providers[:_MOST_PROVIDERS])
    if fit and not has_hash(need):
        return
    owners = case.owners.get(requested_by or "", ())  # pip's first
    owner = owners[0] if owners and owners[0].manager is PackageManager.PIP else None
    is_own = owner is not None and has_hash(need)
    again = [*reinstall(case, requested_by, f"{need} is a file of its own")] if is_own else []
    yield from again
    if owner is None and _is_expected_beside(need, requested_by, case):
        yield Remedy(
            f"install the package of {requested_by} again: it expects {need} in a folder of its own, so that file is "
            "part of the package, and was lost or never copied along"
        )
    elif owner is not None and not providers and not again:
        # A package that lists the file and lost it is another finding. One that never had it cannot bring it.
        yield Remedy(
            f"find what brings {need}: it is no file of {owner.package}, which expects it from the system or from "
            "another package"
        )
    elif not (fit or providers or again or owners):
        yield package_with(need, case.distribution)


def _is_expected_beside(need: str, requested_by: str | None, case: Case) -> bool:
    """Return whether RPATH or RUNPATH lead into the image's own package, as in packages that bring their libraries."""
    folder = folder_of(requested_by or "")
    package = folder_of(folder)  # for x/core/mod.so and x.libs beside x
    near = (f"{folder}/", f"{package}/") if package.count("/") > 1 else (f"{folder}/",)
    return any(
        probe.phase in (Phase.RPATH, Phase.RUNPATH) and probe.path.startswith(near) for probe in case.probes_of(need)
    )


def _no_file(need: str, case: Case, tried: tuple[str, ...]) -> Finding:
    """Return the finding about a requested file that does not exist; `tried` as of `_names_tried`."""
    bare = "/" not in need
    copies = tuple(copy for copy in case.copies.get(need.rpartition("/")[2], ()) if copy.unfit is None)
    text = (
        "The program asked for it by that name, without a folder, and no place searched has it."
        if bare
        else "The program asked for that very file."
    )
    if copies:
        text += f" There is {describe_copies(copies)}, which was not looked at."
    elif tried:
        others = [name for name in tried if name != need]
        text += f" It tried {len(tried)} names of the library, and got it by none: also {', '.join(others[:4])}."
    elif _other_case_of(need, case) is None and bare and re.search(r"\.so$", need):
        text += " A name that ends in .so without a number is often there for compilers only (the -dev packages)."
    text += _explain_other_case(need, case)
    remedies = [*_rename_remedy(need, case)] + (
        [
            Remedy(
                "name the whole path, or let the loader look there",
                with_variable(case, "LD_LIBRARY_PATH", folder_of(copies[0].path)),
            )
        ]
        if copies and bare
        else []
    )
    if bare:
        providers = _providers_of(need, None, case)
        remedies += install_remedies(providers[:_MOST_PROVIDERS])
    title = f"{need} was not found" if bare else f"there is no {need}"
    evidence = Evidence(Source.LOADER if case.failed_events else Source.PYTHON, f"there is no {need}")
    confidence = Confidence.CERTAIN if case.dl_error is not None else Confidence.POSSIBLE
    return Finding(
        code=NO_FILE_CODE,
        title=title,
        confidence=confidence, subject=need, chain=case.chain_to(None, need), probes=case.probes_of(need),
        explanation=text,
        evidence=(evidence,),
        remedies=tuple(remedies),
    )  # fmt: skip


def _runtime(need: str, event: LoadFailedEvent, case: Case) -> Finding:
    """Return the finding about a library that native code requested by dlopen, and that was not found."""
    caller = event.requested_by or ""
    stem = need.rpartition("/")[2].partition(".so")[0].removeprefix("lib")
    words = " ".join((*(error.message for error in case.run.errors), case.run.output.text))
    mentioned = (
        len(stem) > _SHORTEST_NAME
        and re.search(rf"(?<![A-Za-z]){re.escape(stem)}", words.replace("lib", " ")) is not None
    )
    text = f"{caller}{case.owner_of(caller)} asked for {need} by dlopen while it ran, and did not get it."
    copies = tuple(copy for copy in case.copies.get(need.rpartition("/")[2], ()) if copy.unfit is None)
    if copies:
        text += f" There is {describe_copies(copies)}, where the loader does not look."
        if any("PATH" in copy.where and "LD_" not in copy.where for copy in copies):
            text += " On Linux PATH is for programs; for libraries it is LD_LIBRARY_PATH."
    evidence = [Evidence(Source.LOADER, f"it looked for {need} in {len(event.probes or ())} places and gave up")]
    if mentioned:
        evidence.append(Evidence(Source.PYTHON, f"the output of the program names {stem}"))
    confidence = Confidence.LIKELY if mentioned else Confidence.POSSIBLE
    is_named = case.dl_error is not None and case.dl_error.library == need
    return Finding(
        code=RUNTIME_CODE,
        title=f"{need}, which {caller.rpartition('/')[2]} asks for while it runs, was not found",
        confidence=Confidence.CERTAIN if is_named else confidence,
        subject=need,
        chain=case.chain_to(caller, need),
        probes=case.probes_of(need),
        explanation=text,
        evidence=tuple(evidence),
        remedies=tuple(_remedies(need, caller, case)),
    )


def _other_c_library(need: str, case: Case) -> str | None:
    """Return the C library that a file was built for, if this need shows that the process has another one."""
    own = _own_c_library(case)
    if own != "musl" and need.startswith(("libc.musl-", "ld-musl-")):
        return "musl (Alpine Linux)"
    if own == "musl" and (need.startswith("ld-linux") or need == "libc.so.6"):
        return "glibc"
    return None


def _plain_libc(path: str, case: Case) -> Finding:
    image = case.images.get(path)
    needed = ", ".join(getattr(image, "needed", ()))
    system = "Android" if is_of_bionic(image) else "Android or musl"
    return Finding(
        code=C_LIBRARY_CODE,
        title=f"{path} was built for {system}, and not for {_own_c_library(case)}",
        confidence=Confidence.CERTAIN,
        subject=path,
        chain=case.chain_to(path),
        explanation=(
            f"{path}{case.owner_of(path)} needs {needed}: a C library whose name has no version, as that of Android "
            f"(bionic) and some builds of musl. This Python runs on {_own_c_library(case)}, where such a file does not "
            "load."
        ),
        evidence=(Evidence(Source.FILES, f"it needs {needed}"),),
        remedies=(Remedy(f"install the build for Linux with {_own_c_library(case)} of the package it is from"),),
    )


def _own_c_library(case: Case) -> str:
    return case.c_library.name or "glibc"


def _explain_c_library(need: str, requested_by: str | None, foreign: str, case: Case) -> str:
    return (
        f"{requested_by or 'It'}{case.owner_of(requested_by or '')} needs {need}, which only systems with "
        f"{foreign} have. "
        f"This Python runs on {_own_c_library(case)}: a file for one of them does not load in the other."
    )
