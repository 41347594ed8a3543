"""Words that several rules use for places, copies and rules of a loader."""

from __future__ import annotations

import posixpath

from ..model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase
from ..model.words import RULES
from .loader_errors import DlProblem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.failure import PythonError
    from ..model.recording import Recording
    from ..model.tree import Binding
    from .environment import Copy
    from .loader_errors import DlError


def describe_rule(phase: Phase | None) -> str:
    """How a copy was chosen, for a sentence: "by RUNPATH"; empty where that is not known."""
    return RULES[phase].found if phase is not None else ""


def describe_choice(binding: Binding) -> str:
    """Which file a need led to, and why: "libx.so.1 is /a/libx.so.1, found by RUNPATH of /b/y.so"."""
    probe = next((probe for probe in binding.probes if probe.path == binding.path), None)
    rule = describe_rule(binding.phase)
    own = binding.phase in (Phase.RPATH, Phase.RUNPATH)
    whose = f" of {probe.origin}" if own and probe is not None and probe.origin else ""
    how = f"taken {rule}" if binding.phase is Phase.LOADED else f"found {rule}{whose}" if rule else ""
    return f"{binding.need} is {binding.path}{f', {how}' if how else ''}"


def describe_copies(copies: tuple[Copy, ...], most: int = 2) -> str:
    """Where other copies lie, for a sentence: "/a/libx.so.1 (a folder of PATH)"."""
    shown = [f"{copy.path} ({copy.where})" for copy in copies[:most]]
    rest = len(copies) - most
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


def folder_of(path: str) -> str:
    """The folder of a file of Linux; "/" for one at the top."""
    return path.rpartition("/")[0] or "/"


def failures_behind(
    recording: Recording | None, error: PythonError | None, dl_error: DlError | None
) -> tuple[LoadFailedEvent, ...]:
    """The failures of the load that the exception is about, in order.

    Arguments:
        error: the exception; `None` for a process that died.
        dl_error: the loader's message in it, if it is one.
    Without a loader's message: the failures that nothing came after, which may or may not be the cause.
    """
    events = [
        event for event in (recording.events if recording else ()) if isinstance(event, LoadEvent | LoadFailedEvent)
    ]
    failures = [event for event in events if isinstance(event, LoadFailedEvent)]
    if not failures:
        return ()
    if error is None or dl_error is None or dl_error.problem is DlProblem.UNDECIDED:
        return _block(events, failures[-1]) if _nothing_follows(events, failures) else ()
    names = {name for name in (dl_error.library, dl_error.required_by, error.path) if name}
    anchor = next((event for event in reversed(failures) if _is_about(event, names)), None)
    if anchor is None:
        return ()
    if anchor.timestamp is None:
        return _block(events, anchor)
    same = (anchor.timestamp, anchor.imports)
    return tuple(event for event in failures if (event.timestamp, event.imports) == same)


def top_of(failures: tuple[LoadFailedEvent, ...]) -> str | None:
    """The image with which a failed load began: mapped and dropped, and not for another one; else the last failure."""
    dropped = [event for event in failures if event.kind in (FailureKind.DROPPED, None)]
    paths = {event.path for event in dropped}
    tops = [event.path for event in dropped if event.requested_by not in paths]
    if tops:
        return tops[-1]
    return failures[-1].path if failures else None


def _is_about(event: LoadFailedEvent, names: set[str]) -> bool:
    about = {event.path, event.need, event.requested_by}
    return bool(about & names) or any(posixpath.basename(path) in names for path in about if path)


def _nothing_follows(events: list[LoadEvent | LoadFailedEvent], failures: list[LoadFailedEvent]) -> bool:
    """Whether the trace ends with failures: no image came in for good after them."""
    dropped = {event.path for event in failures}
    for event in reversed(events):
        if isinstance(event, LoadFailedEvent):
            return True
        if event.path not in dropped:
            return False
    return False


def _block(events: list[LoadEvent | LoadFailedEvent], anchor: LoadFailedEvent) -> tuple[LoadFailedEvent, ...]:
    """The failures around one, up to the next image that came in for good."""
    dropped = {event.path for event in events if isinstance(event, LoadFailedEvent)}
    at = len(events) - 1 - events[::-1].index(anchor)
    first = last = at
    while first and (isinstance(events[first - 1], LoadFailedEvent) or events[first - 1].path in dropped):
        first -= 1
    while last + 1 < len(events) and (
        isinstance(events[last + 1], LoadFailedEvent) or events[last + 1].path in dropped
    ):
        last += 1
    return tuple(event for event in events[first : last + 1] if isinstance(event, LoadFailedEvent))
