"""`dlltracer why`: try an import in a child, and say why it fails."""

from __future__ import annotations

import os
import sys
import tempfile

import click

from ..capture.select import BACKEND_NAMES, check_backend_name
from ..errors import TraceStartError
from ..model.finding import Diagnosis, Outcome
from .child import UNTRACED, Ending, run_child
from .ending import EXIT_USAGE, say_error
from .output import open_target, write_styled
from .program import Program, ProgramKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .output import Target

_IMPORT_FILE = """\
import importlib.util, sys
spec = importlib.util.spec_from_file_location(sys.argv[1], sys.argv[2])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""
_LOAD_FILE = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"


@click.command("why", short_help="Say why an import fails.")
@click.argument("module", required=False)
@click.option("-c", "code", metavar="CODE", help="Run this code instead of importing a module.")
@click.option("--json", "as_json", is_flag=True, help="JSON, with all evidence.")
@click.option("-o", "--output", metavar="FILE", help="Write the verdict to FILE instead of stdout.")
@click.option("--python", metavar="PATH", help="The interpreter to try it with (Python 3.10 or later).")
@click.option(
    "--backend", metavar="NAME", default="auto", show_default=True, help=f"The mechanism: {', '.join(BACKEND_NAMES)}."
)
def why(
    module: str | None, code: str | None, as_json: bool, output: str | None, python: str | None, backend: str
) -> None:
    """Import MODULE in a process of its own, and say why it fails: which file, needed by whom, looked for where.

    MODULE may be the name of a module, a script (*.py), or the file of an extension module or a shared library.

    Exit status: 0 it works, 1 a cause was found, 4 it fails and the evidence does not decide, 3 it could not be traced,
    2 the question was wrong.
    """
    if (module is None) is (code is None):
        raise click.UsageError("say what to import: a MODULE, a file, or -c CODE")
    check_backend_name(backend)
    what, program = _choose(module, code)
    target = open_target(output or "-")
    try:
        with tempfile.TemporaryFile() as said:
            ending = _try(program, backend, python, said.fileno())
            if ending.refusal is not None:
                say_error(ending.refusal)
                raise click.exceptions.Exit(Outcome.NOT_TRACED.value)
            text = _read_tail(said.fileno())
        diagnosis = _explain(what, ending, text)
        _write(diagnosis, target, as_json)
    finally:
        target.discard()
    raise click.exceptions.Exit(diagnosis.outcome.value)


def explain_code(what: str, code: str, python: str | None) -> Diagnosis:
    """Run code in a process of its own, traced as well as it can be here, and say why it fails."""
    with tempfile.TemporaryFile() as said:
        ending = _try(Program(ProgramKind.CODE, code), "auto", python, said.fileno())
        text = _read_tail(said.fileno())
    return _explain(what, ending, text)


def _choose(module: str | None, code: str | None) -> tuple[str, Program]:
    """The question in words, and the program that asks it."""
    if module is None:
        return "the code", Program(ProgramKind.CODE, code or "")
    if not os.path.exists(module) or not (os.sep in module or os.path.splitext(module)[1]):
        return f"import {module}", Program(ProgramKind.CODE, f"import {module}")
    if module.endswith((".py", ".pyc")) or os.path.isdir(module):
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
        return path.endswith((".so", ".pyd"))


def _try(program: Program, backend: str, python: str | None, said: int) -> Ending:
    if sys.platform == "win32" and backend == "auto":
        return _try_debugged(program, python, said)
    ending = run_child(program, backend, python=python, said=said, watch_crash=True)
    if ending.refusal is None or backend != "auto":
        return ending
    # No mechanism works here. What the exception and the files say is worth having all the same; it is noted.
    return run_child(program, UNTRACED, python=python, said=said, watch_crash=True)


def _try_debugged(program: Program, python: str | None, said: int) -> Ending:
    """On Windows: as its debugger, which needs no privilege and sees crashes; without any trace if that cannot be."""
    from .debugged import run_debugged_child

    try:
        return run_debugged_child(program, python=python, said=said)
    except TraceStartError:
        return run_child(program, UNTRACED, python=python, said=said, watch_crash=True)


def _read_tail(said: int) -> str:
    size = os.fstat(said).st_size
    start = max(0, size - 8192)
    os.lseek(said, start, os.SEEK_SET)
    lines = os.read(said, 8192).decode("utf-8", "replace").splitlines()
    return "\n".join(lines)


def _explain(what: str, ending: Ending, said: str) -> Diagnosis:
    from ..api.explain import Death, explain_ending

    if not ending.begun:
        raise click.exceptions.Exit(say_error(said.splitlines()[-1] if said else f"{what} could not begin"))
    hidden = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    death = Death(ending.crash, ending.crash_note, ending.initialising, hidden, ending.added_folders)
    return explain_ending(what, ending.status, ending.recording, ending.failure, said, death, ending.requests)


def _write(diagnosis: Diagnosis, target: Target, as_json: bool) -> None:
    try:
        if as_json:
            from ..report.verdict_json import render_verdict_json

            target.write(render_verdict_json(diagnosis))
        else:
            from ..report.render_verdict import render_verdict

            write_styled(target, lambda plain: render_verdict(diagnosis, ascii_only=plain))
    except OSError as error:
        say_error(f"the verdict could not be written: {error.strerror or error}")
        raise click.exceptions.Exit(EXIT_USAGE) from error
