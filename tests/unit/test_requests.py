"""How requests of Python are seen: objects in the place of CPython's functions, while somebody watches."""

from __future__ import annotations

import _ctypes
import _imp
import _thread
import contextvars
import copy
import ctypes
import gc
import importlib.util
import inspect
import os
import pickle
import signal
import subprocess
import sys
import traceback
import tracemalloc
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from dlltracer.capture import interposed
from dlltracer.capture.requests import Watch
from dlltracer.model.request import Request, RequestKind

pytestmark = pytest.mark.skipif(sys.implementation.name != "cpython", reason="the functions are CPython's")

OPEN = "dlopen" if sys.platform != "win32" else "LoadLibrary"
NO_LIBRARY = "no such library of dlltracer"


@pytest.fixture
def not_a_library(tmp_path: Path) -> Path:
    path = tmp_path / "_broken.so"
    path.write_bytes(b"x" * 100)
    return path


@contextmanager
def watching(*listeners: Any, **named: Any) -> Iterator[Watch]:
    """A watch that ends also where a test fails: the functions of this process are as they were for the next one."""
    watch = Watch(*listeners, **named)
    watch.start()
    try:
        yield watch
    finally:
        watch.end()


def spec_of(path: Path) -> ModuleSpec:
    spec = importlib.util.spec_from_file_location("_broken", path, loader=ExtensionFileLoader("_broken", str(path)))
    assert spec is not None
    return spec


