"""What only Linux promises: the missing file by name, fork, memory restored, the snapshot."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import dlltracer
from contract.native import Native, import_file, load, unload
from dlltracer.model.events import FailureKind, Phase, ProbeOutcome

if sys.platform != "linux":
    pytest.skip("the loader of glibc is Linux's", allow_module_level=True)

pytestmark = pytest.mark.every_python

RunPython = Callable[..., subprocess.CompletedProcess[str]]


def loader_words() -> tuple[int, bytes, str]:
    """The debug mask, the leading words of ld.so's read-only data, and the protection of their page."""
    start = ctypes.addressof(ctypes.c_char.in_dll(ctypes.CDLL(None), "_rtld_global_ro"))
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        if low <= start < high:
            return ctypes.c_int.from_address(start).value, ctypes.string_at(start, 256), line.split()[1]
    raise AssertionError("no mapping")


def test_the_missing_library_is_named_with_every_place_tried(native: Native) -> None:
    path = native.broken_module()
    with dlltracer.Trace(collect=True) as events, pytest.raises(ImportError) as caught:
        import_file("brokenmod", path)
    missing = [e for e in events if isinstance(e, dlltracer.LoadFailedEvent) and e.kind is FailureKind.NOT_FOUND]
    (event,) = missing
    assert event.path == event.need == native.missing and native.missing in str(caught.value)
    assert event.requested_by == str(path)
    assert str(event) == f"Failed {native.missing}"
    files = [p for p in event.probes if p.outcome is not ProbeOutcome.NO_ENTRY]
    assert files and {p.outcome for p in files} == {ProbeOutcome.ABSENT}
    assert all(p.path.endswith(f"/{native.missing}") for p in files)
    assert [p.path for p in event.probes if p not in files] == ["/etc/ld.so.cache"]
    assert {p.phase for p in event.probes} >= {Phase.SYSTEM, Phase.CACHE}
    order = [type(e).__name__ for e in events]
    assert order == ["LoadEvent", "LoadFailedEvent", "LoadFailedEvent"]
    assert events[2].path == str(path) and events[2].kind is FailureKind.DROPPED


def test_a_file_for_another_machine_is_refused_not_missing(native: Native, tmp_path: Path) -> None:
    path = native.tiny()
    image = bytearray(path.read_bytes())
    image[18:20] = (183).to_bytes(2, "little")
    path.write_bytes(image)
    with dlltracer.Trace(collect=True) as events, pytest.raises(OSError):
        load(path)
    (event,) = events
    assert event.kind is FailureKind.REFUSED
    assert "made for AArch64, this process is x86-64" in event.reason


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.so"
    path.write_text("not a library\n")
    with dlltracer.Trace(collect=True) as events, pytest.raises(OSError):
        load(path)
    (event,) = events
    assert event.kind is FailureKind.REFUSED and event.reason == f"{path}: not an ELF file"


def test_another_name_of_a_loaded_file_is_no_failure(native: Native, tmp_path: Path) -> None:
    path, link = native.tiny(), tmp_path / "other-name.so"
    link.symlink_to(path)
    load(path)
    with dlltracer.Trace(collect=True) as events:
        load(link)
        with pytest.raises(OSError):
            load(tmp_path / "none.so")
        load(path)
    assert [str(e) for e in events] == [f"Failed {tmp_path / 'none.so'}"]


def test_an_undefined_symbol_keeps_the_words_of_the_loader(tmp_path: Path, native: Native) -> None:
    path = tmp_path / "undefined.so"
    (tmp_path / "undefined.c").write_text("extern int nowhere(void); int f(void) { return nowhere(); }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", path, "undefined.c"], cwd=tmp_path, check=True)
    with dlltracer.Trace(collect=True) as events, pytest.raises(OSError):
        load(path)
    assert [type(e) for e in events] == [dlltracer.LoadEvent, dlltracer.LoadFailedEvent]
    assert events[1].kind is FailureKind.DROPPED and "undefined symbol: nowhere" in events[1].reason


