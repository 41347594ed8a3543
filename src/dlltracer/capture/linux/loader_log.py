"""The tap: the loader's log of this process, switched on while anybody listens.

The loader has one mask and one descriptor, so a process has one tap. Traces that nest or run side by side share it;
each reads its own stretch of the text. The text goes to a memfd: writing to it never blocks, so the loader is never
held up, and nothing of ours runs under the loader's lock.
"""

from __future__ import annotations

import errno
import os
import sys
from _thread import allocate_lock

if sys.platform != "linux":
    raise ImportError("only for Linux: capture.select keeps other systems away")

from ...errors import BackendUnavailable
from ..requests import FORKED, MARK_END, MARK_START, OWN_BEGIN, Watch, encode_request
from .debug_mask import WANTED, DebugMaskPatch
from .log_file import open_log, out_of_the_way
from .memfile import create_memory_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..requests import RawRequest


_NAME = "dlltracer-loader-account"


class LoaderLog:
    """The loader's log while at least one listener is there."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._listeners = 0
        self._fd = -1
        self._file = (0, 0)
        self._owned = True
        self._trouble: str | None = None
        self._switch: DebugMaskPatch | None = None
        self._watch: Watch | None = None
        self._attributed = False
        self._pid = 0
        self._prefix: str | None = None
        self._fork_noted = False

    @property
    def attributed(self) -> bool:
        """Whether requests of Python are noted in the text."""
        return self._attributed

    @property
    def trouble(self) -> str | None:
        """Why the text may lack something, if it may."""
        return self._trouble

    def open(self, fd: int | None = None, prefix: str | None = None) -> tuple[int, int]:
        """Start to listen: the process id and the position where the listener's stretch begins.

        Arguments, of the first listener, for a log that others read: `fd`, a file to write it to, which is not
        closed; `prefix`, where a forked child makes its own, named `PREFIX.PID` as ld.so would.
        Raises `BackendUnavailable`.
        """
        with self._lock:
            if self._listeners == 0:
                self._prefix = prefix
                self._turn_on(fd)
            self._listeners += 1
            return self._pid, os.lseek(self._fd, 0, os.SEEK_END)

    def close(self, pid: int, start: int) -> bytes:
        """Stop to listen: the text since `start`. In a child made by fork: since the fork.

        Raises `OSError` when the program has closed a file that others read: they know more than is left here.
        """
        with self._lock:
            assert self._switch is not None
            try:
                self._switch.barrier()
                if not self._owned and not self._is_there():
                    raise OSError(errno.EBADF, "the program closed the descriptor of the log")
                text = self._read(start if pid == self._pid else 0)
            finally:
                self._listeners -= 1
                if self._listeners == 0:
                    self._turn_off()
            return text

    @property
    def former_fd(self) -> int:
        """The descriptor that the loader wrote to before."""
        return -1 if self._switch is None else self._switch.before[1]

    def leave(self) -> None:
        """Note no more requests. The log goes on until the process ends; what stands in it is our own doing."""
        with self._lock:
            if self._watch is not None:
                self._watch.end()
                self._write(OWN_BEGIN)

    def _turn_on(self, fd: int | None) -> None:
        switch = DebugMaskPatch()
        if fd is None:
            try:
                self._fd, self._owned = create_memory_file(_NAME), True
            except OSError as error:
                raise BackendUnavailable("rtld", f"memfd_create failed ({error.strerror})") from error
        else:
            self._fd, self._owned = fd, False
        self._file, self._trouble = _identity(self._fd), None
        try:
            switch.prove(self._fd)
        except BaseException:
            self._drop_file()
            raise
        self._switch, self._pid = switch, os.getpid()
        self._watch = Watch(self._mark)
        self._attributed = self._watch.start()
        if not self._fork_noted:
            os.register_at_fork(after_in_child=self._after_fork_in_child)
            self._fork_noted = True

    def _turn_off(self) -> None:
        assert self._switch is not None and self._watch is not None
        self._watch.stop()
        mask, fd = self._switch.before
        try:
            if mask and self._is_there():
                # The user had LD_DEBUG on: what went to our file is theirs too.
                os.write(fd, without_marks(self._read(0)))
            self._switch.restore()
            # A thread that had read the mask before must be through before the descriptor's number can be reused.
            self._switch.barrier()
        finally:
            self._switch = self._watch = None
            self._drop_file()

    def _drop_file(self) -> None:
        if self._owned and self._is_there():
            os.close(self._fd)
        self._fd = -1

    def _is_there(self) -> bool:
        """Whether the descriptor is the log's: a program may close what it did not open, and use the number."""
        try:
            return _identity(self._fd) == self._file
        except OSError:
            return False

    def _mark(self, raw: RawRequest) -> None:
        self._write(encode_request(raw))

    def _write(self, mark: bytes) -> None:
        """Write it. Never raises: the program that asks for a load must get it, whatever becomes of its log."""
        try:
            if self._is_there() or self._open_again():
                os.write(self._fd, mark)
        except OSError as error:  # a full disk, a limit on the size of files
            self._trouble = f"the log could not be written ({error.strerror}): what it lacks is not shown"

    def _open_again(self) -> bool:
        """The program has closed the log: open it again, or let the loader write nowhere."""
        if self._switch is None:
            return False
        mask, fd = self._switch.before
        try:
            if self._prefix is not None:
                self._fd = out_of_the_way(open_log(self._prefix))
                self._file = _identity(self._fd)
                self._switch.write(mask | WANTED, self._fd)
                return True
            if self._trouble is None:
                self._trouble = "the program closed the descriptor of the log: what it loaded then is not shown"
                self._switch.write(mask if fd <= 2 else 0, fd if fd <= 2 else 2)
        except BackendUnavailable as error:
            self._trouble = str(error)
        return False

    def _read(self, start: int) -> bytes:
        if not self._is_there():
            return b""
        size = os.fstat(self._fd).st_size
        parts = []
        while start < size and (part := os.pread(self._fd, min(size - start, 1 << 20), start)):
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def _after_fork_in_child(self) -> None:
        """Give a forked child a file of its own: parent and child share the descriptor's offset."""
        self._lock = allocate_lock()
        if self._switch is None or (not self._is_there() and not self._open_again()):
            return
        self._pid = os.getpid()
        try:
            fresh = create_memory_file(_NAME) if self._prefix is None else open_log(self._prefix)
            self._file = _identity(fresh)
            if self._prefix is not None:
                os.write(fresh, FORKED)
            os.dup2(fresh, self._fd, inheritable=False)
            os.close(fresh)
            self._owned = True
        except OSError as error:
            if self._prefix is None:
                self._switch.restore()
            else:
                self._switch.write(0, 2)  # the descriptor before, of ld.so's own, was closed
            # The program prints on the same terminal: a name in the error must not be an escape sequence for it.
            print(f"dlltracer: the forked child is not traced: {ascii(str(error))[1:-1]}", file=sys.stderr)


def _identity(fd: int) -> tuple[int, int]:
    """What tells an open file from others. Raises `OSError`."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def without_marks(text: bytes) -> bytes:
    """The loader's own words: the text without the marks of requests."""
    return b"".join(part.rpartition(MARK_END)[2] for part in text.split(MARK_START))


def the_loader_log() -> LoaderLog:
    """The tap of this process (docs/adr/0002)."""
    return _LOADER_LOG


_LOADER_LOG = LoaderLog()
