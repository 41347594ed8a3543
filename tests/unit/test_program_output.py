"""What programs write before they end, read for what loaders, runtimes and Python say in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.diagnose.loader_errors import DlProblem
from dlltracer.diagnose.program_output import (
    OutputKind,
    child_failure,
    last_traceback,
    modules_in_crashes,
    read_output,
    relevant_lines,
    thread_failure,
    with_remote_errors,
)
from dlltracer.model.failure import PythonError
from dlltracer.model.run import ProgramOutput


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize(
    ("line", "program", "problem"),
    [
        ("app: error while loading shared libraries: libx.so.1: cannot open shared object file: No such file or "
         "directory", "app", DlProblem.MISSING),
        ("python3: symbol lookup error: /a/ext.so: undefined symbol: f", "python3", DlProblem.MISSING_SYMBOL),
        ("app: /a/libz.so.1: version `Z_1.3' not found (required by /b/liby.so)", "app", DlProblem.MISSING_VERSION),
        ("Error loading shared library libx.so.1: No such file or directory (needed by /a/ext.so)", None,
         DlProblem.MISSING),
    ],
)  # fmt: skip
def test_what_loaders_write(line: str, program: str | None, problem: DlProblem) -> None:
    (message,) = read_output(f"some words\n{line}\nmore: of them\n")
    assert (message.kind, message.program) == (OutputKind.LOADER, program)
    assert message.dl_error is not None and message.dl_error.problem is problem


def test_several_lines_of_an_abort_are_one_message() -> None:
    text = "[registry] File already exists in database: a.proto\nterminate called after throwing\n  what():  no\n"
    (message,) = read_output(text)
    assert message.kind is OutputKind.ABORT and len(message.lines) == 3
    assert relevant_lines(ProgramOutput(stderr=text), (message,)) == message.lines


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("==7==ASan runtime does not come first in initial library list", OutputKind.SANITIZER),
        ("==7==ERROR: AddressSanitizer: heap-use-after-free", OutputKind.SANITIZER),
        ('qt.qpa.plugin: Could not load the Qt platform plugin "xcb" in "" even though it was found', OutputKind.ABORT),
        ("*** stack smashing detected ***: terminated", OutputKind.ABORT),
        ("free(): invalid pointer", OutputKind.ABORT),
        ("x: a.c:3: f: Assertion `n > 0' failed.", OutputKind.ABORT),
    ],
)
def test_what_runtimes_write(line: str, kind: OutputKind) -> None:
    (message,) = read_output(line)
    assert (message.kind, message.lines) == (kind, (line,))


def test_the_exception_of_a_thread() -> None:
    code = "import threading; threading.Thread(target=lambda: 1/0, name='T').start()"
    message = thread_failure(read_output(run(code)))
    assert message is not None and message.error is not None
    assert (message.error.type, message.error.message) == ("ZeroDivisionError", "division by zero")
    assert message.thread is not None and message.thread.startswith("T")


def test_the_exception_of_a_thread_is_not_that_of_the_program() -> None:
    assert thread_failure(read_output(run("1/0"))) is None


def test_the_last_traceback_with_its_lines(tmp_path: Path) -> None:
    script = tmp_path / "app.py"
    script.write_text(
        "def f():\n    raise ImportError('libx.so: gone')\ntry:\n    1/0\nexcept ArithmeticError:\n    f()\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    message = last_traceback(read_output(f"{done.stderr}bye: now\n"))
    assert message is not None and message.error is not None
    error = message.error
    assert (error.type, error.message, error.bases[0]) == ("ImportError", "libx.so: gone", "ImportError")
    assert [frame.source for frame in error.frames] == ["f()", "raise ImportError('libx.so: gone')"]
    assert last_traceback(read_output("no traceback at all")) is None


def test_a_module_that_was_not_found_has_its_name() -> None:
    message = last_traceback(read_output(run("import no_such_module_x.y")))
    assert message is not None and message.error is not None and message.error.name == "no_such_module_x"


def test_a_traceback_of_our_own_frames_hides_them() -> None:
    frames = '  File "/tool/x.py", line 1, in f\n    g()\n  File "/app.py", line 2, in g\n'
    text = f"Traceback (most recent call last):\n{frames}OSError: no\n"
    (message,) = read_output(text, hidden="/tool")
    assert message.error is not None and [frame.file for frame in message.error.frames] == ["/app.py"]


def test_a_child_that_died() -> None:
    text = "Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f (most recent call first):\n" \
        '  File "/app.py", line 3 in work\n  File "/lib/pool.py", line 9 in main\n'  # fmt: skip
    message = child_failure(read_output(text))
    assert message is not None and message.kind is OutputKind.CRASH
    assert [(frame.file, frame.line) for frame in message.frames] == [("/lib/pool.py", 9), ("/app.py", 3)]
    assert modules_in_crashes((message,)) == (), "the text of the lines is not in the dump"


def test_the_exception_that_a_pool_hands_over() -> None:
    text = (
        '\n"""\nTraceback (most recent call last):\n  File "/lib/concurrent/futures/process.py", line 261, in w\n'
        '    r = f()\n        ^^^\n  File "/app.py", line 4, in work\n    import ext\nImportError: libx.so.1: gone\n"""'
    )
    outer = PythonError("ImportError", "libx.so.1: gone", ("ImportError",), "ext", "/site/ext.so")
    (found,) = with_remote_errors((outer, PythonError("_RemoteTraceback", text)))
    assert (found.path, [frame.source for frame in found.frames]) == ("/site/ext.so", ["import ext"])
    kept = with_remote_errors((outer, PythonError("_RemoteTraceback", "no traceback")))
    assert len(kept) == 2


def test_the_lines_to_show() -> None:
    output = ProgramOutput(stdout="out\n", stderr="".join(f"{number}\n" for number in range(20)))
    assert relevant_lines(output, ()) == tuple(str(number) for number in range(12, 20))
    assert relevant_lines(ProgramOutput(stdout="out\n", stderr=" \n"), ()) == ("out",)
    text = run("import sys; print('giving up', file=sys.stderr); 1/0")
    assert relevant_lines(ProgramOutput(stderr=text), read_output(text)) == ("giving up",)


@given(st.text(max_size=400) | st.lists(st.sampled_from(
    ["Traceback (most recent call last):", '  File "a", line 1, in f', "    x", "E: m", "Fatal Python error: Aborted",
     "Current thread 0x1 (most recent call first):", '  File "a", line 1 in f', "a: symbol lookup error: b: c", ""]
), max_size=30).map("\n".join))  # fmt: skip
def test_any_text_is_taken(text: str) -> None:
    messages = read_output(text)
    assert all(line for message in messages for line in message.lines)
    assert len(relevant_lines(ProgramOutput(stderr=text), messages)) <= 8