def test_base_and_size_are_those_of_the_process(native: Native) -> None:
    path = native.tiny()
    with dlltracer.Trace(collect=True) as events:
        library = load(path)
    (event,) = events
    address = ctypes.cast(library.tiny_answer, ctypes.c_void_p).value
    assert event.base <= address < event.base + event.size
    mapped = [line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    assert int(mapped[0].split("-")[0], 16) == event.base
    assert event.phase is Phase.DIRECT and event.requested_by.rpartition("/")[2].startswith("_ctypes.")


def test_memory_is_restored(native: Native) -> None:
    before = loader_words()
    with dlltracer.Trace():
        assert loader_words()[0] & 0x43 == 0x43
        with pytest.raises(RuntimeError), dlltracer.Trace():
            raise RuntimeError
        assert loader_words()[0] & 0x43 == 0x43
    assert loader_words() == before


def test_descriptors_are_not_leaked(native: Native) -> None:
    with dlltracer.Trace():
        pass
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with dlltracer.Trace():
            load(native.tiny())
    assert set(os.listdir("/proc/self/fd")) <= set(before), "files of earlier tests may be closed meanwhile"


def test_nothing_reaches_stderr(native: Native, run_python: RunPython) -> None:
    code = """
        import ctypes, sys, dlltracer
        with dlltracer.Trace():
            ctypes.CDLL(sys.argv[1])
        ctypes.CDLL(sys.argv[2])
    """
    result = run_python(code, native.tiny(), native.tiny())
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_fork_inside_the_block(native: Native, run_python: RunPython) -> None:
    result = run_python(
        """
        import ctypes, os, sys, dlltracer
        before, in_child, in_parent = sys.argv[1:]
        with dlltracer.Trace(collect=True) as events:
            ctypes.CDLL(before)
            child = os.fork()
            ctypes.CDLL(in_parent if child else in_child)
            if child:
                os.waitpid(child, 0)
        who = "parent" if child else "child"
        print(who, [e.path.rpartition("/")[2] for e in events], len({e.pid for e in events}), flush=True)
        """,
        *(paths := [native.tiny() for _ in range(3)]),
    )
    before, in_child, in_parent = (path.name for path in paths)
    assert sorted(result.stdout.splitlines()) == [
        f"child {[in_child]} 1",
        f"parent {[before, in_parent]} 1",
    ], result.stderr


def test_a_fork_leaves_the_parent_with_whole_lines(native: Native, run_python: RunPython) -> None:
    result = run_python(
        """
        import ctypes, os, sys, dlltracer
        trace = dlltracer.Trace(collect=True)
        with trace as events:
            children = []
            for path in sys.argv[1:]:
                if not (child := os.fork()):
                    ctypes.CDLL(path)
                    os._exit(0)
                children.append(child)
                ctypes.CDLL(path)
            for child in children:
                os.waitpid(child, 0)
        print(len(events), trace.recording.losses.undecodable, trace.recording.notes)
        """,
        *(native.tiny() for _ in range(5)),
    )
    assert result.stdout.strip() == "5 0 ()", result.stderr


def test_snapshot_sees_what_is_there_and_says_what_it_cannot_see(native: Native) -> None:
    kept, gone = native.tiny(), native.tiny()
    trace = dlltracer.Trace(collect=True, backend="snapshot")
    with trace as events:
        library = load(kept)
        unload(load(gone))
    assert [e.path for e in events] == [str(kept)]
    address = ctypes.cast(library.tiny_answer, ctypes.c_void_p).value
    assert events[0].base <= address < events[0].base + events[0].size
    assert trace.recording.backend == "snapshot"
    assert "failed loads, requesters, the places tried" in trace.recording.notes[0]
    assert trace.recording.notes[1].startswith("1 more images were loaded and unloaded again")


def test_snapshot_agrees_with_rtld(native: Native) -> None:
    with dlltracer.Trace(collect=True) as reported, dlltracer.Trace(collect=True, backend="snapshot") as seen:
        import_file("tinymod", native.module())
        load(native.tiny())
    assert [(e.path, e.base) for e in reported] == [(e.path, e.base) for e in seen]
    # rtld says the size in bytes as the loader does; both end in the same page
    assert [(e.size + 4095) // 4096 for e in reported] == [(e.size + 4095) // 4096 for e in seen]


def test_snapshot_has_no_raw_events() -> None:
    with (
        pytest.raises(dlltracer.BackendUnavailable, match="no raw events"),
        dlltracer.Trace(debug=True, backend="snapshot"),
    ):
        pass


def test_ld_debug_of_the_user_goes_on_afterwards(native: Native) -> None:
    code = (
        "import ctypes, sys, dlltracer\n"
        "with dlltracer.Trace(collect=True) as events: ctypes.CDLL(sys.argv[1])\n"
        "ctypes.CDLL(sys.argv[2])\n"
        "print(len(events))"
    )
    first, second = native.tiny(), native.tiny()
    result = subprocess.run(
        [sys.executable, "-c", code, first, second],
        env={**os.environ, "LD_DEBUG": "files"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout.strip() == "1"
    assert first.name in result.stderr and second.name in result.stderr
    assert "\x1e" not in result.stderr


def test_no_audit_hook_is_added_since_one_makes_every_event_cost(native: Native, run_python: RunPython) -> None:
    result = run_python(
        """
        import ctypes, sys, dlltracer
        def hook(name, args):
            if name == "sys.addaudithook":
                raise RuntimeError("no more hooks")
        sys.addaudithook(hook)
        trace = dlltracer.Trace(collect=True)
        with trace as events:
            ctypes.CDLL(sys.argv[1])
        print(len(events), events[0].imports, trace.recording.notes)
        """,
        native.tiny(),
    )
    assert result.stdout == "1 () ()\n", result.stderr


WITHOUT_MPROTECT = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
# seccomp(2): load the number of the call; mprotect (10 on x86-64) gets EPERM, all else is allowed.
program = b"".join(struct.pack("HBBI", *step) for step in (
    (0x20, 0, 0, 0), (0x15, 0, 1, 10), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)))
code = ctypes.create_string_buffer(program, len(program))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
if libc.prctl(22, 2, ctypes.byref(Filter(4, ctypes.addressof(code)))) != 0:
    sys.exit("no seccomp")
"""


def test_on_a_hardened_system_rtld_says_why_and_auto_takes_the_snapshot(run_python: RunPython) -> None:
    result = run_python(
        WITHOUT_MPROTECT
        + """
import dlltracer, os
before = os.listdir("/proc/self/fd")
try:
    dlltracer.Trace(backend="rtld").start()
except OSError as error:
    print(error)
assert os.listdir("/proc/self/fd") == before
trace = dlltracer.Trace()
with trace:
    pass
print(trace.recording.backend, trace.recording.notes[0])
"""
    )
    if "no seccomp" in result.stderr:
        pytest.skip("this system allows no seccomp filter")
    reason = "the system does not let the loader's page be written"
    first, second = result.stdout.splitlines()
    assert f"'rtld' is not available here: {reason}. Use backend='snapshot'" in first, result.stderr
    assert second == f"snapshot rtld was not used: {reason}"


def test_a_python_without_ctypes_gets_the_reason(run_python: RunPython) -> None:
    result = run_python(
        """
        import sys, dlltracer
        sys.modules["_ctypes"] = None
        for name in ("rtld", "snapshot", "auto"):
            try:
                dlltracer.Trace(backend=name).start()
            except OSError as error:
                print(error)
        """
    )
    assert result.stdout.count("this Python cannot call C functions") == 3, result.stdout + result.stderr


def test_an_log_that_cannot_grow_costs_the_program_nothing(native: Native, run_python: RunPython) -> None:
    result = run_python(
        """
        import ctypes, resource, sys, dlltracer
        trace = dlltracer.Trace(collect=True)
        with trace:
            ctypes.CDLL(sys.argv[1])
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
            ctypes.CDLL(sys.argv[2])
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        print(*map(str, trace.recording.events), *trace.recording.notes, sep="\\n")
        """,
        *(paths := [native.tiny(), native.tiny()]),
    )
    assert result.stdout.splitlines() == [
        f"LoadLibrary {paths[0]}", "the log could not be written (File too large): what it lacks is not shown",
    ], result.stderr  # fmt: skip


def test_a_program_that_closes_the_log_goes_on_and_keeps_its_files(
    native: Native, run_python: RunPython, tmp_path: Path
) -> None:
    result = run_python(
        """
        import ctypes, os, sys, dlltracer
        first, second, mine = sys.argv[1:]
        trace = dlltracer.Trace(collect=True)
        with trace:
            os.closerange(3, 300)
            file = os.open(mine, os.O_RDWR | os.O_CREAT)
            for number in range(4, 16):
                os.dup2(file, number)
            ctypes.CDLL(first)
        print([os.fstat(number).st_size for number in (3, 15)], *trace.recording.notes)
        with dlltracer.Trace(collect=True) as events:
            ctypes.CDLL(second)
        print(*events)
        """,
        *(paths := [native.tiny(), native.tiny()]), tmp_path / "mine",
    )  # fmt: skip
    assert result.stdout.splitlines() == [
        "[0, 0] the program closed the descriptor of the log: what it loaded then is not shown",
        f"LoadLibrary {paths[1]}",
    ], result.stderr


STRESS = """
import _ctypes, collections, ctypes, os, shutil, sys, threading, time, dlltracer
loads, folder, tiny, broken = int(sys.argv[1]), *sys.argv[2:]
THREADS = 8

def work(number):
    # Of its own each: a failing dlopen that drops what another thread has loaded would be another case.
    good = shutil.copy(tiny, f"{folder}/good{number}.so")
    bad = shutil.copy(broken, f"{folder}/bad{number}.so")
    for count in range(loads // THREADS):
        if count % 10:
            _ctypes.dlclose(ctypes.CDLL(good)._handle)
        else:
            try:
                ctypes.CDLL(bad)
            except OSError:
                pass

trace = dlltracer.Trace(collect=True, unloads=True)
with trace as events:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (log,) = (path for path in map("/proc/self/fd/{}".format, os.listdir("/proc/self/fd"))
              if os.path.lexists(path) and "dlltracer-loader-log" in os.readlink(path))
    # The reader may lag behind eight threads that write; it catches up within its half second.
    deadline = time.monotonic() + 100
    while (status := os.stat(log)).st_blocks * 512 >= 5 << 20 and time.monotonic() < deadline:
        time.sleep(0.01)
counts = collections.Counter((type(event).__name__, os.path.basename(event.path)[:3]) for event in events)
print(sorted(counts.items()))
print(trace.recording.losses, len({event.tid for event in events}))
print(status.st_size, status.st_blocks * 512)
"""


def test_threads_that_load_and_fail_are_counted_exactly(native: Native, run_python: RunPython, tmp_path: Path) -> None:
    """Two writers share the log, and it is read and released while it grows. CONTRIBUTING.md says how to run more."""
    loads = int(os.environ.get("DLLTRACER_STRESS_LOADS", "8000"))
    result = run_python(STRESS, str(loads), tmp_path, native.tiny(), native.broken())
    assert result.returncode == 0, result.stderr
    bad = 8 * -(-(loads // 8) // 10)
    good = loads - bad
    counts, losses, sizes = result.stdout.splitlines()
    assert counts == str([
        (("LoadEvent", "bad"), bad), (("LoadEvent", "goo"), good), (("LoadFailedEvent", "bad"), bad),
        (("LoadFailedEvent", "lib"), bad), (("UnloadEvent", "goo"), good),
    ])  # fmt: skip
    assert losses == "Losses(events=0, buffers=0, undecodable=0) 8"
    written, held = map(int, sizes.split())
    assert written > 6 << 20 and held < 5 << 20, "the text that was read is given back"


IMPORTS = """
import importlib, os, shutil, sys, threading, dlltracer
folder, module = sys.argv[1:]
THREADS, TURNS = 8, 20
sys.path.insert(0, folder)
together, expected = threading.Barrier(THREADS), {}

def work(number):
    together.wait()
    for turn in range(TURNS):
        name = f"pack{number}_{turn}.tinymod"
        expected[importlib.import_module(name).__file__] = (name, threading.get_native_id())

for number in range(THREADS):
    for turn in range(TURNS):
        os.mkdir(f"{folder}/pack{number}_{turn}")
        shutil.copy(module, f"{folder}/pack{number}_{turn}/tinymod.so")
is_locked = getattr(sys, "_is_gil_enabled", lambda: True)
before = is_locked()
with dlltracer.Trace(collect=True) as events:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
seen = {event.path: (event.imports[-1], event.tid) for event in events if event.path in expected}
print(len(expected), len(events), seen == expected, is_locked() == before)
"""


def test_each_image_has_the_import_of_its_own_thread(native: Native, run_python: RunPython, tmp_path: Path) -> None:
    """On a free-threaded Python the threads import at the same time; nothing of ours turns its lock on."""
    result = run_python(IMPORTS, tmp_path, native.module())
    assert result.stdout == "160 160 True True\n", result.stderr


def test_a_system_without_memfd_uses_a_file_without_a_name(native: Native, run_python: RunPython) -> None:
    result = run_python(
        """
        import ctypes, errno, os, sys
        def refuse(*_): raise OSError(errno.ENOSYS, "refused")
        os.memfd_create = refuse
        import dlltracer
        with dlltracer.Trace(collect=True) as events:
            files = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")[:-1]]
            ctypes.CDLL(sys.argv[1])
        print(*events, any("(deleted)" in file for file in files))
        """,
        path := native.tiny(),
    )
    assert result.stdout == f"LoadLibrary {path} True\n", result.stderr


def test_searches_in_a_loop_are_all_seen(run_python: RunPython) -> None:
    result = run_python(
        """
        import ctypes.util, dlltracer
        with dlltracer.Trace(collect=True) as events:
            for name in ("no-such-a", "bin/no-such-b.dll", "no-such-a", "c"):
                ctypes.util.find_library(name)
        print([event.need for event in events if isinstance(event, dlltracer.LoadFailedEvent)])
        """,
    )
    assert result.stdout == "['no-such-a', 'bin/no-such-b.dll', 'no-such-a']\n", result.stderr


def test_find_library_that_finds_nothing_is_a_failed_request(run_python: RunPython, tmp_path: Path) -> None:
    (tmp_path / "wants_zbar.py").write_text(
        "import ctypes, ctypes.util\npath = ctypes.util.find_library('zbar-no-such')\nassert path is None\n"
        "library = ctypes.CDLL(path)\n"
    )
    result = run_python(
        """
        import sys, ctypes.util, dlltracer
        sys.path.insert(0, sys.argv[1])
        trace = dlltracer.Trace(collect=True)
        with trace as events:
            assert ctypes.util.find_library("c")
            import wants_zbar
            ctypes.util.find_library("at-the-end")
        for event in events:
            probe = event.probes[0]
            print(event, event.kind, event.need, event.imports, (probe.path, probe.origin, probe.outcome.name))
        print({p.origin for p in events[0].probes}, events[0].requested_by)
        """,
        tmp_path,
    )
    cache = ("/etc/ld.so.cache", None, "NO_ENTRY")
    lines = result.stdout.splitlines()
    assert lines[:-1] == [
        f"Failed zbar-no-such FailureKind.NAME_NOT_FOUND zbar-no-such ('wants_zbar',) {cache}",
        f"Failed at-the-end FailureKind.NAME_NOT_FOUND at-the-end () {cache}",
    ], result.stderr
    assert "search path of ld" in lines[-1] and lines[-1].endswith(" None")


@pytest.mark.parametrize("options", [(), ("--follow",)])
def test_what_asks_is_a_path_whatever_the_program_was_called(options: tuple[str, ...], tmp_path: Path) -> None:
    """glibc's name for a program is its argv[0], and the program asks for all imports where Python is no library."""
    here, name = os.path.split(sys.executable)
    code = """if True:
        import dlltracer
        with dlltracer.Trace(collect=True) as events:
            import _json, _ssl
        print(*(event.requested_by for event in events), sep="\\n")
    """
    seen = subprocess.run([f"./{name}", "-c", code], cwd=here, check=True, capture_output=True, text=True)
    report = tmp_path / "report"
    words = [sys.executable, "-m", "dlltracer", "run", *options, "--format", "jsonl", "-o", str(report)]
    subprocess.run([*words, "-c", "import _ssl"], check=True)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    requesters = {*seen.stdout.split(), *(line["requested_by"] for line in lines if line["type"] == "load")}
    assert len(requesters) > 1 and all(path.startswith("/") for path in requesters), requesters
    assert sys.executable not in requesters or not os.path.islink(sys.executable)


def test_info_says_whether_the_interpreter_is_a_library() -> None:
    code = "print('/libpython' in open('/proc/self/maps').read())"
    is_library = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    words = [sys.executable, "-m", "dlltracer", "info", "--json"]
    told = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    assert str(told["python"]["shared_library"]) == is_library
