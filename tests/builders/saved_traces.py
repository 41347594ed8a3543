"""Saved traces made by hypothesis: every line of a recording file, with every field that it can have."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from dlltracer.model.events import (
    DebugEvent,
    FailureKind,
    LoadEvent,
    LoadFailedEvent,
    Phase,
    Probe,
    ProbeOutcome,
    UnloadEvent,
)
from dlltracer.model.failure import Crash, Frame, ProcessFacts, PythonError, System
from dlltracer.model.finding import Confidence, Diagnosis, Evidence, Finding, Outcome, Remedy, Source
from dlltracer.model.recording import Losses, Recording, TracedProcess
from dlltracer.model.run import HostFacts, ImageFacts, RunResult, SavedTrace, SearchPlaces
from dlltracer.model.tracereader import TraceReader

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For tests that make whole traces: that takes its time on a machine that does other things as well."""

# With lone surrogates: an undecodable byte of a file name is one. With ends of lines: a name may have one.
TEXTS = st.text(st.characters(codec=None), max_size=12) | st.sampled_from(["\n", '"type"', "\u2028", "{}"])
NUMBERS = st.integers(0, 2**64 - 1)
STATUSES = st.integers(-64, 2**32 - 1)
TIMES = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.lists(TEXTS, max_size=3).map(tuple)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), max_size=2).map(tuple)


def maybe(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | values


def rows(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(values, max_size=2).map(tuple)


PROBES = st.builds(Probe, TEXTS, st.sampled_from(Phase), maybe(TEXTS), st.sampled_from(ProbeOutcome), maybe(TEXTS))
FIELDS = {
    "path": TEXTS, "display_path": maybe(TEXTS), "base": maybe(NUMBERS), "size": maybe(NUMBERS),
    "timestamp": maybe(TIMES), "pid": maybe(NUMBERS), "tid": maybe(NUMBERS), "need": maybe(TEXTS),
    "requested_by": maybe(TEXTS), "phase": maybe(st.sampled_from(Phase)), "probes": maybe(rows(PROBES)),
    "imports": maybe(NAMES), "checksum": maybe(NUMBERS), "link_time": maybe(NUMBERS),
}  # fmt: skip
EVENTS = st.one_of(
    st.builds(LoadEvent, **FIELDS),
    st.builds(UnloadEvent, **FIELDS),
    st.builds(LoadFailedEvent, **FIELDS, kind=maybe(st.sampled_from(FailureKind)), reason=maybe(TEXTS)),
    st.builds(DebugEvent, st.uuids(), st.integers(0, 255), st.binary(max_size=4), st.binary(max_size=8)),
)
CRASHES = st.builds(
    Crash, NUMBERS, TEXTS, NUMBERS, maybe(TEXTS), maybe(NUMBERS), maybe(NUMBERS), maybe(NUMBERS)
)  # fmt: skip
PROCESSES = st.builds(
    TracedProcess, NUMBERS, maybe(NUMBERS), maybe(NAMES), maybe(TEXTS), maybe(TIMES), maybe(TIMES), maybe(STATUSES),
    maybe(CRASHES),
)  # fmt: skip
RECORDINGS = st.builds(
    Recording, TEXTS, rows(EVENTS), maybe(NUMBERS), st.builds(Losses, NUMBERS, NUMBERS, NUMBERS), NAMES,
    st.lists(PROCESSES, max_size=3, unique_by=lambda process: process.pid).map(tuple),
)  # fmt: skip
FRAMES = st.builds(Frame, TEXTS, NUMBERS, TEXTS, maybe(TEXTS))
ERRORS = st.builds(PythonError, TEXTS, TEXTS, NAMES, maybe(TEXTS), maybe(TEXTS), maybe(NUMBERS), rows(FRAMES))
INTERPRETERS = st.builds(
    ProcessFacts, st.sampled_from(System), st.tuples(NUMBERS, NUMBERS, NUMBERS), NAMES, NUMBERS, TEXTS, TEXTS, TEXTS,
    path=NAMES, loaded=NAMES, environment=PAIRS, current_folder=TEXTS, added_folders=NAMES, user_base=maybe(TEXTS),
    is_debug=st.booleans(), is_secure=st.booleans(), start_environment=maybe(PAIRS), address_space=maybe(NUMBERS),
)  # fmt: skip
FINDINGS = st.builds(
    Finding, code=TEXTS, title=TEXTS, confidence=st.sampled_from(Confidence), subject=TEXTS, chain=NAMES,
    probes=rows(PROBES), explanation=TEXTS, evidence=rows(st.builds(Evidence, st.sampled_from(Source), TEXTS)),
    remedies=rows(st.builds(Remedy, TEXTS, NAMES, TEXTS)),
)  # fmt: skip
DIAGNOSES = st.builds(
    Diagnosis, TEXTS, st.sampled_from(Outcome), maybe(ERRORS), maybe(CRASHES), rows(FINDINGS), NAMES, NAMES
)  # fmt: skip
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | TIMES | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
SAVED_TRACES = st.builds(
    SavedTrace, RECORDINGS, TEXTS, TEXTS, maybe(TIMES),
    maybe(st.builds(HostFacts, TEXTS, TEXTS, TEXTS, maybe(TEXTS), maybe(TEXTS))),
    st.builds(
        RunResult, process=maybe(INTERPRETERS), errors=rows(ERRORS), crash=maybe(CRASHES), status=maybe(STATUSES)
    ),
    maybe(DIAGNOSES), maybe(st.dictionaries(TEXTS, PLAIN, max_size=2)),
    rows(
        st.builds(
            ImageFacts, TEXTS, maybe(NUMBERS), maybe(TIMES), maybe(TEXTS), maybe(TEXTS), maybe(TEXTS), maybe(NAMES),
            maybe(TEXTS), maybe(TEXTS),
        )
    ),
    problems=st.lists(TEXTS, max_size=2, unique=True).map(tuple),
    command=NAMES,
    places=maybe(st.builds(SearchPlaces, PAIRS, PAIRS, maybe(NUMBERS), NAMES, NAMES, NAMES)),
)  # fmt: skip


def read_lines(lines: Iterable[bytes]) -> SavedTrace:
    """Return the trace in the lines of a file, ends of lines included. Raises `NotARecording`, and nothing else."""
    reader = TraceReader()
    for line in lines:
        reader.add(line)
    return reader.finish()
