"""What is at a path: the answer of a file system, to resolvers that know it by protocol only."""

from __future__ import annotations

import enum


class FileKind(enum.Enum):
    """What is at a path, links followed."""

    FILE = "file"
    FOLDER = "folder"
    ABSENT = "absent"
    """Nothing, or a link that leads nowhere."""
    DENIED = "denied"
    """It may not be looked at or read."""
    SYMLINK_LOOP = "circle"
    """A link that leads back to itself."""
    OTHER = "other"
    """A device, a fifo, a socket."""
