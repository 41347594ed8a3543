"""Operating systems, as far as their loaders differ."""

from __future__ import annotations

import enum


class System(enum.Enum):
    """The family of loaders that a process lives with."""

    LINUX = "linux"
    WINDOWS = "windows"
    OTHER = "other"
