"""Concludes what a loader did from the files that it opened and mapped in one process: stops in, events out. Pure.

A loader tells nothing of itself here. What its calls mean is read from what it must have been doing, on any C library:

- It opens the places for one name one after the other, until one can be used: a **search**. The base names are the
  same, the folders differ.
- It maps what it opened. A file that was there, and was neither mapped nor is in the process already, was refused.
- What an image needs (DT_NEEDED) it searches for breadth first, before anything else (_dl_map_object_deps in
  elf/dl-deps.c of glibc, load_deps in ldso/dynlink.c of musl): a **load** with all it brings.
- One need that is not met ends the load, and what it had mapped leaves again.

Which rule led to a place is not seen: the phase of a probe is `Phase.OTHER` until somebody compares the places with
the rules of the C library (api.search_phases).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from ...model.elf import PF_X, ElfImage
from ...model.events import (
    FailureKind,
    ImageChange,
    LoadEvent,
    LoadFailedEvent,
    Phase,
    Probe,
    ProbeOutcome,
    UnloadEvent,
)
from ...model.light import dataclass, replace
from ...model.request import Request, RequestKind
from .loaderstate import describe_name_not_found

MARK_FRAME = re.compile(rb"\x1e([\x20-\x7e]*)\x1f")
"""A mark, as `capture.requests` makes them, in the path of an access(2)."""

Identity = tuple[int, int]
"""Device and inode of a file."""

ReadImage = Callable[[], ElfImage | None]
"""Reads what a file says about itself, when somebody asks for it: of most files nobody does. `None`, not known."""


def read_nothing() -> None:
    """Return `None`: what a file says about itself is not known."""


_CACHE = "/etc/ld.so.cache"
_NO_LIBRARIES = frozenset((_CACHE, "/etc/ld.so.preload"))
_MOST_PROBES = 4096
"""Places kept of one search; a search path of 500 kB has 100,000 folders."""
_PT_LOAD = 1
_MOST_IMAGES = 20_000
"""Images of one process that are known by identity."""


@dataclass(frozen=True)
class OpenStop:
    """A file is about to be opened for reading.

    Attributes:
        pid, tid: process and thread.
        wall: seconds since the epoch.
        path: as the program named it.
        by_loader: the call comes from the loader's own code; `None` if it may, which is all that can be known of musl:
            loader and C library are one image there.
        found: the identity of the file that is there; `None` if there is none.
        problem: the errno of looking at it; 0 where it is there.
        read: reads what the file says about itself.
    """

    pid: int
    tid: int
    wall: float
    path: str
    by_loader: bool | None
    found: Identity | None
    problem: int = 0
    read: ReadImage = read_nothing


@dataclass(frozen=True)
class MapStop:
    """A file is about to be mapped with the right to run it.

    Attributes:
        pid, tid, wall: as of `OpenStop`.
        path: that the kernel has for the open file.
        identity: of the file.
        read: reads what it says about itself.
        base, size: where the image lies, in bytes; `None` where the kernel chooses the place.
    """

    pid: int
    tid: int
    wall: float
    path: str
    identity: Identity
    read: ReadImage
    base: int | None = None
    size: int | None = None


@dataclass(frozen=True)
class UnreadMapStop:
    """A file is about to be mapped with the right to run it, and which one may not be looked at: that needs more rights
    than reading memory by a file that was opened before, once a process is not dumpable (prctl(2))."""

    pid: int
    tid: int
    wall: float


@dataclass(frozen=True)
class MarkStop:
    """The runner of a process handed over marks: `marks.encode_request` makes these, and the constants beside it.

    `is_taken`: they were the begin of memory that is read from now on (`seccomp_marks.SharedMarks`). `maps`: at the end
    of the program, the text of /proc/PID/maps; it may have ended by the time that the marks are thought about.
    """

    pid: int
    tid: int
    marks: tuple[Request | bytes, ...]
    is_taken: bool = False
    maps: str = ""


@dataclass(frozen=True)
class ExecStop:
    """A process is about to become another program; whether it does shows later. `path` as the program named it, and
    `privileged`, why the program would have had other rights than its caller, if it would have."""

    pid: int
    tid: int
    path: str
    privileged: str | None = None


Stop = OpenStop | MapStop | UnreadMapStop | MarkStop | ExecStop


@dataclass(frozen=True)
class WatchedProgram:
    """A program of a watched process, as far as the rules of its loader depend on it.

    Attributes: `pid`; `program`, the path of its file; `environment`, as it started; `folder`, its current one;
    `same_files`, whether it sees the files that we see.
    """

    pid: int
    program: str | None
    environment: tuple[tuple[str, str], ...]
    folder: str
    same_files: bool


class _NameSearch:
    """A name that the loader is looking for.

    Attributes: `name`, as it was asked for, or the path where only that is known; `is_bare`, it has no folder;
    `is_certain`, it is the loader that looks; `is_known`, the name is what was asked for; `last`, the open of the last
    place.
    """

    def __init__(
        self, name: str, is_bare: bool, is_certain: bool, is_known: bool, requested_by: str | None, wall: float
    ) -> None:  # fmt: skip
        self.name = name
        self.is_bare = is_bare
        self.is_certain = is_certain
        self.is_known = is_known
        self.requested_by = requested_by
        self.wall = wall
        self.probes: list[Probe] = []
        self.found: list[Identity | None] = []
        self.last: OpenStop | None = None
        self.left_out = 0

    @property
    def base(self) -> str:
        return self.name.rpartition("/")[2]

    def begins_anew(self, path: str) -> bool:
        """Return whether a place is the first of another search for the same name, after this one has failed.

        A search may try a place twice: where two rules have the same folder, or two subfolders the same name
        (tls/x86_64 in glibc 2.36). It has three places or more before it ends without result: those of the system.
        """
        return len(self.probes) >= 3 and self.probes[0].path == path

    def become_bare(self) -> None:
        """A second place was tried: it was no path that was asked for, but a name."""
        self.is_bare, self.name = True, self.base
        self.probes = [replace(probe, phase=Phase.OTHER) for probe in self.probes]


class _Load:
    """A dlopen, or the start of a program, with all that it brings.

    Attributes: `images`, path and what reads the needs of what was mapped, in order; `at`, the place in them behind the
    last need that was met; `mapped`, the events and identities of what leaves if it fails; `is_start`, of a program.
    """

    def __init__(self, request: Request | None, is_start: bool = False, preload: tuple[str, ...] = ()) -> None:
        self.request = request
        self.is_start = is_start
        self.preload = preload
        self.images: list[tuple[str, ReadImage]] = []
        self.at = 0, 0
        self.mapped: list[tuple[LoadEvent, Identity]] = []

    def take_need(self, path: str) -> tuple[str, str] | None:
        """The need that a search at this path is for, and the image that has it; `None` if no image needs it."""
        base = path.rpartition("/")[2]
        if base in self.preload and self.images:
            return base, self.images[0][0]
        for number in range(self.at[0], len(self.images)):
            path_of, read = self.images[number]
            image = read()
            needs = image.needed if image is not None else ()
            start = self.at[1] if number == self.at[0] else 0
            for place in range(start, len(needs)):
                if needs[place] in (base, path):
                    self.at = number, place + 1
                    return needs[place], path_of
        return None


class _Thread:
    def __init__(self, load: _Load | None = None) -> None:
        self.request: Request | None = None
        self.load = load
        self.search: _NameSearch | None = None
        self.last_mapped: Identity | None = None
        self.cache_asked = False


class ProcessDecoder:
    """The loader of one process, up to the last stop.

    Arguments: `pid`; `is_shown`, what happens now becomes events (`set_own`).
    """

    def __init__(self, pid: int, *, is_shown: bool = True) -> None:
        self.pid = pid
        self._is_shown = is_shown
        self._is_running = True
        self._threads: dict[int, _Thread] = {}
        self._loaded: dict[Identity, LoadEvent] = {}
        self._kernel_paths: dict[Identity, str] = {}
        self._program: str | None = None
        self._callers: dict[RequestKind, str] = {}
        self._image: ElfImage | None = None
        self._out: list[ImageChange] = []
        self.unsure = 0

    def forked(self, pid: int) -> ProcessDecoder:
        """The decoder of a process made by fork: it has the same images."""
        child = ProcessDecoder(pid, is_shown=self._is_shown)
        child._program, child._image = self._program, self._image
        child._kernel_paths = dict(self._kernel_paths)
        child._loaded = {identity: replace(event, pid=pid) for identity, event in self._loaded.items()}
        return child

    def take(self) -> list[ImageChange]:
        """Return the changes that were concluded since the last call."""
        taken, self._out = self._out, []
        return taken

    def start(self, tid: int, program: LoadEvent | None, image: ElfImage | None, identity: Identity | None,
              preload: tuple[str, ...]) -> None:  # fmt: skip
        """A program begins in the process, instead of the one before: its loader begins to load what it needs.

        Arguments: `program`, the load of it; `image` and `identity` of its file; `preload`, names from LD_PRELOAD.
        """
        self.finish(ended=True)
        self._threads.clear()
        self._loaded.clear()
        self._kernel_paths.clear()
        self._callers.clear()
        self._is_running = False
        self._program, self._image = None if program is None else program.path, image
        load = _Load(None, is_start=True, preload=tuple(name.rpartition("/")[2] for name in preload))
        if program is not None:
            load.images.append((program.path, lambda: image))
            self._emit(replace(program, imports=()))
            if identity is not None:
                self._loaded[identity] = program
        self._threads[tid] = _Thread(load=load)

    def set_own(self, is_own: bool) -> None:
        """Set whether what comes next is dlltracer's own doing, of which no events are made."""
        self.settle()
        self._is_shown = not is_own
        self._is_running = True
        for thread in self._threads.values():
            thread.load = thread.request = None

    def ask(self, request: Request, tid: int) -> None:
        """Python is about to call the loader, in the thread `tid` as the tracer knows it; or a search by name has ended
        without it."""
        thread = self._thread(tid)
        self._settle(thread, failed=True)
        self._is_running = True
        if request.kind is RequestKind.FIND_LIBRARY:
            self._emit(describe_name_not_found(request, self.pid))
            return
        thread.request, thread.load, thread.cache_asked = request, None, False

    def open(self, stop: OpenStop) -> None:
        """A file is opened."""
        thread = self._thread(stop.tid)
        if stop.path in _NO_LIBRARIES:
            thread.cache_asked = stop.path == _CACHE
            return
        thread.last_mapped = None
        search = thread.search
        base = stop.path.rpartition("/")[2]
        continues = (
            search is not None and search.base == base and not search.begins_anew(stop.path)
            and (search.is_bare or not search.is_known)
        )  # fmt: skip
        if search is None or not continues:
            self._settle(thread, failed=True)
            search = thread.search = self._begin(thread, stop)
        elif not search.is_bare:
            search.become_bare()
        thread.cache_asked = False
        self._add_probe(search, stop)
        search.last = stop

    def _is_taken_unseen(self, search: _NameSearch, stop: OpenStop) -> bool:
        """Return whether an image has no code, so that no stop tells that it is mapped (libicudata has none).

        Only if the loader is known to look, and the image is for this kind of process.
        """
        if not search.is_certain:
            return False
        image, program = stop.read(), self._image
        if image is None:
            return False
        has_code = any(segment.type == _PT_LOAD and segment.flags & PF_X for segment in image.segments)
        fits = program is None or (program.bits, program.machine) == (image.bits, image.machine)
        return image.is_dynamic and not has_code and fits

    def _begin(self, thread: _Thread, stop: OpenStop) -> _NameSearch:
        """The search that this open is the first place of."""
        need = thread.load.take_need(stop.path) if thread.load is not None else None
        if need is not None:
            return _NameSearch(need[0], "/" not in need[0], True, True, need[1], stop.wall)
        request = thread.request
        asked = request.target if request is not None else ""
        is_asked = stop.path in (asked, f"./{asked}") or (
            bool(asked) and "/" not in asked and stop.path.rpartition("/")[2] == asked
        )
        thread.load = _Load(request if is_asked else None)
        thread.request = None if is_asked else request
        if is_asked and request is not None:
            caller = self._caller_for(request)
            return _NameSearch(asked, "/" not in asked and stop.path != f"./{asked}", True, True, caller, stop.wall)
        is_bare = thread.cache_asked and stop.by_loader is True
        name = stop.path.rpartition("/")[2] if is_bare else stop.path
        return _NameSearch(name, is_bare, stop.by_loader is True, False, None, stop.wall)

    def _caller_for(self, request: Request) -> str | None:
        """The image that calls dlopen for a request of Python: _ctypes for ctypes, else the one that the interpreter is
        in. `None` where no such image is in the process."""
        found = self._callers.get(request.kind)
        if found is None:
            names = [(event.path.rpartition("/")[2], event.path) for event in self._loaded.values()]
            wanted = ("_ctypes.",) if request.kind is RequestKind.CTYPES else ("libpython", "libpypy")
            found = next((path for name, path in names if name.startswith(wanted)), "")
            if found or request.kind is RequestKind.EXTENSION:
                self._callers[request.kind] = found
        return found or (self._program if request.kind is RequestKind.EXTENSION else None)

    def _add_probe(self, search: _NameSearch, stop: OpenStop) -> None:
        if len(search.probes) >= _MOST_PROBES:
            search.left_out += 1
            return
        outcome = ProbeOutcome.ABSENT if stop.found is None else ProbeOutcome.PASSED
        phase = Phase.OTHER if search.is_bare else Phase.DIRECT
        search.probes.append(Probe(stop.path, phase, None, outcome))
        search.found.append(stop.found)

    def map(self, stop: MapStop) -> None:
        """A file is mapped."""
        thread = self._thread(stop.tid)
        if thread.last_mapped == stop.identity:
            return  # another segment of the same image
        search = thread.search
        thread.search, thread.cache_asked = None, False
        path, name, requested_by = stop.path, None, None
        probes: tuple[Probe, ...] | None = None
        if search is not None and search.found and search.found[-1] == stop.identity:
            path, name, requested_by = search.probes[-1].path, search.name, search.requested_by
            phase = Phase.OTHER if search.is_bare else Phase.DIRECT
            probes = (*search.probes[:-1], Probe(path, phase, None, ProbeOutcome.LOADED))
        else:
            if search is not None:
                thread.search = search
                self._settle(thread, failed=True)
            if stop.identity in self._loaded:
                return  # mapped again by the program itself
            phase = None
            thread.load = _Load(None)
        thread.last_mapped = stop.identity
        load = thread.load if thread.load is not None else _Load(None)
        imports, wall = self._attribution(load, stop.wall)
        event = LoadEvent(
            path, base=stop.base, size=stop.size, timestamp=wall, pid=self.pid, tid=stop.tid, need=name,
            requested_by=requested_by, phase=phase, probes=probes, imports=imports,
        )  # fmt: skip
        load.images.append((path, stop.read))
        load.mapped.append((event, stop.identity))
        if len(self._loaded) < _MOST_IMAGES:
            self._loaded[stop.identity] = event
            self._kernel_paths[stop.identity] = stop.path
        self._emit(event)

    def map_unread(self, stop: UnreadMapStop) -> None:
        """A file is mapped that may not be looked at: the one that the thread has just opened.

        A loader maps nothing else between the open of a library and the mapping of its code.
        """
        search = self._thread(stop.tid).search
        found = search.found[-1] if search is not None and search.found else None
        if search is not None and search.last is not None and found is not None and found not in self._loaded:
            self.map(MapStop(stop.pid, stop.tid, stop.wall, search.probes[-1].path, found, search.last.read))

    def settle(self) -> None:
        """Conclude every search: the threads have gone on without mapping anything."""
        for thread in self._threads.values():
            self._settle(thread, failed=True)

    def finish(self, *, ended: bool) -> None:
        """No stop follows. `ended`: the process went on behind the last stop; a search in progress has then failed."""
        for thread in self._threads.values():
            self._settle(thread, failed=ended)

    def compare(self, mapped: Collection[str]) -> None:
        """Find the images that were unmapped since: no stop shows that.

        Arguments: `mapped`, the files that are mapped now, as the kernel names them.
        """
        for identity, event in tuple(self._loaded.items()):
            if self._kernel_paths.get(identity, event.path) not in mapped:
                del self._loaded[identity]
                self._emit(UnloadEvent(
                    event.path, base=event.base, size=event.size, pid=self.pid, tid=event.tid, need=event.need,
                    requested_by=event.requested_by, phase=event.phase, imports=event.imports,
                ))  # fmt: skip

    def _thread(self, tid: int) -> _Thread:
        return self._threads.setdefault(tid, _Thread())

    def _emit(self, event: ImageChange) -> None:
        if self._is_shown:
            self._out.append(event)

    def _attribution(self, load: _Load | None, wall: float) -> tuple[tuple[str, ...] | None, float]:
        """Imports and time of an event; no import of Python is in progress before the program begins."""
        if load is not None and load.request is not None:
            return load.request.imports, load.request.wall
        return (() if load is not None and load.is_start else None), wall

    def _settle(self, thread: _Thread, *, failed: bool) -> None:
        """Decide the search of a thread, if there is one: no stop told that it led to a new image."""
        search, last = thread.search, None if thread.search is None else thread.search.last
        thread.last_mapped = None
        if search is None or last is None or not failed:
            thread.search = None
            return
        if last.found is not None and last.found not in self._loaded and self._is_taken_unseen(search, last):
            self.map(MapStop(last.pid, last.tid, last.wall, last.path, last.found, last.read))
            return
        thread.search = None
        if last.found is not None and last.found in self._loaded:
            return  # the file of an image that the process has already
        if not search.is_certain and len(search.probes) < 2:
            self.unsure += 1  # a program may read a library as any other file
            return
        load = thread.load
        imports, wall = self._attribution(load, search.wall)
        event = LoadFailedEvent(
            search.name, timestamp=wall, pid=self.pid, need=search.name, requested_by=search.requested_by,
            probes=tuple(search.probes), imports=imports, kind=FailureKind.NOT_FOUND,
        )  # fmt: skip
        self._emit(event)
        if load is None or (load.is_start and search.name in load.preload):
            return
        thread.load = None
        for mapped, identity in reversed(load.mapped):
            self._loaded.pop(identity, None)
            self._emit(LoadFailedEvent(
                mapped.path, base=mapped.base, size=mapped.size, timestamp=mapped.timestamp, pid=self.pid,
                tid=mapped.tid, need=mapped.need, requested_by=mapped.requested_by, phase=mapped.phase,
                probes=mapped.probes, imports=mapped.imports, kind=FailureKind.DROPPED,
            ))  # fmt: skip
