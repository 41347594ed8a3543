"""What a file needs, as a tree, a list, or the chains that lead to one name."""

from __future__ import annotations

from collections import deque

from ..model.probe import Phase, ProbeOutcome
from ..model.tree import Binding, BindingState, LoadTree
from .drawing import (
    ASCII,
    BOLD,
    DIM,
    FAILED,
    PLAIN,
    UNICODE,
    WARNING,
    Guides,
    Line,
    Node,
    Styled,
    draw,
    file_name,
    number,
)
from .places import place_nodes, rule_title

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_FAILED_STATES = (BindingState.MISSING, BindingState.REFUSED)
_FOLDED_SHOWN = 3


def render_deps(tree: LoadTree, *, missing_only: bool = False, ascii_only: bool = False) -> Styled:
    """The tree: below each image what it needs, the rule that found it, what is missing with the places tried.

    Arguments: `missing_only` keeps what is missing and what leads to it; `ascii_only` draws with ASCII characters.
    """
    guides = ASCII if ascii_only else UNICODE
    return Styled((*_lay_out(tree, missing_only, guides), *_summary(tree)))


def render_flat(tree: LoadTree) -> Styled:
    """One line an image, in the order in which the loader maps them: its path, the rule; then what is missing."""
    found = {binding.path: binding for binding in reversed(tree.bindings) if binding.state is BindingState.BOUND}
    lines: list[Line] = []
    for path in tree.images:
        rule = _rule(found[path]) if path in found else ""
        lines.append(((path, PLAIN), (f"  {rule}" if rule else "", DIM)))
    for binding in _failed(tree):
        lines.append(_failed_label(binding))
    return Styled((*lines, *_summary(tree)))


def render_why(tree: LoadTree, name: str) -> Styled:
    """Who pulls a library in: for each image that needs it, the shortest chain from the top.

    `name` is a name asked for, the name of a file, or a path. Upper and lower case count for ELF files only.
    """
    wanted = [binding for binding in tree.bindings if is_named(tree, binding, name)]
    if not wanted:
        return Styled([((f"nothing that {tree.top} loads needs {name}", BOLD),)])
    lines: list[Line] = []
    for binding in wanted:
        steps = " > ".join(file_name(path) for path in tree.chain_to(binding.requested_by))
        lines.append(((f"{steps} > ", PLAIN), *_label(binding)))
    return Styled(lines)


def is_named(tree: LoadTree, binding: Binding, name: str) -> bool:
    """Whether the binding is about that name: the need, or the name or path of the image that has it."""
    names = {binding.need, file_name(binding.need), *((binding.path, file_name(binding.path)) if binding.path else ())}
    if _is_windows(tree):
        return name.lower() in {known.lower() for known in names}
    return name in names


def _is_windows(tree: LoadTree) -> bool:
    from ..model.pe import PeImage

    return isinstance(tree.images.get(tree.top), PeImage)


def _failed(tree: LoadTree) -> Iterator[Binding]:
    """One binding for each name that is missing or refused."""
    seen: set[str] = set()
    for binding in tree.bindings:
        if binding.state in _FAILED_STATES and binding.need not in seen:
            seen.add(binding.need)
            yield binding


def _summary(tree: LoadTree) -> Iterator[Line]:
    lost = [binding for binding in _failed(tree) if not binding.delayed]
    latent = [binding.need for binding in _failed(tree) if binding.delayed]
    text = number(len(tree.images), "image")
    if tree.unresolved:
        yield ((f"{text}, {number(tree.unresolved, 'need')} not looked for", WARNING),)
    elif not lost:
        yield ((f"{text}, nothing missing", BOLD),)
    if lost:
        yield ((f"{text}, {len(lost)} missing: {', '.join(binding.need for binding in lost)}", FAILED),)
    if latent:
        yield ((f"missing, and needed at the first call only: {', '.join(latent)}", WARNING),)
    for note in tree.notes:
        yield (("note: ", WARNING), (note, PLAIN))


def _lay_out(tree: LoadTree, missing_only: bool, guides: Guides) -> Iterator[Line]:
    keep = _leading_to_missing(tree) if missing_only else None
    yield ((tree.top, BOLD),)
    yield from draw(_Layout(tree, keep, guides).needs(tree.top), guides)


