"""Renders the needs of a file as a tree, a list, or the chains that lead to one name."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from ..model.events import Phase, ProbeOutcome
from ..model.pe import PeImage
from ..model.tree import Binding, BindingState, LoadTree
from ..model.words import rule_title
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
    Styled,
    TreeNode,
    draw,
    file_name,
    grow,
    number,
    place_nodes,
)

_FAILED_STATES = (BindingState.MISSING, BindingState.REFUSED)
_FOLDED_SHOWN = 3
_SYMBOLS_SHOWN = 20
"""Names on a line of those that stand elsewhere."""
_CHAINS = 200
"""Chains that --why shows."""
_STEPS = 12
"""Steps of a chain that are shown: the first and the last ones."""


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


def render_why(tree: LoadTree, name: str, *, ascii_only: bool = False) -> Styled:
    """Return who pulls a library in: for each image that needs it, the shortest chain from the top.

    `name` is a name asked for, the name of a file, or a path. Upper and lower case count for ELF files only.
    """
    wanted = find_named(tree, name)
    if not wanted:
        return Styled([((f"nothing that {tree.top} loads needs {name}", BOLD),)])
    more = (ASCII if ascii_only else UNICODE).more
    lines: list[Line] = []
    for binding in wanted[:_CHAINS]:
        steps = _short_chain(tree.chain_to(binding.requested_by), more)
        lines.append(((f"{' > '.join(steps)} > ", PLAIN), *_label(binding)))
    if len(wanted) > _CHAINS:
        lines.append(((f"{more} {number(len(wanted) - _CHAINS, 'more image')} that need it", DIM),))
    return Styled(lines)


def find_named(tree: LoadTree, name: str) -> list[Binding]:
    """Return the bindings of that name: the need, or the name or path of the image that has it."""
    fold = str.lower if _is_windows(tree) else str
    wanted = fold(name)
    # A name or path is needed by many images: 600 that need one another are 360,000 bindings.
    known = {text for binding in tree.bindings for text in (binding.need, binding.path) if text is not None}
    matching = {text for text in known if wanted in (fold(text), fold(file_name(text)))}
    return [binding for binding in tree.bindings if binding.need in matching or binding.path in matching]


def _short_chain(chain: Sequence[str], more: str) -> list[str]:
    """The names of the files of a chain; of a long one, its two ends and how many are between them."""
    half = _STEPS // 2
    if len(chain) <= _STEPS:
        return [file_name(path) for path in chain]
    between = f"{more} {len(chain) - 2 * half} more"
    return [*map(file_name, chain[:half]), between, *map(file_name, chain[-half:])]


def _is_windows(tree: LoadTree) -> bool:
    return isinstance(tree.images.get(tree.top), PeImage)


def _failed(tree: LoadTree) -> Iterator[Binding]:
    """One binding for each name that is missing or refused."""
    seen: set[str] = set()
    for binding in tree.bindings:
        if binding.state in _FAILED_STATES and binding.need not in seen:
            seen.add(binding.need)
            yield binding


def _summary(tree: LoadTree) -> Iterator[Line]:
    lost = tuple(dict.fromkeys(binding.need for binding in tree.missing))
    latent = [binding.need for binding in _failed(tree) if binding.delayed]
    text = number(len(tree.images), "image")
    if tree.unresolved:
        yield ((f"{text}, {number(tree.unresolved, 'need')} not looked for", WARNING),)
    elif not lost and (tree.symbols or tree.versions):
        yield ((f"{text}, and symbols missing that they need of one another", FAILED),)
    elif not lost:
        yield ((f"{text}, nothing missing", BOLD),)
    if lost:
        yield ((f"{text}, {len(lost)} missing: {', '.join(lost)}", FAILED),)
    optional = [binding.need for binding in _failed(tree) if binding.optional]
    if optional:
        yield ((f"missing, and not required: {', '.join(optional)}", WARNING),)
    if latent:
        yield ((f"missing, and needed at the first call only: {', '.join(latent)}", WARNING),)
    for version in tree.versions[:_SYMBOLS_SHOWN]:
        what = f"{version.requested_by} needs version {version.version} of {version.library}"
        yield (("MISSING VERSION  ", FAILED), (f"{what}, and {version.provider} does not have it", PLAIN))
    for symbol in tree.symbols[:_SYMBOLS_SHOWN]:
        name = symbol.name or f"ordinal {symbol.ordinal}"
        whole = f"{name}, version {symbol.version}" if symbol.version else name
        of = f" of {symbol.library}" if symbol.library else ""
        yield (("MISSING SYMBOL  ", FAILED), (f"{symbol.requested_by} needs {whole}{of}", PLAIN))
    more = len(tree.symbols[_SYMBOLS_SHOWN:]) + len(tree.versions[_SYMBOLS_SHOWN:])
    if more:
        yield ((f"{more} more symbols and versions are missing", FAILED),)
    for note in tree.notes:
        yield (("note: ", WARNING), (note, PLAIN))


def _lay_out(tree: LoadTree, missing_only: bool, guides: Guides) -> Iterator[Line]:
    keep = _leading_to_missing(tree) if missing_only else None
    yield ((tree.top, BOLD), *_refusal(tree))
    yield from draw(_grow_needs(tree, keep, guides), guides)


def _refusal(tree: LoadTree) -> Line:
    """Return why the loader does not take the file itself; () if it does."""
    own = (one for one in tree.bindings if one.need == tree.top and one.state in _FAILED_STATES)
    binding = next(own, None) if tree.top not in tree.images else None
    if binding is None:
        return ()
    what = "NOT FOUND" if binding.state is BindingState.MISSING else "REFUSED"
    return ((f"  {what}{f': {binding.reason}' if binding.reason else ''}", FAILED),)


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


def _grow_needs(tree: LoadTree, keep: set[str] | None, guides: Guides) -> list[TreeNode]:
    """The nodes below the top. An image stands below the one that brought it; others that need it have its name."""
    needs: dict[str, list[Binding]] = {}
    brought_by: dict[str, Binding] = {}
    missed_first: dict[str, Binding] = {}
    for binding in tree.bindings:
        needs.setdefault(binding.requested_by, []).append(binding)
        if binding.path is not None and binding.path != tree.top:
            brought_by.setdefault(binding.path, binding)
        if binding.state in _FAILED_STATES:
            missed_first.setdefault(binding.need, binding)

    def below(path: str) -> list[Binding | TreeNode]:
        shown: list[Binding | TreeNode] = []
        again: list[str] = []
        system: list[str] = []
        for binding in needs.get(path, ()):
            if binding.state is BindingState.SYSTEM:
                system.append(binding.need)
            elif binding.state in _FAILED_STATES:
                shown.append(binding)
            elif binding.path is None or brought_by.get(binding.path) is not binding:
                again.append(binding.need)
            elif keep is None or binding.path in keep:
                shown.append(binding)
        return shown if keep is not None else [*shown, *_folded(again, system, guides)]

    def describe(binding: Binding | TreeNode) -> tuple[Line, Iterable[Binding | TreeNode]]:
        if isinstance(binding, TreeNode):
            return binding.label, binding.below
        if binding.state not in _FAILED_STATES:
            return _label(binding), () if binding.path is None else below(binding.path)
        # A missing name has the places that were tried where it was missed first.
        is_first = missed_first[binding.need] is binding
        return _label(binding), place_nodes(binding.probes, guides) if is_first else ()

    return grow(below(tree.top), describe)


def _folded(again: list[str], system: list[str], guides: Guides) -> Iterator[TreeNode]:
    """A line for the needs that stand elsewhere in the tree, and one for those that the system has."""
    for title, names in (("and, loaded for others: ", again), ("of the system: ", system)):
        more = len(names) - _FOLDED_SHOWN
        shown = [file_name(name) for name in (names if more <= 1 else names[:_FOLDED_SHOWN])]
        shown += [f"{guides.more} {more} more"] if more > 1 else []
        if names:
            yield TreeNode(((title, DIM), (", ".join(shown), DIM)))


def _label(binding: Binding) -> Line:
    if binding.state in _FAILED_STATES:
        return _failed_label(binding)
    late = f"  {_leniency(binding)}" if _leniency(binding) else ""
    if binding.state is BindingState.SYSTEM:
        return ((binding.need, BOLD), (f"  of the system{late}", DIM))
    path = "" if binding.path in (None, binding.need) else f"  {binding.path}"
    rule = _rule(binding)
    return ((file_name(binding.need), BOLD), (path, PLAIN), (f"  {rule}" if rule else "", DIM), (late, DIM))


def _failed_label(binding: Binding) -> Line:
    style = WARNING if _leniency(binding) else FAILED
    what = "NOT FOUND" if binding.state is BindingState.MISSING else "REFUSED"
    why = f": {': '.join(filter(None, (binding.path, binding.reason)))}" if binding.reason else ""
    late = f", {_leniency(binding)}" if _leniency(binding) else ""
    return ((binding.need, style), (f"  {what}{late}", style), (f"{why}, needed by {binding.requested_by}", PLAIN))


def _leniency(binding: Binding) -> str:
    """Return why the load does not fail without it; empty if it does."""
    if binding.delayed:
        return "at the first call"
    return "not required" if binding.optional else ""


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
