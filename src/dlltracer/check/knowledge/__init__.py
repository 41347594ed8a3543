"""What is known of the systems that wheels are for, each table in a text file beside this one."""

from __future__ import annotations

import functools
from importlib import resources


@functools.cache
def musl_names() -> frozenset[str]:
    """The names that musl's libc exports. They are also names of C libraries in general."""
    text = resources.files(__name__).joinpath("musl_libc.txt").read_text(encoding="ascii")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))
