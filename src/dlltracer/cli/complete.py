"""What a shell offers for the values of options and arguments."""

from __future__ import annotations

from click.shell_completion import CompletionItem

TYPE_CHECKING = False
if TYPE_CHECKING:
    import click


def complete_backend(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The mechanisms."""
    from ..capture.select import BACKEND_NAMES

    return [CompletionItem(name) for name in BACKEND_NAMES if name.startswith(incomplete)]


def complete_file(ctx: click.Context, param: object, incomplete: str) -> list[CompletionItem]:
    """A file: the shell lists them."""
    return [CompletionItem(incomplete, type="file")]


def complete_folder(ctx: click.Context, param: object, incomplete: str) -> list[CompletionItem]:
    """A folder: the shell lists them."""
    return [CompletionItem(incomplete, type="dir")]
