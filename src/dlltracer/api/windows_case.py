"""Everything about a failed import on Windows, for the rules: the exception with its code, the trace, the files."""

from __future__ import annotations

import ntpath
from dataclasses import replace
from pathlib import Path

from ..diagnose.case import Case
from ..diagnose.environment import Copy
from ..host.copies import FoundCopy, find_copies
from ..host.reload import reload_code
from ..model.tree import BindingState
from ..model.windows_context import EXTENSION_MODULE_SEARCH
from ..resolve.knowledge import system_names
from .environment import check_packages, find_foreign_modules, find_traces_of_module, name_owners
from .windows_failure import loaded_before, native_error, read_windows_failure
from .windows_process import WindowsProcess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..model.failure import ProcessFacts
    from ..model.pe import PeImage
    from ..model.run import RunResult
    from ..model.symbols import MissingSymbol
    from ..model.tree import LoadTree

_MOST_COPIES = 40
_MOST_RELOADS = 12
_INIT_FAILED = (1114, 998)


def build_windows_case(what: str, run: RunResult, notes: tuple[str, ...] = ()) -> Case:
    """Return the case of a failure on Windows; arguments as of `build_case`."""
    assert run.process is not None
    # Of an exception that is no ImportError and no OSError the outermost says most; it must not be lost.
    error = native_error(run.errors) or (run.errors[0] if run.errors else None)
    process = run.process
    failed = read_windows_failure(error, process, run.requests)
    if not run.errors:  # it died before it could tell
        process = replace(process, loaded=loaded_before(run.recording, failed.subject))
    view = WindowsProcess(process)
    tree, problem = view.resolve(failed.subject) if failed.subject is not None else (None, None)
    images = view.read_images(tree)
    symbols, forwarders = view.find_missing(tree, images)
    if failed.code in _INIT_FAILED:
        run = replace(run, initialising=_failing_initialiser(tree, process))
    case = Case(
        what=what, system=process.system, run=replace(run, process=process), error=error, subject=failed.subject,
        tree=tree, images=images, symbols=symbols, forwarders=forwarders,
        copies=_find_copies(tree, symbols, process, view),
        owners=name_owners(_files_of_interest(failed.subject, tree, images), process),
        damaged={failed.subject: problem} if failed.subject is not None and problem is not None else {},
        notes=(*notes, *view.notes), foreign_modules=find_foreign_modules(error, process),
        module_traces=find_traces_of_module(error, process), code=failed.code,
        code_is_guess=failed.is_guess, imports=failed.imports, windows_own=_names_of_windows(tree),
    )  # fmt: skip
    return replace(case, checks=check_packages(case))


def _find_copies(
    tree: LoadTree | None,
    symbols: Iterable[MissingSymbol],
    process: ProcessFacts,
    view: WindowsProcess,
) -> dict[str, tuple[Copy, ...]]:
    """Copies of what was not found or not taken, and of libraries that lack something: whether those have it, too."""
    lacking: dict[str, list[MissingSymbol]] = {}
    for symbol in symbols:
        if symbol.library is not None:
            lacking.setdefault(ntpath.basename(symbol.library).lower(), []).append(symbol)
    bindings = tree.bindings if tree is not None else ()
    wanted = {ntpath.basename(binding.need).lower(): binding.need for binding in bindings if binding.state in _UNMET}
    used = {ntpath.normcase(binding.path) for binding in bindings if binding.path is not None}
    found = find_copies(sorted({*wanted, *lacking}), process)
    copies = {}
    for name, files in found.items():
        others = [file for file in files[:_MOST_COPIES] if ntpath.normcase(file.path) not in used]
        copies[name] = tuple(
            Copy(
                file.path, _where(file, process), view.incompatibility(file.path),
                _has_all(view, file.path, lacking.get(name)),
            )
            for file in others
        )
    return copies


_UNMET = (BindingState.MISSING, BindingState.REFUSED)


def _where(file: FoundCopy, process: ProcessFacts) -> str:
    """The kind of place; a Python installation that has a conda-meta is a conda environment."""
    prefix = process.prefix
    is_inside = ntpath.normcase(file.path).startswith(ntpath.normcase(prefix) + "\\")
    return "the conda environment" if is_inside and Path(prefix, "conda-meta").is_dir() else file.where


def _names_of_windows(tree: LoadTree | None) -> frozenset[str]:
    """The names asked for, in lower case, that are files of Windows itself."""
    needs = {ntpath.basename(binding.need).lower() for binding in (tree.bindings if tree is not None else ())}
    return frozenset(needs & system_names())


def _failing_initialiser(tree: LoadTree | None, process: ProcessFacts) -> str | None:
    """Of the images of a load whose initialisation failed: the one that fails alone, and all that it needs does not."""
    own = [path for path in (tree.images if tree is not None else ()) if not _is_of_windows(path)]
    for path in own[::-1][:_MOST_RELOADS]:  # depth first, so what an image needs comes after it
        code = reload_code(process.executable, path, EXTENSION_MODULE_SEARCH, process.added_folders)
        if code in _INIT_FAILED:
            return path
    return None


def _has_all(view: WindowsProcess, path: str, symbols: list[MissingSymbol] | None) -> bool | None:
    """Whether a file exports all that the copy in use lacks."""
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
