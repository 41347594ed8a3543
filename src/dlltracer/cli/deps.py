"""`dlltracer deps`: what loading a file would bring, without loading it.

The file is named itself, or by the module, the package or the program that it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..errors import BinaryFormatError
from ..model.light import dataclass
from .formats import GRAPHS, HTML, HTML_OPTION, form_of_name, refuse_other_format, refuse_same_file, render_graph
from .options import ANNOTATIONS_OPTION, FOLDER, PROGRAM, WRITTEN, BadUsage, CommandLine, Option, prefer_command_line
from .output import EXIT_MISSING, CommandFailed, Target, open_target, say, say_annotations, write_styled
from .program import choose_python
from .progress import progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..model.tree import LoadTree

_SECONDS = 60.0
"""How long Python may take to find a module: one of many folders in a file system of the network takes long once."""

_MOST_SHOWN = 3
_MOST_FILES = 20_000

_FIND = """\
import importlib.machinery as machinery, json, os, sys
name, limit = sys.argv[1], int(sys.argv[2])
parts, path, spec = name.split("."), None, None
for at, part in enumerate(parts):
    spec = machinery.BuiltinImporter.find_spec(part) if at == 0 else None
    spec = spec or machinery.PathFinder.find_spec(".".join(parts[: at + 1]), path)
    if spec is None:
        break
    path = list(spec.submodule_search_locations or ())
natives, seen, refused = [], 0, []
for top in path or ():
    for folder, folders, files in os.walk(top, onerror=refused.append):
        seen += len(files)
        if seen > limit:
            break
        folders.sort()
        endings = tuple(machinery.EXTENSION_SUFFIXES)
        natives += sorted(os.path.join(folder, one) for one in files if one.endswith(endings))
names = []
for file in natives:
    top = next(one for one in path if file.startswith(one))
    dotted = os.path.relpath(file, top).split(".")[0].replace(os.sep, ".")
    names.append((name + "." + dotted, file))
