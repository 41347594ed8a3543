"""The helper of a trace as a script, run by path in a process of its own: `debug_helper.py PID FILE READY STOP TARGET`.

It runs in an isolated interpreter (-I -S), which finds nothing but the standard library: dlltracer is imported from
where this file lies.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Import dlltracer, and do what the arguments say (see `debug_writer.serve`)."""
    root = __file__.replace("\\", "/").rsplit("/", 4)[0]
    sys.path.insert(0, __file__[: len(root)])
    from dlltracer.capture.windows.debug_writer import serve

    serve(*map(int, sys.argv[1:]))


if __name__ == "__main__":
    main()
