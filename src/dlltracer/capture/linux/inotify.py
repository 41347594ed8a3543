"""New files in a folder, at once: inotify(7)."""

from __future__ import annotations

import os
import struct
import sys

if sys.platform != "linux":
    raise ImportError("only for Linux: capture.select keeps other systems away")

_CREATE = 0x100
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_HEAD = struct.Struct("=iIII")
"""struct inotify_event, before the name: watch, mask, cookie, length of the name."""


class NewFiles:
    """The names of files that appear in a folder. `descriptor` is readable when there are some; `None` if this system
    cannot tell, or no more watches are to be had: then the folder must be listed."""

    def __init__(self, folder: str) -> None:
        self.descriptor = _watch(folder)

    def drain(self) -> list[str] | None:
        """The names since the last call; `None` if some may be missing."""
        if self.descriptor is None:
            return None
        names: list[str] = []
        while True:
            try:
                data = os.read(self.descriptor, 1 << 16)
            except BlockingIOError:
                return names
            except OSError:
                return None
            at = 0
            while at + _HEAD.size <= len(data):
                watch, _, _, length = _HEAD.unpack_from(data, at)
                at += _HEAD.size
                if watch < 0:  # IN_Q_OVERFLOW
                    return None
                names.append(os.fsdecode(data[at : at + length].rstrip(b"\0")))
                at += length

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def _watch(folder: str) -> int | None:
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        descriptor: int = libc.inotify_init1(_FLAGS)
    except (ImportError, OSError, AttributeError):
        return None
    if descriptor < 0:
        return None
    if libc.inotify_add_watch(descriptor, os.fsencode(folder), _CREATE) < 0:
        os.close(descriptor)
        return None
    return descriptor
