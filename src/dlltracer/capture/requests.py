"""Note every request of Python to the loader: imports of extension modules, libraries that ctypes opens, and searches
of `ctypes.util.find_library` that found nothing.

`interposed` says how a call is seen. The names of the imports in progress are read at that moment from importlib's
locks.

`ctypes.util.find_library` asks the loader for nothing. On Linux it runs ldconfig, gcc, ld and objdump one after the
other, until one of them has an answer (Lib/ctypes/util.py). A search that ran `ld`, and not objdump after that, has
found nothing and returns `None`.
"""

from __future__ import annotations

import _frozen_importlib
import sys
import time
from _thread import allocate_lock, get_ident, get_native_id

from .interposed import AtDrop, CallWithEnd, Interposition, is_module, is_of_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType, ModuleType
    from typing import Any

    from ..model.request import Request
    from .interposed import Function

    RawRequest = tuple[str, str, tuple[str, ...], int, float, int, tuple[str, ...], int | None]

IS_ATTRIBUTED = sys.implementation.name == "cpython"
"""Whether requests are seen: the functions that `interposed` replaces are CPython's."""
_NOT_SEEN = f"the imports of {sys.implementation.name} are not seen: loads have no Python import"
"""A note."""

FIND_LIBRARY = "ctypes.util.find_library"
"""The kind of request for which CPython has no audit event (`model.request.RequestKind`): a search by name that found
nothing."""

IMPORT, CTYPES = "import", "ctypes.dlopen"
"""The kinds of a request for an extension module and of one of ctypes: the names of CPython's audit events."""

_IMPORTS = vars(_frozen_importlib)
"""The globals of `importlib._bootstrap`."""
_LOCKS = _IMPORTS.get("_module_locks", {})
"""Its locks of the modules that are being imported: weak references by name."""


