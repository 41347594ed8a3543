"""Backend "snapshot": the images before and after, by dl_iterate_phdr(3). For musl, hardened systems, static Pythons.

It sees images that are there at the end and were not at the start. The recording's notes list what it cannot see.
"""

from __future__ import annotations

import os
import sys

if sys.platform != "linux":
    raise ImportError("this module is only for Linux")

from ...errors import BackendUnavailable
from ..backend import Availability

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

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

    def each(info: ctypes._Pointer[Info], size: int, data: int) -> int:
        image = info.contents
        if size >= ctypes.sizeof(Info):
            found.adds, found.subs = image.dlpi_adds, image.dlpi_subs
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
    iterate(callback, None)
    return found


class SnapshotBackend:
    """The mechanism."""

    name = NAME

    def availability(self) -> Availability:
        try:
            take_snapshot()
        except BackendUnavailable as error:
            return Availability(False, error.reason, error.remedy)
        return Availability(True)

    def start(self, *, raw: bool = False) -> SnapshotSession:
        """Take the first snapshot. Raises `BackendUnavailable`, also for `raw`: there are no raw events."""
        if raw:
            raise BackendUnavailable(NAME, "it has no raw events to show", "Leave debug off, or use backend='rtld'")
        return SnapshotSession(take_snapshot())


class SnapshotSession:
    """A running capture: nothing but the first snapshot."""

    def __init__(self, before: Snapshot) -> None:
        self._before = before

    def stop(self) -> Callable[[], Recording]:
        """Take the second snapshot. Returns what compares the two."""
        after, pid = take_snapshot(), os.getpid()  # before our own imports, which may load images
        return lambda: self._compare(after, pid)

    def _compare(self, after: Snapshot, pid: int) -> Recording:
        from ...model.events import LoadEvent, UnloadEvent
        from ...model.recording import Recording

        before = self._before
        events: list[LoadEvent | UnloadEvent] = [
            UnloadEvent(path, base=base, size=size, pid=pid)
            for (base, path), size in before.images.items()
            if (base, path) not in after.images
        ]
        gone = len(events)
        events += [
            LoadEvent(path, base=base, size=size, pid=pid)
            for (base, path), size in after.images.items()
            if (base, path) not in before.images
        ]
        notes = [CANNOT_SEE]
        if before.adds >= 0:
            passing = after.adds - before.adds - (len(events) - gone)
            if passing > 0:
                notes.append(f"{passing} more images were loaded and unloaded again: their names are not known")
        else:
            notes.append("this C library does not count loads: images loaded and unloaded again leave no trace")
        return Recording(NAME, tuple(events), pid, notes=tuple(notes))
