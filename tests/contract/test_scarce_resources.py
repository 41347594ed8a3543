"""`run` and `why` where no file can be opened or made: the program runs, its status counts, a note says the rest."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlltracer.cli.runner import RunnerOutcome, RunnerReport
from dlltracer.host import scratch

if sys.platform != "linux":
    pytest.skip("limits and mounts of Linux", allow_module_level=True)

DLLTRACER = f"{sys.executable} -m dlltracer"
FEW = "ulimit -n 6"
"""Three besides the standard streams."""

READ_ONLY = """
set -e
for folder in / /tmp /var/tmp /dev/shm "$TOP"; do mount --bind $folder $folder; mount -o remount,bind,ro $folder; done
cd /
exec setpriv --bounding-set=-all --inh-caps=-all sh -c "$1"
"""
"""No folder takes a file, and root has none of its rights to change that."""


def shell(command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command], env={**os.environ, **more}, capture_output=True, text=True, timeout=120, check=False
    )


def read_only(command: str) -> subprocess.CompletedProcess[str]:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root, unshare and setpriv")
    top = Path(__file__).parents[2]
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", command],
        env={**os.environ, "TOP": str(top), "TMPDIR": "/nowhere", "XDG_RUNTIME_DIR": "/nowhere"}, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    if "mount" in ran.stderr:
        pytest.skip(f"mounts are refused here: {ran.stderr}")
    return ran


@pytest.mark.parametrize("options", ["", "--follow", "--startup"])
def test_few_descriptors_cost_neither_status_nor_recording(options: str, tmp_path: Path) -> None:
    file = tmp_path / "run.dlltrace"
    code = "import _json; raise SystemExit(7)"
    ran = shell(f"{FEW}; exec {DLLTRACER} run {options} -o {file} -c '{code}'")
    assert (ran.returncode, ran.stderr) == (7, "")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert any("_json" in line.get("path", "") for line in lines if line["type"] == "load")
    assert lines[-1]["type"] == "end" and lines[-1]["status"] == 7
    notes = " ".join(lines[-1]["notes"])
    assert ("limit of open files" in notes) is bool(options)


def test_few_descriptors_and_a_command() -> None:
    ran = shell(f"{FEW}; exec {DLLTRACER} run -- sh -c 'exit 5'")
    assert ran.returncode == 5 and "limit of open files" in ran.stderr


def test_the_program_keeps_its_own_limit() -> None:
    """The soft limit is raised for us, where the hard one allows it, and not for the program."""
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    ran = shell(f"ulimit -Sn 40; exec {DLLTRACER} run --follow -c '{code}'")
    assert (ran.returncode, ran.stdout) == (0, "40\n")


def test_why_with_few_descriptors() -> None:
    ran = shell(f"{FEW}; exec {DLLTRACER} why json")
    assert ran.returncode == 0 and "works" in ran.stdout and "could not be kept" in ran.stdout


def test_run_without_a_writable_folder() -> None:
    ran = read_only(f"exec {DLLTRACER} run -c 'import _json; raise SystemExit(7)'")
    assert ran.returncode == 7 and "_json" in ran.stderr and "1 image loaded" in ran.stderr


def test_follow_without_a_writable_folder() -> None:
    ran = read_only(f"exec {DLLTRACER} run --follow -c 'import _json; raise SystemExit(7)'")
    assert ran.returncode == 7 and "_json" in ran.stderr
    assert "the processes that it starts could not be traced: no folder takes" in ran.stderr


def test_a_command_without_a_writable_folder() -> None:
    ran = read_only(f"exec {DLLTRACER} run -- sh -c 'exit 5'")
    assert ran.returncode == 5 and "it was not traced: no folder takes" in ran.stderr


def test_why_without_a_writable_folder() -> None:
    ran = read_only(f"exec {DLLTRACER} why -c 'import ctypes; ctypes.CDLL(\"libnope.so\")'")
    assert ran.returncode == 1 and ran.stdout.startswith("the code failed: libnope.so was not found\n")
    assert "  certain · no-such-file · " in ran.stdout


def test_no_file_may_grow() -> None:
    """RLIMIT_FSIZE holds for files in memory, too."""
    ran = shell(f"ulimit -f 0; exec {DLLTRACER} run -c 'import _json; raise SystemExit(7)'")
    assert ran.returncode == 7 and "it was not traced: no file takes its report (File too large)" in ran.stderr
    ran = shell(f"ulimit -f 0; exec {DLLTRACER} run --follow -c 'import _json; raise SystemExit(7)'")
    assert ran.returncode == 7 and "it was not traced: no file takes its report (File too large)" in ran.stderr
    ran = shell(f"ulimit -f 0; exec {DLLTRACER} why -v -c 'import ctypes; ctypes.CDLL(\"libnope.so\")'")
    assert ran.returncode == 1 and "no file takes its report" in ran.stdout and "libnope.so" in ran.stdout


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_takes_what_we_say(unbuffered: str) -> None:
    """The status is the program's where it failed; ours where the report of what went well is lost."""
    for code, status in (("raise SystemExit(7)", 7), ("pass", 2)):
        ran = shell(f"exec {DLLTRACER} run -c '{code}' 2>/dev/full", PYTHONUNBUFFERED=unbuffered)
        assert (ran.returncode, ran.stdout) == (status, ""), code
    for words in ("why json", f"deps {sys.executable}", "--version"):
        ran = shell(f"exec {DLLTRACER} {words} >/dev/full", PYTHONUNBUFFERED=unbuffered)
        assert ran.returncode == 2 and ran.stderr.count("\n") == 1, ran.stderr
        assert ran.stderr.startswith("dlltracer: error: ") and "No space left on device" in ran.stderr
    ran = shell(f"exec {DLLTRACER} why -c '' --no-such 2>/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert ran.returncode == 2


def test_a_file_in_memory_takes_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise FileNotFoundError(2, "no folder")

    monkeypatch.setattr(scratch, "temporary_folder", refuse)
    with scratch.ScratchFile("result") as file:
        for outcome in (RunnerOutcome.UNFINISHED, RunnerOutcome.RECORDED):
            RunnerReport(outcome, "a message").write(file.path)
            report = RunnerReport.read(file.path)
            assert report is not None and report.outcome == outcome
    assert RunnerReport.read(file.path) is None