def _leading_to_missing(tree: LoadTree) -> set[str]:
    """The images that need something missing, and those that need them."""
    requested_by: dict[str, set[str]] = {}
    for binding in tree.bindings:
        if binding.path is not None and binding.state is BindingState.BOUND:
            requested_by.setdefault(binding.path, set()).add(binding.requested_by)
    kept: set[str] = set()
    queue = deque(binding.requested_by for binding in tree.bindings if binding.state in _FAILED_STATES)
    while queue:
        path = queue.popleft()
        if path not in kept:
            kept.add(path)
            queue.extend(requested_by.get(path, ()))
    return kept


class _Layout:
    """The tree of nodes. An image stands below the one that brought it; others that need it have its name only."""

    def __init__(self, tree: LoadTree, keep: set[str] | None, guides: Guides) -> None:
        self._keep = keep
        self._guides = guides
        self._needs: dict[str, list[Binding]] = {}
        self._brought_by: dict[str, Binding] = {}
        self._placed: dict[str, Binding] = {}
        for binding in tree.bindings:
            self._needs.setdefault(binding.requested_by, []).append(binding)
            if binding.path is not None and binding.path != tree.top:
                self._brought_by.setdefault(binding.path, binding)
            if binding.state in _FAILED_STATES:
                self._placed.setdefault(binding.need, binding)

    def needs(self, path: str) -> tuple[Node, ...]:
        """The nodes below one image. A missing name has its places where it was missed first."""
        nodes: list[Node] = []
        again: list[str] = []
        system: list[str] = []
        for binding in self._needs.get(path, ()):
            if binding.state is BindingState.SYSTEM:
                system.append(binding.need)
            elif binding.state in _FAILED_STATES:
                first = self._placed[binding.need] is binding
                nodes.append(Node(_label(binding), place_nodes(binding.probes, self._guides) if first else ()))
            elif binding.path is None or self._brought_by.get(binding.path) is not binding:
                again.append(file_name(binding.need))
            elif self._keep is None or binding.path in self._keep:
                nodes.append(Node(_label(binding), self.needs(binding.path)))
        if self._keep is None:
            nodes += (Node(((title, DIM), (names, DIM))) for title, names in self._folded(again, system))
        return tuple(nodes)

    def _folded(self, again: list[str], system: list[str]) -> Iterator[tuple[str, str]]:
        for title, names in (("and, loaded for others: ", again), ("of the system: ", system)):
            more = len(names) - _FOLDED_SHOWN
            shown = names if more <= 1 else [*names[:_FOLDED_SHOWN], f"{self._guides.more} {more} more"]
            if names:
                yield title, ", ".join(shown)


def _label(binding: Binding) -> Line:
    if binding.state in _FAILED_STATES:
        return _failed_label(binding)
    late = "  at the first call" if binding.delayed else ""
    if binding.state is BindingState.SYSTEM:
        return ((binding.need, BOLD), (f"  of the system{late}", DIM))
    path = "" if binding.path in (None, binding.need) else f"  {binding.path}"
    rule = _rule(binding)
    return ((file_name(binding.need), BOLD), (path, PLAIN), (f"  {rule}" if rule else "", DIM), (late, DIM))


def _failed_label(binding: Binding) -> Line:
    style = WARNING if binding.delayed else FAILED
    what = "NOT FOUND" if binding.state is BindingState.MISSING else "REFUSED"
    why = f": {': '.join(filter(None, (binding.path, binding.reason)))}" if binding.reason else ""
    late = ", at the first call" if binding.delayed else ""
    return ((binding.need, style), (f"  {what}{late}", style), (f"{why}, needed by {binding.requested_by}", PLAIN))


def _rule(binding: Binding) -> str:
    if binding.phase in (None, Phase.DIRECT):
        return ""
    assert binding.phase is not None
    if binding.phase is Phase.LOADED:
        return "already loaded"
    origin = next((p.origin for p in binding.probes if p.outcome is ProbeOutcome.LOADED), None)
    if origin == binding.requested_by:
        origin = file_name(origin)
    return f"found by {rule_title(binding.phase, origin)}"
