"""The JSON Schemas: they hold what the renderers write, say so of the same words as the code, and are strict."""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from builders.memory_filesystem import elf_image
from builders.pe_file import build_pe
from builders.saved_case import CRASH, DIAGNOSIS, EVENTS, GONE, hostile_trace, saved_trace
from builders.schema_check import check_schema, problems
from dlltracer.binary.pe import read_pe
from dlltracer.cli.about import gather_info
from dlltracer.cli.commands import cli
from dlltracer.model.check import CheckReport, Problem, Severity
from dlltracer.model.elf import ElfImage
from dlltracer.model.events import DebugEvent, FailureKind, ImageEvent, LoadFailedEvent, Phase, Probe, ProbeOutcome
from dlltracer.model.failure import Crash, Frame, ProcessFacts, PythonError, System
from dlltracer.model.finding import (
    Comparison,
    Confidence,
    Diagnosis,
    Difference,
    DifferenceKind,
    Evidence,
    Finding,
    OrderOutcome,
    OrderSearch,
    OrderTrial,
    Outcome,
    Remedy,
    Source,
)
from dlltracer.model.macho import MachoImage
from dlltracer.model.pe import PeImage
from dlltracer.model.recording import Losses, Recording, TracedProcess
from dlltracer.model.run import HostFacts, ImageFacts, RunResult, SavedTrace, SearchPlaces, SelfTestStep, StepState
from dlltracer.model.tracefile import EarlyLine, EndLine, FailureLine, HeaderLine, early_line, trace_to_lines
from dlltracer.model.tree import Binding, BindingState, LoadTree
from dlltracer.report.render_json import (
    SCHEMA_NAMES,
    bundle_schema,
    read_schema,
    render_deps_json,
    render_diff_json,
    render_jsonl,
    render_order_json,
    render_verdict_json,
)

UNDECIDED = Diagnosis("import m", Outcome.UNDECIDED, crash=CRASH, undecided=("a core file",))
RAW = DebugEvent(uuid.UUID(int=1), 10, b"", b"ab")


def verdict(diagnosis: Diagnosis = DIAGNOSIS) -> Any:
    return json.loads(render_verdict_json(diagnosis))


def deps(tmp_path: Path) -> Any:
    (tmp_path / "a.dll").write_bytes(build_pe(imports={"gone.dll": ["g"]}, exports=["f"]))
    images = {"/x/m.so": elf_image(soname="m.so", runpath="/x"), "C:\\a.dll": read_pe(str(tmp_path / "a.dll"))}
    bindings = (
        Binding("liba.so", "/x/m.so", BindingState.MISSING, phase=Phase.SYSTEM, probes=GONE),
        Binding("k.dll", "C:\\a.dll", BindingState.REFUSED, "/r", delayed=True, reason="no"),
    )
    return json.loads(render_deps_json(LoadTree("/x/m.so", images, bindings, ("a note",))))


def lines(recording: Recording | None = None) -> list[Any]:
    made = recording or replace(saved_trace().recording, events=(*EVENTS, RAW))
    return [json.loads(line) for line in render_jsonl(made, verdict=DIAGNOSIS).splitlines()]


@pytest.mark.parametrize("name", SCHEMA_NAMES)
def test_each_is_a_schema_and_is_printed_whole(name: str) -> None:
    check_schema(name)
    shown = CliRunner().invoke(cli, ["schema", name])
    assert shown.exit_code == 0 and json.loads(shown.output) == bundle_schema(name)
    assert shown.output.isascii()


def test_the_list_of_schemas() -> None:
    shown = CliRunner().invoke(cli, ["schema"])
    assert [line.split()[0] for line in shown.output.splitlines()] == list(SCHEMA_NAMES)
    assert CliRunner().invoke(cli, ["schema", "nope"]).exit_code == 2


