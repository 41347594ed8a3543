"""Formats by name and by the ending of a file, and files that are not ours, in one process."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dlltracer.cli.formats import FORMS, Form, choose_form, refuse_same_file, rendered
from dlltracer.cli.main import cli
from dlltracer.model.events import LoadEvent
from dlltracer.model.recording import Recording
from dlltracer.model.saved import SavedTrace
from dlltracer.model.tracefile import trace_to_lines

TRACE = SavedTrace(Recording("rtld", (LoadEvent("/home/alice/a\x1b.so"),)), "import x", status=0)


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
        with pytest.raises(click.UsageError, match=r"x\.dlltrace is the name of a recording"):
            choose_form(given, github, "x.dlltrace", False)
    with pytest.raises(click.UsageError, match="is the name of a recording"):
        refuse_same_file(None, "x.dlltrace")


def test_the_report_and_the_page_are_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for output, page in (("-", "-"), ("a.html", "./a.html"), ("a.html", str(tmp_path / "a.html"))):
        with pytest.raises(click.UsageError, match="the report and the page would both be"):
            refuse_same_file(output, page)
    for output, page in ((None, "-"), ("-", "a"), ("a", "-"), ("a", "b"), ("/dev/null", "/dev/null")):
        refuse_same_file(output, page)


def test_show_in_every_format(path: str, tmp_path: Path) -> None:
    for name in FORMS:
        done = CliRunner().invoke(cli, ["show", path, "--format", name])
        assert done.exit_code == 0 and "a" in done.output, name
        assert "\x1b" not in done.output or name == "lines", "which shows paths as they are"
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


def test_a_trace_file_of_windows(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, int | None]] = []

    def read_etl(file: str, process: str | None, pid: int | None) -> SavedTrace:
        asked.append((file, process, pid))
        return replace(TRACE, what="an etl")

    etl = types.ModuleType("dlltracer.capture.etl")
    etl.is_etl = lambda head: head.startswith(b"ETL")  # type: ignore[attr-defined]
    etl.read_etl = read_etl  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, etl.__name__, etl)
    file = tmp_path / "x.etl"
    file.write_bytes(b"ETL...")
    done = CliRunner().invoke(cli, ["show", str(file), "--process", "python.exe", "--pid", "7"])
    assert done.exit_code == 0 and "recorded: an etl" in done.output
    assert asked == [(str(file), "python.exe", 7)]
    assert CliRunner().invoke(cli, ["show", path]).exit_code == 0, "a recording is none"
