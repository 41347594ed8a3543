"""A file in memory, for the loader's text: it never blocks who writes, and another process can read it."""

from __future__ import annotations

import os
import sys

if sys.platform != "linux":
    raise ImportError("only for Linux: capture.select keeps other systems away")

_CLOEXEC = 1


def create_memory_file(name: str) -> int:
    """A new descriptor as of memfd_create(2), not inheritable. Raises `OSError`.

    By the C library where the interpreter lacks the function: one built against an older glibc than it runs on
    (conda's, manylinux) does, although the system has it.
    """
    create = getattr(os, "memfd_create", None)
    if create is not None:
        descriptor: int = create(name)
        return descriptor
    import ctypes

    try:
        function = ctypes.CDLL(None, use_errno=True).memfd_create
    except AttributeError:
        raise OSError(38, "neither this Python nor the C library has memfd_create") from None
    function.argtypes, function.restype = (ctypes.c_char_p, ctypes.c_uint), ctypes.c_int
    descriptor = function(os.fsencode(name), _CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor
