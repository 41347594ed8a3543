"""Note every request of Python to the loader, from CPython's own audit events.

CPython raises `import` with a file name just before it opens an extension module (Python/importdl.c). It raises
`ctypes.dlopen` just before ctypes opens a library ("Audit events table" of the Python documentation). The names of the
imports in progress are read at that moment from the frames of `importlib._bootstrap._find_and_load`. Nothing is
patched.

`ctypes.util.find_library` asks the loader for nothing. On Linux it runs ldconfig, gcc, ld and objdump one after the
other, until one of them has an answer (Lib/ctypes/util.py). Each run raises `subprocess.Popen`. A search that ran
`ld`, and not objdump after that, has found nothing and returns `None`.

An audit hook cannot be removed, so there is one a process, which returns at once while nobody watches.
"""

from __future__ import annotations

import _frozen_importlib
import sys
import time
from _thread import allocate_lock, get_ident, get_native_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from ..model.failure import Request

    RawRequest = tuple[str, str, tuple[str, ...], int, float, int, tuple[str, ...], int | None]

MARK_START, MARK_END = b"\x1e", b"\x1f"
"""The frame of a request in a stream of text: ASCII's record and unit separators, which no path has."""

MARK_MODE = 0x6C6C6474
"""The mode of an access(2) whose path is a mark, for a tracer that watches system calls. The kernel refuses any mode
above 7 with EINVAL before it looks at the path (do_faccessat in fs/open.c): whether somebody watches or not, the call
does nothing. Python raises no audit event for it."""

_IS_CPYTHON = sys.implementation.name == "cpython"
UNATTRIBUTED = (
    "another audit hook refused ours" if _IS_CPYTHON else f"{sys.implementation.name} raises no audit events of imports"
) + ": loads have no Python import"
"""A note."""

OWN_BEGIN, OWN_END, FORKED, GAP = b"\x1eown\x1f", b"\x1enot own\x1f", b"\x1eforked\x1f", b"\x1egap\x1f"
"""Marks other than of requests (`linux.decode.Mark`)."""

FIND_LIBRARY = "ctypes.util.find_library"
"""The kind of request that is no audit event: a search by name that found nothing (`model.failure.RequestKind`)."""

IMPORT = "import"
"""The kind of a request for an extension module: CPython's audit event."""

_IMPORTS = vars(_frozen_importlib)
"""The globals of `importlib._bootstrap`."""


