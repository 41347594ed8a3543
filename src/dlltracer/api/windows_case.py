"""Builds the case of a failed import on Windows for the rules: the exception with its code, the trace, the files."""

from __future__ import annotations

import functools
import ntpath
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..capture.requests import is_own_load
from ..diagnose.case import Case, Copy
from ..diagnose.program_output import OutputMessage
from ..diagnose.rules.own_words import mkl_libraries
from ..diagnose.rules.win_copies import CONDA, OTHER_VERSION
from ..diagnose.rules.win_lookups import libraries_asked_for_a_function
from ..diagnose.windows_load import is_in
from ..errors import BinaryFormatError
from ..host.copies import FoundCopy, find_copies, find_other_versions
from ..host.failure import reload_code, this_process
from ..host.filesystem import WindowsFiles
from ..host.machine import is_folder, this_system
from ..knowledge import system_names
from ..model.failure import Crash, ProcessFacts, System
from ..model.loader_context import (
    CTYPES_NAME_SEARCH,
    EXTENSION_MODULE_SEARCH,
    STANDARD_SEARCH,
    FileKind,
    LoadFlags,
    WindowsContext,
)
from ..model.pe import MACHINE_I386, MissingForwarder, PeImage
from ..model.run import RunResult
from ..model.tree import BindingState, LoadTree, MissingSymbol
from ..resolve.lookup import describe_machine, fits_machine
from ..resolve.windows import find_missing_imports, resolve_windows
from .environment import (
    ProcessView,
    find_choice_of,
    find_foreign_modules,
    find_traces_of_module,
    judge_copies,
    name_owners,
    with_packages,
)
from .failed_load import WindowsFailure, failed_requests, loaded_before, nearest_error, read_windows_failure


class WindowsProcess(ProcessView[PeImage, MissingForwarder]):
    """A process of Windows."""

    def __init__(self, process: ProcessFacts) -> None:
        self._process = process
        self._files = WindowsFiles(symbols=True, resources=True)
        self._context: WindowsContext | None = None
        self._is_here = this_system() is System.WINDOWS

    @property
    def notes(self) -> tuple[str, ...]:
        return () if self._is_here else ("this machine is not Windows: its files were not looked at",)

    def resolve(self, subject: str, flags: LoadFlags | None = None) -> tuple[LoadTree | None, str | None]:
        """Return the load of `subject` (a file, or a bare name that is searched for), or the reason why it is no image.

        Argument: `flags` of the call; `None` for those that `import` and ctypes give.
        """
        if not self._is_here:
            return None, None
        problem = self.damage(subject) if self._files.kind(subject) is FileKind.FILE else None
        if problem is not None:
            return None, problem
        if flags is None:
            flags = EXTENSION_MODULE_SEARCH if ntpath.dirname(subject) else CTYPES_NAME_SEARCH
        # Whatever the process has by that very path is the one in question: it came before the load was over.
        here = ntpath.normcase(subject)
        context = self._read_context()
        loaded = tuple(path for path in context.loaded if ntpath.normcase(path) != here)
        return resolve_windows(subject, replace(context, flags=flags, loaded=loaded), self._files), None

    def resolve_program(self, path: str) -> tuple[LoadTree | None, str | None]:
        """Return the load that starts a program, or the reason why its file is no image.

        A program's imports are searched for in the standard order, its own folder first ("Dynamic-link library search
        order", MS Learn); nothing that Python or a package added to the search of this process counts.
        """
        if not self._is_here:
            return None, None
        problem = self.damage(path)
        if problem is not None:
            return None, problem
        image = self._files.read_image(path)
        context = self._read_context()
        if image.machine == MACHINE_I386 != context.machine:  # "File System Redirector", MS Learn
            context = replace(context, system_folder=ntpath.join(context.windows_folder, "SysWOW64"))
        context = replace(
            context, machine=image.machine, application_folder=ntpath.dirname(path), flags=STANDARD_SEARCH,
            added_folders=(), dll_directory=None, loaded=(), redirection=None,
            assemblies=image.resources.assemblies if image.resources is not None else (),
        )  # fmt: skip
        return resolve_windows(path, context, self._files), None

    def damage(self, path: str) -> str | None:
        """Return what is wrong with a file as an image; `None` if it is an image, for whatever machine."""
        try:
            self._files.read_image(path)
        except BinaryFormatError as error:
            return error.problem
        except OSError as error:
            return f"it cannot be read ({error.strerror or error})"
        return None

    def read_images(self, tree: LoadTree | None) -> dict[str, PeImage]:
        """The images of the tree and those the process had, with symbols and resources, as far as they can be read."""
        paths = dict.fromkeys((*(tree.images if tree is not None else ()), *self._process.loaded))
        found = {path: self.read_image(path) for path in paths}
        return {path: image for path, image in found.items() if image is not None}

    def read_image(self, path: str) -> PeImage | None:
        """The image there; `None` if there is none."""
        try:
            return self._files.read_image(path) if self._is_here else None
        except (BinaryFormatError, OSError):
            return None

    def find_missing(
        self, tree: LoadTree | None, images: Mapping[str, PeImage]
    ) -> tuple[tuple[MissingSymbol, ...], tuple[MissingForwarder, ...]]:
        """The symbols and forwarders of the load that lead nowhere."""
        lacking = find_missing_imports(tree.bindings, images) if tree is not None else ()
        symbols = tuple(item for item in lacking if isinstance(item, MissingSymbol))
        return symbols, tuple(item for item in lacking if isinstance(item, MissingForwarder))

    def incompatibility(self, path: str) -> str | None:
        """Return why an image could not be loaded into the process at all; `None` if nothing speaks against it."""
        problem = self.damage(path)
        if problem is not None:
            return problem
        image, machine = self._files.read_image(path), self._read_context().machine
        return None if fits_machine(image, machine) else f"it is for {describe_machine(image.machine)}"

    def _read_context(self) -> WindowsContext:
        if self._context is None:
            from ..host.windows import read_windows_context

            process = self._process
            self._context = replace(
                read_windows_context(added_folders=process.added_folders),
                dll_directory=process.dll_directory,
                application_folder=ntpath.dirname(process.loaded[0]) if process.loaded else process.base_prefix,
                current_folder=process.current_folder or None,
                path=tuple(part.strip('"') for part in process.variable("PATH").split(";") if part),
                loaded=process.loaded,
            )
        return self._context


