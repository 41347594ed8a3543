"""`python -m dlltracer`, and the console script."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; never returns."""
    from .cli.main import main as run

    run()


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        # -m puts the current folder first: a json.py of the user's there must not become ours. The program to trace
        # is not concerned, it runs in a process of its own.
        del sys.path[0]
    main()
