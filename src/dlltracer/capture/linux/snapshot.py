"""Backend "snapshot": the images before and after, by dl_iterate_phdr(3). For musl, hardened systems, static Pythons.

It sees images that are there at the end and were not at the start. The recording's notes list what it cannot see.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from ...errors import BackendUnavailable
from ..backend import Availability

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...model.events import LoadEvent, UnloadEvent
    from ...model.recording import Recording

NAME = "snapshot"

_PT_LOAD = 1
CANNOT_SEE = "a snapshot before and after: failed loads, requesters, the places tried and the order are not seen"


class Snapshot:
    """The images of the process: `images` maps (base, path) to the size in bytes, in link map order; `adds` and
    `subs` count all loads and unloads since the process began, -1 where the C library does not count."""

    __slots__ = ("adds", "images", "subs")

    def __init__(self, images: dict[tuple[int, str], int], adds: int, subs: int) -> None:
        self.images = images
        self.adds = adds
        self.subs = subs


def take_snapshot() -> Snapshot:
    """The images loaded now. Raises `BackendUnavailable` where the C library has no dl_iterate_phdr."""
    return make_reader()(False)


def make_reader() -> Callable[[bool], Snapshot]:
    """Return what takes snapshots; given `True`, of the counters only. Raises as `take_snapshot`.

    The types of ctypes are made once: ctypes keeps them for ever.
    """
    try:
        import ctypes
    except ImportError as error:
        raise BackendUnavailable(NAME, f"this Python cannot call C functions ({error})") from error

    address, word = ctypes.c_size_t, ctypes.c_uint32
    # Elf64_Phdr and Elf32_Phdr, elf(5): the flags have another place in each.
    first, last = (("p_flags",), ()) if ctypes.sizeof(address) == 8 else ((), ("p_flags",))

    class ProgramHeader(ctypes.Structure):
        _fields_ = (
            ("p_type", word), *((name, word) for name in first), ("p_offset", address), ("p_vaddr", address),
            ("p_paddr", address), ("p_filesz", address), ("p_memsz", address), *((name, word) for name in last),
            ("p_align", address),
        )  # fmt: skip

    class Info(ctypes.Structure):  # struct dl_phdr_info, link.h; the counters have 64 bits everywhere
        _fields_ = (
            ("dlpi_addr", address), ("dlpi_name", ctypes.c_char_p),
            ("dlpi_phdr", ctypes.POINTER(ProgramHeader)), ("dlpi_phnum", ctypes.c_uint16),
            ("dlpi_adds", ctypes.c_uint64), ("dlpi_subs", ctypes.c_uint64),
        )  # fmt: skip

    found = Snapshot({}, -1, -1)
    only_counts = False

    def each(info: ctypes._Pointer[Info], size: int, data: int) -> int:
        image = info.contents
        if size >= ctypes.sizeof(Info):
            found.adds, found.subs = image.dlpi_adds, image.dlpi_subs
        if only_counts:
            return 1  # any number but 0 ends the iteration
        loads = [p for p in image.dlpi_phdr[: image.dlpi_phnum] if p.p_type == _PT_LOAD]
        if image.dlpi_name and loads:
            low = min(p.p_vaddr for p in loads) & -os.sysconf("SC_PAGE_SIZE")
            high = max(p.p_vaddr + p.p_memsz for p in loads)
            # The base and the first address may add up to more than an address has room for (a prelinked image).
            base = (image.dlpi_addr + low) % (1 << 8 * ctypes.sizeof(address))
            found.images[base, os.fsdecode(image.dlpi_name)] = high - low
        return 0

    # PyDLL and PYFUNCTYPE keep the GIL: the callback runs under a lock of the loader, and a thread that waits for
    # that lock inside an import holds the GIL.
    callback = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.POINTER(Info), ctypes.c_size_t, ctypes.c_void_p)(each)
    try:
        iterate = ctypes.PyDLL(None).dl_iterate_phdr
    except (AttributeError, OSError) as error:
        raise BackendUnavailable(NAME, f"this C library has no dl_iterate_phdr ({error})") from error

    def read(counts: bool) -> Snapshot:
        nonlocal found, only_counts
        found, only_counts = Snapshot({}, -1, -1), counts
        iterate(callback, None)
        return found

    return read


class SnapshotBackend:
    """The mechanism."""

    name = NAME

    def availability(self) -> Availability:
        try:
            take_snapshot()
        except BackendUnavailable as error:
            return Availability(False, error.reason, error.remedy)
        return Availability(True)

    def start(self, *, raw: bool = False, live: bool = False) -> SnapshotSession:
        """Take the first snapshot. Raises `BackendUnavailable`, also for `raw`: there are no raw events."""
        if raw:
            raise BackendUnavailable(NAME, "it has no raw events to show", "Leave debug off, or use backend='rtld'")
        return SnapshotSession(make_reader(), live)


class SnapshotSession:
    """A running capture: the last snapshot, and what has changed until then."""

    missed = 0
    is_completed_later = hides_failures = False

    def __init__(self, read: Callable[[bool], Snapshot], live: bool) -> None:
        self._read = read
        self._lock = RLock()
        self._before = self._last = read(False)
        self._live = live
        self._events: list[LoadEvent | UnloadEvent] = []
        self._drained = 0
        self._snapshots: list[Snapshot] = []
        if live:  # while nothing is traced: this may load images
            from ...model import events  # noqa: F401

    def progress(self) -> int:
        """How many images came or went since the process began; -1 if the C library does not count them."""
        with self._lock:
            now = self._read(True)
        return now.adds + now.subs

    def drain(
        self, returned: Sequence[tuple[int, int]] = (), *, is_end: bool = False
    ) -> Sequence[LoadEvent | UnloadEvent]:
        """The events since the last call."""
        with self._lock:
            if self._live:
                self._snapshots.append(self._read(False))
                self._compare()
            fresh, self._drained = self._events[self._drained :], len(self._events)
            return fresh

    def stop(self) -> Callable[[], Recording]:
        """Take the last snapshot. Returns what compares them."""
        pid = os.getpid()
        with self._lock:
            self._live = False
            self._snapshots.append(self._read(False))  # before our own imports, which may load images
        return lambda: self._record(pid)

    def _compare(self) -> None:
        """Add what has changed from snapshot to snapshot."""
        from ...model.events import LoadEvent, UnloadEvent

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
        from ...model.events import LoadEvent
        from ...model.recording import Recording

        with self._lock:
            self._compare()
        before, after, events = self._before, self._last, self._events
        gone = len(events) - sum(isinstance(event, LoadEvent) for event in events)
        notes = [CANNOT_SEE]
        if before.adds >= 0:
            passing = after.adds - before.adds - (len(events) - gone)
            if passing > 0:
                notes.append(f"{passing} more images were loaded and unloaded again: their names are not known")
        else:
            notes.append("this C library does not count loads: images loaded and unloaded again leave no trace")
        return Recording(NAME, tuple(events), pid, notes=tuple(notes))
