"""`dlltracer check` as a person and a CI job call it: exit statuses, formats, what is left out."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as Xml
from pathlib import Path

import pytest

from builders.elf_file import ElfFile, Symbol
from builders.schema_check import problems
from builders.wheel_file import build_wheel

TAG = "cp312-cp312-manylinux_2_17_x86_64"
SO = "pkg/mod.cpython-312-x86_64-linux-gnu.so"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dlltracer", "check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def module(*needed: str, **more: object) -> bytes:
    return ElfFile(loadable=True, symbols=(Symbol("PyInit_mod"),), needed=needed, **more).build()  # type: ignore[arg-type]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    folder = tmp_path / "broken"
    folder.mkdir()
    return build_wheel(folder, {SO: module("libtbb.so.12")}, tag=TAG)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return build_wheel(tmp_path, {SO: module("libc.so.6", runpath="/build")}, tag=TAG)


def test_a_folder_of_wheels(broken: Path, sound: Path) -> None:
    folder = broken.parent
    sound.rename(folder / "pkg-2.0-py3-none-any.whl")
    (folder / "pkg-1.0.tar.gz").write_bytes(b"\x1f\x8b")
    ran = run(f"{folder}/")
    assert (ran.returncode, "libtbb.so.12" in ran.stdout) == (1, True)
    assert "2 targets, " in ran.stdout and "tar.gz" not in ran.stdout


def test_odd_lines_of_a_list(broken: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    odd = b"\xef\xbb\xbf" + bytes(broken) + b"\r\n \r\n# a comment\r\n\xff\0bad\nnumpy==1.26\n" + bytes(broken) + b"\n"
    listed.write_bytes(odd)
    ran = run("--from-file", listed)
    assert (ran.returncode, ran.stderr) == (3, "")
    assert "libtbb.so.12" in ran.stdout and "NUL" in ran.stdout and "looked up by name" in ran.stdout
    assert "3 targets, " in ran.stdout and "dlltracer failed" not in ran.stdout


def test_statuses(broken: Path, sound: Path, tmp_path: Path) -> None:
    assert run(sound).returncode == 0
    assert run(broken).returncode == 1
    assert run("--python", sys.executable, "--root", tmp_path).returncode == 2
    bad = tmp_path / "bad-1.0-py3-none-any.whl"
    bad.write_bytes(b"no zip")
    ran = run(bad, broken)
    assert ran.returncode == 3
    assert "could not be read" in ran.stdout
    assert "libtbb.so.12" in ran.stdout, "the other targets are checked all the same"
    assert ran.stderr == ""
    archive = tmp_path / "pkg-1.0.tar.gz"
    archive.write_bytes(b"\x1f\x8b")
    sdist = run(archive)
    assert sdist.returncode == 3 and "it is a source distribution" in sdist.stdout and "pip wheel" in sdist.stdout
    assert "No such file" in run(tmp_path / "gone-1.0.tar.gz").stdout
    assert "No such file" in run(tmp_path / "gone.whl").stdout, "not that its name is wrong"


def test_text(broken: Path, sound: Path) -> None:
    ran = run(sound, broken)
    lines = ran.stdout.splitlines()
    assert lines[0] == f"{sound.name}: nothing wrong; 1 native file checked on manylinux_2_17_x86_64"
    assert "1 note: -v shows them" in lines[1]
    assert f"{SO}" in ran.stdout and "[missing-image]" in ran.stdout and "fix  put it into the wheel" in ran.stdout
    assert lines[-1] == "2 targets, 1 with errors"
    assert "\x1b" not in ran.stdout
    assert "/build" in run("-v", sound).stdout


def test_what_fails(broken: Path, sound: Path) -> None:
    assert run("--fail-on", "note", sound).returncode == 1
    assert run("--ignore", "missing-image", broken).returncode == 0
    assert run("--ignore", "missing-image:pkg/*.so", broken).returncode == 0
    assert run("--ignore", "missing-image:other/*", broken).returncode == 1
    assert run("--ignore", ":x", broken).returncode == 2
    wrong = run("--ignore", "mising-image", broken)
    assert wrong.returncode == 2 and "did you mean 'missing-image'?" in wrong.stderr


def test_a_folder_that_is_not_in_the_root(tmp_path: Path) -> None:
    root, folder = tmp_path / "root", tmp_path / "site"
    inside = Path(root, str(folder).lstrip("/"))
    for one in (inside, folder):
        one.mkdir(parents=True)
    refused = run("--root", root, folder)
    assert refused.returncode == 3 and f"name {inside}" in " ".join(refused.stdout.split())
    assert run("--root", root, inside).returncode == 0
    nowhere = run("--root", tmp_path / "gone", folder)
    assert nowhere.returncode == 2 and "there is no such folder" in nowhere.stderr


def test_a_baseline(broken: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.json"
    assert run("-o", earlier, broken).returncode == 1
    again = run("--baseline", earlier, broken)
    assert again.returncode == 0 and "left out by --ignore and --baseline: 1" in again.stdout
    for content in ("[]", "no", '{"targets": [{"problems": [{}]}]}', "[" * 100_000):
        earlier.write_text(content)
        refused = run("--baseline", earlier, broken)
        (line,) = refused.stderr.splitlines()
        assert refused.returncode == 2 and "is not a result of dlltracer check" in line


def test_json(broken: Path, sound: Path) -> None:
    plain = json.loads(run("--json", broken, sound).stdout)
    assert problems("check", plain) == []
    assert [target["target"] for target in plain["targets"]] == [str(broken), str(sound)]
    assert plain["targets"][0]["problems"][0]["code"] == "missing-image"


def test_sarif(broken: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.sarif"
    run("-o", target, broken)
    log = json.loads(target.read_text())
    assert log["version"] == "2.1.0"
    (one,) = log["runs"]
    assert one["tool"]["driver"]["rules"] == [{"id": "missing-image", "shortDescription": {"text": "Missing image"}}]
    (result,) = one["results"]
    assert (result["ruleId"], result["level"]) == ("missing-image", "error")
    assert "libtbb.so.12" in result["message"]["text"]
    assert result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] == SO


def test_junit_and_annotations(broken: Path, sound: Path) -> None:
    suites = Xml.fromstring(run("--format", "junit", broken, sound).stdout)
    assert [(suite.get("failures"), len(suite)) for suite in suites] == [("1", 1), ("0", 1)]
    lines = run("--format", "github", broken, sound).stdout.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["::error", "::notice"]


def test_hostile_names_in_every_format(tmp_path: Path) -> None:
    evil = "pkg/\x1b[2J\u202e::error::%0A\n.cpython-312-x86_64-linux-gnu.so"
    path = build_wheel(tmp_path, {evil: module("lib\nx\x1b[0m.so")}, tag=TAG, left_out=[evil])
    for form in ("text", "github", "junit", "sarif"):
        output = run("--format", form, path).stdout
        assert "\x1b" not in output and "\u202e" not in output, form
        if form == "github":
            assert all(line.startswith(("::error title=", "::notice title=")) for line in output.splitlines())


def test_several_processes(broken: Path, sound: Path) -> None:
    alone, together = run("--json", broken, sound), run("--json", "--jobs", "2", broken, sound)
    assert together.stdout == alone.stdout
    assert together.returncode == 1