class Watch:
    """One watcher of requests, from `start` to `stop`.

    Arguments: `on_request` is called in the thread of the request, before the loader is. It must be quick and must not
    raise. It gets a `RawRequest`: kind, target, imports, tid, wall seconds, perf_counter nanoseconds, places, flags.
    Without it the requests are kept and returned by `stop`. `places` is empty but for `FIND_LIBRARY`: the programs that
    were run, "ldconfig" first. `flags` are those of `model.request.Request`.

    `on_return` is called in the thread of a request when the loader has returned, or has gone as far as to let a module
    make the next request. Its argument is whether the request is known to have failed, which may show later, in a
    second call. It must be quick and must not raise.
    """

    def __init__(
        self, on_request: Callable[[RawRequest], None] | None = None, on_return: Callable[[bool], None] | None = None
    ) -> None:
        self._on_request = on_request
        self.on_return = on_return
        self._kept: list[RawRequest] = []
        self._idle: dict[RawRequest, int] = {}
        self._open: dict[int, RawRequest] = {}
        self._succeeded: dict[RawRequest, bool] = {}
        self._taken = 0
        self.keeps_requests = on_request is None and on_return is None
        self._failures_before = 0

    def start(self) -> None:
        """Begin."""
        self._failures_before = len(_CALLS.failures)
        _CALLS.add(self)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what was not seen of requests."""
        if not IS_ATTRIBUTED:
            return (_NOT_SEEN,)
        notes: tuple[str, ...] = ()
        failures = _CALLS.failures[self._failures_before :]
        if failures:
            notes += (f"{len(failures)} requests could not be noted ({', '.join(sorted(set(failures)))})",)
        return notes

    def stop(self) -> tuple[Request, ...]:
        """End and return the requests kept, in order. Stopping twice returns them again."""
        self.end()
        return self._make(0, len(self._kept))

    def _make(self, first: int, end: int) -> tuple[Request, ...]:
        from ..model.request import Request, RequestKind

        imported = _find_imported(self._kept[:end]) if end > first else set()
        return tuple(
            Request(
                RequestKind(kind), target, imports, tid, wall, clock,
                succeeded=self._succeeded.get(raw, True if number in imported else None),
                idle_clock=self._idle.get(raw),
                places=places, flags=flags,
            )
            for number, raw in enumerate(self._kept[first:end], first)
            for kind, target, imports, tid, wall, clock, places, flags in (raw,)
        )  # fmt: skip

    def peek(self, until: int | None) -> tuple[Request, ...]:
        """The requests up to a moment, a value of `open_since`, or all, but those that were forgotten."""
        end = self._taken
        while end < len(self._kept) and (until is None or self._kept[end][5] <= until):
            end += 1
        return self._make(self._taken, end)

    def forget(self, count: int) -> None:
        """Leave out the first of the requests that `peek` returns."""
        self._taken += count

    def open_since(self, moment: int) -> int:
        """The moment, or the one before the first request that was in progress then; as `time.perf_counter_ns()`."""
        spans = [(raw[5], self._idle.get(raw, moment + 1)) for raw in self._kept[self._taken :]]
        for asked, idle in reversed(spans):
            if asked <= moment < idle:
                moment = asked - 1
        return moment

    def end(self) -> None:
        """End, and import nothing for it."""
        _CALLS.remove(self)

    def note_return(self) -> None:
        """The last request of the calling thread has returned, unless it was noted before."""
        raw = self._open.pop(get_ident(), None)
        if raw is not None:
            self._idle[raw] = time.perf_counter_ns()

    def note_outcome(self, raw: RawRequest, succeeded: bool) -> None:
        """Note whether a request has succeeded, if it is kept."""
        if self.keeps_requests:
            self._succeeded[raw] = succeeded

    def note_request(self, raw: RawRequest) -> None:
        """Keep a request, and hand it to the listener."""
        if self._on_request is not None:
            self._on_request(raw)
        if not self.keeps_requests:
            return
        # By the request, not by its place in the list: threads of a free-threaded Python append at the same time.
        self._open[get_ident()] = raw
        self._kept.append(raw)


def _find_imported(kept: list[RawRequest]) -> set[int]:
    """Return the numbers of the requests whose extension module is in `sys.modules` now: those loads succeeded.

    Of several requests for one file only the last one counts: those before it may have failed.
    """
    last: dict[str, int] = {}
    for number, raw in enumerate(kept):
        if raw[0] == IMPORT and raw[2]:
            last[raw[1]] = number
    found: set[int] = set()
    for target, number in last.items():
        module = sys.modules.get(kept[number][2][-1])
        # Programs put objects of their own into sys.modules: no code of theirs may run here.
        spec = module.__dict__.get("__spec__") if type(module) is type(sys) else None
        if getattr(spec, "origin", None) == target:
            found.add(number)
    return found


def _has_failed(raw: RawRequest) -> bool:
    """Return whether the import of a request is known to have failed, when the frame that made it has just ended.

    The frames of a call that raised live as long as its traceback. When they end, the import is no longer in progress,
    unlike that of a module that was made and is about to be run.
    """
    return bool(raw[2]) and raw[2][-1] not in imports_in_progress() and not _find_imported([raw])


def imports_in_progress() -> tuple[str, ...]:
    """The names being imported by the calling thread, outermost first.

    importlib holds a lock for each, and has the locks in the order in which the imports began (_ModuleLockManager in
    Lib/importlib/_bootstrap.py). Where two threads import one module, the one that waited may name it too early.
    """
    thread = get_ident()
    return tuple([name for name, lock in _LOCKS.copy().items() if getattr(lock(), "owner", None) == thread])


def is_own_load(event: object) -> bool:
    """Return whether an import inside dlltracer loaded, or dropped, the image of an event: such events are never shown.

    A trace that ends imports its decoder, which other traces of the process see; so does a description of an exception.
    """
    imports: tuple[str, ...] = getattr(event, "imports", None) or ()
    # Most have no such name in them: one search of the text is cheaper than a test of each of a dozen names.
    return "dlltracer." in "\n".join(imports) and any(name.startswith("dlltracer.") for name in imports)


def _library_of(frame: FrameType | None) -> dict[str, Any] | None:
    """The attributes of the `ctypes.CDLL` under construction in `frame`, if it is a frame of `ctypes`.

    Its `_name` is there before the call (Lib/ctypes/__init__.py), and is what the call gets.
    """
    if frame is None or frame.f_globals.get("__name__") != "ctypes":
        return None
    library, kind = frame.f_locals.get("self"), frame.f_globals.get("CDLL")
    if not isinstance(kind, type) or not isinstance(library, kind):
        return None
    attributes = vars(library)
    return attributes if "_name" in attributes else None


def _flags_in(variables: Mapping[str, Any]) -> int | None:
    """The flags with which `ctypes.CDLL` is about to call LoadLibraryExW; `None` if that is not known.

    They are in `winmode` since CPython 3.14, before it in `mode`, which was made of that (Lib/ctypes/__init__.py).
    """
    given = (variables.get(name) for name in ("winmode", "mode"))
    flags = next((one for one in given if type(one) is int), -1) if sys.platform == "win32" else -1
    return flags if 0 <= flags < 1 << 32 else None


_FRAME_END, _SEARCH = ".dlltracer", ".dlltracer search"
"""The names of an `AtDrop`, which tells when the frame has ended, and of a `_LibrarySearch` among the local variables
of a frame. No code can use them."""


class _LibrarySearch:
    """A call of `ctypes.util.find_library`, whose frame holds it: what was asked for, and the programs run so far."""

    __slots__ = ("clock", "has_found", "imports", "name", "places", "wall")

    def __init__(self, name: str) -> None:
        self.name = name
        self.imports = imports_in_progress()
        self.wall = time.time()
        self.clock = time.perf_counter_ns()
        self.places: tuple[str, ...] = ()
        self.has_found = False

    def note_program(self, place: str) -> None:
        """A program is run."""
        if place == "objdump":  # gcc or ld named a file: this is how its soname is read
            self.has_found = True
        elif place not in self.places:
            self.has_found = False
            self.places += (place,)

    def __del__(self) -> None:
        if "ld" in self.places and not self.has_found:  # otherwise the answer was in the cache of ldconfig
            _CALLS.note_search(self)


_PLACES = {"_findSoname_ldconfig": "ldconfig", "_findLib_gcc": "gcc", "_findLib_ld": "ld", "_get_soname": "objdump"}
"""Functions of ctypes.util (CPython 3.10 to 3.14, Linux) to the program that each runs."""


def _library_search_in(frame: FrameType | None) -> tuple[FrameType, str] | None:
    """The frame of `ctypes.util.find_library` among the callers of `frame`, and the program that is run for it."""
    place = ""
    while frame is not None:
        if frame.f_globals.get("__name__") == "ctypes.util":
            name = frame.f_code.co_name
            if name == "find_library":
                return frame, place
            place = place or _PLACES.get(name, "")
        frame = frame.f_back
    return None


_C_MODULES = ("_ctypes", "_posixsubprocess")
"""The C modules that have functions which are replaced."""


class _Calls:
    """The watches of this process, and the functions that are replaced while there is one."""

    def __init__(self) -> None:
        self._set_watches(())
        self._replaced = Interposition()
        self.failures = self._replaced.failures
        self._in_progress: dict[int, int] = {}
        self._lock = allocate_lock()

    def add(self, watch: Watch) -> None:
        with self._lock:
            self._set_watches((*self._watches, watch))
            if len(self._watches) == 1 and IS_ATTRIBUTED:
                self._replace()

    def remove(self, watch: Watch) -> None:
        with self._lock:
            self._set_watches(tuple(other for other in self._watches if other is not watch))
            if not self._watches:
                self._replaced.undo()

    def _set_watches(self, watches: tuple[Watch, ...]) -> None:
        self._is_return_told = any(watch.on_return is not None for watch in watches)
        self._is_end_noted = self._is_return_told or any(watch.keeps_requests for watch in watches)
        self._watches = watches

    def _replace(self) -> None:
        """Replace what importlib calls, and what ctypes and subprocess do.

        importlib has its functions from the module `_imp` at each call (Lib/importlib/_bootstrap_external.py).
        """
        functions = _IMPORTS["_imp"]
        self._replaced.put(functions, "create_dynamic", self._before_import)
        self._replaced.put(functions, "exec_builtin", self._before_execution)
        for name in _C_MODULES:
            self._replace_in(sys.modules.get(name))
        # The other way of subprocess to run a program: newer versions take it where they can (_posix_spawn).
        self._replaced.put(sys.modules.get("os"), "posix_spawn", self._before_program)

    def _replace_in(self, module: ModuleType | None) -> None:
        for name in ("dlopen", "LoadLibrary"):
            self._replaced.put(module, name, self._before_dlopen, "ctypes")
        self._replaced.put(module, "fork_exec", self._before_program, "subprocess")

    def _expect(self, spec: Any) -> None:
        """A module is about to be made: one of `_C_MODULES` is seen before what it has can be imported from it."""
        if self._watches and spec.name in _C_MODULES:  # else nobody would put the function back
            self._replaced.put(_IMPORTS["_imp"], "exec_dynamic", self._before_execution)

    def _before_execution(self, frame: FrameType | None, function: Function) -> Function:
        arguments = _arguments_in(frame)
        if arguments is not None and is_module(arguments[0]) and arguments[0].__name__ in _C_MODULES:
            self._replace_in(arguments[0])
        return function

    def _before_import(self, frame: FrameType | None, function: Function) -> Function:
        arguments = _arguments_in(frame)
        if arguments is None:  # called by something else than importlib
            return self._taking_arguments(IMPORT, function)
        self._expect(arguments[0])
        return self._ask(IMPORT, arguments[0].origin, function, frame=frame)

    def _before_dlopen(self, frame: FrameType | None, function: Function) -> Function:
        library = _library_of(frame)
        if library is None or frame is None:  # called by something else than ctypes
            return self._taking_arguments(CTYPES, function)
        variables = frame.f_locals
        is_plain = all(type(variables.get(name)) in (int, type(None)) for name in ("mode", "winmode"))
        return self._ask(CTYPES, library["_name"], function, _flags_in(variables), is_plain=is_plain)

    def _before_program(self, frame: FrameType | None, function: Function) -> Function:
        found = _library_search_in(frame) if "ctypes.util" in sys.modules else None
        if found is not None:
            caller, place = found
            variables = caller.f_locals
            search, name = variables.get(_SEARCH), variables.get("name")
            if search is None and isinstance(name, str):
                search = variables[_SEARCH] = _LibrarySearch(name)
            if search is not None:
                search.note_program(place)
        return function

    def _taking_arguments(self, kind: str, function: Function) -> Function:
        """What is called where the arguments cannot be read beforehand."""
        return lambda *given, **named: self._ask_for(kind, function, given)(*given, **named)

    def _ask_for(self, kind: str, function: Function, given: tuple[Any, ...]) -> Function:
        """Note the request of a call that has these arguments. Returns what is to be called with them."""
        if not given:
            return function
        try:
            target = given[0]
            if kind == IMPORT:
                self._expect(target)
                target = target.origin
            is_plain = kind == CTYPES and all(type(one) is int for one in given[1:])
            return self._ask(kind, target, function, is_plain=is_plain)
        except BaseException as error:
            if is_of_program(error):
                raise
            self.failures.append(type(error).__name__)
            return function

    def _ask(
        self, kind: str, target: object, function: Function, flags: int | None = None,
        *, is_plain: bool = False, frame: FrameType | None = None,
    ) -> Function:  # fmt: skip
        """Note a request. Returns what is to be called for it.

        Arguments: `is_plain`, whether all arguments but the target are `int`s; `frame`, importlib's of an import.
        """
        watches = self._watches
        if not watches or target is None:
            return function
        thread = get_ident()
        if self._in_progress.get(thread):
            self._note_return()
        are_keys = is_plain and type(target) in (str, bytes)
        text = target if type(target) is str else _text_of(target)
        raw = (kind, text, imports_in_progress(), get_native_id(), time.time(), time.perf_counter_ns(), (), flags)
        for watch in watches:
            watch.note_request(raw)
        if not self._is_end_noted:
            return function
        # Who reads the requests afterwards does not want this: an import fails as well when the loader did not, and the
        # module's own code raised.
        if self._is_return_told and frame is not None:
            frame.f_locals[_FRAME_END] = AtDrop(lambda: self._note_end(raw, thread))
        self._in_progress[thread] = self._in_progress.get(thread, 0) + 1
        return CallWithEnd.make(function, lambda succeeded: self._end_call(raw, succeeded), are_keys=are_keys)

    def _end_call(self, raw: RawRequest, succeeded: bool | None) -> None:
        thread = get_ident()
        count = self._in_progress.pop(thread, 1) - 1
        if count:
            self._in_progress[thread] = count
        self._note_return(raw, succeeded)

    def _note_return(self, raw: RawRequest | None = None, succeeded: bool | None = None) -> None:
        """The calling thread is back from the loader; `raw`, `succeeded`: a request of its and whether it succeeded."""
        for watch in self._watches:
            watch.note_return()
            if raw is not None and succeeded is not None:
                watch.note_outcome(raw, succeeded)
        for watch in self._watches:
            if watch.on_return is not None:
                watch.on_return(succeeded is False)

    def _note_end(self, raw: RawRequest, thread: int) -> None:
        """The frame that made a request for an extension module in this thread has ended.

        A frame that raised lives as long as its traceback. It may end in another thread, or when the interpreter does.
        """
        if self._watches and get_ident() == thread and _has_failed(raw):
            self._note_return(raw, False)

    def note_search(self, search: _LibrarySearch) -> None:
        """A call of `find_library` has found nothing."""
        raw = (
            FIND_LIBRARY, search.name, search.imports, get_native_id(), search.wall, search.clock, search.places,
            None,
        )  # fmt: skip
        for watch in self._watches:
            watch.note_request(raw)
            watch.note_return()
            watch.note_outcome(raw, False)


def _text_of(target: object) -> str:
    """The text of what is handed to the loader: a path as an object or as bytes, or anything else."""
    find_path = getattr(type(target), "__fspath__", None)
    if find_path is not None:
        target = find_path(target)
    return target.decode("utf-8", "surrogateescape") if isinstance(target, bytes) else str(target)


def _arguments_in(frame: FrameType | None) -> tuple[Any, ...] | None:
    """The arguments that importlib is about to call a function with; `None` if `frame` is not of importlib.

    importlib calls into the loader by `_call_with_frames_removed(f, *args, **kwds)` (Lib/importlib/_bootstrap.py).
    """
    if frame is not None and frame.f_globals is _IMPORTS:
        arguments = frame.f_locals.get("args")
        if isinstance(arguments, tuple) and arguments:
            return arguments
    return None


_CALLS = _Calls()
"""The one piece of state a process has of it: a function can be replaced only once (docs/adr/0002)."""
