"""A file that is there and was not taken, because of the rules of the search or of another copy that came first.

To find the copy that came first, the rule resolves the same file again without the setting or image in question.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from ...model.elf import ElfImage
from ...model.events import FailureKind
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.tree import BindingState, MissingSymbol, MissingVersion
from ..case import Case, Change, LeadKind, SearchLead, ShadowedCopy
from ..loader_errors import DlProblem, folder_of
from ..remedies import operand, with_variable, without_variable

LATE_CODE = "library-path-set-late"
SECURE_CODE = "library-path-ignored"
RELATIVE_CODE = "relative-need"
RELATIVE_PATH_CODE = "relative-library-path"
LINK_CODE = "origin-of-a-link"
EATEN_CODE = "origin-lost"
RENAMED_CODE = "renamed-library"
LINK_MISSING_CODE = "link-missing"
SCOPE_CODE = "symbol-in-local-scope"

_EXTENSION = ".cpython-"


def check_search(case: Case) -> Iterator[Finding]:
    """Yield the libraries that exist and were missed by the search, and the symbol that a scope hides."""
    for need in _missed(case):
        lead = lead_of(need, case)
        if lead is not None:
            yield _finding(need, lead, case)
    provider = hidden_provider(case)
    if provider is not None:
        yield _local_scope(case.symbols[0], provider, case)


def _missed(case: Case) -> dict[str, str | None]:
    """Return each name that was not found with its requester, the name from the loader's message first."""
    found: dict[str, str | None] = {}
    for event in case.seen_failures(FailureKind.NOT_FOUND):
        found.setdefault(event.need or event.path, event.requested_by)
    for binding in case.failed_bindings(BindingState.MISSING):
        found.setdefault(binding.need, binding.requested_by)
    return found


def lead_of(need: str, case: Case) -> SearchLead | None:
    """Return the file that explains best why `need` was not found; `None` without one that can be taken."""
    leads = [lead for lead in case.leads.get(need, ()) if lead.kind is not LeadKind.OTHER_CASE]
    if not leads and case.run.process is not None and case.run.process.is_secure and "/" not in need:
        copy = next((copy for copy in case.copies.get(need, ()) if copy.unfit is None), None)
        return SearchLead(LeadKind.SECURE_MODE, copy.path) if copy is not None else None
    return leads[0] if leads else None


def _finding(need: str, lead: SearchLead, case: Case) -> Finding:
    requester = _missed(case).get(need)
    code, title, text, remedies = _WORDS[lead.kind](need, lead, requester or "the program", case)
    failed = [event for event in case.seen_failures(FailureKind.NOT_FOUND) if (event.need or event.path) == need]
    dl_error = case.dl_error
    is_named = dl_error is not None and dl_error.problem is DlProblem.MISSING and dl_error.library == need
    evidence = [Evidence(Source.LOADER, f"it looked for {need} and did not find it")] if failed else []
    if lead.path is not None:
        evidence.append(Evidence(Source.FILES, f"there is {lead.path}"))
    sure = Confidence.CERTAIN if is_named or failed else Confidence.POSSIBLE
    if lead.kind is LeadKind.SECURE_MODE and lead.element is None and sure is Confidence.CERTAIN:
        # The variable was taken out of the environment, so that nobody can see it: it may not have been set.
        sure = Confidence.LIKELY
    return Finding(
        code=code, title=title, confidence=sure, subject=need, chain=case.chain_to(requester, need),
        probes=case.probes_of(need), explanation=text + _unfit(lead, need, case), evidence=tuple(evidence),
        remedies=tuple(remedies),
    )  # fmt: skip


def _unfit(lead: SearchLead, need: str, case: Case) -> str:
    copy = next((copy for copy in case.copies.get(need, ()) if copy.path == lead.path and copy.unfit), None)
    return f" That file would not be taken, though: {copy.unfit}." if copy is not None else ""


_Words = tuple[str, str, str, list[Remedy]]


def _late_path(need: str, lead: SearchLead, requester: str, case: Case) -> _Words:
    folder = lead.element or ""
    return (
        LATE_CODE,
        f"LD_LIBRARY_PATH was set after the start, so {need} was not looked for there",
        f"{lead.path} lies in {folder}, which the program put into LD_LIBRARY_PATH (os.environ) while it ran. The "
        "loader reads that variable once, before the program starts; a later change reaches only the programs that it "
        "starts.",
        [
            Remedy("set it before Python starts", with_variable(case, "LD_LIBRARY_PATH", folder)),
            Remedy(
                "or load it by its path before what needs it: a library of that name is then in the process, and is "
                "not looked for",
                code=f"import ctypes; ctypes.CDLL({lead.path!r}, mode=ctypes.RTLD_GLOBAL)",
            ),
        ],
    )


