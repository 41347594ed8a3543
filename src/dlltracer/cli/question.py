"""Recognizes what `dlltracer why` was asked: a module, an import as it is typed, a script, a folder or an image.

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

_IMPORT_FILE = """\
import importlib.util, sys
spec = importlib.util.spec_from_file_location(sys.argv[1], sys.argv[2])
try:
    module = importlib.util.module_from_spec(spec)
except (UnicodeError, SystemError):
    import ctypes
    try:
        ctypes.CDLL(sys.argv[2])
    except OSError as error:
        raise ImportError(str(error), name=sys.argv[1], path=sys.argv[2])
    raise
spec.loader.exec_module(module)
"""
"""From CPython 3.12 on no file is imported whose name is no UTF-8, whatever its loader says: that is asked then."""
_LOAD_FILE = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
_IMPORT_FROM = "import sys; sys.path.insert(0, {folder!r}); import {name}"

SCRIPTS = (".py", ".pyw", ".pyc")
IMAGES = (".so", ".pyd", ".dll", ".dylib")
ARCHIVES = {
    ".whl": "a wheel", ".tar.gz": "a source archive", ".tgz": "a source archive", ".conda": "a package of conda",
    ".egg": "an egg", ".tar.bz2": "an archive",
}  # fmt: skip
_MOST_NAMES, _LIKENESS = 20_000, 0.75
"""Names of a folder that are compared, and the least likeness (`difflib`) of one that may have been meant."""
PYTHONS = ("python", "pypy", "py.exe")
"""How the names of interpreters begin."""


def is_module(name: str) -> bool:
    """Return whether a name can be that of a module: identifiers with dots between them."""
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split("."))


def has_folder(name: str) -> bool:
    """Return whether a name is a path: it has a separator, or is "." or ".."."""
    return os.sep in name or bool(os.altsep and os.altsep in name) or name in (os.curdir, os.pardir)


def near_file(name: str) -> str | None:
    """Return the path of a file or folder with a similar name, where a path names none that is there."""
    import difflib

    folder, last = os.path.split(name)
    try:
        names = sorted(os.listdir(folder or os.curdir))[:_MOST_NAMES]
    except OSError:
        return None
    near = difflib.get_close_matches(last, names, 1, _LIKENESS)
    return os.path.join(folder, near[0]) if near else None


def question_of_path(path: str, python: str | None) -> Asked:
    """The question about something that is there, by what it is."""
    if os.path.isdir(path):
        return _of_folder(path)
    if not os.path.exists(path):
        raise CommandFailed(f"{path} is a link that leads nowhere")
    if not os.path.isfile(path):
        raise BadUsage(f"{path} is neither a file nor a folder")  # to load a FIFO is to wait for its writer
    lower = path.lower()
    if lower.endswith(SCRIPTS) or _is_application(path):
        return Asked(path, Program(ProgramKind.SCRIPT, path))
    kind = next((kind for ending, kind in ARCHIVES.items() if lower.endswith(ending)), None)
    if kind is not None:
        raise CommandFailed(_on_archive(path, kind))
    if not lower.endswith(IMAGES) and ".so." not in os.path.basename(lower):
        other = _of_other_file(path, python)
        if other is not None:
            return other
    return _of_image(path)


def _is_application(path: str) -> bool:
    """Return whether a file is a zip archive that Python runs: with a __main__.py in it (zipapp)."""
    import zipfile

    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return "__main__.py" in archive.NameToInfo
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


def _on_archive(path: str, kind: str) -> str:
    import shlex

    quoted = shlex.quote(path)
    first = f"{path} is {kind}, which is not installed: "
    if kind == "a wheel":
        return (
            f"{first}dlltracer check {quoted} looks whether it would load; to try its import, install it, then "
            "dlltracer why MODULE"
        )
    return f"{first}install it, then dlltracer why MODULE"


def _of_other_file(path: str, python: str | None) -> Asked | None:
    """The question about a file whose name does not say what it is; `None` for an image that can be loaded."""
    import shlex

    from ..binary.reading import is_macho, read_regular
    from ..errors import BinaryFormatError

    quoted = shlex.quote(path if has_folder(path) else os.path.join(os.curdir, path))
    try:
        head = read_regular(path, 256)
    except (OSError, BinaryFormatError):
        return None  # the attempt to load it says why it cannot be read
    if head.startswith(b"#!"):
        return _of_shebang(path, head, python, quoted)
    if head.startswith(b"MZ") or is_macho(head):
        if sys.platform == "win32":
            return None
        raise CommandFailed(
            f"{path} is for another system, and cannot be run here: dlltracer deps {quoted} shows what it needs"
        )
    if head.startswith(b"\x7fELF"):
        if not _is_elf_program(path):
            return None
        raise CommandFailed(
            f"{path} is a program, not a module: dlltracer run -- {quoted} shows what it loads and what fails, "
            f"dlltracer deps {quoted} what it needs"
        )
    if path.endswith(".ipynb"):
        raise CommandFailed(f"{path} is a notebook: %load_ext dlltracer in it explains its failed imports")
    if not head.strip() or b"\0" in head:
        return None  # a damaged image, for all that is known
    raise CommandFailed(
        f"{path} is neither an image (ELF, PE, Mach-O) nor named *.py: if it is a Python script, dlltracer run {quoted}"
    )


def _is_elf_program(path: str) -> bool:
    from ..binary.elf import read_elf
    from ..errors import BinaryFormatError
    from ..model.elf import ET_EXEC

    try:
        image = read_elf(path)
    except (OSError, BinaryFormatError):
        return False
    # Position-independent programs are ET_DYN with an interpreter (elf(5)).
    return image.kind == ET_EXEC or image.interpreter is not None


def _of_shebang(path: str, head: bytes, python: str | None, quoted: str) -> Asked:
    """The question about a script by its first line: Python's are run with the Python that it names."""
    from .output import say

    words = head[2:].splitlines()[0].decode("utf-8", "replace").split()
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    named = words[0] if words else ""
    if not os.path.basename(named).lower().startswith(PYTHONS):
        raise CommandFailed(
            f"{path} is a script of {named or 'no program'}: dlltracer run --follow -- {quoted} shows what it loads"
        )
    program = Program(ProgramKind.SCRIPT, path)
    if python is not None or os.path.realpath(named) == os.path.realpath(sys.executable):
        return Asked(path, program)
    import shutil

    found = shutil.which(named)
    if found is None:
        raise CommandFailed(f"the first line of {path} names {named}, and there is no such program: say --python PATH")
    if os.sep in named:
        say(f"dlltracer: taking the Python of its first line: {named} (--python PATH takes another one)\n", err=True)
    return Asked(path, program, named if os.sep in named else None)


