"""Which events of a recording the usual tree shows: what is obvious is left out, and counted (-v shows all).

In every tree: the parts of the C library and the loader, where nothing hangs on them. In a large one also: extension
modules that needed no other library; what is left of an import then stands directly below the import that was typed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..model.events import LoadFailedEvent, Phase
from ..model.light import dataclass, replace
from ..model.words import label_of
from .counts import FinalEvent
from .drawing import file_name

_OBVIOUS = re.compile(
    r"(?:libc|libm|libpthread|libdl|librt|libutil|libresolv|libanl|libnsl|libmvec)(?:-2\.\d+)?\.so(?:\.\d+)?"
    r"|ld-linux[\w.-]*|ld-musl[\w.-]*|ld64?\.so\.\d+|ld-2\.\d+\.so|linux-(?:vdso|gate)\.so\.1|libc\.musl-[\w.-]*"
    r"|(?:ntdll|kernel32|kernelbase|ucrtbase)\.dll|(?:api|ext)-ms-[\w-]+\.dll",
    re.IGNORECASE,
)
"""Names of what every process has: the parts of glibc and musl, the loader, the base of Windows."""

LARGE = 40
"""Images of a tree that fills more than a screen: extension modules that needed nothing are folded."""

_NAMED = 8
"""Names of modules that were folded."""
_NAME = 32
"""Characters of such a name."""


@dataclass(frozen=True)
class BriefEvents:
    """The events to show. Attributes: `folded`, for an import the names of its modules that are left out; `obvious`,
    how many images are left out as parts of the system."""

    events: tuple[FinalEvent, ...]
    folded: dict[str, list[str]]
    obvious: int = 0


def choose_events(events: Sequence[FinalEvent]) -> BriefEvents:
    """Return what the usual tree shows of the events."""
    askers = {event.requested_by for event in events}
    kept = [event for event in events if not _is_obvious(event, askers)]
    obvious = len(events) - len(kept)
    if len(kept) <= LARGE:
        return BriefEvents(tuple(kept), {}, obvious)
    askers = {event.requested_by for event in kept}
    folded: dict[str, list[str]] = {}
    shown: list[FinalEvent] = []
    for event in kept:
        if event.imports and event.phase is Phase.DIRECT and event.path not in askers and not _has_failed(event):
            folded.setdefault(event.imports[0], []).append(label_of(event.imports[-1], _NAME))
        elif event.imports:
            shown.append(replace(event, imports=event.imports[:1]))
        else:
            shown.append(event)
    return BriefEvents(tuple(shown), folded, obvious)


def folded_title(names: Sequence[str], more: str) -> str:
    """Return the line for modules that are left out: "… 3 modules that needed no other library: a, b, c"."""
    modules = "module" if len(names) == 1 else "modules"
    listed = ", ".join(names[:_NAMED]) + (f", {more}" if len(names) > _NAMED else "")
    return f"{more} {len(names)} {modules} that needed no other library: {listed}"


def _is_obvious(event: FinalEvent, askers: set[str | None]) -> bool:
    name = file_name(event.need or event.path)
    return not _has_failed(event) and event.path not in askers and _OBVIOUS.fullmatch(name) is not None


def _has_failed(event: FinalEvent) -> bool:
    return isinstance(event, LoadFailedEvent)
