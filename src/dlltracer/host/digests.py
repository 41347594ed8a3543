"""What tells one file from another of the same name: size, time of change, and the hash of small ones."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass

from ..binary.reading import read_regular
from ..errors import BinaryFormatError

LARGEST_HASHED = 4 << 20
"""In bytes: what takes a few milliseconds to read."""


@dataclass(frozen=True)
class FileStamp:
    """Of a regular file: `size` in bytes, `modified` in seconds since the epoch."""

    size: int
    modified: float


def stamp_of(path: str) -> FileStamp | None:
    """`None` where there is no regular file, or it may not be looked at."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return FileStamp(found.st_size, found.st_mtime) if stat.S_ISREG(found.st_mode) else None


def sha256_of(path: str) -> str | None:
    """In hexadecimal; `None` for a file that is larger than `LARGEST_HASHED`, or cannot be read."""
    try:
        data = read_regular(path, LARGEST_HASHED + 1)
    except (OSError, ValueError, BinaryFormatError):
        return None
    return hashlib.sha256(data).hexdigest() if len(data) <= LARGEST_HASHED else None
