"""`dlltracer why` tries fixes that need no installation, and says which of them work: with real files and loaders."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from scenarios.linux.asking import ask_why
from scenarios.linux.workshop import Workshop, why_there_is_none
from scenarios.scenario import Question

pytestmark = pytest.mark.skipif(why_there_is_none() is not None, reason=why_there_is_none() or "")

OLD = "int base(void) { return 1; }"
NEW = OLD + " int extra(void) { return 2; }"


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    made = Workshop(tmp_path)
    made.library("old/libshared.so.1", OLD)
    made.library("new/libshared.so.1", NEW)
    made.module("ext", "int extra(void);", ["new/libshared.so.1"], ["-Wl,-rpath,$ORIGIN/new"], init="extra()")
    return made


def first(question: Question) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask_why(question))["findings"][0]
    return found


def trials(finding: dict[str, Any]) -> list[str]:
    return [one["says"] for one in finding["evidence"] if one["source"] == "a trial"]


def tried(finding: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in finding["remedies"] if one["tried"]]


def test_without_the_preloaded_copy(shop: Workshop) -> None:
    found = first(shop.ask("ext", environment={"LD_PRELOAD": str(shop.folder / "old/libshared.so.1")}))
    assert "the import works without LD_PRELOAD" in trials(found)
    assert [one["command"][:3] for one in tried(found)] == [["env", "-u", "LD_PRELOAD"]]
    assert found["remedies"][0]["tried"] and found["confidence"] == "certain"


def test_without_the_folder_in_the_path(shop: Workshop) -> None:
    found = first(shop.ask("ext", environment={"LD_LIBRARY_PATH": str(shop.folder / "old")}))
    assert tried(found)[0]["command"][:3] == ["env", "-u", "LD_LIBRARY_PATH"]


def test_in_another_order(shop: Workshop) -> None:
    shop.module("first", "int base(void);", ["old/libshared.so.1"], ["-Wl,-rpath,$ORIGIN/old"], init="base()")
    shop.write("app.py", "import first, ext\n")
    found = first(shop.ask("app"))
    assert found["code"] == "first-wins" and "import ext" in [one["code"] for one in tried(found)]


def test_the_folder_of_a_copy(shop: Workshop) -> None:
    shop.move("new/libshared.so.1", "vendor/lib/libshared.so.1")
    shop.remove("old/libshared.so.1")
    shop.write("vendor/__init__.py", "")
    found = first(shop.ask("ext"))
    assert found["code"] == "missing-image"
    assert f"LD_LIBRARY_PATH={shop.folder}/vendor/lib" in tried(found)[0]["command"]


def test_a_copy_that_does_not_help_is_no_fix(shop: Workshop) -> None:
    shop.remove("new/libshared.so.1")
    shop.move("old/libshared.so.1", "vendor/lib/libshared.so.1")
    shop.write("vendor/__init__.py", "")
    found = first(shop.ask("ext"))
    (says,) = trials(found)
    assert "the import fails with LD_LIBRARY_PATH" in says and "undefined symbol: extra" in says
    assert tried(found) == [] and not any("LD_LIBRARY_PATH" in " ".join(one["command"]) for one in found["remedies"])


def test_the_folder_of_another_user_is_left_alone(shop: Workshop, tmp_path: Path) -> None:
    shop.move("new/libshared.so.1", "vendor/lib/libshared.so.1")
    shop.remove("old/libshared.so.1")
    shop.write("vendor/__init__.py", "")
    (tmp_path / "vendor/lib").chmod(0o777)
    (says,) = trials(first(shop.ask("ext")))
    assert "it was not tried, since anybody may write to" in says


def test_nothing_is_tried_when_not_wanted(shop: Workshop) -> None:
    environment = {"LD_LIBRARY_PATH": str(shop.folder / "old")}
    assert trials(first(shop.ask("ext", "--no-try", environment=environment))) == []
    shop.write("run.py", "open('count', 'a').write('x')\nimport ext\n")
    assert trials(first(shop.ask("run.py", environment=environment))) == []
    assert (shop.folder / "count").read_text() == "x", "a script has effects: it runs once"
    assert tried(first(shop.ask("run.py", "--try", environment=environment)))


def test_an_import_that_hangs_only_then_costs_three_imports_at_most(shop: Workshop) -> None:
    shop.write("app.py", "import os, time\nif 'LD_LIBRARY_PATH' not in os.environ: time.sleep(600)\nimport ext\n")
    begun = time.monotonic()
    found = first(shop.ask("app", environment={"LD_LIBRARY_PATH": str(shop.folder / "old")}))
    assert time.monotonic() - begun < 300, "three times its own limit"
    assert any("is not known: it was ended after" in says for says in trials(found))


def test_a_fix_that_ends_the_process_is_none(shop: Workshop) -> None:
    """Status 0 is no proof: the import has to come to its end."""
    shop.write("app.py", "import os\nif 'LD_LIBRARY_PATH' not in os.environ: os._exit(0)\nimport ext\n")
    found = first(shop.ask("app", environment={"LD_LIBRARY_PATH": str(shop.folder / "old")}))
    assert tried(found) == []
