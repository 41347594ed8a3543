"""Lines of styled text, and trees of them. Nothing here knows a terminal: `cli.output` makes colours of the styles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress, groupby

from ..model.events import Phase, Probe, ProbeOutcome
from ..model.light import dataclass
from ..model.screen import escape
from ..model.words import rule_title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

Line = tuple[tuple[str, str], ...]
"""Pieces of text, each with one of the styles below."""

PLAIN, DIM, BOLD = "", "dim", "bold"
FAILED, DROPPED, WARNING, FIXED = "bold red", "red", "bold magenta", "green"
"""Words for colours of the terminal's own: yellow cannot be read on white, and red on black only where it is a word or
two."""



@dataclass(frozen=True)
class Guides:
    """The characters that draw the tree."""

    branch: str
    last: str
    through: str
    more: str

    @property
    def blank(self) -> str:
        """Spaces as wide as the guide of a last child."""
        return " " * len(self.last)


UNICODE = Guides("\u251c\u2500 ", "\u2514\u2500 ", "\u2502  ", "…")
ASCII = Guides("|- ", "`- ", "|  ", "...")


DEEPEST = 40
"""Levels that are drawn by indentation. A hostile library may need 5,000 others in a chain: with an
indentation for each level, the text of such a tree grows with the square of its depth."""


@dataclass(frozen=True)
class TreeNode:
    """A line and the lines below it."""

    label: Line
    below: Sequence[TreeNode] = ()


def grow(tops: Iterable[T], describe: Callable[[T], tuple[Line, Iterable[T]]]) -> list[TreeNode]:
    """Return the nodes of things that have others below them.

    Works at any depth: a loop, because 1,000 levels are more than Python's stack takes.

    Arguments: `describe` gives the line of a thing, and the things below it.
    """
    roots: list[TreeNode] = []
    waiting = [(top, roots) for top in tops][::-1]
    while waiting:
        thing, siblings = waiting.pop()
        label, below = describe(thing)
        inner: list[TreeNode] = []
        siblings.append(TreeNode(label, inner))
        waiting += [(one, inner) for one in below][::-1]
    return roots


def draw(nodes: Sequence[TreeNode], guides: Guides) -> Iterator[Line]:
    """Yield the lines of the nodes, each with what connects it to its siblings.

    Below `DEEPEST` levels the indentation stays, and the number of the level stands before the name.
    """
    waiting = [(node, 1, "", number == len(nodes)) for number, node in enumerate(nodes, 1)][::-1]
    while waiting:
        node, level, indent, last = waiting.pop()
        branch = guides.last if last else guides.branch
        yield ((f"{indent}{branch}{f'[{level}] ' if level > DEEPEST else ''}", DIM), *node.label)
        if level < DEEPEST:
            indent += guides.blank if last else guides.through
        waiting += [
            (below, level + 1, indent, number == len(node.below)) for number, below in enumerate(node.below, 1)
        ][::-1]


class Styled:
    """Lines of styled text: what every renderer for people returns.

    Attributes: `lines`.
    """

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = tuple(lines)

    def __add__(self, other: Styled) -> Styled:
        """Return both, an empty line between them."""
        return Styled((*self.lines, (), *other.lines))

    @property
    def plain(self) -> str:
        """The text without styles, with escapes for what does not print. Lines are not wrapped and not cut."""
        return "".join("".join(escape(piece) for piece, _ in line) + "\n" for line in self.lines)


def file_name(path: str) -> str:
    """Return the last part of a path of either system."""
    if is_windows_path(path):
        import ntpath  # not above: a report of Linux has no such path

        return ntpath.basename(path) or path
    return path.rpartition("/")[2] or path


def is_windows_path(path: str) -> bool:
    """Return whether a path has the look of Windows: it begins with a drive or a backslash."""
    return path[:1] == "\\" or (path[1:3] in (":\\", ":/") and path[0].isascii() and path[0].isalpha())


def number(count: int, noun: str) -> str:
    """The number with its noun: "1 image", "2 images"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


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
        """Number of places that are not worth a line."""
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


def place_nodes(probes: Sequence[Probe], guides: Guides) -> tuple[TreeNode, ...]:
    """The places tried in vain, for a tree: a node a rule, the places below it, the rest as a number."""
    vain = [probe for probe in probes if probe.outcome is not ProbeOutcome.LOADED]
    return tuple(_rule_node(rule, guides) for rule in fold_places(vain))


def _rule_node(rule: Rule, guides: Guides) -> TreeNode:
    places = []
    for probe in rule.shown:
        if probe.outcome is ProbeOutcome.PRESENT:
            why = f": {probe.reason}" if probe.reason else ""
            places.append(TreeNode(((probe.path, PLAIN), (f"  a file is there{why}", FAILED))))
        else:
            places.append(TreeNode(((probe.path, DIM),)))
    if rule.more:
        places.append(TreeNode(((f"{guides.more} {number(rule.more, 'more place')}", DIM),)))
    return TreeNode(((rule.title, PLAIN),), tuple(places))


def _rule_of(probe: Probe) -> tuple[Phase, str | None, ProbeOutcome | None]:
    """Return the key of a group of probes: an index that had no entry is a line of its own, not a place."""
    return probe.phase, probe.origin, probe.outcome if probe.outcome is ProbeOutcome.NO_ENTRY else None


def _is_variant(path: str) -> bool:
    """Return whether the file's folder, or one above it, is a processor variant of a searched folder.

    A folder that merely has such a name (/opt/x86_64/lib) does not count: the names stand last, next to each other.
    """
    folders = path.split("/")[:-1]
    return bool(folders) and (folders[-1] in _VARIANTS or (len(folders) > 1 and folders[-2] == "glibc-hwcaps"))
