"""Everything about a failed import, together for the rules: the trace, the exception, the files, the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..diagnose.case import Case
from ..diagnose.environment import Copy, ShadowedCopy
from ..diagnose.loader_errors import DlError, DlProblem, classify_dlerror, loader_messages
from ..diagnose.program_output import OutputKind, OutputMessage, modules_in_crashes
from ..diagnose.relevance import failures_behind, top_of
from ..host.copies import find_copies
from ..host.machine import read_distribution
from ..host.messages import read_loader_translations
from ..model.events import FailureKind, LoadFailedEvent
from ..model.failure import ProcessFacts, PythonError, System
from ..model.run import RunResult
from ..model.symbols import MissingSymbol, MissingVersion
from .environment import check_packages, find_foreign_modules, name_owners, read_limits
from .process import ProcessView
from .shadowed import find_shadowed, suppliers_of

Symbols = tuple[MissingSymbol, ...]
Versions = tuple[MissingVersion, ...]


def build_case(
    what: str, run: RunResult, notes: tuple[str, ...] = (), messages: tuple[OutputMessage, ...] = ()
) -> Case:
    """Read all that the rules need. What cannot be read is in the notes of the case.

    Arguments:
        what: what was tried, in words ("import x").
        run: what came of it; its `process` must be known.
        notes: what a reader must know besides.
        messages: what loaders, runtimes and Python wrote, in the output of the run.
    """
    assert run.process is not None
    if run.process.system is System.WINDOWS:
        from .windows_case import build_windows_case

        error = native_error(run.errors) or (run.errors[0] if run.errors else None)
        return replace(build_windows_case(what, run, error, notes), messages=messages)
    error, dl_error = loader_error(run.errors)
    if not run.errors and not run.completed:
        dl_error = _loaders_last_word(run, messages)
    failures = failures_behind(run.recording, error, dl_error)
    subject = find_subject(error, dl_error, failures, run)
    view = ProcessView(run.process, run.recording)
    tree, problem = view.resolve(subject) if subject is not None else (None, None)
    images = view.read_images(tree)
    symbols, versions = view.find_missing(tree, images)
    if dl_error is not None:
        symbols, versions = with_dl_error(symbols, versions, dl_error)
    case = Case(
        what=what, system=run.process.system, run=run, error=error, subject=subject, tree=tree, images=images,
        symbols=symbols, versions=versions, notes=notes, dl_error=dl_error, failures=failures,
        damaged={subject: problem} if subject is not None and problem is not None else {},
        distribution=read_distribution(), messages=messages, module_files=_module_files(run, messages),
    )  # fmt: skip
    return _with_environment(case, run.process, view)


_LOADER_STATUS = 127
"""With which ld.so ends a process, at its start or at a symbol that it binds late (elf/rtld.c, elf/dl-error.c)."""


def _loaders_last_word(run: RunResult, messages: tuple[OutputMessage, ...]) -> DlError | None:
    """What the loader of the process said when it ended it: at a symbol that is bound at its first call."""
    if run.status != _LOADER_STATUS:
        return None
    said = [message.dl_error for message in messages if message.kind is OutputKind.LOADER]
    return said[-1] if said else None


def _module_files(run: RunResult, messages: tuple[OutputMessage, ...]) -> dict[str, str]:
    """The extension modules that child processes were importing when they died, as the import path has them."""
    if run.process is None:
        return {}
    found = {}
    for name in modules_in_crashes(messages):
        *packages, stem = name.split(".")
        names = [stem + suffix for suffix in run.process.suffixes]
        files = (Path(folder, *packages, name) for folder in run.process.path for name in names)
        file = next((file for file in files if file.is_file()), None)
        if file is not None:
            found[name] = str(file)
    return found


def _with_environment(case: Case, process: ProcessFacts, view: ProcessView) -> Case:
    """The case, with what the machine has around it."""
    shadowed = find_shadowed(case, view)
    copies = _find_copies(case, process, view)
    damaged = {**case.damaged, **view.damage_of(_suspects(case))}
    owners = name_owners(tuple(dict.fromkeys((*damaged, *_paths_in_question(case, shadowed)))), process)
    case = replace(case, shadowed=shadowed, copies=copies, owners=owners, damaged=damaged)
    case = replace(
        case,
        limits=read_limits(case.subject, process),
        foreign_modules=find_foreign_modules(case.error, process),
        checks=check_packages(case),
    )
    return replace(case, notes=(*case.notes, *view.notes))


def native_error(errors: tuple[PythonError, ...]) -> PythonError | None:
    """The exception nearest to a loader: the innermost that an import or a load raised."""
    for error in reversed(errors):
        if "ImportError" in error.bases and "ModuleNotFoundError" not in error.bases:
            return error
    for error in reversed(errors):
        if {"ImportError", "OSError"} & set(error.bases):
            return error
    return None


def loader_error(errors: tuple[PythonError, ...]) -> tuple[PythonError | None, DlError | None]:
    """The exception with a message of a loader of Linux, and the message; else the one nearest to a loader.

    Of several that pass on the same message the innermost, which knows most. Of several messages the outermost: what
    came before it was handled.
    """
    translations = read_loader_translations(loader_messages()) if errors else {}
    classified = [(error, classify_dlerror(error.message, translations)) for error in errors]
    known = [(error, said) for error, said in classified if said.problem is not DlProblem.UNDECIDED]
    if known:
        same = [(error, said) for error, said in known if _is_same(said, known[0][1])]
        return same[-1]
    if errors and "ModuleNotFoundError" in errors[0].bases:
        return errors[0], None
    for bases in ({"ImportError"}, {"OSError"}):
        for error in reversed(errors):
            if bases & set(error.bases):
                return error, None
    return (errors[0] if errors else None), None


def _is_same(said: DlError, other: DlError) -> bool:
    """Whether two messages are of one failure, in other words around it."""
    names = [(one.library or "").rpartition("/")[2] for one in (said, other)]
    return (said.problem, said.symbol, said.version, names[0]) == (other.problem, other.symbol, other.version, names[1])


def find_subject(
    error: PythonError | None,
    dl_error: DlError | None,
    failures: tuple[LoadFailedEvent, ...],
    run: RunResult,
) -> str | None:
    """The image whose load failed: what the exception names, else what the trace saw fail, else the loader's words."""
    suffixes = run.process.suffixes if run.process is not None else (".so",)
    if error is not None and error.path is not None and error.path.endswith(suffixes):
        return error.path
    top = top_of(failures)
    if top is not None and (dl_error is not None or error is None):
        return top
    if dl_error is not None:
        return dl_error.required_by or dl_error.library
    return run.initialising


