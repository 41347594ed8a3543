"""Runs the command line: `python -m dlltracer`, and the console script."""

from __future__ import annotations

import sys

_NOT_TRACED = 3
"""The exit status of a question that could not be traced (docs/reference/command-line.md)."""


def main() -> None:
    """Run the command line of a program; never returns, and may end the process without what is left to do at exit."""
    try:
        from .cli.main import main as run
    except ImportError as error:
        if error.name != "_ctypes":
            raise
        # click imports ctypes on Windows, and we need it to debug. A Python whose libffi is gone is what people ask
        # about, so it gets an answer, and the way to the whole one.
        sys.stderr.write(
            f"dlltracer: error: this Python cannot load its own _ctypes ({error}), and the command line needs it. Run "
            f'dlltracer with another Python: python -m dlltracer why --python "{sys.executable}" ctypes\n'
        )
        sys.exit(_NOT_TRACED)
    try:
        run()
    except SystemExit as end:
        caller = sys._getframe(1)
        # A script of somebody's may have a `finally` or a `with`: from Python 3.11 on its code says so.
        is_guarded = caller.f_code.co_name != "<module>" or bool(getattr(caller.f_code, "co_exceptiontable", None))
        if isinstance(end.code, int) and caller.f_globals.get("__name__") == "__main__" and not is_guarded:
            _leave(end.code)
        raise


def _leave(status: int) -> None:
    """End the process, if nobody waits for what an interpreter does at its end; else return.

    Freeing all modules and values takes a tenth of the time of `dlltracer deps`, and the kernel frees them anyway.
    With PYTHONINSPECT the interpreter would show our exit as an exception, and ask for code: that is for the program.
    """
    import atexit
    import os

    flags, threading = sys.flags, sys.modules.get("threading")
    if flags.dev_mode or sys.getprofile() or sys.gettrace():
        return
    if getattr(atexit, "_ncallbacks", lambda: 1)() or (threading is not None and threading.active_count() > 1):
        return
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return  # the interpreter says so at its end
    os._exit(status)


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        # -m puts the current folder first: a json.py of the user's there must not become ours. The program to trace
        # is not concerned, it runs in a process of its own.
        del sys.path[0]
    main()
