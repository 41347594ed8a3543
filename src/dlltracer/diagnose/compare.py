"""What differs between a trace of a machine where it works and one of a machine where it does not. Pure."""

from __future__ import annotations

import ntpath
import posixpath
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from ..model.environment import without_hash
from ..model.events import FailureKind, LoadEvent, LoadFailedEvent, UnloadEvent
from ..model.finding import Comparison, Difference, DifferenceKind
from ..model.recording import UNKNOWN, Recording
from ..model.run import ImageFacts, SavedTrace
from ..model.words import describe_crash, describe_end

_EXTENSION_TAG = re.compile(r"\.(?:cpython-\d+[a-z]*|cp\d+[a-z]*|abi3|pypy\d+)[^/\\]*?(?=\.(?:so|pyd)$)")
_VERSION = re.compile(r"(?:\.so)(?:\.\d+)*$|[-_.]?\d[\d_.]*(?=(?:\.dll)$)|(?:\.dll|\.pyd)$")
_HOME = re.compile(r"^(?:/home/[^/]+|/root|/Users/[^/]+|[A-Za-z]:\\Users\\[^\\]+)(?=[/\\]|$)", re.I)
_PYTHON_FOLDER = re.compile(r"([/\\])(?:lib|Lib)[/\\](?:python3\.\d+t?[/\\])?(?=(?:site|dist)-packages(?:[/\\]|$))")


@dataclass(frozen=True)
class _Seen:
    """An image that stayed loaded, or a name that did not: its event, and its place in the order of loads."""

    event: LoadEvent | LoadFailedEvent
    position: int

    @property
    def path(self) -> str:
        return self.event.shown_path

    @property
    def is_loaded(self) -> bool:
        return isinstance(self.event, LoadEvent)

    @property
    def is_mapped(self) -> bool:
        """True if a file was found and taken, if only to be dropped when another load failed."""
        return self.is_loaded or (isinstance(self.event, LoadFailedEvent) and self.event.kind is FailureKind.DROPPED)


def compare_traces(first: SavedTrace, second: SavedTrace, names: tuple[str, str] = ("first", "second")) -> Comparison:
    """Compare the first processes of two traces.

    Arguments: `names`, what the traces are called. Images correspond by base name, without what names a Python version;
    then, among those left, by library, without its version. Places correspond when they are the same, or the same below
    the prefix, the home folder or the current folder of each.
    """
    here, there = _images_of(first.recording), _images_of(second.recording)
    pairs, only_here, only_there = _match(here, there)
    facts = tuple({image.path: image for image in trace.images} for trace in (first, second))
    places = (_roots_of(first), _roots_of(second))
    found: list[Difference] = [*_compare_outcome(first, second)]
    same = 0
    for one, other in pairs:
        difference = _compare_pair(one, other, facts, places)
        if difference is None:
            same += one.is_loaded
        else:
            found.append(difference)
    for image in only_here:
        found.append(_only(image, None, facts[0]))
    for image in only_there:
        found.append(_only(None, image, facts[1]))
    found += _compare_order([pair for pair in pairs if pair[0].is_loaded and pair[1].is_loaded])
    found += _compare_environment(first, second)
    ranks = {kind: rank for rank, kind in enumerate(DifferenceKind)}
    # Of copies, first those that another rule found: a folder that wins over the usual ones. Of what only one loaded,
    # first what the other had, and dropped.
    behind = {DifferenceKind.OTHER_COPY: lambda one: not one.detail, DifferenceKind.ONLY_ONE: _is_one_sided}
    found.sort(key=lambda one: (ranks[one.kind], behind.get(one.kind, bool)(one)))
    return Comparison(*names, tuple(found), same, _notes(first, second, names))


def _notes(first: SavedTrace, second: SavedTrace, names: tuple[str, str]) -> tuple[str, ...]:
    notes = []
    for trace, name in zip((first, second), names, strict=True):
        others = len(trace.recording.processes) - 1
        if others > 0:
            notes.append(f"{name}: only its first process is compared, not the {others} others")
        if trace.recording.losses:
            notes.append(f"{name}: evidence was lost, so that what seems to be missing may have been loaded")
        notes += [f"{name}: {problem}" for problem in trace.problems]
        if trace.run.process is None and any(one.run.process is not None for one in (first, second)):
            notes.append(f"{name}: it says nothing of the interpreter and its environment")
        if not trace.images:
            notes.append(f"{name}: it says nothing of the files: other versions in the same place are not seen")
    backends = {first.recording.backend, second.recording.backend}
    if len(backends) == 2 and UNKNOWN not in backends:
        notes.append(
            f"the mechanisms are not the same ({first.recording.backend}, {second.recording.backend}): "
            "one may see what the other cannot"
        )
    return tuple(dict.fromkeys(notes))


