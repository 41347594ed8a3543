"""Becomes `python PROGRAM`: does in Python what the interpreter does before the first line of a program.

Runs in the process of the program (child.py). It imitates Modules/main.c and Python/pythonrun.c of CPython; "as C
does" means these. What it imports, the interpreter has imported anyway or imports for that kind of program.
"""

from __future__ import annotations

import io
import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, ModuleType, TracebackType
    from typing import Any

# Python 3.10 has no such flag: there, -I alone does it.
_SAFE_PATH = getattr(sys.flags, "safe_path", sys.flags.isolated)


_REPORTS_WITHOUT_FILE = sys.version_info >= (3, 14, 7) or (3, 13, 15) <= sys.version_info < (3, 14)
"""Whether `__file__` of a script is gone before an exception that ends it is reported.

CPython removes it from `__main__` when the script has ended. Since gh-152132 (3.13.15, 3.14.7) that happens first for
every end. Before, sys.excepthook still saw it and exit handlers did not; after sys.exit, both saw it.
"""


class CannotOpen(Exception):
    """The script cannot be opened. Its text is the line that python writes."""


class PreparedProgram:
    """A program that can be run.

    Attributes:
        run: runs it.
        main_names: the names of `__main__`, where C takes those of a script's file away at its end; else `None`.
    """

    def __init__(self, run: Callable[[], None], main_names: dict[str, Any] | None = None) -> None:
        self.run = run
        self.main_names = main_names


def prepare(kind: str, name: str, arguments: list[str]) -> PreparedProgram:
    """Make `sys` and `__main__` what the program expects, and return the program. Raises `CannotOpen`."""
    option = {"code": ["-c"], "module": ["-m"], "script": []}[kind]
    sys.argv = [*(option or [name]), *arguments]
    # orig_argv, as spawn.runner_command has made it and CPython keeps it (PEP 587, PyConfig.orig_argv):
    #   PYTHON [its options] child_main.py RESULT LOG BACKEND KIND NAME [ARGUMENTS]
    # Five words stand between the script and the arguments, so `given` is the place of RESULT, one behind the script.
    # A plain `python [its options] -c CODE ARGUMENTS` has the option and the name in the place of these six words.
    if hasattr(sys, "orig_argv"):  # PyPy has none
        given = len(sys.orig_argv) - len(arguments) - 5
        sys.orig_argv = [*sys.orig_argv[: given - 1], *option, name, *arguments]
    fresh = _new_main()
    if kind == "script" and name != "-":
        return _prepare_script(name, fresh)
    if kind == "module":
        folder = _current_folder()
        if folder is not None:
            _put_on_path(folder)
        return PreparedProgram(lambda: _run_module(name, True))
    # Windows takes "-" for the name of a file, whose folder is the current one.
    _put_on_path((_current_folder() or "") if kind == "script" and os.name == "nt" else "")
    if kind == "code":
        return PreparedProgram(lambda: _run_code(name, fresh))
    return PreparedProgram(lambda: _run_stdin(fresh), fresh.__dict__)


def _new_main() -> ModuleType:
    """A `__main__` as C makes it, in place of the one that is child_main.py."""
    module = type(sys)("__main__")
    if sys.version_info < (3, 14):
        module.__annotations__ = {}
    module.__dict__["__builtins__"] = sys.modules["builtins"]
    module.__loader__ = sys.modules["_frozen_importlib"].BuiltinImporter
    sys.modules["__main__"] = module
    return module


def _put_on_path(folder: str) -> None:
    if not _SAFE_PATH:
        sys.path.insert(0, folder)


def _current_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None  # it was removed


def _run_module(name: str, is_option: bool) -> None:
    import runpy

    runpy._run_module_as_main(name, is_option)  # type: ignore[attr-defined]


def _run_code(source: str, module: ModuleType) -> None:
    source += "\n"
    code = compile(source, "<string>", "exec", dont_inherit=True)
    if sys.version_info >= (3, 13):
        import linecache

        # As C does, so that tracebacks show the lines: by file name in Python 3.13.0, by code object in later ones.
        key = code if hasattr(linecache, "_interactive_cache") else "<string>"
        linecache._register_code(key, source, "<string>")  # type: ignore[attr-defined]
    exec(code, module.__dict__)  # noqa: S102 - this is the program


def _run_stdin(module: ModuleType) -> None:
    with open(0, "rb", closefd=False) as file:
        source = file.read()
    _run_file(lambda: compile(source, "<stdin>", "exec", dont_inherit=True), "<stdin>", module)


