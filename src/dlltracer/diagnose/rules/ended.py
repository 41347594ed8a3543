"""The program did not fail with an exception: it ended itself before its end, or had not ended when it was stopped."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...model.finding import Confidence, Evidence, Finding, Remedy, Source
from ...model.run import StopReason
from ..case import Case
from ..program_output import OutputKind

INITIALISER_CODE = "exit-in-initialiser"
EARLY_CODE = "exit-in-import"
HANG_CODE = "import-hangs"
SANITIZER_CODE = "sanitizer-not-first"

_SANITIZER_LIBRARY = re.compile(r"/lib(?:asan|tsan|ubsan|lsan|hwasan|clang_rt\.\w+)[^/]*\.so[^/]*$")


def check(case: Case) -> Iterator[Finding]:
    """Yield what ended the program, or what it was at."""
    if case.run.stopped is not None:
        yield _hang(case)
    elif case.run.status is not None and case.run.status >= 0 and not case.run.completed and not case.run.errors:
        sanitizer = list(_sanitizer(case))
        yield from sanitizer
        if not sanitizer and case.run.completed is False and case.dl_error is None and not _was_python_killed(case):
            yield _exit(case)


def _was_python_killed(case: Case) -> bool:
    """Whether the status is one that Windows gives to a process that died: that is a crash."""
    return bool((case.run.status or 0) >> 31)


def _sanitizer(case: Case) -> Iterator[Finding]:
    """A sanitizer's runtime ends the process when it is not the first library in it."""
    said = [message for message in case.messages if message.kind is OutputKind.SANITIZER]
    if not said:
        return
    loads = case.run.recording.loads if case.run.recording is not None else ()
    runtime = next((event.path for event in loads if _SANITIZER_LIBRARY.search(event.path)), None)
    last = case.last_top
    subject = last.path if last is not None and last.path != runtime else runtime or case.what
    is_order = any("come first" in line for message in said for line in message.lines)
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
        evidence=tuple(Evidence(Source.PROGRAM, line) for message in said[:2] for line in message.lines[:2]),
        remedies=tuple(remedies),
    )


def _exit(case: Case) -> Finding:
    """exit(3) or _exit(2) was called, in native code or by os._exit: no exception, no signal."""
    running = case.run.initialising
    last = case.last_top
    # With no import in progress at the last load, that load says nothing about the end.
    loaded = last.path if last is not None and last.imports else None
    subject = running or case.what
    is_import = case.what.startswith(("import ", "importing ", "loading "))  # a script may mean to leave so
    status = case.run.status
    where = "while its initialiser ran" if running else "and had not reached its end"
    importing = f"import {last.imports[-1]}" if last is not None and last.imports else case.what
    title = (
        f"the process ended itself with status {status} {where}: {subject}" if running
        else f"the process ended itself with status {status}, {where}; the last load was for {importing}" if loaded
        else f"{case.what} ended itself with status {status}, {where}"
    )  # fmt: skip
    return Finding(
        code=INITIALISER_CODE if running else EARLY_CODE,
        title=title,
        confidence=Confidence.LIKELY if running or is_import else Confidence.POSSIBLE,
        subject=subject,
        chain=case.chain_to(None, running or loaded or "") if running or loaded else (),
        explanation=(
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
        ),
        remedies=_remedies_of_exit(case),
    )  # fmt: skip


def _remedies_of_exit(case: Case) -> tuple[Remedy, ...]:
    said = "do what it said" if case.said else "find the call"
    return (Remedy(f"{said}; a debugger shows who ends it: a breakpoint on exit and _exit"),)


def _hang(case: Case) -> Finding:
    """It was stopped by us; where it was."""
    run = case.run
    seconds = f"{run.seconds:.0f} seconds" if run.seconds is not None else "some time"
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
    how = "was interrupted" if run.stopped is StopReason.INTERRUPTED else "had not finished"
    return Finding(
        code=HANG_CODE,
        title=f"it {how} after {seconds}, and was still running: {at}",
        confidence=Confidence.LIKELY if run.initialising or importing or line is not None else Confidence.POSSIBLE,
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
