"""The data of the page's script: columns of numbers, and one table of strings, since most strings occur many times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ...model.events import ProbeOutcome
from ...model.words import shorten, size_in_words, time_in_words
from ..drawing import file_name
from .images import KINDS, CauseCount, ImageView, NeedSource, PageImages, State, causes_of, origin_of
from .summary import places_of

_NAMES = 200
"""Names that are needed and not on the page, of one image."""
_LARGEST = 2**53
"""The largest whole number that a script holds exactly; a recording of others may have any."""


class _Strings:
    """A table of strings, each once. The place of no string is -1."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def add(self, text: str | None) -> int:
        """Return the place of the text in the table."""
        return -1 if not text else self._places.setdefault(text, len(self._places))

    @property
    def all(self) -> list[str]:
        return list(self._places)


def page_data(found: PageImages, causes: Sequence[CauseCount], folders: Sequence[str]) -> dict[str, object]:
    """Return what the script gets.

    Args:
        found: the images.
        causes: those of the verdict card, whose buttons name them by number.
        folders: of sys.path: paths are shown without them.
    """
    strings = _Strings()
    images = found.images
    times, is_timed = times_of(images)
    pids = {pid: place for place, (pid, _) in enumerate(found.processes)}
    chains: dict[tuple[str, ...], int] = {}
    origins = [origin_of(image) for image in images]
    why = causes_of(images)
    states, kinds = list(State), list(KINDS)
    parts = [_folder_and_name(image.path) for image in images]
    columns: dict[str, list[int] | list[float]] = {
        "file": [strings.add(name) for _, name in parts],
        "dir": [strings.add(folder) for folder, _ in parts],
        "state": [states.index(image.state) for image in images],
        "rule": [strings.add(_short_rule(image)) for image in images],
        "ruleLong": [strings.add(image.rule) for image in images],
        "label": [strings.add(origin.label) for origin in origins],
        "kind": [kinds.index(origin.kind) for origin in origins],
        "chain": [chains.setdefault(image.imports, len(chains)) if image.imports else -1 for image in images],
        "size": [_bounded(image.size) for image in images],
        "fileSize": [_bounded(image.facts.size if image.facts is not None else None) for image in images],
        "t": times,
        "why": [strings.add(image.reason) for image in images],
        "asked": [strings.add(image.requested_by) for image in images],
        "parent": [-1 if image.parent is None else image.parent for image in images],
        "cause": [-1 if cause is None else cause.number for cause in why],
        "causeTitle": [strings.add(None if cause is None else cause.title) for cause in why],
        "causeDetail": [strings.add(None if cause is None else cause.detail) for cause in why],
        "process": [pids.get(image.pid, -1) for image in images],
    }
    facts = [[strings.add(text) for pair in _facts(image) for text in pair] for image in images]
    places = {
        number: rows for number, image in enumerate(images) if (rows := list(_places(image, strings)))
    }  # fmt: skip
    elsewhere = {number: [strings.add(name) for name in shorten(names, _NAMES, "more names")]
                 for number, names in found.elsewhere.items()}  # fmt: skip
    sources = list(NeedSource)
    return {
        "images": columns, "facts": facts, "places": places, "elsewhere": elsewhere,
        "chains": [[strings.add(name) for name in chain] for chain in chains],
        "needs": [[need.start, need.end, sources.index(need.source)] for need in found.needs],
        "states": [[state.value, state.group] for state in states],
        "sources": [source.value for source in sources],
        "kinds": [[key, words] for key, words in KINDS.items()],
        "processes": [title for _, title in found.processes],
        "causes": [[cause.title, cause.detail] for cause in causes],
        "folders": [folder for folder in folders if folder],
        "focus": -1 if found.focus is None else found.focus,
        "isTimed": is_timed,
        "strings": strings.all,
    }  # fmt: skip


def times_of(images: Sequence[ImageView]) -> tuple[list[float], bool]:
    """Return when each image came, in milliseconds after the first; without usable times its place in the order.

    What is known from the verdict alone has no time: -1.
    """
    times = [image.time for image in images if image.concluded is None]
    known = [time for time in times if time is not None]
    # A recording may hold any number for a time, also none at all (nan).
    if known and len(known) == len(times) and 0 < max(known) - min(known) < math.inf:
        start = min(known)
        return [-1 if image.time is None else round(1000 * (image.time - start), 1) for image in images], True
    return [-1.0 if image.concluded is not None else float(place) for place, image in enumerate(images)], False


def _bounded(number: int | None) -> int:
    return 0 if number is None else max(0, min(number, _LARGEST))


def _folder_and_name(path: str) -> tuple[str, str]:
    """Return the path in two parts, with the separator at the end of the first."""
    name = file_name(path)
    return path[: len(path) - len(name)], name


def _short_rule(image: ImageView) -> str:
    """Return the rule that found the image, without the image whose rule it is: the details have that."""
    origin = next((probe.origin for probe in image.probes if probe.outcome is ProbeOutcome.LOADED), None)
    rule = image.rule or ""
    if origin is not None and rule.endswith(f" of {origin}"):
        rule = rule.removesuffix(f" of {origin}")
    return {"its full path": "full path", "cache (/etc/ld.so.cache)": "ld.so.cache"}.get(rule, rule)


def _facts(image: ImageView) -> Iterator[tuple[str, str]]:
    """Yield labels and values that only the details of an image show."""
    facts = image.facts
    pairs = (
        ("Worked out from", image.concluded),
        ("Asked for as", image.name if image.name != file_name(image.path) else None),
        ("Package", facts and facts.package),
        ("Version", facts and facts.file_version),
        ("Soname", facts and facts.soname),
        ("Processor", facts and facts.machine),
        ("Modified", time_in_words(facts.modified) if facts else None),
        ("Digest", facts and facts.digest),
        ("Address", None if image.base is None else f"{image.base:#x}"),
        ("Mapped", None if image.size is None else f"{size_in_words(image.size)} ({image.size:#x} bytes)"),
        ("Process", None if image.pid is None else str(image.pid)),
    )
    for label, value in pairs:
        if value:
            yield label, value


def _places(image: ImageView, strings: _Strings) -> Iterator[list[object]]:
    """Yield each rule: title, places worth a line, the others; a place is path, outcome, whether a file is there."""
    # That the file was taken from where it was asked for is no news.
    taken = [probe.path for probe in image.probes if probe.outcome is ProbeOutcome.LOADED]
    if len(image.probes) < 2 and taken == [image.path]:
        return
    for rule in places_of(image.probes):
        yield [
            strings.add(rule.title),
            *([[strings.add(path), strings.add(words), int(there)] for path, words, there in rows]
              for rows in (rule.shown, rule.hidden)),
        ]  # fmt: skip

