"""Runs in the process of the program: starts a trace, becomes `python PROGRAM`, ends the trace when all is done.

Imports nothing that the program could tell from a plain interpreter, but the core of dlltracer.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from dlltracer.capture.linux.rtld import JoinedLog, RtldSession
    from dlltracer.capture.linux.seccomp_marks import WatchedCalls
    from dlltracer.capture.requests import Watch
    from dlltracer.cli.runner import LogSharing, RunnerReport
    from dlltracer.model.recording import Recording
    from dlltracer.trace import Trace


def main(script: str) -> None:
    """Trace and run the program that the arguments of the process name. `script`: child_main.py, which calls this."""
    ours = (script, main.__code__.co_filename)
    result, log_word, backend, kind, name, *arguments = sys.argv[1:]
    import os

    from dlltracer.cli.runner import DEBUGGED, UNTRACED, WATCHED, LogSharing, RunnerOutcome, RunnerReport

    log = LogSharing.decode(log_word, os.environ)
    _begin_own_loads(log)
    if backend not in (UNTRACED, DEBUGGED, WATCHED):
        _import_ctypes_out_of_the_way()

    from dlltracer.cli import launch

    start_path = list(sys.path)  # without the folder of the program, which `prepare` puts on it
    try:
        program = launch.prepare(kind, name, arguments)
    except launch.CannotOpen as error:
        RunnerReport(RunnerOutcome.NOT_BEGUN).write(result)
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    tracing = _Tracing(result, backend, log, start_path)

    import atexit

    # Registered first, so called last: after the program's handlers, which come after its threads.
    atexit.register(tracing.finish)
    if backend == DEBUGGED:
        _note_begin(f"{result}.begun")
    if log.deadline is not None:
        _write_stack_at(log.deadline, f"{result}.stack")
    try:
        program.run()
    except BaseException as error:
        if launch.found_no_module(error, ours):
            atexit.unregister(tracing.finish)
            RunnerReport(RunnerOutcome.NOT_BEGUN).write(result)
        tracing.fail(error)
        launch.hide_from_excepthook(ours, program.main_names)
        raise
    tracing.complete()


class _Tracing:
    """The trace of the program, and the report on it. Leaves the process where the trace cannot start."""

    def __init__(self, result: str, backend: str, log: LogSharing, start_path: list[str]) -> None:
        import os

        from dlltracer.cli.runner import DEBUGGED

        self._result = result
        self._owner = os.getpid()
        self._start_path = start_path
        self._session = _join_or_refuse(result, backend, log)
        self._view = log.view
        self._own_log = None if self._session is not None else _start_own_log(result, backend, log)
        is_traced = self._session is not None or self._own_log is not None
        self._trace = None if is_traced else _start_trace_or_refuse(result, backend)
        self._watch = _watch_requests(f"{result}.requests") if backend == DEBUGGED else None
        self._added_folders = _watch_added_folders(None if self._watch is None else f"{result}.folders")
        self._facts: dict[str, object] = {}
        self._children = _watch_children() if "faulthandler" in sys._xoptions else []  # `why` turns that on
        self._was_interrupted = False
        self._completed = False

    def fail(self, error: BaseException) -> None:
        """Note the exception that ends the program, and the process as it is now."""
        self._was_interrupted = type(error) is KeyboardInterrupt
        self._facts = _describe_failure(error, self._added_folders)

    def complete(self) -> None:
        """Note that the program's code has run to its end. At once: an exit handler may end the process."""
        import os

        from dlltracer.cli.runner import RunnerOutcome, RunnerReport

        if os.getpid() == self._owner:
            self._completed = True
            RunnerReport(RunnerOutcome.UNFINISHED, completed=True).write(self._result)

    def finish(self) -> None:
        """End the trace and write the report."""
        import os

        # A child made by fork runs the handlers too; the trace of the program is not its to report.
        if os.getpid() != self._owner:
            return
        if self._session is not None:
            report = _leave_log(self._session)
        elif self._own_log is not None:
            report = _end_own_log(self._own_log, self._view, self._start_path)
        else:
            report = _end_trace(self._trace, self._start_path)
        facts = self._facts or _describe_process(self._added_folders)
        report.errors, report.process = facts.get("errors"), facts.get("process")
        report.completed = self._completed
        report.children = tuple(self._children[-_MOST_CHILDREN:])
        if self._watch is not None:
            # Watched to the last: a debugger sees what describing it imports, and has to know for whom.
            report.ends = tuple((one.succeeded, one.idle_clock) for one in self._watch.stop())
        report.write(self._result)
        if self._was_interrupted:
            _note_interrupt()


