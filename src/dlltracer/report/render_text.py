"""A readable tree of what loaded and what did not, with colours where the reader's console takes them."""

from __future__ import annotations

from ..model.events import DebugEvent, FailureKind, LoadFailedEvent, UnloadEvent
from ..model.printable import escape
from ..model.probe import Phase, ProbeOutcome
from ..model.recording import UNKNOWN, Losses, Recording
from .counts import count, is_consequence, is_program
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
    Node,
    Styled,
    draw,
    file_name,
    number,
)
from .places import place_nodes, rule_title
from .processes import describe_processes, is_killed, like_it_line, process_line, shares
from .tree import Group, Image, build_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NO_LOADS = "no load of an image was recorded"
NOTHING = (
    "no image was loaded: what the program imported is Python code, or built into the interpreter, "
    "or was loaded before the program began"
)


def render_text(recording: Recording, *, failed_only: bool = False, ascii_only: bool = False) -> Styled:
    """Return the report as styled lines.

    Arguments: `failed_only` leaves out what is not a failure and does not lead to one; `ascii_only` draws the tree
    with ASCII characters.
    """
    guides = ASCII if ascii_only else UNICODE
    return Styled(lay_out(recording, failed_only=failed_only, guides=guides))


def render_lines(recording: Recording, *, failed_only: bool = False, escaped: bool = False) -> str:
    """Return `LoadLibrary <path>` or `Failed <path>`, one line an event; unloads are silent.

    Arguments: `escaped`, for a terminal: a path stays on its line and does nothing there. Programs that read the lines
    get the paths as they are.
    """
    return "".join(
        f"{escape(str(event)) if escaped and not isinstance(event, DebugEvent) else event}\n"
        for event in recording.events
        if (isinstance(event, LoadFailedEvent) if failed_only else not isinstance(event, UnloadEvent))
    )


def lay_out(recording: Recording, *, failed_only: bool, guides: Guides) -> Iterator[Line]:
    """The lines of the report."""
    if len(recording.processes) < 2:
        yield from _tree(recording, failed_only, guides, python=_asks_python(recording))
    else:
        yield from _processes(recording, failed_only, guides)
    yield from closing_lines(recording, failed_only=failed_only)


def tree_nodes(recording: Recording, *, failed_only: bool, guides: Guides, python: bool = True) -> tuple[Node, ...]:
    """The tree of one process: a node an import, or a chain of them, with the images and the imports below it.

    `python`: the mechanism asks Python for the imports, so that it matters who asked.
    """
    return tuple(_group_node(group, guides, python=python) for group in build_tree(recording, failed_only=failed_only))


def closing_lines(recording: Recording, *, failed_only: bool) -> Iterator[Line]:
    """What follows the tree: counts, the mechanism, what was lost, notes."""
    counts = count(recording)
    if failed_only and not recording.failures:
        yield (("no load failed", PLAIN),)
    elif not recording.events:
        # With a note or a loss, what was not recorded may have happened all the same.
        yield ((NO_LOADS if recording.notes or recording.losses else NOTHING, PLAIN),)
    summary = f"{number(counts.loaded, 'image')} loaded, {counts.failed} failed"
    if counts.dropped:
        summary += f", {counts.dropped} dropped because of that"
    if counts.raw:
        summary += f"; {number(counts.raw, 'raw event')}"
    summary += describe_processes(recording)
    by = "how it was traced is not known" if recording.backend == UNKNOWN else f"traced by {recording.backend}"
    yield ((summary, FAILED if recording.failures else BOLD), (f"; {by}", PLAIN))
    if recording.losses:
        yield ((f"evidence was lost: {_losses(recording.losses)}", WARNING),)
    for note in recording.notes:
        yield (("note: ", WARNING), (note, PLAIN))


def _tree(recording: Recording, failed_only: bool, guides: Guides, *, python: bool) -> Iterator[Line]:
    for node in tree_nodes(recording, failed_only=failed_only, guides=guides, python=python):
        yield node.label
        yield from draw(node.below, guides)


def _asks_python(recording: Recording) -> bool:
    """Whether it matters which import asked. A debugger runs any program: whether one knew an import tells."""
    if recording.backend == "debugger":
        return any(getattr(event, "imports", None) for event in recording.events)
    return recording.backend != "ld_debug"


def _processes(recording: Recording, failed_only: bool, guides: Guides) -> Iterator[Line]:
    """A part for each process; of failures only, those in which a load failed, and those that were killed."""
    for share in shares(recording):
        if failed_only and not share.recording.failures and not is_killed(share.process):
            continue
        yield process_line(share.process, guides)
        is_first = share.process.pid == recording.pid
        yield from _tree(share.recording, failed_only, guides, python=is_first and _asks_python(share.recording))
        if share.like_it:
            yield like_it_line(share, guides)
        yield ()


def _group_node(group: Group, guides: Guides, *, python: bool = True) -> Node:
    if group.names is None:
        title = "(which import asked is not known)" if python else "(while it ran)"
    elif not group.names and any(is_program(image.event) for image in group.images):
        title = "(at its start, or outside any import)" if python else "(at its start)"
    elif not group.names and not python and all(image.event.tid is None for image in group.images):
        title = "(at its start)"  # what a request of Python's was for has the thread that asked
    elif not group.names:
        title = "(outside any import)"
    else:
        title = " > ".join(f"import {name}" for name in group.names)
    images = tuple(_image_node(image, guides, outside=not group.names, top=True) for image in group.images)
    return Node(((title, BOLD),), images + tuple(_group_node(inner, guides) for inner in group.groups))


def _image_node(image: Image, guides: Guides, *, outside: bool = False, top: bool = False) -> Node:
    event = image.event
    places: tuple[Node, ...] = ()
    if isinstance(event, LoadFailedEvent):
        label = _failure_label(event)
        if not is_consequence(event) and event.probes and [p.path for p in event.probes] != [event.path]:
            places = place_nodes(event.probes, guides)
    else:
        label = (*_name_and_path(image, PLAIN), *_found_by(image))
        # Below its requester, or an extension module below its import, an image needs no word on who asked.
        if top and event.requested_by and (outside or event.phase is not Phase.DIRECT):
            label += ((f"  asked for by {event.requested_by}", DIM),)
    return Node(label, places + tuple(_image_node(need, guides) for need in image.needs))


def _failure_label(event: LoadFailedEvent) -> Line:
    image = Image(event)
    if event.kind in (FailureKind.NOT_FOUND, FailureKind.REFUSED, FailureKind.NAME_NOT_FOUND):
        what = "REFUSED" if event.kind is FailureKind.REFUSED else "NOT FOUND"
        name: Line = ((event.need or event.shown_path, FAILED),)
    elif is_consequence(event):
        return (*_name_and_path(image, DROPPED), ("  dropped because of the failure", DROPPED))
    else:
        what, name = "FAILED", _name_and_path(image, FAILED)
    label = (*name, (f"  {what}", FAILED))
    if event.reason:
        label += ((f": {event.reason}", PLAIN),)
    if event.requested_by:
        label += ((f", needed by {event.requested_by}", PLAIN),)
    return label


def _name_and_path(image: Image, style: str) -> Line:
    path = image.event.shown_path
    name = file_name(image.event.need or path)
    return ((name, style or BOLD),) if name == path else ((name, style or BOLD), (f"  {path}", PLAIN))


def _found_by(image: Image) -> Line:
    event = image.event
    if event.phase is None or event.phase is Phase.DIRECT:
        return ()
    origin = next((p.origin for p in event.probes or () if p.outcome is ProbeOutcome.LOADED), None)
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
