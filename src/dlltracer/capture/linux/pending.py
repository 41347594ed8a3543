"""What the loader is at: a search, a dlopen. Part of `loaderstate`."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...model.probe import Phase, Probe
from ...model.request import Request


@dataclass
class Search:
    """A name the loader is looking for."""

    name: str
    by: str | None
    probes: list[Probe] = field(default_factory=list)
    phase: Phase | None = None
    origin: str | None = None


@dataclass
class DlopenCall:
    """A dlopen in progress: its top name, the images it mapped, and whether they can no longer be dropped."""

    name: str
    request: Request | None
    mapped: list[str] = field(default_factory=list)
    committed: bool = False
    failed: bool = False
    error: tuple[str, str] | None = None

    def is_about(self, path: str) -> bool:
        """Whether `path` is what this dlopen asked for."""
        return path == self.name or (bool(self.mapped) and self.mapped[0] == path)
