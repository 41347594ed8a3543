"""The file with the settings of a project: which one is taken, and what becomes of a bad one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlltracer.errors import ConfigurationError
from dlltracer.host import configfile
from dlltracer.host.configfile import VARIABLE, UntrustedSettings, find_config, read_config

NOBODY = 65534
as_root = pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="gives files to another user: needs root")
TABLE = '[tool.dlltracer]\nbackend = "here"\n'


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "SUDO_UID"):
        monkeypatch.delenv(name, raising=False)


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
        ((f"a/b/pyproject.toml={TABLE}",), "a/b/pyproject.toml"),
        ((f"a/b/dlltracer.toml={TABLE}",), None),
        ((".git/", f"a/pyproject.toml={TABLE}", f"pyproject.toml={TABLE}"), "a/pyproject.toml"),
        ((".git/", "a/b/pyproject.toml=[tool.x]", f"pyproject.toml={TABLE}"), "pyproject.toml"),
        ((".git", f"pyproject.toml={TABLE}"), "pyproject.toml"),
        (("a/.hg/", f"pyproject.toml={TABLE}"), None),
        ((f"a/pyproject.toml={TABLE}",), "a/pyproject.toml"),
        (("a/pyproject.toml=[project]", f"pyproject.toml={TABLE}"), None),
        ((".git/", "pyproject.toml=[tool.other]\nx = 'dlltracer'"), None),
        (("a/b/pyproject.toml/", ".git/", f"a/pyproject.toml={TABLE}"), "a/pyproject.toml"),
    ],
)
def test_which_file(tmp_path: Path, files: tuple[str, ...], found: str | None) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    make(tmp_path, *files)
    section = find_config(str(tmp_path / "a" / "b"))
    assert (section and os.path.relpath(section.path, tmp_path)) == found


def test_the_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, f"pyproject.toml={TABLE}", "other.toml=tool.dlltracer.backend = 'yes'")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "other.toml"))
    section = find_config(str(tmp_path))
    assert section is not None and section.text("backend") == "yes"
    monkeypatch.setenv(VARIABLE, "")
    section = find_config(str(tmp_path))
    assert section is not None and section.text("backend") == "here"


@as_root
@pytest.mark.parametrize(
    ("others", "output"),
    [
        (("shared/pyproject.toml",), "shared/pyproject.toml"),
        (("shared",), "shared"),
        (("shared/.git",), "shared/.git"),
        (("shared/.git", "shared/pyproject.toml", "shared"), "shared/pyproject.toml"),
    ],
)
def test_what_another_user_left_in_a_folder_above_is_refused(
    tmp_path: Path, others: tuple[str, ...], output: str
) -> None:
    make(tmp_path, "shared/.git/", f"shared/pyproject.toml={TABLE}", "shared/work/")
    for path in others:
        os.chown(tmp_path / path, NOBODY, NOBODY)
    with pytest.raises(UntrustedSettings) as caught:
        find_config(str(tmp_path / "shared" / "work"))
    problem = f"not used, because {tmp_path / output} belongs to user "
    assert str(caught.value).startswith(f"{tmp_path / 'shared/pyproject.toml'}: {problem}")
    assert "65534" in str(caught.value) and "\n" not in str(caught.value)


@as_root
def test_the_repository_of_another_user_does_not_matter_in_the_folder_itself(tmp_path: Path) -> None:
    make(tmp_path, ".git/", f"pyproject.toml={TABLE}")
    os.chown(tmp_path / ".git", NOBODY, NOBODY)
    assert find_config(str(tmp_path)) is not None


@as_root
def test_a_link_of_another_user_to_a_file_of_ours_is_refused(tmp_path: Path) -> None:
    make(tmp_path, f"ours.toml={TABLE}")
    (tmp_path / "pyproject.toml").symlink_to("ours.toml")
    assert find_config(str(tmp_path)) is not None
    os.lchown(tmp_path / "pyproject.toml", NOBODY, NOBODY)
    with pytest.raises(UntrustedSettings, match=r"belongs to user .*65534"):
        find_config(str(tmp_path))


@as_root
def test_the_user_who_called_sudo_is_trusted_as_by_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, f"pyproject.toml={TABLE}")
    for path in (tmp_path, tmp_path / "pyproject.toml"):
        os.chown(path, NOBODY, NOBODY)
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    assert find_config(str(tmp_path)) is not None
    for other in ("1", "", "x", "-65534", "9" * 30):
        monkeypatch.setenv("SUDO_UID", other)
        with pytest.raises(UntrustedSettings):
            find_config(str(tmp_path))


@as_root
def test_a_file_of_another_user_that_is_not_about_us_is_not_spoken_of(tmp_path: Path) -> None:
    make(tmp_path, "pyproject.toml=[project]")
    os.chown(tmp_path / "pyproject.toml", NOBODY, NOBODY)
    assert find_config(str(tmp_path)) is None


@pytest.mark.skipif(os.name == "nt", reason="FIFOs")
def test_a_fifo_does_not_hold_us_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pyproject.toml")
    assert find_config(str(tmp_path)) is None
    with pytest.raises(ConfigurationError, match="not a regular file"):
        read_config(str(tmp_path / "pyproject.toml"))


def test_an_enormous_file_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "pyproject.toml", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigurationError, match="it has more than 4 MiB"):
        read_config(str(tmp_path / "pyproject.toml"))


def test_a_file_that_is_not_about_us_is_not_parsed(tmp_path: Path) -> None:
    make(tmp_path, "pyproject.toml=[tool.other]\nthis is broken")
    assert find_config(str(tmp_path)) is None, "to parse it would be an error"


@pytest.mark.parametrize("content", [
    "[project]\nname = 'x'\ndependencies = ['dlltracer']\n[tool.ruff.lint.per-file-ignores]\n'dlltracer/*' = []\n",
    "[project.scripts]\ndlltracer = 'dlltracer:main'\n[tool.toolbox]\nname = 'dlltracer'\n[broken\n",
])  # fmt: skip
def test_a_project_that_only_names_us_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:  # fmt: skip
    make(tmp_path, f"pyproject.toml={content}")
    monkeypatch.setattr(configfile, "_parse", lambda *_: pytest.fail("parsed"))
    monkeypatch.chdir(tmp_path)
    assert find_config(str(tmp_path)) is None
    assert not configfile.may_have_settings()


_TOOL = st.sampled_from(("tool", '"tool"', "'tool'", '"to\\u006fl"'))
_US = st.sampled_from(("dlltracer", '"dlltracer"', "'dlltracer'"))
_BACKEND = "backend = 'dlltracer'"


@settings(deadline=None)
@given(_TOOL, _US, st.sampled_from(("", " ", "\t")), st.sampled_from(("\n", "\r\n")), st.data())
def test_the_table_is_seen_in_every_spelling(tool: str, us: str, space: str, end: str, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from((
        f"{space}[{space}{tool}{space}.{space}{us}{space}]{space}# ours{end}{_BACKEND}",
        f"[{tool}.{us}.run]{end}{_BACKEND}",
        f"{space}{tool}{space}.{space}{us}{space}.{space}{_BACKEND}",
        f"{tool}.{us} = {{{_BACKEND}}}",
        f"{tool}{space}={space}{{{us}.{_BACKEND}}}",
        f"[{tool}]{end}{space}{us}{space}={space}{{{_BACKEND}}}",
        f"[{space}{tool}{space}]{end}{us}.{_BACKEND}",
    )))  # fmt: skip
    content = f"title = 'x'{end}{text}{end}".encode()
    assert configfile.table_of("x", content) is not None
    assert configfile.may_hold_table(content)


@pytest.mark.parametrize(
    ("name", "content", "output"),
    [
        ("other.toml", "[run", "it is not TOML: "),
        ("other.toml", "[run]", "it has no table [tool.dlltracer]"),
        ("pyproject.toml", "", "it has no table [tool.dlltracer]"),
        ("pyproject.toml", "tool.dlltracer = 1", "tool.dlltracer: this is a table, not a value"),
        ("pyproject.toml", "tool = 'dlltracer'", "it has no table [tool.dlltracer]"),
    ],
)
def test_a_bad_file(tmp_path: Path, name: str, content: str, output: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        read_config(str(path))
    assert str(caught.value).startswith(f"{path}: {output}")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="it cannot be read: "):
        read_config(str(tmp_path / "none.toml"))


def test_sections(tmp_path: Path) -> None:
    make(tmp_path, "s.toml=[tool.dlltracer]\nbackend = 1\n[tool.dlltracer.run]\nformat = 'x'\n")
    section = read_config(str(tmp_path / "s.toml"))
    assert section.section("run").text("format") == "x" and section.section("why").values == {}
    assert section.section("run").key("format") == "run.format"
    for wrong, output in (
        (lambda: section.text("backend"), "backend: this is text, not a number"),
        (lambda: section.section("backend"), "backend: this is a table, not a value"),
        (lambda: section.section("run").refuse_unknown(("formats",)), "run.format: there is no such setting; did you"),
        (lambda: section.section("run").refuse_unknown(()), "run.format: there is no such setting"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            wrong()
        assert f"s.toml: {output}" in str(caught.value)


@settings(deadline=None)
@given(st.binary() | st.text().map(lambda text: f"tool.dlltracer = {text}".encode("utf-8", "surrogatepass")))
def test_any_bytes_are_settings_or_an_error(data: bytes) -> None:
    try:
        table = configfile.table_of("/x/pyproject.toml", data)
    except ConfigurationError as error:
        assert error.path == "/x/pyproject.toml" and "\n" not in str(error)
    else:
        tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
        tools = tomllib.loads(data.decode("utf-8")).get("tool")
        assert table == (tools.get("dlltracer") if isinstance(tools, dict) else None)
