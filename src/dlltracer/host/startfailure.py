"""Why a program could not be started, where the words of the system do not tell: links, scripts, loaders."""

from __future__ import annotations

import errno
import os
import shlex

from ..binary.elf import read_elf
from ..binary.reading import read_regular
from ..errors import BinaryFormatError

_MOST_LINKS = 40
"""Links that Linux follows for one path; path_resolution(7)."""
_MOST_OF_A_LINE = 256
"""Bytes of a script's first line that Linux reads (BINPRM_BUF_SIZE, linux/binfmts.h)."""


def describe_start_failure(program: str, error: OSError) -> str:
    """Return the sentence on a program that could not be started.

    execve(2) says "No such file or directory" for a program that is there, too: of a link that leads nowhere, of the
    interpreter that a script names, and of the loader that an ELF program names (PT_INTERP).

    Arguments: `program`, a path or a name of PATH; `error`, what starting it raised.
    """
    said = f"{program} could not be started: {error.strerror or error}"
    if error.errno != errno.ENOENT or os.sep not in program:
        return said
    cause = _broken_link(program) or _missing_interpreter(program)
    return f"{said}: {cause}" if cause else said


def _broken_link(program: str) -> str | None:
    path = program
    for _ in range(_MOST_LINKS):
        try:
            target = os.readlink(path)
        except OSError:
            break
        path = os.path.join(os.path.dirname(path), target)
    if path == program or os.path.lexists(path):
        return None
    environment = os.path.dirname(os.path.dirname(os.path.abspath(program)))
    words = f"it is a link that leads to {os.path.normpath(path)}, and there is no such file"
    if os.path.basename(program).startswith("python"):
        is_venv = os.path.basename(os.path.dirname(program)) == "bin"
        made = f" (python3 -m venv --clear {shlex.quote(environment)})" if is_venv else ""
        words += f". Install that Python again, or make the environment anew with one that is there{made}"
    return words


def _missing_interpreter(program: str) -> str | None:
    try:
        head = read_regular(program, _MOST_OF_A_LINE)
        if head.startswith(b"#!"):
            words = head[2:].splitlines()[0].split()
            named = os.fsdecode(words[0]) if words else ""
            if named and not os.path.exists(named):
                return f"its first line names {named}, and there is no such file"
            return None
        loader = read_elf(program).interpreter
    except (OSError, BinaryFormatError):
        return None
    if loader and not os.path.exists(loader):
        return (
            f"its loader is {loader}, and there is no such file: it was built for another C library, another kind of "
            "processor or another system"
        )
    return None