def _relative_path(need: str, lead: SearchLead, requester: str, case: Case) -> _Words:
    current = case.run.process.current_folder if case.run.process is not None else ""
    return (
        RELATIVE_PATH_CODE,
        f"{need} was not found: LD_LIBRARY_PATH has {lead.element}, a relative folder",
        f"The loader takes a relative folder from the current folder of the process, which is {current}: it looked in "
        f"{posixpath.normpath(posixpath.join(current, lead.element or ''))}. There is {lead.path}.",
        [Remedy("name the whole folder", with_variable(case, "LD_LIBRARY_PATH", folder_of(lead.path or "")))],
    )


def _secure_mode(need: str, lead: SearchLead, requester: str, case: Case) -> _Words:
    where = f" names {lead.element}, where there is {lead.path}" if lead.element else " may name a folder that has it"
    there = "" if lead.element else f" There is {lead.path}, where the loader did not look."
    return (
        SECURE_CODE,
        f"the loader ignores LD_LIBRARY_PATH in this program, and did not find {need}",
        "The program runs in secure mode (AT_SECURE): it has file capabilities, or is set-user-ID or set-group-ID. The "
        f"loader then ignores LD_LIBRARY_PATH and LD_PRELOAD, and takes them out of the environment.{there} "
        f"LD_LIBRARY_PATH{where}, and that does not count.",
        [
            Remedy(
                "put the folder into /etc/ld.so.conf.d and run ldconfig (as root), or give the image that needs it an "
                "absolute RPATH"
            ),
            Remedy(
                "or take the capabilities away and grant them otherwise, such as by systemd's AmbientCapabilities "
                "(getcap PROGRAM shows them)"
            ),
        ],
    )


def _relative_need(need: str, lead: SearchLead, requester: str, case: Case) -> _Words:
    name = posixpath.basename(need)
    remedies = [
        Remedy(
            "link it again with a library that has a soname (-Wl,-soname), or change the name that it needs",
            ("patchelf", "--replace-needed", need, name, operand(requester)),
        )
    ]
    if lead.path is not None and lead.path.endswith(f"/{need}"):
        top = lead.path[: -len(need) - 1]
        remedies.append(Remedy("or start the program in that folder", ("cd", operand(top))))
    found = f" There is {lead.path}." if lead.path is not None else ""
    return (
        RELATIVE_CODE,
        f"{requester} needs {need}, a path that starts from the current folder",
        f"A name with a slash is no name to search for: the loader takes it as a path, and a relative one from the "
        f"current folder of the process. It was linked with a library that has no soname, so that the path given to "
        f"the linker was kept.{found} After the change, an RPATH such as $ORIGIN has to lead to {name}.",
        remedies,
    )


def _origin_of_link(need: str, lead: SearchLead, requester: str, case: Case) -> _Words:
    return (
        LINK_CODE,
        f"{requester} is a symbolic link, and $ORIGIN is the folder of the link",
        f"It is a link to {lead.target}, and its search path is {lead.element}. The loader takes $ORIGIN from the path "
        f"by which it opened the file, without following links: it looked beside the link. There is {lead.path}, "
        "beside the file itself.",
        [
            Remedy("copy the file instead of linking to it, together with its libraries; or link to the whole folder"),
            Remedy(
                f"or put a link to {need} beside the link",
                ("ln", "-s", operand(lead.path or ""), operand(folder_of(requester) or ".")),
            ),
        ],
    )


def _eaten_origin(need: str, lead: SearchLead, requester: str, case: Case) -> _Words:
    rest = posixpath.relpath(folder_of(lead.path or ""), folder_of(requester))
    wanted = "$ORIGIN" if rest == "." else f"$ORIGIN/{rest}"
    is_quoted = lead.element is not None and lead.element.startswith(("\\", "'", '"'))
    lost = "has its $ORIGIN behind a backslash or a quote" if is_quoted else "has lost its $ORIGIN"
    why = (
        "What was meant to keep $ORIGIN from a shell is a part of the path now."
        if is_quoted
        else "A shell or make takes $ORIGIN (or $O) for a variable of its own and leaves nothing of it, when the "
        "linker's option is not quoted."
    )
    return (
        EATEN_CODE,
        f"the RUNPATH of {requester} {lost}: it is {lead.element}",
        f"With {wanted} it would lead to {lead.path}. {why}",
        [
            Remedy("set it again", ("patchelf", "--set-rpath", wanted, operand(requester))),
            Remedy("and build it with the option in single quotes: '-Wl,-rpath,$ORIGIN/...' (in a Makefile $$ORIGIN)"),
        ],
    )


