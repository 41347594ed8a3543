"""`dlltracer run --follow`, `--startup`, `-- COMMAND`: what the processes load that a program starts. Real loaders."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from contract.native import Native
from dlltracer.cli.program import Program, ProgramKind
from dlltracer.cli.run_traced import run_followed
from dlltracer.model.events import LoadEvent

if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
    pytest.skip("logs of processes are of glibc's loader", allow_module_level=True)

KEEPS_STATUS = tuple(map(int, platform.release().split(".")[:2])) >= (6, 15)
"""Linux then tells how a process ended that is not a child of who asks."""

NOTICED = """
import os
def wait_until_noticed():
    # Until dlltracer, the parent of the first process, holds a descriptor of this one (pidfd).
    folder, line = f"/proc/{os.environ['TRACER']}/fdinfo", f"Pid:\\t{os.getpid()}\\n"
    while True:
        for name in os.listdir(folder):
            try:
                with open(f"{folder}/{name}") as info:
                    if line in info.read():
                        return
            except OSError:
                pass
        os.sched_yield()
"""


@dataclass
class Report:
    """A report in JSON lines, and what else came of the run."""

    status: int
    stdout: str
    stderr: str
    head: dict[str, Any] = field(default_factory=dict)
    processes: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def notes(self) -> str:
        return "\n".join(self.head["notes"])

    def of(self, path: Path | str) -> list[dict[str, Any]]:
        """Events about this file."""
        return [event for event in self.events if event["path"] == str(path)]

    def process(self, pid: int) -> dict[str, Any]:
        (found,) = (process for process in self.processes if process["pid"] == pid)
        return found


class Desk:
    """A folder to run programs in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, source: str) -> str:
        (self.folder / name).write_text(textwrap.dedent(source))
        return name

    def build(self, name: str, source: str, *options: str) -> Path:
        if shutil.which("gcc") is None:
            pytest.skip("needs gcc")
        command = ["gcc", "-xc", "-", "-o", name, *options]
        subprocess.run(command, input=source, text=True, cwd=self.folder, check=True)
        return self.folder / name

    def run(self, *words: str, **more: Any) -> Report:
        path = self.folder / "report"
        options = ["-m", "dlltracer", "run", "-o", str(path), "--format", "jsonl"]
        path.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, *options, *words],
            cwd=self.folder, capture_output=True, text=True, timeout=120, check=False, **more,
        )  # fmt: skip
        report = Report(done.returncode, done.stdout, done.stderr)
        if path.exists():
            for line in path.read_text().splitlines():
                item = json.loads(line)
                kind = item["type"]
                if kind == "process":
                    report.processes.append(item)
                elif kind in ("recording", "summary"):
                    setattr(report, "head" if kind == "recording" else "summary", item)
                elif kind != "verdict":
                    report.events.append(item)
        return report

    def text(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dlltracer", "run", *words],
            cwd=self.folder, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        return done.stderr


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    folder = tmp_path / "desk"
    folder.mkdir()
    return Desk(folder)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    yield reading, writing
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_multiprocessing(desk: Desk, native: Native, method: str) -> None:
    tiny = native.tiny()
    desk.write(
        "s.py",
        f"""
        import ctypes, multiprocessing, os, sys
        def work():
            ctypes.CDLL(sys.argv[1])
            print(os.getpid())
        if __name__ == "__main__":
            child = multiprocessing.get_context({method!r}).Process(target=work)
            child.start()
            child.join()
            sys.exit(child.exitcode)
        """,
    )
    report = desk.run("--follow", "s.py", str(tiny))
    assert (report.status, report.stderr) == (0, "")
    child = int(report.stdout)
    (event,) = report.of(tiny)
    assert event["pid"] == child and report.process(child)["pid"] != report.head["pid"] == report.processes[0]["pid"]
    # What Python asked for is known of processes that the first one forked.
    assert event.get("imports") == ([] if method == "fork" else None)
    assert all(event["pid"] in {process["pid"] for process in report.processes} for event in report.events)
    assert report.summary["losses"] == {"events": 0, "buffers": 0, "undecodable": 0}
    assert tiny.name not in (r := desk.run("s.py", str(tiny))).stderr and r.of(tiny) == [] and r.processes == []


@pytest.mark.every_python
def test_a_chain_of_programs(desk: Desk, native: Native) -> None:
    tiny = native.tiny()
    desk.write(
        "s.py",
        NOTICED
        + """
import os, subprocess, sys
if len(sys.argv) > 2:
    import ctypes
    ctypes.CDLL(sys.argv[1])
    wait_until_noticed()
    print(os.getpid(), os.getppid())
else:
    os.environ["TRACER"] = str(os.getppid())
    subprocess.run(["/bin/sh", "-c", f"'{sys.executable}' s.py '{sys.argv[1]}' inner; exit 3"])
""",
    )
    report = desk.run("--follow", "s.py", str(tiny))
    inner, shell = map(int, report.stdout.split())
    assert report.of(tiny)[0]["pid"] == inner
    process = report.process(inner)
    assert process["parent"] == shell
    assert process["command"] == [sys.executable, "s.py", str(tiny), "inner"]
    assert process["program"] == os.path.realpath(sys.executable)
    assert process["started"] <= process["ended"]
    assert report.process(shell)["program"].startswith("/")
    # The interpreter of the child, from its first instruction, with what it needs below it.
    start = [event for event in report.events if event["pid"] == inner]
    assert start[0]["path"] == process["program"] and start[0]["base"] and "need" not in start[0]
    assert any(event.get("requested_by") == process["program"] for event in start)
    if KEEPS_STATUS:
        assert process["status"] == 0


def test_another_program_in_the_place_of_the_first(desk: Desk, native: Native) -> None:
    tiny = native.tiny()
    source = "import ctypes, os, sys; ctypes.CDLL(sys.argv[1]); os.execv('/bin/ls', ['ls', '/dev/null'])"
    report = desk.run("--follow", "-c", source, str(tiny))
    assert (report.status, report.stdout) == (0, "/dev/null\n")
    pids = {event["pid"] for event in report.events}
    assert pids == {report.head["pid"]} and len(report.processes) == 1 and report.of(tiny)
    assert report.processes[0]["program"].endswith("ls")
    assert "another program took its place" in report.notes
    libc = [event for event in report.events if event.get("need") == "libc.so.6"]
    assert libc and libc[-1]["imports"] == []


def test_a_forked_child_that_becomes_another_program(desk: Desk) -> None:
    source = """
import os
if os.fork() == 0:
    os.execv("/bin/ls", ["ls", "/dev/null"])
os.wait()
"""
    report = desk.run("--follow", "-c", source)
    (child,) = (process for process in report.processes if process["pid"] != report.head["pid"])
    assert child["program"].endswith("ls") and report.stdout == "/dev/null\n"
    assert any(e["pid"] == child["pid"] and e.get("need") == "libc.so.6" for e in report.events)


STOPS_US = """
import os, signal, sys
if any("child_main" in word for word in sys.orig_argv):
    parent, me = os.getppid(), os.getpid()
    os.kill(parent, signal.SIGSTOP)
    while open(f"/proc/{parent}/stat").read().rpartition(")")[2].split()[0] != "T":
        os.sched_yield()
    if os.fork() == 0:
        while os.getppid() == me:
            os.sched_yield()
        os.kill(parent, signal.SIGCONT)
        os._exit(0)
"""
"""A sitecustomize: dlltracer stands still from the start of the program's interpreter to its end."""


def test_a_program_that_has_ended_before_its_log_is_found(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STOPS_US)
    report = tmp_path / "report"
    words = [sys.executable, "-m", "dlltracer", "run", "--follow", "--format", "jsonl", "-o", str(report), "-c"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    subprocess.run([*words, "import _ssl"], env=environment, check=True, timeout=120)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    loads = {os.path.basename(line["path"]): line["requested_by"] for line in lines if line["type"] == "load"}
    (asks,) = {path for name, path in loads.items() if name.startswith("_ssl")}
    assert asks == os.path.realpath(sys.executable) or "/libpython" in asks


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (11, "SIGSEGV")])
def test_a_child_that_dies_in_an_import(desk: Desk, native: Native, number: int, name: str) -> None:
    tiny = native.tiny()
    desk.write(
        "mod.py",
        NOTICED
        + f"""
import ctypes
ctypes.CDLL({str(tiny)!r})
wait_until_noticed()
if {number} == 11:
    ctypes.string_at(0)
os.kill(os.getpid(), {number})
""",
    )
    desk.write(
        "s.py",
        """
        import os, subprocess, sys
        os.environ["TRACER"] = str(os.getppid())
        print(subprocess.run([sys.executable, "-c", "import mod"]).returncode)
        """,
    )
    report = desk.run("--follow", "s.py")
    assert (report.status, report.stdout, report.stderr) == (0, f"{-number}\n", "")
    (event,) = report.of(tiny)
    process = report.process(event["pid"])
    assert process["ended"] and process["parent"] == report.head["pid"]
    if KEEPS_STATUS:
        assert process["status"] == -number
        text = desk.text("--follow", "s.py")
        assert f"killed by {name}" in text and "processes, 1 of them killed" in text
        assert name in desk.text("--follow", "--failed-only", "s.py")