def with_dl_error(symbols: Symbols, versions: Versions, dl_error: DlError) -> tuple[Symbols, Versions]:
    """What the loader said is missing comes first, and is there even if the files do not show it."""
    if dl_error.problem is DlProblem.MISSING_SYMBOL and dl_error.symbol:
        known = [item for item in symbols if item.name == dl_error.symbol]
        others = [item for item in symbols if item.name != dl_error.symbol]
        said = MissingSymbol(dl_error.symbol, dl_error.version, dl_error.library or "", dl_error.provider)
        return (*(known or [said]), *others), versions
    if dl_error.problem is DlProblem.MISSING_VERSION and dl_error.version:
        same = [
            item for item in versions if item.version == dl_error.version and item.requested_by == dl_error.required_by
        ]
        rest = [item for item in versions if item not in same]
        provider = dl_error.library or ""
        said_version = MissingVersion(
            dl_error.version, provider.rpartition("/")[2], provider, dl_error.required_by or ""
        )  # fmt: skip
        return symbols, (*(same or [said_version]), *rest)
    return symbols, versions


def _find_copies(case: Case, process: ProcessFacts, view: ProcessView) -> Mapping[str, tuple[Copy, ...]]:
    """Files of the names that were not found, and of the libraries that lack something."""
    missing = {binding.need for binding in case.tree.missing} if case.tree is not None else set()
    missing |= {event.need or event.path for event in case.failed_events if event.kind is not FailureKind.DROPPED}
    suppliers = suppliers_of(case)
    names = sorted({name.rpartition("/")[2] for name in missing} | set(suppliers))
    used = {view.real_path(path) for path in suppliers.values()}
    copies: dict[str, tuple[Copy, ...]] = {}
    for name, found in find_copies(names, process).items():
        fit = [copy for copy in found if view.real_path(copy.path) not in used]
        copies[name] = tuple(
            Copy(
                copy.path, copy.where, view.incompatibility(copy.path),
                view.provides_missing(copy.path, case) if suppliers else None,
            )
            for copy in fit
        )
    return copies


def _suspects(case: Case) -> tuple[str, ...]:
    """Files that the crash or the failed load came upon, which may be damaged."""
    refused = [binding.path for binding in case.tree.bindings if binding.reason] if case.tree is not None else []
    crash = case.run.crash.image if case.run.crash is not None else None
    last = [event.path for event in case.run.recording.loads[-1:]] if case.run.recording is not None and crash else []
    return tuple(dict.fromkeys(path for path in (*refused, crash, case.run.initialising, *last) if path))


def _paths_in_question(case: Case, shadowed: tuple[ShadowedCopy, ...]) -> tuple[str, ...]:
    """The files whose packages a reader wants to know, the nearest to the trouble first."""
    paths = [case.subject]
    paths += [binding.requested_by for binding in case.tree.missing[:2]] if case.tree is not None else []
    paths += [symbol.requested_by for symbol in case.symbols[:1]]
    for version in case.versions[:1]:
        paths += [version.provider, version.requested_by]
    for rival in shadowed[:1]:
        paths += [rival.used, rival.other]
    paths += [case.run.crash.image if case.run.crash is not None else None, case.run.initialising]
    return tuple(dict.fromkeys(path for path in paths if path and "/" in path.replace("\\", "/")))
