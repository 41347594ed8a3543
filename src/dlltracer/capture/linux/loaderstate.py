"""Tracks the state of glibc's loader in one process, as far as its log shows it: lines in, events out. Pure.

A load is a *transaction* of dlopen: opened, searched, mapped, then either initialised and opened, or torn down. glibc
never says "not found"; that is read from what follows a search that led to no image (`LoaderState._settle`).

Where lines are missing, what follows them proves nothing about what came before: `LoaderState.resynchronise`.
"""

from __future__ import annotations

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
from ...model.light import replace
from ...model.request import Request, RequestKind
from .lines import Line, LineKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    ValueT = TypeVar("ValueT")

    OnStart = Callable[[int, str], LoadEvent | None]
    """Called when a program starts: process id, and the name that the loader has for it (its argv[0]). Returns the
    load of the program itself, or `None` if nothing is known of that."""

Change = tuple[ImageChange, str | None]
"""An event, and for a doubtful failure the image opened next, else `None`. The text does not show whether that dlopen
failed and another one followed, or whether it found the same file under another name: whoever can look at files
decides."""

_INSIDE_A_TRANSACTION = frozenset(
    (LineKind.NEED, LineKind.FIND, LineKind.SEARCH, LineKind.TRY, LineKind.MISS, LineKind.MAP)
)
"""Lines that do not show where in a dlopen they stand, when lines before them are missing."""

# Once each: CPython 3.10 and 3.11 run a function at each look at a member of an enum.
_DIRECT, _CACHE, _LOADED, _NO_ENTRY = Phase.DIRECT, Phase.CACHE, ProbeOutcome.LOADED, ProbeOutcome.NO_ENTRY
_FIND_LIBRARY = RequestKind.FIND_LIBRARY

_MOST_SHARED = 10_000


class Search:
    """A name that the loader is looking for, for the image `by`; `None` for a dlopen or an unknown one."""

    def __init__(self, name: str, by: str | None) -> None:
        self.name = name
        self.by = by
        self.probes: list[Probe] = []
        self.phase: Phase | None = None
        self.origin: str | None = None


class DlopenCall:
    """A dlopen in progress: its top name, the images it mapped, and whether they can no longer be dropped."""

    def __init__(self, name: str, request: Request | None) -> None:
        self.name = name
        self.request = request
        self.mapped: list[str] = []
        self.committed = False
        self.failed = False
        self.error: tuple[str, str] | None = None

    def is_about(self, path: str) -> bool:
        """Return whether `path` is what this dlopen asked for."""
        return path == self.name or (bool(self.mapped) and self.mapped[0] == path)


