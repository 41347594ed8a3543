"""ARCHITECTURE.md: the functions and files that it names exist, and the two walks are short enough to read."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
SOURCE = ROOT / "src" / "dlltracer"

WALKS = {"The path of one load": 25, "The path of one verdict": 30}
"""The sections with a walk, and how many steps each may have."""

PACKAGES = "api|binary|capture|cli|diagnose|host|integrations|knowledge|model|report|resolve|selftest|trace"
NAME = re.compile(rf"`((?:{PACKAGES})(?:\.\w+)+)`")
"""A module with a function or class in it, as the page writes them: `cli.run.run`."""


ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the walks go through modules for Linux")


def section(title: str) -> str:
    return re.split(r"^## ", PAGE.partition(f"## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def steps(title: str) -> list[str]:
    return re.findall(r"^\d+\. (.+?)(?=^\d+\. |^$|\Z)", section(title), re.MULTILINE | re.DOTALL)


def exists(dotted: str) -> bool:
    """Whether this is a function or class of dlltracer."""
    words = dotted.split(".")
    for end in range(len(words) - 1, 0, -1):
        file = SOURCE.joinpath(*words[:end]).with_suffix(".py")
        if file.is_file():
            value: object = importlib.import_module(".".join(["dlltracer", *words[:end]]))
            for word in words[end:]:
                value = getattr(value, word, None)
            return callable(value)
    return False


@pytest.mark.parametrize("title", WALKS)
def test_a_walk_is_short_and_each_step_names_a_function_first(title: str) -> None:
    found = steps(title)
    assert 10 < len(found) <= WALKS[title]
    assert [step for step in found if not NAME.match(step)] == []


def test_numbers_of_steps_go_on() -> None:
    for title in WALKS:
        numbers = [int(number) for number in re.findall(r"^(\d+)\. ", section(title), re.MULTILINE)]
        assert numbers == list(range(1, len(steps(title)) + 1)) != []


@ON_LINUX
def test_every_named_function_exists() -> None:
    names = [name for name in NAME.findall(PAGE) if not name.endswith(".py")]
    assert len(names) > 50
    assert [name for name in names if not exists(name)] == []


@ON_LINUX
def test_a_name_that_does_not_exist_is_noticed() -> None:
    assert exists("cli.run.run")
    assert not exists("cli.run.walk")
    assert not exists("cli.sprint.run")


def test_every_file_on_the_map_exists() -> None:
    named = set(re.findall(r"[\w/]+\.py\b", section("Where what lives")))
    there = {path.name for path in SOURCE.rglob("*.py")}
    assert len(named) > 100
    assert {name for name in named if name not in there} == set()


def test_every_package_is_on_the_map() -> None:
    packages = {path.parent.name for path in SOURCE.rglob("__init__.py")} - {"dlltracer"}
    assert {name for name in packages if f"{name}/" not in section("Where what lives")} == set()
