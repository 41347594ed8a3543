"""Where a file given by a person lies: on this machine, or inside of a folder that stands for another one."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from ..model.system import System


@dataclass(frozen=True)
class Place:
    """A file: its `path` here, absolute, and its path `inside` the root, in posix form, links of the root followed.

    `inside` is `None` for a file that is not in the root.
    """

    path: str
    inside: str | None


def locate(file: str, root: str | None) -> Place:
    """The place of `file`; `root` is `None` for this machine as a whole."""
    path = os.path.abspath(file)
    top = os.path.realpath(root if root is not None else os.path.splitdrive(path)[0] + os.sep)
    real = os.path.realpath(path)
    try:
        inside = os.path.relpath(real, top)
    except ValueError:  # another drive
        return Place(path, None)
    if inside.split(os.sep)[0] == os.pardir:
        return Place(path, None)
    return Place(path, "/" + inside.replace(os.sep, "/"))


def this_system() -> System:
    """The family of loaders of the running Python."""
    return {"linux": System.LINUX, "win32": System.WINDOWS}.get(sys.platform, System.OTHER)
