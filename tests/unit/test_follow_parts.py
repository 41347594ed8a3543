"""The parts that follow processes: /proc, descriptors of processes, new files, the environment, silent programs."""

from __future__ import annotations

import os
import platform
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.elf_file import ElfFile

if sys.platform != "linux":
    pytest.skip("for Linux", allow_module_level=True)

from dlltracer.binary.reading import read_kernel_file
from dlltracer.capture.linux import log_folder
from dlltracer.capture.linux.follow import UntracedProcesses, why_untraced
from dlltracer.capture.linux.log_file import MASK, OUTPUT, log_path, open_log, variables, variables_for_one
from dlltracer.capture.linux.log_folder import LogFolder, LogReader, NewLogs
from dlltracer.capture.linux.processes import (
    Processes,
    exit_status,
    mapped_span,
    open_process,
    read_command,
    read_stat,
)
from dlltracer.host.scratch import ScratchFolder
from dlltracer.model.recording import TracedProcess

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="LD_DEBUG is glibc's")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process that prints a line, and ends when its input does."""
    words = ["-c", "import sys; print(flush=True); sys.stdin.read()", "two words"]
    with subprocess.Popen(
        [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline()
        yield process


class Followed:
    """Processes with what was said of them, and a first one."""

    def __init__(self, first: int, prefix: str = "/nowhere/log") -> None:
        self.output: list[TracedProcess] = []
        self.processes = Processes(self.output.append)
        self.processes.begin(first, ("first",), given=0)
        self.untraced = UntracedProcesses(self.processes, prefix)


def test_a_process_that_lives(child: subprocess.Popen[str]) -> None:
    found = read_stat(child.pid)
    assert found is not None and found.parent == os.getpid() and not found.is_zombie
    command = read_command(child.pid)
    assert command is not None and command[0] == sys.executable and command[-1] == "two words"
    program = os.path.realpath(sys.executable)
    span = mapped_span(program, read_kernel_file(f"/proc/{child.pid}/maps"))
    assert span is not None and span[0] % 4096 == span[1] % 4096 == 0 < span[1]
    known = Followed(child.pid).processes.get(child.pid)
    assert (known.program, known.folder, known.same_files) == (program, os.getcwd(), True)
    assert known.process.command == ("first",) and known.process.parent == os.getpid()


def test_a_name_with_brackets(tmp_path: Path) -> None:
    script = tmp_path / "a) R 1 (b"
    script.write_text("#!/bin/sh\nread x\n")
    script.chmod(0o755)
    with subprocess.Popen([script], stdin=subprocess.PIPE) as process:
        found = read_stat(process.pid)
        assert found is not None and found.parent == os.getpid() and found.ticks > 1
        process.communicate()
    assert read_stat(process.pid) is None and read_command(process.pid) is None


@pytest.mark.parametrize(("end", "status"), [("exit 7", 7), ("kill -9 $$", -9)])
def test_how_a_process_ended(end: str, status: int) -> None:
    process = subprocess.Popen(["/bin/sh", "-c", f"read x; {end}"], stdin=subprocess.PIPE)
    descriptor = open_process(process.pid)
    assert process.stdin is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert exit_status(None, process.pid) == status, "a zombie"
    assert exit_status(descriptor, process.pid) == status
    process.wait()
    assert exit_status(None, process.pid) is None
    if descriptor is not None and tuple(map(int, platform.release().split(".")[:2])) >= (6, 15):
        assert exit_status(descriptor, process.pid) == status
    if descriptor is not None:
        os.close(descriptor)
    assert open_process(process.pid) is None


def test_an_older_number_is_of_another_namespace(child: subprocess.Popen[str]) -> None:
    followed = Followed(child.pid)
    other = followed.processes.add(os.getpid(), last=5.0)
    assert (other.alive, other.process) == (False, TracedProcess(os.getpid(), ended=5.0))


def test_who_is_gone_is_like_the_one_that_forked_it(child: subprocess.Popen[str]) -> None:
    followed = Followed(child.pid)
    gone = subprocess.Popen(["true"])
    gone.wait()
    known = followed.processes.add(gone.pid, last=5.0, like=child.pid)
    assert known.process == TracedProcess(
        gone.pid, command=("first",), program=os.path.realpath(sys.executable), ended=5.0
    )


def test_a_start_of_what_is_not_there_any_more(child: subprocess.Popen[str]) -> None:
    followed = Followed(child.pid)
    event = followed.processes.start(child.pid, "/bin/other")
    assert event is not None and (event.path, event.base) == ("/bin/other", None)
    assert (followed.output[-1].command, followed.output[-1].program) == (None, "/bin/other")
    assert followed.processes.start(child.pid, "other") is None
    event = followed.processes.start(child.pid, sys.executable)
    assert event is not None and event.path == os.path.realpath(sys.executable) and event.base
    assert followed.output[-1].command == read_command(child.pid)


@pytest.mark.parametrize("overflow", [False, True])
def test_new_files(tmp_path: Path, overflow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    files = NewLogs(str(tmp_path))
    assert files.descriptor is not None and files.drain() == []
    (tmp_path / "one").touch()
    (tmp_path / "two \udcff").touch()
    (tmp_path / "one").write_text("more")
    if overflow:
        lost = log_folder._HEAD.pack(-1, 0x4000, 0, 0)
        monkeypatch.setattr(os, "read", lambda descriptor, size: lost)
        assert files.drain() is None
    else:
        assert files.drain() == ["one", "two \udcff"]
        assert files.drain() == []
    files.close()
    assert files.drain() is None


def test_new_files_without_notifications(tmp_path: Path) -> None:
    assert NewLogs(str(tmp_path / "none")).drain() is None


def test_the_environment() -> None:
    assert variables("/p", {}) == {MASK: "libs,files", OUTPUT: "/p"}
    assert variables("/p", {MASK: "statistics"})[MASK] == "statistics,libs,files"
    both = variables_for_one("/p", {MASK: "all", OUTPUT: "mine", "HOME": "/"})
    saved = {"DLLTRACER_SAVED_LD_DEBUG": "all", "DLLTRACER_SAVED_LD_DEBUG_OUTPUT": "mine"}
    assert both == {MASK: "all,libs,files", OUTPUT: "/p", **saved}


def test_the_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outer = tmp_path / "outer"
    outer.mkdir(0o700)
    logs = LogFolder(str(outer))
    Path(log_path(logs.prefix, 7)).write_bytes(b"  7:\tline\n\x1eown\x1f")
    folders = (outer, Path(logs.prefix).parent)
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700, 0o700]
    logs.give_back({})
    logs.give_back({OUTPUT: str(tmp_path / "mine")})
    assert capfd.readouterr().err == "" and list(tmp_path.iterdir()) == [outer]
    logs.give_back({MASK: "libs"})
    assert capfd.readouterr().err == "  7:\tline\n"
    logs.give_back({MASK: "libs", OUTPUT: str(tmp_path / "mine")})
    logs.give_back({MASK: "libs", OUTPUT: str(tmp_path / "no" / "mine")})
    assert (tmp_path / "mine.7").read_text() == "  7:\tline\n"


@pytest.mark.parametrize("kind", ["fifo", "symlink", "hard link", "folder"])
def test_a_file_that_was_planted_is_neither_read_nor_written(tmp_path: Path, kind: str) -> None:
    victim, prefix = tmp_path / "victim", str(tmp_path / "log")
    victim.write_text("precious\n")
    planted = Path(log_path(prefix, os.getpid()))
    if kind == "fifo":
        os.mkfifo(planted)
    elif kind == "symlink":
        planted.symlink_to(victim)
    elif kind == "hard link":
        planted.hardlink_to(victim)
    else:
        planted.mkdir()
    before = os.listdir("/proc/self/fd")
    reader = LogReader(str(planted))
    assert reader.read() == b"" and reader.status() is None
    with pytest.raises(OSError):
        open_log(prefix)
    # Nor is the user's own LD_DEBUG_OUTPUT followed to it, as the logs are given back.
    outer = tmp_path / "outer"
    outer.mkdir()
    logs = LogFolder(str(outer))
    Path(log_path(logs.prefix, os.getpid())).write_bytes(b"  7:\tline\n")
    logs.give_back({MASK: "libs", OUTPUT: prefix})
    assert victim.read_text() == "precious\n"
    assert set(os.listdir("/proc/self/fd")) <= set(before), "files of earlier tests may be closed meanwhile"


def test_a_log_that_was_read_long_ago_needs_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_folder, "HELD", 1 << 20)
    path = tmp_path / "log.1"
    path.write_bytes(b"x" * (8 << 20))
    reader = LogReader(str(path), release=True)
    assert sum(len(part) for part in iter(reader.read, b"")) == 8 << 20 == path.stat().st_size
    if path.stat().st_blocks == (8 << 20) // 512:
        pytest.skip("this file system cannot punch holes")
    assert path.stat().st_blocks * 512 <= 3 << 20


ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@ROOT
def test_nobody_else_can_plant_anything_in_a_folder_that_admits_others() -> None:
    code = """
