"""Commands as they are pasted: real shells read each word as it was, and what they would not read so is not shown."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlltracer.model.failure import System
from dlltracer.model.finding import Remedy
from dlltracer.report.render_verdict import join_command, remedy_line

SHELLS = [shell for name in ("sh", "dash", "bash", "zsh", "busybox") if (shell := shutil.which(name))]
SPICY = st.text(st.sampled_from(list(" $`\"'\\;&|<>()*?[]{}~#!%^=@,-+\n\t\x1b\u202e\u201cabc/:.éü")), max_size=12)
WORDS = st.lists(SPICY | st.text(max_size=8), min_size=1, max_size=5)


@pytest.mark.skipif(not SHELLS, reason="no shell of POSIX here")
@settings(deadline=None, max_examples=60)
@given(WORDS)
def test_a_real_shell_reads_the_words_as_they_were(words: list[str]) -> None:
    line = join_command(["printf", "%s\\0", *words], System.LINUX)
    if line is None:
        assert any(not word.isprintable() for word in words)
        return
    assert "\n" not in line
    for shell in SHELLS:
        applet = ["sh"] if shell.endswith("busybox") else []
        done = subprocess.run([shell, *applet, "-c", line], capture_output=True, check=True, timeout=60)
        assert done.stdout.decode().split("\0")[:-1] == words and done.stderr == b""


@pytest.mark.skipif(not SHELLS, reason="no shell of POSIX here")
@pytest.mark.parametrize(
    "name", ["$(touch pwn)", "`touch pwn`", "a b", "; touch pwn #", "'; touch pwn; '", "-rf", "a\\", "*"]
)
def test_a_folder_of_any_name_is_harmless(tmp_path: Path, name: str) -> None:
    line = join_command(("env", f"LD_LIBRARY_PATH=/{name}", "printenv", "LD_LIBRARY_PATH"), System.LINUX)
    assert line is not None
    done = subprocess.run([SHELLS[0], "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"/{name}\n" and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("system", [System.LINUX, System.WINDOWS, System.OTHER])
@pytest.mark.parametrize("word", ["a\nb", "a\x1b[31m", "\x9b1m", "\u202eabc", "a\0b", "\udc80", "\u200b", "a\rb"])
def test_what_cannot_be_seen_is_not_pasted(system: System, word: str) -> None:
    assert join_command(("ls", word), system) is None
    assert remedy_line(Remedy("look", ("ls", word)), system) == ""
    assert remedy_line(Remedy("look", code=f"print({word!r})"), system).startswith("print(") and word not in repr(word)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("C:\\Py\\python.exe", "-m", "pip", "install", "x"), "C:\\Py\\python.exe -m pip install x"),
        (("C:\\Program Files\\p.exe", "-m", "pip"), '"C:\\Program Files\\p.exe" -m pip'),
        (("pip", "install", "numpy==1", "torch>=2.4.1"), 'pip install numpy==1 "torch>=2.4.1"'),
        (("icacls", "C:\\a&b\\x"), 'icacls "C:\\a&b\\x"'),
        (("icacls", "C:\\a b\\"), 'icacls "C:\\a b\\\\"'),
        (("conda", "activate", "C:\\Übung"), 'conda activate "C:\\Übung"'),
        (("Add-WindowsCapability", "-Online", "-Name", "Media.MediaFeaturePack~~~~0.0.1.0"),
         "Add-WindowsCapability -Online -Name Media.MediaFeaturePack~~~~0.0.1.0"),
        (("x", "-a.b", "a,b", "@x", "", "~", "'a'"), 'x "-a.b" "a,b" "@x" "" "~" "\'a\'"'),
    ],
)  # fmt: skip
def test_words_for_both_shells_of_windows(words: tuple[str, ...], line: str) -> None:
    assert join_command(words, System.WINDOWS) == line


@pytest.mark.parametrize("word", ["%PATH%", "$x", "$(calc)", "a`b", 'a"b', "a!b!", "\u201ccalc\u201d", "it\u2019s"])
def test_what_either_shell_of_windows_expands_even_in_quotes_is_not_shown(word: str) -> None:
    assert join_command(("icacls", word), System.WINDOWS) is None


@given(WORDS)
def test_no_word_gets_out_of_its_quotes_on_windows(words: list[str]) -> None:
    """A pure reader of the quotes, the same for both shells; outside of them only harmless characters are left."""
    line = join_command(words, System.WINDOWS)
    if line is None:
        return
    parts = re.findall(r'"([^"]*)"|([^" ]+)(?= |$)', line)
    read = [plain or re.sub(r"(\\+)$", lambda found: "\\" * (len(found[1]) // 2), quoted) for quoted, plain in parts]
    assert read == words
    assert not re.search(r"[&|<>^()@;,'#{}*?\[\]]", re.sub(r'"[^"]*"', "", line))
    assert not re.search(r"[%$`!]", line)


def test_there_may_be_nothing_to_type() -> None:
    assert remedy_line(Remedy("think"), System.LINUX) == "" and join_command((), System.WINDOWS) is None
    assert remedy_line(Remedy("think", code="import os"), System.LINUX) == "import os"