_MOST_COPIES = 40
_MOST_NAMED = 5
_MOST_RELOADS = 12
_INIT_FAILED = (1114, 998)
NOT_STARTED = frozenset(
    {0xC0000135, 0xC0000138, 0xC0000139, 0xC000007B, 0xC0000142, 0xC0000022, 0xC0150002, 0xC0000428,
     0xC0000361, 0xC0E90002}
)
"""Statuses with which Windows' loader ends a process before its first instruction (ntstatus.h)."""


def build_windows_case(
    what: str, run: RunResult, notes: tuple[str, ...] = (), messages: tuple[OutputMessage, ...] = ()
) -> Case:
    """Return the case of a failure on Windows; arguments as of `build_case`."""
    assert run.process is not None
    process = run.process
    error = nearest_error(run.errors, process.suffixes)
    # Describing the failure made requests of ours in the same process.
    requests = tuple(one for one in run.requests if not is_own_load(one))
    failed = read_windows_failure(error, process, requests)
    if not run.errors:  # it died before it could tell
        process = replace(process, loaded=loaded_before(run.recording, failed.subject))
    folders, others = _folders_at(run, failed.clock)
    if run.folder_changes:
        process = replace(process, added_folders=folders)
    view = WindowsProcess(process)
    program = _program_not_started(run)
    if program is not None:
        failed = WindowsFailure(program, run.status)
        tree, problem = view.resolve_program(program)
    else:
        tree, problem = view.resolve(failed.subject, failed.flags) if failed.subject is not None else (None, None)
        tree = _with_delayed_need(tree, run.crash, view)
    images = view.read_images(tree)
    symbols, forwarders = view.find_missing(tree, images)
    if failed.code in _INIT_FAILED:
        run = replace(run, initialising=_failing_initialiser(tree, process))
    named = (*mkl_libraries(messages), *libraries_asked_for_a_function(error, run.requests))
    case = Case(
        what=what, system=process.system, run=replace(run, process=process), error=error, subject=failed.subject,
        tree=tree, images=images, symbols=symbols, forwarders=forwarders,
        copies=_find_copies(tree, symbols, process, view, [folder for folder, _ in others], named),
        owners=name_owners(_files_of_interest(failed.subject, tree, images), process),
        damaged={failed.subject: problem} if failed.subject is not None and problem is not None else {},
        notes=(*notes, *view.notes, *_notes_on_requests(run, failed.subject)),
        foreign_modules=find_foreign_modules(error, process),
        choice=find_choice_of(error, process),
        module_traces=find_traces_of_module(error, process), code=failed.code,
        code_is_guess=failed.is_guess, imports=failed.imports, windows_own=_names_of_windows(tree, named),
        is_program=program is not None, load_flags=failed.flags, other_folders=others,
    )  # fmt: skip
    return with_packages(case)


