"""`dlltracer why`: try an import in a child, and say why it fails."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from typing import NoReturn

import click

from ..api.saving import RunFacts
from ..capture.select import BACKEND_NAMES, check_backend_name
from ..errors import TraceStartError
from ..host.tracefile import looks_like_recording
from ..model.finding import Diagnosis, Outcome
from ..model.tracefile import ENDING
from .child import UNTRACED, Ending, run_child
from .ending import EXIT_USAGE, say_error
from .output import open_target, write_styled
from .program import Program, ProgramKind
from .record import TraceRecorder, command_of, own_redactor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..api.explain import Explained
    from ..model.saved import SavedTrace
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
@click.option(
    "-o", "--output", metavar="FILE",
    help="Write the verdict to FILE instead of stdout; FILE.dlltrace: save the recording there as well.",
)  # fmt: skip
@click.option("--python", metavar="PATH", help="The interpreter to try it with (Python 3.10 or later).")
@click.option(
    "--backend", metavar="NAME", default="auto", show_default=True, help=f"The mechanism: {', '.join(BACKEND_NAMES)}."
)
@click.option("--redact", is_flag=True, help="Leave out names of users and of this machine, and secrets.")
def why(
    module: str | None, code: str | None, as_json: bool, output: str | None, python: str | None, backend: str,
    redact: bool,
) -> None:  # fmt: skip
    """Import MODULE in a process of its own, and say why it fails: which file, needed by whom, looked for where.

    MODULE may be the name of a module, a script (*.py), or the file of an extension module or a shared library; or a
    recording (*.dlltrace), made here or on another machine, which is explained without running anything.

    Exit status: 0 it works, 1 a cause was found, 4 it fails and the evidence does not decide, 3 it could not be traced,
    2 the question was wrong.
    """
    if (module is None) is (code is None):
        raise click.UsageError("say what to import: a MODULE, a file, or -c CODE")
    check_backend_name(backend)
    if module is not None and is_saved(module):
        if python is not None or (output or "").lower().endswith(ENDING):
            raise click.UsageError("a recording is explained as it is: leave out --python and -o FILE.dlltrace")
        _answer(_explain_file(module, redact), output or "-", as_json)
    what, program = _choose(module, code)
    if output is not None and output.lower().endswith(ENDING):
        recorder = TraceRecorder(output, RunFacts(what, command_of(program, python)), backend, redact=redact)
        try:
            _answer(_record(what, program, python, backend, recorder), "-", as_json)
        finally:
            recorder.close()
    target = open_target(output or "-")
    try:
        diagnosis = _try_and_explain(what, program, python, backend)[1].diagnosis
        _write(own_redactor().redact(diagnosis) if redact else diagnosis, target, as_json)
    finally:
        target.discard()
    raise click.exceptions.Exit(diagnosis.outcome.value)


def _answer(diagnosis: Diagnosis, output: str, as_json: bool) -> NoReturn:
    """Write the verdict, and end with its status."""
    target = open_target(output)
    try:
        _write(diagnosis, target, as_json)
    finally:
        target.discard()
    raise click.exceptions.Exit(diagnosis.outcome.value)


def _try_and_explain(what: str, program: Program, python: str | None, backend: str) -> tuple[Ending, Explained]:
    """Run the program, and say why it fails."""
    with tempfile.TemporaryFile() as said:
        ending = _try(program, backend, python, said.fileno())
        if ending.refusal is not None:
            say_error(ending.refusal)
            raise click.exceptions.Exit(Outcome.NOT_TRACED.value)
        text = _read_tail(said.fileno())
    return ending, _explain(what, ending, text)


def _record(what: str, program: Program, python: str | None, backend: str, recorder: TraceRecorder) -> Diagnosis:
    """The same, and save it; the verdict as it was saved."""
    try:
        ending, explained = _try_and_explain(what, program, python, backend)
    except click.exceptions.Exit:  # it was not traced, or did not begin
        recorder.discard()
        raise
    trace = recorder.finish(ending, explained)
    assert trace.diagnosis is not None
    return trace.diagnosis


def is_saved(name: str) -> bool:
    """Whether that is a recording to be explained, not a module to be tried."""
    return os.path.isfile(name) and (name.lower().endswith((ENDING, ".etl")) or looks_like_recording(name))


def _explain_file(file: str, redact: bool) -> Diagnosis:
    """The verdict on a recording, with where it is from."""
    from ..api.explain_saved import explain_saved
    from ..report.origin import describe_origin
    from .show import open_recording

    trace: SavedTrace = open_recording(file)
    if redact:
        from ..report.redact import redact as without_names

        trace = without_names(trace)
    diagnosis = explain_saved(trace)
    notes = trace.recording.notes[-1:] if redact else ()
    return replace(diagnosis, notes=(*describe_origin(trace), *trace.problems, *diagnosis.notes, *notes))


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


def _explain(what: str, ending: Ending, said: str) -> Explained:
    from ..api.explain import Death, explain_with_case

    if not ending.begun:
        raise click.exceptions.Exit(say_error(said.splitlines()[-1] if said else f"{what} could not begin"))
    hidden = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    death = Death(ending.crash, ending.crash_note, ending.initialising, hidden, ending.added_folders)
    return explain_with_case(what, ending.status, ending.recording, ending.failure, said, death, ending.requests)


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
