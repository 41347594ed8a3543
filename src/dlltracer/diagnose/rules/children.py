"""A process that the program started could not load something, or died; the program only says that it failed."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from ...model.failure import Frame
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ..case import Case
from ..loader_errors import DlError, DlProblem
from ..program_output import OutputKind, OutputMessage, child_failure

LIBRARY_PATH_CODE = "child-inherits-library-path"
LOAD_CODE = "child-cannot-load"
CRASH_CODE = "crash-in-child"

_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_IMPORT = re.compile(r"^(?:import|from)\s+([\w.]+)")
_OF_POOLS = re.compile(r"[/\\](?:multiprocessing|concurrent[/\\]futures)[/\\]\w+\.py$")


def check(case: Case) -> Iterator[Finding]:
    """Yield what a child process says, where the program failed with an exception or went on."""
    message = child_failure(case.messages)
    if message is None or case.run.stopped is not None or not case.run.errors or case.dl_error is not None:
        return
    if message.kind is OutputKind.LOADER and message.dl_error is not None:
        yield _cannot_load(case, message, message.dl_error)
    elif message.kind is OutputKind.CRASH:
        yield _crash(case, message)


def _cannot_load(case: Case, message: OutputMessage, dl_error: DlError) -> Finding:
    program = message.program or "a program"
    file = dl_error.library or dl_error.provider or program
    copies = tuple(case.child_copies.values())
    folder = posixpath.dirname(copies[0] if copies else file)
    is_elsewhere = dl_error.problem in _OF_ANOTHER_COPY and bool(folder) and not folder.startswith(_SYSTEM)
    own = case.run.process.variable("LD_LIBRARY_PATH").split(":") if case.run.process is not None else []
    is_ours = (bool(folder) and folder in own) or bool(copies)
    what = _describe(dl_error, file)
    remedies = (
        [Remedy(
            "start it without that variable: subprocess.run(..., env={k: v for k, v in os.environ.items() if k != "
            "'LD_LIBRARY_PATH'}); what a bundle (PyInstaller) saved as LD_LIBRARY_PATH_ORIG is the user's own value"
        )]
        if is_elsewhere else [Remedy(f"install what {program} needs, or start it with the environment it needs")]
    )  # fmt: skip
    because = (
        f" {program} took {', '.join(map(posixpath.basename, copies or (file,)))} from {folder}, where "
        "programs of the system do not look by themselves: "
        + ("LD_LIBRARY_PATH has that folder, and " if is_ours else "most likely LD_LIBRARY_PATH, which ")
        + "was handed on to it."
        if is_elsewhere
        else ""
    )
    return Finding(
        code=LIBRARY_PATH_CODE if is_elsewhere else LOAD_CODE,
        title=f"{program}, which it started, could not start: {what}",
        confidence=Confidence.CERTAIN if is_ours or not is_elsewhere else Confidence.LIKELY,
        subject=file,
        chain=(*case.chain_to(None), program, file, *copies[:1]),
        explanation=f"The program itself loaded all that it wanted. The loader of {program} ended that process."
        + because,
        evidence=(Evidence(Source.PROGRAM, message.lines[0]),
                  *((Evidence(Source.SYSTEM, f"LD_LIBRARY_PATH has {folder}"),) if is_ours else ())),
        remedies=tuple(remedies),
    )  # fmt: skip


_OF_ANOTHER_COPY = (DlProblem.MISSING_VERSION, DlProblem.MISSING_SYMBOL, DlProblem.WRONG_CLASS)
"""What a library of the right name from the wrong place gives."""


def _describe(dl_error: DlError, file: str) -> str:
    if dl_error.problem is DlProblem.MISSING_VERSION:
        return f"{file} lacks the version {dl_error.version} that {dl_error.required_by} requires"
    if dl_error.problem is DlProblem.MISSING_SYMBOL:
        return f"{file} needs the symbol {dl_error.symbol}, and nothing provides it"
    if dl_error.problem is DlProblem.MISSING:
        return f"{file} was not found"
    return f"{file}: {dl_error.problem.value}"


def _crash(case: Case, message: OutputMessage) -> Finding:
    """A worker of a pool: Python's faulthandler wrote where it was."""
    line = next((frame for frame in reversed(message.frames) if _is_programs(frame)), None)
    module = _imported(case, line)
    file = case.module_files.get(module) if module is not None else None
    doing = f"while it ran import {module}" if module else "at " + _place(line) if line else "where is not known"
    signal = _SIGNALS.get(message.lines[0].partition(": ")[2].strip(), message.lines[0].partition(": ")[2].strip())
    subject = file or module or "a child process"
    return Finding(
        code=CRASH_CODE,
        title=f"a process that it started died ({signal}), {doing}",
        confidence=Confidence.LIKELY,
        subject=subject,
        chain=tuple(filter(None, (case.what, _place(line) if line else None, f"import {module}" if module else None,
                                  file))),
        explanation="The exception only says that a child process is gone. Its last words name the line that ran."
        + (f" Its code is in {file}." if file else ""),
        evidence=(Evidence(Source.PROGRAM, f"{message.lines[0]}{f', at {_place(line)}' if line else ''}"),),
        remedies=(Remedy(
            "see it alone, with the place of the crash", ("dlltracer", "why", module) if module else ()
        ),),
    )  # fmt: skip


_SIGNALS = {
    "Segmentation fault": "SIGSEGV", "Aborted": "SIGABRT", "Bus error": "SIGBUS", "Illegal instruction": "SIGILL",
    "Floating point exception": "SIGFPE", "Floating-point exception": "SIGFPE",
}  # fmt: skip
"""Python/faulthandler.c of CPython: the names that it gives to signals."""


def _is_programs(frame: Frame) -> bool:
    return not frame.file.startswith("<frozen ") and not _OF_POOLS.search(frame.file)


def _imported(case: Case, line: Frame | None) -> str | None:
    found = _IMPORT.match(line.source) if line is not None and line.source else None
    return found[1] if found is not None else None


def _place(line: Frame) -> str:
    return f"{line.file}:{line.line}{f': {line.source}' if line.source else ''}"