def _folders_at(run: RunResult, clock: int | None) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The folders of os.add_dll_directory that were in force at a load, and those that were not, each with why not.

    `clock`: of the load; `None` for the end of the program.
    """
    in_force: list[str] = []
    others: dict[str, str] = {}
    for change in run.folder_changes:
        is_before = clock is None or change.clock <= clock
        if change.is_added and is_before:
            in_force.append(change.folder)
        elif change.is_added:
            others.setdefault(change.folder, "it was added after that load had failed")
        elif is_before and change.folder in in_force:
            in_force.remove(change.folder)
            others[change.folder] = "it was added, and taken back before the load: the handle was closed"
    return tuple(in_force), tuple((folder, why) for folder, why in others.items() if folder not in in_force)


def build_program_case(path: str, status: int | None = None) -> Case:
    """Return the case of a program by its files, without starting it. `status`: of an attempt to start it, if known.

    LoadLibrary of a program proves nothing: it neither looks for the DLLs that the program imports nor runs it
    ("LoadLibraryExW", MS Learn).
    """
    process = this_process()
    view = WindowsProcess(process)
    tree, problem = view.resolve_program(path)
    images = view.read_images(tree)
    symbols, forwarders = view.find_missing(tree, images)
    case = Case(
        what=f"starting {ntpath.basename(path)}", system=process.system, run=RunResult(process=process), subject=path,
        tree=tree, images=images, symbols=symbols, forwarders=forwarders,
        copies=_find_copies(tree, symbols, process, view),
        owners=name_owners(_files_of_interest(path, tree, images), process),
        damaged={path: problem} if problem is not None else {},
        notes=(*view.notes, *((_NOT_RUN,) if status is None else ())),
        windows_own=_names_of_windows(tree), is_program=True, code=status,
    )  # fmt: skip
    return with_packages(case)


_NOT_RUN = "the program was not started: this rests on its files"


def _program_not_started(run: RunResult) -> str | None:
    """Return the path of the program whose start Windows' loader refused; `None` if the program had begun."""
    if run.status not in NOT_STARTED or run.errors or run.crash is not None or run.requests or run.recording is None:
        return None
    # The first event of a debugger is the program itself.
    first = next(iter(run.recording.loads), None)
    return None if first is None else first.shown_path


def _with_delayed_need(tree: LoadTree | None, crash: Crash | None, view: WindowsProcess) -> LoadTree | None:
    """Return the tree with the delayed need that ended the process: not every linker lists it in the image."""
    if crash is None or crash.wanted is None:
        return tree
    known = [one for one in (tree.bindings if tree is not None else ()) if one.delayed]
    if any(one.need.lower() == crash.wanted.lower() for one in known):
        return tree
    # The helper calls LoadLibraryEx(name, 0, 0): see resolve.windows.
    found, _ = view.resolve(crash.wanted, STANDARD_SEARCH)
    if found is None:
        return tree
    top = next((one for one in found.bindings if not one.requested_by), None)
    if top is None:
        return tree
    need = replace(top, requested_by=crash.wanted_by or "", delayed=True)
    return replace(tree, bindings=(*tree.bindings, need)) if tree is not None else replace(found, bindings=(need,))


def _notes_on_requests(run: RunResult, subject: str | None) -> tuple[str, ...]:
    others = [target for target in failed_requests(run.requests) if target != subject]
    if not others:
        return ()
    more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
    return (f"ctypes {'also ' if subject else ''}could not load {', '.join(others[:_MOST_NAMED])}{more}",)


