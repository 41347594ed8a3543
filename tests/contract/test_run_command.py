"""`dlltracer run PROGRAM` next to `python PROGRAM`: same output, same status, same `__main__`; and a report besides."""

from __future__ import annotations

import json
import os
import py_compile
import signal
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from contract.native import Native

LINUX = sys.platform == "linux"
linux_only = pytest.mark.skipif(not LINUX, reason="the loader's log outlives its process on Linux only")
INTERRUPTED = -signal.SIGINT if os.name == "posix" else 0xC000013A
"""CPython ends itself as the signal would have ended it; on Windows with STATUS_CONTROL_C_EXIT (ntstatus.h)."""

posix_only = pytest.mark.skipif(os.name == "nt", reason="signals and fork are of POSIX")

STATE = """
import sys
main = sys.modules["__main__"]
print(sys.argv, repr(sys.path[0]), len(sys.path), __name__, __spec__ and (__spec__.name, __spec__.origin))
print(sorted(globals()), main.__dict__ is globals(), __package__, __doc__, __builtins__)
print(globals().get("__file__"), globals().get("__cached__"), getattr(__loader__, "__name__", type(__loader__)))
print(__loader__.name if hasattr(__loader__, "name") else None, sys.flags, sys._xoptions, sys.warnoptions)
print(getattr(sys, "_is_gil_enabled", bool)())
"""

SEES_FILE = """
import atexit, sys
def seen(*_): print("__file__" in globals(), "__cached__" in globals())
atexit.register(seen)
sys.excepthook = seen
"""
"""When the names of the script's file leave `__main__` differs between 3.14.6 and 3.14.7."""


