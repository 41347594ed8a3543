"""A readable tree of what loaded and what did not, with colours where the reader's console takes them."""

from __future__ import annotations

import ntpath
import posixpath
import re
from dataclasses import dataclass

from ..model.events import FailureKind, LoadFailedEvent
from ..model.probe import Phase, Probe, ProbeOutcome
from ..model.recording import Losses, Recording
from .places import Rule, fold_places, rule_title
from .tally import count, is_consequence
from .tree import Group, Image, build_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.text import Text

Line = tuple[tuple[str, str], ...]
"""Pieces of text, each with a style of rich."""

PLAIN, DIM, BOLD = "", "dim", "bold"
FAILED, DROPPED, WARNING = "bold red", "red", "bold yellow"

NO_LOADS = "no load of an image was recorded"
NOTHING = (
    "no image was loaded: what the program imported is Python code, or built into the interpreter, "
    "or was loaded before the program began"
)

_WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\")


@dataclass(frozen=True)
class Guides:
    """The characters that draw the tree."""

    branch: str
    last: str
    through: str
    more: str

    @property
    def blank(self) -> str:
        return " " * len(self.last)


UNICODE = Guides("\u251c\u2500 ", "\u2514\u2500 ", "\u2502  ", "…")
ASCII = Guides("|- ", "`- ", "|  ", "...")


@dataclass(frozen=True)
class _Node:
    """A line and the lines below it."""

    label: Line
    below: tuple[_Node, ...] = ()


def render_text(recording: Recording, *, failed_only: bool = False, ascii_only: bool = False) -> Text:
    """The report as styled text; `.plain` is it without styles. Every line is whole: nothing is wrapped or cut.

    Arguments: `failed_only` leaves out what is not a failure and does not lead to one; `ascii_only` draws the tree
    with ASCII characters. Characters that are not printable are escaped.
    """
    from rich.text import Text

    text = Text(no_wrap=True, overflow="ignore")
    for line in lay_out(recording, failed_only=failed_only, guides=ASCII if ascii_only else UNICODE):
        for piece, style in line:
            text.append(escape(piece), style)
        text.append("\n")
    return text


def lay_out(recording: Recording, *, failed_only: bool, guides: Guides) -> Iterator[Line]:
    """The lines of the report."""
    for group in build_tree(recording, failed_only=failed_only):
        node = _group_node(group, guides)
        yield node.label
        yield from _draw(node.below, "", guides)
    tally = count(recording)
    if failed_only and not recording.failures:
        yield (("no load failed", PLAIN),)
    elif not recording.events:
        # With a note or a loss, what was not recorded may have happened all the same.
        yield ((NO_LOADS if recording.notes or recording.losses else NOTHING, PLAIN),)
    summary = f"{_number(tally.loaded, 'image')} loaded, {tally.failed} failed"
    if tally.dropped:
        summary += f", {tally.dropped} dropped because of that"
    if tally.raw:
        summary += f"; {_number(tally.raw, 'raw event')}"
    yield ((summary, FAILED if recording.failures else BOLD), (f"; traced by {recording.backend}", PLAIN))
    if recording.losses:
        yield ((f"evidence was lost: {_losses(recording.losses)}", WARNING),)
    for note in recording.notes:
        yield (("note: ", WARNING), (note, PLAIN))


def escape(text: str) -> str:
    """The text with every character that does not print (controls, lone surrogates, direction marks) as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def file_name(path: str) -> str:
    """The last part of a path of either system."""
    return (ntpath if _WINDOWS_PATH.match(path) else posixpath).basename(path) or path


def _draw(nodes: tuple[_Node, ...], indent: str, guides: Guides) -> Iterator[Line]:
    for number, node in enumerate(nodes, 1):
        last = number == len(nodes)
        yield ((indent + (guides.last if last else guides.branch), DIM), *node.label)
        yield from _draw(node.below, indent + (guides.blank if last else guides.through), guides)


def _group_node(group: Group, guides: Guides) -> _Node:
    if group.names is None:
        title = "(which import asked is not known)"
    elif not group.names:
        title = "(outside any import)"
    else:
        title = " > ".join(f"import {name}" for name in group.names)
    images = tuple(_image_node(image, guides, outside=not group.names, top=True) for image in group.images)
    return _Node(((title, BOLD),), images + tuple(_group_node(inner, guides) for inner in group.groups))


def _image_node(image: Image, guides: Guides, *, outside: bool = False, top: bool = False) -> _Node:
    event = image.event
    places: tuple[_Node, ...] = ()
    if isinstance(event, LoadFailedEvent):
        label = _failure_label(event)
        if not is_consequence(event) and event.probes and [p.path for p in event.probes] != [event.path]:
            places = tuple(_rule_node(rule, guides) for rule in fold_places(_vain(event.probes)))
    else:
        label = (*_name_and_path(image, PLAIN), *_found_by(image))
        # Below its asker, or an extension module below its import, an image needs no word on who asked.
        if top and event.requested_by and (outside or event.phase is not Phase.DIRECT):
            label += ((f"  asked for by {event.requested_by}", DIM),)
    return _Node(label, places + tuple(_image_node(need, guides) for need in image.needs))


def _failure_label(event: LoadFailedEvent) -> Line:
    image = Image(event)
    if event.kind in (FailureKind.NOT_FOUND, FailureKind.REFUSED):
        what = "NOT FOUND" if event.kind is FailureKind.NOT_FOUND else "REFUSED"
        name: Line = ((event.need or event.shown_path, FAILED),)
    elif is_consequence(event):
        return (*_name_and_path(image, DROPPED), ("  dropped because of the failure", DROPPED))
    else:
        what, name = "FAILED", _name_and_path(image, FAILED)
    label = (*name, (f"  {what}", FAILED))
    if event.reason:
        label += ((f": {event.reason}", DROPPED),)
    if event.requested_by:
        label += ((f", needed by {event.requested_by}", DROPPED),)
    return label


def _name_and_path(image: Image, style: str) -> Line:
    path = image.event.shown_path
    name = file_name(image.event.need or path)
    return ((name, style or BOLD),) if name == path else ((name, style or BOLD), (f"  {path}", style))


def _found_by(image: Image) -> Line:
    event = image.event
    if event.phase is None or event.phase is Phase.DIRECT:
        return ()
    origin = next((p.origin for p in event.probes or () if p.outcome is ProbeOutcome.LOADED), None)
    return ((f"  found by {rule_title(event.phase, origin)}", DIM),)


def _vain(probes: tuple[Probe, ...]) -> tuple[Probe, ...]:
    return tuple(probe for probe in probes if probe.outcome is not ProbeOutcome.LOADED)


def _rule_node(rule: Rule, guides: Guides) -> _Node:
    places = [
        _Node(((probe.path, PLAIN), (f"  a file is there{f': {probe.reason}' if probe.reason else ''}", FAILED)))
        if probe.outcome is ProbeOutcome.PRESENT
        else _Node(((probe.path, DIM),))
        for probe in rule.shown
    ]
    if rule.more:
        places.append(_Node(((f"{guides.more} {rule.more} more {'place' if rule.more == 1 else 'places'}", DIM),)))
    return _Node(((rule.title, PLAIN),), tuple(places))


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _losses(losses: Losses) -> str:
    parts = [
        _number(number, noun)
        for number, noun in (
            (losses.events, "event"),
            (losses.buffers, "buffer"),
            (losses.undecodable, "undecodable line or event"),
        )
        if number
    ]
    return ", ".join(parts).replace("line or events", "lines or events")
