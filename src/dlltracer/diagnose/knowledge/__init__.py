"""Reads the data files of this folder, also from inside a zip file."""

from __future__ import annotations

import json
from importlib.resources import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read_table(name: str) -> dict[str, Any]:
    """The data file `NAME.json`."""
    table: dict[str, Any] = json.loads(files(__package__).joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return table
