"""Measures the terminal of this process, for texts that have to fit on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from ..model.screen import USUAL, Screen
from .facts import current_folder


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
        width=_columns() if width is None else width, is_ascii=is_ascii,
        has_marks=has_marks, documentation=documentation_address() if has_links else "",
        folders=tuple(filter(None, (folder, current_folder()))),
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
    from pathlib import Path

    pages = Path(__file__).resolve().parents[1] / "report" / "pages"
    return pages.as_uri() if pages.is_dir() else ""  # none in a zip archive


def _names_of_python() -> Iterator[tuple[str, str]]:
    """Paths of Pythons with the names by which a shell finds them; a venv has several names for its one."""
    for name in ("python", "python3"):
        path = _which(name)
        if path is None:
            continue
        yield path, name
        is_beside = sys.executable and os.path.dirname(sys.executable) == os.path.dirname(path)
        if is_beside and os.path.realpath(sys.executable) == os.path.realpath(path):
            yield sys.executable, name


def _which(name: str) -> str | None:
    """The path of a program as a shell finds it. `shutil` is not imported for that: every verdict needs it."""
    if sys.platform == "win32":  # with the endings of PATHEXT
        import shutil

        return shutil.which(name)
    paths = (os.path.join(folder, name) for folder in os.get_exec_path())
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), None)


def _columns() -> int:
    """The width that COLUMNS or the terminal has, as `shutil.get_terminal_size` finds it."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return (os.get_terminal_size(sys.__stdout__.fileno()).columns if sys.__stdout__ is not None else 0) or USUAL
    except (ValueError, OSError):
        return USUAL