origin = None if spec is None else spec.origin
print(json.dumps([spec is not None, origin, names, seen > limit, [(one.filename, one.strerror) for one in refused]]))
"""
"""Run by the Python in question: finds a module as its import system does, and imports neither it nor its parents."""


def choose_file(name: str, python: str | None) -> str:
    """Return the file that is meant.

    Arguments: `name`, of a file, a folder, a module or a program; `python`, whose modules they are, `None` for ours.
    Raises `CommandFailed` with one line that says what to type.
    """
    if os.path.isdir(name):
        files, unseen = _native_files(name)
        return _only(name, [(path, path) for path in files], "folder", unseen)
    if os.path.lexists(name):
        _refuse_other_files(name)
        return name
    from .question import is_module  # not above: a file that is there needs none of this

    words = name.split()
    if len(words) == 2 and words[0] == "import":
        name = words[1]
    found = _find_module(name, python) if is_module(name) else None
    if found is None:
        return _of_program(name)
    origin, natives, unseen = found
    if origin is None or origin.endswith((".py", ".pyc")):
        if natives:
            return _only(name, natives, "package", unseen)
        if origin is None:
            raise CommandFailed(f"{name} is a folder without native modules{unseen and f': {unseen}'}")
        raise CommandFailed(
            f"{name} is Python source ({origin}), which needs no image itself: dlltracer run -c 'import {name}' shows "
            "what it loads"
        )
    if origin in ("built-in", "frozen"):
        program = python or sys.executable
        raise CommandFailed(f"{name} is part of this Python itself: dlltracer deps {program}")
    say(f"dlltracer: {name} is {origin}\n", err=True)
    return origin


def _find_module(name: str, python: str | None) -> tuple[str | None, list[tuple[str, str]], str] | None:
    """Return the origin of a module, the native modules below it and what was not looked at ("" if nothing).

    `None` if this Python finds no such module. Raises `CommandFailed` if it gave no answer in time.
    """
    import json
    import subprocess

    try:
        done = subprocess.run(
            [python or sys.executable, "-c", _FIND, name, str(_MOST_FILES)], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_SECONDS, check=False,
        )  # fmt: skip
        is_there, origin, natives, is_cut, refused = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        program = python or sys.executable
        raise CommandFailed(f"{program} did not say within {_SECONDS:g} s where {name} is: name the file") from None
    except (OSError, ValueError):
        return None
    return (origin, [(str(one), str(path)) for one, path in natives], _losses(is_cut, refused)) if is_there else None


def _losses(is_cut: bool, refused: Sequence[tuple[str, str]]) -> str:
    """Return what of a folder was not looked at, "" if nothing; `refused` has folders, each with the reason."""
    words = [f"only its first {_MOST_FILES} files were looked at"] if is_cut else []
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        words.append(f"cannot read {refused[0][0]} ({refused[0][1]}){more}")
    return "; ".join(words)


def _native_files(folder: str) -> tuple[list[str], str]:
    """Return the native files in and below a folder, by their names, and what was not looked at ("" if nothing)."""
    from .question import IMAGES

    found: list[str] = []
    refused: list[OSError] = []
    seen = 0
    for place, folders, files in os.walk(folder, onerror=refused.append):
        folders.sort()
        taken = sorted(files)[: _MOST_FILES - seen]
        found += [os.path.join(place, one) for one in taken if one.endswith(IMAGES) or ".so." in one]
        seen += len(files)
        if seen > _MOST_FILES:
            break
    return found, _losses(seen > _MOST_FILES, [(one.filename, one.strerror or str(one)) for one in refused])


def _only(name: str, files: list[tuple[str, str]], kind: str, unseen: str = "") -> str:
    """Return the one native file there is; of several, the user chooses.

    Arguments: `unseen`, what of the folder was not looked at.
    """
    import shlex

    if unseen and not files:
        raise CommandFailed(f"no native file was found in {name}: {unseen}")
    if unseen:
        say(f"dlltracer: not all of {name} was looked at: {unseen}\n", err=True)
    if not files:
        raise CommandFailed(f"{name} is a folder without native files")
    if len(files) > 1:
        shown = ", ".join(shlex.quote(one) for one, _ in files[:_MOST_SHOWN])
        more = f" and {len(files) - _MOST_SHOWN} more" if len(files) > _MOST_SHOWN else ""
        first = shlex.quote(files[0][0])
        raise CommandFailed(f"{name} is a {kind} of {len(files)} native files ({shown}{more}): dlltracer deps {first}")
    say(f"dlltracer: {name} has one native file: {files[0][1]}\n", err=True)
    return files[0][1]


def _refuse_other_files(name: str) -> None:
    """Raise `CommandFailed` for a file whose ending says that it is no image."""
    lower = name.lower()
    if lower.endswith(".so") or lower.rpartition(".so.")[2].replace(".", "").isdigit():
        return  # nearly always
    import shlex

    from .question import ARCHIVES

    quoted = shlex.quote(name)
    if lower.endswith(".whl"):
        raise CommandFailed(f"{name} is a wheel: dlltracer check {quoted} looks at every file in it")
    kind = next((kind for ending, kind in ARCHIVES.items() if lower.endswith(ending)), None)
    if kind is not None:
        raise CommandFailed(f"{name} is {kind}: unpack it, and name a file in it")
    if lower.endswith((".py", ".pyw", ".pyc", ".pyz")):
        raise CommandFailed(f"{name} is Python, and needs no image itself: dlltracer run {quoted} shows what it loads")
    if lower.endswith(".dlltrace"):
        raise CommandFailed(f"{name} is a recording: dlltracer show {quoted}")


_LIBRARIES = ("/usr/local/lib", "/usr/lib", "/usr/lib64", "/lib", "/lib64")


def _library(name: str) -> str | None:
    """Return the library of that name in a usual folder of the system, or in one of Debian (multiarch) below it."""
    import glob

    if ".so" not in name:
        return None
    places = [path for folder in _LIBRARIES for path in (f"{folder}/{name}", *sorted(glob.glob(
        f"{folder}/*-linux-*/{glob.escape(name)}"
    )))]  # fmt: skip
    return next((path for path in places if os.path.isfile(path)), None)


def _of_program(name: str) -> str:
    """Return the program of PATH, or the library of the system, that has this name.

    Raises `CommandFailed` with what was perhaps meant.
    """
    import shutil

    from .question import is_module, module_of, near_file

    found = (shutil.which(name) or _library(name)) if not os.path.dirname(name) else None
    if found is not None:
        say(f"dlltracer: {name} is {found}\n", err=True)
        return found
    near = near_file(name)
    meant = f"; did you mean {near}?" if near is not None else ""
    module = module_of(name)
    if near is None and module != name and is_module(module):
        meant = f"; did you mean the module {module}?"
    kind = "file, module or program" if is_module(name) else "file"
    raise CommandFailed(f"cannot read {name}: there is no such {kind}{meant}")


_TEXT, _JSON = "text", "json"
_FORMATS = (_TEXT, _JSON, *GRAPHS)


@dataclass(frozen=True)
class _DepsOptions:
    """Values of the command line, by the names of the parameters below."""

    file: str
    output: str | None
    form: str | None
    as_json: bool
    html: str | None
    flat: bool
    missing: bool
    why: str | None
    root: str | None
    search: tuple[str, ...]
    python: str | None
    annotations: bool | None

    def chosen_format(self) -> str | None:
        """The format for programs; `None` for text. Raises `BadUsage` when options contradict each other."""
        if self.as_json and self.form not in (None, _TEXT, _JSON):
            raise BadUsage(f"choose one of --json and --format {self.form}")
        if self.form is None and not self.as_json:
            refuse_other_format(self.output, ".html", ".htm", ".json", ".dot", ".gv", ".mmd")
        form = _JSON if self.as_json else self.form or self._form_of_name() or _TEXT
        if self.root is not None and self.python is not None:
            raise BadUsage("choose one of --root and --python: with --root the Python of that system is taken")
        if sum((form != _TEXT, self.flat, self.why is not None)) > 1:
            raise BadUsage("choose one of --format, --json, --flat and --why")
        return None if form == _TEXT else form

    def _form_of_name(self) -> str | None:
        """Return the format that the name of the output asks for, if no option names a format."""
        if self.flat or self.why is not None or self.missing:
            return None
        named = form_of_name(self.output)
        if named is not None and named.name in (HTML, *GRAPHS):
            return named.name
        return _JSON if (self.output or "").lower().endswith(".json") else None


def deps(given: Mapping[str, Any], settings: frozenset[str]) -> None:
    """Show what loading FILE would bring: which rule finds each library, and what is missing.

    FILE is a shared object, an extension module or a program: ELF, PE or Mach-O, for any machine, on any system. It may
    also be the name of a module, or of a program on PATH. Nothing of it is run. Symbols and their versions are
    compared, too. The exit status is 1 when something is missing, or when a search was stopped at its bounds.
    """
    options = _DepsOptions(**prefer_command_line(given, settings, ("form", "as_json", "flat", "why")))
    form = options.chosen_format()
    refuse_same_file(options.output or "-", options.html)
    python, file = None, options.file
    if options.root is None:
        python = choose_python(options.python)
        file = choose_file(options.file, python)
    with progress(f"reading {file}"):
        tree = _load(file, options.root, options.search, python)
    target, page = open_target(options.output or "-"), None
    try:
        page = open_target(options.html) if options.html is not None else None
        if form is not None:
            target.write(_render(tree, form))
        else:
            _write_text(tree, target, options)
        if page is not None:
            page.write(_render(tree, HTML))
    finally:
        target.discard()
        if page is not None:
            page.discard()
    if options.missing or options.annotations:
        from ..report.render_verdict import annotate_missing

        say_annotations(options.annotations, lambda folder: annotate_missing(tree, workspace=folder))
    if tree.missing or tree.unresolved or tree.symbols or tree.versions:
        raise SystemExit(EXIT_MISSING)


COMMAND = CommandLine(
    "deps", "Show what a file needs, and what of it is missing.", deps,
    Option("output", "-o", "--output", metavar=WRITTEN, completes="file", help="Write to FILE instead of stdout."),
    Option(
        "form", "--format", choices=_FORMATS,
        help="text: a tree to read. json: the same as --json. dot, mermaid: a graph.  [default: by the name of FILE, "
        "else text]",
    ),
    Option("as_json", "--json", help="JSON, with every place tried."),
    HTML_OPTION,
    Option("flat", "--flat", help="A list in the order of loading, instead of a tree."),
    Option("missing", "--missing", help="Show what is missing only, and what leads to it."),
    Option("why", "--why", metavar="NAME", help="Show who pulls in the library NAME."),
    Option(
        "root", "--root", metavar=FOLDER, completes="folder",
        help="Look in DIR as in another system: a mounted disk, an unpacked image.",
    ),
    Option(
        "search", "--path", metavar=FOLDER, multiple=True, completes="folder",
        help="Look in DIR first; may be repeated.",
    ),
    Option(
        "python", "--python", metavar=PROGRAM, completes="file",
        help="The interpreter that would load it, and that has the module; or the folder of its environment.",
    ),
    ANNOTATIONS_OPTION,
    argument="file", is_required=True,
)  # fmt: skip


def _render(tree: LoadTree, form: str) -> str:
    if form == HTML:
        from ..report.html import render_html_tree

        return render_html_tree(tree)
    if form == _JSON:
        from ..report.render_json import render_deps_json

        return render_deps_json(tree)
    from ..report.graph import graph_of_tree

    return render_graph(graph_of_tree(tree), form)


def _write_text(tree: LoadTree, target: Target, options: _DepsOptions) -> None:
    from ..report.render_deps import render_deps, render_flat, render_why

    name = options.why
    if name is not None:
        write_styled(target, lambda plain: render_why(tree, name, ascii_only=plain))
    elif options.flat:
        write_styled(target, lambda plain: render_flat(tree))
    else:
        write_styled(target, lambda plain: render_deps(tree, missing_only=options.missing, ascii_only=plain))


def _load(file: str, root: str | None, search: tuple[str, ...], python: str | None) -> LoadTree:
    from ..api.trees import load_tree

    try:
        return load_tree(file, root=root, search=search, python=python)
    except BinaryFormatError as error:
        raise CommandFailed(f"{file} is not an image: {error}") from error
    except OSError as error:
        raise CommandFailed(f"cannot read {file}: {error.strerror or error}") from error