class Watch:
    """One watcher of requests, from `start` to `stop`.

    Arguments: `on_request` is called in the thread of the request, before the loader is. It must be quick and must not
    raise. It gets a `RawRequest`: kind, target, imports, tid, wall seconds, perf_counter nanoseconds, places, flags.
    Without it the requests are kept and returned by `stop`. `places` is empty but for `FIND_LIBRARY`: the programs that
    were run, "ldconfig" first. `flags` are those of `model.failure.Request`.

    `on_return` is called in the thread of a request when that thread runs Python again, which may be more than once.
    It returns whether the loader has done something since. Its argument is whether the request is known to have failed.
    It must be quick and must not raise.
    """

    def __init__(
        self, on_request: Callable[[RawRequest], None] | None = None, on_return: Callable[[bool], bool] | None = None
    ) -> None:
        self._on_request = on_request
        self.on_return = on_return
        self._kept: list[tuple[RawRequest, object]] = []
        self._idle: dict[RawRequest, int] = {}
        self._open: dict[int, RawRequest] = {}
        self._failed: set[RawRequest] = set()
        self._taken = 0
        self.keeps_requests = on_request is None and on_return is None

    def start(self) -> bool:
        """Begin; `False` if another audit hook vetoed ours, so that requests will not be seen."""
        return _HOOK.add(self)

    def stop(self) -> tuple[Request, ...]:
        """End and return the requests kept, in order. Stopping twice returns them again."""
        self.end()
        return self._make(0, len(self._kept))

    def _make(self, first: int, end: int) -> tuple[Request, ...]:
        from ..model.failure import Request, RequestKind

        imported = _find_imported(self._kept[:end]) if end > first else set()
        return tuple(
            Request(
                RequestKind(kind), target, imports, tid, wall, clock,
                succeeded=_has_succeeded(kind, library, number in imported, raw in self._failed),
                idle_clock=self._idle.get(raw),
                places=places, flags=flags,
            )
            for number, (raw, library) in enumerate(self._kept[first:end], first)
            for kind, target, imports, tid, wall, clock, places, flags in (raw,)
        )  # fmt: skip

    def peek(self, until: int | None) -> tuple[Request, ...]:
        """The requests up to a moment, a value of `open_since`, or all, but those that were forgotten."""
        end = self._taken
        while end < len(self._kept) and (until is None or self._kept[end][0][5] <= until):
            end += 1
        return self._make(self._taken, end)

    def forget(self, count: int) -> None:
        """Leave out the first of the requests that `peek` returns."""
        self._taken += count

    def open_since(self, moment: int) -> int:
        """The moment, or the one before the first request that was in progress then; as `time.perf_counter_ns()`."""
        spans = [(raw[5], self._idle.get(raw, moment + 1)) for raw, _ in self._kept[self._taken :]]
        for asked, idle in reversed(spans):
            if asked <= moment < idle:
                moment = asked - 1
        return moment

    def end(self) -> None:
        """End, and import nothing for it."""
        self.settle()
        _HOOK.remove(self)

    def settle(self) -> None:
        """Hand on what the calling thread has asked for, where only its next audit event would show that it failed."""
        _HOOK.settle()

    @property
    def has_open(self) -> bool:
        """True if a request is kept of a thread that has not run Python since."""
        return bool(self._open)

    def note_activity(self) -> None:
        """The calling thread runs Python again: its last request has returned."""
        raw = self._open.pop(get_ident(), None)
        if raw is not None:
            self._idle[raw] = time.perf_counter_ns()

    def note_failed(self, raw: RawRequest) -> None:
        """Note that a request has failed."""
        self._failed.add(raw)

    def note_request(self, raw: RawRequest, library: object | None) -> None:
        """Keep a request, and hand it to the listener. `library`: the CDLL object that is being made, if any."""
        if self._on_request is not None:
            self._on_request(raw)
        if not self.keeps_requests:
            return
        # By the request, not by its place in the list: threads of a free-threaded Python append at the same time.
        self._open[get_ident()] = raw
        self._kept.append((raw, library))


def _find_imported(kept: list[tuple[RawRequest, object]]) -> set[int]:
    """Return the numbers of the requests whose extension module is in `sys.modules` now: those loads succeeded.

    Of several requests for one file only the last one counts: those before it may have failed.
    """
    last: dict[str, int] = {}
    for number, (raw, _) in enumerate(kept):
        if raw[0] == IMPORT and raw[2]:
            last[raw[1]] = number
    found: set[int] = set()
    for target, number in last.items():
        module = sys.modules.get(kept[number][0][2][-1])
        # Programs put objects of their own into sys.modules: no code of theirs may run here.
        spec = module.__dict__.get("__spec__") if type(module) is type(sys) else None
        if getattr(spec, "origin", None) == target:
            found.add(number)
    return found


def _has_succeeded(kind: str, library: object | None, is_imported: bool, is_failed: bool) -> bool | None:
    """Return whether a request succeeded; `None` where that is not known."""
    if kind == FIND_LIBRARY:
        return False
    if library is not None:
        return "_handle" in vars(library)
    if is_imported:
        return True
    return False if is_failed else None


def _is_over_without_success(raw: RawRequest, library: object | None) -> bool:
    """Return whether a request is known to have failed, when the frame that made it has just ended.

    The frames of a call that raised live as long as its traceback. When they end, the import is no longer in progress,
    unlike that of a module that was made and is about to be run.
    """
    # This function, `note_end` and `__del__`; behind them there may be nobody when the interpreter ends.
    frame: FrameType | None = sys._getframe()
    for _ in range(3):
        frame = None if frame is None else frame.f_back
    if library is not None:
        is_loading = frame is not None and frame.f_locals.get("self") is library
        return "_handle" not in vars(library) and not is_loading
    if raw[0] != IMPORT or not raw[2] or raw[2][-1] in imports_in_progress(frame):
        return False
    return not _find_imported([(raw, library)])


