"""`dlltracer report`: one archive for an issue, that says what is in it, and holds nothing private."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from builders.schema_check import problems
from contract.native import Native
from dlltracer import __version__
from dlltracer.cli import bundle
from dlltracer.report.redact import Redactor

FILES = [
    "README.txt", "issue.md", "verdict.txt", "verdict.json", "report.html", "recording.dlltrace", "info.txt",
    "info.json",
]  # fmt: skip
TOKEN = "tok-0123456789abcdef-very-secret"
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="native files of Linux")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "people" / "adalovelace"
    folder.mkdir(parents=True)
    return folder


def dlltracer(*words: str | Path, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    named = {"HOME": str(home), "USER": "adalovelace", "HOSTNAME": "engine-of-ada", "SERVICE_TOKEN": TOKEN}
    return subprocess.run(
        [sys.executable, "-m", "dlltracer", *map(str, words)], cwd=home, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=180, check=False, env={**os.environ, **named, **variables},
    )  # fmt: skip


def contents(archive: Path) -> dict[str, str]:
    with zipfile.ZipFile(archive) as packed:
        assert packed.namelist() == FILES
        assert {info.date_time for info in packed.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        return {name: packed.read(name).decode("utf-8") for name in FILES}


@linux_only
def test_a_failure_with_all_that_it_rests_on_and_nothing_private(native: Native, home: Path) -> None:
    module = native.broken_module()
    name = module.name.partition(".")[0]
    module.rename(home / module.name)
    (home / "app.py").write_text(
        f"import os, platform\nprint(os.environ['SERVICE_TOKEN'], platform.node(), 'engine-of-ada')\nimport {name}\n"
    )
    ran = dlltracer("report", "import app", home=home, PYTHONPATH=str(home))
    assert (ran.returncode, ran.stderr) == (0, "wrote dlltracer-report-app.zip\n")
    assert [line.split()[0] for line in ran.stdout.splitlines()[: len(FILES)]] == FILES
    assert "redacted: the names of " in ran.stdout and "before you publish it" in ran.stdout
    found = contents(home / "dlltracer-report-app.zip")
    for text in found.values():
        for private in ("adalovelace", "engine-of-ada", TOKEN, str(home), platform.node()):
            assert private not in text
    for file in ("issue.md", "verdict.txt", "report.html"):
        assert native.missing in found[file], file
    verdict, info = json.loads(found["verdict.json"]), json.loads(found["info.json"])
    assert problems("verdict", verdict) == []
    assert problems("info", info) == []
    assert verdict["findings"][0]["code"] == "missing-image" and info["dlltracer"]["version"] == __version__
    assert all(file in found["README.txt"] for file in FILES) and "redacted: " in found["README.txt"]
    (home / "recording.dlltrace").write_text(found["recording.dlltrace"])
    again = dlltracer("why", "recording.dlltrace", home=home)
    assert again.returncode == 1 and native.missing in again.stdout


@linux_only
def test_it_works_also_where_the_import_works_and_overwrites_nothing(home: Path) -> None:
    first = dlltracer("report", "bz2", home=home)
    assert (first.returncode, first.stderr) == (0, "wrote dlltracer-report-bz2.zip\n")
    found = contents(home / "dlltracer-report-bz2.zip")
    assert json.loads(found["verdict.json"])["outcome"] == "imported" and "_bz2" in found["recording.dlltrace"]
    before = (home / "dlltracer-report-bz2.zip").read_bytes()
    again = dlltracer("report", "bz2", home=home)
    assert (again.returncode, again.stdout) == (2, "") and "exists, and is not overwritten" in again.stderr
    assert (home / "dlltracer-report-bz2.zip").read_bytes() == before
    other = dlltracer("report", "-c", "import bz2", "-o", "other.zip", home=home)
    assert other.returncode == 0 and len(contents(home / "other.zip")) == len(FILES)


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (("report",), "say what to report"),
        (("report", "json", "-o", "x.txt"), "the report is a .zip file"),
        (("report", "json", "-o", "no/such/x.zip"), "there is no folder no/such"),
        (("report", "numpy==2"), "dlltracer why numpy"),
        (("report", "json", "--backend", "nope"), "unknown backend"),
    ],
)
def test_what_cannot_be_reported(words: tuple[str, ...], output: str, home: Path) -> None:
    ran = dlltracer(*words, home=home)
    assert (ran.returncode, ran.stdout) == (2, "") and output in ran.stderr.splitlines()[-1]
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("PIL.Image",), "PIL.Image"), (("from", "PIL", "import", "Image"), "PIL-Image"),
        (("import numpy as np",), "numpy-as-np"), (("json",), "json"),
    ],
)  # fmt: skip
def test_the_name_of_the_archive_says_what_was_asked(words: tuple[str, ...], name: str) -> None:
    from dlltracer.cli.question import read_question

    assert bundle.name_archive(read_question(words, None)) == f"dlltracer-report-{name}.zip"


def test_the_same_texts_give_the_same_bytes() -> None:
    assert bundle.pack({"a": "x", "b": "\udcff"}) == bundle.pack({"a": "x", "b": "\udcff"})


def test_secrets_of_the_environment_are_found_wherever_they_stand() -> None:
    redactor = Redactor()
    redactor.add_secrets([TOKEN, "short"])
    assert redactor.redact(f"it said {TOKEN}, in short") == "it said secret1, in short"
