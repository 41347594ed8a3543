"""Backend "seccomp": a program watched from outside, by its system calls. Real kernels, real loaders."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from contract.native import Native

if sys.platform != "linux":
    pytest.skip("seccomp is of Linux", allow_module_level=True)

import dlltracer
from dlltracer.binary.elf import read_elf
from dlltracer.capture.choose import make_backend
from dlltracer.capture.linux.ptrace import availability as ptrace_availability
from dlltracer.capture.linux.seccomp_filter import PAGE
from dlltracer.capture.linux.seccomp_launch import KEEPER
from dlltracer.capture.linux.seccomp_lookup import find_entries, find_passed_entries

if not make_backend("seccomp").availability().ok:
    pytest.skip(make_backend("seccomp").availability().reason, allow_module_level=True)

DLLTRACER = [sys.executable, "-m", "dlltracer"]


class Seen:
    """A report in JSON lines."""

    def __init__(self, done: subprocess.CompletedProcess[str], report: Path) -> None:
        self.status, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr
        lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
        self.head: dict[str, Any] = lines[0] if lines else {}
        self.events = [line for line in lines if line["type"] in ("load", "failed", "unload")]
        self.processes = [line for line in lines if line["type"] == "process"]

    @property
    def notes(self) -> str:
        return "\n".join(self.head["notes"])

    def failed(self, need: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = [
            one for one in self.events if one["type"] == "failed" and one.get("need") == need
        ]  # fmt: skip
        assert len(found) == 1, self.events
        return found[0]

    def loads(self) -> list[str]:
        return [event["path"] for event in self.events if event["type"] == "load"]


class Bench:
    """Runs dlltracer in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(
        self, *words: str, backend: str = "seccomp", timeout: float = 60, prefix: tuple[str, ...] = (), **more: Any
    ) -> Seen:  # fmt: skip
        report = self.folder / "report.jsonl"
        report.unlink(missing_ok=True)
        command = [*prefix, *DLLTRACER, "run", "--backend", backend, "-o", str(report), "--format", "jsonl", *words]
        done = subprocess.run(
            command, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
            check=False, **more,
        )  # fmt: skip
        return Seen(done, report)

    def code(self, source: str, *options: str, **more: Any) -> Seen:
        return self.run(*options, "-c", textwrap.dedent(source), **more)

    def build(self, name: str, source: str, *options: str) -> Path:
        if shutil.which("gcc") is None:
            pytest.skip("needs gcc")
        command = ["gcc", "-xc", "-", "-o", name, *options]
        done = subprocess.run(command, input=source, text=True, cwd=self.folder, check=False, capture_output=True)
        if done.returncode:
            pytest.skip(f"gcc cannot build this here: {done.stderr[-200:]}")
        return self.folder / name


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


RESTRICTED = (sys.executable, str(Path(__file__).with_name("restricted.py")), "listener", "--")
NESTED = (*DLLTRACER, "run", "--backend", "seccomp", "-o", os.devnull, "--format", "lines", "--")
BY_PTRACE = {
    "filter": (RESTRICTED, "this kernel has no seccomp listeners"),
    "calls": (NESTED, "a seccomp listener already"),
}


@pytest.fixture(params=BY_PTRACE)
def by_ptrace(request: pytest.FixtureRequest) -> tuple[str, tuple[str, ...]]:
    """A way without a listener: what the notes say of it, and the command that makes the kernel refuse one."""
    prefix, note = BY_PTRACE[request.param]
    if not ptrace_availability().ok:
        pytest.skip(ptrace_availability().reason)
    return note, prefix


