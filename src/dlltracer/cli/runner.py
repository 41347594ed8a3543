"""Runs in the process of the program: starts a trace, becomes `python PROGRAM`, ends the trace when all is done.

Run as a script, by path: `runner.py RESULT FD BACKEND KIND NAME [ARGS]` (cli/child.py). It imports nothing that the
program could tell from a plain interpreter, but the core of dlltracer.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlltracer.trace import Trace


def main() -> None:
    """Trace and run the program that the arguments name."""
    # Python 3.10 has no safe_path: there, only -I keeps the folder of the script off the path.
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        del sys.path[0]
    result, fd, backend, kind, name, *arguments = sys.argv[1:]
    _import_core()
    import os

    from dlltracer.cli import launch

    owner = os.getpid()
    start_path = list(sys.path)
    try:
        run = launch.prepare(kind, name, arguments)
    except launch.CannotOpen as error:
        _leave_word(result, {"outcome": "not begun"})
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    try:
        trace = _start_trace(backend, None if fd == "-" else int(fd))
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent says it and nothing runs
        from dlltracer.errors import DlltracerError

        message = str(error) if isinstance(error, DlltracerError) else f"{type(error).__name__}: {error}"
        _leave_word(result, {"outcome": "refused", "message": message})
        sys.exit(2)

    interrupted = False

    def finish() -> None:
        # A child made by fork runs the handlers too; the trace of the program is not its to report.
        if os.getpid() == owner:
            _leave_word(result, _end_trace(trace, start_path))
            if interrupted:
                _note_interrupt()

    import atexit

    # Registered first, so called last: after the program's handlers, which come after its threads.
    atexit.register(finish)
    try:
        run()
    except BaseException as error:
        if launch.found_no_module(error, main.__code__.co_filename):
            atexit.unregister(finish)
            _leave_word(result, {"outcome": "not begun"})
        interrupted = type(error) is KeyboardInterrupt
        launch.hide_from_excepthook(main.__code__.co_filename)
        raise


def _import_core() -> None:
    """Import dlltracer, from where this file lies and nowhere else, and leave the path as it was."""
    root = __file__.replace("\\", "/").rsplit("/", 3)[0]
    sys.path.insert(0, root)
    import dlltracer  # noqa: F401 - its submodules are found through it from now on

    del sys.path[0]


def _start_trace(backend: str, fd: int | None) -> Trace:
    from dlltracer.trace import Trace

    if fd is not None:
        import os

        os.set_inheritable(fd, False)
        from dlltracer.capture.linux.rtld import RtldBackend

        trace = Trace(backend=RtldBackend(fd=fd))
        try:
            trace.start()
            return trace
        except OSError:
            if backend != "auto":
                raise
    trace = Trace(backend=backend)
    trace.start()
    return trace


def _end_trace(trace: Trace, start_path: list[str]) -> dict[str, object]:
    """End the trace; what to tell the parent about it."""
    # What ends a trace is imported now. A token.py of the program's own must not be taken for the library's.
    path, sys.path = sys.path, start_path
    try:
        trace.close()
        if trace.recording is None:
            return {"outcome": "unfinished", "message": "the program ended the trace itself"}
        from dlltracer.model.codec import to_plain

        return {"outcome": "recorded", "recording": to_plain(trace.recording)}
    except BaseException as error:  # noqa: BLE001 - the program's status must not suffer; the parent says it
        return {"outcome": "unfinished", "message": f"{type(error).__name__}: {error}"}
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


def _leave_word(result: str, said: dict[str, object]) -> None:
    """Write the result whole or not at all; if it cannot be written, the parent makes do without."""
    import marshal
    import os

    try:
        with open(f"{result}.part", "wb") as file:
            file.write(marshal.dumps(said))
        os.replace(f"{result}.part", result)
    except Exception:  # noqa: BLE001 - the program has ended: there is nobody to tell
        return


if __name__ == "__main__":
    main()