_LOW_DESCRIPTORS = 200
"""Below it are the numbers that programs count on; the log of the loader is above (capture/linux/log_file.py)."""


def _import_ctypes_out_of_the_way() -> None:
    """Import ctypes, which every mechanism in the process needs, while no low descriptor is free.

    Where libffi has static trampolines (3.4 and later; Debian's 3.5 turns them on) it opens its own file at the first
    callback (`ffi_tramp_init` in src/tramp.c), which `import ctypes` makes, and keeps it open: the first file that the
    program opens would be descriptor 4. libffi maps pages of that file later, so it cannot be moved.
    """
    import os

    if sys.platform == "win32":
        return
    taken = []
    try:
        low = os.open(os.devnull, os.O_RDONLY)
        while low < _LOW_DESCRIPTORS:
            taken.append(low)
            low = os.dup(low)
        os.close(low)
    except OSError:  # a low limit of open files: ctypes needs a few below it
        for number in taken[-4:]:
            os.close(number)
        del taken[-4:]
    try:
        import ctypes  # noqa: F401
    except Exception:  # noqa: BLE001, S110 - the mechanism refuses with the reason
        pass
    finally:
        for number in taken:
            os.close(number)


def _watch_added_folders(path: str | None) -> list[str]:
    """Return a list that fills with the folders given to os.add_dll_directory: Windows has no function to list them.

    They are written to the file at `path` as well, a line each: a crash takes nothing with it. So are those that are
    taken back. Nothing records that but the function itself, which is replaced by one that notes it (os.py of CPython:
    `add_dll_directory` hands it to what it returns).
    """
    folders: list[str] = []
    if sys.platform == "win32":
        import time

        file = None if path is None else _open_to_append(path)

        def note(sign: str, folder: str) -> None:
            if file is not None:
                _write(file, f"{sign}{time.perf_counter_ns()} {folder}\n".encode("utf-8", "surrogatepass"))

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event == "os.add_dll_directory" and isinstance(arguments[0], str):
                folders.append(arguments[0])
                note("+", arguments[0])

        sys.addaudithook(hook)
        if file is not None:
            import nt

            remove = nt._remove_dll_directory  # type: ignore[attr-defined]

            def note_and_remove(cookie: object) -> None:
                folder = getattr(sys._getframe(1).f_locals.get("self"), "path", None)
                remove(cookie)
                if isinstance(folder, str):
                    note("-", folder)

            nt._remove_dll_directory = note_and_remove  # type: ignore[attr-defined]
    return folders


_MOST_CHILDREN = 16


def _watch_children() -> list[tuple[str, str]]:
    """A list that fills with the programs that are started with an LD_LIBRARY_PATH, and its value."""
    children: list[tuple[str, str]] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event != "subprocess.Popen":
            return
        try:
            import os

            program, _, _, environment = arguments
            value = os.fsdecode((os.environ if environment is None else environment).get("LD_LIBRARY_PATH") or "")  # type: ignore[attr-defined]
            if value:
                children.append(("".join([os.fsdecode(program)]), "".join([value])))  # type: ignore[arg-type]
                del children[:-_MOST_CHILDREN]
        except Exception:  # noqa: BLE001 - a hook that raises ends what the program does
            return

    if sys.platform != "win32":
        sys.addaudithook(hook)
    return children


