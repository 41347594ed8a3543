"""Asks `dlltracer why` on this machine."""

from __future__ import annotations

import os
import subprocess
import sys

from scenarios.scenario import Question

STATUS = {"imported": 0, "explained": 1, "undecided": 4}


def ask_why(question: Question, *, timeout: float = 60) -> str:
    """The JSON that it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LD_", "PYTHON"))}
    done = subprocess.run(
        [*question.prefix, question.python or sys.executable, "-m", "dlltracer", "why", "--json", *question.arguments],
        cwd=question.folder,
        env={**environment, **question.environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode not in STATUS.values() or not done.stdout:
        raise AssertionError(f"status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