class Finder:
    """Finds `_broken`, which the import system cannot find: not all systems have modules of this suffix."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        return spec_of(self.path) if name == "_broken" else None


def targets(requests: tuple[Request, ...]) -> list[tuple[RequestKind, str]]:
    return [(one.kind, one.target) for one in requests]


def failures(path: Path) -> list[str]:
    """The tracebacks of an import and of a CDLL that fail."""
    texts = []
    for call in (lambda: importlib.util.module_from_spec(spec_of(path)), lambda: ctypes.CDLL(NO_LIBRARY)):
        try:
            call()
        except (ImportError, OSError):
            texts.append(traceback.format_exc())
    return texts


def test_tracebacks_are_those_without_a_watch(not_a_library: Path) -> None:
    before = failures(not_a_library)
    watch = Watch()
    watch.start()
    during = failures(not_a_library)
    requests = watch.stop()
    assert during == before and len(before) == 2
    assert targets(requests) == [(RequestKind.EXTENSION, str(not_a_library)), (RequestKind.CTYPES, NO_LIBRARY)]
    assert [one.succeeded for one in requests] == [None, False], "a module made without an import is not in sys.modules"


def functions() -> list[object]:
    found = [_imp.create_dynamic, _imp.exec_builtin, getattr(_ctypes, OPEN)]
    for module in (ctypes, subprocess):
        found += [value for name, value in vars(module).items() if name in ("_dlopen", "_LoadLibrary", "_fork_exec")]
    return found


def test_functions_are_replaced_until_the_last_watch_ends() -> None:
    before = functions()
    watches = (Watch(), Watch())
    for watch in watches:
        watch.start()
    replaced = functions()
    assert not any(one is another for one, another in zip(replaced, before, strict=True))
    assert [repr(one) for one in replaced] == [repr(one) for one in before]
    assert _imp.create_dynamic.__name__ == "create_dynamic"
    watches[0].stop()
    assert all(one is another for one, another in zip(functions(), replaced, strict=True))
    watches[1].stop()
    assert all(one is another for one, another in zip(functions(), before, strict=True))


def test_exec_dynamic_is_replaced_once_a_module_that_needs_it_is_asked_for(not_a_library: Path) -> None:
    before, spec = _imp.exec_dynamic, types.SimpleNamespace(name="_ctypes", origin=str(not_a_library))
    watch = Watch()
    watch.start()
    create = _imp.create_dynamic
    untouched = _imp.exec_dynamic
    with pytest.raises(ImportError):
        create(spec)  # type: ignore[arg-type]
    during = _imp.exec_dynamic
    watch.stop()
    with pytest.raises(ImportError):
        create(spec)  # type: ignore[arg-type]
    assert untouched is before and type(during) is interposed.Interposed
    assert _imp.exec_dynamic is before, "also after a call by a copy that somebody has kept"


def test_what_the_program_puts_in_the_place_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    watch.start()
    monkeypatch.setattr(_imp, "exec_builtin", chosen := lambda module: 0)
    watch.stop()
    assert _imp.exec_builtin is chosen


def test_other_callers_than_importlib_and_ctypes_are_seen(not_a_library: Path) -> None:
    watch = Watch()
    watch.start()
    with pytest.raises(ImportError):
        _imp.create_dynamic(spec_of(not_a_library))
    with pytest.raises(OSError):
        getattr(_ctypes, OPEN)(NO_LIBRARY, 0)
    kept = getattr(_ctypes, OPEN)
    requests = watch.stop()
    assert targets(requests) == [(RequestKind.EXTENSION, str(not_a_library)), (RequestKind.CTYPES, NO_LIBRARY)]
    with pytest.raises(OSError):
        kept(NO_LIBRARY, 0)  # what was taken meanwhile works on


def test_a_return_is_told_before_the_next_line_though_the_exception_lives() -> None:
    told: list[object] = []
    watch = Watch(lambda raw: told.append(raw[1]), told.append)
    watch.start()
    try:
        ctypes.CDLL(NO_LIBRARY)
    except OSError as error:
        told.append("caught")
        kept = error
    assert told == [NO_LIBRARY, True, "caught"] and kept.__traceback__ is not None
    watch.stop()


def test_an_import_has_failed_when_its_frames_have_ended(not_a_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    watch = Watch(lambda raw: told.append(raw[1]), told.append)
    monkeypatch.setattr(sys, "meta_path", [Finder(not_a_library), *sys.meta_path])
    watch.start()
    try:
        __import__("_broken")
    except ImportError as error:
        kept = error
    watch.stop()
    assert told == [str(not_a_library), False, True], "the import system leaves its frames out of the traceback"
    assert kept.__traceback__ is not None


@pytest.mark.parametrize("name", ["no", Path("no")])
def test_a_call_from_elsewhere_has_failed(name: object) -> None:
    watch = Watch()
    watch.start()
    with pytest.raises((OSError, TypeError)):
        getattr(_ctypes, OPEN)(name, 0)
    assert [(one.target, one.succeeded) for one in watch.stop()] == [("no", False if isinstance(name, str) else None)]


def test_a_library_that_is_there() -> None:
    name = {"linux": "libc.so.6", "win32": "kernel32.dll", "darwin": "libSystem.dylib"}[sys.platform]
    watch = Watch()
    watch.start()
    library = ctypes.CDLL(name)
    assert [one.succeeded for one in watch.stop()] == [True] and library._handle


LOADING = """
def load(self, mode, winmode):
    return opened(self._name, mode)
"""


@pytest.mark.parametrize("mode, winmode, flags", [(0x1000, None, 0x1000), (0, 0x1100, 0x1100), (-1, None, None)])
def test_the_flags_of_windows(monkeypatch: pytest.MonkeyPatch, mode: int, winmode: int | None, flags: int) -> None:
    """Until CPython 3.13 ctypes makes them in `mode`, since 3.14 in `winmode`; then `mode` is what it is on Linux."""
    watch = Watch()
    watch.start()
    names = {"__name__": "ctypes", "CDLL": ctypes.CDLL, "opened": getattr(_ctypes, OPEN)}
    exec(LOADING, names)
    library = object.__new__(ctypes.CDLL)
    library._name = NO_LIBRARY
    with monkeypatch.context() as patch, suppress(OSError, OverflowError):
        patch.setattr(sys, "platform", "win32")
        names["load"](library, mode, winmode)  # type: ignore[operator]
    assert [one.flags for one in watch.stop()] == [flags]


SEARCH = """
def find_library(name):
    _findSoname_ldconfig()
    return _findLib_ld() and {answer}

def _findSoname_ldconfig():
    return run()

def _findLib_ld():
    return run()

def _get_soname():
    return run()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="find_library runs programs on Linux only")