def _of_image(path: str) -> Asked:
    """The question about a native file: imported as a module if it is one, else loaded."""
    full = os.path.abspath(path)
    if sys.platform == "win32":
        from ..api.trees import is_windows_program

        if is_windows_program(full):
            return Asked(f"starting {path}", Program(ProgramKind.COMMAND, full))
    name = os.path.basename(full).partition(".")[0]
    if _is_extension_module(full, name):
        program = Program(ProgramKind.CODE, _IMPORT_FILE, (name, full), must_return=True)
        return Asked(f"importing {path}", program)
    return Asked(f"loading {path}", Program(ProgramKind.CODE, _LOAD_FILE, (full,), must_return=True))


def _is_extension_module(path: str, name: str) -> bool:
    """Return whether the file exports PyInit_NAME; a file that cannot be read is tried as one, so that Python says
    why."""
    from ..api.trees import provided_names
    from ..errors import BinaryFormatError

    try:
        return f"PyInit_{name}" in provided_names(path)
    except (BinaryFormatError, OSError):
        return path.lower().endswith((".so", ".pyd"))


def _of_folder(path: str) -> Asked:
    """The question about a folder: the package that it is, or the program that it holds."""
    full = os.path.abspath(path)
    if os.path.exists(os.path.join(full, "__init__.py")):
        folder, name = os.path.split(full)
        while os.path.exists(os.path.join(folder, "__init__.py")):
            folder, last = os.path.split(folder)
            name = f"{last}.{name}"
        if not is_module(name):
            raise CommandFailed(f"{path} holds a package whose name no import can say: {name}")
        if os.path.realpath(folder) == os.path.realpath(os.curdir):
            return Asked(f"import {name}", Program(ProgramKind.CODE, f"import {name}", must_return=True))
        code = _IMPORT_FROM.format(folder=folder, name=name)
        return Asked(f"import {name} from {folder}", Program(ProgramKind.CODE, code, must_return=True))
    if os.path.exists(os.path.join(full, "__main__.py")):
        return Asked(path, Program(ProgramKind.SCRIPT, path))
    raise CommandFailed(explain_folder(path))


