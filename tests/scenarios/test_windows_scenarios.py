"""The catalogue of failures on Windows: each built for real, and asked about under Wine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scenarios.scenario import Scenario, judge
from windows.lab import Lab, windows_path

from .windows.catalogue import SCENARIOS
from .windows.desk import ROOT, Desk
from .windows.workshop import DLL_MAIN, VERSION, Workshop

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.id)
def test_scenario(scenario: Scenario[Workshop], lab: Lab, desk: Desk, tmp_path: Path) -> None:
    shop = Workshop(lab, desk, tmp_path)
    question = scenario.build(shop)
    judgement = judge(scenario, lambda: shop.ask(question))
    if judgement.is_wrong_and_firm:
        pytest.fail(f"a WRONG CAUSE was stated as {judgement.confidence}: {judgement.problem}")
    assert not judgement.problem, judgement


def test_ids_are_unique() -> None:
    assert len({scenario.id for scenario in SCENARIOS}) == len(SCENARIOS)


MISSING = (
    "missing-leaf",
    "two-leaves",
    "path-only",
    "conda",
    "user-base",
    "contract-missing",
    "debug-runtime",
    "quarantined",
)


@pytest.mark.parametrize("scenario", [one for one in SCENARIOS if one.id in MISSING], ids=lambda scenario: scenario.id)
def test_wine_itself_names_what_is_missing(scenario: Scenario[Workshop], lab: Lab, desk: Desk, tmp_path: Path) -> None:
    """The catalogue says what it says: Wine's own loader is asked, not ours."""
    shop = Workshop(lab, desk, tmp_path)
    module = scenario.build(shop).arguments[-1]
    output = messages_of_wine(lab, f"import {module}", shop.site)
    assert any(scenario.subject.rpartition("/")[2].lower() in name.lower() for name in output), output


def messages_of_wine(lab: Lab, code: str, site: Path) -> list[str]:
    """The DLLs that Wine's loader did not find, by its own messages."""
    environment = {"PYTHONPATH": windows_path(site), "WINEDEBUG": "err+module"}
    done = lab.run(VERSION, ["-c", code], environment, cwd=site)
    return re.findall(r"import_dll Library (\S+) \(which is needed by", done.stderr)


WHEELS = {
    "cryptography": ("cryptography==50.0.2", "cffi==2.1.1", "pycparser==3.12"),
    "numpy": ("numpy==2.4.6",),
}
"""Wheels for Windows that fail in Wine 8, and nobody planted why."""


@pytest.fixture(scope="module")
def wheels(lab: Lab) -> Path:
    """A folder with them, downloaded once."""
    folder = lab.cache / "wheels-3.11"
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--platform", "win_amd64", "--python-version", "3.11"]
        wanted = [requirement for requirements in WHEELS.values() for requirement in requirements]
        command = [sys.executable, "-m", "pip", "install", *options, "--target", str(part), *wanted]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            pytest.skip(f"no wheels to try: {done.stderr[-200:]}")
        part.rename(folder)
    return folder


def test_a_wheel_that_fails_by_itself(lab: Lab, desk: Desk, wheels: Path) -> None:
    output = messages_of_wine(lab, "import cryptography.hazmat.bindings._rust", wheels)
    verdict = json.loads(desk.ask(("cryptography.hazmat.bindings._rust",), wheels, {}))
    if not output:  # as in Wine 10
        assert verdict["outcome"] == "imported", verdict
        return
    first = verdict["findings"][0]
    assert (first["code"], first["subject"], first["confidence"]) == ("missing-image", output[0], "certain")
    assert first["chain"][-2].endswith("_rust.pyd")


def test_a_wheel_that_kills_python(desk: Desk, wheels: Path) -> None:
    # Not tried without us: Wine would start its own debugger, which may wait for ever.
    verdict = json.loads(desk.ask(("numpy",), wheels, {}))
    if verdict["outcome"] == "imported":
        pytest.skip("numpy works in this Wine")
    first = verdict["findings"][0]
    assert (first["code"], verdict["crash"]["code"]) == ("crash-in-import", 0x80000100)
    assert "_multiarray_umath" in first["subject"]


RELOADS = """
import sys
from dlltracer.host.failure import reload_code
print(*[reload_code(sys.executable, path, 0x1100) for path in sys.argv[1:]])
"""


def test_a_reload_gives_the_code_that_import_error_hides(lab: Lab, desk: Desk, tmp_path: Path) -> None:
    shop = Workshop(lab, desk, tmp_path)
    good = shop.library("good.dll")
    broken = shop.library("broken.dll", {"reload_gone.dll": ["f"]})
    text = shop.write("text.dll", "no image at all")
    refusing = shop.dll("site/refusing.dll", DLL_MAIN.format(body="return FALSE;"))
    environment = {"PYTHONPATH": windows_path(ROOT / "src")}
    done = lab.run(VERSION, ["-c", RELOADS, good, broken, text, refusing], environment)
    assert done.stdout.split() == ["0", "126", "193", "1114"], done.stderr


EXPLAINS = """
import dlltracer.api.explain as api
try:
    import ext
except ImportError as error:
    finding = api.explain(error).findings[0]
    print(finding.code, finding.subject, finding.confidence.value)
"""


def test_explaining_inside_of_the_program(lab: Lab, desk: Desk, tmp_path: Path) -> None:
    shop = Workshop(lab, desk, tmp_path)
    shop.module("ext", {"inside_gone.dll": ["f"]})
    folders = ";".join(map(windows_path, (ROOT / "src", shop.site)))
    done = lab.run(VERSION, ["-c", EXPLAINS], {"PYTHONPATH": folders})
    assert done.stdout.split() == ["missing-image", "inside_gone.dll", "certain"], done.stderr