def _images_of(recording: Recording) -> list[_Seen]:
    """Return the state of each image and name in the first process, in the order of their first events."""
    last: dict[str, _Seen] = {}
    for position, event in enumerate(recording.events):
        if recording.pid is not None and getattr(event, "pid", None) not in (None, recording.pid):
            continue
        if isinstance(event, UnloadEvent):
            continue  # that it left later does not matter: it was found
        if isinstance(event, LoadEvent | LoadFailedEvent):
            before = last.get(event.path)
            last[event.path] = _Seen(event, position if before is None else before.position)
    return list(last.values())


def _match(here: list[_Seen], there: list[_Seen]) -> tuple[list[tuple[_Seen, _Seen]], list[_Seen], list[_Seen]]:
    """Pairs, in the order of the first trace, and what is left on both sides."""
    pairs: list[tuple[_Seen, _Seen]] = []
    keys: tuple[Callable[[str], str], ...] = (str, name_key, stem_key)
    for key in keys:
        waiting: dict[str, deque[_Seen]] = {}
        for image in there:
            waiting.setdefault(key(image.path), deque()).append(image)
        left = []
        for image in here:
            candidates = waiting.get(key(image.path))
            if candidates:
                pairs.append((image, candidates.popleft()))
            else:
                left.append(image)
        here = left
        there = sorted((image for images in waiting.values() for image in images), key=lambda image: image.position)
    pairs.sort(key=lambda pair: pair[0].position)
    return pairs, here, there


def _compare_pair(
    one: _Seen, other: _Seen, facts: tuple[Mapping[str, ImageFacts], ...], places: tuple[_Roots, _Roots]
) -> Difference | None:
    name = _base_name(one.path)
    is_same_place = one.path == other.path or places[0].relative(one.path) == places[1].relative(other.path)
    if one.is_loaded != other.is_loaded and (is_same_place or not (one.is_mapped and other.is_mapped)):
        kind = DifferenceKind.ONLY_ONE if one.is_mapped and other.is_mapped else DifferenceKind.MISSING
        return Difference(kind, name, _fate(one), _fate(other), _why(one, other))
    if not one.is_loaded and not other.is_loaded:
        return None  # it failed in both: the same trouble, or none
    about = facts[0].get(one.event.path), facts[1].get(other.event.path)
    versions = [_identity(fact) for fact in about]
    if not is_same_place:
        rules = [f"found by {image.event.phase.value}" for image in (one, other) if image.event.phase is not None]
        detail = "" if len(rules) < 2 or rules[0] == rules[1] else f"{rules[0]} in the first, {rules[1]} in the second"
        if one.is_loaded != other.is_loaded:
            where = "second" if one.is_loaded else "first"
            detail = "; ".join(filter(None, (detail, f"dropped in the {where} because a load failed")))
        shown = [path if version is None else f"{path} ({version})" for path, version in zip(
            (one.path, other.path), versions, strict=True)]  # fmt: skip
        return Difference(DifferenceKind.OTHER_COPY, name, shown[0], shown[1], detail)
    if None not in versions and versions[0] != versions[1]:
        return Difference(DifferenceKind.OTHER_VERSION, name, versions[0], versions[1])
    return None


def _identity(fact: ImageFacts | None) -> str | None:
    """Return a key that tells one build of a file from another: the version where there is one, and the content or the
    size."""
    if fact is None:
        return None
    content = fact.digest or (f"{fact.size} bytes" if fact.size is not None else None)
    parts = [part for part in (fact.file_version, fact.package, content) if part]
    return ", ".join(parts) or None


def _fate(image: _Seen) -> str:
    if isinstance(image.event, LoadEvent):
        return f"loaded from {image.path}"
    words = {
        FailureKind.NOT_FOUND: "not found",
        FailureKind.NAME_NOT_FOUND: "not found by ctypes.util.find_library",
        FailureKind.REFUSED: "refused",
        FailureKind.DROPPED: "dropped because another one failed" if image.event.reason is None else "failed",
    }
    fate = words[image.event.kind] if image.event.kind is not None else "failed"
    return f"{fate}: {image.event.reason}" if image.event.reason else fate


