"""Backend "snapshot": the images before and after, by dl_iterate_phdr(3). For musl, hardened systems, static Pythons.
"""

from __future__ import annotations

import gc
import os
import sys
from _operator import attrgetter, mul, not_
from itertools import repeat
from struct import Struct
from types import MethodType

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from ...errors import BackendUnavailable
from ..snapshots import NAME, Snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PT_LOAD = 1
_LARGEST_INFO = 1024
"""Bytes: more than a struct dl_phdr_info has."""
_UNKNOWN, _MANY = b"\xff", (1 << 64) - 1
"""What is in a counter that the C library does not write."""


def take_snapshot() -> Snapshot:
    """The images loaded now. Raises `BackendUnavailable` where the C library has no dl_iterate_phdr."""
    return make_reader()(False)


def make_reader() -> Callable[[bool], Snapshot]:
    """Return what takes snapshots; given `True`, of the counters only. Raises as `take_snapshot`.

    The types of ctypes are made once: ctypes keeps them for ever.

    The callback of dl_iterate_phdr runs under a lock of the loader. A thread that waits for that lock inside an import
    holds the GIL (without a GIL, it keeps a stop of all threads from happening). If the callback let it run, both would
    wait for ever: seen within seconds. PYFUNCTYPE keeps the GIL over a call, but every function of Python may give it
    up at its first instruction. So the callback has none: memcpy copies what the loader shows into `info`, and its
    `restype`, which ctypes calls with the result, takes the next item of an iterator that is made of C functions only.
    """
    try:
        import ctypes
    except ImportError as error:
        raise BackendUnavailable(NAME, f"this Python cannot call C functions ({error})") from error

    address = ctypes.c_size_t
    header = Struct("=IIQQQQQQ" if ctypes.sizeof(address) == 8 else "=IIIIIIII")

    class Info(ctypes.Structure):  # struct dl_phdr_info, link.h; the counters have 64 bits everywhere
        _fields_ = (
            ("dlpi_addr", address), ("dlpi_name", ctypes.c_char_p), ("dlpi_phdr", ctypes.c_void_p),
            ("dlpi_phnum", ctypes.c_uint16), ("dlpi_adds", ctypes.c_uint64), ("dlpi_subs", ctypes.c_uint64),
        )  # fmt: skip

    room = ctypes.create_string_buffer(_UNKNOWN * _LARGEST_INFO, _LARGEST_INFO)
    info = Info.from_buffer(room)
    images: list[tuple[tuple[int, bytes | None], bytes, tuple[int, int]]] = []
    counts: list[tuple[int, int]] = []
    try:
        library = ctypes.PyDLL(None)
        iterate = library.dl_iterate_phdr
        make_bytes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
            ("PyBytes_FromStringAndSize", ctypes.pythonapi)
        )
        copiers = [
            ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)(("memcpy", library))
            for _ in range(2)
        ]
    except (AttributeError, OSError) as error:
        raise BackendUnavailable(NAME, f"this C library has no dl_iterate_phdr ({error})") from error

    counters = attrgetter("dlpi_adds", "dlpi_subs")
    sizes = map(mul, map(attrgetter("dlpi_phnum"), repeat(info)), repeat(header.size))
    headers = map(make_bytes, map(attrgetter("dlpi_phdr"), repeat(info)), sizes)
    names = map(attrgetter("dlpi_addr", "dlpi_name"), repeat(info))
    # `append` returns None. False is 0 for the loader, which goes on then; any other number ends the iteration.
    all_of_them = map(bool, map(images.append, zip(names, headers, map(counters, repeat(info)), strict=False)))
    first_of_them = map(not_, map(counts.append, map(counters, repeat(info))))
    shape = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    for copier, steps in zip(copiers, (all_of_them, first_of_them), strict=True):
        copier.restype = MethodType(next, steps)
    each, first = (shape(MethodType(copier, room)) for copier in copiers)

    def read(only_counts: bool) -> Snapshot:
        images.clear()
        counts.clear()
        _iterate_undisturbed(iterate, first if only_counts else each)
        adds, subs = counts[0] if counts else images[-1][2] if images else (_MANY, _MANY)
        found = dict(filter(None, (_image_of(name, table, header) for name, table, _ in images)))
        return Snapshot(found, -1, -1) if _MANY in (adds, subs) else Snapshot(found, adds, subs)

    return read


def _iterate_undisturbed(iterate: Callable[[object, None], object], callback: object) -> None:
    """Call dl_iterate_phdr without a garbage collection, which may run functions of Python.

    Until Python 3.11 one begins at any allocation.
    """
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        iterate(callback, None)
    finally:
        if was_collecting:
            gc.enable()


def _image_of(
    name: tuple[int, bytes | None], table: bytes, header: Struct
) -> tuple[tuple[int, str], int] | None:
    """Return base and path of an image, and its size, from its address, name and program headers; `None` without."""
    bias, path = name
    # Elf64_Phdr and Elf32_Phdr, elf(5): type, address and size in memory have other places in each.
    is_wide = header.size > 32
    at, length = (3, 6) if is_wide else (2, 5)
    loads = [(one[at], one[length]) for one in header.iter_unpack(table) if one[0] == _PT_LOAD]
    if not path or not loads:
        return None
    low = min(start for start, _ in loads) & -os.sysconf("SC_PAGE_SIZE")
    high = max(start + size for start, size in loads)
    # The base and the first address may add up to more than an address has room for (a prelinked image).
    base = (bias + low) % (1 << (64 if is_wide else 32))
    return (base, os.fsdecode(path)), high - low
