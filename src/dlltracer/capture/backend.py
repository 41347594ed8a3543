"""What a mechanism must offer. Kept free of dataclasses and typing at run time: it is imported before the traced
code runs, and `dataclasses` alone would bring nine modules, one of them native on some builds."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..model.recording import Recording

    class Session(Protocol):
        """A running capture."""

        def stop(self) -> Recording:
            """End it and return everything it saw, complete: nothing of the block arrives later.

            Restores whatever the start changed, also when it raises.
            """

    class Backend(Protocol):
        """A mechanism, as a row of the table in `capture.select` makes it."""

        @property
        def name(self) -> str: ...

        def availability(self) -> Availability:
            """Whether it can work in this process, without changing anything."""

        def start(self, *, raw: bool = False) -> Session:
            """Begin to capture this process; `raw` asks for `DebugEvent`s only.

            Raises `BackendUnavailable`, `TracePermissionError` or `TraceStartError`, and then leaves nothing behind.
            """


class Availability:
    """Whether a mechanism can work here: `ok`, else the `reason` and a `remedy` (possibly empty)."""

    __slots__ = ("ok", "reason", "remedy")

    def __init__(self, ok: bool, reason: str = "", remedy: str = "") -> None:
        self.ok = ok
        self.reason = reason
        self.remedy = remedy

    def __repr__(self) -> str:
        return f"Availability(ok={self.ok}, reason={self.reason!r}, remedy={self.remedy!r})"
