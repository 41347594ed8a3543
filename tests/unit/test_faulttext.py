"""What a dying interpreter writes, read back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dlltracer.diagnose.program_output import read_output
from dlltracer.host.failure import read_fault_frames

DIED = """\
some words of the program
Fatal Python error: Segmentation fault

Thread 0x00007f0000000001 (most recent call first):
  File "/lib/threading.py", line 10 in wait

Current thread 0x00007f0000000000 (most recent call first):
  File "<frozen importlib._bootstrap>", line 241 in _call_with_frames_removed
  File "/app/main.py", line 3 in <module>
  File "/tool/cli/child_main.py", line 40 in main

Extension modules: a, b (total: 2)
"""


def test_the_lines_of_the_thread_that_died() -> None:
    frames = read_fault_frames(DIED, hidden="/tool")
    assert [(frame.file, frame.line) for frame in frames] == [
        ("/app/main.py", 3),
        ("<frozen importlib._bootstrap>", 241),
    ]


def test_the_lines_of_the_main_thread_of_a_process_that_hangs() -> None:
    threads = DIED.replace("Current thread", "Thread")
    assert read_fault_frames(threads, hidden="/tool") == ()
    assert [frame.line for frame in read_fault_frames(threads, hidden="/tool", main=True)] == [3, 241]


def test_a_free_threaded_python_shows_one_thread() -> None:
    text = DIED.partition("Thread 0x")[0] + "<Cannot show all threads while the GIL is disabled>\n"
    text += "Stack (most recent call first):\n" + DIED.partition("Current thread")[2].partition("\n")[2]
    text += "\nCurrent thread's C stack trace (most recent call first):\n  Binary file \"/bin/python\" [0x667b4a]\n"
    assert read_fault_frames(text, hidden="/tool") == read_fault_frames(DIED, hidden="/tool") != ()
    (message,) = read_output(text, hidden="/tool")
    assert [frame.line for frame in message.frames] == [3, 241]


def test_no_thread_no_lines() -> None:
    assert read_fault_frames("Segmentation fault") == ()


def test_what_this_python_writes() -> None:
    code = "import faulthandler, os, signal\nfaulthandler.enable()\nos.kill(os.getpid(), signal.SIGSEGV)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if sys.platform != "win32":
        assert [frame.line for frame in read_fault_frames(done.stderr)] == [3]


@given(st.text(max_size=300))
def test_any_text_is_taken(text: str) -> None:
    for output in (text, f"Current thread 0x1 (most recent call first):\n{text}"):
        assert len(read_fault_frames(output)) <= output.count("\n") + 1


def test_names_that_are_not_ascii_are_those_of_the_files(tmp_path: Path) -> None:
    written = {"\u00e9.py": r"\xe9.py", "\u6f22.py": r"\u6f22.py", "\U0001f600.py": r"\U0001f600.py"}
    for name, escaped in written.items():
        text = f'Current thread 0x1 (most recent call first):\n  File "{tmp_path}/{escaped}", line 1 in f\n'
        (gone,) = read_fault_frames(text)
        assert gone.file == f"{tmp_path}/{escaped}", "no file decides what it means"
        (tmp_path / name).write_text("call()\n", encoding="utf-8")
        (frame,) = read_fault_frames(text)
        assert (frame.file, frame.source) == (f"{tmp_path}/{name}", "call()")
