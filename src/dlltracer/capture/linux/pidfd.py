"""How a process ended that is not our child: by a descriptor of it (pidfd_open(2)).

The status goes to its parent, which takes it away. Linux 6.15 and later keep a copy for whoever holds a descriptor of
the process (PIDFD_GET_INFO). Before that it can be read while the process is a zombie: that is a race with its parent.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys

if sys.platform != "linux":
    raise ImportError("only for Linux: capture.select keeps other systems away")

from .proc import read_stat

# linux/pidfd.h: struct pidfd_info in its first version, PIDFD_INFO_EXIT and _IOWR(0xFF, 11, struct pidfd_info).
_INFO = struct.Struct("=QQ11Ii")
_WANTS_EXIT = 8
_GET_INFO = (3 << 30) | (_INFO.size << 16) | (0xFF << 8) | 11


def open_process(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; `None` if it has ended, or there is no such thing."""
    function = getattr(os, "pidfd_open", None)
    if function is None:
        return None
    try:
        descriptor: int = function(pid)
    except OSError:
        return None
    return descriptor


def exit_status(descriptor: int | None, pid: int) -> int | None:
    """How a process that has ended did so, as of `subprocess.Popen`; `None` if that is not known any more."""
    code = None if descriptor is None else _kept_code(descriptor)
    if code is None:
        stat = read_stat(pid)
        if stat is None or not stat.is_zombie:
            return None
        code = stat.exit_code
    try:
        return os.waitstatus_to_exitcode(code)
    except ValueError:
        return None


def _kept_code(descriptor: int) -> int | None:
    room = bytearray(_INFO.pack(_WANTS_EXIT, *([0] * 13)))
    try:
        fcntl.ioctl(descriptor, _GET_INFO, room)
    except OSError:
        return None
    mask, *_, code = _INFO.unpack(room)
    return int(code) if mask & _WANTS_EXIT else None
