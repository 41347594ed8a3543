"""Backend "snapshot": the images of the process before and after, compared. For musl, hardened systems, static Pythons
and macOS.

It sees images that are there at the end and were not at the start. The recording's notes list what it cannot see.
Linux counts its images by dl_iterate_phdr(3), and macOS by dyld(3). dlltracer has not been run on a Mac yet.
"""

from __future__ import annotations

import gc
import os
import sys
from _operator import attrgetter, mul, not_
from _thread import RLock
from itertools import repeat
from struct import Struct
from types import MethodType

from ..errors import BackendUnavailable
from .backend import LOCK_SECONDS, NO_PYDLL, USE_RUN, Availability

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..model.events import LoadEvent, UnloadEvent
    from ..model.recording import Recording

NAME = "snapshot"

CANNOT_SEE = "a snapshot before and after: failed loads, requesters, the places tried and the order are not seen"


class Snapshot:
    """The images of the process: `images` maps (base, path) to the size in bytes, in link map order; `adds` and
    `subs` count all loads and unloads since the process began, -1 where the C library does not count."""

    __slots__ = ("adds", "images", "subs")

    def __init__(self, images: dict[tuple[int, str], int], adds: int, subs: int) -> None:
        self.images = images
        self.adds = adds
        self.subs = subs


class SnapshotBackend:
    """The mechanism. Arguments: `make_reader`, which returns what takes snapshots; notes for its recordings."""

    name = NAME

    def __init__(self, make_reader: Callable[[], Callable[[bool], Snapshot]], *more_notes: str) -> None:
        self._make_reader = make_reader
        self._more_notes = more_notes

    def availability(self) -> Availability:
        try:
            self._make_reader()(False)
        except BackendUnavailable as error:
            return Availability(False, error.reason, error.remedy)
        return Availability(True)

    def start(self, *, raw: bool = False, live: bool = False) -> SnapshotSession:
        """Take the first snapshot. Raises `BackendUnavailable`, also for `raw`: there are no raw events."""
        if raw:
            raise BackendUnavailable(NAME, "it has no raw events to show", "Leave debug off, or use backend='rtld'")
        return SnapshotSession(self._make_reader(), live, self._more_notes)


class SnapshotSession:
    """A running capture: the last snapshot, and what has changed until then."""

    missed = 0
    is_completed_later = hides_failures = False
    can_wait = False

    def __init__(self, read: Callable[[bool], Snapshot], live: bool, more_notes: tuple[str, ...] = ()) -> None:
        self._more_notes = more_notes
        self._read = read
        self._lock = RLock()
        self._before = self._last = read(False)
        self._live = live
        self._events: list[LoadEvent | UnloadEvent] = []
        self._drained = 0
        self._snapshots: list[Snapshot] = []
        if live:  # while nothing is traced: this may load images
            from ..model import events  # noqa: F401

    def progress(self) -> int:
        """Number of images that came or went since the process began; -1 if the C library does not count them."""
        with self._lock:
            now = self._read(True)
        return now.adds + now.subs

    def drain(
        self, returned: Sequence[tuple[int, int]] = (), *, is_end: bool = False
    ) -> Sequence[LoadEvent | UnloadEvent]:
        """The events since the last call."""
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            return ()
        try:
            if self._live:
                self._snapshots.append(self._read(False))
                self._compare()
            fresh, self._drained = self._events[self._drained :], len(self._events)
            return fresh
        finally:
            self._lock.release()

    def stop(self) -> Callable[[], Recording]:
        """Take the last snapshot. Returns what compares them."""
        pid = os.getpid()
        with self._lock:
            self._live = False
            self._snapshots.append(self._read(False))  # before our own imports, which may load images
        return lambda: self._record(pid)

    def _compare(self) -> None:
        """Add what has changed from snapshot to snapshot."""
        from ..model.events import LoadEvent, UnloadEvent

        pid = os.getpid()
        while self._snapshots:
            before, self._last = self._last, self._snapshots.pop(0)
            self._events += [
                UnloadEvent(path, base=base, size=size, pid=pid)
                for (base, path), size in before.images.items()
                if (base, path) not in self._last.images
            ]
            self._events += [
                LoadEvent(path, base=base, size=size, pid=pid)
                for (base, path), size in self._last.images.items()
                if (base, path) not in before.images
            ]

    def _record(self, pid: int) -> Recording:
        from ..model.events import LoadEvent
        from ..model.recording import Recording

        with self._lock:
            self._compare()
        before, after, events = self._before, self._last, self._events
        gone = len(events) - sum(isinstance(event, LoadEvent) for event in events)
        notes = [CANNOT_SEE, *self._more_notes]
        if before.adds >= 0:
            passing = after.adds - before.adds - (len(events) - gone)
            if passing > 0:
                notes.append(f"{passing} more images were loaded and unloaded again: their names are not known")
        else:
            notes.append("this C library does not count loads: images loaded and unloaded again leave no trace")
        return Recording(NAME, tuple(events), pid, notes=tuple(notes))


