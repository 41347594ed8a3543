"""Puts objects in the place of functions of CPython, which tell of each call.

CPython has audit events for these calls. But with a single audit hook it makes the arguments of every event: importing
numpy, pandas, scipy, scikit-learn and pyarrow has 65,000, most of them of `id`. That takes 3 % of the instructions, in
the trace and ever after, as a hook cannot be removed (`sys.addaudithook`). An object in the place of a function costs
nothing but its calls, and is taken away when nobody watches (docs/adr/0010).

`__call__` of such an object is a property. CPython reads it and calls what it gives (slot_tp_call in
Objects/typeobject.c). So no frame of ours is there while the function runs, and none is in a traceback.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, ModuleType
    from typing import Any, SupportsIndex, TypeGuard

    Function = Callable[..., Any]
    BeforeCall = Callable[[FrameType | None, Function], Function]
    from functools import _lru_cache_wrapper, partial
elif sys.implementation.name != "cpython":  # nothing is replaced there
    from functools import _lru_cache_wrapper, partial
else:
    from _functools import _lru_cache_wrapper, partial  # functools itself imports much more


class Interposed:
    """Stands for a function.

    Arguments: `function`; `before`, which is called before each call of it with the frame of the caller, `None` if that
    cannot be read, and the function. It returns what is to be called: the function, or something that does the same. An
    exception of `before` has no effect, but for one that the program raised there (`is_of_program`). It is put into
    `failures`: no function of Python can be called where the stack is at its limit.
    """

    __slots__ = ("__weakref__", "_before", "_failures", "function")

    def __init__(self, function: Function, before: BeforeCall, failures: list[str]) -> None:
        self.function = function
        self._before = before
        self._failures = failures

    @property
    def __call__(self) -> Function:
        own = object.__getattribute__
        function: Function = own(self, "function")
        try:
            chosen: Function = own(self, "_before")(frame_of_caller(2), function)
        except BaseException as error:
            if not isinstance(error, RecursionError) and is_of_program(error):
                raise
            own(self, "_failures").append(type(error).__name__)
            return function
        return chosen

    def __getattribute__(self, name: str) -> Any:
        """What the function has, also as its class, module and text; its signature is found so (inspect)."""
        if name in _OWN:
            return object.__getattribute__(self, name)
        return getattr(object.__getattribute__(self, "function"), name)

    def __setattr__(self, name: str, value: object) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self.function, name, value)

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        return self.function.__reduce_ex__(protocol)

    def __eq__(self, other: object) -> bool:
        return self.function == (other.function if type(other) is Interposed else other)

    def __hash__(self) -> int:
        return hash(self.function)

    def __repr__(self) -> str:
        return repr(self.function)


_OWN = ("__call__", "_before", "_failures", "function")
"""The attributes that an `Interposed` has itself."""


def frame_of_caller(depth: int) -> FrameType | None:
    """The frame that is `depth` above this function's; `None` if it cannot be read.

    To read it is an audit event: a hook of the program may raise.
    """
    try:
        return sys._getframe(depth)
    except BaseException as error:
        if is_of_program(error):
            raise
        return None


def is_of_program(error: BaseException) -> bool:
    """Return whether an exception that came up in a function of dlltracer is one that the program must get.

    A handler of a signal and a trace function run in whatever frame there is. They have that frame as an argument,
    which an audit hook has not. An exception of a hook, or of our own, is none of the program's. Another thread may
    raise one here without any frame (PyThreadState_SetAsyncExc): it is mostly of a class of the program.
    """
    if not isinstance(error, Exception):
        return True
    try:
        entry, own = error.__traceback__, None
        while entry is not None:
            frame = entry.tb_frame
            if not str(frame.f_globals.get("__name__")).startswith("dlltracer."):
                values = frame.f_locals.values()
                return any(one is own or (type(one) is tuple and any(part is own for part in one)) for one in values)
            entry, own = entry.tb_next, frame
    except Exception:  # noqa: BLE001 - to read a traceback is an audit event as well
        return False
    return type(error).__module__ != "builtins"


class AtDrop:
    """Calls a function when nothing holds it any more. The function must not raise.

    Python's handlers of signals run where the interpreter looks for them, which it does at the start of each function.
    A signal that comes while C runs has its handler called in a `__del__` of Python, and CPython drops what that
    raises: a KeyboardInterrupt would have no effect. So `__del__` is a C function, which goes on with a generator that
    has begun. What is raised there is caught, and raised again when no code of ours runs.
    """

    __slots__ = ("__del__", "__weakref__")

    def __init__(self, then: Callable[[], object]) -> None:
        _begin(self, then)


class CallWithEnd(partial):  # type: ignore[type-arg]
    """A function for one call, which tells when that has returned, also by an exception.

    CPython drops what `Interposed` gave it as soon as the call has returned, in the same thread and before any line of
    Python runs.
    """

    __slots__ = ("__del__",)

    @classmethod
    def make(cls, function: Function, at_end: Callable[[bool | None], None], *, are_keys: bool) -> CallWithEnd:
        """Return one. Arguments: `at_end`, which gets whether the call succeeded, or `None`, and must not raise;
        `are_keys`, whether the arguments of the call are such as a dict takes for keys without code of the program.

        Then a cache has kept what the function returned, or nothing if it raised. That is C as well: no frame is there.
        """
        if not are_keys:
            call = cls(function)
            _begin(call, lambda: at_end(None))
            return call
        kept: Any = _lru_cache_wrapper(function, None, False, _number_kept)  # type: ignore[call-arg]
        call = cls(kept)
        _begin(call, lambda: at_end(bool(kept.cache_info())))
        return call


def _begin(dropped: Any, then: Callable[[], object]) -> None:
    """Let an object call a function when it is dropped."""
    steps = _steps_at_drop(then)
    next(steps)
    dropped.__del__ = steps.__next__


def _steps_at_drop(then: Callable[[], object]) -> Iterator[None]:
    """Wait for the first `next`, and call `then`. An exception of the program is raised once this has returned."""
    raised: BaseException | None = None
    try:
        yield
    except GeneratorExit:
        return
    except BaseException as error:  # noqa: BLE001 - see `AtDrop`
        raised = error
    try:
        then()
    except BaseException as error:  # noqa: BLE001
        raised = error if is_of_program(error) else raised
    again = None if raised is None else _raise_again(raised)
    raised = None  # its traceback has this frame
    del again
    yield


def _raise_again(error: BaseException) -> object:
    """Return an object. When it is dropped, the main thread raises the exception as soon as it runs Python again.

    Only there do handlers of signals run. In another thread this raises the exception, which CPython then reports.
    """
    import _thread
    from _signal import SIGABRT, SIGINT, SIGTERM, default_int_handler, getsignal, signal  # type: ignore[import-not-found]

    # None is a handler of C, which could not be put back.
    number = next((one for one in (SIGINT, SIGTERM, SIGABRT) if getsignal(one) is not None), SIGINT)
    before = getsignal(number)
    if not (type(error) is KeyboardInterrupt and number == SIGINT and before is default_int_handler):
        trace = error.__traceback__
        error = error.with_traceback(None if trace is None else trace.tb_next)

        def raise_it(*_: object) -> None:
            signal(number, before)
            raise error

        try:
            signal(number, raise_it)
        except ValueError:
            raise error from None
    again: Any = AtDrop.__new__(AtDrop)
    again.__del__ = partial(_thread.interrupt_main, number)
    return again


def _number_kept(hits: int, misses: int, most: int | None, kept: int) -> int:
    """What the cache of a `CallWithEnd` makes of its numbers."""
    return kept


class Interposition:
    """Functions of modules with an object in the place of each, until `undo`."""

    def __init__(self) -> None:
        self._put: list[tuple[ModuleType, str, Interposed]] = []
        self.failures: list[str] = []

    def put(self, module: ModuleType | None, name: str, before: BeforeCall, user: str | None = None) -> None:
        """Replace a function of a module, if it is a module, has the function, and it is not replaced yet.

        Arguments: `before`, as of `Interposed`; `user`, the name of a module which has imported the function, perhaps
        by another name: it is replaced there as well.
        """
        if not is_module(module):  # lazy modules are imported by a look at them (importlib.util.LazyLoader)
            return
        function = vars(module).get(name)
        if function is None or isinstance(function, Interposed):
            return
        stand_in = Interposed(function, before, self.failures)
        self._put.append((module, name, stand_in))
        setattr(module, name, stand_in)
        if user is not None:
            # The module itself is kept as well: the program may take it out of sys.modules.
            self._put += [(holder, copy, stand_in) for holder, copy in _exchange(user, function, stand_in)]

    def undo(self) -> None:
        """Put every function back, unless the program has put something else in its place."""
        put, self._put = self._put, []
        for module, name, stand_in in reversed(put):
            if vars(module).get(name) is stand_in:
                setattr(module, name, stand_in.function)
        # A module that was imported meanwhile has taken the object for the function.
        ours = {id(stand_in) for _, _, stand_in in put}
        for user in map(sys.modules.get, USERS):
            if is_module(user):
                for name, value in list(vars(user).items()):
                    if id(value) in ours:
                        setattr(user, name, value.function)


def is_module(thing: object) -> TypeGuard[ModuleType]:
    """Return whether an object is a module, and not of a class of its own, whose code could run at a look at it."""
    return type(thing) is type(sys)


USERS = ("ctypes", "subprocess")
"""The modules that import a function of a C module at their start, and call it by a name of their own."""


def _exchange(user: str, old: object, new: object) -> list[tuple[ModuleType, str]]:
    """Give a module another object wherever it has this one, if it has been imported. Returns where that was."""
    module = sys.modules.get(user)
    if module is None or not is_module(module):
        return []
    names = [name for name, value in list(vars(module).items()) if value is old]
    for name in names:
        setattr(module, name, new)
    return [(module, name) for name in names]
