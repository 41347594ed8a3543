"""`model.light.dataclass` makes what `dataclasses.dataclass(frozen=True)` makes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
import uuid
from typing import get_type_hints

import pytest

from dlltracer.model import light
from dlltracer.model.events import DebugEvent, ImageEvent, LoadEvent, LoadFailedEvent, Probe
from dlltracer.model.failure import Crash, Frame, ProcessFacts, PythonError
from dlltracer.model.recording import Losses, Recording, TracedProcess
from dlltracer.model.request import Request

LIGHT = (
    Crash, DebugEvent, Frame, ImageEvent, LoadFailedEvent, Losses, Probe, ProcessFacts, PythonError, Recording, Request,
    TracedProcess,
)  # fmt: skip


@light.dataclass(frozen=True)
class Light:
    name: str
    count: int = 3

    def __post_init__(self) -> None:
        assert self.count


@dataclasses.dataclass(frozen=True)
class Real:
    name: str
    count: int = 3


@pytest.mark.parametrize("kind", LIGHT)
def test_its_fields_are_those_of_a_dataclass(kind: type) -> None:
    names = [field.name for field in dataclasses.fields(kind)]
    hints = get_type_hints(kind, localns={"uuid": uuid, "Crash": Crash})
    assert tuple(names) == kind.__match_args__ and set(names) == set(hints)
    assert dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    for field in dataclasses.fields(kind):
        assert getattr(kind, field.name, dataclasses.MISSING) == field.default


def test_a_value_behaves_as_that_of_a_dataclass() -> None:
    value, real = Light("a"), Real("a")  # type: ignore[call-arg]
    assert repr(value) == repr(real).replace("Real", "Light")
    assert value == Light(name="a", count=3) != Light("a", 4)  # type: ignore[call-arg]
    assert value != real and hash(value) == hash(real)
    assert dataclasses.replace(value, count=5) == light.replace(value, count=5) == Light("a", 5)  # type: ignore[call-arg, type-var]
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value
    match value:
        case Light(name, count):  # type: ignore[misc]
            assert (name, count) == ("a", 3)


@pytest.mark.parametrize("arguments", [((), {}), (("a", 1, 2), {}), (("a",), {"name": "b"}), (("a",), {"other": 1})])
def test_wrong_arguments_are_refused(arguments: tuple[tuple[object, ...], dict[str, object]]) -> None:
    positional, named = arguments
    with pytest.raises(TypeError):
        Light(*positional, **named)


def test_it_is_frozen() -> None:
    value = LoadEvent("/a")
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'path'"):
        value.path = "/b"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'path'"):
        del value.path
    assert value.path == "/a"


def test_post_init_runs() -> None:
    with pytest.raises(AssertionError):
        Light("a", 0)  # type: ignore[call-arg]


def test_it_does_not_import_dataclasses() -> None:
    code = (
        "import sys; import dlltracer.capture.linux.decoding as d\n"
        "d.Decoding(1).finish(); print(sorted({'dataclasses', 'inspect', 'uuid', 'typing'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": "src"})  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_a_field_may_have_the_name_of_any_variable() -> None:
    """`Dynamic.values` of ELF files became the dictionary of its fields: every RPATH was lost."""

    @light.dataclass(frozen=True)
    class Odd:
        cls: int
        values: dict[int, int]
        named: int = 3

    assert Odd(1, {2: 3}).values == {2: 3}
