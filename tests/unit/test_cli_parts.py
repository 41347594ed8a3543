"""The parts of the command line that need no program: where options end, where a report goes, how a run ends."""

from __future__ import annotations

import ast
import io
import marshal
import os
import stat
import subprocess
import sys
import types
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dlltracer.cli import deps, process, run_traced, spawn
from dlltracer.cli.commands import cli
from dlltracer.cli.formats import FORMS
from dlltracer.cli.output import (
    Colour,
    CommandFailed,
    DirectTarget,
    StreamTarget,
    colour_of,
    describe_ending,
    open_target,
)
from dlltracer.cli.program import (
    NoValue,
    Program,
    ProgramKind,
    is_command,
    split_command_line,
    what_is_meant,
)
from dlltracer.cli.runner import LogSharing, RunnerOutcome, RunnerReport
from dlltracer.cli.spawn import salvage
from dlltracer.model.encode import encode
from dlltracer.model.events import LoadEvent
from dlltracer.model.recording import Recording, TracedProcess
from dlltracer.model.run import RunResult, SavedTrace

posix_only = pytest.mark.skipif(os.name == "nt", reason="permissions and links of POSIX")
RECORDING = Recording("rtld", (LoadEvent("/gr\u00fc\u00df/\udcff.so", imports=("m",)),))
VALUES = {"-o", "--output", "--format", "--backend"}


@pytest.mark.parametrize(
    ("words", "own", "program"),
    [
        ("-c CODE --format x", "", ("code", "CODE", "--format", "x")),
        ("-cCODE -o x", "", ("code", "CODE", "-o", "x")),
        ("-m mod -c x", "", ("module", "mod", "-c", "x")),
        ("-mmod", "", ("module", "mod")),
        ("s.py -o x -- y", "", ("script", "s.py", "-o", "x", "--", "y")),
        ("- x", "", ("script", "-", "x")),
        ("-- -c x", "", ("script", "-c", "x")),
        ("-- ls -c x -- y", "", ("command", "ls", "-c", "x", "--", "y")),
        ("-o f --follow -- ls", "-o f --follow", ("command", "ls")),
        ("ls x", "", ("script", "ls", "x")),
        ("-o f s.py", "-o f", ("script", "s.py")),
        ("-o -c s.py", "-o -c", ("script", "s.py")),
        ("-of --format=text --failed-only -m m", "-of --format=text --failed-only", ("module", "m")),
        ("--format lines --backend rtld - -", "--format lines --backend rtld", ("script", "-", "-")),
        ("--check s.py", "--check", ("script", "s.py")),
        ("--failed-only", "--failed-only", None),
        ("-o f --", "-o f", None),
        ("-o", "-o", None),
    ],
)
def test_where_our_options_end(words: str, own: str, program: tuple[str, ...] | None) -> None:
    wanted = None if program is None else Program(ProgramKind(program[0]), program[1], program[2:])
    assert split_command_line(words.split(), VALUES, lambda word: word == "ls") == (own.split(), wanted)


@posix_only
def test_what_behind_two_dashes_is_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tool", "tool.py", "Tool.PYZ", "plain"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o644 if name == "plain" else 0o755)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "folder"))
    words = ["./tool", str(tmp_path / "tool"), "tool", "./tool.py", "./Tool.PYZ", "./plain", "./folder", "", "-", "-c"]
    assert [word for word in words if is_command(word)] == words[:2], "not on PATH"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [word for word in words if is_command(word)] == words[:3]


def test_the_words_of_a_program() -> None:
    for kind, words in (("code", ("-c", "x", "a")), ("module", ("-m", "x", "a")), ("command", ("x", "a"))):
        assert Program(ProgramKind(kind), "x", ("a",)).words == words


