"""Reads the data files of this folder, also from inside a zip file."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def read_table(name: str) -> dict[str, Any]:
    """Return the data file `NAME.json`, read once for all that ask. Not to be changed."""
    table: dict[str, Any] = json.loads(files(__package__).joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return table


@cache
def glibc_names() -> frozenset[str]:
    """Return the names that glibc exports and musl does not."""
    text = files(__package__).joinpath("glibc_libc.txt").read_text(encoding="ascii")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))