def _renamed(need: str, lead: SearchLead, requester: str, case: Case) -> _Words:
    name = posixpath.basename(lead.path or "")
    newer = name.endswith("t64")
    return (
        RENAMED_CODE,
        f"{need} was renamed: this system has {name}",
        f"The loader looked in {folder_of(lead.path or '')}, where there is {name}. Debian 13 and Ubuntu 24.04 "
        f"{'have' if newer else 'have not'} that new name, for a library with a 64-bit time_t: "
        f"{requester} was built on {'an older' if newer else 'a newer'} release.",
        [
            Remedy(f"take a build of {requester} for this release, or one that brings the library itself"),
            Remedy(
                "a link from the old name to the new file works on 64-bit systems, where nothing but the name changed; "
                "try it in a folder of your own"
            ),
        ],
    )


def _numbered(need: str, lead: SearchLead, requester: str, case: Case) -> _Words:
    name, folder = posixpath.basename(lead.path or ""), folder_of(lead.path or "")
    return (
        LINK_MISSING_CODE,
        f"{need} was not found: here it is {name}, with the number of its version",
        f"There is {lead.path}, whose soname is {name}. The name without a number is a link for compilers, which the "
        "package for developers brings (-dev, -devel).",
        [
            Remedy(f"ask for {name}, or install the package for developers, which has the link"),
            Remedy("or make the link", ("ln", "-s", operand(name), operand(f"{folder}/{need}"))),
        ],
    )


def _link_missing(need: str, lead: SearchLead, requester: str, case: Case) -> _Words:
    folder = folder_of(lead.path or "")
    return (
        LINK_MISSING_CODE,
        f"{need} was not found, and {posixpath.basename(lead.path or '')} is it by another name",
        f"{lead.path} has the soname {need}, and no file or link has that name. The loader looks for names of files; "
        "the link from soname to file is made by ldconfig or by the package, and copies without links lose it.",
        [
            Remedy(
                "make the link",
                ("ln", "-s", operand(posixpath.basename(lead.path or "")), operand(f"{folder}/{need}")),
            )
        ],
    )


_WORDS = {
    LeadKind.LATE_LIBRARY_PATH: _late_path,
    LeadKind.NUMBERED: _numbered,
    LeadKind.RELATIVE_LIBRARY_PATH: _relative_path,
    LeadKind.SECURE_MODE: _secure_mode,
    LeadKind.RELATIVE_NEED: _relative_need,
    LeadKind.ORIGIN_OF_LINK: _origin_of_link,
    LeadKind.ORIGIN_EATEN: _eaten_origin,
    LeadKind.RENAMED: _renamed,
    LeadKind.LINK_MISSING: _link_missing,
}


def hidden_provider(case: Case) -> str | None:
    """Return the image of the process that has the symbol which is missing first, and is not in the scope searched.

    dlopen without RTLD_GLOBAL puts an image into a scope of its own (dlopen(3), RTLD_LOCAL): what is loaded later does
    not see its symbols, unless it needs that image by name.
    """
    dl_error, process = case.dl_error, case.run.process
    if dl_error is None or dl_error.problem is not DlProblem.MISSING_SYMBOL or not case.symbols or process is None:
        return None
    missing = case.symbols[0]
    tree = case.tree.images if case.tree is not None else {}
    for path in process.loaded:
        image = case.images.get(path)
        if path in tree or path == missing.requested_by or not isinstance(image, ElfImage) or image.symbols is None:
            continue
        versions = image.symbols.provides.get(missing.name)
        if versions is not None and (missing.version is None or missing.version in versions or None in versions):
            return path
    return None


def _local_scope(missing: MissingSymbol, provider: str, case: Case) -> Finding:
    requester = missing.requested_by
    event = case.load_of(provider)
    name = posixpath.basename(provider)
    is_module = _EXTENSION in name or (event is not None and bool(event.imports) and event.need is None)
    who = f"import {event.imports[-1]}" if event is not None and event.imports else "the program"
    why = (
        "Python loads extension modules with RTLD_LOCAL, so that the symbols of one are not seen by another."
        if is_module
        else "It was loaded without RTLD_GLOBAL, so that its symbols are seen only by images that need it by name."
    )
    remedies = [
        Remedy(
            f"link {posixpath.basename(requester)} with the library that has the symbol (-l, so that it is among its "
            "needs), or move the symbol into a library that both need"
        ),
        Remedy(
            "or load the other with RTLD_GLOBAL: sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL) before its import, "
            "or ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)"
        ),
    ]
    return Finding(
        code=SCOPE_CODE,
        title=f"{name} has {missing.name}, and {posixpath.basename(requester) or 'the program'} does not see it",
        confidence=Confidence.CERTAIN, subject=missing.name, chain=case.chain_to(requester, missing.name),
        explanation=(
            f"{requester}{case.owner_of(requester)} needs {missing.name}. {provider}{case.owner_of(provider)} is in "
            f"the process ({who} brought it) and defines it, in a local scope. {why}"
        ),
        evidence=(
            Evidence(Source.LOADER, f"undefined symbol: {missing.name}"),
            Evidence(Source.FILES, f"{provider} defines {missing.name}, and is in the process"),
        ),
        remedies=tuple(remedies),
    )  # fmt: skip


