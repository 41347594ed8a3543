"""The words of a Windows command line. Pure.

Source: "Parsing C command-line arguments", MS Learn: words end at spaces and tabs outside of quotes; 2n backslashes
before a quote are n, and one more makes it a plain quote; two quotes inside of quotes are a plain one. In the first
word, which is the program, a backslash is nothing special.
"""

from __future__ import annotations


def split_words(line: str) -> tuple[str, ...]:
    """The words of a command line, as the C runtime hands them to a program."""
    words: list[str] = []
    at = 0
    while True:
        while at < len(line) and line[at] in " \t":
            at += 1
        if at >= len(line):
            return tuple(words)
        word, at = _program(line, at) if not words else _word(line, at)
        words.append(word)


def _program(line: str, at: int) -> tuple[str, int]:
    quoted = False
    word: list[str] = []
    while at < len(line) and (quoted or line[at] not in " \t"):
        if line[at] == '"':
            quoted = not quoted
        else:
            word.append(line[at])
        at += 1
    return "".join(word), at


def _word(line: str, at: int) -> tuple[str, int]:
    quoted = False
    word: list[str] = []
    while at < len(line) and (quoted or line[at] not in " \t"):
        slashes = 0
        while at < len(line) and line[at] == "\\":
            slashes += 1
            at += 1
        if at >= len(line) or line[at] != '"':
            word.append("\\" * slashes)
            if slashes:
                continue
            word.append(line[at])
        else:
            word.append("\\" * (slashes // 2))
            if slashes % 2:
                word.append('"')
            elif quoted and line[at + 1 : at + 2] == '"':
                word.append('"')
                at += 1
            else:
                quoted = not quoted
        at += 1
    return "".join(word), at
