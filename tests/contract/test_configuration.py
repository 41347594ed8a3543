"""Settings of a project on the command line: they are defaults, a wrong one is said, and no program sees them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dlltracer.cli import commands as settings
from dlltracer.cli import options
from dlltracer.cli.commands import cli
from dlltracer.errors import ConfigurationError
from dlltracer.host.configfile import VARIABLE


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project; the current folder is one in it."""
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    return tmp_path


def write(project: Path, text: str) -> None:
    """Settings, their names without the tool.dlltracer before them."""
    tables = re.sub(r"^\[", "[tool.dlltracer.", text, flags=re.MULTILINE)
    (project / "pyproject.toml").write_text(f"[tool.dlltracer]\n{tables}\n")


def dlltracer(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dlltracer", *arguments], env={**os.environ, **more}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def values(command: str, *arguments: str, group: tuple[str, ...] = ()) -> dict[str, object]:
    """What the options of a command are with these arguments; the command itself is not run."""
    seen: dict[str, object] = {}
    one = cli.get_command(click.Context(cli), command)
    assert one is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one, "callback", lambda *_, **given: seen.update(given))
        for option in one.params:
            patch.setattr(option, "secondary_opts", option.secondary_opts)
        CliRunner().invoke(cli, [*group, command, *arguments], catch_exceptions=False)
    return seen


def test_defaults_and_the_command_line_wins(project: Path) -> None:
    absolute = str(project / "b")
    write(
        project,
        "backend = 'snapshot'\n[run]\nformat = 'lines'\nfailed_only = true\n"
        f"[deps]\npath = ['a', '{absolute}']\n",
    )
    got = values("run", "x.py")
    assert (got["form"], got["backend"], got["failed_only"], got["output"]) == ("lines", "snapshot", True, None)
    got = values("run", "--format", "text", "--backend=rtld", "--no-failed-only", "x.py")
    assert (got["form"], got["backend"], got["failed_only"]) == ("text", "rtld", False)
    assert values("why", "x")["backend"] == "snapshot"
    assert values("deps", "x")["search"] == (str(project / "a"), absolute)
    assert values("deps", "--path", "c", "x")["search"] == ("c",)


def test_paths_are_relative_to_the_file(project: Path) -> None:
    write(project, '[run]\noutput = "report.txt"\n[why]\noutput = "-"\n')
    assert values("run", "x.py")["output"] == str(project / "report.txt")
    assert values("why", "x")["output"] == "-"


@pytest.mark.parametrize(
    "setting",
    ['output = "../x"', 'output = "/etc/x"', 'output = "~/x"', 'html = "in/../../x.html"', 'html = "link/x"',
     'output = "file.txt"', 'output = "dangling"', 'output = ".."'],
)  # fmt: skip
@pytest.mark.skipif(os.name == "nt", reason="makes links")
def test_a_file_outside_of_the_project_is_not_written(
    project: Path, tmp_path_factory: pytest.TempPathFactory, setting: str
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "file").write_text("as it was")
    (project / "link").symlink_to(outside)
    (project / "file.txt").symlink_to(outside / "file")
    (project / "dangling").symlink_to(outside / "none")
    write(project, f"[run]\n{setting}")
    with pytest.raises(ConfigurationError, match="is not below the folder of the settings"):
        values("run", "x.py")
    ran = dlltracer("run", "-c", "print('ran')")
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert (outside / "file").read_text() == "as it was" and os.listdir(outside) == ["file"]


def test_every_option_for_a_file_or_a_program_is_one_of_the_kinds_that_are_checked() -> None:
    """The checks go by the metavar: an option with another one would slip through."""
    names: dict[str, set[str]] = {}
    for command in cli.list_commands(click.Context(cli)):
        one = cli.get_command(click.Context(cli), command)
        assert one is not None
        for option in settings.settable_options(one).values() if not isinstance(one, click.Group) else ():
            names.setdefault(option.metavar or "", set()).add(str(option.name))
    assert {"output", "html"} <= names["FILE"] and names["DIR"] == {"root", "search"} and names["PATH"] == {"python"}
    kinds = {"output", "html", "python", "root", "search"}
    checked = (options.WRITTEN, options.FOLDER, options.PROGRAM)
    assert not kinds & set().union(*(found for metavar, found in names.items() if metavar not in checked))


