"""Explains why an import failed: for the command line, and as `dlltracer.explain` for programs.

An import that worked needs no rules, and most do: what finds a cause is imported when there is a failure.
"""

from __future__ import annotations

from ..capture.choose import NOT_USED
from ..model.failure import ProcessFacts, System
from ..model.finding import Diagnosis, Outcome
from ..model.light import dataclass, replace
from ..model.recording import Recording
from ..model.run import RunResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..diagnose.case import Case
    from ..diagnose.program_output import OutputMessage


NOT_TRACED = "there was no trace: this rests on the exception and on the files"


class Explanation(Diagnosis):
    """A verdict that prints as people read it."""

    def __str__(self) -> str:
        """Return the short verdict: what failed, the fix, who needed it, where it was looked for."""
        from ..host.screen import screen_here
        from ..report.render_short import render_short_verdict

        return render_short_verdict(self, screen_here()).plain.rstrip("\n")

    def __repr__(self) -> str:
        codes = ", ".join(finding.code for finding in self.findings)
        return f"<{type(self).__name__} of {self.what}: {codes or self.outcome.value}>"


def explain(error: BaseException, recording: Recording | None = None) -> Explanation:
    """Say why an import failed. `print` shows the verdict.

    Arguments:
        error: the exception, ImportError or what a load by ctypes raised; its traceback is used.
        recording: of a `Trace` that was running; `None` for none: then the files decide, and the verdict is less sure.
    """
    diagnosis = _explain(_run_of(error, recording), error)
    return Explanation(*(getattr(diagnosis, name) for name in Diagnosis.__match_args__))


def explain_if_of_a_loader(error: BaseException, recording: Recording | None = None) -> Diagnosis | None:
    """The same for any exception that ended a program; `None` if no loader had a part in it."""
    run = _run_of(error, recording)
    return _explain(run, error) if is_loader_failure(run) else None


