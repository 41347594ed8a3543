"""The script that is started in place of the program, by path: `child_main.py RESULT LOG BACKEND KIND NAME [ARGS]`.

cli/runner.py has the meaning of the arguments. All else is in cli/child.py: Python compiles a script at each start, and
a module once.
"""

from __future__ import annotations

import sys


def _import_core() -> None:
    """Import dlltracer, from where this file lies and nowhere else, and leave the path as it was."""
    # Python 3.10 has no safe_path: there, only -I keeps the folder of the script off the path.
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        del sys.path[0]
    root = __file__.replace("\\", "/").rsplit("/", 3)[0]
    sys.path.insert(0, __file__[: len(root)])
    import dlltracer  # noqa: F401 - its submodules are found through it from now on

    del sys.path[0]


if __name__ == "__main__":
    _import_core()
    from dlltracer.cli.child import main

    main(__file__)
