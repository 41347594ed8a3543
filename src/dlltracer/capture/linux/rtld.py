"""Backend "rtld": glibc's own loader log, switched on in the running process.

Needs no restart, no root, no ptrace and no compiler. Sees every image that any thread loads or fails to load through
the loader, with every place tried. Does not see what a program maps without the loader.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from ...errors import BackendUnavailable
from ..backend import LOCK_SECONDS, Availability, LibraryFirst
from ..marks import OWN_BEGIN, OWN_END
from .debug_mask import DebugMaskPatch
from .loader_log import DRAIN_AT, Listener, LoaderLog, the_loader_log
from .log_file import LeftLog, open_log, out_of_the_way, set_variables_for_children, view_of_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...model.events import Event
    from ...model.recording import Recording
    from .decoding import Decoding

NAME = "rtld"


class RtldBackend:
    """The mechanism.

    Arguments: `fd`, a file for the text that another process can read, also when this one is dead.
    """

    name = NAME

    def __init__(self, fd: int | None = None) -> None:
        self._fd = fd

    def availability(self) -> Availability:
        """Return whether the two words of the loader are found. Only the start of a trace proves that they work."""
        try:
            DebugMaskPatch().protection()
        except BackendUnavailable as error:
            return Availability(False, error.reason, error.remedy)
        return Availability(True)

    def start(self, *, raw: bool = False, live: bool = False) -> RtldSession:
        """Switch the log on. Raises `BackendUnavailable`."""
        return RtldSession(the_loader_log(), raw, self._fd, live)


class RtldSession(Listener):
    """A running capture: decodes its stretch of the log when it ends, and a long one while it grows."""

    is_completed_later = hides_failures = False
    can_wait = True

    def __init__(self, log: LoaderLog, raw: bool, fd: int | None, live: bool = False) -> None:
        super().__init__()
        # Reentrant: a signal handler may end the trace while the main thread decodes.
        self._lock = RLock()
        self._live = live
        self._log = log
        self._raw = raw
        self._decoding: Decoding | None = None
        self._text: list[bytes] = []
        self._is_long = False
        self._leaves = False
        if live:
            self._decoding = self._make_decoding()
        log.open(self, fd)

    def consume(self, text: bytes) -> None:
        """Keep the next piece of the text, and decode a long text while it grows."""
        self._text.append(text)
        # A reader of a live trace decodes it in a moment, outside of the lock of the log.
        if (self._is_long and not self._live) or sum(map(len, self._text)) >= DRAIN_AT:
            self._is_long = True
            if self._lock.acquire(not self._live):  # else its reader is decoding, and comes to this text next
                try:
                    self._decode()
                finally:
                    self._lock.release()

    def read(self, descriptor: int, end: int) -> None:
        """Decode the text up to position `end`, unless it stays in its file."""
        if not self._leaves:
            super().read(descriptor, end)

    def restart(self) -> None:
        self._lock, self._text, self._decoding = RLock(), [], self._make_decoding() if self._live else None

    @property
    def missed(self) -> int:
        """Events that waited for `drain` and were too many."""
        return 0 if self._decoding is None else self._decoding.missed

    def progress(self) -> int:
        """Length of the log in bytes."""
        return self._log.size()

    def drain(self, returned: Sequence[tuple[int, int]] = (), *, is_end: bool = False) -> Sequence[Event]:
        """The events that have come to light since the last call."""
        self._log.read_now(self)
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            return ()
        try:
            return self._decode().take(returned)
        finally:
            self._lock.release()

    def stop(self) -> Callable[[], Recording]:
        """Switch the log off, unless another trace needs it. Returns what decodes this trace's stretch of it."""
        self._log.close(self)
        notes, is_whole = self._log.notes, self._log.trouble is None
        return lambda: self._record(notes, is_whole)

    def leave(self, view: str) -> LeftLog | None:
        """Switch the log off, as `stop` does, and leave its text to the process that made its file.

        That process decodes it, so that the program need not import the decoder. `None` if only this process can
        decode it, and then the trace goes on: a part was taken from the file already, or other files are at the paths
        of the log for that process.

        Arguments: `view`, what `log_file.view_of_files` is for the other process.
        """
        try:
            program, folder = os.readlink("/proc/self/exe"), os.getcwd()
        except OSError:
            return None
        is_complete = not self._text and self._decoding is None and not self._raw
        if not is_complete or view != view_of_files() or program.endswith(" (deleted)"):
            return None
        self._leaves = True
        end = self._log.close(self)
        is_whole = self._log.trouble is None
        return LeftLog(
            self.position, end, notes=self._log.notes, is_whole=is_whole, program=program, folder=folder,
            called=(sys.orig_argv or [""])[0],
        )  # fmt: skip

    def _decode(self) -> Decoding:
        """Decode the text that was kept. The caller holds the lock."""
        if self._decoding is None:
            self._decoding = self._make_decoding()
        while self._text:  # piece by piece: a thread that loads adds some without this lock
            self._decoding.feed(self._text.pop(0))
        return self._decoding

    def _record(self, notes: tuple[str, ...], is_whole: bool) -> Recording:
        with self._lock:
            return self._decode().finish(notes, is_whole=is_whole)

    def _make_decoding(self) -> Decoding:
        """A new one. Not before it is needed: its imports would be in this trace."""
        with LibraryFirst():
            from .decoding import Decoding
        return Decoding(os.getpid(), raw=self._raw, live=self._live)


class JoinedLog:
    """The log of this process, at a path where our parent reads it while it grows."""

    def __init__(self, log: LoaderLog) -> None:
        self._log = log

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the reader of a recording that was made from this log."""
        return self._log.notes

    def leave(self) -> None:
        """Note no more requests of the program. The log itself goes on."""
        self._log.leave()


def begin_own_loads(prefix: str) -> None:
    """Note in the log that all further loads are dlltracer's own, until `join` has returned. Raises `OSError`."""
    descriptor = open_log(prefix)
    try:
        os.write(descriptor, OWN_BEGIN)
    finally:
        os.close(descriptor)


def join(prefix: str, *, children: bool) -> JoinedLog:
    """Let the loader of this process write to its log, with Python's requests noted in it.

    `children`: whether the programs that it starts are to do the same. Raises `BackendUnavailable`, `OSError`.
    """
    log = the_loader_log()
    descriptor = out_of_the_way(open_log(prefix))
    try:
        log.open(None, descriptor, prefix if children else None)
    except BaseException:
        os.close(descriptor)
        raise
    _close_loaders_own(log.former_fd, descriptor)
    set_variables_for_children(prefix, children)
    os.write(descriptor, OWN_END)
    return JoinedLog(log)


def _close_loaders_own(former: int, descriptor: int) -> None:
    """Close the descriptor that ld.so had opened for the same log: the program may count on its number."""
    try:
        if former > 2 and os.path.samestat(os.fstat(former), os.fstat(descriptor)):
            os.close(former)
    except OSError:
        return