NOTE = "on macOS the sizes of images are not known, and this mechanism has not been run on a Mac yet"
_TRIES = 10
"""How often the images are read again while another thread loads some."""


def make_dyld_reader(library: Any = None) -> Callable[[bool], Snapshot]:
    """Return what takes snapshots of the images; given `True`, of their number only.

    Arguments: `library`, with the functions of dyld; `None` for libSystem of this process. Raises
    `BackendUnavailable` where they are not there.

    `_dyld_register_func_for_add_image` would tell of each image as it comes. It is not used: dyld holds its lock while
    it calls back. The callback would wait for the GIL, and a thread that has the GIL may wait in dlopen for that lock.
    It could not be taken back either. So the images are read before and after.
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


_PT_LOAD = 1
_LARGEST_INFO = 1024
"""Bytes: more than a struct dl_phdr_info has."""
_UNKNOWN, _MANY = b"\xff", (1 << 64) - 1
"""What is in a counter that the C library does not write."""


def make_reader() -> Callable[[bool], Snapshot]:
    """Return what takes snapshots of the images; given `True`, of the counters only.

    Raises `BackendUnavailable` where the C library has no dl_iterate_phdr.

    The types of ctypes are made once: ctypes keeps them for ever.

    The callback of dl_iterate_phdr runs under a lock of the loader. A thread that waits for that lock inside an import
    holds the GIL (without a GIL, it keeps a stop of all threads from happening). If the callback let it run, both would
    wait for ever: seen within seconds. PYFUNCTYPE keeps the GIL over a call, but every function of Python may give it
    up at its first instruction. So the callback has none: memcpy copies what the loader shows into `info`. Its
    `restype`, which ctypes calls with the result, takes the next item of an iterator that is made of C functions only.
    """
    if sys.platform == "win32":
        raise BackendUnavailable(NAME, "Windows has no dl_iterate_phdr")
    iterate, make_bytes, copiers = _c_functions()
    import ctypes

    page = os.sysconf("SC_PAGE_SIZE")
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
        found = dict(filter(None, (_image_of(name, table, header, page) for name, table, _ in images)))
        return Snapshot(found, -1, -1) if _MANY in (adds, subs) else Snapshot(found, adds, subs)

    return read


def _c_functions() -> tuple[Any, Any, list[Any]]:
    """Return dl_iterate_phdr, what makes bytes of memory, and two memcpy: each gets a `restype` of its own.

    Raises `BackendUnavailable`.
    """
    try:
        import ctypes
    except ImportError as error:
        raise BackendUnavailable(NAME, f"this Python cannot call C functions ({error})") from error
    if not hasattr(ctypes, "PyDLL"):
        raise BackendUnavailable(NAME, NO_PYDLL, USE_RUN)
    try:
        library = ctypes.PyDLL(None)
        make_bytes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
            ("PyBytes_FromStringAndSize", ctypes.pythonapi)
        )
        copy = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        return library.dl_iterate_phdr, make_bytes, [copy(("memcpy", library)) for _ in range(2)]
    except (AttributeError, OSError) as error:
        raise BackendUnavailable(NAME, f"this C library has no dl_iterate_phdr ({error})") from error


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
    name: tuple[int, bytes | None], table: bytes, header: Struct, page: int
) -> tuple[tuple[int, str], int] | None:
    """Return base and path of an image, and its size, from its address, name and program headers; `None` without."""
    bias, path = name
    # Elf64_Phdr and Elf32_Phdr, elf(5): type, address and size in memory have other places in each.
    is_wide = header.size > 32
    at, length = (3, 6) if is_wide else (2, 5)
    loads = [(one[at], one[length]) for one in header.iter_unpack(table) if one[0] == _PT_LOAD]
    if not path or not loads:
        return None
    low = min(start for start, _ in loads) & -page
    high = max(start + size for start, size in loads)
    # The base and the first address may add up to more than an address has room for (a prelinked image).
    base = (bias + low) % (1 << (64 if is_wide else 32))
    return (base, os.fsdecode(path)), high - low