def test_ptrace_where_there_is_no_listener(
    bench: Bench, native: Native, by_ptrace: tuple[str, tuple[str, ...]]
) -> None:
    """The same events as by the listener, in forked and started processes too, and the program's own status."""
    note, prefix = by_ptrace
    code = f"""
        import ctypes, os, subprocess, sys, threading
        subprocess.run([sys.executable, "-c", "import _sqlite3"], check=True)
        if not os.fork():
            import _ssl
            os._exit(0)
        os.wait()
        thread = threading.Thread(target=lambda: __import__("_decimal"))
        thread.start()
        thread.join()
        try:
            ctypes.CDLL({str(native.broken())!r})
        except OSError:
            sys.exit(7)
    """

    def reported(seen: Seen) -> list[object]:
        assert seen.status == 7
        return sorted(
            str([*map(event.get, ("type", "path", "imports", "requested_by")), len(event.get("probes") or ())])
            for event in seen.events
        )  # fmt: skip

    listened, traced = bench.code(code, "--follow"), bench.code(code, "--follow", prefix=prefix)
    assert note in traced.notes and "ptrace" not in listened.notes
    assert reported(listened) == reported(traced)
    assert any(native.missing in event for event in reported(traced) if isinstance(event, str))


def test_ptrace_sees_a_crash_too(bench: Bench, by_ptrace: tuple[str, tuple[str, ...]]) -> None:
    crash = bench.build("libcrash.so", "__attribute__((constructor)) void f(void) { *(volatile int *)8 = 1; }",
                        "-shared", "-fPIC")  # fmt: skip
    command = [*by_ptrace[1], *DLLTRACER, "why", "-v", "--backend", "seccomp", str(crash)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=bench.folder, check=False)
    assert f"of SIGSEGV in {crash} at offset" in " ".join(done.stdout.split()), done.stdout


def test_ptrace_breaks_nothing_that_is_left_behind(bench: Bench, by_ptrace: tuple[str, tuple[str, ...]]) -> None:
    """With a filter we have to stay; without one the processes are let go."""
    note, prefix = by_ptrace
    (bench.folder / "go").touch()
    seen = bench.run("--follow", "-c", LEFT_BEHIND, prefix=prefix)
    assert seen.status == 0
    wait_for(bench.folder / "done")
    if "kernel" in note:
        # Nothing is said if the process ends before the program has: "go" is there from the start.
        waiting = r"dlltracer: waiting for \d+ threads or processes that the program has left behind\..*\n"
        assert re.fullmatch(f"({waiting})?", seen.stderr)
    else:
        assert seen.stderr == ""


def test_an_import_with_its_needs(bench: Bench) -> None:
    seen = bench.code("import _ssl; print('done')")
    assert (seen.status, seen.stdout, seen.head["backend"]) == (0, "done\n", "seccomp")
    (module,) = [event for event in seen.events if "/_ssl." in event["path"]]
    assert (module["imports"], module["phase"]) == (["_ssl"], "direct")
    assert module["base"] % os.sysconf("SC_PAGE_SIZE") == 0
    (need,) = [event for event in seen.events if event.get("need", "").startswith("libssl")]
    assert need["requested_by"] == module["path"]
    assert need["probes"][-1]["outcome"] == "loaded"
    assert "watched from outside" in seen.notes


@pytest.mark.every_python
def test_the_same_as_the_log_of_the_loader(bench: Bench, native: Native) -> None:
    """A second opinion on `rtld`: the same loads, for the same imports; the same places tried."""
    code = f"""
        import ctypes, json, ssl, sqlite3
        for name in ({str(native.tiny())!r}, {str(native.broken())!r}, "libz.so.1", "libno-such-library.so.3"):
            try:
                ctypes.CDLL(name)
            except OSError:
                pass
    """

    def reported(backend: str) -> list[tuple[object, ...]]:
        seen = bench.code(f"import ctypes\n{textwrap.dedent(code)}", backend=backend)
        own = ("_ctypes.", "libffi", "_struct.")  # rtld has loaded these itself, before the program began
        return [
            (*map(event.get, ("type", "path", "need", "kind", "requested_by", "imports")),
              [(probe["path"], probe["phase"], probe["outcome"] == "loaded") for probe in event.get("probes") or ()])
            for event in seen.events
            if event["type"] != "unload" and not Path(event["path"]).name.startswith(own)
        ]  # fmt: skip

    inside, outside = reported("rtld"), reported("seccomp")
    assert len(inside) > 6
    assert [event for event in outside if event not in inside] == []
    assert [event for event in inside if event not in outside] == []


