"""Saved traces made by hand, and names that want to be more than names."""

from __future__ import annotations

from dataclasses import replace

from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent, Phase, Probe, ProbeOutcome, UnloadEvent
from dlltracer.model.failure import Crash, Frame, ProcessFacts, PythonError, System
from dlltracer.model.finding import Confidence, Diagnosis, Evidence, Finding, Outcome, Remedy, Source
from dlltracer.model.recording import Recording, TracedProcess
from dlltracer.model.run import HostFacts, RunResult, SavedTrace

HOSTILE = (
    '/x/"quoted".so',
    "/x/back\\slash\\n.so",
    "/x/`ticks```.so",
    "/x/pipe|pipe.so",
    "/x/<script>alert(1)</script>.so",
    "/x/@everyone [a](http://b) #12.so",
    "/x/%0A::error::.so",
    "/x/new\nline\r.so",
    "/x/\x1b[31mred\u202e.so",
    "/x/lone\udcff.so",
    "/x/a;b&amp;c#35;{}[]()-->end.so",
    "/x/- 1. __init__.so",
    "/x/%%{init: {}}%%.so",
)
"""Paths that a terminal, DOT, Mermaid, Markdown or a workflow command would take for something else."""

APP = "/app/mod.so"
GONE = (
    Probe("/app/libgone.so", Phase.RUNPATH, APP, ProbeOutcome.ABSENT),
    Probe("/etc/ld.so.cache", Phase.CACHE, "/etc/ld.so.cache", ProbeOutcome.NO_ENTRY),
    Probe("/lib/libgone.so", Phase.SYSTEM, outcome=ProbeOutcome.PRESENT, reason="wrong machine"),
)

EVENTS = (
    LoadEvent(APP, base=0x1000, size=10, timestamp=100.0, pid=7, tid=7, need=APP, phase=Phase.DIRECT, imports=("m",)),
    LoadEvent(
        "/lib/liba.so", timestamp=100.0, pid=7, tid=7, need="liba.so", requested_by=APP, phase=Phase.CACHE,
        probes=(Probe("/lib/liba.so", Phase.CACHE, "/etc/ld.so.cache", ProbeOutcome.LOADED),), imports=("m",),
    ),
    LoadFailedEvent(
        "libgone.so", timestamp=100.0, pid=7, tid=7, need="libgone.so", requested_by=APP, probes=GONE, imports=("m",),
        kind=FailureKind.NOT_FOUND,
    ),
    LoadFailedEvent(APP, pid=7, tid=7, imports=("m",), kind=FailureKind.DROPPED),
    LoadEvent("/app/in.so", timestamp=100.5, pid=7, tid=7, need="/app/in.so", phase=Phase.DIRECT, imports=("n", "n.i")),
    UnloadEvent("/app/in.so", timestamp=101.0, pid=7, tid=8, imports=()),
)  # fmt: skip

PROCESS = ProcessFacts(System.LINUX, (3, 11, 7), (".so",), 64, "/usr/bin/python3", "/usr", "/usr", is_debug=True)
HOST = HostFacts("linux", "Debian GNU/Linux 12", "x86_64", "glibc 2.36")
ERROR = PythonError(
    "ImportError", "libgone.so: cannot open", ("ImportError", "Exception"), name="m", path=APP,
    frames=(Frame("/ws/run.py", 3, "<module>", "import m"), Frame("<string>", 1, "f"), Frame("/usr/lib/m.py", 9, "g")),
)  # fmt: skip
FINDING = Finding(
    code="missing-image",
    title="libgone.so was not found",
    confidence=Confidence.CERTAIN, subject="libgone.so", chain=("import m", APP, "libgone.so"), probes=GONE,
    explanation="mod.so cannot be loaded without it.",
    evidence=(Evidence(Source.LOADER, "it gave up"),),
    remedies=(Remedy("install it", ("apt", "install", "gone")), Remedy("or not")),
)  # fmt: skip
DIAGNOSIS = Diagnosis("import m", Outcome.EXPLAINED, ERROR, findings=(FINDING,), notes=("a note",))
CRASH = Crash(11, "SIGSEGV", 0x1234, APP, 0x234, 7, None)


def saved_trace(**fields: object) -> SavedTrace:
    """A trace with a failure, its verdict and all facts; `fields` replaces some."""
    recording = Recording("rtld", EVENTS, pid=7, notes=("a note",))
    made = SavedTrace(
        recording, "import m", "0.1.0", started=99.5, host=HOST,
        run=RunResult(process=PROCESS, status=1), diagnosis=DIAGNOSIS,
    )  # fmt: skip
    return replace(made, **fields)  # type: ignore[arg-type]


def trace_of(*events: object, **fields: object) -> SavedTrace:
    """A trace of these events and no verdict."""
    return saved_trace(recording=Recording("rtld", events, pid=7), diagnosis=None, **fields)  # type: ignore[arg-type]


def hostile_trace() -> SavedTrace:
    """Every hostile name as a path, a need, an import, a reason, a process, a note, and in the verdict."""
    events = []
    for name in HOSTILE:
        events.append(LoadEvent(name, pid=7, need=name, imports=(name,)))
        events.append(
            LoadFailedEvent(f"{name}2", pid=8, need=f"{name}2", imports=(name,), kind=FailureKind.REFUSED, reason=name)
        )
    finding = replace(FINDING, title=" ".join(HOSTILE), chain=HOSTILE, explanation=" ".join(HOSTILE))
    error = replace(ERROR, message="\n".join(HOSTILE), frames=(Frame(HOSTILE[6], 1, "f"),))
    processes = tuple(TracedProcess(pid, command=HOSTILE) for pid in (7, 8))
    return saved_trace(
        recording=Recording("rtld", tuple(events), pid=7, notes=HOSTILE, processes=processes), what=HOSTILE[2],
        diagnosis=replace(DIAGNOSIS, what=HOSTILE[2], findings=(finding,), error=error, notes=HOSTILE),
        host=replace(HOST, description=HOSTILE[3]), written_by=HOSTILE[3], problems=HOSTILE,
    )  # fmt: skip
