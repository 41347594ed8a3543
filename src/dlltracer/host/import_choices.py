"""Finds the variable of the environment by which a program chose the import that failed, in the code of its traceback.

The code is parsed, and not run.
"""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice

from ..model.environment import ImportChoice
from ..model.failure import PythonError
from .bounded import read_regular_file
from .package_code import list_sources

_MOST_PLACES = 10
"""Lines that are looked at: for each the whole package may be read."""
_MOST_FILES = 2_000
_MOST_PARSED = 50
"""Files that name the module and are parsed: one takes 20 ms, and any word may be a name ("core")."""
_MOST_BYTES = 512 << 10
_LONGEST_SHOWN = 100
_OF_THE_SYSTEM = ("sys.", "os.name", "platform.", "__name__")
"""Expressions that a variable does not decide, whatever it is set to."""


def find_import_choice(
    error: PythonError, module: str, environment: Mapping[str, str] | None = None
) -> ImportChoice | None:
    """Return the variable that led a program to an import; `None` if that is not plain.

    A statement of the traceback runs under a condition, or has the name of the module from elsewhere, or the package
    imports that module under a condition in another place. The condition reads a variable that is set; or it compares
    with a text, or the module has a name, that is the value of just one variable that the code of the package reads.

    Arguments: `error` of the import; `module`, the name that was not found; `environment` of the program, `None` for
    that of this process, which started it.
    """
    try:
        return _find(error, module, os.environ if environment is None else environment)
    except RecursionError:  # of `ast`, in code that is nested without end
        return None


def _find(error: PythonError, module: str, environment: Mapping[str, str]) -> ImportChoice | None:
    for file, line, tree in islice(_places(error, module), _MOST_PLACES):
        tests, statement = _way_to(tree, line)
        place = f"{file}, line {line}"
        for test in reversed(tests):
            name, value = _read_in(test, environment)
            if name is not None:
                return ImportChoice(name, value, _shown(test), place, f"{file}, line {test.lineno}")
        for test in reversed(tests):
            found = _read_in_package(file, _texts(test)[1], environment)
            if found is not None:
                return ImportChoice(*found[:2], _shown(test), place, found[2])
        if _takes_any_name(statement, module):
            found = _read_in_package(file, {module, module.rpartition(".")[2]}, environment)
            if found is not None:
                return ImportChoice(*found[:2], "", place, found[2])
    return None


def _shown(test: ast.expr) -> str:
    text = ast.unparse(test)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _places(error: PythonError, module: str) -> Iterator[tuple[str, int, ast.Module]]:
    """Yield the lines of the traceback, innermost first, then the other imports of the module in the same package.

    These tell nothing where the innermost line runs under no condition.
    """
    innermost = None
    is_conditional = False
    for frame in error.frames[: -_MOST_PLACES : -1]:
        tree = _parse(frame.file)
        if tree is not None:
            if innermost is None:
                innermost, is_conditional = frame.file, bool(_way_to(tree, frame.line)[0])
            yield frame.file, frame.line, tree
    sources = islice(_sources_around(innermost), _MOST_FILES) if innermost and is_conditional else ()
    naming = (path for path in sources if _mentions(path, {module.rpartition(".")[2]}))
    for path in islice(naming, _MOST_PARSED):
        tree = _parse(path)
        for node in ast.walk(tree) if tree is not None else ():
            if tree is not None and isinstance(node, ast.Import | ast.ImportFrom) and _imports(node, module):
                yield path, node.lineno, tree


def _imports(node: ast.Import | ast.ImportFrom, module: str) -> bool:
    """Return whether a statement imports the module, or a name from it."""
    if isinstance(node, ast.Import):
        return any(alias.name == module for alias in node.names)
    start = node.module or ""
    names = [start, *(f"{start}.{alias.name}".lstrip(".") for alias in node.names)]
    return module in names if node.level == 0 else any(f".{module}".endswith(f".{name}") for name in names if name)


