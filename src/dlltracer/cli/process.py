"""Runs a program in a process of its own: its start, our signals and open files meanwhile, its end.

The program starts as soon as it can (docs/adr/0003). The values of the model, and the decoder, are imported when it
runs: `import_for_the_end`.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import sys

from ..errors import DlltracerError
from ..model.light import Protocol, dataclass, replace
from .runner import LogSharing, RunnerReport

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import subprocess
    from collections.abc import Callable
    from types import FrameType

    from ..model.run import RunResult
    from .program import Program
    from .stopper import Stopper

    Variables = tuple[tuple[str, str | None], ...]
else:
    import _signal as signal  # the same functions, without the enums of all signals: 3 % of a run that loads nothing

CHILD_MAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child_main.py")


class CannotRun(DlltracerError):
    """The process for the program could not be made, or ended before it could begin."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options for running a program.

    Attributes:
        python: the interpreter; `None` for that of the program, else for this one, with the options it was given.
        output: the descriptors that get its stdout and stderr; `None`: our standard streams are its own.
        watch_crash: find out where it crashes, if it does. The program can tell: it has a tracer, and Python's
            faulthandler writes where it was.
        stopper: ends it, where it takes too long or we are interrupted; `None`: it alone answers an interrupt.
        limit: has raised our limit of open files; `None`: it is raised here where it is very low.
        variables: of its environment that differ from ours; `None` takes one away.
        is_whole: also describe the process of a program that ended well.
        follow: trace the processes that it starts as well.
        startup: trace what comes before the program begins as well.
    """

    python: str | None = None
    output: tuple[int, int] | None = None
    watch_crash: bool = False
    stopper: Stopper | None = None
    limit: DescriptorLimit | None = None
    variables: Variables = ()
    is_whole: bool = True
    follow: bool = False
    startup: bool = False


class Child(Protocol):
    """A program that was started, as a run sees it; a `subprocess.Popen` is one.

    Attributes: `pid`; `returncode`, its status as of `Popen`, once it was waited for.
    """

    pid: int
    returncode: int | None

    def send_signal(self, sig: int, /) -> None: ...
    def wait(self) -> int: ...


class ChildProgram:
    """A `Child` without `subprocess`: with all that it needs, that was a twelfth of the instructions of a run."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        # By this name `Popen` has it, and `crashwatch` takes it: who holds it waits for the process.
        self._waitpid_lock = _thread.allocate_lock()

    def send_signal(self, sig: int, /) -> None:
        """Send a signal, if it was not waited for: its number may be another process's by then."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def wait(self) -> int:
        """Wait for its end, and return its status; 0 where the system took it: SIGCHLD is ignored (waitpid(2))."""
        with self._waitpid_lock:
            if self.returncode is None:
                try:
                    self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
                except ChildProcessError:
                    self.returncode = 0
        return self.returncode


def glibc_version() -> tuple[int, ...]:
    """Return the version of glibc if that is the C library of this process, as (2, 36); () for any other.

    By its own word (confstr(3)). `host.machine` tells more, and imports more.
    """
    if sys.platform != "linux":
        return ()
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return tuple(map(int, version.split(".")[:2])) if name == "glibc" else ()
    except (OSError, ValueError):  # musl has no such name
        return ()


def _can_spawn(command: list[str]) -> bool:
    """Return whether posix_spawn(3) starts the program, and says why where it cannot: glibc's does since 2.24."""
    if not hasattr(os, "posix_spawn") or not os.path.dirname(command[0]):
        return False
    return sys.platform == "darwin" or glibc_version() >= (2, 24)


