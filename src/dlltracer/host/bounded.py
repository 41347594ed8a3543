"""Reads files and asks programs of the system, both with a bound on time and size."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence

from ..binary.reading import read_regular
from ..errors import BinaryFormatError
from ..model.light import dataclass

SYSTEM_FOLDERS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/current-system/sw/bin")
"""Where the programs of a Linux system are: folders that only root writes to. The last one is that of NixOS."""

SECONDS = 20.0
"""How long a program may take to answer."""

MOST_OUTPUT = 8 << 20
"""Bytes that a program may answer with."""

_ENVIRONMENT = {"LC_ALL": "C", "PATH": ":".join(SYSTEM_FOLDERS), "HOME": "/nonexistent"}
"""Nothing of ours: LD_PRELOAD, RPM_CONFIGDIR, APT_CONFIG and ~/.rpmmacros each make such a program run other code."""


@dataclass(frozen=True)
class ProgramAnswer:
    """The answer of a program: its exit `status` (negative for a signal), and the text of the stream asked for."""

    status: int
    output: str


def read_regular_file(path: str, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    A FIFO would hold its reader up for ever and a device may never end. Raises `OSError`, also for what is no regular
    file and for one that is larger.
    """
    try:
        data = read_regular(path, most + 1)
    except BinaryFormatError as error:
        raise OSError(0, error.problem, path) from error
    if len(data) > most:
        raise OSError(0, f"it has more than {most >> 20} MiB", path)
    return data


def find_program(name: str) -> str | None:
    """Return the path of a program of the system; `None` if there is none, and always on Windows.

    PATH is not used: it may name folders of others, and on Windows the current folder comes before all of it.
    """
    if sys.platform == "win32":
        return None
    for folder in SYSTEM_FOLDERS:
        path = f"{folder}/{name}"
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def ask_program(name: str, *arguments: str, seconds: float = SECONDS) -> ProgramAnswer | str:
    """Run a program of the system, such as dpkg-query, and return its answer; or why there is none, in words."""
    path = find_program(name)
    if path is None:
        return f"{name} is not installed"
    return run_bounded((path, *arguments), _ENVIRONMENT, seconds=seconds)


def run_bounded(
    command: Sequence[str], environment: Mapping[str, str], *, seconds: float = SECONDS, from_stderr: bool = False
) -> ProgramAnswer | str:
    """Run a program by its absolute path and return its answer on stdout; or, in words, why there is none.

    Arguments:
        command: the program and its arguments. Its input is empty, its current folder is the root.
        environment: all of it.
        seconds: after that, or beyond `MOST_OUTPUT`, it is killed with all that it started.
        from_stderr: its answer is what it writes to stderr instead.
    """
    import subprocess

    name = command[0].rpartition("/")[2]
    if sys.platform == "win32":
        return f"{name} is not asked on Windows"
    try:
        child = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, env=dict(environment), cwd="/", start_new_session=True,
            stdout=subprocess.DEVNULL if from_stderr else subprocess.PIPE,
            stderr=subprocess.PIPE if from_stderr else subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return f"{name} could not be run: {error}"
    answering = child.stderr if from_stderr else child.stdout
    assert answering is not None
    with answering as stream:
        answer = _answer_of(child.pid, stream.fileno(), name, seconds)
    child.returncode = 0 if isinstance(answer, str) else answer.status  # waited for below: Popen need not
    return answer


def ask_loader_program(
    command: Sequence[str], environment: Mapping[str, str], *, seconds: float = SECONDS
) -> ProgramAnswer | str:
    """Run a loader as `run_bounded` does, and return what it wrote to stderr.

    Every `deps` waits for this, so it does without `subprocess`, whose import takes longer than the loader. The
    current folder is ours: a loader that is given absolute paths does not look at it.
    """
    name = command[0].rpartition("/")[2]
    if sys.platform == "win32":
        return f"{name} is not asked on Windows"
    if not hasattr(os, "posix_spawn"):  # PyPy
        return run_bounded(command, environment, seconds=seconds, from_stderr=True)
    reader, writer = os.pipe()  # inherited by nobody (PEP 446), but as the descriptor that it becomes below
    try:
        nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)
        # The pipe first: where our own streams are closed, it may be descriptor 0 or 1.
        streams = [(os.POSIX_SPAWN_DUP2, writer, 2), nothing, (os.POSIX_SPAWN_DUP2, 0, 1)]
        pid = os.posix_spawn(command[0], list(command), dict(environment), file_actions=streams, setpgroup=0)
    except (OSError, ValueError) as error:
        os.close(reader)
        return f"{name} could not be run: {error}"
    finally:
        os.close(writer)
    try:
        return _answer_of(pid, reader, name, seconds)
    finally:
        os.close(reader)


def _answer_of(pid: int, fd: int, name: str, seconds: float) -> ProgramAnswer | str:
    """Read what a child that leads a process group writes, and wait for its end. Kill the group if that takes long."""
    if sys.platform == "win32":
        return f"{name} is not asked on Windows"
    output, problem = _read_until(fd, time.monotonic() + seconds)
    status = _wait_until(pid, time.monotonic() + max(seconds, 1.0)) if problem is None else None
    if status is not None:
        return ProgramAnswer(status, os.fsdecode(output))
    import signal

    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return f"{name} {(problem or 'did not end').format(seconds=seconds)}"


def _wait_until(pid: int, deadline: float) -> int | None:
    """Wait for the end of a child that has closed its output; returns its exit status, `None` if it did not end."""
    if sys.platform == "win32":
        return None
    pause = 0.0001
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _read_until(fd: int, deadline: float) -> tuple[bytes, str | None]:
    """Read to the end of a pipe; returns the bytes, and what was wrong if the end did not come."""
    if sys.platform == "win32":  # there are no pipes to poll; nothing calls this there
        return b"", "cannot be asked"
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    output = bytearray()
    while (left := deadline - time.monotonic()) > 0:
        if not poll.poll(left * 1000):
            continue
        block = os.read(fd, 1 << 16)
        if not block:
            return bytes(output), None
        output += block
        if len(output) > MOST_OUTPUT:
            return b"", f"answered with more than {MOST_OUTPUT >> 20} MiB"
    return b"", "did not answer within {seconds:g} s"
