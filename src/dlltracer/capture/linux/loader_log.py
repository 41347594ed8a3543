"""Switches the loader log of this process on while at least one trace listens, and hands out its text.

The loader has one mask and one descriptor, so a process has one log. Traces that nest or run side by side share it;
each reads its own stretch of the text. The text goes to a file in memory: writing to it never blocks, so the loader is
never held up, and nothing of ours runs under the loader's lock.

A long trace would fill the memory with text. When `DRAIN_AT` bytes have come, the listeners read them and the file
gives its memory back (a hole is punched into it): the positions of what follows stay the same.
"""

from __future__ import annotations

import errno
import os
import sys
from _thread import RLock

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from ...errors import BackendUnavailable
from ..backend import LOCK_SECONDS
from ..marks import FORKED, GAP, MARK_END, MARK_START, OWN_BEGIN, encode_request
from ..requests import Watch
from .debug_mask import USE_SNAPSHOT, WANTED, DebugMaskPatch, DebugWords, prove_patch
from .log_file import create_memory_file, open_log, out_of_the_way, punch_hole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..requests import RawRequest


_NAME = "dlltracer-loader-log"

DRAIN_AT = 4 << 20
"""Bytes of text that may wait to be read. Importing numpy, pandas, scipy and scikit-learn makes 0.2 MB: a trace of
ordinary length is decoded when it has ended, and nothing of it is imported before that."""

HELD = 64 << 20
"""Bytes of text that stay behind the place where it is read, for the other reader: the trace in the program and our
parent read the same log. The last 60,000 loads or so have left that much."""

_PIECE = 1 << 20


class Listener:
    """One trace's stretch of the log; its class says what becomes of the text (`consume`, `restart`).

    `position`: the bytes before it were read, or are of no interest.
    """

    def __init__(self) -> None:
        self.position = 0

    def consume(self, text: bytes) -> None:
        """Take in the next piece of the text, cut anywhere."""
        raise NotImplementedError

    def restart(self) -> None:
        """Forget all: this is a child made by fork, and its log begins anew."""
        raise NotImplementedError

    def read(self, descriptor: int, end: int) -> None:
        """Give the text up to position `end`, in bytes, to `consume`. Raises `OSError`."""
        while self.position < end:
            # pread(2), never read(2): all duplicates of a descriptor share its position (open(2)), also those that a
            # fork has left to other processes. Writers need no position, as O_APPEND writes at the end.
            text = os.pread(descriptor, min(end - self.position, _PIECE), self.position)
            if not text:
                return
            self.position += len(text)
            self.consume(text)