def test_a_child_that_leaves_at_once(desk: Desk, native: Native) -> None:
    tiny = native.tiny()
    inner = f"import ctypes, os; ctypes.CDLL({str(tiny)!r}); os._exit(4)"
    report = desk.run("--follow", "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])")
    assert len(report.of(tiny)) == 1 and report.of(tiny)[0]["pid"] != report.head["pid"]


def test_many_short_lived_children(desk: Desk) -> None:
    desk.write("s.sh", "i=0\nwhile [ $i -lt 60 ]; do /bin/true; i=$((i + 1)); done\n")
    report = desk.run("--follow", "--", "sh", "s.sh")
    assert report.status == 0 and report.head["backend"] == "ld_debug"
    children = [process for process in report.processes if process["pid"] != report.head["pid"]]
    assert len(children) == 60
    assert all(child["program"].endswith("/true") and "ended" in child for child in children)
    libc = [event["pid"] for event in report.events if event.get("need") == "libc.so.6"]
    assert sorted(libc) == sorted(process["pid"] for process in report.processes)
    text = desk.text("--follow", "--", "sh", "s.sh")
    assert "in 61 processes" in text and len(text.splitlines()) < 60


def test_a_shell_script_is_a_command(desk: Desk) -> None:
    script = desk.folder / desk.write("build", "#!/bin/sh\n/bin/true\nexit 7\n")
    script.chmod(0o755)
    for words in (["--", "./build", "a", "-c"], ["--follow", "--", str(script)]):
        report = desk.run(*words)
        assert (report.status, report.stderr) == (7, "")
        assert report.processes[0]["command"] == words[words.index("--") + 1 :]
        assert (len(report.processes) > 1) == ("--follow" in words)
        assert {event["pid"] for event in report.events} == {process["pid"] for process in report.processes}
        assert report.processes[0]["status"] == 7


