"""What `dlltracer why` was asked: a module, an import as it is typed, a script, a folder or an image.

What names something else is answered in one line that says what to type: `CommandFailed`, before anything runs.
"""

from __future__ import annotations

import keyword
import os
import sys
from collections.abc import Iterator

from .formats import RECORDING_SUFFIX
from .options import BadUsage
from .output import CommandFailed
from .program import Asked, Program, ProgramKind
from .question_path import (
    ARCHIVES,
    IMAGES,
    PYTHONS,
    SCRIPTS,
    explain_folder,
    has_folder,
    is_environment,
    is_module,
    near_file,
    packages_below,
    question_of_path,
)

_FILES = (*SCRIPTS, ".pyz", ".pyzw", *IMAGES, *ARCHIVES, RECORDING_SUFFIX, ".etl", ".exe", ".ipynb", ".zip", ".txt")
"""Endings of what is meant as a file, also where there is none."""
_MARKER = r";\s*(?:python_|sys_|os_|platform_|implementation_|extra)"
"""How the condition of a requirement begins (PEP 508)."""


def read_question(words: tuple[str, ...], code: str | None, python: str | None = None) -> Asked:
    """Return what was asked.

    Arguments: `words`, of the command line; `code`, of -c; `python`, the interpreter that was chosen.
    Raises `BadUsage`, and `CommandFailed` for what is no question of `why`.
    """
    if code is not None:
        statement = code.strip()
        what = statement if _is_import(statement) else "the code"
        return Asked(what, Program(ProgramKind.CODE, code))
    asked = " ".join(words).strip()
    if not asked:
        raise BadUsage("say what to import: a MODULE, a file, or -c CODE")
    if asked.partition(" ")[0] in ("import", "from"):
        return _statement(asked)
    if " install " in asked or " add " in asked:
        _refuse_installing(asked)
    if len(words) > 1:
        raise CommandFailed(_on_several(words))
    name = words[0]
    if os.path.lexists(name) and (has_folder(name) or os.path.splitext(name)[1] or not is_module(name)):
        return question_of_path(name, python)
    if "://" not in name and (has_folder(name) or name.lower().endswith(_FILES) or ".so." in name):
        raise CommandFailed(f"there is no file {name}{_what_is_near(name)}")
    if not is_module(name):
        raise CommandFailed(next(_explain_word(name)))
    folder = name.replace(".", os.sep)
    if os.path.isdir(folder) and not os.path.exists(os.path.join(folder, "__init__.py")):
        _refuse_folder_of_name(name, folder, python)
    return Asked(f"import {name}", Program(ProgramKind.CODE, f"import {name}", must_return=True))


def _is_import(text: str) -> bool:
    """Whether a text is one import statement, or several."""
    import ast

    if not text.startswith(("import ", "from ")):
        return False
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(body) and all(isinstance(node, ast.Import | ast.ImportFrom) for node in body)


def _statement(text: str) -> Asked:
    """The question of an import as one types it: `from PIL import Image`."""
    import ast
    import shlex

    text = " ".join(text.split()) if "\n" not in text else text
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CommandFailed(f"{text} is no import that Python can read: say MODULE, or 'import MODULE'") from error
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.level:
            raise CommandFailed(f"{text} is relative to a package: say 'from PACKAGE import NAME', with the whole name")
        if not isinstance(node, ast.Import | ast.ImportFrom):
            raise CommandFailed(f"that is more than imports: dlltracer why -c {shlex.quote(text)}")
    return Asked(text, Program(ProgramKind.CODE, text, must_return=True))


def _refuse_installing(asked: str) -> None:
    """Raise `CommandFailed` for a command of pip, uv, conda and their like that installs something."""
    import re

    command = re.match(
        r"[!%]?(?:python[\d.]* -m )?(pip[\d.]*|pipx|uv|conda|mamba|poetry) (?:pip )?(?:install|add)(?: -\S+)*"
        r" ([A-Za-z0-9][A-Za-z0-9._-]*)(?!\S*[/:])",
        asked,
    )
    if command is not None:
        raise CommandFailed(
            f"{command[1]} installs, dlltracer looks at what is installed: dlltracer why {module_of(command[2])}"
        )


