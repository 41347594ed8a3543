"""Runs inside a root: the command line of dlltracer, from the copies beside this file."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.argv[0] = "dlltracer"

from dlltracer.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