def test_what_the_renderers_write_is_described(tmp_path: Path) -> None:
    for diagnosis in (DIAGNOSIS, UNDECIDED, Diagnosis("import m", Outcome.IMPORTED), hostile_trace().diagnosis):
        assert diagnosis is not None and problems("verdict", verdict(diagnosis)) == []
    assert problems("deps", deps(tmp_path)) == []
    for line in (*lines(), *lines(hostile_trace().recording)):
        assert problems("jsonl", line) == [], line
    process = {"type": "process", "pid": 7, "parent": 1, "command": ["x"], "program": "/x", "ended": 1.5, "status": -11}
    assert problems("jsonl", process) == []
    assert problems("info", gather_info()) == []


def diff() -> Any:
    first = Difference(DifferenceKind.MISSING, "liba.so", "loaded from /x/liba.so", "not found", "needed by /x/m.so")
    second = Difference(DifferenceKind.ONLY_ONE, "libb.so", None, "loaded from /x/libb.so")
    return json.loads(render_diff_json(Comparison("A", "B", (first, second), 3, ("a note",))))


def order() -> Any:
    fails, works = OrderTrial(("a", "b"), 1, "was killed by SIGSEGV"), OrderTrial(("b", "a"))
    search = OrderSearch(OrderOutcome.BREAKS, fails, works, (fails, works))
    return json.loads(render_order_json(search, DIAGNOSIS))


def test_differences_and_orders_are_described() -> None:
    assert problems("diff", diff()) == []
    assert problems("order", order()) == []
    assert problems("order", json.loads(render_order_json(OrderSearch(OrderOutcome.NO_ORDER_BREAKS), None))) == []
    assert problems("order", json.loads(render_order_json(OrderSearch(OrderOutcome.BREAKS), None))), "which one?"


def recorded() -> list[Any]:
    whole = whole_trace()
    return [json.loads(line) for line in (*map(early_line, whole.recording.events), *trace_to_lines(whole))]


def whole_trace() -> SavedTrace:
    """One that has a line of every type."""
    made = saved_trace()
    error = PythonError("ImportError", "no", ("ImportError",), frames=(Frame("/a.py", 1, "f", "import m"),))
    assert made.run.process is not None
    process = replace(made.run.process, environment=(("PATH", "/bin"),), added_folders=("C:\\x",))
    places = SearchPlaces((("rpath", "/x"),), (("liba.so", "/x/liba.so"),), 3, ("kernel32.dll",), ("/p.so",), ("n",))
    image = ImageFacts("/x/m.so", 5, 1.5, "1.2", "m.so", "x86-64", ("liba.so",), "p 1", "sha256:00")
    processes = (TracedProcess(7, 1, ("x",), "/x", 1.0, 2.0, -11, CRASH),)
    return replace(
        made, recording=replace(made.recording, events=(*EVENTS, RAW), processes=processes), command=("x",),
        started=1.5, diagnosis=DIAGNOSIS, case={"version": 1}, images=(image,), places=places,
        run=RunResult(errors=(error,), process=process, crash=CRASH, status=-11), problems=("torn",),
        steps=(
            SelfTestStep(group="g", name="n", expected="e", state=StepState.FAILED, reason="r", facts=(("a", "b"),)),
        ),
    )  # fmt: skip


