"""Backend "debugger": this process, with a helper process of its own as its debugger. Needs no Administrator.

The helper attaches at the start of a block and detaches at its end (attach.py). What Windows tells a debugger of images
is written down as the image records of the kernel, so that one rule judges both mechanisms (see `decode`).
"""

from __future__ import annotations

import os
import sys
import time

if sys.platform != "win32":
    raise ImportError("only for Windows: capture.select keeps other systems away")

from ...errors import BackendUnavailable
from ..backend import Availability
from ..requests import Watch
from .attach import HELD, LET_GO, NAME, Attachment, find_python, the_attachment
from .debug_bindings import is_debugged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...model.events import Event
    from ...model.recording import Recording


class DebuggerBackend:
    """The mechanism."""

    name = NAME

    def availability(self) -> Availability:
        """Whether this process is free for a debugger, and a Python is there to be one."""
        try:
            find_python()
        except BackendUnavailable as error:
            return Availability(False, error.reason, error.remedy)
        return Availability(False, HELD, LET_GO) if is_debugged() else Availability(True)

    def start(self, *, raw: bool = False) -> DebuggerSession:
        """Attach. Raises `BackendUnavailable`, `TracePermissionError` or `TraceStartError`."""
        return DebuggerSession(the_attachment(), raw)


class DebuggerSession:
    """A running capture of this process."""

    def __init__(self, attachment: Attachment, raw: bool) -> None:
        self._attachment = attachment
        self._raw = raw
        self._wall, self._clock = time.time(), time.perf_counter_ns()
        self._watch = Watch()
        self._attributed = self._watch.start()
        try:
            self._helper, self._start = attachment.open()
        except BaseException:
            self._watch.stop()
            raise

    def stop(self) -> Recording:
        """Detach, unless another trace needs the helper, and decode this trace's stretch of what it wrote."""
        try:
            heard = self._attachment.close(self._helper)
        finally:
            requests = self._watch.stop()
        from ...model.recording import Losses, Recording
        from .bindings import query_dos_devices
        from .debug_decode import Account, replay
        from .decode import debug_events
        from .finalpath import as_final

        account, pid = Account(query_dos_devices()), os.getpid()
        undecodable = replay(heard.text, self._start, pid, account)
        notes = account.notes() + heard.notes
        if not heard.is_whole:
            notes += (f"the helper process {self._helper.pid} ended before the block did: what came then is not known",)
        if not self._attributed:
            notes += ("another audit hook refused ours: loads have no Python import",)
        if self._raw:
            events: tuple[Event, ...] = debug_events(account.records)
        else:
            events = account.events([as_final(one) for one in requests], pid, self._wall, self._clock)
        return Recording(NAME, events, pid, Losses(events=heard.lost, undecodable=undecodable), notes)