def explain_folder(path: str) -> str:
    """One line on a folder that is no package: what in it can be asked about."""
    import shlex

    if is_environment(path):
        return f"{path} is an environment: dlltracer why --python {shlex.quote(path)} MODULE"
    is_project = any(os.path.exists(os.path.join(path, name)) for name in ("pyproject.toml", "setup.py", "setup.cfg"))
    packages = sorted({os.path.basename(one) for one in packages_below(path)})
    if is_project:
        return f"{path} is the folder of a project: say its module: dlltracer why {(packages or ['MODULE'])[0]}"
    if packages:
        one = os.path.join(path, packages[0])
        return f"{path} is no package, it holds packages: dlltracer why {shlex.quote(one)}"
    try:
        files = sorted(name for name in os.listdir(path) if name.lower().endswith((".py", *IMAGES)))
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}"
    if files:
        one = shlex.quote(os.path.join(path, files[0]))
        return f"{path} has no __init__.py, so importing it loads nothing; name a file in it: dlltracer why {one}"
    return f"{path} is a folder without any module: say a MODULE or a file"


def is_environment(folder: str) -> bool:
    """Return whether a folder is an environment of venv (PEP 405) or conda."""
    return any(os.path.exists(os.path.join(folder, name)) for name in ("pyvenv.cfg", "conda-meta"))


def packages_below(path: str) -> list[str]:
    """Return the names of the packages in a folder and in its subfolder `src`."""
    found = []
    for folder in (path, os.path.join(path, "src")):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        found += [
            os.path.join(folder, name) for name in names
            if name not in ("tests", "test", "docs") and os.path.isfile(os.path.join(folder, name, "__init__.py"))
        ]  # fmt: skip
    return found


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
    """Return whether a text is one import statement, or several."""
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
        yield f"{name} is the name that pip installs; to try what is installed: dlltracer why {module}"
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
    from ..host.distributions import list_distributions
    from ..model.environment import normalized_name

    for found in list_distributions(sys.path):
        if normalized_name(found.name) == normalized_name(package):
            modules = [one for one in found.modules if not one.startswith("_")]
            if modules:
                return next((one for one in modules if normalized_name(one) == normalized_name(package)), modules[0])
    return module_of_package(package) or (package if is_module(package) else re.sub(r"[-.]+", "_", package))


def _what_is_near(name: str) -> str:
    """Return a suggestion for a file that is not there: one of a similar name, or a module."""
    near = near_file(name)
    if near is not None:
        return f"; did you mean {near}?"
    stem = os.path.splitext(name)[0].replace(os.sep, ".").strip(".")
    if name.lower().endswith((".so", ".dll", ".dylib")) or ".so." in name:
        return "; a library by its name alone: dlltracer why -c \"import ctypes; ctypes.CDLL('NAME')\""
    return f"; a module is named without folders and ending: dlltracer why {stem}" if is_module(stem) else ""


def _refuse_folder_of_name(name: str, folder: str, python: str | None) -> None:
    """Raise `CommandFailed` where the import would find the folder alone, and load nothing (a namespace package)."""
    from .program import is_namespace_of

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