def test_lines_of_a_recording_are_described() -> None:
    written = recorded()
    others = {
        "recording", "process", "early", "interpreter", "failure", "crash", "places", "image", "verdict", "case", "end",
        "step",
    }  # fmt: skip
    assert {line["type"] for line in written} == {"load", "failed", "unload", "debug"} | others
    for line in (*written, *map(json.loads, trace_to_lines(hostile_trace()))):
        assert problems("recording", line) == [], line
    for line in written:
        assert problems("recording", {**line, "type": "nothing"}), line["type"]
        for key, value in line.items():
            wrong = {"wrong": True} if not isinstance(value, dict) else ["wrong"]
            assert problems("recording", {**line, key: wrong}), (line["type"], key)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("recording", HeaderLine), ("host", HostFacts), ("facts", ProcessFacts), ("failure", FailureLine),
        ("crash", Crash), ("places", SearchPlaces), ("image", ImageFacts), ("early", EarlyLine), ("end", EndLine),
        ("step", SelfTestStep),
    ],
)  # fmt: skip
def test_lines_of_a_recording_have_the_fields_of_the_values(name: str, kind: Any) -> None:
    known = {field.name for field in fields(kind)} | ({"type"} if name != "host" else set())
    described = read_schema("recording")["$defs"][name]
    assert set(described["properties"]) == known
    assert set(described["required"]) >= {field.name for field in fields(kind) if "None" not in str(field.type)}