class LoaderState:
    """The loader of one process, up to the last line read.

    Arguments:
        pid: the process; `None` where that is not known.
        changes: what is concluded is appended to it.
        fresh: the log begins with the start of the process, not in its midst.
        on_start: called when a program starts; without it, a log in which one does is not followed.
        names: paths of images by the names that the loader has for them, where it has others. A program's is what it
            was called by, its argv[0] (`DSO_FILENAME` in elf/dl-load.c).
    """

    def __init__(
        self, pid: int | None, changes: list[Change], *, fresh: bool = False, on_start: OnStart | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.pid = pid
        self._on_start = on_start
        self._changes = changes
        self._wall: float | None = None
        self._is_own = False
        self._running = not fresh
        self._program = ""
        self._aliases = dict(names or {})
        self._searched = False
        self._is_adrift = False
        self._shared: dict[object, object] = {}
        self._direct: dict[str, tuple[Probe, ...]] = {}
        self.undecodable = 0
        self.initialising: str | None = None
        self._reset()

    def _reset(self) -> None:
        self._requests: dict[int, Request] = {}
        self._dlopen_calls: list[DlopenCall] = []
        self._current_search: Search | None = None
        self._loaded: dict[str, LoadEvent] = {}
        self._mapping: dict[str, Any] | None = None

    def forked(self, pid: int) -> LoaderState:
        """The state of a process made by fork: it has the same images."""
        child = LoaderState(pid, self._changes, on_start=self._on_start)
        child._loaded, child._aliases, child._program = dict(self._loaded), dict(self._aliases), self._program
        return child

    def ask(self, request: Request) -> None:
        """Python is about to call the loader; or, for a search by name, has been refused without it."""
        if request.kind is _FIND_LIBRARY:
            self._emit(describe_name_not_found(request, self.pid))
            return
        # One a thread: by the time a thread asks again, its last request has led to a dlopen, or to an image that was
        # there. Of the latter the loader says nothing that could be matched. Moved to the end: oldest first.
        self._requests.pop(request.tid, None)
        self._requests[request.tid] = request

    def note_return(self, tid: int, clock: int) -> None:
        """The call that a thread of Python made by the request of that `clock` has returned, or runs Python itself.

        A thread that runs Python is not inside a search: one that its dlopen has begun, and that led to no image, has
        failed.
        """
        request = self._dlopen_calls[-1].request if self._dlopen_calls else None
        if request is not None and (request.tid, request.clock) == (tid, clock):
            self._flush_mapping()
            self._settle(failed=True)

    def resynchronise(self) -> None:
        """Lines are missing here: conclude nothing from what comes next about what came before.

        A search in progress is neither found nor failed, and an image mapped by a dlopen in progress stays: whether it
        was dropped is not known, so that it leaves as `UnloadEvent` where it leaves.
        """
        self._flush_mapping()
        self._current_search = None
        self._dlopen_calls.clear()
        self._is_adrift = True

    def set_own(self, own: bool) -> None:
        """Set whether the next loads are dlltracer's own, which are left out."""
        # Python wrote the mark, so it was running: a search that has not led to an image by then has failed. Decided
        # now, it is the program's failure; by the next line it would be taken for ours.
        self._flush_mapping()
        self._settle(failed=True)
        self._is_own = own

    def set_running(self) -> None:
        """The program runs already: the log does not begin with its start."""
        self._running = True

    def note_blank(self) -> None:
        """An empty line: the loader writes one when a search is over, with or without a result (dl-load.c)."""
        self._searched = self._current_search is not None

    def finish(self, ended: bool | None) -> None:
        """No line follows. `ended`: the process went on behind the last line; `None` if that is not known."""
        self._flush_mapping()
        if self._searched if ended is None else ended:
            self._settle(failed=True)
        self._current_search = None

    def handle(self, line: Line, wall: float | None = None) -> None:
        """Take in a line; `wall`: when it was read, the time of events that no request of Python has a time for."""
        self._wall, self._searched = wall, False
        kind = line.kind
        step = _STEPS.get(kind)
        if step is None:
            if kind == LineKind.UNKNOWN:
                self.undecodable += 1
            elif kind == LineKind.PLACE and self._mapping is not None:
                self._mapping["base"], self._mapping["size"] = line.base, line.size
                self._flush_mapping()
            return
        if self._mapping is not None:
            self._flush_mapping()
        if self._on_start is not None and not (self._is_adrift and kind == LineKind.NEED):
            self._follow(line)
        if self._is_adrift and kind not in _INSIDE_A_TRANSACTION:
            self._is_adrift = False
        if self._dlopen_calls and kind not in (LineKind.DESTROY, LineKind.START):
            self._drop_failed()
        step(self, line)

    def _drop_failed(self) -> None:
        """Forget the dlopens in progress that have failed, up to one that has not."""
        while self._dlopen_calls and self._dlopen_calls[-1].failed:
            self._dlopen_calls.pop()

    def load_at_once(
        self, name: str, by: str, base: int, size: int, tid: int, wall: float, imports: tuple[str, ...],
        *, read: float | None,
    ) -> bool:  # fmt: skip
        """Take in a request, and all lines of the dlopen for it: a `decode.SimpleDlopen`, and when it was read.

        Does what `ask` does, and `handle` with these lines: OPEN, MAP, PLACE, INIT, OPENED. Does nothing, and returns
        `False`, where they decide something about what came before, or belong to the request of another thread.
        """
        if self._current_search is not None or self._mapping is not None or self._on_start is not None:
            return False
        if self._requests:
            if any(request.target == name and request.tid != tid for request in self._requests.values()):
                return False
            self._requests.pop(tid, None)
        self._wall, self._searched, self._is_adrift, self.initialising = read, False, False, None
        if self._dlopen_calls:
            self._drop_failed()
        probes = self._probed_directly(name)
        name = probes[0].path
        event = LoadEvent(
            name, None, base, size, wall, self.pid, tid, name, self._share(self._aliases.get(by, by)), _DIRECT, probes,
            self._share(imports),
        )  # fmt: skip
        self._emit(event)
        self._loaded[name] = event
        return True

    def _probed_directly(self, name: str) -> tuple[Probe, ...]:
        """The one probe of an image that was loaded by its path."""
        probes = self._direct.get(name)
        if probes is None:
            if len(self._direct) >= _MOST_SHARED:
                self._direct.clear()
            probes = self._direct[name] = (Probe(self._share(name), _DIRECT, None, _LOADED),)
        return probes

    def _follow(self, line: Line) -> None:
        """Notice the start of a program, the first one or, by execve, another one in its place."""
        # What dlopen needs is needed by an image that it has mapped. The first needs of all are a program's.
        replaced = self._running and (
            line.kind == LineKind.START
            or (line.kind == LineKind.NEED and not (self._dlopen_calls and line.by in self._loaded))
        )
        if replaced:
            self._settle(failed=True)
            self._reset()
            self._aliases, self._program, self._running = {}, "", False
        name = line.by if line.kind in (LineKind.NEED, LineKind.OPEN) else line.name
        if self._running or self._program or not name or self._on_start is None or self.pid is None:
            return
        self._program = name
        program = self._on_start(self.pid, name)
        if program is not None:
            self._aliases[name] = program.path
            self._emit(replace(program, timestamp=self._wall, imports=()))

    def _emit(self, event: ImageChange, doubt: str | None = None) -> None:
        if not self._is_own:
            self._changes.append((event, doubt))

    def _transfer(self, _: Line) -> None:
        self._running, self.initialising = True, None

    def _find(self, line: Line) -> None:
        if self._current_search is None or self._current_search.name != line.name:
            self._settle(failed=False)
            self._current_search = Search(line.name, None)

    def _search(self, line: Line) -> None:
        search = self._current_search
        if search is None:
            self.undecodable += 1
            return
        search.phase, search.origin = line.phase, line.by
        if line.phase is _CACHE and line.by:
            search.probes.append(Probe(line.by, _CACHE, None, _NO_ENTRY))

    def _try(self, line: Line) -> None:
        search = self._current_search
        if search is None:
            self.undecodable += 1
            return
        probes = search.probes
        if search.phase is _CACHE and probes and probes[-1].outcome is _NO_ENTRY:
            probes.pop()  # it had one: the place that is tried now
        probes.append(Probe(line.name, search.phase or Phase.OTHER, search.origin))

    def _miss(self, line: Line) -> None:
        search = self._current_search
        if search is None or not search.probes:
            self.undecodable += 1
            return
        absent = line.by == "no such file"
        outcome, reason = (ProbeOutcome.ABSENT, None) if absent else (ProbeOutcome.PRESENT, line.by)
        tried = search.probes[-1]
        search.probes[-1] = Probe(tried.path, tried.phase, tried.origin, outcome, reason)

    def _open(self, line: Line) -> None:
        # A new dlopen while a search is open: that search's own dlopen has ended, found or failed.
        self._settle(failed=True)
        self._drop_failed()
        self._dlopen_calls.append(DlopenCall(line.name, self._take_request(line.name)))
        self._current_search = Search(line.name, line.by)

    def _need(self, line: Line) -> None:
        self._settle(failed=False)
        self._current_search = Search(line.name, line.by)

    def _map(self, line: Line) -> None:
        name, current = line.name, self._current_search
        search = current if current is not None and current.name == name else Search(name, None)
        self._current_search = None
        path, phase, probes = name, None, None
        if search.probes:
            found = search.probes[-1]
            path, phase = found.path, found.phase
            search.probes[-1] = Probe(path, phase, found.origin, _LOADED, found.reason)
            probes = tuple(search.probes)
        elif "/" in name:
            phase, probes = _DIRECT, self._probed_directly(name)
        request = self._dlopen_calls[-1].request if self._dlopen_calls else None
        imports, tid, wall = self._attribution(request)
        self._mapping = {
            "path": self._share(path), "pid": self.pid, "tid": tid, "timestamp": wall, "need": self._share(name),
            "requested_by": self._share(self._requester(search)), "phase": phase, "probes": self._share(probes),
            "imports": imports,
        }  # fmt: skip

    def _share(self, value: ValueT) -> ValueT:
        """The equal value that was there before: a service that loads the same plug-in a million times holds it
        once."""
        if len(self._shared) >= _MOST_SHARED:
            self._shared.clear()
        return self._shared.setdefault(value, value)  # type: ignore[return-value]

    def _flush_mapping(self) -> None:
        if self._mapping is not None:
            event, self._mapping = LoadEvent(**self._mapping), None
            self._emit(event)
            self._loaded[event.path] = event
            if self._dlopen_calls:
                self._dlopen_calls[-1].mapped.append(event.path)

    def _error(self, line: Line) -> None:
        self._settle(failed=False)
        if self._dlopen_calls:
            self._dlopen_calls[-1].failed = True
            self._dlopen_calls[-1].error = (line.name, line.by or "")

    def _initialise(self, line: Line) -> None:
        owner = next((o for o in reversed(self._dlopen_calls) if line.name in o.mapped), None)
        self._settle(failed=owner is not None and owner is not self._dlopen_calls[-1])
        if owner is not None:
            owner.committed = True
        self.initialising = line.name

    # The next two belong to dlclose, so any dlopen that was searching has ended.

    def _finalise(self, line: Line) -> None:
        self._settle(failed=True)
        self._commit(line.name)

    def _close(self, _: Line) -> None:
        self._settle(failed=True)

    def _commit(self, path: str) -> None:
        """The image is being finalised, which the loader does to those that it has initialised, and to no other: the
        dlopen that mapped it had succeeded, also if the line that shows it is missing."""
        for call in self._dlopen_calls:
            if path in call.mapped:
                call.committed = True

    def _opened(self, line: Line) -> None:
        path = line.name
        self.initialising = None
        top = self._dlopen_calls[-1] if self._dlopen_calls else None
        if self._current_search is not None and (top is None or not top.is_about(path)):
            is_outer = any(outer.is_about(path) for outer in self._dlopen_calls[:-1])
            self._settle(failed=True, doubt=None if is_outer else path)
            self._drop_failed()
            top = self._dlopen_calls[-1] if self._dlopen_calls else None
        self._current_search = None
        # glibc also writes "opening" for an image that it had already, without having begun a transaction.
        if top is not None and top.is_about(path):
            self._dlopen_calls.pop()

    def _settle(self, *, failed: bool, doubt: str | None = None) -> None:
        """Decide the search in progress, if there is one.

        It led to no image, which has two meanings: the loader went on, so the name was an image it had already (found
        by inode or soname); or it gave up, so the name was not found. The next line shows which.
        """
        search, self._current_search = self._current_search, None
        if search is None or not failed:
            return
        probes = tuple(search.probes) or (Probe(search.name, _DIRECT),)
        opening = self._dlopen_calls[-1] if self._dlopen_calls else None
        if opening is not None:
            opening.failed = True
        imports, tid, wall = self._attribution(opening.request if opening else None)
        event = LoadFailedEvent(
            self._share(search.name), pid=self.pid, tid=tid, timestamp=wall, need=self._share(search.name),
            requested_by=self._share(self._requester(search)), probes=self._share(probes), imports=imports,
            kind=FailureKind.NOT_FOUND,
        )  # fmt: skip
        self._emit(event, doubt)

    def _destroy(self, line: Line) -> None:
        self._settle(failed=True)
        path = line.name
        loaded = self._loaded.pop(path, None) or LoadEvent(self._share(path), pid=self.pid)
        owner = next((o for o in reversed(self._dlopen_calls) if path in o.mapped and not o.committed), None)
        known = (
            loaded.path, loaded.display_path, loaded.base, loaded.size, self._wall or loaded.timestamp, self.pid,
            loaded.tid, loaded.need, loaded.requested_by, loaded.phase, loaded.probes, loaded.imports,
        )  # fmt: skip
        if owner is not None:
            owner.failed = True
            reason = owner.error[1] if owner.error is not None and owner.error[0] == path else None
            self._emit(LoadFailedEvent(*known, kind=FailureKind.DROPPED, reason=reason))
            return
        self._emit(UnloadEvent(*known))
        # A dlopen that has succeeded and whose images are all gone: the line that ends it is missing.
        for call in tuple(self._dlopen_calls):
            if call.committed and path in call.mapped:
                call.mapped.remove(path)
                if not call.mapped:
                    self._dlopen_calls.remove(call)

    def _take_request(self, name: str) -> Request | None:
        """The oldest request for exactly this name; else that of the dlopen around this one."""
        for request in self._requests.values():
            if name in (request.target, f"./{request.target}"):
                return self._requests.pop(request.tid)
        return self._dlopen_calls[-1].request if self._dlopen_calls else None

    def _requester(self, search: Search) -> str | None:
        """The image that wants it. For the program itself, the loader has the name that it was called by."""
        return search.by if search.by is None else self._aliases.get(search.by, search.by)

    def _attribution(self, request: Request | None) -> tuple[tuple[str, ...] | None, int | None, float | None]:
        """Imports, thread id and time of an event; no import of Python is in progress before the program begins."""
        if request is not None:
            return self._share(request.imports), request.tid, request.wall
        return None if self._running else (), None, self._wall


_STEPS = {
    LineKind.OPEN: LoaderState._open, LineKind.NEED: LoaderState._need, LineKind.FIND: LoaderState._find,
    LineKind.SEARCH: LoaderState._search, LineKind.TRY: LoaderState._try, LineKind.MISS: LoaderState._miss,
    LineKind.MAP: LoaderState._map, LineKind.START: LoaderState._transfer, LineKind.INIT: LoaderState._initialise,
    LineKind.FINI: LoaderState._finalise, LineKind.OPENED: LoaderState._opened, LineKind.CLOSE: LoaderState._close,
    LineKind.DESTROY: LoaderState._destroy, LineKind.ERROR: LoaderState._error,
}  # fmt: skip
"""What a line of each kind makes `LoaderState.handle` do, but for those that it takes in itself."""


def describe_name_not_found(request: Request, pid: int | None) -> LoadFailedEvent:
    """The failure of a search by `ctypes.util.find_library`."""
    name = request.target
    probes = tuple(
        Probe("/etc/ld.so.cache", Phase.CACHE, None, ProbeOutcome.NO_ENTRY)
        if place == "ldconfig"
        else Probe(f"lib{name}.so", Phase.OTHER, f"search path of {place}", ProbeOutcome.ABSENT)
        for place in request.places
    )
    return LoadFailedEvent(
        name, pid=pid, tid=request.tid, timestamp=request.wall, need=name, probes=probes, imports=request.imports,
        kind=FailureKind.NAME_NOT_FOUND,
    )  # fmt: skip