def _find_copies(
    tree: LoadTree | None,
    symbols: Iterable[MissingSymbol],
    process: ProcessFacts,
    view: WindowsProcess,
    former_folders: Iterable[str] = (),
    more: Iterable[str] = (),
) -> dict[str, tuple[Copy, ...]]:
    """Copies of what was not found or not taken, and of libraries that lack something: whether those have it, too.

    `more`: names of other libraries that the failure is about.
    """
    lacking: dict[str, list[MissingSymbol]] = {}
    for symbol in symbols:
        if symbol.library is not None:
            lacking.setdefault(ntpath.basename(symbol.library).lower(), []).append(symbol)
    bindings = tree.bindings if tree is not None else ()
    wanted = {ntpath.basename(binding.need).lower(): binding.need for binding in bindings if binding.state in _UNMET}
    used = {ntpath.normcase(binding.path) for binding in bindings if binding.path is not None}
    former = [(folder, "a folder that the program had added") for folder in former_folders]
    others_named = {ntpath.basename(name).lower() for name in more}
    found = find_copies(sorted({*wanted, *lacking, *others_named}), process, former)
    copies = {}
    for name, files in found.items():
        others = [
            replace(file, where=_where(file, process))
            for file in files[:_MOST_COPIES] if ntpath.normcase(file.path) not in used
        ]  # fmt: skip
        copies[name] = judge_copies(others, view, functools.partial(_has_all, view, lacking.get(name)))
    for name in [name for name in wanted if name not in copies][:_MOST_NAMED]:
        versions = [Copy(one.path, one.where, OTHER_VERSION) for one in find_other_versions(name, process)]
        if versions and name not in system_names():
            copies[name] = tuple(versions)
    return copies


_UNMET = (BindingState.MISSING, BindingState.REFUSED)


def _where(file: FoundCopy, process: ProcessFacts) -> str:
    """The kind of place; a Python installation that has a conda-meta is a conda environment.

    A virtual environment that was made from the Python of one (`base_prefix`) has no conda-meta of its own.
    """
    for prefix in (process.prefix, process.base_prefix):
        if is_in(file.path, prefix) and is_folder(prefix, "conda-meta"):
            return CONDA
    return file.where


def _names_of_windows(tree: LoadTree | None, more: Iterable[str] = ()) -> frozenset[str]:
    """The names asked for, and `more`, in lower case, that are files of Windows itself."""
    needs = [*more, *(binding.need for binding in (tree.bindings if tree is not None else ()))]
    return frozenset(ntpath.basename(need).lower() for need in needs) & system_names()


def _failing_initialiser(tree: LoadTree | None, process: ProcessFacts) -> str | None:
    """Return the image whose initialisation failed by itself: all that it needs was initialised."""
    own = [path for path in (tree.images if tree is not None else ()) if not _is_of_windows(path)]
    for path in own[::-1][:_MOST_RELOADS]:  # depth first, so what an image needs comes after it
        code = reload_code(process.executable, path, EXTENSION_MODULE_SEARCH, process.added_folders)
        if code in _INIT_FAILED:
            return path
    return None


def _has_all(view: WindowsProcess, symbols: list[MissingSymbol] | None, path: str) -> bool | None:
    """Return whether a file exports all that the copy in use lacks."""
    if symbols is None:
        return None
    image = view.read_image(path)
    if image is None or image.exports is None:
        return None
    names = {export.name for export in image.exports}
    ordinals = {export.ordinal for export in image.exports}
    return all((symbol.name in names) if symbol.name else (symbol.ordinal in ordinals) for symbol in symbols)


def _files_of_interest(subject: str | None, tree: LoadTree | None, images: Mapping[str, PeImage]) -> tuple[str, ...]:
    """The files of which a verdict may have to say whose they are: those of the load, not Windows' own."""
    of_tree = [path for path in (tree.images if tree is not None else ()) if not _is_of_windows(path)]
    runtimes = [path for path in images if ntpath.basename(path).lower().startswith(("msvcp140", "vcruntime140"))]
    bound = [binding.path for binding in (tree.bindings if tree is not None else ()) if binding.path is not None]
    shared = [path for path in bound if not _is_of_windows(path)]
    return tuple(dict.fromkeys(path for path in (subject, *of_tree, *shared, *runtimes) if path))[:_MOST_COPIES]


def _is_of_windows(path: str) -> bool:
    return ntpath.basename(ntpath.dirname(path)).lower() in ("system32", "syswow64")