@pytest.mark.parametrize("answer", ["None", "_get_soname()"])
@pytest.mark.parametrize("by", ["subprocess", "posix_spawn"])
def test_a_search_is_known_by_its_programs_however_they_are_run(by: str, answer: str) -> None:
    import ctypes.util

    def run() -> int:
        command = [sys.executable, "-c", "pass"]
        if by == "subprocess":
            return subprocess.run(command, check=True).returncode + 1
        return os.waitpid(os.posix_spawn(sys.executable, command, os.environ), 0)[0]

    search = {"__name__": ctypes.util.__name__, "run": run}
    exec(SEARCH.format(answer=answer), search)
    watch = Watch()
    watch.start()
    search["find_library"]("nothing")  # type: ignore[operator]
    requests = watch.stop()
    found = answer != "None"
    assert [(one.target, one.places, one.succeeded) for one in requests] == (
        [] if found else [("nothing", ("ldconfig", "ld"), False)]
    )


LATE = """
import sys
sys.path[:0] = {path!r}
from dlltracer.capture import interposed
from dlltracer.capture.requests import Watch
assert not {{"ctypes", "_ctypes", "subprocess", "functools"}} & set(sys.modules), sorted(sys.modules)
watch = Watch()
watch.start()
import ctypes, ctypes.util, subprocess
try:
    ctypes.CDLL("no such library")
except OSError:
    pass
subprocess.run([sys.executable, "-c", "pass"])
requests = watch.stop()
print([one.target for one in requests if one.kind.value != "import"])
values = [*vars(ctypes).values(), *vars(subprocess).values()]
print([value for value in values if type(value).__name__ == "Interposed"])
"""


def test_modules_that_are_imported_later_are_seen_as_well() -> None:
    code = LATE.format(path=sys.path)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["['no such library']", "[]"], done.stderr


def test_a_lazy_module_is_not_imported_by_a_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec("subprocess")
    assert spec is not None and spec.loader is not None
    loader = importlib.util.LazyLoader(spec.loader)
    spec.loader = loader
    monkeypatch.delitem(sys.modules, "subprocess")
    lazy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "subprocess", lazy)
    loader.exec_module(lazy)
    kind = type(lazy)
    watch = Watch()
    watch.start()
    watch.stop()
    assert type(lazy) is kind is not type(sys)


def test_what_a_watch_raises_does_not_reach_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("of ours")

    watch = Watch()
    monkeypatch.setattr(watch, "note_request", refuse)
    watch.start()
    try:
        with pytest.raises(OSError, match=r".+"):
            ctypes.CDLL(NO_LIBRARY)
    finally:
        watch.end()
    assert watch.notes == ("1 requests could not be noted (RuntimeError)",)


class TimeIsUp(Exception):
    """Of a handler of a signal."""


def raise_time_is_up(*_: object) -> None:
    raise TimeIsUp


@pytest.fixture(params=[signal.default_int_handler, raise_time_is_up])
def interruption(request: pytest.FixtureRequest) -> Iterator[type[BaseException]]:
    before = signal.signal(signal.SIGINT, request.param)
    yield TimeIsUp if request.param is raise_time_is_up else KeyboardInterrupt
    assert signal.signal(signal.SIGINT, before) is request.param, "it is the handler that it was"


