"""`dlltracer why`: its answers' form, its exit codes, and one clear line for a wrong question."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from contract.native import Native

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="on Windows the scenarios ask it")


def why(*arguments: object, folder: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dlltracer", "why", *map(str, arguments)],
        env={**os.environ, **more}, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


def test_an_import_that_works() -> None:
    ran = why("ssl")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "import ssl works: nothing to explain\n", "")


def test_a_missing_library(native: Native) -> None:
    ran = why(native.broken_module())
    lines = ran.stdout.splitlines()
    assert (ran.returncode, ran.stderr) == (1, "")
    assert f"failed: {native.missing} was not found" in " ".join(ran.stdout.split())
    assert len(lines) <= 14 and max(map(len, lines)) <= 80, "it fits on a screen"
    code = "missing-image"
    assert any(line.split(" · ")[:3] == ["  certain", code, f"dlltracer explain {code}"] for line in lines)
    whole = why(native.broken_module(), "-v")
    assert "looked for" in whole.stdout and "/usr/lib" in whole.stdout and f"[{code}]" in whole.stdout
    quiet = why(native.broken_module(), "-q")
    assert (quiet.returncode, quiet.stdout.count("\n")) == (1, 1) and quiet.stdout.rstrip().endswith("was not found")


@pytest.mark.every_python
def test_json(native: Native) -> None:
    output = json.loads(why(native.broken(), "--json").stdout)
    assert (output["type"], output["version"], output["outcome"]) == ("verdict", 1, "explained")
    first = output["findings"][0]
    assert (first["code"], first["subject"], first["confidence"]) == ("missing-image", native.missing, "certain")
    assert first["chain"][-1] == native.missing
    assert any(probe["outcome"] == "no entry" for probe in first["probes"])


@pytest.mark.every_python
@pytest.mark.parametrize("name", ["libnope.so", "{}/libnope.so", "{}/sub/libnope.so"])
def test_a_folder_that_is_closed_to_us(name: str, tmp_path: Path) -> None:
    """`Path.is_file` raises `PermissionError` there, before Python 3.14."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root may look everywhere, and setpriv is not here")
    drop = "setpriv --bounding-set=-all --inh-caps=-all" if os.geteuid() == 0 else ""
    code = f"import ctypes; ctypes.CDLL({name.format(tmp_path)!r})"
    try:
        ran = subprocess.run(
            ["sh", "-c", f'chmod 0 . && exec {drop} "$@"', "sh", sys.executable, "-m", "dlltracer", "why", "-c", code],
            cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        tmp_path.chmod(0o700)
    assert ran.returncode == 1 and ran.stderr == "" and "libnope.so" in ran.stdout, ran.stderr


def test_what_the_program_writes_is_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("import sys\nprint('out')\nprint('err', file=sys.stderr)\n")
    ran = why("loud", folder=tmp_path, PYTHONPATH=os.pathsep.join(filter(None, [".", os.environ.get("PYTHONPATH")])))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "import loud works: nothing to explain\n", "")


@pytest.mark.every_python
def test_an_import_that_hangs_is_ended(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(600)\n")
    ran = why("slow", "--timeout", "4", "--json", folder=tmp_path, PYTHONPATH=str(tmp_path))
    output = json.loads(ran.stdout)
    assert (ran.returncode, output["outcome"], output["findings"][0]["code"]) == (124, "explained", "import-hangs")
    assert "slow.py, line 2" in output["findings"][0]["title"] and "crash" not in output


@pytest.mark.every_python
def test_ctrl_c_says_where_it_was(tmp_path: Path) -> None:
    """Native code does not come back to Python to raise KeyboardInterrupt."""
    (tmp_path / "slow.py").write_text(
        "import os, signal, _signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "os.kill(os.getppid(), signal.SIGINT)\n_signal.sigwait([signal.SIGUSR1])\n"
    )
    ran = why("slow", "--json", folder=tmp_path, PYTHONPATH=str(tmp_path))
    output = json.loads(ran.stdout)
    assert (ran.returncode, output["findings"][0]["code"]) == (130, "import-hangs")
    assert "interrupted" in output["findings"][0]["title"] and "slow.py, line 4" in output["findings"][0]["title"]


def test_a_verdict_in_a_file(native: Native, tmp_path: Path) -> None:
    ran = why(native.broken(), "-o", tmp_path / "verdict.txt")
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", f"wrote {tmp_path / 'verdict.txt'}\n")
    assert native.missing in (tmp_path / "verdict.txt").read_text("utf-8")


def test_an_error_that_no_loader_made_is_not_explained_as_one() -> None:
    ran = why("-c", "raise ValueError('mine')")
    assert ran.returncode == 4 and "evidence does not decide" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        ((), "say what to import", 2),
        (("ssl", "-c", "pass"), "say what to import", 2),
        (("ssl", "--backend", "nope"), "unknown backend 'nope'", 2),
        (("ssl", "--backend", "etw"), "not available here", 3),
        (("ssl", "--backend", "debugger"), "not available here", 3),
        (("ssl", "-o", "/no/such/folder/file"), "cannot write", 2),
        (("ssl", "--python", "/no/such/python"), "/no/such/python could not be started", 2),
        (("ssl", "--frobnicate"), "No such option", 2),
    ],
)
def test_wrong_questions(arguments: tuple[str, ...], words: str, status: int) -> None:
    ran = why(*arguments)
    assert (ran.returncode, ran.stdout) == (status, "")
    assert words in ran.stderr.splitlines()[-1] and "Traceback" not in ran.stderr


def test_run_ends_with_the_verdict(native: Native) -> None:
    module = native.broken_module()
    code = f"import sys; sys.path.insert(0, {str(module.parent)!r}); import {module.name.partition('.')[0]}"
    command = [sys.executable, "-m", "dlltracer", "run", "--failed-only"]
    ran = subprocess.run([*command, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    tree, verdict = ran.stderr.index("traced by rtld"), ran.stderr.index("the code failed: ")
    assert ran.returncode == 1 and ran.stdout == "" and ran.stderr.index("Traceback") < tree < verdict
    lines = subprocess.run(
        [*command, "--format", "jsonl", "-c", code], capture_output=True, text=True, timeout=120, check=False
    ).stderr.splitlines()
    types = [json.loads(line)["type"] for line in lines if line.startswith("{")]
    assert types[-2:] == ["verdict", "summary"]


@pytest.mark.parametrize("command", ["why", "show"])
def test_ctrl_c_is_one_line(command: str) -> None:
    """While it reads a recording from a pipe: the pipe is empty when all that was written was read."""
    import fcntl
    import termios

    child = subprocess.Popen(
        [sys.executable, "-m", "dlltracer", command, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdin is not None
    child.stdin.write('{"type"')
    child.stdin.flush()
    waiting = b"\1"
    while any(waiting) and child.poll() is None:
        waiting = fcntl.ioctl(child.stdin.fileno(), termios.FIONREAD, bytes(4))
    child.send_signal(signal.SIGINT)
    written, output = child.communicate(timeout=60)
    assert (child.returncode, written, output) == (130, "", "dlltracer: interrupted\n")