def _on_several(words: tuple[str, ...]) -> str:
    import shlex

    if words[0].lower().startswith(PYTHONS):
        if len(words) == 2:
            return f"say the script alone: dlltracer why --python {words[0]} {shlex.quote(words[1])}"
        return "a program with arguments is for run: dlltracer run SCRIPT ARGUMENTS"
    if words[1] == "as" or words[0].endswith(","):
        return f"say it as an import: dlltracer why {shlex.quote('import ' + ' '.join(words))}"
    if all(map(is_module, words)):
        joined = ", ".join(words)
        return f"say one module, or an import of several: dlltracer why 'import {joined}'"
    return f"say one MODULE or one file, not {len(words)} words; code goes behind -c: dlltracer why -c 'CODE'"


def _explain_word(name: str) -> Iterator[str]:
    """Yield what a word probably means that is no module and no file, each as a line that says what to type."""
    import re
    import shlex

    if "://" in name:
        yield f"{name} is an address: dlltracer looks at what is installed: dlltracer why MODULE"
    if name.startswith("."):
        yield f"{name} is relative to a package: say the whole name, dlltracer why PACKAGE{name}"
    if keyword.iskeyword(name):
        yield f"{name} is a word of the language, not a module"
    required = re.match(rf"([A-Za-z0-9][\w.-]*?)\s*(?:\[[^\]]*\])?\s*(?:[=~!<>]=|[<>@]|\[|{_MARKER}|$)", name)
    module = "" if required is None or required[1].endswith(".") else module_of(required[1])
    if required is not None and is_module(module):
        if required[1] == name:
            yield f"{name} is the name of a package, not of a module: did you mean dlltracer why {module}?"
        yield f"{name} is what pip is told to install; to try what is installed: dlltracer why {module}"
    module, colon, _ = name.partition(":")  # as entry points are written, and lines of files
    if colon and is_module(module):
        yield f"{name} names something in a module: dlltracer why {module}"
    parts = [part.strip() for part in name.split(",")]
    if len(parts) > 1 and all(map(is_module, parts)):
        yield f"say one module, or an import of several: dlltracer why 'import {', '.join(parts)}'"
    if re.search(r"[()=;\s]", name):
        yield f"that is code, not the name of a module: dlltracer why -c {shlex.quote(name)}"
    plain = re.sub(r"[^\w.]+", "_", name.replace("\\", ".")).strip("_.")
    meant = f"; did you mean dlltracer why {plain}?" if is_module(plain) else ""
    yield f"{name} is neither the name of a module nor a file{meant}"


def module_of(package: str) -> str:
    """Return the module that a package brings, if it is installed here or well known; else the most likely name."""
    import re

    from ..diagnose.rules.missing_module import module_of_package
    from ..host.distributions import list_distributions, normalize

    for found in list_distributions(sys.path):
        if normalize(found.name) == normalize(package):
            modules = [one for one in found.modules if not one.startswith("_")]
            if modules:
                return next((one for one in modules if normalize(one) == normalize(package)), modules[0])
    return module_of_package(package) or (package if is_module(package) else re.sub(r"[-.]+", "_", package))


def _what_is_near(name: str) -> str:
    """What may have been meant by a file that is not there: one of a similar name, or a module."""
    near = near_file(name)
    if near is not None:
        return f"; did you mean {near}?"
    stem = os.path.splitext(name)[0].replace(os.sep, ".").strip(".")
    if name.lower().endswith((".so", ".dll", ".dylib")) or ".so." in name:
        return "; a library by its name alone: dlltracer why -c \"import ctypes; ctypes.CDLL('NAME')\""
    return f"; a module is named without folders and ending: dlltracer why {stem}" if is_module(stem) else ""


def _refuse_folder_of_name(name: str, folder: str, python: str | None) -> None:
    """Raise `CommandFailed` where the import would find the folder alone, and load nothing (a namespace package)."""
    from .interpreter import is_namespace_of

    if not is_namespace_of(name, os.path.abspath(folder), python):
        return
    if os.path.exists(os.path.join(folder, "__main__.py")):
        raise CommandFailed(f"{name} is a folder here that Python runs: dlltracer why {os.path.join(folder, '')}")
    if is_environment(folder) or packages_below(folder):
        raise CommandFailed(explain_folder(folder))
    try:
        modules = sorted(one.partition(".")[0] for one in os.listdir(folder) if one.endswith((".py", ".so", ".pyd")))
    except OSError:
        return
    inside = f"dlltracer why {name}.{modules[0]}" if modules else "it has no modules either"
    raise CommandFailed(
        f"{name} is a folder here without __init__.py, which imports as an empty package and loads nothing: {inside}"
    )