def test_a_signal_that_comes_while_a_library_is_opened_reaches_the_program(
    interruption: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All here is C, so the handler is called when Python runs next: as after a long `dlopen`."""
    monkeypatch.setattr(_ctypes, OPEN, contextvars.Context().run)
    told: list[bool] = []
    with watching(on_return=told.append):
        with pytest.raises(interruption):
            getattr(_ctypes, OPEN)(_thread.interrupt_main, signal.SIGINT)
        assert told == [False]


def test_a_signal_that_comes_while_a_request_is_noted_reaches_the_program(interruption: type[BaseException]) -> None:
    note: Any = partial(next, map(_thread.interrupt_main, (signal.SIGINT,)))
    with watching(note), pytest.raises(interruption):
        ctypes.CDLL(NO_LIBRARY)


REFUSING = """
import ctypes, sys
sys.path[:0] = {path!r}
from dlltracer.capture import interposed
from dlltracer.capture.requests import Watch
is_refused = False
def hook(event, args):
    if is_refused and event == {event!r}:
        raise RuntimeError("of the hook")
sys.addaudithook(hook)
watch = Watch()
watch.start()
is_refused = True
sys.meta_path.insert(0, type("Finder", (), {{"find_spec": lambda *_: ctypes.CDLL("no such library")}}))
try:
    import _xyz
except OSError as error:
    pass
is_refused = False
del sys.meta_path[0]
print([(one.target, one.imports) for one in watch.stop()], len(watch.notes))
"""


@pytest.mark.parametrize("event", ["sys._getframe", "object.__getattr__"])
def test_an_audit_hook_of_the_program_costs_nothing(event: str) -> None:
    code = REFUSING.format(path=sys.path, event=event)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[('no such library', ('_xyz',))] 0"], done.stderr


def test_what_cannot_be_hashed_is_an_argument_as_without_a_watch() -> None:
    texts = []
    watch = Watch()
    for start in (lambda: None, watch.start):
        start()
        with pytest.raises(TypeError) as raised:
            getattr(_ctypes, OPEN)("no", [])
        texts.append(str(raised.value))
    watch.end()
    assert texts[0] == texts[1]


class Library:
    def __fspath__(self) -> str:
        return NO_LIBRARY


def test_a_path_object_of_the_program() -> None:
    watch = Watch()
    watch.start()
    with pytest.raises((OSError, TypeError)):  # Windows before CPython 3.12 takes none
        ctypes.CDLL(Library())  # type: ignore[arg-type]
    if (requests := watch.stop()) or sys.platform != "win32":
        assert [one.target for one in requests] == [NO_LIBRARY]


def test_a_replaced_function_looks_like_the_function() -> None:
    def looks() -> list[object]:
        function = _imp.create_dynamic
        texts: list[object] = [inspect.isbuiltin(function), function.__doc__, function.__module__]
        for call in (lambda: inspect.signature(function), lambda: function(spec=1), lambda: setattr(function, "x", 1)):
            try:
                texts.append(str(call()))
            except Exception as error:  # noqa: BLE001 - it is what is compared
                texts.append(repr(error))
        return [*texts, pickle.loads(pickle.dumps(function)) is function, copy.deepcopy(function) is function]

    before, function = looks(), _imp.create_dynamic
    watch = Watch()
    watch.start()
    assert type(_imp.create_dynamic) is interposed.Interposed
    during, is_equal = looks(), {function: 1}.get(_imp.create_dynamic) == 1
    watch.end()
    assert during == before and is_equal


def test_a_module_that_was_taken_out_meanwhile_gets_its_function_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = functions()
    watch = Watch()
    watch.start()
    for name in ("ctypes", "_ctypes", "subprocess"):
        monkeypatch.delitem(sys.modules, name)
    watch.stop()
    assert all(one is another for one, another in zip(functions(), before, strict=True))


def test_an_exception_that_another_thread_raises_here_reaches_the_program() -> None:
    """`PyThreadState_SetAsyncExc` takes effect when the thread runs Python next: in a function of ours."""
    interrupt: Any = ctypes.pythonapi.PyThreadState_SetAsyncExc
    note: Any = partial(next, map(interrupt, (ctypes.c_ulong(_thread.get_ident()),), (ctypes.py_object(TimeIsUp),)))
    with watching(note), pytest.raises(TimeIsUp):
        ctypes.CDLL(NO_LIBRARY)


def test_a_watch_that_hands_its_requests_on_keeps_nothing_of_them() -> None:
    watch = Watch(lambda raw: None, lambda has_failed: None)
    watch.start()
    tracemalloc.start()
    try:
        sizes = []
        for _ in range(2):
            for _ in range(300):
                with suppress(OSError):
                    ctypes.CDLL(NO_LIBRARY)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        assert sizes[1] - sizes[0] < 300 * 50, "a request has at least 50 bytes"
    finally:
        tracemalloc.stop()
        watch.end()
