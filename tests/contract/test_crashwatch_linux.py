"""Real children that crash, or nearly do, watched through ptrace."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("ptrace of Linux", allow_module_level=True)

from dlltracer.capture.linux import crashwatch
from dlltracer.capture.linux.crashwatch import Watched, watch
from dlltracer.capture.linux.ptrace import Ptrace
from dlltracer.model.failure import Crash

if not crashwatch.availability().ok:
    pytest.skip(f"no ptrace here: {crashwatch.availability().reason}", allow_module_level=True)

CRASHER = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((noinline)) void touch(volatile char *where) { *where = 1; }
__attribute__((noinline)) int jump(int (*where)(void)) { return where() + 1; }
__attribute__((noinline)) void trap(void) { __builtin_trap(); }
static void *touching(void *where) { touch(where); return 0; }
void touch_in_thread(void *where) {
    pthread_t thread;
    pthread_create(&thread, 0, touching, where);
    pthread_join(thread, 0);
}

static sigjmp_buf back;
static void leap(int number) { siglongjmp(back, 1); }
int survive(void) {
    signal(SIGSEGV, leap);
    if (!sigsetjmp(back, 1)) touch(0);
    signal(SIGSEGV, SIG_DFL);
    return 7;
}
int survive_trap(void) {
    signal(SIGILL, leap);
    signal(SIGTRAP, leap);
    if (!sigsetjmp(back, 1)) trap();
    return 8;
}
static void give_up(int number) { abort(); }
void abort_in_handler(void) { signal(SIGSEGV, give_up); touch((char *)0x18); }
static void nothing(int number) {}
int deep(int depth) { volatile char room[4096]; room[0] = depth; return deep(depth + 1) + room[0]; }
void overflow(void) { signal(SIGSEGV, nothing); deep(0); }

static char **words;
static void *become(void *unused) { execv(words[0], words); return 0; }
void exec_in_thread(char **arguments) {
    pthread_t thread;
    words = arguments;
    pthread_create(&thread, 0, become, 0);
    pause();
}
/* a process, but none that fork has made: no signal reports its end */
int quiet_fork(void) { return syscall(SYS_clone, 0, 0, 0, 0, 0); }
"""

PRELUDE = "import ctypes, os, signal, sys\nlib = ctypes.CDLL(sys.argv[1])\nsys.stdin.buffer.read(1)\n"
"""Of a child: it waits until it is watched."""


@pytest.fixture(scope="session")
def crasher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("crasher")
    (folder / "crasher.c").write_text(CRASHER)
    command = ["gcc", "-shared", "-fPIC", "-O1", "-fno-optimize-sibling-calls", "-w", "-o", "libcrasher.so"]
    subprocess.run([*command, "crasher.c", "-lpthread"], cwd=folder, check=True)
    return folder / "libcrasher.so"


@contextmanager
def start(library: Path, code: str, **more: object) -> Iterator[subprocess.Popen[bytes]]:
    """A child that waits for a byte before it runs the code; killed at the end if it still lives."""
    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(library)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **more,
    ) as child:  # fmt: skip
        guard = threading.Timer(60, os.kill, (child.pid, signal.SIGKILL))
        guard.start()
        try:
            yield child
        finally:
            guard.cancel()
            child.kill()


