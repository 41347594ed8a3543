"""Declares what a mechanism must offer. Kept free of dataclasses and typing at run time: it is
imported before the traced code runs, and `dataclasses` alone would bring nine modules, one of them native on some
builds."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from ..model.events import Event
    from ..model.recording import Recording
    class Session(Protocol):
        """A running capture."""

        @property
        def missed(self) -> int:
            """Number of events that `drain` did not return because too many were waiting. The recording has them."""

        @property
        def is_completed_later(self) -> bool:
            """True if the recording says more of the events than `drain` does."""

        @property
        def hides_failures(self) -> bool:
            """True if `progress` stays as it is when it becomes known that a load has failed."""

        @property
        def can_wait(self) -> bool:
            """True if `drain` may be called rarely: it does not miss what comes and goes between two calls, and returns
            everything that came before it."""

        def progress(self) -> int:
            """A number that grows when the loader does something. Quick, and from any thread."""

        def drain(self, returned: Sequence[tuple[int, int]] = (), *, is_end: bool = False) -> Sequence[Event]:
            """The events that have come to light since the last call, in order; the rest after `stop`.

            Only of a session that was started `live`, and from one thread at a time. `returned`: threads that have come
            back from the loader and do nothing until `drain` returns, as native id and `clock` of the request.
            `is_end`: the interpreter ends, and nothing will be known later.
            """

        def stop(self) -> Callable[[], Recording]:
            """End it, complete: nothing of the block arrives later. Returns what makes the recording of it, once.

            Restores whatever the start changed, also when it raises.
            """
    class Backend(Protocol):
        """A mechanism, as `make_backend` makes it."""

        @property
        def name(self) -> str: ...

        def availability(self) -> Availability:
            """Return whether the mechanism can work in this process, without changing anything."""

        def start(self, *, raw: bool = False, live: bool = False) -> Session:
            """Begin to capture this process; `raw` asks for `DebugEvent`s only, `live` for events before the end.

            Raises `BackendUnavailable`, `TracePermissionError` or `TraceStartError`, and then leaves nothing behind.
            """


class Availability:
    """Answer of a mechanism: `ok` if it can work here, else the `reason` and a `remedy` (possibly empty)."""

    __slots__ = ("ok", "reason", "remedy")

    def __init__(self, ok: bool, reason: str = "", remedy: str = "") -> None:
        self.ok = ok
        self.reason = reason
        self.remedy = remedy

    def __repr__(self) -> str:
        return f"Availability(ok={self.ok}, reason={self.reason!r}, remedy={self.remedy!r})"


class LibraryFirst:
    """While it is entered, imports find the standard library first.

    A dataclasses.py beside the program is the program's, and must not run for us. A frozen Python has no file for os,
    and its library comes first by itself.
    """

    def __enter__(self) -> None:
        file = getattr(os, "__file__", None)
        self._library = [os.path.dirname(file)] if file else []
        sys.path[:0] = self._library

    def __exit__(self, *error: object) -> None:
        for folder in self._library:
            sys.path.remove(folder)


LOCK_SECONDS = 0.1
"""How long a reader of a session waits for its lock. Who holds it may wait for the reader in turn: a thread whose
signal handler ends the trace, or one that waits for all threads inside dlopen."""

NO_PYDLL = "the ctypes of this Python has no PyDLL, as PyPy's"
"""A reason: calls of C that let no other Python code run."""
USE_RUN = "`dlltracer run` and `dlltracer why` trace this Python from outside"
"""What to do where no mechanism works in the process itself."""
