"""`dlltracer order`: finds the order that breaks among real modules, and names the fewest that do not go together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scenarios.linux.workshop import Workshop, why_there_is_none

pytestmark = pytest.mark.skipif(why_there_is_none() is not None, reason=str(why_there_is_none()))

OLD = "int base(void) { return 1; }\n"
SONAME = ["-Wl,-soname,libshared.so.1"]


def order(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dlltracer", "order", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}, cwd=folder,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """`new` needs a libshared that `old` keeps out when it comes first; three others have nothing to do with it."""
    made = Workshop(tmp_path_factory.mktemp("order"))
    made.library("a/libshared.so.1", OLD, options=SONAME)
    made.library("b/libshared.so.1", f"{OLD}int extra(void) {{ return 2; }}\n", options=SONAME)
    made.module("old", "int base(void);", ["a/libshared.so.1"], ["-Wl,-rpath,$ORIGIN/a"], init="base()")
    made.module("new", "int extra(void);", ["b/libshared.so.1"], ["-Wl,-rpath,$ORIGIN/b"], init="extra()")
    for name in ("one", "two", "three"):
        made.module(name)
    made.module("dies", init="*(volatile int *)0x18 = 1")
    made.module("broken", "int gone(void);", init="gone()")
    return made


def test_the_pair_is_found_among_others(shop: Workshop) -> None:
    ran = order(shop.folder, "one", "old", "two", "new", "three")
    assert ran.returncode == 1, ran.stderr
    assert "import new fails after old" in ran.stdout
    assert "this order works: new, old" in ran.stdout
    assert " · first-wins · dlltracer explain first-wins\n" in ran.stdout
    assert "at new: ImportError: " in ran.stdout


def test_the_reverse_of_the_order_given_is_tried(shop: Workshop) -> None:
    ran = order(shop.folder, "--json", "new", "one", "old")
    output = json.loads(ran.stdout)
    assert (ran.returncode, output["type"], output["outcome"]) == (1, "order", "an order breaks")
    assert output["breaking"]["modules"] == ["old", "new"]
    assert output["works"]["modules"] == ["new", "old"]
    assert output["verdict"]["findings"][0]["code"] == "first-wins"


def test_no_order_breaks(shop: Workshop) -> None:
    ran = order(shop.folder, "one", "two", "three")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "no order breaks" in ran.stdout
    assert len(ran.stdout.splitlines()) == 3 + 2 + 2


@pytest.mark.parametrize(("module", "how"), [("dies", "was killed by SIGSEGV"), ("broken", "undefined symbol: gone")])
def test_a_module_that_fails_alone(shop: Workshop, module: str, how: str) -> None:
    ran = order(shop.folder, "one", module)
    assert ran.returncode == 4, ran.stderr
    assert f"import {module} fails alone: the order is not the cause" in ran.stdout
    assert how in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["one"], "name at least two modules"),
        (["one", "one"], "one is named twice"),
        (["one", "two; import os"], "two; import os is not the name of a module"),
        (["one", "two", "--python", "/no/such/python"], "/no/such/python could not be started"),
    ],
)
def test_a_wrong_question(shop: Workshop, arguments: list[str], says: str) -> None:
    ran = order(shop.folder, *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert says in ran.stderr and "Traceback" not in ran.stderr