@pytest.mark.parametrize("kind", [ProgramKind.COMMAND, ProgramKind.MODULE])
def test_on_windows_the_debugger_follows(monkeypatch: pytest.MonkeyPatch, kind: ProgramKind) -> None:
    recording = replace(RECORDING, pid=7, processes=(TracedProcess(7),))
    shown: list[object] = []

    def run(*first: object, **options: bool) -> RunResult:
        shown.extend((*first, options))
        return RunResult(status=3, recording=recording)

    program = Program(kind, "x", ("a",))
    module = types.ModuleType("dlltracer.cli.run_debugged")
    monkeypatch.setitem(sys.modules, "dlltracer.cli.run_debugged", module)
    monkeypatch.setattr("dlltracer.cli.run_debugged", module, raising=False)
    monkeypatch.setattr(run_traced.sys, "platform", "win32")
    module.NAME = "debugger"  # type: ignore[attr-defined]
    module.run_debugged_command = module.run_on_windows = run  # type: ignore[attr-defined]
    sink = types.SimpleNamespace(process=shown.append, event=shown.append)
    assert run_traced.run_followed(program, "auto", follow=True, sink=sink) == RunResult(status=3, recording=recording)
    options_given = next(item for item in shown if isinstance(item, dict))
    assert isinstance(options_given.pop("sink"), run_traced._Guard), "what raises there must not disturb the debugger"
    first = [["x", "a"]] if kind is ProgramKind.COMMAND else [program, "auto"]
    options = {"follow": True} if kind is ProgramKind.COMMAND else {"follow": True, "startup": False}
    assert shown == [*first, options, *recording.processes, *recording.events]
    if kind is ProgramKind.COMMAND:
        with pytest.raises(run_traced.CannotFollow, match="a command cannot be traced by 'etw'"):
            run_traced.run_followed(program, "etw")


def test_an_option_without_its_value() -> None:
    with pytest.raises(NoValue, match="-m"):
        split_command_line(["-o", "f", "-m"], VALUES)


def test_an_empty_script_name_is_a_script() -> None:
    assert split_command_line([""], VALUES) == ([], Program(ProgramKind.SCRIPT, ""))


@pytest.mark.parametrize(
    ("terminal", "environment", "wanted"),
    [
        (True, {}, Colour.TERMINAL),
        (False, {}, Colour.NONE),
        (True, {"TERM": "dumb"}, Colour.NONE),
        (True, {"NO_COLOR": "1"}, Colour.NONE),
        (True, {"NO_COLOR": ""}, Colour.TERMINAL),
        (False, {"FORCE_COLOR": "1"}, Colour.FORCED),
        (False, {"FORCE_COLOR": ""}, Colour.NONE),
        (True, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, Colour.NONE),
    ],
)
def test_colour(terminal: bool, environment: dict[str, str], wanted: str) -> None:
    assert colour_of(terminal, environment) is wanted


def written(encoding: str, form: str, errors: str = "strict") -> bytes:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding, errors, newline="\n")
    FORMS[form].write(StreamTarget(stream), SavedTrace(RECORDING), False)
    return raw.getvalue()


def test_a_stream_that_lacks_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert "\u2514\u2500 \\udcff.so  /gr\u00fc\u00df/\\udcff.so" in written("utf-8", "text").decode()
    assert rb"`- \udcff.so  /gr\xfc\xdf/\udcff.so" in written("ascii", "text")
    assert b"`- \\udcff.so  /gr\xfc\xdf/" in written("cp1252", "text")
    assert written("utf-8", "lines") == b"LoadLibrary /gr\xc3\xbc\xc3\x9f/\xff.so\n"
    assert written("ascii", "lines") == b"LoadLibrary /gr\\xfc\\xdf/\\udcff.so\n"


def test_forced_colour_on_a_stream_that_lacks_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    shown = written("ascii", "text")
    assert b"\x1b[1mimport m\x1b[0m\n" in shown and rb"/gr\xfc\xdf/\udcff.so" in shown
    assert shown.count(b"\n") == 3


def test_a_closed_stream_gets_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    FORMS["text"].write(StreamTarget(None), SavedTrace(RECORDING), False)
    assert capfd.readouterr() == ("", "")


def test_a_file_appears_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    path = tmp_path / "out"
    target = open_target(str(path))
    assert not path.exists()
    FORMS["text"].write(target, SavedTrace(RECORDING), False)
    target.discard()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert "\x1b" not in path.read_text("utf-8") and "\u2514" in path.read_text("utf-8")


def test_a_discarded_file_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    for name in ("new", "old"):
        target = open_target(str(tmp_path / name))
        target.discard()
        target.discard()
    assert [p.name for p in tmp_path.iterdir()] == ["old"] and (tmp_path / "old").read_text() == "old"


