"""The shape of the package: one name for one class, no crumbs of modules, and the field's words for names."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import dlltracer

ROOT = Path(dlltracer.__file__).parent
MODULES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
SMALLEST = 60
"""Lines. A smaller module that one other imports belongs into that one."""

MOST_LINES, MOST_STATEMENTS = 60, 40
"""Of a function, with its docstring and with the functions in it."""

SMALL = {
    "cli.main": "starts without click; __main__ explains why it cannot start",
}
"""Small modules with one importer, and why they are modules."""

FORMER_WORDS = re.compile(
    r"^_?(?:asker|complaint|misfit|has_lack|describe_lack|spoken_by|merge_heard|of_first|is_of_a_loader|after_circle"
    r"|surroundings)$|^_?(?:Tap|LoaderSwitch|Ending|Death|Attempt|RunFacts|Heard|HeardAt|Said|Listened|Asker|Stranger"
    r"|Rival|Silence|Lives|Fate)$"
)
"""Names that the glossary has replaced by the field's own terms."""


def name_of(path: Path) -> str:
    """The module's name in the package: "model.events"."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, tree: ast.Module) -> Iterator[str]:
    """The modules of the package that a module imports, in functions as well."""
    package = name_of(path).split(".") if path.name == "__init__.py" else name_of(path).split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                up = len(package) - node.level + 1
                module = ".".join((*package[:up], *filter(None, [module])))
            elif module.partition(".")[0] == "dlltracer":
                module = module.partition(".")[2]
            yield module
            yield from (f"{module}.{alias.name}".lstrip(".") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("dlltracer"))


def test_a_class_has_a_name_of_its_own() -> None:
    where = defaultdict(list)
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(name_of(path))
    twice = {name: modules for name, modules in where.items() if len(modules) > 1}
    assert twice == {}


def test_no_small_module_serves_one_other() -> None:
    importers: dict[str, set[str]] = defaultdict(set)
    for path, tree in MODULES.items():
        for module in imports_of(path, tree):
            importers[module].add(name_of(path))
    small = {
        name_of(path) for path in MODULES
        if path.name not in ("__init__.py", "__main__.py") and len(importers[name_of(path)]) == 1
        and len(path.read_text(encoding="utf-8").splitlines()) < SMALLEST
    }  # fmt: skip
    assert small - SMALL.keys() == set()


def test_no_function_is_too_long_to_be_read_at_once() -> None:
    long = set()
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                statements = sum(isinstance(inner, ast.stmt) for inner in ast.walk(node)) - 1
                if lines > MOST_LINES or statements > MOST_STATEMENTS:
                    long.add((name_of(path), node.name, lines, statements))
    assert long == set()


def system_of(tree: ast.Module) -> str | None:
    """The one system that a module can be imported on, by its `if sys.platform != "linux": raise`; `None`: on all."""
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and isinstance(node.body[0], ast.Raise):
            asked, system = ast.unparse(node.test.left), node.test.comparators[0]
            if asked == "sys.platform" and isinstance(node.test.ops[0], ast.NotEq) and isinstance(system, ast.Constant):
                return str(system.value)
    return None


def test_no_module_needs_one_of_another_system() -> None:
    """A module for all systems imports one that is for Linux or Windows only where it has asked for the system."""
    systems = {name_of(path): system_of(tree) for path, tree in MODULES.items()}
    assert {"linux", "win32"} <= set(systems.values())
    wrong = set()
    for path, tree in MODULES.items():
        at_once = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        wrong |= {
            (name_of(path), module) for module in imports_of(path, at_once)
            if systems.get(module) not in (None, systems[name_of(path)])
        }  # fmt: skip
    assert wrong == set()


def names_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def test_names_are_those_of_the_glossary() -> None:
    former = {(name_of(path), name) for path, tree in MODULES.items() for name in names_in(tree)
              if FORMER_WORDS.match(name)}  # fmt: skip
    assert former == set()


def test_only_the_light_path_hides_imports_from_the_interpreter() -> None:
    """ADR 3 names the modules that import types under TYPE_CHECKING."""
    page = (ROOT.parents[1] / "docs" / "adr" / "0003-light-start.md").read_text(encoding="utf-8")
    named, folder = set(), ""
    for entry in re.findall(r"`([\w/]+(?:/|\.py))`", page):
        folder = entry if entry.endswith("/") else folder
        named |= {entry} if (ROOT / entry).is_file() else {folder + entry}
    hiding = {path.relative_to(ROOT).as_posix() for path, tree in MODULES.items() if "TYPE_CHECKING" in names_in(tree)}
    assert hiding == {name for name in named if name.endswith(".py")}
