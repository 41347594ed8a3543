"""`python -m dlltracer`, and the console script."""

from __future__ import annotations

import sys

_NOT_TRACED = 3
"""The exit status of a question that could not be traced (docs/reference/command-line.md)."""


def main() -> None:
    """Run the command line; never returns."""
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
    run()


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        # -m puts the current folder first: a json.py of the user's there must not become ours. The program to trace
        # is not concerned, it runs in a process of its own.
        del sys.path[0]
    main()
