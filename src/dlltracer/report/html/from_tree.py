"""A load tree as a graph: what a loader would do with one file."""

from __future__ import annotations

from ...model.elf import ElfImage
from ...model.probe import Phase
from ...model.saved import ImageFacts
from ...model.tree import Binding, BindingState, LoadTree
from ..drawing import file_name
from .graph import Edge, EdgeKind, Graph, ImageView, Node, NodeKind, State, first_of_interest, found_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...model.pe import PeImage

_STATES = {
    BindingState.BOUND: State.FOUND,
    BindingState.MISSING: State.NOT_FOUND,
    BindingState.REFUSED: State.REFUSED,
    BindingState.SYSTEM: State.SYSTEM,
}


def graph_of_tree(tree: LoadTree) -> Graph:
    """The images of the tree and the names that became none. Each hangs on the first image that needs it."""
    nodes: list[Node] = []
    edges: list[Edge] = []
    numbers: dict[tuple[BindingState, str], int] = {}

    def add(image: ImageView, parent: int | None) -> int:
        nodes.append(Node(NodeKind.IMAGE, image.name, parent, image=image))
        return len(nodes) - 1

    image = tree.images.get(tree.top)
    facts = None if image is None else _facts(tree.top, image)
    numbers[BindingState.BOUND, tree.top] = add(
        ImageView(file_name(tree.top), tree.top, State.FOUND, facts=facts), None
    )
    for binding in tree.bindings:
        start = numbers.get((BindingState.BOUND, binding.requested_by))
        key = (binding.state, binding.need)
        if binding.state is BindingState.BOUND and binding.path is not None:
            key = (binding.state, binding.path)
        if key not in numbers:
            numbers[key] = add(_image(tree, binding), start)
        if start is not None and start != numbers[key]:
            edges.append(Edge(start, numbers[key], EdgeKind.LISTED))
    return Graph(tuple(nodes), tuple(dict.fromkeys(edges)), focus=first_of_interest(nodes))


def _image(tree: LoadTree, binding: Binding) -> ImageView:
    state = _STATES[binding.state]
    if binding.delayed and state.is_bad:
        state = State.LATE
    image = None if binding.path is None else tree.images.get(binding.path)
    rule = None if binding.phase is Phase.LOADED else found_by(binding.phase, binding.probes)
    return ImageView(
        name=file_name(binding.need), path=binding.path or binding.need, state=state, reason=binding.reason,
        rule=rule if state in (State.FOUND, State.REFUSED) else None, requested_by=binding.requested_by,
        probes=binding.probes, facts=None if image is None or binding.path is None else _facts(binding.path, image),
    )  # fmt: skip


def _facts(path: str, image: ElfImage | PeImage) -> ImageFacts:
    if isinstance(image, ElfImage):
        return ImageFacts(path, soname=image.soname, needs=image.needed)
    version = image.resources.file_version if image.resources is not None else None
    return ImageFacts(
        path, needs=tuple(one.library for one in image.imports),
        file_version=None if version is None else ".".join(map(str, version)),
    )  # fmt: skip
