"""Cases made by hand: what the rules get to see, without a loader."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from dlltracer.diagnose.case import Case
from dlltracer.diagnose.engine import diagnose
from dlltracer.diagnose.loader_errors import classify_dlerror
from dlltracer.model.elf import ElfImage, ElfSegment, ElfSymbols, VersionNeed
from dlltracer.model.events import FailureKind, LoadFailedEvent, Phase, Probe, ProbeOutcome
from dlltracer.model.failure import Frame, ProcessFacts, PythonError, System
from dlltracer.model.finding import Diagnosis, Finding
from dlltracer.model.run import ProgramOutput, RunResult
from dlltracer.model.tree import Binding, BindingState, LoadTree

EXT = "/site/ext.so"
PYTHON = "/usr/bin/python3.11"


def process(**changes: Any) -> ProcessFacts:
    """Python 3.11 on x86-64 Linux."""
    facts: dict[str, Any] = {
        "system": System.LINUX,
        "version": (3, 11, 4),
        "suffixes": (".cpython-311-x86_64-linux-gnu.so", ".abi3.so", ".so"),
        "bits": 64,
        "executable": PYTHON,
        "prefix": "/usr",
        "base_prefix": "/usr",
    }
    return ProcessFacts(**{**facts, **changes})


def import_error(message: str, **changes: Any) -> PythonError:
    """What CPython raises when an extension module cannot be loaded."""
    facts: dict[str, Any] = {
        "bases": ("ImportError", "Exception"),
        "name": "ext",
        "path": EXT,
        "frames": (Frame("/app/main.py", 3, "<module>", "import ext"),),
    }
    return PythonError("ImportError", message, **{**facts, **changes})


def case(message: str | None = None, **changes: Any) -> Case:
    """A failed `import ext` on Linux with that message of the loader."""
    facts: dict[str, Any] = {"process": process(), "subject": EXT, "failures": ()}
    if message is not None:
        shown = classify_dlerror(message)
        facts["error"] = import_error(message)
        facts["errors"] = (facts["error"],)
        facts["dl_error"] = shown if shown.problem.name != "UNDECIDED" else None
    return Case(what="import ext", system=System.LINUX, **fields_of_case({**facts, **changes}))


_OF_RUN = frozenset(field.name for field in fields(RunResult))


def fields_of_case(changes: dict[str, Any]) -> dict[str, Any]:
    """Fields of a case: those of the run are gathered in one."""
    if "stderr" in changes:
        changes["output"] = ProgramOutput(stderr=changes.pop("stderr"))
    of_run = {name: changes.pop(name) for name in list(changes) if name in _OF_RUN}
    return {"run": RunResult(**of_run), **changes}


def with_run(made: Case, **changes: Any) -> Case:
    """The case, with some fields of its run replaced."""
    return replace(made, run=replace(made.run, **changes))


def image(**changes: Any) -> ElfImage:
    """An x86-64 shared object that needs nothing and has nothing."""
    facts: dict[str, Any] = {
        "bits": 64, "little_endian": True, "machine": 62, "kind": 3, "abi": 0, "flags": 0, "interpreter": None,
        "soname": None, "needed": (), "rpath": None, "runpath": None, "dynamic_flags": 0, "dynamic_flags_1": 0,
        "segments": (), "version_needs": (), "version_defs": (), "symbols": ElfSymbols((), {}),
    }  # fmt: skip
    return ElfImage(**{**facts, **changes})


def segment(
    kind: int = 1, flags: int = 5, offset: int = 0, address: int = 0, size: int = 4096, align: int = 4096
) -> ElfSegment:
    """A program header."""
    return ElfSegment(kind, flags, offset, address, size, size, align)


def version_need(library: str, version: str) -> VersionNeed:
    return VersionNeed(library, version)


def bound(need: str, path: str, requested_by: str = EXT, phase: Phase = Phase.RUNPATH) -> Binding:
    """A need that an image met."""
    return Binding(
        need, requested_by, BindingState.BOUND, path, phase, (Probe(path, phase, requested_by, ProbeOutcome.LOADED),)
    )


def absent(need: str, requested_by: str = EXT, *probes: Probe) -> Binding:
    """A need that nothing met."""
    places = probes or (Probe(f"/lib/{need}", Phase.SYSTEM, outcome=ProbeOutcome.ABSENT),)
    return Binding(need, requested_by, BindingState.MISSING, probes=places)


def tree(*bindings: Binding, top: str = EXT) -> LoadTree:
    """What loading `top` does."""
    images = {top: image(), **{b.path: image() for b in bindings if b.path is not None}}
    return LoadTree(top, images, bindings)


def not_found(need: str, requested_by: str | None = EXT, **changes: Any) -> LoadFailedEvent:
    """The loader gave up on a name."""
    probes = (Probe(f"/lib/{need}", Phase.SYSTEM, outcome=ProbeOutcome.ABSENT),)
    facts: dict[str, Any] = {"need": need, "requested_by": requested_by, "probes": probes, "imports": ("ext",)}
    return LoadFailedEvent(need, kind=FailureKind.NOT_FOUND, **{**facts, **changes})


def dropped(path: str = EXT, requested_by: str | None = PYTHON) -> LoadFailedEvent:
    """An image that was mapped, and given up because of another."""
    return LoadFailedEvent(path, kind=FailureKind.DROPPED, requested_by=requested_by, imports=("ext",))


def verdict(made: Case) -> Diagnosis:
    """What all rules together say."""
    return diagnose(made)


def first(made: Case) -> Finding:
    """The first finding; fails if there is none."""
    findings = verdict(made).findings
    assert findings, "nothing was found"
    return findings[0]
