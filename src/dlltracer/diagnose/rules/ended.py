"""A program that ended without an exception: by itself, stopped, or because of a process that it started."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from ...model.events import FailureKind, LoadFailedEvent
from ...model.failure import Frame
from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.run import StopReason
from ..case import Case
from ..loader_errors import DlError, DlProblem
from ..program_output import IMPORT_LINE, OF_POOLS, OutputKind, OutputMessage, child_failure
from ..remedies import operand
from .own_words import fatal_message

INITIALISER_CODE = "exit-in-initialiser"
EARLY_CODE = "exit-in-import"
HANG_CODE = "import-hangs"
SANITIZER_CODE = "sanitizer-not-first"

_SANITIZER_LIBRARY = re.compile(r"/lib(?:asan|tsan|ubsan|lsan|hwasan|clang_rt\.\w+)[^/]*\.so[^/]*$")


def check_end(case: Case) -> Iterator[Finding]:
    """Yield how the program ended, or where it was when it was stopped."""
    if case.run.stopped is not None:
        yield _hang(case)
    elif case.run.status is not None and case.run.status >= 0 and not case.run.completed and not case.run.errors:
        sanitizer = list(_sanitizer(case))
        yield from sanitizer
        has_words = sanitizer or case.dl_error is not None or fatal_message(case) is not None
        if not has_words and case.run.completed is False and not _was_python_killed(case):
            yield _exit(case)


def _was_python_killed(case: Case) -> bool:
    """Return whether the status is that of a process that crashed on Windows."""
    return bool((case.run.status or 0) >> 31)


def _sanitizer(case: Case) -> Iterator[Finding]:
    """Yield the finding about a report of a sanitizer, whose runtime ended the process."""
    reports = [message for message in case.messages if message.kind is OutputKind.SANITIZER]
    if not reports:
        return
    loads = case.run.recording.loads if case.run.recording is not None else ()
    runtime = next((event.path for event in loads if _SANITIZER_LIBRARY.search(event.path)), None)
    last = case.last_top
    subject = last.path if last is not None and last.path != runtime else runtime or case.what
    is_order = any("come first" in line for message in reports for line in message.lines)
    remedies = [Remedy("use a build of it without the sanitizer: this one is for its developers")]
    if is_order and runtime is not None and case.what.startswith("import "):
        command = ("env", f"LD_PRELOAD={runtime}", "python", "-c", case.what)
        remedies.insert(0, Remedy("to run this build: load the runtime of the sanitizer first", command))
    yield Finding(
        code=SANITIZER_CODE,
        title=f"{subject} was built with a sanitizer, whose runtime ended the process",
        confidence=Confidence.CERTAIN if is_order else Confidence.LIKELY,
        subject=subject,
        chain=case.chain_to(None, subject, *([runtime] if runtime and runtime != subject else [])),
        explanation=(
            "It replaces malloc and more, so it has to be the first library in the process; Python was there before it."
            if is_order
            else "It found what it looks for, and ended the process; its report says what."
        ),
        evidence=tuple(Evidence(Source.PROGRAM, line) for message in reports[:2] for line in message.lines[:2]),
        remedies=tuple(remedies),
    )


def _exit(case: Case) -> Finding:
    """Return the finding about a program that called exit(3) or _exit(2): it left no exception and no signal."""
    running = case.run.initialising
    last = case.last_top
    # With no import in progress at the last load, that load says nothing about the end.
    loaded = last.path if last is not None and last.imports else None
    subject = running or case.what
    is_import = case.what.startswith(("import ", "importing ", "loading "))  # a script may mean to leave so
    status = case.run.status
    before = _failed_before(case)
    where = "while its initialiser ran" if running else "and had not reached its end"
    importing = f"import {last.imports[-1]}" if last is not None and last.imports else case.what
    title = (
        f"the process ended itself with status {status} {where}: {subject}" if running
        else f"the process ended itself with status {status}, {where}; the last load was for {importing}" if loaded
        else f"{case.what} ended itself with status {status}, {where}"
    )  # fmt: skip
    if before is not None:
        what = f"{before.need or before.path} could not be loaded"
        title = f"{what}, and then {'the initialiser of ' + running if running else 'something'} ended the process"
        title += f" with status {status}"
    return Finding(
        code=INITIALISER_CODE if running else EARLY_CODE,
        title=title,
        confidence=Confidence.LIKELY if running or is_import else Confidence.POSSIBLE,
        subject=subject,
        chain=case.chain_to(None, running or loaded or "") if running or loaded else (),
        explanation=_before_exit(before) if before is not None else (
            f"Everything was found. Code of {subject}{case.owner_of(subject)} ran, and called exit: no loader and no "
            "exception has a part in that."
            if running
            else "Something called exit, or os._exit: there is no exception and no signal. What it wrote before it did "
            "so is the best trace."
        ),
        evidence=(
            Evidence(Source.SYSTEM, f"the process ended with status {status} before its code had run to its end"),
            *((Evidence(Source.LOADER, f"the initialiser of {running} had begun, and did not end"),)
              if running else ()),
            *((Evidence(Source.LOADER, _before_exit(before)),) if before is not None else ()),
        ),
        remedies=_remedies_of_exit(case, before),
    )  # fmt: skip


def _failed_before(case: Case) -> LoadFailedEvent | None:
    """Return the load that failed last of all and that nothing came in after; `None` if there is none.

    A library that cannot do without a plug-in often tries to load it, writes a line of its own, and exits.
    """
    failed = [event for event in case.failed_events if event.kind in (FailureKind.DROPPED, FailureKind.NOT_FOUND)]
    return failed[-1] if failed else None


def _before_exit(event: LoadFailedEvent) -> str:
    name = event.need or event.path
    why = event.reason or ("it was not found" if event.kind is FailureKind.NOT_FOUND else "it was dropped again")
    by = f", for which {event.requested_by} had asked," if event.requested_by else ""
    return f"{name}{by} was the last that the loader could not load: {why}. The process then called exit."


def _remedies_of_exit(case: Case, before: LoadFailedEvent | None) -> tuple[Remedy, ...]:
    if before is not None and before.kind is FailureKind.DROPPED:
        return (Remedy("see what it lacks, and what provides that", ("dlltracer", "why", operand(before.path))),)
    first = "do what its output says" if case.output_lines else "find the call"
    return (Remedy(f"{first}; a debugger shows who ends it: a breakpoint on exit and _exit"),)


def _hang(case: Case) -> Finding:
    """Return the finding about a program that dlltracer stopped, with the place where it was."""
    run = case.run
    seconds = "some time"
    if run.seconds is not None:
        seconds = f"{run.seconds:.0f} second{'' if round(run.seconds) == 1 else 's'}"
    last = case.last_top
    importing = last.imports[-1] if last is not None and last.imports else None
    line = case.python_line
    subject = run.initialising or (last.path if last is not None and importing else None) or case.what
    at = (
        f"the initialiser of {run.initialising} was running" if run.initialising
        else f"Python was at {line.file}, line {line.line}" if line is not None
        else f"the last import was {importing}" if importing
        else "where it was is not known"
    )  # fmt: skip
    is_interrupted = run.stopped is StopReason.INTERRUPTED
    how = "was interrupted" if is_interrupted else "had not finished"
    # Whoever presses Ctrl-C knows why it ended, unless the program ended with an exception of its own meanwhile.
    is_known = is_interrupted and all(error.type == "KeyboardInterrupt" for error in run.errors[:1])
    return Finding(
        code=HANG_CODE,
        title=f"it {how} after {seconds}, and was still running: {at}",
        confidence=Confidence.LIKELY if run.initialising or importing or line is not None or is_known
        else Confidence.POSSIBLE,
        subject=subject,
        chain=case.chain_to(None, subject) if subject != case.what else (),
        explanation=(
            "An import that waits holds a lock, or waits for a device, a network, a licence server or a child process."
            + (f" The last image that came in is {last.path}." if last is not None and importing else "")
        ),
        evidence=(
            Evidence(Source.SYSTEM, f"the process was ended by dlltracer after {seconds}"),
            *((Evidence(Source.LOADER, f"the initialiser of {run.initialising} had begun, and did not end"),)
              if run.initialising else ()),
            *((Evidence(Source.PYTHON, f"the line that ran: {line.file}:{line.line}: {line.source or ''}"),)
              if line is not None else ()),
        ),
        remedies=(Remedy("see what it waits for: py-spy dump --native, strace -f -p, or a debugger, while it hangs"),),
    )  # fmt: skip


LIBRARY_PATH_CODE = "child-inherits-library-path"
LOAD_CODE = "child-cannot-load"
CRASH_CODE = "crash-in-child"

_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")


def check_children(case: Case) -> Iterator[Finding]:
    """Yield the failure of a child process, by its output, if the program failed with an exception or went on."""
    error = case.error
    if error is not None and case.dl_error is None and "OSError" in error.bases and "[Errno " in error.message:
        yield from (_not_started(path, problem, case) for path, problem in case.damaged.items())
    message = child_failure(case.messages)
    if message is None or case.run.stopped is not None or not case.run.errors or case.dl_error is not None:
        return
    if message.kind is OutputKind.LOADER and message.dl_error is not None:
        yield _cannot_load(case, message, message.dl_error)
    elif message.kind is OutputKind.CRASH:
        yield _crash(case, message)


def _not_started(path: str, problem: str, case: Case) -> Finding:
    """Return the finding about a program that the kernel refused to start: "No such file" may be its loader."""
    words = case.error.message if case.error is not None else ""
    return Finding(
        code=LOAD_CODE,
        title=f"{path}, which it started, could not start: {problem}",
        confidence=Confidence.CERTAIN,
        subject=path,
        chain=case.chain_to(None, path),
        explanation=f"The file is there. The kernel refused to start it, and says only: {words}.",
        evidence=(Evidence(Source.PYTHON, words), Evidence(Source.FILES, f"{path}: {problem}")),
        remedies=(
            Remedy("write its lines with LF ends", ("sed", "-i", r"s/\r$//", operand(path))) if "CR LF" in problem
            else Remedy(f"install a build of {posixpath.basename(path)} for this system"),
        ),
    )  # fmt: skip


def _cannot_load(case: Case, message: OutputMessage, dl_error: DlError) -> Finding:
    program = message.program or "a program"
    file = dl_error.library or dl_error.provider or program
    copies = tuple(case.child_copies.values())
    folder = posixpath.dirname(copies[0] if copies else file)
    is_elsewhere = dl_error.problem in _OF_ANOTHER_COPY and bool(folder) and not folder.startswith(_SYSTEM)
    own = case.run.process.variable("LD_LIBRARY_PATH").split(":") if case.run.process is not None else []
    is_ours = (bool(folder) and folder in own) or bool(copies)
    what = _describe(dl_error, file)
    if is_elsewhere and _is_preloaded(file, case):
        return _preloaded(case, message, program, file, what)
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


def _is_preloaded(file: str, case: Case) -> bool:
    """Return whether LD_PRELOAD names a file: in the environment of the program, or in a command of its exception."""
    inherited = case.run.process.variable("LD_PRELOAD") if case.run.process is not None else ""
    words = case.error.message if case.error is not None else ""
    return file in re.split(r"[:\s]+", inherited) or f"LD_PRELOAD={file}" in words


def _preloaded(case: Case, message: OutputMessage, program: str, file: str, what: str) -> Finding:
    return Finding(
        code=LOAD_CODE,
        title=f"{program}, which it started, could not start: {what}",
        confidence=Confidence.CERTAIN,
        subject=file,
        chain=(*case.chain_to(None), program, file),
        explanation=f"The program itself loaded all that it wanted. The loader of {program} ended that process: "
        f"LD_PRELOAD has it load {file}, which does not fit the libraries of this system.",
        evidence=(Evidence(Source.PROGRAM, message.lines[0]), Evidence(Source.SYSTEM, f"LD_PRELOAD names {file}")),
        remedies=(Remedy("start it without LD_PRELOAD, or preload a build for this system"),),
    )


_OF_ANOTHER_COPY = (DlProblem.MISSING_VERSION, DlProblem.MISSING_SYMBOL, DlProblem.WRONG_CLASS)
"""Errors that a library of the right name from a wrong place causes."""


def _describe(dl_error: DlError, file: str) -> str:
    if dl_error.problem is DlProblem.MISSING_VERSION:
        return f"{file} lacks the version {dl_error.version} that {dl_error.required_by} requires"
    if dl_error.problem is DlProblem.MISSING_SYMBOL:
        return f"{file} needs the symbol {dl_error.symbol}, and nothing provides it"
    if dl_error.problem is DlProblem.MISSING:
        return f"{file} was not found"
    return f"{file}: {dl_error.problem.value}"


def _crash(case: Case, message: OutputMessage) -> Finding:
    """Return the finding about a worker of a pool that crashed, by the report of Python's faulthandler."""
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
"""Names of signals in Python/faulthandler.c of CPython."""


def _is_programs(frame: Frame) -> bool:
    return not frame.file.startswith("<frozen ") and not OF_POOLS.search(frame.file)


def _imported(case: Case, line: Frame | None) -> str | None:
    found = IMPORT_LINE.match(line.source) if line is not None and line.source else None
    return found[1] if found is not None else None


def _place(line: Frame) -> str:
    return f"{line.file}:{line.line}{f': {line.source}' if line.source else ''}"