def start_program(
    command: list[str], environment: dict[str, str] | None = None, stdout: int | None = None, stderr: int | None = None,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Start a program, which gets every descriptor of ours that may be inherited: a pipe of the shell, a socket.

    Arguments: `environment`, ours by default; `stdout` and `stderr`, descriptors. Raises `OSError`.
    """
    import subprocess

    def start(folder: str | None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command, close_fds=False, cwd=folder, env=environment, stdout=stdout, stderr=stderr
        )  # fmt: skip

    try:
        return start(None)
    except PermissionError as error:
        # posix_spawn of glibc 2.34 calls clone3, to which older sandboxes answer EPERM (Docker before 20.10.10). With a
        # folder to start in, Python makes the process itself, by vfork.
        if error.errno != errno.EPERM or sys.platform == "win32":
            raise
        return start(".")


def start_plainly(command: list[str]) -> Child:
    """Start a program with our environment and our standard streams, without `subprocess` where that can be.

    Raises `OSError`.
    """
    if sys.platform != "win32" and _can_spawn(command):
        try:
            # The interpreter ignores these two; a program is to have them as our caller did.
            signals = (signal.SIGPIPE, signal.SIGXFSZ)
            return ChildProgram(os.posix_spawn(command[0], command, os.environ, setsigdef=signals))
        except PermissionError as error:
            if error.errno != errno.EPERM:  # as in `start_program`
                raise
    return start_program(command)


def import_all() -> None:
    """Import all that a run may need. An import opens files, and later there may be no descriptor left for them."""
    import subprocess  # noqa: F401

    from ..host import failure  # noqa: F401
    from ..model import words  # noqa: F401

    import_for_the_end()


def import_for_the_end() -> None:
    """Import what the end of a run needs, while the program runs: on a second processor nobody waits for it."""
    from ..model import run  # noqa: F401

    if sys.platform == "linux":
        with contextlib.suppress(ImportError):  # a Python without _ctypes: it cannot trace, and says so at the end
            from ..capture.linux import decoding  # noqa: F401


def has_no_descriptors(error: BaseException) -> bool:
    """Return whether a program was not started for want of file descriptors: `ulimit -n` is very low."""
    while isinstance(error, CannotRun) and error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def runner_command(start: list[str], result: str, log: LogSharing, backend: str, program: Program) -> list[str]:
    """The command line that has an interpreter, started with the words `start`, run the program by the runner.

    Arguments: `result`, the file for the runner's report; `log`, `backend` and `program` are for the runner.

    Raises:
        CannotRun: the runner is in an archive (zipapp), and an interpreter starts no file of one.
    """
    if not os.path.exists(CHILD_MAIN):
        raise CannotRun(
            f"dlltracer is in an archive: {CHILD_MAIN} is no file, and a program is run by it. Install or unpack "
            f"dlltracer; deps, check, show and Trace work in an archive, too"
        )
    return [*start, CHILD_MAIN, result, log.encode(), backend, program.kind.value, program.name, *program.arguments]


def interpreter_of(program: Program, python: str | None = None) -> list[str]:
    """The interpreter that runs the program, with our options if it is ours; `python` is one to take in any case."""
    chosen = python if python is not None else program.python
    return interpreter() if chosen is None else [chosen]


def interpreter() -> list[str]:
    """This interpreter, with the options that it was given."""
    flags = sys.flags
    given = [("debug", "d"), ("dont_write_bytecode", "B"), ("no_site", "S"), ("verbose", "v"), ("bytes_warning", "b"),
             ("quiet", "q"), ("optimize", "O"), ("isolated", "I")]  # fmt: skip
    if not flags.isolated:  # which has these in it
        given += [("ignore_environment", "E"), ("no_user_site", "s"), ("safe_path", "P")]
    options = [f"-{letter * number}" for name, letter in given if (number := int(getattr(flags, name, 0))) > 0]
    warnings = list(sys.warnoptions)
    bytes_option = "error::BytesWarning" if flags.bytes_warning > 1 else "default::BytesWarning"
    for is_on, option in ((flags.bytes_warning, bytes_option), (flags.dev_mode, "default")):
        if is_on and option in warnings:
            warnings.remove(option)  # the interpreter has put it there, and does so again
    options += [f"-W{option}" for option in warnings]
    for name, value in sys._xoptions.items():
        options += ["-X", name if value is True else f"{name}={value}"]
    # PyPy's is always so.
    if sys.implementation.name != "pypy" and getattr(sys.__stdout__, "write_through", False):
        options.append("-u")
    return [sys.executable, *options]


def with_notes(run: RunResult, notes: tuple[str, ...]) -> RunResult:
    """The run, with notes before those of its recording."""
    if run.recording is None:
        return run
    return replace(run, recording=replace(run.recording, notes=(*notes, *run.recording.notes)))


def with_stop(run: RunResult, stopper: Stopper | None) -> RunResult:
    """The run, with how it was ended from outside, if it was."""
    if stopper is None or stopper.reason is None:
        return run
    # The signal was ours: where it hit is no crash.
    return replace(run, stopped=stopper.reason, seconds=stopper.seconds, crash=None, crash_note=None)


def child_environment(options: RunOptions) -> dict[str, str]:
    """Our environment, with the variables of the options changed.

    A program whose output we take is not talked with: PYTHONINSPECT would have its interpreter wait for somebody.
    """
    changed = dict(os.environ)
    if options.output is not None:
        changed.pop("PYTHONINSPECT", None)
    for name, value in options.variables:
        if value is None:
            changed.pop(name, None)
        else:
            changed[name] = value
    return changed


def choose_wait(watch_crash: bool) -> Callable[[Child], RunResult]:
    """The function that waits for a child, and sees its crash if that is wanted."""
    return _crash_watcher() if watch_crash else _wait


_POLL = 0.1
"""Seconds after which a wait on Windows lets Python see an interrupt: there it goes on through one."""


def _wait(child: Child) -> RunResult:
    import_for_the_end()
    from ..model.run import RunResult

    if sys.platform == "win32":
        import subprocess

        assert isinstance(child, subprocess.Popen)
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return RunResult(status=child.wait(_POLL))
    return RunResult(status=child.wait())


_NO_CTYPES = "the place of a crash is not known: this Python has no _ctypes, by which a child is watched"


def _crash_watcher() -> Callable[[Child], RunResult]:
    """The function that waits for a child and sees its crash. Made before the child is: its first moments count."""
    if sys.platform != "linux":
        return _wait
    try:
        from ..capture.linux import crashwatch
    except ImportError:  # no _ctypes: the import in question may be about just that, and is tried all the same
        return lambda child: replace(_wait(child), crash_note=_NO_CTYPES)

    def wait(child: Child) -> RunResult:
        watched = crashwatch.watch(child)
        from ..model.run import RunResult

        return RunResult(status=watched.status, crash=watched.crash, crash_note=watched.note)

    return wait


def with_facts(run: RunResult, report: RunnerReport | None, *, is_whole: bool = True) -> RunResult:
    """The run, with the exceptions that ended it and its interpreter, as its runner reported them.

    Arguments: `is_whole` as of `RunOptions`; without it, nothing is told of a program that ended well.
    """
    if report is None:
        return replace(run, completed=False)
    if not is_whole and run.status == 0 and not report.errors:
        return replace(run, completed=report.completed)
    from ..host.failure import read_errors, read_process
    from ..model.run import StartedChild

    return replace(
        run, errors=read_errors(report.errors), process=read_process(report.process), completed=report.completed,
        children=tuple(StartedChild(*child) for child in report.children),
    )  # fmt: skip


class Relay:
    """Our signals while the program runs.

    What the terminal sends to the whole group (SIGINT, SIGQUIT) is the program's to answer, and reaches it without us.
    What somebody sends to us alone (SIGTERM ...) is passed on. A signal that we were started to ignore stays ignored.
    With a `stopper`, an interrupt ends the program if it does not end by itself.
    """

    _LEAVE = ("SIGINT", "SIGQUIT", "SIGBREAK")
    _PASS_ON = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")

    def __init__(self, stopper: Stopper | None = None, limit: DescriptorLimit | None = None) -> None:
        self.stopper = stopper
        self._limit = limit
        self._child: Child | None = None
        self._early: list[int] = []
        self._before: dict[int, object] = {}

    def __enter__(self) -> Relay:
        # Handlers, not SIG_IGN: the program would inherit that.
        for name in self._LEAVE:
            self._take(name, self._leave)
        if sys.platform != "win32":
            for name in self._PASS_ON:
                self._take(name, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        if self.stopper is not None:
            self.stopper.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def has_started(self) -> bool:
        """True if the program has been started: it must not be started a second time."""
        return self._child is not None

    def connect(self, child: Child) -> None:
        """The program has started: it gets what came before."""
        self._child = child
        if self._limit is not None:
            self._limit.give_back(child.pid)
        if self.stopper is not None:
            self.stopper.connect(child)
        for number in self._early:
            child.send_signal(number)

    def _take(self, name: str, handler: object) -> None:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            self._before[number] = signal.signal(number, handler)  # type: ignore[arg-type]

    def _leave(self, number: int, frame: FrameType | None) -> None:
        if self.stopper is not None and number == signal.SIGINT:
            self.stopper.interrupt()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self._child is None:
            self._early.append(number)
        else:
            self._child.send_signal(number)


ENOUGH = 256
"""Descriptors that a run of ours can do with; a log lies at 200 or above, out of the program's way."""


class DescriptorLimit:
    """Raises our limit of open files (RLIMIT_NOFILE) for a block, where it is very low: `ulimit -n 6`.

    A child inherits the raised limit; `give_back` sets it to what the user had (prlimit(2)) as soon as it has started.
    Nothing is done where the system refuses: the soft limit can be raised to the hard one, that one by root only.
    """

    def __init__(self) -> None:
        self._former: tuple[int, int] | None = None

    def __enter__(self) -> DescriptorLimit:
        if self._former is not None:
            return self  # raised already
        if sys.platform == "linux":
            import resource

            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            if soft != resource.RLIM_INFINITY and soft < ENOUGH:
                most = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
                for limits in ((ENOUGH, max(ENOUGH, hard)), (most, hard)):
                    with contextlib.suppress(OSError, ValueError):
                        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
                        self._former = (soft, hard)
                        break
        return self

    def __exit__(self, *_: object) -> None:
        if sys.platform == "linux" and self._former is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_NOFILE, self._former)
            self._former = None

    def allows(self, number: int) -> bool:
        """Return whether so many files can be open, ours of now among them."""
        if sys.platform == "linux":
            import resource

            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return soft == resource.RLIM_INFINITY or soft >= number
        return True

    def give_back(self, pid: int) -> None:
        """Let a child have the limit that the user set."""
        if sys.platform == "linux" and self._former is not None:
            import resource

            with contextlib.suppress(OSError):  # it has ended
                resource.prlimit(pid, resource.RLIMIT_NOFILE, self._former)
