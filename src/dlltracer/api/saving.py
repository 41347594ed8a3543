"""A run as one saved trace: with its machine, its files, its verdict, and all that the verdict rests on."""

from __future__ import annotations

from dataclasses import replace

from .. import __version__
from ..host.machine import describe_named_host
from ..model.failure import Failure
from ..model.recording import Recording
from ..model.run import RunResult
from ..model.saved import SavedTrace
from .explain import Explained
from .image_facts import facts_of_images
from .saved_case import encode_case
from .search_places import read_places

NOT_TRACED = "none"
"""In the place of a mechanism's name."""


def begin_trace(what: str, command: tuple[str, ...], backend: str, started: float | None = None) -> SavedTrace:
    """What is known of a run when it begins: arguments are attributes of `SavedTrace` by the same names."""
    return SavedTrace(Recording(backend), what, __version__, started, describe_named_host(), command=command)


def end_trace(begun: SavedTrace, run: RunResult, explained: Explained | None) -> SavedTrace:
    """What is known when it has ended, of a trace that `begin_trace` made. Looks at the files that loaded."""
    recorded = run.recording if run.recording is not None else Recording(NOT_TRACED, notes=("there was no trace",))
    case = explained.case if explained is not None else None
    process = run.process if run.process is not None or case is None else case.run.process
    images = facts_of_images(recorded, process)
    return replace(
        begun, recording=recorded, process=process,
        failure=Failure(run.errors, process) if run.errors and process is not None else None, crash=run.crash,
        status=run.status, diagnosis=explained.diagnosis if explained is not None else None,
        case=encode_case(case) if case is not None else None, images=images,
        places=read_places(process, recorded, images) if process is not None else None,
    )  # fmt: skip