def imports_in_progress(frame: FrameType | None) -> tuple[str, ...]:
    """The names being imported by the callers of `frame`, outermost first; consecutive repeats are one.

    The names up to a frame of `_find_and_load` stay with it, since its callers do not change while it runs: the next
    walk ends there. A hundred frames are usual, and few of them are new.
    """
    fresh: list[tuple[dict[str, object], str]] = []
    names: tuple[str, ...] | None = None
    while frame is not None and names is None:
        # The globals first: to read `f_code` is an audit event, which costs more than all the rest.
        if frame.f_globals is _IMPORTS and frame.f_code.co_name == "_find_and_load":
            variables = frame.f_locals
            names = variables.get(_NAMES)
            name = variables.get("name")
            if names is None and isinstance(name, str):
                fresh.append((variables, name))
        frame = frame.f_back
    names = names or ()
    for variables, name in reversed(fresh):
        if names[-1:] != (name,):
            names += (name,)
        variables[_NAMES] = names
    return names


def is_own_load(event: object) -> bool:
    """Return whether an import inside dlltracer loaded, or dropped, the image of an event: such events are never shown.

    A trace that ends imports its decoder, which other traces of the process see; so does a description of an exception.
    """
    imports: tuple[str, ...] = getattr(event, "imports", None) or ()
    # Most have no such name in them: one search of the text is cheaper than a test of each of a dozen names.
    return "dlltracer." in "\n".join(imports) and any(name.startswith("dlltracer.") for name in imports)


_LOADING = ("__init__", "_load_library")
"""The methods of `ctypes.CDLL` that open the library: newer versions of CPython have split off the second."""


def _library_of(frame: FrameType | None) -> object | None:
    """The `ctypes.CDLL` under construction in `frame`, if it is one.

    It gets its `_handle` only when the load succeeds, which is how success is known afterwards without wrapping
    anything. Kept until the watch stops; a CDLL frees nothing when it dies, so its lifetime does not matter.
    """
    if frame is None or frame.f_code.co_name not in _LOADING:
        return None
    library = frame.f_locals.get("self")
    ctypes = sys.modules.get("ctypes")
    return library if ctypes is not None and isinstance(library, ctypes.CDLL) else None


def _flags_of(frame: FrameType | None) -> int | None:
    """The flags with which `ctypes.CDLL` in `frame` is about to call LoadLibraryExW; `None` if that is not known.

    They are in a variable of that method: what `winmode` gave, or what ctypes chose without it (its source).
    """
    if sys.platform != "win32" or frame is None or frame.f_code.co_name not in _LOADING:
        return None
    mode = frame.f_locals.get("mode")
    return mode if type(mode) is int and 0 <= mode < 1 << 32 else None


def encode_request(raw: RawRequest) -> bytes:
    """A request as a mark that can stand anywhere in a stream of text, even inside a line (see `linux.decode`).

    Here and not beside its inverse, which needs modules that may not be imported before the traced code runs.
    """
    kind, target, imports, tid, wall, clock, places, flags = raw
    given = "" if flags is None else str(flags)
    names = " ".join((target, *imports))
    if not (names.isascii() and names.isprintable() and names.count(" ") == len(imports) and "%" not in names):
        names = " ".join([f"%{name.encode('utf-8', 'surrogatepass').hex()}" for name in (target, *imports)])
    return f"\x1e{kind} {tid} {wall!r} {clock} {','.join(places)} {given} {names}\x1f".encode("ascii")


class _ReturnGuard:
    """Tells the hook that the frame which holds it has ended: the call into the loader that it made has returned.

    No audit event comes between a load and `os._exit`, a signal or a crash, so the next one may be too late.
    """

    __slots__ = ("_hook", "_library", "_raw", "_thread")

    def __init__(self, hook: _AuditHook, raw: RawRequest, library: object | None) -> None:
        self._hook = hook
        self._raw = raw
        self._library = library
        self._thread = get_ident()

    def __del__(self) -> None:
        # A frame that raised lives in a traceback, and may end in another thread, or when the interpreter does.
        if get_ident() == self._thread:
            self._hook.note_end(self._raw, self._library)


_GUARD, _NAMES = ".dlltracer", ".dlltracer imports"
"""The names of a guard, and of what `imports_in_progress` found, among the local variables of a frame. No code can use
them."""

