"""Builds the case of a failed import on Linux for the rules: the trace, the exception, the files, the machine."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import replace

from ..diagnose.case import Case, Change, Copy, ShadowedCopy
from ..diagnose.loader_errors import DlProblem
from ..diagnose.named_failure import loaded_libraries_named
from ..diagnose.program_output import OutputMessage
from ..host.copies import find_copies, find_definers, find_speaker
from ..host.machine import read_distribution
from ..model.environment import SEARCHED
from ..model.events import FailureKind
from ..model.failure import ProcessFacts
from ..model.run import RunResult
from ..model.tree import BindingState, LoadTree
from .environment import (
    find_choice_of,
    find_foreign_modules,
    find_namesake_of,
    find_traces_of_module,
    judge_copies,
    name_owners,
    read_limits,
    with_packages,
)
from .failed_load import read_linux_failure, with_dl_error
from .linux_process import LinuxProcess
from .search_leads import find_leads

_RUNTIME = re.compile(r"/(?:lib(?:c|m|dl|pthread|stdc\+\+|gcc_s|c\+\+(?:abi)?|python[\d.]*)|ld-[\w.-]+)\.so[^/]*$")
"""Images that write what others have brought about: "terminate called after throwing" is in libstdc++."""


def build_linux_case(
    what: str, run: RunResult, notes: tuple[str, ...] = (), messages: tuple[OutputMessage, ...] = ()
) -> Case:
    """Return the case of a failure on Linux; arguments as of `build_case`."""
    assert run.process is not None
    failed = read_linux_failure(run, messages)
    subject, dl_error = failed.subject, failed.dl_error
    view = LinuxProcess(run.process, run.recording)
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


def build_interpreter_case(what: str, run: RunResult, path: str, messages: tuple[OutputMessage, ...]) -> Case:
    """Return the case of a program whose loader ended it before it began, by its files.

    Arguments: `path`, of the program, from the root; the others as of `build_case`.
    """
    assert run.process is not None
    home = posixpath.dirname(posixpath.dirname(path))
    process = replace(run.process, executable=path, prefix=home, base_prefix=home, loaded=())
    run = replace(run, process=process, recording=None, errors=())
    view = LinuxProcess(process)
    tree, problem = view.resolve_program(path)
    images = view.read_images(tree)
    symbols, versions = view.find_missing(tree, images)
    dl_error = read_linux_failure(run, messages).dl_error
    if dl_error is not None:
        symbols, versions = with_dl_error(symbols, versions, dl_error)
    case = Case(
        what=what, system=process.system, run=run, subject=path, tree=tree, images=images, symbols=symbols,
        versions=versions, dl_error=dl_error, distribution=read_distribution(), is_program=True,
        damaged={path: problem} if problem is not None else {},
    )  # fmt: skip
    return _with_environment(case, process, view)


def _with_environment(case: Case, process: ProcessFacts, view: LinuxProcess) -> Case:
    """The case, with what the machine has around it."""
    shadowed = _find_shadowed(case, view)
    copies = _find_copies(case, process, view)
    damaged = {**case.damaged, **view.damage_of(_suspects(case)), **_programs_not_started(case, process, view)}
    foreign = find_foreign_modules(case.error, process)
    namesake = find_namesake_of(case.run.errors, process)
    modules = [module.path for module in foreign]
    modules += [f"{namesake.path}/__init__.py"] if namesake is not None and namesake.is_plain_folder else []
    asked = (*damaged, *_paths_in_question(case, shadowed), *modules)
    owners = name_owners(tuple(dict.fromkeys(asked)), process)
    case = replace(case, shadowed=shadowed, copies=copies, owners=owners, damaged=damaged)
    case = replace(
        case,
        limits=read_limits(case.subject, process),
        foreign_modules=foreign,
        namesake=namesake,
        choice=find_choice_of(case.error, process),
        module_traces=find_traces_of_module(case.error, process),
        leads=find_leads(case, process),
        definers=_find_definers(case, view),
        speaker=_find_speaker(case),
    )
    return with_packages(replace(case, notes=(*case.notes, *view.notes)))


_NOT_STARTED = re.compile(r"\[Errno (?:2|8)\] [^:]+: '([^']*/[^']*)'$")
"""Messages of OSError about ENOENT and ENOEXEC; a name without a slash was searched for in PATH."""


def _programs_not_started(case: Case, process: ProcessFacts, view: LinuxProcess) -> dict[str, str]:
    """The program that the kernel refused to start, and why."""
    error = case.error
    found = _NOT_STARTED.match(error.message) if error is not None and "OSError" in error.bases else None
    if error is None or found is None or not any(frame.file.endswith("/subprocess.py") for frame in error.frames):
        return {}
    path = posixpath.normpath(posixpath.join(process.current_folder, found[1]))
    problem = view.why_not_started(path)
    return {path: problem} if problem is not None else {}


def _find_copies(case: Case, process: ProcessFacts, view: LinuxProcess) -> Mapping[str, tuple[Copy, ...]]:
    """Files of the names that were not found, and of the libraries that lack something."""
    missing = {binding.need for binding in case.tree.missing} if case.tree is not None else set()
    missing |= {event.need or event.path for event in case.failed_events if event.kind is not FailureKind.DROPPED}
    suppliers = _suppliers_of(case)
    if case.error is not None and case.dl_error is None:
        missing |= {event.need or event.path for event in loaded_libraries_named(case.error, case.run.recording)}
    bare = {name.rpartition("/")[2] for name in missing}
    names = sorted(bare | set(suppliers))
    used = {view.real_path(path) for path in suppliers.values()}
    searched = [event.path for event in case.failed_events if event.kind is FailureKind.NAME_NOT_FOUND]
    copies: dict[str, tuple[Copy, ...]] = {
        name: tuple(Copy(path, SEARCHED) for path in view.search_libraries(name))
        for name in searched
    }
    for name, found in find_copies(names, process).items():
        others = [copy for copy in found if view.real_path(copy.path) not in used]
        copies[name] = copies.get(name, ()) + judge_copies(
            others, view, lambda path: view.provides_missing(path, case) if suppliers else None
        )
    return copies


def _find_definers(case: Case, view: LinuxProcess) -> tuple[str, ...]:
    """The libraries that define what is missing, where no copy of a library in use does."""
    dl_error = case.dl_error
    if dl_error is None or dl_error.problem is not DlProblem.MISSING_SYMBOL or not case.symbols or case.tree is None:
        return ()
    if case.symbols[0].library or any(copy.has_what_lacks for found in case.copies.values() for copy in found):
        return ()
    inside = {view.real_path(path) for path in (*case.tree.images, case.symbols[0].requested_by)}
    folders = [posixpath.dirname(path) for path in (case.symbols[0].requested_by, *case.tree.images)]

    def fits(path: str) -> bool:
        return (
            view.real_path(path) not in inside
            and view.incompatibility(path) is None
            and view.provides_missing(path, case)
        )

    return find_definers(case.symbols[0].name, folders, view.cached_libraries(), fits=fits)


def _find_speaker(case: Case) -> str | None:
    """Return the image that wrote the output of a program which ended itself."""
    recording = case.run.recording
    if case.error is not None or recording is None or not case.output_lines or (case.run.status or 0) >= 0:
        return None
    paths = dict.fromkeys(event.path for event in recording.loads)
    return find_speaker(case.output_lines, [path for path in paths if not _RUNTIME.search(path)])


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
    for one in shadowed[:1]:
        paths += [one.used, one.other]
    paths += [case.run.crash.image if case.run.crash is not None else None, case.run.initialising]
    if case.error is not None and case.dl_error is None and case.last_top is not None and case.last_top.imports:
        paths.append(case.last_top.path)  # its own code may have raised the exception
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


def _find_shadowed(case: Case, view: LinuxProcess) -> tuple[ShadowedCopy, ...]:
    """Return the copies that the load would use if nothing had been loaded before, or without LD_LIBRARY_PATH."""
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