def _is_one_sided(difference: Difference) -> bool:
    return difference.first is None or difference.second is None


def _why(one: _Seen, other: _Seen) -> str:
    failed = other if one.is_loaded else one
    sentences = []
    if failed.event.requested_by:
        sentences.append(f"needed by {failed.event.requested_by}")
    places = len(failed.event.probes or ())
    if places:
        sentences.append(f"looked for in {places} {'place' if places == 1 else 'places'}")
    return ", ".join(sentences)


def _only(here: _Seen | None, there: _Seen | None, facts: Mapping[str, ImageFacts]) -> Difference:
    image = here or there
    assert image is not None
    fate = _fate(image)
    fact = facts.get(image.event.path)
    if fact is not None and fact.package:
        fate += f" (of {fact.package})"
    # A name that only one trace looked for in vain is as telling as one that is missing from it.
    is_missing = isinstance(image.event, LoadFailedEvent) and image.event.kind is not FailureKind.DROPPED
    kind = DifferenceKind.MISSING if is_missing else DifferenceKind.ONLY_ONE
    detail = f"needed by {image.event.requested_by}" if image.event.requested_by else ""
    return Difference(kind, _base_name(image.path), fate if here else None, fate if there else None, detail)


def _compare_order(pairs: list[tuple[_Seen, _Seen]]) -> list[Difference]:
    """The fewest images whose moving would make the orders the same."""
    keep = longest_rising([other.position for _, other in pairs])
    before = {index: pairs[index - 1][0] for index in range(1, len(pairs))}
    order = sorted(range(len(pairs)), key=lambda index: pairs[index][1].position)
    previous = {index: pairs[order[rank - 1]][1] for rank, index in enumerate(order) if rank}
    return [
        Difference(
            DifferenceKind.OTHER_ORDER, _base_name(one.path), _behind(before.get(index)), _behind(previous.get(index)),
        )
        for index, (one, _) in enumerate(pairs)
        if index not in keep
    ]


def _behind(image: _Seen | None) -> str:
    return f"loaded after {_base_name(image.path)}" if image is not None else "loaded first"


def longest_rising(numbers: list[int]) -> set[int]:
    """Indices of a longest rising subsequence (patience sorting, in n log n)."""
    tops: list[int] = []
    values: list[int] = []
    behind: list[int] = []
    for index, number in enumerate(numbers):
        place = bisect_left(values, number)
        behind.append(tops[place - 1] if place else -1)
        if place == len(tops):
            tops.append(index)
            values.append(number)
        else:
            tops[place], values[place] = index, number
    kept: set[int] = set()
    index = tops[-1] if tops else -1
    while index >= 0:
        kept.add(index)
        index = behind[index]
    return kept


def _compare_outcome(first: SavedTrace, second: SavedTrace) -> Iterator[Difference]:
    """Yield a difference if the programs did not end alike."""
    one, other = _outcome(first), _outcome(second)
    if one != other:
        yield Difference(DifferenceKind.OUTCOME, "the program", one, other)


def _outcome(trace: SavedTrace) -> str:
    diagnosis = trace.diagnosis
    if diagnosis is not None and diagnosis.findings:
        return f"failed: {diagnosis.findings[0].title} [{diagnosis.findings[0].code}]"
    if trace.run.crash is not None:
        return f"crashed: {describe_crash(replace(trace.run.crash, offset=None))}"
    if trace.run.errors:
        error = trace.run.errors[0]
        return f"failed: {error.type}: {error.message}"
    if trace.run.status is None:
        return "not known"
    return "ended well" if trace.run.status == 0 else describe_end(trace.run.status)


def _compare_environment(first: SavedTrace, second: SavedTrace) -> Iterator[Difference]:
    """The machine, Python, the variables and folders by which loaders search; what only one trace knows is no
    difference."""
    traces = (first, second)
    known = all(one.host is not None for one in traces), all(one.run.process is not None for one in traces)
    one, other = dict(_facts(first, *known)), dict(_facts(second, *known))
    for name in dict.fromkeys((*one, *other)):
        if one.get(name) != other.get(name):
            yield Difference(DifferenceKind.ENVIRONMENT, name, one.get(name), other.get(name))
    for name, places, places_there in _lists(first, second):
        gone = [place for place in places if place not in places_there]
        new = [place for place in places_there if place not in places]
        if gone or new:
            yield Difference(
                DifferenceKind.ENVIRONMENT, name, "; ".join(gone) or "nothing else", "; ".join(new) or "nothing else",
                "folders that only one of them has",
            )  # fmt: skip
        elif places != places_there:
            shown = "; ".join(places), "; ".join(places_there)
            yield Difference(DifferenceKind.ENVIRONMENT, name, *shown, "the same in another order")


