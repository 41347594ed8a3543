"""Builds the images of the page from a saved trace, or from a load tree.

The requester of an image is the one that the loader named. Where the mechanism does not say who asked (Windows), it is
the first image of the same import whose file lists the name.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...model.elf import ElfImage
from ...model.events import FailureKind, ImageEvent, LoadEvent, LoadFailedEvent, Phase, ProbeOutcome
from ...model.finding import Confidence, Finding, Outcome
from ...model.macho import MachoImage
from ...model.pe import PeImage
from ...model.recording import Recording
from ...model.run import ImageFacts, SavedTrace
from ...model.tree import Binding, BindingState, LoadTree
from ...model.words import shorten, size_in_words, time_in_words
from ..counts import FinalEvent, final_events, is_consequence
from ..drawing import file_name, is_windows_path
from .images import (
    KINDS,
    CauseCount,
    ImageNeed,
    ImageView,
    NeedSource,
    PageImages,
    State,
    causes_of,
    first_of_interest,
    found_by,
    origin_of,
    roots,
)
from .summary import places_of


def is_windows(saved: SavedTrace) -> bool:
    """Return whether the trace is of a Windows, by the word of the machine, else by the look of its paths."""
    if saved.host is not None:
        return saved.host.system == "windows"
    return any(isinstance(event, ImageEvent) and is_windows_path(event.path) for event in saved.recording.events)


def has_worked(saved: SavedTrace) -> bool:
    """Return whether the program is known to have done what it was run for."""
    if saved.diagnosis is not None:
        return saved.diagnosis.outcome is Outcome.IMPORTED
    return saved.run.status == 0 and saved.run.crash is None


def images_of_trace(saved: SavedTrace) -> PageImages:
    """Return the images of all processes, in the order of their loads."""
    builder = _ImageBuilder(saved)
    by_process = list(_by_process(saved.recording))
    for pid, recording in by_process:
        builder.add_process(pid, recording)
    subjects = []
    if saved.diagnosis is not None:
        for finding in saved.diagnosis.findings:
            builder.add_concluded(finding)
            subjects.append(finding.subject)
    pids = [pid for pid, _ in by_process] if len(by_process) > 1 else []
    return builder.finish(subjects, pids, has_worked(saved))


def image_of_event(event: FinalEvent, facts: ImageFacts | None = None, *, unloaded: bool = False) -> ImageView:
    """Return what the page shows of an event."""
    state, reason = State.UNLOADED if unloaded else State.LOADED, None
    if isinstance(event, LoadFailedEvent):
        state, reason = State.DROPPED if is_consequence(event) else _STATES[event.kind], event.reason
    probes = event.probes or ()
    return ImageView(
        name=file_name(event.need or event.shown_path), path=event.shown_path, state=state, reason=reason,
        rule=found_by(event.phase, probes), requested_by=event.requested_by, imports=event.imports, pid=event.pid,
        base=event.base, size=event.size, time=event.timestamp, probes=probes, facts=facts,
    )  # fmt: skip


_STATES = {
    FailureKind.NOT_FOUND: State.NOT_FOUND,
    FailureKind.NAME_NOT_FOUND: State.NOT_FOUND,
    FailureKind.REFUSED: State.REFUSED,
    FailureKind.DROPPED: State.FAILED,
    None: State.FAILED,
}


class ImageNames:
    """Names to numbers; the first number of a name counts. On Windows, upper and lower case are the same."""

    def __init__(self, windows: bool) -> None:
        self._windows = windows
        self._numbers: dict[str, int] = {}

    def fold(self, name: str) -> str:
        """Return the last part of a name or path, as it is compared."""
        name = file_name(name)
        return name.lower() if self._windows else name

    def add(self, number: int, *names: str) -> None:
        """Make the image known under the last part of each name."""
        for name in names:
            self._numbers.setdefault(self.fold(name), number)

    def find(self, name: str) -> int | None:
        """Return the number of the image of that name."""
        return self._numbers.get(self.fold(name))


def _by_process(recording: Recording) -> Iterator[tuple[int | None, Recording]]:
    """Yield the recording of each process: those that were followed, then any other that has events."""
    events: dict[int | None, list[ImageEvent]] = {process.pid: [] for process in recording.processes}
    for event in recording.events:
        if isinstance(event, ImageEvent):
            events.setdefault(event.pid if event.pid is not None else recording.pid, []).append(event)
    for pid, own in events.items():
        yield pid, replace(recording, events=tuple(own), pid=pid)  # type: ignore[arg-type]


class _ImageBuilder:
    def __init__(self, saved: SavedTrace) -> None:
        self._facts = {facts.path: facts for facts in saved.images}
        self._processes = {process.pid: process for process in saved.recording.processes}
        self._windows = is_windows(saved)
        self._images: list[ImageView] = []
        self._needs: dict[tuple[int, int], NeedSource] = {}
        self._elsewhere: dict[int, tuple[str, ...]] = {}

    def finish(self, subjects: list[str], pids: list[int | None], worked: bool) -> PageImages:
        """Return what was added; the subject that has an image and comes first is looked at first."""
        if worked:
            self._mark_optional()
        needs = tuple(ImageNeed(start, end, source) for (start, end), source in self._needs.items())
        processes = tuple((pid, self._title(pid)) for pid in pids)
        found = PageImages(tuple(self._images), needs, self._elsewhere, processes)
        known = found.numbers_by_name
        focus = next((known[subject] for subject in subjects if subject in known), first_of_interest(found.images))
        return replace(found, focus=focus)

    def add_process(self, pid: int | None, recording: Recording) -> None:
        """Add the images of one process."""
        requesters = _Requesters(ImageNames(self._windows), self._facts)
        left = Counter(event.path for event in recording.unloads)
        first = len(self._images)
        for event in final_events(recording):
            by = requesters.next(event)
            unloaded = isinstance(event, LoadEvent) and left[event.path] > 0
            left[event.path] -= unloaded
            image = image_of_event(event, self._facts.get(event.path), unloaded=unloaded)
            if by is not None:
                self._needs[first + by.place, len(self._images)] = by.source
                image = replace(image, parent=first + by.place)
            self._images.append(replace(image, pid=pid if image.pid is None else image.pid))
        self._add_listed(range(first, len(self._images)))

    def add_concluded(self, finding: Finding) -> None:
        """Add what the verdict says is missing or bad, where no event of the trace says it."""
        chain = finding.chain
        if finding.confidence is Confidence.POSSIBLE or len(chain) < 2 or chain[-1] != finding.subject:
            return
        is_path = file_name(finding.subject) != finding.subject
        names = ImageNames(self._windows)
        for number, image in enumerate(self._images):
            names.add(number, image.path, image.name)
        if not (finding.probes or is_path) or names.find(finding.subject) is not None:
            return
        parent = names.find(chain[-2])
        state = State.FAILED if not finding.probes else State.NOT_FOUND
        if any(probe.outcome is ProbeOutcome.PRESENT for probe in finding.probes):
            state = State.REFUSED
        above = None if parent is None else self._images[parent]
        if parent is not None:
            self._needs[parent, len(self._images)] = NeedSource.VERDICT
        self._images.append(ImageView(
            file_name(finding.subject), finding.subject, state, finding.title, probes=finding.probes, parent=parent,
            requested_by=None if parent is None else chain[-2], concluded=f"the verdict ({finding.code})",
            pid=None if above is None else above.pid, imports=None if above is None else above.imports,
        ))  # fmt: skip

    def _title(self, pid: int | None) -> str:
        process = self._processes.get(pid) if pid is not None else None
        words = () if process is None else process.command or (process.program or "",)
        command = " ".join((file_name(words[0]), *words[1:])) if words else ""
        return ("unknown process" if pid is None else f"process {pid}") + (f": {command}" if command else "")

    def _mark_optional(self) -> None:
        """In a run that worked, a name that was looked for in vain did not matter, unless another image left with it.

        A library that an image lists is required: without it the loader drops that image. A name that was not found
        while its requester stayed was asked for by dlopen, and the caller went on.
        """
        tops = [number for number, _ in roots(self._images)]
        lost = {tops[number] for number, image in enumerate(self._images) if image.state is State.DROPPED}
        for number, image in enumerate(self._images):
            if image.state is State.NOT_FOUND and tops[number] not in lost:
                self._images[number] = replace(image, state=State.OPTIONAL)

    def _add_listed(self, numbers: range) -> None:
        """Add the needs that the files of these images list, and the names that lead to none of them."""
        names = ImageNames(self._windows)
        for number in numbers:
            image = self._images[number]
            names.add(number, image.name, image.path)
            if image.facts is not None and image.facts.soname:
                names.add(number, image.facts.soname)
        elsewhere: defaultdict[int, list[str]] = defaultdict(list)
        for number in numbers:
            facts = self._images[number].facts
            for need in (facts.needs if facts is not None else None) or ():
                end = names.find(need)
                if end is None:
                    elsewhere[number].append(need)
                elif end != number:
                    self._needs.setdefault((number, end), NeedSource.LISTED)
        self._elsewhere |= {number: tuple(needs) for number, needs in elsewhere.items()}


@dataclass(frozen=True)
class _Requester:
    """The requester of an image: the place of its event, and how that is known."""

    place: int
    source: NeedSource


class _Requesters:
    """Finds who asked for the image of each event, among the events before it."""

    def __init__(self, names: ImageNames, facts: Mapping[str, ImageFacts]) -> None:
        self._names = names
        self._facts = facts
        self._count = 0
        self._latest: dict[str, int] = {}
        self._lists: dict[tuple[tuple[str, ...] | None, str], int] = {}

    def next(self, event: FinalEvent) -> _Requester | None:
        """Return the requester of the next event; `None` if no image before it is."""
        place, facts = self._count, self._facts.get(event.path)
        found = self._latest.get(event.requested_by) if event.requested_by is not None else None
        requester = None if found is None else _Requester(found, NeedSource.ASKED)
        if event.requested_by is None:
            names = (event.path, event.need, None if facts is None else facts.soname)
            listed = [self._lists.get((event.imports, self._names.fold(name))) for name in names if name]
            first = min((one for one in listed if one is not None), default=None)
            requester = None if first is None else _Requester(first, NeedSource.LISTED)
        self._count += 1
        self._latest[event.path] = place
        for need in (facts.needs if facts is not None else None) or ():
            self._lists.setdefault((event.imports, self._names.fold(need)), place)
        return requester


_STATES_OF_NEEDS = {
    BindingState.BOUND: State.FOUND,
    BindingState.MISSING: State.NOT_FOUND,
    BindingState.REFUSED: State.REFUSED,
    BindingState.SYSTEM: State.SYSTEM,
}


def images_of_tree(tree: LoadTree) -> PageImages:
    """Return the images of the tree and the names that became none; the parent is the first image that needs it."""
    images: list[ImageView] = []
    needs: dict[tuple[int, int], NeedSource] = {}
    numbers: dict[tuple[BindingState, str], int] = {(BindingState.BOUND, tree.top): 0}
    image = tree.images.get(tree.top)
    facts = None if image is None else _facts_of_file(tree.top, image)
    images.append(ImageView(file_name(tree.top), tree.top, State.FOUND, facts=facts))
    for binding in tree.bindings:
        start = numbers.get((BindingState.BOUND, binding.requested_by))
        key = (binding.state, binding.need)
        if binding.state is BindingState.BOUND and binding.path is not None:
            key = (binding.state, binding.path)
        if key not in numbers:
            numbers[key] = len(images)
            images.append(replace(_image_of_need(tree, binding), parent=start))
        if start is not None and start != numbers[key]:
            needs[start, numbers[key]] = NeedSource.LISTED
    found = tuple(ImageNeed(start, end, source) for (start, end), source in needs.items())
    return PageImages(tuple(images), found, focus=first_of_interest(images))


def _image_of_need(tree: LoadTree, binding: Binding) -> ImageView:
    state = _STATES_OF_NEEDS[binding.state]
    if state.is_bad and (binding.delayed or binding.optional):
        state = State.LATE if binding.delayed else State.OPTIONAL
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
