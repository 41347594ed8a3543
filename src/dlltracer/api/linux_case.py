"""Everything about a failed import on Linux, for the rules: the trace, the exception, the files, the machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..diagnose.case import Case
from ..diagnose.environment import Change, Copy, ShadowedCopy
from ..diagnose.program_output import OutputMessage
from ..host.copies import find_copies
from ..host.machine import read_distribution
from ..model.events import FailureKind
from ..model.failure import ProcessFacts
from ..model.run import RunResult
from ..model.tree import BindingState, LoadTree
from .environment import check_packages, find_foreign_modules, find_traces_of_module, name_owners, read_limits
from .linux_failure import read_linux_failure, with_dl_error
from .process import ProcessView
from .search_leads import find_leads


def build_linux_case(
    what: str, run: RunResult, notes: tuple[str, ...] = (), messages: tuple[OutputMessage, ...] = ()
) -> Case:
    """Return the case of a failure on Linux; arguments as of `build_case`."""
    assert run.process is not None
    failed = read_linux_failure(run, messages)
    subject, dl_error = failed.subject, failed.dl_error
    view = ProcessView(run.process, run.recording)
    tree, problem = view.resolve(subject) if subject is not None else (None, None)
    images = view.read_images(tree)
    symbols, versions = view.find_missing(tree, images)
    if dl_error is not None:
        symbols, versions = with_dl_error(symbols, versions, dl_error)
    case = Case(
        what=what, system=run.process.system, run=run, error=failed.error, subject=subject, tree=tree, images=images,
        symbols=symbols, versions=versions, notes=notes, dl_error=dl_error, named=failed.named,
        failures=failed.failures, distribution=read_distribution(),
        damaged={subject: problem} if subject is not None and problem is not None else {},
    )  # fmt: skip
    return _with_environment(case, run.process, view)


def _with_environment(case: Case, process: ProcessFacts, view: ProcessView) -> Case:
    """The case, with what the machine has around it."""
    shadowed = _find_shadowed(case, view)
    copies = _find_copies(case, process, view)
    damaged = {**case.damaged, **view.damage_of(_suspects(case))}
    owners = name_owners(tuple(dict.fromkeys((*damaged, *_paths_in_question(case, shadowed)))), process)
    case = replace(case, shadowed=shadowed, copies=copies, owners=owners, damaged=damaged)
    case = replace(
        case,
        limits=read_limits(case.subject, process),
        foreign_modules=find_foreign_modules(case.error, process),
        module_traces=find_traces_of_module(case.error, process),
        checks=check_packages(case),
        leads=find_leads(case, process),
    )
    return replace(case, notes=(*case.notes, *view.notes))


def _find_copies(case: Case, process: ProcessFacts, view: ProcessView) -> Mapping[str, tuple[Copy, ...]]:
    """Files of the names that were not found, and of the libraries that lack something."""
    missing = {binding.need for binding in case.tree.missing} if case.tree is not None else set()
    missing |= {event.need or event.path for event in case.failed_events if event.kind is not FailureKind.DROPPED}
    suppliers = _suppliers_of(case)
    bare = {name.rpartition("/")[2] for name in missing}
    names = sorted(bare | set(suppliers))
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


def _suppliers_of(case: Case) -> dict[str, str]:
    """Names of the libraries that should have what is missing first of all, to the copies in use.

    With a symbol that has no version, that can be any library that the image in need of it asks for.
    """
    if case.versions:
        version = case.versions[0]
        return {version.library: version.provider}
    if not case.symbols or case.tree is None:
        return {}
    symbol = case.symbols[0]
    bound = {
        binding.need: binding.path
        for binding in case.tree.bindings
        if binding.requested_by == symbol.requested_by and binding.state is BindingState.BOUND and binding.path
    }
    return {need: path for need, path in bound.items() if symbol.library in (None, need)}


def _find_shadowed(case: Case, view: ProcessView) -> tuple[ShadowedCopy, ...]:
    """What the load would have used if nothing had been loaded before, or without LD_LIBRARY_PATH."""
    if case.tree is None or case.subject is None or case.is_windows or not (case.symbols or case.versions):
        return ()
    used = {binding.need: binding for binding in case.tree.bindings if binding.state is BindingState.BOUND}
    shadowed = []
    for change in Change:
        tree = view.resolve_otherwise(case.subject, change)
        for need, other in _bound(tree).items():
            binding = used.get(need)
            if binding is None or binding.path is None or view.is_same(binding.path, other):
                continue
            if case.versions and need != case.versions[0].library:
                continue
            if view.provides_missing(other, case) and not view.provides_missing(binding.path, case):
                shadowed.append(ShadowedCopy(change, need, binding.path, binding.phase, other))
    return tuple(shadowed)


def _bound(tree: LoadTree | None) -> dict[str, str]:
    return {
        binding.need: binding.path
        for binding in (tree.bindings if tree is not None else ())
        if binding.state is BindingState.BOUND and binding.path
    }