def test_a_subshell_runs_what_its_shell_runs(desk: Desk) -> None:
    words = ["bash", "-c", "(:); (exit 3); :"]
    if shutil.which("bash") is None:
        pytest.skip("needs bash, whose subshells leave by exit()")
    report = desk.run("--follow", "--", *words)
    assert len(report.processes) == 3
    assert all((one["command"], one["program"]) == (words, report.processes[0]["program"]) for one in report.processes)


def test_a_python_is_a_command_like_any_other(desk: Desk, native: Native) -> None:
    tiny = native.tiny()
    desk.write(
        "test_it.py",
        f"""
        import ctypes, multiprocessing
        def work(): ctypes.CDLL({str(tiny)!r})
        def test_it():
            child = multiprocessing.get_context("fork").Process(target=work)
            child.start()
            child.join()
            assert child.exitcode == 0
        """,
    )
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    report = desk.run("--follow", "--", *words)
    assert (report.status, "1 passed" in report.stdout) == (0, True), report.stdout
    (event,) = report.of(tiny)
    assert event["pid"] != report.head["pid"] and "imports" not in event
    assert report.processes[0]["command"] == words and report.processes[0]["status"] == 0


def test_workers_of_a_server(desk: Desk, native: Native) -> None:
    libraries = [native.tiny() for _ in range(3)]
    desk.write(
        "s.py",
        """
        import ctypes, os, sys
        workers = []
        for path in sys.argv[1:]:
            pid = os.fork()
            if pid == 0:
                import colorsys
                ctypes.CDLL(path)
                os._exit(5)
            workers.append(pid)
        print(*(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers), *workers)
        """,
    )
    report = desk.run("--follow", "s.py", *map(str, libraries))
    statuses, workers = report.stdout.split()[:3], [int(pid) for pid in report.stdout.split()[3:]]
    assert statuses == ["5"] * 3
    assert [report.of(path)[0]["pid"] for path in libraries] == workers
    assert all(report.of(path)[0]["imports"] == [] for path in libraries)
    assert {process["pid"] for process in report.processes} == {report.head["pid"], *workers}
    for worker in workers:
        command = report.process(worker).get("command")
        assert command is None or command[-4:] == ["s.py", *map(str, libraries)]