def _prepare_script(name: str, module: ModuleType) -> PreparedProgram:
    path = os.path.abspath(name) if os.name == "nt" else os.path.join(os.getcwd(), name) if name else os.getcwd()
    if _has_importer(path):
        sys.path.insert(0, path)  # as C does, also with a safe path
        return PreparedProgram(lambda: _run_module("__main__", False))
    try:
        with io.open_code(path) as file:
            data = file.read()
    except OSError as error:
        raise CannotOpen(
            f"{sys.executable}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}"
        ) from error
    _put_on_path(os.path.dirname(path if os.name == "nt" else os.path.realpath(path)))
    loaders = sys.modules["_frozen_importlib_external"]
    magic: bytes = loaders.MAGIC_NUMBER
    if path.endswith(".pyc") or data[:2] == magic[:2]:
        module.__loader__ = loaders.SourcelessFileLoader("__main__", path)
        return PreparedProgram(lambda: _run_file(lambda: _load_pyc(data, magic), path, module), module.__dict__)
    module.__loader__ = loaders.SourceFileLoader("__main__", path)
    return PreparedProgram(
        lambda: _run_file(lambda: compile(data, path, "exec", dont_inherit=True), path, module), module.__dict__
    )


def _has_importer(path: str) -> bool:
    """Return whether modules can be imported from `path` (a folder, a zip archive), as PyImport_GetImporter finds
    out."""
    for hook in sys.path_hooks:
        try:
            sys.path_importer_cache[path] = hook(path)
            return True
        except ImportError:
            continue
    sys.path_importer_cache[path] = None
    return False


def _load_pyc(data: bytes, magic: bytes) -> CodeType:
    if data[:4] != magic:
        raise RuntimeError("Bad magic number in .pyc file")
    code = marshal.loads(data[16:])  # noqa: S302 - this is the program
    if not isinstance(code, type(prepare.__code__)):
        raise RuntimeError("Bad code object in .pyc file")
    return code


def _run_file(load: Callable[[], CodeType], path: str, module: ModuleType) -> None:
    names = module.__dict__
    names["__file__"] = path
    if sys.version_info < (3, 15):
        names["__cached__"] = None
    try:
        exec(load(), names)  # noqa: S102 - this is the program
    except BaseException:
        if _REPORTS_WITHOUT_FILE:
            _remove_file_names(names)
        raise
    _remove_file_names(names)


def _remove_file_names(names: dict[str, Any]) -> None:
    """Take the names of the script's file out of `__main__`, as C does: exit handlers do not see them."""
    names.pop("__file__", None)
    names.pop("__cached__", None)


def found_no_module(error: BaseException, runners: tuple[str, ...]) -> bool:
    """Return whether this is runpy's own exit with "No module named ...": nothing of the program ran below it.

    `runners` are the files of child_main.py and child.py, as their code objects say them; frames of them are not the
    program's.
    """
    where = _outside_of_us(error.__traceback__, runners)
    return (
        isinstance(error, SystemExit)
        and where is not None
        and where.tb_next is None
        and where.tb_frame.f_code.co_name == "_run_module_as_main"
        and where.tb_frame.f_globals.get("__name__") == "runpy"
    )


def _outside_of_us(where: TracebackType | None, runners: tuple[str, ...]) -> TracebackType | None:
    """The traceback without our frames at its start: of this file, and of `runners`."""
    ours = (prepare.__code__.co_filename, *runners)
    while where is not None and where.tb_frame.f_code.co_filename in ours:
        where = where.tb_next
    return where


def hide_from_excepthook(runners: tuple[str, ...], main_names: dict[str, Any] | None) -> None:
    """Let the interpreter report the exception on its way out without frames of ours, by the program's own hook.

    Arguments: `runners`, as of `found_no_module`; `main_names`, those of the `PreparedProgram`.
    """
    hook: Any = getattr(sys, "excepthook", None)
    if hook is None:
        return
    if type(hook).__module__ == "dlltracer.integrations.excepthook":
        hook = hook.before  # our parent gives the verdict, and saw more

    def report(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
        sys.excepthook = hook
        # The built-in hook prints the exception's own traceback, whatever it is handed.
        sys.last_traceback = error.__traceback__ = _outside_of_us(where, runners)
        try:
            hook(kind, error, error.__traceback__)
        except SystemExit:  # ends the process at once: C does not come to remove the names
            raise
        except BaseException as mistake:  # noqa: BLE001 - reported as C does, without our frame
            _report_mistake(mistake, error)
        if main_names is not None:
            _remove_file_names(main_names)

    sys.excepthook = report


def _report_mistake(mistake: BaseException, error: BaseException) -> None:
    """Report the exception `mistake` of an excepthook that was to report `error`, as C does (PyErr_PrintEx)."""
    where = mistake.__traceback__
    mistake.__traceback__ = None if where is None else where.tb_next  # without the frame of our caller
    for title, one in (("Error in sys.excepthook:\n", mistake), ("\nOriginal exception was:\n", error)):
        if sys.stderr is not None:
            sys.stderr.write(title)
        sys.__excepthook__(type(one), one, one.__traceback__)