@posix_only
def test_a_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        target = open_target(str(tmp_path / "new"))
        target.write("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    for name in (tmp_path, tmp_path / "no" / "file"):
        with pytest.raises(CommandFailed, match="cannot write"):
            open_target(str(name))


def test_what_has_no_number_is_none_of_our_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NUL of Windows is a device without one, as each of its pipes is."""
    plain = os.stat(tmp_path)
    nothing = os.stat_result((stat.S_IFCHR | 0o666, 0, 0, *plain[3:]))
    path = tmp_path / "NUL"
    path.write_text("")
    monkeypatch.setattr(os, "stat", lambda path: nothing)
    monkeypatch.setattr(os, "fstat", lambda fd: nothing)
    target = open_target(str(path))
    monkeypatch.undo()
    assert isinstance(target, DirectTarget)
    target.discard()


@posix_only
def test_a_device(tmp_path: Path) -> None:
    target = open_target("/dev/full")
    with pytest.raises(OSError, match="No space"):
        target.write("x")
    target.discard()


@pytest.mark.parametrize(
    ("status", "words"),
    [(-11, "was killed by SIGSEGV"), (-63, "was killed by "), (3, "status 3"), (0xC0000005, "status 0xc0000005")],
)
@posix_only
def test_words_for_an_ending(status: int, words: str) -> None:
    assert words in describe_ending(status)


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"{", marshal.dumps(1), marshal.dumps([1]), marshal.dumps({"outcome": 1}), marshal.dumps([1] * 8)],
)
def test_a_damaged_report_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "result").write_bytes(content)
    assert RunnerReport.read(str(tmp_path / "result")) is None
    assert RunnerReport.read(str(tmp_path / "missing")) is None


def test_a_report_cut_short_is_none(tmp_path: Path) -> None:
    path = tmp_path / "result"
    RunnerReport(RunnerOutcome.RECORDED, recording=encode(RECORDING)).write(str(path))
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert RunnerReport.read(str(path)) is None


def test_a_report(tmp_path: Path) -> None:
    path = str(tmp_path / "result")
    RunnerReport(
        RunnerOutcome.RECORDED, recording=encode(RECORDING), ends=((True, 5), (None, None)), notes=("t",)
    ).write(path)
    report = RunnerReport.read(path)
    assert report is not None and (report.ends, report.notes) == (((True, 5), (None, None)), ("t",))
    run = spawn.with_report(RunResult(status=3), 7, report, "auto", None)
    assert run == RunResult(status=3, recording=RECORDING, completed=False)


def test_a_recording_that_cannot_be_read_is_salvaged() -> None:
    report = RunnerReport(RunnerOutcome.RECORDED, recording={"version": 1})
    run = spawn.with_report(RunResult(status=0), 7, report, "etw", None)
    assert run.recording is not None and run.recording.pid == 7
    assert "this is not a whole recording" in run.recording.notes[0]


@pytest.mark.parametrize(
    "sharing",
    [
        LogSharing(), LogSharing(200), LogSharing(prefix="/tmp/a:b/log"), LogSharing(prefix="/x", from_start=True),
        LogSharing(prefix="/x", with_children=True), LogSharing(prefix="/x", from_start=True, with_children=True),
        LogSharing(deadline=1764448000.25),
    ],
)  # fmt: skip
def test_how_a_log_is_shared_is_one_word(sharing: LogSharing) -> None:
    environment = {"HOME": "/", **sharing.environment()}
    again = LogSharing.decode(sharing.encode(), environment)
    assert environment == {"HOME": "/"} and str(sharing.prefix) not in sharing.encode()
    assert [getattr(again, name) for name in again.__slots__] == [getattr(sharing, name) for name in again.__slots__]


def test_what_is_lost_is_said_to_be_lost() -> None:
    recording = salvage("the program fell over", "etw", None, 7)
    assert recording == Recording("etw", (), 7, notes=("the program fell over; what it recorded is lost",))


STATE = "import sys; print(sys.flags, sys.warnoptions, sorted(sys._xoptions.items()), sys.stdout.write_through)"


@pytest.mark.parametrize(
    "options",
    [
        (), ("-B", "-s", "-P", "-OO", "-q"), ("-I", "-S", "-u"), ("-E", "-v", "-bb", "-W", "error", "-W", "default"),
        ("-X", "dev", "-W", "default", "-X", "mine=1", "-X", "other"), ("-b", "-d", "-X", "utf8=0", "-X", "importtime"),
    ],
)  # fmt: skip
def test_options_of_the_interpreter(options: tuple[str, ...]) -> None:
    """An interpreter that gets the options which `interpreter` makes of ours is in the same state."""
    if "-P" in options and sys.version_info < (3, 11):
        pytest.skip("Python 3.10 has no -P")
    root = str(Path(process.__file__).parents[2])
    ask = f"import sys; sys.path[:0] = [{root!r}]; from dlltracer.cli import process; print(process.interpreter()[1:])"

    def run(words: Sequence[str], code: str) -> str:
        command = [sys.executable, *words, "-c", code]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()

    again = ast.literal_eval(run(options, ask))
    assert run(again, STATE) == run(options, STATE) != ""


def test_a_program_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(process.CannotRun, match="/no/such/python could not be started: No such file"):
        spawn.run_child(Program(ProgramKind.CODE, "pass"), "auto", process.RunOptions())


def run_cli(monkeypatch: pytest.MonkeyPatch, ending: RunResult, *words: str) -> Any:
    monkeypatch.setattr("dlltracer.cli.run.run_child", lambda program, backend, options: ending)
    return CliRunner().invoke(cli, ["run", *words, "-c", "pass"])


def test_status_when_the_report_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.name == "nt":
        pytest.skip("there is no /dev/full")
    for status, wanted in ((0, 2), (5, 5)):
        result = run_cli(monkeypatch, RunResult(status=status, recording=RECORDING), "-o", "/dev/full")
        assert result.exit_code == wanted
        assert "the report could not be written: No space left" in result.output


def test_status_of_the_program_is_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for status, wanted in ((0, 0), (7, 7), (0xC0000005, 0xC0000005 - (1 << 32))):
        run = RunResult(status=status, recording=RECORDING)
        result = run_cli(monkeypatch, run, "-o", str(tmp_path / "f"), "--format", "lines")
        assert (result.exit_code, result.output) == (wanted, "")
    assert (tmp_path / "f").read_bytes() == b"LoadLibrary /gr\xc3\xbc\xc3\x9f/\xff.so\n"


def test_help_and_version() -> None:
    shown = CliRunner().invoke(cli, ["--help"])
    assert shown.exit_code == 0 and "run " in shown.output
    assert CliRunner().invoke(cli, ["--version"]).output.startswith("dlltracer ")
    explained = CliRunner().invoke(cli, ["run", "--help"]).output
    for option in ("-c CODE", "-m MODULE", "SCRIPT", "-- COMMAND", "--output", "--format", "--backend"):
        assert option in explained
    assert all(f"--{option}" in explained for option in ("failed-only", "follow", "startup"))


@pytest.mark.skipif(sys.platform == "win32", reason="programs of Windows have no mode, and are PE files")
def test_a_program_given_as_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    for name, mode in (("bin/tool", 0o755), ("my app", 0o755), ("plain.so", 0o755), ("data", 0o644)):
        (tmp_path / name).write_bytes(b"\x7fELF and more")
        (tmp_path / name).chmod(mode)
    assert (what_is_meant("tool") or "").endswith(": dlltracer run -- tool")
    assert (what_is_meant("bin/tool") or "").endswith("is a program, not a script of Python: dlltracer run -- bin/tool")
    assert (what_is_meant("my app") or "").endswith(": dlltracer run -- './my app'")
    assert "dlltracer why ./plain.so" in (what_is_meant("plain.so") or "")
    assert "dlltracer why ./data" in (what_is_meant("data") or "")
    with zipfile.ZipFile(tmp_path / "my app", "a") as launcher:
        launcher.writestr("__main__.py", "")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "script").write_text("pass")
    for name in ("my app", "pipe", "script", "bin", "none", "none.py", "bin/none", "-", "", "\0"):
        assert what_is_meant(name) is None, name


@pytest.mark.skipif(sys.platform == "win32", reason="the slow interpreter is a script of the shell")
def test_a_python_that_is_too_slow_is_not_said_to_lack_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(deps, "_SECONDS", 0.1)
    with pytest.raises(CommandFailed, match=r"python did not say within 0\.1 s where numpy is: name the file"):
        deps.choose_file("numpy", str(slow))
