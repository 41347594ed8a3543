"""A finished run, and a saved trace of it with what a reader elsewhere needs.

Reports are made of a saved trace. Recording files hold one: docs/reference/recording-format.md.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from .failure import Crash, Frame, ProcessFacts, PythonError
from .light import dataclass
from .recording import Recording
from .request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .finding import Diagnosis  # most runs have no verdict, and are shown without it


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
    """The reason why dlltracer ended a run that had not ended by itself."""

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
    """The end of a run, and the report of its process.

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
        initialising: the image whose initialiser was running when the process ended, as far as the loader log shows it.
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


@dataclass(frozen=True)
class HostFacts:
    """The machine of a trace.

    Attributes:
        system: "linux", "windows" or another, as `model.failure.System` has them.
        description: the system for people ("Debian GNU/Linux 12 (bookworm), kernel 6.1", "Windows 10 build 19045").
        machine: the processor ("x86_64", "AMD64").
        c_library: "glibc 2.36", "musl 1.2.3"; `None` where it does not apply or is not known.
        name: of the machine; `None` when it was left out.
    """

    system: str
    description: str = ""
    machine: str = ""
    c_library: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class ImageFacts:
    """A file that a trace saw, as it was then. A field is `None` where it was not looked at or does not apply.

    Attributes:
        path: as the events have it.
        size: bytes.
        modified: seconds since the epoch.
        file_version: of the version resource of a PE file ("14.28.29334.0").
        soname: of an ELF file.
        machine: name of the processor it is for.
        needs: the names it imports (DT_NEEDED, import table), in order.
        package: what it belongs to ("numpy 2.1.0", "libssl3 3.0.11-1"), if a package manager knows.
        digest: "sha256:" and the hexadecimal digest, or "build-id:" and the identification of an ELF file.
    """

    path: str
    size: int | None = None
    modified: float | None = None
    file_version: str | None = None
    soname: str | None = None
    machine: str | None = None
    needs: tuple[str, ...] | None = None
    package: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class SearchPlaces:
    """The places where the loader of a process looks, besides what images say themselves. Empty where it does not
    apply.

    Attributes:
        folders: (rule, folder) pairs in the order of the search, the rule as `model.events.Phase` has it.
        cache: what ld.so.cache has of the names that the trace is about: (name, path) pairs.
        cache_size: how many entries it has in all; `None` if there is none, or it was not read.
        known_dlls: the names that Windows takes from its system folder always.
        preload: the elements of LD_PRELOAD.
        notes: what could not be found out.
    """

    folders: tuple[tuple[str, str], ...] = ()
    cache: tuple[tuple[str, str], ...] = ()
    cache_size: int | None = None
    known_dlls: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SavedTrace:
    """All that is known of one run.

    Attributes:
        recording: what the trace saw; its `processes` name all that were followed.
        what: what was run, in words ("import ssl", "-m pytest").
        written_by: version of dlltracer.
        started: seconds since the epoch.
        host: the machine.
        run: how the first process ended. Its own `recording` is empty: `recording` is the one. A file keeps the status,
            the exceptions, the interpreter and the crash.
        diagnosis: the verdict given on the spot.
        case: all that the verdict rests on, in plain values, for rules of another version (`api.explain_saved`).
        images: the files of the trace.
        problems: what was wrong with the file this was read from: torn, damaged lines, of a later version.
        command: the command line, a word each; () if it is not known.
        places: where the loader of the first process looks.
        steps: of a self-test, if the file is the report of one; nothing was run then.
    """

    recording: Recording
    what: str = ""
    written_by: str = ""
    started: float | None = None
    host: HostFacts | None = None
    run: RunResult = RunResult()
    diagnosis: Diagnosis | None = None
    case: Mapping[str, object] | None = None
    images: tuple[ImageFacts, ...] = ()
    problems: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    places: SearchPlaces | None = None
    steps: tuple[SelfTestStep, ...] = ()


class StepState(enum.Enum):
    """The result of a step."""

    OK = "ok"
    """What was seen is what was expected."""
    FAILED = "failed"
    """Something else was seen, or the step ended in an error."""
    NOT_ASKED = "could not be asked"
    """This machine does not allow the question: no right, another system, a simulation of it. Not a failure."""


@dataclass(frozen=True, kw_only=True)
class SelfTestStep:
    """A step of a self-test.

    Attributes:
        group: the part that it belongs to ("rtld", "etw").
        name: what is asked, in a few words.
        expected: what is right, as a sentence without a full stop.
        state: what came of it.
        seen: what was seen; empty where nothing was.
        reason: why it failed or could not be asked; `None` for a step that is ok.
        seconds: how long it took.
        facts: everything noted on the way, as (name, value) pairs, in order. Private names are left out of them.
    """

    group: str
    name: str
    expected: str
    state: StepState
    seen: str = ""
    reason: str | None = None
    seconds: float = 0.0
    facts: tuple[tuple[str, str], ...] = ()


def count_states(steps: tuple[SelfTestStep, ...]) -> dict[StepState, int]:
    """Return how many steps are in each state; every state is a key."""
    return {state: sum(step.state is state for step in steps) for state in StepState}
