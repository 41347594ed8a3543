"""Builds the case of a failed import on macOS for the rules: dyld's words in the exception, and the files.

Nothing is traced there. dlltracer has not been run on a Mac yet.
"""

from __future__ import annotations

import posixpath

from ..diagnose.case import Case
from ..diagnose.dyld_messages import classify_dyld, is_of_dyld
from ..errors import DlltracerError
from ..host.machine import is_macos
from ..model.failure import ProcessFacts, PythonError
from ..model.run import RunResult
from ..model.tree import LoadTree
from .environment import find_choice_of, find_foreign_modules, find_traces_of_module, name_owners, with_packages
from .failed_load import nearest_error


def build_macos_case(what: str, run: RunResult, notes: tuple[str, ...] = ()) -> Case:
    """Return the case of a failure on macOS; arguments as of `build_case`.

    dyld names the file that was asked for, who needs what failed, and the library that should have had a symbol. The
    packages of these files are looked up. What else is missing is worked out from the files, on a Mac only: dyld stops
    at the first failure.
    """
    assert run.process is not None
    error = _error_of(run.errors, run.process)
    dyld = classify_dyld(error.message) if error is not None and is_of_dyld(error.message) else None
    paths = (dyld.asked, dyld.requested_by, dyld.library, dyld.expected_in) if dyld is not None else ()
    files = tuple(dict.fromkeys(path for path in paths if path is not None and path.startswith("/")))
    subject = (dyld.asked if dyld is not None else None) or (error.path if error is not None else None)
    tree, problem = _tree_of(subject, run.process)
    case = Case(
        what=what, system=run.process.system, run=run, error=error, subject=subject, tree=tree,
        symbols=tree.symbols if tree is not None else (), owners=name_owners(files, run.process),
        foreign_modules=find_foreign_modules(error, run.process),
        choice=find_choice_of(error, run.process),
        module_traces=find_traces_of_module(error, run.process),
        notes=(*notes, *((problem,) if problem else ()), *(tree.notes if tree is not None else ())),
    )  # fmt: skip
    return with_packages(case)


def _error_of(errors: tuple[PythonError, ...], process: ProcessFacts) -> PythonError | None:
    """Return the innermost exception with words of dyld, else the one that is nearest to a loader."""
    from_dyld = [error for error in errors if is_of_dyld(error.message)]
    return from_dyld[-1] if from_dyld else nearest_error(errors, process.suffixes)


def _tree_of(subject: str | None, process: ProcessFacts) -> tuple[LoadTree | None, str]:
    """Return what the file needs, by the rules of dyld, and why that is not known; files of a Mac are read on one."""
    if subject is None or not posixpath.isabs(subject) or not is_macos():
        return None, ""
    from .trees import load_tree

    try:
        return load_tree(subject, python=process.executable), ""
    except (DlltracerError, OSError) as error:
        return None, f"{subject} could not be read as an image: {error}"