def _watch_requests(path: str) -> Watch:
    """Write every request of the loader to a file, for the debugger that our parent is; keep it, with its end, too."""
    if sys.platform == "win32":
        import _signal  # type: ignore[import-not-found]

        # Python's faulthandler, which our parent turned on, makes a status 3 of these; the debugger wants to see them.
        for number in (_signal.SIGILL, _signal.SIGFPE):
            _signal.signal(number, _signal.SIG_DFL)
    from dlltracer.capture.marks import encode_request
    from dlltracer.capture.requests import Watch

    file = _open_to_append(path)
    Watch(lambda raw: _write(file, encode_request(raw))).start()
    watch = Watch()
    watch.start()
    return watch


def _note_begin(path: str) -> None:
    """Leave for our debugger the moment at which the program begins: what was loaded before is not its own."""
    import os
    import time

    file = _open_to_append(path)
    _write(file, str(time.perf_counter_ns()).encode("ascii"))
    os.close(file)


def _write_stack_at(deadline: float, path: str) -> None:
    """Have the Python lines of all threads written to a file at that time, whatever the program is at then."""
    import faulthandler
    import time

    faulthandler.dump_traceback_later(max(deadline - time.time(), 0.05), file=_open_to_append(path))


def _open_to_append(path: str) -> int:
    import os

    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0))


def _write(file: int, data: bytes) -> None:
    import os

    try:
        os.write(file, data)
    except OSError:  # the program closed it: whoever closes all descriptors has that right
        return


def _describe_failure(error: BaseException, added_folders: list[str]) -> dict[str, object]:
    """Return the known facts about the exception that ends the program, and about the process."""
    try:
        from dlltracer.host import facts

        return {"errors": facts.describe_errors(error), **_describe_process(added_folders)}
    except Exception:  # noqa: BLE001 - the program's own exception goes on its way, whatever happens here
        return {}


def _describe_process(added_folders: list[str]) -> dict[str, object]:
    """Return the known facts about the process.

    Where the program did not fail this comes after the trace, since what it takes to tell is not the program's.
    """
    try:
        from dlltracer.host import facts

        return {"process": facts.describe_process(added_folders)}
    except Exception:  # noqa: BLE001 - the program's status, and its exception, must not suffer
        return {}


def _begin_own_loads(log: LogSharing) -> None:
    """Note in a log that has begun already that what follows is not the program's doing."""
    if log.from_start and log.prefix is not None:
        from dlltracer.capture.linux.rtld import begin_own_loads

        begin_own_loads(log.prefix)


def _join_or_refuse(result: str, backend: str, log: LogSharing) -> JoinedLog | WatchedCalls | None:
    """Let the loader of this process write to a log that the parent reads; `None` if there is none, or it does not
    work and another mechanism will do."""
    from dlltracer.cli.runner import WATCHED

    if backend == WATCHED:
        from dlltracer.capture.linux.seccomp_marks import WatchedCalls

        return WatchedCalls()
    if log.prefix is None:
        return None
    try:
        from dlltracer.capture.linux.rtld import join

        return join(log.prefix, children=log.with_children)
    except Exception as error:  # noqa: BLE001 - as below
        if backend == "auto" and not log.from_start and not log.with_children:
            return None
        _refuse(result, error)


def _leave_log(session: JoinedLog | WatchedCalls) -> RunnerReport:
    """End our part in the log; what to tell the parent, which reads it."""
    from dlltracer.cli.runner import RunnerOutcome, RunnerReport

    try:
        session.leave()
    except Exception as error:  # noqa: BLE001 - the program's status must not suffer
        return RunnerReport(RunnerOutcome.FOLLOWED, notes=(f"{type(error).__name__}: {error}",))
    return RunnerReport(RunnerOutcome.FOLLOWED, notes=session.notes)


