"""Where the system really refuses what a mechanism needs: the next mechanism, and a note that says so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from contract.native import Native

if sys.platform != "linux":
    pytest.skip("refusals of Linux", allow_module_level=True)

from dlltracer.capture.choose import make_backend
from dlltracer.capture.linux.rtld import RtldBackend

if not RtldBackend().availability().ok:
    pytest.skip("the first mechanism does not work here anyway", allow_module_level=True)

Run = subprocess.CompletedProcess[str]
Refuse = Callable[[Sequence[str]], Run]

NO_FOLDER = """
for folder in / /tmp /var/tmp /dev/shm "$TOP"; do mount --bind $folder $folder; mount -o remount,bind,ro $folder; done
cd /
exec setpriv --bounding-set=-all --inh-caps=-all "$@"
"""
NO_PROC = 'mount -t tmpfs none /proc && exec "$@"'
NO_PROCESSES = """
exec setpriv --reuid=54321 --regid=54321 --clear-groups --inh-caps=-all,+dac_read_search,+dac_override \\
    --ambient-caps=-all,+dac_read_search,+dac_override sh -c 'ulimit -u 2; exec "$@"' sh "$@"
"""
"""Two processes of this user, and no thread besides."""


def run(command: Sequence[str]) -> Run:
    top = str(Path(__file__).parents[2])
    environment = {**os.environ, "TMPDIR": "/nowhere", "XDG_RUNTIME_DIR": "/nowhere", "TOP": top}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback (most recent call last)" not in done.stderr, done.stderr
    return done


def refused(*refusals: str) -> Refuse:
    """Return a function that runs a command where these calls are refused."""

    def run_refused(command: Sequence[str]) -> Run:
        done = run([sys.executable, str(Path(__file__).with_name("restricted.py")), *refusals, "--", *command])
        if done.returncode == 77:
            pytest.skip("this system allows no seccomp filter")
        return done

    return run_refused


def inside(script: str) -> Refuse:
    """Return a function that runs a command behind a script of the shell, in a mount namespace of its own."""

    def run_inside(command: Sequence[str]) -> Run:
        if os.geteuid() != 0 or shutil.which("setpriv") is None:
            pytest.skip("needs root, unshare and setpriv")
        done = run(["unshare", "--mount", "sh", "-euc", script, "sh", *command])
        if done.stderr.startswith(("mount:", "unshare:", "setpriv:")):
            pytest.skip(f"refused here: {done.stderr}")
        return done

    return run_inside


def both(script: str, *refusals: str) -> Refuse:
    def run_both(command: Sequence[str]) -> Run:
        wrapper = [sys.executable, str(Path(__file__).with_name("restricted.py")), *refusals, "--", *command]
        return inside(script)(wrapper)

    return run_both


RTLD = {
    "memfd": refused("memfd"),
    "memfd and O_TMPFILE": refused("memfd", "tmpfile"),
    "threads": refused("threads"),
    "processes": inside(NO_PROCESSES),
    "folders": inside(NO_FOLDER),
}
"""What rtld does without."""

SNAPSHOT = {
    "mprotect": (refused("mprotect"), "the system does not let the loader's page be written"),
    "proc": (inside(NO_PROC), "/proc/self/maps cannot be read (No such file or directory)"),
    "memfd and folders": (both(NO_FOLDER, "memfd"), "no file takes the loader's log (Operation not permitted)"),
}
"""Without these the images before and after are compared; and the reason that is given."""

TRACE = """
import ctypes, sys, threading, dlltracer
trace = dlltracer.Trace(backend="auto", collect=True)
with trace as events:
    ctypes.CDLL(sys.argv[1])
