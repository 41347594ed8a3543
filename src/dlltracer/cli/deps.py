"""`dlltracer deps`: what loading a file would bring, without loading it."""

from __future__ import annotations

from ..errors import BinaryFormatError
from ..model.light import dataclass
from .formats import GRAPHS, HTML, HTML_OPTION, form_of_name, refuse_other_format, refuse_same_file, render_graph
from .interpreter import choose_python
from .module_file import choose_file
from .options import ANNOTATIONS_OPTION, FOLDER, PROGRAM, WRITTEN, BadUsage, CommandLine, Option, prefer_command_line
from .output import EXIT_MISSING, CommandFailed, Target, open_target, say_annotations, write_styled
from .progress import progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..model.tree import LoadTree

_TEXT, _JSON = "text", "json"
_FORMATS = (_TEXT, _JSON, *GRAPHS)


@dataclass(frozen=True)
class _DepsOptions:
    """What was given on the command line, by the names of the parameters below."""

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
        """What the name of the output asks for, if no option says how to write it."""
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