import os, sys
os.setgid(65534), os.setuid(65534)
prefix, pid, victim = sys.argv[1:]
folder = os.path.dirname(prefix)
def attempt(what, *arguments):
    try:
        what(*arguments)
        print("done:", what.__name__, *arguments)
    except OSError:
        pass
for path in (f"{prefix}.1", f"{prefix}.{pid}", f"{folder}/other", f"{os.path.dirname(folder)}/other"):
    attempt(os.unlink, path)
    attempt(os.rename, path, f"{path}.new")
    if not path.endswith(f".{pid}"):
        attempt(os.symlink, victim, path)
        attempt(os.mkfifo, path)
        attempt(os.link, victim, path)
        attempt(os.open, path, os.O_CREAT | os.O_WRONLY)
attempt(os.listdir, folder)
attempt(os.listdir, os.path.dirname(folder))
attempt(os.open, f"{prefix}.{pid}", os.O_RDONLY)
attempt(os.chmod, f"{prefix}.{pid}", 0o777)
print("ended")
"""
    with ScratchFolder() as folder:
        logs = LogFolder(folder.path, admit_others=True)
        reserved = sorted(os.listdir(os.path.dirname(logs.prefix)))
        assert len(reserved) == 512 and logs.written() == []
        pid = reserved[-1].rpartition(".")[2]
        done = subprocess.run(
            [sys.executable, "-c", code, logs.prefix, pid, "/etc/passwd"], capture_output=True, text=True, check=True
        )
        assert done.stdout == "ended\n", done.stderr


@GLIBC
@ROOT
@pytest.mark.parametrize("way", ["in its place", "by fork"])
def test_a_process_that_goes_on_as_somebody_else_writes_on(way: str) -> None:
    fork = "if os.fork(): os.wait(); os._exit(0)\n" if way == "by fork" else ""
    code = f"import os\n{fork}os.umask(63); os.setgid(65534); os.setuid(65534)\n"
    code += "os.execv('/bin/ls', ['ls', '/dev/null'])"
    with ScratchFolder() as folder:
        logs = LogFolder(folder.path, admit_others=True)
        environment = {**os.environ, **variables(logs.prefix, {})}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == "/dev/null\n", "the loader of ls has a log to write to"
        texts = [Path(os.path.dirname(logs.prefix), name).read_text() for name in logs.written()]
        assert sum(text.count("transferring control:") for text in texts) == 2
        assert len(texts) == (2 if way == "by fork" else 1)


def program(tmp_path: Path, interpreter: str | None, mode: int = 0o755) -> str:
    path = tmp_path / "program"
    path.write_bytes(ElfFile(kind=2, interpreter=interpreter).build())
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("interpreter", "mode", "why"),
    [
        (None, 0o755, "a static program"),
        ("/lib/ld-musl-x86_64.so.1", 0o755, "musl"),
        ("/system/bin/linker64", 0o755, "/system/bin/linker64, not glibc's"),
        ("/lib64/ld-linux-x86-64.so.2", 0o4755, "setuid"),
        ("/lib64/ld-linux-x86-64.so.2", 0o2755, "setgid"),
        ("/lib64/ld-linux-x86-64.so.2", 0o755, None),
        ("/lib64/ld64.so.2", 0o755, None),
    ],
)
def test_why_a_program_is_silent(tmp_path: Path, interpreter: str | None, mode: int, why: str | None) -> None:
    output = why_untraced(program(tmp_path, interpreter, mode))
    assert output is None if why is None else output is not None and why in output


def test_what_is_no_program_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert why_untraced(str(tmp_path / "script")) is why_untraced(str(tmp_path / "none")) is None


def test_a_child_whose_environment_was_cleaned_is_noted() -> None:
    with subprocess.Popen(
        ["/bin/sh", "-c", "env -i cat; :"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as shell:  # fmt: skip
        assert shell.stdin is not None and shell.stdout is not None
        shell.stdin.write(b"x\n")
        shell.stdin.flush()
        assert shell.stdout.readline() == b"x\n", "cat runs"
        followed = Followed(shell.pid)
        followed.untraced.look(0.0)
        (note,) = followed.untraced.notes()
        assert "/cat" in note and "taken out of its environment" in note
        (child,) = (process for process in followed.output if process.pid != shell.pid)
        assert child.parent == shell.pid and child.command == ("cat",)
        # Its log comes after all: nothing to note.
        followed.processes.get(child.pid).log = True
        assert followed.untraced.notes() == ()
        followed.processes.close()
        shell.communicate()


def test_a_child_made_by_fork_that_does_nothing_is_not_noted() -> None:
    code = "import os, sys\nif os.fork():\n    os.wait()\nelse:\n    print(flush=True)\n    sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:  # fmt: skip
        assert parent.stdout is not None and parent.stdout.readline()
        followed = Followed(parent.pid)
        followed.untraced.look_now()
        assert len({process.pid for process in followed.output}) == 2
        assert {process.command for process in followed.output} == {("first",)}, "as the user called it"
        assert followed.untraced.notes() == ()
        followed.processes.close()
        parent.communicate()


@GLIBC
def test_a_closed_log_is_noted_at_the_second_look() -> None:
    with ScratchFolder() as folder:
        logs = LogFolder(folder.path)
        code = "import os; print(flush=True); input(); os.closerange(3, 99); print(flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, **variables(logs.prefix, {})},
        ) as process:  # fmt: skip
            assert process.stdout is not None and process.stdin is not None and process.stdout.readline()
            followed = Followed(process.pid, logs.prefix)
            followed.processes.get(process.pid).log = True
            for _ in range(2):
                followed.untraced.look_now()
            assert followed.untraced.notes() == ()
            process.stdin.write(b"x\n")
            process.stdin.flush()
            process.stdout.readline()
            followed.untraced.look_now()
            assert followed.untraced.notes() == ()
            followed.untraced.look_now()
            (note,) = followed.untraced.notes()
            assert "was closed by process" in note and str(process.pid) in note
            followed.processes.close()
            process.send_signal(signal.SIGKILL)
