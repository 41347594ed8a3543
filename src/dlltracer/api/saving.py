"""A run as one saved trace: with its machine, its files, its verdict, and all that the verdict rests on."""

from __future__ import annotations

from dataclasses import dataclass

from .. import __version__
from ..host.machine import describe_named_host
from ..model.recording import Recording
from ..model.saved import SavedTrace
from .image_facts import facts_of_images
from .saved_case import case_to_plain
from .search_places import read_places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.crash import Crash
    from ..model.failure import Failure, ProcessFacts
    from .explain import Explained

NOT_TRACED = "none"
"""In the place of a mechanism's name."""


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run besides its recording. Attributes are those of `SavedTrace` by the same names."""

    what: str
    command: tuple[str, ...] = ()
    started: float | None = None
    status: int | None = None
    process: ProcessFacts | None = None
    failure: Failure | None = None
    crash: Crash | None = None


def begin_trace(run: RunFacts, backend: str) -> SavedTrace:
    """What is known of a run when it begins."""
    return SavedTrace(
        Recording(backend), run.what, __version__, run.started, describe_named_host(), command=run.command
    )  # fmt: skip


def end_trace(run: RunFacts, recording: Recording | None, explained: Explained | None) -> SavedTrace:
    """What is known when it has ended. Looks at the files that loaded, as they are now."""
    recorded = recording if recording is not None else Recording(NOT_TRACED, notes=("there was no trace",))
    case = explained.case if explained is not None else None
    process = run.failure.process if run.failure is not None else run.process
    if process is None and case is not None:
        process = case.process
    images = facts_of_images(recorded, process)
    return SavedTrace(
        recorded,
        run.what,
        __version__,
        run.started,
        describe_named_host(),
        process,
        run.failure,
        run.crash,
        run.status,
        explained.diagnosis if explained is not None else None,
        case_to_plain(case) if case is not None else None,
        images,
        command=run.command,
        places=read_places(process, recorded, images) if process is not None else None,
    )
