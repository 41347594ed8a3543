"""Where a saved trace is from, in sentences for people."""

from __future__ import annotations

from datetime import datetime, timezone

from ..model.saved import HostFacts, SavedTrace
from ..model.words import describe_end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def describe_origin(trace: SavedTrace) -> tuple[str, ...]:
    """What was recorded, where and when, as far as that is known; and how it ended."""
    return tuple(_sentences(trace))


def describe_host(host: HostFacts) -> str:
    """The machine: "build7, Debian GNU/Linux 12 (bookworm), kernel 6.1, x86_64, glibc 2.36"."""
    return ", ".join(filter(None, (host.name, host.description or host.system, host.machine, host.c_library)))


def describe_start(trace: SavedTrace) -> str | None:
    """When it began, in UTC; `None` if that is not known."""
    if trace.started is None:
        return None
    try:
        return f"{datetime.fromtimestamp(trace.started, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, ValueError, OSError):
        return None


def _sentences(trace: SavedTrace) -> Iterator[str]:
    parts = [trace.what] if trace.what else []
    if trace.host is not None:
        parts.append(f"on {describe_host(trace.host)}")
    start = describe_start(trace)
    if start is not None:
        parts.append(f"at {start}")
    if trace.written_by:
        parts.append(f"by dlltracer {trace.written_by}")
    if parts:
        yield f"recorded: {', '.join(parts)}"
    if trace.status:
        yield f"it {describe_end(trace.status)}"
