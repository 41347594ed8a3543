"""The recording of one process from its loader's log: decoded piece by piece, examined, bounded."""

from __future__ import annotations

import errno
import os
import re
import sys

if sys.platform != "linux":
    raise ImportError("only for Linux: capture.select keeps other systems away")

from ...model.events import DebugEvent, LoadFailedEvent
from ...model.recording import Losses, Recording
from ..kept_events import KeptEvents
from .decode import LoaderTextDecoder
from .refusal import OWN_PROGRAM, examine_failure, is_same_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .loaderstate import Change
    from .log_file import LeftLog

_BACKEND = "rtld"
_PIECE = 1 << 20

_BARRIER = re.compile(rb"(opening|closing) file=\S*/libc\.so\.6\b.*direct_opencount")
"""A line of the barrier that ended the trace (`DebugMaskPatch.barrier`)."""


class Decoding:
    """A recording in the making.

    Arguments: `pid`, the process; `raw`, the lines as they are, one `DebugEvent` a line; `program` and `folder` of
    another process, as of `examine_failure`.
    """

    def __init__(self, pid: int, *, raw: bool = False, program: str = OWN_PROGRAM, folder: str = "") -> None:
        self._pid = pid
        self._program = program
        self._folder = folder
        self._raw = raw
        self._decoder = LoaderTextDecoder(pid)
        self._kept = KeptEvents()
        self._rest = b""

    def feed(self, text: bytes) -> None:
        """Decode the next piece of the text, cut anywhere."""
        try:
            if self._raw:
                text = self._rest + text
                end = text.rfind(b"\n") + 1
                self._rest = text[end:]
                self._keep_lines(text[:end])
            else:
                self._keep(self._decoder.feed(text))
        except BaseException:
            # Above all KeyboardInterrupt, or a stack that was nearly full: what of the piece was not decoded is lost.
            self._decoder.resynchronise()
            raise

    def finish(self, notes: tuple[str, ...] = (), *, ended: bool = True, is_whole: bool = True) -> Recording:
        """The recording. Arguments: `ended` as of `decode_loader_text`; `is_whole`, nothing is missing at the end."""
        if self._raw:
            self._keep_lines(self._rest)
            lines = list(self._kept.take())
            while lines and isinstance(lines[-1], DebugEvent) and _BARRIER.search(lines[-1].data):
                lines.pop()
            losses = Losses(events=self._kept.dropped)
            return Recording(_BACKEND, tuple(lines), self._pid, losses, notes + self._kept.notes())
        self._keep(self._decoder.finish(ended and is_whole))
        foreign = self._decoder.foreign
        if foreign:
            notes += (f"{foreign} lines were written by a child process forked in C code and are not shown",)
        image = self._decoder.initialising()
        if not ended and image:
            notes += (f"the process ended while or after the initialiser of {image} ran",)
        losses = Losses(events=self._kept.dropped, undecodable=self._decoder.undecodable)
        return Recording(_BACKEND, self._kept.take(), self._pid, losses, notes + self._kept.notes())

    def _keep(self, changes: list[Change]) -> None:
        for event, doubt in changes:
            if isinstance(event, LoadFailedEvent):
                if doubt is not None and is_same_file(event, doubt, folder=self._folder):
                    continue
                event = examine_failure(event, program=self._program, folder=self._folder)  # noqa: PLW2901
            self._kept.add(event)

    def _keep_lines(self, text: bytes) -> None:
        import uuid  # raw events are rare: their modules are not imported by whoever only decodes

        from .loader_log import without_marks

        provider = uuid.uuid5(uuid.NAMESPACE_DNS, "rtld.dlltracer")
        for line in without_marks(text).split(b"\n"):
            if re.fullmatch(rb" *\d+:\t.+", line):
                self._kept.add(DebugEvent(provider, 0, b"", line))


def read_recording(fd: int, pid: int, notes: tuple[str, ...] = (), *, ended: bool = False) -> Recording:
    """Return what a process that died left in the file of its `RtldBackend`; `ended` as in `decode_loader_text`."""
    decoding = Decoding(pid)
    for text in _pieces(fd):
        decoding.feed(text)
    return decoding.finish(notes, ended=ended)


def read_left_log(fd: int, pid: int, left: LeftLog) -> Recording:
    """Return what a process left to us in the file of its `RtldBackend` when it ended its trace.

    Raises `OSError` if the file has less than was left.
    """
    decoding = Decoding(pid, program=left.program, folder=left.folder)
    position = left.start
    while position < left.end:
        text = os.pread(fd, min(left.end - position, _PIECE), position)
        if not text:
            raise OSError(errno.ENODATA, "the loader log was cut short")
        position += len(text)
        decoding.feed(text)
    return decoding.finish(left.notes, is_whole=left.is_whole)


def read_initialising(fd: int, pid: int) -> str | None:
    """Return the image whose initialiser was running when that process died; `None` if none was."""
    decoder = LoaderTextDecoder(pid)
    for text in _pieces(fd):
        decoder.feed(text)
    decoder.finish(False)
    return decoder.initialising()


def _pieces(fd: int) -> Iterator[bytes]:
    """Yield the text of a log, from where its process has not released it; a NUL byte stands for the rest."""
    try:
        position = os.lseek(fd, 0, os.SEEK_DATA)
    except OSError:  # it is empty, or its file system does not know holes
        position = 0
    if position:
        yield b"\0"
    while text := os.pread(fd, _PIECE, position):
        yield text
        position += len(text)