def _refuse(result: str, error: Exception) -> NoReturn:
    """Leave the program unrun, and the reason for the parent."""
    from dlltracer.cli.runner import RunnerOutcome, RunnerReport
    from dlltracer.errors import DlltracerError

    message = str(error) if isinstance(error, DlltracerError) else f"{type(error).__name__}: {error}"
    RunnerReport(RunnerOutcome.REFUSED, message).write(result)
    sys.exit(2)


def _start_own_log(result: str, backend: str, log: LogSharing) -> RtldSession | None:
    """Switch the loader log of this process on, into the file that the parent has made for it.

    `None` if it made none, or if the log cannot be had and another mechanism will do.
    """
    if log.descriptor is None:
        return None
    try:
        import os

        os.set_inheritable(log.descriptor, False)
        from dlltracer.capture.linux.rtld import RtldBackend

        return RtldBackend(fd=log.descriptor).start()
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent says it and nothing runs
        if backend == "auto" and isinstance(error, OSError):
            return None
        _refuse(result, error)


def _end_own_log(session: RtldSession, view: str, start_path: list[str]) -> RunnerReport:
    """End the trace; what to tell the parent, which decodes the log unless that can be done in this process only."""
    from dlltracer.cli.runner import RunnerOutcome, RunnerReport

    try:
        left = session.leave(view)
    except BaseException as error:  # noqa: BLE001 - the program's status must not suffer; the parent says it
        return RunnerReport(RunnerOutcome.UNFINISHED, f"{type(error).__name__}: {error}")
    if left is not None:
        return RunnerReport(RunnerOutcome.LEFT, left=left.arguments())

    def decode_here() -> Recording:
        from dlltracer.trace import without_own_loads

        return without_own_loads(session.stop()())

    return _record(decode_here, start_path)


def _start_trace_or_refuse(result: str, backend: str) -> Trace | None:
    from dlltracer.cli.runner import DEBUGGED, UNTRACED

    if backend in (UNTRACED, DEBUGGED):
        return None
    try:
        from dlltracer.trace import Trace

        trace = Trace(backend=backend)
        trace.start()
        return trace
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent says it and nothing runs
        _refuse(result, error)


def _end_trace(trace: Trace | None, start_path: list[str]) -> RunnerReport:
    """End the trace; what to tell the parent about it."""
    from dlltracer.cli.runner import RunnerOutcome, RunnerReport

    if trace is None:
        return RunnerReport(RunnerOutcome.UNTRACED)

    def close() -> Recording | None:
        trace.close()
        return trace.recording

    return _record(close, start_path)


def _record(end: Callable[[], Recording | None], start_path: list[str]) -> RunnerReport:
    """The report with the recording that `end` returns, or why there is none."""
    from dlltracer.cli.runner import RunnerOutcome, RunnerReport

    # What ends a trace is imported now. A token.py of the program's own must not be taken for the library's.
    path, sys.path = sys.path, start_path
    try:
        recording = end()
        if recording is None:
            return RunnerReport(RunnerOutcome.UNFINISHED, "the program ended the trace itself")
        from dlltracer.model.encode import encode

        return RunnerReport(RunnerOutcome.RECORDED, recording=encode(recording))
    except BaseException as error:  # noqa: BLE001 - the program's status must not suffer; the parent says it
        return RunnerReport(RunnerOutcome.UNFINISHED, f"{type(error).__name__}: {error}")
    finally:
        sys.path = path


def _note_interrupt() -> None:
    """Tell the interpreter, as it leaves, that an interrupt was not handled: it then dies by SIGINT.

    It knew, but every exec of text (`dataclasses` is built of them) makes it forget; one that ends so makes it know.
    """
    try:
        exec("raise KeyboardInterrupt")  # noqa: S102 - see above
    except KeyboardInterrupt:
        return