def test_a_static_program_is_noted(desk: Desk) -> None:
    desk.build("static", "int main(void) { return 6; }", "-static")
    for options in ([], ["--follow"]):
        report = desk.run(*options, "--", "./static")
        assert (report.status, report.events) == (6, [])
        assert "/static" in report.notes
        assert "a static program, without a loader" in report.notes


def test_a_library_missing_at_the_start(desk: Desk) -> None:
    desk.build("libgone_at_start.so", "int gone(void) { return 1; }", "-shared", "-fPIC")
    program = desk.build("prog", "int gone(void); int main(void) { return gone(); }", "-L.", "-lgone_at_start")
    (desk.folder / "libgone_at_start.so").unlink()
    report = desk.run("--", "./prog")
    assert report.status == 127 and "libgone_at_start.so" in report.stderr
    (failed,) = (event for event in report.events if event["type"] == "failed")
    assert (failed["path"], failed["kind"], failed["requested_by"]) == (
        "libgone_at_start.so", "not found", str(program),
    )  # fmt: skip
    # The file is there, for another machine: only who looks at files knows.
    (desk.folder / "libgone_at_start.so").write_bytes(b"no image")
    report = desk.run("--", "./prog", env={**os.environ, "LD_LIBRARY_PATH": "."})
    (failed,) = (event for event in report.events if event["type"] == "failed")
    assert failed["kind"] in ("refused", "dropped"), failed


def test_the_users_own_LD_DEBUG_is_respected(desk: Desk) -> None:  # noqa: N802 - the name of the variable
    environment = {**os.environ, "LD_DEBUG": "statistics", "LD_DEBUG_OUTPUT": str(desk.folder / "mine")}
    source = "import subprocess; subprocess.run(['/bin/true']); import colorsys"
    report = desk.run("--follow", "--startup", "-c", source, env=environment)
    assert report.status == 0 and report.summary["losses"]["undecodable"] == 0
    for process in report.processes:
        text = (desk.folder / f"mine.{process['pid']}").read_text()
        assert "runtime linker statistics" in text and "\x1e" not in text
    source = "import os; print(os.environ['LD_DEBUG'], os.environ['LD_DEBUG_OUTPUT'])"
    named = desk.run("--startup", "-c", source, env=environment)
    assert named.stdout == f"statistics {desk.folder / 'mine'}\n"


def test_what_is_loaded_at_the_start(desk: Desk, native: Native) -> None:
    tiny = native.tiny()
    source = "import sys, ctypes; ctypes.CDLL(sys.argv[1])"
    report = desk.run("--startup", "-c", source, str(tiny))
    paths = [event["path"] for event in report.events]
    assert paths[0] == os.path.realpath(sys.executable) and report.events[0]["imports"] == []
    assert any("libc.so.6" in path for path in paths[:6])
    # What dlltracer loads to trace is not the program's.
    assert not any("_ctypes" in path or "libffi" in path for path in paths)
    assert report.of(tiny)[0]["imports"] == [] and report.of(tiny)[0]["tid"]
    assert [process["pid"] for process in report.processes] == [report.head["pid"]]
    assert not any("libc.so.6" in event["path"] for event in desk.run("-c", source, str(tiny)).events)
    assert "(at its start, or outside any import)" in desk.text("--startup", "-c", source, str(tiny))


@pytest.mark.parametrize("options", [["--follow"], ["--startup"], ["--follow", "--startup"]])
def test_the_program_notices_little(desk: Desk, options: list[str]) -> None:
    source = "import os, sys; print(os.open('/', os.O_RDONLY), sys.argv, len(sys.modules), sys.flags); sys.exit(9)"
    plain, traced = desk.run("-c", source, "a"), desk.run(*options, "-c", source, "a")
    assert (traced.status, traced.stderr) == (plain.status, plain.stderr) == (9, "")
    assert traced.stdout.split()[0] == plain.stdout.split()[0]
    source = "import os; print(*sorted(name for name in os.environ if name.startswith(('LD_DEBUG', 'DLLTRACER'))))"
    new = set(desk.run(*options, "-c", source).stdout.split()) - set(os.environ)
    assert new == ({"LD_DEBUG", "LD_DEBUG_OUTPUT"} if "--follow" in options else set())