def _facts(trace: SavedTrace, of_host: bool, of_process: bool) -> Iterator[tuple[str, str]]:
    if of_host and trace.host is not None:
        yield "system", trace.host.description or trace.host.system
        yield "processor", trace.host.machine
        if trace.host.c_library:
            yield "C library", trace.host.c_library
    process = trace.run.process
    if of_process and process is not None:
        kind = " free-threaded" * process.is_free_threaded + " debug build" * process.is_debug
        yield "Python", f"{'.'.join(map(str, process.version))}, {process.bits}-bit{kind}"
        yield "interpreter", process.executable
        yield from ((name, value) for name, value in process.environment if name not in ("PATH", "LD_LIBRARY_PATH"))


def _lists(first: SavedTrace, second: SavedTrace) -> Iterator[tuple[str, list[str], list[str]]]:
    """Names of lists of folders, and the lists of both; only where both are known."""
    one, other = first.run.process, second.run.process
    if one is None or other is None:
        return
    for name in ("LD_LIBRARY_PATH", "PATH"):
        yield name, _split(one.variable(name), first), _split(other.variable(name), second)
    yield "sys.path", list(one.path), list(other.path)
    yield "os.add_dll_directory", list(one.added_folders), list(other.added_folders)


def _split(value: str, trace: SavedTrace) -> list[str]:
    separator = ";" if trace.host is not None and trace.host.system == "windows" else ":"
    return [part for part in value.split(separator) if part]


@dataclass(frozen=True)
class _Roots:
    """Folders that have other names on each machine, and what each is called here: (folder, name), longest first."""

    folders: tuple[tuple[str, str], ...]
    is_windows: bool

    def relative(self, path: str) -> str:
        """The path in words that mean the same on both machines: "{prefix}/lib/python/site-packages/x.so"."""
        shown = path.lower() if self.is_windows else path
        for folder, name in self.folders:
            separator = "\\" if self.is_windows else "/"
            if shown == folder or shown.startswith(folder.rstrip(separator) + separator):
                shown = name + shown[len(folder.rstrip(separator)) :]
                break
        shown = _HOME.sub("{home}", shown)
        shown = _PYTHON_FOLDER.sub(r"\1lib\1", shown)
        return _EXTENSION_TAG.sub("", shown).replace("\\", "/")


def _roots_of(trace: SavedTrace) -> _Roots:
    """The roots of a trace: those of its interpreter, as far as they are known."""
    is_windows = trace.host is not None and trace.host.system == "windows"
    process = trace.run.process
    found: dict[str, str] = {}
    if process is not None:
        named = (
            (process.current_folder, "{current}"), (process.prefix, "{prefix}"),
            (process.base_prefix, "{base}" if process.base_prefix != process.prefix else "{prefix}"),
            (process.user_base, "{user}"),
        )  # fmt: skip
        for folder, name in named:
            if folder and folder not in ("/", "/usr"):
                found[folder.lower() if is_windows else folder] = name
    # By length: a virtual environment may lie in the current folder, or the other way round.
    return _Roots(tuple(sorted(found.items(), key=lambda item: -len(item[0]))), is_windows)


def _base_name(path: str) -> str:
    """The last part of a path of any system; in lower case for one of Windows."""
    if "\\" in path or path.lower().endswith((".dll", ".pyd", ".exe")):
        return ntpath.basename(path).lower()
    return posixpath.basename(path)


def name_key(path: str) -> str:
    """Return the name of an image without its Python: "_ssl.so" for _ssl.cpython-311-x86_64-linux-gnu.so."""
    return _EXTENSION_TAG.sub("", _base_name(path))


def stem_key(path: str) -> str:
    """Return the name of a library without its version: "libssl" for libssl.so.1.1 and libssl-1a2b3c4d.so.3."""
    return _VERSION.sub("", without_hash(name_key(path)))