@dataclass(frozen=True)
class Ran:
    """What came of a run."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Desk:
    """A folder to run programs in."""

    folder: Path

    @property
    def report(self) -> Path:
        return self.folder / "report.out"

    def write(self, name: str, source: str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return name

    def run(self, command: Sequence[str], stdin: str = "", **more: object) -> Ran:
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, input=stdin, capture_output=True, text=True, timeout=120,
            check=False, **more,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def traced(self, *program: str, form: str = "lines", stdin: str = "", **more: object) -> Ran:
        options = ["-o", str(self.report), "--format", form]
        return self.run(["-m", "dlltracer", "run", *options, *program], stdin, **more)

    def lines(self) -> list[str]:
        return self.report.read_text().splitlines()

    def notes(self) -> str:
        return "\n".join(json.loads(self.lines()[0])["notes"])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    folder = tmp_path / "desk"
    folder.mkdir()
    return Desk(folder)


def assert_same(desk: Desk, *program: str, stdin: str = "", reports: bool = True) -> Ran:
    plain = desk.run(program, stdin)
    assert desk.traced(*program, stdin=stdin) == plain
    assert desk.report.exists() == reports
    return plain


@pytest.mark.parametrize("words", [["-c", STATE], ["-c" + STATE], ["-c", STATE, "a", "--format", "x", "-o"]])
@pytest.mark.every_python
def test_code(desk: Desk, words: list[str]) -> None:
    assert "__main__" in assert_same(desk, *words).stdout


@pytest.mark.parametrize("name", ["s.py", "./s.py", "sub/s.py", "../desk/s.py"])
@pytest.mark.every_python
def test_script(desk: Desk, name: str) -> None:
    desk.write(name, STATE)
    assert "SourceFileLoader" in assert_same(desk, name, "-c", "--help").stdout


@posix_only
def test_script_by_symbolic_link(desk: Desk) -> None:
    desk.write("sub/real.py", STATE)
    (desk.folder / "link.py").symlink_to("sub/real.py")
    assert repr(str(desk.folder / "sub")) in assert_same(desk, "link.py").stdout


def test_script_by_absolute_path_and_after_two_dashes(desk: Desk) -> None:
    desk.write("s.py", STATE)
    assert_same(desk, str(desk.folder / "s.py"))
    assert_same(desk, "--", "s.py", "--", "-m")


def test_module(desk: Desk) -> None:
    desk.write("mod.py", STATE)
    desk.write("pkg/__init__.py", "print('package')")
    desk.write("pkg/__main__.py", STATE)
    desk.write("pkg/inner.py", STATE)
    for words in (["-m", "mod", "x"], ["-mmod", "-c"], ["-m", "pkg", "--backend"], ["-m", "pkg.inner"]):
        assert "SourceFileLoader" in assert_same(desk, *words).stdout
    assert_same(desk, "-mjson.tool", "--indent", "1", stdin='{"a": [1]}')


def test_folder_zip_and_bytecode(desk: Desk) -> None:
    desk.write("folder/__main__.py", STATE)
    with zipfile.ZipFile(desk.folder / "app.zip", "w") as archive:
        archive.writestr("__main__.py", STATE)
    source = desk.write("s.py", STATE)
    py_compile.compile(str(desk.folder / source), str(desk.folder / "s.pyc"), doraise=True)
    (desk.folder / "nameless").write_bytes((desk.folder / "s.pyc").read_bytes())
    for name in ("folder", "./folder", "app.zip", "s.pyc", "nameless"):
        assert "__main__" in assert_same(desk, name, "x").stdout


def test_stdin_program(desk: Desk) -> None:
    assert "<stdin>" in assert_same(desk, "-", "x", "-o", stdin=STATE).stdout
    assert "<stdin>" in assert_same(desk, "-", stdin="def f():\n    raise KeyError(1)\nf()\n").stderr


def test_stdin_is_the_programs(desk: Desk) -> None:
    assert assert_same(desk, "-c", "print(input(), input())", stdin="one\ntwo\n").stdout == "one two\n"


@pytest.mark.parametrize("flags", [["-I"], ["-E", "-s"], ["-O"], ["-X", "mine=1"], ["-W", "error"], ["-u"], ["-B"]])
def test_options_of_the_interpreter_reach_the_program(desk: Desk, flags: list[str]) -> None:
    desk.write("s.py", STATE + "print(sys.stdout.write_through)")
    if "PYTHONPATH" in os.environ and flags[0] in ("-I", "-E"):
        pytest.skip("dlltracer is found by PYTHONPATH here, which this option takes away")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON") or name == "PYTHONPATH"}
    plain = desk.run([*flags, "s.py"], env=clean)
    traced = desk.run([*flags, "-m", "dlltracer", "run", "-o", str(desk.report), "s.py"], env=clean)
    assert traced == plain and plain.status == 0


@pytest.mark.skipif(sys.version_info < (3, 11), reason="-P is of Python 3.11")
@linux_only
@pytest.mark.every_python
def test_what_the_environment_says_to_the_interpreter(desk: Desk) -> None:
    """PYTHONDEVMODE is no -X dev; in the locale "C" Python changes its environment, which a child must not inherit."""
    code = f"{STATE}import os; print(sys.flags.utf8_mode, os.environ.get('LC_CTYPE'), sys.stdout.errors)"
    for variables in (
        {"PYTHONDEVMODE": "1"}, {}, {"LANG": "C"}, {"LC_CTYPE": "C.UTF-8"}, {"LC_ALL": "C"}, {"PYTHONUTF8": "0"},
    ):  # fmt: skip
        given = {name: text for name, text in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONDEV"))}
        plain = desk.run(["-c", code], env={**given, **variables})
        assert desk.traced("-c", code, env={**given, **variables}) == plain and plain.status == 0, variables
    # An interpreter that inspects: the program's asks for code, ours and that of a question do not.
    inspects = {**given, "PYTHONINSPECT": "1"}
    program = ["-c", "raise SystemExit(7)"]
    assert desk.traced(*program, env=inspects) == desk.run(program, env=inspects)
    asked = desk.run(["-m", "dlltracer", "why", "-c", "pass"], stdin="print('asked')", env=inspects)
    assert (asked.status, asked.stdout, asked.stderr) == (0, "the code works: nothing to explain\n", "")
    assert desk.traced("--", "sh", "-c", "echo $LC_CTYPE.", env=given).stdout == ".\n"


@pytest.mark.every_python
def test_safe_path(desk: Desk) -> None:
    desk.write("s.py", STATE)
    for program in (["s.py"], ["-c", STATE], ["-m", "json.tool", "--help"]):
        plain = desk.run(["-P", *program])
        assert desk.run(["-P", "-m", "dlltracer", "run", "-o", str(desk.report), *program]) == plain


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit('a text')", 1),
        ("import sys; sys.exit()", 0),
        ("raise SystemExit", 0),
        ("def f():\n    g()\ndef g():\n    {}[1]\nf()", 1),
        ("try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise KeyError(2) from e", 1),
        ("import nowhere.to.be.found", 1),
        ("def f(:", 1),
        ("x = 1\n  y = 2", 1),
        ("raise KeyboardInterrupt", INTERRUPTED),
        ("import warnings; warnings.warn('w', DeprecationWarning)", 0),
        ("import runpy; runpy.run_module('nowhere')", 1),
        ("import threading\nthreading.Thread(target=lambda: 1/0).start()", 0),
        ("import sys\nsys.excepthook = lambda t, e, w: print(w.tb_frame.f_code.co_name, e.__traceback__ is w)\nf", 1),
        ("import sys\ndel sys.excepthook\n1/0", 1),
        ("import atexit\natexit.register(print, 'end')\natexit.register(lambda: print('__file__' in globals()))", 0),
        ("import atexit, sys\natexit.register(lambda: print('__file__' in globals()))\nsys.exit(4)", 4),
        ("import atexit, sys\natexit.register(lambda: print(sys.last_traceback.tb_frame.f_code.co_filename))\n1/0", 1),
    ],
)
def test_ends_the_same(desk: Desk, source: str, status: int) -> None:
    desk.write("s.py", source)
    for program in (["s.py"], ["-c", source], ["-m", "s"]):
        plain = desk.run(program)
        assert plain.status == status
        traced = desk.traced(*program)
        if "del sys.excepthook" in source:
            # The interpreter itself prints, and nothing can stand between: frames of ours remain.
            assert traced.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1] and traced.status == plain.status
        else:
            assert traced == plain
        assert desk.report.exists()


@pytest.mark.every_python
@pytest.mark.parametrize(
    ("source", "status"),
    [
        (f"{SEES_FILE}1/0", 1),
        (f"{SEES_FILE}raise KeyboardInterrupt", INTERRUPTED),
        (f"{SEES_FILE}sys.exit('a text')", 1),
        (f"{SEES_FILE}sys.excepthook = lambda *a: sys.exit(5)\n1/0", 5),
        (f"{SEES_FILE}sys.excepthook = lambda *a: {{}}[1]\n1/0", 1),
    ],
)
def test_the_names_of_the_file_go_when_they_would(desk: Desk, source: str, status: int) -> None:
    desk.write("s.py", source)
    plain = assert_same(desk, "s.py")
    assert plain.status == status


@posix_only
@pytest.mark.every_python
def test_the_first_descriptor_is_the_programs_own(desk: Desk) -> None:
    """libffi of Debian 14 keeps a file open from the import of ctypes on; this does the same with any libffi."""
    desk.write(
        "site/sitecustomize.py",
        """
        import os, sys
        def hook(event, arguments):
            if event == "import" and arguments[0] == "ctypes":
                os.open(os.devnull, os.O_RDONLY)
        sys.addaudithook(hook)
        """,
    )
    source = "import os\nprint([os.open(os.devnull, os.O_RDONLY) for _ in range(3)])"
    site = {**os.environ, "PYTHONPATH": str(desk.folder / "site")}
    assert desk.run(["-c", source], env=site) == desk.run(["-m", "dlltracer", "run", "-o", "x", "-c", source], env=site)


@posix_only
@pytest.mark.parametrize("name", ["SIGINT", "SIGSEGV", "SIGABRT", "SIGTERM", "SIGKILL", "SIGUSR1"])
def test_dies_by_the_same_signal(desk: Desk, name: str) -> None:
    desk.write("s.py", f"import os, signal\nos.kill(os.getpid(), signal.{name})")
    assert assert_same(desk, "s.py").status == -getattr(signal, name)


@posix_only
def test_a_crash_in_c(desk: Desk) -> None:
    assert assert_same(desk, "-c", "import ctypes; ctypes.string_at(0)").status == -signal.SIGSEGV


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_multiprocessing_from_a_script(desk: Desk, method: str) -> None:
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"there is no {method} here")
    desk.write(
        "s.py",
        f"""
        import multiprocessing, os, pickle
        class Mine:
            def __init__(self, n): self.n = n
        def double(mine): return Mine(mine.n * 2)
        if __name__ == "__main__":
            print(pickle.loads(pickle.dumps(Mine(3))).n)
            with multiprocessing.get_context({method!r}).Pool(2) as pool:
                print([m.n for m in pool.map(double, [Mine(1), Mine(2)])])
        """,
    )
    assert assert_same(desk, "s.py").stdout == "3\n[2, 4]\n"


@pytest.mark.parametrize(
    "program",
    [["nope.py"], ["sub/nope.py", "x"], ["-m", "nope"], ["-m", "nope.sub"], ["-m", "empty"], ["empty"], ["s.py/x"],
     ["-m", "json.nope"]],
)  # fmt: skip
def test_no_such_program(desk: Desk, program: list[str]) -> None:
    (desk.folder / "empty").mkdir()
    desk.write("s.py", "")
    plain = assert_same(desk, *program, reports=False)
    assert plain.status in (1, 2) and sys.executable in plain.stderr
    desk.report.write_text("precious")
    assert desk.traced(*program) == plain
    assert desk.report.read_text() == "precious"
    assert sorted(p.name for p in desk.folder.iterdir()) == ["empty", "report.out", "s.py"]


def test_the_report(desk: Desk, native: Native) -> None:
    tiny, broken = native.tiny(), native.broken()
    desk.write(
        "s.py",
        """
        import ctypes, sys
        ctypes.CDLL(sys.argv[1])
        try: ctypes.CDLL(sys.argv[2])
        except OSError: print("failed")
        """,
    )
    assert desk.traced("s.py", str(tiny), str(broken)) == Ran(0, "failed\n", "")
    ours = [line for line in desk.lines() if tiny.name in line or broken.name in line or native.missing in line]
    assert ours[0].startswith("LoadLibrary ") and tiny.name in ours[0]
    assert ours[1].startswith("LoadLibrary ") and broken.name in ours[1]
    assert ours[-1].startswith("Failed ") and broken.name in ours[-1]
    desk.traced("s.py", str(tiny), str(broken), form="jsonl")
    head, *events, summary = map(json.loads, desk.lines())
    assert (head["type"], head["version"]) == ("recording", 1)
    assert summary["type"] == "summary" and summary["loaded"] >= 1 and summary["failed"] + summary["dropped"] >= 1
    assert {event["type"] for event in events} <= {"load", "failed", "unload"}
    shown = desk.run(["-m", "dlltracer", "run", "--failed-only", "s.py", str(tiny), str(broken)])
    assert shown.stdout == "failed\n"
    assert broken.name in shown.stderr and tiny.name not in shown.stderr and "\x1b" not in shown.stderr


@pytest.mark.every_python
def test_what_is_imported_last_is_seen(desk: Desk, native: Native) -> None:
    thread, handler = native.tiny(), native.tiny()
    desk.write(
        "s.py",
        """
        import atexit, ctypes, sys, threading
        go = threading.Event()
        atexit.register(ctypes.CDLL, sys.argv[2])
        threading.Thread(target=lambda: (go.wait(), ctypes.CDLL(sys.argv[1]))).start()
        threading.Timer(0, go.set).start()
        """,
    )
    assert desk.traced("s.py", str(thread), str(handler)) == Ran(0, "", "")
    text = desk.report.read_text()
    assert thread.name in text and handler.name in text


def test_a_library_of_the_programs_own_is_not_run_by_us(desk: Desk) -> None:
    for name in ("token", "json", "dataclasses", "inspect", "uuid", "typing", "copy", "dlltracer", "click"):
        desk.write(f"sub/{name}.py", f"print('the program has its own {name}')")
    desk.write("sub/s.py", "import math\nprint('done')")
    assert desk.traced("sub/s.py", form="jsonl") == Ran(0, "done\n", "")
    assert "could not be ended" not in desk.notes()
    # The interpreter's -m, not ours, takes the current folder's: ours must not.
    for name in ("json", "copy"):
        desk.write(f"{name}.py", f"print('the current folder has its own {name}')")
    assert desk.traced("sub/s.py", form="jsonl") == Ran(0, "done\n", "")


@linux_only
@pytest.mark.parametrize("end", ["os._exit(7)", "os.kill(os.getpid(), 11)", "os.execlp('sh', 'sh', '-c', 'exit 7')"])
def test_the_evidence_survives(desk: Desk, native: Native, end: str) -> None:
    broken = native.broken()
    desk.write("s.py", f"import ctypes, os, sys\ntry: ctypes.CDLL(sys.argv[1])\nexcept OSError: pass\n{end}")
    ran = desk.traced("s.py", str(broken), form="jsonl")
    assert (ran.status, ran.stderr) == (-11 if "kill" in end else 7, "")
    assert "the loader's log was read by" in desk.notes()
    assert ("SIGSEGV" if "kill" in end else "status 7") in desk.notes()
    assert any(json.loads(line).get("path") == native.missing for line in desk.lines())


OF_ANOTHER_USER = "import ctypes, os, sys\nos.geteuid = lambda: 1 << 20"
"""As if the program had given up its rights: what it may read, its parent need not tell."""


@linux_only
def test_the_program_need_not_be_able_to_decode(desk: Desk, native: Native) -> None:
    tiny = native.tiny()
    desk.write("s.py", "import ctypes, sys\nctypes.CDLL(sys.argv[1])\nsys.modules['dataclasses'] = None")
    assert desk.traced("s.py", str(tiny), form="jsonl") == Ran(0, "", "")
    assert desk.notes() == "" and tiny.name in desk.report.read_text()


@linux_only
@pytest.mark.parametrize("change", ["", OF_ANOTHER_USER], ids=["decoded by its parent", "decoded by itself"])
def test_places_are_looked_at_as_the_program_sees_them(desk: Desk, change: str) -> None:
    (desk.folder / "deep").mkdir()
    desk.write("deep/libno.so", "no image")
    code = f"import os, ctypes\nos.chdir('deep')\n{change}\ntry: ctypes.CDLL('./libno.so')\nexcept OSError: pass"
    assert desk.traced("-c", code, form="jsonl") == Ran(0, "", "")
    failed = [line for line in desk.report.read_text().splitlines() if "libno.so" in line]
    assert len(failed) == 1 and "not an ELF file" in failed[0] and '"refused"' in failed[0]


@linux_only
def test_a_trace_that_cannot_be_ended_is_salvaged(desk: Desk, native: Native) -> None:
    tiny = native.tiny()
    desk.write("s.py", f"{OF_ANOTHER_USER}\nctypes.CDLL(sys.argv[1])\nsys.modules['dataclasses'] = None")
    assert desk.traced("s.py", str(tiny), form="jsonl") == Ran(0, "", "")
    assert "could not be ended in the program" in desk.notes()
    assert tiny.name in desk.report.read_text()


@posix_only
def test_a_forked_child_does_not_write_the_recording(desk: Desk, native: Native) -> None:
    theirs, ours = native.tiny(), native.tiny()
    desk.write(
        "s.py",
        """
        import ctypes, os, sys
        if os.fork() == 0:
            ctypes.CDLL(sys.argv[1])
            sys.exit(9)
        print(os.waitstatus_to_exitcode(os.wait()[1]))
        ctypes.CDLL(sys.argv[2])
        """,
    )
    assert desk.traced("s.py", str(theirs), str(ours)) == Ran(0, "9\n", "")
    assert theirs.name not in desk.report.read_text() and ours.name in desk.report.read_text()


@posix_only
@pytest.mark.parametrize("to_group", [True, False])
def test_signals_from_outside(desk: Desk, to_group: bool) -> None:
    wanted = signal.SIGINT if to_group else signal.SIGTERM
    desk.write("s.py", "import signal\nprint('ready', flush=True)\nsignal.pause()")
    with subprocess.Popen(
        [sys.executable, "-m", "dlltracer", "run", "-o", str(desk.report), "s.py"],
        cwd=desk.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        (os.killpg if to_group else os.kill)(process.pid, wanted)
        try:
            process.communicate(timeout=60)
        finally:
            process.kill()  # for nothing when it has ended; else the test would wait for ever
    assert process.returncode == -wanted
    assert "traced by" in desk.report.read_text()


@posix_only
def test_what_was_handed_down_reaches_the_program(desk: Desk) -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"handed down")
        code = f"import os; print(os.read({reading}, 99)); print(os.open('/', os.O_RDONLY) < 200)"
        assert desk.traced("-c", code, pass_fds=(reading,)) == Ran(0, "b'handed down'\nTrue\n", "")
    finally:
        os.close(reading)
        os.close(writing)


def run_only(desk: Desk, *words: str) -> Ran:
    return desk.run(["-m", "dlltracer", "run", *words])


def test_a_trace_that_cannot_start_runs_nothing(desk: Desk) -> None:
    other = "etw" if LINUX else "rtld"
    for words, printed in (
        (["--backend", "magic", "-c", "print(1)"], "unknown backend 'magic'"),
        (["--backend", other, "-c", "print(1)"], "not available here"),
        (["--backend", "debugger" if LINUX else "snapshot", "-c", "print(1)"], "not available here"),
        (["-o", "no/such/folder/f", "-c", "print(1)"], "cannot write no/such/folder/f"),
        (["-o", ".", "-c", "print(1)"], "cannot write ."),
    ):
        ran = run_only(desk, *words)
        assert (ran.status, ran.stdout, ran.stderr.count("\n")) == (2, "", 1), ran
        assert ran.stderr.startswith("dlltracer: error: ") and printed in ran.stderr
    assert list(desk.folder.iterdir()) == []


def test_usage(desk: Desk) -> None:
    for words, printed in (
        ([], "no program was given"),
        (["--failed-only"], "no program was given"),
        (["-c"], "argument expected for the -c option"),
        (["--frmat", "x", "s.py"], "--frmat"),
        (["--format", "xml", "s.py"], "xml"),
    ):
        ran = run_only(desk, *words)
        assert (ran.status, ran.stdout) == (2, "")
        assert printed in ran.stderr and "Usage: dlltracer run" in ran.stderr and "Traceback" not in ran.stderr


@posix_only
def test_report_to_stdout_does_not_cut_what_the_program_wrote(desk: Desk) -> None:
    for name in ("/dev/stdout", "-"):
        with desk.report.open("w") as file:
            file.write("before\n")
            file.flush()
            command = [sys.executable, "-m", "dlltracer", "run", "-o", name, "-c", "print('the program')"]
            subprocess.run(command, stdout=file, check=True, cwd=desk.folder)
        assert desk.lines()[:2] == ["before", "the program"] and "traced by" in desk.lines()[-1]


@posix_only
def test_report_to_a_pipe_and_over_an_old_file(desk: Desk) -> None:
    os.mkfifo(desk.folder / "fifo")
    with subprocess.Popen(["cat", desk.folder / "fifo"], stdout=subprocess.PIPE, text=True) as cat:
        assert run_only(desk, "-o", "fifo", "-c", "pass") == Ran(0, "", "")
        assert "traced by" in cat.communicate(timeout=60)[0]
    (desk.folder / "old").write_text("old\n" * 1000)
    (desk.folder / "old").chmod(0o604)
    (desk.folder / "link").symlink_to("old")
    assert run_only(desk, "-o", "link", "-c", "pass") == Ran(0, "", "")
    assert "old" not in (desk.folder / "old").read_text() and (desk.folder / "link").is_symlink()
    assert (desk.folder / "old").stat().st_mode & 0o777 == 0o604


def test_importing_the_package_imports_nothing_of_the_command_line(run_python: Callable[..., Ran]) -> None:
    result = run_python("import sys, dlltracer; print(sorted({'click', 'rich', 'dlltracer.cli'} & set(sys.modules)))")
    assert result.stdout == "[]\n"


def test_the_program_sees_no_more_modules_than_the_core_needs(desk: Desk) -> None:
    code = "import sys; print(*sorted(sys.modules), sep='\\n')"
    plain = set(desk.run(["-c", code]).stdout.split())
    new = set(desk.traced("-c", code).stdout.split()) - plain
    heavy = {
        "click",
        "rich",
        "dataclasses",
        "enum",
        "inspect",
        "json",
        "re",
        "subprocess",
        "tempfile",
        "typing",
        "uuid",
    }
    assert new & heavy == set() and any(name.startswith("dlltracer.") for name in new)
