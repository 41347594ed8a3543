"""`dlltracer why` on real failures of Linux: the verdict that each must get."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import dlltracer
from oracle.roots import find_root
from scenarios.linux.asking import ask_why
from scenarios.linux.catalogue import SCENARIOS
from scenarios.linux.workshop import Workshop, why_there_is_none
from scenarios.scenario import CannotBuild, Judgement, Scenario, judge

pytestmark = pytest.mark.skipif(why_there_is_none() is not None, reason=why_there_is_none() or "")

ROOTS = {"executable-stack-refused"}
"""Scenarios in a root of another distribution, which takes minutes to make the first time."""


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(one, id=one.id, marks=[pytest.mark.slow] if one.id in ROOTS else []) for one in SCENARIOS],
)
def test_gets_the_right_verdict(scenario: Scenario[Workshop], tmp_path: Path) -> None:
    try:
        question = scenario.build(Workshop(tmp_path))
    except CannotBuild as error:
        pytest.skip(str(error))
    judgement = judge(scenario, lambda: ask_why(question))
    _check(judgement)


def _check(judgement: Judgement) -> None:
    if judgement.is_wrong_and_firm:
        pytest.fail(f"a WRONG CAUSE was stated as {judgement.confidence}: {judgement.problem}")
    assert not judgement.problem


def test_ids_are_unique() -> None:
    assert len({one.id for one in SCENARIOS}) == len(SCENARIOS)


INSIDE = """
import ctypes, os, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "site"))
from dlltracer.api.explain import explain
from dlltracer.report.render_json import render_verdict_json
try:
    ctypes.CDLL(sys.argv[1])
except OSError as error:
    print(render_verdict_json(explain(error)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "code", "subject"),
    [("libneeds.so", "missing-image", "libgone.so"), ("libforeign.so", "glibc-symbol-on-musl", "libforeign.so")],
)
def test_words_of_musl(name: str, code: str, subject: str, tmp_path: Path) -> None:
    root = find_root("musl")
    if isinstance(root, str):
        pytest.skip(root)
    shop = Workshop(tmp_path)
    shop.library("libgone.so", "int gone(void) { return 1; }", options=["-nostdlib"])
    shop.library("libneeds.so", "int gone(void); int f(void) { return gone(); }", ["libgone.so"], ["-nostdlib"])
    shop.library(
        "libforeign.so",
        "const char *gnu_get_libc_version(void); const char *f(void) { return gnu_get_libc_version(); }",
    )
    shop.remove("libgone.so")
    shop.write("inside.py", INSIDE)
    shop.write("site/binascii.py", "def crc32(data, value=0): raise NotImplementedError\n")  # the root's own needs libz
    home = Path(dlltracer.__file__).parent
    shutil.copytree(home, tmp_path / "site/dlltracer", ignore=shutil.ignore_patterns("__pycache__"))
    done = root.run(tmp_path, "inside.py", f"/mnt/{name}")
    output = json.loads(done.stdout or done.stderr)
    assert output["findings"], output
    first = output["findings"][0]
    assert (first["code"], output["outcome"]) == (code, "explained"), first
    assert subject in first["subject"]
