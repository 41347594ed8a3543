"""`dlltracer deps`: what loading a file would bring, without loading it."""

from __future__ import annotations

import click

from ..errors import BinaryFormatError
from .ending import EXIT_MISSING
from .output import open_target, write_styled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.tree import LoadTree


def _keep_page(context: click.Context, option: click.Parameter, path: str | None) -> None:
    """Put the file of --html into the context: one argument less for the command."""
    context.obj = path


@click.command("deps", short_help="Show what a file needs, and what of it is missing.")
@click.argument("file")
@click.option("-o", "--output", metavar="FILE", help="Write to FILE instead of stdout.")
@click.option("--json", "as_json", is_flag=True, help="JSON, with every place tried.")
@click.option(
    "--html", metavar="FILE", help="Write an HTML page to FILE as well.", expose_value=False, callback=_keep_page
)  # fmt: skip
@click.option("--flat", is_flag=True, help="A list in the order of loading, instead of a tree.")
@click.option("--missing", is_flag=True, help="Show what is missing only, and what leads to it.")
@click.option("--why", metavar="NAME", help="Show who pulls in the library NAME.")
@click.option("--root", metavar="DIR", help="Look in DIR as in another system: a mounted disk, an unpacked image.")
@click.option("--path", "search", metavar="DIR", multiple=True, help="Look in DIR first; may be repeated.")
def deps(
    file: str, output: str | None, as_json: bool, flat: bool, missing: bool, why: str | None, root: str | None,
    search: tuple[str, ...],
) -> None:  # fmt: skip
    """Show what loading FILE would bring: which rule finds each library, and what is missing.

    FILE is a shared object, an extension module or a program: ELF or PE, for any machine, on any system. Nothing of it
    is run. The exit status is 1 when something is missing.
    """
    if sum((as_json, flat, why is not None)) > 1:
        raise click.UsageError("choose one of --json, --flat and --why")
    tree = _load(file, root, search)
    html: str | None = click.get_current_context().obj
    target, page = open_target(output or "-"), None
    try:
        page = open_target(html) if html is not None else None
        if as_json:
            from ..report.deps_json import render_deps_json

            target.write(render_deps_json(tree))
        else:
            from ..report.render_deps import render_deps, render_flat, render_why

            if why is not None:
                write_styled(target, lambda plain: render_why(tree, why))
            elif flat:
                write_styled(target, lambda plain: render_flat(tree))
            else:
                write_styled(target, lambda plain: render_deps(tree, missing_only=missing, ascii_only=plain))
        if page is not None:
            from ..report.html import render_html_tree

            page.write(render_html_tree(tree))
    finally:
        target.discard()
        if page is not None:
            page.discard()
    if tree.missing:
        raise click.exceptions.Exit(EXIT_MISSING)


def _load(file: str, root: str | None, search: tuple[str, ...]) -> LoadTree:
    from ..api.trees import load_tree

    try:
        return load_tree(file, root=root, search=search)
    except BinaryFormatError as error:
        raise click.ClickException(f"{file} is not an image: {error}") from error
    except OSError as error:
        raise click.ClickException(f"cannot read {file}: {error.strerror or error}") from error
