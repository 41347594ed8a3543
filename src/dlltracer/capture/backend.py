"""What a mechanism must offer. Kept free of dataclasses and typing at run time: it is imported before the traced
code runs, and `dataclasses` alone would bring nine modules, one of them native on some builds."""

from __future__ import annotations

import sys

from ..errors import BackendUnavailable, UnknownBackend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from ..model.recording import Recording
    class Session(Protocol):
        """A running capture."""

        def stop(self) -> Callable[[], Recording]:
            """End it, complete: nothing of the block arrives later. Returns what makes the recording of it, once.

            Restores whatever the start changed, also when it raises.
            """
    class Backend(Protocol):
        """A mechanism, as `make_backend` makes it."""

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


BACKEND_NAMES = ("auto", "etw", "etw+loader", "debugger", "rtld", "snapshot")
"""What `Trace(backend=...)` and `--backend` take."""


def make_backend(name: str) -> Backend:
    """The mechanism of that name. Raises `UnknownBackend`, or `BackendUnavailable` if it is another system's."""
    check_backend_name(name)
    if sys.platform == "linux":
        if name == "rtld":
            from .linux.rtld import RtldBackend

            return RtldBackend()
        if name == "snapshot":
            from .linux.snapshot import SnapshotBackend

            return SnapshotBackend()
    if sys.platform == "win32":
        if name in ("etw", "etw+loader"):
            from .windows.etw.backend import EtwBackend

            return EtwBackend(loader_events=name == "etw+loader")
        if name == "debugger":
            from .windows.debugger.backend import DebuggerBackend

            return DebuggerBackend()
    raise BackendUnavailable(name, f"it is a mechanism of another system than {sys.platform!r}", _use_auto())


def _use_auto() -> str:
    names = ", ".join(candidates())
    return f"Here there is {names}; backend='auto' takes the best that works" if names else ""


def check_backend_name(name: str) -> None:
    """Raise `UnknownBackend` unless there is a mechanism of that name."""
    if name not in BACKEND_NAMES:
        raise UnknownBackend(name, BACKEND_NAMES)


def default_backend_name() -> str:
    """The default of `Trace`: the mechanism that its users know; elsewhere "auto", which raises the reason."""
    return {"win32": "etw", "linux": "rtld"}.get(sys.platform, "auto")


def candidates() -> tuple[str, ...]:
    """The mechanisms of this platform, best first."""
    return {"win32": ("etw", "debugger"), "linux": ("rtld", "snapshot")}.get(sys.platform, ())


NOT_USED = " was not used: "
"""Between the name of a better mechanism and the reason, in the notes of a recording."""


def start_best(*, raw: bool) -> tuple[Session, tuple[str, ...]]:
    """Start the best mechanism that works here.

    Returns the session and why each better one was not taken. Raises what the first candidate raised when none works.
    """
    if not candidates():
        raise BackendUnavailable("auto", f"no mechanism exists for platform {sys.platform!r}")
    refusals: list[str] = []
    first: OSError | None = None
    for name in candidates():
        try:
            return make_backend(name).start(raw=raw), tuple(refusals)
        except OSError as error:
            first = first or error
            refusals.append(f"{name}{NOT_USED}{error}")
    assert first is not None
    raise first
