"""The top of a page, what happened and why; and its end, where, when and with what the trace was made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ...model.events import Probe, ProbeOutcome
from ...model.finding import Confidence, Diagnosis, Finding, Outcome
from ...model.recording import Losses, TracedProcess
from ...model.run import SavedTrace
from ...model.tree import Binding, LoadTree
from ...model.words import (
    OUTCOMES,
    describe_crash,
    describe_end,
    describe_status,
    shorten,
    size_in_words,
    span_in_words,
    time_in_words,
)
from ..drawing import Rule, fold_places, number
from .graph import PageGraph, PageNodeKind, State

CONFIDENCE = {
    Confidence.CERTAIN: "the evidence leaves no other cause",
    Confidence.LIKELY: "it fits, and nothing contradicts; rarer causes would look the same",
    Confidence.POSSIBLE: "it fits, as other causes would",
}


_PLACES, _RULES, _MISSING = 200, 200, 200
"""Places of a rule, rules, and missing names that the page has."""


@dataclass(frozen=True)
class Headline:
    """`tone` is good, bad or unsure; `over` stands above the title, `under` below it."""

    tone: str
    over: str
    title: str
    under: str


@dataclass(frozen=True)
class PlaceList:
    """Where a rule led: rows of path, words for the outcome, whether a file is there; those folded away as well."""

    title: str
    shown: tuple[tuple[str, str, bool], ...]
    hidden: tuple[tuple[str, str, bool], ...]


def headline_of_trace(saved: SavedTrace, graph: PageGraph) -> Headline:
    """The verdict as a headline; where there is none, how the program ended."""
    diagnosis, counts = saved.diagnosis, counts_of(graph)
    if diagnosis is not None and diagnosis.outcome is not Outcome.IMPORTED:
        if diagnosis.outcome is Outcome.EXPLAINED and diagnosis.findings:
            return Headline("bad", f"{diagnosis.what} failed", diagnosis.findings[0].title, counts)
        if diagnosis.may_have_worked:
            return Headline("unsure", diagnosis.what, "How it ended is not known", counts)
        return Headline("unsure", f"{diagnosis.what} failed", "The evidence does not decide why", counts)
    what = saved.what or (diagnosis.what if diagnosis is not None else "the program")
    tone, title = _ending(saved, sum(image.state.is_bad for _, image in graph.images))
    return Headline(tone, what, title, counts)


def _ending(saved: SavedTrace, bad: int) -> tuple[str, str]:
    """Tone and title for a program that no verdict says anything against; `bad` loads failed."""
    run = saved.run
    if run.crash is not None:
        return "bad", f"It died of {describe_crash(run.crash)}"
    if run.errors and run.status != 0:
        return "bad", f"It ended with {run.errors[0].type}"
    if run.status:
        return "unsure", f"It {describe_end(run.status)}"
    if saved.diagnosis is None and run.status is None:
        return "unsure", "How it ended is not known"
    return (
        "good",
        f"It works, although {number(bad, 'load')} failed on the way" if bad else "It works: nothing to explain",
    )


def headline_of_tree(tree: LoadTree, graph: PageGraph) -> Headline:
    """Whether something is missing."""
    lost = list(dict.fromkeys(binding.need for binding in tree.missing))
    if not lost:
        return Headline("good", tree.top, "Nothing is missing", counts_of(graph))
    title = f"{lost[0]} is missing" if len(lost) == 1 else f"{len(lost)} libraries are missing"
    return Headline("bad", tree.top, title, counts_of(graph))


def counts_of(graph: PageGraph) -> str:
    """How many images of which kind: "13 images: 12 loaded, 1 not found for 3 imports"."""
    states = [image.state for _, image in graph.images]
    parts = [f"{states.count(state)} {state.value}" for state in State if state in states]
    text = f"{number(len(states), 'image')}: {', '.join(parts)}"
    if len(parts) < 2:
        text = f"{number(len(states), 'image')} {states[0].value}" if states else "no image was loaded"
    imports = len({image.imports[0] for _, image in graph.images if image.imports})
    processes = sum(node.kind is PageNodeKind.PROCESS for node in graph.nodes)
    text += f" for {number(imports, 'import')}" if imports else ""
    return f"{text} in {processes} processes" if processes else text


def summary_of_trace(saved: SavedTrace, graph: PageGraph) -> list[tuple[str, str]]:
    """For a run without trouble: labels and values that say what it was, and how much it loaded."""
    images = [image for _, image in graph.images]
    mapped = sum(image.size or 0 for image in images if image.state is State.LOADED)
    times = [image.time for image in images if image.time is not None]
    packages = {image.facts.package for image in images if image.facts is not None and image.facts.package}
    process = saved.run.process
    pairs = (
        ("Images loaded", str(sum(image.state is State.LOADED for image in images))),
        ("Memory they take", size_in_words(mapped) if mapped else ""),
        ("First load to last", span_in_words(max(times) - min(times)) if len(times) > 1 else ""),
        ("From packages", str(len(packages)) if packages else ""),
        ("Python", ".".join(map(str, process.version)) if process is not None else ""),
        ("System", (saved.host.description or saved.host.system) if saved.host is not None else ""),
        ("Traced by", saved.recording.backend),
    )
    return [(label, value) for label, value in pairs if value]


def places_of(probes: Sequence[Probe]) -> tuple[PlaceList, ...]:
    """The places tried in vain, by rule; what is not worth a line is kept apart."""
    vain = [probe for probe in probes if probe.outcome is not ProbeOutcome.LOADED]
    rules = fold_places(vain)[:_RULES]
    return tuple(PlaceList(rule.title, tuple(map(_place, rule.shown[:_PLACES])), _hidden(rule)) for rule in rules)


def _hidden(rule: Rule) -> tuple[tuple[str, str, bool], ...]:
    hidden = (*rule.shown[_PLACES:], *rule.hidden)
    left_out = len(hidden) - _PLACES
    rows = tuple(map(_place, hidden[:_PLACES]))
    return rows if left_out <= 0 else (*rows, (f"… {left_out} more", "", False))


def missing_of_tree(tree: LoadTree) -> list[tuple[Binding, list[str]]]:
    """What fails the load of a tree, each name once, with the paths of all that need it."""
    by_need = groupby(sorted(tree.missing, key=lambda binding: binding.need), key=lambda binding: binding.need)
    found = [list(members) for _, members in by_need]
    if len(found) > _MISSING:
        rest = replace(found[_MISSING][0], need=f"… {len(found) - _MISSING} more names", reason=None, probes=())
        found = [*found[:_MISSING], [rest]]
    return [
        (members[0], shorten([binding.requested_by for binding in members], _PLACES, "more")) for members in found
    ]


def main_and_other(diagnosis: Diagnosis | None) -> tuple[Finding | None, tuple[Finding, ...]]:
    """The cause, if it is known, and the other findings."""
    if diagnosis is None:
        return None, ()
    if diagnosis.outcome is Outcome.EXPLAINED and diagnosis.findings:
        return diagnosis.findings[0], diagnosis.findings[1:]
    return None, diagnosis.findings


def _place(probe: Probe) -> tuple[str, str, bool]:
    why = f": {probe.reason}" if probe.reason else ""
    return probe.path, f"{OUTCOMES[probe.outcome]}{why}", probe.outcome is ProbeOutcome.PRESENT


_PROCESSES, _LINES = 500, 1000
"""Rows of the table of processes, and lines of a list, that the page has."""


@dataclass(frozen=True)
class About:
    """Pairs of label and value; `folded` are the long ones, label and lines. `incomplete`: what is known to be lost."""

    facts: tuple[tuple[str, str], ...]
    folded: tuple[tuple[str, tuple[str, ...]], ...]
    processes: tuple[tuple[str, ...], ...]
    incomplete: tuple[str, ...]
    notes: tuple[str, ...]


def about_trace(saved: SavedTrace) -> About:
    """All of it."""
    diagnosis_notes = saved.diagnosis.notes if saved.diagnosis is not None else ()
    notes = tuple(dict.fromkeys((*saved.recording.notes, *diagnosis_notes)))
    raw = len(saved.recording.raw)
    if raw:
        notes += (f"{number(raw, 'raw event')} of the mechanism are in the trace and not on this page",)
    return About(
        tuple((label, value) for label, value in _facts(saved) if value),
        tuple((label, tuple(shorten(lines, _LINES, "more lines"))) for label, lines in _folded(saved) if lines),
        tuple(_processes(saved.recording.processes)),
        (*_losses(saved.recording.losses), *saved.problems),
        notes,
    )


def _facts(saved: SavedTrace) -> Iterator[tuple[str, str]]:
    host, process = saved.host, saved.run.process
    yield "What ran", saved.what
    yield "Command line", " ".join(saved.command)
    yield "Started", time_in_words(saved.started)
    yield "Ended with", "" if saved.run.status is None else describe_status(saved.run.status)
    yield "Traced by", saved.recording.backend
    yield "dlltracer", saved.written_by
    if host is not None:
        yield "System", host.description or host.system
        yield "Processor", host.machine
        yield "C library", host.c_library or ""
        yield "Machine", host.name or ""
    if process is not None:
        kind = f"{' debug' if process.is_debug else ''}{' free-threaded' if process.is_free_threaded else ''}"
        yield "Python", f"{'.'.join(map(str, process.version))}{kind}, {process.bits} bits"
        yield "Interpreter", process.executable
        yield "Prefix", process.prefix
        yield "Current folder", process.current_folder


def _folded(saved: SavedTrace) -> Iterator[tuple[str, tuple[str, ...]]]:
    process = saved.run.process
    if process is not None:
        yield "Environment of the loader", tuple(f"{name}={value}" for name, value in process.environment)
        yield "Folders of os.add_dll_directory", process.added_folders
        yield "sys.path", process.path
    places = saved.places
    if places is not None:
        yield "Where the loader looks", tuple(f"{rule}: {folder}" for rule, folder in places.folders)
        yield "Of ld.so.cache", tuple(f"{name}: {path}" for name, path in places.cache)
        yield "LD_PRELOAD", places.preload


def _processes(processes: Sequence[TracedProcess]) -> Iterator[tuple[str, ...]]:
    yield from map(_process, processes[:_PROCESSES])
    if len(processes) > _PROCESSES:
        yield ("…", "", f"{len(processes) - _PROCESSES} more processes", "", "", "")


def _process(process: TracedProcess) -> tuple[str, ...]:
    """Cells: process id, parent, what it ran, when it started and ended, how."""
    crash = process.crash
    how = describe_status(process.status)
    if crash is not None:
        how += f": {describe_crash(crash)}"
    return (
        str(process.pid),
        "" if process.parent is None else str(process.parent),
        " ".join(process.command or ()) or process.program or "",
        time_in_words(process.started),
        time_in_words(process.ended),
        how,
    )


def _losses(losses: Losses) -> Iterator[str]:
    if losses.events:
        yield f"{number(losses.events, 'event')} could not be recorded by the system"
    if losses.buffers:
        yield f"{number(losses.buffers, 'buffer')} of events were not delivered by the system"
    if losses.undecodable:
        nouns = "event or line" if losses.undecodable == 1 else "events or lines"
        yield f"{losses.undecodable} {nouns} could not be decoded"