_MOST_LOOKS = 16
"""How many audit events after a request are taken for the return of the loader, if it has done nothing until then."""


class _LibrarySearch:
    """A call of `ctypes.util.find_library` in progress: what was asked for, and the programs run so far."""

    __slots__ = ("clock", "imports", "name", "places", "wall")

    def __init__(self, name: str, imports: tuple[str, ...]) -> None:
        self.name = name
        self.imports = imports
        self.wall = time.time()
        self.clock = time.perf_counter_ns()
        self.places: tuple[str, ...] = ()


_PLACES = {"_findSoname_ldconfig": "ldconfig", "_findLib_gcc": "gcc", "_findLib_ld": "ld", "_get_soname": "objdump"}
"""Functions of ctypes.util (CPython 3.10 to 3.14, Linux) to the program that each runs."""


def _library_search_in(frame: FrameType | None) -> tuple[str, str] | None:
    """The name that a caller of `frame` gave to `ctypes.util.find_library`, and the program that is run for it."""
    place = ""
    while frame is not None:
        code = frame.f_code
        if frame.f_globals.get("__name__") == "ctypes.util":
            if code.co_name == "find_library":
                name = frame.f_locals.get("name")
                return (name, place) if isinstance(name, str) else None
            place = place or _PLACES.get(code.co_name, "")
        frame = frame.f_back
    return None


