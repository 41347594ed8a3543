"""What a loader would do with a file: every image it would map, every need and what became of it."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

from .probe import Phase, Probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .elf import ElfImage
    from .pe import PeImage


class BindingState(enum.Enum):
    """What became of a need."""

    BOUND = "bound"
    """An image has it."""
    MISSING = "missing"
    """No place had a file of that name that the loader would take."""
    REFUSED = "refused"
    """The place that decides has a file that the loader will not take, and it looks no further."""
    SYSTEM = "system"
    """The operating system provides it, and its files are not here to be read (a wheel for another system)."""


@dataclass(frozen=True)
class Binding:
    """A need of one image, and what became of it.

    Attributes:
        need: the name asked for.
        requested_by: path of the image that asks.
        state: what became of it.
        path: the image that has it; for REFUSED the file refused; else `None`.
        phase: the rule that decided.
        probes: every place tried, in order.
        delayed: looked for at the first call only, so missing does not fail the load.
        reason: why a file was refused.
    """

    need: str
    requested_by: str
    state: BindingState
    path: str | None = None
    phase: Phase | None = None
    probes: tuple[Probe, ...] = ()
    delayed: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class LoadTree:
    """A file and all that loading it would bring.

    Attributes:
        top: path of the file.
        images: path to image of everything the loader would map, in its order, the top first.
        bindings: the needs, in the order in which the loader meets them.
        notes: what could not be taken into account.
    """

    top: str
    images: Mapping[str, ElfImage | PeImage]
    bindings: tuple[Binding, ...]
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[Binding, ...]:
        """The needs that fail the load: not bound, and not delayed."""
        failed = (BindingState.MISSING, BindingState.REFUSED)
        return tuple(b for b in self.bindings if b.state in failed and not b.delayed)

    def shortest_parents(self) -> dict[str, str | None]:
        """Return, for each image that the top leads to, the image before it in a shortest chain; `None` for the top."""
        parents: dict[str, str | None] = {self.top: None}
        needs: dict[str, list[str]] = {}
        for binding in self.bindings:
            if binding.path is not None and binding.state is BindingState.BOUND:
                needs.setdefault(binding.requested_by, []).append(binding.path)
        queue = deque([self.top])
        while queue:
            path = queue.popleft()
            for need in needs.get(path, ()):
                if need not in parents:
                    parents[need] = path
                    queue.append(need)
        return parents

    def shortest_chain(self, path: str) -> tuple[str, ...]:
        """Return a shortest chain from the top to an image, both included; the image alone if none leads to it."""
        parents = self.shortest_parents()
        chain: list[str] = []
        at: str | None = path
        while at is not None:
            chain.append(at)
            at = parents.get(at)
        return tuple(reversed(chain))
