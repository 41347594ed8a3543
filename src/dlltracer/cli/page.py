"""`--html FILE`: the page of a run, beside its usual report."""

from __future__ import annotations

import platform
import sys
import time

from .. import __version__
from ..model.recording import Recording
from ..model.saved import HostFacts, SavedTrace
from .output import open_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.finding import Diagnosis
    from .child import Ending


class Page:
    """A page to be written when a run has ended. `None` for a path stands for no page.

    The constructor makes sure that the file can be written, and raises `click.ClickException` when it cannot.
    """

    def __init__(self, path: str | None) -> None:
        self._target = None if path is None else open_target(path)
        self._started = time.time()

    def write(self, what: str, ending: Ending, verdict: Diagnosis | None) -> None:
        """Write it. Raises `OSError`."""
        if self._target is not None:
            from ..report.html import render_html

            self._target.write(render_html(saved_trace_of(what, ending, verdict, started=self._started)))

    def discard(self) -> None:
        """Take back what was prepared, if nothing was written."""
        if self._target is not None:
            self._target.discard()


def saved_trace_of(what: str, ending: Ending, verdict: Diagnosis | None, *, started: float | None = None) -> SavedTrace:
    """What is known of a run that has ended, as one value.

    Arguments: `what` was run, in words; `started`, in seconds since the epoch.
    """
    recording = ending.recording if ending.recording is not None else Recording("none")
    return SavedTrace(
        recording, what, __version__, started, _this_host(),
        process=None if ending.failure is None else ending.failure.process,
        failure=ending.failure, crash=ending.crash, status=ending.status, diagnosis=verdict,
    )  # fmt: skip


def _this_host() -> HostFacts:
    system = {"linux": "linux", "win32": "windows"}.get(sys.platform, sys.platform)
    library = " ".join(platform.libc_ver()).strip() if system == "linux" else ""
    return HostFacts(system, platform.platform(), platform.machine(), library or None)
