"""The places tried in vain, made short: one entry a rule, the processor variants of a folder folded."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress, groupby

from ..model.probe import Phase, Probe, ProbeOutcome
from ..model.words import rule_title
from .drawing import DIM, FAILED, PLAIN, Guides, Node, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 4
"""Places named for each rule; of the rest, the number is enough."""

_VARIANTS = frozenset(
    ("glibc-hwcaps", "tls", "haswell", "xeon_phi", "avx512_1", "x86_64", "aarch64", "atomics", "power9")
)
"""Folder names that glibc puts below each folder of its search, for variants of the processor (ld.so(8))."""

@dataclass(frozen=True)
class Rule:
    """The places that one rule led to: those worth a line, and the rest."""

    title: str
    shown: tuple[Probe, ...]
    hidden: tuple[Probe, ...] = ()

    @property
    def more(self) -> int:
        """How many places are not worth a line."""
        return len(self.hidden)


def fold_places(probes: Sequence[Probe]) -> tuple[Rule, ...]:
    """Group by rule, in order. A place where a file lies is always shown; an index without an entry has no places."""
    rules = []
    for (phase, origin, outcome), members in groupby(probes, key=_rule_of):
        group = list(members)
        if outcome is ProbeOutcome.NO_ENTRY:
            rules += [Rule(f"{rule_title(phase, probe.path)}: no entry", ()) for probe in group]
            continue
        plain = [probe for probe in group if not _is_variant(probe.path)][:SHOWN] or group[:1]
        wanted = [p in plain or p.outcome is ProbeOutcome.PRESENT for p in group]
        shown = tuple(compress(group, wanted))
        hidden = tuple(p for p, is_shown in zip(group, wanted, strict=True) if not is_shown)
        rules.append(Rule(rule_title(phase, origin), shown, hidden))
    return tuple(rules)


def place_nodes(probes: Sequence[Probe], guides: Guides) -> tuple[Node, ...]:
    """The places tried in vain, for a tree: a node a rule, the places below it, the rest as a number."""
    vain = [probe for probe in probes if probe.outcome is not ProbeOutcome.LOADED]
    return tuple(_rule_node(rule, guides) for rule in fold_places(vain))


def _rule_node(rule: Rule, guides: Guides) -> Node:
    places = []
    for probe in rule.shown:
        if probe.outcome is ProbeOutcome.PRESENT:
            why = f": {probe.reason}" if probe.reason else ""
            places.append(Node(((probe.path, PLAIN), (f"  a file is there{why}", FAILED))))
        else:
            places.append(Node(((probe.path, DIM),)))
    if rule.more:
        places.append(Node(((f"{guides.more} {number(rule.more, 'more place')}", DIM),)))
    return Node(((rule.title, PLAIN),), tuple(places))


def _rule_of(probe: Probe) -> tuple[Phase, str | None, ProbeOutcome | None]:
    """What makes probes one group: an index that had no entry is a line of its own, not a place."""
    return probe.phase, probe.origin, probe.outcome if probe.outcome is ProbeOutcome.NO_ENTRY else None


def _is_variant(path: str) -> bool:
    """Whether the file's folder, or one above it, is a processor variant of a searched folder.

    A folder that merely has such a name (/opt/x86_64/lib) does not count: the names stand last, next to each other.
    """
    folders = path.split("/")[:-1]
    return bool(folders) and (folders[-1] in _VARIANTS or (len(folders) > 1 and folders[-2] == "glibc-hwcaps"))
