"""A saved trace, or what a file needs, as the graph of a page.

An image hangs on the image that asked for it. Where the mechanism does not say who asked (Windows), it hangs on the
first image of the same import whose file lists its name. What no image asked for hangs on the Python import.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ...model.elf import ElfImage
from ...model.events import FailureKind, ImageEvent, LoadEvent, LoadFailedEvent, Phase, ProbeOutcome
from ...model.finding import Confidence, Finding
from ...model.macho import MachoImage
from ...model.pe import PeImage
from ...model.recording import Recording
from ...model.run import ImageFacts, SavedTrace
from ...model.tree import Binding, BindingState, LoadTree
from ..drawing import file_name, is_windows_path
from ..outcomes import FinalEvent, final_events, is_consequence
from .graph import Edge, EdgeKind, ImageView, PageGraph, PageNode, PageNodeKind, State, first_of_interest, found_by


def is_windows(saved: SavedTrace) -> bool:
    """Whether the trace is of a Windows, by the word of the machine, else by the look of its paths."""
    if saved.host is not None:
        return saved.host.system == "windows"
    return any(isinstance(event, ImageEvent) and is_windows_path(event.path) for event in saved.recording.events)


class Names:
    """Names to numbers; the first number of a name counts. On Windows, upper and lower case are the same."""

    def __init__(self, windows: bool) -> None:
        self._windows = windows
        self._numbers: dict[str, int] = {}

    def fold(self, name: str) -> str:
        """The last part of a name or path, as it is compared."""
        name = file_name(name)
        return name.lower() if self._windows else name

    def add(self, number: int, *names: str) -> None:
        """Make the image known under the last part of each name."""
        for name in names:
            self._numbers.setdefault(self.fold(name), number)

    def find(self, name: str) -> int | None:
        """The number of the image of that name."""
        return self._numbers.get(self.fold(name))


OUTSIDE, UNKNOWN = "(outside any import)", "(which import asked is not known)"

_STATES = {
    FailureKind.NOT_FOUND: State.NOT_FOUND,
    FailureKind.NAME_NOT_FOUND: State.NOT_FOUND,
    FailureKind.REFUSED: State.REFUSED,
    FailureKind.DROPPED: State.FAILED,
    None: State.FAILED,
}

_Group = tuple[str, ...]
"""What an import node is known by: the outermost import, and the package of the innermost one if it is another."""


def graph_of_trace(saved: SavedTrace) -> PageGraph:
    """The images of all processes, in order of their loads."""
    builder = _PageBuilder(saved)
    by_process = list(_by_process(saved.recording))
    for pid, recording in by_process:
        builder.add_process(pid, recording, alone=len(by_process) == 1)
    if saved.diagnosis is not None:
        for finding in saved.diagnosis.findings:
            builder.add_concluded(finding)
    subjects = [finding.subject for finding in saved.diagnosis.findings] if saved.diagnosis is not None else []
    return builder.graph(subjects)


def image_of_event(event: FinalEvent, facts: ImageFacts | None = None, *, unloaded: bool = False) -> ImageView:
    """What a report shows of an event."""
    state, reason = State.UNLOADED if unloaded else State.LOADED, None
    if isinstance(event, LoadFailedEvent):
        state, reason = State.DROPPED if is_consequence(event) else _STATES[event.kind], event.reason
    probes = event.probes or ()
    return ImageView(
        name=file_name(event.need or event.shown_path), path=event.shown_path, state=state, reason=reason,
        rule=found_by(event.phase, probes), requested_by=event.requested_by, imports=event.imports, pid=event.pid,
        base=event.base, size=event.size, time=event.timestamp, probes=probes, facts=facts,
    )  # fmt: skip


def _by_process(recording: Recording) -> Iterator[tuple[int | None, Recording]]:
    """The recording of each process: those that were followed, then any other that has events."""
    events: dict[int | None, list[ImageEvent]] = {process.pid: [] for process in recording.processes}
    for event in recording.events:
        if isinstance(event, ImageEvent):
            events.setdefault(event.pid if event.pid is not None else recording.pid, []).append(event)
    for pid, own in events.items():
        yield pid, replace(recording, events=tuple(own), pid=pid)  # type: ignore[arg-type]


class _PageBuilder:
    def __init__(self, saved: SavedTrace) -> None:
        self._facts = {facts.path: facts for facts in saved.images}
        self._processes = {process.pid: process for process in saved.recording.processes}
        self._windows = is_windows(saved)
        self._names = Names(self._windows)
        self._nodes: list[PageNode] = []
        self._edges: dict[tuple[int, int], EdgeKind] = {}
        self._elsewhere: dict[int, tuple[str, ...]] = {}

    def graph(self, subjects: list[str]) -> PageGraph:
        """What was added; the subject that has a node and comes first is looked at first."""
        edges = tuple(Edge(start, end, kind) for (start, end), kind in self._edges.items())
        graph = PageGraph(tuple(self._nodes), edges, self._elsewhere)
        known = graph.numbers_by_name()
        focus = next((known[subject] for subject in subjects if subject in known), first_of_interest(self._nodes))
        return replace(graph, focus=focus)

    def add_process(self, pid: int | None, recording: Recording, *, alone: bool) -> None:
        """The images of one process, below a node for it unless there is no other."""
        top = None if alone else self._add_process_node(pid)
        events = final_events(recording)
        requesters = _Requesters(self._names, self._facts)
        asked = [requesters.next(event) for event in events]
        counts = Counter(_group(event.imports) for event, by in zip(events, asked, strict=True) if by is None)
        left = Counter(event.path for event in recording.unloads)
        imports: dict[_Group, int] = {}
        numbers: list[int] = []
        for event, by in zip(events, asked, strict=True):
            unloaded = isinstance(event, LoadEvent) and left[event.path] > 0
            left[event.path] -= unloaded
            image = image_of_event(event, self._facts.get(event.path), unloaded=unloaded)
            group = _group(event.imports)
            parent = self._import_node(group, counts, imports, top) if by is None else numbers[by.place]
            numbers.append(self._add(PageNode(PageNodeKind.IMAGE, image.name, parent, image=image)))
            if by is not None:
                self._edges[parent, numbers[-1]] = by.kind
        self._add_listed(numbers)

    def add_concluded(self, finding: Finding) -> None:
        """What the verdict says is missing or bad, where no event of the trace says it."""
        chain = finding.chain
        if finding.confidence is Confidence.POSSIBLE or len(chain) < 2 or chain[-1] != finding.subject:
            return
        is_path = file_name(finding.subject) != finding.subject
        if not (finding.probes or is_path) or self._names_of_all().find(finding.subject) is not None:
            return
        parent = self._names_of_all().find(chain[-2])
        state = State.FAILED if not finding.probes else State.NOT_FOUND
        if any(probe.outcome is ProbeOutcome.PRESENT for probe in finding.probes):
            state = State.REFUSED
        pid = None if parent is None else self._pid_of(parent)
        image = ImageView(
            file_name(finding.subject), finding.subject, state, finding.title, pid=pid, probes=finding.probes,
            requested_by=chain[-2] if parent is not None else None, concluded=f"the verdict ({finding.code})",
        )  # fmt: skip
        number = self._add(PageNode(PageNodeKind.IMAGE, image.name, parent, image=image))
        if parent is not None:
            self._edges[parent, number] = EdgeKind.VERDICT

    def _names_of_all(self) -> Names:
        names = Names(self._windows)
        for number, node in enumerate(self._nodes):
            if node.image is not None:
                names.add(number, node.image.path, node.image.name)
        return names

    def _pid_of(self, number: int) -> int | None:
        image = self._nodes[number].image
        return None if image is None else image.pid

    def _add(self, node: PageNode) -> int:
        self._nodes.append(node)
        return len(self._nodes) - 1

    def _add_process_node(self, pid: int | None) -> int:
        process = self._processes.get(pid) if pid is not None else None
        note = ""
        if process is not None:
            note = " ".join(process.command) if process.command else process.program or ""
        title = "unknown process" if pid is None else f"process {pid}"
        return self._add(PageNode(PageNodeKind.PROCESS, title, note=note))

    def _import_node(
        self, group: _Group | None, counts: Counter[_Group | None], known: dict[_Group, int], top: int | None
    ) -> int:
        key: _Group = (UNKNOWN,) if group is None else group or (OUTSIDE,)
        # A package that brought one image alone needs no node between the image and the import.
        if len(key) == 2 and counts[group] == 1:
            key = key[:1]
        for length in range(1, len(key) + 1):
            part = key[:length]
            if part not in known:
                title = part[-1] if part[-1] in (UNKNOWN, OUTSIDE) else f"import {part[-1]}"
                parent = top if length == 1 else known[part[:-1]]
                known[part] = self._add(PageNode(PageNodeKind.IMPORT, title, parent))
        return known[key]

    def _add_listed(self, numbers: list[int]) -> None:
        """The edges that the files of these images list, and the names that lead to none of them."""
        names = Names(self._windows)
        images = [(number, image) for number in numbers if (image := self._nodes[number].image) is not None]
        for number, image in images:
            names.add(number, image.name, image.path)
            if image.facts is not None and image.facts.soname:
                names.add(number, image.facts.soname)
        elsewhere: defaultdict[int, list[str]] = defaultdict(list)
        for number, image in images:
            for need in (image.facts.needs if image.facts is not None else None) or ():
                end = names.find(need)
                if end is None:
                    elsewhere[number].append(need)
                elif end != number:
                    self._edges.setdefault((number, end), EdgeKind.LISTED)
        self._elsewhere |= {number: tuple(needs) for number, needs in elsewhere.items()}


@dataclass(frozen=True)
class _Requester:
    """Who asked for an image: the place of its event, and how that is known."""

    place: int
    kind: EdgeKind


class _Requesters:
    """Finds who asked for the image of each event, among the events before it."""

    def __init__(self, names: Names, facts: Mapping[str, ImageFacts]) -> None:
        self._names = names
        self._facts = facts
        self._count = 0
        self._latest: dict[str, int] = {}
        self._lists: dict[tuple[tuple[str, ...] | None, str], int] = {}

    def next(self, event: FinalEvent) -> _Requester | None:
        """The requester of the next event; `None` if no image before it is."""
        place, facts = self._count, self._facts.get(event.path)
        found = self._latest.get(event.requested_by) if event.requested_by is not None else None
        requester = None if found is None else _Requester(found, EdgeKind.ASKED)
        if event.requested_by is None:
            names = (event.path, event.need, None if facts is None else facts.soname)
            listed = [self._lists.get((event.imports, self._names.fold(name))) for name in names if name]
            first = min((one for one in listed if one is not None), default=None)
            requester = None if first is None else _Requester(first, EdgeKind.LISTED)
        self._count += 1
        self._latest[event.path] = place
        for need in (facts.needs if facts is not None else None) or ():
            self._lists.setdefault((event.imports, self._names.fold(need)), place)
        return requester


def _group(imports: tuple[str, ...] | None) -> _Group | None:
    if not imports:
        return None if imports is None else ()
    outer, package = imports[0], imports[-1].partition(".")[0]
    return (outer,) if package == outer.partition(".")[0] else (outer, package)


_STATES_OF_NEEDS = {
    BindingState.BOUND: State.FOUND,
    BindingState.MISSING: State.NOT_FOUND,
    BindingState.REFUSED: State.REFUSED,
    BindingState.SYSTEM: State.SYSTEM,
}


def graph_of_tree(tree: LoadTree) -> PageGraph:
    """The images of the tree and the names that became none. Each hangs on the first image that needs it."""
    nodes: list[PageNode] = []
    edges: list[Edge] = []
    numbers: dict[tuple[BindingState, str], int] = {}

    def add(image: ImageView, parent: int | None) -> int:
        nodes.append(PageNode(PageNodeKind.IMAGE, image.name, parent, image=image))
        return len(nodes) - 1

    image = tree.images.get(tree.top)
    facts = None if image is None else _facts_of_file(tree.top, image)
    numbers[BindingState.BOUND, tree.top] = add(
        ImageView(file_name(tree.top), tree.top, State.FOUND, facts=facts), None
    )
    for binding in tree.bindings:
        start = numbers.get((BindingState.BOUND, binding.requested_by))
        key = (binding.state, binding.need)
        if binding.state is BindingState.BOUND and binding.path is not None:
            key = (binding.state, binding.path)
        if key not in numbers:
            numbers[key] = add(_image_of_need(tree, binding), start)
        if start is not None and start != numbers[key]:
            edges.append(Edge(start, numbers[key], EdgeKind.LISTED))
    return PageGraph(tuple(nodes), tuple(dict.fromkeys(edges)), focus=first_of_interest(nodes))


def _image_of_need(tree: LoadTree, binding: Binding) -> ImageView:
    state = _STATES_OF_NEEDS[binding.state]
    if binding.delayed and state.is_bad:
        state = State.LATE
    image = None if binding.path is None else tree.images.get(binding.path)
    rule = None if binding.phase is Phase.LOADED else found_by(binding.phase, binding.probes)
    return ImageView(
        name=file_name(binding.need), path=binding.path or binding.need, state=state, reason=binding.reason,
        rule=rule if state in (State.FOUND, State.REFUSED) else None, requested_by=binding.requested_by,
        probes=binding.probes,
        facts=None if image is None or binding.path is None else _facts_of_file(binding.path, image),
    )  # fmt: skip


def _facts_of_file(path: str, image: ElfImage | PeImage | MachoImage) -> ImageFacts:
    if isinstance(image, ElfImage):
        return ImageFacts(path, soname=image.soname, needs=image.needed)
    if isinstance(image, MachoImage):
        return ImageFacts(path, soname=image.install_name, needs=tuple(need.name for need in image.needs))
    version = image.resources.file_version if image.resources is not None else None
    return ImageFacts(
        path, needs=tuple(one.library for one in image.imports),
        file_version=None if version is None else ".".join(map(str, version)),
    )  # fmt: skip
