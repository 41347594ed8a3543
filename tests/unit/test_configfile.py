"""The file with the settings of a project: which one is taken, and what becomes of a bad one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlltracer.errors import ConfigurationError
from dlltracer.host import configfile
from dlltracer.host.configfile import VARIABLE, find_config, read_config

TABLE = '[tool.dlltracer]\nbackend = "here"\n'


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def make(root: Path, *files: str) -> None:
    """Files, as PATH or PATH=CONTENT; a path that ends in / is a folder."""
    for file in files:
        path, _, content = file.partition("=")
        place = root / path
        if path.endswith("/"):
            place.mkdir(parents=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ((), None),
        (("a/b/dlltracer.toml",), "a/b/dlltracer.toml"),
        ((f"a/b/pyproject.toml={TABLE}", "a/b/dlltracer.toml"), "a/b/dlltracer.toml"),
        ((f"a/b/pyproject.toml={TABLE}",), "a/b/pyproject.toml"),
        ((".git/", f"a/pyproject.toml={TABLE}", "dlltracer.toml"), "a/pyproject.toml"),
        ((".git/", "a/b/pyproject.toml=[tool.x]", "dlltracer.toml"), "dlltracer.toml"),
        ((".git", "dlltracer.toml"), "dlltracer.toml"),
        (("a/.hg/", "dlltracer.toml"), None),
        ((f"a/pyproject.toml={TABLE}",), "a/pyproject.toml"),
        (("a/pyproject.toml=[project]", "dlltracer.toml"), None),
        (("a/dlltracer.toml",), None),
        ((".git/", f"pyproject.toml={TABLE}"), "pyproject.toml"),
        ((".git/", "pyproject.toml=[tool.other]\nx = 'dlltracer'"), None),
        (("a/b/dlltracer.toml/", f"a/pyproject.toml={TABLE}"), "a/pyproject.toml"),
    ],
)
def test_which_file(tmp_path: Path, files: tuple[str, ...], found: str | None) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    make(tmp_path, *files)
    section = find_config(str(tmp_path / "a" / "b"))
    assert (section and os.path.relpath(section.path, tmp_path)) == found


def test_the_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "dlltracer.toml=backend = 'no'", "other.toml=backend = 'yes'")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "other.toml"))
    section = find_config(str(tmp_path))
    assert section is not None and section.text("backend") == "yes"
    monkeypatch.setenv(VARIABLE, "")
    section = find_config(str(tmp_path))
    assert section is not None and section.text("backend") == "no"


def test_a_file_that_is_not_about_us_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "pyproject.toml=[tool.other]\nthis is broken")
    monkeypatch.setattr(configfile, "_parse", lambda *_: pytest.fail("parsed"))
    assert find_config(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("dlltracer.toml", "[run", "it is not TOML: "),
        ("dlltracer.toml", "[tool.dlltracer]", "tool: here the tables have no [tool.dlltracer] before them"),
        ("pyproject.toml", "", "it has no table [tool.dlltracer]"),
        ("pyproject.toml", "tool.dlltracer = 1", "tool.dlltracer: this is a table, not a value"),
        ("pyproject.toml", "tool = 'dlltracer'", "it has no table [tool.dlltracer]"),
    ],
)
def test_a_bad_file(tmp_path: Path, name: str, content: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        read_config(str(path))
    assert str(caught.value).startswith(f"{path}: {said}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="it cannot be read: "):
        read_config(str(tmp_path / "none.toml"))


def test_sections(tmp_path: Path) -> None:
    make(tmp_path, "dlltracer.toml=backend = 1\n[run]\nformat = 'x'\n")
    section = read_config(str(tmp_path / "dlltracer.toml"))
    assert section.section("run").text("format") == "x" and section.section("why").values == {}
    assert section.section("run").key("format") == "run.format"
    for wrong, said in (
        (lambda: section.text("backend"), "backend: this is text, not a number"),
        (lambda: section.section("backend"), "backend: this is a table, not a value"),
        (lambda: section.section("run").refuse_unknown(("formats",)), "run.format: there is no such setting; did you"),
        (lambda: section.section("run").refuse_unknown(()), "run.format: there is no such setting"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            wrong()
        assert f"dlltracer.toml: {said}" in str(caught.value)


@settings(deadline=None)
@given(st.binary() | st.text().map(lambda text: f"tool.dlltracer = {text}".encode("utf-8", "surrogatepass")))
def test_any_bytes_are_settings_or_an_error(data: bytes) -> None:
    for name in ("dlltracer.toml", "pyproject.toml"):
        try:
            table = configfile._table_of(f"/x/{name}", data)
        except ConfigurationError as error:
            assert error.path == f"/x/{name}" and "\n" not in str(error)
        else:
            assert table is None or isinstance(table, dict)
