"""Names made by strangers, on a terminal: no command lets an escape sequence of them through."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builders.elf_file import ElfFile
from builders.failed_case import process
from builders.terminal import run_command_on_terminal, run_on_terminal
from contract.native import Native
from dlltracer.model.events import FailureKind, LoadEvent, LoadFailedEvent
from dlltracer.model.failure import PythonError
from dlltracer.model.recording import Recording, TracedProcess
from dlltracer.model.run import HostFacts, RunResult, SavedTrace
from dlltracer.model.tracefile import trace_to_lines

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs pseudo-terminals, and names of any bytes")

EVIL = "ev\x1b]0;owned\x07\x1b[31m\x9b2J\u202egpj\rX\nFailed \udc9b"
"""OSC (a new title), CSI in both forms, text backwards, the start of the line again, a line of its own, a C1 byte."""

IN_A_LOG = EVIL.replace("\n", "").replace("\udc9b", "")
"""The same on one line: glibc's log has a line an event, and a file name may not cut it."""

OURS = (
    r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[2K|\x1b\[1A|\r(?=\n|\x1b)|\r\r?\n|\n|\r|"
    r"\x1b\]8;id=\d+;(?:https://dlltracer\.github\.io/|file:///)[a-z/.-]*/findings\.(?:html|md)#[a-z-]+\x1b\\|\x1b\]8;;\x1b\\"
)
"""Colours, and of the live view and the bar: the cursor hidden and shown, lines taken back; links to our own pages."""


def dlltracer(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "dlltracer", *map(str, arguments)]


def check(output: str) -> None:
    """Nothing but our own sequences and text that prints; the name is there, escaped, on its line."""
    rest = re.sub(OURS, "", output)
    assert rest.isprintable(), ascii(re.sub(r"[\x20-\x7e]+", "", rest))
    assert r"ev\x1b]0;owned\x07\x1b[31m\x9b2J\u202egpj\rX\nFailed" in rest, ascii(output)
    assert not re.search(r"^\s*Failed \S*$", output.replace("\r", "\n"), re.MULTILINE), "a line of its own making"


def trace(*, imports: tuple[str, ...] = (EVIL,)) -> SavedTrace:
    top = f"/x/{EVIL}.so"
    return SavedTrace(
        Recording(
            "ld_debug",
            (
                LoadEvent(top, need=EVIL, imports=imports, pid=1),
                LoadFailedEvent(
                    EVIL, need=EVIL, requested_by=top, imports=imports, pid=1, kind=FailureKind.NOT_FOUND, reason=EVIL
                ),
            ),
            pid=1, notes=(EVIL,),
            processes=(TracedProcess(1, command=(EVIL,), program=EVIL), TracedProcess(2, command=(EVIL,), status=-11)),
        ),
        what=EVIL, written_by=EVIL, host=HostFacts("linux", EVIL, EVIL, EVIL, EVIL),
        run=RunResult(
            errors=(PythonError("ImportError", f"{EVIL}: cannot open it", ("ImportError",)),), process=process(),
            status=1,
        ),
    )  # fmt: skip


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "a.dlltrace"
    path.write_text("".join(trace_to_lines(trace())), encoding="utf-8", errors="surrogateescape")
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", EVIL), ("show", "--format", EVIL, "x"), ("deps", EVIL), ("deps", "/bin/sh", "--root", EVIL),
        ("diff", EVIL, EVIL), ("why", f"--{EVIL}"), ("order", EVIL, "b"), ("run", "--backend", EVIL, "-c", ""),
        ("run", "-o", f"/nowhere/{EVIL}", "-c", ""), ("schema", EVIL), ("info", EVIL), (EVIL,),
        ("--config", EVIL, "info"), ("run", f"--{EVIL}"), ("completion", EVIL),
        ("why", "--python", f"/nowhere/{EVIL}", "ssl"),
    ],
    ids=lambda arguments: " ".join(arguments).replace(EVIL, "NAME"),
)  # fmt: skip
def test_error_lines(arguments: tuple[str, ...]) -> None:
    output = run_command_on_terminal(dlltracer(*arguments))
    rest = re.sub(OURS, "", output)
    assert rest.isprintable(), ascii(output)
    assert re.search(r"dlltracer: error: .*ev\\x1b\]0;owned", output), ascii(output)


def test_an_error_line_is_one_line_in_a_pipe_too(tmp_path: Path) -> None:
    run = subprocess.run(dlltracer("show", tmp_path / EVIL), capture_output=True, text=True, check=False)
    assert run.returncode == 2 and run.stderr.count("\n") == 1, run.stderr


