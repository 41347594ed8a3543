"""Folders that the packages around a Windows image add when they are imported, as wheels repaired by delvewheel do.

Source: `_patch_init` in _wheel_repair.py of delvewheel. It is a block between two comments, in the `__init__.py` of
each package of the wheel, that calls os.add_dll_directory for a folder `NAME.libs`.
"""

from __future__ import annotations

import os
import re

from ..binary.reading import read_regular
from ..errors import BinaryFormatError

_START, _END = "# start delvewheel patch", "# end delvewheel patch"
"""Without the end of the line, which is CR LF in the files of some wheels (psycopg2-binary 2.9.11)."""
_FOLDER = re.compile(r"os\.path\.join\(os\.path\.dirname\(__file__\)((?:, ?os\.pardir)*), ?'([^'/\\]+)'\)")
_DEPTH = 16
_MOST_BYTES = 1 << 20
_MOST_FOLDERS = 64


def read_added_folders(image: str) -> tuple[str, ...]:
    """The folders that importing the packages of `image` (a path of this system) adds; () if they add none."""
    found: dict[str, None] = {}
    folder = os.path.dirname(os.path.abspath(image))
    for _ in range(_DEPTH):
        code = _read(os.path.join(folder, "__init__.py"))
        if code is None:
            break
        # Not one regular expression: many starts without an end would take it the square of the file's size.
        for block in code.split(_START)[1:]:
            patch, end, _ = block.partition(_END)
            for up, name in _FOLDER.findall(patch)[:_MOST_FOLDERS] if end else ():
                added = os.path.normpath(os.path.join(folder, *([os.pardir] * up.count("pardir")), name))
                if os.path.isdir(added):
                    found[added] = None
        folder = os.path.dirname(folder)
    return tuple(found)


def _read(path: str) -> str | None:
    try:
        return read_regular(path, _MOST_BYTES).decode("utf-8", "replace")
    except (OSError, BinaryFormatError):
        return None
