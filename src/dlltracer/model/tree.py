"""The load of a file, worked out: every image, every need and its outcome."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from functools import cached_property

from .elf import ElfImage
from .events import Phase, Probe
from .light import dataclass
from .pe import PeImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .macho import MachoImage


@dataclass(frozen=True)
class MissingSymbol:
    """A symbol that an image needs and that nothing in its reach provides.

    Attributes:
        name: the symbol; empty when it is asked for by `ordinal` alone.
        version: the version asked for (ELF); `None` if any will do.
        requested_by: path of the image that needs it.
        library: the library expected to have it, as `requested_by` spells it; `None` where the format does not say.
        weak: nothing fails without it.
        nearest: up to three names that are provided and look alike, with "@VERSION" where it is the version that
            differs; a guess.
        ordinal: the number asked for (PE); `None` when it is asked for by name.
    """

    name: str
    version: str | None
    requested_by: str
    library: str | None
    weak: bool = False
    nearest: tuple[str, ...] = ()
    ordinal: int | None = None


@dataclass(frozen=True)
class MissingVersion:
    """A symbol version that a library was expected to define, and does not.

    Attributes:
        version: the version asked for ("GLIBC_2.38").
        library: whose it should be, as `requested_by` spells it.
        provider: path of the image found under that name.
        requested_by: path of the image that needs it.
        provider_has: the versions that `provider` does define, in its order.
    """

    version: str
    library: str
    provider: str
    requested_by: str
    provider_has: tuple[str, ...] = ()


class BindingState(enum.Enum):
    """The outcome of a need."""

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
        optional: the load goes on without it (a weak need of Mach-O).
    """

    need: str
    requested_by: str
    state: BindingState
    path: str | None = None
    phase: Phase | None = None
    probes: tuple[Probe, ...] = ()
    delayed: bool = False
    reason: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class LoadTree:
    """A file and all that loading it would bring.

    Attributes:
        top: path of the file.
        images: path to image of everything the loader would map, in its order, the top first.
        bindings: the needs, in the order in which the loader meets them.
        notes: what the resolver could not consider.
        unresolved: how many needs were not looked for, because the search would have taken too long.
        symbols, versions: what the images need of one another and do not have, where that was checked.
    """

    top: str
    images: Mapping[str, ElfImage | PeImage | MachoImage]
    bindings: tuple[Binding, ...]
    notes: tuple[str, ...] = ()
    unresolved: int = 0
    symbols: tuple[MissingSymbol, ...] = ()
    versions: tuple[MissingVersion, ...] = ()

    @property
    def missing(self) -> tuple[Binding, ...]:
        """The needs that fail the load: not bound, not delayed or optional, and not of LD_PRELOAD."""
        failed = (BindingState.MISSING, BindingState.REFUSED)
        return tuple(
            b for b in self.bindings
            if b.state in failed and not (b.delayed or b.optional) and b.phase is not Phase.PRELOAD
        )  # fmt: skip

    def chain_to(self, path: str) -> tuple[str, ...]:
        """Return the shortest chain of images from the top to `path`, both included.

        It is `path` alone for an image that the top does not lead to.
        """
        chain = [path]
        while (parent := self._parents.get(chain[-1])) is not None:
            chain.append(parent)
        return tuple(reversed(chain))

    @cached_property
    def _parents(self) -> dict[str, str]:
        """Return for each image that the top leads to the one before it in a shortest chain."""
        needs: dict[str, list[str]] = {}
        for binding in self.bindings:
            if binding.path is not None and binding.state is BindingState.BOUND:
                needs.setdefault(binding.requested_by, []).append(binding.path)
        parents: dict[str, str] = {}
        queue = deque([self.top])
        while queue:
            path = queue.popleft()
            for need in needs.get(path, ()):
                if need not in parents and need != self.top:
                    parents[need] = path
                    queue.append(need)
        return parents
