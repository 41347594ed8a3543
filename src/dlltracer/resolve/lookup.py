"""What looking for a file needs: a file system, the steps that a loader can take next, and a bound on the work.

The file system is implemented by `host.filesystem` and `host.winfiles`, and in memory by tests.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Protocol

from ..model.elf import ElfImage
from ..model.events import FileKind
from ..model.pe import PeImage
from ..model.tree import Binding, BindingState, LoadTree


class Filesystem(Protocol):
    """Files, by the paths that the loader in question would use."""

    def kind(self, path: str) -> FileKind:
        """Return what is at the path."""
        ...

    def identity(self, path: str) -> tuple[int, int] | None:
        """Return what two paths of one file have in common (device and inode); `None` if there is no file."""
        ...

    def real_path(self, path: str) -> str:
        """Return the path without symbolic links, as far as it exists."""
        ...

    def read_head(self, path: str, size: int) -> bytes:
        """Return the first `size` bytes of the file, or all if it has fewer. Raises `BinaryFormatError`, `OSError`."""
        ...

    def read_image(self, path: str) -> ElfImage | PeImage:
        """Return names and headers of the image, without symbols. Raises `BinaryFormatError`, `OSError`."""
        ...


class LookupStep(enum.Enum):
    """What a loader does after it has looked at a place."""

    TAKE = "take"
    """Use the file."""
    NEXT_PLACE = "next place"
    NEXT_RULE = "next rule"
    """Skip the other places of the same rule."""
    STOP = "stop"
    """Give up: the load fails."""


MOST_PLACES = 60_000
"""Places looked at for one tree. Real trees need some thousand; one RUNPATH can name 100,000 folders in 500 kB."""
MOST_BINDINGS = 20_000
"""Needs listed of one tree. Real trees have some hundred; 600 images that need one another have 360,000."""
MOST_IMAGES = 10_000
"""Images mapped in one tree."""


class TreeBuilder:
    """Collects a `LoadTree` and bounds the work for it.

    The files of a stranger can ask for any amount of work. What exceeds the bounds is counted and told in the notes.

    Attributes:
        images: path to image of what the load maps, in order.
        places_left: how many more places may be looked at.
    """

    def __init__(self) -> None:
        self.images: dict[str, ElfImage | PeImage] = {}
        self.places_left = MOST_PLACES
        self._bindings: list[Binding] = []
        self._answers: set[tuple[str, str | None, BindingState]] = set()
        self._unlisted = 0
        self._unresolved = 0

    @property
    def is_spent(self) -> bool:
        """Whether nothing more may be looked for."""
        return self.places_left <= 0 or len(self.images) >= MOST_IMAGES

    def skip_need(self) -> None:
        """Count a need that is not looked for, as the budget is spent."""
        self._unresolved += 1

    def add(self, binding: Binding) -> None:
        """Append a binding; where the list is long already, only one that tells something new."""
        answer = binding.need, binding.path, binding.state
        is_new = answer not in self._answers
        self._answers.add(answer)
        if is_new or len(self._bindings) < MOST_BINDINGS:
            self._bindings.append(binding)
        else:
            self._unlisted += 1

    def build(self, top: str, notes: Iterable[str]) -> LoadTree:
        """Return the tree of the file `top`."""
        found = list(notes)
        if self._unresolved:
            found.append(
                f"{self._unresolved} needs were not looked for: a search stops after {MOST_PLACES} places or "
                f"{MOST_IMAGES} images"
            )
        if self._unlisted:
            found.append(
                f"{self._unlisted} more needs are not listed: they have the same answer as others of their name, and "
                f"{MOST_BINDINGS} are"
            )
        return LoadTree(top, self.images, tuple(self._bindings), tuple(found), self._unresolved)