def test_a_failed_import_has_its_verdict(desk: Desk, native: Native) -> None:
    broken = native.broken()
    source = "import ctypes, subprocess, sys; subprocess.run('true'); ctypes.CDLL(sys.argv[1])"
    text = desk.text("--follow", "-c", source, str(broken))
    assert f"{native.missing}" in text and "NOT FOUND" in text and "missing" in text.split("traced by rtld")[1]


@pytest.mark.parametrize("ends", ["pass", "raise"])
def test_a_failure_that_nothing_follows(desk: Desk, ends: str) -> None:
    """The loader writes nothing more when it gives up: what dlltracer does next must not be taken for it."""
    code = f"import ctypes\ntry: ctypes.CDLL('libnope.so')\nexcept OSError: {ends}"
    report = desk.run("--follow", "-c", code)
    assert [(event["type"], event["path"]) for event in report.events] == [("failed", "libnope.so")], report.stderr


def test_what_cannot_be_followed(desk: Desk) -> None:
    for words, output in (
        (["--follow", "--backend", "snapshot", "-c", "print(1)"], "--follow cannot be traced by 'snapshot'"),
        (["--backend", "rtld", "--", "true"], "a command cannot be traced by 'rtld'"),
    ):
        report = desk.run(*words)
        assert (report.status, report.stdout, report.stderr.count("\n")) == (2, "", 1)
        assert report.stderr.startswith("dlltracer: error: ") and output in report.stderr
    (desk.folder / "noformat").write_bytes(b"\x00\x01")
    (desk.folder / "noformat").chmod(0o755)
    report = desk.run("--", "./noformat")
    assert report.status == 2 and "./noformat could not be started: Exec format error" in report.stderr
    assert "can't open file" in desk.run("--follow", "--", "nowhere-at-all").stderr
    assert not any(name.startswith("report") for name in os.listdir(desk.folder))


def test_who_goes_on_when_the_first_has_ended(desk: Desk, pipe: tuple[int, int]) -> None:
    # The shell must not end before its child has become the other program: until then nothing shows the child.
    wait = "until grep -q libc.so /proc/$!/maps; do :; done"
    desk.write("s.sh", f"exec 5<&0\n/bin/cat <&5 >/dev/null 2>&1 &\n{wait}\necho $!\n")
    report = desk.run("--follow", "--", "sh", "s.sh", stdin=pipe[0])
    left = int(report.stdout)
    assert report.status == 0 and f"still running when the first process had ended: {left}" in report.notes
    assert "ended" not in report.process(left)
    folder = Path(re.search(r"go on writing to (\S+),", report.notes)[1])  # type: ignore[index]
    assert (folder / f"log.{left}").exists()
    shutil.rmtree(folder.parent)


class Collector:
    """A sink; what it gets may make it write to a descriptor, or raise."""

    def __init__(self, awaited: str = "", answer: int | None = None, raises: bool = False) -> None:
        self.output: list[tuple[str, int]] = []
        self._awaited, self._answer, self._raises = awaited, answer, raises

    def process(self, process: Any) -> None:
        self.output.append(("process", process.pid))

    def event(self, event: Any) -> None:
        if self._raises:
            raise OSError("the disk is full")
        self.output.append((event.path, event.pid))
        if self._answer is not None and event.path == self._awaited:
            os.write(self._answer, b"seen\n")


@pytest.mark.parametrize("follow", [True, False])
def test_events_come_while_the_program_runs(native: Native, pipe: tuple[int, int], follow: bool) -> None:
    tiny, later = native.tiny(), native.tiny()
    # It goes on only when the sink has seen the load.
    source = f"import ctypes, os, sys; ctypes.CDLL({str(tiny)!r}); os.read({pipe[0]}, 9); ctypes.CDLL({str(later)!r})"
    sink = Collector(str(tiny), pipe[1])
    ending = run_followed(Program(ProgramKind.CODE, source), "auto", follow=follow, sink=sink)
    assert ending.status == 0 and ending.recording is not None
    first = ending.recording.pid
    assert sink.output[0] == ("process", first)
    events = [one for one in sink.output if one[0] != "process"]
    assert events == [(event.path, event.pid) for event in ending.recording.events if isinstance(event, LoadEvent)]
    assert events[-2:] == [(str(tiny), first), (str(later), first)]
    assert ending.recording.processes[0].status == 0 and ending.recording.notes == ()


