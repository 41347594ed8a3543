"""Backend "rtld": glibc's own log of its loader, switched on in the running process.

Needs no restart, no root, no ptrace and no compiler. Sees every image that any thread loads or fails to load through
the loader, with every place tried. Does not see what a program maps without the loader.
"""

from __future__ import annotations

import os
import sys

if sys.platform != "linux":
    raise ImportError("only for Linux: capture.select keeps other systems away")

from ...errors import BackendUnavailable
from ..backend import Availability
from .debug_mask import DebugMaskPatch
from .loader_log import LoaderLog, the_loader_log, without_marks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...model.recording import Recording

NAME = "rtld"

UNATTRIBUTED = "another audit hook refused ours: loads have no Python import"
"""A note."""


class RtldBackend:
    """The mechanism.

    Arguments, if another process is to read the log, also when this one is dead: `fd`, the file for the text;
    `prefix`, for the files of forked children, as of `LoaderLog.open`.
    """

    name = NAME

    def __init__(self, fd: int | None = None, prefix: str | None = None) -> None:
        self._fd = fd
        self._prefix = prefix

    def availability(self) -> Availability:
        """Whether the loader's words are found; that they work is proved at the start of a trace only."""
        try:
            DebugMaskPatch().check()
        except BackendUnavailable as error:
            return Availability(False, error.reason, error.remedy)
        return Availability(True)

    def start(self, *, raw: bool = False) -> RtldSession:
        """Switch the log on. Raises `BackendUnavailable`."""
        return RtldSession(the_loader_log(), raw, self._fd, self._prefix)


class RtldSession:
    """A running capture."""

    def __init__(self, tap: LoaderLog, raw: bool, fd: int | None, prefix: str | None) -> None:
        self._tap = tap
        self._raw = raw
        self._pid, self._start = tap.open(fd, prefix)
        self._attributed = tap.attributed

    @property
    def attributed(self) -> bool:
        """Whether the requests of Python are noted."""
        return self._attributed

    @property
    def trouble(self) -> str | None:
        """Why the log may lack something, if it may."""
        return self._tap.trouble

    @property
    def former_fd(self) -> int:
        """The descriptor that the loader wrote to before."""
        return self._tap.former_fd

    def leave(self) -> None:
        """End it without reading it: who follows the log does that. The log itself goes on."""
        self._tap.leave()

    def stop(self) -> Recording:
        """Switch the log off, unless another trace needs it, and decode this trace's stretch of it."""
        text = self._tap.close(self._pid, self._start)
        notes = tuple(note for note in (None if self._attributed else UNATTRIBUTED, self._tap.trouble) if note)
        if self._raw:
            return raw_recording(text, os.getpid(), notes)
        return recording_of(text, os.getpid(), notes, is_whole=self._tap.trouble is None)


def recording_of(
    text: bytes, pid: int, notes: tuple[str, ...] = (), *, ended: bool = True, is_whole: bool = True
) -> Recording:
    """The recording in the loader's text of process `pid`.

    Arguments: `ended` as in `decode_loader_text`; `is_whole`: nothing is missing at the end of the text.
    """
    from ...model.events import LoadFailedEvent
    from ...model.recording import Losses, Recording
    from .decode import decode_loader_text
    from .refusal import examine_failure, is_same_file

    decoded = decode_loader_text(text, pid=pid, ended=ended and is_whole)
    events = tuple(
        examine_failure(event) if isinstance(event, LoadFailedEvent) else event
        for index, event in enumerate(decoded.events)
        if index not in decoded.doubts or not is_same_file(event, decoded.doubts[index])
    )
    if decoded.foreign:
        notes += (f"{decoded.foreign} lines were written by a child process forked in C code and are not shown",)
    if not ended and decoded.initialising:
        notes += (f"the process ended while or after the initialiser of {decoded.initialising} ran",)
    return Recording(NAME, events, pid, Losses(undecodable=decoded.undecodable), notes)


def raw_recording(text: bytes, pid: int, notes: tuple[str, ...] = ()) -> Recording:
    """The lines of the loader's text as they are, one `DebugEvent` a line."""
    import re
    import uuid

    from ...model.events import DebugEvent
    from ...model.recording import Recording

    provider = uuid.uuid5(uuid.NAMESPACE_DNS, "rtld.dlltracer")
    lines = [line for line in without_marks(text).split(b"\n") if re.fullmatch(rb" *\d+:\t.+", line)]
    # The last lines are those of the barrier that ended the trace (DebugMaskPatch.barrier).
    while lines and re.search(rb"(opening|closing) file=\S*/libc\.so\.6\b.*direct_opencount", lines[-1]):
        lines.pop()
    events = tuple(DebugEvent(provider, 0, b"", line) for line in lines)
    return Recording(NAME, events, pid, notes=notes)


def read_recording(fd: int, pid: int, notes: tuple[str, ...] = (), *, ended: bool = False) -> Recording:
    """What a process that died left in the memfd given to its `RtldBackend`; `ended` as in `decode_loader_text`."""
    return recording_of(_read_all(fd), pid, notes, ended=ended)


def read_initialising(fd: int, pid: int) -> str | None:
    """The image whose initialiser was running when that process died; `None` if none was."""
    from .decode import decode_loader_text

    return decode_loader_text(_read_all(fd), pid=pid, ended=False).initialising


def _read_all(fd: int) -> bytes:
    parts, position = [], 0
    while part := os.pread(fd, 1 << 20, position):
        parts.append(part)
        position += len(part)
    return b"".join(parts)
