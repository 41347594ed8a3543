"""Renders a recording as text: Python imports, below them the images loaded for them, below those their needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ..model.events import DebugEvent, FailureKind, LoadFailedEvent, Phase, ProbeOutcome, UnloadEvent
from ..model.light import dataclass, replace
from ..model.recording import UNKNOWN, Losses, Recording
from ..model.screen import escape
from ..model.words import label_of, rule_title
from .counts import (
    FinalEvent,
    count,
    describe_processes,
    final_events,
    is_consequence,
    is_killed,
    is_program,
    like_it_line,
    process_line,
    shares,
)
from .drawing import (
    ASCII,
    BOLD,
    DIM,
    DROPPED,
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

NO_LOADS = "no load of an image was recorded"
NOTHING = (
    "no image was loaded: what the program imported is Python code, or built into the interpreter, "
    "or was loaded before the program began"
)

_PROCESSES = 1000
"""Processes that are shown."""

Chain = tuple[str, ...] | None
"""The imports in progress, outermost first; `None` where the mechanism does not know them."""


@dataclass(frozen=True)
class Image:
    """An image, or a need that became none, and below it what it needed."""

    event: FinalEvent
    needs: tuple[Image, ...] = ()

    @property
    def failed(self) -> bool:
        """True if the load of the image failed."""
        return isinstance(self.event, LoadFailedEvent)


@dataclass(frozen=True)
class Group:
    """Imports that stand on one line, the images loaded for the last of them, and the imports inside it.

    `names` is empty for images that no import asked for, `None` where the mechanism does not know the imports.
    """

    names: Chain
    images: tuple[Image, ...] = ()
    groups: Sequence[Group] = ()


@dataclass(frozen=True)
class _TopImage:
    """An image that stands below its import; `is_outside` if that is none."""

    image: Image
    is_outside: bool


_Shown = Group | _TopImage | Image | TreeNode
"""What becomes a line of the tree."""


def render_text(
    recording: Recording, *, failed_only: bool = False, ascii_only: bool = False, is_brief: bool = False,
    ended_well: bool = False,
) -> Styled:  # fmt: skip
    """Return the report as styled lines.

    Arguments: `failed_only` leaves out what is not a failure and does not lead to one; `ascii_only` draws the tree
    with ASCII characters; `is_brief` leaves out what is obvious, and counts it; `ended_well`: the program came to a
    good end, so that it could do without what failed to load.
    """
    guides = ASCII if ascii_only else UNICODE
    lines = lay_out(recording, failed_only=failed_only, guides=guides, is_brief=is_brief, ended_well=ended_well)
    return Styled(lines)


def render_lines(recording: Recording, *, failed_only: bool = False, escaped: bool = False) -> str:
    """Return `LoadLibrary <path>` or `Failed <path>`, one line an event, as `Trace(out=...)` writes; no unloads.

    Arguments: `escaped`, for a terminal: a path stays on its line and does nothing there. Programs that read the lines
    get the paths as they are.
    """
    return "".join(
        f"{escape(str(event)) if escaped and not isinstance(event, DebugEvent) else event}\n"
        for event in recording.events
        if (isinstance(event, LoadFailedEvent) if failed_only else not isinstance(event, UnloadEvent))
    )


def lay_out(
    recording: Recording, *, failed_only: bool, guides: Guides, is_brief: bool = False, ended_well: bool = False
) -> Iterator[Line]:
    """Yield the lines of the report. Arguments as of `render_text`; `guides`, the characters that draw the tree."""
    style = _TreeStyle(guides, failed_only, is_brief and not failed_only, ended_well)
    if len(recording.processes) < 2:
        yield from _tree(recording, style, python=_asks_python(recording))
    else:
        yield from _processes(recording, style)
    yield from closing_lines(recording, failed_only=failed_only, ended_well=ended_well)


@dataclass(frozen=True)
class _TreeStyle:
    """Options of drawing a tree: `is_brief` without what is obvious; `ended_well` without places that no program
    missed."""

    guides: Guides
    failed_only: bool = False
    is_brief: bool = False
    ended_well: bool = False


def tree_nodes(recording: Recording, *, failed_only: bool, guides: Guides) -> list[TreeNode]:
    """Return the tree of one process: a node for each import, or chain of them, with its images and imports below."""
    return _nodes(recording, _TreeStyle(guides, failed_only), python=True)


def _nodes(recording: Recording, style: _TreeStyle, *, python: bool) -> list[TreeNode]:
    """Return the tree; `python`: the mechanism knows imports (`_asks_python`)."""
    events = final_events(recording)
    folded: dict[str, list[str]] = {}
    hidden = 0
    if style.is_brief:
        brief = choose_events(events)
        events, folded, hidden = brief.events, dict(brief.folded), brief.obvious

    def describe(one: _Shown) -> tuple[Line, Iterable[_Shown]]:
        if isinstance(one, TreeNode):
            return one.label, one.below
        if isinstance(one, Group):
            tops = (_TopImage(image, is_outside=not one.names) for image in one.images)
            below = _folded_node(folded.pop(one.names[0], []), style.guides) if one.names else ()
            return ((_group_title(one, python=python), BOLD),), (*tops, *one.groups, *below)
        image = one.image if isinstance(one, _TopImage) else one
        label, places = _image_line(image.event, style)
        if isinstance(one, _TopImage):
            label += _requester(image.event, is_outside=one.is_outside)
        return label, (*places, *image.needs)

    tops: list[_Shown] = [*_build_groups(events, failed_only=style.failed_only)]
    nodes = grow(tops, describe)
    for name, names in folded.items():  # imports of which nothing else is left
        nodes.append(TreeNode(((f"import {name}", BOLD),), _folded_node(names, style.guides)))
    if hidden:
        text = f"{style.guides.more} {number(hidden, 'part')} of the C library and the loader"
        nodes.append(TreeNode(((text, DIM),)))
    return nodes


def _folded_node(names: Sequence[str], guides: Guides) -> tuple[TreeNode, ...]:
    return (TreeNode(((folded_title(names, guides.more), DIM),)),) if names else ()


def closing_lines(recording: Recording, *, failed_only: bool, ended_well: bool = False) -> Iterator[Line]:
    """Return the lines after the tree: counts, the mechanism, losses, notes. `ended_well` as of `render_text`."""
    counts = count(recording)
    if failed_only and not recording.failures:
        yield (("no load failed", PLAIN),)
    elif not recording.events:
        # With a note or a loss, what was not recorded may have happened all the same.
        yield ((NO_LOADS if recording.notes or recording.losses else NOTHING, PLAIN),)
    missed = 0 if ended_well else counts.failed
    summary = f"{number(counts.loaded, 'image')} loaded, {missed} failed"
    if counts.failed > missed:
        summary += f", {counts.failed} not found or refused, which the program did without"
    if counts.dropped:
        summary += f", {counts.dropped} dropped because of that"
    if counts.raw:
        summary += f"; {number(counts.raw, 'raw event')}"
    summary += describe_processes(recording)
    by = "how it was traced is not known" if recording.backend == UNKNOWN else f"traced by {recording.backend}"
    yield ((summary, FAILED if recording.failures and not ended_well else BOLD), (f"; {by}", PLAIN))
    if recording.losses:
        yield ((f"evidence was lost: {_losses(recording.losses)}", WARNING),)
    for note in recording.notes:
        yield (("note: ", WARNING), (note, PLAIN))


def _tree(recording: Recording, style: _TreeStyle, *, python: bool) -> Iterator[Line]:
    for node in _nodes(recording, style, python=python):
        yield node.label
        yield from draw(node.below, style.guides)


def _asks_python(recording: Recording) -> bool:
    """Return whether the mechanism knows imports, so that the tree says which one asked.

    The debugger runs programs of any kind: there it is known once an event has an import.
    """
    if recording.backend == "debugger":
        return any(getattr(event, "imports", None) for event in recording.events)
    return recording.backend != "ld_debug"


def _processes(recording: Recording, style: _TreeStyle) -> Iterator[Line]:
    """Yield a part for each process; of failures only, those in which a load failed, and those that were killed.

    At most `_PROCESSES` with trouble are shown, and as many without; the rest is counted.
    """
    plain = troubled = hidden = 0
    for share in shares(recording):
        has_trouble = bool(share.recording.failures) or is_killed(share.process)
        if style.failed_only and not has_trouble:
            continue
        troubled += has_trouble
        plain += not has_trouble
        if (troubled if has_trouble else plain) > _PROCESSES:
            hidden += 1
            continue
        yield process_line(share.process, style.guides)
        is_first = share.process.pid == recording.pid
        yield from _tree(share.recording, style, python=is_first and _asks_python(share.recording))
        if share.like_it:
            yield like_it_line(share, style.guides)
        yield ()
    if hidden:
        yield ((f"{style.guides.more} {hidden} more processes (--format jsonl has all)", DIM),)
        yield ()


def _build_groups(events: Sequence[FinalEvent], *, failed_only: bool) -> list[Group]:
    """Return the groups at the top, in order of first appearance; `failed_only` keeps failures and their requesters."""
    by_chain: dict[Chain, list[FinalEvent]] = {}
    for event in events:
        by_chain.setdefault(event.imports, []).append(event)
    images = {chain: _nest(own, failed_only=failed_only) for chain, own in by_chain.items()}
    if failed_only:
        images = {chain: kept for chain, kept in images.items() if kept}
    tops: list[Group] = []
    # A step is: these chains, all longer than `depth`, become groups in that list, one for each name at `depth`.
    waiting: list[tuple[list[tuple[str, ...]], int, list[Group]]] = [([chain for chain in images if chain], 0, tops)]
    while waiting:
        chains, depth, groups = waiting.pop()
        same: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
        for chain in chains:
            same[chain[depth]].append(chain)
        for members in same.values():
            # Names that nothing hangs on are on one line with the next.
            end = depth + 1
            while len(members[0]) > end and all(len(m) > end and m[end] == members[0][end] for m in members):
                end += 1
            name, inner = members[0][:end], list[Group]()
            groups.append(Group(name[depth:], images.get(name, ()), inner))
            waiting.append(([chain for chain in members if len(chain) > end], end, inner))
    return [*tops, *(Group(chain, images[chain]) for chain in images if not chain)]


def _nest(events: list[FinalEvent], *, failed_only: bool) -> tuple[Image, ...]:
    """Put each image below the one that asked for it, if that one is among those before it."""
    below: defaultdict[int, list[int]] = defaultdict(list)
    latest: dict[str, int] = {}
    for index, event in enumerate(events):
        below[latest.get(event.requested_by or "", -1)].append(index)
        latest[event.path] = index
    nested: dict[int, Image] = {}
    # Needs come after what needs them, so from the end every image finds its needs finished.
    for index in range(len(events) - 1, -1, -1):
        image = Image(events[index], tuple(nested[need] for need in below[index] if need in nested))
        if image.failed or image.needs or not failed_only:
            nested[index] = image
    return tuple(nested[index] for index in below[-1] if index in nested)


def _group_title(group: Group, *, python: bool) -> str:
    if group.names:
        return " > ".join(f"import {name}" for name in group.names)
    if group.names is None:
        return "(which import asked is not known)" if python else "(while it ran)"
    if any(is_program(image.event) for image in group.images):
        return "(at its start, or outside any import)" if python else "(at its start)"
    if not python and all(image.event.tid is None for image in group.images):
        # A load that Python asked for has the thread that asked.
        return "(at its start)"
    return "(outside any import)"


def _image_line(event: FinalEvent, style: _TreeStyle) -> tuple[Line, Sequence[TreeNode]]:
    """Return the line of an image, and the places that were tried in vain."""
    if not isinstance(event, LoadFailedEvent):
        return (*_name_and_path(event, PLAIN), *_found_by(event, is_brief=style.is_brief)), ()
    if style.is_brief and style.ended_well:
        return tuple((text, DIM) for text, _ in _failure_label(event)), ()
    if is_consequence(event) or not event.probes or [probe.path for probe in event.probes] == [event.path]:
        return _failure_label(event), ()
    return _failure_label(event), place_nodes(event.probes, style.guides)


def _failure_label(event: LoadFailedEvent) -> Line:
    if event.kind in (FailureKind.NOT_FOUND, FailureKind.REFUSED, FailureKind.NAME_NOT_FOUND):
        what = "REFUSED" if event.kind is FailureKind.REFUSED else "NOT FOUND"
        name: Line = ((event.need or event.shown_path, FAILED),)
    elif is_consequence(event):
        return (*_name_and_path(event, DROPPED), ("  dropped because of the failure", DROPPED))
    else:
        what, name = "FAILED", _name_and_path(event, FAILED)
    label = (*name, (f"  {what}", FAILED))
    if event.reason:
        label += ((f": {event.reason}", PLAIN),)
    if event.requested_by:
        label += ((f", needed by {event.requested_by}", PLAIN),)
    return label


def _requester(event: FinalEvent, *, is_outside: bool) -> Line:
    """Return the requester of an image that does not stand below it. An extension module stands below its import."""
    if isinstance(event, LoadFailedEvent) or not event.requested_by:
        return ()
    is_module_of_import = event.phase is Phase.DIRECT and not is_outside
    return () if is_module_of_import else ((f"  asked for by {event.requested_by}", DIM),)


def _name_and_path(event: FinalEvent, style: str) -> Line:
    path = event.shown_path
    name = file_name(event.need or path)
    return ((name, style or BOLD),) if name == path else ((name, style or BOLD), (f"  {path}", PLAIN))


def _found_by(event: FinalEvent, *, is_brief: bool) -> Line:
    if event.phase is None or event.phase is Phase.DIRECT:
        return ()
    origin = next((p.origin for p in event.probes or () if p.outcome is ProbeOutcome.LOADED), None)
    if is_brief and event.phase in (Phase.RPATH, Phase.RUNPATH):
        origin = None  # the path of the requester, which stands above
    return ((f"  found by {rule_title(event.phase, origin)}", DIM),)


def _losses(losses: Losses) -> str:
    parts = [
        number(quantity, noun)
        for quantity, noun in (
            (losses.events, "event"),
            (losses.buffers, "buffer"),
            (losses.undecodable, "undecodable line or event"),
        )
        if quantity
    ]
    return ", ".join(parts).replace("line or events", "lines or events")


_PARTS = frozenset((
    "libc", "libm", "libpthread", "libdl", "librt", "libutil", "libresolv", "libanl", "libnsl", "libmvec", "ld", "ld64",
))  # fmt: skip
"""Of glibc; each may be called libc.so.6, libc.so or libc-2.31.so."""
_LOADERS = ("ld-linux", "ld-musl-", "libc.musl-")
_BASE = frozenset(("linux-vdso.so.1", "linux-gate.so.1", "ntdll.dll", "kernel32.dll", "kernelbase.dll", "ucrtbase.dll"))
_API_SETS = ("api-ms-", "ext-ms-")


def is_of_system(name: str) -> bool:
    """Return whether every process has an image of that name: a part of glibc or musl, the loader, the base of
    Windows."""
    name = name.lower()
    if name in _BASE or name.startswith(_LOADERS):
        return True
    if name.endswith(".dll"):
        return name.startswith(_API_SETS)
    stem, suffix, version = name.partition(".so")
    part, dash, release = stem.partition("-2.")
    return (
        part in _PARTS and suffix == ".so" and (not dash or release.isdecimal())
        and (not version or (version[0] == "." and version[1:].isdecimal()))
    )  # fmt: skip


LARGE = 40
"""Images of a tree that fills more than a screen: extension modules that needed nothing are folded."""

_NAMED = 8
"""Names of modules that were folded."""
_NAME = 32
"""Characters of such a name."""


@dataclass(frozen=True)
class BriefEvents:
    """The events that the usual tree shows.

    Attributes: `folded`, for an import the names of its modules that are left out; `obvious`, how many images are left
    out as parts of the system.
    """

    events: tuple[FinalEvent, ...]
    folded: dict[str, list[str]]
    obvious: int = 0


def choose_events(events: Sequence[FinalEvent]) -> BriefEvents:
    """Return what the usual tree shows of the events."""
    requesters = {event.requested_by for event in events}
    kept = [event for event in events if not _is_obvious(event, requesters)]
    obvious = len(events) - len(kept)
    if len(kept) <= LARGE:
        return BriefEvents(tuple(kept), {}, obvious)
    requesters = {event.requested_by for event in kept}
    folded: dict[str, list[str]] = {}
    shown: list[FinalEvent] = []
    for event in kept:
        if event.imports and event.phase is Phase.DIRECT and event.path not in requesters and not _has_failed(event):
            folded.setdefault(event.imports[0], []).append(label_of(event.imports[-1], _NAME))
        elif event.imports:
            shown.append(replace(event, imports=event.imports[:1]))
        else:
            shown.append(event)
    return BriefEvents(tuple(shown), folded, obvious)


def folded_title(names: Sequence[str], more: str) -> str:
    """Return the line for modules that are left out: "… 3 modules that needed no other library: a, b, c"."""
    modules = "module" if len(names) == 1 else "modules"
    listed = ", ".join(names[:_NAMED]) + (f", {more}" if len(names) > _NAMED else "")
    return f"{more} {len(names)} {modules} that needed no other library: {listed}"


_LOAD_BY_NAME = ("_ctypes.", "_ctypes_d.", "_cffi_backend.")


def _is_obvious(event: FinalEvent, requesters: set[str | None]) -> bool:
    if _has_failed(event) or event.path in requesters:
        return False
    # What a program loads by name is no need of a file: the modules of ctypes and cffi ask for it, or nothing known.
    if event.need is not None and file_name(event.requested_by or "_ctypes.").startswith(_LOAD_BY_NAME):
        return False
    return is_of_system(file_name(event.need or event.path))


def _has_failed(event: FinalEvent) -> bool:
    return isinstance(event, LoadFailedEvent)