def test_a_sink_that_raises(native: Native) -> None:
    sink = Collector(raises=True)
    ending = run_followed(Program(ProgramKind.COMMAND, "true"), "auto", sink=sink)
    assert ending.recording is not None and len(ending.recording.events) >= 2
    assert "OSError: the disk is full" in ending.recording.notes[0] and {kind for kind, _ in sink.output} == {"process"}


def test_another_mechanism_reports_at_the_end(native: Native) -> None:
    sink = Collector()
    source = f"import ctypes; ctypes.CDLL({str(native.tiny())!r})"
    ending = run_followed(Program(ProgramKind.CODE, source), "snapshot", sink=sink)
    assert ending.recording is not None and ending.recording.backend == "snapshot"
    assert [path for path, _ in sink.output] == [event.path for event in ending.recording.loads] != []


CLOSES = """
    import ctypes, os, sys
    os.closerange(3, 300)
    file = os.open("mine", os.O_RDWR | os.O_CREAT)
    for number in (*range(4, 16), 200, 201):
        os.dup2(file, number)
    ctypes.CDLL(sys.argv[1])
    print(os.fstat(file).st_size)
"""


def test_a_program_that_closes_the_log_is_followed_on(desk: Desk, native: Native) -> None:
    path = native.tiny()
    report = desk.run("--follow", desk.write("daemon.py", CLOSES), str(path))
    assert (report.status, report.stdout, report.stderr) == (0, "0\n", "")
    assert [event["type"] for event in report.of(path)] == ["load"] and report.notes == ""


@pytest.mark.parametrize("options", [[], ["--startup"]])
def test_a_program_that_closes_the_log_is_not_disturbed(desk: Desk, native: Native, options: list[str]) -> None:
    report = desk.run(*options, desk.write("daemon.py", CLOSES), str(native.tiny()))
    assert (report.status, report.stdout, report.stderr) == (0, "0\n", "")
    assert "the program closed the descriptor of the log" in report.notes


@pytest.mark.parametrize("options", [[], ["--follow"], ["--follow", "--"]])
def test_a_log_that_cannot_grow_is_noted(desk: Desk, native: Native, options: list[str]) -> None:
    # More than the start of an interpreter with long search paths takes: ld.so dies of SIGXFSZ, which Python ignores.
    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    loads = "import ctypes, sys\nfor path in sys.argv[1:]: ctypes.CDLL(path)\nprint('all')"
    words = [sys.executable, "-c", loads] if options[-1:] == ["--"] else ["-c", loads]
    done = subprocess.run(
        [sys.executable, "-m", "dlltracer", "run", *options, *words, *(str(native.tiny()) for _ in range(200))],
        cwd=desk.folder, capture_output=True, text=True, timeout=120, check=False, preexec_fn=limit,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "all\n")
    assert "what it lacks is not shown" in done.stderr and " 0 failed" in done.stderr


def test_the_place_of_the_logs_is_in_no_command_line(desk: Desk) -> None:
    source = "import os; print(os.path.dirname(os.environ['LD_DEBUG_OUTPUT']), open('/proc/self/cmdline').read())"
    report = desk.run("--follow", "-c", source)
    folder, command = report.stdout.split(" ", 1)
    assert folder.startswith("/") and "logs-" in folder and folder not in command and "child_main.py" in command


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_programs_that_root_starts_as_somebody_else_are_followed_and_print_what_they_print(desk: Desk) -> None:
    desk.write(
        "daemon.py",
        """
        import os
        for worker in range(3):
            if os.spawnlp(os.P_WAIT, "/bin/true", "true"):
                raise SystemExit("no /bin/true")
        if not os.fork():
            os.setgid(65534)
            os.setuid(65534)
            os.execv("/bin/ls", ["ls", "/dev/null"])
        os.wait()
        """,
    )
    report = desk.run("--follow", "--", sys.executable, "daemon.py")
    assert (report.status, report.stdout, report.stderr, report.notes) == (0, "/dev/null\n", "", "")
    (ls,) = (process for process in report.processes if str(process["program"]).endswith("ls"))
    assert any(event["pid"] == ls["pid"] and event.get("need") == "libc.so.6" for event in report.events)
