"""A finished run: how a program ended, and all that is known of it besides its files."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .crash import Crash
from .failure import Frame, ProcessFacts, PythonError, Request
from .recording import Recording


@dataclass(frozen=True, kw_only=True)
class ProgramOutput:
    """The ends of what a program wrote, its streams apart.

    Attributes:
        stdout, stderr: the text, its last lines only where it was long.
        omitted: bytes that were written before these ends, of both streams.
    """

    stdout: str = ""
    stderr: str = ""
    omitted: int = 0

    @property
    def text(self) -> str:
        """Both streams, stderr last: a program that fails says so there."""
        return "\n".join(part.rstrip("\n") for part in (self.stdout, self.stderr) if part.strip())


class StopReason(enum.Enum):
    """Why a run was ended from outside, by us: it had not ended by itself."""

    TIMED_OUT = "timed out"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class StartedChild:
    """A program that the run started with an LD_LIBRARY_PATH: `program` as it was named, and the `library_path`."""

    program: str
    library_path: str


@dataclass(frozen=True)
class FolderChange:
    """A call of os.add_dll_directory, or of `close` of what it returned.

    Attributes: the `folder`; `clock`, `time.perf_counter_ns()`; `is_added`, or it was taken back.
    """

    folder: str
    clock: int
    is_added: bool


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended, and what its process told.

    Attributes:
        status: as of `subprocess.Popen`, negative for a signal; `None` if the run had not ended when it was recorded.
        completed: whether the program's code ran to its end, as the runner noted then, before any exit handler; `None`
            where there was no runner.
        stopped: why the program was ended by us; `None` if it ended otherwise.
        seconds: how long it had run then.
        begun: whether the program began at all; if not, there is no such script or module.
        refusal: why the trace could not start, in which case the program was not run.
        recording: what the trace saw; `None` without a trace.
        errors: the exceptions that ended the program, outermost first.
        process: the interpreter, as it was when the program ended; `None` if it could not tell.
        crash: where the program crashed; `None` if it did not, or nobody watched.
        crash_note: what is doubtful about `crash`, or why there is none.
        initialising: the image whose initialiser was running when the process ended, as far as the loader told.
        frames: the Python lines that were running when the process died, outermost first.
        output: the end of what the program wrote.
        requests: what Python asked of the loader, where that was written down apart from the recording (Windows).
        children: what it started with an LD_LIBRARY_PATH, the last ones.
        added_folders: of os.add_dll_directory, as they were written down while the program ran.
        folder_changes: the same, with when they were added and taken back, in order; empty where that is not known.
    """

    status: int | None = None
    completed: bool | None = None
    stopped: StopReason | None = None
    seconds: float | None = None
    begun: bool = True
    refusal: str | None = None
    recording: Recording | None = None
    errors: tuple[PythonError, ...] = ()
    process: ProcessFacts | None = None
    crash: Crash | None = None
    crash_note: str | None = None
    initialising: str | None = None
    frames: tuple[Frame, ...] = ()
    output: ProgramOutput = ProgramOutput()
    requests: tuple[Request, ...] = ()
    added_folders: tuple[str, ...] = ()
    folder_changes: tuple[FolderChange, ...] = ()
    children: tuple[StartedChild, ...] = ()