def test_trace_never_takes_it() -> None:
    with pytest.raises(dlltracer.BackendUnavailable, match="watches a program from outside"):
        dlltracer.Trace(backend="seccomp").start()


def test_the_program_is_as_without_us(bench: Bench) -> None:
    """No descriptor, no child, no module, no variable, no signal of ours is in its way."""
    source = """
        import os, sys, signal
        print(sorted(os.listdir("/proc/self/fd")), [name for name in sys.modules if "ctypes" in name])
        print(sorted(set(os.environ) - {"PYTEST_CURRENT_TEST"}), sys.argv)
        print([signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM)])
        try:
            print(os.waitpid(-1, os.WNOHANG))
        except ChildProcessError:
            print("no child")
    """
    plain = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], cwd=bench.folder, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert bench.code(source).stdout == plain.stdout


def test_the_status_is_the_programs(bench: Bench) -> None:
    assert bench.code("import sys; sys.exit(7)").status == 7
    seen = bench.code("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert seen.status in (-signal.SIGTERM, 128 + signal.SIGTERM)


def test_why_names_what_is_missing_for_whom_and_where(bench: Bench, native: Native) -> None:
    path = str(native.broken())
    command = [*DLLTRACER, "why", "--backend", "seccomp", "--json", path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=bench.folder, check=False)
    verdict = json.loads(done.stdout)
    assert (done.returncode, verdict["findings"][0]["code"]) == (1, "missing-image")
    assert native.missing in done.stdout
    places = [probe for probe in verdict["findings"][0]["probes"] if probe["phase"] == "system"]
    assert {(Path(probe["path"]).name, probe["outcome"]) for probe in places} == {(native.missing, "absent")}


def test_why_still_sees_a_crash(bench: Bench) -> None:
    crash = bench.build("libcrash.so", "__attribute__((constructor)) void f(void) { *(volatile int *)8 = 1; }",
                        "-shared", "-fPIC")  # fmt: skip
    command = [*DLLTRACER, "why", "-v", "--backend", "seccomp", str(crash)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=bench.folder, check=False)
    assert f"of SIGSEGV in {crash} at offset" in " ".join(done.stdout.split()), done.stdout


def test_children_come_for_free(bench: Bench) -> None:
    source = """
        import os, subprocess, sys
        subprocess.run([sys.executable, "-c", "import _sqlite3"], check=True)
        if not os.fork():
            import _ssl
            os._exit(0)
        os.wait()
    """
    seen = bench.code(source, "--follow")
    assert seen.status == 0
    first = seen.head["pid"]
    (spawned,) = [event for event in seen.events if "/_sqlite3." in event["path"]]
    (forked,) = [event for event in seen.events if "/_ssl." in event["path"]]
    assert len({first, spawned["pid"], forked["pid"]}) == 3
    assert forked["imports"] == ["_ssl"]
    assert {process["parent"] for process in seen.processes if process["pid"] != first} == {first}
    alone = bench.code(source)
    assert not [event for event in alone.events if "/_ssl." in event["path"] or "/_sqlite3." in event["path"]]


def test_requests_of_python_more_than_memory_takes(bench: Bench) -> None:
    """The runner hands requests over in memory of 64 kB, which a process made by fork has for itself."""
    source = """
        import ctypes, os, threading
        def ask(who):
            for number in range(200):
                try:
                    ctypes.CDLL(f"lib{who}{number}{'-' * 200}.so")
                except OSError:
                    pass
        import _bisect
        child = os.fork()
        if not child:
            ask("forked")
            import _heapq
            os._exit(0)
        threads = [threading.Thread(target=ask, args=(who,)) for who in ("one", "two")]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        os.waitpid(child, 0)
        import _heapq
    """
    seen = bench.code(source, "--follow")
    failed = [event for event in seen.events if event["type"] == "failed"]
    assert len({event["path"] for event in failed}) == len(failed) == 600
    assert all(event["imports"] == [] and event["requested_by"] for event in failed), "each has its request"
    pids = {event["path"][:5]: event["pid"] for event in failed}
    assert pids["libon"] == pids["libtw"] == seen.head["pid"] != pids["libfo"]
    loads = [event["imports"] for event in seen.events if "/_heapq." in event["path"]]
    assert loads == [["_heapq"]] * 2


def test_what_was_unloaded_is_told_at_the_end(bench: Bench) -> None:
    """By what is mapped when the program is done: its process may have ended when that is thought about."""
    library = bench.build("libgone.so", "int gone(void) { return 1; }", "-shared", "-fPIC", "-nostdlib")
    seen = bench.code(f"import ctypes, _ctypes; _ctypes.dlclose(ctypes.CDLL({str(library)!r})._handle)")
    assert [event["type"] for event in seen.events if event["path"] == str(library)] == ["load", "unload"]
    assert [event["type"] for event in seen.events if "/_ctypes." in event["path"]] == ["load"]


def test_a_program_with_another_root_is_looked_at_there(bench: Bench) -> None:
    """After chroot(2), a path leads to another file."""
    if os.geteuid():
        pytest.skip("only root may change the root")
    library = bench.build("libinside.so", "int inside(void) { return 1; }", "-shared", "-fPIC", "-nostdlib")
    source = f"""
        import ctypes, os
        for path in ("/libinside.so", {str(library)!r}):
            os.chroot({str(bench.folder)!r}) if path == "/libinside.so" else None
            try:
                ctypes.CDLL(path)
            except OSError:
                pass
    """
    seen = bench.code(source)
    assert [event["path"] for event in seen.events if "libinside" in event["path"]] == ["/libinside.so", str(library)]
    assert [event["type"] for event in seen.events if "libinside" in event["path"]] == ["load", "failed"]


def test_a_command_from_its_start(bench: Bench) -> None:
    seen = bench.run("--", shutil.which("ls") or "/bin/ls", "/")
    assert seen.status == 0
    assert seen.loads()[0] == os.path.realpath(shutil.which("ls") or "/bin/ls")
    assert any("libc." in path or "ld-musl" in path for path in seen.loads())


def test_a_loader_that_the_filter_may_pass_over_is_named(bench: Bench) -> None:
    """The filter lets the opens of libc pass by their place in a page, which another loader may have by chance."""
    passed = find_passed_entries()
    interpreter = read_elf(sys.executable).interpreter
    if not passed or interpreter is None:
        pytest.skip("no opens are let pass here: libc is the loader (musl), or the processor is not known")
    assert not passed & find_entries(Path(interpreter).read_bytes())
    code = Path(interpreter).read_bytes()
    instruction = bytes.fromhex({"x86_64": "0f05", "aarch64": "010000d4"}[os.uname().machine])
    start = -len(code) % PAGE + min(passed) + PAGE - len(instruction)
    for name, behind, is_named in (("same", b"", False), ("other", bytes(start) + instruction, True)):
        loader = bench.folder / name
        loader.write_bytes(code + behind)
        loader.chmod(0o755)
        seen = bench.run("--", str(loader), shutil.which("true") or "/bin/true")
        assert seen.status == 0
        assert (f"{loader}: its loader is not this system's" in seen.notes) is is_named, seen.notes


def test_a_program_that_is_not_there(bench: Bench) -> None:
    (bench.folder / "script").write_text("#!/no/such/interpreter\n")
    (bench.folder / "script").chmod(0o755)
    seen = bench.run("--", "./script")
    assert seen.status not in (0, -1)
    assert "Traceback" not in seen.stderr


def test_names_that_are_not_utf_8_and_long_ones(bench: Bench, native: Native) -> None:
    odd = bench.folder / os.fsdecode(b"\xff\x1b[31m odd\n.so")
    shutil.copy(native.tiny(), odd)
    deep = bench.folder / "/".join(["d" * 200] * 15)
    code = f"""
        import ctypes, os
        ctypes.CDLL(os.fsdecode({os.fsencode(odd)!r}))
        for name in ({"x" * 5000 + ".so"!r}, {f"{deep}/libnone.so"!r}, "/" + "y/" * 3000 + "z.so"):
            try:
                ctypes.CDLL(name)
            except OSError as error:
                print(error.args[0][-20:])
    """
    seen = bench.code(code)
    assert (seen.status, seen.stderr) == (0, "")
    assert any("odd" in path for path in seen.loads())


def test_relative_paths_are_those_of_the_process(bench: Bench, native: Native) -> None:
    other = bench.folder / "other"
    other.mkdir()
    shutil.copy(native.tiny(), other / "libhere.so")
    seen = bench.code("import ctypes, os; os.chdir('other'); ctypes.CDLL('./libhere.so')")
    (event,) = [event for event in seen.events if event["path"].endswith("libhere.so")]
    assert (event["type"], event["probes"][0]["outcome"]) == ("load", "loaded")


LEFT_BEHIND = """
import os, sys, time
if os.fork():
    sys.exit(0)
null = os.open("/dev/null", os.O_RDWR)
for number in range(3):
    os.dup2(null, number)
os.setsid()
while not os.path.exists("go"):
    time.sleep(0.02)
import _ssl
with open("done.part", "w") as file:
    file.write("fine")
os.rename("done.part", "done")
"""


def wait_for(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)


def keepers_of(marker: str) -> list[int]:
    """The keepers of a run with this word in its command line: theirs is that of the tracer."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                command = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
                title = Path(f"/proc/{name}/comm").read_text().strip()
            except OSError:
                continue
            if title == KEEPER and marker.encode() in command:
                found.append(int(name))
    return found


def test_what_is_left_behind_goes_on(bench: Bench) -> None:
    """A process that outlives the program and its trace can still open files: the keeper answers its filter."""
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    seen = bench.run("--follow", "-c", LEFT_BEHIND, marker)
    assert seen.status == 0
    assert "still ran when it had ended" in seen.notes
    assert keepers_of(marker)
    (bench.folder / "go").touch()
    wait_for(bench.folder / "done")
    deadline = time.monotonic() + 60
    while keepers_of(marker):  # it ends with the last process that has the filter
        assert time.monotonic() < deadline
        time.sleep(0.02)


WAITS_FOR_ITS_TRACER = """
import os, time
os.mkdir("ready")
while not os.path.exists("go"):
    time.sleep(0.02)
os.mkdir("goes")
import _ssl
os.mkdir("done")
"""


def stop_all_threads(pid: int) -> None:
    """Send SIGSTOP, and wait until it has its effect: one thread takes the signal and stops the others later."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 60
    while any(
        (task / "stat").read_text().rpartition(")")[2].split()[0] not in "Tt"
        for task in Path(f"/proc/{pid}/task").iterdir()
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_tracer_that_is_killed_while_the_program_waits_for_it(bench: Bench) -> None:
    """With a listener the keeper answers in the tracer's place. What is traced by ptrace ends (PTRACE_O_EXITKILL)."""
    ways: list[tuple[str, ...]] = [()]
    if ptrace_availability().ok:
        ways.append(RESTRICTED)
    for number, prefix in enumerate(ways):
        folder = bench.folder / str(number)
        folder.mkdir()
        command = [*prefix, *DLLTRACER, "run", "--backend", "seccomp", "-o", "report.txt", "-c", WAITS_FOR_ITS_TRACER]
        tracer = subprocess.Popen(command, cwd=folder)
        wait_for(folder / "ready")
        (child,) = Path(f"/proc/{tracer.pid}/task/{tracer.pid}/children").read_text().split()[:1]
        stop_all_threads(tracer.pid)
        (folder / "go").touch()
        wait_for(folder / "goes")  # a folder is made without a stop, and what is imported then is not
        assert not (folder / "done").exists()
        tracer.kill()
        tracer.wait()
        if prefix:
            deadline = time.monotonic() + 60
            while os.path.exists(f"/proc/{child}/exe"):  # not of one that has ended and nobody waits for
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert not (folder / "done").exists()
        else:
            wait_for(folder / "done")


DIES_AT_A_CALL = """
import os, signal, sys
from dlltracer.capture.linux.seccomp_stops import StopReader
number, read = int(sys.argv.pop(1)), StopReader.read

def die(self, *arguments):
    global number
    number -= 1
    if not number:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, *arguments)

StopReader.read = die
from dlltracer.cli.main import main
main()
"""


@pytest.mark.parametrize("number", [1, 2, 10])
def test_a_tracer_that_is_killed_while_it_looks_at_a_call(bench: Bench, number: int) -> None:
    """A call that was taken up cannot be taken up again: the keeper answers it by its number."""
    words = ["run", "--backend", "seccomp", "-o", "report.txt", "-c", "import _ssl, os; os.mkdir('done')"]
    command = [sys.executable, "-c", DIES_AT_A_CALL, str(number), *words]
    done = subprocess.run(command, cwd=bench.folder, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    wait_for(bench.folder / "done")


def test_without_the_filter_nothing_is_left(bench: Bench) -> None:
    marker = f"marker-{os.getpid()}-{time.monotonic_ns()}"
    assert bench.run("-c", "pass", marker).status == 0
    deadline = time.monotonic() + 60
    while keepers_of(marker):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_setuid_program_is_named(bench: Bench) -> None:
    """Who has CAP_SYS_ADMIN needs no no_new_privs for a filter: setuid programs keep their rights then."""
    program = shutil.which("su") or "/bin/su"
    if not os.path.exists(program) or not os.stat(program).st_mode & 0o4000:
        pytest.skip("no setuid program on this machine")
    code = f"import subprocess; subprocess.run([{program!r}, '--version'], capture_output=True)"
    note = f"{program} (setuid) ran without the rights of its owner"
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        assert note not in bench.run("-c", code).notes
        prefix = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv")
    assert note in bench.run("-c", code, prefix=prefix).notes


def test_a_process_that_may_not_be_looked_at(bench: Bench) -> None:
    """One that is not dumpable hides what its descriptors are: what it maps is known by what it has opened."""
    prefix = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace") if os.geteuid() == 0 else ()
    if prefix and shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    code = """
        import ctypes
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
        import _ssl
        try: ctypes.CDLL("libno-such-library.so.3")
        except OSError: pass
    """
    seen = bench.code(code, prefix=prefix)
    assert seen.status == 0 and "system calls could not be looked at" in seen.notes
    # A Python may have its own libssl-1f4ed708.so.3.
    names = [Path(path).name.partition(".")[0].partition("-")[0] for path in seen.loads()]
    assert {"_ssl", "libssl", "libcrypto"} <= set(names)
    assert [event["need"] for event in seen.events if event["type"] == "failed"] == ["libno-such-library.so.3"]


def test_threads_load_at_once(bench: Bench, native: Native) -> None:
    paths = [str(native.tiny()) for _ in range(40)]
    code = f"""
        import ctypes, threading
        paths = {paths!r}
        def load(mine):
            for path in mine:
                ctypes.CDLL(path)
        threads = [threading.Thread(target=load, args=(paths[n::8],)) for n in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    """
    seen = bench.code(code)
    assert sorted(path for path in seen.loads() if path in paths) == sorted(paths)


def test_a_signal_while_it_waits_changes_nothing(bench: Bench) -> None:
    """A timer of the program interrupts calls that wait for us: the kernel makes them again (SA_RESTART)."""
    code = """
        import signal
        signal.signal(signal.SIGALRM, lambda number, frame: None)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        import _ssl, _sqlite3, _decimal
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    """
    seen = bench.code(code)
    assert seen.status == 0
    names = [Path(path).name.partition(".")[0] for path in seen.loads()]
    assert {"_decimal", "_sqlite3", "_ssl"} <= set(names)
    assert len(names) == len(set(names))


def test_a_program_that_closes_everything(bench: Bench) -> None:
    seen = bench.code("import os; os.closerange(3, 4096); import _ssl")
    assert any("/_ssl." in path for path in seen.loads())


def test_a_static_program_and_one_of_32_bits(bench: Bench) -> None:
    source = "#include <fcntl.h>\nint main(void) { return open(\"/etc/passwd\", O_RDONLY) < 0; }"
    static = bench.build("static", source, "-static")
    assert bench.run("--", str(static)).status == 0