class _AuditHook:
    """The audit hook of this process, and the watches behind it."""

    def __init__(self) -> None:
        self._watches: tuple[Watch, ...] = ()
        self._waiting: tuple[Watch, ...] = ()
        self._busy: list[bool] = [True]
        self._searches: dict[int, _LibrarySearch] = {}
        self._returns: dict[int, int] = {}
        self._proved = False
        self._lock = allocate_lock()
        self._hook = self._make_hook()

    def add(self, watch: Watch) -> bool:
        with self._lock:
            self._set((*self._watches, watch))
            if not self._proved:
                # A hook that vetoes ours makes addaudithook return without an error (sys.addaudithook): only an event
                # proves that it is there, and an older hook may raise at any event.
                try:
                    sys.addaudithook(self._hook)
                    sys._getframe()
                except Exception:  # noqa: BLE001
                    return False
            return self._proved

    def remove(self, watch: Watch) -> None:
        with self._lock:
            self._set(tuple(other for other in self._watches if other is not watch))

    def settle(self) -> None:
        """Decide the search of the calling thread, unless it goes on."""
        if get_ident() in self._searches:
            self._end_search(sys._getframe(1))

    def _set(self, watches: tuple[Watch, ...]) -> None:
        self._watches = watches
        self._waiting = tuple(watch for watch in watches if watch.keeps_requests)
        self._set_busy()

    def _make_hook(self) -> Callable[[str, tuple[object, ...]], None]:
        """Return the hook.

        A large import calls it tens of thousands of times, so all other events leave early. Five of six are of `id`:
        the text of an event is new each time, and to compare it is cheaper than to look it up, which hashes it.

        It is a function, not a method: CPython asks every hook for an attribute `__cantrace__` at every event
        (Python/sysmodule.c), and a method answers by an exception that is raised and cleared. That took three times as
        long as all the rest.
        """
        # What must be looked at whenever an event comes. A list has one identity, unlike the attributes of this object.
        busy = self._busy
        kinds = frozenset((IMPORT, "ctypes.dlopen", "subprocess.Popen"))

        def on_event(event: str, args: tuple[object, ...]) -> None:
            if busy:
                self._note_activity(event)
            if event != "builtins.id" and event in kinds and (event != IMPORT or args[1:2] != (None,)):
                self._on_request(event, args)

        return on_event

    def _note_activity(self, event: str) -> None:
        """The calling thread runs Python."""
        self._proved = True
        for watch in self._waiting:
            watch.note_activity()
        if self._searches and event != "sys._getframe" and get_ident() in self._searches:
            self._end_search(sys._getframe(2))
        if self._returns:
            self.note_return()
        self._set_busy()

    def note_return(self, *, is_last: bool = False, has_failed: bool = False) -> None:
        """The calling thread runs Python: its request to the loader, if it made one, may have returned.

        `is_last`: it has returned for certain; `has_failed`: and is known to have failed.
        """
        looks = self._returns.pop(get_ident(), None)
        if looks is None and not has_failed:
            return
        has_loaded = False
        for watch in self._waiting:
            watch.note_activity()
        for watch in self._watches:
            if watch.on_return is not None:
                has_loaded = watch.on_return(has_failed) or has_loaded
        # CPython raises other audit events between that of an import and the call of the loader ("open").
        if looks is not None and looks < _MOST_LOOKS and not (is_last or has_loaded):
            self._returns[get_ident()] = looks + 1

    def note_end(self, raw: RawRequest, library: object | None) -> None:
        """The frame that made a request has ended."""
        has_failed = bool(self._waiting) and _is_over_without_success(raw, library)
        if has_failed:
            for watch in self._waiting:
                watch.note_failed(raw)
        self.note_return(is_last=True, has_failed=has_failed)

    def _set_busy(self) -> None:
        """Let the hook look at every event while something waits for the next one."""
        self._busy[:] = [True] if self._is_waiting() else []
        if not self._busy and self._is_waiting():  # another thread has begun to wait in between
            self._busy[:] = [True]

    def _is_waiting(self) -> bool:
        if self._searches or self._returns or not self._proved:
            return True
        return any(watch.has_open for watch in self._waiting)

    def _on_request(self, event: str, args: tuple[object, ...]) -> None:
        watches = self._watches
        if event == "subprocess.Popen":
            if watches and "ctypes.util" in sys.modules:
                self._note_search(sys._getframe(2))
                self._set_busy()
            return
        target = args[1] if event == IMPORT and len(args) > 1 else args[0] if event == "ctypes.dlopen" else None
        if not watches or target is None:
            return
        text = target.decode("utf-8", "surrogateescape") if isinstance(target, bytes) else str(target)
        # Reading frames raises audit events itself, so it is done before the request counts as open.
        frame = sys._getframe(2)
        imports, library = imports_in_progress(frame), _library_of(frame) if event == "ctypes.dlopen" else None
        flags = _flags_of(frame) if event == "ctypes.dlopen" else None
        raw = (event, text, imports, get_native_id(), time.time(), time.perf_counter_ns(), (), flags)
        for watch in watches:
            watch.note_request(raw, library)
        if any(watch.on_return is not None for watch in watches):
            if library is not None or frame.f_globals is _IMPORTS:
                frame.f_locals[_GUARD] = _ReturnGuard(self, raw, library)
            self._returns[get_ident()] = 0
        self._set_busy()

    def _note_search(self, frame: FrameType | None) -> None:
        """A program is run: note it, if `ctypes.util.find_library` runs it."""
        found = _library_search_in(frame)
        if found is None:
            return
        name, place = found
        search = self._searches.get(get_ident())
        if place == "objdump":  # gcc or ld named a file: this is how its soname is read
            self._searches.pop(get_ident(), None)
        elif search is None or search.name != name or place == "ldconfig":
            new = _LibrarySearch(name, imports_in_progress(frame))
            if search is not None:  # no audit event came between two calls, as in a loop over names
                self._hand_on(search)
            search = self._searches[get_ident()] = new
            search.places = (place,)
        elif place not in search.places:
            search.places += (place,)

    def _end_search(self, frame: FrameType | None) -> None:
        """Hand on the search of this thread if `find_library` has returned, which is not seen itself, from `ld`."""
        # Taken out meanwhile: frames raise audit events when they are looked at, and those come here.
        search = self._searches.pop(get_ident(), None)
        if search is None:
            return
        if _library_search_in(frame) is not None:
            self._searches[get_ident()] = search
            return
        self._hand_on(search)

    def _hand_on(self, search: _LibrarySearch) -> None:
        """Give the watches a search that has ended, if it found nothing."""
        if "ld" not in search.places:
            return  # the answer was in the cache of ldconfig
        raw = (
            FIND_LIBRARY, search.name, search.imports, get_native_id(), search.wall, search.clock, search.places,
            None,
        )  # fmt: skip
        for watch in self._watches:
            watch.note_request(raw, None)


_HOOK = _AuditHook()
"""The one piece of state a process has of it: the interpreter has one list of audit hooks and no way out of it
(docs/adr/0002)."""
