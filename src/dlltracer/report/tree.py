"""A recording as a tree: Python imports, below them the images loaded for them, below those what they needed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

from ..model.events import LoadFailedEvent
from ..model.recording import Recording
from .counts import FinalEvent, final_events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Chain = tuple[str, ...] | None
"""The imports in progress; `None` where the mechanism does not know them."""


@dataclass(frozen=True)
class Image:
    """An image, or a need that became none, and below it what it needed."""

    event: FinalEvent
    needs: tuple[Image, ...] = ()

    @property
    def failed(self) -> bool:
        return isinstance(self.event, LoadFailedEvent)


@dataclass(frozen=True)
class Group:
    """Imports that stand on one line, the images loaded for the last of them, and the imports inside it.

    `names` is empty for what no import asked for, `None` where the mechanism does not know the imports.
    """

    names: Chain
    images: tuple[Image, ...] = ()
    groups: tuple[Group, ...] = ()


def build_tree(recording: Recording, *, failed_only: bool = False) -> tuple[Group, ...]:
    """The groups at the top, in order of first appearance; `failed_only` keeps failures and what leads to them."""
    by_chain: dict[Chain, list[FinalEvent]] = {}
    for event in final_events(recording):
        by_chain.setdefault(event.imports, []).append(event)
    images = {chain: _nest(events) for chain, events in by_chain.items()}
    if failed_only:
        images = {chain: kept for chain, found in images.items() if (kept := _only_failed(found))}
    outside = [Group(chain, images[chain]) for chain in images if not chain]
    return (*_group(tuple(chain for chain in images if chain), images, 0), *outside)


def _group(
    chains: Sequence[tuple[str, ...]], images: Mapping[Chain, tuple[Image, ...]], depth: int
) -> tuple[Group, ...]:
    """One group for each different name at `depth` of the chains; all of them are longer than that."""
    same: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    for chain in chains:
        same[chain[depth]].append(chain)
    groups = []
    for members in same.values():
        # Names that nothing hangs on are folded into one line with the next, which also bounds the recursion.
        end = depth + 1
        while len(members[0]) > end and all(len(m) > end and m[end] == members[0][end] for m in members):
            end += 1
        name = members[0][:end]
        inner = tuple(chain for chain in members if len(chain) > end)
        groups.append(Group(name[depth:], images.get(name, ()), _group(inner, images, end)))
    return tuple(groups)


def _nest(events: list[FinalEvent]) -> tuple[Image, ...]:
    """Put each image below the one that asked for it, if that one is among those before it."""
    below: defaultdict[int, list[int]] = defaultdict(list)
    latest: dict[str, int] = {}
    for index, event in enumerate(events):
        below[latest.get(event.requested_by or "", -1)].append(index)
        latest[event.path] = index
    nested: dict[int, Image] = {}
    # Needs come after what needs them, so from the end every image finds its needs finished.
    for index in range(len(events) - 1, -1, -1):
        nested[index] = Image(events[index], tuple(nested[need] for need in below[index]))
    return tuple(nested[index] for index in below[-1])


def _only_failed(images: Iterable[Image]) -> tuple[Image, ...]:
    kept = (replace(image, needs=_only_failed(image.needs)) for image in images)
    return tuple(image for image in kept if image.failed or image.needs)