@pytest.mark.parametrize("form", ["text", "lines", "jsonl", "dot", "mermaid", "github", "perfetto", "recording"])
def test_show(recording: Path, form: str) -> None:
    output = run_command_on_terminal(dlltracer("show", recording, "--format", form))
    rest = re.sub(OURS, "", output)
    assert rest.replace("\t", "").isprintable(), ascii(output)
    assert "owned" in rest and not re.search(r"^Failed \S*$", output.replace("\r", ""), re.MULTILINE)
    if form in ("text", "lines"):
        check(output)


def test_show_writes_a_device_that_is_a_terminal(recording: Path) -> None:
    output = run_command_on_terminal(
        ["sh", "-c", 'exec "$0" -m dlltracer show "$1" --format lines -o "$(tty <&2)"', sys.executable, str(recording)]
    )
    check(output)


def test_lines_in_a_pipe_and_a_file_have_names_as_they_are(recording: Path, tmp_path: Path) -> None:
    wanted = os.fsencode(f"LoadLibrary /x/{EVIL}.so\nFailed {EVIL}\n")
    piped = subprocess.run(dlltracer("show", recording, "--format", "lines"), stdout=subprocess.PIPE, check=True)
    assert piped.stdout == wanted
    subprocess.run(dlltracer("show", recording, "--format", "lines", "-o", tmp_path / "out"), check=True)
    assert (tmp_path / "out").read_bytes() == wanted


def test_verdict_of_a_recording(recording: Path) -> None:
    check(run_command_on_terminal(dlltracer("why", recording)))


def test_difference(recording: Path, tmp_path: Path) -> None:
    other = tmp_path / "b.dlltrace"
    other.write_text("".join(trace_to_lines(SavedTrace(Recording("ld_debug"), what="nothing"))))
    check(run_command_on_terminal(dlltracer("diff", recording, other)))


@pytest.mark.parametrize("options", [(), ("--flat",), ("--missing",), ("--why", "libneed.so"), ("--format", "dot")])
def test_needs_of_a_file(options: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / EVIL
    file.write_bytes(ElfFile(needed=("libneed.so", "lib\x1b[2J.so"), soname="x").build())
    output = run_command_on_terminal(dlltracer("deps", *options, file))
    assert re.sub(OURS, "", output).isprintable() and "owned" in output, ascii(output)


def test_info() -> None:
    check(run_command_on_terminal(dlltracer("info"), LD_LIBRARY_PATH=EVIL))


def test_order(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(f"raise ImportError({EVIL!r})\n")
    (tmp_path / "two.py").write_text("")
    check(run_command_on_terminal(dlltracer("order", "one", "two"), PYTHONPATH=str(tmp_path)))


@pytest.mark.parametrize("options", [(), ("--format", "lines"), ("--live",), ("--format", "dot"), ("--html", "-")])
def test_run(options: tuple[str, ...], native: Native, tmp_path: Path) -> None:
    file = tmp_path / f"{IN_A_LOG}.so"
    shutil.copy(native.tiny(), file)
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    output = run_command_on_terminal(dlltracer("run", *options, "-c", code, file))
    assert re.sub(OURS, "", output).replace("\t", "").isprintable(), ascii(output)
    assert "owned" in output, ascii(output)
    if options in ((), ("--format", "lines"), ("--live",)):
        assert r"ev\x1b]0;owned\x07\x1b[31m\x9b2J\u202egpj\rXFailed" in output, ascii(output)


def test_the_output_of_the_program_is_its_own() -> None:
    output = run_command_on_terminal(dlltracer("run", "-c", r"print('\x1b]0;mine\x07')"))
    assert "\x1b]0;mine\x07" in output


@pytest.mark.every_python
def test_why_tries_a_file_of_that_name(tmp_path: Path) -> None:
    file = tmp_path / f"{EVIL}.so"
    file.write_bytes(b"\x7fELF, and no more")
    output = run_command_on_terminal(dlltracer("why", file))
    check(output)
    assert r"X\nFailed \udc9b.so is cut short" in output, "the whole name, not its last line"


@pytest.mark.parametrize("how", ["install", "trace"])
def test_in_the_process_of_the_program(how: str, native: Native, tmp_path: Path) -> None:
    file = tmp_path / f"{IN_A_LOG}.so"
    if how == "trace":
        shutil.copy(native.tiny(), file)
    else:
        file.write_bytes(b"no ELF file")
    code = """
        import ctypes, sys
        import dlltracer
        if sys.argv[1] == "trace":
            with dlltracer.Trace(out=sys.stderr):
                ctypes.CDLL(sys.argv[2])
        else:
            sys.excepthook = lambda *error: None
            dlltracer.install()
            try:
                ctypes.CDLL(sys.argv[2], 2)
            except OSError as error:
                sys.excepthook(type(error), error, error.__traceback__)
        """
    output, _ = run_on_terminal(code, how, str(file))
    assert re.sub(OURS, "", output).isprintable() and "owned" in output, ascii(output)