def status_field(pid: int, name: str) -> str:
    """A field of /proc/PID/status, of a process or of one of its threads."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


def wait_until_seized(child: subprocess.Popen[bytes], over: threading.Event) -> None:
    for thread in os.listdir(f"/proc/{child.pid}/task"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            while status_field(int(thread), "TracerPid") == "0":
                assert not over.is_set(), "the child was never watched"
                os.sched_yield()


def say(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.write(b"x")


@contextmanager
def meanwhile(child: subprocess.Popen[bytes], action: Callable[[], object]) -> Iterator[None]:
    """Do something in another thread as soon as the child is watched; what it raises is raised here."""
    failures: list[BaseException] = []
    over = threading.Event()

    def act() -> None:
        try:
            wait_until_seized(child, over)
            action()
        except BaseException as error:  # noqa: BLE001
            failures.append(error)
            child.kill()

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]


def watch_code(library: Path, code: str) -> tuple[Watched, str]:
    """Run the code in a child that is watched; what came of it, and what it wrote to stderr."""
    with start(library, code) as child:
        with meanwhile(child, lambda: say(child)):
            watched = watch(child)
        assert child.returncode == watched.status == child.poll() == child.wait()
        assert child.stderr is not None
        return watched, child.stderr.read().decode()


def symbol_span(library: Path, name: str) -> range:
    """The offsets of a function, as nm tells."""
    listing = subprocess.run(["nm", "-S", str(library)], capture_output=True, text=True, check=True).stdout
    at, size = next(line.split()[:2] for line in listing.splitlines() if line.endswith(f" {name}"))
    return range(int(at, 16), int(at, 16) + int(size, 16))


def crash_of(watched: Watched, number: signal.Signals) -> Crash:
    assert watched.status == -number
    assert watched.crash is not None, watched.note
    assert watched.crash.code == number and watched.crash.name.removesuffix(", stack overflow") == number.name
    return watched.crash


def assert_in(crash: Crash, library: Path, function: str) -> None:
    assert crash.image == str(library)
    assert crash.offset in symbol_span(library, function)


@pytest.mark.every_python
def test_a_fault_is_located(crasher: Path) -> None:
    watched, _ = watch_code(crasher, "print(os.getpid()); lib.touch(ctypes.c_void_p(0x18))")
    crash = crash_of(watched, signal.SIGSEGV)
    assert_in(crash, crasher, "touch")
    assert crash.fault_address == 0x18
    assert watched.note is None


def test_the_programs_own_handler_runs_and_its_echo_is_not_the_crash(crasher: Path) -> None:
    code = "import faulthandler; faulthandler.enable(); lib.touch(ctypes.c_void_p(0x18))"
    watched, output = watch_code(crasher, code)
    assert "Fatal Python error: Segmentation fault" in output
    assert_in(crash_of(watched, signal.SIGSEGV), crasher, "touch")
    assert watched.note is None


def test_an_illegal_instruction(crasher: Path) -> None:
    watched, _ = watch_code(crasher, "lib.trap()")
    number = signal.SIGTRAP if os.uname().machine == "aarch64" else signal.SIGILL
    crash = crash_of(watched, number)
    assert_in(crash, crasher, "trap")
    assert crash.fault_address == crash.address


def test_a_file_cut_short_under_its_mapping(crasher: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(8192))
    code = f"""
    import mmap
    file = open({str(tmp_path / "data")!r}, "r+b")
    memory = mmap.mmap(file.fileno(), 8192)
    file.truncate(0)
    lib.touch(ctypes.byref(ctypes.c_char.from_buffer(memory, 4096)))
    """
    crash = crash_of(watch_code(crasher, code)[0], signal.SIGBUS)
    assert_in(crash, crasher, "touch")
    assert crash.fault_address is not None and crash.fault_address % 4096 == 0


def test_abort_is_in_the_c_library(crasher: Path) -> None:
    watched, _ = watch_code(crasher, "os.abort()")
    crash = crash_of(watched, signal.SIGABRT)
    assert crash.image is not None and os.path.basename(crash.image).startswith(("libc.so", "libc-", "ld-musl"))
    assert crash.fault_address is None and watched.note is None


def test_a_thread_of_the_program_crashes(crasher: Path) -> None:
    with start(crasher, "lib.touch_in_thread(ctypes.c_void_p(0x18))") as child:
        with meanwhile(child, lambda: say(child)):
            watched = watch(child)
        crash = crash_of(watched, signal.SIGSEGV)
        assert_in(crash, crasher, "touch")
        assert crash.thread is not None and crash.thread != child.pid


def test_threads_from_before_the_watching_are_watched_too(crasher: Path) -> None:
    code = """
    import threading
    go = threading.Event()
    threading.Thread(target=lambda: (go.wait(), lib.touch(ctypes.c_void_p(0x18)))).start()
    os.write(1, b"r")
    sys.stdin.buffer.read(1)
    go.set()
    """
    with start(crasher, code) as child:
        say(child)
        assert child.stdout is not None and child.stdout.read(1) == b"r"
        with meanwhile(child, lambda: say(child)):
            watched = watch(child)
        assert_in(crash_of(watched, signal.SIGSEGV), crasher, "touch")


def test_a_fault_that_the_program_survives_is_no_crash(crasher: Path) -> None:
    assert watch_code(crasher, "sys.exit(lib.survive())")[0] == Watched(7)


def test_a_fault_survived_before_is_not_taken_for_the_crash(crasher: Path) -> None:
    watched, _ = watch_code(crasher, "lib.survive(); lib.touch(ctypes.c_void_p(0x20))")
    assert crash_of(watched, signal.SIGSEGV).fault_address == 0x20


def test_an_abort_in_the_handler_of_a_fault_shows_the_fault(crasher: Path) -> None:
    watched, _ = watch_code(crasher, "lib.survive(); lib.survive_trap(); lib.abort_in_handler()")
    crash_of(watched, signal.SIGABRT)
    assert watched.note is not None and f"SIGSEGV came earlier at {crasher}+0x" in watched.note
    offset = int(watched.note.partition(f"{crasher}+")[2].partition(",")[0], 16)
    assert offset in symbol_span(crasher, "touch")


def test_no_stack_left_for_the_handler(crasher: Path) -> None:
    crash = crash_of(watch_code(crasher, "lib.overflow()")[0], signal.SIGSEGV)
    assert_in(crash, crasher, "deep")
    assert crash.fault_address is not None and crash.name == "SIGSEGV, stack overflow"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the return address is on the stack on x86 only")
def test_a_jump_to_nowhere_names_the_caller(crasher: Path) -> None:
    watched, _ = watch_code(crasher, "lib.jump(ctypes.c_void_p(0))")
    crash = crash_of(watched, signal.SIGSEGV)
    assert (crash.address, crash.image, crash.offset, crash.fault_address) == (0, None, None, 0)
    assert watched.note is not None
    assert int(watched.note.rpartition(f"{crasher}+")[2], 16) in symbol_span(crasher, "jump")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="machine code of x86-64")
def test_a_fault_of_code_made_at_run_time_has_no_image(crasher: Path) -> None:
    code = """
    import mmap
    memory = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
    memory.write(bytes.fromhex("8b042518000000c3"))  # mov eax, [0x18]; ret
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    os.write(1, b"%d" % start)
    ctypes.CFUNCTYPE(ctypes.c_int)(start)()
    """
    with start(crasher, code) as child:
        with meanwhile(child, lambda: say(child)):
            watched = watch(child)
        crash = crash_of(watched, signal.SIGSEGV)
        assert child.stdout is not None
        assert crash.address == int(child.stdout.read())
        assert (crash.image, crash.offset, crash.fault_address, watched.note) == (None, None, 0x18, None)


def test_a_program_that_sends_itself_a_signal(crasher: Path) -> None:
    watched, _ = watch_code(crasher, "os.kill(os.getpid(), signal.SIGSEGV)")
    assert crash_of(watched, signal.SIGSEGV).fault_address is None
    assert watched.note is not None and "sent SIGSEGV to itself" in watched.note


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT])
def test_killed_from_outside_is_no_crash(crasher: Path, number: signal.Signals) -> None:
    with start(crasher, "") as child:
        with meanwhile(child, lambda: os.kill(child.pid, number)):
            watched = watch(child)
        assert (watched.status, watched.crash) == (-number, None)
        expected = f"{number.name} was sent by process {os.getpid()}: no code of this process caused it"
        assert watched.note == (expected if number in crashwatch.CRASH_SIGNALS else None)


def test_the_exit_status_and_other_signals_pass_through(crasher: Path) -> None:
    code = "signal.signal(signal.SIGUSR1, lambda *_: os._exit(5)); os.kill(os.getpid(), signal.SIGUSR1)"
    assert watch_code(crasher, code)[0] == Watched(5)


def test_stopped_and_continued(crasher: Path) -> None:
    # A group of its own, whose parent is of another: in an orphaned group, as of a service, SIGTSTP stops nothing.
    code = """
    os.setpgid(0, 0)
    for number in range(20):
        os.write(1, b"%d\\n" % number)
        os.kill(os.getpid(), signal.SIGTSTP if number % 2 else signal.SIGSTOP)
    lib.touch(ctypes.c_void_p(0x18))
    """
    with start(crasher, code) as child:

        def go_on() -> None:
            say(child)
            assert child.stdout is not None
            for number in range(20):
                assert child.stdout.readline() == b"%d\n" % number
                while status_field(child.pid, "State")[0] not in "tT":
                    os.sched_yield()
                child.send_signal(signal.SIGCONT)

        with meanwhile(child, go_on):
            watched = watch(child)
        assert_in(crash_of(watched, signal.SIGSEGV), crasher, "touch")


def test_a_crash_of_a_process_that_the_program_forks_is_not_its_own(crasher: Path) -> None:
    code = """
    for fork in (os.fork, lib.quiet_fork):
        pid = fork()
        if not pid:
            assert "TracerPid:\\t0" in open("/proc/self/status").read()
            lib.touch(ctypes.c_void_p(0x18))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0x40000000)[1]) == -signal.SIGSEGV
    import subprocess
    assert subprocess.call([sys.executable, "-c", "import os; os.abort()"]) == -signal.SIGABRT
    """
    assert watch_code(crasher, code) == (Watched(0), "")


@pytest.mark.parametrize("how", ["os.execv(words[0], words)", "lib.exec_in_thread(array)"])
def test_the_program_turns_into_another_one(crasher: Path, how: str) -> None:
    then = f"import ctypes; ctypes.CDLL({str(crasher)!r}).touch(ctypes.c_void_p(0x18))"
    code = f"""
    words = [sys.executable, "-c", {then!r}]
    array = (ctypes.c_char_p * 4)(*map(os.fsencode, words), None)
    {how}
    """
    assert_in(crash_of(watch_code(crasher, code)[0], signal.SIGSEGV), crasher, "touch")


def test_many_threads(crasher: Path) -> None:
    code = """
    import threading
    for _ in range(20):
        threads = [threading.Thread(target=os.sched_yield) for _ in range(20)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    """
    assert watch_code(crasher, code) == (Watched(0), "")


def test_a_program_that_watches_a_child_of_its_own(crasher: Path) -> None:
    # What comes before the watching begins is not seen: it crashes when it is watched.
    inner = (
        "import ctypes, os\n"
        "for _ in range(1_000_000):\n"
        "    if 'TracerPid:\\t0' not in open('/proc/self/status').read(): break\n"
        "    os.sched_yield()\n"
        f"ctypes.CDLL({str(crasher)!r}).touch(ctypes.c_void_p(0x18))"
    )
    code = f"""
    import subprocess
    sys.path[:0] = {sys.path!r}
    from dlltracer.capture.linux.crashwatch import watch
    print(watch(subprocess.Popen([sys.executable, "-c", {inner!r}])).crash)
    """
    with start(crasher, code) as child:
        with meanwhile(child, lambda: say(child)):
            assert watch(child) == Watched(0)
        assert child.stdout is not None
        assert f"image='{crasher}'" in child.stdout.read().decode()


def test_popen_is_of_use_meanwhile(crasher: Path) -> None:
    with start(crasher, "signal.raise_signal(signal.SIGUSR1)") as child:
        seen: list[object] = []

        def use() -> None:
            seen.append(child.poll())
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(timeout=0)
            child.terminate()
            seen.append(child.wait())

        with meanwhile(child, use):
            watched = watch(child)
        assert watched == Watched(-signal.SIGTERM) and seen == [None, -signal.SIGTERM]


def test_the_end_of_other_children_is_left_to_those_who_wait_for_it(crasher: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert watch_code(crasher, "")[0] == Watched(0)
    assert other.wait() == 3


def test_a_signal_handler_of_ours_runs_and_the_watching_goes_on(crasher: Path) -> None:
    taken: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: (taken.append(number), say(child)))
    try:
        with start(crasher, "lib.touch(ctypes.c_void_p(0x18))") as child:
            with meanwhile(child, lambda: os.kill(os.getpid(), signal.SIGUSR1)):
                watched = watch(child)
            assert_in(crash_of(watched, signal.SIGSEGV), crasher, "touch")
            assert taken == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_exception_of_a_handler_leaves_a_child_that_still_runs(crasher: Path) -> None:
    def refuse(number: int, frame: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGUSR1, refuse)
    try:
        with start(crasher, "signal.signal(signal.SIGUSR2, lambda *_: os._exit(4)); signal.pause()") as child:
            with meanwhile(child, lambda: os.kill(os.getpid(), signal.SIGUSR1)), pytest.raises(InterruptedError):
                watch(child)
            assert child.poll() is None
            say(child)
            while not int(status_field(child.pid, "SigCgt"), 16) >> signal.SIGUSR2 - 1 & 1:
                os.sched_yield()
            child.send_signal(signal.SIGUSR2)
            assert child.wait() == 4
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_child_that_has_ended_already(crasher: Path) -> None:
    with start(crasher, "os.abort()") as child:
        say(child)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        watched = watch(child)
        assert (watched.status, watched.crash, child.returncode) == (-signal.SIGABRT, None, -signal.SIGABRT)
        assert watched.note is not None and "had ended before" in watched.note
        assert watch(child) == watched


def test_a_child_under_another_debugger_is_waited_for(crasher: Path) -> None:
    with start(crasher, "sys.exit(3)") as child:
        Ptrace().seize(child.pid)
        say(child)
        watched = watch(child)
        assert watched.status == child.returncode == 3
        assert watched.note is not None and f"process {os.getpid()} traces it already" in watched.note


def test_the_status_is_known_although_sigchld_is_ignored(crasher: Path) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        watched, _ = watch_code(crasher, "lib.touch(ctypes.c_void_p(0x18))")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert_in(crash_of(watched, signal.SIGSEGV), crasher, "touch")


WATCHER = """
import ctypes, json, subprocess, sys
{before}
from dlltracer.capture.linux import crashwatch
from dlltracer.capture.linux.crashwatch import availability, watch
available = availability()
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
import threading
refused, why_refused = threading.Event(), crashwatch.why_refused
def why_refused_and_note(*arguments):
    reason = why_refused(*arguments)
    refused.set()
    return reason
crashwatch.why_refused = why_refused_and_note
def release():
    while {wait} and "TracerPid:\\t0" in open(f"/proc/{{child.pid}}/status").read():
        pass
    if not {wait}:
        refused.wait()
    child.stdin.close()
threading.Thread(target=release).start()
watched = watch(child)
print(json.dumps([available.ok, available.reason, watched.status, watched.crash and watched.crash.image, watched.note]))
"""

FILTER = """
class Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filters", ctypes.c_void_p))
import os
number = {"x86_64": 101, "aarch64": 117}[os.uname().machine]
# Load the number of the call; if it is ptrace, refuse it with an error; else allow it.
filters = (Filter * 4)((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50000 + ERROR), (0x06, 0, 0, 0x7FFF0000))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(4, ctypes.addressof(filters))), 0, 0) == 0
"""


def run_watcher(crasher: Path, before: str, *prefix: str, wait: bool = True) -> list[object]:
    code = f"import ctypes, sys; sys.stdin.read(); ctypes.CDLL({str(crasher)!r}).touch(ctypes.c_void_p(0x18))"
    done = subprocess.run(
        [*prefix, sys.executable, "-c", WATCHER.format(before=before, wait=wait), code],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="the number of ptrace(2) is not known")
def test_a_container_without_ptrace_gets_the_reason(crasher: Path) -> None:
    ok, reason, status, image, note = run_watcher(crasher, FILTER.replace("ERROR", str(errno.EPERM)), wait=False)
    assert not ok and "refuses ptrace (Operation not permitted)" in str(reason)
    assert (status, image) == (-signal.SIGSEGV, None)
    assert "the place of a crash is not known: the system refuses ptrace" in str(note)


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="the number of ptrace(2) is not known")
def test_a_kernel_without_ptrace_is_not_taken_for_a_container(crasher: Path) -> None:
    ok, reason, status, _, note = run_watcher(crasher, FILTER.replace("ERROR", str(errno.ENOSYS)), wait=False)
    assert not ok and status == -signal.SIGSEGV
    assert "has no ptrace (Function not implemented)" in str(reason) and str(reason) in str(note)
    assert "container" not in str(reason)


def test_no_privilege_is_needed(crasher: Path) -> None:
    prefix: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv to give up root's capabilities")
        prefix = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    assert run_watcher(crasher, "", *prefix) == [True, "", -signal.SIGSEGV, str(crasher), None]


def test_without_room_for_a_thread_the_place_is_lost_and_no_more() -> None:
    code = """
import os, resource, subprocess
from dlltracer.capture.linux.crashwatch import watch
child = subprocess.Popen(["/bin/sh", "-c", "kill -SEGV $$"])
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
if os.geteuid() == 0:
    os.setuid(65534)  # the limit is none for root
found = watch(child)
print(found.status, found.crash, found.note, child.returncode)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stderr, done.stdout) == (
        "",
        "-11 None the place of a crash is not known: no thread could be started to watch the program "
        "(can't start new thread) -11\n",
    )
