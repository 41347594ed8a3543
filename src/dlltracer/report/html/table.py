"""The table of images: a row an image, and only columns that hold something."""

from __future__ import annotations

from dataclasses import dataclass

from ...model.probe import ProbeOutcome
from ..drawing import file_name
from .words import imports_in_words, size_in_words, span_in_words, without_abi_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .graph import Graph, ImageView, State


@dataclass(frozen=True)
class Cell:
    """What it shows; `key` is what it is sorted by, `whole` what it stands for, where that is something else."""

    text: str
    key: str = ""
    whole: str = ""


@dataclass(frozen=True)
class TableRow:
    """An image: the number of its node, and the cells."""

    number: int
    name: str
    path: str
    state: State
    reason: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """`columns` are the titles of the cells, with a word for style sheets; the name and state have their own."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[TableRow, ...]
    states: tuple[State, ...]


_COLUMNS = (
    ("Found by", "rule"),
    ("Asked for by", "requester"),
    ("Python import", "import"),
    ("Package", "package"),
    ("Version", "version"),
    ("Size", "size"),
    ("Time", "time"),
    ("Process", "process"),
)


def table_of(graph: Graph, start: float | None) -> Table:
    """The images in the order of their loads. `start`: seconds since the epoch, what times count from."""
    images = graph.images
    cells = [_cells(image, start) for _, image in images]
    kept = [column for column in range(len(_COLUMNS)) if any(row[column].text for row in cells)]
    one_process = len({image.pid for _, image in images}) <= 1
    if one_process and len(_COLUMNS) - 1 in kept:
        kept.remove(len(_COLUMNS) - 1)
    rows = tuple(
        TableRow(number, image.name, image.path, image.state, image.reason or "", tuple(row[c] for c in kept))
        for (number, image), row in zip(images, cells, strict=True)
    )
    states = tuple(dict.fromkeys(image.state for _, image in images))
    return Table(tuple(_COLUMNS[column] for column in kept), rows, states)


def _cells(image: ImageView, start: float | None) -> Sequence[Cell]:
    facts = image.facts
    size = image.size if image.size is not None else facts.size if facts is not None else None
    elapsed = None if image.time is None or start is None else image.time - start
    return (
        Cell(_short_rule(image), whole=image.rule or ""),
        Cell(without_abi_tag(file_name(image.requested_by or "")), whole=image.requested_by or ""),
        Cell(_ends(image.imports or ()), whole=imports_in_words(image.imports or ())),
        Cell((facts and facts.package) or ""),
        Cell((facts and facts.file_version) or ""),
        Cell(size_in_words(size), "" if size is None else str(size)),
        Cell("" if elapsed is None else span_in_words(elapsed), "" if elapsed is None else str(elapsed)),
        Cell("" if image.pid is None else str(image.pid)),
    )


def _short_rule(image: ImageView) -> str:
    """The rule that found it, with the name of the image whose rule it is in the place of its path."""
    origin = next((probe.origin for probe in image.probes if probe.outcome is ProbeOutcome.LOADED), None)
    if image.rule is None or origin is None or not image.rule.endswith(f" of {origin}"):
        return image.rule or ""
    return f"{image.rule.removesuffix(origin)}{without_abi_tag(file_name(origin))}"


def _ends(imports: tuple[str, ...]) -> str:
    """The outermost import and the innermost one; the details of the image have all between them."""
    return " > ".join(imports if len(imports) <= 2 else (imports[0], "…", imports[-1]))