CODE = "first-wins"
_PRELOADS = re.compile(r"[:\s]+")
PATH_CODE = "library-path-wins"


def check_first_wins(case: Case) -> Iterator[Finding]:
    """Yield the finding about the copy that was taken first."""
    if is_about_a_shadowed_copy(case):
        pair = case.shadowed[0]
        yield _loaded_first(pair, case) if pair.change is Change.NOTHING_LOADED else _library_path(pair, case)


def is_about_a_shadowed_copy(case: Case) -> bool:
    """Return whether a symbol or version is missing because of the copy that was taken."""
    dl_error = case.dl_error
    wanted = (DlProblem.MISSING_SYMBOL, DlProblem.MISSING_VERSION)
    return bool(case.shadowed) and dl_error is not None and dl_error.problem in wanted


def describe_missing(case: Case) -> str:
    """Return the first missing version or symbol in words: "the version X_2", "the symbol foo"."""
    if case.versions:
        return f"version {case.versions[0].version}"
    return f"symbol {case.symbols[0].name}" if case.symbols else "what is needed"


def requested_by(case: Case) -> str:
    """Return the requester of the first missing version or symbol."""
    lacks: tuple[MissingVersion | MissingSymbol, ...] = (*case.versions[:1], *case.symbols[:1])
    return lacks[0].requested_by if lacks else case.subject or ""


def _loaded_first(pair: ShadowedCopy, case: Case) -> Finding:
    event = case.load_of(pair.used)
    process = case.run.process
    preloaded = process.loader_environment.get("LD_PRELOAD", "") if process is not None else ""
    is_preloaded = any(posixpath.basename(pair.used) == posixpath.basename(one) for one in _PRELOADS.split(preloaded))
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
        Remedy(f"bring the packages to one version of {pair.need}, from one source (all conda, or all pip)")
    )
    why = (
        f"A process has one image of a name: {pair.used}{case.owner_of(pair.used)} was in it already; {who}. "
        f"{pair.other}{case.owner_of(pair.other)} has what is needed, and would have been taken in a fresh process, "
        "which is why ldd shows nothing wrong."
    )
    title = f"another {pair.need} was loaded first, and lacks {describe_missing(case)}"
    return _about_the_copy(CODE, title, why, tuple(remedies), pair, case)


def _library_path(pair: ShadowedCopy, case: Case) -> Finding:
    process = case.run.process
    value = process.loader_environment.get("LD_LIBRARY_PATH", "") if process is not None else ""
    # An element that is empty, as before or after a colon too many, stands for the current folder: ld.so(8).
    here = "" if "/" in pair.used or process is None else (
        " An empty element in it (a colon at an end, or two in a row) means the current folder, "
        f"{process.current_folder}."
    )
    why = (
        f"LD_LIBRARY_PATH is {value!r}, so {pair.used}{case.owner_of(pair.used)} was taken. Without it the loader "
        f"takes {pair.other}{case.owner_of(pair.other)}, which has it.{here}"
    )
    title = f"LD_LIBRARY_PATH leads to a {pair.need} that lacks {describe_missing(case)}"
    without = without_variable(case, "LD_LIBRARY_PATH")
    remedy = Remedy("start the program without it, or without that folder in it", without)
    return _about_the_copy(PATH_CODE, title, why, (remedy,), pair, case)


def _about_the_copy(
    code: str, title: str, why: str, remedies: tuple[Remedy, ...], pair: ShadowedCopy, case: Case
) -> Finding:
    """Return the finding about a copy that was taken and lacks something; `why` says how it came to be taken."""
    requester = requested_by(case)
    return Finding(
        code=code, title=title, confidence=Confidence.CERTAIN, subject=pair.used,
        chain=case.chain_to(requester, f"{pair.need} (in use: {pair.used})"),
        explanation=f"{requester}{case.owner_of(requester)} needs {describe_missing(case)} of {pair.need}. {why}",
        evidence=(
            Evidence(Source.LOADER, f"{pair.used} lacks {describe_missing(case)}"),
            Evidence(Source.FILES, f"{pair.other} has it"),
        ),
        remedies=remedies,
    )  # fmt: skip