class LoaderLog:
    """The loader's log while at least one listener is there."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may end a trace while the main thread reads for another one.
        self._lock = RLock()
        self._listeners: list[Listener | None] = []
        self._fd = -1
        self._file = (0, 0)
        self._size = 0
        self._drained = 0
        self._draining = False
        self._given = 0
        self._owned = True
        self._trouble: str | None = None
        self._patch: DebugMaskPatch | None = None
        self.words: DebugWords | None = None
        self._watch: Watch | None = None
        self._prefix: str | None = None
        self._fork_noted = False

    @property
    def trouble(self) -> str | None:
        """The reason why lines may be missing from the log; `None` if there is none."""
        return self._trouble

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the reader of a recording that was made from this log."""
        found = None if self.words is None else self.words.note
        notes = (*(() if self._watch is None else self._watch.notes), found, self._trouble)
        return tuple(note for note in notes if note)

    def open(self, listener: Listener | None, fd: int | None = None, prefix: str | None = None) -> None:
        """Start to listen; the listener's stretch begins here. Raises `BackendUnavailable`.

        Arguments: `listener`, or `None` if only another process reads the log. Of the first listener, for a log that
        others read: `fd`, a file to write it to, which is not closed; `prefix`, where a forked child makes its own,
        named `PREFIX.PID` as ld.so would.
        """
        with self._lock:
            if not self._listeners:
                self._prefix = prefix
                self._turn_on(fd)
            self._listeners.append(listener)
            if listener is not None:
                listener.position = os.fstat(self._fd).st_size

    def close(self, listener: Listener) -> int:
        """Stop to listen; the listener gets the rest of its stretch first. Returns the position of its end.

        Raises `OSError` when the program has closed a file that others read: they know more than is left here.
        """
        with self._lock:
            assert self._patch is not None and self._watch is not None
            try:
                self._patch.barrier()
                if self._is_there():
                    listener.read(self._fd, self._size)
                elif not self._owned:
                    raise OSError(errno.EBADF, "the program closed the descriptor of the log")
                return self._size
            finally:
                self._listeners.remove(listener)
                if not self._listeners:
                    self._turn_off()

    def read_now(self, listener: Listener) -> None:
        """Let a listener read what has come until now, unless the log is busy for long."""
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            return
        try:
            if listener in self._listeners and self._is_there():
                listener.read(self._fd, self._size)
                if self._size - self._drained >= _PIECE:
                    self._drain()
        finally:
            self._lock.release()

    def size(self) -> int:
        """Number of bytes written so far."""
        self._is_there()
        return self._size

    @property
    def former_fd(self) -> int:
        """The descriptor that the loader wrote to before."""
        return -1 if self._patch is None else self._patch.before[1]

    def leave(self) -> None:
        """Note no more requests. The log goes on until the process ends, and all further loads in it are ours."""
        with self._lock:
            if self._patch is not None and self._watch is not None:
                self._watch.end()
                self._write(OWN_BEGIN)

    def _turn_on(self, fd: int | None) -> None:
        patch = DebugMaskPatch(self.words)
        if fd is None:
            try:
                self._fd, self._owned = create_memory_file(_NAME), True
            except OSError as error:
                patch.protection()  # without /proc neither works: then that is the reason
                reason = f"no file takes the loader's log ({error.strerror})"
                raise BackendUnavailable("rtld", reason, USE_SNAPSHOT) from error
        else:
            self._fd, self._owned = fd, False
        self._file, self._trouble = _identity(os.fstat(self._fd)), None
        self._drained = self._given = self._size = os.fstat(self._fd).st_size
        try:
            patch = prove_patch(patch, self._fd)
        except BaseException:
            self._drop_file()
            raise
        self._patch, self.words = patch, patch.words
        self._watch = Watch(self._note_request)
        self._watch.start()
        if not self._fork_noted:
            os.register_at_fork(after_in_child=self._after_fork_in_child)
            self._fork_noted = True

    def _turn_off(self) -> None:
        assert self._patch is not None and self._watch is not None
        self._watch.end()
        try:
            self._give_users_text(whole=True)
            self._patch.restore()
            # A thread that had read the mask before must be through before the descriptor's number can be reused.
            self._patch.barrier()
        finally:
            self._patch = None
            self._drop_file()

    def _drop_file(self) -> None:
        if self._owned and self._is_there():
            os.close(self._fd)
        self._fd = -1

    def _is_there(self) -> bool:
        """Return whether the descriptor is the log's: a program may close what it did not open, and use the number."""
        try:
            status = os.fstat(self._fd)
        except OSError:
            return False
        self._size = status.st_size
        return _identity(status) == self._file

    def _note_request(self, raw: RawRequest) -> None:
        if self._size - self._drained >= DRAIN_AT:
            self._drain()  # before the request is noted: what it imports are requests of the same thread
        self._write(encode_request(raw))

    def _write(self, mark: bytes) -> None:
        """Write a mark. Never raises: the program must get the load that it asks for, whatever becomes of its log."""
        try:
            if self._is_there() or self._open_again():
                os.write(self._fd, mark)
        except OSError as error:  # a full disk, a limit on the size of files
            self._trouble = f"the log could not be written ({error.strerror}): what it lacks is not shown"

    def _drain(self) -> None:
        """Let the listeners read, and give the memory of that text back.

        In the thread that is about to load. A thread of our own would be seen by the program: Python 3.12 and later
        warn at every fork of a process with threads.
        """
        if self._draining or not self._lock.acquire(False):
            return  # another thread does it, or ends a trace
        self._draining = True
        try:
            if self._is_there():
                self._drained = self._size
                for listener in self._listeners:
                    if listener is not None:
                        listener.read(self._fd, self._drained)
                self._release()
        except Exception as error:  # noqa: BLE001 - as in _write
            self._trouble = f"a part of the log could not be read ({type(error).__name__}: {error}) and is not shown"
        finally:
            self._draining = False
            self._lock.release()

    def _release(self) -> None:
        """Give the memory of the text back that nobody needs any more.

        Of a file that our parent reads if this process dies, the last `HELD` bytes stay. A parent that reads it all the
        time releases what it has read.
        """
        if self._patch is None or None in self._listeners:
            return
        self._give_users_text(whole=False)
        readers = [listener.position for listener in self._listeners if listener is not None]
        end = min([self._drained, self._given, *readers]) - (0 if self._owned else HELD)
        if end > 0:
            punch_hole(self._fd, end)

    def _give_users_text(self, *, whole: bool) -> None:
        """Write the text, as far as it has whole lines or to its end, where the user's own LD_DEBUG had it go."""
        assert self._patch is not None
        mask, fd = self._patch.before
        if not mask:
            self._given = self._drained
            return
        while self._is_there() and self._given < self._size:
            text = os.pread(self._fd, min(self._size - self._given, _PIECE), self._given)
            end = text.rfind(b"\n") + 1  # marks have none: none is cut in two
            text = text[: end or len(text)] if whole or end else b""
            if not text:
                return
            self._given += len(text)
            os.write(fd, without_marks(text))

    def _open_again(self) -> bool:
        """The program has closed the log: open it again, or let the loader write nowhere."""
        if self._patch is None:
            return False
        mask, fd = self._patch.before
        try:
            if self._prefix is not None:
                self._fd = out_of_the_way(open_log(self._prefix))
                self._file = _identity(os.fstat(self._fd))
                self._patch.write(mask | WANTED, self._fd)
                os.write(self._fd, GAP)
                return True
            if self._trouble is None:
                self._trouble = "the program closed the descriptor of the log: what it loaded then is not shown"
                self._patch.write(mask if fd <= 2 else 0, fd if fd <= 2 else 2)
        except BackendUnavailable as error:
            self._trouble = str(error)
        return False

    def _after_fork_in_child(self) -> None:
        """Give a forked child a log of its own: it has inherited that of its parent."""
        self._lock, self._draining = RLock(), False
        if self._patch is None or (not self._is_there() and not self._open_again()):
            return
        try:
            fresh = create_memory_file(_NAME) if self._prefix is None else open_log(self._prefix)
            if self._prefix is not None:
                os.write(fresh, FORKED)
            self._file = _identity(os.fstat(fresh))
            os.dup2(fresh, self._fd, inheritable=False)
            os.close(fresh)
            self._owned = True
            self._drained = self._given = self._size = 0
            for listener in self._listeners:
                if listener is not None:
                    listener.position = 0
                    listener.restart()
        except OSError as error:
            if self._prefix is None:
                self._patch.restore()
            else:
                self._patch.write(0, 2)  # the descriptor before, of ld.so's own, was closed
            # The program prints on the same terminal: a name in the error must not be an escape sequence for it.
            print(f"dlltracer: the forked child is not traced: {ascii(str(error))[1:-1]}", file=sys.stderr)


def _identity(status: os.stat_result) -> tuple[int, int]:
    """The device and inode of a file: no other open file has both."""
    return status.st_dev, status.st_ino


def without_marks(text: bytes) -> bytes:
    """The loader's own text: without our marks."""
    return b"".join(part.rpartition(MARK_END)[2] for part in text.split(MARK_START))


def the_loader_log() -> LoaderLog:
    """The loader's log of this process (docs/adr/0002)."""
    return _LOADER_LOG


_LOADER_LOG = LoaderLog()
