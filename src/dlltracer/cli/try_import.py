"""Try an import in a child, traced as well as it can be here, and say why it fails."""

from __future__ import annotations

import os
import sys
import tempfile

import click

from ..errors import TraceStartError
from ..model.finding import Diagnosis, Outcome
from ..model.saved import RECORDING_SUFFIX
from .ending import say_error
from .program import Program, ProgramKind
from .spawn import UNTRACED, Ending, run_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..api.explain import Explained
    from ..model.failure import ProcessFacts

_IMPORT_FILE = """\
import importlib.util, sys
spec = importlib.util.spec_from_file_location(sys.argv[1], sys.argv[2])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""
_OF_FILES = (".py", ".pyc", ".pyd", ".dll", ".so", RECORDING_SUFFIX, ".etl")
"""Endings of what is meant as a file, also where there is none."""

_LOAD_FILE = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"


def explain_code(what: str, code: str, python: str | None) -> Diagnosis:
    """Run code in a process of its own, traced as well as it can be here, and say why it fails."""
    return try_and_explain(what, Program(ProgramKind.CODE, code), python, "auto")[1].diagnosis


def try_and_explain(what: str, program: Program, python: str | None, backend: str) -> tuple[Ending, Explained]:
    """Run the program, and say why it fails.

    Raises `click.exceptions.Exit` when it could not be traced by the mechanism asked for, or could not begin.
    """
    with tempfile.TemporaryFile() as said:
        ending = _try(program, backend, python, said.fileno())
        if ending.refusal is not None:
            say_error(ending.refusal)
            raise click.exceptions.Exit(Outcome.NOT_TRACED.exit_status)
        text = _read_tail(said.fileno())
        left_no_word = ending.status != 0 and ending.failure is None
        foreign = _ask_interpreter(python, said.fileno()) if left_no_word and python is not None else None
    return ending, _explain(what, ending, text, foreign)


def _ask_interpreter(python: str, said: int) -> ProcessFacts | None:
    """What another interpreter says of itself, when the program left no word: it crashed, or left at once."""
    return run_child(Program(ProgramKind.CODE, "pass"), UNTRACED, python=python, said=said).process


def choose_program(module: str | None, code: str | None) -> tuple[str, Program]:
    """The question in words, and the program that asks it. Raises `click.UsageError` when it is of a file that is not
    there."""
    if module is None:
        return "the code", Program(ProgramKind.CODE, code or "")
    has_folder = os.sep in module or bool(os.altsep and os.altsep in module)
    is_there = os.path.exists(module)
    if not is_there and (has_folder or module.lower().endswith(_OF_FILES)):
        raise click.UsageError(f"there is no file {module}")
    if not is_there or not (has_folder or os.path.splitext(module)[1]):
        return f"import {module}", Program(ProgramKind.CODE, f"import {module}")
    if module.lower().endswith((".py", ".pyc")) or os.path.isdir(module):
        return module, Program(ProgramKind.SCRIPT, module)
    path = os.path.abspath(module)
    name = os.path.basename(path).partition(".")[0]
    if _is_extension_module(path, name):
        return f"importing {module}", Program(ProgramKind.CODE, _IMPORT_FILE, (name, path))
    return f"loading {module}", Program(ProgramKind.CODE, _LOAD_FILE, (path,))


def _is_extension_module(path: str, name: str) -> bool:
    """Whether the file exports PyInit_NAME; a file that cannot be read is tried as one, so that Python says why."""
    from ..api.trees import provided_names
    from ..errors import BinaryFormatError

    try:
        return f"PyInit_{name}" in provided_names(path)
    except (BinaryFormatError, OSError):
        return path.lower().endswith((".so", ".pyd"))


def _try(program: Program, backend: str, python: str | None, said: int) -> Ending:
    if sys.platform == "win32" and backend in ("auto", "debugger"):
        return _try_debugged(program, backend, python, said)
    ending = run_child(program, backend, python=python, said=said, watch_crash=True)
    if ending.refusal is None or backend != "auto":
        return ending
    # No mechanism works here. What the exception and the files say is worth having all the same; it is noted.
    return run_child(program, UNTRACED, python=python, said=said, watch_crash=True)


def _try_debugged(program: Program, backend: str, python: str | None, said: int) -> Ending:
    """On Windows: as its debugger, which needs no privilege and sees crashes; without any trace if that cannot be."""
    from .run_debugged import run_debugged_child

    try:
        return run_debugged_child(program, python=python, said=said)
    except TraceStartError as error:
        if backend != "auto":
            return Ending(0, refusal=str(error))
        return run_child(program, UNTRACED, python=python, said=said, watch_crash=True)


def _read_tail(said: int) -> str:
    size = os.fstat(said).st_size
    start = max(0, size - 8192)
    os.lseek(said, start, os.SEEK_SET)
    lines = os.read(said, 8192).decode("utf-8", "replace").splitlines()
    return "\n".join(lines)


def _explain(what: str, ending: Ending, said: str, foreign: ProcessFacts | None) -> Explained:
    from ..api.explain import Death, explain_with_case

    if not ending.begun:
        raise click.exceptions.Exit(say_error(said.splitlines()[-1] if said else f"{what} could not begin"))
    hidden = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    death = Death(ending.crash, ending.crash_note, ending.initialising, hidden, ending.added_folders, foreign)
    return explain_with_case(what, ending.status, ending.recording, ending.failure, said, death, ending.requests)
