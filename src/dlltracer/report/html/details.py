"""What the script of the page knows of each node: plain values for JSON, texts ready to be shown."""

from __future__ import annotations

from ...model.probe import ProbeOutcome
from .graph import EdgeKind
from .words import imports_in_words, place_row, shorten, size_in_words, span_in_words, time_in_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .graph import Graph, ImageView, Node
    from .layout import Picture


_PLACES = 200
"""Places tried that the details of an image have."""


def page_data(graph: Graph, picture: Picture, start: float | None) -> dict[str, object]:
    """All of it.

    Arguments: `start`, seconds since the epoch, is what times count from.

    Returns: `nodes`, each with its place in the picture; `edges` as [start, end, how that is known].
    """
    nodes = []
    for number, (node, box) in enumerate(zip(graph.nodes, picture.nodes, strict=True)):
        plain = _node(node, start)
        plain |= {"at": [box.x, box.y], "parent": node.parent}
        if number in graph.elsewhere:
            plain["elsewhere"] = shorten(graph.elsewhere[number], _PLACES, "more names")
        nodes.append(plain)
    edges = [[edge.start, edge.end, list(EdgeKind).index(edge.kind)] for edge in graph.edges]
    return {"nodes": nodes, "edges": edges, "focus": graph.focus, "size": [picture.width, picture.height]}


def _node(node: Node, start: float | None) -> dict[str, object]:
    plain: dict[str, object] = {"kind": node.kind.value, "title": node.title}
    if node.note:
        plain["note"] = node.note
    image = node.image
    if image is None:
        return plain
    plain |= {"state": image.state.key, "word": image.state.value, "facts": list(_facts(image, start))}
    if image.reason:
        plain["reason"] = image.reason
    # That the file was taken from where it was asked for is no news.
    taken = [probe.path for probe in image.probes if probe.outcome is ProbeOutcome.LOADED]
    if len(image.probes) > 1 or taken != [image.path]:
        places = [list(place_row(probe)) for probe in image.probes[:_PLACES]]
        if len(image.probes) > _PLACES:
            places.append(["", f"… {len(image.probes) - _PLACES} more places", "", ""])
        plain["places"] = places
    return plain


def _facts(image: ImageView, start: float | None) -> Iterator[tuple[str, str]]:
    """Labels and values, those that are known."""
    facts = image.facts
    # The path comes first: the page puts a button to copy it beside it.
    yield "Path", image.path
    elapsed = None if image.time is None or start is None else image.time - start
    pairs = (
        ("Worked out from", image.concluded),
        ("Found by", image.rule),
        ("Asked for by", image.requested_by),
        ("Python imports", None if not image.imports else imports_in_words(image.imports)),
        ("Package", facts and facts.package),
        ("Version", facts and facts.file_version),
        ("Soname", facts and facts.soname),
        ("Processor", facts and facts.machine),
        ("File size", size_in_words(facts.size) if facts else None),
        ("Modified", time_in_words(facts.modified) if facts else None),
        ("Digest", facts and facts.digest),
        ("Address", None if image.base is None else f"{image.base:#x}"),
        ("Mapped", None if image.size is None else f"{size_in_words(image.size)} ({image.size:#x} bytes)"),
        ("Time", None if elapsed is None else f"{span_in_words(elapsed)} after the start"),
        ("Process", None if image.pid is None else str(image.pid)),
    )
    for label, value in pairs:
        if value:
            yield label, value