@pytest.mark.parametrize("program", ["python3", "./python", "/usr/bin/python3"])
def test_a_program_to_run_is_not_taken_from_a_file(project: Path, program: str) -> None:
    write(project, f'[why]\npython = "{program}"\n')
    why = dlltracer("why", "bz2")
    assert (why.returncode, why.stdout) == (2, "") and why.stderr.count("\n") == 1
    assert "pyproject.toml: why.python: a program to run is not taken from a file" in why.stderr


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="gives files to another user: needs root")
def test_settings_that_another_user_left_above_do_nothing(project: Path) -> None:
    secret = project / "in" / "secret"
    secret.write_text("as it was")
    secret.chmod(0o600)
    write(project, '[run]\noutput = "in/secret"\n[why]\npython = "/bin/false"\n')
    (project / ".git").mkdir()
    for path in (project / ".git", project / "pyproject.toml"):
        os.chown(path, 65534, 65534)
    ran = dlltracer("run", "--backend", "snapshot", "-c", "print('ran')")
    assert (ran.returncode, ran.stdout) == (0, "ran\n") and secret.read_text() == "as it was"
    (line,) = [line for line in ran.stderr.splitlines() if "pyproject.toml" in line]
    assert line.startswith(f"dlltracer: {project / 'pyproject.toml'}: not used, because ") and "65534" in line
    assert dlltracer("why", "bz2").returncode == 0
    assert "pyproject" not in dlltracer("--no-config", "run", "-c", "pass").stderr
    (project / "pyproject.toml").write_text("[project]\n")
    assert "pyproject" not in dlltracer("run", "-c", "pass").stderr


def test_the_choice_of_the_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, 'backend = "snapshot"')
    other = project / "other.toml"
    other.write_text('tool.dlltracer.backend = "rtld"')
    assert values("why", "x", group=("--config", str(other)))["backend"] == "rtld"
    monkeypatch.setenv(VARIABLE, str(other))
    assert values("why", "x")["backend"] == "rtld"
    assert values("why", "x", group=("--no-config",))["backend"] == "auto"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("bakend = 1", "bakend: there is no such setting; did you mean 'backend'?"),
        ("[rum]\nx = 1", "rum: there is no such setting; did you mean 'run'?"),
        ("run = 1", "run: this is a table, not a value"),
        ("[run]\nformt = 'text'", "run.formt: there is no such setting; did you mean 'format'?"),
        ("[run]\nroot = 'x'", "run.root: there is no such setting; known here: output, format, "),
        ("[run]\nhelp = true", "run.help: there is no such setting"),
        ("[run]\nformat = 'x'", "run.format: 'x' is not one of 'text', "),
        ("[run]\nformat = 1", "run.format: this is text, not a number"),
        ("[run]\nfailed-only = 'yes'", "run.failed-only: this is true or false, not text"),
        ("[run]\nfailed-only = 1", "run.failed-only: this is true or false, not a number"),
        ("[run]\nbackend = 2020-02-02", "run.backend: this is text, not a date or time"),
        ("backend = [1]", "backend: this is text, not an array"),
    ],
)
def test_a_wrong_setting(project: Path, text: str, printed: str) -> None:
    write(project, text)
    result = CliRunner().invoke(cli, ["run", "-c", "1/0"])
    assert isinstance(result.exception, ConfigurationError)
    assert str(result.exception).startswith(f"{project / 'pyproject.toml'}: {printed}")


def test_a_setting_of_another_command_is_none_of_this_one(project: Path) -> None:
    write(project, 'root = "/"\n[deps]\nflat = "yes"\n[pytest]\nbackend = "rtld"')
    assert values("why", "x")["backend"] == "auto"
    with pytest.raises(ConfigurationError, match=r"deps\.flat: this is true or false, not text"):
        values("deps", "x")