def mutations(value: Any, place: tuple[object, ...] = ()) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Every place of the value, to be taken away or made something else."""
    if place:
        yield "wrong type", place
    if isinstance(value, dict):
        for key, item in value.items():
            yield "missing", (*place, key)
            yield from mutations(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:2]):
            yield from mutations(item, (*place, index))


def mutate(value: Any, what: str, place: tuple[object, ...]) -> Any:
    changed = copy.deepcopy(value)
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    if what == "missing":
        del inner[place[-1]]
    else:
        inner[place[-1]] = {"wrong": True} if not isinstance(inner[place[-1]], dict) else ["wrong"]
    return changed


OPTIONAL = re.compile(
    r"display_path|base|size|timestamp|pid|tid|need|requested_by|phase|probes|imports|checksum|link_time|kind|reason"
    r"|origin|source|name|path|code|image|offset|thread|fault_address|command|error|crash|soname|runpath|rpath"
    r"|interpreter|export_name|c_library|remedy|first|second|failed_at|works|verdict"
)
"""Keys that are left out when their value is not known: not an error when they are missing, in some object at least."""


def refused(name: str, value: Any) -> None:
    """Every wrong type is refused, and every missing key that an object cannot be without."""
    counted = 0
    for what, place in mutations(value):
        if name == "info" and place[0] in ("environment", "packages") and len(place) == 2 and what == "missing":
            continue
        if what == "missing" and OPTIONAL.fullmatch(str(place[-1])):
            continue
        assert problems(name, mutate(value, what, place), closed=False), (what, place)
        counted += 1
    assert counted > 5, "something was tried"


def test_wrong_types_and_missing_keys_are_refused(tmp_path: Path) -> None:
    refused("verdict", verdict())
    refused("verdict", verdict(UNDECIDED))
    refused("deps", deps(tmp_path))
    refused("info", gather_info())
    refused("diff", diff())
    refused("order", order())
    head, load, *_, raw, _, summary = lines()
    for line in (head, load, raw, summary):
        refused("jsonl", line)
    for name, value in (("verdict", verdict()), ("deps", deps(tmp_path)), ("jsonl", load)):
        assert problems(name, {**value, "a_later_key": 1}, closed=False) == [], "a later version may add keys"


def test_what_has_a_value_but_the_wrong_one_is_refused(tmp_path: Path) -> None:
    assert problems("verdict", {**verdict(), "version": 2})
    assert problems("verdict", {**verdict(), "outcome": "fine"})
    assert problems("verdict", {**verdict(), "findings": []}), "explained means that there is a cause"
    assert problems("jsonl", {**lines()[1], "base": -1})
    assert problems("jsonl", {**lines()[1], "phase": "magic"})
    assert problems("jsonl", {"type": "nothing"})


def find(schema: Any, *path: str) -> Any:
    for step in path:
        schema = schema[step]
    return schema


ENUMS: tuple[tuple[str, tuple[str, ...], type[Enum]], ...] = (
    ("common", ("$defs", "phase"), Phase),
    ("common", ("$defs", "probe", "properties", "outcome"), ProbeOutcome),
    ("common", ("$defs", "failed", "properties", "kind"), FailureKind),
    ("verdict", ("properties", "outcome"), Outcome),
    ("verdict", ("$defs", "finding", "properties", "confidence"), Confidence),
    ("verdict", ("$defs", "finding", "properties", "evidence", "items", "properties", "source"), Source),
    ("deps", ("$defs", "binding", "properties", "state"), BindingState),
    ("diff", ("$defs", "difference", "properties", "kind"), DifferenceKind),
    ("check", ("$defs", "problem", "properties", "severity"), Severity),
    ("order", ("properties", "outcome"), OrderOutcome),
    ("recording", ("$defs", "facts", "properties", "system"), System),
    ("recording", ("$defs", "step", "properties", "state"), StepState),
)


@pytest.mark.parametrize(("name", "path", "kind"), ENUMS)
def test_words_are_those_of_the_code(name: str, path: tuple[str, ...], kind: type[Enum]) -> None:
    assert sorted(find(read_schema(name), *path)["enum"]) == sorted(member.value for member in kind)


def test_no_list_of_words_goes_unchecked() -> None:
    def words(schema: Any) -> Iterator[list[str]]:
        if isinstance(schema, dict):
            if isinstance(schema.get("enum"), list) and isinstance(schema["enum"][0], str):
                yield schema["enum"]
            for item in schema.values():
                yield from words(item)
        elif isinstance(schema, list):
            for item in schema:
                yield from words(item)

    found = [enum for name in SCHEMA_NAMES for enum in words(read_schema(name))]
    checked = [find(read_schema(name), *path)["enum"] for name, path, _ in ENUMS]
    assert [enum for enum in found if enum not in checked] == [["system", "venv", "conda"]]


LEFT_OUT = {"symbols", "exports", "imports", "segments", "resources", "version_needs", "version_defs"}


@pytest.mark.parametrize(
    ("name", "path", "kind", "more"),
    [
        ("common", ("probe",), Probe, set()),
        ("common", ("load",), ImageEvent, {"type"}),
        ("common", ("unload",), ImageEvent, {"type"}),
        ("common", ("failed",), LoadFailedEvent, {"type"}),
        ("common", ("debug",), DebugEvent, {"type"}),
        ("common", ("losses",), Losses, set()),
        ("common", ("frame",), Frame, set()),
        ("common", ("error",), PythonError, set()),
        ("common", ("crash",), Crash, set()),
        ("common", ("process",), TracedProcess, {"type"}),
        ("verdict", ("finding",), Finding, set()),
        ("verdict", ("finding", "properties", "evidence", "items"), Evidence, set()),
        ("verdict", ("finding", "properties", "remedies", "items"), Remedy, set()),
        ("deps", ("binding",), Binding, set()),
        ("diff", ("difference",), Difference, set()),
        ("check", ("target",), CheckReport, set()),
        ("check", ("problem",), Problem, set()),
        ("order", ("trial",), OrderTrial, set()),
        ("deps", ("elf",), ElfImage, {"type", "path"}),
        ("deps", ("pe",), PeImage, {"type", "path"}),
        ("deps", ("macho",), MachoImage, {"type", "path"}),
    ],
)
def test_keys_are_the_fields_of_the_values(name: str, path: tuple[str, ...], kind: Any, more: set[str]) -> None:
    schema = find(read_schema(name), "$defs", *path)
    known = {field.name for field in fields(kind)}
    known -= LEFT_OUT if name == "deps" and path != ("binding",) else set()
    assert set(schema["properties"]) == known | more
    always = {field.name for field in fields(kind) if "None" not in str(field.type)} & known
    assert set(schema["required"]) >= always | (more & {"path"}), "what is always known is required"


def test_the_verdict_has_the_fields_of_a_diagnosis() -> None:
    known = {field.name for field in fields(Diagnosis)}
    assert set(read_schema("verdict")["properties"]) == known | {"type", "version"}
