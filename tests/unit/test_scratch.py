"""The folder of a run, and what is done about those that killed runs left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlltracer.host.scratch import PREFIX, ScratchFolder

if sys.platform != "linux":
    pytest.skip("elsewhere nothing tells whether a folder is used", allow_module_level=True)

OWNER = """
import sys, dlltracer.host.scratch as scratch
print(scratch.ScratchFolder().path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[str]]:
    """A process that has one, and is killed at the end."""
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def folder_of(owner: subprocess.Popen[str]) -> Path:
    assert owner.stdout is not None
    return Path(owner.stdout.readline().rstrip("\n"))


def kill(owner: subprocess.Popen[str]) -> None:
    owner.send_signal(signal.SIGKILL)
    owner.wait()


def make_old(folder: Path) -> None:
    os.utime(folder, (1, 1))


def test_it_is_there_in_the_block_and_gone_behind_it(root: Path) -> None:
    with ScratchFolder() as folder:
        assert Path(folder.path).parent == root and Path(folder.path).name.startswith(PREFIX)
        Path(folder.path, "deep").mkdir()
        Path(folder.path, "deep", "file").touch()
    assert list(root.iterdir()) == []


def test_one_that_is_kept_goes_when_nobody_uses_it(root: Path) -> None:
    with ScratchFolder() as folder:
        folder.keep()
    make_old(Path(folder.path))
    with ScratchFolder():
        assert not Path(folder.path).exists()


def test_that_of_a_killed_run_is_taken_away_by_the_next(owner: subprocess.Popen[str]) -> None:
    folder = folder_of(owner)
    make_old(folder)
    with ScratchFolder():
        assert folder.is_dir(), "its owner runs"
    kill(owner)
    with ScratchFolder():
        assert not folder.exists()


def test_a_new_one_is_left_alone(owner: subprocess.Popen[str]) -> None:
    folder = folder_of(owner)
    kill(owner)
    with ScratchFolder():
        assert folder.is_dir(), "it may not be locked yet"


@pytest.mark.parametrize("how", ["command", "environment", "open"])
def test_one_that_a_process_uses_stays(owner: subprocess.Popen[str], how: str) -> None:
    folder = folder_of(owner)
    (folder / "log").touch()
    kill(owner)
    make_old(folder)
    code = "import sys; file = open(sys.stdin.readline()[:-1]); print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, *([f"{folder}/log"] if how == "command" else [])]
    environment = {**os.environ, "LD_DEBUG_OUTPUT": f"{folder}/log"} if how == "environment" else None
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as user:  # fmt: skip
        assert user.stdin is not None and user.stdout is not None
        user.stdin.write(f"{folder}/log\n" if how == "open" else "/dev/null\n")
        user.stdin.flush()
        user.stdout.readline()
        with ScratchFolder():
            assert folder.is_dir()
        user.stdin.close()
        user.wait()
    with ScratchFolder():
        assert not folder.exists()


def test_what_is_not_ours_is_left_alone(root: Path) -> None:
    (root / f"{PREFIX}checkouts").mkdir()
    (root / f"{PREFIX}12345678").mkdir()
    (root / "mine").mkdir()
    (root / "mine" / "in-use").touch()
    (root / f"{PREFIX}abcdefgh").symlink_to(root / "mine")
    for one in root.iterdir():
        make_old(one)
    with ScratchFolder() as folder:
        assert len(list(root.iterdir())) == 5
    assert not Path(folder.path).exists() and len(list(root.iterdir())) == 4
