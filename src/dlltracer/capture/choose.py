"""Chooses a mechanism that works here, and names those of this system. Light, as capture/backend.py: a trace begins
with it."""

from __future__ import annotations

import sys

from ..errors import BackendUnavailable, UnknownBackend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .backend import Backend, Session

BACKEND_NAMES = ("auto", "etw", "etw+loader", "debugger", "rtld", "seccomp", "snapshot")
"""What `Trace(backend=...)` and `--backend` take."""


OUTSIDE = "seccomp"
"""The mechanism that `dlltracer run` and `dlltracer why` have alone, and `Trace` never."""


def make_backend(name: str) -> Backend:
    """The mechanism of that name. Raises `UnknownBackend`, or `BackendUnavailable` if it is another system's."""
    check_backend_name(name)
    if sys.platform == "linux":
        if name == "rtld":
            from .linux.rtld import RtldBackend

            return RtldBackend()
        if name == "snapshot":
            from .snapshots import SnapshotBackend, make_reader

            return SnapshotBackend(make_reader)
        if name == OUTSIDE:
            from .linux.seccomp_notify import SeccompBackend

            return SeccompBackend()
    if sys.platform == "win32":
        if name in ("etw", "etw+loader"):
            from .windows.etw.backend import EtwBackend

            return EtwBackend(loader_events=name == "etw+loader")
        if name == "debugger":
            from .windows.debugger.backend import DebuggerBackend

            return DebuggerBackend()
    if sys.platform == "darwin" and name == "snapshot":
        from .snapshots import NOTE, SnapshotBackend, make_dyld_reader

        return SnapshotBackend(make_dyld_reader, NOTE)
    raise BackendUnavailable(name, f"it is a mechanism of another system than {sys.platform!r}", _use_auto())


def _use_auto() -> str:
    names = ", ".join(candidates()) + (" (and seccomp, for dlltracer run and why)" if sys.platform == "linux" else "")
    return f"Here there is {names}; backend='auto' takes the best that works" if names else ""


def check_backend_name(name: str) -> None:
    """Raise `UnknownBackend` unless there is a mechanism of that name."""
    if name not in BACKEND_NAMES:
        raise UnknownBackend(name, BACKEND_NAMES)


def default_backend_name() -> str:
    """The default of `Trace`: on Windows the mechanism that its users know; elsewhere "auto", the best that works."""
    return "etw" if sys.platform == "win32" else "auto"


def candidates() -> tuple[str, ...]:
    """The mechanisms of this platform, best first."""
    return {"win32": ("etw", "debugger"), "linux": ("rtld", "snapshot"), "darwin": ("snapshot",)}.get(sys.platform, ())


NOT_USED = " was not used: "
"""Between the name of a better mechanism and the reason, in the notes of a recording."""


def note_unused(name: str, refusal: str) -> str:
    """Return the note that a better mechanism was not used, and why, without its advice to take another one."""
    reason = refusal.removeprefix(f"backend {name!r} is not available here: ")
    return f"{name}{NOT_USED}{reason.partition('. Use backend=')[0]}"


def start_best(*, raw: bool, live: bool = False) -> tuple[Session, tuple[str, ...]]:
    """Start the best mechanism that works here.

    Arguments as of `Backend.start`. Returns the session, and of each better mechanism why it was not taken. When none
    works, raises what the first one raised; `BackendUnavailable` on a platform that has none.
    """
    if not candidates():
        raise BackendUnavailable("auto", f"no mechanism exists for platform {sys.platform!r}")
    refusals: list[str] = []
    first: OSError | None = None
    for name in candidates():
        try:
            return make_backend(name).start(raw=raw, live=live), tuple(refusals)
        except OSError as error:
            first = first or error
            refusals.append(note_unused(name, str(error)))
    assert first is not None
    raise first
