"""The images of this process on macOS, as dyld counts them (dyld(3)). dlltracer has not been run on a Mac yet.

`_dyld_register_func_for_add_image` would tell of each image as it comes. It is not used: dyld holds its lock while it
calls back, the callback would wait for the GIL, and a thread that has the GIL may wait in dlopen for that lock. It
could not be taken back either. So the images are read before and after.
"""

from __future__ import annotations

import os

from ..errors import BackendUnavailable
from .snapshots import NAME, Snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NOTE = "on macOS the sizes of images are not known, and this mechanism has not been run on a Mac yet"
_TRIES = 10
"""How often the images are read again while another thread loads some."""


def make_dyld_reader(library: Any = None) -> Callable[[bool], Snapshot]:
    """Return what takes snapshots of the images; given `True`, of their number only.

    Arguments: `library`, with the functions of dyld; `None` for libSystem of this process. Raises
    `BackendUnavailable` where they are not there.
    """
    try:
        import ctypes

        dyld = ctypes.PyDLL(None) if library is None else library
        count, name, header = dyld._dyld_image_count, dyld._dyld_get_image_name, dyld._dyld_get_image_header
    except ImportError as error:
        raise BackendUnavailable(NAME, f"this Python cannot call C functions ({error})") from error
    except (AttributeError, OSError) as error:
        raise BackendUnavailable(NAME, f"this system has no dyld that can be asked ({error})") from error
    count.restype, count.argtypes = ctypes.c_uint32, []
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.c_uint32]
    header.restype, header.argtypes = ctypes.c_void_p, [ctypes.c_uint32]

    def read(counts: bool) -> Snapshot:
        # dyld keeps no number of all loads and unloads, and no lock over a number and its name: an image that another
        # thread takes away moves the others down, so the images are read until their number stays.
        if counts:
            return Snapshot({}, count(), 0)
        images: dict[tuple[int, str], int] = {}
        for _ in range(_TRIES):
            total = count()
            images = {}
            for number in range(total):
                path, base = name(number), header(number)
                if path and base:  # NULL for a number that is out of range by now
                    images[base, os.fsdecode(path)] = 0
            if count() == total:
                break
        return Snapshot(images, -1, -1)

    return read