def test_the_commands_of_a_group(project: Path) -> None:
    write(project, "[hook]\nstatus = {}\n")
    assert CliRunner().invoke(cli, ["hook", "status"]).exit_code == 0
    write(project, "[hook.status]\nx = 1\n")
    assert "hook.status.x: there is no" in str(CliRunner().invoke(cli, ["hook", "status"]).exception)


def test_numbers_have_a_type() -> None:
    """No command takes a number yet; the next one may."""
    command = click.Command("x", params=[click.Option(["--depth"], type=int), click.Option(["--share"], type=float)])
    for text, good in ((1, True), (True, False), ("1", False), (1.5, False)):
        section = settings.Section("f", "x", {"depth": text})
        if good:
            assert settings.defaults_of(command, section, settings.Section("f", "", {})) == {"depth": text}
        else:
            with pytest.raises(ConfigurationError, match=r"f: x\.depth: this is a number, not "):
                settings.defaults_of(command, section, settings.Section("f", "", {}))
    assert settings.defaults_of(command, settings.Section("f", "x", {"share": 1}), settings.Section("f", "", {}))


def test_errors_are_one_line_with_status_2(project: Path) -> None:
    write(project, "[run]\nformat = 1")
    ran = dlltracer("run", "-c", "print('ran')")
    assert (ran.returncode, ran.stdout) == (2, "") and ran.stderr.count("\n") == 1
    assert ran.stderr.startswith(f"dlltracer: error: {project / 'pyproject.toml'}: run.format: ")
    ran = dlltracer("why", "bz2", DLLTRACER_CONFIG="/no/such/file")
    assert ran.returncode == 2
    if os.name == "posix":
        assert ran.stderr == "dlltracer: error: /no/such/file: it cannot be read: No such file or directory\n"
    assert dlltracer("--no-config", "--config", "x", "hook", "status").returncode == 2
    assert dlltracer("--version").returncode == dlltracer("--help").returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="runs a traced program")
def test_the_program_sees_nothing_of_it(project: Path) -> None:
    code = (
        "import json, os, sys; print(json.dumps([sys.argv, sys.orig_argv, dict(os.environ), os.getcwd(), "
        "sys.flags, sorted(sys.modules), sys._xoptions]))"
    )
    plain = dlltracer("--no-config", "run", "--backend", "snapshot", "-o", "report.txt", "-c", code, "--backend")
    write(project, 'backend = "snapshot"\n[run]\noutput = "in/report.txt"\n')
    ran = dlltracer("run", "-c", code, "--backend")
    assert json.loads(ran.stdout) == json.loads(plain.stdout) and ran.stderr == plain.stderr == ""
    assert "traced by snapshot" in (project / "in" / "report.txt").read_text("utf-8")


def test_a_setting_gives_way_to_what_it_contradicts(project: Path) -> None:
    write(
        project,
        "[run]\ngithub = true\nfailed-only = true\n[why]\njson = true\noutput = 'w.dlltrace'\n"
        "[show]\nfailed-only = true\noutput = 'shown.txt'\n[deps]\nflat = true\n",
    )
    assert dlltracer("run", "-o", "x.dlltrace", "-c", "import bz2").returncode == 0
    assert (project / "in" / "x.dlltrace").read_text().startswith('{"type": "recording"')
    assert "1 image" in dlltracer("run", "--format", "text", "-c", "import _json").stderr
    shown = dlltracer("show", "x.dlltrace", "--html", "x.html")
    assert (shown.returncode, shown.stderr) == (0, "wrote x.html\n") and (project / "in" / "x.html").exists()
    assert not (project / "shown.txt").exists()
    assert dlltracer("show", "x.dlltrace", "--github").returncode == 0
    assert (project / "shown.txt").read_text().startswith("### dlltracer")
    why = dlltracer("why", "--github", "x.dlltrace")
    assert (why.returncode, why.stderr) == (0, "") and why.stdout.startswith("### dlltracer")
    deps = dlltracer("deps", "--json", sys.executable)
    assert json.loads(deps.stdout)["type"] == "deps"
