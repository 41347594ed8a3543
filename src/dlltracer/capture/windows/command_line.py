"""The command line of a Windows process, taken apart. Pure.

Windows has one text; that it is words is a rule of the C runtime ("Parsing C command-line arguments", MS Learn), which
`subprocess.list2cmdline` is the inverse of. A program may read its text in another way.
"""

from __future__ import annotations


def split_command_line(text: str) -> tuple[str, ...]:
    """The words of a command line, the program first."""
    program, rest = _split_program(text.lstrip(" \t"))
    words = [program] if text.strip(" \t") else []
    word: list[str] = []
    is_word = is_quoted = False
    at = 0
    while at < len(rest):
        start = at
        while rest[at : at + 1] == "\\":
            at += 1
        backslashes = at - start
        character = rest[at : at + 1]
        if character == '"':
            word.append("\\" * (backslashes // 2))
            is_word = True
            if backslashes % 2:
                word.append('"')
            elif is_quoted and rest[at + 1 : at + 2] == '"':
                word.append('"')  # two in a quoted part are one of the text
                at += 1
            else:
                is_quoted = not is_quoted
        else:
            word.append("\\" * backslashes)
            is_word = is_word or backslashes > 0
            if character in (" ", "\t") and not is_quoted:
                if is_word:
                    words.append("".join(word))
                word, is_word = [], False
            elif character:
                word.append(character)
                is_word = True
        at += 1
    return (*words, "".join(word)) if is_word else tuple(words)


def _split_program(text: str) -> tuple[str, str]:
    """The first word, for which a backslash means nothing, and the rest."""
    quoted = False
    for at, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif character in " \t" and not quoted:
            return text[:at].replace('"', ""), text[at:]
    return text.replace('"', ""), ""
