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
    from collections.abc import Callable
    from types import FrameType, ModuleType
    from typing import Any

    Function = Callable[..., Any]
    BeforeCall = Callable[[FrameType, Function], Function]
    from functools import _lru_cache_wrapper, partial
else:
    from _functools import _lru_cache_wrapper, partial  # functools itself imports much more


class Interposed:
    """Stands for a function.

    Arguments: `function`; `before`, which is called before each call of it with the frame of the caller and the
    function, and returns what is to be called: the function, or something that does the same. An exception of `before`
    has no effect.
    """

    __slots__ = ("_before", "function")

    def __init__(self, function: Function, before: BeforeCall) -> None:
        self.function = function
        self._before = before

    @property
    def __call__(self) -> Function:
        try:
            return self._before(sys._getframe(1), self.function)
        except Exception:  # noqa: BLE001 - the program must get what it asks for
            return self.function

    def __getattr__(self, name: str) -> object:
        return getattr(self.function, name)

    def __repr__(self) -> str:
        return repr(self.function)


class CallWithEnd(partial):  # type: ignore[type-arg]
    """A function for one call, which tells when that has returned, also by an exception.

    CPython drops what `Interposed` gave it as soon as the call has returned, in the same thread and before any line of
    Python runs.
    """

    _at_end: Callable[[bool | None], None]
    _knows_result: bool

    @classmethod
    def make(cls, function: Function, at_end: Callable[[bool | None], None], *, are_keys: bool) -> CallWithEnd:
        """Return one. Arguments: `at_end`, which gets whether the call succeeded, or `None`, and must not raise;
        `are_keys`, whether the arguments of the call are such as a dict takes for keys.

        Then a cache has kept what the function returned, or nothing if it raised. That is C as well: no frame is there.
        """
        kept: Function = _lru_cache_wrapper(function, None, False, _number_kept)  # type: ignore[call-arg]
        call = cls(kept if are_keys else function)
        call._at_end, call._knows_result = at_end, are_keys
        return call

    def __del__(self) -> None:
        self._at_end(bool(self.func.cache_info()) if self._knows_result else None)  # type: ignore[attr-defined]


def _number_kept(hits: int, misses: int, most: int | None, kept: int) -> int:
    """What the cache of a `CallWithEnd` makes of its numbers."""
    return kept


class Interposition:
    """Functions of modules with an object in the place of each, until `undo`."""

    def __init__(self) -> None:
        self._put: list[tuple[ModuleType, str, Interposed]] = []

    def put(self, module: ModuleType, name: str, before: BeforeCall, user: str | None = None) -> None:
        """Replace a function of a module, if it is a module, has the function, and it is not replaced yet.

        Arguments: `before`, as of `Interposed`; `user`, the name of a module which has imported the function, perhaps
        by another name: it is replaced there as well.
        """
        # Nothing else than a module: lazy modules are imported by a look at them (importlib.util.LazyLoader).
        function = vars(module).get(name) if is_module(module) else None
        if function is None or isinstance(function, Interposed):
            return
        stand_in = Interposed(function, before)
        self._put.append((module, name, stand_in))
        setattr(module, name, stand_in)
        if user is not None:
            _exchange(user, function, stand_in)

    def undo(self) -> None:
        """Put every function back, unless the program has put something else in its place."""
        while self._put:
            module, name, stand_in = self._put.pop()
            if vars(module).get(name) is stand_in:
                setattr(module, name, stand_in.function)
            for user in USERS:
                _exchange(user, stand_in, stand_in.function)


def is_module(thing: object) -> bool:
    """Return whether an object is a module, and not of a class of its own, whose code could run at a look at it."""
    return type(thing) is type(sys)


USERS = ("ctypes", "subprocess")
"""The modules that import a function of a C module at their start, and call it by a name of their own."""


def _exchange(user: str, old: object, new: object) -> None:
    """Give a module another object wherever it has this one, if it has been imported."""
    module = sys.modules.get(user)
    if is_module(module):
        for name, value in list(vars(module).items()):
            if value is old:
                setattr(module, name, new)