print(trace.recording.backend, *trace.recording.notes, sep="\\n")
print(*(event.path for event in events), sep="\\n")
"""


def traced(refuse: Refuse, native: Native) -> tuple[str, str, list[str]]:
    """Return the mechanism, the first note and the paths of a trace of one load."""
    done = refuse([sys.executable, "-c", TRACE, str(native.tiny())])
    assert done.returncode == 0, done.stderr
    backend, *lines = done.stdout.splitlines()
    paths = [line for line in lines if line.startswith("/")]
    return backend, next(iter(line for line in lines if line not in paths), ""), paths


def watched_by(what: str) -> str:
    """Return the mechanism that `run` and `why` take, where this is refused."""
    return "seccomp" if what == "mprotect" and make_backend("seccomp").availability().ok else "snapshot"


def dlltracer(refuse: Refuse, *words: str) -> Run:
    return refuse([sys.executable, "-m", "dlltracer", *words])


@pytest.mark.parametrize("what", RTLD)
def test_a_trace_does_without(what: str, native: Native) -> None:
    backend, note, paths = traced(RTLD[what], native)
    expected = "no thread could be started: events were delivered by the threads that loaded"
    assert (backend, note) == ("rtld", expected if what == "threads" else "") and len(paths) == 1


@pytest.mark.parametrize("what", SNAPSHOT)
def test_a_trace_takes_the_next_mechanism(what: str, native: Native) -> None:
    refuse, reason = SNAPSHOT[what]
    backend, note, paths = traced(refuse, native)
    assert backend == "snapshot" and note.startswith("rtld was not used: ") and reason in note
    assert len(paths) == 1, "only what the block loaded"


@pytest.mark.parametrize("what", RTLD)
def test_run_does_without(what: str, native: Native) -> None:
    code = f"import ctypes; ctypes.CDLL({str(native.tiny())!r}); raise SystemExit(7)"
    done = dlltracer(RTLD[what], "run", "-c", code)
    assert done.returncode == 7 and "1 image loaded, 0 failed; traced by rtld" in done.stderr, done.stderr


@pytest.mark.parametrize("what", SNAPSHOT)
def test_run_takes_the_next_mechanism(what: str, native: Native) -> None:
    refuse, reason = SNAPSHOT[what]
    done = dlltracer(refuse, "run", "-c", f"import ctypes; ctypes.CDLL({str(native.tiny())!r}); raise SystemExit(7)")
    if what == "memfd and folders":
        # Nor is there a file for the report of the program's process: the program runs, and its status counts.
        assert done.returncode == 7 and "it was not traced: no file takes its report" in done.stderr, done.stderr
        return
    assert done.returncode == 7 and f"traced by {watched_by(what)}" in done.stderr, done.stderr
    assert "tiny_" in done.stderr and ", 0 failed; " in done.stderr
    assert "note: rtld was not used: " in done.stderr and reason in done.stderr


@pytest.mark.parametrize("what", ["mprotect", "proc"])
@pytest.mark.parametrize("options", [["--follow"], ["--startup"], ["--follow", "--startup"]])
def test_followed_runs_take_the_log_of_the_start(
    what: str, options: list[str], native: Native, tmp_path: Path
) -> None:
    refuse, reason = SNAPSHOT[what]
    broken, report = native.broken(), tmp_path / "report"
    code = f"import ctypes\ntry: ctypes.CDLL({str(broken)!r})\nexcept OSError: raise SystemExit(7)"
    done = dlltracer(refuse, "run", *options, "-o", str(report), "--format", "jsonl", "-c", code)
    assert (done.returncode, done.stderr) == (7, "")
    head, *events, summary = map(json.loads, report.read_text().splitlines())
    assert head["backend"] == ("seccomp" if watched_by(what) == "seccomp" else "ld_debug")
    assert any(reason in note for note in head["notes"])
    assert summary["failed"] == 1 and native.missing in {event.get("path") for event in events}
    assert len({event["pid"] for event in events if event["type"] == "load"}) == 1, "nothing of the first try"


@pytest.mark.parametrize("options", [[], ["--follow"]])
def test_run_where_a_sandbox_does_not_know_clone3(options: list[str], native: Native) -> None:
    """posix_spawn of glibc 2.34 and later fails there, and vfork does not."""
    code = f"import ctypes; ctypes.CDLL({str(native.tiny())!r}); raise SystemExit(7)"
    done = dlltracer(refused("clone3"), "run", *options, "-c", code)
    assert done.returncode == 7 and "traced by rtld" in done.stderr, done.stderr


def test_the_first_try_is_no_process_of_the_run(native: Native, tmp_path: Path) -> None:
    file = tmp_path / "run.dlltrace"
    code = f"import ctypes; ctypes.CDLL({str(native.tiny())!r})"
    done = dlltracer(refused("mprotect"), "run", "--follow", "-o", str(file), "-c", code)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    processes = {line["pid"] for line in lines if line["type"] == "process"}
    assert processes == {line["pid"] for line in lines if line["type"] == "load"}


WHY = "import ctypes; ctypes.CDLL('libnope-at-all.so')"


@pytest.mark.parametrize("what", RTLD)
def test_why_does_without(what: str) -> None:
    done = dlltracer(RTLD[what], "why", "-v", "-c", WHY)
    assert done.returncode == 1 and "certain  the loader: there is no libnope-at-all.so" in done.stdout, done.stdout
    assert "looked for" in done.stdout and "was not used" not in done.stdout


@pytest.mark.parametrize("what", SNAPSHOT)
@pytest.mark.every_python
def test_why_says_that_the_loader_was_not_traced(what: str) -> None:
    refuse, reason = SNAPSHOT[what]
    done = dlltracer(refuse, "why", "-v", "-c", WHY)
    assert done.returncode == 1, done.stderr
    if what == "memfd and folders":
        assert "no file takes its report" in done.stdout
        return
    who = "loader" if watched_by(what) == "seccomp" else "Python"
    assert f"certain  {'the ' * (who == 'loader')}{who}: there is no libnope-at-all.so" in done.stdout
    assert "note: rtld was not used: " in done.stdout and reason in done.stdout.replace("\n", " ")


@pytest.mark.parametrize("what", ["threads", "processes"])
def test_a_time_limit_without_threads(what: str) -> None:
    done = dlltracer(RTLD[what], "why", "--timeout", "1", "-c", "while True: pass")
    assert done.returncode == 124 and "had not finished after 1 second" in done.stdout, done.stdout
