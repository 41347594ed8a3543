"""Run the program on Windows as its debugger, for `why`: needs no privilege, and sees how a crash came.

The program's own requests of the loader come home in a file, written as they happen: a crash takes nothing with it.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace

from ..capture.linux.marks import split_text
from ..capture.windows.debugger import run_debugged
from ..host.failure import read_failure
from ..model.recording import Recording
from ..model.request import Request
from .child import RUNNER, Ending, interpreter, read_result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .program import Program

NAME = "debugger"


def run_debugged_child(program: Program, *, python: str | None = None, said: int | None = None) -> Ending:
    """Run the program to its end under our debugger. Arguments and result as of `child.run_child`.

    Raises `TraceStartError` when it cannot be debugged, `BackendUnavailable` where there are no debuggers of this kind.
    """
    with tempfile.TemporaryDirectory(prefix="dlltracer-", ignore_cleanup_errors=True) as folder:
        result = os.path.join(folder, "result")
        command = [
            *([python] if python is not None else interpreter()), "-X", "faulthandler", RUNNER, result, "-", NAME,
            program.kind.value, program.name, *program.arguments,
        ]  # fmt: skip
        asked: list[Request] = []

        def requests() -> list[Request]:
            asked.extend(_read_requests(result))
            return asked

        run = run_debugged(command, output=said, requests=requests)
        word = read_result(result)
        if word is not None and word["outcome"] == "not begun":
            return Ending(run.status, begun=False)
        recording = Recording(NAME, run.events, run.pid, notes=run.notes)
        return Ending(
            run.status, recording, failure=read_failure(word), crash=run.crash, requests=tuple(asked),
            added_folders=_read_folders(result),
        )  # fmt: skip


def _read_folders(result: str) -> tuple[str, ...]:
    try:
        with open(f"{result}.folders", encoding="utf-8", errors="surrogatepass") as file:
            return tuple(file.read().splitlines())
    except OSError:
        return ()


def _read_requests(result: str) -> list[Request]:
    """What the program asked of the loader; when it ended by itself, with what is known about the ends of the calls."""
    try:
        with open(f"{result}.requests", "rb") as file:
            data = file.read()
    except OSError:
        return []
    requests = [item for item in split_text(data) if isinstance(item, Request)]
    word = read_result(result)
    ends = word.get("ends") if word is not None else None
    if not isinstance(ends, list) or len(ends) != len(requests):
        return requests
    return [
        replace(request, succeeded=succeeded, idle_clock=idle)
        for request, (succeeded, idle) in zip(requests, ends, strict=True)
    ]
