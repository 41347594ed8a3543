"""The terminal of this process, as what a text has to fit on."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ..model.screen import USUAL, Screen


def screen_here(
    *, width: int | None = None, is_ascii: bool = False, has_marks: bool = False, has_links: bool = False,
    folder: str = "",
) -> Screen:  # fmt: skip
    """Return the screen of this process: its width, its current folder, the names by which its shell finds Python.

    Arguments: `width`, columns, `None` for those of COLUMNS or of the terminal; `has_links`, it shows
    hyperlinks; `folder`, the current folder of the program that the text is about, empty for ours; the others as of
    `Screen`.
    """
    return Screen(
        width=shutil.get_terminal_size((USUAL, 24)).columns if width is None else width, is_ascii=is_ascii,
        has_marks=has_marks, documentation=documentation_address() if has_links else "",
        folders=tuple(filter(None, (folder, _current_folder()))),
        programs=tuple(_names_of_python()),
    )  # fmt: skip


def documentation_address() -> str:
    """Return the address of our documentation: of the installed package, else of its own pages, which are files."""
    import importlib.metadata

    try:
        addresses = importlib.metadata.metadata("dlltracer").get_all("Project-URL") or ()
    except importlib.metadata.PackageNotFoundError:
        addresses = ()
    for entry in addresses:
        label, _, address = entry.partition(",")
        if label.strip().lower() == "documentation":
            return str(address.strip())
    pages = Path(__file__).resolve().parents[1] / "report" / "pages"
    return pages.as_uri() if pages.is_dir() else ""  # none in a zip archive


def _names_of_python() -> Iterator[tuple[str, str]]:
    """Paths of Pythons with the names by which a shell finds them; a venv has several names for its one."""
    for name in ("python", "python3"):
        path = shutil.which(name)
        if path is None:
            continue
        yield path, name
        is_beside = sys.executable and os.path.dirname(sys.executable) == os.path.dirname(path)
        if is_beside and os.path.realpath(sys.executable) == os.path.realpath(path):
            yield sys.executable, name


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return ""
