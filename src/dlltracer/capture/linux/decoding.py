"""Makes the recording of one process from its loader log: decoded piece by piece, examined, bounded.

glibc passes over a file for another machine, does not log why, and reports "No such file". `examine_failure` looks at
the file when the trace ends. That is later than the search: the outcome is about the file that is there now.
"""

from __future__ import annotations

import errno
import os
import re
import sys

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from ...model.events import FOLDER_LOCKED, DebugEvent, FailureKind, ImageEvent, LoadFailedEvent, Probe, ProbeOutcome
from ...model.light import replace
from ...model.recording import KeptEvents, Losses, Recording
from .decode import LoaderTextDecoder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...model.events import Event
    from .loaderstate import Change
    from .log_file import LeftLog


MOST_WAITING = 100_000
"""Events that wait for outputs which are slower than the loader."""

OWN_PROGRAM = "/proc/self/exe"


def examine_failure(event: LoadFailedEvent, *, program: str = OWN_PROGRAM, folder: str = "") -> LoadFailedEvent:
    """The event with the outcome of each of its probes, and if a file is there, the kind REFUSED with a reason.

    Arguments: `program`, the file that the process runs; `folder`, what its relative paths start from. Both are for
    another process than this one.
    """
    if event.kind is not FailureKind.NOT_FOUND or not event.probes:
        return event
    probes = tuple(_look(probe, program, folder) for probe in event.probes)
    present = {probe.path: probe.reason for probe in probes if probe.outcome is ProbeOutcome.PRESENT}
    if not present:
        return replace(event, probes=probes)
    reason = "; ".join(f"{path}: {why}" for path, why in present.items())
    return replace(event, probes=probes, kind=FailureKind.REFUSED, reason=reason)


def is_same_file(event: ImageEvent, image: str, *, folder: str = "") -> bool:
    """Return whether a place tried for `event` is the file of `image`: glibc then takes the image that it has already.

    `folder` as of `examine_failure`.
    """
    for probe in event.probes or ():
        try:
            if os.path.samefile(os.path.join(folder, probe.path), os.path.join(folder, image)):
                return True
        except OSError:
            continue
    return False


def _look(probe: Probe, program: str, folder: str) -> Probe:
    if probe.outcome is ProbeOutcome.NO_ENTRY:
        return probe
    path = os.path.join(folder, probe.path)
    try:
        os.lstat(path)
    except PermissionError:
        return replace(probe, outcome=ProbeOutcome.PASSED, reason=FOLDER_LOCKED)
    except (OSError, ValueError):
        return probe if probe.reason else replace(probe, outcome=ProbeOutcome.ABSENT)
    reason = describe_refusal(path, program) or probe.reason or "the loader did not say why it would not take it"
    return replace(probe, outcome=ProbeOutcome.PRESENT, reason=reason)


def _why_unreachable(path: str) -> str:
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EACCES):
            return "leads back to itself" if error.errno == errno.ELOOP else "lies where this user may not look"
    return "does not exist"


