"""Recordings: written while a program runs, shown and explained afterwards, whatever became of the disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contract.native import Native
from dlltracer.host.recording_files import read_trace_file
from dlltracer.model.finding import Outcome

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="rtld needs no privilege; others see less")
posix_only = pytest.mark.skipif(os.name == "nt", reason="limits and fifos of POSIX")


def ask(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dlltracer", *map(str, arguments)], env={**os.environ, **environment},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def recorded(native: Native, tmp_path: Path) -> Path:
    """A recording of an import that failed."""
    path = tmp_path / "x.dlltrace"
    ran = ask("why", native.broken_module(), "-o", path)
    assert ran.returncode == 1 and native.missing in ran.stdout, ran.stderr
    return path


@linux_only
def test_run_writes_a_recording(native: Native, tmp_path: Path) -> None:
    path = tmp_path / "x.dlltrace"
    library = native.tiny()
    ran = ask("run", "-o", path, "-c", f"import ctypes; ctypes.CDLL({str(library)!r}); print('out')")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "out\n", "")
    trace = read_trace_file(str(path))
    assert (trace.problems, trace.run.status, trace.what, trace.command[1]) == ((), 0, "the code", "-c")
    assert trace.started is not None and trace.host is not None and trace.host.system == "linux"
    assert trace.run.process is not None and str(library) in trace.run.process.loaded
    assert str(library) in [event.path for event in trace.recording.loads]
    facts = {image.path: image for image in trace.images}[str(library)]
    assert facts.size == library.stat().st_size and facts.machine == "x86-64"
    assert facts.digest is not None and facts.digest.startswith(("build-id:", "sha256:"))
    assert trace.places is not None and trace.places.folders
    assert {name for name, _ in trace.run.process.environment} <= {
        "LD_LIBRARY_PATH", "LD_PRELOAD", "PATH", "CONDA_PREFIX", "VIRTUAL_ENV",
    }  # fmt: skip


@linux_only
def test_run_saves_why_it_failed(native: Native, tmp_path: Path) -> None:
    path = tmp_path / "x.dlltrace"
    code = f"import ctypes; ctypes.CDLL({str(native.broken())!r})"
    ran = ask("run", "--format", "recording", "-o", path, "-c", code)
    assert ran.returncode == 1 and "Traceback" in ran.stderr and "looked for" not in ran.stderr
    trace = read_trace_file(str(path))
    assert trace.diagnosis is not None and trace.diagnosis.outcome is Outcome.EXPLAINED
    assert trace.run.errors and trace.case is not None
    printed = ask("why", path)
    assert printed.returncode == 1 and printed.stdout.startswith(f"the code failed: {native.missing}, which ")
    assert "note: recorded: the code" in ask("why", "-v", path).stdout


@linux_only
@pytest.mark.parametrize(
    ("code", "printed"), [("import no_such_thing", "no-such-module"), ("import os; os.kill(os.getpid(), 11)", "crash")]
)
def test_run_saves_what_may_be_asked_later(code: str, printed: str, tmp_path: Path) -> None:
    path = tmp_path / "x.dlltrace"
    assert ask("run", "-o", path, "-c", code).returncode
    assert read_trace_file(str(path)).case is not None
    assert printed in ask("why", path, "--json").stdout


@linux_only
def test_why_on_a_recording_says_what_it_said(recorded: Path, native: Native) -> None:
    first = json.loads(ask("why", native.broken_module(), "--json").stdout)["findings"][0]
    ran = ask("why", recorded, "--json")
    again = json.loads(ran.stdout)["findings"][0]
    assert (ran.returncode, ran.stderr) == (1, "")
    assert [again[key] for key in ("code", "subject", "confidence")] == [
        first[key] for key in ("code", "subject", "confidence")
    ]


@linux_only
def test_a_recording_without_its_end(recorded: Path, native: Native, tmp_path: Path) -> None:
    lines = recorded.read_bytes().splitlines(keepends=True)
    cut = tmp_path / "cut.dlltrace"
    kept = (b'{"type": "failed"', b'{"type": "recording"')
    cut.write_bytes(b"".join(line for line in lines if line.startswith(kept)))
    ran = ask("why", cut)
    assert ran.returncode == Outcome.UNDECIDED.exit_status
    assert native.missing in ran.stdout and "it was cut off" in ran.stdout


@linux_only
def test_show(recorded: Path, native: Native, tmp_path: Path) -> None:
    ran = ask("show", recorded)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "NOT FOUND" in ran.stdout and "missing-image" in ran.stdout and "note: recorded: " in ran.stdout
    assert f"Failed {native.missing}\n" in ask("show", recorded, "--format", "lines").stdout
    types = [json.loads(line)["type"] for line in ask("show", recorded, "--format", "jsonl").stdout.splitlines()]
    assert types[0] == "recording" and types[-2:] == ["verdict", "summary"]
    again = tmp_path / "again.dlltrace"
    assert ask("show", recorded, "-o", again).returncode == 0
    assert read_trace_file(str(again)) == read_trace_file(str(recorded))


@linux_only
def test_redacted(native: Native, tmp_path: Path) -> None:
    path = tmp_path / "x.dlltrace"
    # A name that nobody has, so that finding it anywhere is finding it where it should not be.
    library = tmp_path / "zaphodq" / "broken.so"
    library.parent.mkdir()
    library.write_bytes(native.broken().read_bytes())
    code = f"token = 'qwertzuiop'; import ctypes; ctypes.CDLL({str(library)!r})"
    named = {"USER": "zaphodq", "MY_PASSWORD": "x"}
    ran = ask("run", "--redact", "-o", path, "-c", code, **named)
    text = path.read_text("ascii")
    assert ran.returncode == 1 and "zaphodq" not in text and "qwertzuiop" not in text and "redacted: " in text
    printed = ask("why", path, COLUMNS="200").stdout  # room behind the folder, however long pytest's is
    assert "zaphodq" not in printed and "/user1  (-v: " in printed.splitlines()[-1], "the folder of broken.so"
    printed = ask("why", "-v", path).stdout
    assert "zaphodq" not in printed and "user1/broken.so" in printed
    ran = ask("run", "--redact", "--failed-only", "-c", code, **named)
    report = ran.stderr[ran.stderr.index("traced by rtld") :]
    assert "zaphodq" not in report and "broken.so" in report and report.endswith("/user1\n")
    ran = ask("why", "--redact", library, **named)
    assert "zaphodq" not in ran.stdout and native.missing in ran.stdout


@posix_only
@linux_only
def test_a_full_disk_costs_the_recording_only(tmp_path: Path) -> None:
    path = tmp_path / "x.dlltrace"
    # The limit is that of the disk for us; the program takes it off for itself.
    code = (
        "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (r.RLIM_INFINITY, r.RLIM_INFINITY)); "
        "import ssl, decimal; print('went on')"
    )
    limited = 'ulimit -S -f 4; exec "$@"'
    command = [sys.executable, "-m", "dlltracer", "run", "-o", str(path), "-c", code]
    limited_command = ["sh", "-c", limited, "sh", *command]
    ran = subprocess.run(limited_command, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stdout) == (0, "went on\n")
    assert ran.stderr.count("dlltracer: error: ") == 1 and "cannot be written any more: File too large" in ran.stderr
    trace = read_trace_file(str(path))
    assert trace.recording.events and "it was cut off" in trace.problems[-1]


@posix_only
@linux_only
def test_a_reader_that_leaves_costs_nothing(tmp_path: Path) -> None:
    fifo = tmp_path / "x.dlltrace"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    code = f"import os; os.read(os.open({str(tmp_path / 'go')!r}, os.O_RDONLY), 1); import decimal; print('went on')"
    os.mkfifo(tmp_path / "go")
    command = [sys.executable, "-m", "dlltracer", "run", "-o", str(fifo), "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        go = os.open(tmp_path / "go", os.O_WRONLY)  # the program has begun
        os.close(reader)
        os.close(go)
        out, error = child.communicate(timeout=120)
    assert (child.returncode, out) == (0, "went on\n")
    assert error.count("dlltracer: error: ") == 1 and "Broken pipe" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "{none}"), "cannot read {none}: No such file or directory"),
        (("why", "{none}"), "there is no file {none}"),
        (("why", "./no_such.dll"), "there is no file ./no_such.dll"),
        (("why", "no_such.pyd"), "there is no file no_such.pyd"),
        (("diff", "{none}", "{none}"), "cannot read {none}: No such file or directory"),
        (("diff", "{text}", "{none}"), "{text}: this is not a recording of dlltracer: line 1: line: it is not JSON"),
        (("why", "{text}"), "{text}: this is not a recording of dlltracer: line 1: line: it is not JSON"),
        (("show", "{text}"), "{text}: this is not a recording of dlltracer: line 1: line: it is not JSON"),
        (("show", "{text}", "--pid", "3"), "--process, --pid and --startup are for .etl files"),
        (("show", "{text}", "--format", "nope"), "'nope' is not one of"),
        (("show", "{text}", "--html", "x", "-o", "y"), "--html FILE is an output of its own"),
        (("run", "--format", "recording", "-c", "pass"), "name a file for it, -o FILE.dlltrace"),
        (("run", "-o", "/no/such/folder/x.dlltrace", "-c", "pass"), "cannot write /no/such/folder/x.dlltrace"),
        (("why", "{text}", "-o", "y.dlltrace"), "a recording is explained as it is"),
        (("run", "-o", "{none}", "--github", "-c", "pass"), "a recording, and this would be github: name another file"),
        (("run", "--html", "{none}", "-c", "pass"), "{none} is the name of a recording, and this would be html"),
        (("show", "{text}", "--html", "{text}"), "{text} is the name of a recording, and this would be html"),
        (("why", "--html", "-", "math"), "the report and the page would both be stdout"),
    ],
)
def test_one_line_on_what_is_wrong(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    names = {"text": str(tmp_path / "a.dlltrace"), "none": str(tmp_path / "none.dlltrace")}
    (tmp_path / "a.dlltrace").write_text("a log\n")
    ran = ask(*(argument.format(**names) for argument in arguments))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert words.format(**names) in ran.stderr.splitlines()[-1] and "Traceback" not in ran.stderr


def test_a_program_that_never_began_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x.dlltrace"
    ran = ask("run", "-o", path, "-m", "no_such_module_here")
    assert ran.returncode != 0 and not path.exists()
    ran = ask("run", "-o", path, tmp_path / "no_such_script.py")
    assert ran.returncode != 0 and not path.exists()


@posix_only
@linux_only
def test_what_was_seen_outlives_a_kill(tmp_path: Path) -> None:
    """Both are killed, as when a machine is switched off: what was loaded until then is there."""
    path = tmp_path / "x.dlltrace"
    code = "import decimal, os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
    command = [sys.executable, "-m", "dlltracer", "run", "-o", str(path), "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        program = int(child.stdout.readline())
        deadline = time.monotonic() + 60
        while b"_decimal" not in path.read_bytes().rpartition(b"\n")[0] and time.monotonic() < deadline:
            os.sched_yield()
        os.kill(child.pid, signal.SIGKILL)
        os.kill(program, signal.SIGKILL)
    trace = read_trace_file(str(path))
    assert any("_decimal" in event.path for event in trace.recording.loads)
    assert (trace.what, trace.run.status, trace.recording.processes[0].pid) == ("the code", None, program)
    assert trace.problems == ("it was cut off: the end line is missing, and whatever came before it",)
    ran = ask("show", path)
    assert ran.returncode == 0 and "_decimal" in ran.stdout and "it was cut off" in ran.stdout
    assert "how it was traced is not known" in ran.stdout
    ran = ask("why", path)
    assert ran.returncode == 4 and ran.stdout.startswith("how the code ended is not known, nor whether it failed\n")


@posix_only
@linux_only
def test_processes_are_recorded(tmp_path: Path) -> None:
    path = tmp_path / "x.dlltrace"
    # A process that has ended before it is noticed has neither a parent nor a status: it waits for that.
    child = "import decimal, os, sys\nwhile b'_deci' b'mal' not in open(sys.argv[1], 'rb').read(): os.sched_yield()"
    # Debian's Python has all that subprocess needs built in.
    words = f"[sys.executable, '-c', {child!r}, sys.argv[1]]"  # its code is recorded, too
    code = f"import _json, subprocess, sys; subprocess.run({words}, check=True)"
    assert ask("run", "--follow", "-o", path, "-c", code, path).returncode == 0
    trace = read_trace_file(str(path))
    first, second = trace.recording.processes
    assert trace.problems == () and (first.pid, second.parent, second.status) == (trace.recording.pid, first.pid, 0)
    assert {event.pid for event in trace.recording.loads} == {first.pid, second.pid}