def import_error_in(error: BaseException | None) -> BaseException | None:
    """The first ImportError or OSError among the exception and those that it was raised from; `None` if there is none.

    Goes the way that a traceback shows: the cause, else the context unless `from None` hides it.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, (ImportError, OSError)):
            return error
        seen.add(id(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def _run_of(error: BaseException, recording: Recording | None) -> RunResult:
    from ..host.facts import describe_errors
    from ..host.failure import read_errors, this_process

    return RunResult(errors=read_errors(describe_errors(error)), process=this_process(), recording=recording)


def _explain(run: RunResult, error: BaseException) -> Diagnosis:

    what = _typed_import(run) or _imported_module(run)
    if what is None:
        name = getattr(error, "name", None)
        what = f"import {name}" if isinstance(name, str) and isinstance(error, ImportError) else "the load"
    return _judge(build_case(what, run, _notes_on(run))).diagnosis


_LONGEST_STATEMENT = 200


def _typed_import(run: RunResult) -> str | None:
    """Return the outermost import on the way to the failure, as it was typed; `None` if no line shows one.

    An import relative to a package is passed over: nobody types it to ask for the package.
    """
    for frame in (frame for error in run.errors for frame in error.frames):
        statement = _import_in(frame.source or "")
        if statement is not None:
            return statement
    return None


def _imported_module(run: RunResult) -> str | None:
    """Return the import of the outermost module that was being imported; `None` if no file of sys.path shows one.

    For code without lines: of `python -c` and of the prompt. CPython gives an ImportError of an extension module its
    name without the package (Python/importdl.c), so the file says more than the name.
    """
    folders = [folder or run.process.current_folder for folder in run.process.path] if run.process is not None else []
    # The first line of a traceback is the importer's: where the exception was caught, or the program itself.
    began = [frame.file for error in run.errors for frame in error.frames[1:] if frame.function == "<module>"]
    for file in (*began, *(error.path for error in run.errors if error.path and "ImportError" in error.bases)):
        for folder in sorted(filter(None, folders), key=len, reverse=True):
            if file.startswith((f"{folder}/", f"{folder}\\")):
                *packages, last = file[len(folder) + 1 :].replace("\\", "/").split("/")
                names = [*packages, last.partition(".")[0]]
                names = names[:-1] if names[-1] == "__init__" else names
                if names and all(name.isidentifier() for name in names):
                    return f"import {'.'.join(names)}"
                break
    return None


def _import_in(source: str) -> str | None:
    """Return the import statement of a line of Python; of one that goes on in the next line, its beginning."""
    import ast

    source = source.strip()
    if not source.startswith(("import ", "from ")) or source.startswith("from ."):
        return None
    try:
        node = ast.parse(source).body[0]
    except (SyntaxError, ValueError, IndexError, RecursionError, MemoryError):
        begin, bracket, _ = source.partition("(")
        return f"{begin.strip()} ..." if bracket and len(begin) < _LONGEST_STATEMENT else None
    text = ast.unparse(node)
    return text if isinstance(node, ast.Import | ast.ImportFrom) and len(text) < _LONGEST_STATEMENT else None


def is_loader_failure(run: RunResult) -> bool:
    """Return whether a loader has a part in the exceptions that ended the run: an image of theirs failed, or a load
    did."""
    if run.process is None or not run.errors:
        return False
    if run.process.system is System.LINUX:
        from .failed_load import read_linux_failure

        return read_linux_failure(run).dl_error is not None
    from .failed_load import is_load_error, nearest_error

    if run.process.system is System.OTHER:
        from ..diagnose.dyld_messages import is_of_dyld

        return any(is_of_dyld(error.message) for error in run.errors)
    error = nearest_error(run.errors, run.process.suffixes)
    if error is None or "ModuleNotFoundError" in error.bases or not {"ImportError", "OSError"} & set(error.bases):
        return False
    if run.recording is not None and run.recording.failures:
        return True
    is_of_module = error.path is not None and error.path.endswith(run.process.suffixes)
    return is_of_module if "ImportError" in error.bases else is_load_error(error)


@dataclass(frozen=True)
class Explained:
    """A verdict, and all that it rests on: `case` is `None` where nothing failed."""

    diagnosis: Diagnosis
    case: Case | None = None


def _judge(case: Case) -> Explained:
    """Return the verdict on a case.

    Only the rules know which packages should be installed, so package managers are asked after them. The answers decide
    which remedies are offered.
    """
    from ..diagnose.engine import conclude, find_causes
    from .environment import with_available

    causes = find_causes(case)
    case = with_available(case, causes.findings)
    return Explained(conclude(case, causes), case)


def explain_with_case(
    what: str, run: RunResult, *, hidden: str = "", must_return: bool = False, notes: tuple[str, ...] = ()
) -> Explained:
    """Say why a program ended as it did.

    Arguments:
        what: what was tried, in words.
        run: what came of it.
        hidden: the folder whose Python files are the tracer's own.
        must_return: the question is an import: it works only if it came to its end, not if it ended the process.
        notes: what a reader must know besides.
    """
    has_worked, text = _has_worked(run, must_return), run.output.text
    if has_worked and not text:
        return Explained(Diagnosis(what, Outcome.IMPORTED, notes=notes))
    from ..diagnose.program_output import read_output, thread_failure

    messages = tuple(map(_with_sources, read_output(text, hidden=hidden)))
    thread = thread_failure(messages) if run.status == 0 else None
    if has_worked:
        if thread is None or thread.error is None:
            return Explained(Diagnosis(what, Outcome.IMPORTED, notes=notes))
        end = f"thread {thread.thread} ended with {thread.error.type}: {thread.error.message}"
        if not {"ImportError", "OSError"} & set(thread.error.bases):
            return Explained(Diagnosis(what, Outcome.IMPORTED, notes=(*notes, end)))
        notes = (*notes, f"{end}; the rest of the program went on, and ended with status 0")

    run = _completed(run, messages, hidden)
    case = build_case(what, run, (*notes, *_notes_on(run)), messages)
    return _judge(case)


def explain_program(path: str, status: int | None = None) -> Explained:
    """Say why a Windows program cannot start, by its files: it is not started. On Windows only.

    Arguments:
        path: of the program, from its root.
        status: with which Windows ended an attempt to start it; `None` where there was none.
    """
    from .windows_case import build_program_case

    case = build_program_case(path, status)
    is_lacking = case.tree is None or case.tree.missing or case.symbols or case.forwarders
    if not is_lacking:
        return Explained(Diagnosis(case.what, Outcome.IMPORTED, notes=case.notes))
    return _judge(case)


def explain_interpreter(what: str, run: RunResult, path: str) -> Explained:
    """Say why a program of Linux could not begin, which its loader ended with status 127.

    Arguments: `path`, of the program, from the root; `run`, with what its loader wrote.
    """
    from ..diagnose.program_output import read_output
    from ..host.failure import this_process
    from .linux_case import build_interpreter_case

    run = replace(run, process=this_process())
    case = build_interpreter_case(what, run, path, read_output(run.output.text))
    return _judge(case)


def _with_sources(message: OutputMessage) -> OutputMessage:
    """The message, with the text of the lines that ran: faulthandler writes their numbers only."""
    import linecache

    frames = tuple(
        replace(frame, source=linecache.getline(frame.file, frame.line).strip() or None) for frame in message.frames
    )
    return replace(message, frames=frames)


def _has_worked(run: RunResult, must_return: bool) -> bool:
    """Return whether the program came to its end: status 0 alone does not prove it, exit(3) in a library gives that,
    too."""
    if run.status != 0 or run.stopped is not None:
        return False
    left = bool(run.errors) and "SystemExit" in run.errors[0].bases
    return run.completed is not False or (left and not must_return)


def _notes_on(run: RunResult) -> tuple[str, ...]:
    """Return what a reader must know of how the run was traced."""
    traced = (NOT_TRACED,) if run.recording is None else tuple(note for note in run.recording.notes if NOT_USED in note)
    return (*traced, *((run.crash_note,) if run.crash_note else ()))


def _completed(run: RunResult, messages: tuple[OutputMessage, ...], hidden: str) -> RunResult:
    """The run, with what can be concluded where its process could not tell itself."""
    from ..diagnose.program_output import last_traceback, thread_failure, with_remote_errors
    from ..host.failure import read_fault_frames

    if run.errors:
        run = replace(run, errors=with_remote_errors(run.errors))
        return run if run.process is not None else replace(run, process=_process_of(run))
    run = replace(run, process=_process_of(run), frames=run.frames or read_fault_frames(run.output.text, hidden=hidden))
    shown = thread_failure(messages) if run.status == 0 else last_traceback(messages) if (run.status or 0) > 0 else None
    return run if shown is None or shown.error is None else replace(run, errors=(shown.error,))


def _process_of(run: RunResult) -> ProcessFacts:
    """The facts of a process that died before it could tell: those of its interpreter, with the images that it had."""
    from ..host.failure import this_process

    own = run.process or replace(this_process(), added_folders=run.added_folders)
    own = replace(own, path=tuple(dict.fromkeys((own.current_folder, *own.path))))
    recording = run.recording
    if recording is None or own.system is not System.LINUX:
        return own
    gone = {event.path for event in recording.unloads} | {event.path for event in recording.failures}
    loaded = tuple(dict.fromkeys(event.path for event in recording.loads if event.path not in gone))
    return replace(own, loaded=loaded, address_space=None)


def build_case(
    what: str, run: RunResult, notes: tuple[str, ...] = (), messages: tuple[OutputMessage, ...] = ()
) -> Case:
    """Return all that the rules need. What cannot be read is in the notes of the case.

    Arguments:
        what: what was tried, in words ("import x").
        run: what came of it; its `process` must be known.
        notes: what a reader must know besides.
        messages: what loaders, runtimes and Python wrote, in the output of the run.
    """
    assert run.process is not None
    if run.process.system is System.WINDOWS:
        from .windows_case import build_windows_case

        case = build_windows_case(what, run, notes, messages)
    elif run.process.system is System.OTHER:
        from .macos_case import build_macos_case

        case = build_macos_case(what, run, notes)
    else:
        from .linux_case import build_linux_case

        case = build_linux_case(what, run, notes, messages)
    return replace(
        case, messages=messages, module_files=_module_files(run, messages), child_copies=_child_copies(run, messages)
    )


def _child_copies(run: RunResult, messages: tuple[OutputMessage, ...]) -> dict[str, str]:
    """Find, in a child's LD_LIBRARY_PATH, the libraries that the image in an error of the child's loader needs."""
    import shutil
    from pathlib import Path

    from ..diagnose.program_output import child_failure
    from ..host.machine import is_file
    from .linux_process import LinuxProcess

    message = child_failure(messages)
    error = message.dl_error if message is not None else None
    if message is None or error is None or error.library is None or run.process is None:
        return {}
    name = Path(message.program or "").name
    failed = error.library if "/" in error.library else shutil.which(error.library) or error.library
    image = LinuxProcess(run.process, run.recording).read_image(failed) if is_file(failed) else None
    needs = [error.library] if image is None else list(image.needed)
    found: dict[str, str] = {}
    for child in run.children:
        for folder in child.library_path.split(":") if Path(child.program).name == name else ():
            for need in needs:
                copy = Path(run.process.current_folder, folder, Path(need).name)
                if need not in found and is_file(copy):
                    found[need] = str(copy)
    return found


def _module_files(run: RunResult, messages: tuple[OutputMessage, ...]) -> dict[str, str]:
    """The extension modules that child processes were importing when they died, as the import path has them."""
    if run.process is None:
        return {}
    from pathlib import Path

    from ..diagnose.program_output import modules_in_crashes
    from ..host.machine import is_file

    found = {}
    for module in modules_in_crashes(messages):
        *packages, stem = module.split(".")
        names = [stem + suffix for suffix in run.process.suffixes]
        files = (Path(folder, *packages, name) for folder in run.process.path for name in names)
        file = next((file for file in files if is_file(file)), None)
        if file is not None:
            found[module] = str(file)
    return found