def describe_refusal(path: str, program: str = OWN_PROGRAM) -> str | None:
    """Return why a file is no image for a process of `program`, judged by its first 20 bytes (elf(5)).

    `None` if they show no reason.
    """
    if os.path.islink(path) and not os.path.exists(path):
        return f"a symbolic link to {os.readlink(path)}, which {_why_unreachable(path)}"
    if os.path.isdir(path):
        return "a folder, not a file"
    try:
        head = _read_head(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    try:
        return _compare_heads(head, _read_head(program))
    except (OSError, IndexError):
        return None  # the program itself is gone, or is none


def _compare_heads(head: bytes, own: bytes) -> str | None:
    if head[:4] != b"\x7fELF":
        return "not an ELF file" if head else "an empty file"
    if len(head) < 20:
        return f"an ELF file cut short ({len(head)} bytes)"
    made, wanted = _kind_of(head), _kind_of(own)
    if made == wanted:
        return None
    from ...model.elf import describe_kind  # the names of processors, for a rare failure

    return f"made for {describe_kind(*made)}, this process is {describe_kind(*wanted)}"


def _kind_of(head: bytes) -> tuple[int, bool, int]:
    """Bits, byte order and machine, as `describe_kind` takes them."""
    little = head[5] == 1
    return 32 if head[4] == 1 else 64, little, int.from_bytes(head[18:20], "little" if little else "big")


def _read_head(path: str) -> bytes:
    # O_NONBLOCK: a probe may be a fifo, and reading must not wait for its writer.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(fd, 20)
    finally:
        os.close(fd)


_BACKEND = "rtld"
_PIECE = 1 << 20

_BARRIER = rb"(opening|closing) file=\S*/libc\.so\.6\b.*direct_opencount"
"""A line of the barrier that ended the trace (`DebugMaskPatch.barrier`)."""


def _own_name() -> dict[str, str]:
    """Return the path of the program of this process, by the name that the loader has for it."""
    try:
        return {sys.orig_argv[0]: os.readlink(OWN_PROGRAM)}
    except (IndexError, OSError):  # no arguments at all; no /proc
        return {}


class Decoding:
    """A recording in the making.

    Arguments: `pid`, the process; `raw`, the lines as they are, one `DebugEvent` a line; `live`, keep the events for
    `take`, too; `program` and `folder` of another process, as of `examine_failure`; `called`, its argv[0].

    Attributes: `missed`, how many events were too many to wait for `take`.
    """

    def __init__(
        self, pid: int, *, raw: bool = False, live: bool = False, program: str = OWN_PROGRAM, folder: str = "",
        called: str = "",
    ) -> None:  # fmt: skip
        self.missed = 0
        self._fresh: list[Event] | None = [] if live else None
        self._held: list[DebugEvent] = []
        if raw and live:
            import uuid  # noqa: F401 - it brings an extension module: now, before the traced code runs
        self._pid = pid
        self._program = program
        self._folder = folder
        self._raw = raw
        self._decoder = LoaderTextDecoder(pid, names=_own_name() if program == OWN_PROGRAM else {called: program})
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
        """The recording.

        Arguments: `ended` as of `LoaderState.finish`; `is_whole`, nothing is missing at the end.
        """
        if self._raw:
            self._keep_lines(self._rest)
            lines = self._kept.take()
            losses = Losses(events=self._kept.dropped)
            return Recording(_BACKEND, lines, self._pid, losses, notes + self._kept.notes())
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
            self._keep_event(event)

    def _keep_event(self, event: Event) -> None:
        self._kept.add(event)
        if self._fresh is None:
            return
        if len(self._fresh) < MOST_WAITING:
            self._fresh.append(event)
        else:
            self.missed += 1

    def take(self, returned: Sequence[tuple[int, int]] = ()) -> Sequence[Event]:
        """The events since the last call, of a decoding that is `live`; `returned` as of `Session.drain`."""
        if not self._raw:
            for tid, clock in returned:
                self._keep(self._decoder.note_return(tid, clock))
        fresh, self._fresh = self._fresh or (), []
        return fresh

    def _keep_lines(self, text: bytes) -> None:
        import uuid  # brings an extension module, and raw events are rare

        from .loader_log import without_marks  # brings ctypes, which whoever only decodes does without

        provider = uuid.uuid5(uuid.NAMESPACE_DNS, "rtld.dlltracer")
        for line in without_marks(text).split(b"\n"):
            if re.fullmatch(rb" *\d+:\t.+", line):
                # The barrier that ends a trace leaves lines, which are the last ones.
                event = DebugEvent(provider, 0, b"", line)
                if re.search(_BARRIER, line):
                    self._held.append(event)
                    continue
                held, self._held = self._held, []
                for one in (*held, event):
                    self._keep_event(one)


def read_recording(fd: int, pid: int, notes: tuple[str, ...] = (), *, ended: bool = False) -> Recording:
    """Return what a process that died left in the log of its `RtldBackend`.

    Arguments: `fd`, of the log; `pid`, of that process; `ended` as of `LoaderState.finish`.
    """
    decoding = Decoding(pid)
    for text in _pieces(fd):
        decoding.feed(text)
    return decoding.finish(notes, ended=ended)


def read_left_log(fd: int, pid: int, left: LeftLog) -> Recording:
    """Return what a process left to us in the log of its `RtldBackend` when it ended its trace.

    Arguments: `fd`, of the log; `pid`, of that process; `left`, which part of the log it is, and whose.
    Raises `OSError` if the file has less than was left.
    """
    decoding = Decoding(pid, program=left.program, folder=left.folder, called=left.called)
    position = left.start
    while position < left.end:
        text = os.pread(fd, min(left.end - position, _PIECE), position)
        if not text:
            raise OSError(errno.ENODATA, "the loader log was cut short")
        position += len(text)
        decoding.feed(text)
    return decoding.finish(left.notes, is_whole=left.is_whole)


def read_initialising(fd: int, pid: int) -> str | None:
    """Return the image whose initialiser was running when a process died, by its log; `None` if none was."""
    decoder = LoaderTextDecoder(pid)
    for text in _pieces(fd):
        decoder.feed(text)
    decoder.finish(False)
    return decoder.initialising()


def _pieces(fd: int) -> Iterator[bytes]:
    """Yield the text of a log, from where its process has not released it; a NUL byte stands for the rest."""
    try:
        position = os.lseek(fd, 0, getattr(os, "SEEK_DATA", 3))  # PyPy lacks the constant (linux/fs.h)
    except OSError:  # it is empty, or its file system does not know holes
        position = 0
    if position:
        yield b"\0"
    while text := os.pread(fd, _PIECE, position):
        yield text
        position += len(text)
