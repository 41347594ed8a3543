"""Formats by name and by the ending of a file, and files that are not ours, in one process."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from builders import etl_file as etl
from builders.image_event import payload
from dlltracer.cli.commands import cli
from dlltracer.cli.formats import FORMS, Form, choose_form, refuse_same_file, rendered
from dlltracer.cli.options import BadUsage
from dlltracer.errors import NoSuchProcess
from dlltracer.model.events import LoadEvent
from dlltracer.model.recording import Recording
from dlltracer.model.run import RunResult, SavedTrace
from dlltracer.model.tracefile import trace_to_lines

TRACE = SavedTrace(Recording("rtld", (LoadEvent("/home/alice/a\x1b.so"),)), "import x", run=RunResult(status=0))


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "x.dlltrace"
    path.write_text("".join(trace_to_lines(TRACE)))
    return str(path)


@pytest.mark.parametrize(
    ("given", "output", "name"),
    [
        (None, None, "text"), (None, "x.txt", "text"), (None, "x.DLLTRACE", "recording"), (None, "x.jsonl", "jsonl"),
        ("text", "x.html", "text"), ("lines", None, "lines"), (None, "dlltrace", "text"),
    ],
)  # fmt: skip
def test_which_format(given: str | None, output: str | None, name: str) -> None:
    assert choose_form(given, False, output, False).name == name


def test_nothing_else_gets_the_name_of_a_recording() -> None:
    for given, github in (("text", False), (None, True)):
        with pytest.raises(BadUsage, match=r"x\.dlltrace is the name of a recording"):
            choose_form(given, github, "x.dlltrace", False)
    with pytest.raises(BadUsage, match="is the name of a recording"):
        refuse_same_file(None, "x.dlltrace")


def test_the_report_and_the_page_are_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for output, page in (("-", "-"), ("a.html", "./a.html"), ("a.html", str(tmp_path / "a.html"))):
        with pytest.raises(BadUsage, match="the report and the page would both be"):
            refuse_same_file(output, page)
    for output, page in ((None, "-"), ("-", "a"), ("a", "-"), ("a", "b"), ("/dev/null", "/dev/null")):
        refuse_same_file(output, page)


def test_show_in_every_format(path: str, tmp_path: Path) -> None:
    for name in FORMS:
        done = CliRunner().invoke(cli, ["show", path, "--format", name])
        assert done.exit_code == 0 and "a" in done.output, name
        assert ("\x1b" in done.output) == (name == "lines"), "which shows paths as they are"
    done = CliRunner().invoke(cli, ["show", path, "--redact"])
    assert "/home/user1/" in done.output and "alice" not in done.output


def test_a_page(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "page.html"
    fake = types.ModuleType("dlltracer.report.fake_page")
    fake.render = lambda trace: f"<html>{trace.what}</html>"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    page = Form("html", "a page", rendered("fake_page", "render"), (".html",))
    monkeypatch.setattr("dlltracer.cli.formats.FORMS", {**FORMS, "html": page})
    assert CliRunner().invoke(cli, ["show", path, "--html", str(target)]).exit_code == 0
    assert target.read_text() == "<html>import x</html>"


def test_a_trace_file_of_windows(path: str, tmp_path: Path) -> None:
    def image(hook: int, name: str, pid: int) -> bytes:
        return etl.system(hook, payload(rf"\Device\HarddiskVolume3\Py\{name}", pid=pid), pid=pid)

    file = tmp_path / "x.etl"
    there = etl.perfinfo(etl.THERE_AT_START, payload(r"\Device\HarddiskVolume3\Py\old.dll", pid=7))
    starts = [
        etl.system(etl.PROCESS_START, etl.process_payload(pid, f"{name}.exe", name), version=4, pid=1)
        for pid, name in ((7, "python"), (8, "perl"))
    ]
    events = [*starts, there, image(etl.LOAD, "_ssl.pyd", 7), image(etl.LOAD, "perl.dll", 8)]
    file.write_bytes(etl.etl_file([etl.volume(r"\Device\HarddiskVolume3", "C:"), *events]))

    def shown(*options: str) -> list[str]:
        printed = CliRunner().invoke(cli, ["show", str(file), "--format", "lines", *options])
        assert printed.exit_code == 0, printed.output
        return printed.output.splitlines()

    ssl, perl, old = (rf"LoadLibrary C:\Py\{name}" for name in ("_ssl.pyd", "perl.dll", "old.dll"))
    assert shown() == [ssl, perl]
    assert shown("--process", "python.exe") == shown("--pid", "7") == [ssl]
    assert shown("--process", "python.exe", "--startup") == [old, ssl]
    printed = CliRunner().invoke(cli, ["show", str(file), "--process", "ruby.exe"])
    assert isinstance(printed.exception, NoSuchProcess)
    assert CliRunner().invoke(cli, ["show", path, "--startup"]).exit_code == 2, "a recording of ours is of one run"
