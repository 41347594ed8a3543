"""Windows command lines as words: the inverse of `subprocess.list2cmdline`, and Microsoft's own examples."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlltracer.capture.windows.image_records import split_command_line

WORDS = st.text(st.sampled_from('ab \t"\\\u00e9'), max_size=12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # "Parsing C command-line arguments", MS Learn: its table.
        (r'x "a b c" d e', ("x", "a b c", "d", "e")),
        (r'x "ab\"c" "\\" d', ("x", 'ab"c', "\\", "d")),
        (r'x a\\\b d"e f"g h', ("x", r"a\\\b", "de fg", "h")),
        (r"x a\\\"b c d", ("x", r"a\"b", "c", "d")),
        (r'x a\\\\"b c" d e', ("x", r"a\\b c", "d", "e")),
        (r'x a"b"" c d', ("x", 'ab" c d')),
        (r'x "abc" d e', ("x", "abc", "d", "e")),
        (r"x a\\b d\"e f\"g h", ("x", r"a\\b", 'd"e', 'f"g', "h")),
        (r'"C:\Program Files\x.exe" -c "import ssl"', (r"C:\Program Files\x.exe", "-c", "import ssl")),
        ('x "" y', ("x", "", "y")),
        # Of the program a backslash is a backslash.
        (r'"C:\Program Files\x\" y', ("C:\\Program Files\\x\\", "y")),
        (r'C:\a\"b c"\x.exe y', (r"C:\a\b c\x.exe", "y")),
        ("", ()),
        ("   x  ", ("x",)),
        ('""', ("",)),
        ('x ""', ("x", "")),
        ("x \\", ("x", "\\")),
    ],
)
def test_the_words(text: str, words: tuple[str, ...]) -> None:
    assert split_command_line(text) == words


@given(st.lists(WORDS, max_size=5))
def test_it_is_the_inverse_of_what_python_writes(words: list[str]) -> None:
    assert split_command_line(subprocess.list2cmdline(["x.exe", *words])) == ("x.exe", *words)


@given(st.text(max_size=60))
def test_no_text_raises(text: str) -> None:
    words = split_command_line(text)
    assert all(isinstance(word, str) for word in words)
    assert sum(map(len, words)) <= len(text)
