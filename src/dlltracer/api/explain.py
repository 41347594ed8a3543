"""Why an import failed: for the command line, and as `dlltracer.explain` for programs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..diagnose.engine import diagnose
from ..diagnose.named_failure import find_named_failure
from ..host.facts import describe_errors, describe_process
from ..host.failure import read_failure, this_process
from ..host.faulttext import read_fault_frames, read_traceback
from ..model.failure import Failure, ProcessFacts, System
from ..model.finding import Diagnosis, Outcome
from .gather import Attempt, build_case, loader_error, native_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..diagnose.case import Case
    from ..model.crash import Crash
    from ..model.recording import Recording
    from ..model.request import Request

NOT_TRACED = "there was no trace: this rests on the exception and on the files"


def explain(error: BaseException, recording: Recording | None = None) -> Diagnosis:
    """Say why an import failed.

    Arguments:
        error: the exception, ImportError or what a load by ctypes raised; its traceback is used.
        recording: of a `Trace` that was running; `None` for none: then the files decide, and the verdict is less sure.
    """
    return _explain(_failure_of(error), error, recording)


def explain_if_of_a_loader(error: BaseException, recording: Recording | None = None) -> Diagnosis | None:
    """The same for any exception that ended a program; `None` if no loader had a part in it."""
    failure = _failure_of(error)
    return _explain(failure, error, recording) if is_loader_failure(failure, recording) else None


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


def _failure_of(error: BaseException) -> Failure:
    failure = read_failure({"errors": describe_errors(error), "process": describe_process([])})
    assert failure is not None
    return failure


def _explain(failure: Failure, error: BaseException, recording: Recording | None) -> Diagnosis:
    name = getattr(error, "name", None)
    what = f"import {name}" if isinstance(name, str) and isinstance(error, ImportError) else "the load"
    notes = () if recording is not None else (NOT_TRACED,)
    return diagnose(build_case(Attempt(what, failure.process, failure, None, recording, notes)))


def is_loader_failure(failure: Failure, recording: Recording | None) -> bool:
    """Whether a loader has a part in the exceptions: an image of theirs failed, or a load did."""
    if failure.process.system is System.LINUX:
        return loader_error(failure.errors)[1] is not None or find_named_failure(failure.errors, recording) is not None
    error = native_error(failure.errors)
    if error is None or "ModuleNotFoundError" in error.bases:
        return False
    if recording is not None and recording.failures:
        return True
    if "ImportError" not in error.bases:
        from .windows_failure import is_load_error

        return is_load_error(error)
    return error.path is not None and error.path.endswith(failure.process.suffixes)


@dataclass(frozen=True)
class Death:
    """How a process died, as far as it is known.

    Attributes:
        crash: where.
        note: what is doubtful about that, or why there is nothing.
        initialising: the image whose initialiser was running.
        hidden: the folder whose Python files are the tracer's own.
        added_folders: of os.add_dll_directory, until then.
        interpreter: what the interpreter says of itself in another process; `None`: it is the one of this process.
    """

    crash: Crash | None = None
    note: str | None = None
    initialising: str | None = None
    hidden: str = ""
    added_folders: tuple[str, ...] = ()
    interpreter: ProcessFacts | None = None


@dataclass(frozen=True)
class Explained:
    """A verdict, and all that it rests on: `case` is `None` where nothing failed."""

    diagnosis: Diagnosis
    case: Case | None = None


def explain_with_case(
    what: str, status: int, recording: Recording | None, failure: Failure | None, said: str = "",
    death: Death | None = None, requests: tuple[Request, ...] = (),
) -> Explained:  # fmt: skip
    """Say why a program ended as it did.

    Arguments:
        what: what was tried, in words.
        status: as of `subprocess.Popen`: negative for a signal.
        recording: what a trace saw of it.
        failure: the exceptions that ended it.
        said: the end of what it wrote.
        death: how it died, if it did.
        requests: what Python asked of the loader, where that is known apart from the recording.
    """
    if status == 0:
        return Explained(Diagnosis(what, Outcome.IMPORTED))
    death = death or Death()
    process = failure.process if failure is not None else _process_of(recording, death)
    notes = (*(() if recording is not None else (NOT_TRACED,)), *((death.note,) if death.note else ()))
    frames = () if failure is not None else read_fault_frames(said, hidden=death.hidden)
    if failure is None and status > 0:
        error = read_traceback(said, hidden=death.hidden)
        failure = Failure((error,), process) if error is not None else None
    attempt = Attempt(what, process, failure, death.crash, recording, notes)
    attempt = replace(
        attempt, initialising=death.initialising, frames=frames, said=said, status=status, requests=requests
    )
    case = build_case(attempt)
    return Explained(diagnose(case), case)


def _process_of(recording: Recording | None, death: Death) -> ProcessFacts:
    """The facts of a process that died before it could tell: those of its interpreter, with the images that it had."""
    own = death.interpreter or this_process()
    path = tuple(dict.fromkeys((own.current_folder, *own.path)))
    own = replace(own, path=path, added_folders=death.added_folders)
    if recording is None or own.system is not System.LINUX:
        return own
    gone = {event.path for event in recording.unloads} | {event.path for event in recording.failures}
    loaded = tuple(dict.fromkeys(event.path for event in recording.loads if event.path not in gone))
    return replace(own, loaded=loaded, address_space=None)