def _parse(path: str) -> ast.Module | None:
    try:
        source = read_regular_file(path, _MOST_BYTES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _way_to(tree: ast.Module, line: int) -> tuple[list[ast.expr], ast.stmt | None]:
    """Return the conditions that all hold where a line runs, outermost first, and its statement."""
    tests: list[ast.expr] = []
    node: ast.AST = tree
    while True:
        inside = [
            (child, field) for field in ("body", "orelse", "handlers", "finalbody")
            for child in getattr(node, field, ()) if child.lineno <= line <= (child.end_lineno or child.lineno)
        ]  # fmt: skip
        if not inside:
            return tests, node if isinstance(node, ast.stmt) else None
        child, field = inside[0]
        if isinstance(node, ast.If) and field == "body":
            test = node.test
            tests += test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            tests = []  # runs later: what held where it was defined does not tell
        node = child


def _texts(test: ast.expr) -> tuple[ast.expr | None, set[str]]:
    """Return what a condition compares, and the texts one of which it has to be; an empty set for other conditions."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return None, set()
    sides = (test.left, test.comparators[0])
    if isinstance(test.ops[0], ast.Eq):
        texts = [side.value for side in sides if isinstance(side, ast.Constant)]
        other = next((side for side in sides if not isinstance(side, ast.Constant)), None)
    elif isinstance(test.ops[0], ast.In) and isinstance(sides[1], ast.Tuple | ast.List | ast.Set):
        texts = [one.value for one in sides[1].elts if isinstance(one, ast.Constant)]
        other = sides[0]
    else:
        return None, set()
    if other is None or ast.unparse(other).startswith(_OF_THE_SYSTEM):
        return None, set()
    return other, {text for text in texts if isinstance(text, str) and text}


def _read_in(test: ast.expr, environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the variable that a condition reads itself, and its value if the condition compares that."""
    name = _variable_of(test)
    if name is not None:  # only whether it is set: what it is set to is nobody's business
        return (name, None) if environment.get(name) else (None, None)
    other, texts = _texts(test)
    name = _variable_of(other) if other is not None else None
    if name is None or not _is_one_of(environment.get(name, ""), texts):
        return None, None
    return name, environment[name]


def _variable_of(node: ast.expr) -> str | None:
    """Return the NAME of os.environ["NAME"], os.environ.get("NAME") and os.getenv("NAME"), also with .lower()."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args:
        return _variable_of(node.func.value)
    if isinstance(node, ast.Subscript):
        called, name = ast.unparse(node.value), node.slice
        is_read = called in ("os.environ", "environ")
    elif isinstance(node, ast.Call) and node.args:
        called, name = ast.unparse(node.func), node.args[0]
        is_read = called in ("os.environ.get", "environ.get", "os.getenv", "getenv")
    else:
        return None
    return name.value if is_read and isinstance(name, ast.Constant) and isinstance(name.value, str) else None


def _is_one_of(value: str, texts: set[str]) -> bool:
    return bool(value) and value.strip().lower() in {text.lower() for text in texts}


def _takes_any_name(statement: ast.stmt | None, module: str) -> bool:
    """Return whether a statement imports by a name that it has from elsewhere: importlib.import_module(name)."""
    if statement is None or isinstance(statement, ast.Import | ast.ImportFrom):
        return False
    texts = [node.value for node in ast.walk(statement) if isinstance(node, ast.Constant)]
    return "import" in ast.unparse(statement) and module not in texts


def _read_in_package(file: str, texts: set[str], environment: Mapping[str, str]) -> tuple[str, str, str] | None:
    """Return the one variable with such a value that the package of a file reads: its name, its value and where.

    `None` where there is none, and where there are several.
    """
    wanted = {name for name, value in environment.items() if _is_one_of(value, texts)}
    if not wanted:
        return None
    found: dict[str, str] = {}
    for path in islice(_sources_around(file), _MOST_FILES):
        tree = _parse(path) if _mentions(path, wanted) else None
        for node in ast.walk(tree) if tree is not None else ():
            name = _variable_of(node) if isinstance(node, ast.Call | ast.Subscript) else None
            if name is not None and name in wanted and isinstance(node, ast.expr):
                found.setdefault(name, f"{path}, line {node.lineno}")
    name, place = next(iter(found.items()), ("", ""))
    return (name, environment[name], place) if len(found) == 1 else None


def _sources_around(file: str) -> Iterator[str]:
    """Yield the Python files of the package that a file is in; the file alone where it is in none."""
    top = ""
    folder = os.path.dirname(file)
    while os.path.isfile(os.path.join(folder, "__init__.py")) and folder != top:
        top, folder = folder, os.path.dirname(folder)
    return list_sources(top) if top else iter((file,))


def _mentions(path: str, names: set[str]) -> bool:
    try:
        source = read_regular_file(path, _MOST_BYTES)
    except (OSError, ValueError):
        return False
    return any(name.encode("utf-8", "surrogateescape") in source for name in names)
