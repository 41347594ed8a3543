"""What is on a machine of a module that was not found, as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Hiding(enum.Enum):
    """Why a folder that has the module is not on sys.path."""

    CURRENT_FOLDER = "current folder"
    """-P, -I and PYTHONSAFEPATH keep it out; a program's own folder comes instead of it."""
    SOURCE_FOLDER = "source folder"
    """The folder src of a project that is not installed."""
    SITE = "site"
    """The interpreter's own folder of packages: -S keeps it out."""
    BASE = "base"
    """The packages of the Python that a virtual environment was made from."""
    USER = "user"
    """The user's own packages: -s, -I, PYTHONNOUSERSITE and virtual environments keep them out."""
    ENVIRONMENT = "environment"
    """Another environment: activated, or beside the program."""


@dataclass(frozen=True)
class HiddenModule:
    """The module, in a folder that is not on sys.path; `package` is the installed one that brings it, if known."""

    path: str
    folder: str
    why: Hiding
    package: str = ""


@dataclass(frozen=True, kw_only=True)
class ModuleTraces:
    """What there is of a module that was not found.

    Attributes:
        unreadable: folders where it was looked for, and whose names may not be read.
        zipped: extension modules of that name in archives on sys.path, as "ARCHIVE/NAME".
        other_case: modules of the same name in other case.
        near: modules of a name that is nearly the same.
        hidden: the module in folders that are not on sys.path.
        shadow: the single file that stands where its package is looked for.
        parent: the folder of its package, which is there; `None` for a module of no package.
        behind: the module in another package of the same name, which comes later on sys.path.
        has_pip: whether this Python has pip; `None` if that is not known.
        is_of_uv: whether it is an environment that uv made.
        is_externally_managed: whether pip refuses to install into this Python (PEP 668).
    """

    unreadable: tuple[str, ...] = ()
    zipped: tuple[str, ...] = ()
    other_case: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    hidden: tuple[HiddenModule, ...] = ()
    shadow: str | None = None
    parent: str | None = None
    behind: str | None = None
    has_pip: bool | None = None
    is_of_uv: bool = False
    is_externally_managed: bool = False
