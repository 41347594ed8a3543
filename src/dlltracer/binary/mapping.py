"""Open a file so that reading a little of it costs little."""

from __future__ import annotations

import mmap
import os
import stat

from ..errors import BinaryFormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

_SMALL = 0x8000
# A fifo must not make us wait for its writer; Windows would translate line ends.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class MappedFile:
    """The bytes of a file, for a `with` block: mapped, or read when there are few.

    A mapped file that shrinks while it is read ends the process (SIGBUS, mmap(2)): keep the block short.
    """

    def __init__(self, path: str) -> None:
        """Open the file. Raises `OSError`, and `BinaryFormatError` for a device, fifo or socket."""
        fd = os.open(path, _FLAGS)
        try:
            self.data: bytes | mmap.mmap = _map(fd, os.fstat(fd))
        except IsADirectoryError as error:
            raise IsADirectoryError(error.errno, error.strerror, path) from None
        finally:
            os.close(fd)

    def __enter__(self) -> bytes | mmap.mmap:
        return self.data

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(self.data, mmap.mmap):
            self.data.close()


def _map(fd: int, status: os.stat_result) -> bytes | mmap.mmap:
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise BinaryFormatError(0, "not a regular file (a device, a fifo or a socket)")
    if status.st_size <= _SMALL or stat.S_ISDIR(status.st_mode):
        # Files of /proc have no size and can be read; a folder gives its own error.
        return os.read(fd, _SMALL)
    data = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    advice = getattr(mmap, "MADV_RANDOM", None)
    if advice is not None and hasattr(data, "madvise"):
        # Without it the kernel reads far ahead of the few pages that are wanted: madvise(2).
        data.madvise(advice)
    return data
